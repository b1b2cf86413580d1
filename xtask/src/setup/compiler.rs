//! Gets a compiler that has, or can build, `core` for the BPF target, when the machine has none.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{From, packages};
use crate::{
    progress::Step,
    toolchain::{self, Compiler, LLVM_MAJORS},
};

/// rustc 1.91 is the first with LLVM 21, the oldest that bpf-linker can be built for.
const OLDEST_RUSTC: (u32, u32) = (1, 91);
const DEBIAN_PACKAGES: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];

/// rustup tells within seconds whether its server answers; a machine that cannot download is not worth more.
const FIRST_ANSWER: Duration = Duration::from_secs(20);
const DOWNLOAD: Duration = Duration::from_secs(300);

pub fn install(from: From) -> Result<Compiler> {
    let mut tried = Vec::new();
    for way in [From::Rustup, From::Debian] {
        if from != From::Any && from != way {
            continue;
        }
        let installed = if way == From::Rustup { by_rustup() } else { by_debian() };
        match installed.map(|()| toolchain::find_compiler()) {
            Ok(Some(compiler)) => return Ok(compiler),
            Ok(None) => tried.push(format!(
                "{way:?}: installed, but its compiler has no `core` for {} or an LLVM outside {} to {}",
                toolchain::TARGET,
                LLVM_MAJORS.start(),
                LLVM_MAJORS.end()
            )),
            Err(error) => tried.push(format!("{way:?}: {error:#}")),
        }
    }
    bail!(
        "no compiler for the kernel programs could be had. Tried:\n- {}\nBy hand, one of:\n\
         - rustup toolchain install nightly --profile minimal --component rust-src\n\
         - apt-get install --no-install-recommends {} (Debian 12 or later with its security updates)\n\
         - CANARY_BPF_RUSTC=<a rustc whose sysroot has {}>",
        tried.join("\n- "),
        DEBIAN_PACKAGES.join(" "),
        toolchain::TARGET
    )
}

fn by_rustup() -> Result<()> {
    if !packages::runs(Command::new("rustup").arg("--version")) {
        bail!("rustup is not on the PATH");
    }
    let step = Step::start("nightly compiler with rust-src by rustup");
    let had_nightly = has_nightly()?;
    let arguments: &[&str] = if had_nightly {
        // Of the same date as the nightly that is there: someone may rely on that one.
        &["component", "add", "rust-src", "--toolchain", "nightly"]
    } else {
        &["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src", "--no-self-update"]
    };
    if let Err(error) = rustup(&step, arguments) {
        if !had_nightly {
            // Half of a toolchain would be taken for a whole one next time.
            packages::runs(Command::new("rustup").args(["toolchain", "uninstall", "nightly"]));
        }
        step.unavailable("rustup could not get it");
        return Err(error);
    }
    step.done("installed");
    Ok(())
}

/// Whether there is a toolchain of the name `nightly`, in whatever state.
fn has_nightly() -> Result<bool> {
    let output = Command::new("rustup").args(["toolchain", "list"]).output().context("list rustup's toolchains")?;
    if !output.status.success() {
        bail!("rustup toolchain list ended with {}", output.status);
    }
    let list = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(list.lines().any(is_nightly))
}

/// `nightly-x86_64-unknown-linux-gnu`, but not the one of a date: `nightly-2026-01-01-x86_64-unknown-linux-gnu`.
fn is_nightly(toolchain: &str) -> bool {
    let host = toolchain.strip_prefix("nightly-");
    host.is_some_and(|host| !host.starts_with(|c: char| c.is_ascii_digit()))
}

/// Runs rustup under two limits: a short one until its server has answered, a long one for the download.
fn rustup(step: &Step, arguments: &[&str]) -> Result<()> {
    let shown = format!("rustup {}", arguments.join(" "));
    let mut child = Command::new("rustup")
        .args(arguments)
        .env("RUSTUP_MAX_RETRIES", "0")
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {shown}"))?;
    let stderr = child.stderr.take().expect("stderr was asked to be piped");
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            // The receiver is gone once the time is up.
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let started = Instant::now();
    let mut limit = FIRST_ANSWER;
    let mut said = Vec::new();
    loop {
        match lines.recv_timeout(limit.saturating_sub(started.elapsed())) {
            Ok(line) => {
                step.detail(&line);
                if line.contains("latest update on") || line.contains("downloading") {
                    limit = DOWNLOAD;
                }
                said.push(line);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                child.kill().with_context(|| format!("stop {shown}"))?;
                child.wait().with_context(|| format!("wait for {shown}"))?;
                bail!("{shown} had no answer within {} s: {}", limit.as_secs(), said.join("; "));
            }
        }
    }
    let status = child.wait().with_context(|| format!("wait for {shown}"))?;
    if !status.success() {
        bail!("{shown} ended with {status}: {}", said.join("; "));
    }
    Ok(())
}

fn by_debian() -> Result<()> {
    if !packages::apt_is_here() {
        bail!("there is no apt-get");
    }
    let step = Step::start("compiler with a core for the BPF target by apt-get");
    let fits = || packages::candidate(DEBIAN_PACKAGES[0]).is_some_and(|version| is_new_enough(&version));
    if !fits() {
        packages::update(&step)?;
    }
    if !fits() {
        let known = packages::candidate(DEBIAN_PACKAGES[0]).unwrap_or_else(|| "none".to_owned());
        bail!(
            "apt offers {known} of {}, and it takes {}.{} or later (Debian 12 has it among its security updates)",
            DEBIAN_PACKAGES[0],
            OLDEST_RUSTC.0,
            OLDEST_RUSTC.1
        );
    }
    packages::install(&step, &DEBIAN_PACKAGES)?;
    step.done(&format!("{} installed", DEBIAN_PACKAGES.join(" and ")));
    Ok(())
}

/// Of a Debian version such as `1.96.0+dfsg1-1~deb12u2`.
fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) >= OLDEST_RUSTC,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nightly_of_a_date_is_not_the_nightly() {
        assert!(is_nightly("nightly-x86_64-unknown-linux-gnu (active)"));
        assert!(!is_nightly("nightly-2026-01-01-x86_64-unknown-linux-gnu"));
        assert!(!is_nightly("stable-x86_64-unknown-linux-gnu"));
    }

    #[test]
    fn a_debian_version_is_compared_by_numbers() {
        assert!(is_new_enough("1.96.0+dfsg1-1~deb12u2"));
        assert!(is_new_enough("1.100.0-1"));
        assert!(is_new_enough("2.0.0"));
        assert!(!is_new_enough("1.85.0+dfsg3-1~deb12u3"));
        assert!(!is_new_enough("unknown"));
    }
}
