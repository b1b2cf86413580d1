//! A rollout that a person has held: verified by the orchestrator's word alone, watched for who lets it go on, and no reason not to
//! judge its canary and act on it.

use std::{sync::Arc, time::Duration};

use super::{
    both_busy, busy,
    rig::{Behaviour, Rig},
    target,
};
use crate::{
    control::{Command, Done, RefusalKind, Reply},
    guard::Stage::{self, *},
    judge::Outcome,
    orchestrator::{State, dry_run::DryRun, process::Process},
    targets::{Role, Target},
};

async fn ticks(rig: &mut Rig, n: usize) {
    for _ in 0..n {
        rig.tick(both_busy(0).samples).await;
    }
}

async fn said(rig: &Rig, command: Command) -> Result<String, (RefusalKind, String)> {
    match rig.ask(command).await {
        Ok(Reply::Done(Done { said })) => Ok(said),
        Ok(Reply::Status(_)) => panic!("no status was asked for"),
        Err(refusal) => Err((refusal.kind, refusal.error)),
    }
}

fn hold() -> Command {
    Command::Hold { deployment: "checkout".into(), reason: "wrong prices".into() }
}

/// One whose canary is judged healthy, and its rollout held, with the id of that decision.
async fn held(mut rig: Rig) -> (Rig, String) {
    ticks(&mut rig, 2).await;
    said(&rig, hold()).await.expect("granted");
    ticks(&mut rig, 3).await;
    assert_eq!(rig.stages(), [[Planned, Applying, Applied, Verified]], "{}", rig.last_detail());
    let id = rig.journal().history(1).unwrap().remove(0).decision.id;
    (rig, id)
}

/// The life of the hold, which was decided first.
fn life(rig: &Rig) -> Vec<Stage> {
    rig.stages().pop().unwrap()
}

async fn is_acted_on_once_condemned(rig: &mut Rig) {
    assert_eq!(rig.applies(), 0);
    rig.says(Outcome::Regressed, None);
    ticks(rig, 4).await;
    assert_eq!(rig.applies(), 1, "{:?}: {}", rig.stages(), rig.last_detail());
}

