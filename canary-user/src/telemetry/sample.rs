//! What one tick counted: counts and histograms, never rates. Groups that could not be measured are `None`, never zero.

mod limits;

use std::{collections::BTreeMap, sync::Arc};

use canary_common::histogram;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use limits::*;

use super::OwnCost;
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
    /// By deployment: what the verdict rests on besides what was counted. The sensor knows nothing of it: the guard says it to
    /// a recording.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<Arc<str>, Limits>,
    /// What the guard itself cost until now; not of interest in a recording.
    #[serde(skip)]
    pub own: Option<OwnCost>,
}

/// What the limits of a quarantine that an earlier life of the guard began make of the verdict on a deployment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// They ended since the tick before: what the judge saw under them is dropped before this tick is judged.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ended: bool,
    /// Id of the decision under whose limits the canary is: what condemned it then stands in for what the judge finds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under: Option<String>,
    /// What condemned it, in the guard's own words: in the first tick under that decision's limits only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condemned: Option<serde_json::Value>,
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
    /// `None` where no response began with a plain HTTP/1 status line: encrypted, another protocol, or none at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Http>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dependency: Option<Dependency>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip: Option<RoundTrip>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<Connections>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retransmits: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<Lifecycle>,
    /// How often each exit code other than 0 was seen, as `wait` encodes it: status times 256, or the signal, plus 128
    /// where it dumped core. Ascending. Short of those that the quality counts as `lost_exits`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_codes: Option<Vec<(u32, u64)>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts: Option<Starts>,
    /// `None` where the `mark_victim` hook is not live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttling: Option<Throttling>,
    /// `None` where no cgroup above has a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<Above>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Page faults that had to wait for a disk. On machines with many targets not read in every tick: then the next one
    /// covers the time since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub major_faults: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_events: Option<MemoryEvents>,
    /// As seldom as `major_faults`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_io: Option<BlockIo>,
    /// `None` where the target shares its network namespace with others: the kernel counts by namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_queue: Option<ListenQueue>,
    /// `cpu.stat` usage_usec of the tick: the kernel's own book of on-CPU time, kept beside ours. On machines with many targets
    /// not read in every tick, and missing then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_cpu_usec: Option<u64>,
    /// `cgroup.events` populated: whether any process lives in the cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub populated: Option<bool>,
}

impl Sample {
    /// A sample in which nothing could be measured.
    pub fn unmeasured(target: Target, span_ns: u64) -> Self {
        Self {
            target,
            span_ns,
            cpu: None,
            reclaim: None,
            network: None,
            http: None,
            dependency: None,
            round_trip: None,
            connections: None,
            retransmits: None,
            lifecycle: None,
            exit_codes: None,
            starts: None,
            oom_kills: None,
            pressure: None,
            throttling: None,
            above: None,
            memory: None,
            major_faults: None,
            memory_events: None,
            block_io: None,
            listen_queue: None,
            kernel_cpu_usec: None,
            populated: None,
        }
    }
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
    /// Who had the CPU that `runq_wait_ns` was waited for; `None` in recordings of programs that did not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited_for: Option<WaitedFor>,
}

/// `runq_wait_ns` by who had the CPU last before the waiting task got it. Waits for the version itself and for the other
/// role are the versions' doing; those for other cgroups and for the kernel are the environment's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitedFor {
    /// Instances of the same deployment and role, this one among them.
    pub own_ns: u64,
    /// Instances of the same deployment's other role.
    pub other_role_ns: u64,
    /// Processes of any other cgroup.
    pub other_cgroup_ns: u64,
    /// Kernel threads.
    pub kernel_ns: u64,
    /// Nobody: the CPU was idle and had to wake up.
    pub idle_ns: u64,
}

impl WaitedFor {
    pub fn sum_ns(&self) -> u64 {
        // Only a damaged recording comes near the end of 64 bits.
        let parts = [self.own_ns, self.other_role_ns, self.other_cgroup_ns, self.kernel_ns, self.idle_ns];
        parts.into_iter().fold(0, u64::saturating_add)
    }
}

/// From the reclaim hooks: task time spent reclaiming memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reclaim {
    pub stall_ns: u64,
    pub stalls: u64,
    /// Histogram of the stalls; `None` in recordings of programs that did not keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall: Option<Histogram>,
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

/// From the same hooks: responses by the class of their HTTP status. 1xx are interim ones, before another response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Http {
    pub responses_1xx: u64,
    pub responses_2xx: u64,
    pub responses_3xx: u64,
    pub responses_4xx: u64,
    pub responses_5xx: u64,
}

/// From the same hooks: what the target waited for, on connections that it spoke on first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Dependency {
    pub turnarounds: u64,
    pub turnaround_ns: u64,
    pub rx_payload_bytes: u64,
    pub tx_payload_bytes: u64,
    pub turnaround: Histogram,
}

/// From the same hooks: TCP's smoothed round-trip time, a sample at the end of each turnaround, summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundTrip {
    /// To clients.
    pub sum_ns: u64,
    pub samples: u64,
    /// To dependencies.
    pub dependency_sum_ns: u64,
    pub dependency_samples: u64,
}

