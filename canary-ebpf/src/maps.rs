//! All maps. BTF maps throughout: an object that mixes them with legacy maps gets its BTF refused.

use core::arch::asm;

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
    helpers::generated::bpf_get_smp_processor_id,
    macros::btf_map,
};
use canary_common::{
    BANKS, Buckets, CGROUP_CACHE, Cached, CgroupPath, Counters, Exit, HISTOGRAM_WORDS, Lost, MAX_CGROUPS, MAX_SLOTS,
    MAX_VICTIMS, Main, Remade, Settings, Victim, histogram,
};

use crate::{cpu::Stretch, socket::Sockets};

/// Cgroup id of each target to its slot. Written by the daemon.
#[btf_map]
pub static CGROUPS: HashMap<u64, u32, MAX_CGROUPS> = HashMap::new();

/// One element, written by the daemon.
#[btf_map]
pub static SETTINGS: Array<Settings, 1> = Array::new();

/// Direct-mapped by the low bits of the cgroup id. Arrays are inlined by the verifier, hashes are not.
#[btf_map]
pub static CACHE: PerCpuArray<Cached, CGROUP_CACHE> = PerCpuArray::new();

/// Element `slot * CPUS + cpu`; the daemon sets the number of elements, and maps them into its own memory.
#[btf_map]
pub static COUNTERS: Array<Counters, MAX_SLOTS, { BPF_F_MMAPABLE as usize }> = Array::new();

/// By slot, for all CPUs: what is counted while the element of the slot and the CPU in `COUNTERS` is in use (see `outgoing`). The
/// daemon adds both up.
#[btf_map]
pub static CONTENDED: Array<Counters, MAX_SLOTS, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Histograms of one signal, one for each slot.
pub type Histograms = Array<Buckets, MAX_SLOTS>;

#[btf_map]
pub static RUNQ_WAIT: Histograms = Array::new();

#[btf_map]
pub static STALL: Histograms = Array::new();

#[btf_map]
pub static TURNAROUND: Histograms = Array::new();

/// Turnarounds of others, that a target waited for.
#[btf_map]
pub static DEPENDENCY: Histograms = Array::new();

/// By slot: the generation from which on it belongs to its owner. Written by the daemon.
#[btf_map]
pub static OWNED_SINCE: Array<u32, MAX_SLOTS> = Array::new();

/// Twice the number of a slot's deployment, plus its role. Written by the daemon.
#[btf_map]
pub static GROUPS: Array<u32, MAX_SLOTS> = Array::new();

/// One for each CPU; the daemon sets their number. Not a per-CPU array, because moves of tasks reach over.
#[btf_map]
pub static STRETCHES: Array<Stretch, 1> = Array::new();

/// When a thread began to reclaim memory.
#[btf_map]
pub static RECLAIMS: LruHashMap<u32, u64, 4096> = LruHashMap::new();

/// Cgroups made and removed, anywhere on the machine.
#[btf_map]
pub static TREE_CHANGES: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Where a target is or was, to its slot: a cgroup that is made there is the same target's. Written by the daemon.
#[btf_map]
pub static PLACES: HashMap<CgroupPath, u32, MAX_SLOTS, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// For the path that is being looked up: too large for the stack.
#[btf_map]
pub static PATH: PerCpuArray<CgroupPath, 1> = PerCpuArray::new();

/// Each cgroup that was put into `CGROUPS` by the kernel programs, so that the daemon can take it out again.
#[btf_map]
pub static REMADE: RingBuf<Remade, { 128 * 1024 }> = RingBuf::new();

#[btf_map]
pub static LOST: PerCpuArray<Lost, 1> = PerCpuArray::new();

#[btf_map]
pub static SOCKETS: Sockets = Sockets::new();

/// When payload reached a listening socket, by connection: requests that came before their connection's own socket.
#[btf_map]
pub static EARLY: LruHashMap<u64, u64, 1024> = LruHashMap::new();

/// Processes that the OOM killer chose, by the low bits of their number. No hash that drops its oldest entries: it deals them out
/// to CPUs by the hundred, and on a machine with many drops one that was made a moment ago.
#[btf_map]
pub static VICTIMS: Array<Victim, MAX_VICTIMS> = Array::new();

/// The main process of each slot. The daemon writes what it finds when it begins to watch; the exit and exec hooks follow
/// from there.
#[btf_map]
pub static MAIN: Array<Main, MAX_SLOTS> = Array::new();

/// Rare facts only; the counters hold everything that is frequent.
#[btf_map]
pub static FACTS: RingBuf<Exit, { 64 * 1024 }> = RingBuf::new();

/// Counts one value in a slot's histogram.
#[inline(always)]
pub fn observe(histogram: &Histograms, slot: u32, ns: u64) {
    let Some(buckets) = histogram.get_ptr_mut(slot) else { return };
    let bucket = histogram::bucket(ns);
    // SAFETY: a live element; and a local.
    unsafe {
        let bank = bpf_get_smp_processor_id() as usize & (BANKS - 1);
        let word = bank * HISTOGRAM_WORDS + bucket / 2;
        // The compiler proves the index in bounds and drops the check that the verifier wants to see; a volatile read
        // hides the proof from it.
        let word = (&raw const word).read_volatile();
        if word < BANKS * HISTOGRAM_WORDS {
            add((&raw mut (*buckets).words).cast::<u64>().add(word), 1 << (32 * (bucket as u64 & 1)));
        }
    }
}

/// Atomic, because CPUs may share a bank. `core` has no such addition for this target.
///
/// # Safety
/// `word` points into a live element.
#[inline(always)]
pub unsafe fn add(word: *mut u64, n: u64) {
    // SAFETY: one addition in memory, to where the caller promises.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) word, in(reg) n, options(nostack)) };
}
