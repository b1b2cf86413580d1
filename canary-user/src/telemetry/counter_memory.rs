//! The counters of all slots, read in the kernel's own memory.

use std::{fs, os::fd::AsFd as _};

use anyhow::{Context as _, bail};
use aya::maps::{Map, MapData};
use canary_common::{Counters, MAX_SLOTS};
use canary_mmap::Words;

/// Words of one element: the counters, and what fills its last cache line.
const STRIDE: usize = size_of::<Counters>() / size_of::<u64>();
/// Slots that are mapped at a time: what is mapped counts as memory of the daemon.
const STEP: usize = 256;
/// Where the kernel lists the CPUs that the machine can have.
const POSSIBLE: &str = "/sys/devices/system/cpu/possible";

/// CPUs that the maps need room for: as many as the highest number asks for, for numbers may be left out.
///
/// # Errors
/// Where sysfs cannot be read.
pub fn possible_cpus() -> anyhow::Result<u32> {
    let list = fs::read_to_string(POSSIBLE).with_context(|| format!("read {POSSIBLE}"))?;
    after_the_last(&list).with_context(|| format!("{POSSIBLE} is no list of CPUs: {list:?}"))
}

/// The list is ascending: "0-3,8-11".
fn after_the_last(list: &str) -> Option<u32> {
    list.trim().rsplit([',', '-']).next()?.parse::<u32>().ok()?.checked_add(1)
}

/// Maps as many slots as are in use; those that were used once stay mapped.
pub struct CounterMemory {
    map: MapData,
    cpus: Cpus,
    words: Words,
    slots: usize,
}

/// The CPUs that have an element in each slot, and those of them that may have counted. A machine can have many more than it
/// has, and reading what nothing was ever written to takes as long.
#[derive(Debug)]
struct Cpus {
    possible: usize,
    /// Ascending. One that went offline has counted what it has counted.
    ever_online: Vec<usize>,
    /// Until somebody says which were online, all of them may have been.
    is_known: bool,
}

impl Cpus {
    fn new(possible: usize) -> Self {
        Self { possible, ever_online: (0..possible).collect(), is_known: false }
    }

    fn are_online(&mut self, online: &[u32]) {
        if !self.is_known && !online.is_empty() {
            self.ever_online.clear();
            self.is_known = true;
        }
        for cpu in online.iter().map(|cpu| *cpu as usize).filter(|cpu| *cpu < self.possible) {
            if let Err(at) = self.ever_online.binary_search(&cpu) {
                self.ever_online.insert(at, cpu);
            }
        }
    }
}

impl CounterMemory {
    pub fn new(map: Map, cpus: u32) -> anyhow::Result<Self> {
        let Map::Array(map) = map else { bail!("the map of counters is no array") };
        let cpus = Cpus::new(cpus as usize);
        let words = words(&map, cpus.possible, STEP)?;
        Ok(Self { map, cpus, words, slots: STEP })
    }

    /// These CPUs are online: from now on what they count is read, too. To be told before anything is read that a CPU counted
    /// since it came.
    pub fn are_online(&mut self, cpus: &[u32]) {
        self.cpus.are_online(cpus);
    }

    /// Makes a slot readable.
    pub fn reach(&mut self, slot: u32) -> anyhow::Result<()> {
        let slot = slot as usize;
        if slot >= self.slots {
            let slots = (slot + 1).next_multiple_of(STEP).min(MAX_SLOTS);
            self.words = words(&self.map, self.cpus.possible, slots)?;
            self.slots = slots;
        }
        Ok(())
    }

    /// A slot's counters, all CPUs together.
    pub fn read(&self, slot: u32) -> anyhow::Result<[u64; Counters::WORDS]> {
        let mut total = [0; Counters::WORDS];
        for cpu in &self.cpus.ever_online {
            let start = (slot as usize * self.cpus.possible + cpu) * STRIDE;
            for (i, sum) in total.iter_mut().enumerate() {
                *sum += self.words.load(start + i).with_context(|| format!("slot {slot} is not mapped"))?;
            }
        }
        Ok(total)
    }
}

fn words(map: &MapData, cpus: usize, slots: usize) -> anyhow::Result<Words> {
    Words::map(map.fd().as_fd(), slots * cpus * STRIDE).context("map the counters into memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_cpus_may_be_left_out() {
        assert_eq!(["0-1\n", "0", "0-3,8-11", "0,2,5"].map(after_the_last), [2, 1, 12, 6].map(Some));
        assert_eq!(["", "\n", "a", "0-"].map(after_the_last), [None; 4]);
        let here = possible_cpus().expect("sysfs");
        assert!(here as usize >= std::thread::available_parallelism().map_or(1, usize::from), "{here}");
    }

    #[test]
    fn what_cpus_counted_that_were_ever_online_is_read_and_nothing_else() {
        let mut cpus = Cpus::new(6);
        assert_eq!(cpus.ever_online, [0, 1, 2, 3, 4, 5], "any may have counted");
        cpus.are_online(&[]);
        assert_eq!(cpus.ever_online.len(), 6, "not known is not none");
        cpus.are_online(&[0, 1, 5]);
        assert_eq!(cpus.ever_online, [0, 1, 5]);
        cpus.are_online(&[1, 4, 9]);
        assert_eq!(cpus.ever_online, [0, 1, 4, 5], "those that went stay, and there is room for possible ones only");
    }
}
