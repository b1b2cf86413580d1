//! The types of the versioned API, `/api/v1`: what the server writes, `canary top` reads and the OpenAPI document is made
//! from. What was not measured is null. Times: `unix_ms` wall clock, `t_ns` CLOCK_MONOTONIC.
//!
//! Within version 1 fields are only added.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{DecisionView, DeploymentView, Snapshot};
use crate::{
    guard::{Decision, Mode, Stage},
    journal::{StageEntry, VerdictEntry},
    judge::{Outcome, Verdict},
    orchestrator::Plan,
    targets::Role,
    telemetry::{Machine, OwnCost, Quality, Sample},
    window::Indicator,
};

/// Everything after the latest window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct State {
    /// Counts up by one per window, from 1; 0 before the first.
    pub sequence: u64,
    pub t_ns: u64,
    pub unix_ms: u64,
    /// Length of the window.
    pub span_ns: u64,
    /// Why no action is begun on any deployment at present; null where the guard is not paused as a whole.
    pub paused: Option<String>,
    pub machine: Option<Machine>,
    /// What the guard itself cost since its start.
    pub own: Option<OwnCost>,
    pub quality: Quality,
    /// By name.
    pub deployments: Vec<Deployment>,
}

/// One deployment after the latest window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Deployment {
    #[schema(value_type = String)]
    pub name: Arc<str>,
    pub mode: Mode,
    /// Why no action is begun on this deployment alone; null where it is not paused by itself.
    pub paused: Option<String>,
    /// Index of the window, from 0.
    pub window: u64,
    /// Whether the sensor lost nothing in it, and the machine did not sleep.
    pub clean: bool,
    /// Stable first.
    pub versions: Vec<Version>,
    pub verdict: Verdict,
    /// The latest decision with where it stands, but for holds.
    pub decision: Option<DecisionState>,
    /// The latest hold of its rollout, which a person asked for, with where it stands; null where it is over, and no canary of the
    /// version that was held is there.
    #[serde(default)]
    pub hold: Option<DecisionState>,
}

/// A decision with where it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DecisionState {
    pub decision: Decision,
    pub stage: Stage,
    /// What happened at that stage, in words.
    pub detail: String,
    /// CLOCK_MONOTONIC of the last change of stage.
    pub t_ns: u64,
}

/// What one version uses, over all its instances. A sum that lacks an instance is null as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    pub role: Role,
    #[schema(value_type = String)]
    pub version: Arc<str>,
    /// Instances that were sampled and have a process.
    pub instances: usize,
    /// CPUs in use: 1.5 is one and a half.
    pub cpu_usage: Option<f64>,
    pub memory_bytes: Option<u64>,
    pub rx_bytes_per_second: Option<f64>,
    pub tx_bytes_per_second: Option<f64>,
}

/// A change of verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VerdictChange {
    pub deployment: String,
    pub unix_ms: u64,
    /// The outcome before it; null where none is known.
    pub before: Option<Outcome>,
    pub verdict: Verdict,
}

/// A decision with its plan and its whole life, oldest stage first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DecisionLife {
    pub decision: Decision,
    pub plan: Plan,
    pub stages: Vec<StageEntry>,
}

/// Windows of one deployment, oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Windows {
    pub deployment: String,
    /// How many windows are kept at most; older ones are dropped.
    pub kept: usize,
    /// Ask with `since` set to this for what comes after.
    pub next: u64,
    pub windows: Vec<WindowPoint>,
}

/// One window of one deployment, in numbers. Their precision is that of a 32-bit float.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WindowPoint {
    /// Index of the window, from 0.
    pub window: u64,
    pub t_ns: u64,
    pub unix_ms: u64,
    pub clean: bool,
    pub outcome: Outcome,
    /// P(t) of stable and canary: the mean share of the allowed change that the indicators use.
    pub p_stable: Option<f32>,
    pub p_canary: Option<f32>,
    /// Natural logarithm of the evidence, and of what is needed to call the canary worse.
    pub evidence_ln: Option<f32>,
    pub threshold_ln: Option<f32>,
    /// By name; an indicator without any number is left out.
    pub indicators: BTreeMap<String, IndicatorPoint>,
}

/// One indicator in one window: nanoseconds, bytes or a share; differences as a ratio minus one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct IndicatorPoint {
    pub stable: Option<f32>,
    pub canary: Option<f32>,
    pub effect: Option<f32>,
    pub effect_low: Option<f32>,
    pub effect_high: Option<f32>,
    pub margin: Option<f32>,
}

/// What a person should do about a deployment now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NextStep {
    pub deployment: String,
    /// In a sentence.
    pub what: String,
    /// Empty where there is no more to say.
    pub why: String,
    /// That do it, ready to be typed.
    pub commands: Vec<String>,
}

/// The data of the server-sent event `window`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WindowEvent {
    pub sequence: u64,
    pub unix_ms: u64,
    /// By name of the deployment.
    pub deployments: BTreeMap<String, Brief>,
}

