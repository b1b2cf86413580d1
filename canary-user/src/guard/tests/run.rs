//! The loop with orchestrators and disks that misbehave.

use std::{sync::Arc, time::Duration};

use super::{
    both_busy, busy,
    rig::{Behaviour, Rig, settle},
    stopped, target,
};
use crate::{
    control::Command,
    guard::{
        Stage::{self, *},
        incarnation_below,
    },
    judge::{Earlier, HardFact, Known, Learned, Outcome},
    orchestrator::{State, TakesAway, dry_run::DryRun},
    targets::Role,
    telemetry::Sample,
    window::Indicator,
};

fn serving() -> Vec<Sample> {
    both_busy(0).samples
}

fn canary_stopped() -> Vec<Sample> {
    vec![busy(target(Role::Stable, 1)), stopped(target(Role::Canary, 2))]
}

/// A rig in mode rollback in which the canary has just been condemned and the call made.
async fn condemned(behaviour: Behaviour) -> Rig {
    let mut rig = Rig::new("rollback", &["checkout"]);
    *rig.fake.behaviour.lock().unwrap() = behaviour;
    rig.tick(serving()).await;
    assert_eq!(rig.applies(), 0, "a healthy canary is left alone");
    rig.says(Outcome::Regressed, None);
    rig.tick(serving()).await;
    assert_eq!(rig.applies(), 0, "one window is not enough");
    rig.tick(serving()).await;
    rig
}

