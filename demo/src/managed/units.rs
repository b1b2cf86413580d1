//! Each instance is a unit of systemd, with a unit file below /run.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use canary_user::orchestrator::systemd::{
    bus::Session,
    jobs::{self, Verb},
};
use futures_util::future::join_all;

use super::{Found, PREFIX};

const UNIT_FILES: &str = "/run/systemd/system";
/// How long a job of ours may take.
const LIMIT: Duration = Duration::from_secs(30);

pub(super) struct Units {
    pub bus: String,
    session: Session,
    program: PathBuf,
    arguments: Vec<String>,
}

impl Units {
    pub async fn open(bus: &str, program: PathBuf, arguments: Vec<String>) -> anyhow::Result<Self> {
        const ADVICE: &str = "run the demo on a machine that systemd has booted, with its D-Bus (apt-get install dbus), or on \
                              another orchestrator: --orchestrator process or docker";
        // As sd_booted(3) does.
        ensure!(
            Path::new(UNIT_FILES).is_dir(),
            "process 1 of this machine is '{}' and not systemd: {ADVICE}",
            fs::read_to_string("/proc/1/comm").unwrap_or_default().trim()
        );
        let session = Session::open(bus).await.context(ADVICE)?;
        Ok(Self { bus: bus.to_owned(), session, program, arguments })
    }

    pub async fn start(&self, name: &str, dir: &Path) -> anyhow::Result<()> {
        let file = Path::new(UNIT_FILES).join(name);
        fs::write(&file, unit(&self.program, dir, &self.arguments))
            .with_context(|| format!("write {}", file.display()))?;
        self.session.manager.reload().await.context("have systemd read the demo's unit files")?;
        jobs::run(&self.session, Verb::Start, name, LIMIT).await.with_context(|| format!("start {name}"))
    }

    pub async fn found(&self, name: &str) -> anyhow::Result<Found> {
        let unit = self.session.unit(name).await?;
        Ok(Found {
            is_down: unit.is_down(),
            restarts: unit.number("NRestarts").unwrap_or_default(),
            words: unit.to_string(),
        })
    }

    pub async fn remove_all(&self) -> anyhow::Result<()> {
        let pattern = format!("{PREFIX}*.service");
        let listed = self.session.manager.list_units_by_patterns(&[], &[&pattern]).await;
        let names: Vec<String> = listed.context("ask systemd for the demo's units")?.into_iter().map(|l| l.0).collect();
        let stopped = join_all(names.iter().map(|name| jobs::run(&self.session, Verb::Stop, name, LIMIT))).await;
        for name in &names {
            // It fails where the unit is gone already.
            let _ = self.session.manager.reset_failed_unit(name).await;
        }
        let mut removed = false;
        for entry in fs::read_dir(UNIT_FILES).with_context(|| format!("list {UNIT_FILES}"))? {
            let entry = entry.with_context(|| format!("list {UNIT_FILES}"))?;
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                match fs::remove_file(entry.path()) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => {
                        return Err(e).with_context(|| format!("remove {}", entry.path().display()));
                    }
                    _ => removed = true,
                }
            }
        }
        if removed {
            self.session.manager.reload().await.context("have systemd forget the demo's units")?;
        }
        for (name, stopped) in names.iter().zip(stopped) {
            stopped.with_context(|| format!("stop {name}"))?;
        }
        Ok(())
    }
}

/// A unit file. A crash loop goes on until somebody stops it.
fn unit(program: &Path, dir: &Path, arguments: &[String]) -> String {
    let more: String = arguments.iter().map(|argument| format!(" {}", quoted(argument))).collect();
    format!(
        "[Unit]\n\
         Description=An instance of the canary guard's demo\n\
         StartLimitIntervalSec=0\n\
         [Service]\n\
         Type=exec\n\
         ExecStart={} serve --registry {}{more}\n\
         Restart=on-failure\n\
         RestartSec=20ms\n\
         TimeoutStopSec=5s\n",
        quoted(&program.to_string_lossy()),
        quoted(&dir.to_string_lossy())
    )
}

/// As one word of a command line: systemd.service(5), "Command lines", and systemd.unit(5), "Specifiers".
fn quoted(text: &str) -> String {
    let mut word = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => word.extend(['\\', character]),
            '%' | '$' => word.extend([character, character]),
            _ => word.push(character),
        }
    }
    word + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_one_word_and_hold_no_specifier() {
        assert_eq!(quoted("/home/a b/100%/$x/\"q\"\\"), r#""/home/a b/100%%/$$x/\"q\"\\""#);
        let unit = unit(Path::new("/bin/demo"), Path::new("/run/d"), &["--log-thread".into()]);
        assert!(unit.contains("\nExecStart=\"/bin/demo\" serve --registry \"/run/d\" \"--log-thread\"\n"), "{unit}");
    }
}
