//! Which process of a target is the main one: the one that a service manager would restart.

use std::{fs, path::Path};

use super::processes::collect_pids;

/// Inode of the first pid namespace (`PROC_PID_INIT_INO`): the one whose numbers the kernel programs see.
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Finds main processes.
#[derive(Debug)]
pub struct MainProcesses {
    /// Whether pids here are those that the kernel programs see.
    sees_pids: bool,
}

impl Default for MainProcesses {
    fn default() -> Self {
        let own = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        Self { sees_pids: own == Path::new(FIRST_PID_NAMESPACE) }
    }
}

impl MainProcesses {
    /// The process in a cgroup or below that started first; `None` where there is none, or pids here are other ones.
    pub fn oldest(&self, dir: &Path) -> Option<u32> {
        if !self.sees_pids {
            return None;
        }
        let mut pids = Vec::new();
        collect_pids(dir, &mut pids);
        // A process that ended in between is not the one that is looked for.
        pids.into_iter().filter_map(|pid| Some((started(pid)?, pid))).min().map(|(_, pid)| pid)
    }
}

/// Start of a process in clock ticks since boot: field 22 of `/proc/PID/stat`, the 20th after the name, which may
/// hold anything.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_start() {
        assert!(started(std::process::id()).is_some_and(|ticks| ticks > 0));
    }
}
