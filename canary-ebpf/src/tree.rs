//! That a cgroup was made or removed (version 2 knows no renaming): only then does the daemon have to look which are there. One
//! that is made where a target was is that target, started again: it is counted from its first moment on, for it may have
//! crashed before the daemon looks.

use core::ffi::c_void;

use aya_ebpf::{helpers::bpf_probe_read_kernel_str_bytes, macros::btf_tracepoint, programs::BtfTracePointContext};
use canary_common::{CgroupPath, Main, Remade};

use crate::{
    lookup::counters,
    maps::{CGROUPS, LOST, MAIN, PATH, PLACES, REMADE, TREE_CHANGES},
    task::CgroupPtr,
};

/// Its arguments are the cgroup and its path. No process can be in it yet: the directory shows only after this.
#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn cgroup_mkdir(ctx: BtfTracePointContext) -> i32 {
    let cgroup = CgroupPtr(ctx.arg::<*const c_void>(0));
    // Version 1 has the same paths in its own trees.
    if cgroup.is_of_version_2() {
        follow(cgroup.id(), ctx.arg::<*const u8>(1));
    }
    changed()
}

#[btf_tracepoint(function = "cgroup_rmdir")]
pub fn cgroup_rmdir(_ctx: BtfTracePointContext) -> i32 {
    changed()
}

#[inline(always)]
fn follow(cgroup_id: u64, path: *const u8) -> Option<()> {
    let element = PATH.get_ptr_mut(0)?;
    // SAFETY: a live per-CPU element, which nothing else uses meanwhile: the tracepoint holds a lock of its own. The path is a
    // string of the kernel.
    let slot = unsafe {
        let place: &mut CgroupPath = &mut *element;
        place.bytes = [0; CgroupPath::MAX];
        bpf_probe_read_kernel_str_bytes(path, &mut place.bytes).ok()?;
        let place: &CgroupPath = place;
        *PLACES.get(place)?
    };
    // First: what the daemon does not hear of would stay in the table for ever.
    if REMADE.output(Remade { cgroup_id, slot, reserved: 0 }, 0).is_err() {
        return lost();
    }
    if CGROUPS.insert(cgroup_id, slot, 0).is_err() {
        return lost();
    }
    let (main, counters) = (MAIN.get_ptr_mut(slot)?, counters(slot)?);
    // SAFETY: live elements.
    unsafe {
        (*main) = Main { tgid: 0, ended: Main::LOOKED_FOR };
        (*counters).remade += 1;
    }
    Some(())
}

/// A cgroup that is a target's and counts nowhere until the daemon looks.
#[inline(always)]
fn lost() -> Option<()> {
    let lost = LOST.get_ptr_mut(0)?;
    // SAFETY: a live per-CPU element.
    unsafe { (*lost).remade += 1 };
    None
}

#[inline(always)]
fn changed() -> i32 {
    if let Some(count) = TREE_CHANGES.get_ptr_mut(0) {
        // SAFETY: a live per-CPU element.
        unsafe { *count += 1 };
    }
    0
}
