//! A hold beside what is done to the canary: it takes nothing's place, and keeps nobody waiting for longer than its call may take.

use std::time::Duration;

use super::{
    both_busy, busy, idle,
    rig::{Behaviour, Rig, settle},
    target,
};
use crate::{
    control::{Command, Done, Reply},
    guard::{
        Action,
        Stage::{self, *},
    },
    judge::Outcome,
    orchestrator::State,
    targets::Role,
    telemetry::Sample,
    watch::Snapshot,
};

fn serving() -> Vec<Sample> {
    both_busy(0).samples
}

/// The canary runs on, and nobody asks it any more.
fn drained() -> Vec<Sample> {
    vec![busy(target(Role::Stable, 1)), idle(target(Role::Canary, 2))]
}

async fn ticks(rig: &mut Rig, n: usize, samples: fn() -> Vec<Sample>) {
    for _ in 0..n {
        rig.tick(samples()).await;
    }
}

/// Time goes by for calls that are out.
async fn seconds(n: u64) {
    tokio::time::sleep(Duration::from_secs(n)).await;
    settle().await;
}

async fn said(rig: &Rig, command: Command) -> Result<String, String> {
    match rig.ask(command).await {
        Ok(Reply::Done(Done { said })) => Ok(said),
        Ok(Reply::Status(_)) => panic!("no status was asked for"),
        Err(refusal) => Err(refusal.error),
    }
}

fn hold() -> Command {
    Command::Hold { deployment: "checkout".into(), reason: String::new() }
}

fn roll_back() -> Command {
    Command::Rollback { deployment: "checkout".into(), reason: String::new() }
}

/// Of each decision, the oldest first.
fn lives(rig: &Rig) -> Vec<Vec<Stage>> {
    rig.stages().into_iter().rev().collect()
}

/// Of a decision by its place among all, the oldest first.
fn id(rig: &Rig, n: usize) -> String {
    rig.journal().history(100).unwrap().into_iter().rev().nth(n).unwrap().decision.id
}

/// What is shown of the action, and of the hold beside it.
fn shown(snapshot: &Snapshot) -> [Option<(Action, Stage)>; 2] {
    let view = &snapshot.deployments["checkout"];
    [&view.decision, &view.hold].map(|told| told.as_ref().map(|d| (d.decision.action, d.stage)))
}

const WHOLE: [Stage; 4] = [Planned, Applying, Applied, Verified];

/// With a rollout that stands still.
async fn held(mut rig: Rig) -> Rig {
    ticks(&mut rig, 2, serving).await;
    said(&rig, hold()).await.expect("granted");
    ticks(&mut rig, 3, serving).await;
    assert_eq!(lives(&rig), [WHOLE]);
    rig
}

#[tokio::test(start_paused = true)]
async fn a_hold_takes_no_watch_from_a_drain() {
    let mut rig = Rig::new("drain", &["checkout"]);
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 4, serving).await;
    ticks(&mut rig, 5, drained).await;
    assert_eq!(lives(&rig), [WHOLE]);
    said(&rig, hold()).await.expect("granted");
    ticks(&mut rig, 3, drained).await;
    assert_eq!(lives(&rig), [WHOLE, WHOLE], "both are watched");
    let told = shown(rig.tick(drained()).await.as_ref());
    assert_eq!(told, [Some((Action::Drain, Verified)), Some((Action::Hold, Verified))]);
    // Somebody gives the canary its requests again.
    ticks(&mut rig, 3, serving).await;
    assert_eq!(lives(&rig)[0].last(), Some(&Reverted));
    assert_eq!(lives(&rig)[1], WHOLE);
}

