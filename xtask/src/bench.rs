//! `cargo xtask bench [name]`: builds an example in release and becomes it, so that stdout holds its lines only.

use std::{os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};

use crate::{cargo, setup};

#[derive(Args)]
pub struct Options {
    #[command(subcommand)]
    bench: Option<Bench>,
}

#[derive(Subcommand)]
enum Bench {
    /// Judge scenarios read from stdin, one JSON verdict line each on stdout
    Judge {
        /// Read the scenarios from stdin (the only input there is)
        #[arg(long)]
        stdin: bool,
    },
}

pub fn bench(options: &Options) -> Result<()> {
    match options.bench {
        None => {
            println!("judge --stdin    judge scenarios read from stdin, one JSON verdict line each on stdout");
            Ok(())
        }
        Some(Bench::Judge { stdin: false }) => {
            bail!("bench judge reads its scenarios from stdin: say `bench judge --stdin`")
        }
        Some(Bench::Judge { stdin: true }) => exec_example("judge_stdin"),
    }
}

/// Only returns when it could not become the example.
fn exec_example(name: &str) -> Result<()> {
    setup::setup(&setup::Options::default())?;
    let arguments = ["build", "--release", "--locked", "--package", "canary-user", "--example", name];
    let built = cargo::build(&format!("build {name}"), &arguments)?;
    let example = built
        .iter()
        .find(|artifact| artifact.kind == "example" && artifact.target == name)
        .with_context(|| format!("cargo built no example {name}"))?;
    Err(Command::new(&example.executable).exec()).with_context(|| format!("start {}", example.executable.display()))
}