#[tokio::test(start_paused = true)]
async fn a_person_has_a_rollout_held_in_any_mode_and_not_while_paused() {
    let mut rig = Rig::new("observe", &["checkout"]);
    ticks(&mut rig, 2).await;
    rig.pause(true);
    let (kind, error) = said(&rig, hold()).await.unwrap_err();
    assert!(kind == RefusalKind::NotNow && error.starts_with("pause: paused: "), "{error}");
    rig.pause(false);
    let words = said(&rig, hold()).await.expect("granted");
    ticks(&mut rig, 3).await;
    let entry = rig.journal().history(1).unwrap().remove(0);
    let id = &entry.decision.id;
    let follows = format!("`canary explain {id}` follows it, `canary undo {id}` lets it go on.");
    assert_eq!(words, format!("Holding the rollout of checkout as decision {id}. {follows}"));
    assert_eq!(entry.decision.reason, "asked for by root: wrong prices");
    assert_eq!(life(&rig), [Planned, Applying, Applied, Verified], "its canary serves on, and need not be quiet");
    assert_eq!(entry.stages[2].detail, "fake says that it is done; it is asked whether the rollout stands still");
    assert_eq!(rig.last_detail(), "fake finds it in effect: as the test says");
    assert_eq!((rig.fake.held.lock().unwrap().len(), rig.applies()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_rollout_that_does_not_stand_still_was_not_held() {
    let mut rig = Rig::new("observe", &["checkout"]);
    *rig.fake.state.lock().unwrap() = State::NotInEffect;
    ticks(&mut rig, 2).await;
    said(&rig, hold()).await.expect("granted");
    ticks(&mut rig, 90).await;
    assert_eq!(life(&rig), [Planned, Applying, Applied, Failed]);
    assert_eq!(rig.last_detail(), "it did not take effect: fake finds it not in effect: as the test says");
}

#[tokio::test(start_paused = true)]
async fn a_canary_whose_rollout_is_held_is_rolled_back_all_the_same() {
    for killed in [false, true] {
        let (mut rig, _) = held(Rig::new("rollback", &["checkout"])).await;
        if killed {
            rig.kill().await;
        }
        is_acted_on_once_condemned(&mut rig).await;
        assert_eq!(life(&rig), [Planned, Applying, Applied, Verified, Closed]);
        let mut history = rig.journal().history(2).unwrap();
        let (hold, rollback) = (history.pop().unwrap(), history.pop().unwrap());
        let closed = format!("not watched any longer, for {} is in hand", rollback.decision.id);
        assert_eq!(hold.stages.last().map(|stage| &*stage.detail), Some(&*closed));
        ticks(&mut rig, 90).await;
        assert_eq!(rig.applies(), 1, "and that is done once");
        let (_, error) = said(&rig, Command::Rollback { deployment: "checkout".into(), reason: String::new() })
            .await
            .expect_err("one per rollout");
        assert!(error.starts_with("budget: an action was already begun against this canary"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hold_uses_up_no_budget_and_begins_no_cooldown() {
    let budget = "per_hour = 1, cooldown = \"15m\"";
    let (mut rig, _) = held(Rig::with_budget("rollback", &["checkout"], budget)).await;
    is_acted_on_once_condemned(&mut rig).await;
}

#[tokio::test(start_paused = true)]
async fn who_lets_a_held_rollout_go_on_is_noticed_and_takes_nothing_over() {
    for killed in [false, true] {
        let (mut rig, _) = held(Rig::new("rollback", &["checkout"])).await;
        if killed {
            rig.kill().await;
        }
        *rig.fake.state.lock().unwrap() = State::NotInEffect;
        // Once may be a moment in somebody's change.
        ticks(&mut rig, 40).await;
        assert_eq!(life(&rig).last(), Some(&Verified));
        ticks(&mut rig, 40).await;
        assert_eq!(life(&rig), [Planned, Applying, Applied, Verified, Reverted]);
        let found = "somebody lets the rollout go on: fake finds it not in effect: as the test says";
        assert_eq!(rig.last_detail(), found);
        assert_eq!(rig.fake.held.lock().unwrap().len(), 1, "nobody fights over it");
        if killed {
            rig.kill().await;
        }
        *rig.fake.state.lock().unwrap() = State::InEffect;
        is_acted_on_once_condemned(&mut rig).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_hold_is_watched_for_a_while_and_closed_also_where_no_guard_was_there() {
    let (mut rig, _) = held(Rig::new("observe", &["checkout"])).await;
    ticks(&mut rig, 610).await;
    assert_eq!(life(&rig), [Planned, Applying, Applied, Verified, Closed]);
    assert_eq!(rig.last_detail(), "nobody let the rollout go on");

    let (mut rig, _) = held(Rig::new("observe", &["checkout"])).await;
    rig.kill().await;
    rig.second += 3600;
    ticks(&mut rig, 1).await;
    assert_eq!(life(&rig).last(), Some(&Closed));
    assert_eq!(rig.last_detail(), "the guard was not running when its watch over it ended");
}

/// Where the status says that the hold stands.
async fn in_status(rig: &Rig) -> Option<Stage> {
    match rig.ask(Command::Status).await.expect("it answers") {
        Reply::Status(status) => status.deployments[0].hold.as_ref().map(|hold| hold.stage),
        Reply::Done(Done { said }) => panic!("{said}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_hold_of_a_version_that_is_gone_is_in_no_status() {
    let (mut rig, _) = held(Rig::new("observe", &["checkout"])).await;
    ticks(&mut rig, 610).await;
    assert_eq!(in_status(&rig).await, Some(Closed), "its canary is there");
    let next = Target { version: "v3".into(), ..target(Role::Canary, 3) };
    rig.tick(vec![busy(target(Role::Stable, 1)), busy(next)]).await;
    assert_eq!(in_status(&rig).await, None, "another one is nobody's that was held");
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_stands_is_shown_by_the_next_life_of_the_guard() {
    let (mut rig, id) = held(Rig::new("observe", &["checkout"])).await;
    rig.kill().await;
    let snapshot = rig.tick(both_busy(0).samples).await;
    let shown = snapshot.deployments["checkout"].hold.as_ref().expect("it is watched on");
    assert_eq!((&shown.decision.id, shown.stage), (&id, Verified));
    assert_eq!(shown.detail, "fake finds it in effect: as the test says");
    assert_eq!(in_status(&rig).await, Some(Verified));
}

#[tokio::test(start_paused = true)]
async fn an_undo_lets_the_rollout_go_on_and_leaves_the_canary_to_the_guard() {
    for killed in [false, true] {
        let (mut rig, id) = held(Rig::new("rollback", &["checkout"])).await;
        rig.pause(true);
        let words = said(&rig, Command::Undo { id: id.clone() }).await.expect("granted, also while paused");
        assert_eq!(words, format!("Undoing {id}: resume. `canary explain {id}` follows it."));
        ticks(&mut rig, 2).await;
        assert_eq!(life(&rig), [Planned, Applying, Applied, Verified, Undoing, Undone]);
        assert_eq!(*rig.fake.undone.lock().unwrap(), [id]);
        rig.pause(false);
        if killed {
            rig.kill().await;
        }
        is_acted_on_once_condemned(&mut rig).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_guard_that_is_asked_to_stop_waits_for_the_undo_of_a_hold() {
    let (mut rig, id) = held(Rig::new("observe", &["checkout"])).await;
    *rig.fake.undo_takes.lock().unwrap() = Duration::from_secs(10);
    said(&rig, Command::Undo { id }).await.expect("granted");
    rig.stop().await;
    assert_eq!(life(&rig), [Planned, Applying, Applied, Verified, Undoing, Undone]);
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_a_kill_broke_off_is_taken_up_by_what_is_found() {
    for (finds, end) in [(State::InEffect, Verified), (State::NotInEffect, Failed)] {
        let mut rig = Rig::new("rollback", &["checkout"]);
        *rig.fake.behaviour.lock().unwrap() = Behaviour::Hangs;
        ticks(&mut rig, 2).await;
        said(&rig, hold()).await.expect("granted");
        ticks(&mut rig, 2).await;
        assert_eq!(life(&rig), [Planned, Applying]);
        rig.kill().await;
        *rig.fake.behaviour.lock().unwrap() = Behaviour::Succeeds;
        *rig.fake.state.lock().unwrap() = finds;
        ticks(&mut rig, 3).await;
        assert_eq!(life(&rig).last(), Some(&end), "{}", rig.last_detail());
        *rig.fake.state.lock().unwrap() = State::InEffect;
        is_acted_on_once_condemned(&mut rig).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_is_refused_is_told_each_time_and_delays_nothing() {
    let mut rig = Rig::new("rollback", &["checkout"]);
    *rig.fake.will_not.lock().unwrap() = Some("it is paused already".into());
    ticks(&mut rig, 2).await;
    for times in 1..=2 {
        said(&rig, hold()).await.expect("the orchestrator is asked next");
        ticks(&mut rig, 2).await;
        assert_eq!(rig.stages(), vec![vec![Blocked]; times]);
        assert_eq!(rig.last_detail(), "owner: refused, nothing was done: it is paused already");
    }
    *rig.fake.will_not.lock().unwrap() = None;
    is_acted_on_once_condemned(&mut rig).await;
}

#[tokio::test(start_paused = true)]
async fn where_there_is_no_rollout_a_hold_is_refused_at_once_with_what_to_do_instead() {
    let mut rig = Rig::new("rollback", &["checkout"]);
    rig.orchestrator = Some(Arc::new(Process::new("/nowhere".into(), Duration::from_secs(1), None)));
    ticks(&mut rig, 2).await;
    let (kind, error) = said(&rig, hold()).await.unwrap_err();
    let instead = "`canary pause` keeps the guard from acting, `canary rollback` takes it away";
    assert_eq!((kind, error), (RefusalKind::NotNow, format!("a canary of process has no rollout to hold; {instead}")));
    assert!(rig.stages().is_empty(), "nothing was decided");
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_says_what_it_would_hold() {
    let mut rig = Rig::new("rollback", &["checkout"]);
    rig.orchestrator = Some(Arc::new(DryRun));
    ticks(&mut rig, 2).await;
    said(&rig, hold()).await.expect("granted");
    ticks(&mut rig, 2).await;
    assert_eq!(rig.stages(), [[Planned, Blocked]]);
    assert_eq!(rig.last_detail(), "dry run, nothing was done: would hold checkout v2 in /checkout/v2 (incarnation 2)");
    let id = rig.journal().history(1).unwrap().remove(0).decision.id;
    let (_, error) = said(&rig, Command::Undo { id }).await.unwrap_err();
    assert!(error.ends_with("an undo would no longer hold checkout v2 in /checkout/v2"), "{error}");
}
