//! `cargo xtask test`: builds once, then runs each test executable itself, to say what is being tested and to count.
//! One after the other, but for the end-to-end programs that may run beside another: those run two at a time (`lanes`).
//!
//! The last line is `N passed, N failed, N skipped`, whatever happens. A test that prints `SKIP <test>: <reason>` counts as
//! skipped, not as passed. Something that does not build or cannot be set up counts as failed, and so does a program that hangs: it is
//! named on stderr while it runs, and ended (`program`).

mod family;
pub mod lanes;
pub mod libtest;
mod program;

use std::{
    env,
    num::NonZeroU32,
    panic::{self, AssertUnwindSafe},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    cargo::{self, Artifact},
    progress::{self, Step},
    setup, vm,
};
use libtest::Counts;
use program::Watch;

const END_TO_END: &str = "canary-e2e";
/// Each test has the kernel's hooks and cgroups to itself, as far as its own program goes.
const ONE_BY_ONE: [&str; 1] = ["--test-threads=1"];

/// How many minutes a program may say nothing, where [`PATIENCE`] does not say otherwise. The longest tests take ten, and a machine
/// may be slow: one that is ended too early would have been no failure.
const PATIENCE_MIN: u32 = 30;
const PATIENCE: &str = "CANARY_TEST_MINUTES";

#[derive(Args)]
pub struct Options {
    /// Run only tests whose name contains this [default: all]
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

pub fn test(options: &Options, setup_from: setup::From) -> ExitCode {
    let total = counted(|total| {
        let patience = patience(env::var(PATIENCE).ok().as_deref())?;
        all(Asked { filter: options.filter.as_deref(), patience }, setup_from, total)
    });
    println!("{total}");
    // Reasons were told on stdout above: the count has to be the last line.
    if total.failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What `tests` count. That they end with an error or a panic, or count nothing, is a failure more, and takes nothing back.
fn counted(tests: impl FnOnce(&mut Counts) -> Result<()>) -> Counts {
    let mut total = Counts::default();
    // Counts are whole between any two additions.
    let reason = match panic::catch_unwind(AssertUnwindSafe(|| tests(&mut total))) {
        Ok(Ok(())) if total == Counts::default() => Some("no test was found: nothing was checked".to_owned()),
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("{error:#}")),
        Err(_) => Some("cargo xtask test panicked, see above: what it had not come to was not run".to_owned()),
    };
    if let Some(reason) = reason {
        total.failed += 1;
        println!("FAILED {reason}");
    }
    total
}

/// What is asked of every program.
#[derive(Clone, Copy)]
struct Asked<'a> {
    filter: Option<&'a str>,
    patience: Duration,
}

fn patience(minutes: Option<&str>) -> Result<Duration> {
    let minutes = match minutes {
        Some(text) => text
            .parse::<NonZeroU32>()
            .with_context(|| format!("{PATIENCE}={text} is no number of minutes from 1 on"))?
            .get(),
        None => PATIENCE_MIN,
    };
    Ok(Duration::from_secs(60 * u64::from(minutes)))
}

fn all(asked: Asked<'_>, setup_from: setup::From, total: &mut Counts) -> Result<()> {
    setup::setup(setup_from)?;
    // One selection for all: choosing packages one by one would change features and compile dependencies again.
    let arguments = ["test", "--release", "--locked", "--workspace", "--no-run"];
    let mut built = cargo::build("build the tests", &arguments)?;
    // cargo tells them in the order in which they happened to be ready.
    built.sort_by(|a, b| (&a.package, &a.kind, &a.target).cmp(&(&b.package, &b.kind, &b.target)));
    let (end_to_end, others): (Vec<_>, Vec<_>) =
        built.iter().cloned().partition(|artifact| artifact.package == END_TO_END && artifact.kind == "test");
    for artifact in others.iter().filter(|artifact| is_test(artifact)) {
        total.add(executable(artifact, asked, &[], &mut print, &progress::line)?);
    }
    total.add(doc_tests(asked)?);
    if rustix::process::geteuid().is_root() {
        let (beside, alone) = lanes::split(&end_to_end);
        side_by_side(&beside, asked, total);
        for artifact in alone {
            total.add(executable(artifact, asked, &ONE_BY_ONE, &mut print, &progress::line)?);
        }
    } else {
        for artifact in &end_to_end {
            total.add(skipped(artifact, asked.filter, "needs root: it loads kernel programs and makes cgroups")?);
        }
    }
    // The same tests again, on kernels that this machine does not run. A filter asks for something else.
    if asked.filter.is_none() {
        total.add(vm::as_test(&built));
    }
    Ok(())
}

