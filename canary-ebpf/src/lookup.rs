//! From a cgroup to the slot of the target that it belongs to.

use aya_ebpf::{
    Global,
    bindings::__sk_buff,
    helpers::generated::{
        bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_smp_processor_id,
        bpf_skb_ancestor_cgroup_id, bpf_skb_cgroup_id,
    },
};
use canary_common::{CGROUP_CACHE, Counters, MAX_LEVELS, MAX_SLOTS, Settings, UNTRACKED};

use crate::maps::{CACHE, CGROUPS, COUNTERS, SETTINGS};

/// CPUs that this machine can have; the arrays that are per CPU were made for as many.
#[unsafe(no_mangle)]
static CPUS: Global<u32> = Global::new(1);

/// Slot of the running task's cgroup, or `UNTRACKED`. A descendant counts as the target above it.
#[inline(always)]
pub fn current_slot() -> u32 {
    // SAFETY: takes nothing and returns a number.
    current_slot_of(unsafe { bpf_get_current_cgroup_id() })
}

/// The same for a caller that knows the id: that of the running task, or the one it was in when its stretch began.
#[inline(always)]
pub fn current_slot_of(id: u64) -> u32 {
    let Some(settings) = settings() else { return UNTRACKED };
    let Some(cached) = CACHE.get_ptr_mut(id as u32 & (CGROUP_CACHE as u32 - 1)) else { return UNTRACKED };
    // SAFETY: a live per-CPU element; nothing else on this CPU runs between these accesses (see main.rs).
    unsafe {
        if (*cached).cgroup_id == id && (*cached).generation == settings.generation {
            return (*cached).slot;
        }
        // Before the look-up: what it finds is as old as this at least.
        let generation = (&raw const settings.generation).read_volatile();
        if bpf_get_current_cgroup_id() != id {
            // Moved meanwhile: its ancestors are those of another cgroup now.
            return slot_of(id).unwrap_or(UNTRACKED);
        }
        let slot = resolve(id, settings, |level| bpf_get_current_ancestor_cgroup_id(level));
        (*cached).cgroup_id = id;
        (*cached).generation = generation;
        (*cached).slot = slot;
        slot
    }
}

/// Slot of any cgroup, as far as it can be told without its ancestors: where it is a target itself, or where this CPU has
/// met it.
#[inline(always)]
pub fn known_slot(id: u64) -> u32 {
    if let Some(slot) = slot_of(id) {
        return slot;
    }
    let Some(settings) = settings() else { return UNTRACKED };
    let Some(cached) = CACHE.get_ptr_mut(id as u32 & (CGROUP_CACHE as u32 - 1)) else { return UNTRACKED };
    // SAFETY: as in `current_slot_of`.
    unsafe {
        if (*cached).cgroup_id == id && (*cached).generation == settings.generation {
            return (*cached).slot;
        }
    }
    UNTRACKED
}

/// Slot of a packet's socket's cgroup, or `UNTRACKED`.
#[inline(always)]
pub fn skb_slot(skb: *mut __sk_buff, settings: &Settings) -> u32 {
    // SAFETY: `skb` is the context that the kernel passed to the program.
    unsafe { resolve(bpf_skb_cgroup_id(skb), settings, |level| bpf_skb_ancestor_cgroup_id(skb, level)) }
}

#[inline(always)]
fn resolve(id: u64, settings: &Settings, ancestor: impl Fn(i32) -> u64) -> u32 {
    if let Some(slot) = slot_of(id) {
        return slot;
    }
    for i in 0..MAX_LEVELS {
        if i >= settings.level_count as usize {
            break;
        }
        if let Some(slot) = slot_of(ancestor(settings.levels[i] as i32)) {
            return slot;
        }
    }
    UNTRACKED
}

#[inline(always)]
fn slot_of(cgroup_id: u64) -> Option<u32> {
    // SAFETY: the value is read at once; the daemon replaces entries whole.
    unsafe { CGROUPS.get(cgroup_id) }.copied()
}

#[inline(always)]
pub fn settings() -> Option<&'static Settings> {
    SETTINGS.get(0)
}

/// This CPU's counters of a slot; `None` for `UNTRACKED`.
#[inline(always)]
pub fn counters(slot: u32) -> Option<*mut Counters> {
    if slot >= MAX_SLOTS as u32 {
        return None;
    }
    // SAFETY: takes nothing and returns a number.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let cpus = CPUS.load();
    // Elements of one slot lie together, so that the daemon maps no more memory than the slots in use take.
    if cpu < cpus { COUNTERS.get_ptr_mut(slot * cpus + cpu) } else { None }
}
