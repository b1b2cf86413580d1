//! What the view remembers between Snapshots: P(t) over time, the names of the versions, the latest state.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    guard::Mode,
    judge::Verdict,
    targets::Role,
    watch::{
        api::{DecisionState, Deployment, State},
        html::answers::has_gone,
        plain::caution,
    },
};

/// More windows than any terminal has columns for.
const HISTORY: usize = 512;

/// P(t) of both roles in one window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Its index.
    pub window: u64,
    pub stable: Option<f64>,
    pub canary: Option<f64>,
}

/// One role of the shown deployment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Side {
    /// Versions, joined; stays when the instances are gone.
    pub versions: String,
    /// Instances that were sampled in the latest tick.
    pub instances: usize,
}

/// The shown deployment after the latest tick.
#[derive(Clone, Debug)]
pub struct Shown {
    pub name: Arc<str>,
    pub mode: Mode,
    pub verdict: Verdict,
    pub decision: Option<DecisionState>,
    /// While it is not over, or the latest.
    pub hold: Option<DecisionState>,
    pub stable: Side,
    pub canary: Side,
    /// Wall clock of the latest window with a reading of the canary, or of the first that was seen.
    pub canary_read_unix_ms: u64,
    /// Whether the condemned canary is gone, by what was seen here.
    pub is_gone: bool,
    pub history: VecDeque<Point>,
}

#[derive(Debug)]
pub struct Model {
    pub title: String,
    pub footer: Vec<String>,
    /// Name and verdict of each deployment that is not shown.
    pub others: Vec<String>,
    /// What is wrong with the data of the latest tick.
    pub caution: Option<String>,
    pub shown: Option<Shown>,
    wanted: Option<String>,
    started_ns: Option<u64>,
    now_ns: u64,
}

impl Model {
    pub fn new(title: impl Into<String>, deployment: Option<String>) -> Self {
        Self {
            title: title.into(),
            footer: Vec::new(),
            others: Vec::new(),
            caution: None,
            shown: None,
            wanted: deployment,
            started_ns: None,
            now_ns: 0,
        }
    }

    pub fn set_footer(&mut self, footer: Vec<String>) {
        self.footer = footer;
    }

    /// Time since the beginning of the first tick.
    pub fn elapsed_ns(&self) -> u64 {
        self.now_ns.saturating_sub(self.started_ns.unwrap_or(self.now_ns))
    }

    /// Shows this deployment from now on; `None` = the one with most evidence.
    pub fn want(&mut self, deployment: Option<String>) {
        self.wanted = deployment;
    }

    pub fn wanted(&self) -> Option<&str> {
        self.wanted.as_deref()
    }

    /// Puts the course of P(t), oldest first, in place of what was seen window by window; it began at `since_ns`.
    pub fn set_history(&mut self, since_ns: Option<u64>, points: impl IntoIterator<Item = Point>) {
        self.started_ns = since_ns.or(self.started_ns);
        if let Some(shown) = &mut self.shown {
            shown.history = points.into_iter().collect();
        }
    }

    pub fn update(&mut self, state: &State) {
        self.now_ns = state.t_ns;
        self.started_ns.get_or_insert(state.t_ns.saturating_sub(state.span_ns));
        self.caution = caution(&state.quality);
        let Some(deployment) = self.choose(state) else {
            self.others.clear();
            self.shown = None;
            return;
        };
        let others = state.deployments.iter().filter(|d| d.name != deployment.name);
        self.others = others.map(|d| format!("{} {}", d.name, d.verdict.outcome.name())).collect();
        let before = self.shown.take().filter(|s| s.name == deployment.name);
        self.shown = Some(Shown::after(deployment, before, state.unix_ms));
    }

    /// The deployment that is wanted, else the one with most evidence. A decision under way keeps its place.
    fn choose<'a>(&self, state: &'a State) -> Option<&'a Deployment> {
        if let Some(wanted) = &self.wanted {
            return state.deployment(wanted);
        }
        let current = self.shown.as_ref().and_then(|s| state.deployment(&s.name));
        let strongest = state.deployments.iter().max_by(|a, b| a.verdict.evidence_ln.total_cmp(&b.verdict.evidence_ln));
        match (current, strongest) {
            // Half as much again on a log scale, or the view would flip between two quiet deployments.
            (Some(c), Some(s)) if !clearly_stronger(&s.verdict, &c.verdict) => Some(c),
            (_, s) => s,
        }
    }
}

fn clearly_stronger(a: &Verdict, b: &Verdict) -> bool {
    a.evidence_share() > b.evidence_share() + 0.25
}

impl Shown {
    fn after(now: &Deployment, before: Option<Shown>, unix_ms: u64) -> Self {
        let has_reading = now.verdict.indicators.iter().any(|i| i.canary.is_some());
        let read_before = before.as_ref().filter(|_| !has_reading).map(|before| before.canary_read_unix_ms);
        let canary_read_unix_ms = read_before.unwrap_or(unix_ms);
        let (stable, canary, mut history) = before.map_or_else(Default::default, |b| (b.stable, b.canary, b.history));
        history.push_back(Point { window: now.window, stable: now.verdict.p_stable, canary: now.verdict.p_canary });
        if history.len() > HISTORY {
            history.pop_front();
        }
        // A view that came late has never seen a canary that is gone; its decision has.
        let decided = now.decision.as_ref().and_then(|d| d.decision.canary.first());
        let gone = Side { versions: decided.map_or_else(String::new, |t| t.version.to_string()), instances: 0 };
        let canary = if canary.versions.is_empty() { gone } else { canary };
        Self {
            name: now.name.clone(),
            mode: now.mode,
            verdict: now.verdict.clone(),
            decision: now.decision.clone(),
            hold: now.held().cloned(),
            stable: side(now, Role::Stable, stable),
            canary: side(now, Role::Canary, canary),
            canary_read_unix_ms,
            is_gone: has_gone(now, || Some(unix_ms.saturating_sub(canary_read_unix_ms))),
            history,
        }
    }
}

fn side(deployment: &Deployment, role: Role, before: Side) -> Side {
    let running = deployment.versions.iter().filter(|v| v.role == role && v.instances > 0);
    let versions: Vec<&str> = running.clone().map(|v| &*v.version).collect();
    let versions = if versions.is_empty() { before.versions } else { versions.join("+") };
    Side { versions, instances: running.map(|v| v.instances).sum() }
}
