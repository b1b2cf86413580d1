//! Time that tasks spend reclaiming memory, for their own cgroup's limit or for the whole machine's sake.
//!
//! PSI counts more (refaults, swap-in, throttling at memory.high) and is the primary source where it is on; these
//! hooks give task time and work where it is off.

use aya_ebpf::{
    EbpfContext as _, helpers::generated::bpf_ktime_get_ns, macros::btf_tracepoint, programs::BtfTracePointContext,
};
use canary_common::UNTRACKED;

use crate::{
    cpu::{claim, task},
    lookup::{counters, current_slot},
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
    let slot = current_slot();
    if slot != UNTRACKED
        && let Some(task) = task(pid)
    {
        // SAFETY: a live entry of the task that runs here.
        unsafe {
            claim(task, pid, slot);
            (*task).reclaim_ns = bpf_ktime_get_ns();
        }
    }
    0
}

#[inline(always)]
fn end(pid: u32) -> i32 {
    let Some(task) = task(pid) else { return 0 };
    // SAFETY: as in `begin`.
    unsafe {
        if (*task).pid != pid || (*task).reclaim_ns == 0 {
            return 0;
        }
        let began_ns = core::mem::replace(&mut (*task).reclaim_ns, 0);
        if let Some(counters) = counters((*task).slot) {
            (*counters).reclaim_ns += bpf_ktime_get_ns().saturating_sub(began_ns);
            (*counters).reclaims += 1;
        }
    }
    0
}
