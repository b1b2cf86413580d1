//! Calls to an orchestrator, off the line: each with a deadline, each answered by one [`Answer`] on a channel.

use std::{sync::Arc, time::Duration};

use anyhow::anyhow;
use tokio::{sync::mpsc, time::timeout};

use crate::{
    guard::{Decision, Stage},
    judge::Outcome,
    orchestrator::{Error, Found, Orchestrator, Plan, State},
    targets::Target,
};

/// How long an orchestrator may take to say what it would do.
const DESCRIBE_DEADLINE: Duration = Duration::from_secs(10);
/// How long an orchestrator may take to say what state it finds.
const STATE_DEADLINE: Duration = Duration::from_secs(10);

/// What came of a call.
#[derive(Debug)]
pub(super) struct Answer {
    /// Place of the deployment in the setup.
    pub line: usize,
    pub decision_id: String,
    pub what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// `Err` = refused, failed or unanswered, in words.
    Described(Result<Plan, String>),
    /// In words: it is done, or was found to be, or to be under way, although the call failed or was not answered. `Err` = it
    /// is not, with the state that was found afterwards.
    Applied(Result<String, String>),
    /// The same of taking it back.
    Undone(Result<String, String>),
    State(Result<Found, String>),
}

/// Where calls are made from and answered to.
#[derive(Clone)]
pub(super) struct Caller {
    pub line: usize,
    pub orchestrator: Arc<dyn Orchestrator>,
    pub answers: mpsc::Sender<Answer>,
}

impl Caller {
    /// Asks what carrying the decision out would be.
    pub fn describe(&self, decision: &Decision) {
        let (caller, decision) = (self.clone(), decision.clone());
        tokio::spawn(async move {
            let (orchestrator, d) = (caller.orchestrator.clone(), decision.clone());
            let described = within(DESCRIBE_DEADLINE, async move { orchestrator.describe(&d).await }).await;
            caller.answer(&decision, What::Described(described.map_err(|e| e.to_string()))).await;
        });
    }

    /// Carries the decision out. The only place that calls [`Orchestrator::apply`].
    pub fn apply(&self, decision: &Decision, plan: Plan, deadline: Duration) {
        let (caller, decision) = (self.clone(), decision.clone());
        tokio::spawn(async move {
            let (orchestrator, d) = (caller.orchestrator.clone(), decision.clone());
            let called = within(deadline, async move { orchestrator.apply(&d, &plan).await }).await;
            // What is under way goes on whether or not somebody waits for it.
            let holds = [State::InEffect, State::InProgress];
            let result = caller.end(&decision, called, "says that it is done", &holds).await;
            caller.answer(&decision, What::Applied(result)).await;
        });
    }

    /// Applies the recorded inverse. The only place that calls [`Orchestrator::undo`].
    pub fn undo(&self, decision: &Decision, plan: Plan, deadline: Duration) {
        let (caller, decision) = (self.clone(), decision.clone());
        tokio::spawn(async move {
            let (orchestrator, d) = (caller.orchestrator.clone(), decision.clone());
            let called = within(deadline, async move { orchestrator.undo(&d, &plan).await }).await;
            let result = caller.end(&decision, called, "says that it is undone", &[State::NotInEffect]).await;
            caller.answer(&decision, What::Undone(result)).await;
        });
    }

    /// What came of a call: done, as it says, or as it is found afterwards to be in one of the states `holds`.
    async fn end(
        &self,
        decision: &Decision,
        called: Result<(), Error>,
        says: &str,
        holds: &[State],
    ) -> Result<String, String> {
        let name = self.orchestrator.name();
        match called {
            Ok(()) => Ok(format!("{name} {says}")),
            Err(e @ Error::Refused(_)) => Err(e.to_string()),
            Err(e) => {
                let found = state(&self.orchestrator, decision).await;
                let said = format!("{e}; asked afterwards, {}", in_words(name, &found));
                match found {
                    Ok(Found { state, .. }) if holds.contains(&state) => Ok(format!("{name}: {said}")),
                    _ => Err(said),
                }
            }
        }
    }

    /// Asks what state the orchestrator finds.
    pub fn ask(&self, decision: &Decision) {
        let (caller, decision) = (self.clone(), decision.clone());
        tokio::spawn(async move {
            let found = state(&caller.orchestrator, &decision).await;
            caller.answer(&decision, What::State(found)).await;
        });
    }

    /// Has the orchestrator note what happened, where it keeps notes.
    pub fn note(&self, decision: &Decision, stage: Stage, detail: &str) {
        if !self.orchestrator.keeps_notes() {
            return;
        }
        let (orchestrator, decision, detail) = (self.orchestrator.clone(), decision.clone(), detail.to_owned());
        tokio::spawn(async move {
            if timeout(STATE_DEADLINE, orchestrator.note(&decision, stage, &detail)).await.is_err() {
                tracing::warn!(decision = %decision.id, "{} was not noted in time", stage.name());
            }
        });
    }

    /// Has it note that the verdict changed, as well.
    pub fn note_verdict(&self, canary: &[Target], before: Outcome, now: Outcome, why: &str) {
        if !self.orchestrator.keeps_notes() {
            return;
        }
        let (orchestrator, canary, why) = (self.orchestrator.clone(), canary.to_vec(), why.to_owned());
        tokio::spawn(async move {
            if timeout(STATE_DEADLINE, orchestrator.note_verdict(&canary, before, now, &why)).await.is_err() {
                tracing::warn!("that the canary is {} now was not noted in time", now.name());
            }
        });
    }

    async fn answer(&self, decision: &Decision, what: What) {
        // No one listens any more once the guard has stopped; the journal then holds the action as unfinished.
        let _ = self.answers.send(Answer { line: self.line, decision_id: decision.id.clone(), what }).await;
    }
}

/// What the orchestrator finds, within a deadline.
pub(super) async fn state(orchestrator: &Arc<dyn Orchestrator>, decision: &Decision) -> Result<Found, String> {
    let (orchestrator, decision) = (orchestrator.clone(), decision.clone());
    let call = async move { Ok(orchestrator.state(&decision).await?) };
    within(STATE_DEADLINE, call).await.map_err(|e| e.to_string())
}

/// Runs a call as a task of its own, so that one that hangs or panics harms nothing else.
async fn within<T: Send + 'static>(
    deadline: Duration,
    call: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    let mut call = tokio::spawn(call);
    match timeout(deadline, &mut call).await {
        Ok(Ok(result)) => result,
        Ok(Err(e)) => Err(anyhow!("the call broke off: {e}").into()),
        Err(_) => {
            call.abort();
            Err(anyhow!("no answer within {}", humantime::format_duration(deadline)).into())
        }
    }
}

/// What was found in words: "process finds it in effect: no process in the canary's cgroups".
pub(super) fn in_words(name: &str, found: &Result<Found, String>) -> String {
    let (state, detail) = match found {
        Ok(found) => (found.state, &found.detail),
        Err(e) => return format!("{name} cannot say: {e}"),
    };
    let state = match state {
        State::InEffect => "in effect",
        State::NotInEffect => "not in effect",
        State::InProgress => "under way",
    };
    format!("{name} finds it {state}: {detail}")
}
