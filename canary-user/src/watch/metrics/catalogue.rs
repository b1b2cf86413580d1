//! Every series with its unit and meaning: the page, its documentation and the reading of the state come from this table.

use std::{collections::BTreeMap, sync::Arc};

use prometheus_client::{metrics::MetricType, registry::Unit};

use super::{
    DeploymentState, State, VersionKey,
    counts::{Counts, Distribution},
};
use crate::{
    guard::Mode,
    judge::{IndicatorState, Outcome},
    targets::Role,
    window::Indicator,
};

pub type Labels = Vec<(&'static str, String)>;

/// One series family.
pub struct Definition {
    /// Without the suffix that its kind adds, with the unit that it ends in.
    name: &'static str,
    /// OpenMetrics base unit; empty where there is none.
    pub unit: &'static str,
    pub help: &'static str,
    pub kind: Kind,
    pub source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Debug)]
pub enum Value {
    Number(f64),
    /// Buckets as (bound in seconds, own count).
    Distribution {
        sum: f64,
        count: u64,
        buckets: Vec<(f64, u64)>,
    },
}

/// Where the values come from; what a function does not return has no series.
pub enum Source {
    Version(fn(&Counts) -> Option<f64>),
    VersionBy(&'static str, fn(&Counts) -> Vec<(&'static str, f64)>),
    VersionHistogram(fn(&Counts) -> Option<&Distribution>),
    Deployment(fn(&DeploymentState) -> Option<f64>),
    DeploymentBy(&'static str, fn(&DeploymentState) -> Vec<(&'static str, f64)>),
    /// Per role and indicator.
    Indicators(fn(&IndicatorState, Role) -> Option<f64>),
    Sensor(fn(&State) -> Option<f64>),
    Build,
}

const fn row(kind: Kind, name: &'static str, unit: &'static str, source: Source, help: &'static str) -> Definition {
    Definition { name, unit, help, kind, source }
}

use Kind::{Counter, Gauge, Histogram};
use Source::{Build, Deployment, DeploymentBy, Indicators, Sensor, Version, VersionBy, VersionHistogram};

