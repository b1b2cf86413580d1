//! What one tick counted: counts and histograms, never rates. Groups that could not be measured are `None`, never zero.

use canary_common::histogram;
use serde::{Deserialize, Serialize};

use crate::targets::Target;

/// Everything that one tick of the sensor brings. Times are CLOCK_MONOTONIC nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tick {
    /// End of the tick.
    pub t_ns: u64,
    /// The same moment on the wall clock, for people only.
    pub unix_ms: u64,
    /// Length of the tick.
    pub span_ns: u64,
    pub samples: Vec<Sample>,
    #[serde(default)]
    pub quality: Quality,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
}

/// What the kernel counted for one target in one tick.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub target: Target,
    /// How much of the tick the target was tracked for.
    pub span_ns: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reclaim: Option<Reclaim>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retransmits: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<Lifecycle>,
    /// `None` where the `mark_victim` hook is not live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttling: Option<Throttling>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// `cpu.stat` usage_usec of the tick: the kernel's own book of on-CPU time, kept beside ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_cpu_usec: Option<u64>,
    /// `cgroup.events` populated: whether any process lives in the cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub populated: Option<bool>,
}

/// From the sched hooks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    pub on_cpu_ns: u64,
    pub runq_wait_ns: u64,
    pub runq_waits: u64,
    pub switches_voluntary: u64,
    pub switches_involuntary: u64,
    pub runq_wait: Histogram,
}

/// From the reclaim hooks: task time spent reclaiming memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reclaim {
    pub stall_ns: u64,
    pub stalls: u64,
}

/// From the cgroup_skb hooks. Bytes as the IP layer sees them; payload is TCP and UDP payload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Network {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_payload_bytes: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_payload_bytes: u64,
    pub turnarounds: u64,
    pub turnaround_ns: u64,
    pub resets_in: u64,
    pub resets_out: u64,
    pub turnaround: Histogram,
}

/// From `sched_process_exit`: how processes ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lifecycle {
    pub exits: u64,
    /// Ended with a status other than 0.
    pub exits_error: u64,
    /// Ended by a fault signal (SIGSEGV, SIGABRT and the like).
    pub crashes: u64,
    /// Ended by another signal.
    pub exits_killed: u64,
}

/// From the PSI files: differences of `total=`, in microseconds of wall time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    pub cpu_some_usec: u64,
    pub memory_some_usec: u64,
    pub memory_full_usec: u64,
    pub io_some_usec: u64,
    pub io_full_usec: u64,
}

/// From `cpu.stat`, where the cpu controller is enabled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Throttling {
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_usec: u64,
}

/// Memory in use at the end of the tick (a level, not a difference).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    pub in_use_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    pub source: MemorySource,
}

/// Where a memory reading comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemorySource {
    /// `memory.current` of cgroup v2.
    MemoryCurrent,
    /// Sum of the resident sets of the cgroup's processes, where cgroup2 has no memory controller.
    ResidentSum,
}

/// A log-linear histogram of nanoseconds, sparse: (bucket of [`histogram`], count), ascending.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Histogram(pub Vec<(u16, u64)>);

impl Histogram {
    pub fn from_counts(counts: &[u64; histogram::BUCKETS]) -> Self {
        Self(counts.iter().enumerate().filter(|(_, n)| **n > 0).map(|(b, n)| (b as u16, *n)).collect())
    }

    pub fn count(&self) -> u64 {
        self.0.iter().map(|(_, n)| n).sum()
    }

    /// Adds another histogram's counts.
    pub fn merge(&mut self, other: &Histogram) {
        for &(bucket, n) in &other.0 {
            match self.0.binary_search_by_key(&bucket, |&(b, _)| b) {
                Ok(i) => self.0[i].1 += n,
                Err(i) => self.0.insert(i, (bucket, n)),
            }
        }
    }

    /// The `q` quantile in nanoseconds (0 < q <= 1), interpolated linearly inside its bucket; `None` when empty.
    pub fn quantile_ns(&self, q: f64) -> Option<f64> {
        let total = self.count();
        let rank = q * total as f64;
        let mut below = 0.0;
        for &(bucket, n) in &self.0 {
            if below + n as f64 >= rank {
                let lower = histogram::lower_bound_ns(bucket.into()) as f64;
                let upper = histogram::upper_bound_ns(bucket.into()).map_or(lower, |u| u as f64);
                return Some(lower + (upper - lower) * ((rank - below) / n as f64).clamp(0.0, 1.0));
            }
            below += n as f64;
        }
        None
    }
}

/// How far one tick can be trusted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Hooks that are not live, by name, with the reason. What they would have counted is absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks_missing: Vec<String>,
    /// Events that the kernel programs could not count in this tick.
    #[serde(default)]
    pub lost_events: u64,
    /// Targets that match the configuration but have no slot.
    #[serde(default)]
    pub targets_without_slot: u64,
}

impl Quality {
    pub fn is_clean(&self) -> bool {
        self.lost_events == 0 && self.targets_without_slot == 0
    }
}

/// The whole machine over the tick, for `/monitor` and to tell a node problem from a version problem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Share of all CPUs that was busy, 0 to 1.
    pub cpu_busy: f64,
    pub cpus: u32,
    pub memory_total_bytes: u64,
    pub memory_available_bytes: u64,
    /// Bytes over all interfaces but loopback.
    pub network_rx_bytes: u64,
    pub network_tx_bytes: u64,
}
