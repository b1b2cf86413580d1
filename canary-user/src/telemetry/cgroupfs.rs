//! The kernel's own books of one cgroup.

use std::{io, os::fd::AsFd, path::Path};

use super::{BlockIo, Pressure, Throttling, kernel_file::KernelFile};

/// What a tick needs of the files: a read takes the kernel some microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Reads {
    /// Everything but `cpu.stat`, also `io.stat`, for which the kernel has to add up its CPUs.
    pub all: bool,
    /// `cpu.stat`, also where no CPU limit is set. To bring it up to date the kernel looks for the cgroup in a list of all its siblings
    /// that have run (`css_rstat_updated_list`, kernel/cgroup/rstat.c): of each of thousands that is read it walks thousands.
    pub cpu: bool,
    /// `cgroup.events`: it changed.
    pub populated: bool,
    /// `memory.pressure`: somebody on the machine was stalled.
    pub memory_pressure: bool,
}

impl Reads {
    pub const ALL: Self = Self { all: true, cpu: true, populated: true, memory_pressure: true };
}

/// What one reading brings: differences from the reading before. `None` where the file or the controller is absent, where it was
/// not read, or where a count went back: it began anew, and nobody knows what came in between.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// Only where it was read in the tick before, too: else it would be of more than one tick.
    pub cpu_usec: Option<u64>,
    pub throttling: Option<Throttling>,
    pub pressure: Option<Pressure>,
    pub block_io: Option<BlockIo>,
    /// As it was last read.
    pub populated: Option<bool>,
}

/// The files of one cgroup, and what differences are taken from.
#[derive(Debug, Default)]
pub struct CgroupFiles {
    cpu_stat: Option<KernelFile>,
    cpu_max: Option<KernelFile>,
    events: Option<KernelFile>,
    /// Of cpu, memory and io: all three or none.
    pressure: Option<[KernelFile; 3]>,
    io_stat: Option<KernelFile>,
    before: Before,
    /// A CPU limit is set.
    limited: bool,
}

/// Cumulative; `some` and `full` of pressure in microseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    cpu_usec: Option<u64>,
    throttling: Option<Throttling>,
    pressure: [Option<(u64, u64)>; 3],
    block_io: Option<BlockIo>,
    populated: Option<bool>,
}

impl CgroupFiles {
    /// Opens what is there; see [`KernelFile::open`] for `held`.
    pub fn open(dir: &Path, held: bool) -> Self {
        let open = |name: &str| KernelFile::open(dir, name, held);
        let pressure = |name: &str| open(name).filter(|file| matches!(file.read(), Ok(Some(_))));
        Self {
            cpu_stat: open("cpu.stat"),
            cpu_max: open("cpu.max"),
            // The kernel tells of it for as long as it is open.
            events: KernelFile::open(dir, "cgroup.events", true),
            pressure: (|| Some([pressure("cpu.pressure")?, pressure("memory.pressure")?, pressure("io.pressure")?]))(),
            io_stat: open("io.stat"),
            ..Self::default()
        }
    }

    /// What changes when the first process comes or the last one goes.
    pub fn events(&self) -> Option<impl AsFd> {
        self.events.as_ref()?.held()
    }

