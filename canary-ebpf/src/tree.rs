//! That a cgroup was made or removed (version 2 knows no renaming): only then does the daemon have to look which are there.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::maps::TREE_CHANGES;

#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn cgroup_mkdir(_ctx: BtfTracePointContext) -> i32 {
    changed()
}

#[btf_tracepoint(function = "cgroup_rmdir")]
pub fn cgroup_rmdir(_ctx: BtfTracePointContext) -> i32 {
    changed()
}

#[inline(always)]
fn changed() -> i32 {
    if let Some(count) = TREE_CHANGES.get_ptr_mut(0) {
        // SAFETY: a live per-CPU element.
        unsafe { *count += 1 };
    }
    0
}
