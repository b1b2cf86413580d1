//! How things stand, for `canary status`: each deployment with its verdict, pause, decision, and the gates that block.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    guard::{Action, GateResult, Mode, Pause, Stage},
    judge::Outcome,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Version of the guard.
    pub version: String,
    pub pid: u32,
    /// Wall clock of the latest window.
    pub unix_ms: u64,
    /// Length of the latest window.
    pub span_ns: u64,
    /// Why nothing is done to any canary; `None` = not paused as a whole.
    pub paused: Option<String>,
    /// Why the journal cannot be relied on.
    pub journal_failure: Option<String>,
    pub deployments: Vec<DeploymentStatus>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeploymentStatus {
    #[schema(value_type = String)]
    pub name: Arc<str>,
    pub mode: Mode,
    /// Name of the backend.
    pub orchestrator: String,
    /// Instances that were counted in the latest window and have a process.
    pub stable_instances: usize,
    pub canary_instances: usize,
    pub verdict: Outcome,
    /// Why the verdict is what it is, the most important first.
    pub reasons: Vec<String>,
    pub p_stable: Option<f64>,
    pub p_canary: Option<f64>,
    /// Natural logarithm of the evidence, and of what is needed to call the canary worse.
    pub evidence_ln: Option<f64>,
    pub threshold_ln: f64,
    /// The pause of this deployment alone.
    pub paused: Option<Pause>,
    /// Every gate that would keep the guard from acting now, in the order of asking.
    pub blocked_by: Vec<GateResult>,
    /// The latest but for holds.
    pub decision: Option<DecisionStatus>,
    /// The latest hold of its rollout; null where it is over, and no canary of the version that was held is there.
    #[serde(default)]
    pub hold: Option<DecisionStatus>,
}

/// A decision with where it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DecisionStatus {
    pub id: String,
    pub unix_ms: u64,
    pub action: Action,
    pub reason: String,
    pub stage: Stage,
    pub detail: String,
}
