//! The journal as the loop uses it: once a write has failed, nothing is begun any more.

use crate::{
    guard::{Decision, Stage},
    journal::Journal,
    judge::Verdict,
    orchestrator::Plan,
    targets::Target,
};

/// The journal with the memory of its failure.
#[derive(Debug)]
pub(super) struct Ledger {
    journal: Journal,
    failure: Option<String>,
}

impl Ledger {
    pub fn new(journal: Journal) -> Self {
        Self { journal, failure: None }
    }

    pub fn failure(&self) -> Option<&String> {
        self.failure.as_ref()
    }

    /// Commits intent, plan and inverse. `Err` = they are not on disk, and nothing may be done.
    pub fn decision(&mut self, decision: &Decision, plan: &Plan, first: Stage, detail: &str) -> Result<(), String> {
        let result = self.journal.record_decision(decision, plan, first, detail);
        self.keep(result)
    }

    /// `Err` = the stage is not on disk; where the stage comes before an act, the act may not be done.
    pub fn stage(&mut self, id: &str, stage: Stage, detail: &str, unix_ms: u64) -> Result<(), String> {
        let result = self.journal.record_stage(id, stage, detail, unix_ms);
        self.keep(result)
    }

    pub fn verdict(&mut self, deployment: &str, unix_ms: u64, verdict: &Verdict) -> Result<(), String> {
        let result = self.journal.record_verdict(deployment, unix_ms, verdict);
        self.keep(result)
    }

    pub fn mark_acted(&mut self, decision: &Decision, targets: &[Target]) -> Result<(), String> {
        let result = self.journal.mark_acted(decision, targets);
        self.keep(result)
    }

    /// What was done to a deployment: the decision against this very canary, and the times of all actions since.
    pub fn done(&mut self, deployment: &str, canary: &[Target], since: u64) -> Option<(Option<String>, Vec<u64>)> {
        let read = || -> anyhow::Result<_> {
            let times = self.journal.actions_since(deployment, since)?.into_iter().map(|(_, at)| at).collect();
            Ok((self.journal.acted_on(deployment, canary)?, times))
        };
        let result = read();
        self.keep(result).ok()
    }

    pub fn unfinished(&self) -> anyhow::Result<Vec<(Decision, Stage, Plan)>> {
        self.journal.unfinished()
    }

    fn keep<T>(&mut self, result: anyhow::Result<T>) -> Result<T, String> {
        result.map_err(|e| {
            let why = format!("{e:#}");
            tracing::error!("{why}; no action is begun any more until the guard is started again");
            self.failure.get_or_insert_with(|| why.clone());
            why
        })
    }
}