#[rustfmt::skip]
pub const CATALOGUE: &[Definition] = &[
    row(Gauge, "canary_targets", "", Version(|c| (c.level.instances > 0).then_some(c.level.instances as f64)),
        "Instances that were sampled in the latest tick and have a process."),
    row(Counter, "canary_cpu_usage_seconds", "seconds", Version(|c| ns(c.on_cpu_ns)),
        "Time that tasks ran on a CPU, from the scheduler's switches."),
    row(Histogram, "canary_run_queue_wait_seconds", "seconds", VersionHistogram(|c| c.run_queue_wait.as_ref()),
        "Time between a task becoming runnable and getting a CPU."),
    row(Counter, "canary_cpu_cfs_periods", "", Version(|c| number(c.periods)),
        "Periods of the CPU limit that passed (cpu.stat)."),
    row(Counter, "canary_cpu_cfs_throttled_periods", "", Version(|c| number(c.throttled_periods)),
        "Periods of the CPU limit in which tasks were held back."),
    row(Counter, "canary_cpu_cfs_throttled_seconds", "seconds", Version(|c| usec(c.throttled_usec)),
        "Time that tasks were held back by the CPU limit."),
    row(Gauge, "canary_memory_in_use_bytes", "bytes", Version(|c| number(c.level.memory_bytes())),
        "Memory in use by all instances. Absent while any of them cannot be read."),
    row(Counter, "canary_memory_reclaim_seconds", "seconds", Version(|c| ns(c.reclaim_ns)),
        "Time that tasks spent reclaiming memory instead of working."),
    row(Counter, "canary_pressure_cpu_waiting_seconds", "seconds", Version(|c| usec(c.cpu_waiting_usec)),
        "Time in which at least one task waited for a CPU (PSI some)."),
    row(Counter, "canary_pressure_memory_waiting_seconds", "seconds", Version(|c| usec(c.memory_waiting_usec)),
        "Time in which at least one task was stalled on memory (PSI some)."),
    row(Counter, "canary_pressure_memory_stalled_seconds", "seconds", Version(|c| usec(c.memory_stalled_usec)),
        "Time in which all tasks were stalled on memory (PSI full)."),
    row(Counter, "canary_pressure_io_waiting_seconds", "seconds", Version(|c| usec(c.io_waiting_usec)),
        "Time in which at least one task was stalled on I/O (PSI some)."),
    row(Counter, "canary_pressure_io_stalled_seconds", "seconds", Version(|c| usec(c.io_stalled_usec)),
        "Time in which all tasks were stalled on I/O (PSI full)."),
    row(Counter, "canary_network_receive_bytes", "bytes", Version(|c| number(c.rx_bytes)),
        "Bytes received, IP header and up."),
    row(Counter, "canary_network_receive_packets", "", Version(|c| number(c.rx_packets)),
        "Packets received; a merged packet counts its segments."),
    row(Counter, "canary_network_transmit_bytes", "bytes", Version(|c| number(c.tx_bytes)),
        "Bytes sent, IP header and up."),
    row(Counter, "canary_network_transmit_packets", "", Version(|c| number(c.tx_packets)),
        "Packets sent; a packet to be segmented counts its segments."),
    row(Histogram, "canary_turnaround_seconds", "seconds", VersionHistogram(|c| c.turnaround.as_ref()),
        "Time from the last byte of a request to the first byte of its response, as the kernel sees it."),
    row(Counter, "canary_tcp_retransmitted_segments", "", Version(|c| number(c.retransmits)),
        "TCP segments sent again."),
    row(Counter, "canary_tcp_resets_received", "", Version(|c| number(c.resets_in)),
        "TCP resets received: connections that the other side broke off."),
    row(Counter, "canary_tcp_resets_sent", "", Version(|c| number(c.resets_out)),
        "TCP resets sent: connections that the service broke off."),
    row(Counter, "canary_process_exits", "", VersionBy("kind", exits),
        "Processes that ended: ok is status 0, status another one, crash a fault signal, killed any other signal."),
    row(Counter, "canary_oom_kills", "", Version(|c| number(c.oom_kills)),
        "Processes that the kernel killed because memory ran out."),

    row(Gauge, "canary_p", "", DeploymentBy("role", p),
        "P(t), the mean share of the allowed margin that the indicators use: 0 is as usual, 1 all of it."),
    row(Gauge, "canary_indicator", "", Indicators(indicator_value),
        "Value of an indicator in the latest window, mean of the instances: seconds, bytes or a share."),
    row(Gauge, "canary_indicator_effect_ratio", "ratio", Indicators(|i, role| finite(canary_only(role, i.effect))),
        "Canary against stable over the last 10 windows, as a ratio minus one: 0.31 is 31 % more."),
    row(Gauge, "canary_indicator_margin_ratio", "ratio", Indicators(|i, role| finite(canary_only(role, i.margin))),
        "Smallest change of an indicator that counts, as a ratio minus one."),
    row(Gauge, "canary_evidence_log", "", Deployment(|d| finite(Some(d.verdict.evidence_ln))),
        "Natural logarithm of the evidence (e-value) that the canary is worse than stable."),
    row(Gauge, "canary_evidence_threshold_log", "", Deployment(|d| finite(Some(d.verdict.threshold_ln))),
        "Natural logarithm of the evidence at which the canary counts as regressed."),
    row(Gauge, "canary_verdict", "", DeploymentBy("state", verdict),
        "1 for the current verdict, 0 for the others."),
    row(Gauge, "canary_mode", "", DeploymentBy("mode", mode),
        "1 for how far the guard may go, 0 for the other modes."),
    row(Counter, "canary_decisions", "", DeploymentBy("action", |d| counted(&d.decisions)),
        "Decisions that the guard came to."),
    row(Counter, "canary_actions", "", DeploymentBy("result", |d| counted(&d.results)),
        "Ends of actions: blocked by a gate, verified, failed, or (also after verified) reverted by someone else."),

    row(Counter, "canary_ticks", "", Sensor(|s| s.latest.is_some().then_some(s.ticks as f64)),
        "Ticks that the guard has seen."),
    row(Gauge, "canary_last_tick_timestamp_seconds", "seconds", Sensor(|s| Some(s.latest.as_ref()?.unix_ms as f64 / 1e3)),
        "Unix time of the latest tick."),
    row(Counter, "canary_lost_events", "", Sensor(|s| s.latest.is_some().then_some(s.lost_events as f64)),
        "Events that the kernel programs could not count."),
    row(Gauge, "canary_hooks_missing", "", Sensor(|s| Some(s.latest.as_ref()?.hooks_missing as f64)),
        "Kernel hooks that are not live; what they would count is absent here."),
    row(Gauge, "canary_targets_without_slot", "", Sensor(|s| Some(s.latest.as_ref()?.targets_without_slot as f64)),
        "Targets that match the configuration and are not counted, because all slots are taken."),
    row(Gauge, "canary_build_info", "", Build,
        "Always 1; its label is the version of the guard."),
];

impl Kind {
    pub fn metric_type(self) -> MetricType {
        match self {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
        }
    }
}

impl Definition {
    /// The name without the unit, which the encoder appends.
    pub fn stem(&self) -> &'static str {
        self.name.strip_suffix(self.unit).and_then(|n| n.strip_suffix('_')).unwrap_or(self.name)
    }

    pub fn unit(&self) -> Option<Unit> {
        (!self.unit.is_empty()).then(|| Unit::Other(self.unit.to_owned()))
    }

    pub fn page_name(&self) -> String {
        match self.kind {
            Kind::Counter => format!("{}_total", self.name),
            Kind::Gauge | Kind::Histogram => self.name.to_owned(),
        }
    }
}

