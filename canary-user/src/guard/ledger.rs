//! The journal as the loop uses it: once a write has failed, nothing is begun any more. What is written is told to
//! watchers right after it.

use std::time::Duration;

use crate::{
    control::Command,
    guard::{Decision, FirstSeen, Moment, Pause, Stage},
    journal::{HistoryEntry, Journal, OnRecord},
    judge::{KeptControl, Learned, Verdict},
    orchestrator::Plan,
    targets::Target,
};

/// What went into the journal, or should have: what happened has happened, recorded or not.
#[derive(Clone, Debug)]
pub enum Entry {
    Decided { decision: Decision, plan: Plan, stage: Stage, detail: String },
    PlannedAnew { decision: Decision, plan: Plan },
    Stage { decision_id: String, stage: Stage, detail: String, unix_ms: u64 },
    Verdict { deployment: String, unix_ms: u64, verdict: Verdict },
}

/// What is on record of a deployment from earlier lives of the guard.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// No lower than how many decisions there ever were.
    pub decisions: u64,
    /// Canary instances that no person let the guard act on.
    pub declined: Vec<Target>,
    /// Those that an orchestrator was called for.
    pub begun: Vec<Target>,
    /// Actions that were taken back, by a person or by who brought the canary back.
    pub wanted: Vec<HistoryEntry>,
    /// Since when the canary is seen.
    pub seen: Vec<FirstSeen>,
    /// How long ago it was condemned the last time.
    pub condemned_ago: Option<Duration>,
}

/// Between two times that what is old is forgotten.
const FORGET: Duration = Duration::from_secs(3600);

/// Called with every entry, on the line: it must not block.
pub type OnEntry = Box<dyn FnMut(Entry) + Send>;

/// The journal with the memory of its failure.
pub(super) struct Ledger {
    journal: Journal,
    failure: Option<String>,
    forgot: Option<Moment>,
    on_entry: Option<OnEntry>,
}

impl Ledger {
    pub fn new(journal: Journal, on_entry: Option<OnEntry>) -> Self {
        Self { journal, failure: None, forgot: None, on_entry }
    }

    pub fn failure(&self) -> Option<&String> {
        self.failure.as_ref()
    }

    /// Commits intent, plan and inverse. `Err` = they are not on disk, and nothing may be done.
    pub fn decision(
        &mut self,
        decision: &Decision,
        plan: &Plan,
        first: Stage,
        detail: &str,
        at: Moment,
    ) -> Result<(), String> {
        let result = self.journal.record_decision(decision, plan, first, detail, at);
        self.tell(|| {
            let (decision, plan, detail) = (decision.clone(), plan.clone(), detail.to_owned());
            Entry::Decided { decision, plan, stage: first, detail }
        });
        self.keep(result)
    }

    /// Puts another plan, and the canary as it is now, in the place of those that a decision was recorded with. `Err` = they are
    /// not on disk, and nothing may be done.
    pub fn planned_anew(&mut self, decision: &Decision, plan: &Plan) -> Result<(), String> {
        let result = self.journal.plan_anew(decision, plan);
        self.tell(|| Entry::PlannedAnew { decision: decision.clone(), plan: plan.clone() });
        self.keep(result)
    }

    /// `Err` = the stage is not on disk; where the stage comes before an act, the act may not be done.
    pub fn stage(&mut self, id: &str, stage: Stage, detail: &str, at: Moment) -> Result<(), String> {
        let result = self.journal.record_stage(id, stage, detail, at);
        self.tell(|| Entry::Stage {
            decision_id: id.to_owned(),
            stage,
            detail: detail.to_owned(),
            unix_ms: at.unix_ms,
        });
        self.keep(result)
    }

    pub fn verdict(&mut self, deployment: &str, unix_ms: u64, verdict: &Verdict) -> Result<(), String> {
        let result = self.journal.record_verdict(deployment, unix_ms, verdict);
        self.tell(|| Entry::Verdict { deployment: deployment.to_owned(), unix_ms, verdict: verdict.clone() });
        self.keep(result)
    }

    /// What stable instances taught about the service.
    pub fn learned(&mut self, deployment: &str, unix_ms: u64, learned: &Learned) -> Result<(), String> {
        let result = self.journal.record_learned(deployment, learned, unix_ms);
        self.keep(result)
    }