/// A deployment in one line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Brief {
    pub window: u64,
    pub outcome: Outcome,
    pub p_stable: Option<f64>,
    pub p_canary: Option<f64>,
    /// Progress of the evidence towards the threshold, 0 to 1.
    pub evidence_share: Option<f64>,
}

impl From<&Snapshot> for State {
    fn from(snapshot: &Snapshot) -> Self {
        let seconds = snapshot.span_ns as f64 / 1e9;
        let deployments = snapshot.deployments.iter().map(|(name, view)| deployment(name, view, seconds)).collect();
        Self {
            sequence: snapshot.sequence,
            t_ns: snapshot.t_ns,
            unix_ms: snapshot.unix_ms,
            span_ns: snapshot.span_ns,
            paused: snapshot.paused.clone(),
            machine: snapshot.machine,
            own: snapshot.own.clone(),
            quality: snapshot.quality.clone(),
            deployments,
        }
    }
}

impl From<&Snapshot> for WindowEvent {
    fn from(snapshot: &Snapshot) -> Self {
        let brief = |view: &DeploymentView| {
            let verdict = &view.verdict;
            let share = verdict.evidence_share();
            Brief {
                window: view.window.index,
                outcome: verdict.outcome,
                p_stable: verdict.p_stable,
                p_canary: verdict.p_canary,
                evidence_share: share.is_finite().then_some(share),
            }
        };
        let deployments = snapshot.deployments.iter().map(|(name, view)| (name.to_string(), brief(view))).collect();
        Self { sequence: snapshot.sequence, unix_ms: snapshot.unix_ms, deployments }
    }
}

impl State {
    pub fn deployment(&self, name: &str) -> Option<&Deployment> {
        self.deployments.iter().find(|d| &*d.name == name)
    }
}

fn deployment(name: &Arc<str>, view: &DeploymentView, seconds: f64) -> Deployment {
    let mut versions: BTreeMap<(Role, &Arc<str>), Vec<&Sample>> = BTreeMap::new();
    for sample in &view.samples {
        versions.entry((sample.target.role, &sample.target.version)).or_default().push(sample);
    }
    let hold = view.hold.as_ref().filter(|hold| hold.is_of_interest(view.samples.iter().map(|s| &s.target)));
    Deployment {
        name: name.clone(),
        mode: view.mode,
        paused: view.paused.clone(),
        window: view.window.index,
        clean: view.window.clean,
        versions: versions.into_iter().map(|((role, name), s)| version(role, name, &s, seconds)).collect(),
        verdict: view.verdict.clone(),
        decision: view.decision.as_ref().map(DecisionState::from),
        hold: hold.map(DecisionState::from),
    }
}

impl Deployment {
    /// The hold, while it is not over or nothing was done since.
    pub fn held(&self) -> Option<&DecisionState> {
        let is_latest = |hold: &DecisionState| self.decision.as_ref().is_none_or(|other| other.t_ns <= hold.t_ns);
        self.hold.as_ref().filter(|hold| hold.stage.is_open() || is_latest(hold))
    }
}

impl From<&DecisionView> for DecisionState {
    fn from(view: &DecisionView) -> Self {
        let DecisionView { decision, stage, detail, t_ns } = view.clone();
        Self { decision, stage, detail, t_ns }
    }
}

fn version(role: Role, name: &Arc<str>, samples: &[&Sample], seconds: f64) -> Version {
    let sum = |read: fn(&Sample) -> Option<u64>| samples.iter().map(|s| read(s)).sum::<Option<u64>>();
    let rate = |count: Option<u64>, per: f64| count.map(|n| n as f64 / per / seconds).filter(|n| n.is_finite());
    Version {
        role,
        version: name.clone(),
        instances: samples.iter().filter(|s| s.populated != Some(false)).count(),
        cpu_usage: rate(sum(|s| s.cpu.as_ref().map(|c| c.on_cpu_ns).or(s.kernel_cpu_usec.map(|u| u * 1000))), 1e9),
        memory_bytes: sum(|s| s.memory.as_ref().map(|m| m.in_use_bytes)),
        rx_bytes_per_second: rate(sum(|s| s.network.as_ref().map(|n| n.rx_bytes)), 1.0),
        tx_bytes_per_second: rate(sum(|s| s.network.as_ref().map(|n| n.tx_bytes)), 1.0),
    }
}

impl VerdictChange {
    pub fn new(entry: VerdictEntry, before: Option<Outcome>) -> Self {
        let VerdictEntry { deployment, unix_ms, verdict } = entry;
        Self { deployment, unix_ms, before, verdict }
    }
}

impl WindowPoint {
    pub fn indicator(&self, indicator: Indicator) -> IndicatorPoint {
        self.indicators.get(indicator.name()).copied().unwrap_or_default()
    }
}

impl DecisionLife {
    /// The stage that it is in.
    pub fn stage(&self) -> Option<Stage> {
        self.stages.last().map(|s| s.stage)
    }
}
