//! What the kernel programs must know about this kernel before they are loaded, read from its own BTF.

use anyhow::{Context as _, bail};

use super::btf::Btf;

/// Where the running kernel describes its own types.
pub const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";
/// The oldest kernel that the programs are meant for, by the first two numbers of its version.
pub const OLDEST: (u32, u32) = (5, 15);
const SCHED_EXT_STATE: &str = "/sys/kernel/sched_ext/state";

/// Offsets and signatures that differ between kernels; written into the object's read-only data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    pub task_pid: u64,
    pub task_tgid: u64,
    pub task_state: u64,
    pub task_exit_code: u64,
    /// Of `se.sum_exec_runtime`: the scheduler's own book of a task's on-CPU time.
    pub task_sum_exec_runtime: u64,
    /// Of `se.prev_sum_exec_runtime`: what that was when the task last got a CPU. 0 where it cannot be relied on: a task that
    /// sched_ext schedules keeps an old value.
    pub task_prev_sum_exec_runtime: u64,
    pub task_prio: u64,
    /// Of `sched_info.run_delay`: the scheduler's own book of a task's waits for a CPU.
    pub task_run_delay: u64,
    pub task_flags: u64,
    pub task_cpu: u64,
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
    /// Where in an `sk_buff` TCP notes the segments of a packet that it sends: its own struct lies in `cb`.
    pub skb_tcp_segments: u64,
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
    /// Where the kernel has no BTF, or a type in it is not what every kernel since 5.15 has.
    pub fn read() -> anyhow::Result<Self> {
        if !std::path::Path::new(BTF_PATH).exists() {
            bail!("this kernel has no BTF ({BTF_PATH} is missing): it must be built with CONFIG_DEBUG_INFO_BTF=y");
        }
        let bytes = std::fs::read(BTF_PATH).with_context(|| format!("read {BTF_PATH}"))?;
        Self::from_btf(&Btf::parse(bytes).with_context(|| BTF_PATH)?)
    }

    fn from_btf(btf: &Btf) -> anyhow::Result<Self> {
        let task = |members: &[&str]| btf.member_offset("task_struct", members);
        let entity = task(&["se"])?;
        let extended = std::fs::read_to_string(SCHED_EXT_STATE).is_ok_and(|state| state.trim() == "enabled");
        let at_arrival = btf.member_offset("sched_entity", &["prev_sum_exec_runtime"]).ok().filter(|_| !extended);
        Ok(Self {
            task_pid: task(&["pid"])?,
            task_tgid: task(&["tgid"])?,
            // Renamed in 5.14.
            task_state: task(&["__state", "state"])?,
            task_exit_code: task(&["exit_code"])?,
            task_sum_exec_runtime: entity + btf.member_offset("sched_entity", &["sum_exec_runtime"])?,
            task_prev_sum_exec_runtime: at_arrival.map_or(0, |offset| entity + offset),
            task_prio: task(&["prio"])?,
            task_run_delay: task(&["sched_info"])?
                + btf
                    .member_offset("sched_info", &["run_delay"])
                    .context("it must be built with CONFIG_TASK_DELAY_ACCT=y or CONFIG_SCHEDSTATS=y")?,
            task_flags: task(&["flags"])?,
            // In `task_struct` itself on some architectures before 5.16.
            task_cpu: match (task(&["thread_info"]), btf.member_offset("thread_info", &["cpu"])) {
                (Ok(info), Ok(cpu)) => info + cpu,
                _ => task(&["cpu"])?,
            },
            task_cgroups: task(&["cgroups"])?,
            css_set_dfl_cgrp: btf.member_offset("css_set", &["dfl_cgrp"])?,
            cgroup_kn: btf.member_offset("cgroup", &["kn"])?,
            kernfs_node_id: btf.member_offset("kernfs_node", &["id"])?,
            cgroup_root: btf.member_offset("cgroup", &["root"])?,
            cgroup_root_hierarchy_id: btf.member_offset("cgroup_root", &["hierarchy_id"])?,
            switch_has_state: (btf.tracepoint_pointers("sched_switch")?.len() >= 4).into(),
            // Where it is missing the hook will be refused by itself; nothing else depends on it.
            victim_is_task: btf.tracepoint_pointers("mark_victim").is_ok_and(|p| p.first() == Some(&true)).into(),
            skb_tcp_segments: btf.member_offset("sk_buff", &["cb"])?
                + btf.member_offset("tcp_skb_cb", &["tcp_gso_segs"])?,
        })
    }
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
    }
}
