//! What is told of a rollout that a person holds.

use super::*;

#[test]
fn a_hold_that_a_person_asked_for_is_no_action_on_the_canary() {
    let metrics = Metrics::default();
    let page = || Page::read(&metrics.openmetrics().expect("encodes"));
    let d = r#"deployment="checkout""#;
    let told = |change: fn(&mut DeploymentView)| {
        let mut snapshot = story::snapshot(story::DECIDED);
        change(snapshot.deployments.get_mut(story::DEPLOYMENT).expect("the story's deployment"));
        metrics.record(&snapshot);
        page().get(&format!("canary_action_withheld{{{d}}}"))
    };
    let hold = |view: &mut DeploymentView| {
        let decision = view.decision.as_mut().expect("decided");
        (decision.decision.action, decision.decision.id) = (Action::Hold, "checkout-hold".to_owned());
        decision.stage = Stage::Reverted;
    };
    assert_eq!(told(hold), 0.0);
    assert_eq!(told(|view| held_back_by(view, gates::MODE)), 1.0);
    assert_eq!(told(hold), 1.0, "the mode is what it was");
    let page = page();
    assert_eq!(page.get(&format!("canary_decisions_total{{{d},action=\"hold\"}}")), 2.0);
    assert_eq!(
        page.get(&format!("canary_actions_total{{{d},result=\"reverted\"}}")),
        0.0,
        "nobody brought a canary back"
    );
}