    /// Reads what is asked for, and `cpu.stat` while a CPU limit is set.
    ///
    /// # Errors
    /// When the cgroup is gone (see [`crate::targets::cgroup::is_gone`]).
    pub fn read(&mut self, reads: Reads) -> io::Result<Reading> {
        let mut reading = Reading::default();
        if reads.all || reads.populated {
            let events = read(self.events.as_ref())?;
            self.before.populated = events.as_deref().and_then(|t| field(t, "populated")).map(|v| v == 1);
        }
        reading.populated = self.before.populated;
        if reads.all {
            self.limited = read(self.cpu_max.as_ref())?.is_some_and(|limit| !limit.starts_with("max"));
        }
        if reads.cpu || self.limited {
            let text = read(self.cpu_stat.as_ref())?.unwrap_or_default();
            reading.cpu_usec = since(&mut self.before.cpu_usec, field(&text, "usage_usec"));
            let now = throttling(&text);
            let before = std::mem::replace(&mut self.before.throttling, now);
            reading.throttling = before.zip(now).and_then(|(before, now)| throttling_between(before, now));
        } else {
            (self.before.cpu_usec, self.before.throttling) = (None, None);
        }
        if let Some([cpu, memory, io]) = &self.pressure {
            let [cpu_before, memory_before, io_before] = &mut self.before.pressure;
            let cpu = if reads.all { pressure_since(cpu, cpu_before)? } else { None };
            let io = if reads.all { pressure_since(io, io_before)? } else { None };
            // While nobody on the machine is stalled on memory, nobody in this cgroup is.
            let memory = if reads.all || reads.memory_pressure {
                pressure_since(memory, memory_before)?
            } else {
                memory_before.map(|_| (0, 0))
            };
            reading.pressure = memory.map(|(memory_some_usec, memory_full_usec)| Pressure {
                cpu_some_usec: cpu.map(|(some, _)| some),
                cpu_full_usec: cpu.map(|(_, full)| full),
                memory_some_usec,
                memory_full_usec,
                io_some_usec: io.map(|(some, _)| some),
                io_full_usec: io.map(|(_, full)| full),
            });
        }
        if reads.all {
            let now = read(self.io_stat.as_ref())?.as_deref().map(block_io);
            let before = std::mem::replace(&mut self.before.block_io, now);
            reading.block_io = before.zip(now).and_then(|(before, now)| block_io_between(before, now));
        }
        Ok(reading)
    }
}

/// `None` also where there is no such file.
pub fn read(file: Option<&KernelFile>) -> io::Result<Option<String>> {
    file.map_or(Ok(None), KernelFile::read)
}

/// Difference from the reading before, which the new one replaces; `None` where it went back.
pub fn since(before: &mut Option<u64>, now: Option<u64>) -> Option<u64> {
    std::mem::replace(before, now).zip(now).and_then(|(before, now)| now.checked_sub(before))
}

/// Value of `name value` in a flat keyed file.
pub fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Sum over the devices, one to a line: "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0".
fn block_io(text: &str) -> BlockIo {
    let sum = |name: &str| {
        let of_line =
            |line: &str| line.split(' ').find_map(|w| w.strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok());
        text.lines().filter_map(of_line).sum::<u64>()
    };
    BlockIo { read_bytes: sum("rbytes"), write_bytes: sum("wbytes"), reads: sum("rios"), writes: sum("wios") }
}

/// `total=` of a pressure file's line, in microseconds.
pub fn total(text: &str, kind: &str) -> Option<u64> {
    text.lines().find(|l| l.starts_with(kind))?.split("total=").nth(1)?.trim().parse().ok()
}

/// Growth of a pressure file's `some` and `full`; `full` is 0 where the kernel does not tell it.
fn pressure_since(file: &KernelFile, before: &mut Option<(u64, u64)>) -> io::Result<Option<(u64, u64)>> {
    let text = file.read()?.unwrap_or_default();
    let now = total(&text, "some").map(|some| (some, total(&text, "full").unwrap_or(0)));
    let before = std::mem::replace(before, now);
    Ok(before.zip(now).and_then(|(b, n)| Some((n.0.checked_sub(b.0)?, n.1.checked_sub(b.1)?))))
}

/// Difference of two cumulative readings of block I/O. A device that is gone takes its counts along.
fn block_io_between(before: BlockIo, after: BlockIo) -> Option<BlockIo> {
    Some(BlockIo {
        read_bytes: after.read_bytes.checked_sub(before.read_bytes)?,
        write_bytes: after.write_bytes.checked_sub(before.write_bytes)?,
        reads: after.reads.checked_sub(before.reads)?,
        writes: after.writes.checked_sub(before.writes)?,
    })
}

/// What `cpu.stat` says of a limit, since the cgroup was made.
pub fn throttling(text: &str) -> Option<Throttling> {
    Some(Throttling {
        periods: field(text, "nr_periods")?,
        throttled_periods: field(text, "nr_throttled")?,
        throttled_usec: field(text, "throttled_usec")?,
    })
}

