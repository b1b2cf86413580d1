//! Whatever happens in whatever order: no canary instance is acted on twice, and none while paused.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{
    busy,
    rig::{Behaviour, Rig},
    stopped, target,
};
use crate::{
    guard::Stage,
    judge::{HardFact, Outcome},
    orchestrator::State,
    targets::Role,
};

#[derive(Clone, Debug)]
enum Step {
    Ticks(u8),
    Says(Outcome, Option<HardFact>),
    Pause(bool),
    Replace,
    CanaryStops(bool),
    Behaves(Behaviour),
    Finds(State),
    Stop,
    Kill,
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..6u8).prop_map(Step::Ticks),
        4 => prop::sample::select(vec![
            Step::Says(Outcome::Regressed, None),
            Step::Says(Outcome::Regressed, None),
            Step::Says(Outcome::Healthy, None),
            Step::Says(Outcome::Inconclusive, None),
            Step::Says(Outcome::Regressed, Some(HardFact::CrashLoop)),
        ]),
        2 => any::<bool>().prop_map(Step::Pause),
        2 => Just(Step::Replace),
        2 => any::<bool>().prop_map(Step::CanaryStops),
        2 => prop::sample::select(vec![Behaviour::Succeeds, Behaviour::Refuses, Behaviour::Hangs]).prop_map(Step::Behaves),
        1 => prop::sample::select(vec![State::InEffect, State::NotInEffect, State::InProgress]).prop_map(Step::Finds),
        1 => Just(Step::Stop),
        1 => Just(Step::Kill),
        1 => Just(Step::Wait),
    ]
}

/// Plays the steps; gives the instances that the orchestrator was called for, and how often it was called while paused.
async fn play(steps: Vec<Step>) -> (Vec<u64>, u32, Vec<Vec<Stage>>) {
    let mut rig = Rig::new("rollback", &["checkout"]);
    let (mut incarnation, mut is_stopped) = (2, false);
    for step in steps {
        match step {
            Step::Ticks(n) => {
                for _ in 0..n {
                    let canary = target(Role::Canary, incarnation);
                    let canary = if is_stopped { stopped(canary) } else { busy(canary) };
                    rig.tick(vec![busy(target(Role::Stable, 1)), canary]).await;
                }
            }
            Step::Says(outcome, fact) => rig.says(outcome, fact),
            Step::Pause(paused) => rig.pause(paused),
            Step::Replace => incarnation += 1,
            Step::CanaryStops(stops) => is_stopped = stops,
            Step::Behaves(behaviour) => *rig.fake.behaviour.lock().unwrap() = behaviour,
            Step::Finds(state) => *rig.fake.state.lock().unwrap() = state,
            Step::Stop => drop(rig.stop().await),
            Step::Kill => rig.kill().await,
            Step::Wait => tokio::time::sleep(std::time::Duration::from_secs(120)).await,
        }
    }
    rig.kill().await;
    let applied = rig.fake.applied.lock().unwrap().iter().flatten().map(|t| t.incarnation).collect();
    let while_paused = *rig.fake.while_paused.lock().unwrap();
    (applied, while_paused, rig.stages())
}

fn run(steps: Vec<Step>) -> (Vec<u64>, u32, Vec<Vec<Stage>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(play(steps))
}

/// The order of stages that a life may have.
fn follows(before: Stage, after: Stage) -> bool {
    use Stage::*;
    matches!(
        (before, after),
        (Planned, Applying | Blocked | Failed)
            | (Applying, Applied | Failed)
            | (Applied, Applied | Verified | Reverted | Failed)
            | (Verified, Reverted)
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn never_twice_and_never_while_paused(steps in prop::collection::vec(step(), 1..40)) {
        let (applied, while_paused, lives) = run(steps);
        let distinct: BTreeSet<u64> = applied.iter().copied().collect();
        prop_assert_eq!(distinct.len(), applied.len(), "acted on twice: {:?}", applied);
        prop_assert_eq!(while_paused, 0);
        let calls = lives.iter().flatten().filter(|s| **s == Stage::Applying).count();
        prop_assert_eq!(calls, applied.len(), "every call is in the journal");
        for life in &lives {
            prop_assert!(life.windows(2).all(|w| follows(w[0], w[1])), "{:?}", life);
        }
    }
}

/// The property is worth something only if actions do happen in it.
#[test]
fn the_machine_does_act() {
    let regressed = || Step::Says(Outcome::Regressed, None);
    let (applied, _, _) = run(vec![
        regressed(),
        Step::Ticks(4),
        Step::Stop,
        Step::Ticks(4),
        Step::Behaves(Behaviour::Refuses),
        Step::Replace,
        Step::Ticks(4),
        Step::Kill,
        Step::Ticks(4),
        Step::Replace,
        Step::Ticks(4),
    ]);
    assert_eq!(applied.first(), Some(&2));
    assert!(applied.len() >= 2, "{applied:?}");
}
