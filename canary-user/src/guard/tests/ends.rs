//! Every action that was begun has an end on record, whatever comes between.

use super::{
    busy,
    rig::{Behaviour, Rig},
    stopped, target,
};
use crate::{
    guard::Stage::{self, *},
    judge::Outcome,
    orchestrator::State,
    targets::{Role, Target},
    telemetry::Sample,
};

fn with(canary: &[Sample]) -> Vec<Sample> {
    [vec![busy(target(Role::Stable, 1))], canary.to_vec()].concat()
}

async fn ticks(rig: &mut Rig, n: usize, canary: &[Sample]) {
    for _ in 0..n {
        rig.tick(with(canary)).await;
    }
}

fn oldest(rig: &Rig) -> Vec<Stage> {
    rig.stages().pop().unwrap()
}

fn last_detail_of_oldest(rig: &Rig) -> String {
    rig.journal().history(100).unwrap().pop().unwrap().stages.pop().unwrap().detail
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_lost_while_it_was_being_done_is_watched_to_its_end() {
    let mut rig = Rig::new("rollback", &["checkout"]);
    *rig.fake.behaviour.lock().unwrap() = Behaviour::Fails;
    *rig.fake.state.lock().unwrap() = State::InProgress;
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 5, &[busy(target(Role::Canary, 2))]).await;
    assert_eq!(oldest(&rig), [Planned, Applying, Applied]);
    let said = rig.last_detail();
    assert!(said.starts_with("fake: the connection broke; asked afterwards, fake finds it under way"), "{said}");
    ticks(&mut rig, 4, &[stopped(target(Role::Canary, 2))]).await;
    *rig.fake.state.lock().unwrap() = State::InEffect;
    ticks(&mut rig, 3, &[stopped(target(Role::Canary, 2))]).await;
    assert_eq!((rig.applies(), oldest(&rig)), (1, vec![Planned, Applying, Applied, Verified]));
}

#[tokio::test(start_paused = true)]
async fn an_action_whose_counts_are_lost_after_they_were_quiet_has_an_end() {
    for (finds, end) in [(State::InProgress, Failed), (State::InEffect, Verified)] {
        let mut rig = Rig::new("rollback", &["checkout"]);
        *rig.fake.state.lock().unwrap() = State::InProgress;
        rig.says(Outcome::Regressed, None);
        ticks(&mut rig, 3, &[busy(target(Role::Canary, 2))]).await;
        ticks(&mut rig, 4, &[stopped(target(Role::Canary, 2))]).await;
        assert_eq!(oldest(&rig), [Planned, Applying, Applied]);
        *rig.fake.state.lock().unwrap() = finds;
        let unknown = Sample { cpu: None, network: None, populated: None, ..busy(target(Role::Canary, 2)) };
        ticks(&mut rig, 80, &[unknown]).await;
        assert_eq!(oldest(&rig).get(3), Some(&end), "{}", rig.last_detail());
    }
}

#[tokio::test(start_paused = true)]
async fn an_action_that_another_one_takes_the_watch_from_is_closed_and_says_so() {
    let mut rig = Rig::new("rollback", &["checkout"]);
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 3, &[busy(target(Role::Canary, 2))]).await;
    ticks(&mut rig, 10, &[stopped(target(Role::Canary, 2))]).await;
    assert_eq!(oldest(&rig).last(), Some(&Verified));
    let next = Target { version: "v3".into(), ..target(Role::Canary, 3) };
    ticks(&mut rig, 3, &[busy(next.clone())]).await;
    assert_eq!((rig.applies(), oldest(&rig)), (2, vec![Planned, Applying, Applied, Verified, Closed]));
    let (said, id) = (last_detail_of_oldest(&rig), rig.journal().history(1).unwrap().remove(0).decision.id);
    let why =
        format!("not watched any longer, for {id} is in hand; whether it helped is not known: too little was seen");
    assert!(said.starts_with(&why), "{said}");
    let shown = rig.decision(with(&[stopped(next)])).await.expect("the latest one");
    assert_eq!(shown.decision.id, id, "watchers see the one in hand");
}

#[tokio::test(start_paused = true)]
async fn that_nobody_knows_whether_it_helped_is_on_record() {
    let mut rig = Rig::new("rollback", &["checkout"]);
    // Nothing is measured of stable that would tell.
    let blind = |canary: Sample| {
        let blind = |s: Sample| Sample { network: None, lifecycle: None, oom_kills: None, ..s };
        vec![blind(busy(target(Role::Stable, 1))), blind(canary)]
    };
    rig.says(Outcome::Regressed, None);
    for _ in 0..3 {
        rig.tick(blind(busy(target(Role::Canary, 2)))).await;
    }
    for _ in 0..620 {
        rig.tick(blind(stopped(target(Role::Canary, 2)))).await;
    }
    assert_eq!(oldest(&rig), [Planned, Applying, Applied, Verified, Closed]);
    let unknown = "whether it helped is not known: nothing that says so is measured";
    assert_eq!(rig.last_detail(), format!("nobody brought the canary back; {unknown}"));
}
