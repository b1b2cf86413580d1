//! All maps. BTF maps throughout: an object that mixes them with legacy maps gets its BTF refused.

use aya_ebpf::{
    btf_maps::{Array, HashMap, PerCpuArray, RingBuf, SkStorage},
    macros::btf_map,
};
use canary_common::{
    Buckets, CGROUP_CACHE, Counters, Exit, Lost, MAX_CGROUPS, MAX_SLOTS, PID_TABLE, Settings,
    histogram::{self, BUCKETS},
};

/// Cgroup id of each target to its slot. Written by the daemon.
#[btf_map]
pub static CGROUPS: HashMap<u64, u32, MAX_CGROUPS> = HashMap::new();

/// One element, written by the daemon.
#[btf_map]
pub static SETTINGS: Array<Settings, 1> = Array::new();

/// What the last look-up of a cgroup said, tracked or not.
#[repr(C)]
pub struct Cached {
    pub cgroup_id: u64,
    pub generation: u32,
    pub slot: u32,
}

/// Direct-mapped by the low bits of the cgroup id. Arrays are inlined by the verifier, hashes are not.
#[btf_map]
pub static CACHE: PerCpuArray<Cached, CGROUP_CACHE> = PerCpuArray::new();

#[btf_map]
pub static COUNTERS: PerCpuArray<Counters, MAX_SLOTS> = PerCpuArray::new();

#[btf_map]
pub static RUNQ_WAIT: PerCpuArray<Buckets, MAX_SLOTS> = PerCpuArray::new();

#[btf_map]
pub static TURNAROUND: PerCpuArray<Buckets, MAX_SLOTS> = PerCpuArray::new();

/// What is known about a task of a tracked cgroup.
#[repr(C)]
pub struct Task {
    pub pid: u32,
    pub slot: u32,
    /// When it became runnable without having a CPU yet; 0 otherwise.
    pub runnable_ns: u64,
    /// When it began to reclaim memory; 0 otherwise.
    pub reclaim_ns: u64,
}

/// Direct-mapped by the low bits of the pid.
#[btf_map]
pub static TASKS: Array<Task, PID_TABLE> = Array::new();

/// When this CPU's current stretch began that is not charged to anyone yet.
#[btf_map]
pub static SINCE_NS: PerCpuArray<u64, 1> = PerCpuArray::new();

#[btf_map]
pub static LOST: PerCpuArray<Lost, 1> = PerCpuArray::new();

/// What is known about a socket.
#[repr(C)]
pub struct Socket {
    /// When the last payload byte came in.
    pub last_in_ns: u64,
    pub slot: u32,
    pub generation: u32,
    pub side: u32,
    /// 1 while a request waits for the first byte of its response.
    pub pending: u32,
}

#[btf_map]
pub static SOCKETS: SkStorage<Socket> = SkStorage::new();

/// Thread group ids that the OOM killer chose and that have not exited yet.
#[btf_map]
pub static VICTIMS: HashMap<u32, u64, 1024> = HashMap::new();

/// Rare facts only; the counters hold everything that is frequent.
#[btf_map]
pub static FACTS: RingBuf<Exit, { 64 * 1024 }> = RingBuf::new();

/// Counts one value in a slot's histogram.
#[inline(always)]
pub fn observe(histogram: &PerCpuArray<Buckets, MAX_SLOTS>, slot: u32, ns: u64) {
    let Some(buckets) = histogram.get_ptr_mut(slot) else { return };
    let bucket = histogram::bucket(ns);
    // The compiler proves the index in bounds and drops the check that the verifier wants to see; a volatile read
    // hides the proof from it.
    // SAFETY: a local; and a live per-CPU element.
    unsafe {
        let bucket = (&raw const bucket).read_volatile();
        if bucket < BUCKETS {
            let count = (&raw mut (*buckets).counts).cast::<u64>().add(bucket);
            *count += 1;
        }
    }
}
