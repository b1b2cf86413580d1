//! How far the guard goes depends on what condemns, and never further than its mode.

use super::{both_busy, hard, rig::Rig, verdict};
use crate::{
    guard::{Action, Decision, Mode, Policy, Stage},
    judge::{Grade, HardFact, Outcome, Recommendation, Step, Verdict},
    telemetry::Sample,
};

fn serving() -> Vec<Sample> {
    both_busy(0).samples
}

/// What was decided about a canary that needs more CPU, in mode rollback with this policy, and how often it was acted on.
async fn decided(policy: &str) -> (Decision, usize) {
    let mut rig = Rig::with_keys("rollback", &["checkout"], policy);
    rig.says(Outcome::Regressed, None);
    for _ in 0..4 {
        rig.tick(serving()).await;
    }
    (rig.journal().history(1).expect("to read").remove(0).decision, rig.applies())
}

#[tokio::test(start_paused = true)]
async fn a_policy_goes_less_far_than_the_mode() {
    let (decision, applies) = decided("policy = { cpu_per_work = \"quarantine\", crashes = \"rollback\" }").await;
    assert_eq!((decision.action, applies), (Action::Quarantine, 1));
    assert_eq!(decision.gates[0].reason, "policy for cpu_per_work is quarantine: may quarantine");
}

#[tokio::test(start_paused = true)]
async fn what_the_policy_does_not_name_is_left_to_the_mode() {
    let (decision, applies) = decided("policy = { memory_in_use = \"observe\", crashes = \"drain\" }").await;
    assert_eq!((decision.action, applies), (Action::Rollback, 1));
    assert_eq!(decision.gates[0].reason, "mode is rollback: may roll back");
}

#[tokio::test(start_paused = true)]
async fn a_policy_of_observing_only_says_so() {
    let mut rig = Rig::with_keys("rollback", &["checkout"], "policy = { cpu_per_work = \"observe\" }");
    rig.says(Outcome::Regressed, None);
    for _ in 0..4 {
        rig.tick(serving()).await;
    }
    assert_eq!((rig.applies(), rig.stages()), (0, vec![vec![Stage::Blocked]]));
    let said = "mode: policy for cpu_per_work is observe: says that it would roll back and does nothing";
    assert_eq!(rig.last_detail(), said);
    let status = rig.ask(crate::control::Command::Status).await.expect("it answers");
    let crate::control::Reply::Status(status) = status else { panic!("the status was asked for") };
    let blocks: Vec<&str> = status.deployments[0].blocked_by.iter().map(|gate| gate.reason.as_str()).collect();
    assert!(blocks.contains(&said.strip_prefix("mode: ").expect("as above")), "{blocks:?}");
}

#[test]
fn a_hard_fact_goes_by_the_name_of_its_event() {
    let limits = |verdict: &Verdict| {
        let mut policy = Policy::default();
        for (signal, mode) in [("oom_kills", Mode::Observe), ("crashes", Mode::Drain), ("silent", Mode::Advise)] {
            policy.set(signal, mode);
        }
        policy.limits(Mode::Rollback, verdict)
    };
    assert_eq!(limits(&hard(HardFact::OomKill, 1)), Some(("oom_kills", Mode::Observe)));
    assert_eq!(limits(&hard(HardFact::CrashLoop, 1)), Some(("crashes", Mode::Drain)));
    assert_eq!(limits(&hard(HardFact::Silent, 1)), Some(("silent", Mode::Advise)));
    assert_eq!(limits(&verdict(Outcome::Regressed, 1)), None, "CPU per turnaround is not in it");
    assert_eq!(limits(&verdict(Outcome::Healthy, 1)), None, "nothing condemns");
}

#[test]
fn an_action_carries_out_the_recommendation_that_asks_for_it() {
    let recommend = |step| Recommendation {
        priority: 1,
        step,
        because: "more work per request".into(),
        risk: Grade::Medium,
        undo: String::new(),
        confidence: Grade::High,
        command: None,
        would_change: String::new(),
    };
    let all = [Step::RaiseLimit, Step::RollBack, Step::Throttle].map(recommend);
    let chosen = |action: Action| action.chosen(&all).map(|r| r.step);
    assert_eq!(chosen(Action::Rollback), Some(Step::RollBack));
    assert_eq!(chosen(Action::Quarantine), Some(Step::Throttle));
    assert_eq!(chosen(Action::Drain), None, "nobody asked for that");
}
