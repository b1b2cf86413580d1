//! A `canary run` under test: one stable and one canary cgroup, a journal that outlives the process, its output by line.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Context as _;
use canary_user::{
    guard::Stage,
    journal::{HistoryEntry, Journal},
};

use crate::{Sandbox, program::program, wait_until};

/// Long enough for any machine: what takes longer is broken.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A program for the orchestrator "command": a shell script; its path.
pub fn script(dir: &Path, name: &str, text: &str) -> anyhow::Result<String> {
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
    Ok(path.display().to_string())
}

/// The cgroups with their processes, and the directory of configuration, journal and pause file.
pub struct Guarded {
    sandbox: Sandbox,
    dir: tempfile::TempDir,
    canary: Child,
}

/// One life of the guard. Dropping it is `kill -9`.
pub struct Life {
    child: Child,
    /// Windows in which this life found the canary condemned.
    condemned: Arc<AtomicU32>,
    windows: Arc<AtomicU32>,
}

impl Guarded {
    /// `victim` is the program `victim` of this package; `on_term` is what it does at SIGTERM: "stay" or "end".
    pub fn new(victim: &str, on_term: &str) -> anyhow::Result<Self> {
        Self::by(victim, on_term, |_, _| Ok("orchestrator = \"process\"\ngrace = \"60s\"".into()))
    }

    /// The same; `orchestrator` makes the keys of who carries decisions out, from the directory and that of the canary's cgroup.
    pub fn by(
        victim: &str,
        on_term: &str,
        orchestrator: impl FnOnce(&Path, &Path) -> anyhow::Result<String>,
    ) -> anyhow::Result<Self> {
        Self::in_mode("rollback", victim, on_term, orchestrator)
    }

    /// The same, where the guard may go as far as `mode`.
    pub fn in_mode(
        mode: &str,
        victim: &str,
        on_term: &str,
        orchestrator: impl FnOnce(&Path, &Path) -> anyhow::Result<String>,
    ) -> anyhow::Result<Self> {
        let sandbox = Sandbox::new()?;
        let dir = tempfile::tempdir()?;
        let (stable, canary) = (sandbox.cgroup("stable")?, sandbox.cgroup("canary")?);
        let orchestrator = orchestrator(dir.path(), &sandbox.root.dir(&canary))?;
        let text = format!(
            "window = \"100ms\"\njournal = \"{dir}/journal.db\"\npause_file = \"{dir}/pause\"\napi.socket = \"{dir}/canary.sock\"\n\
             [[deployment]]\nname = \"test\"\nmode = \"{mode}\"\n{orchestrator}\n\
             budget = {{ per_hour = 60, cooldown = \"0s\" }}\n\
             stable = {{ cgroup = \"{stable}\" }}\ncanary = {{ cgroup = \"{canary}\" }}\n",
            dir = dir.path().display()
        );
        fs::write(dir.path().join("canary.toml"), text)?;
        sandbox.run(&stable, "exec sleep 600")?;
        let script = format!("exec {victim} {on_term} {}", dir.path().display());
        let canary = sandbox.run(&canary, &script)?;
        let guarded = Self { sandbox, dir, canary };
        wait_until("the victim listens for SIGTERM", PATIENCE, || guarded.file("ready").exists())?;
        Ok(guarded)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// From now on the canary's children crash.
    pub fn crash(&self) -> anyhow::Result<()> {
        fs::write(self.file("crash"), "").context("tell the victim to crash its children")
    }

    /// Decisions for which the orchestrator was called.
    pub fn calls(&self) -> usize {
        self.stages().iter().filter(|stages| stages.contains(&Stage::Applying)).count()
    }

    /// What the newest decision says of a stage that it has come to.
    pub fn detail(&self, stage: Stage) -> String {
        let newest = self.history().into_iter().next();
        let told = newest.and_then(|entry| entry.stages.into_iter().find(|s| s.stage == stage));
        told.map(|s| s.detail).unwrap_or_default()
    }

    /// SIGTERMs that reached the canary's process.
    pub fn terms(&self) -> usize {
        fs::read_to_string(self.file("terms")).unwrap_or_default().lines().count()
    }

    pub fn lives(&mut self) -> anyhow::Result<bool> {
        Ok(self.canary.try_wait()?.is_none())
    }

    /// What the journal says, newest decision first; empty while there is no journal.
    pub fn history(&self) -> Vec<HistoryEntry> {
        Journal::open_to_read(&self.file("journal.db")).and_then(|j| j.history(100)).unwrap_or_default()
    }

    /// Each decision's stages, oldest decision first.
    pub fn stages(&self) -> Vec<Vec<Stage>> {
        self.history().iter().rev().map(|e| e.stages.iter().map(|s| s.stage).collect()).collect()
    }

    /// Waits for a stage of the newest decision.
    pub fn until(&self, stage: Stage) -> anyhow::Result<()> {
        let reached = || self.stages().last().is_some_and(|stages| stages.contains(&stage));
        wait_until(stage.name(), PATIENCE, reached).with_context(|| {
            let said = fs::read_to_string(self.file("log")).unwrap_or_default();
            format!("the journal: {:?}; the guard said: {said}", self.stages())
        })
    }

    pub fn start(&self) -> anyhow::Result<Life> {
        let mut child = Command::new(program("canary")?)
            .args(["run", "--output", "json", "--config"])
            .arg(self.file("canary.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::OpenOptions::new().create(true).append(true).open(self.file("log"))?)
            .spawn()
            .context("start the guard")?;
        let output = child.stdout.take().context("its output is piped")?;
        let (condemned, windows) = (Arc::<AtomicU32>::default(), Arc::<AtomicU32>::default());
        let (regressed, all) = (condemned.clone(), windows.clone());
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = String::new();
            // What has no end was being written when the guard was killed.
            while output.read_line(&mut line).is_ok() && line.ends_with('\n') {
                let window: serde_json::Value = serde_json::from_str(&line).expect("one JSON object a line");
                line.clear();
                all.fetch_add(1, Relaxed);
                regressed.fetch_add(u32::from(window["verdict"] == "regressed"), Relaxed);
            }
        });
        Ok(Life { child, condemned, windows })
    }
}

impl Life {
    /// Waits for further windows, of which this many condemn the canary.
    pub fn condemns_again(&self, windows: u32) -> anyhow::Result<()> {
        let until = self.condemned.load(Relaxed) + windows;
        wait_until("windows that condemn", PATIENCE, || self.condemned.load(Relaxed) >= until)
    }

    pub fn sees(&self, windows: u32) -> anyhow::Result<()> {
        let until = self.windows.load(Relaxed) + windows;
        wait_until("windows", PATIENCE, || self.windows.load(Relaxed) >= until)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // It is our child and not waited for yet: nothing else has its number.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the journal: {:#?}", self.history());
            println!("the guard said: {}", fs::read_to_string(self.file("log")).unwrap_or_default());
        }
        let _ = self.canary.kill();
        let _ = self.canary.wait();
        // The sandbox ends the rest.
        let _ = &self.sandbox;
    }
}
