//! The kernel's own books of one cgroup, read once per tick through files that stay open.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use super::{Memory, MemorySource, Pressure, Throttling};

/// Cumulative readings; `None` where the file or the controller is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    pub cpu_usec: Option<u64>,
    pub throttling: Option<ThrottlingTotal>,
    pub pressure: Option<PressureTotal>,
    pub populated: Option<bool>,
}

/// Cumulative form of [`Throttling`].
pub type ThrottlingTotal = (u64, u64, u64);
/// Cumulative form of [`Pressure`]: cpu some, memory some, memory full, io some, io full.
pub type PressureTotal = [u64; 5];

/// The open files of one cgroup.
#[derive(Debug)]
pub struct CgroupFiles {
    dir: PathBuf,
    cpu_stat: Option<File>,
    events: Option<File>,
    cpu_pressure: Option<File>,
    memory_pressure: Option<File>,
    io_pressure: Option<File>,
    memory_current: Option<File>,
    memory_max: Option<File>,
}

impl CgroupFiles {
    /// Opens what is there.
    pub fn open(dir: &Path) -> Self {
        let open = |name: &str| File::open(dir.join(name)).ok();
        Self {
            dir: dir.to_owned(),
            cpu_stat: open("cpu.stat"),
            events: open("cgroup.events"),
            cpu_pressure: open("cpu.pressure"),
            memory_pressure: open("memory.pressure"),
            io_pressure: open("io.pressure"),
            memory_current: open("memory.current"),
            memory_max: open("memory.max"),
        }
    }

    /// Reads the cumulative books.
    ///
    /// # Errors
    /// When the cgroup is gone (see [`crate::targets::cgroup::is_gone`]).
    pub fn books(&self) -> io::Result<Books> {
        let cpu = read(self.cpu_stat.as_ref())?;
        let cpu_field = |name: &str| cpu.as_deref().and_then(|t| field(t, name));
        let events = read(self.events.as_ref())?;
        let psi = |file: &Option<File>| -> io::Result<Option<(u64, u64)>> {
            Ok(read(file.as_ref())?.and_then(|t| Some((total(&t, "some")?, total(&t, "full").unwrap_or(0)))))
        };
        let (cpu_psi, memory_psi, io_psi) =
            (psi(&self.cpu_pressure)?, psi(&self.memory_pressure)?, psi(&self.io_pressure)?);
        Ok(Books {
            cpu_usec: cpu_field("usage_usec"),
            throttling: cpu_field("nr_periods")
                .zip(cpu_field("nr_throttled"))
                .zip(cpu_field("throttled_usec"))
                .map(|((periods, throttled), usec)| (periods, throttled, usec)),
            pressure: cpu_psi
                .zip(memory_psi)
                .zip(io_psi)
                .map(|((cpu, memory), io)| [cpu.0, memory.0, memory.1, io.0, io.1]),
            populated: events.as_deref().and_then(|t| field(t, "populated")).map(|v| v == 1),
        })
    }

    /// Memory in use now: `memory.current` where there is a memory controller, else the processes' resident sets.
    pub fn memory(&self) -> Option<Memory> {
        if let Some(text) = read(self.memory_current.as_ref()).ok()? {
            let limit = read(self.memory_max.as_ref()).ok()?.and_then(|t| t.trim().parse().ok());
            return Some(Memory {
                in_use_bytes: text.trim().parse().ok()?,
                limit_bytes: limit,
                source: MemorySource::MemoryCurrent,
            });
        }
        let in_use_bytes = resident_bytes(&self.dir)?;
        Some(Memory { in_use_bytes, limit_bytes: None, source: MemorySource::ResidentSum })
    }
}

/// Sum of the resident sets of a cgroup's processes and those of its descendants; `None` where there is no process,
/// or one that this process cannot see (pid 0 in a foreign pid namespace).
fn resident_bytes(dir: &Path) -> Option<u64> {
    let page_bytes = rustix::param::page_size() as u64;
    let mut sum = None;
    for pid in fs::read_to_string(dir.join("cgroup.procs")).ok()?.lines() {
        if pid == "0" {
            return None;
        }
        // A process that ended in between holds no memory any more.
        let Ok(statm) = fs::read_to_string(format!("/proc/{pid}/statm")) else { continue };
        let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
        sum = Some(sum.unwrap_or(0) + pages * page_bytes);
    }
    for entry in fs::read_dir(dir).ok()?.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir())
            && let Some(below) = resident_bytes(&entry.path())
        {
            sum = Some(sum.unwrap_or(0) + below);
        }
    }
    sum
}

/// `None` where the file does not exist here or the kernel has it switched off.
fn read(file: Option<&File>) -> io::Result<Option<String>> {
    let Some(file) = file else { return Ok(None) };
    let mut buffer = [0u8; 4096];
    match file.read_at(&mut buffer, 0) {
        Ok(n) => Ok(String::from_utf8(buffer[..n].to_vec()).ok()),
        Err(e) if crate::targets::cgroup::is_gone(&e) => Err(e),
        // EOPNOTSUPP where PSI is compiled in but off.
        Err(_) => Ok(None),
    }
}

/// Value of `name value` in a flat keyed file.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// `total=` of a pressure file's line, in microseconds.
fn total(text: &str, kind: &str) -> Option<u64> {
    text.lines().find(|l| l.starts_with(kind))?.split("total=").nth(1)?.trim().parse().ok()
}

/// Difference of two cumulative pressure readings.
pub fn pressure_between(before: PressureTotal, after: PressureTotal) -> Pressure {
    let d = |i: usize| after[i].saturating_sub(before[i]);
    Pressure {
        cpu_some_usec: d(0),
        memory_some_usec: d(1),
        memory_full_usec: d(2),
        io_some_usec: d(3),
        io_full_usec: d(4),
    }
}

/// Difference of two cumulative throttling readings.
pub fn throttling_between(before: ThrottlingTotal, after: ThrottlingTotal) -> Throttling {
    Throttling {
        periods: after.0.saturating_sub(before.0),
        throttled_periods: after.1.saturating_sub(before.1),
        throttled_usec: after.2.saturating_sub(before.2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_keyed_and_pressure_files() {
        let stat = "usage_usec 123\nuser_usec 100\nnr_periods 7\n";
        assert_eq!(field(stat, "usage_usec"), Some(123));
        assert_eq!(field(stat, "usage"), None);
        assert_eq!(field(stat, "nr_throttled"), None);
        let psi = "some avg10=0.00 avg60=0.00 avg300=0.00 total=42\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        assert_eq!((total(psi, "some"), total(psi, "full")), (Some(42), Some(7)));
    }

    #[test]
    fn absent_files_are_no_data() {
        let dir = tempfile::tempdir().expect("tempdir");
        let files = CgroupFiles::open(dir.path());
        assert_eq!(files.books().expect("nothing to read"), Books::default());
        assert_eq!(files.memory(), None);
    }
}
