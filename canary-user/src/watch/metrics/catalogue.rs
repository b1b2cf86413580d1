//! Every series with its unit and meaning: the page, its documentation and the reading of the state come from this table.

mod read;

use std::{borrow::Cow, sync::Arc};

use prometheus_client::{metrics::MetricType, registry::Unit};

use self::read::{
    canary_only, counted, exit_codes, exits, finite, hooks, indicator_value, memory_events, mode, ns, number, p,
    reports, responses, round_trips, stretch_active, usec, verdict, waited_for,
};
use super::{
    DeploymentState, State, VersionKey,
    counts::{Counts, Distribution},
};
use crate::{
    judge::{IndicatorState, Verdict},
    targets::Role,
    telemetry::OwnCost,
};

pub type Labels = Vec<(&'static str, String)>;

/// One series family.
pub struct Definition {
    /// Without the suffix that its kind adds.
    name: &'static str,
    /// What its numbers are in, or what they count. OpenMetrics is told of it where the name ends in it, and else may not be.
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
pub enum Value<'a> {
    Number(f64),
    Distribution(&'a Distribution),
}

/// Values by the value of a label.
type Named = Vec<(Cow<'static, str>, f64)>;

/// Where the values come from; what a function does not return has no series.
pub enum Source {
    Version(fn(&Counts) -> Option<f64>),
    VersionBy(&'static str, fn(&Counts) -> Named),
    VersionHistogram(fn(&Counts) -> Option<&Distribution>),
    Deployment(fn(&DeploymentState) -> Option<f64>),
    DeploymentBy(&'static str, fn(&DeploymentState) -> Vec<(&'static str, f64)>),
    /// Per role and indicator, of the latest verdict.
    Indicators(fn(&Verdict, &IndicatorState, Role) -> Option<f64>),
    /// Per role and another label.
    RoleBy(&'static str, fn(&DeploymentState) -> Vec<(Role, &'static str, f64)>),
    /// By a label with values that the program knows.
    DeploymentByName(&'static str, fn(&DeploymentState) -> Vec<(String, f64)>),
    Sensor(fn(&State) -> Option<f64>),
    SensorBy(&'static str, fn(&State) -> Vec<(String, f64)>),
    /// By kind of receiver and result.
    Notifications,
    Build,
}

const fn row(kind: Kind, name: &'static str, unit: &'static str, source: Source, help: &'static str) -> Definition {
    Definition { name, unit, help, kind, source }
}

use Kind::{Counter, Gauge, Histogram};
use Source::{
    Build, Deployment, DeploymentBy, DeploymentByName, Indicators, Notifications, RoleBy, Sensor, SensorBy, Version,
    VersionBy, VersionHistogram,
};

#[rustfmt::skip]
pub const CATALOGUE: &[Definition] = &[
    row(Gauge, "canary_targets", "instances", Version(|c| (c.level.instances > 0).then_some(c.level.instances as f64)),
        "Instances that were sampled in the latest tick and have a process."),
    row(Counter, "canary_cpu_usage_seconds", "seconds", Version(|c| ns(c.on_cpu_ns)),
        "Time that tasks ran on a CPU, from the scheduler's switches."),
    row(Histogram, "canary_run_queue_wait_seconds", "seconds", VersionHistogram(|c| c.run_queue_wait.as_ref()),
        "Time between a task becoming runnable and getting a CPU."),
    row(Counter, "canary_run_queue_wait_behind_seconds", "seconds", VersionBy("holder", waited_for),
        "The same by who had the CPU meanwhile: own is the version itself, idle a CPU that had to wake up."),
    row(Counter, "canary_cpu_cfs_periods", "periods", Version(|c| number(c.periods)),
        "Periods of the CPU limit that passed (cpu.stat)."),
    row(Counter, "canary_cpu_cfs_throttled_periods", "periods", Version(|c| number(c.throttled_periods)),
        "Periods of the CPU limit in which tasks were held back."),
    row(Counter, "canary_cpu_cfs_throttled_seconds", "seconds", Version(|c| usec(c.throttled_usec)),
        "Time that tasks were held back by the CPU limit."),
    row(Gauge, "canary_memory_in_use_bytes", "bytes", Version(|c| number(c.level.memory_bytes())),
        "Memory in use by all instances. Absent while any of them cannot be read."),
    row(Gauge, "canary_memory_limit_bytes", "bytes", Version(|c| number(c.level.memory_parts_bytes()[0])),
        "Limits of all instances together. Absent while any of them has none."),
    row(Gauge, "canary_memory_anon_bytes", "bytes", Version(|c| number(c.level.memory_parts_bytes()[1])),
        "Memory in use that belongs to processes: heaps and stacks."),
    row(Gauge, "canary_memory_file_bytes", "bytes", Version(|c| number(c.level.memory_parts_bytes()[2])),
        "Memory in use that belongs to files: page cache and shared memory."),
    row(Counter, "canary_memory_major_faults", "faults", Version(|c| number(c.major_faults)),
        "Page faults that had to wait for a disk."),
    row(Counter, "canary_memory_events", "events", VersionBy("kind", memory_events),
        "What was tried against the memory limits (memory.events): high, max, oom, oom_kill."),
    row(Counter, "canary_memory_reclaim_seconds", "seconds", Version(|c| ns(c.reclaim_ns)),
        "Time that tasks spent reclaiming memory instead of working."),
    row(Histogram, "canary_memory_reclaim_stall_seconds", "seconds", VersionHistogram(|c| c.reclaim_stall.as_ref()),
        "The same as single stalls."),
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
    row(Counter, "canary_block_read_bytes", "bytes", Version(|c| Some(c.block_io?.read_bytes as f64)),
        "Bytes read from block devices (io.stat)."),
    row(Counter, "canary_block_write_bytes", "bytes", Version(|c| Some(c.block_io?.write_bytes as f64)),
        "Bytes written to block devices."),
    row(Counter, "canary_block_reads", "reads", Version(|c| Some(c.block_io?.reads as f64)),
        "Reads from block devices."),
    row(Counter, "canary_block_writes", "writes", Version(|c| Some(c.block_io?.writes as f64)),
        "Writes to block devices."),
    row(Counter, "canary_network_receive_bytes", "bytes", Version(|c| number(c.rx_bytes)),
        "Bytes received, IP header and up."),
    row(Counter, "canary_network_receive_packets", "packets", Version(|c| number(c.rx_packets)),
        "Packets received; a merged packet counts its segments."),
    row(Counter, "canary_network_transmit_bytes", "bytes", Version(|c| number(c.tx_bytes)),
        "Bytes sent, IP header and up."),
    row(Counter, "canary_network_transmit_packets", "packets", Version(|c| number(c.tx_packets)),
        "Packets sent; a packet to be segmented counts its segments."),
    row(Histogram, "canary_turnaround_seconds", "seconds", VersionHistogram(|c| c.turnaround.as_ref()),
        "Time from the last byte of a request to the first byte of its response, as the kernel sees it."),
    row(Counter, "canary_http_responses", "responses", VersionBy("class", responses),
        "Responses by the class of their status, where they begin with a plain HTTP/1 status line; 1xx are interim ones."),
    row(Histogram, "canary_dependency_turnaround_seconds", "seconds", VersionHistogram(|c| c.dependency.as_ref()),
        "Time from the last byte of a request to the first byte of its response, on connections that the version opened."),
    row(Counter, "canary_dependency_receive_payload_bytes", "bytes", Version(|c| number(c.dependency_rx_bytes)),
        "Payload received on connections that the version opened."),
    row(Counter, "canary_dependency_transmit_payload_bytes", "bytes", Version(|c| number(c.dependency_tx_bytes)),
        "Payload sent on connections that the version opened."),
    row(Gauge, "canary_tcp_round_trip_seconds", "seconds", VersionBy("peer", round_trips),
        "TCP's smoothed round-trip time to clients and to dependencies: mean over the latest tick's turnarounds."),
    row(Counter, "canary_tcp_connections_accepted", "connections", Version(|c| number(c.accepted)),
        "TCP connections that others opened; their handshake was completed."),
    row(Counter, "canary_tcp_connections_opened", "connections", Version(|c| number(c.opened)),
        "TCP connections that the version opened."),
    row(Counter, "canary_tcp_connect_seconds", "seconds", Version(|c| ns(c.open_ns)),
        "Time from SYN to its answer, over the connections that the version opened."),
    row(Counter, "canary_tcp_connects_failed", "connections", Version(|c| number(c.open_failed)),
        "TCP connections that the version asked for and never got: refused, unreachable, timed out or given up."),
    row(Counter, "canary_tcp_connects_refused", "connections", Version(|c| number(c.open_refused)),
        "Of the failed ones, those that were answered by a reset."),
    row(Counter, "canary_tcp_listen_overflows", "connections", Version(|c| number(c.listen_overflows)),
        "Connections that found a listen queue full, of instances with a network namespace to themselves."),
    row(Counter, "canary_tcp_listen_drops", "connections", Version(|c| number(c.listen_drops)),
        "Connections that a listening socket dropped for this or another reason, of the same instances."),
    row(Counter, "canary_tcp_retransmitted_segments", "segments", Version(|c| number(c.retransmits)),
        "TCP segments sent again."),
    row(Counter, "canary_tcp_resets_received", "resets", Version(|c| number(c.resets_in)),
        "TCP resets received: connections that the other side broke off."),
    row(Counter, "canary_tcp_resets_sent", "resets", Version(|c| number(c.resets_out)),
        "TCP resets sent: connections that the service broke off."),
    row(Counter, "canary_process_exits", "processes", VersionBy("kind", exits),
        "Processes that ended: ok is status 0, status another one, crash a fault signal, killed another, as by the OOM killer."),
    row(Counter, "canary_process_exit_codes", "processes", VersionBy("code", exit_codes),
        "Processes that ended otherwise than with status 0, by status or signal."),
    row(Counter, "canary_process_core_dumps", "processes", Version(|c| number(c.core_dumps)),
        "Processes that dumped core."),
    row(Counter, "canary_process_forks", "processes", Version(|c| number(c.forked)),
        "Processes (not threads) that were forked."),
    row(Counter, "canary_process_execs", "programs", Version(|c| number(c.executed)),
        "Programs that were executed."),
    row(Counter, "canary_main_process_restarts", "restarts", Version(|c| number(c.restarts)),
        "Times that an instance's main process ended and another took its place, or its cgroup was made again."),
    row(Counter, "canary_oom_kills", "processes", Version(|c| number(c.oom_kills)),
        "Processes that the kernel killed because memory ran out."),

    row(Gauge, "canary_p", "share of the margin", DeploymentBy("role", p),
        "P(t), the mean share of the allowed margin that the indicators use: 0 is as usual, 1 all of it."),
    row(Gauge, "canary_indicator", "that of the indicator", Indicators(|_, i, role| indicator_value(i, role)),
        "Value of an indicator in the latest window, mean of the instances: seconds, but bytes of memory_in_use and bytes_per_work, and a share of the time of memory_stall."),
    row(Gauge, "canary_indicator_effect_ratio", "ratio", Indicators(|_, i, role| finite(canary_only(role, i.effect))),
        "Canary against stable over the last 10 windows, as a ratio minus one: 0.31 is 31 % more."),
    row(Gauge, "canary_indicator_effect_low_ratio", "ratio", Indicators(|_, i, role| finite(canary_only(role, i.effect_low))),
        "Lower bound (about 95 %) of the change of the canary against stable, as a ratio minus one."),
    row(Gauge, "canary_indicator_effect_high_ratio", "ratio", Indicators(|_, i, role| finite(canary_only(role, i.effect_high))),
        "Upper bound (about 95 %) of the change of the canary against stable, as a ratio minus one."),
    row(Gauge, "canary_indicator_margin_ratio", "ratio", Indicators(|_, i, role| finite(canary_only(role, i.margin))),
        "Smallest change of an indicator that counts, as a ratio minus one."),
    row(Gauge, "canary_stretch_active", "0 or 1", Indicators(stretch_active),
        "1 while a version is out of its own usual band in an indicator (a stretch), 0 while it is not known to be."),
    row(Counter, "canary_stretches", "stretches", RoleBy("shape", |d| d.stretches.iter().map(|((role, shape), n)| (*role, *shape, *n as f64)).collect()),
        "Such stretches that are over, by their shape: step, drift, burst, oscillation."),
    row(Gauge, "canary_promotion_worse", "0 or 1", Deployment(|d| Some(f64::from(u8::from(d.verdict.promotion.as_ref()?.worse)))),
        "1 where stable is shown to be worse than it was before all its instances were replaced, as by a promotion; 0 where it is not; absent where they were not."),
    row(Gauge, "canary_evidence_log", "natural logarithm", Deployment(|d| finite(Some(d.verdict.evidence_ln))),
        "Natural logarithm of the evidence (e-value) that the canary is worse than stable."),
    row(Gauge, "canary_evidence_threshold_log", "natural logarithm", Deployment(|d| finite(Some(d.verdict.threshold_ln))),
        "Natural logarithm of the evidence at which the canary counts as regressed."),
    // As a stateset of OpenMetrics its label would have to be named canary_verdict, too. Prometheus takes that for a gauge like this
    // one, and every query for `state` would be in vain.
    row(Gauge, "canary_verdict", "0 or 1", DeploymentBy("state", verdict),
        "1 for the current verdict, 0 for the others."),
    row(Gauge, "canary_mode", "0 or 1", DeploymentBy("mode", mode),
        "1 for how far the guard may go, 0 for the other modes."),
    row(Gauge, "canary_paused", "0 or 1", Deployment(|d| Some(f64::from(u8::from(d.paused)))),
        "1 while no action is begun on the deployment, because it or the guard is paused; else 0."),
    row(Gauge, "canary_leader", "0 or 1", Deployment(|d| Some(f64::from(u8::from(d.leads)))),
        "1 while this guard is the one that acts: it acts alone, or holds the Lease; 0 while it does not, as while it has nothing to do."),
    row(Counter, "canary_decisions", "decisions", DeploymentBy("action", |d| counted(&d.decisions)),
        "Decisions that the guard came to."),
    row(Counter, "canary_actions", "actions", DeploymentBy("result", |d| counted(&d.results)),
        "What became of actions: blocked by a gate, declined, verified, failed; after verified also recovered or not_recovered (the service), reverted by someone else, undone. Not of a hold, which takes nothing away."),

    row(Gauge, "canary_action_withheld", "0 or 1", Deployment(|d| Some(f64::from(u8::from(d.withheld)))),
        "1 while the canary is condemned and the mode, a policy or the dry run lets the guard only say what it would do, else 0."),
    row(Gauge, "canary_action_in_effect", "0 or 1", Deployment(|d| Some(f64::from(u8::from(d.in_effect)))),
        "1 while the canary is taken away by the latest decision (drain or rollback, verified) and nobody has brought it back, else 0."),

    row(Counter, "canary_gate_blocks", "decisions", DeploymentByName("gate", |d| d.gates.iter().map(|(g, n)| (g.clone(), *n as f64)).collect()),
        "Decisions that were held back, by the gate that did."),

    row(Counter, "canary_ticks", "ticks", Sensor(|s| s.latest.is_some().then_some(s.ticks as f64)),
        "Ticks that the guard has seen."),
    row(Gauge, "canary_last_tick_timestamp_seconds", "seconds", Sensor(|s| Some(s.latest.as_ref()?.unix_ms as f64 / 1e3)),
        "Unix time of the latest tick."),
    row(Counter, "canary_lost_events", "events", Sensor(|s| s.latest.is_some().then_some(s.lost_events as f64)),
        "Events that the kernel programs could not count."),
    row(Gauge, "canary_hooks_missing", "hooks", Sensor(|s| Some(s.latest.as_ref()?.hooks_missing as f64)),
        "Kernel hooks that are not live; what they would count is absent here."),
    row(Gauge, "canary_targets_without_slot", "instances", Sensor(|s| Some(s.latest.as_ref()?.targets_without_slot as f64)),
        "Targets that match the configuration and are not counted, because all slots are taken."),
    row(Gauge, "canary_journal_failed", "0 or 1", Sensor(|s| Some(f64::from(u8::from(s.latest.as_ref()?.journal_failed)))),
        "1 from when the journal cannot be written on: the guard acts on nothing until it is started again. Else 0."),
    row(Counter, "canary_notifications", "notifications", Notifications,
        "Notifications by kind of receiver: sent, failed after all attempts, or dropped because too many waited."),
    row(Counter, "canary_reports", "reports", SensorBy("result", reports),
        "Reports that the guard wrote by itself, and those that could not be written. Absent where it writes none."),
    row(Counter, "canary_guard_cpu_seconds", "seconds", Sensor(|s| Some(s.own()?.cpu_ns as f64 / 1e9)),
        "CPU time that the guard itself used, all threads; without its kernel programs."),
    row(Gauge, "canary_guard_memory_bytes", "bytes", Sensor(|s| number(s.own()?.memory_bytes)),
        "Resident memory of the guard itself."),
    row(Counter, "canary_hook_runs", "runs", SensorBy("hook", |s| hooks(s, |h| h.runs as f64)),
        "Runs of a kernel program of the guard. Only while the kernel counts (sysctl kernel.bpf_stats_enabled=1)."),
    row(Counter, "canary_hook_run_seconds", "seconds", SensorBy("hook", |s| hooks(s, |h| h.run_ns as f64 / 1e9)),
        "Time that a kernel program of the guard took, over all CPUs. Only while the kernel counts."),
    row(Gauge, "canary_build_info", "1", Build,
        "Always 1; its label is the version of the guard."),
];

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }

    pub fn metric_type(self) -> MetricType {
        match self {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
        }
    }
}

impl Definition {
    /// The name without the unit that it ends in, which the encoder appends.
    pub fn stem(&self) -> &'static str {
        self.name.strip_suffix(self.unit).and_then(|n| n.strip_suffix('_')).unwrap_or(self.name)
    }

    pub fn unit(&self) -> Option<Unit> {
        (self.stem() != self.name).then(|| Unit::Other(self.unit.to_owned()))
    }

    /// The family's name in OpenMetrics.
    pub fn family(&self) -> &'static str {
        self.name
    }

    pub fn page_name(&self) -> String {
        match self.kind {
            Kind::Counter => format!("{}_total", self.name),
            Kind::Gauge | Kind::Histogram => self.name.to_owned(),
        }
    }
}

