//! Moves a process into its cgroups before it becomes the program that is to run there: nothing that the program does
//! is ever counted elsewhere.

use std::{ffi::OsString, fs, os::unix::process::CommandExt, path::PathBuf, process::Command};

use anyhow::{Context, bail};
use clap::Args;

#[derive(Args)]
pub struct Options {
    /// Directory of a cgroup to enter; may be given more than once, for different hierarchies.
    #[arg(long = "cgroup", required = true)]
    cgroups: Vec<PathBuf>,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Returns only when it fails.
pub fn enter(options: Options) -> anyhow::Result<()> {
    for cgroup in &options.cgroups {
        let procs = cgroup.join("cgroup.procs");
        fs::write(&procs, std::process::id().to_string()).with_context(|| format!("enter {}", procs.display()))?;
    }
    let Some((program, args)) = options.command.split_first() else { bail!("no program to run") };
    let error = Command::new(program).args(args).exec();
    Err(error).with_context(|| format!("run {}", program.display()))
}