#[tokio::test(start_paused = true)]
async fn a_rollback_waits_for_the_call_of_a_hold_and_for_nothing_after_it() {
    let mut rig = Rig::new("rollback", &["checkout"]);
    ticks(&mut rig, 2, serving).await;
    *rig.fake.behaviour.lock().unwrap() = Behaviour::Hangs;
    said(&rig, hold()).await.expect("granted");
    ticks(&mut rig, 1, serving).await;
    *rig.fake.behaviour.lock().unwrap() = Behaviour::Succeeds;
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 4, serving).await;
    let one = (vec![vec![Planned, Applying]], 0);
    assert_eq!((lives(&rig), rig.applies()), one, "each is planned on an object that the other one changes");
    let error = said(&rig, roll_back()).await.unwrap_err();
    assert!(error.starts_with(&format!("{} is under way", id(&rig, 0))), "{error}");
    // Whether it stands still is not known for a long time.
    *rig.fake.state.lock().unwrap() = State::InProgress;
    seconds(21).await;
    assert_eq!(lives(&rig), [[Planned, Applying, Applied]], "its call has had its time");
    ticks(&mut rig, 2, serving).await;
    assert_eq!(rig.applies(), 1);
    assert_eq!(lives(&rig)[0], [Planned, Applying, Applied, Closed]);
}

#[tokio::test(start_paused = true)]
async fn while_a_decision_waits_for_approval_the_rollout_can_be_held() {
    let approval = "approval = \"required\"\napproval_timeout = \"15m\"";
    let mut rig = Rig::with_keys("rollback", &["checkout"], approval);
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 4, serving).await;
    assert_eq!(lives(&rig), [[Planned]]);
    let waits = id(&rig, 0);
    *rig.fake.behaviour.lock().unwrap() = Behaviour::Hangs;
    said(&rig, hold()).await.expect("granted");
    ticks(&mut rig, 1, serving).await;
    let error = said(&rig, Command::Approve { id: waits.clone() }).await.unwrap_err();
    assert!(
        error.ends_with("is under way, on the same rollout: approve it in a moment; it goes on waiting"),
        "{error}"
    );
    *rig.fake.behaviour.lock().unwrap() = Behaviour::Succeeds;
    seconds(21).await;
    ticks(&mut rig, 2, serving).await;
    assert_eq!(lives(&rig), [vec![Planned], WHOLE.to_vec()]);
    let told = shown(rig.tick(serving()).await.as_ref());
    assert_eq!(told, [Some((Action::Rollback, Planned)), Some((Action::Hold, Verified))], "what waits is not hidden");
    said(&rig, Command::Approve { id: waits }).await.expect("granted");
    ticks(&mut rig, 2, serving).await;
    assert_eq!((rig.applies(), lives(&rig)[1].last()), (1, Some(&Closed)), "the rollback ends it");
}

#[tokio::test(start_paused = true)]
async fn a_rollback_waits_for_the_undo_of_a_hold_no_longer_than_for_its_call() {
    let mut rig = held(Rig::new("rollback", &["checkout"])).await;
    *rig.fake.undo_takes.lock().unwrap() = Duration::from_secs(60);
    said(&rig, Command::Undo { id: id(&rig, 0) }).await.expect("granted");
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 4, serving).await;
    assert_eq!((lives(&rig).len(), rig.applies()), (1, 0));
    seconds(21).await;
    ticks(&mut rig, 2, serving).await;
    assert_eq!((rig.applies(), lives(&rig)[0].last()), (1, Some(&Failed)));
}

