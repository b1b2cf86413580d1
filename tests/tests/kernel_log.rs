//! The kernel programs' own lines in the guard's log: there where debug lines are wanted, and not written at all elsewhere.

use canary_e2e::{
    Sandbox,
    guard::{Configuration, Guard, PATIENCE},
    kernel_available, wait_until,
};
use canary_user::telemetry::monotonic_ns;

/// As `sched_process_exit` of canary-ebpf writes it; a status of 3 is 768 in what wait(2) tells.
const LINE: &str = "ended with exit code 768";

/// A guard with these options that has seen a process of its canary end with status 3.
fn guard_that_saw_an_end(options: &[&str]) -> anyhow::Result<Guard> {
    let sandbox = Sandbox::new()?;
    let canary = sandbox.cgroup("canary-0")?;
    let mut guard = Guard::start_as(&[], &Configuration::shop(&sandbox)?, options)?;
    let pages = guard.pages;
    guard.until("the canary is followed", |_| {
        pages.version("canary").is_ok_and(|version| version["instances"].as_u64() == Some(1))
    })?;
    let ended = sandbox.run(&canary, "exit 3")?.wait()?;
    assert_eq!(ended.code(), Some(3));
    // Whatever was written by then is taken up by the next reading, which the second window from here on has at the latest.
    let at_ns = monotonic_ns();
    let mut later = 0;
    guard.until("two windows come", |window| {
        later += u32::from(window["t_ns"].as_u64() > Some(at_ns));
        later == 2
    })?;
    Ok(guard)
}

#[test]
fn with_debug_lines_the_kernel_programs_own_are_there() -> anyhow::Result<()> {
    if !kernel_available("with_debug_lines_the_kernel_programs_own_are_there") {
        return Ok(());
    }
    let guard = guard_that_saw_an_end(&["--log", "debug"])?;
    let line = || guard.said().lines().find(|line| line.contains(LINE)).map(str::to_owned);
    wait_until("the line is in the log", PATIENCE, || line().is_some()).map_err(|e| e.context(guard.said()))?;
    let line = line().unwrap_or_default();
    assert!(line.contains("DEBUG") && line.contains("process ") && line.contains(" of slot "), "{line}");
    assert!(guard.stop()?.success());
    Ok(())
}

#[test]
fn without_debug_lines_the_kernel_programs_write_none() -> anyhow::Result<()> {
    if !kernel_available("without_debug_lines_the_kernel_programs_write_none") {
        return Ok(());
    }
    for options in [&["--log", "warn"][..], &["--log", "info"], &[]] {
        let guard = guard_that_saw_an_end(options)?;
        let said = guard.said();
        assert!(!said.contains(LINE) && !said.contains("DEBUG"), "{options:?}: {said}");
        assert!(guard.stop()?.success());
    }
    Ok(())
}
