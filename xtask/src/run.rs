//! `cargo xtask run`: the demo. Sets up and builds as the caller, then becomes `canary-demo run`, through sudo if need be.

use std::{
    env,
    ffi::OsString,
    fs,
    io::IsTerminal,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{cargo, setup};

/// The demo's own help, so that it is read before the demo is built; a test of the demo holds the two together.
const DEMO_OPTIONS: &str = include_str!("../../demo/options.txt");

#[derive(Args)]
#[command(after_help = DEMO_OPTIONS)]
pub struct Options {
    /// Options of the demo, see below; they are handed to it as they are
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "DEMO OPTIONS")]
    demo: Vec<OsString>,
}

/// How root is had for loading kernel programs and making cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Root {
    Already,
    Sudo,
}

pub fn run(options: &Options, setup_from: setup::From) -> Result<()> {
    // Everything that can be wrong is said before the build, which takes minutes.
    let root = check_machine()?;
    setup::setup(setup_from)?;
    let arguments =
        ["build", "--release", "--locked", "--package", "canary-demo", "--package", "canary-user", "--bins"];
    let built = cargo::build("build the guard and the demo", &arguments)?;
    let demo = built
        .iter()
        .find(|artifact| artifact.package == "canary-demo")
        .context("cargo built no executable of the package canary-demo")?;
    let mut command = as_root(&demo.executable, root);
    command.arg("run").args(&options.demo);
    Err(command.exec()).with_context(|| format!("start {command:?}"))
}

fn check_machine() -> Result<Root> {
    if !cfg!(target_os = "linux") {
        bail!("the guard's programs run in a Linux kernel: use a Linux machine or a virtual one");
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        bail!(
            "this kernel has no type information (/sys/kernel/btf/vmlinux): use one built with CONFIG_DEBUG_INFO_BTF=y"
        );
    }
    let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    // Wherever it is: on machines with both versions it lies below /sys/fs/cgroup.
    if !mounts.lines().any(|mount| mount.split(' ').nth(2) == Some("cgroup2")) {
        bail!(
            "no cgroup2 is mounted: boot with systemd.unified_cgroup_hierarchy=1, or mount -t cgroup2 none /sys/fs/cgroup"
        );
    }
    if rustix::process::geteuid().is_root() {
        return Ok(Root::Already);
    }
    let silent = Command::new("sudo").args(["-n", "true"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    match silent {
        Ok(status) if status.success() => Ok(Root::Sudo),
        Ok(_) if std::io::stdin().is_terminal() => Ok(Root::Sudo),
        Ok(_) => bail!("the demo needs root, and sudo asks for a password without a terminal here: run it as root"),
        Err(_) => bail!("the demo needs root, and there is no sudo here: run it as root"),
    }
}

/// Only the demo runs as root: what cargo builds stays the caller's.
fn as_root(demo: &Path, root: Root) -> Command {
    match root {
        Root::Already => Command::new(demo),
        Root::Sudo => {
            eprintln!("the demo loads kernel programs and makes cgroups: continuing through sudo");
            let mut path = OsString::from("PATH=");
            path.push(env::var_os("PATH").unwrap_or_default());
            let mut command = Command::new("sudo");
            command.arg("-E").arg("env").arg(path).arg(demo);
            command
        }
    }
}
