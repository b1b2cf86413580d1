//! What a target's memory is by the kernel's books: cgroup v2's controller, else v1's, else the sum of its processes.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Memory, MemoryEvents, MemorySource,
    cgroupfs::{field, read, since},
    kernel_file::KernelFile,
    processes::{Processes, collect_pids},
};

/// How often a target's processes are looked for in cgroup v1.
const LOOKS: u32 = 10;
/// v1 writes "no limit" as the largest number of whole pages.
const NO_LIMIT_BYTES: u64 = 1 << 60;

/// What one reading brings; `None` where there is no such file, and for differences where a count went back.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    pub memory: Option<Memory>,
    pub major_faults: Option<u64>,
    pub events: Option<MemoryEvents>,
}

/// The files of one cgroup, and what differences are taken from.
#[derive(Debug)]
pub struct MemoryFiles {
    dir: PathBuf,
    /// Whether they stay open.
    held: bool,
    /// Of the v1 controller, where the cgroup of the same path would lie; until that is decided.
    v1: Option<PathBuf>,
    /// How often the processes were not found there.
    elsewhere: u32,
    processes: Processes,
    controller: Option<Controller>,
    events: Option<KernelFile>,
    in_use_before: Option<u64>,
    faults_before: Option<u64>,
    events_before: Option<MemoryEvents>,
    /// Of the last time that memory.stat was read.
    anon_and_file: (Option<u64>, Option<u64>),
}

#[derive(Debug)]
struct Controller {
    source: MemorySource,
    in_use: KernelFile,
    limit: Option<KernelFile>,
    stat: Option<KernelFile>,
}

impl MemoryFiles {
    /// `v1` is the root of cgroup v1's memory controller, if it is mounted, and `cgroup` the path below it; see [`KernelFile::open`] for
    /// `held`.
    pub fn open(dir: &Path, v1: Option<&Path>, cgroup: &str, held: bool) -> Self {
        let open = |name: &str| KernelFile::open(dir, name, held);
        Self {
            dir: dir.to_owned(),
            held,
            v1: v1.map(|root| root.join(cgroup.trim_start_matches('/'))),
            elsewhere: 0,
            processes: Processes::default(),
            controller: open("memory.current").map(|in_use| Controller {
                source: MemorySource::MemoryCurrent,
                in_use,
                limit: open("memory.max"),
                stat: open("memory.stat"),
            }),
            events: open("memory.events"),
            in_use_before: None,
            faults_before: None,
            events_before: None,
            anon_and_file: (None, None),
        }
    }

    /// Reads what is there. `memory.stat` makes the kernel add up its CPUs, so that it is read `with_stat` only; without,
    /// the parts of memory stay as they were. Where nobody lives there is nothing to add up. `processes_changed`: one may have
    /// come or gone since the last reading.
    pub fn read(&mut self, with_stat: bool, populated: bool, processes_changed: bool) -> io::Result<Reading> {
        if populated && self.controller.is_none() {
            self.controller = self.v1_controller();
        }
        let mut reading = Reading { events: self.events()?, ..Reading::default() };
        match &self.controller {
            Some(controller) => {
                let stat = if with_stat { read(controller.stat.as_ref())? } else { None };
                if let Some(stat) = stat {
                    let (anon, file, faults) = controller.source.fields();
                    self.anon_and_file = (field(&stat, anon), field(&stat, file));
                    reading.major_faults = since(&mut self.faults_before, field(&stat, faults));
                }
                let in_use_bytes = controller.in_use.read()?.and_then(|t| t.trim().parse().ok());
                let limit = read(controller.limit.as_ref())?.and_then(|t| t.trim().parse().ok());
                reading.memory = in_use_bytes.map(|in_use_bytes| Memory {
                    in_use_bytes,
                    limit_bytes: limit.filter(|bytes| *bytes < NO_LIMIT_BYTES),
                    growth_bytes: None,
                    anon_bytes: self.anon_and_file.0,
                    file_bytes: self.anon_and_file.1,
                    source: controller.source,
                });
            }
            None if populated => {
                reading.memory = self.processes.memory(&self.dir, processes_changed);
            }
            None => {}
        }
        if let Some(memory) = &mut reading.memory {
            let before = self.in_use_before.replace(memory.in_use_bytes);
            memory.growth_bytes = before.map(|before| memory.in_use_bytes.wrapping_sub(before) as i64);
        }
        Ok(reading)
    }

    /// There will be nothing to read any more.
    pub fn close(&mut self) {
        (self.v1, self.controller, self.events) = (None, None, None);
    }

    fn events(&mut self) -> io::Result<Option<MemoryEvents>> {
        let now = read(self.events.as_ref())?.and_then(|text| {
            let count = |name: &str| field(&text, name);
            Some(MemoryEvents {
                high: count("high")?,
                max: count("max")?,
                oom: count("oom")?,
                oom_kill: count("oom_kill")?,
            })
        });
        let before = std::mem::replace(&mut self.events_before, now);
        Ok(before.zip(now).and_then(|(before, now)| {
            Some(MemoryEvents {
                high: now.high.checked_sub(before.high)?,
                max: now.max.checked_sub(before.max)?,
                oom: now.oom.checked_sub(before.oom)?,
                oom_kill: now.oom_kill.checked_sub(before.oom_kill)?,
            })
        }))
    }

