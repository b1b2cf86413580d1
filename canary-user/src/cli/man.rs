//! `canary man`: a manual page for the program and one for each verb, made from what `--help` says.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::CommandFactory as _;

use super::Cli;

const NOTES: &str = "\
The pages are canary.1 and canary-VERB.1, as `man canary` and `man canary-run`
show them. The directory is made; pages that are there are replaced.

Examples:
  canary man /usr/local/share/man/man1";

/// Write the manual pages into a directory.
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct Args {
    /// The directory
    pub directory: PathBuf,
}

/// # Errors
/// If the directory cannot be made or written to.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let shown = args.directory.display();
    fs::create_dir_all(&args.directory).with_context(|| format!("make {shown}"))?;
    clap_mangen::generate_to(Cli::command(), &args.directory)
        .with_context(|| format!("write manual pages into {shown}"))?;
    Ok(ExitCode::SUCCESS)
}
