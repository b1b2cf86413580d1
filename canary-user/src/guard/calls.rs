//! Calls to an orchestrator, off the line: each with a deadline, each answered by one [`Answer`] on a channel.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::timeout};

use crate::{
    guard::Decision,
    orchestrator::{Orchestrator, State},
};

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
    /// `Err` = failed or unanswered, in words, with the state that was found afterwards.
    Applied(Result<(), String>),
    State(Result<State, String>),
}

/// Where calls are made from and answered to.
#[derive(Clone)]
pub(super) struct Caller {
    pub line: usize,
    pub orchestrator: Arc<dyn Orchestrator>,
    pub answers: mpsc::Sender<Answer>,
}

impl Caller {
    /// Carries the decision out. The only place that calls [`Orchestrator::apply`].
    pub fn apply(&self, decision: &Decision, deadline: Duration) {
        let (caller, decision) = (self.clone(), Arc::new(decision.clone()));
        tokio::spawn(async move {
            let (orchestrator, d) = (caller.orchestrator.clone(), decision.clone());
            let mut call = tokio::spawn(async move { orchestrator.apply(&d).await });
            let result = match timeout(deadline, &mut call).await {
                Ok(Ok(Ok(()))) => Ok(()),
                Ok(Ok(Err(e))) => Err(format!("{e:#}")),
                Ok(Err(e)) => Err(format!("the call broke off: {e}")),
                Err(_) => {
                    call.abort();
                    Err(format!("no answer within {}", humantime::format_duration(deadline)))
                }
            };
            let result = match result {
                Ok(()) => Ok(()),
                Err(e) => {
                    let found = state(&caller.orchestrator, &decision).await;
                    Err(format!("{e}; asked afterwards, {}", in_words(caller.orchestrator.name(), &found)))
                }
            };
            caller.answer(&decision, What::Applied(result)).await;
        });
    }

    /// Asks what state the orchestrator finds.
    pub fn ask(&self, decision: &Decision) {
        let (caller, decision) = (self.clone(), decision.clone());
        tokio::spawn(async move {
            let found = state(&caller.orchestrator, &decision).await;
            caller.answer(&decision, What::State(found)).await;
        });
    }

    async fn answer(&self, decision: &Decision, what: What) {
        // No one listens any more once the guard has stopped; the journal then holds the action as unfinished.
        let _ = self.answers.send(Answer { line: self.line, decision_id: decision.id.clone(), what }).await;
    }
}

/// What the orchestrator finds, within a deadline.
pub(super) async fn state(orchestrator: &Arc<dyn Orchestrator>, decision: &Decision) -> Result<State, String> {
    let (orchestrator, decision) = (orchestrator.clone(), decision.clone());
    let mut call = tokio::spawn(async move { orchestrator.state(&decision).await });
    match timeout(STATE_DEADLINE, &mut call).await {
        Ok(Ok(Ok(state))) => Ok(state),
        Ok(Ok(Err(e))) => Err(format!("{e:#}")),
        Ok(Err(e)) => Err(format!("the call broke off: {e}")),
        Err(_) => {
            call.abort();
            Err(format!("no answer within {}", humantime::format_duration(STATE_DEADLINE)))
        }
    }
}

/// The found state in words: "process finds it in effect".
pub(super) fn in_words(name: &str, found: &Result<State, String>) -> String {
    match found {
        Ok(State::InEffect) => format!("{name} finds it in effect"),
        Ok(State::NotInEffect) => format!("{name} finds it not in effect"),
        Ok(State::InProgress) => format!("{name} finds it under way"),
        Err(e) => format!("{name} cannot say: {e}"),
    }
}
