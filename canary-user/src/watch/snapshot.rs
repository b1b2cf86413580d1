//! The state of everything after one tick, as watchers see it.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    guard::{Advice, Decision, Mode, Stage},
    judge::Verdict,
    targets::Target,
    telemetry::{Machine, OwnCost, Quality, Sample},
    window::Window,
};

/// What watchers see after one tick.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// Counts up by one per tick; watchers that lag see gaps.
    pub sequence: u64,
    pub t_ns: u64,
    pub unix_ms: u64,
    pub span_ns: u64,
    pub machine: Option<Machine>,
    /// What the guard itself cost until now.
    pub own: Option<OwnCost>,
    pub quality: Quality,
    /// Why no action is begun at present, in words; `None` = the guard is not paused.
    pub paused: Option<String>,
    /// Why the journal cannot be relied on, so that nothing is done any more; `None` = it can.
    #[serde(default)]
    pub journal_failure: Option<String>,
    pub deployments: BTreeMap<Arc<str>, DeploymentView>,
}

/// One deployment after one tick.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeploymentView {
    pub mode: Mode,
    /// Why no action is begun on this deployment alone; `None` = it is not paused by itself.
    pub paused: Option<String>,
    /// Whether this guard is the one that acts, as far as it knows: it acts alone, or holds the lead.
    #[serde(default)]
    pub leads: bool,
    pub window: Window,
    pub verdict: Verdict,
    /// This tick's raw counts, all targets of the deployment.
    pub samples: Vec<Sample>,
    /// The latest decision with where it stands, but for holds.
    pub decision: Option<DecisionView>,
    /// The latest hold of its rollout with where it stands: it stands beside what is done to the canary.
    #[serde(default)]
    pub hold: Option<DecisionView>,
    /// What others who carry the rollout out are told.
    pub advice: Advice,
}

/// A decision with where it stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DecisionView {
    pub decision: Decision,
    pub stage: Stage,
    /// What happened at that stage, in words.
    pub detail: String,
    /// CLOCK_MONOTONIC of the last change of stage.
    pub t_ns: u64,
}

impl DecisionView {
    /// Whether a hold matters still: it is under way or watched, or one of these is of the version whose rollout was held. What
    /// became of an earlier one nobody looks for any more.
    pub fn is_of_interest<'a>(&self, mut there: impl Iterator<Item = &'a Target>) -> bool {
        self.stage.is_open() || there.any(|now| self.decision.canary.iter().any(|then| then.is_same_version(now)))
    }
}
