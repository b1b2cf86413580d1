//! The layout that the kernel programs and the daemon share.
//!
//! Goes in: nothing. Comes out: plain `repr(C)` types, the same bytes on both sides, and the histogram arithmetic.
//! Refuses: padding, bools and anything whose size could differ between the two compilers.
//!
//! Every counter only ever grows while its slot belongs to one target; the daemon reads it once per tick and takes
//! differences. The unit of each counter stands in its name.
#![no_std]

pub mod histogram;

/// How many targets one daemon can track. A slot is an index into the per-CPU counter arrays.
pub const MAX_SLOTS: usize = 512;

/// How many cgroups (targets and their descendants) can be mapped to slots.
pub const MAX_CGROUPS: usize = 4096;

/// Entries of the pid table; a power of two. Two live tasks whose pids differ by a multiple of this share an entry,
/// and the displaced task's wait is counted as lost, not guessed.
pub const PID_TABLE: usize = 1 << 16;

/// Entries of each CPU's cgroup cache; a power of two.
pub const CGROUP_CACHE: usize = 1024;

/// Ancestor levels at which the kernel programs look for a target above an unknown cgroup.
pub const MAX_LEVELS: usize = 8;

/// Slot value that means "this cgroup belongs to no target".
pub const UNTRACKED: u32 = u32::MAX;

/// What the kernel programs count for one target on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Time on a CPU, by `sched_switch` differences of `bpf_ktime_get_ns`.
    pub on_cpu_ns: u64,
    /// Time between becoming runnable (woken, new or preempted) and getting a CPU.
    pub runq_wait_ns: u64,
    /// How many waits `runq_wait_ns` sums.
    pub runq_waits: u64,
    /// Context switches away because the task blocked.
    pub switches_voluntary: u64,
    /// Context switches away while the task could have gone on.
    pub switches_involuntary: u64,
    /// Task time spent in direct or memcg reclaim.
    pub reclaim_ns: u64,
    /// How many reclaims `reclaim_ns` sums.
    pub reclaims: u64,
    /// Bytes received, IP header and up, as `skb->len` counts them at the cgroup hook.
    pub rx_bytes: u64,
    /// Packets received; a GRO/GSO super-packet counts its segments.
    pub rx_packets: u64,
    /// TCP and UDP payload bytes received.
    pub rx_payload_bytes: u64,
    /// Bytes sent, IP header and up.
    pub tx_bytes: u64,
    /// Packets sent; a GSO super-packet counts its segments.
    pub tx_packets: u64,
    /// TCP and UDP payload bytes sent.
    pub tx_payload_bytes: u64,
    /// Turnarounds: last request byte in to first response byte out, on sockets that were spoken to first.
    pub turnarounds: u64,
    /// Sum of the time those turnarounds took.
    pub turnaround_ns: u64,
    /// TCP resets received.
    pub resets_in: u64,
    /// TCP resets sent.
    pub resets_out: u64,
    /// TCP segments retransmitted.
    pub retransmits: u64,
    /// Processes that ended (thread group leaders), however they ended.
    pub exits: u64,
    /// Processes that ended with a status other than 0.
    pub exits_error: u64,
    /// Processes that a fault signal ended (SIGSEGV, SIGABRT, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS).
    pub crashes: u64,
    /// Processes that any other signal ended.
    pub exits_killed: u64,
    /// Processes that the kernel's OOM killer chose, counted when they exit.
    pub oom_kills: u64,
}

/// Histogram of one signal of one target on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Buckets {
    pub counts: [u64; histogram::BUCKETS],
}

impl Default for Buckets {
    fn default() -> Self {
        Self { counts: [0; histogram::BUCKETS] }
    }
}

/// What one CPU could not count. Anything above zero lowers the data quality of the tick it appears in.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Waits lost because two live tasks share a pid table entry.
    pub pid_collisions: u64,
    /// Rare facts that did not fit into the ring buffer.
    pub facts: u64,
    /// Packets of a tracked cgroup whose socket state could not be had.
    pub socket_state: u64,
}

/// What the daemon tells the kernel programs about the tracked cgroups.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Levels of the cgroup tree (root is 0) at which targets live, the deepest first.
    pub levels: [u32; MAX_LEVELS],
    /// How many of `levels` are in use.
    pub level_count: u32,
    /// Changes with every change of the target set, so that cached look-ups of before are not believed.
    pub generation: u32,
}

/// A rare fact, sent through the ring buffer: an abnormal end of a process in a tracked cgroup.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    pub at_ns: u64,
    pub cgroup_id: u64,
    pub slot: u32,
    pub pid: u32,
    /// `task_struct.exit_code`: the low seven bits are the signal, bit 7 a core dump, the next byte the status.
    pub exit_code: u32,
    /// 1 where the OOM killer chose the process.
    pub oom: u32,
}

#[cfg(feature = "user")]
mod pod {
    // SAFETY: `repr(C)`, only unsigned integers, no padding: every bit pattern is a value.
    unsafe impl aya::Pod for super::Counters {}
    // SAFETY: as above, one array of u64.
    unsafe impl aya::Pod for super::Buckets {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Lost {}
    // SAFETY: ten u32, no padding.
    unsafe impl aya::Pod for super::Settings {}
    // SAFETY: two u64 and four u32, no padding.
    unsafe impl aya::Pod for super::Exit {}
}