    /// The v1 cgroup of the same path, if the target's processes are in it or below it: then it counts the same.
    fn v1_controller(&mut self) -> Option<Controller> {
        // A process that starts is put into one cgroup after the other.
        if self.elsewhere == LOOKS {
            return None;
        }
        self.elsewhere += 1;
        let dir = self.v1.as_deref()?;
        let open = |name: &str| KernelFile::open(dir, name, self.held);
        let in_use = open("memory.usage_in_bytes")?;
        let pids = |dir: &Path| {
            let mut pids = Vec::new();
            collect_pids(dir, &mut pids);
            pids.sort_unstable();
            pids
        };
        let ours = pids(&self.dir);
        (ours == pids(dir)).then(|| Controller {
            source: MemorySource::UsageInBytes,
            in_use,
            limit: open("memory.limit_in_bytes"),
            stat: open("memory.stat"),
        })
    }
}

impl MemorySource {
    /// Names in memory.stat: anonymous memory, that of files, major faults.
    fn fields(self) -> (&'static str, &'static str, &'static str) {
        match self {
            MemorySource::UsageInBytes => ("total_rss", "total_cache", "total_pgmajfault"),
            MemorySource::MemoryCurrent | MemorySource::ResidentSum => ("anon", "file", "pgmajfault"),
        }
    }
}

/// Where cgroup v1's memory controller is mounted whole, if it is.
pub fn v1_root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(v1_mount).map(PathBuf::from)
}

/// Fields of a line: id, parent, device, root, mount point, …, "-", type, source, options of the file system.
fn v1_mount(line: &str) -> Option<&str> {
    let (mount, system) = line.split_once(" - ")?;
    let (kind, rest) = system.split_once(' ')?;
    let has_memory = rest.split([' ', ',']).any(|option| option == "memory");
    let mut fields = mount.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    (kind == "cgroup" && has_memory && root == "/").then_some(point)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str, text: &str) {
        fs::write(dir.join(name), text).expect("write");
    }

    #[test]
    fn differences_and_parts_are_taken_from_the_files_of_v2() {
        let dir = tempfile::tempdir().expect("tempdir");
        let dir = dir.path();
        write(dir, "memory.current", "1000\n");
        write(dir, "memory.max", "max\n");
        write(dir, "memory.stat", "anon 600\nfile 300\npgmajfault 5\n");
        write(dir, "memory.events", "low 0\nhigh 0\nmax 3\noom 0\noom_kill 0\noom_group_kill 0\n");
        let mut files = MemoryFiles::open(dir, None, "/x", true);
        let first = files.read(true, true, true).expect("read");
        assert_eq!((first.major_faults, first.events), (None, None), "a difference needs two");
        let memory = first.memory.expect("memory");
        assert_eq!((memory.in_use_bytes, memory.limit_bytes, memory.growth_bytes), (1000, None, None));
        assert_eq!((memory.anon_bytes, memory.file_bytes), (Some(600), Some(300)));

        write(dir, "memory.current", "400\n");
        write(dir, "memory.max", "4096\n");
        write(dir, "memory.stat", "anon 100\nfile 200\npgmajfault 7\n");
        write(dir, "memory.events", "low 0\nhigh 1\nmax 9\noom 2\noom_kill 2\noom_group_kill 0\n");
        let without = files.read(false, true, true).expect("read");
        assert_eq!(without.major_faults, None, "not read, not zero");
        assert_eq!(without.events, Some(MemoryEvents { high: 1, max: 6, oom: 2, oom_kill: 2 }));
        let memory = without.memory.expect("memory");
        assert_eq!((memory.limit_bytes, memory.growth_bytes, memory.anon_bytes), (Some(4096), Some(-600), Some(600)));
        assert_eq!(
            files.read(true, true, true).expect("read").major_faults,
            Some(2),
            "since the last time that it was read"
        );
    }

    #[test]
    fn a_count_that_went_back_is_no_data_and_the_next_difference_is_from_there() {
        let dir = tempfile::tempdir().expect("tempdir");
        let dir = dir.path();
        let counted = |faults: u64, kills: u64| {
            write(dir, "memory.current", "1000\n");
            write(dir, "memory.stat", &format!("anon 600\nfile 300\npgmajfault {faults}\n"));
            write(dir, "memory.events", &format!("low 0\nhigh 9\nmax 0\noom 0\noom_kill {kills}\n"));
        };
        counted(50, 3);
        let mut files = MemoryFiles::open(dir, None, "/x", true);
        files.read(true, true, true).expect("read");
        counted(5, 1);
        let back = files.read(true, true, true).expect("read");
        assert_eq!((back.major_faults, back.events), (None, None));
        counted(6, 2);
        let next = files.read(true, true, true).expect("read");
        assert_eq!((next.major_faults, next.events.map(|events| events.oom_kill)), (Some(1), Some(1)));
    }

    #[test]
    fn the_controller_of_v1_is_found_among_mounts() {
        let lines = "30 24 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                     33 24 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                     35 24 0:31 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n";
        assert_eq!(lines.lines().find_map(v1_mount), Some("/sys/fs/cgroup/memory"));
        assert_eq!(v1_mount("35 24 0:31 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"), None);
    }

    #[test]
    fn without_files_and_processes_nothing_is_known() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut files = MemoryFiles::open(dir.path(), None, "/x", true);
        assert_eq!(files.read(true, true, true).expect("nothing to read"), Reading::default());
    }
}
