//! `cargo xtask test`: builds once, then runs each test executable itself, to say what is being tested and to count.
//! One after the other, but for the end-to-end programs that may run beside another: those run two at a time (`lanes`).
//!
//! The last line is `N passed, N failed, N skipped`, whatever happens. A test that prints `SKIP <test>: <reason>` counts as
//! skipped, not as passed. Something that does not build or cannot be set up counts as failed.

pub mod lanes;
pub mod libtest;

use std::{
    io::{BufRead, BufReader},
    panic::{self, AssertUnwindSafe},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    cargo::{self, Artifact},
    progress::Step,
    setup, vm,
};
use libtest::{Counts, Run};

const END_TO_END: &str = "canary-e2e";
/// Each test has the kernel's hooks and cgroups to itself, as far as its own program goes.
const ONE_BY_ONE: [&str; 1] = ["--test-threads=1"];

/// Takes lines for a reader.
type Say<'a> = &'a mut dyn FnMut(String);

#[derive(Args)]
pub struct Options {
    /// Run only tests whose name contains this [default: all]
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

pub fn test(options: &Options, setup_from: setup::From) -> ExitCode {
    let total = counted(|total| all(options.filter.as_deref(), setup_from, total));
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

fn all(filter: Option<&str>, setup_from: setup::From, total: &mut Counts) -> Result<()> {
    setup::setup(setup_from)?;
    // One selection for all: choosing packages one by one would change features and compile dependencies again.
    let arguments = ["test", "--release", "--locked", "--workspace", "--no-run"];
    let mut built = cargo::build("build the tests", &arguments)?;
    // cargo tells them in the order in which they happened to be ready.
    built.sort_by(|a, b| (&a.package, &a.kind, &a.target).cmp(&(&b.package, &b.kind, &b.target)));
    let (end_to_end, others): (Vec<_>, Vec<_>) =
        built.iter().cloned().partition(|artifact| artifact.package == END_TO_END && artifact.kind == "test");
    for artifact in others.iter().filter(|artifact| is_test(artifact)) {
        total.add(executable(artifact, filter, &[], &mut print)?);
    }
    total.add(doc_tests(filter)?);
    if rustix::process::geteuid().is_root() {
        let (beside, alone) = lanes::split(&end_to_end);
        side_by_side(&beside, filter, total);
        for artifact in alone {
            total.add(executable(artifact, filter, &ONE_BY_ONE, &mut print)?);
        }
    } else {
        for artifact in &end_to_end {
            total.add(skipped(artifact, filter, "needs root: it loads kernel programs and makes cgroups")?);
        }
    }
    // The same tests again, on kernels that this machine does not run. A filter asks for something else.
    if filter.is_none() {
        total.add(vm::as_test(&built));
    }
    Ok(())
}

/// Some at a time, each told in one piece when it has ended. One that cannot be started is a failure of its own.
fn side_by_side(programs: &[&Artifact], filter: Option<&str>, total: &mut Counts) {
    let at_a_time = lanes::at_a_time();
    let step = Step::start(format!("{} end-to-end programs, {at_a_time} at a time", programs.len()));
    let mut ended = 0_usize;
    lanes::side_by_side(
        programs,
        at_a_time,
        |artifact| kept(artifact, filter),
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
fn kept(artifact: &Artifact, filter: Option<&str>) -> (Vec<String>, Counts) {
    let mut lines = Vec::new();
    let outcome = executable(artifact, filter, &ONE_BY_ONE, &mut |line| lines.push(line));
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

fn executable(artifact: &Artifact, filter: Option<&str>, arguments: &[&str], say: Say<'_>) -> Result<Counts> {
    let mut command = Command::new(&artifact.executable);
    // As `cargo test` does: from the package's directory.
    command.current_dir(&artifact.directory).env("CARGO_MANIFEST_DIR", &artifact.directory);
    // The tests that start our programs refuse old ones; these were built with the tests.
    command.env("CANARY_PROGRAMS_ARE_FRESH", "1");
    command.arg("--show-output").args(arguments).args(filter);
    watch(&name(artifact), &mut command, say)
}

fn doc_tests(filter: Option<&str>) -> Result<Counts> {
    let mut command = cargo::cargo();
    command.args(["test", "--release", "--locked", "--workspace", "--doc", "--no-fail-fast", "--", "--show-output"]);
    command.args(filter);
    watch("doc tests", &mut command, &mut print)
}

/// Runs to the end, passing on what a reader needs as it comes: failures, their output, and reasons for skipping.
fn watch(name: &str, command: &mut Command, say: Say<'_>) -> Result<Counts> {
    say(format!("testing {name}"));
    let began = Instant::now();
    let (reader, writer) = std::io::pipe().context("make a pipe")?;
    command.stdin(Stdio::null()).stderr(writer.try_clone().context("clone a pipe")?).stdout(writer);
    let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
    // The command holds the pipe's writing ends; left open here, the pipe would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut run = Run::default();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.with_context(|| format!("read the output of {name}"))?;
        for shown in run.line(&String::from_utf8_lossy(&line)) {
            say(shown);
        }
    }
    let status = child.wait().with_context(|| format!("wait for {name}"))?;
    let ended = run.end(status.success());
    for line in ended.unexplained {
        say(line);
    }
    say(format!("  {} in {} s", ended.counts, began.elapsed().as_secs()));
    Ok(ended.counts)
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
}