    /// How far stable has been held against what it was before a promotion; `at` is the end of the last window in it.
    pub fn control(&mut self, deployment: &str, control: &KeptControl, at: Moment, span_ns: u64) -> Result<(), String> {
        let result = self.journal.record_control(deployment, control, at, span_ns);
        self.keep(result)
    }

    pub fn end_control(&mut self, deployment: &str) -> Result<(), String> {
        let result = self.journal.end_control(deployment);
        self.keep(result)
    }

    /// What an earlier life left of that; `Err` = it cannot be used, in words.
    pub fn control_left(&self, deployment: &str) -> anyhow::Result<Option<OnRecord>> {
        self.journal.control(deployment)
    }

    /// Since when the canary's instances are seen.
    pub fn seen(&mut self, deployment: &str, instances: &[FirstSeen]) -> Result<(), String> {
        let result = self.journal.record_seen(deployment, instances);
        self.keep(result)
    }

    pub fn mark_acted(&mut self, decision: &Decision, targets: &[Target]) -> Result<(), String> {
        let result = self.journal.mark_acted(decision, targets);
        self.keep(result)
    }

    /// What was done to a deployment: the decision against this very canary, and how long ago each action within `span` was.
    pub fn done(
        &mut self,
        deployment: &str,
        canary: &[Target],
        now: Moment,
        span: Duration,
    ) -> Option<(Option<String>, Vec<Duration>)> {
        let read = || -> anyhow::Result<_> {
            Ok((self.journal.acted_on(deployment, canary)?, self.journal.action_ages(deployment, now, span)?))
        };
        let result = read();
        self.keep(result).ok()
    }

    pub fn pauses(&self, now: Moment) -> anyhow::Result<Vec<Pause>> {
        self.journal.pauses(now)
    }

    /// `Err` = the pause holds for as long as this guard lives, and not after its next start.
    pub fn pause(&mut self, pause: &Pause) -> Result<(), String> {
        let result = self.journal.record_pause(pause);
        self.keep(result)
    }

    pub fn end_pause(&mut self, deployment: Option<&str>) -> Result<(), String> {
        let result = self.journal.end_pause(deployment);
        self.keep(result)
    }

    pub fn command(
        &mut self,
        command: &Command,
        by: &str,
        answer: Result<&str, &str>,
        unix_ms: u64,
    ) -> Result<(), String> {
        let result = self.journal.record_command(command, by, answer, unix_ms);
        self.keep(result)
    }

    /// What there is on a deployment already.
    pub fn past(&self, deployment: &str, now: Moment) -> anyhow::Result<Past> {
        let condemned_ms = self.journal.last_condemned_unix_ms(deployment)?;
        Ok(Past {
            decisions: self.journal.latest_number()?,
            declined: self.journal.canaries_with(deployment, Stage::Declined)?,
            begun: self.journal.canaries_with(deployment, Stage::Applying)?,
            wanted: self.journal.wanted(deployment)?,
            seen: self.journal.seen(deployment)?,
            condemned_ago: condemned_ms.map(|then| Duration::from_millis(now.unix_ms.saturating_sub(then))),
        })
    }

    /// `now` is `before`, come back from its own end: what was begun against the one was begun against the other.
    pub fn came_back(&mut self, before: &Target, now: &Target) -> Result<(), String> {
        let result = self.journal.came_back(before, now);
        self.keep(result)
    }

    /// The verdict that a decision was made on.
    pub fn condemnation(&self, decision: &Decision) -> anyhow::Result<Option<Verdict>> {
        self.journal.condemnation(decision)
    }

    /// A decision with its whole life.
    pub fn entry(&self, id: &str) -> anyhow::Result<Option<HistoryEntry>> {
        self.journal.entry(id)
    }

    pub fn unfinished(&self) -> anyhow::Result<Vec<HistoryEntry>> {
        self.journal.unfinished()
    }

    /// Forgets what is old, from time to time.
    pub fn forget(&mut self, now: Moment) {
        if self.forgot.is_some_and(|then| now.t_ns < then.after(FORGET).t_ns) {
            return;
        }
        self.forgot = Some(now);
        // What cannot be forgotten takes room, and says nothing of what is written.
        if let Err(e) = self.journal.forget(now.unix_ms) {
            tracing::warn!("{e:#}");
        }
    }

    fn tell(&mut self, entry: impl FnOnce() -> Entry) {
        if let Some(on_entry) = &mut self.on_entry {
            on_entry(entry());
        }
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
