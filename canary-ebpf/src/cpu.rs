//! On-CPU time, run-queue wait, who had the CPU meanwhile, and context switches.
//!
//! The scheduler keeps books of both times for every task: `se.sum_exec_runtime` and `sched_info.run_delay`. They are
//! noted when a task gets a CPU and subtracted when it leaves it. No clock is read, which costs more than all the
//! rest; nothing has to be known about wake-ups; and the sums are the kernel's own (`cpu.stat`, `/proc/PID/schedstat`).
//! A wait ends up in the counts when the stretch that it led to ends, or when the daemon reads in the middle of it.
//!
//! Some kernels hide tasks from every tracepoint (6.18 of a Firecracker guest does so with the threads of its process 1): the
//! switch away from such a task is not seen. Whoever is met on a CPU without having been seen to come is taken over, with
//! what the fair scheduler noted at its arrival.

use core::ffi::c_void;

use aya_ebpf::{
    Global,
    helpers::generated::{bpf_get_current_task_btf, bpf_get_smp_processor_id},
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use canary_common::{Counters, Move, UNTRACKED};

use crate::{
    lookup::{counters, current_slot_of, known_slot},
    maps::{GROUPS, LOST, RUNQ_WAIT, STRETCHES, observe},
    task::TaskPtr,
};

/// 1 where `sched_switch` has the state of `prev` as its fourth argument (5.18 and later).
#[unsafe(no_mangle)]
static SWITCH_HAS_STATE: Global<u8> = Global::new(0);

/// `Stretch::before`, where it is no slot: a process of a cgroup that is no target, a kernel thread, or nobody.
const OTHER: u32 = UNTRACKED;
const KERNEL: u32 = UNTRACKED - 1;
const IDLE: u32 = UNTRACKED - 2;

/// What a task runs in one go, from getting a CPU (or from the last read of the daemon) to leaving it.
#[repr(C, align(64))]
pub struct Stretch {
    /// 0 for idle.
    pub pid: u32,
    /// Who had the CPU before: a slot, or one of the above.
    pub before: u32,
    /// The task's cgroup.
    pub cgroup_id: u64,
    /// The task's books when the stretch began; its wait for this CPU is not in them yet.
    pub sum_exec_runtime_ns: u64,
    pub run_delay_ns: u64,
    /// 1 until the wait that led here is counted.
    pub waited: u32,
    /// The task of a target that left this CPU last, and its books at that moment: see `take_over`.
    pub left_pid: u32,
    pub left_sum_exec_runtime_ns: u64,
    pub left_run_delay_ns: u64,
    /// How many moves of tasks that ran here were noted. It and `moves` are written by whoever moves a task to another cgroup, one
    /// at a time; all else here is written by its own CPU only.
    pub moves_noted: u32,
    /// How many of them this CPU has dealt with: see `split`.
    pub moves_seen: u32,
    pub moves: [Move; MOVES],
}

/// So many moves are remembered within a stretch; a power of two.
const MOVES: usize = 16;

#[btf_tracepoint(function = "sched_switch")]
pub fn sched_switch(ctx: BtfTracePointContext) -> i32 {
    let Some(stretch) = this_cpu() else { return 0 };
    let prev = TaskPtr(ctx.arg::<*const c_void>(1));
    let next = TaskPtr(ctx.arg::<*const c_void>(2));
    // SAFETY: a live element that only this CPU writes (but for the notes of moves), with interrupts off.
    unsafe {
        if (*stretch).pid != prev.pid() {
            take_over(stretch, prev);
        }
        let before = if (*stretch).pid == 0 {
            IDLE
        } else {
            if is_to_be_split(stretch) {
                split(stretch, prev, prev.sum_exec_runtime_ns());
            }
            let slot = current_slot_of((*stretch).cgroup_id);
            if let Some(counters) = counters(slot) {
                let now_ns = prev.sum_exec_runtime_ns();
                charge(stretch, prev, now_ns, slot, counters);
                (*stretch).left_pid = (*stretch).pid;
                (*stretch).left_sum_exec_runtime_ns = now_ns;
                (*stretch).left_run_delay_ns = prev.run_delay_ns();
                // A preempted task goes on to be runnable whatever its state says.
                let preempted = ctx.arg::<u64>(0) as u8 != 0;
                if preempted || prev_state(&ctx, prev) == 0 {
                    (*counters).switches_involuntary += 1;
                } else {
                    (*counters).switches_voluntary += 1;
                }
                slot
            } else if prev.is_kernel_thread() {
                KERNEL
            } else {
                OTHER
            }
        };
        begin(stretch, next, next.sum_exec_runtime_ns());
        (*stretch).before = before;
        (*stretch).waited = 1;
    }
    0
}

#[inline(always)]
fn prev_state(ctx: &BtfTracePointContext, prev: TaskPtr) -> u32 {
    if SWITCH_HAS_STATE.load() != 0 { ctx.arg::<u64>(3) as u32 } else { prev.state() }
}

#[inline(always)]
fn this_cpu() -> Option<*mut Stretch> {
    // SAFETY: takes nothing and returns a number.
    let stretch = STRETCHES.get_ptr_mut(unsafe { bpf_get_smp_processor_id() });
    if stretch.is_none()
        && let Some(lost) = LOST.get_ptr_mut(0)
    {
        // SAFETY: a live per-CPU element.
        unsafe { (*lost).unknown_cpu += 1 };
    }
    stretch
}

/// Begins a stretch of whoever was not seen to come. The wait before it is known where the task was the last that was seen to
/// leave this CPU, and did not run elsewhere since.
///
/// # Safety
/// `stretch` is a live element, `task` runs on its CPU.
#[inline(always)]
unsafe fn take_over(stretch: *mut Stretch, task: TaskPtr) {
    // SAFETY: the caller's promise.
    unsafe {
        let before = if (*stretch).pid == 0 { IDLE } else { known_slot((*stretch).cgroup_id) };
        let arrived_ns = task.sum_exec_runtime_at_arrival_ns();
        begin(stretch, task, arrived_ns);
        (*stretch).before = before;
        (*stretch).waited = 0;
        if (*stretch).left_pid == (*stretch).pid && (*stretch).left_sum_exec_runtime_ns == arrived_ns {
            (*stretch).run_delay_ns = (*stretch).left_run_delay_ns;
            (*stretch).waited = 1;
        }
    }
}

/// Notes who runs from here on, and what the books say of it.
///
/// # Safety
/// `stretch` is a live element.
#[inline(always)]
unsafe fn begin(stretch: *mut Stretch, task: TaskPtr, sum_exec_runtime_ns: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        let pid = task.pid();
        (*stretch).pid = pid;
        if pid != 0 {
            (*stretch).cgroup_id = task.cgroup_id();
            (*stretch).sum_exec_runtime_ns = sum_exec_runtime_ns;
            (*stretch).run_delay_ns = task.run_delay_ns();
        }
    }
}