async fn ticks(rig: &mut Rig, n: usize, samples: fn() -> Vec<Sample>) {
    for _ in 0..n {
        rig.tick(samples()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_regressed_canary_is_rolled_back_once_and_verified_from_both_sides() {
    let mut rig = condemned(Behaviour::Succeeds).await;
    ticks(&mut rig, 1, serving).await;
    ticks(&mut rig, 4, canary_stopped).await;
    assert_eq!(rig.stages(), [[Planned, Applying, Applied, Verified]]);
    assert_eq!(
        rig.last_detail(),
        "no process is left; no turnaround and 0 bytes in 3 windows; fake finds it in effect: as the test says"
    );
    let shown = rig.decision(canary_stopped()).await.unwrap();
    assert_eq!((shown.stage, shown.decision.deployment.as_ref()), (Verified, "checkout"));
    let summary = rig.stop().await.unwrap();
    assert_eq!((summary.ticks, summary.verdicts["checkout"].outcome), (9, Outcome::Regressed));
    assert_eq!(rig.applies(), 1);
    let entry = &rig.journal().history(1).unwrap()[0];
    assert_eq!((entry.plan.inverse.as_deref(), entry.decision.gates.len()), (Some("start"), 14));
}

#[tokio::test(start_paused = true)]
async fn observe_only_says_what_it_would_do_and_says_it_once() {
    let mut rig = Rig::new("observe", &["checkout"]);
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 20, serving).await;
    assert_eq!(rig.stages(), [[Blocked]]);
    assert_eq!(rig.last_detail(), "mode: mode is observe: says that it would roll back and does nothing");
    assert_eq!(rig.applies(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_orchestrator_that_keeps_notes_is_told_of_each_change_of_verdict() {
    let mut rig = Rig::new("observe", &["checkout"]);
    rig.says(Outcome::InsufficientData, None);
    ticks(&mut rig, 3, serving).await;
    assert!(rig.fake.noted.lock().unwrap().is_empty(), "the first one after a start is no change");
    rig.says(Outcome::Healthy, None);
    ticks(&mut rig, 3, serving).await;
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 3, serving).await;
    let changes = [(Outcome::InsufficientData, Outcome::Healthy), (Outcome::Healthy, Outcome::Regressed)];
    assert_eq!(*rig.fake.noted.lock().unwrap(), changes);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_ends_with_its_plan() {
    let mut rig = Rig::new("rollback", &["checkout"]);
    rig.orchestrator = Some(Arc::new(DryRun));
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 10, serving).await;
    assert_eq!(rig.stages(), [[Planned, Blocked]]);
    assert_eq!(
        rig.last_detail(),
        "dry run, nothing was done: would roll back checkout v2 in /checkout/v2 (incarnation 2)"
    );
    let id = rig.journal().history(1).unwrap().remove(0).decision.id;
    let refusal = rig.ask(Command::Undo { id: id.clone() }).await.unwrap_err();
    let way = "a dry run changes nothing; an undo would start again checkout v2 in /checkout/v2";
    assert_eq!(refusal.error, format!("{id} was not carried out: there is nothing to undo; {way}"));
}

#[tokio::test(start_paused = true)]
async fn an_orchestrator_that_hangs_does_not_hold_the_line_and_fails_by_its_deadline() {
    let mut rig = condemned(Behaviour::Hangs).await;
    ticks(&mut rig, 5, serving).await;
    assert_eq!(rig.stages(), [[Planned, Applying]]);
    *rig.fake.state.lock().unwrap() = State::NotInEffect;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.stages(), [[Planned, Applying, Failed]]);
    assert_eq!(
        rig.last_detail(),
        "fake: no answer within 40s; asked afterwards, fake finds it not in effect: as the test says; not tried again"
    );
    ticks(&mut rig, 20, serving).await;
    assert_eq!(rig.applies(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_orchestrator_that_refuses_or_panics_is_not_called_again() {
    for (behaviour, words) in [
        (Behaviour::Refuses, "fake: refused, nothing was done: no such unit; not tried again"),
        (
            Behaviour::Fails,
            "fake: the connection broke; asked afterwards, fake finds it not in effect: as the test says; not tried again",
        ),
        (Behaviour::Panics, "fake: the call broke off: task"),
    ] {
        let mut rig = Rig::new("rollback", &["checkout"]);
        *rig.fake.behaviour.lock().unwrap() = behaviour;
        *rig.fake.state.lock().unwrap() = State::NotInEffect;
        rig.says(Outcome::Regressed, None);
        ticks(&mut rig, 20, serving).await;
        assert_eq!(rig.stages(), [[Planned, Applying, Failed]]);
        assert!(rig.last_detail().starts_with(words), "{}", rig.last_detail());
        assert_eq!(rig.applies(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_stays_busy_after_success_is_a_failure() {
    let mut rig = condemned(Behaviour::Succeeds).await;
    ticks(&mut rig, 80, serving).await;
    assert_eq!(rig.stages(), [[Planned, Applying, Applied, Failed]]);
    assert!(rig.last_detail().starts_with("the canary did not become quiet: 100 turnarounds"), "{}", rig.last_detail());
    assert_eq!(rig.applies(), 1);
}

#[tokio::test(start_paused = true)]
async fn quiet_counts_alone_do_not_verify() {
    let mut rig = condemned(Behaviour::Succeeds).await;
    *rig.fake.state.lock().unwrap() = State::NotInEffect;
    ticks(&mut rig, 80, canary_stopped).await;
    assert_eq!(rig.stages(), [[Planned, Applying, Applied, Failed]]);
    assert!(rig.last_detail().ends_with("but fake finds it not in effect: as the test says"), "{}", rig.last_detail());
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_comes_back_is_reported_and_never_fought_over() {
    // Brought back before and after the action was verified; as the same instance and as another one.
    for (quiet, incarnation, verified) in [(5, 2, true), (5, 9, true), (2, 9, false)] {
        let mut rig = condemned(Behaviour::Succeeds).await;
        ticks(&mut rig, quiet, canary_stopped).await;
        for _ in 0..900 {
            rig.tick(vec![busy(target(Role::Stable, 1)), busy(target(Role::Canary, incarnation))]).await;
        }
        let newest_last: Vec<Vec<Stage>> = rig.stages();
        let life = newest_last.last().unwrap();
        assert_eq!(life.last(), Some(&Reverted));
        assert_eq!(life.contains(&Verified), verified);
        assert_eq!(rig.applies(), 1);
        // Not even by a guard that is started anew.
        rig.stop().await;
        for _ in 0..20 {
            rig.tick(vec![busy(target(Role::Stable, 1)), busy(target(Role::Canary, incarnation))]).await;
        }
        assert_eq!(rig.applies(), 1);
        assert!(rig.last_detail().starts_with("budget: an action was already begun against this canary"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_holds_the_action_and_its_end_lets_it_go() {
    let mut rig = Rig::new("rollback", &["checkout"]);
    rig.pause(true);
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 5, serving).await;
    assert_eq!((rig.applies(), rig.stages()), (0, vec![vec![Blocked]]));
    assert!(rig.last_detail().starts_with("pause: paused: "), "{}", rig.last_detail());
    rig.pause(false);
    ticks(&mut rig, 2, serving).await;
    assert_eq!(rig.applies(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_was_replaced_at_the_last_moment_is_not_touched() {
    let mut rig = Rig::new("rollback", &["checkout"]);
    *rig.fake.found_now.lock().unwrap() = Some(99);
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 10, serving).await;
    assert_eq!((rig.applies(), rig.stages()), (0, vec![vec![Planned, Blocked]]));
    assert_eq!(rig.last_detail(), "incarnation: /checkout/v2 was replaced or removed just now");
    let shown = rig.decision(serving()).await.expect("it is shown").decision;
    assert_eq!(shown.blocked_by().map(|gate| &*gate.gate), Some("incarnation"), "whoever counts what gates hold back");
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_cannot_be_written_blocks_every_action_and_says_so() {
    let failing = [
        ("verdict", "1", "budget: the journal cannot be relied on"),
        ("decision", "1", "no action, for the intent is not on disk: "),
        ("stage", "NEW.stage = 'planned'", "no action, for the intent is not on disk: "),
        ("stage", "NEW.stage = 'applying'", "no action, for the call is not on disk: "),
        ("acted", "1", "no action, for the call is not on disk: "),
    ];
    for (table, when, words) in failing {
        let mut rig = Rig::new("rollback", &["checkout"]);
        rig.refuse(table, when);
        rig.says(Outcome::Regressed, None);
        ticks(&mut rig, 2, serving).await;
        // On the tick after: the latest decision as it is shown.
        let shown = rig.decision(serving()).await.unwrap();
        assert_eq!(shown.stage, Blocked, "{table} {when}");
        assert!(shown.detail.starts_with(words) && shown.detail.contains("disk full"), "{}", shown.detail);
        // Another canary is not acted on either.
        for _ in 0..5 {
            rig.tick(vec![busy(target(Role::Stable, 1)), busy(target(Role::Canary, 3))]).await;
        }
        assert_eq!(rig.applies(), 0, "{table} {when}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_deployments_condemned_together_stop_all_acting() {
    let mut rig = Rig::new("rollback", &["checkout", "cart"]);
    let both = || {
        let cart = |s: Sample| {
            let mut s = s;
            s.target.deployment = "cart".into();
            s.target.cgroup = s.target.cgroup.replace("checkout", "cart").into();
            s
        };
        serving().into_iter().flat_map(|s| [s.clone(), cart(s)]).collect::<Vec<_>>()
    };
    rig.says(Outcome::Healthy, Some(HardFact::CrashLoop));
    for _ in 0..700 {
        rig.tick(both()).await;
    }
    assert_eq!((rig.applies(), rig.stages()), (0, vec![vec![Blocked], vec![Blocked]]));
    assert!(rig.last_detail().contains("condemned within 10m as well"), "{}", rig.last_detail());
}

#[tokio::test(start_paused = true)]
async fn on_a_stop_signal_a_call_under_way_is_waited_for() {
    let mut rig = condemned(Behaviour::Hangs).await;
    *rig.fake.state.lock().unwrap() = State::NotInEffect;
    settle().await;
    rig.stop().await;
    assert_eq!(rig.stages(), [[Planned, Applying, Failed]]);
}

#[tokio::test(start_paused = true)]
async fn a_pause_between_the_intent_and_the_call_is_seen() {
    let mut rig = Rig::new("rollback", &["checkout"]);
    *rig.fake.pauses_in_plan.lock().unwrap() = true;
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 5, serving).await;
    assert_eq!((rig.applies(), rig.stages()), (0, vec![vec![Blocked]]));
    *rig.fake.pauses_in_plan.lock().unwrap() = false;
    rig.pause(false);
    ticks(&mut rig, 5, serving).await;
    assert_eq!(rig.applies(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_cooldown_holds_for_the_next_canary_also_after_a_restart() {
    let mut rig = Rig::with_budget("rollback", &["checkout"], "per_hour = 2, cooldown = \"2m\"");
    *rig.fake.behaviour.lock().unwrap() = Behaviour::Refuses;
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 2, serving).await;
    assert_eq!(rig.applies(), 1);
    let next = |incarnation| vec![busy(target(Role::Stable, 1)), busy(target(Role::Canary, incarnation))];
    for _ in 0..30 {
        rig.tick(next(3)).await;
    }
    rig.stop().await;
    for _ in 0..80 {
        rig.tick(next(3)).await;
    }
    assert_eq!(rig.applies(), 1);
    assert!(rig.last_detail().ends_with("the cooldown is 2m"), "{}", rig.last_detail());
    for _ in 0..20 {
        rig.tick(next(3)).await;
    }
    assert_eq!(rig.applies(), 2, "the cooldown is over");
    for _ in 0..300 {
        rig.tick(next(4)).await;
    }
    assert_eq!(rig.applies(), 2);
    assert_eq!(rig.last_detail(), "budget: 2 actions in the last hour, 2 allowed");
}

#[tokio::test(start_paused = true)]
async fn what_the_judge_has_learned_is_in_the_journal_from_time_to_time() {
    let mut rig = Rig::new("observe", &["checkout"]);
    let known = Known { offset_squares: 0.5, freedom: 2.0, wander: 0.25, noise: 0.125 };
    let learned = Learned {
        instances: vec![("/checkout/v1".into(), 1)],
        known: Earlier([(Indicator::CpuPerWork, known)].into()),
    };
    *rig.learned.lock().unwrap() = Some(learned.clone());
    ticks(&mut rig, 299, serving).await;
    assert!(rig.journal().earlier("checkout").unwrap().is_empty(), "a disk is not to be worn out");
    ticks(&mut rig, 2, serving).await;
    assert_eq!(rig.journal().earlier("checkout").unwrap(), learned.known);
}

#[test]
fn the_incarnation_is_read_from_the_directory() {
    use std::os::unix::fs::MetadataExt;
    let root = tempfile::tempdir().unwrap();
    let now = incarnation_below(root.path());
    assert_eq!(now(&target(Role::Canary, 2)), None);
    std::fs::create_dir_all(root.path().join("checkout/v2")).unwrap();
    let inode = std::fs::metadata(root.path().join("checkout/v2")).unwrap().ino();
    assert_eq!(now(&target(Role::Canary, 2)), Some(inode));
}

#[tokio::test(start_paused = true)]
async fn an_orchestrator_that_will_not_act_is_told_once_and_asked_again_later() {
    let mut rig = Rig::new("rollback", &["checkout"]);
    *rig.fake.will_not.lock().unwrap() = Some("checkout@v2.service is started by checkout@v2.socket".into());
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 100, serving).await;
    assert_eq!(rig.stages(), [[Blocked]], "the same refusal is recorded once");
    assert_eq!(
        rig.last_detail(),
        "owner: refused, nothing was done: checkout@v2.service is started by checkout@v2.socket"
    );
    *rig.fake.will_not.lock().unwrap() = None;
    ticks(&mut rig, 40, serving).await;
    assert_eq!(rig.applies(), 1, "it has changed its mind");
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_takes_away_too_much_is_told_once_and_asked_for_again_later() {
    let mut rig = Rig::new("rollback", &["checkout"]);
    *rig.fake.takes_away.lock().unwrap() = Some(TakesAway { instances: 10, of: 12 });
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 100, serving).await;
    assert_eq!(rig.stages(), [[Blocked]], "the same plan is recorded once");
    let said = "blast_radius: 10 of 12 instances would be taken away, on all nodes, blast_radius is 0.5";
    assert_eq!(rig.last_detail(), said);
    *rig.fake.takes_away.lock().unwrap() = Some(TakesAway { instances: 2, of: 12 });
    ticks(&mut rig, 40, serving).await;
    assert_eq!(rig.applies(), 1, "it has become less");
}
