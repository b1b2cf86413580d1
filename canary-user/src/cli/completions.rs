//! `canary completions`: what makes a shell complete this program's verbs and options, made from their definitions.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Cli;

const NOTES: &str = "\
Where the shell looks for it: bash with the package bash-completion in
/usr/share/bash-completion/completions/canary, zsh in a file _canary in a
directory of $fpath, fish in ~/.config/fish/completions/canary.fish. The
Debian package has those of all three.

Examples:
  canary completions bash >/usr/share/bash-completion/completions/canary
  canary completions zsh >/usr/local/share/zsh/site-functions/_canary
  canary completions fish >~/.config/fish/completions/canary.fish";

/// Write the completions of a shell to stdout.
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// # Errors
/// If stdout takes no more.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    // Into memory first: the generator panics where its writer fails, as a closed pipe does.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "canary", &mut script);
    io::stdout().write_all(&script).context("write to stdout")?;
    Ok(ExitCode::SUCCESS)
}
