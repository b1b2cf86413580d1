//! A guard that is started again while a canary is in quarantine: what it knew of it holds until the end is verified.

use super::{
    SECOND_NS, busy,
    rig::{QUARANTINE_MS, Rig},
    target,
};
use crate::{
    control::Command,
    daemon::Recorded,
    guard::{Action, Stage},
    judge::{Earlier, HardFact, Outcome, Verdict},
    orchestrator::State,
    targets::{Identity, Role, Target},
    telemetry::{Limits, Sample, Tick, recording::Reader},
    window::Indicator,
};

const POLICY: &str = "policy = { cpu_per_work = \"quarantine\" }";
const LASTS: u64 = QUARANTINE_MS / 1000;

fn serving(canary: Target) -> Vec<Sample> {
    vec![busy(target(Role::Stable, 1)), busy(canary)]
}

fn canary() -> Target {
    target(Role::Canary, 2)
}

/// A run of a unit that its manager has started again by itself so many times.
fn run(incarnation: u64, run: &str, restarts: u64) -> Target {
    let identity = Identity { name: "checkout.service".into(), run: run.into(), restarts: Some(restarts) };
    Target { identity: Some(identity), ..target(Role::Canary, incarnation) }
}

/// What is said of the canary after the last of so many ticks.
async fn ticks(rig: &mut Rig, n: u64, canary: Target) -> Verdict {
    let mut last = None;
    for _ in 0..n {
        last = Some(rig.tick(serving(canary.clone())).await);
    }
    last.expect("at least one").deployments["checkout"].verdict.clone()
}

/// One whose canary is in quarantine for its CPU, and the second in which that ends.
async fn quarantined(keys: &str, canary: Target) -> (Rig, u64) {
    let mut rig = Rig::with_keys("rollback", &["checkout"], keys);
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 5, canary).await;
    assert_eq!(rig.journal().history(1).expect("to read")[0].decision.action, Action::Quarantine);
    let end = rig.second + LASTS;
    (rig, end)
}

fn id(rig: &Rig) -> String {
    rig.journal().history(10).expect("to read").pop().expect("a decision").decision.id
}

fn last(rig: &Rig) -> Option<Stage> {
    rig.stages().pop().expect("a decision").pop()
}

/// What was decided after the quarantine: the gate that held it back, with its reason.
fn told_later(rig: &Rig) -> Vec<(Action, String)> {
    let mut history = rig.journal().history(10).expect("to read");
    history.pop();
    let gate = |gate: &crate::guard::GateResult| format!("{}: {}", gate.gate, gate.reason);
    history.iter().map(|e| (e.decision.action, e.decision.blocked_by().map_or(String::new(), gate))).collect()
}

#[tokio::test(start_paused = true)]
async fn a_canary_in_quarantine_is_neither_cleared_nor_condemned_by_what_its_limits_make_of_it() {
    let (mut rig, _) = quarantined(POLICY, canary()).await;
    let id = id(&rig);
    rig.kill().await;
    // A judge that was started anew: it knows little at first, and what it finds then it finds under the limits.
    let found = [(Outcome::InsufficientData, None), (Outcome::Healthy, None), (Outcome::Regressed, None)];
    *rig.because.lock().expect("no panic") = Indicator::RunQueueWait;
    for (outcome, hard) in found {
        rig.says(outcome, hard);
        let verdict = ticks(&mut rig, 4, canary()).await;
        assert_eq!(verdict.outcome, Outcome::Regressed, "{outcome:?}");
        assert_eq!(verdict.causes[0].signal, "cpu_per_work", "as it was condemned: {outcome:?}");
        let why = format!("in quarantine since before the guard was started ({id}): condemned then");
        assert!(verdict.reasons[0].starts_with(&why), "{:?}", verdict.reasons);
    }
    assert_eq!((rig.applies(), rig.stages().len()), (1, 1), "nothing new: {:?}", rig.stages());
    assert_eq!(*rig.resets.lock().expect("no panic"), 0);
}

