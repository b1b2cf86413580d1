//! What scrapers see: one collector over the running totals and the latest state.
//!
//! Goes in: every tick's Snapshot. Comes out: the series of [`catalogue`], all of the same tick.
//! Refuses: labels without a bound (cgroup ids and paths), and zeros for what was not measured: such a series is absent.

mod catalogue;
mod counts;
pub mod format;
mod native;
pub mod protobuf;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::exemplar::Exemplar,
    registry::Registry,
};

use self::{
    catalogue::{CATALOGUE, Kind, Value},
    counts::Counts,
};
use super::{DecisionView, DeploymentView, Snapshot, notify::Deliveries, report};
use crate::{
    guard::{Action, GateResult, Mode, Stage, gates},
    judge::{Outcome, Stretch, StretchShape, Verdict},
    orchestrator::dry_run,
    targets::Role,
    telemetry::OwnCost,
};

/// Totals of a version that sent no samples for this long are dropped, or every release would leave its series behind.
const FORGET_AFTER_NS: u64 = 3_600_000_000_000;

/// The handle that the line records into and the server reads from; clones share their state.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Mutex<State>>);

/// Everything that the catalogue's series are read from.
#[derive(Debug, Default)]
struct State {
    versions: BTreeMap<VersionKey, Counts>,
    deployments: BTreeMap<Arc<str>, DeploymentState>,
    ticks: u64,
    /// Counted since the start; absent before the first tick.
    lost_events: u64,
    latest: Option<Tick>,
    deliveries: Deliveries,
    /// `None` where none are written.
    reports: Option<report::Counts>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct VersionKey {
    deployment: Arc<str>,
    role: Role,
    version: Arc<str>,
}

/// What a decision may ask for.
const ACTIONS: [Action; 4] = [Action::Hold, Action::Quarantine, Action::Drain, Action::Rollback];
/// The stages in which an action ends.
const ENDS: [Stage; 8] = [
    Stage::Blocked,
    Stage::Declined,
    Stage::Verified,
    Stage::Recovered,
    Stage::NotRecovered,
    Stage::Reverted,
    Stage::Failed,
    Stage::Undone,
];

const SHAPES: [StretchShape; 4] =
    [StretchShape::Step, StretchShape::Drift, StretchShape::Burst, StretchShape::Oscillation];

/// What the latest tick said about the sensor.
#[derive(Debug)]
struct Tick {
    unix_ms: u64,
    hooks_missing: usize,
    targets_without_slot: u64,
    own: Option<OwnCost>,
    journal_failed: bool,
}

#[derive(Debug)]
struct DeploymentState {
    mode: Mode,
    /// By itself or with all others.
    paused: bool,
    leads: bool,
    verdict: Verdict,
    /// By name of the action.
    decisions: BTreeMap<&'static str, u64>,
    /// By the stage that an action ended in.
    results: BTreeMap<&'static str, u64>,
    /// By the gate that held a decision back.
    gates: BTreeMap<String, u64>,
    last_decision: Option<(String, Stage)>,
    last_hold: Option<(String, Stage)>,
    /// Whether the latest decision was only said, and whether what it asked for holds.
    withheld: bool,
    in_effect: bool,
    /// Stretches that are over, by their shape.
    stretches: BTreeMap<(Role, &'static str), u64>,
}

impl Metrics {
    /// Also tells how notifications were delivered.
    pub fn tell_of(&self, deliveries: Deliveries) {
        self.lock().deliveries = deliveries;
    }

    /// Also tells how many reports were written.
    pub fn tell_of_reports(&self, reports: report::Counts) {
        self.lock().reports = Some(reports);
    }

