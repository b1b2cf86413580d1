//! What happened so far, in memory and within bounds: windows for charts, changes of verdict, decisions with their lives.
//!
//! Goes in: every Snapshot and every entry of the journal, on the line. Comes out: copies of them for whoever asks, and
//! [`News`] for those who listen. Listeners that lag lose the oldest; nobody is waited for.

mod absence;
mod series;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::broadcast;

use self::{absence::Absences, series::Series};
use super::{
    Snapshot,
    api::{DecisionLife, State, VerdictChange, WindowPoint},
    report::Evidence,
};
use crate::{
    guard::{Decision, Entry},
    journal::{HistoryEntry, Journal, StageEntry, VerdictEntry},
    judge::Outcome,
};

/// Windows that are kept of each deployment: an hour of 1 s. Each takes about 330 bytes, so about 1.2 MB a deployment.
pub const WINDOWS_KEPT: usize = 3600;
/// Changes of verdict that are kept, over all deployments.
pub const VERDICTS_KEPT: usize = 200;
/// Decisions that are kept, over all deployments.
pub const DECISIONS_KEPT: usize = 100;
/// States that are kept, about 10 KB a deployment and window each. A decision is told once its orchestrator has said what it
/// would do: some windows after the one that it was made on.
const STATES_KEPT: usize = 64;
/// News that a listener may lag behind.
const NEWS_WAITING: usize = 256;

/// Something that people want to be told of.
#[derive(Clone, Debug)]
pub enum News {
    Verdict(Arc<VerdictChange>),
    /// A decision that came to a new stage: its last one.
    Decision(Arc<DecisionLife>),
    /// A condemned canary has been away for minutes, whoever took it away; its verdict stays as it is.
    Gone {
        deployment: Arc<str>,
        unix_ms: u64,
    },
}

/// The handle; clones share what they know.
#[derive(Clone, Debug)]
pub struct Board {
    known: Arc<Mutex<Known>>,
    news: broadcast::Sender<News>,
}

#[derive(Debug, Default)]
struct Known {
    series: BTreeMap<Arc<str>, Series>,
    /// Oldest first.
    verdicts: VecDeque<Arc<VerdictChange>>,
    /// Oldest first.
    decisions: VecDeque<Arc<DecisionLife>>,
    /// The latest states, oldest first.
    states: VecDeque<Arc<State>>,
    /// By the decision's id, oldest first: the state that it was made on, without windows.
    made_on: VecDeque<(String, Arc<Evidence>)>,
    /// The outcome of each deployment in this life of the guard.
    outcomes: BTreeMap<String, Outcome>,
    absences: Absences,
}

impl Default for Board {
    fn default() -> Self {
        Self { known: Arc::default(), news: broadcast::channel(NEWS_WAITING).0 }
    }
}

