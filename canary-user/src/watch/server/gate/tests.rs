use super::*;
use crate::{
    guard::{Advice, GateResult},
    watch::story,
};

const FRESH: Freshness = Freshness::Fresh { age_ns: 1 };

/// The story at a window, with the deployment changed.
fn snapshot(index: u64, change: impl FnOnce(&mut DeploymentView)) -> Snapshot {
    let mut snapshot = story::snapshot(index);
    change(snapshot.deployments.get_mut(story::DEPLOYMENT).expect("the story's deployment"));
    snapshot
}

fn healthy() -> Snapshot {
    snapshot(50, |_| {})
}

fn condemned() -> Snapshot {
    snapshot(story::DECIDED, |_| {})
}

/// Those hooks that are answered with 200.
fn open(snapshot: &Snapshot, freshness: Freshness) -> Vec<&'static str> {
    let open = |h: &Hook| answer(*h, snapshot, story::DEPLOYMENT, freshness).0;
    Hook::ALL.into_iter().filter(open).map(Hook::name).collect()
}

fn result(snapshot: &Snapshot, freshness: Freshness) -> String {
    measure(snapshot, story::DEPLOYMENT, freshness)["result"].as_str().expect("a text").to_owned()
}

#[test]
fn a_healthy_canary_goes_on() {
    let s = healthy();
    assert_eq!(result(&s, FRESH), "successful");
    assert_eq!(open(&s, FRESH), ["confirm-rollout", "rollout", "confirm-traffic-increase", "confirm-promotion"]);
}

#[test]
fn a_condemned_canary_is_rolled_back() {
    let s = condemned();
    assert_eq!(result(&s, FRESH), "failed");
    assert_eq!(open(&s, FRESH), ["confirm-rollout", "rollback"]);
    let (_, why) = answer(Hook::Rollback, &s, story::DEPLOYMENT, FRESH);
    assert!(why.starts_with("failed: CPU per turnaround +31 %"), "{why}");
}

/// Neither a pass nor a reason to act: what halts by a refusal halts, what rolls back does not.
const WAITING: [&str; 2] = ["confirm-rollout", "rollout"];

#[test]
fn what_is_not_known_neither_promotes_nor_rolls_back() {
    for index in [5, 30] {
        let s = snapshot(index, |_| {});
        assert_eq!(result(&s, FRESH), "inconclusive", "window {index}");
        assert_eq!(open(&s, FRESH), WAITING, "window {index}");
    }
    let s = condemned();
    for stale in [Freshness::NoneYet, Freshness::Stale { age_ns: 60_000_000_000 }] {
        assert_eq!(result(&s, stale), "inconclusive", "an old verdict is no verdict");
        assert_eq!(open(&s, stale), ["rollout"]);
        let page = measure(&s, story::DEPLOYMENT, stale);
        assert_eq!((&page["verdict"], &page["evidence_ln"]), (&Value::Null, &Value::Null));
    }
}

#[test]
fn a_gate_that_objects_keeps_the_canary_where_it_is() {
    let gate = GateResult { gate: "stable_healthy".into(), passed: false, reason: "stable shifted too".into() };
    let s = snapshot(story::DECIDED, |view| view.advice = Advice { gates: vec![gate], ..view.advice.clone() });
    let page = measure(&s, story::DEPLOYMENT, FRESH);
    assert_eq!((&page["result"], &page["verdict"]), (&"inconclusive".into(), &"regressed".into()));
    assert!(page["reason"].as_str().is_some_and(|r| r.ends_with("but stable_healthy: stable shifted too")), "{page}");
    assert_eq!(open(&s, FRESH), WAITING);
    // Regressed for the first time, and the guard itself would wait for a second window.
    let s = snapshot(story::DECIDED, |view| view.advice.gates.clear());
    assert_eq!(open(&s, FRESH), WAITING);
}

#[test]
fn the_first_step_of_weight_comes_before_any_request() {
    let hook = Hook::ConfirmTrafficIncrease;
    for (served, go) in [(Some(false), true), (Some(true), false), (None, false)] {
        let s = snapshot(5, |view| view.advice.canary_served = served);
        assert_eq!(answer(hook, &s, story::DEPLOYMENT, FRESH).0, go, "{served:?}");
    }
    let s = snapshot(story::DECIDED, |view| view.advice.canary_served = Some(false));
    assert!(!answer(hook, &s, story::DEPLOYMENT, FRESH).0, "one that crashes without a request gets none");
}

#[test]
fn a_canary_that_is_healthy_at_little_load_gets_more_and_is_not_promoted() {
    let s = snapshot(50, |view| {
        (view.verdict.outcome, view.verdict.healthy_at_load) = (Outcome::Inconclusive, Some(0.2));
        view.verdict.reasons = vec!["compared at 20 % of stable's load per instance only".to_owned()];
    });
    assert_eq!(result(&s, FRESH), "inconclusive");
    assert_eq!(open(&s, FRESH), ["confirm-rollout", "rollout", "confirm-traffic-increase"]);
    let (_, why) = answer(Hook::ConfirmPromotion, &s, story::DEPLOYMENT, FRESH);
    assert_eq!(why, "inconclusive: compared at 20 % of stable's load per instance only");
}

#[test]
fn a_rollout_does_not_begin_without_anything_to_compare_with() {
    let s = snapshot(5, |view| view.advice.stable_instances = 0);
    assert!(!answer(Hook::ConfirmRollout, &s, story::DEPLOYMENT, FRESH).0);
}

#[test]
fn a_name_that_is_not_watched_is_told_and_takes_nothing_away() {
    let s = condemned();
    let page = measure(&s, "shpo", FRESH);
    assert_eq!(page["result"], "inconclusive");
    assert_eq!(page["reason"], format!("no deployment 'shpo' is watched here; watched: {}", story::DEPLOYMENT));
    let open: Vec<_> = Hook::ALL.into_iter().filter(|h| answer(*h, &s, "shpo", FRESH).0).collect();
    assert_eq!(open, [Hook::Rollout]);
}
