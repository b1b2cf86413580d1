//! `canary pause` and `canary resume`: a file whose existence keeps every guard on this machine from acting.

use std::{fs, io, path::PathBuf, process::ExitCode};

use anyhow::Context as _;

/// Keep the guard from acting, or let it act again. Watching and judging go on all the same.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file that means "paused"; the guard's configuration names it as pause_file
    #[arg(long, default_value = "/run/canary/pause")]
    pub pause_file: PathBuf,
}

pub fn pause(args: &Args) -> anyhow::Result<ExitCode> {
    let name = args.pause_file.display();
    if let Some(directory) = args.pause_file.parent() {
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    }
    fs::write(&args.pause_file, "").with_context(|| format!("create {name}"))?;
    println!("Paused: while {name} exists, no action is begun. `canary resume` ends it.");
    Ok(ExitCode::SUCCESS)
}

pub fn resume(args: &Args) -> anyhow::Result<ExitCode> {
    let name = args.pause_file.display();
    match fs::remove_file(&args.pause_file) {
        Ok(()) => println!("Resumed: {name} is gone."),
        Err(error) if error.kind() == io::ErrorKind::NotFound => println!("Not paused: {name} does not exist."),
        Err(error) => return Err(error).with_context(|| format!("remove {name}")),
    }
    Ok(ExitCode::SUCCESS)
}