/// From the `sock_ops` hook: TCP connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// Opened by others: the handshake was completed, whether or not the service has accepted them.
    pub accepted: u64,
    /// Opened by the target.
    pub opened: u64,
    /// From SYN to its answer, summed over those.
    pub open_ns: u64,
    /// Asked for and never established: refused, unreachable, timed out, or given up before an answer came.
    pub failed: u64,
    /// Of these, those that were answered by a reset.
    pub refused: u64,
}

/// From the fork, exec and exit hooks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Starts {
    /// Processes (not threads) that were forked by processes of the target.
    pub forked: u64,
    /// Programs that were executed.
    pub executed: u64,
    /// Times that another program took the place of the main process, which had ended; or the cgroup was made again.
    pub restarts: u64,
}

/// From `sched_process_exit`: how processes ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lifecycle {
    pub exits: u64,
    /// Ended with a status other than 0.
    pub exits_error: u64,
    /// Ended by a fault signal (SIGSEGV, SIGABRT and the like).
    pub crashes: u64,
    /// Ended by another signal. Those that the OOM killer ended are in [`Sample::oom_kills`] and in none of these three, where its
    /// hook is live.
    pub exits_killed: u64,
    /// Dumped core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core_dumps: Option<u64>,
}

/// From the PSI files: differences of `total=`, in microseconds of wall time. On machines with many targets those of CPU and
/// I/O are not read in every tick: then the next one covers the time since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_some_usec: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_full_usec: Option<u64>,
    pub memory_some_usec: u64,
    pub memory_full_usec: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_some_usec: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_full_usec: Option<u64>,
}

/// Memory in use at the end of the tick (a level, not a difference).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    pub in_use_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    /// By how much it grew since it was last read: in the tick, or on machines with many targets, where it is not read in every tick,
    /// since that one. Missing in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growth_bytes: Option<i64>,
    /// Of processes: heaps and stacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anon_bytes: Option<u64>,
    /// Of files, shared memory included: by a process sum what is mapped, else all of the page cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
    pub source: MemorySource,
}

/// Where a memory reading comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemorySource {
    /// `memory.current` of cgroup v2.
    MemoryCurrent,
    /// `memory.usage_in_bytes` of cgroup v1, where its memory controller has a cgroup of the same path.
    UsageInBytes,
    /// Sum of the resident sets of the cgroup's processes, where cgroup2 has no memory controller.
    ResidentSum,
}

/// From `memory.events` of cgroup v2: how often what was tried against the limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryEvents {
    /// Throttled and made to reclaim at `memory.high`.
    pub high: u64,
    /// About to exceed `memory.max`.
    pub max: u64,
    /// At the limit, and reclaim did not help.
    pub oom: u64,
    /// Processes killed by the OOM killer.
    pub oom_kill: u64,
}

/// From `io.stat`, over all devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockIo {
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub reads: u64,
    pub writes: u64,
}

/// From the network namespace's `netstat`, where the target has one to itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenQueue {
    /// Connections that found the queue of a listening socket full.
    pub overflows: u64,
    /// Connections that a listening socket dropped for this or another reason.
    pub drops: u64,
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
        self.0.iter().map(|(_, n)| *n).fold(0, u64::saturating_add)
    }

    /// Adds another histogram's counts.
    pub fn merge(&mut self, other: &Histogram) {
        for &(bucket, n) in &other.0 {
            match self.0.binary_search_by_key(&bucket, |&(b, _)| b) {
                Ok(i) => self.0[i].1 = self.0[i].1.saturating_add(n),
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Quality {
    /// Hooks that are not live, by name, with the reason. What they would have counted is absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks_missing: Vec<String>,
    /// Events that the kernel programs could not count in this tick.
    #[serde(default)]
    pub lost_events: u64,
    /// Abnormal ends of processes that were counted in this tick and are in no `exit_codes`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost_exits: u64,
    /// Targets that match the configuration but have no slot.
    #[serde(default)]
    pub targets_without_slot: u64,
    /// Time that the machine slept in this tick. It is part of no span; such a tick is not judged.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub suspended_ns: u64,
    /// By how much somebody set the wall clock in this tick. Nothing is computed by that clock.
    #[serde(default, skip_serializing_if = "is_no_step")]
    pub wall_clock_step_ms: i64,
}

// As serde asks for it, by reference.
fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn is_no_step(n: &i64) -> bool {
    *n == 0
}

fn is_false(said: &bool) -> bool {
    !*said
}

impl Quality {
    /// Whether nothing was lost of what is counted, and the machine was awake: only then is a window bet on. What spans a sleep, as
    /// a turnaround whose answer came after it, says nothing of the version.
    pub fn is_clean(&self) -> bool {
        self.lost_events == 0 && self.suspended_ns == 0
    }

    /// Whether every target is counted, too. Those that are not say nothing against the others, but an action
    /// cannot be verified on what is not seen.
    pub fn is_complete(&self) -> bool {
        self.is_clean() && self.targets_without_slot == 0
    }
}

/// The whole machine over the tick, for `/monitor` and to tell a node problem from a version problem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Machine {
    /// Share of all CPUs that was busy, 0 to 1.
    pub cpu_busy: f64,
    pub cpus: u32,
    pub memory_total_bytes: u64,
    pub memory_available_bytes: u64,
    /// Bytes over the network cards; where there is none, over all interfaces but loopback.
    pub network_rx_bytes: u64,
    pub network_tx_bytes: u64,
}
