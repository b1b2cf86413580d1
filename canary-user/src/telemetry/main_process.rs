//! Which process of a target is the main one: the one that a service manager would restart.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use crate::targets::Target;

/// A cgroup that was removed counts as restarted when it is made again within this time.
const RETURNS_WITHIN_NS: u64 = 600_000_000_000;
/// Inode of the first pid namespace (`PROC_PID_INIT_INO`): the one whose numbers the kernel programs see.
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Finds main processes, and remembers the cgroups that went away.
#[derive(Debug)]
pub struct MainProcesses {
    /// Whether pids here are those that the kernel programs see.
    sees_pids: bool,
    /// By deployment and path, when it went.
    vanished: BTreeMap<(Arc<str>, Arc<str>), u64>,
}

impl Default for MainProcesses {
    fn default() -> Self {
        let own = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        Self { sees_pids: own == Path::new(FIRST_PID_NAMESPACE), vanished: BTreeMap::new() }
    }
}

impl MainProcesses {
    /// The process in a cgroup or below that started first; `None` where there is none, or pids here are other ones.
    pub fn oldest(&self, dir: &Path) -> Option<u32> {
        if !self.sees_pids {
            return None;
        }
        let mut oldest = None;
        pids(dir, &mut |pid| {
            // A process that ended in between is not the one that is looked for.
            if let Some(started) = started(pid) {
                let candidate = (started, pid);
                oldest = Some(oldest.map_or(candidate, |known: (u64, u32)| known.min(candidate)));
            }
        });
        oldest.map(|(_, pid)| pid)
    }

    pub fn vanished(&mut self, target: &Target, now_ns: u64) {
        self.vanished.retain(|_, at_ns| now_ns.saturating_sub(*at_ns) < RETURNS_WITHIN_NS);
        self.vanished.insert((target.deployment.clone(), target.cgroup.clone()), now_ns);
    }

    /// Whether a new target is one that went away: service managers make the cgroup of a service again when they
    /// restart it.
    pub fn returned(&mut self, target: &Target, now_ns: u64) -> bool {
        let went = self.vanished.remove(&(target.deployment.clone(), target.cgroup.clone()));
        went.is_some_and(|at_ns| now_ns.saturating_sub(at_ns) < RETURNS_WITHIN_NS)
    }
}

fn pids(dir: &Path, each: &mut impl FnMut(u32)) {
    let listed = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    listed.lines().flat_map(str::parse).for_each(&mut *each);
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            pids(&entry.path(), each);
        }
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
    use crate::targets::Role;

    #[test]
    fn a_cgroup_that_is_made_again_soon_was_restarted() {
        let target = Target {
            deployment: "shop".into(),
            role: Role::Canary,
            version: "2".into(),
            cgroup: "/shop/canary".into(),
            incarnation: 1,
            identity: None,
        };
        let again = Target { incarnation: 2, ..target.clone() };
        let mut main = MainProcesses::default();
        assert!(!main.returned(&target, 0));
        main.vanished(&target, 0);
        assert!(main.returned(&again, RETURNS_WITHIN_NS - 1));
        assert!(!main.returned(&again, RETURNS_WITHIN_NS - 1), "told once");
        main.vanished(&again, 0);
        assert!(!main.returned(&target, RETURNS_WITHIN_NS));
    }

    #[test]
    fn a_process_has_a_start() {
        assert!(started(std::process::id()).is_some_and(|ticks| ticks > 0));
    }
}
