//! `canary`: the guard and its tools. A table of contents; each verb has a file of its own in `cli/`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use canary_user::cli::{self, Cli, Verb};
use clap::Parser as _;

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli::start_log(&cli.log);
    let done = match cli.verb {
        Verb::Run(args) => cli::run::run(&args),
        Verb::Top(args) => cli::top::run(&args),
        Verb::Check(args) => cli::check::run(&args),
        Verb::Config(args) => cli::config::run(&args),
        Verb::Record(args) => cli::record::run(&args),
        Verb::Calibrate(args) => cli::calibrate::run(&args),
        Verb::Replay(args) => cli::replay::run(&args),
        Verb::Status(args) => cli::status::run(&args),
        Verb::History(args) => cli::history::run(&args),
        Verb::Report(args) => cli::report::run(&args),
        Verb::Explain(args) => cli::explain::run(&args),
        Verb::Approve(args) => cli::act::approve(&args),
        Verb::Rollback(args) => cli::act::rollback(&args),
        Verb::Hold(args) => cli::act::hold(&args),
        Verb::Undo(args) => cli::act::undo(&args),
        Verb::Pause(args) => cli::pause::pause(&args),
        Verb::Resume(args) => cli::pause::resume(&args),
        Verb::Completions(args) => cli::completions::run(&args),
        Verb::Man(args) => cli::man::run(&args),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("canary: {error:#}");
            ExitCode::FAILURE
        }
    }
}
