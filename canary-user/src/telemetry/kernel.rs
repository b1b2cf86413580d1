//! What the kernel programs must know about this kernel before they are loaded, read from its own BTF.

use anyhow::{Context as _, bail};

use super::btf::Btf;

/// Where the running kernel describes its own types.
pub const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

/// Offsets and signatures that differ between kernels; written into the object's read-only data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub task_pid: u64,
    pub task_tgid: u64,
    pub task_state: u64,
    pub task_exit_code: u64,
    /// Whether `sched_switch` passes the state of the task that leaves (5.18 and later).
    pub switch_has_state: u8,
    /// Whether `mark_victim` passes the task, not its pid (6.9 and its backports).
    pub victim_is_task: u8,
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
        Ok(Self {
            task_pid: task(&["pid"])?,
            task_tgid: task(&["tgid"])?,
            // Renamed in 5.14.
            task_state: task(&["__state", "state"])?,
            task_exit_code: task(&["exit_code"])?,
            switch_has_state: (btf.tracepoint_pointers("sched_switch")?.len() >= 4).into(),
            // Where it is missing the hook will be refused by itself; nothing else depends on it.
            victim_is_task: btf.tracepoint_pointers("mark_victim").is_ok_and(|p| p.first() == Some(&true)).into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_a_plausible_layout() {
        if !std::path::Path::new(BTF_PATH).exists() {
            println!("SKIP this_kernel_has_a_plausible_layout: {BTF_PATH} is missing");
            return;
        }
        let layout = Layout::read().expect("layout");
        assert!(layout.task_pid > 0 && layout.task_tgid == layout.task_pid + 4, "{layout:?}");
        assert!(layout.task_exit_code > 0 && layout.task_exit_code.is_multiple_of(4), "{layout:?}");
    }
}
