//! What the guard leaves alone: canaries that somebody brought back, whatever becomes of them, and what is not its to decide.

use super::{
    UNIX_MS, busy, facts_after,
    rig::{Behaviour, Rig},
    stopped, target, verdict,
};
use crate::{
    control::Command,
    guard::{Action, Facts, Guard, Mode, Stage},
    judge::{HardFact, Outcome},
    orchestrator::State,
    targets::{Identity, Role, Target},
    telemetry::Sample,
};

fn with_canary(canary: Sample) -> Vec<Sample> {
    vec![busy(target(Role::Stable, 1)), canary]
}

fn serving(incarnation: u64) -> Vec<Sample> {
    with_canary(busy(target(Role::Canary, incarnation)))
}

/// A run of a unit that its manager has started again by itself so many times.
fn run(incarnation: u64, run: &str, restarts: u64) -> Target {
    let identity = Identity { name: "checkout.service".into(), run: run.into(), restarts: Some(restarts) };
    Target { identity: Some(identity), ..target(Role::Canary, incarnation) }
}

/// A pod of this template.
fn pod(incarnation: u64, hash: &str) -> Target {
    let name = format!("shop/checkout-{hash}-1").into();
    let identity = Identity { name, run: format!("uid-{hash} {hash}").into(), restarts: None };
    Target { identity: Some(identity), cgroup: format!("/pods/{hash}").into(), ..target(Role::Canary, incarnation) }
}

async fn ticks(rig: &mut Rig, n: usize, samples: Vec<Sample>) {
    for _ in 0..n {
        rig.tick(samples.clone()).await;
    }
}

/// A crash loop that was rolled back and that somebody then started again as incarnation 3.
async fn brought_back(rig: &mut Rig) {
    rig.says(Outcome::Regressed, Some(HardFact::CrashLoop));
    ticks(rig, 2, serving(2)).await;
    ticks(rig, 5, with_canary(stopped(target(Role::Canary, 2)))).await;
    assert_eq!((rig.applies(), rig.stages()[0].last()), (1, Some(&Stage::Verified)));
    ticks(rig, 2, serving(3)).await;
    assert_eq!(rig.stages()[0].last(), Some(&Stage::Reverted));
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_that_somebody_brought_back_is_theirs_through_all_its_restarts() {
    let mut rig = Rig::new("rollback", &["checkout"]);
    brought_back(&mut rig).await;
    for incarnation in 4..10 {
        ticks(&mut rig, 3, serving(incarnation)).await;
    }
    assert_eq!((rig.applies(), rig.stages().len()), (1, 1), "{:?}", rig.stages());
    // The journal knows the latest of them, too.
    let canary = [target(Role::Canary, 9)];
    assert!(rig.journal().acted_on("checkout", &canary).expect("to read").is_some());
    rig.kill().await;
    rig.says(Outcome::Regressed, Some(HardFact::CrashLoop));
    for incarnation in 10..13 {
        ticks(&mut rig, 3, serving(incarnation)).await;
    }
    assert_eq!(rig.applies(), 1, "nor after a restart of the guard: {:?}", rig.stages());
}

#[tokio::test(start_paused = true)]
async fn a_return_is_told_with_what_the_orchestrator_finds_of_it() {
    let mut rig = Rig::new("rollback", &["checkout"]);
    rig.says(Outcome::Regressed, Some(HardFact::CrashLoop));
    ticks(&mut rig, 2, serving(2)).await;
    ticks(&mut rig, 5, with_canary(stopped(target(Role::Canary, 2)))).await;
    *rig.fake.state.lock().expect("no panic") = State::NotInEffect;
    ticks(&mut rig, 2, serving(3)).await;
    assert_eq!(rig.stages()[0].last(), Some(&Stage::Reverted));
    assert_eq!(
        rig.last_detail(),
        "the canary is back: /checkout/v2 runs version v2 as another instance (incarnation 3); fake finds it not in effect: \
         as the test says"
    );
}

#[test]
fn a_run_that_the_manager_began_by_itself_is_the_same_and_one_begun_by_hand_is_not() {
    let first = run(2, "a", 0);
    assert!(first.came_back_as(&run(3, "b", 1), false), "started again by its manager");
    assert!(!run(2, "a", 4).came_back_as(&run(3, "b", 0), true), "started by hand: the count begins anew");
    assert!(!first.came_back_as(&first, true), "it is there all along");
    let other = Target { version: "v3".into(), ..run(3, "b", 1) };
    assert!(!first.came_back_as(&other, true), "another version");
    // A container of a pod has another cgroup after each start.
    let moved = Target { cgroup: "/pod/b".into(), ..run(3, "b", 1) };
    assert!(first.came_back_as(&moved, false));
    assert!(by_cgroup(2).came_back_as(&by_cgroup(3), true), "nobody tells, and it dies again and again");
    assert!(!by_cgroup(2).came_back_as(&by_cgroup(3), false), "nobody tells, and it does not: another rollout");
}

#[tokio::test(start_paused = true)]
async fn another_rollout_in_its_place_is_judged_by_itself() {
    let mut rig = Rig::new("rollback", &["checkout"]);
    brought_back(&mut rig).await;
    rig.says(Outcome::Healthy, None);
    ticks(&mut rig, 3, serving(4)).await;
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 4, serving(4)).await;
    assert_eq!(rig.applies(), 2, "{:?}", rig.stages());
}

