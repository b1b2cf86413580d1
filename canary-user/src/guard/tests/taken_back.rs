//! Canaries that somebody wants again: what a person undoes, however that goes, and what others bring back piece by piece.

use std::time::Duration;

use super::{busy, rig::Rig, stopped, target};
use crate::{
    control::Command,
    guard::Stage::{self, *},
    judge::Outcome,
    orchestrator::State,
    targets::{Role, Target},
    telemetry::Sample,
};

async fn ticks(rig: &mut Rig, n: usize, canary: &[Sample]) {
    for _ in 0..n {
        rig.tick([vec![busy(target(Role::Stable, 1))], canary.to_vec()].concat()).await;
    }
}

/// A canary instance at a place of its own.
fn at(place: &str, incarnation: u64) -> Sample {
    busy(Target { cgroup: place.into(), ..target(Role::Canary, incarnation) })
}

fn serving(incarnation: u64) -> [Sample; 1] {
    [busy(target(Role::Canary, incarnation))]
}

fn life(rig: &Rig) -> Vec<Stage> {
    rig.stages().remove(0)
}

/// A canary that was rolled back and that the fake can bring back, with the id of the decision; it stands condemned.
async fn rolled_back() -> (Rig, String) {
    let mut rig = Rig::new("rollback", &["checkout"]);
    *rig.fake.can_undo.lock().unwrap() = true;
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 3, &serving(2)).await;
    ticks(&mut rig, 4, &[stopped(target(Role::Canary, 2))]).await;
    assert_eq!(life(&rig), [Planned, Applying, Applied, Verified]);
    let id = rig.journal().history(1).unwrap().remove(0).decision.id;
    (rig, id)
}

async fn undo(rig: &Rig, id: &str) {
    rig.ask(Command::Undo { id: id.to_owned() }).await.expect("granted");
}

#[tokio::test(start_paused = true)]
async fn what_a_person_undoes_comes_back_and_is_left_alone() {
    let (mut rig, id) = rolled_back().await;
    undo(&rig, &id).await;
    ticks(&mut rig, 100, &serving(9)).await;
    assert_eq!(life(&rig), [Planned, Applying, Applied, Verified, Undoing, Undone]);
    rig.kill().await;
    ticks(&mut rig, 100, &serving(9)).await;
    assert_eq!(rig.applies(), 1, "not even by a guard that is started anew");
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_while_the_undo_is_under_way_is_left_alone() {
    let (mut rig, id) = rolled_back().await;
    *rig.fake.undo_takes.lock().unwrap() = Duration::from_secs(100);
    undo(&rig, &id).await;
    ticks(&mut rig, 10, &serving(9)).await;
    assert_eq!((rig.applies(), life(&rig).last()), (1, Some(&Undoing)));
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_after_an_undo_that_failed_is_left_alone() {
    let (mut rig, id) = rolled_back().await;
    *rig.fake.undo_fails.lock().unwrap() = 1;
    undo(&rig, &id).await;
    ticks(&mut rig, 1, &[]).await;
    assert_eq!(life(&rig).last(), Some(&Failed), "{}", rig.last_detail());
    ticks(&mut rig, 10, &serving(9)).await;
    assert_eq!(rig.applies(), 1);
    // Nor by a guard that was killed meanwhile.
    rig.kill().await;
    ticks(&mut rig, 10, &serving(10)).await;
    assert_eq!(rig.applies(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_failed_after_it_was_done_is_undone() {
    let (mut rig, id) = rolled_back().await;
    *rig.fake.undo_fails.lock().unwrap() = 1;
    *rig.fake.state.lock().unwrap() = State::NotInEffect;
    undo(&rig, &id).await;
    ticks(&mut rig, 1, &[]).await;
    assert_eq!(life(&rig).last(), Some(&Undone));
    let said = rig.last_detail();
    assert!(said.starts_with("fake: the connection broke; asked afterwards, fake finds it not in effect"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn another_rollout_that_is_there_when_an_older_one_is_undone_is_not_taken_for_it() {
    let (mut rig, id) = rolled_back().await;
    rig.says(Outcome::Healthy, None);
    ticks(&mut rig, 620, &[]).await;
    assert_eq!(life(&rig).last(), Some(&Closed));
    ticks(&mut rig, 5, &[at("/checkout/v2-b", 5)]).await;
    undo(&rig, &id).await;
    ticks(&mut rig, 5, &[at("/checkout/v2-b", 5)]).await;
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 5, &[at("/checkout/v2-b", 5)]).await;
    assert_eq!(rig.applies(), 2, "{:?}", rig.stages());
}

#[tokio::test(start_paused = true)]
async fn what_follows_in_other_places_when_somebody_brings_the_canary_back_is_theirs_too() {
    let (mut rig, _) = rolled_back().await;
    ticks(&mut rig, 2, &[at("/pod/3", 3)]).await;
    assert_eq!(life(&rig).last(), Some(&Reverted));
    ticks(&mut rig, 20, &[at("/pod/3", 3), at("/pod/4", 4)]).await;
    ticks(&mut rig, 20, &[at("/pod/4", 4)]).await;
    assert_eq!(rig.applies(), 1, "{:?}", rig.stages());
    rig.kill().await;
    ticks(&mut rig, 20, &[at("/pod/5", 5)]).await;
    assert_eq!(rig.applies(), 1, "nor after a restart: {:?}", rig.stages());
    rig.second += 700;
    ticks(&mut rig, 5, &[at("/pod/6", 6)]).await;
    assert_eq!(rig.applies(), 2, "what comes much later is another rollout: {:?}", rig.stages());
}
