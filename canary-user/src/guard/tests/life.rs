//! The life of an action beyond its call: approval, recovery, quarantine, undo, and what a restart finds of them.

use super::{
    both_busy, busy,
    rig::{Behaviour, Rig},
    stopped, target,
};
use crate::{
    control::{Command, Done, RefusalKind, Reply},
    guard::{
        Action,
        Stage::{self, *},
    },
    judge::Outcome,
    orchestrator::State,
    targets::Role,
    telemetry::Sample,
};

fn serving() -> Vec<Sample> {
    both_busy(0).samples
}

fn canary_stopped() -> Vec<Sample> {
    vec![busy(target(Role::Stable, 1)), stopped(target(Role::Canary, 2))]
}

async fn ticks(rig: &mut Rig, n: usize, samples: fn() -> Vec<Sample>) {
    for _ in 0..n {
        rig.tick(samples()).await;
    }
}

fn waiting() -> Rig {
    let rig = Rig::with_keys("rollback", &["checkout"], "approval = \"required\"\napproval_timeout = \"1m\"");
    rig.says(Outcome::Regressed, None);
    rig
}

fn id(rig: &Rig) -> String {
    rig.journal().history(1).unwrap().remove(0).decision.id
}

fn life(rig: &Rig) -> Vec<Stage> {
    rig.stages().remove(0)
}

async fn said(rig: &Rig, command: Command) -> Result<String, (RefusalKind, String)> {
    match rig.ask(command).await {
        Ok(Reply::Done(Done { said })) => Ok(said),
        Ok(Reply::Status(_)) => panic!("no status was asked for"),
        Err(refusal) => Err((refusal.kind, refusal.error)),
    }
}

