//! Decisions that a running guard hands to a program which hangs, fails, or says what is not so.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, ensure};
use canary_e2e::{
    guarded::{Guarded, Life, PATIENCE, script},
    kernel_available,
    program::program,
    wait_until,
};
use canary_user::guard::Stage::*;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

const VICTIM: &str = env!("CARGO_BIN_EXE_victim");

/// A guard whose canary crashes, and the programs `run` and `state` (and `undo`, which fails). In them, DIR is the directory of
/// the test and CGROUP that of the canary's cgroup.
fn handed_to(run: &str, state: &str) -> anyhow::Result<(Guarded, Life)> {
    let guarded = Guarded::by(VICTIM, "end", |dir, cgroup| {
        let make = |name: &str, text: &str| script(dir, name, &filled(text, dir, cgroup));
        let (run, state) = (make("run", run)?, make("state", state)?);
        let undo = make("undo", "echo the old version is not there; exit 3")?;
        Ok(format!(
            "orchestrator = \"command\"\n\
             command = {{ run = [{run:?}], state = [{state:?}], undo = [{undo:?}], timeout = \"5s\" }}"
        ))
    })?;
    let life = guarded.start()?;
    life.sees(3)?;
    guarded.crash()?;
    Ok((guarded, life))
}

fn filled(text: &str, dir: &Path, cgroup: &Path) -> String {
    text.replace("CGROUP", &cgroup.display().to_string()).replace("DIR", &dir.display().to_string())
}

/// It was called once, though it stands condemned, and the canary runs on.
fn is_left_alone(guarded: &mut Guarded, life: &Life) -> anyhow::Result<()> {
    life.condemns_again(20)?;
    assert_eq!(guarded.stages().last().map(Vec::as_slice), Some(&[Planned, Applying, Failed][..]));
    assert_eq!(guarded.calls(), 1);
    assert_eq!(fs::read_to_string(guarded.file("runs"))?.lines().count(), 1);
    ensure!(guarded.lives()? && guarded.terms() == 0, "{} SIGTERMs", guarded.terms());
    Ok(())
}

#[test]
fn a_program_that_hangs_is_killed_and_not_run_again() -> anyhow::Result<()> {
    if !kernel_available("a_program_that_hangs_is_killed_and_not_run_again") {
        return Ok(());
    }
    let (mut guarded, life) = handed_to("echo $$ >>DIR/runs; exec sleep 600", "exit 1")?;
    guarded.until(Failed)?;
    let failed = guarded.detail(Failed);
    ensure!(failed.contains("did not end within 5s and was killed; it may have done a part"), "{failed}");
    ensure!(failed.contains("asked afterwards, command finds it not in effect"), "{failed}");
    is_left_alone(&mut guarded, &life)?;
    let pid = fs::read_to_string(guarded.file("runs"))?.trim().parse().ok().and_then(Pid::from_raw);
    let pid = pid.context("the program wrote its number")?;
    wait_until("the program is gone", PATIENCE, || test_kill_process(pid).is_err())
}

#[test]
fn a_program_that_fails_is_quoted_and_not_run_again() -> anyhow::Result<()> {
    if !kernel_available("a_program_that_fails_is_quoted_and_not_run_again") {
        return Ok(());
    }
    // Neither text nor harmless: a terminal would be cleared by it.
    let garbage = r"printf 'no such version\377\033[2J'";
    let (mut guarded, life) = handed_to(&format!("echo $$ >>DIR/runs; {garbage}; exit 7"), "exit 1")?;
    guarded.until(Failed)?;
    let failed = guarded.detail(Failed);
    ensure!(failed.contains("ended with exit status: 7: no such version"), "{failed}");
    ensure!(!failed.chars().any(char::is_control), "{failed:?}");
    is_left_alone(&mut guarded, &life)
}

#[test]
fn a_program_that_refuses_is_told_as_that() -> anyhow::Result<()> {
    if !kernel_available("a_program_that_refuses_is_told_as_that") {
        return Ok(());
    }
    let (mut guarded, life) = handed_to("echo $$ >>DIR/runs; echo a release is under way; exit 75", "exit 1")?;
    guarded.until(Failed)?;
    let failed = guarded.detail(Failed);
    ensure!(failed.contains("refused, nothing was done") && failed.contains("a release is under way"), "{failed}");
    is_left_alone(&mut guarded, &life)
}

/// The state tells. What cannot be undone is told as well.
#[test]
fn a_program_that_hangs_after_it_took_the_canary_away_has_done_it() -> anyhow::Result<()> {
    let test = "a_program_that_hangs_after_it_took_the_canary_away_has_done_it";
    if !kernel_available(test) {
        return Ok(());
    }
    let (mut guarded, _life) = handed_to(
        "kill -TERM $(cat CGROUP/cgroup.procs); exec sleep 600",
        "grep -q 'populated 0' CGROUP/cgroup.events",
    )?;
    guarded.until(Verified)?;
    let applied = guarded.detail(Applied);
    ensure!(applied.contains("did not end within 5s and was killed"), "{applied}");
    ensure!(applied.contains("asked afterwards, command finds it in effect"), "{applied}");
    ensure!(!guarded.lives()? && guarded.terms() == 1, "{} SIGTERMs", guarded.terms());

    let id = guarded.history().remove(0).decision.id;
    let undo = Command::new(program("canary")?)
        .args(["undo", &id])
        .env("CANARY_SOCKET", guarded.file("canary.sock"))
        .output()?;
    ensure!(undo.status.success(), "{}", String::from_utf8_lossy(&undo.stderr));
    guarded.until(Failed)?;
    let failed = guarded.detail(Failed);
    ensure!(failed.starts_with("undo: command: ") && failed.contains("the old version is not there"), "{failed}");
    Ok(())
}

/// A process that is always busy, in the cgroup of this `cgroup.procs`.
fn busy(procs: &Path) -> anyhow::Result<Child> {
    let script = format!("echo $$ > {} && while :; do :; done", procs.display());
    Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).spawn().context("start a busy process")
}

/// The kernel's counts have to agree with it.
#[test]
fn the_word_of_a_program_is_not_enough() -> anyhow::Result<()> {
    if !kernel_available("the_word_of_a_program_is_not_enough") {
        return Ok(());
    }
    let mut cgroup_of_canary = None;
    let mut guarded = Guarded::by(VICTIM, "end", |dir, cgroup| {
        cgroup_of_canary = Some(cgroup.to_owned());
        let run = script(dir, "run", "exit 0")?;
        Ok(format!("orchestrator = \"command\"\ncommand = {{ run = [{run:?}], state = [{run:?}] }}"))
    })?;
    let procs = cgroup_of_canary.context("it was told the cgroup")?.join("cgroup.procs");
    // The canary is never idle.
    let mut busy = busy(&procs)?;
    let life = guarded.start()?;
    life.sees(3)?;
    guarded.crash()?;
    guarded.until(Applied)?;
    life.sees(20)?;
    let stages = guarded.stages();
    busy.kill()?;
    busy.wait()?;
    assert_eq!(stages, [[Planned, Applying, Applied]]);
    // Now it goes in fact.
    for pid in fs::read_to_string(&procs)?.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)) {
        let _ = kill_process(pid, Signal::TERM);
    }
    guarded.until(Verified)?;
    ensure!(!guarded.lives()?, "the canary has ended");
    Ok(())
}
