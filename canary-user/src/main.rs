//! `canary`: the guard and its tools. A table of contents; each verb has a file of its own in `cli/`.

use std::process::ExitCode;

use canary_user::cli::{self, Cli, Verb};
use clap::Parser as _;

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli::start_log(&cli.log);
    let done = match cli.verb {
        Verb::Run(args) => cli::run::run(&args),
        Verb::Check(args) => cli::check::run(&args),
        Verb::Config(args) => cli::config::run(&args),
        Verb::Record(args) => cli::record::run(&args),
        Verb::Replay(args) => cli::replay::run(&args),
        Verb::History(args) => cli::history::run(&args),
        Verb::Pause(args) => cli::pause::pause(&args),
        Verb::Resume(args) => cli::pause::resume(&args),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("canary: {error:#}");
            ExitCode::FAILURE
        }
    }
}