#[tokio::test(start_paused = true)]
async fn while_the_canary_is_taken_away_its_rollout_is_neither_held_nor_let_go() {
    let mut rig = held(Rig::new("rollback", &["checkout"])).await;
    *rig.fake.behaviour.lock().unwrap() = Behaviour::Hangs;
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 4, serving).await;
    assert_eq!((rig.applies(), lives(&rig)[0].last()), (1, Some(&Closed)));
    let (hold_id, rollback_id) = (id(&rig, 0), id(&rig, 1));
    let error = said(&rig, Command::Undo { id: hold_id }).await.unwrap_err();
    assert_eq!(error, format!("{rollback_id} is under way, on the same rollout: ask again in a moment"));
    let error = said(&rig, hold()).await.unwrap_err();
    assert!(error.starts_with(&format!("{rollback_id} is under way")), "{error}");
    assert!(rig.fake.undone.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_hold_and_the_undo_of_an_action_wait_for_each_other() {
    let mut rig = Rig::new("drain", &["checkout"]);
    *rig.fake.can_undo.lock().unwrap() = true;
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 4, serving).await;
    ticks(&mut rig, 5, drained).await;
    assert_eq!(lives(&rig), [WHOLE]);
    let drain = id(&rig, 0);
    *rig.fake.behaviour.lock().unwrap() = Behaviour::Hangs;
    said(&rig, hold()).await.expect("granted");
    ticks(&mut rig, 1, drained).await;
    let error = said(&rig, Command::Undo { id: drain.clone() }).await.unwrap_err();
    assert_eq!(error, format!("{} is under way, on the same rollout: ask again in a moment", id(&rig, 1)));
    *rig.fake.behaviour.lock().unwrap() = Behaviour::Succeeds;
    seconds(21).await;
    ticks(&mut rig, 2, drained).await;
    *rig.fake.undo_takes.lock().unwrap() = Duration::from_secs(60);
    said(&rig, Command::Undo { id: drain.clone() }).await.expect("granted");
    let error = said(&rig, hold()).await.unwrap_err();
    assert!(error.starts_with(&format!("{drain} is under way")), "{error}");
    let error = said(&rig, Command::Undo { id: id(&rig, 1) }).await.unwrap_err();
    assert!(error.starts_with(&format!("{drain} is under way")), "{error}");
    seconds(61).await;
    ticks(&mut rig, 1, serving).await;
    said(&rig, hold()).await.expect("granted");
    assert_eq!(*rig.fake.at_once.lock().unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_quarantine_ends_once_a_hold_is_made() {
    let mut rig = Rig::new("quarantine", &["checkout"]);
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 60, serving).await;
    *rig.fake.behaviour.lock().unwrap() = Behaviour::Hangs;
    said(&rig, hold()).await.expect("granted");
    ticks(&mut rig, 30, serving).await;
    assert!(rig.fake.undone.lock().unwrap().is_empty(), "its time is over, and both would be called at once");
    *rig.fake.behaviour.lock().unwrap() = Behaviour::Succeeds;
    seconds(21).await;
    ticks(&mut rig, 3, serving).await;
    assert_eq!((rig.fake.undone.lock().unwrap().first(), *rig.fake.at_once.lock().unwrap()), (Some(&id(&rig, 0)), 0));
}

#[tokio::test(start_paused = true)]
async fn a_hold_is_watched_on_where_what_was_to_end_it_is_not_begun() {
    let mut rig = held(Rig::new("rollback", &["checkout"])).await;
    rig.refuse("stage", "NEW.stage = 'applying'");
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 4, serving).await;
    assert_eq!((rig.applies(), &lives(&rig)[1][..]), (0, &[Planned][..]), "its call is not on disk");
    assert_eq!(lives(&rig)[0], WHOLE);
    // Somebody lets the rollout go on: that is still told.
    *rig.fake.state.lock().unwrap() = State::NotInEffect;
    ticks(&mut rig, 90, serving).await;
    assert_eq!(lives(&rig)[0], [&WHOLE[..], &[Reverted]].concat());
}

#[tokio::test(start_paused = true)]
async fn another_hold_takes_the_place_of_one_that_is_only_watched() {
    let mut rig = held(Rig::new("observe", &["checkout"])).await;
    said(&rig, hold()).await.expect("granted");
    let error = said(&rig, hold()).await.unwrap_err();
    assert!(error.contains("is under way"), "one at a time: {error}");
    ticks(&mut rig, 3, serving).await;
    assert_eq!(lives(&rig), [[&WHOLE[..], &[Closed]].concat(), WHOLE.to_vec()]);
    let first = rig.journal().history(100).unwrap().pop().unwrap();
    let closed = format!("not watched any longer, for {} is in hand", id(&rig, 1));
    assert_eq!(first.stages.last().map(|stage| &*stage.detail), Some(&*closed));
}
