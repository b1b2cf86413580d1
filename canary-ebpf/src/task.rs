//! Fields of `task_struct` and `cgroup`, read at offsets that the daemon takes from this kernel's own BTF before loading.
//!
//! The offsets live in frozen read-only data, so the verifier sees constants and checks each access against BTF:
//! a direct load, without `bpf_probe_read_kernel`.

use core::ffi::c_void;

use aya_ebpf::Global;

#[unsafe(no_mangle)]
static TASK_PID: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static TASK_TGID: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static TASK_STATE: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static TASK_EXIT_CODE: Global<u64> = Global::new(0);
/// Of `se.sum_exec_runtime`.
#[unsafe(no_mangle)]
static TASK_SUM_EXEC_RUNTIME: Global<u64> = Global::new(0);
/// Of `se.prev_sum_exec_runtime`; 0 where it cannot be relied on.
#[unsafe(no_mangle)]
static TASK_PREV_SUM_EXEC_RUNTIME: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static TASK_PRIO: Global<u64> = Global::new(0);
/// Of `sched_info.run_delay`.
#[unsafe(no_mangle)]
static TASK_RUN_DELAY: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static TASK_FLAGS: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static TASK_CPU: Global<u64> = Global::new(0);
/// The way from a task to the id of its cgroup: `task->cgroups->dfl_cgrp->kn->id`.
#[unsafe(no_mangle)]
static TASK_CGROUPS: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static CSS_SET_DFL_CGRP: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static CGROUP_KN: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static KERNFS_NODE_ID: Global<u64> = Global::new(0);
/// The way from a task to the thread of its process that is executing a program: `task->signal->group_exec_task`. Either is 0 where
/// this kernel does not tell.
#[unsafe(no_mangle)]
static TASK_SIGNAL: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static SIGNAL_EXEC_TASK: Global<u64> = Global::new(0);
/// The way from a cgroup to the number of its hierarchy.
#[unsafe(no_mangle)]
static CGROUP_ROOT: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static CGROUP_ROOT_HIERARCHY_ID: Global<u64> = Global::new(0);

/// `PF_KTHREAD` of linux/sched.h.
const KERNEL_THREAD: u32 = 0x0020_0000;
/// Priorities of the fair class (`MAX_RT_PRIO` and `MAX_PRIO` of linux/sched/prio.h).
const FAIR_PRIOS: core::ops::Range<u32> = 100..140;

/// `task_struct` as a typed tracepoint hands it over.
#[derive(Clone, Copy)]
pub struct TaskPtr(pub *const c_void);

impl TaskPtr {
    #[inline(always)]
    pub fn pid(self) -> u32 {
        self.read(&TASK_PID)
    }

    #[inline(always)]
    pub fn tgid(self) -> u32 {
        self.read(&TASK_TGID)
    }

    #[inline(always)]
    pub fn state(self) -> u32 {
        self.read(&TASK_STATE)
    }

    #[inline(always)]
    pub fn exit_code(self) -> u32 {
        self.read(&TASK_EXIT_CODE)
    }

    /// On-CPU time that the scheduler has booked for the task in all its life: up to date at a switch.
    #[inline(always)]
    pub fn sum_exec_runtime_ns(self) -> u64 {
        self.read(&TASK_SUM_EXEC_RUNTIME)
    }

    /// What [`Self::sum_exec_runtime_ns`] was when the running task last got its CPU: the fair class notes it (`set_next_entity`
    /// of kernel/sched/fair.c). For a task of another class, what it is now.
    #[inline(always)]
    pub fn sum_exec_runtime_at_arrival_ns(self) -> u64 {
        if TASK_PREV_SUM_EXEC_RUNTIME.load() != 0 && FAIR_PRIOS.contains(&self.read(&TASK_PRIO)) {
            self.read(&TASK_PREV_SUM_EXEC_RUNTIME)
        } else {
            self.sum_exec_runtime_ns()
        }
    }

    /// Time that the scheduler has booked for the task as waiting for a CPU in all its life; a wait is booked just after
    /// the switch that ends it.
    #[inline(always)]
    pub fn run_delay_ns(self) -> u64 {
        self.read(&TASK_RUN_DELAY)
    }

    #[inline(always)]
    pub fn is_kernel_thread(self) -> bool {
        self.read::<u32>(&TASK_FLAGS) & KERNEL_THREAD != 0
    }

    /// The CPU that it runs on, or ran on last.
    #[inline(always)]
    pub fn cpu(self) -> u32 {
        self.read(&TASK_CPU)
    }

    /// Whether a thread of its process is executing a program: all others have to end first.
    #[inline(always)]
    pub fn is_replaced_by_exec(self) -> bool {
        if TASK_SIGNAL.load() == 0 || SIGNAL_EXEC_TASK.load() == 0 {
            return false;
        }
        // A pointer to that thread; it is only compared.
        read::<u64>(self.read(&TASK_SIGNAL), &SIGNAL_EXEC_TASK) != 0
    }

    /// Of the cgroup2 tree. The helper for it knows the running task only.
    #[inline(always)]
    pub fn cgroup_id(self) -> u64 {
        CgroupPtr(read(self.read(&TASK_CGROUPS), &CSS_SET_DFL_CGRP)).id()
    }

    #[inline(always)]
    fn read<T>(self, offset: &Global<u64>) -> T {
        read(self.0, offset)
    }
}

/// `cgroup`, from a typed tracepoint or from a task.
#[derive(Clone, Copy)]
pub struct CgroupPtr(pub *const c_void);

impl CgroupPtr {
    /// The inode number of its directory.
    #[inline(always)]
    pub fn id(self) -> u64 {
        read(read(self.0, &CGROUP_KN), &KERNFS_NODE_ID)
    }

    /// The default hierarchy is number 0 (`cgroup_init` of kernel/cgroup/cgroup.c); those of version 1 have others.
    #[inline(always)]
    pub fn is_of_version_2(self) -> bool {
        read::<u32>(read(self.0, &CGROUP_ROOT), &CGROUP_ROOT_HIERARCHY_ID) == 0
    }
}

#[inline(always)]
fn read<T>(from: *const c_void, offset: &Global<u64>) -> T {
    // SAFETY: a trusted BTF pointer plus an offset of that struct's BTF; the verifier checks the access.
    unsafe { from.cast::<u8>().add(offset.load() as usize).cast::<T>().read_volatile() }
}
