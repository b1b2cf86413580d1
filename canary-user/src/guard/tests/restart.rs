//! A guard that died between any two stages asks what it left behind and never sends it again.

use super::{
    UNIX_MS, both_busy, busy,
    rig::{Behaviour, Rig, plan},
    stopped, target,
};
use crate::{
    guard::{
        Action, Decision, Moment,
        Stage::{self, *},
    },
    judge::Outcome,
    orchestrator::State,
    targets::Role,
    telemetry::Sample,
};

const AT: Moment = Moment { unix_ms: UNIX_MS, t_ns: 0 };

fn decision() -> Decision {
    Decision {
        id: "checkout-1795000000000-0001".into(),
        deployment: "checkout".into(),
        unix_ms: UNIX_MS,
        window: 20,
        action: Action::Rollback,
        reason: "CPU per turnaround +31 %".into(),
        recommendation: None,
        gates: Vec::new(),
        canary: vec![target(Role::Canary, 2)],
        stable: vec![target(Role::Stable, 1)],
    }
}

/// A rig whose journal ends after these stages, as after a kill; the canary still stands condemned.
fn killed_after(stages: &[Stage], finds: State) -> Rig {
    let rig = Rig::new("rollback", &["checkout"]);
    let d = decision();
    let mut journal = rig.journal();
    journal.record_decision(&d, &plan(&d), stages[0], "", AT).unwrap();
    for stage in &stages[1..] {
        journal.record_stage(&d.id, *stage, "", AT).unwrap();
    }
    *rig.fake.state.lock().unwrap() = finds;
    rig.says(Outcome::Regressed, None);
    rig
}

fn first_life(rig: &Rig) -> Vec<Stage> {
    rig.stages().pop().unwrap()
}

#[tokio::test(start_paused = true)]
async fn after_a_kill_before_the_call_nothing_was_done_and_it_may_be_decided_anew() {
    let mut rig = killed_after(&[Planned], State::NotInEffect);
    rig.tick(both_busy(0).samples).await;
    assert_eq!(first_life(&rig), [Planned, Failed]);
    assert_eq!(
        rig.last_detail(),
        "the guard stopped before it called, nothing was done; fake finds it not in effect: as the test says"
    );
    assert_eq!(rig.applies(), 0, "what was left behind is not sent");
    for _ in 0..10 {
        rig.tick(both_busy(0).samples).await;
    }
    assert_eq!(rig.applies(), 1, "fresh evidence leads to a decision of its own, once");
}