#[tokio::test(start_paused = true)]
async fn a_rollout_of_another_template_minutes_after_a_rollback_is_no_return_and_is_judged_by_itself() {
    let mut rig = Rig::new("rollback", &["checkout"]);
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 4, with_canary(busy(pod(2, "bbb")))).await;
    ticks(&mut rig, 5, vec![busy(target(Role::Stable, 1))]).await;
    assert_eq!((rig.applies(), rig.stages()[0].last()), (1, Some(&Stage::Verified)));
    rig.says(Outcome::Healthy, None);
    ticks(&mut rig, 60, with_canary(busy(pod(3, "ccc")))).await;
    assert!(!rig.stages()[0].contains(&Stage::Reverted), "{:?}", rig.stages());
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 4, with_canary(busy(pod(3, "ccc")))).await;
    assert_eq!(rig.applies(), 2, "it is guarded, too: {:?}", rig.stages());
}

/// A crash loop that was decided on in its second life and waits for approval in its fifth, with its decision.
async fn waiting_crash_loop(canary: fn(u64) -> Target) -> (Rig, String) {
    let mut rig = Rig::with_keys("rollback", &["checkout"], "approval = \"required\"\napproval_timeout = \"1m\"");
    *rig.fake.knows_runs.lock().expect("no panic") = canary(2).identity.is_some();
    rig.says(Outcome::Regressed, Some(HardFact::CrashLoop));
    for incarnation in 2..6 {
        ticks(&mut rig, 2, with_canary(busy(canary(incarnation)))).await;
    }
    assert_eq!(rig.stages(), [[Stage::Planned]], "one decision waits");
    let id = rig.journal().history(1).expect("to read").remove(0).decision.id;
    (rig, id)
}

fn by_cgroup(incarnation: u64) -> Target {
    target(Role::Canary, incarnation)
}