impl Source {
    pub fn series(&self, state: &State) -> Vec<(Labels, Value)> {
        let versions = || state.versions.iter();
        let deployments = || state.deployments.iter();
        match self {
            Source::Version(read) => {
                versions().filter_map(|(key, c)| Some((version_labels(key), Value::Number(read(c)?)))).collect()
            }
            Source::VersionBy(label, read) => versions()
                .flat_map(|(key, c)| read(c).into_iter().map(|(name, n)| (with(version_labels(key), label, name), n)))
                .map(|(labels, n)| (labels, Value::Number(n)))
                .collect(),
            Source::VersionHistogram(read) => versions()
                .filter_map(|(key, c)| {
                    let d = read(c)?;
                    let (sum, count) = (d.sum_ns as f64 / 1e9, d.fine.count());
                    Some((version_labels(key), Value::Distribution { sum, count, buckets: d.coarse() }))
                })
                .collect(),
            Source::Deployment(read) => {
                deployments().filter_map(|(name, d)| Some((deployment_labels(name), Value::Number(read(d)?)))).collect()
            }
            Source::DeploymentBy(label, read) => deployments()
                .flat_map(|(name, d)| {
                    read(d).into_iter().map(move |(by, n)| (with(deployment_labels(name), label, by), Value::Number(n)))
                })
                .collect(),
            Source::Indicators(read) => deployments()
                .flat_map(|(name, d)| d.verdict.indicators.iter().map(move |i| (name, i)))
                .flat_map(|(name, i)| [(name, i, Role::Stable), (name, i, Role::Canary)])
                .filter_map(|(name, i, role)| {
                    let labels = with(deployment_labels(name), "role", role.name());
                    Some((with(labels, "indicator", i.indicator.name()), Value::Number(read(i, role)?)))
                })
                .collect(),
            Source::Sensor(read) => read(state).map(|n| (Labels::new(), Value::Number(n))).into_iter().collect(),
            Source::Build => {
                vec![(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], Value::Number(1.0))]
            }
        }
    }
}

fn version_labels(key: &VersionKey) -> Labels {
    let labels = with(deployment_labels(&key.deployment), "role", key.role.name());
    with(labels, "version", &key.version)
}

fn deployment_labels(deployment: &Arc<str>) -> Labels {
    vec![("deployment", deployment.to_string())]
}

fn with(mut labels: Labels, name: &'static str, value: &str) -> Labels {
    labels.push((name, value.to_owned()));
    labels
}

fn number(n: Option<u64>) -> Option<f64> {
    n.map(|n| n as f64)
}

fn ns(n: Option<u64>) -> Option<f64> {
    n.map(|n| n as f64 / 1e9)
}

fn usec(n: Option<u64>) -> Option<f64> {
    n.map(|n| n as f64 / 1e6)
}

fn finite(n: Option<f64>) -> Option<f64> {
    n.filter(|n| n.is_finite())
}

/// A comparison belongs to the canary; stable has no value of its own.
fn canary_only(role: Role, value: Option<f64>) -> Option<f64> {
    value.filter(|_| role == Role::Canary)
}

fn exits(counts: &Counts) -> Vec<(&'static str, f64)> {
    let named = |exits| ["ok", "status", "crash", "killed"].into_iter().zip(exits);
    counts.exits.map_or_else(Vec::new, |exits| named(exits).map(|(kind, n)| (kind, n as f64)).collect())
}

fn p(deployment: &DeploymentState) -> Vec<(&'static str, f64)> {
    let verdict = &deployment.verdict;
    [(Role::Stable, verdict.p_stable), (Role::Canary, verdict.p_canary)]
        .into_iter()
        .filter_map(|(role, p)| Some((role.name(), finite(p)?)))
        .collect()
}

fn indicator_value(state: &IndicatorState, role: Role) -> Option<f64> {
    let value = finite(if role == Role::Canary { state.canary } else { state.stable })?;
    Some(match state.indicator {
        Indicator::CpuPerWork | Indicator::RunQueueWait | Indicator::TurnaroundMean | Indicator::TurnaroundP95 => {
            value / 1e9
        }
        Indicator::MemoryStall | Indicator::MemoryInUse | Indicator::BytesPerWork => value,
    })
}

fn verdict(deployment: &DeploymentState) -> Vec<(&'static str, f64)> {
    [Outcome::Healthy, Outcome::Regressed, Outcome::Inconclusive, Outcome::InsufficientData]
        .map(|o| (state_name(o), f64::from(u8::from(o == deployment.verdict.outcome))))
        .to_vec()
}

/// Label values have no spaces: they are typed into queries.
fn state_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::InsufficientData => "insufficient_data",
        other => other.name(),
    }
}

fn mode(deployment: &DeploymentState) -> Vec<(&'static str, f64)> {
    Mode::ALL.map(|m| (m.name(), f64::from(u8::from(m == deployment.mode)))).to_vec()
}

fn counted(counts: &BTreeMap<&'static str, u64>) -> Vec<(&'static str, f64)> {
    counts.iter().map(|(name, n)| (*name, *n as f64)).collect()
}
