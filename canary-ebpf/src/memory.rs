//! Time that tasks spend reclaiming memory, for their own cgroup's limit or for the whole machine's sake.
//!
//! PSI counts more (refaults, swap-in, throttling at memory.high) and is the primary source where it is on; these
//! hooks give task time and work where it is off.

use aya_ebpf::{
    EbpfContext as _, helpers::generated::bpf_ktime_get_ns, macros::btf_tracepoint, programs::BtfTracePointContext,
};
use canary_common::UNTRACKED;

use crate::{
    lookup::{counters, current_slot},
    maps::{RECLAIMS, STALL, observe},
};

#[btf_tracepoint(function = "mm_vmscan_memcg_reclaim_begin")]
pub fn memcg_reclaim_begin(ctx: BtfTracePointContext) -> i32 {
    begin(ctx.pid())
}

#[btf_tracepoint(function = "mm_vmscan_memcg_reclaim_end")]
pub fn memcg_reclaim_end(ctx: BtfTracePointContext) -> i32 {
    end(ctx.pid())
}

#[btf_tracepoint(function = "mm_vmscan_direct_reclaim_begin")]
pub fn direct_reclaim_begin(ctx: BtfTracePointContext) -> i32 {
    begin(ctx.pid())
}

#[btf_tracepoint(function = "mm_vmscan_direct_reclaim_end")]
pub fn direct_reclaim_end(ctx: BtfTracePointContext) -> i32 {
    end(ctx.pid())
}

#[inline(always)]
fn begin(pid: u32) -> i32 {
    if current_slot() != UNTRACKED {
        // SAFETY: reads the clock. The table drops its oldest entry where it is full.
        let _ = RECLAIMS.insert(pid, unsafe { bpf_ktime_get_ns() }, 0);
    }
    0
}

#[inline(always)]
fn end(pid: u32) -> i32 {
    // SAFETY: the entry is this thread's own, and read at once.
    let Some(began_ns) = unsafe { RECLAIMS.get(pid) }.copied() else { return 0 };
    let _ = RECLAIMS.remove(pid);
    let slot = current_slot();
    let Some(counters) = counters(slot) else { return 0 };
    // SAFETY: a live per-CPU element; reads the clock.
    unsafe {
        let took_ns = bpf_ktime_get_ns().saturating_sub(began_ns);
        (*counters).reclaim_ns += took_ns;
        (*counters).reclaims += 1;
        observe(&STALL, slot, took_ns);
    }
    0
}
