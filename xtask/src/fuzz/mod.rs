//! `cargo xtask fuzz`: gives the readers, and the judge behind them, whatever reaches code that nothing reached before.
//!
//! libFuzzer finds that out by counters that the compiler puts into all code (`fuzz/`, laid out as cargo-fuzz has it, which is not
//! needed). The stable compiler does that, too: only the sanitizers, which find errors of unsafe code, take a nightly.

mod libfuzzer;
mod seeds;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::{
    cargo::{self, Artifact},
    dist::Arch,
    setup::{self, packages},
};
use libfuzzer::Fuzzer;
use seeds::Seeds;

const EXAMPLES: &str = "\
Targets:
  recording   a recording, read and judged as `canary replay` does it, and drawn
  table       the same of a table of indicators (CSV)
  counts      what is counted in hundreds of windows, as some bytes have it, judged and drawn
  config      a configuration: what is accepted says the same again where it is printed

They are built once, which takes a quarter of an hour on two CPUs, and run on one CPU. What reached new code is kept in \
fuzz/corpus/, where the next run goes on. A panic, an overflow, evidence that is no number, an input that takes a minute or \
2 GiB of memory ends a target: the input is kept in fuzz/artifacts/, and how to run it again is said.

Examples:
  cargo xtask fuzz                          all targets, ten minutes each
  cargo xtask fuzz table --minutes 60       one of them for an hour
  cargo xtask fuzz table --input FILE       one input alone, as one that was kept

Exit codes: 0 nothing was found, 1 something was or it could not be built, 2 wrong usage.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// What to fuzz [default: all, one after the other]
    #[arg(value_enum)]
    target: Option<Target>,
    /// How long each target is fuzzed
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    minutes: u64,
    /// Give it the bytes of this file, and nothing else
    #[arg(long, value_name = "FILE", requires = "target", conflicts_with = "minutes")]
    input: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    Recording,
    Table,
    Counts,
    Config,
}

/// What makes the compiler count which code is reached, and tell what is compared with what: as cargo-fuzz has it.
const COVERAGE: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

pub fn fuzz(options: &Options, setup_from: setup::From) -> Result<()> {
    let targets = options.target.map_or_else(|| Target::value_variants().to_vec(), |target| vec![target]);
    setup::setup(setup_from)?;
    packages::ensure_cpp_compiler().context("libFuzzer is C++")?;
    let built = build(&targets)?;
    if let (Some(input), [target]) = (&options.input, &targets[..]) {
        return once(*target, &program(&built, *target)?, input);
    }
    let mut found = Vec::new();
    for target in targets {
        let fuzzer = Fuzzer { name: target.name(), program: program(&built, target)?, seeds: target.seeds()? };
        if let Some(what) = fuzzer.run(options.minutes)? {
            eprintln!("{what}");
            found.push(target.name());
        }
    }
    if found.is_empty() { Ok(()) } else { bail!("fuzzing found something in: {}", found.join(", ")) }
}

/// For a named target: only then build scripts and procedural macros, which run here, are left as they are.
fn build(targets: &[Target]) -> Result<Vec<Artifact>> {
    let here = Arch::here().context("the guard is made on x86-64 and on arm64 alone")?;
    let manifest = ["--manifest-path", "fuzz/Cargo.toml", "--target", here.target()];
    let bins = targets.iter().flat_map(|target| ["--bin", target.name()]);
    let arguments: Vec<&str> = ["build", "--release", "--locked"].into_iter().chain(manifest).chain(bins).collect();
    let flags = [("CARGO_ENCODED_RUSTFLAGS".to_owned(), COVERAGE.join("\x1f").into())];
    cargo::build_with("build the fuzz targets", &arguments, &flags)
}

fn program(built: &[Artifact], target: Target) -> Result<PathBuf> {
    let program = built.iter().find(|artifact| artifact.kind == "bin" && artifact.target == target.name());
    Ok(program.with_context(|| format!("cargo built no program {}", target.name()))?.executable.clone())
}

fn once(target: Target, program: &Path, input: &Path) -> Result<()> {
    // With a directory it would fuzz.
    if !input.is_file() {
        bail!("{} is no file: name an input, such as one in fuzz/artifacts/{}", input.display(), target.name());
    }
    let mut command = Command::new(program);
    let status = command.args(libfuzzer::LIMITS).arg(input).env("RUST_BACKTRACE", "1").status();
    let status = status.with_context(|| format!("start {}", program.display()))?;
    if !status.success() {
        bail!("{}: {} ended it with {status}", target.name(), input.display());
    }
    eprintln!("{}: {} was read or refused, without a panic", target.name(), input.display());
    Ok(())
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Target::Recording => "recording",
            Target::Table => "table",
            Target::Counts => "counts",
            Target::Config => "config",
        }
    }

    fn seeds(self) -> Result<Seeds> {
        match self {
            Target::Recording => Ok(seeds::recordings()),
            Target::Table => Ok(seeds::tables()),
            Target::Counts => Ok(seeds::counts()),
            Target::Config => {
                let path = cargo::repository().join("deploy/canary.example.toml");
                let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
                Ok(vec![("example", text)])
            }
        }
    }
}
