//! What the kernel programs must know about this kernel before they are loaded, read from its own BTF.

use anyhow::{Context as _, bail};

use super::btf::Btf;

/// Where the running kernel describes its own types.
pub const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";
/// The oldest kernel that the programs are meant for, by the first two numbers of its version.
pub const OLDEST: (u32, u32) = (5, 15);
const SCHED_EXT_STATE: &str = "/sys/kernel/sched_ext/state";

/// Hooks that read the scheduler's book of a task, and its cgroup.
const OF_CPU: &[&str] = &["sched_switch", "cgroup_attach_task", "flush"];
/// Hooks that read the number of a task.
const OF_PIDS: &[&str] = &["sched_switch", "cgroup_attach_task", "flush", "sched_process_fork"];
/// Hooks that read the id of a cgroup.
const OF_CGROUPS: &[&str] = &["sched_switch", "cgroup_attach_task", "flush", "cgroup_mkdir"];

/// A hook that cannot be loaded on this kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub hook: &'static str,
    /// What it reads is not there.
    pub reason: String,
}

/// Offsets and signatures that differ between kernels; written into the object's read-only data. An offset is 0 where this kernel
/// does not have what it leads to: then either the hooks that read it are told in `unreadable`, or they do without.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    pub task_pid: u64,
    pub task_tgid: u64,
    pub task_state: u64,
    pub task_exit_code: u64,
    /// Of `se.sum_exec_runtime`: the scheduler's own book of a task's on-CPU time.
    pub task_sum_exec_runtime: u64,
    /// Of `se.prev_sum_exec_runtime`: what that was when the task last got a CPU. 0 where it cannot be relied on, too: a task that
    /// sched_ext schedules keeps an old value.
    pub task_prev_sum_exec_runtime: u64,
    pub task_prio: u64,
    /// Of `sched_info.run_delay`: the scheduler's own book of a task's waits for a CPU.
    pub task_run_delay: u64,
    pub task_flags: u64,
    pub task_cpu: u64,
    /// The way from a task to the thread of its process that is executing a program.
    pub task_signal: u64,
    pub signal_exec_task: u64,
    /// The way from a task to the id of its cgroup.
    pub task_cgroups: u64,
    pub css_set_dfl_cgrp: u64,
    pub cgroup_kn: u64,
    pub kernfs_node_id: u64,
    /// The way from a cgroup to the number of its hierarchy: 0 is cgroup v2.
    pub cgroup_root: u64,
    pub cgroup_root_hierarchy_id: u64,
    /// Whether `sched_switch` passes the state of the task that leaves (5.18 and later).
    pub switch_has_state: u8,
    /// Whether `mark_victim` passes the task, not its pid (6.9 and its backports).
    pub victim_is_task: u8,
    /// Whether `tcp_retransmit_skb` passes the error, and so tells of attempts that failed, too (6.17 and later).
    pub retransmit_has_error: u8,
    /// Where in an `sk_buff` TCP notes the segments of a packet that it sends: its own struct lies in `cb`. Without it a packet that
    /// is sent again counts as one segment.
    pub skb_tcp_segments: u64,
    pub unreadable: Vec<Unreadable>,
}

/// The first two numbers of a release as `uname -r` tells it.
pub fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

impl Layout {
    /// Reads this kernel's layout.
    ///
    /// # Errors
    /// Where the kernel has no BTF, or what there is cannot be understood. A type that is not as it was expected to be costs only
    /// the hooks that read it.
    pub fn read() -> anyhow::Result<Self> {
        if !std::path::Path::new(BTF_PATH).exists() {
            bail!("this kernel has no BTF ({BTF_PATH} is missing): it must be built with CONFIG_DEBUG_INFO_BTF=y");
        }
        let bytes = std::fs::read(BTF_PATH).with_context(|| format!("read {BTF_PATH}"))?;
        Ok(Self::from_btf(&Btf::parse(bytes).with_context(|| BTF_PATH)?))
    }