#[tokio::test(start_paused = true)]
async fn after_a_kill_during_the_call_the_state_decides_and_nothing_is_sent() {
    for stages in [&[Planned, Applying][..], &[Planned, Applying, Applied]] {
        let mut rig = killed_after(stages, State::NotInEffect);
        for _ in 0..20 {
            rig.tick(both_busy(0).samples).await;
        }
        let life: Vec<Stage> = stages.iter().copied().chain([Failed]).collect();
        assert_eq!(first_life(&rig), life);
        assert_eq!(rig.applies(), 0);
        let said = &rig.journal().history(9).unwrap().pop().unwrap().stages.pop().unwrap().detail;
        assert_eq!(
            said,
            "found unfinished after a restart, fake finds it not in effect: as the test says; not sent again"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_found_in_effect_is_verified_by_the_counts() {
    for stages in [&[Planned, Applying][..], &[Planned, Applying, Applied]] {
        let mut rig = killed_after(stages, State::InEffect);
        for _ in 0..5 {
            rig.tick(vec![busy(target(Role::Stable, 1)), stopped(target(Role::Canary, 2))]).await;
        }
        let life: Vec<Stage> = stages.iter().copied().chain([Applied, Verified]).collect();
        assert_eq!(first_life(&rig), life);
        assert_eq!(rig.applies(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_finished_action_is_left_alone() {
    for end in [Reverted, Failed, Closed, Undone] {
        let mut rig = killed_after(&[Planned, Applying, Applied, end], State::NotInEffect);
        for _ in 0..20 {
            rig.tick(both_busy(0).samples).await;
        }
        assert_eq!(first_life(&rig), [Planned, Applying, Applied, end]);
        assert_eq!(rig.applies(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_guard_killed_while_the_orchestrator_hangs_does_not_call_it_again() {
    let mut rig = Rig::new("rollback", &["checkout"]);
    *rig.fake.behaviour.lock().unwrap() = Behaviour::Hangs;
    rig.says(Outcome::Regressed, None);
    rig.tick(both_busy(0).samples).await;
    rig.tick(both_busy(0).samples).await;
    assert_eq!(rig.applies(), 1);
    rig.kill().await;
    *rig.fake.state.lock().unwrap() = State::NotInEffect;
    for _ in 0..20 {
        rig.tick(both_busy(0).samples).await;
    }
    assert_eq!(first_life(&rig), [Planned, Applying, Failed]);
    assert_eq!(rig.applies(), 1);
}

/// Both versions serving, the canary as another instance than that of the decision.
fn another_canary() -> Vec<Sample> {
    vec![busy(target(Role::Stable, 1)), busy(target(Role::Canary, 9))]
}

#[tokio::test(start_paused = true)]
async fn what_a_person_took_back_is_theirs_also_where_it_comes_after_a_restart() {
    let undoing = [Planned, Applying, Applied, Verified, Undoing];
    let undone = [Planned, Applying, Applied, Verified, Undoing, Undone];
    for stages in [&undoing[..], &undone] {
        let mut rig = killed_after(stages, State::NotInEffect);
        for _ in 0..20 {
            rig.tick(another_canary()).await;
        }
        assert_eq!((rig.applies(), rig.stages()), (0, vec![undone.to_vec()]));
        assert!(
            rig.journal().acted_on("checkout", &[target(Role::Canary, 9)]).unwrap().is_some(),
            "nor in a later life"
        );
    }
    let mut rig = killed_after(&undone, State::NotInEffect);
    rig.second = 700;
    for _ in 0..5 {
        rig.tick(another_canary()).await;
    }
    assert_eq!(rig.applies(), 1, "what comes much later is another rollout");
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_a_kill_broke_off_may_still_bring_the_canary_which_is_theirs_then() {
    let mut rig = killed_after(&[Planned, Applying, Applied, Verified, Undoing], State::InEffect);
    for _ in 0..20 {
        rig.tick(another_canary()).await;
    }
    let life = vec![Planned, Applying, Applied, Verified, Undoing, Failed];
    assert_eq!((rig.applies(), rig.stages()), (0, vec![life]));
}

#[tokio::test(start_paused = true)]
async fn a_canary_grows_no_younger_by_a_restart_of_the_guard() {
    let mut rig = Rig::with_keys("rollback", &["checkout"], "max_age = \"1m\"");
    for _ in 0..40 {
        rig.tick(both_busy(0).samples).await;
    }
    rig.kill().await;
    for _ in 0..30 {
        rig.tick(both_busy(0).samples).await;
    }
    rig.says(Outcome::Regressed, None);
    for _ in 0..5 {
        rig.tick(both_busy(0).samples).await;
    }
    assert_eq!((rig.applies(), rig.stages()), (0, vec![vec![Blocked]]));
    let said = rig.last_detail();
    assert!(said.starts_with("canary_window: ") && said.contains("longer than max_age 1m"), "{said}");
    for _ in 0..5 {
        rig.tick(another_canary()).await;
    }
    assert_eq!(rig.applies(), 1, "another one is young");
}

#[tokio::test(start_paused = true)]
async fn an_action_on_a_deployment_that_is_not_configured_any_more_is_closed() {
    let mut rig = killed_after(&[Planned, Applying], State::InEffect);
    let journal = rig.journal_path();
    let mut other = Rig::new("rollback", &["cart"]);
    std::fs::copy(&journal, other.journal_path()).unwrap();
    other.tick(Vec::new()).await;
    assert_eq!(other.last_detail(), "left unfinished; checkout is no longer configured");
    assert_eq!(other.applies(), 0);
    rig.stop().await;
}
