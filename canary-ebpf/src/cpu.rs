//! On-CPU time, run-queue wait and context switches.
//!
//! At `sched_switch` the current task is still `prev`, so the helper names its cgroup. The cgroup of `next` is known
//! from when it last left a CPU (or was created), kept in the pid table.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _, Global,
    helpers::generated::bpf_ktime_get_ns,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use canary_common::{PID_TABLE, UNTRACKED};

use crate::{
    lookup::{counters, current_slot},
    maps::{LOST, RUNQ_WAIT, SINCE_NS, TASKS, Task, observe},
    task::TaskPtr,
};

/// 1 where `sched_switch` has the state of `prev` as its fourth argument (5.18 and later).
#[unsafe(no_mangle)]
static SWITCH_HAS_STATE: Global<u8> = Global::new(0);

#[btf_tracepoint(function = "sched_switch")]
pub fn sched_switch(ctx: BtfTracePointContext) -> i32 {
    let preempted = ctx.arg::<u64>(0) as u8 != 0;
    let prev = TaskPtr(ctx.arg::<*const c_void>(1));
    let next = TaskPtr(ctx.arg::<*const c_void>(2));
    // SAFETY: takes nothing and returns a number.
    let now_ns = unsafe { bpf_ktime_get_ns() };

    let prev_pid = prev.pid();
    if prev_pid != 0 {
        // A preempted task goes on to be runnable whatever its state says.
        let runnable = preempted || prev_state(&ctx, prev) == 0;
        leave_cpu(prev_pid, runnable, now_ns);
    } else {
        restart_stretch(now_ns);
    }
    let next_pid = next.pid();
    if next_pid != 0 {
        take_cpu(next_pid, now_ns);
    }
    0
}

#[inline(always)]
fn prev_state(ctx: &BtfTracePointContext, prev: TaskPtr) -> u32 {
    if SWITCH_HAS_STATE.load() != 0 { ctx.arg::<u64>(3) as u32 } else { prev.state() }
}

/// Ends the stretch that this CPU ran, starts the next one and says how long the ended one was.
#[inline(always)]
fn restart_stretch(now_ns: u64) -> u64 {
    let Some(since) = SINCE_NS.get_ptr_mut(0) else { return 0 };
    // SAFETY: a live per-CPU element; interrupts are off.
    let since_ns = unsafe { core::mem::replace(&mut *since, now_ns) };
    if since_ns == 0 { 0 } else { now_ns.saturating_sub(since_ns) }
}

#[inline(always)]
fn leave_cpu(pid: u32, runnable: bool, now_ns: u64) {
    let ran_ns = restart_stretch(now_ns);
    let slot = current_slot();
    let Some(task) = task(pid) else { return };
    if slot == UNTRACKED {
        // It may have been moved out of a target since it was last seen.
        // SAFETY: a live array element; at worst another CPU's write of the same entry wins, as in any direct map.
        unsafe {
            if (*task).pid == pid {
                (*task).pid = 0;
                (*task).runnable_ns = 0;
            }
        }
        return;
    }
    let Some(counters) = counters(slot) else { return };
    // SAFETY: live elements; counters are per CPU, the entry belongs to a task that only this CPU runs.
    unsafe {
        (*counters).on_cpu_ns += ran_ns;
        claim(task, pid, slot);
        if runnable {
            (*counters).switches_involuntary += 1;
            (*task).runnable_ns = now_ns;
        } else {
            (*counters).switches_voluntary += 1;
            (*task).runnable_ns = 0;
        }
    }
}

#[inline(always)]
fn take_cpu(pid: u32, now_ns: u64) {
    let Some(task) = task(pid) else { return };
    // SAFETY: as in `leave_cpu`.
    unsafe {
        if (*task).pid != pid || (*task).runnable_ns == 0 {
            return;
        }
        let waited_ns = now_ns.saturating_sub((*task).runnable_ns);
        (*task).runnable_ns = 0;
        let slot = (*task).slot;
        let Some(counters) = counters(slot) else { return };
        (*counters).runq_wait_ns += waited_ns;
        (*counters).runq_waits += 1;
        observe(&RUNQ_WAIT, slot, waited_ns);
    }
}

#[btf_tracepoint(function = "sched_wakeup")]
pub fn sched_wakeup(ctx: BtfTracePointContext) -> i32 {
    let pid = TaskPtr(ctx.arg::<*const c_void>(0)).pid();
    if let Some(task) = task(pid) {
        // SAFETY: a live array element. The waker is not the task, but a task that is being woken runs nowhere.
        unsafe {
            if (*task).pid == pid {
                (*task).runnable_ns = bpf_ktime_get_ns();
            }
        }
    }
    0
}

/// A new task is in the cgroup of its parent, which is the one that runs here.
#[btf_tracepoint(function = "sched_wakeup_new")]
pub fn sched_wakeup_new(ctx: BtfTracePointContext) -> i32 {
    let slot = current_slot();
    if slot == UNTRACKED {
        return 0;
    }
    let pid = TaskPtr(ctx.arg::<*const c_void>(0)).pid();
    if let Some(task) = task(pid) {
        // SAFETY: as in `sched_wakeup`.
        unsafe {
            claim(task, pid, slot);
            (*task).runnable_ns = bpf_ktime_get_ns();
        }
    }
    0
}

/// Charges the running stretch of this CPU. The daemon runs it on every CPU before it reads, so that a task that
/// never leaves its CPU is accounted up to the moment of the read.
#[raw_tracepoint(tracepoint = "sched_switch")]
pub fn flush(ctx: RawTracePointContext) -> i32 {
    // SAFETY: takes nothing and returns a number.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let ran_ns = restart_stretch(now_ns);
    if ctx.pid() == 0 {
        return 0;
    }
    if let Some(counters) = counters(current_slot()) {
        // SAFETY: a live per-CPU element; runs in an interrupt, so no sched hook is half-way on this CPU.
        unsafe { (*counters).on_cpu_ns += ran_ns };
    }
    0
}

#[inline(always)]
pub fn task(pid: u32) -> Option<*mut Task> {
    TASKS.get_ptr_mut(pid & (PID_TABLE as u32 - 1))
}

/// Makes an entry this task's own; what it displaces is counted as lost.
///
/// # Safety
/// `task` points to a live entry.
#[inline(always)]
pub unsafe fn claim(task: *mut Task, pid: u32, slot: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        if (*task).pid != pid {
            if (*task).pid != 0
                && (*task).runnable_ns != 0
                && let Some(lost) = LOST.get_ptr_mut(0)
            {
                (*lost).pid_collisions += 1;
            }
            (*task).pid = pid;
            (*task).runnable_ns = 0;
            (*task).reclaim_ns = 0;
        }
        (*task).slot = slot;
    }
}