    fn from_btf(btf: &Btf) -> Self {
        let mut unreadable: Vec<Unreadable> = Vec::new();
        // What these hooks cannot do without.
        let mut need = |hooks: &[&'static str], offset: anyhow::Result<u64>| {
            offset.unwrap_or_else(|error| {
                for hook in hooks {
                    // The first reason will do.
                    if unreadable.iter().all(|known| known.hook != *hook) {
                        unreadable.push(Unreadable { hook, reason: format!("{error:#}") });
                    }
                }
                0
            })
        };
        let task = |members: &[&str]| btf.member_offset("task_struct", members);
        let arguments = |tracepoint: &str| btf.tracepoint_pointers(tracepoint).unwrap_or_default();
        let extended = std::fs::read_to_string(SCHED_EXT_STATE).is_ok_and(|state| state.trim() == "enabled");
        let prio = task(&["prio"]);
        let at_arrival = within(task(&["se"]), btf.member_offset("sched_entity", &["prev_sum_exec_runtime"]));
        let switch_has_state = arguments("sched_switch").len() >= 4;
        // Where the tracepoint is missing its hook will be refused by itself.
        let victim_is_task = arguments("mark_victim").first() == Some(&true);
        // Renamed in 5.14. Where the tracepoint passes the state nobody reads it there.
        let state_readers: &[&str] = if switch_has_state { &[] } else { &["sched_switch"] };
        let tgid_readers: &[&str] =
            if victim_is_task { &["sched_process_fork", "mark_victim"] } else { &["sched_process_fork"] };
        let run_delay = btf
            .member_offset("sched_info", &["run_delay"])
            .context("it must be built with CONFIG_TASK_DELAY_ACCT=y or CONFIG_SCHEDSTATS=y");
        // In `task_struct` itself on some architectures before 5.16.
        let cpu =
            within(task(&["thread_info"]), btf.member_offset("thread_info", &["cpu"])).or_else(|_| task(&["cpu"]));
        let segments =
            within(btf.member_offset("sk_buff", &["cb"]), btf.member_offset("tcp_skb_cb", &["tcp_gso_segs"]));
        Self {
            task_pid: need(OF_PIDS, task(&["pid"])),
            task_tgid: need(tgid_readers, task(&["tgid"])),
            task_state: need(state_readers, task(&["__state", "state"])),
            task_exit_code: need(&["sched_process_exit"], task(&["exit_code"])),
            task_sum_exec_runtime: need(
                OF_CPU,
                within(task(&["se"]), btf.member_offset("sched_entity", &["sum_exec_runtime"])),
            ),
            task_prev_sum_exec_runtime: at_arrival.ok().filter(|_| !extended && prio.is_ok()).unwrap_or(0),
            task_prio: prio.unwrap_or(0),
            task_run_delay: need(&["sched_switch", "flush"], within(task(&["sched_info"]), run_delay)),
            task_flags: need(&["sched_switch"], task(&["flags"])),
            task_cpu: need(&["cgroup_attach_task"], cpu),
            task_signal: task(&["signal"]).unwrap_or(0),
            // Renamed in 5.17.
            signal_exec_task: btf.member_offset("signal_struct", &["group_exec_task", "group_exit_task"]).unwrap_or(0),
            task_cgroups: need(OF_CPU, task(&["cgroups"])),
            css_set_dfl_cgrp: need(OF_CPU, btf.member_offset("css_set", &["dfl_cgrp"])),
            cgroup_kn: need(OF_CGROUPS, btf.member_offset("cgroup", &["kn"])),
            kernfs_node_id: need(OF_CGROUPS, btf.member_offset("kernfs_node", &["id"])),
            cgroup_root: need(&["cgroup_mkdir"], btf.member_offset("cgroup", &["root"])),
            cgroup_root_hierarchy_id: need(&["cgroup_mkdir"], btf.member_offset("cgroup_root", &["hierarchy_id"])),
            switch_has_state: switch_has_state.into(),
            victim_is_task: victim_is_task.into(),
            retransmit_has_error: (arguments("tcp_retransmit_skb").len() >= 3).into(),
            skb_tcp_segments: segments.unwrap_or(0),
            unreadable,
        }
    }
}

