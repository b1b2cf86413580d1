//! A drain by "process", from what the kernel counts to the end of the canary's processes; stable runs on.

use std::process::Command;

use anyhow::{Context as _, ensure};
use canary_e2e::{
    guarded::{Guarded, PATIENCE},
    kernel_available,
    program::program,
    wait_until,
};
use canary_user::guard::{Action, Stage::*};

fn drained(keys: &str) -> anyhow::Result<Guarded> {
    let keys = format!("orchestrator = \"process\"\ngrace = \"60s\"\n{keys}");
    Guarded::in_mode("drain", env!("CARGO_BIN_EXE_victim"), "end", |_, _| Ok(keys))
}

/// The canary ended by itself at its one SIGTERM, long before the grace was over.
fn is_gone(guarded: &mut Guarded) -> anyhow::Result<()> {
    guarded.until(Verified)?;
    let entry = guarded.history().into_iter().find(|e| e.stages.iter().any(|s| s.stage == Applied));
    assert_eq!(entry.context("it was carried out")?.decision.action, Action::Drain);
    assert_eq!((guarded.calls(), guarded.terms(), guarded.lives()?), (1, 1, false));
    let said = guarded.detail(Verified);
    ensure!(said.ends_with("process finds it in effect: no process in the canary's cgroups"), "{said}");
    Ok(())
}

#[test]
fn a_canary_that_crashes_is_drained_by_its_cgroup() -> anyhow::Result<()> {
    if !kernel_available("a_canary_that_crashes_is_drained_by_its_cgroup") {
        return Ok(());
    }
    let mut guarded = drained("")?;
    let life = guarded.start()?;
    life.sees(3)?;
    guarded.crash()?;
    is_gone(&mut guarded)
}

#[test]
fn a_person_approves_a_drain_of_a_real_canary() -> anyhow::Result<()> {
    if !kernel_available("a_person_approves_a_drain_of_a_real_canary") {
        return Ok(());
    }
    let mut guarded = drained("approval = \"required\"")?;
    let life = guarded.start()?;
    life.sees(3)?;
    guarded.crash()?;
    guarded.until(Planned)?;
    life.condemns_again(3)?;
    assert_eq!((guarded.calls(), guarded.terms()), (0, 0), "it waits");
    let id = guarded.history().remove(0).decision.id;
    let approve = || {
        let program = program("canary")?;
        let output =
            Command::new(program).args(["approve", &id]).env("CANARY_SOCKET", guarded.file("canary.sock")).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        anyhow::Ok(())
    };
    wait_until("it is approved", PATIENCE, || approve().is_ok())
        .with_context(|| format!("{:#?}", guarded.history()))?;
    is_gone(&mut guarded)?;
    let stages = guarded.stages().pop().context("a decision")?;
    assert!(stages.starts_with(&[Planned, Approved, Applying, Applied, Verified]), "{stages:?}");
    Ok(())
}
