//! Ticks become windows: for each deployment the indicators of both roles, comparable with one another.
//!
//! Goes in: [`Tick`](crate::telemetry::Tick)s, in order. Comes out: one [`Window`] per deployment and tick.
//! No clock, no I/O. What could not be measured is NaN (indicators) or `None` (counts), never zero.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::telemetry::MemoryLimit;

/// What is judged by its ratio canary/stable. Larger is worse for each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Indicator {
    /// On-CPU nanoseconds per turnaround, or per second and instance where nothing turns around.
    CpuPerWork,
    /// Run-queue wait in nanoseconds per wait.
    RunQueueWait,
    /// 95th percentile of the run-queue wait in nanoseconds.
    RunQueueWaitP95,
    /// Share of the window that the instance's tasks were stalled on memory (PSI some, else reclaim time).
    MemoryStall,
    /// Bytes of memory in use.
    MemoryInUse,
    /// Payload bytes, both ways, per turnaround, or per second and instance.
    BytesPerWork,
    /// Mean turnaround in nanoseconds.
    TurnaroundMean,
    /// 95th percentile of the turnaround in nanoseconds.
    TurnaroundP95,
    /// Mean time in nanoseconds that the target waited for the answers of others, on connections that it opened.
    DependencyTurnaround,
}

impl Indicator {
    pub const ALL: [Indicator; 9] = [
        Indicator::CpuPerWork,
        Indicator::RunQueueWait,
        Indicator::RunQueueWaitP95,
        Indicator::MemoryStall,
        Indicator::MemoryInUse,
        Indicator::BytesPerWork,
        Indicator::TurnaroundMean,
        Indicator::TurnaroundP95,
        Indicator::DependencyTurnaround,
    ];
    pub const COUNT: usize = Self::ALL.len();

    /// The name in metrics, JSON and the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Indicator::CpuPerWork => "cpu_per_work",
            Indicator::RunQueueWait => "run_queue_wait",
            Indicator::RunQueueWaitP95 => "run_queue_wait_p95",
            Indicator::MemoryStall => "memory_stall",
            Indicator::MemoryInUse => "memory_in_use",
            Indicator::BytesPerWork => "bytes_per_work",
            Indicator::TurnaroundMean => "turnaround_mean",
            Indicator::TurnaroundP95 => "turnaround_p95",
            Indicator::DependencyTurnaround => "dependency_turnaround",
        }
    }

    /// The name in a sentence.
    pub fn title(self) -> &'static str {
        match self {
            Indicator::CpuPerWork => "CPU per turnaround",
            Indicator::RunQueueWait => "run-queue wait",
            Indicator::RunQueueWaitP95 => "run-queue wait (p95)",
            Indicator::MemoryStall => "memory stall",
            Indicator::MemoryInUse => "memory in use",
            Indicator::BytesPerWork => "bytes per turnaround",
            Indicator::TurnaroundMean => "turnaround (mean)",
            Indicator::TurnaroundP95 => "turnaround (p95)",
            Indicator::DependencyTurnaround => "dependency latency",
        }
    }
}

/// What is judged by the exact conditional test on counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Crashes,
    ErrorExits,
    OomKills,
    /// TCP resets sent: connections that the service broke off.
    ResetsOut,
    Retransmits,
    /// Responses with a 5xx status, where they are plain HTTP/1.
    ServerErrors,
    /// TCP connections that were asked for and never established.
    ConnectFailures,
}

impl Event {
    pub const ALL: [Event; 7] = [
        Event::Crashes,
        Event::ErrorExits,
        Event::OomKills,
        Event::ResetsOut,
        Event::Retransmits,
        Event::ServerErrors,
        Event::ConnectFailures,
    ];
    pub const COUNT: usize = Self::ALL.len();

    pub fn name(self) -> &'static str {
        match self {
            Event::Crashes => "crashes",
            Event::ErrorExits => "error_exits",
            Event::OomKills => "oom_kills",
            Event::ResetsOut => "resets_out",
            Event::Retransmits => "retransmits",
            Event::ServerErrors => "server_errors",
            Event::ConnectFailures => "connect_failures",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Event::Crashes => "crashes",
            Event::ErrorExits => "exits with an error",
            Event::OomKills => "OOM kills",
            Event::ResetsOut => "connections reset by the service",
            Event::Retransmits => "retransmitted segments",
            Event::ServerErrors => "responses with a 5xx status",
            Event::ConnectFailures => "connections that failed to open",
        }
    }
}

/// One instance in one window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// The cgroup path: names the instance.
    pub instance: Arc<str>,
    /// Changes when the instance was replaced.
    pub incarnation: u64,
    /// By [`Indicator`] as index; NaN where missing. JSON has null there.
    #[serde(with = "nan_as_null")]
    pub values: [f64; Indicator::COUNT],
    /// By [`Event`] as index; `None` where the hook is missing, and of 5xx responses where no status can be read.
    pub events: [Option<u64>; Event::COUNT],
    /// Turnarounds in this tick (not merged): the exposure of the counts.
    pub turnarounds: u64,
    /// Seconds that the instance was watched in this tick.
    pub seconds: f64,
    #[serde(default)]
    pub around: Around,
}

/// What keeps an instance from working, besides itself. Unknown, or without a limit: `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Around {
    /// Share of the periods of its CPU limit in which it was held back, 0 to 1; of its own or one above it, the larger.
    pub throttled: Option<f64>,
    /// The path of the cgroup whose limit that is; `None` where it is one above it of which nobody told which.
    pub throttled_by: Option<Arc<str>>,
    /// Its own or one above it, the smaller.
    pub memory_limit_bytes: Option<u64>,
    /// Of those whose use is known, its own among them, the one that has the least left: it need not be the smallest.
    pub memory: Option<MemoryLimit>,
    /// There is one above it, too, of which it is not known whose it is or how full.
    pub unknown_memory_limit: bool,
    /// Time that its tasks waited for a CPU in this tick.
    pub wait_ns: Option<u64>,
    /// Of that, the time in which processes of other deployments or the kernel had the CPU.
    pub wait_for_others_ns: Option<u64>,
}

/// The machine around a deployment. Unknown is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Share of the machine's CPU time that others than the deployment's instances used, 0 to 1.
    pub cpu_others: Option<f64>,
    /// Share of the machine's memory that is available to new work, 0 to 1.
    pub memory_available: Option<f64>,
    pub memory_available_bytes: Option<u64>,
}

/// Both roles over one tick.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Window {
    pub deployment: Arc<str>,
    /// Counts up by one per tick, from 0.
    pub index: u64,
    /// CLOCK_MONOTONIC end of the tick.
    pub t_ns: u64,
    pub span_ns: u64,
    pub stable: Vec<Reading>,
    pub canary: Vec<Reading>,
    /// Whether the sensor lost nothing in this tick, and the machine did not sleep. Indicators of a window that is not clean are not bet on.
    pub clean: bool,
    #[serde(default)]
    pub node: Node,
}

mod build;

pub use build::{Windower, cpu_ns};

mod nan_as_null {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Indicator;

    pub fn serialize<S: Serializer>(values: &[f64; Indicator::COUNT], s: S) -> Result<S::Ok, S::Error> {
        values.map(|v| v.is_finite().then_some(v)).serialize(s)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<[f64; Indicator::COUNT], D::Error> {
        Ok(<[Option<f64>; Indicator::COUNT]>::deserialize(d)?.map(|v| v.unwrap_or(f64::NAN)))
    }
}
