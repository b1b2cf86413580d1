//! What the kernel programs must know about this kernel before they are loaded, read from its own BTF.

use anyhow::{Context as _, bail};
use btf_rs::{Btf, Type};

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
        let btf = Btf::from_file(BTF_PATH).with_context(|| format!("read {BTF_PATH}"))?;
        Self::from_btf(&btf)
    }

    fn from_btf(btf: &Btf) -> anyhow::Result<Self> {
        let task = |fields: &[&str]| member_offset(btf, "task_struct", fields);
        Ok(Self {
            task_pid: task(&["pid"])?,
            task_tgid: task(&["tgid"])?,
            // Renamed in 5.14.
            task_state: task(&["__state", "state"])?,
            task_exit_code: task(&["exit_code"])?,
            switch_has_state: (tracepoint_arguments(btf, "sched_switch")?.len() >= 4).into(),
            victim_is_task: match tracepoint_arguments(btf, "mark_victim") {
                Ok(arguments) => matches!(arguments.first(), Some(Type::Ptr(_))).into(),
                // The hook will be refused by itself; nothing else depends on it.
                Err(_) => 0,
            },
        })
    }
}

/// Byte offset of the first of `fields` that the struct has.
fn member_offset(btf: &Btf, name: &str, fields: &[&str]) -> anyhow::Result<u64> {
    let types = btf.resolve_types_by_name(name).with_context(|| format!("find struct {name} in BTF"))?;
    for ty in types {
        let Type::Struct(found) = ty else { continue };
        for field in fields {
            for member in &found.members {
                if btf.resolve_name(member).is_ok_and(|n| n == *field) {
                    return Ok(u64::from(member.bit_offset()) / 8);
                }
            }
        }
    }
    bail!("struct {name} has no member {} in this kernel's BTF", fields.join(" or "))
}

/// Types of a tracepoint's arguments, by the typedef that the kernel makes for each (`btf_trace_<name>`); the first
/// parameter of that prototype is the probe's private pointer and is left out.
fn tracepoint_arguments(btf: &Btf, tracepoint: &str) -> anyhow::Result<Vec<Type>> {
    let name = format!("btf_trace_{tracepoint}");
    for ty in btf.resolve_types_by_name(&name).with_context(|| format!("find tracepoint {tracepoint} in BTF"))? {
        let Type::Typedef(typedef) = ty else { continue };
        for step in btf.chained_type_iter(&typedef) {
            if let Type::FuncProto(proto) = step {
                return proto
                    .parameters
                    .iter()
                    .skip(1)
                    .map(|p| {
                        btf.resolve_chained_type(p).with_context(|| format!("resolve an argument of {tracepoint}"))
                    })
                    .collect();
            }
        }
    }
    bail!("tracepoint {tracepoint} has no prototype in this kernel's BTF")
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