/// Where a member of a struct that lies in another one is.
fn within(outer: anyhow::Result<u64>, inner: anyhow::Result<u64>) -> anyhow::Result<u64> {
    Ok(outer? + inner?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_begins_with_the_version() {
        assert_eq!(version("6.1.0-56-cloud-amd64"), Some((6, 1)));
        assert_eq!(version("6.18-rc1"), Some((6, 18)));
        assert_eq!(["", "6", "six.one"].map(version), [None; 3]);
    }

    #[test]
    fn this_kernel_has_a_plausible_layout() {
        if !std::path::Path::new(BTF_PATH).exists() {
            println!("SKIP this_kernel_has_a_plausible_layout: {BTF_PATH} is missing");
            return;
        }
        let layout = Layout::read().expect("layout");
        assert!(layout.task_pid > 0 && layout.task_tgid == layout.task_pid + 4, "{layout:?}");
        assert!(layout.task_sum_exec_runtime > 0 && layout.task_sum_exec_runtime.is_multiple_of(8), "{layout:?}");
        assert!(layout.task_run_delay > 0 && layout.task_run_delay.is_multiple_of(8), "{layout:?}");
        assert!(layout.task_exit_code > 0 && layout.task_exit_code.is_multiple_of(4), "{layout:?}");
        assert!(layout.unreadable.is_empty(), "this kernel has all that is read: {layout:?}");
    }

    /// This kernel, if those of its members had other names; `None` where it has no types.
    fn without(test: &str, names: &[&str]) -> Option<Layout> {
        if !std::path::Path::new(BTF_PATH).exists() {
            println!("SKIP {test}: {BTF_PATH} is missing");
            return None;
        }
        let mut bytes = std::fs::read(BTF_PATH).expect("readable");
        for name in names {
            let whole = [b"\0".as_slice(), name.as_bytes(), b"\0"].concat();
            // Of two names for the same it has one.
            if let Some(at) = bytes.windows(whole.len()).position(|window| window == whole) {
                bytes[at + 1] = b'?';
            }
        }
        Some(Layout::from_btf(&Btf::parse(bytes).expect("BTF")))
    }

    fn unreadable(layout: &Layout) -> Vec<&str> {
        layout.unreadable.iter().map(|u| u.hook).collect()
    }

    #[test]
    fn a_member_that_is_missing_costs_only_the_hooks_that_read_it() {
        let test = "a_member_that_is_missing_costs_only_the_hooks_that_read_it";
        let Some(whole) = without(test, &[]) else { return };
        let cases: [(&str, &[&str]); 4] = [
            ("exit_code", &["sched_process_exit"]),
            ("run_delay", &["sched_switch", "flush"]),
            ("hierarchy_id", &["cgroup_mkdir"]),
            ("sum_exec_runtime", &["sched_switch", "cgroup_attach_task", "flush"]),
        ];
        for (name, hooks) in cases {
            let layout = without(test, &[name]).expect("there is BTF");
            assert_eq!(unreadable(&layout), hooks, "{name}");
            assert!(layout.unreadable.iter().all(|u| u.reason.contains(name)), "{name}: {:?}", layout.unreadable);
            assert_eq!(layout.task_pid, whole.task_pid, "the rest is read");
        }
        let layout = without(test, &["exit_code", "hierarchy_id"]).expect("there is BTF");
        assert_eq!(unreadable(&layout), ["sched_process_exit", "cgroup_mkdir"]);
        let known: Vec<&str> = crate::telemetry::hooks::names().collect();
        for hook in [OF_CPU, OF_PIDS, OF_CGROUPS].concat().iter().chain(&unreadable(&layout)) {
            assert!(known.contains(hook), "{hook} is a hook");
        }
    }

    #[test]
    fn what_the_programs_can_do_without_costs_no_hook() {
        let test = "what_the_programs_can_do_without_costs_no_hook";
        type Field = fn(&Layout) -> u64;
        let cases: [(&[&str], Field); 4] = [
            (&["tcp_gso_segs"], |layout| layout.skb_tcp_segments),
            (&["group_exec_task", "group_exit_task"], |layout| layout.signal_exec_task),
            (&["prev_sum_exec_runtime"], |layout| layout.task_prev_sum_exec_runtime),
            // The one before is of no use without it.
            (&["prio"], |layout| layout.task_prev_sum_exec_runtime),
        ];
        for (names, offset) in cases {
            let Some(layout) = without(test, names) else { return };
            assert!(layout.unreadable.is_empty(), "{names:?}: {layout:?}");
            assert_eq!(offset(&layout), 0, "{names:?}");
        }
    }
}