    /// Adds one tick. Samples are differences, so the runner calls this once for every tick, on the line's side:
    /// a watch receiver that lags would skip ticks and the counters would lose them. It is cheap: additions under a
    /// lock that a scrape holds for a fraction of a millisecond.
    pub fn record(&self, snapshot: &Snapshot) {
        let mut state = self.lock();
        state.ticks += 1;
        state.lost_events += snapshot.quality.lost_events;
        state.latest = Some(Tick {
            unix_ms: snapshot.unix_ms,
            hooks_missing: snapshot.quality.hooks_missing.len(),
            targets_without_slot: snapshot.quality.targets_without_slot,
            own: snapshot.own.clone(),
            journal_failed: snapshot.journal_failure.is_some(),
        });
        for counts in state.versions.values_mut() {
            counts.begin_tick();
        }
        for sample in snapshot.deployments.values().flat_map(|d| &d.samples) {
            let key = VersionKey {
                deployment: sample.target.deployment.clone(),
                role: sample.target.role,
                version: sample.target.version.clone(),
            };
            state.versions.entry(key).or_default().add(sample, snapshot.t_ns);
        }
        state.versions.retain(|_, c| snapshot.t_ns.saturating_sub(c.last_seen_ns()) < FORGET_AFTER_NS);
        state.deployments.retain(|name, _| snapshot.deployments.contains_key(name));
        for (name, view) in &snapshot.deployments {
            match state.deployments.entry(name.clone()) {
                Entry::Vacant(entry) => entry.insert(DeploymentState::new(view)),
                Entry::Occupied(entry) => entry.into_mut(),
            }
            .update(view, snapshot.paused.is_some());
        }
    }

    /// The whole page, in the OpenMetrics text format.
    ///
    /// # Errors
    /// Only if a row of the catalogue does not fit its kind.
    pub fn openmetrics(&self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.clone()));
        let mut page = String::new();
        text::encode(&mut page, &registry)?;
        Ok(page)
    }

    /// The whole page, in Prometheus' text format 0.0.4.
    ///
    /// # Errors
    /// As [`Metrics::openmetrics`].
    pub fn text(&self) -> Result<String, fmt::Error> {
        Ok(format::text(&self.openmetrics()?))
    }

    /// The whole page, in Prometheus' protobuf format, with native histograms.
    pub fn protobuf(&self) -> Vec<u8> {
        protobuf::encode(&self.lock())
    }

    // A panic while recording leaves totals that are behind by a tick, not wrong: keep serving them.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DeploymentState {
    fn new(view: &DeploymentView) -> Self {
        Self {
            mode: view.mode,
            paused: view.paused.is_some(),
            leads: view.leads,
            verdict: view.verdict.clone(),
            // From 0 on, so that a rate sees the first one, too.
            decisions: ACTIONS.map(|action| (action.name(), 0)).into(),
            results: ENDS.map(|stage| (stage.name(), 0)).into(),
            gates: BTreeMap::new(),
            last_decision: None,
            last_hold: None,
            withheld: false,
            in_effect: false,
            stretches: SHAPES
                .into_iter()
                .flat_map(|shape| [Role::Stable, Role::Canary].map(|role| ((role, shape.name()), 0)))
                .collect(),
        }
    }

    fn update(&mut self, view: &DeploymentView, all_paused: bool) {
        (self.mode, self.leads) = (view.mode, view.leads);
        self.paused = all_paused || view.paused.is_some();
        self.count_stretches(&view.verdict.stretches);
        self.verdict.clone_from(&view.verdict);
        // A hold that a person asked for says nothing of what the guard may do by itself, and takes no canary away.
        let latest = view.decision.as_ref();
        self.withheld = view.verdict.outcome == Outcome::Regressed && latest.is_some_and(is_withheld);
        self.in_effect = latest.is_some_and(is_in_effect);
        view.decision.iter().chain(&view.hold).for_each(|decision| self.count(decision));
    }

    /// Counts what is over, and was not yet in the verdict before this one.
    fn count_stretches(&mut self, now: &[Stretch]) {
        let known = |s: &Stretch| {
            let same = |o: &Stretch| (o.role, o.found, &o.signal) == (s.role, s.found, &s.signal) && o.end.is_some();
            self.verdict.stretches.iter().any(same)
        };
        for ended in now.iter().filter(|s| s.end.is_some() && !known(s)) {
            *self.stretches.entry((ended.role, ended.shape.name())).or_default() += 1;
        }
    }