impl Source {
    /// The names that every series of [`Source::series`] carries, in its order.
    pub fn labels(&self) -> Vec<&'static str> {
        match self {
            Source::Version(_) | Source::VersionHistogram(_) => vec!["deployment", "role", "version"],
            Source::VersionBy(label, _) => vec!["deployment", "role", "version", label],
            Source::Deployment(_) => vec!["deployment"],
            Source::DeploymentBy(label, _) | Source::DeploymentByName(label, _) => vec!["deployment", label],
            Source::SensorBy(label, _) => vec![label],
            Source::Indicators(_) => vec!["deployment", "role", "indicator"],
            Source::RoleBy(label, _) => vec!["deployment", "role", label],
            Source::Sensor(_) => Vec::new(),
            Source::Notifications => vec!["receiver", "result"],
            Source::Build => vec!["version"],
        }
    }

    pub fn series<'a>(&self, state: &'a State) -> Vec<(Labels, Value<'a>)> {
        let versions = || state.versions.iter();
        let deployments = || state.deployments.iter();
        match self {
            Source::Version(read) => {
                versions().filter_map(|(key, c)| Some((version_labels(key), Value::Number(read(c)?)))).collect()
            }
            Source::VersionBy(label, read) => versions()
                .flat_map(|(key, c)| read(c).into_iter().map(|(name, n)| (with(version_labels(key), label, &name), n)))
                .map(|(labels, n)| (labels, Value::Number(n)))
                .collect(),
            Source::VersionHistogram(read) => {
                versions().filter_map(|(key, c)| Some((version_labels(key), Value::Distribution(read(c)?)))).collect()
            }
            Source::Deployment(read) => {
                deployments().filter_map(|(name, d)| Some((deployment_labels(name), Value::Number(read(d)?)))).collect()
            }
            Source::DeploymentBy(label, read) => deployments()
                .flat_map(|(name, d)| {
                    read(d).into_iter().map(move |(by, n)| (with(deployment_labels(name), label, by), Value::Number(n)))
                })
                .collect(),
            Source::Indicators(read) => deployments()
                .flat_map(|(name, d)| d.verdict.indicators.iter().map(move |i| (name, &d.verdict, i)))
                .flat_map(|(name, v, i)| [(name, v, i, Role::Stable), (name, v, i, Role::Canary)])
                .filter_map(|(name, v, i, role)| {
                    let labels = with(role_labels(name, role), "indicator", i.indicator.name());
                    Some((labels, Value::Number(read(v, i, role)?)))
                })
                .collect(),
            Source::RoleBy(label, read) => deployments()
                .flat_map(|(name, d)| read(d).into_iter().map(move |(role, by, n)| (role_labels(name, role), by, n)))
                .map(|(labels, by, n)| (with(labels, label, by), Value::Number(n)))
                .collect(),
            Source::DeploymentByName(label, read) => deployments()
                .flat_map(|(name, d)| read(d).into_iter().map(move |(by, n)| (name, by, n)))
                .map(|(name, by, n)| (with(deployment_labels(name), label, &by), Value::Number(n)))
                .collect(),
            Source::SensorBy(label, read) => {
                read(state).into_iter().map(|(by, n)| (vec![(*label, by)], Value::Number(n))).collect()
            }
            Source::Sensor(read) => read(state).map(|n| (Labels::new(), Value::Number(n))).into_iter().collect(),
            Source::Notifications => {
                let counts = state.deliveries.counts().into_iter();
                let labels = |kind: &str, result: &str| with(vec![("receiver", kind.to_owned())], "result", result);
                counts.map(|(kind, result, n)| (labels(kind, result), Value::Number(n as f64))).collect()
            }
            Source::Build => {
                vec![(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], Value::Number(1.0))]
            }
        }
    }
}

impl State {
    fn own(&self) -> Option<&OwnCost> {
        self.latest.as_ref()?.own.as_ref()
    }
}

fn version_labels(key: &VersionKey) -> Labels {
    with(role_labels(&key.deployment, key.role), "version", &key.version)
}

fn role_labels(deployment: &Arc<str>, role: Role) -> Labels {
    with(deployment_labels(deployment), "role", role.name())
}

fn deployment_labels(deployment: &Arc<str>) -> Labels {
    vec![("deployment", deployment.to_string())]
}

fn with(mut labels: Labels, name: &'static str, value: &str) -> Labels {
    labels.push((name, value.to_owned()));
    labels
}
