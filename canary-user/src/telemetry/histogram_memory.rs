//! The histograms of one signal, read in the kernel's own memory.

use std::os::fd::AsFd as _;

use anyhow::{Context as _, bail};
use aya::maps::{Map, MapData};
use canary_common::{BANKS, Buckets, HISTOGRAM_WORDS, MAX_SLOTS};
use canary_mmap::Words;

const STRIDE: usize = size_of::<Buckets>() / size_of::<u64>();
/// Slots that are mapped at a time: what is mapped counts as memory of the daemon, used or not, and takes time by the page.
const STEP: usize = 32;
const _: () = assert!(MAX_SLOTS.is_multiple_of(STEP));

/// Maps the slots around the one that is read. They are mostly read one after the other.
pub struct HistogramMemory {
    map: MapData,
    /// What is mapped, and its first slot.
    part: Option<(usize, Words)>,
}

impl HistogramMemory {
    pub fn new(map: Map) -> anyhow::Result<Self> {
        let Map::Array(map) = map else { bail!("a map of histograms is no array") };
        Ok(Self { map, part: None })
    }

    /// A slot's buckets, two to a word, all banks together.
    pub fn read(&mut self, slot: u32) -> anyhow::Result<[u64; HISTOGRAM_WORDS]> {
        let slot = slot as usize;
        let first = slot - slot % STEP;
        let words = match &self.part {
            Some((mapped, words)) if *mapped == first => words,
            _ => {
                // Before the next one: no more than one part is mapped at a time.
                self.part = None;
                let words = Words::map(self.map.fd().as_fd(), first * STRIDE, STEP * STRIDE)
                    .context("map the histograms into memory")?;
                &self.part.insert((first, words)).1
            }
        };
        let start = (slot - first) * STRIDE;
        let mut total = [0u64; HISTOGRAM_WORDS];
        for bank in 0..BANKS {
            for (i, sum) in total.iter_mut().enumerate() {
                let word = words.load(start + bank * HISTOGRAM_WORDS + i);
                *sum = sum.wrapping_add(word.with_context(|| format!("slot {slot} is not mapped"))?);
            }
        }
        Ok(total)
    }

    /// Takes what is mapped out of this process's memory.
    pub fn close(&mut self) {
        self.part = None;
    }
}
