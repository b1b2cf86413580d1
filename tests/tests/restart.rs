//! `kill -9` of a guard around an action, and a second life on the same journal, on real cgroups: over both lives the
//! canary's process gets one SIGTERM and never a second, and the journal says what happened.

use anyhow::Context as _;
use canary_e2e::{
    guarded::{Guarded, PATIENCE},
    kernel_available, wait_until,
};
use canary_user::{
    guard::Stage::{self, *},
    journal::Journal,
};

/// Windows that a guard gets for doing what it must not do.
const TEMPTATION: u32 = 15;

fn guarded(on_term: &str) -> anyhow::Result<Guarded> {
    Guarded::new(env!("CARGO_BIN_EXE_victim"), on_term)
}

/// Makes the guard take minutes over writing a stage, so that it can be killed in the middle of that and nowhere else.
fn hold_at(guarded: &Guarded, stage: Stage) -> anyhow::Result<rusqlite::Connection> {
    let path = guarded.file("journal.db");
    drop(Journal::open(&path)?);
    let db = rusqlite::Connection::open(path)?;
    db.execute_batch(&format!(
        "CREATE VIEW long AS
           WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 100000000000) SELECT x FROM n;
         CREATE TRIGGER hold BEFORE INSERT ON stage WHEN NEW.stage = '{}' BEGIN SELECT max(x) FROM long; END",
        stage.name()
    ))?;
    Ok(db)
}

/// After the kill: what was not committed is gone, and the next writer is not held.
fn release(db: &rusqlite::Connection) -> anyhow::Result<()> {
    db.execute_batch("DROP TRIGGER hold; DROP VIEW long").context("take the trigger away")
}

/// Guaranteed: nothing was begun, so the second life decides and acts as if it were the first.
#[test]
fn killed_before_the_intent_it_acts_once_in_its_second_life() -> anyhow::Result<()> {
    if !kernel_available("killed_before_the_intent_it_acts_once_in_its_second_life") {
        return Ok(());
    }
    let mut guarded = guarded("end")?;
    let first = guarded.start()?;
    first.sees(5)?;
    drop(first);
    assert!(guarded.history().is_empty());
    guarded.crash()?;
    let second = guarded.start()?;
    guarded.until(Verified)?;
    second.sees(TEMPTATION)?;
    assert_eq!(guarded.stages(), [[Planned, Applying, Applied, Verified]]);
    assert_eq!(guarded.terms(), 1);
    assert!(!guarded.lives()?);
    Ok(())
}

/// Guaranteed: nothing was sent. The second life closes the old decision, takes one of its own on fresh evidence, and
/// acts once.
#[test]
fn killed_between_intent_and_call_it_says_so_and_decides_anew() -> anyhow::Result<()> {
    if !kernel_available("killed_between_intent_and_call_it_says_so_and_decides_anew") {
        return Ok(());
    }
    let guarded = guarded("end")?;
    let db = hold_at(&guarded, Applying)?;
    let first = guarded.start()?;
    guarded.crash()?;
    guarded.until(Planned)?;
    drop(first);
    release(&db)?;
    assert_eq!((guarded.stages(), guarded.terms()), (vec![vec![Planned]], 0));

    let _second = guarded.start()?;
    guarded.until(Verified)?;
    assert_eq!(guarded.stages(), [vec![Planned, Failed], vec![Planned, Applying, Applied, Verified]]);
    let said = guarded.history().pop().and_then(|e| e.stages.last().cloned()).context("the first decision")?.detail;
    assert!(said.starts_with("the guard stopped before it called, nothing was done"), "{said}");
    assert_eq!(guarded.terms(), 1);
    Ok(())
}

/// Guaranteed: whether the signal left is not known, so it is never sent again: at most one.
#[test]
fn killed_at_the_call_it_never_calls_again() -> anyhow::Result<()> {
    if !kernel_available("killed_at_the_call_it_never_calls_again") {
        return Ok(());
    }
    let guarded = guarded("stay")?;
    let first = guarded.start()?;
    guarded.crash()?;
    guarded.until(Applying)?;
    drop(first);
    let sent = guarded.terms();
    let second = guarded.start()?;
    second.condemns_again(TEMPTATION)?;
    assert_eq!(guarded.stages(), [[Planned, Applying, Failed]]);
    assert!(sent <= 1 && guarded.terms() <= 1, "{sent} then {}", guarded.terms());
    Ok(())
}

/// Guaranteed: exactly one SIGTERM, and no SIGKILL by a guard that no longer knows why. The journal names it failed.
#[test]
fn killed_while_the_canary_takes_its_grace_it_leaves_it_alone() -> anyhow::Result<()> {
    if !kernel_available("killed_while_the_canary_takes_its_grace_it_leaves_it_alone") {
        return Ok(());
    }
    let mut guarded = guarded("stay")?;
    let first = guarded.start()?;
    guarded.crash()?;
    wait_until("the SIGTERM", PATIENCE, || guarded.terms() > 0)?;
    drop(first);
    let second = guarded.start()?;
    second.condemns_again(TEMPTATION)?;
    assert_eq!(guarded.stages(), [[Planned, Applying, Failed]]);
    let said = guarded.history().pop().and_then(|e| e.stages.last().cloned()).context("the decision")?.detail;
    assert!(said.starts_with("found unfinished after a restart, process finds it not in effect: "), "{said}");
    assert!(said.ends_with(" has processes; not sent again"), "{said}");
    assert_eq!(guarded.terms(), 1);
    assert!(guarded.lives()?);
    Ok(())
}

/// Guaranteed: the canary is gone by one SIGTERM; the second life finds it in effect and verifies it by the counts.
#[test]
fn killed_after_the_act_it_verifies_in_its_second_life() -> anyhow::Result<()> {
    if !kernel_available("killed_after_the_act_it_verifies_in_its_second_life") {
        return Ok(());
    }
    let mut guarded = guarded("end")?;
    let db = hold_at(&guarded, Applied)?;
    let first = guarded.start()?;
    guarded.crash()?;
    wait_until("the end of the canary", PATIENCE, || !guarded.lives().unwrap_or(true))?;
    drop(first);
    release(&db)?;
    assert_eq!(guarded.stages(), [[Planned, Applying]]);
    let second = guarded.start()?;
    guarded.until(Verified)?;
    second.sees(TEMPTATION)?;
    assert_eq!(guarded.stages(), [[Planned, Applying, Applied, Verified]]);
    assert_eq!(guarded.terms(), 1);
    Ok(())
}
