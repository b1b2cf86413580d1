//! How processes start and end: by themselves, by an error, by a fault, or by the OOM killer; and the main process's restarts.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _, Global,
    helpers::generated::{bpf_get_current_cgroup_id, bpf_ktime_get_ns},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use aya_log_ebpf::debug;
use canary_common::{Exit, MAX_VICTIMS, Main, UNTRACKED, Victim};

use crate::{
    lookup::{counters, current_slot},
    maps::{FACTS, LOST, MAIN, VICTIMS},
    task::TaskPtr,
};

/// 1 where `mark_victim` passes the task (6.9 and its backports), 0 where it passes the pid.
#[unsafe(no_mangle)]
static VICTIM_IS_TASK: Global<u8> = Global::new(0);

/// In an exit code: the process dumped core.
const CORE_DUMPED: u32 = 0x80;

/// The signals by which a program shows that it is broken: ILL, TRAP, ABRT, BUS, FPE, SEGV, SYS.
const FAULTS: u32 = 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 11 | 1 << 31;

#[btf_tracepoint(function = "sched_process_exit")]
pub fn sched_process_exit(ctx: BtfTracePointContext) -> i32 {
    let pid = ctx.pid();
    // Once per process: the other threads end with the leader's exit code anyway.
    if pid != ctx.tgid() {
        return 0;
    }
    let task = TaskPtr(ctx.arg::<*const c_void>(0));
    let exit_code = task.exit_code();
    // The process lives on in another of its threads, which gets this one's number. Code 0: a signal may come in between, and then
    // it does end.
    if exit_code == 0 && task.is_replaced_by_exec() {
        return 0;
    }
    let slot = current_slot();
    let signal = exit_code & 0x7f;
    let oom = was_chosen(pid, signal);
    if slot == UNTRACKED {
        return 0;
    }
    let Some(counters) = counters(slot) else { return 0 };
    // SAFETY: a live per-CPU element.
    unsafe {
        (*counters).exits += 1;
        (*counters).core_dumps += u64::from(exit_code & CORE_DUMPED != 0);
        if let Some(main) = MAIN.get_ptr_mut(slot)
            && (*main).tgid == pid
        {
            (*counters).main_exits += 1;
            (*main).tgid = 0;
            (*main).ended = Main::ENDED;
        }
        if oom {
            (*counters).oom_kills += 1;
        } else if signal != 0 && signal < 32 && FAULTS & (1 << signal) != 0 {
            (*counters).crashes += 1;
        } else if signal != 0 {
            (*counters).exits_killed += 1;
        } else if exit_code >> 8 != 0 {
            (*counters).exits_error += 1;
        }
    }
    if exit_code != 0 {
        tell(slot, pid, exit_code, oom);
        debug!(&ctx, "process {} of slot {} ended with exit code {}", pid, slot, exit_code);
    }
    0
}

/// Whether the OOM killer chose a process that ends by this signal. It is forgotten in any case.
#[inline(always)]
fn was_chosen(tgid: u32, signal: u32) -> bool {
    let Some(victim) = VICTIMS.get_ptr_mut(tgid & (MAX_VICTIMS as u32 - 1)) else { return false };
    // SAFETY: a live element, and the clock. What another process of the same low bits writes meanwhile is as good.
    unsafe {
        let victim = &mut *victim;
        if victim.tgid != tgid {
            return false;
        }
        let has_ended = victim.has_ended(tgid, signal, bpf_ktime_get_ns());
        victim.tgid = 0;
        has_ended
    }
}

/// Runs in the parent, whose cgroup the child gets (but for `CLONE_INTO_CGROUP`: such a child's program is seen when it is
/// executed).
#[btf_tracepoint(function = "sched_process_fork")]
pub fn sched_process_fork(ctx: BtfTracePointContext) -> i32 {
    let child = TaskPtr(ctx.arg::<*const c_void>(1));
    if child.pid() != child.tgid() {
        return 0;
    }
    if let Some(counters) = counters(current_slot()) {
        // SAFETY: a live per-CPU element.
        unsafe { (*counters).forks += 1 };
    }
    0
}

/// Whatever starts a service executes it in its cgroup, so that the first program after the main process's end is its
/// successor. Unless it is the main process itself, of which the first thread had ended: another thread that executes a program
/// gets that one's number, and had its own, the second argument, before.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn sched_process_exec(ctx: BtfTracePointContext) -> i32 {
    let slot = current_slot();
    let Some(counters) = counters(slot) else { return 0 };
    let lives_on = ctx.arg::<u64>(1) as u32 != ctx.pid();
    // SAFETY: live elements. Two programs that start in the same moment could both be counted as the successor.
    unsafe {
        (*counters).execs += 1;
        if let Some(main) = MAIN.get_ptr_mut(slot)
            && (*main).tgid == 0
            && (*main).ended != Main::LOOKED_FOR
        {
            (*counters).main_restarts += u64::from((*main).ended == Main::ENDED && !lives_on);
            (*main).tgid = ctx.tgid();
            (*main).ended = 0;
        }
    }
    0
}

#[inline(always)]
fn tell(slot: u32, pid: u32, exit_code: u32, oom: bool) {
    // SAFETY: helpers without arguments.
    let (at_ns, cgroup_id) = unsafe { (bpf_ktime_get_ns(), bpf_get_current_cgroup_id()) };
    let fact = Exit { at_ns, cgroup_id, slot, pid, exit_code, oom: oom.into() };
    if FACTS.output(fact, 0).is_err()
        && let Some(lost) = LOST.get_ptr_mut(0)
    {
        // SAFETY: a live per-CPU element.
        unsafe { (*lost).facts += 1 };
    }
}

/// Runs in whoever asked for the memory, not in the victim; so only the victim is noted, and counted when it exits.
#[btf_tracepoint(function = "mark_victim")]
pub fn mark_victim(ctx: BtfTracePointContext) -> i32 {
    let tgid =
        if VICTIM_IS_TASK.load() != 0 { TaskPtr(ctx.arg::<*const c_void>(0)).tgid() } else { ctx.arg::<u64>(0) as u32 };
    let Some(victim) = VICTIMS.get_ptr_mut(tgid & (MAX_VICTIMS as u32 - 1)) else { return 0 };
    // SAFETY: live elements, and the clock; the OOM killer chooses one process at a time.
    unsafe {
        let victim = &mut *victim;
        let now_ns = bpf_ktime_get_ns();
        // Whoever was there before and is still to exit will not be known as a victim.
        if victim.tgid != tgid
            && victim.is_awaited(now_ns)
            && let Some(lost) = LOST.get_ptr_mut(0)
        {
            (*lost).victims += 1;
        }
        *victim = Victim { marked_ns: now_ns, tgid, reserved: 0 };
    }
    0
}