/// Whether a move was noted since this CPU looked last.
///
/// # Safety
/// `stretch` is a live element.
#[inline(always)]
unsafe fn is_to_be_split(stretch: *mut Stretch) -> bool {
    // SAFETY: the caller's promise. Another CPU may write it at any moment, whole.
    unsafe { (&raw const (*stretch).moves_noted).read_volatile() != (*stretch).moves_seen }
}

/// Where the task of this stretch was moved to another cgroup meanwhile: counts for the old one what it ran until then, and the
/// wait that led here, and goes on as if the stretch had begun with the move. `now_ns` is its `sum_exec_runtime`.
///
/// Whoever moved it saw it run here and wrote the note then; in between this CPU may have gone on to another task, or to another
/// stretch of the same one. So a note says only where to cut: it is left aside unless it is of this task and lies within this
/// stretch, and has reached this CPU whole. Whatever the two CPUs do at once, both cgroups together get what the task ran here, no
/// more and no less.
///
/// # Safety
/// `stretch` is a live element of this CPU, `task` is who runs in it.
#[inline(always)]
unsafe fn split(stretch: *mut Stretch, task: TaskPtr, now_ns: u64) {
    for look in 0..MOVES {
        // SAFETY: the caller's promise. The notes are another CPU's, which may be writing one.
        unsafe {
            if !is_to_be_split(stretch) {
                return;
            }
            let seen = (*stretch).moves_seen;
            let note = &raw const (*stretch).moves[seen as usize & (MOVES - 1)];
            let moved = Move {
                sum_exec_runtime_ns: (&raw const (*note).sum_exec_runtime_ns).read_volatile(),
                cgroup_id: (&raw const (*note).cgroup_id).read_volatile(),
                pid: (&raw const (*note).pid).read_volatile(),
                check: (&raw const (*note).check).read_volatile(),
            };
            let is_whole = moved.is_whole(seen);
            if !is_whole && look + 1 < MOVES {
                // The rest of it is on its way.
                continue;
            }
            // From here on its place may be written over.
            (&raw mut (*stretch).moves_seen).write_volatile(seen.wrapping_add(1));
            let is_of_it = is_whole && moved.pid == (*stretch).pid;
            let moved_ns = moved.sum_exec_runtime_ns;
            if !is_of_it || moved_ns < (*stretch).sum_exec_runtime_ns || moved_ns > now_ns {
                continue;
            }
            let slot = known_slot((*stretch).cgroup_id);
            if let Some(counters) = counters(slot) {
                charge(stretch, task, moved_ns, slot, counters);
            }
            (*stretch).waited = 0;
            (*stretch).cgroup_id = moved.cgroup_id;
            (*stretch).sum_exec_runtime_ns = moved_ns;
        }
    }
}