#[tokio::test(start_paused = true)]
async fn what_asks_for_more_is_told_once_after_a_restart_too() {
    let (mut rig, _) = quarantined(POLICY, canary()).await;
    rig.kill().await;
    rig.says(Outcome::Healthy, None);
    ticks(&mut rig, 3, canary()).await;
    rig.says(Outcome::Regressed, Some(HardFact::OomKill));
    let verdict = ticks(&mut rig, 5, canary()).await;
    assert_eq!(verdict.hard, Some(HardFact::OomKill), "a fact is told as it is");
    let told = told_later(&rig);
    assert!(matches!(&told[..], [(Action::Rollback, why)] if why.starts_with("budget: ")), "{told:?}");
    assert_eq!(rig.applies(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_quarantine_that_ended_while_the_guard_was_down_holds_until_that_is_seen_twice() {
    let (mut rig, end) = quarantined(POLICY, canary()).await;
    rig.kill().await;
    rig.second = end + 3600;
    *rig.fake.state.lock().expect("no panic") = State::NotInEffect;
    rig.says(Outcome::Healthy, None);
    assert_eq!(ticks(&mut rig, 30, canary()).await.outcome, Outcome::Regressed, "one look is not enough");
    assert_eq!(last(&rig), Some(Stage::Verified));
    let verdict = ticks(&mut rig, 60, canary()).await;
    assert_eq!((last(&rig), verdict.outcome), (Some(Stage::Undone), Outcome::Healthy), "it is judged free");
    assert_eq!(*rig.resets.lock().expect("no panic"), 1, "and by nothing that was seen under its limits");
    assert!(rig.fake.undone.lock().expect("no panic").is_empty(), "it had ended by itself");
    // The next life knows of no quarantine.
    rig.kill().await;
    assert_eq!(ticks(&mut rig, 3, canary()).await.outcome, Outcome::Healthy);
    assert_eq!(*rig.resets.lock().expect("no panic"), 1);
    assert_eq!((rig.applies(), rig.stages().len()), (1, 1), "{:?}", rig.stages());
}

#[tokio::test(start_paused = true)]
async fn one_that_did_not_end_is_ended_and_the_canary_judged_anew() {
    let (mut rig, end) = quarantined(POLICY, canary()).await;
    rig.kill().await;
    rig.second = end - 20;
    rig.says(Outcome::Inconclusive, None);
    assert_eq!(ticks(&mut rig, 20, canary()).await.outcome, Outcome::Regressed);
    let verdict = ticks(&mut rig, 120, canary()).await;
    assert_eq!(rig.fake.undone.lock().expect("no panic").len(), 1);
    assert_eq!((last(&rig), verdict.outcome), (Some(Stage::Undone), Outcome::Inconclusive));
    assert_eq!(*rig.resets.lock().expect("no panic"), 1);
}

/// Its manager starts it again, also while no guard looks; limits stay with a unit.
#[tokio::test(start_paused = true)]
async fn it_is_followed_over_restarts_of_its_own_and_of_the_guard_and_acted_on_once() {
    let (mut rig, _) = quarantined(POLICY, run(2, "a", 0)).await;
    ticks(&mut rig, 3, run(3, "b", 1)).await;
    rig.kill().await;
    rig.says(Outcome::Healthy, None);
    assert_eq!(ticks(&mut rig, 3, run(4, "c", 2)).await.outcome, Outcome::Regressed);
    rig.says(Outcome::Regressed, Some(HardFact::OomKill));
    ticks(&mut rig, 5, run(4, "c", 2)).await;
    ticks(&mut rig, 5, run(5, "d", 3)).await;
    let told = told_later(&rig);
    assert!(matches!(&told[..], [(Action::Rollback, why)] if why.ends_with("one per rollout")), "{told:?}");
    assert_eq!(rig.applies(), 1);
    // Started by hand, it is another rollout.
    rig.says(Outcome::Healthy, None);
    assert_eq!(ticks(&mut rig, 3, run(6, "e", 0)).await.outcome, Outcome::Healthy);
}

#[tokio::test(start_paused = true)]
async fn a_quarantine_that_is_approved_after_a_restart_is_one() {
    let keys = format!("{POLICY}\napproval = \"required\"\napproval_timeout = \"1m\"");
    let (mut rig, _) = quarantined(&keys, canary()).await;
    assert_eq!(last(&rig), Some(Stage::Planned));
    rig.kill().await;
    ticks(&mut rig, 4, canary()).await;
    rig.ask(Command::Approve { id: id(&rig) }).await.expect("it is granted");
    ticks(&mut rig, 4, canary()).await;
    assert_eq!((rig.applies(), last(&rig)), (1, Some(Stage::Verified)));
    rig.says(Outcome::Regressed, Some(HardFact::OomKill));
    ticks(&mut rig, 5, canary()).await;
    let told = told_later(&rig);
    assert!(matches!(&told[..], [(Action::Rollback, why)] if why.starts_with("budget: ")), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_stands_condemned_since_an_earlier_life_holds_no_other_deployment_back() {
    let mut rig = Rig::with_keys("rollback", &["checkout", "cart"], POLICY);
    let both = || {
        let cart = |s: Sample| {
            let mut s = s;
            s.target.deployment = "cart".into();
            s.target.cgroup = s.target.cgroup.replace("checkout", "cart").into();
            s
        };
        serving(canary()).into_iter().flat_map(|s| [s.clone(), cart(s)]).collect::<Vec<_>>()
    };
    rig.says.lock().expect("no panic")[0] = (Outcome::Regressed, None);
    for _ in 0..5 {
        rig.tick(both()).await;
    }
    assert_eq!(rig.applies(), 1, "checkout");
    rig.kill().await;
    rig.second += 660;
    *rig.says.lock().expect("no panic") = vec![(Outcome::Healthy, None), (Outcome::Regressed, None)];
    let mut last = None;
    for _ in 0..4 {
        last = Some(rig.tick(both()).await);
    }
    let checkout = last.expect("ticks").deployments["checkout"].verdict.outcome;
    assert_eq!((checkout, rig.applies()), (Outcome::Regressed, 2), "{:?}", rig.stages());
}

/// Three instances of stable, and a canary that takes three times their CPU.
fn costly(second: u64) -> Vec<Sample> {
    let instance = |i: u64, target: Target, factor: f64| {
        let jitter = ((second * 7919 + i * 104_729) % 1009) as f64 / 1009.0 - 0.5;
        let mut sample = busy(target);
        let cpu = sample.cpu.as_mut().expect("it is measured");
        cpu.on_cpu_ns = (SECOND_NS as f64 / 8.0 * factor * (1.0 + 0.1 * jitter)) as u64;
        sample
    };
    let stable = (0..3).map(|i| {
        let target = Target { cgroup: format!("/checkout/v1-{i}").into(), ..target(Role::Stable, 10 + i) };
        instance(i, target, 1.0)
    });
    stable.chain([instance(3, canary(), 3.0)]).collect()
}

/// Each verdict on recorded ticks, to the last bit.
fn judged(rig: &Rig, ticks: &[Tick]) -> Vec<String> {
    let deployment = &rig.config.deployments[0];
    let mut line = Recorded::new(deployment.name.clone(), deployment.judge.clone(), &Earlier::default());
    ticks.iter().map(|tick| told(&line.push(tick).expect("all that it rests on is there"))).collect()
}

fn told(verdict: &Verdict) -> String {
    serde_json::to_string(verdict).expect("a verdict is JSON")
}

/// What was recorded.
fn recorded(rig: &Rig) -> Vec<Tick> {
    let reader = Reader::open(rig.recording.as_ref().expect("it records")).expect("a recording");
    reader.collect::<anyhow::Result<_>>().expect("each line is a tick")
}

#[tokio::test(start_paused = true)]
async fn a_recording_over_the_end_of_a_quarantine_is_judged_again_as_it_was_live() {
    let (mut rig, _) = quarantined(POLICY, canary()).await;
    rig.kill().await;
    (rig.judges, rig.recording) = (true, Some(rig.path("run.jsonl")));
    // Evidence comes together while the limits are there, which is about two minutes.
    rig.config.deployments[0].judge.minimum_baseline = 150;
    let mut live = Vec::new();
    for _ in 0..160 {
        let samples = costly(rig.second);
        let snapshot = rig.tick(samples).await;
        live.push(told(&snapshot.deployments["checkout"].verdict));
    }
    assert_eq!(last(&rig), Some(Stage::Undone), "the limits ended: {:?}", rig.stages());
    let ticks = recorded(&rig);
    let count =
        |is: fn(&Limits) -> bool| ticks.iter().filter(|tick| tick.limits.get("checkout").is_some_and(is)).count();
    let under = count(|limits| limits.under.is_some());
    assert!(under > 60 && under < 160, "{under}");
    assert_eq!((count(|limits| limits.condemned.is_some()), count(|limits| limits.ended)), (1, 1));
    assert_eq!(judged(&rig, &ticks), live);
    // A recording that does not say so goes on with what was seen under the limits.
    let silent: Vec<Tick> = ticks.iter().map(|tick| Tick { limits: Default::default(), ..tick.clone() }).collect();
    let without = judged(&rig, &silent);
    assert_ne!(without[0], live[0]);
    assert_ne!(without[159], live[159]);
    // Its beginning was cut off, and with it what the rest is told by.
    let deployment = &rig.config.deployments[0];
    let mut line = Recorded::new(deployment.name.clone(), deployment.judge.clone(), &Earlier::default());
    let error = format!("{:#}", line.push(&ticks[1]).expect_err("the condemnation is missing"));
    assert!(error.ends_with(&format!("nothing before it says what condemned the canary in {}", id(&rig))), "{error}");
}