pub fn throttling_between(before: Throttling, after: Throttling) -> Option<Throttling> {
    Some(Throttling {
        periods: after.periods.checked_sub(before.periods)?,
        throttled_periods: after.throttled_periods.checked_sub(before.throttled_periods)?,
        throttled_usec: after.throttled_usec.checked_sub(before.throttled_usec)?,
    })
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
        let io = "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n254:0 rbytes=5 wbytes=0 rios=1 wios=0\n";
        assert_eq!(block_io(io), BlockIo { read_bytes: 15, write_bytes: 20, reads: 2, writes: 2 });
        assert_eq!(block_io(""), BlockIo::default(), "no device was used");
        let psi = "some avg10=0.00 avg60=0.00 avg300=0.00 total=42\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        assert_eq!((total(psi, "some"), total(psi, "full")), (Some(42), Some(7)));
    }

    #[test]
    fn absent_files_are_no_data() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut files = CgroupFiles::open(dir.path(), true);
        for _ in 0..2 {
            assert_eq!(files.read(Reads::ALL).expect("nothing to read"), Reading::default());
        }
    }

    #[test]
    fn a_count_that_went_back_is_no_data_and_the_next_difference_is_from_there() {
        let dir = tempfile::tempdir().expect("tempdir");
        let write = |n: u64| {
            let file = |name: &str, text: String| std::fs::write(dir.path().join(name), text).expect("written");
            file("cpu.stat", format!("usage_usec {n}\nnr_periods {n}\nnr_throttled 0\nthrottled_usec 0\n"));
            for name in ["cpu.pressure", "memory.pressure", "io.pressure"] {
                file(name, format!("some avg10=0.00 total={n}\nfull avg10=0.00 total=0\n"));
            }
            file("io.stat", format!("8:0 rbytes={n} wbytes=0 rios=0 wios=0\n"));
        };
        write(500);
        let mut files = CgroupFiles::open(dir.path(), true);
        files.read(Reads::ALL).expect("there");
        write(200);
        let back = files.read(Reads::ALL).expect("there");
        assert_eq!((back.cpu_usec, back.throttling, back.pressure, back.block_io), (None, None, None, None));
        write(260);
        let next = files.read(Reads::ALL).expect("there");
        assert_eq!((next.cpu_usec, next.throttling.map(|t| t.periods)), (Some(60), Some(60)));
        let pressure = next.pressure.expect("there");
        assert_eq!((pressure.cpu_some_usec, pressure.memory_some_usec), (Some(60), 60));
        assert_eq!(next.block_io.map(|io| io.read_bytes), Some(60));
    }

    #[test]
    fn what_is_not_read_is_no_data_and_the_next_reading_covers_the_time_since() {
        let dir = tempfile::tempdir().expect("tempdir");
        let write = |usec: u64, periods: u64| {
            let file = |name: &str, text: String| std::fs::write(dir.path().join(name), text).expect("written");
            file("cpu.stat", format!("usage_usec {usec}\nnr_periods {periods}\nnr_throttled 0\nthrottled_usec 0\n"));
            for name in ["cpu.pressure", "memory.pressure", "io.pressure"] {
                file(name, format!("some avg10=0.00 total={usec}\nfull avg10=0.00 total=0\n"));
            }
        };
        let few = Reads { all: false, cpu: false, populated: false, memory_pressure: false };
        write(100, 0);
        let mut files = CgroupFiles::open(dir.path(), true);
        files.read(Reads::ALL).expect("there");
        write(150, 0);
        let reading = files.read(few).expect("there");
        let pressure = reading.pressure.expect("nobody on the machine was stalled");
        assert_eq!((reading.cpu_usec, pressure.cpu_some_usec, pressure.memory_some_usec), (None, None, 0));
        write(300, 0);
        let reading = files.read(Reads::ALL).expect("there");
        let pressure = reading.pressure.expect("there");
        assert_eq!((reading.cpu_usec, pressure.cpu_some_usec, pressure.memory_some_usec), (None, Some(200), 200));
        write(400, 1);
        assert_eq!(files.read(Reads::ALL).expect("there").cpu_usec, Some(100));
        write(500, 3);
        assert_eq!(files.read(few).expect("there").throttling, None, "no limit is set");
        let turn = Reads { all: true, ..few };
        for (limit, periods) in
            [("max 100000", [None, None]), ("5000 100000", [None, Some(2)]), ("max 100000", [None; 2])]
        {
            std::fs::write(dir.path().join("cpu.max"), limit).expect("written");
            let mut files = CgroupFiles::open(dir.path(), true);
            write(500, 3);
            let first = files.read(turn).expect("there").throttling.map(|t| t.periods);
            write(600, 5);
            let second = files.read(few).expect("there").throttling.map(|t| t.periods);
            assert_eq!([first, second], periods, "{limit}");
        }
    }
}