/// Counts what the task ran in this stretch so far (`now_ns` is its `sum_exec_runtime`), and the wait that led to it.
///
/// # Safety
/// `stretch` and `counters` are live elements, `task` is who runs in that stretch.
#[inline(always)]
unsafe fn charge(stretch: *mut Stretch, task: TaskPtr, now_ns: u64, slot: u32, counters: *mut Counters) {
    // SAFETY: the caller's promise.
    unsafe {
        (*counters).on_cpu_ns += now_ns.saturating_sub((*stretch).sum_exec_runtime_ns);
        if (*stretch).waited != 0 {
            let wait_ns = task.run_delay_ns().saturating_sub((*stretch).run_delay_ns);
            (*counters).runq_waits += 1;
            *whose(counters, slot, (*stretch).before) += wait_ns;
            observe(&RUNQ_WAIT, slot, wait_ns);
        }
    }
}

/// The sum that a wait of `slot` belongs to.
///
/// # Safety
/// `counters` is a live element.
#[inline(always)]
unsafe fn whose<'a>(counters: *mut Counters, slot: u32, before: u32) -> &'a mut u64 {
    // SAFETY: the caller's promise.
    let counters = unsafe { &mut *counters };
    match before {
        IDLE => return &mut counters.wait_idle_ns,
        KERNEL => return &mut counters.wait_kernel_ns,
        OTHER => return &mut counters.wait_other_ns,
        _ if before == slot => return &mut counters.wait_own_ns,
        _ => {}
    }
    let (Some(own), Some(other)) = (GROUPS.get(slot), GROUPS.get(before)) else { return &mut counters.wait_other_ns };
    match own ^ other {
        0 => &mut counters.wait_own_ns,
        1 => &mut counters.wait_other_role_ns,
        _ => &mut counters.wait_other_ns,
    }
}

/// Counts the running stretch of this CPU. The daemon runs it on every CPU before it reads, so that a task that never
/// leaves its CPU is accounted as far as the scheduler has booked it: to its last tick, some milliseconds ago.
#[raw_tracepoint(tracepoint = "sched_switch")]
pub fn flush(_ctx: RawTracePointContext) -> i32 {
    let Some(stretch) = this_cpu() else { return 0 };
    // SAFETY: returns the running task.
    let task = TaskPtr(unsafe { bpf_get_current_task_btf() }.cast_const().cast());
    // SAFETY: a live element of this CPU. Runs in an interrupt, or on the daemon's own CPU with preemption off: no sched hook
    // is half-way here, and none comes in between.
    unsafe {
        if (*stretch).pid != task.pid() {
            take_over(stretch, task);
        }
        if (*stretch).pid == 0 {
            return 0;
        }
        // Read once: another CPU may make the scheduler book meanwhile, and what it books must be in one stretch or the next.
        let now_ns = task.sum_exec_runtime_ns();
        if is_to_be_split(stretch) {
            split(stretch, task, now_ns);
        }
        let slot = current_slot_of((*stretch).cgroup_id);
        if let Some(counters) = counters(slot) {
            charge(stretch, task, now_ns, slot, counters);
            (*stretch).waited = 0;
        }
        begin(stretch, task, now_ns);
    }
    0
}

/// A task that runs while it is moved: what it ran so far belongs to where it was. That is noted for the CPU that it runs on, which
/// splits its stretch there. Says nothing about the other threads of its process: they are split at their next switch.
#[btf_tracepoint(function = "cgroup_attach_task")]
pub fn cgroup_attach_task(ctx: BtfTracePointContext) -> i32 {
    let task = TaskPtr(ctx.arg::<*const c_void>(2));
    let Some(stretch) = STRETCHES.get_ptr_mut(task.cpu()) else { return 0 };
    // SAFETY: a live element. Only what is for notes is written of another CPU's, and tasks are moved one at a time (the kernel
    // holds a lock for all cgroups meanwhile).
    unsafe {
        if (*stretch).pid == 0 || (*stretch).pid != task.pid() {
            return 0;
        }
        let noted = (*stretch).moves_noted;
        let seen = (&raw const (*stretch).moves_seen).read_volatile();
        // Where there is no room, what it runs from here on counts where the last note says, until that CPU has looked.
        if noted.wrapping_sub(seen) >= MOVES as u32 {
            return 0;
        }
        let note = &raw mut (*stretch).moves[noted as usize & (MOVES - 1)];
        let moved = Move::new(noted, task.sum_exec_runtime_ns(), task.cgroup_id(), task.pid());
        (&raw mut (*note).sum_exec_runtime_ns).write_volatile(moved.sum_exec_runtime_ns);
        (&raw mut (*note).cgroup_id).write_volatile(moved.cgroup_id);
        (&raw mut (*note).pid).write_volatile(moved.pid);
        (&raw mut (*note).check).write_volatile(moved.check);
        (&raw mut (*stretch).moves_noted).write_volatile(noted.wrapping_add(1));
    }
    0
}
