//! What the view remembers between Snapshots: P(t) over time, the names of the versions, the latest state.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    guard::Mode,
    judge::Verdict,
    targets::Role,
    watch::{DecisionView, DeploymentView, Snapshot, plain::caution},
};

/// More windows than any terminal has columns for.
const HISTORY: usize = 512;

/// P(t) of both roles in one window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
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
    pub decision: Option<DecisionView>,
    pub stable: Side,
    pub canary: Side,
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

    pub fn update(&mut self, snapshot: &Snapshot) {
        self.now_ns = snapshot.t_ns;
        self.started_ns.get_or_insert(snapshot.t_ns.saturating_sub(snapshot.span_ns));
        self.caution = caution(snapshot);
        let Some((name, view)) = self.choose(snapshot) else {
            self.others.clear();
            return;
        };
        self.others = snapshot
            .deployments
            .iter()
            .filter(|(other, _)| **other != name)
            .map(|(other, v)| format!("{other} {}", v.verdict.outcome.name()))
            .collect();
        let before = self.shown.take().filter(|s| s.name == name);
        self.shown = Some(Shown::after(name, view, before));
    }

    /// The deployment that is wanted, else the one with most evidence. A decision under way keeps its place.
    fn choose<'a>(&self, snapshot: &'a Snapshot) -> Option<(Arc<str>, &'a DeploymentView)> {
        if let Some(wanted) = &self.wanted {
            return snapshot.deployments.get_key_value(wanted.as_str()).map(|(name, view)| (name.clone(), view));
        }
        let current = self.shown.as_ref().and_then(|s| snapshot.deployments.get_key_value(&s.name));
        let strongest =
            snapshot.deployments.iter().max_by(|a, b| a.1.verdict.evidence_ln.total_cmp(&b.1.verdict.evidence_ln));
        let (name, view) = match (current, strongest) {
            // Half as much again on a log scale, or the view would flip between two quiet deployments.
            (Some(c), Some(s)) if !clearly_stronger(&s.1.verdict, &c.1.verdict) => c,
            (_, s) => s?,
        };
        Some((name.clone(), view))
    }
}

fn clearly_stronger(a: &Verdict, b: &Verdict) -> bool {
    a.evidence_share() > b.evidence_share() + 0.25
}

impl Shown {
    fn after(name: Arc<str>, view: &DeploymentView, before: Option<Shown>) -> Self {
        let (stable, canary, mut history) = before.map_or_else(Default::default, |b| (b.stable, b.canary, b.history));
        history.push_back(Point { stable: view.verdict.p_stable, canary: view.verdict.p_canary });
        if history.len() > HISTORY {
            history.pop_front();
        }
        Self {
            name,
            mode: view.mode,
            verdict: view.verdict.clone(),
            decision: view.decision.clone(),
            stable: side(view, Role::Stable, stable),
            canary: side(view, Role::Canary, canary),
            history,
        }
    }
}

fn side(view: &DeploymentView, role: Role, before: Side) -> Side {
    let of_role = || view.samples.iter().filter(|s| s.target.role == role && s.populated != Some(false));
    let mut versions: Vec<&str> = of_role().map(|s| &*s.target.version).collect();
    versions.sort_unstable();
    versions.dedup();
    let versions = if versions.is_empty() { before.versions } else { versions.join("+") };
    Side { versions, instances: of_role().count() }
}