    /// Counts a decision when its id is new, and a result when its stage is a new end of an action.
    fn count(&mut self, view: &DecisionView) {
        let is_hold = view.decision.action == Action::Hold;
        let last = if is_hold { &mut self.last_hold } else { &mut self.last_decision };
        let known = last.as_ref().filter(|(id, _)| *id == view.decision.id).map(|(_, stage)| *stage);
        if known == Some(view.stage) {
            return;
        }
        *last = Some((view.decision.id.clone(), view.stage));
        if known.is_none() {
            *self.decisions.entry(view.decision.action.name()).or_default() += 1;
        }
        // What becomes of a hold takes no canary away and brings none back, which is what is alerted on.
        if ENDS.contains(&view.stage) && !is_hold {
            *self.results.entry(view.stage.name()).or_default() += 1;
        }
        // Also one that blocks after a wait for approval, which was counted when the wait began.
        let is_news =
            |gate: &&GateResult| known.is_none() || view.stage == Stage::Blocked && gate.gate != gates::APPROVAL;
        if let Some(gate) = view.decision.blocked_by().filter(is_news) {
            *self.gates.entry(gate.gate.clone()).or_default() += 1;
        }
    }
}

/// Whether nothing was done because the mode, a policy or the dry run lets the guard only say what it would do.
fn is_withheld(view: &DecisionView) -> bool {
    let by_mode = view.decision.blocked_by().is_some_and(|gate| gate.gate == gates::MODE);
    view.stage == Stage::Blocked && (by_mode || view.detail.starts_with(dry_run::SAID))
}

/// Whether the canary was taken away, as both sides agree, and nobody has brought it back. A quarantine leaves it at work, and so
/// does a hold.
fn is_in_effect(view: &DecisionView) -> bool {
    let holds = matches!(view.stage, Stage::Verified | Stage::Recovered | Stage::NotRecovered | Stage::Closed);
    view.decision.action.takes_away() && holds
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let state = self.lock();
        for definition in CATALOGUE {
            let series = definition.source.series(&state);
            if series.is_empty() {
                continue;
            }
            let unit = definition.unit();
            let mut metric = encoder.encode_descriptor(
                definition.stem(),
                definition.help,
                unit.as_ref(),
                definition.kind.metric_type(),
            )?;
            for (labels, value) in &series {
                // An empty label set would be written as "{}".
                if labels.is_empty() {
                    encode_value(&mut metric, definition.kind, value)?;
                } else {
                    encode_value(&mut metric.encode_family(labels)?, definition.kind, value)?;
                }
            }
        }
        Ok(())
    }
}

fn encode_value(encoder: &mut MetricEncoder<'_>, kind: Kind, value: &Value<'_>) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Number(n)) => encoder.encode_counter(n, None::<&Exemplar<NoLabelSet, f64>>),
        (Kind::Gauge, Value::Number(n)) => encoder.encode_gauge(n),
        (Kind::Histogram, Value::Distribution(d)) => {
            encoder.encode_histogram::<NoLabelSet>(d.sum_ns as f64 / 1e9, d.fine.count(), &d.coarse(), None)
        }
        // A row of the catalogue whose source does not fit its kind; the test of the full page meets every row.
        (Kind::Histogram, Value::Number(_)) | (_, Value::Distribution(_)) => Err(fmt::Error),
    }
}

/// One family of series, for documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// As on the page: with the suffix of its kind, but without `_bucket`, `_sum` and `_count` of a histogram.
    pub name: String,
    /// "counter", "gauge" or "histogram".
    pub kind: &'static str,
    /// What its numbers are in, or what they count.
    pub unit: &'static str,
    /// Names of its labels, in the page's order.
    pub labels: Vec<&'static str>,
    /// What it means, one sentence.
    pub help: &'static str,
}

/// Every family that a page may hold, in the page's order.
pub fn describe() -> Vec<Description> {
    CATALOGUE
        .iter()
        .map(|d| Description {
            name: d.page_name(),
            kind: d.kind.name(),
            unit: d.unit,
            labels: d.source.labels(),
            help: d.help,
        })
        .collect()
}

#[cfg(test)]
mod tests;
