//! Debian and Ubuntu packages: through apt-get, as root or by sudo.

use std::{
    env,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::progress::Step;

/// True when a C compiler was already there. The bundled SQLite is C, and cargo links with it.
pub fn ensure_c_compiler() -> Result<bool> {
    ensure_compiler("C compiler", "CC", "cc", "gcc or clang with libc's headers")
}

/// The same of C++.
pub fn ensure_cpp_compiler() -> Result<bool> {
    ensure_compiler("C++ compiler", "CXX", "c++", "g++, or clang with the standard library of C++")
}

fn ensure_compiler(what: &str, variable: &str, usual: &str, by_hand: &str) -> Result<bool> {
    let named = env::var_os(variable).unwrap_or_else(|| usual.into());
    if runs(Command::new(&named).arg("--version")) {
        return Ok(true);
    }
    if !apt_is_here() {
        bail!(
            "there is no {what} ({} does not run), and no apt-get to install one: install {by_hand}",
            named.display()
        );
    }
    let step = Step::start(what);
    install(&step, &["build-essential"])
        .with_context(|| format!("install a {what}; by hand: apt-get install build-essential"))?;
    step.done("build-essential installed");
    Ok(false)
}

pub fn apt_is_here() -> bool {
    runs(Command::new("apt-get").arg("--version"))
}

/// The version apt would install, if it knows the package.
pub fn candidate(package: &str) -> Option<String> {
    let output = Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

pub fn update(step: &Step) -> Result<()> {
    step.command(as_root("apt-get")?.args(["update", "-q"]))
}

/// Installs by apt-get, with a fresh list of packages when apt does not know one of them.
pub fn install(step: &Step, packages: &[&str]) -> Result<()> {
    if packages.iter().any(|package| candidate(package).is_none()) {
        update(step)?;
    }
    let arguments = ["install", "-q", "-y", "--no-install-recommends"];
    step.command(as_root("apt-get")?.args(arguments).args(packages))
}

/// The same for packages of another architecture.
pub fn install_of(step: &Step, architecture: &str, packages: &[&str]) -> Result<()> {
    update_with(step, architecture)?;
    install(step, packages)
}

/// A fresh list of packages that has those of an architecture, which apt is told of first.
pub fn update_with(step: &Step, architecture: &str) -> Result<()> {
    step.command(as_root("dpkg")?.args(["--add-architecture", architecture]))?;
    update(step)
}

fn as_root(program: &str) -> Result<Command> {
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new("env")
    } else if runs(Command::new("sudo").args(["-n", "true"])) {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "env"]);
        sudo
    } else if Path::new("/usr/bin/sudo").exists() {
        bail!("{program} needs root, and sudo asks for a password: run `sudo true` first, or run this as root");
    } else {
        bail!("{program} needs root, and there is no sudo: run this as root");
    };
    command.args(["DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", program]);
    Ok(command)
}

pub fn runs(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}
