//! A decision is told once.

use super::{UNIX_MS, busy, facts_after, hard, target, verdict};
use crate::{
    guard::{Action, Facts, Guard, Mode},
    judge::{HardFact, Outcome, Verdict},
    targets::Role,
};

fn facts(verdict: &Verdict, mode: Mode, canary: u64) -> Facts {
    let samples = [busy(target(Role::Stable, 1)), busy(target(Role::Canary, canary))];
    // Seen since window 0.
    Facts { mode, ..facts_after(21, &samples, verdict) }
}

/// One window: what is decided, as (action, blocking gate).
fn step(guard: &mut Guard, v: &Verdict, f: &Facts) -> Option<(Action, Option<String>)> {
    guard.observe(v, &f.canary);
    guard.decide(v, f, UNIX_MS + v.window * 1000).map(|d| (d.action, d.blocked_by().map(|g| g.gate.clone())))
}

fn regressed(window: u64) -> Verdict {
    verdict(Outcome::Regressed, window)
}

#[test]
fn the_first_regressed_window_decides_nothing_the_second_does_and_no_other() {
    let mut guard = Guard::new("checkout".into());
    let told: Vec<_> =
        (20..40).map(|w| step(&mut guard, &regressed(w), &facts(&regressed(w), Mode::Rollback, 2))).collect();
    assert_eq!(told[0], None);
    assert_eq!(told[1], Some((Action::Rollback, None)));
    assert!(told[2..].iter().all(Option::is_none));
}

#[test]
fn the_same_window_seen_twice_confirms_nothing() {
    let mut guard = Guard::new("checkout".into());
    let v = regressed(20);
    assert_eq!(step(&mut guard, &v, &facts(&v, Mode::Rollback, 2)), None);
    assert_eq!(step(&mut guard, &v, &facts(&v, Mode::Rollback, 2)), None);
}

#[test]
fn a_healthy_window_between_two_regressed_ones_begins_anew() {
    let mut guard = Guard::new("checkout".into());
    for v in [regressed(20), verdict(Outcome::Healthy, 21), regressed(22)] {
        assert_eq!(step(&mut guard, &v, &facts(&v, Mode::Rollback, 2)), None);
    }
    let v = regressed(23);
    assert!(step(&mut guard, &v, &facts(&v, Mode::Rollback, 2)).is_some());
}

#[test]
fn a_hard_fact_decides_at_once() {
    let mut guard = Guard::new("checkout".into());
    let v = hard(HardFact::OomKill, 20);
    assert_eq!(step(&mut guard, &v, &facts(&v, Mode::Drain, 2)), Some((Action::Drain, None)));
}

#[test]
fn the_mode_names_the_action() {
    let expected = [
        (Mode::Observe, Action::Rollback, Some("mode")),
        (Mode::Advise, Action::Rollback, Some("mode")),
        (Mode::Quarantine, Action::Quarantine, None),
        (Mode::Drain, Action::Drain, None),
        (Mode::Rollback, Action::Rollback, None),
    ];
    for (mode, action, gate) in expected {
        let mut guard = Guard::new("checkout".into());
        let v = hard(HardFact::OomKill, 20);
        assert_eq!(step(&mut guard, &v, &facts(&v, mode, 2)), Some((action, gate.map(str::to_owned))));
    }
}

#[test]
fn a_blocked_decision_is_told_again_only_when_another_gate_blocks_or_none_does() {
    let mut guard = Guard::new("checkout".into());
    let mut told = Vec::new();
    for w in 20..32 {
        let v = regressed(w);
        let mut f = facts(&v, Mode::Rollback, 2);
        f.paused = (w < 25).then(|| "paused".into());
        f.stable_reporting = usize::from(w >= 28);
        told.extend(step(&mut guard, &v, &f).map(|(_, gate)| (w, gate)));
    }
    assert_eq!(told, [(21, Some("pause".into())), (25, Some("capacity".into())), (28, None)]);
}

#[test]
fn gates_that_take_turns_are_told_once_each() {
    let mut guard = Guard::new("checkout".into());
    let mut told = Vec::new();
    for w in 20..60 {
        let v = regressed(w);
        let mut f = facts(&v, Mode::Rollback, 2);
        f.paused = (w % 2 == 0).then(|| "paused".into());
        f.stable_reporting = 0;
        told.extend(step(&mut guard, &v, &f).map(|(_, gate)| gate));
    }
    assert_eq!(told, [Some("capacity".into()), Some("pause".into())]);
    // Another canary is another case.
    for w in 60..64 {
        let v = regressed(w);
        let f = Facts { stable_reporting: 0, ..facts(&v, Mode::Rollback, 3) };
        told.extend(step(&mut guard, &v, &f).map(|(_, gate)| gate));
    }
    assert_eq!(told.len(), 3, "{told:?}");
}

#[test]
fn another_canary_is_another_case() {
    let mut guard = Guard::new("checkout".into());
    let v = hard(HardFact::CrashLoop, 20);
    assert!(step(&mut guard, &v, &facts(&v, Mode::Rollback, 2)).is_some());
    assert!(step(&mut guard, &v, &facts(&v, Mode::Rollback, 2)).is_none());
    assert!(step(&mut guard, &v, &facts(&v, Mode::Rollback, 3)).is_some());
    // Back to the first: it was acted on.
    assert!(step(&mut guard, &v, &facts(&v, Mode::Rollback, 2)).is_none());
}

#[test]
fn a_decision_carries_what_it_rests_on_and_its_own_id() {
    let mut guard = Guard::new("checkout".into());
    let v = regressed(20);
    let f = facts(&v, Mode::Observe, 2);
    guard.observe(&v, &f.canary);
    let v = regressed(21);
    guard.observe(&v, &f.canary);
    let d = guard.decide(&v, &f, UNIX_MS).expect("condemned in two windows");
    assert_eq!((d.id.as_str(), d.window), ("checkout-1795000000000-0001", 21));
    assert_eq!(d.reason, "CPU per turnaround +31 %");
    assert_eq!((d.canary, d.stable), (vec![target(Role::Canary, 2)], vec![target(Role::Stable, 1)]));
}