#[tokio::test(start_paused = true)]
async fn an_action_that_needs_approval_waits_and_goes_on_when_a_person_says_yes() {
    let mut rig = waiting();
    ticks(&mut rig, 10, serving).await;
    assert_eq!((rig.applies(), life(&rig)), (0, vec![Planned]));
    let id = id(&rig);
    let gates = rig.journal().history(1).unwrap().remove(0).decision.gates;
    assert_eq!(gates.last().map(|g| (&*g.gate, g.passed)), Some(("approval", false)));
    let words = said(&rig, Command::Approve { id: id.clone() }).await.expect("granted");
    let asked = "fake is asked once more what there is to do";
    assert_eq!(words, format!("Approved {id}; {asked}. `canary explain {id}` follows it."));
    ticks(&mut rig, 1, serving).await;
    ticks(&mut rig, 4, canary_stopped).await;
    assert_eq!((rig.applies(), life(&rig)), (1, vec![Planned, Approved, Applying, Applied, Verified]));
    let (kind, error) = said(&rig, Command::Approve { id: id.clone() }).await.unwrap_err();
    assert_eq!(kind, RefusalKind::NotNow);
    assert_eq!(error, format!("{id} does not wait for approval, it is verified; no decision waits for approval"));
    assert_eq!(said(&rig, Command::Approve { id: "x".into() }).await.unwrap_err().0, RefusalKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn no_answer_is_a_no_that_holds_over_a_restart() {
    let mut rig = waiting();
    ticks(&mut rig, 70, serving).await;
    assert_eq!((rig.applies(), life(&rig)), (0, vec![Planned, Declined]));
    assert_eq!(rig.last_detail(), "nobody approved it within 1m");
    rig.kill().await;
    ticks(&mut rig, 70, serving).await;
    assert_eq!((rig.applies(), rig.stages().len()), (0, 1), "the same canary is not asked about again");
    for _ in 0..5 {
        rig.tick(vec![busy(target(Role::Stable, 1)), busy(target(Role::Canary, 3))]).await;
    }
    assert_eq!(rig.stages().len(), 2, "another one is");
}

#[tokio::test(start_paused = true)]
async fn what_is_approved_is_asked_again_at_every_gate_and_waits_over_a_kill() {
    let mut rig = waiting();
    ticks(&mut rig, 5, serving).await;
    let id = id(&rig);
    rig.kill().await;
    ticks(&mut rig, 5, serving).await;
    assert_eq!(rig.stages(), [[Planned]], "it waits on");
    rig.pause(true);
    let (kind, error) = said(&rig, Command::Approve { id: id.clone() }).await.unwrap_err();
    assert!(
        kind == RefusalKind::NotNow && error.contains("pause: ") && error.ends_with("it goes on waiting"),
        "{error}"
    );
    rig.pause(false);
    rig.says(Outcome::Healthy, None);
    ticks(&mut rig, 2, serving).await;
    let (_, error) = said(&rig, Command::Approve { id: id.clone() }).await.unwrap_err();
    assert!(error.contains("verdict: the verdict is healthy"), "{error}");
    assert_eq!(rig.applies(), 0);
    // The canary is replaced: the evidence was about another one.
    rig.tick(vec![busy(target(Role::Stable, 1)), busy(target(Role::Canary, 3))]).await;
    assert_eq!(life(&rig), [Planned, Blocked]);
    assert!(rig.last_detail().starts_with("incarnation: "), "{}", rig.last_detail());
}

#[tokio::test(start_paused = true)]
async fn after_it_is_verified_it_is_told_whether_it_helped_and_closed() {
    for (stable, end) in [(100, Recovered), (0, NotRecovered)] {
        let mut rig = Rig::new("rollback", &["checkout"]);
        ticks(&mut rig, 10, serving).await;
        rig.says(Outcome::Regressed, None);
        ticks(&mut rig, 3, serving).await;
        ticks(&mut rig, 4, canary_stopped).await;
        assert_eq!(life(&rig).last(), Some(&Verified));
        for _ in 0..620 {
            let mut all = canary_stopped();
            all[0].network.as_mut().unwrap().turnarounds = stable;
            rig.tick(all).await;
        }
        assert_eq!(life(&rig), [Planned, Applying, Applied, Verified, end, Closed]);
        assert_eq!(rig.last_detail(), "nobody brought the canary back");
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_after_a_kill_and_is_closed_where_its_time_is_over() {
    let mut rig = Rig::new("rollback", &["checkout"]);
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 3, serving).await;
    ticks(&mut rig, 4, canary_stopped).await;
    rig.kill().await;
    ticks(&mut rig, 5, canary_stopped).await;
    ticks(&mut rig, 3, serving).await;
    assert_eq!(life(&rig), [Planned, Applying, Applied, Verified, Reverted]);
    assert_eq!(rig.applies(), 1);

    let mut rig = Rig::new("rollback", &["checkout"]);
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 3, serving).await;
    ticks(&mut rig, 4, canary_stopped).await;
    rig.kill().await;
    rig.second += 3600;
    ticks(&mut rig, 1, canary_stopped).await;
    assert_eq!(life(&rig).last(), Some(&Closed));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_failed_after_it_was_done_is_verified_and_not_failed() {
    let mut rig = Rig::new("rollback", &["checkout"]);
    *rig.fake.behaviour.lock().unwrap() = Behaviour::Fails;
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 3, serving).await;
    ticks(&mut rig, 4, canary_stopped).await;
    assert_eq!(life(&rig), [Planned, Applying, Applied, Verified]);
    let applied = rig.journal().history(1).unwrap().remove(0).stages.remove(2).detail;
    assert!(applied.starts_with("fake: the connection broke; asked afterwards, fake finds it in effect"), "{applied}");
    assert_eq!(rig.applies(), 1);
}

async fn quarantined() -> Rig {
    let mut rig = Rig::new("quarantine", &["checkout"]);
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 5, serving).await;
    assert_eq!(life(&rig), [Planned, Applying, Applied, Verified], "{}", rig.last_detail());
    assert_eq!(rig.journal().history(1).unwrap()[0].decision.action, Action::Quarantine);
    rig
}

#[tokio::test(start_paused = true)]
async fn a_quarantine_that_ended_by_itself_is_found_to_have() {
    let mut rig = quarantined().await;
    *rig.fake.state.lock().unwrap() = State::NotInEffect;
    ticks(&mut rig, 100, serving).await;
    assert_eq!(life(&rig).last(), Some(&Verified), "one look is not enough");
    ticks(&mut rig, 40, serving).await;
    assert_eq!(life(&rig), [Planned, Applying, Applied, Verified, Undone]);
    assert!(rig.fake.undone.lock().unwrap().is_empty(), "nothing had to be done");
}

#[tokio::test(start_paused = true)]
async fn a_quarantine_that_did_not_end_is_ended_also_after_a_kill_and_failures() {
    let mut rig = quarantined().await;
    rig.kill().await;
    *rig.fake.undo_fails.lock().unwrap() = 2;
    ticks(&mut rig, 70, serving).await;
    assert_eq!(life(&rig), [Planned, Applying, Applied, Verified, Undoing, Failed]);
    let said = rig.last_detail();
    assert!(said.contains("the connection broke; asked afterwards, fake finds it in effect"), "{said}");
    assert!(said.ends_with("; looked at again every minute"), "{said}");
    rig.kill().await;
    ticks(&mut rig, 200, serving).await;
    assert_eq!(life(&rig).last(), Some(&Undone));
    assert_eq!(rig.fake.undone.lock().unwrap().len(), 3);
    ticks(&mut rig, 200, serving).await;
    rig.kill().await;
    ticks(&mut rig, 200, serving).await;
    assert_eq!((rig.fake.undone.lock().unwrap().len(), rig.applies()), (3, 1), "and that is all");
}

#[tokio::test(start_paused = true)]
async fn a_quarantine_is_lifted_early_where_a_person_asks() {
    let mut rig = quarantined().await;
    let id = id(&rig);
    rig.pause(true);
    let words = said(&rig, Command::Undo { id: id.clone() }).await.expect("granted, also while paused");
    assert_eq!(words, format!("Undoing {id}: start. `canary explain {id}` follows it."));
    ticks(&mut rig, 200, serving).await;
    assert_eq!(life(&rig), [Planned, Applying, Applied, Verified, Undoing, Undoing, Undone]);
    assert_eq!(rig.fake.undone.lock().unwrap().len(), 1);
    let (_, error) = said(&rig, Command::Undo { id: id.clone() }).await.unwrap_err();
    assert_eq!(error, format!("{id} is undone already"));
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_is_not_possible_says_how_a_person_gets_back() {
    let mut rig = Rig::new("observe", &["checkout"]);
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 5, serving).await;
    let id = id(&rig);
    let (_, error) = said(&rig, Command::Undo { id: id.clone() }).await.unwrap_err();
    assert_eq!(error, format!("{id} was not carried out: there is nothing to undo"));
    let mut rig = Rig::new("rollback", &["checkout"]);
    rig.says(Outcome::Regressed, None);
    ticks(&mut rig, 3, serving).await;
    ticks(&mut rig, 4, canary_stopped).await;
    let id = self::id(&rig);
    let (kind, error) = said(&rig, Command::Undo { id: id.clone() }).await.unwrap_err();
    assert_eq!(kind, RefusalKind::NotNow);
    assert_eq!(error, format!("fake cannot undo {id} by itself; the way back: start"));
    assert_eq!(said(&rig, Command::Undo { id: "x".into() }).await.unwrap_err().0, RefusalKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_person_rolls_a_healthy_canary_back_in_any_mode_and_not_while_paused() {
    let mut rig = Rig::new("observe", &["checkout"]);
    let wanted = || Command::Rollback { deployment: "checkout".into(), reason: "wrong prices".into() };
    ticks(&mut rig, 5, serving).await;
    rig.pause(true);
    let (kind, error) = said(&rig, wanted()).await.unwrap_err();
    assert!(kind == RefusalKind::NotNow && error.starts_with("pause: paused: "), "{error}");
    rig.pause(false);
    let words = said(&rig, wanted()).await.expect("granted");
    assert!(words.starts_with("Rolling back checkout as decision checkout-"), "{words}");
    ticks(&mut rig, 1, serving).await;
    ticks(&mut rig, 4, canary_stopped).await;
    assert_eq!(rig.stages(), [[Planned, Applying, Applied, Verified]]);
    assert_eq!(rig.journal().history(1).unwrap()[0].decision.reason, "asked for by root: wrong prices");
    let (_, error) = said(&rig, wanted()).await.unwrap_err();
    assert!(error.starts_with("canary_window: "), "there is nothing left to take away: {error}");
    assert_eq!(rig.applies(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_guard_that_does_not_lead_does_nothing() {
    let mut rig = waiting();
    *rig.fake.leads.lock().unwrap() = false;
    ticks(&mut rig, 5, serving).await;
    assert_eq!(life(&rig), [Blocked]);
    assert_eq!(rig.last_detail(), "leadership: another one holds the lease");
    *rig.fake.leads.lock().unwrap() = true;
    ticks(&mut rig, 5, serving).await;
    assert_eq!(rig.stages()[0], [Planned], "it waits for approval now");
}
