//! What people ask of the running loop, and what it then does and does not.

use std::sync::Arc;

use super::{both_busy, busy, rig::Rig, stopped, target};
use crate::{
    control::{Command, Done, RefusalKind, Reply, Status},
    guard::{
        Moment, Pause, Pauses,
        Stage::{Blocked, Verified},
    },
    judge::Outcome,
    orchestrator::dry_run::DryRun,
    targets::Role,
    telemetry::Sample,
};

fn serving() -> Vec<Sample> {
    both_busy(0).samples
}

async fn ticks(rig: &mut Rig, n: usize) {
    for _ in 0..n {
        rig.tick(serving()).await;
    }
}

fn pause(deployment: Option<&str>, seconds: Option<u64>) -> Command {
    Command::Pause {
        deployment: deployment.map(str::to_owned),
        for_ms: seconds.map(|s| s * 1000),
        reason: "incident 12".into(),
    }
}

async fn said(rig: &Rig, command: Command) -> String {
    match rig.ask(command).await.expect("granted") {
        Reply::Done(Done { said }) => said,
        Reply::Status(_) => panic!("no status was asked for"),
    }
}

async fn status(rig: &Rig) -> Status {
    match rig.ask(Command::Status).await.expect("granted") {
        Reply::Status(status) => *status,
        Reply::Done(Done { said }) => panic!("{said}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_ends_by_itself_when_its_time_is_over() {
    let mut rig = Rig::new("rollback", &["checkout"]);
    ticks(&mut rig, 1).await;
    let words = said(&rig, pause(None, Some(20))).await;
    assert!(words.starts_with("Paused all deployments by root until 2026-11-18T"), "{words}");
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 19).await;
    assert_eq!((rig.applies(), rig.stages()), (0, vec![vec![Blocked]]));
    assert!(rig.last_detail().starts_with("pause: paused: by root until "), "{}", rig.last_detail());
    ticks(&mut rig, 2).await;
    assert_eq!(rig.applies(), 1);
    assert!(rig.journal().pauses(Moment::default()).unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_orchestrator_sees_every_pause_at_once_and_its_end() {
    let mut rig = Rig::new("rollback", &["checkout", "cart"]);
    ticks(&mut rig, 1).await;
    let asks = |rig: &Rig| rig.fake.asks_for_pauses.lock().unwrap().clone().expect("the guard has told it");
    let paused = asks(&rig);
    assert_eq!(paused("checkout"), None);
    said(&rig, pause(Some("checkout"), Some(20))).await;
    assert!(paused("checkout").is_some_and(|why| why.contains("incident 12; `canary resume checkout` ends it")));
    assert_eq!(paused("cart"), None);
    ticks(&mut rig, 21).await;
    assert_eq!(paused("checkout"), None, "its time is over");
    rig.pause(true);
    assert!(paused("cart").is_some_and(|why| why.contains("/pause exists; ")));
    rig.pause(false);
    assert_eq!(paused("cart"), None);
    said(&rig, pause(None, None)).await;
    assert!(paused("cart").is_some());
    rig.kill().await;
    ticks(&mut rig, 1).await;
    let paused = asks(&rig);
    assert!(paused("cart").is_some(), "the next guard remembers it");
    said(&rig, Command::Resume { deployment: None }).await;
    assert_eq!(paused("cart"), None);
}

#[tokio::test(start_paused = true)]
async fn a_pause_survives_a_kill_and_holds_one_deployment_only() {
    let mut rig = Rig::new("rollback", &["checkout", "cart"]);
    let both = || {
        let mut all = serving();
        for mut s in serving() {
            s.target.deployment = "cart".into();
            s.target.cgroup = s.target.cgroup.replace("checkout", "cart").into();
            all.push(s);
        }
        all
    };
    rig.tick(both()).await;
    said(&rig, pause(Some("checkout"), Some(3600))).await;
    rig.kill().await;
    rig.says.lock().unwrap()[0] = (Outcome::Regressed, None);
    for _ in 0..4 {
        rig.tick(both()).await;
    }
    let seen = rig.tick(both()).await;
    let alone = |name: &str| seen.deployments[name].paused.as_deref();
    assert!(alone("checkout").is_some_and(|why| why.ends_with("incident 12; `canary resume checkout` ends it")));
    assert_eq!((seen.paused.as_deref(), alone("cart")), (None, None), "watchers see it, too");
    assert_eq!(rig.applies(), 0);
    let now = status(&rig).await;
    assert_eq!(now.paused, None);
    let [checkout, cart] = now.deployments.as_slice() else { panic!("two: {now:?}") };
    assert_eq!(checkout.paused.as_ref().map(|p| &*p.reason), Some("incident 12"));
    assert_eq!(checkout.blocked_by.iter().map(|g| &*g.gate).collect::<Vec<_>>(), ["pause"]);
    assert_eq!(cart.paused, None);
    assert!(said(&rig, Command::Resume { deployment: Some("checkout".into()) }).await.starts_with("Resumed checkout"));
    for _ in 0..2 {
        rig.tick(both()).await;
    }
    assert_eq!(rig.applies(), 1);
}

#[tokio::test(start_paused = true)]
async fn resuming_one_says_what_still_holds() {
    let mut rig = Rig::new("rollback", &["checkout"]);
    ticks(&mut rig, 1).await;
    said(&rig, pause(None, None)).await;
    let one = Command::Resume { deployment: Some("checkout".into()) };
    let words = said(&rig, one.clone()).await;
    assert_eq!(
        words,
        "checkout: not paused by `canary pause`. Still paused: by root until it is resumed: incident 12; `canary \
         resume` ends it."
    );
    let words = said(&rig, Command::Resume { deployment: None }).await;
    assert_eq!(words, "Resumed all deployments; it was paused by root until it is resumed: incident 12.");
    rig.pause(true);
    let words = said(&rig, Command::Resume { deployment: None }).await;
    assert!(words.contains("Still paused: ") && words.contains("`canary resume --pause-file "), "{words}");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_not_configured_is_refused_with_the_nearest() {
    let mut rig = Rig::new("rollback", &["checkout"]);
    ticks(&mut rig, 1).await;
    let refusal = rig.ask(pause(Some("chekout"), None)).await.unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::NotFound);
    assert_eq!(refusal.error, "there is no deployment 'chekout': did you mean 'checkout'?");
    let told = rig.journal().commands(1).unwrap().remove(0);
    assert_eq!((&*told.by, told.accepted, told.said), ("root", false, refusal.error));
}

#[tokio::test(start_paused = true)]
async fn the_status_names_every_gate_that_blocks_and_the_decision() {
    let mut rig = Rig::new("observe", &["checkout"]);
    ticks(&mut rig, 1).await;
    rig.pause(true);
    let now = status(&rig).await;
    assert!(now.paused.is_some());
    let d = &now.deployments[0];
    assert_eq!(
        (&*d.name, &*d.orchestrator, d.verdict, d.decision.is_none()),
        ("checkout", "fake", Outcome::Healthy, true)
    );
    assert_eq!((d.stable_instances, d.canary_instances), (1, 1));
    let gates: Vec<&str> = d.blocked_by.iter().map(|g| &*g.gate).collect();
    assert_eq!(gates, ["mode", "pause", "verdict"]);
    assert!(rig.journal().commands(9).unwrap().is_empty(), "a look changes nothing");

    let mut rig = Rig::new("rollback", &["checkout"]);
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 3).await;
    for _ in 0..4 {
        rig.tick(vec![busy(target(Role::Stable, 1)), super::stopped(target(Role::Canary, 2))]).await;
    }
    let d = status(&rig).await.deployments.remove(0);
    assert_eq!((d.stable_instances, d.canary_instances), (1, 0), "its processes have ended");
    let decision = d.decision.expect("one was taken");
    assert_eq!((decision.stage, &*decision.reason), (Verified, "CPU per turnaround +31 %"));
}

#[test]
fn setting_the_wall_clock_neither_ends_nor_prolongs_a_pause() {
    let moment = |unix_s: u64, t_s: u64| Moment { unix_ms: unix_s * 1000, t_ns: t_s * 1_000_000_000 };
    let pause = Pause {
        deployment: None,
        reason: String::new(),
        by: "root".into(),
        since_unix_ms: 0,
        until: Some(moment(1060, 70)),
    };
    let mut pauses = Pauses::new(vec![pause]);
    for now in [moment(1000, 10), moment(999_999, 69), moment(0, 69)] {
        assert!(pauses.expire(now).is_empty(), "{now:?}");
    }
    assert_eq!(pauses.expire(moment(0, 70)).len(), 1);
    assert!(pauses.of(None).is_none());
}

#[tokio::test(start_paused = true)]
async fn what_another_orchestrator_did_is_not_undone_by_this_one() {
    let mut rig = Rig::new("rollback", &["checkout"]);
    *rig.fake.can_undo.lock().unwrap() = true;
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 3).await;
    for _ in 0..4 {
        rig.tick(vec![busy(target(Role::Stable, 1)), stopped(target(Role::Canary, 2))]).await;
    }
    let id = rig.journal().history(1).unwrap().remove(0).decision.id;
    rig.kill().await;
    rig.orchestrator = Some(Arc::new(DryRun));
    rig.tick(vec![busy(target(Role::Stable, 1))]).await;
    let refusal = rig.ask(Command::Undo { id: id.clone() }).await.expect_err("refused");
    assert_eq!(refusal.kind, RefusalKind::NotNow);
    let words = "was carried out by fake, and the deployment's orchestrator is dry-run now: configure fake again, or get back by \
                 hand: start";
    assert_eq!(refusal.error, format!("{id} {words}"));
    assert!(rig.fake.undone.lock().unwrap().is_empty());
    // With the one that did it, it can be.
    rig.kill().await;
    rig.orchestrator = None;
    rig.tick(vec![busy(target(Role::Stable, 1))]).await;
    assert!(said(&rig, Command::Undo { id: id.clone() }).await.starts_with(&format!("Undoing {id}: start")));
}
