//! What others are told, each way.

use std::time::Duration;

use super::{busy, facts_after, idle, target, tick, verdict, window};
use crate::{
    guard::{Advice, Facts, Guard, Mode, facts::Memory},
    judge::{Outcome, Verdict},
    targets::Role,
};

/// A guard that has condemned the canary in two windows, and what it says with these facts.
fn advice(change: impl FnOnce(&mut Facts)) -> Advice {
    let canary = vec![target(Role::Canary, 2)];
    let mut guard = Guard::new("checkout".into());
    for window in [19, 20] {
        guard.observe(&verdict(Outcome::Regressed, window), &canary);
    }
    let v: Verdict = verdict(Outcome::Regressed, 20);
    let mut facts = facts_after(21, &[busy(target(Role::Stable, 1)), busy(canary[0].clone())], &v);
    change(&mut facts);
    Advice { gates: guard.advise(&v, &facts), ..Advice::default() }
}

#[test]
fn others_are_told_whatever_the_mode_and_the_budget() {
    for mode in Mode::ALL {
        assert!(advice(|f| f.mode = mode).condemns(), "{mode}");
    }
    let told = advice(|f| {
        f.acted_on = Some("checkout-1".into());
        (f.actions_last_hour, f.per_hour) = (9, 2);
        (f.since_last_action, f.cooldown) = (Some(Duration::ZERO), Duration::from_secs(900));
        f.journal_failure = Some("the disk is full".into());
    });
    assert!(told.condemns(), "{told:?}");
    assert!(told.gates.iter().all(|g| g.gate != "mode" && g.gate != "approval"));
}

#[test]
fn a_pause_and_an_ill_stable_hold_others_back_too() {
    let objection = |change: fn(&mut Facts)| {
        let told = advice(change);
        assert!(!told.condemns());
        told.objection().expect("an objection").gate.clone()
    };
    assert_eq!(objection(|f| f.paused = Some("an incident".into())), "pause");
    assert_eq!(objection(|f| f.lost_events = 1), "data_quality");
    assert_eq!(objection(|f| f.stable_crashes = Some(1)), "stable_healthy");
    assert_eq!(objection(|f| f.condemned_elsewhere = vec!["cart".into()]), "budget");
}

#[test]
fn nothing_is_advised_before_the_canary_stands_condemned() {
    let canary = vec![target(Role::Canary, 2)];
    let facts = |v: &Verdict| facts_after(21, &[busy(target(Role::Stable, 1)), busy(target(Role::Canary, 2))], v);
    let mut guard = Guard::new("checkout".into());
    for (outcome, window) in [(Outcome::Healthy, 19), (Outcome::Regressed, 20)] {
        let v = verdict(outcome, window);
        guard.observe(&v, &canary);
        assert!(guard.advise(&v, &facts(&v)).is_empty(), "{outcome:?}");
    }
    assert!(!Advice::default().condemns());
}

#[test]
fn a_request_is_remembered_for_the_instance_that_had_it() {
    let (old, new) = (target(Role::Canary, 2), target(Role::Canary, 3));
    let mut memory = Memory::default();
    let mut after = |second: u64, samples: Vec<crate::telemetry::Sample>| {
        let tick = tick(second, samples);
        memory.observe(&tick, &window("checkout", second, &tick));
        memory.canary_served()
    };
    assert_eq!(after(1, vec![]), None, "no canary");
    assert_eq!(after(2, vec![idle(old.clone())]), Some(false));
    let mut deaf = idle(old.clone());
    deaf.network = None;
    assert_eq!(after(3, vec![deaf]), None, "not measured is not none");
    assert_eq!(after(4, vec![busy(old.clone())]), Some(true));
    assert_eq!(after(5, vec![idle(old.clone()), idle(new.clone())]), Some(true), "it had one before");
    assert_eq!(after(6, vec![idle(new)]), Some(false), "another instance has had none");
}
