//! The counters of all slots, read in the kernel's own memory.

use std::os::fd::AsFd as _;

use anyhow::{Context as _, bail};
use aya::maps::{Map, MapData};
use canary_common::{Counters, MAX_SLOTS};
use canary_mmap::Words;

/// Words of one element: the counters, and what fills its last cache line.
const STRIDE: usize = size_of::<Counters>() / size_of::<u64>();
/// Slots that are mapped at a time: what is mapped counts as memory of the daemon.
const STEP: usize = 256;

/// Maps as many slots as are in use; those that were used once stay mapped.
pub struct CounterMemory {
    map: MapData,
    cpus: usize,
    words: Words,
    slots: usize,
}

impl CounterMemory {
    pub fn new(map: Map, cpus: u32) -> anyhow::Result<Self> {
        let Map::Array(map) = map else { bail!("the map of counters is no array") };
        let cpus = cpus as usize;
        let words = words(&map, cpus, STEP)?;
        Ok(Self { map, cpus, words, slots: STEP })
    }

    /// Makes a slot readable.
    pub fn reach(&mut self, slot: u32) -> anyhow::Result<()> {
        let slot = slot as usize;
        if slot >= self.slots {
            let slots = (slot + 1).next_multiple_of(STEP).min(MAX_SLOTS);
            self.words = words(&self.map, self.cpus, slots)?;
            self.slots = slots;
        }
        Ok(())
    }

    /// A slot's counters, all CPUs together.
    pub fn read(&self, slot: u32) -> anyhow::Result<[u64; Counters::WORDS]> {
        let mut total = [0; Counters::WORDS];
        for cpu in 0..self.cpus {
            let start = (slot as usize * self.cpus + cpu) * STRIDE;
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
