//! Everything around the build: `cargo xtask <verb>`. One file per verb.
#![forbid(unsafe_code)]

mod bench;
mod cargo;
mod lint;
mod progress;
mod run;
mod setup;
mod test;

#[path = "../../canary-user/build/toolchain.rs"]
mod toolchain;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Set up, run the demo, test, bench and lint the canary guard")]
struct Options {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what the kernel programs need to be built; a second run finds nothing to do
    Setup(setup::Options),
    /// Set up, build, and show the guard catching a canary that got worse (needs root)
    Run(run::Options),
    /// Set up and run all tests; ends with `N passed, N failed, N skipped`
    Test(test::Options),
    /// Measure; without a name, list what there is
    Bench(bench::Options),
    /// Formatting, clippy for user space and kernel programs, licences and sources of dependencies
    Lint,
}

fn main() -> ExitCode {
    let done = match Options::parse().verb {
        Verb::Setup(options) => setup::setup(&options),
        Verb::Run(options) => run::run(&options),
        Verb::Test(options) => return test::test(&options),
        Verb::Bench(options) => bench::bench(&options),
        Verb::Lint => lint::lint(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
