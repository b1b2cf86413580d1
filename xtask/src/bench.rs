//! `cargo xtask bench [name]`: builds a program in release and becomes it, so that stdout holds its lines only.

use std::{ffi::OsString, os::unix::process::CommandExt, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};

use crate::{
    cargo,
    progress::Step,
    setup::{self, packages},
};

#[derive(Args)]
pub struct Options {
    #[command(subcommand)]
    bench: Option<Bench>,
}

#[derive(Subcommand)]
enum Bench {
    /// What the judge can be relied on for: its false alarms and delays on generated services, each with its limit
    // The program has its own help, and says what is wrong with an argument.
    #[command(disable_help_flag = true)]
    Judge {
        /// Handed on: see `cargo xtask bench judge --help`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        arguments: Vec<OsString>,
    },
    /// What the sensor costs the machine: a table with the limit of each figure; needs root, takes some minutes
    ///
    /// Compares, in alternation, with an empty program on the same hook, with libbpf-tools' `runqlat`, with bpftrace's, and
    /// with nothing attached. Installs libbpf-tools, bpftrace, linux-perf, nginx and wrk by apt where they are missing. Exit
    /// code 1 where a figure falls short of its limit.
    #[command(after_help = OVERHEAD_EXAMPLES)]
    Overhead {
        /// Rounds of each comparison; a figure is their median
        #[arg(long, default_value_t = 5, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(5..))]
        rounds: usize,
        /// Only rows whose name contains this; all by default
        #[arg(long)]
        row: Option<String>,
        /// A table, or JSON
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Output {
    #[default]
    Text,
    Json,
}

const OVERHEAD_EXAMPLES: &str = "\
Examples:
  cargo xtask bench overhead                             all rows
  cargo xtask bench overhead --row sched --rounds 9      time per scheduler event only, more rounds
  cargo xtask bench overhead --row daemon-1000           the daemon with 1 000 cgroups
  cargo xtask bench overhead --output json";

pub fn bench(options: &Options, setup_from: setup::From) -> Result<()> {
    match &options.bench {
        None => {
            println!("judge       what the judge can be relied on for, each figure with its limit: a few minutes");
            println!("overhead    what the sensor costs, held against limits; needs root");
            Ok(())
        }
        Some(Bench::Judge { arguments }) => judge(arguments, setup_from),
        Some(Bench::Overhead { rounds, row, output }) => overhead(*rounds, row.as_deref(), *output, setup_from),
    }
}

/// What is compared with: program, and its package.
const COMPARED: [(&str, &str); 5] = [
    ("/usr/sbin/runqlat", "libbpf-tools"),
    ("/usr/bin/bpftrace", "bpftrace"),
    ("/usr/bin/perf", "linux-perf"),
    ("/usr/sbin/nginx", "nginx-light"),
    ("/usr/bin/wrk", "wrk"),
];

/// Only returns when it could not become the bench.
fn overhead(rounds: usize, row: Option<&str>, output: Output, setup_from: setup::From) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("bench overhead loads programs and makes cgroups: run it as root");
    }
    setup::setup(setup_from)?;
    let missing: Vec<&str> =
        COMPARED.iter().filter(|(program, _)| !Path::new(program).exists()).map(|(_, package)| *package).collect();
    if !missing.is_empty() {
        let step = Step::start("what is compared with");
        packages::install(&step, &missing)
            .with_context(|| format!("by hand: apt-get install {}", missing.join(" ")))?;
        step.done(&missing.join(", "));
    }
    let arguments = ["build", "--release", "--locked", "--package", "canary-e2e", "--bins"];
    let built = cargo::build("build the bench", &arguments)?;
    let bench = built
        .iter()
        .find(|artifact| artifact.kind == "bin" && artifact.target == "overhead")
        .context("cargo built no program overhead")?;
    let output = match output {
        Output::Text => "text",
        Output::Json => "json",
    };
    let mut command = Command::new(&bench.executable);
    command.args(["--rounds", &rounds.to_string(), "--row", row.unwrap_or_default(), "--output", output]);
    Err(command.exec()).with_context(|| format!("start {}", bench.executable.display()))
}

/// Only returns when it could not become the program.
fn judge(arguments: &[OsString], setup_from: setup::From) -> Result<()> {
    const NAME: &str = "canary-bench";
    setup::setup(setup_from)?;
    let built = cargo::build("build the bench", &["build", "--release", "--locked", "--package", NAME])?;
    let program = built
        .iter()
        .find(|artifact| artifact.kind == "bin" && artifact.target == NAME)
        .context("cargo built no program canary-bench")?;
    let error = Command::new(&program.executable).args(arguments).exec();
    Err(error).with_context(|| format!("start {}", program.executable.display()))
}
