//! The processes of a cgroup, and what memory they have resident together.

use std::{fs, fs::File, path::Path};

use super::{Memory, MemorySource, kernel_file};

/// Readings for which a list of processes is used, where nobody was seen to come or go: whoever is moved here from another
/// cgroup is not seen.
const LIST_LASTS: u32 = 6;

/// The processes of a cgroup and below, as they were last listed: listing them takes far longer than asking one of them.
#[derive(Debug, Default)]
pub struct Processes {
    pids: Vec<u32>,
    used: u32,
}

/// The processes of a cgroup and below.
pub fn collect_pids(dir: &Path, pids: &mut Vec<u32>) {
    let listed = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    pids.extend(listed.lines().flat_map(str::parse::<u32>));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            collect_pids(&entry.path(), pids);
        }
    }
}

impl Processes {
    /// Sum of the resident sets of a cgroup's processes and those of its descendants; `None` where there is no process, or one
    /// that this process cannot see (pid 0 in a foreign pid namespace). `changed`: one may have come or gone since the
    /// last call.
    pub fn memory(&mut self, dir: &Path, changed: bool) -> Option<Memory> {
        if changed || self.pids.is_empty() || self.used >= LIST_LASTS {
            self.pids.clear();
            collect_pids(dir, &mut self.pids);
            self.used = 0;
        }
        self.used += 1;
        if self.pids.contains(&0) {
            return None;
        }
        // A process that ended in between holds no memory any more.
        let pages = self.pids.iter().filter_map(|pid| Pages::of(*pid));
        pages.reduce(|a, b| Pages { resident: a.resident + b.resident, shared: a.shared + b.shared }).map(Pages::memory)
    }
}

/// Pages of processes: resident ones, and of these the ones of files and shared memory.
#[derive(Clone, Copy)]
struct Pages {
    resident: u64,
    shared: u64,
}

impl Pages {
    fn of(pid: u32) -> Option<Self> {
        let statm = kernel_file::read(&File::open(format!("/proc/{pid}/statm")).ok()?).ok()??;
        let mut fields = statm.split(' ').skip(1).map(str::parse::<u64>);
        Some(Self { resident: fields.next()?.ok()?, shared: fields.next()?.ok()? })
    }

    fn memory(self) -> Memory {
        let bytes = |pages: u64| pages * rustix::param::page_size() as u64;
        Memory {
            in_use_bytes: bytes(self.resident),
            limit_bytes: None,
            growth_bytes: None,
            anon_bytes: Some(bytes(self.resident.saturating_sub(self.shared))),
            file_bytes: Some(bytes(self.shared)),
            source: MemorySource::ResidentSum,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_used_until_somebody_came_or_went_or_it_is_old() {
        let dir = tempfile::tempdir().expect("tempdir");
        let list = |pids: &str| fs::write(dir.path().join("cgroup.procs"), pids).expect("written");
        let own = std::process::id();
        let mut processes = Processes::default();
        list("");
        assert_eq!(processes.memory(dir.path(), false), None, "nobody lives there");
        list(&format!("{own}\n"));
        let memory = processes.memory(dir.path(), false).expect("this process has memory");
        assert!(memory.in_use_bytes > 0 && memory.anon_bytes <= Some(memory.in_use_bytes), "{memory:?}");
        list("0\n");
        for _ in 1..LIST_LASTS {
            assert!(processes.memory(dir.path(), false).is_some(), "as it was listed");
        }
        assert_eq!(processes.memory(dir.path(), false), None, "one that cannot be seen has come");
        list(&format!("{own}\n"));
        assert!(processes.memory(dir.path(), true).is_some());
    }
}
