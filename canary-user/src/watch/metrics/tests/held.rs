//! What is told of a rollout that a person holds: beside what is done to its canary, and never in its place.

use super::*;

/// A window of the story in which a hold has come to this stage.
fn held(index: u64, stage: Stage, change: impl FnOnce(&mut DeploymentView)) -> Snapshot {
    let mut snapshot = story::snapshot(index);
    let view = snapshot.deployments.get_mut(story::DEPLOYMENT).expect("the story's deployment");
    let mut hold = view.decision.clone().expect("decided");
    (hold.decision.action, hold.decision.id, hold.stage) = (Action::Hold, "checkout-hold".to_owned(), stage);
    view.hold = Some(hold);
    change(view);
    snapshot
}

#[test]
fn a_hold_that_a_person_asked_for_is_no_action_on_the_canary() {
    let metrics = Metrics::default();
    let page = || Page::read(&metrics.openmetrics().expect("encodes"));
    let d = r#"deployment="checkout""#;
    metrics.record(&held(story::DECIDED, Stage::Planned, |view| view.decision = None));
    assert_eq!(page().get(&format!("canary_action_withheld{{{d}}}")), 0.0);
    metrics.record(&held(story::DECIDED, Stage::Reverted, |view| held_back_by(view, gates::MODE)));
    let page = page();
    assert_eq!(page.get(&format!("canary_action_withheld{{{d}}}")), 1.0, "the mode is what it was");
    assert_eq!(page.get(&format!("canary_decisions_total{{{d},action=\"hold\"}}")), 1.0);
    assert_eq!(
        page.get(&format!("canary_actions_total{{{d},result=\"reverted\"}}")),
        0.0,
        "nobody brought a canary back"
    );
}

#[test]
fn what_takes_the_canary_away_stays_in_effect_while_its_rollout_is_held() {
    let metrics = Metrics::default();
    let page = || Page::read(&metrics.openmetrics().expect("encodes"));
    let d = r#"deployment="checkout""#;
    for (index, hold) in [
        (story::DECIDED + 8, Stage::Planned),
        (story::DECIDED + 9, Stage::Verified),
        (story::DECIDED + 10, Stage::Closed),
    ] {
        metrics.record(&held(index, hold, |_| ()));
        assert_eq!(page().get(&format!("canary_action_in_effect{{{d}}}")), 1.0, "{}", hold.name());
    }
    // Their stages take turns, and each of them is counted once.
    let page = page();
    for action in ["hold", "rollback"] {
        assert_eq!(page.get(&format!("canary_decisions_total{{{d},action=\"{action}\"}}")), 1.0, "{action}");
    }
    assert_eq!(page.get(&format!("canary_actions_total{{{d},result=\"verified\"}}")), 1.0);
}