fn by_unit(incarnation: u64) -> Target {
    run(incarnation, &format!("run {incarnation}"), incarnation - 2)
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_can_be_approved_although_it_restarts_meanwhile() {
    // Who follows a unit over its restarts is told of the run that was decided on, others of the one that runs.
    for (canary, told) in [(by_cgroup as fn(u64) -> Target, 5), (by_unit as fn(u64) -> Target, 2)] {
        let (mut rig, id) = waiting_crash_loop(canary).await;
        rig.ask(Command::Approve { id }).await.expect("it is granted");
        ticks(&mut rig, 1, with_canary(busy(canary(5)))).await;
        ticks(&mut rig, 5, with_canary(stopped(canary(5)))).await;
        let acted_on: Vec<u64> =
            rig.fake.applied.lock().expect("no panic").iter().flatten().map(|t| t.incarnation).collect();
        assert_eq!(acted_on, [told]);
        let life = [Stage::Planned, Stage::Approved, Stage::Applying, Stage::Applied, Stage::Verified];
        assert_eq!(rig.stages(), [life], "{}", rig.last_detail());
        let entry = rig.journal().history(1).expect("to read").remove(0);
        assert_eq!(entry.decision.canary, [canary(told)], "what was called for is on record");
        assert!(rig.journal().acted_on("checkout", &[canary(5)]).expect("to read").is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_held_back_after_it_was_approved_can_be_approved_again() {
    let (mut rig, id) = waiting_crash_loop(by_cgroup).await;
    *rig.fake.pauses_in_plan.lock().expect("no panic") = true;
    rig.ask(Command::Approve { id }).await.expect("it is granted");
    ticks(&mut rig, 2, serving(5)).await;
    assert_eq!((rig.applies(), &rig.stages()[0][..]), (0, &[Stage::Planned, Stage::Approved, Stage::Blocked][..]));
    assert!(rig.last_detail().starts_with("pause: paused: "), "{}", rig.last_detail());
    *rig.fake.pauses_in_plan.lock().expect("no panic") = false;
    rig.pause(false);
    ticks(&mut rig, 2, serving(5)).await;
    let id = rig.journal().history(1).expect("to read").remove(0).decision.id;
    rig.ask(Command::Approve { id }).await.expect("it is granted");
    ticks(&mut rig, 1, serving(5)).await;
    assert_eq!(rig.applies(), 1, "{:?}", rig.stages());
}

#[tokio::test(start_paused = true)]
async fn an_orchestrator_that_changes_its_mind_after_the_approval_is_not_called() {
    let (mut rig, id) = waiting_crash_loop(by_unit).await;
    *rig.fake.will_not.lock().expect("no panic") = Some("a job of somebody else is under way".into());
    rig.ask(Command::Approve { id }).await.expect("it is granted");
    ticks(&mut rig, 1, with_canary(busy(by_unit(5)))).await;
    assert_eq!((rig.applies(), &rig.stages()[0][..]), (0, &[Stage::Planned, Stage::Approved, Stage::Blocked][..]));
    assert_eq!(rig.last_detail(), "owner: refused, nothing was done: a job of somebody else is under way");
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_that_nobody_approved_is_not_asked_about_again() {
    let mut rig = Rig::with_keys("rollback", &["checkout"], "approval = \"required\"\napproval_timeout = \"10s\"");
    rig.says(Outcome::Regressed, Some(HardFact::CrashLoop));
    for incarnation in 2..20 {
        ticks(&mut rig, 2, serving(incarnation)).await;
    }
    assert_eq!(rig.stages(), [[Stage::Planned, Stage::Declined]]);
}

#[tokio::test(start_paused = true)]
async fn what_asks_for_more_than_the_quarantine_that_was_done_is_told_once() {
    let mut rig = Rig::with_keys("rollback", &["checkout"], "policy = { cpu_per_work = \"quarantine\" }");
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 5, serving(2)).await;
    assert_eq!(rig.applies(), 1);
    rig.says(Outcome::Regressed, Some(HardFact::OomKill));
    ticks(&mut rig, 5, serving(2)).await;
    let history = rig.journal().history(10).expect("to read");
    assert_eq!((history.len(), rig.applies()), (2, 1), "{:?}", rig.stages());
    assert_eq!(history[0].decision.action, Action::Rollback);
    let gate = history[0].decision.blocked_by().expect("it is held back");
    assert!(gate.gate == "budget" && gate.reason.ends_with("one per rollout"), "{gate:?}");
}

/// Limits stay with a unit over its restarts.
#[tokio::test(start_paused = true)]
async fn the_same_is_told_of_a_quarantined_canary_that_its_manager_started_again() {
    let mut rig = Rig::with_keys("rollback", &["checkout"], "policy = { cpu_per_work = \"quarantine\" }");
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 5, with_canary(busy(run(2, "a", 0)))).await;
    assert_eq!(rig.applies(), 1);
    rig.says(Outcome::Regressed, Some(HardFact::OomKill));
    for later in [run(3, "b", 1), run(4, "c", 2)] {
        ticks(&mut rig, 5, with_canary(busy(later))).await;
    }
    let history = rig.journal().history(10).expect("to read");
    assert_eq!((history.len(), rig.applies()), (2, 1), "{:?}", rig.stages());
    assert_eq!(history[0].decision.action, Action::Rollback);
    let gate = history[0].decision.blocked_by().expect("it is held back");
    assert!(gate.gate == "budget" && gate.reason.ends_with("one per rollout"), "{gate:?}");
}

/// Also where it does not die of what condemns it.
#[test]
fn a_quarantined_canary_is_followed_over_its_managers_restarts() {
    let mut guard = Guard::new("checkout".into());
    let mut told = Vec::new();
    let mut window = 20;
    for (mode, canary) in [
        (Mode::Quarantine, run(2, "a", 0)),
        (Mode::Quarantine, run(3, "b", 1)),
        (Mode::Rollback, run(3, "b", 1)),
        (Mode::Rollback, run(4, "c", 2)),
    ] {
        for _ in 0..3 {
            let v = verdict(Outcome::Regressed, window);
            let samples = with_canary(busy(canary.clone()));
            let acted_on = (!told.is_empty()).then(|| "checkout-1".to_owned());
            let facts = Facts { mode, acted_on, ..facts_after(21, &samples, &v) };
            guard.observe(&v, &facts.canary);
            if let Some(decision) = guard.decide(&v, &facts, UNIX_MS + 1000 * window) {
                if decision.action == Action::Quarantine {
                    guard.leave(&decision.canary);
                }
                told.push((window, decision.action, decision.blocked_by().map(|gate| gate.gate.clone())));
            }
            window += 1;
        }
    }
    assert_eq!(told, [(21, Action::Quarantine, None), (26, Action::Rollback, Some("budget".to_owned()))]);
}

#[tokio::test(start_paused = true)]
async fn who_only_looks_takes_the_lead_from_nobody() {
    let mut rig = Rig::new("rollback", &["checkout"]);
    rig.says(Outcome::Healthy, None);
    ticks(&mut rig, 3, serving(2)).await;
    rig.ask(Command::Status).await.expect("it answers");
    assert_eq!(*rig.fake.asked_lead.lock().expect("no panic"), 0);
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 3, serving(2)).await;
    assert!(*rig.fake.asked_lead.lock().expect("no panic") > 0, "who acts does ask");
}

#[tokio::test(start_paused = true)]
async fn who_will_not_act_takes_the_lead_from_nobody() {
    let asked = |rig: &Rig| *rig.fake.asked_lead.lock().expect("no panic");
    for mode in ["observe", "advise", "rollback"] {
        let mut rig = Rig::new(mode, &["checkout"]);
        rig.pause(mode == "rollback");
        rig.says(Outcome::Regressed, None);
        ticks(&mut rig, 10, serving(2)).await;
        assert_eq!((rig.applies(), rig.stages().len(), asked(&rig)), (0, 1, 0), "{mode}");
    }
    // Nor who has acted, and only watches.
    let mut rig = Rig::new("rollback", &["checkout"]);
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 2, serving(2)).await;
    let for_the_call = asked(&rig);
    assert!(rig.applies() == 1 && for_the_call > 0);
    ticks(&mut rig, 10, serving(2)).await;
    assert_eq!(asked(&rig), for_the_call);
    // Who waits for a person means to act.
    let (mut rig, _) = waiting_crash_loop(by_cgroup).await;
    let before = asked(&rig);
    ticks(&mut rig, 3, serving(5)).await;
    assert!(asked(&rig) > before);
}

#[tokio::test(start_paused = true)]
async fn the_breaker_remembers_over_a_restart_who_was_condemned() {
    let mut rig = Rig::new("rollback", &["checkout", "cart"]);
    let both = || {
        let mut samples = serving(2);
        let cart = |role, incarnation, cgroup: &str| Target {
            deployment: "cart".into(),
            cgroup: cgroup.into(),
            ..target(role, incarnation)
        };
        samples.extend([busy(cart(Role::Stable, 11, "/cart/v1")), busy(cart(Role::Canary, 12, "/cart/v2"))]);
        samples
    };
    rig.says.lock().expect("no panic")[0] = (Outcome::Regressed, None);
    ticks(&mut rig, 4, both()).await;
    assert_eq!(rig.applies(), 1, "checkout");
    rig.kill().await;
    *rig.says.lock().expect("no panic") = vec![(Outcome::Healthy, None), (Outcome::Regressed, None)];
    ticks(&mut rig, 4, both()).await;
    assert_eq!(rig.applies(), 1, "not cart as well, minutes later: {:?}", rig.stages());
    let gate = rig.journal().history(1).expect("to read")[0].decision.blocked_by().cloned().expect("it is held back");
    assert!(gate.gate == "budget" && gate.reason.contains("checkout condemned within 10m"), "{gate:?}");
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_is_wanted_again_where_nobody_counts_is_noticed() {
    let mut rig = Rig::new("rollback", &["checkout"]);
    rig.says(Outcome::Regressed, Some(HardFact::CrashLoop));
    ticks(&mut rig, 2, serving(2)).await;
    let gone = || vec![busy(target(Role::Stable, 1))];
    ticks(&mut rig, 5, gone()).await;
    assert_eq!(rig.stages()[0].last(), Some(&Stage::Verified));
    // Once may be a moment in somebody's change.
    *rig.fake.state.lock().expect("no panic") = State::NotInEffect;
    ticks(&mut rig, 40, gone()).await;
    assert!(!rig.stages()[0].contains(&Stage::Reverted));
    ticks(&mut rig, 40, gone()).await;
    assert_eq!(rig.stages()[0].last(), Some(&Stage::Reverted), "{:?}", rig.stages());
    assert!(rig.last_detail().starts_with("somebody wants the canary again: fake finds it not in effect"));
    assert_eq!(rig.applies(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_next_rollout_is_guarded_also_where_the_one_before_is_wanted_again_elsewhere() {
    let mut rig = Rig::new("rollback", &["checkout"]);
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 4, with_canary(busy(pod(2, "bbb")))).await;
    ticks(&mut rig, 5, vec![busy(target(Role::Stable, 1))]).await;
    assert_eq!(rig.stages()[0].last(), Some(&Stage::Verified));
    rig.says(Outcome::Healthy, None);
    *rig.fake.state.lock().expect("no panic") = State::NotInEffect;
    ticks(&mut rig, 80, with_canary(busy(pod(3, "ccc")))).await;
    assert_eq!(rig.stages()[0].last(), Some(&Stage::Reverted), "{:?}", rig.stages());
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 4, with_canary(busy(pod(3, "ccc")))).await;
    assert_eq!(rig.applies(), 2, "{:?}", rig.stages());
}

#[tokio::test(start_paused = true)]
async fn a_later_rollout_that_is_first_seen_after_a_restart_of_its_own_is_no_return_of_the_one_before() {
    let mut rig = Rig::new("rollback", &["checkout"]);
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 4, with_canary(busy(run(2, "a", 0)))).await;
    let gone = || vec![busy(target(Role::Stable, 1))];
    ticks(&mut rig, 620, gone()).await;
    assert_eq!((rig.applies(), rig.stages()[0].last()), (1, Some(&Stage::Closed)), "{:?}", rig.stages());
    // It crashed at its start and was started again by its manager before any tick saw it.
    rig.says(Outcome::Regressed, Some(HardFact::CrashLoop));
    ticks(&mut rig, 3, with_canary(busy(run(3, "b", 1)))).await;
    assert_eq!(rig.applies(), 2, "{:?}", rig.stages());
}

#[tokio::test(start_paused = true)]
async fn a_rollout_that_was_begun_by_hand_where_an_action_failed_is_judged_by_itself() {
    let mut rig = Rig::new("rollback", &["checkout"]);
    *rig.fake.behaviour.lock().expect("no panic") = Behaviour::Refuses;
    rig.says(Outcome::Regressed, Some(HardFact::CrashLoop));
    ticks(&mut rig, 2, with_canary(busy(run(2, "a", 3)))).await;
    assert_eq!((rig.applies(), rig.stages()[0].last()), (1, Some(&Stage::Failed)));
    ticks(&mut rig, 2, with_canary(busy(run(3, "b", 4)))).await;
    assert_eq!(rig.applies(), 1, "it is not tried again on what its manager restarts: {:?}", rig.stages());
    ticks(&mut rig, 2, with_canary(busy(run(4, "c", 0)))).await;
    assert_eq!(rig.applies(), 2, "somebody deployed another one: {:?}", rig.stages());
}