impl Board {
    /// With what the journal remembers from before.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    pub fn remembering(journal: &Journal) -> anyhow::Result<Self> {
        let board = Self::default();
        {
            let mut known = board.lock();
            for entry in journal.verdicts(VERDICTS_KEPT)?.into_iter().rev() {
                let before = known.verdicts.iter().rev().find(|v| v.deployment == entry.deployment);
                let before = before.map(|v| v.verdict.outcome);
                known.verdicts.push_back(Arc::new(VerdictChange::new(entry, before)));
            }
            known.decisions = journal.history(DECISIONS_KEPT)?.into_iter().rev().map(|e| Arc::new(e.into())).collect();
        }
        Ok(board)
    }

    /// Hears of everything from now on.
    pub fn listen(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }

    /// Keeps one window of each deployment, and tells those who listen of canaries that are gone.
    pub fn record(&self, snapshot: &Snapshot) {
        let state = Arc::new(State::from(snapshot));
        let mut known = self.lock();
        push(&mut known.states, state, STATES_KEPT);
        known.series.retain(|name, _| snapshot.deployments.contains_key(name));
        for (name, view) in &snapshot.deployments {
            known.series.entry(name.clone()).or_default().push(snapshot, view);
        }
        for deployment in known.absences.observe(snapshot) {
            // Nobody has to listen.
            let _ = self.news.send(News::Gone { deployment, unix_ms: snapshot.unix_ms });
        }
    }

    /// Keeps an entry of the journal, and tells those who listen.
    pub fn tell(&self, entry: Entry) {
        let news = self.lock().take(entry);
        // Nobody has to listen.
        let _ = news.map(|news| self.news.send(news));
    }

    /// The latest changes of verdict, newest first.
    pub fn verdicts(&self, deployment: Option<&str>, limit: usize) -> Vec<Arc<VerdictChange>> {
        let known = self.lock();
        let wanted = |v: &&Arc<VerdictChange>| deployment.is_none_or(|d| v.deployment == d);
        known.verdicts.iter().rev().filter(wanted).take(limit).cloned().collect()
    }

    /// The latest decisions, newest first.
    pub fn decisions(&self, deployment: Option<&str>, limit: usize) -> Vec<Arc<DecisionLife>> {
        let known = self.lock();
        let wanted = |d: &&Arc<DecisionLife>| deployment.is_none_or(|name| &*d.decision.deployment == name);
        known.decisions.iter().rev().filter(wanted).take(limit).cloned().collect()
    }

    pub fn decision(&self, id: &str) -> Option<Arc<DecisionLife>> {
        self.lock().decisions.iter().rev().find(|d| d.decision.id == id).cloned()
    }

    /// The state that a decision was made on, without windows; `None` where it was made in an earlier life of the guard.
    pub fn made_on(&self, id: &str) -> Option<Arc<Evidence>> {
        self.lock().made_on.iter().rev().find(|(of, _)| of == id).map(|(_, made)| made.clone())
    }

    /// Windows of a deployment from index `since` on, oldest first, the newest `limit` of them; `None` = it is not known.
    pub fn windows(&self, deployment: &str, since: u64, limit: usize) -> Option<Vec<WindowPoint>> {
        self.lock().series.get(deployment).map(|series| series.since(since, limit))
    }

    // What is kept is whole after every statement: a panic elsewhere leaves it usable.
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// The state in the window of a decision; where that is kept no more, the oldest one after it.
    fn state_at(&self, decision: &Decision) -> Option<Evidence> {
        let name = &decision.deployment;
        let reached = |state: &&Arc<State>| state.deployment(name).is_some_and(|d| d.window >= decision.window);
        Evidence::at(self.states.iter().find(reached)?, name)
    }

    fn take(&mut self, entry: Entry) -> Option<News> {
        match entry {
            Entry::Verdict { deployment, unix_ms, verdict } => {
                let before = self.outcomes.insert(deployment.clone(), verdict.outcome);
                let change = Arc::new(VerdictChange::new(VerdictEntry { deployment, unix_ms, verdict }, before));
                push(&mut self.verdicts, change.clone(), VERDICTS_KEPT);
                Some(News::Verdict(change))
            }
            Entry::Decided { decision, plan, stage, detail } => {
                if let Some(made) = self.state_at(&decision) {
                    push(&mut self.made_on, (decision.id.clone(), Arc::new(made)), DECISIONS_KEPT);
                }
                let stages = vec![StageEntry { stage, detail, unix_ms: decision.unix_ms }];
                let life = Arc::new(DecisionLife { decision, plan, stages });
                push(&mut self.decisions, life.clone(), DECISIONS_KEPT);
                Some(News::Decision(life))
            }
            Entry::PlannedAnew { decision, plan } => {
                let life = self.decisions.iter_mut().rev().find(|d| d.decision.id == decision.id)?;
                let life = Arc::make_mut(life);
                (life.decision, life.plan) = (decision, plan);
                // Told with the stage that follows.
                None
            }
            Entry::Stage { decision_id, stage, detail, unix_ms } => {
                let life = self.decisions.iter_mut().rev().find(|d| d.decision.id == decision_id)?;
                Arc::make_mut(life).stages.push(StageEntry { stage, detail, unix_ms });
                Some(News::Decision(life.clone()))
            }
        }
    }
}

fn push<T>(kept: &mut VecDeque<T>, new: T, most: usize) {
    if kept.len() >= most {
        kept.pop_front();
    }
    kept.push_back(new);
}

impl From<HistoryEntry> for DecisionLife {
    fn from(entry: HistoryEntry) -> Self {
        let HistoryEntry { decision, plan, stages } = entry;
        Self { decision, plan, stages }
    }
}