/// Some at a time. That one has begun and that it still runs is told as it happens; what it said, in one piece when it has ended. One
/// that cannot be started is a failure of its own.
fn side_by_side(programs: &[&Artifact], asked: Asked<'_>, total: &mut Counts) {
    let at_a_time = lanes::at_a_time();
    let step = Step::start(format!("{} end-to-end programs, {at_a_time} at a time", programs.len()));
    let mut ended = 0_usize;
    lanes::side_by_side(
        programs,
        at_a_time,
        |artifact| {
            step.line(&format!("{} begins", name(artifact)));
            kept(artifact, asked, &|text| step.line(text))
        },
        |artifact, outcome| {
            let (lines, counts) = outcome.unwrap_or_else(|_| {
                let line = format!("FAILED {}: cargo xtask test panicked while it ran, see above", name(artifact));
                (vec![line], Counts { failed: 1, ..Counts::default() })
            });
            for line in lines {
                println!("{line}");
            }
            total.add(counts);
            ended += 1;
            step.detail(&format!("{ended} have ended"));
        },
    );
    step.done("");
}

/// Runs one and keeps what it says.
fn kept(artifact: &Artifact, asked: Asked<'_>, progress: &dyn Fn(&str)) -> (Vec<String>, Counts) {
    let mut lines = Vec::new();
    let outcome = executable(artifact, asked, &ONE_BY_ONE, &mut |line| lines.push(line), progress);
    let counts = outcome.unwrap_or_else(|error| {
        lines.push(format!("FAILED {error:#}"));
        Counts { failed: 1, ..Counts::default() }
    });
    (lines, counts)
}

fn print(line: String) {
    println!("{line}");
}

/// As it is told to whoever reads the output.
fn name(artifact: &Artifact) -> String {
    format!("{} {} {}", artifact.package, artifact.kind, artifact.target)
}

/// Test executables lie in `deps/`; the programs that integration tests start do not.
fn is_test(artifact: &Artifact) -> bool {
    artifact.executable.parent().is_some_and(|directory| directory.ends_with("deps"))
}

fn executable(
    artifact: &Artifact,
    asked: Asked<'_>,
    arguments: &[&str],
    say: &mut dyn FnMut(String),
    progress: &dyn Fn(&str),
) -> Result<Counts> {
    let mut command = Command::new(&artifact.executable);
    // As `cargo test` does: from the package's directory.
    command.current_dir(&artifact.directory).env("CARGO_MANIFEST_DIR", &artifact.directory);
    // The tests that start our programs refuse old ones; these were built with the tests.
    command.env("CANARY_PROGRAMS_ARE_FRESH", "1");
    command.arg("--show-output").args(arguments).args(asked.filter);
    program::run(&name(artifact), &mut command, Watch { say, progress, patience: asked.patience })
}

fn doc_tests(asked: Asked<'_>) -> Result<Counts> {
    let mut command = cargo::cargo();
    command.args(["test", "--release", "--locked", "--workspace", "--doc", "--no-fail-fast", "--", "--show-output"]);
    command.args(asked.filter);
    let watch = Watch { say: &mut print, progress: &progress::line, patience: asked.patience };
    program::run("doc tests", &mut command, watch)
}

/// Names each test of an executable that is not run.
fn skipped(artifact: &Artifact, filter: Option<&str>, reason: &str) -> Result<Counts> {
    println!("testing {}", name(artifact));
    let mut list = Command::new(&artifact.executable);
    let output = list.args(["--list", "--format", "terse"]).args(filter).output();
    let output = output.with_context(|| format!("list the tests of {}", artifact.target))?;
    if !output.status.success() {
        bail!("{} cannot list its tests: {}", artifact.target, String::from_utf8_lossy(&output.stderr));
    }
    let mut counts = Counts::default();
    for name in String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| line.strip_suffix(": test")) {
        println!("SKIP {name}: {reason}");
        counts.skipped += 1;
    }
    println!("  {counts}");
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn whatever_ends_the_tests_early_is_a_failure_beside_what_was_counted() {
        let passed = Counts { passed: 3, failed: 0, skipped: 2 };
        let failed = Counts { failed: 1, ..passed };
        let to_the_end = |total: &mut Counts| -> Result<()> {
            total.add(passed);
            Ok(())
        };
        assert_eq!(counted(to_the_end), passed);
        let with_an_error = |total: &mut Counts| -> Result<()> {
            total.add(passed);
            Err(anyhow!("on purpose"))
        };
        assert_eq!(counted(with_an_error), failed);
        let with_a_panic = |total: &mut Counts| -> Result<()> {
            total.add(passed);
            panic!("on purpose")
        };
        assert_eq!(counted(with_a_panic), failed);
        assert_eq!(counted(|_| Ok(())), Counts { failed: 1, ..Counts::default() }, "nothing was checked");
    }

    #[test]
    fn for_how_long_a_program_may_be_silent_is_a_number_of_minutes() {
        assert_eq!(patience(None).expect("has a default"), Duration::from_secs(30 * 60));
        assert_eq!(patience(Some("90")).expect("is a number"), Duration::from_secs(90 * 60));
        for text in ["0", "-1", "1h", ""] {
            let error = format!("{:#}", patience(Some(text)).expect_err("is no such number"));
            assert!(error.contains(&format!("CANARY_TEST_MINUTES={text} ")), "{error}");
        }
    }
}
