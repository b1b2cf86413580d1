//! The maps, typed: the only place that reads or writes them.

use anyhow::Context as _;
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, PerCpuArray, RingBuf},
};
use canary_common::{Buckets, CgroupPath, Counters, Exit, HISTOGRAM_WORDS, Lost, MAX_SLOTS, Main, Remade, Settings};

use super::{Histogram, counter_memory::CounterMemory, losses};

/// Handles of all maps that the daemon touches.
pub struct KernelMaps {
    cgroups: HashMap<MapData, u64, u32>,
    settings: Array<MapData, Settings>,
    groups: Array<MapData, u32>,
    counters: CounterMemory,
    /// What is not in `counters`, because somebody else was counting there just then.
    contended: CounterMemory,
    runq_wait: Array<MapData, Buckets>,
    stall: Array<MapData, Buckets>,
    turnaround: Array<MapData, Buckets>,
    dependency: Array<MapData, Buckets>,
    owned_since: Array<MapData, u32>,
    main: Array<MapData, Main>,
    lost: PerCpuArray<MapData, Lost>,
    tree_changes: PerCpuArray<MapData, u64>,
    facts: RingBuf<MapData>,
    places: HashMap<MapData, CgroupPath, u32>,
    remade: RingBuf<MapData>,
}

/// What was counted for one target between two reads.
#[derive(Clone, Debug)]
pub struct Counted {
    pub counters: Counters,
    pub runq_wait: Histogram,
    pub stall: Histogram,
    pub turnaround: Histogram,
    pub dependency: Histogram,
    /// Something was counted backwards: how much came on top is not known, and 0 here.
    pub went_back: bool,
}

/// What a slot had at the last read.
#[derive(Debug)]
pub struct Seen {
    counters: [u64; Counters::WORDS],
    runq_wait: SeenHistogram,
    stall: SeenHistogram,
    turnaround: SeenHistogram,
    dependency: SeenHistogram,
}

/// Holds nothing until its target counts something: most targets never stall.
#[derive(Debug, Default)]
struct SeenHistogram {
    words: Option<Box<[u64; HISTOGRAM_WORDS]>>,
    /// Whether the last read brought something: an event that came between the reads of counter and histogram is there
    /// in the next one.
    active: bool,
}

/// Makes the maps that have an element for each CPU as large as this machine needs them.
pub fn size(loader: &mut EbpfLoader, cpus: u32) {
    loader.map_max_entries("COUNTERS", MAX_SLOTS as u32 * cpus).map_max_entries("STRETCHES", cpus);
}

impl KernelMaps {
    pub fn take(ebpf: &mut Ebpf, cpus: u32) -> anyhow::Result<Self> {
        let mut take = |name: &str| ebpf.take_map(name).with_context(|| format!("the object has no map {name}"));
        Ok(Self {
            cgroups: HashMap::try_from(take("CGROUPS")?)?,
            settings: Array::try_from(take("SETTINGS")?)?,
            groups: Array::try_from(take("GROUPS")?)?,
            counters: CounterMemory::new(take("COUNTERS")?, cpus)?,
            contended: CounterMemory::new(take("CONTENDED")?, 1)?,
            runq_wait: Array::try_from(take("RUNQ_WAIT")?)?,
            stall: Array::try_from(take("STALL")?)?,
            turnaround: Array::try_from(take("TURNAROUND")?)?,
            dependency: Array::try_from(take("DEPENDENCY")?)?,
            owned_since: Array::try_from(take("OWNED_SINCE")?)?,
            main: Array::try_from(take("MAIN")?)?,
            lost: PerCpuArray::try_from(take("LOST")?)?,
            tree_changes: PerCpuArray::try_from(take("TREE_CHANGES")?)?,
            facts: RingBuf::try_from(take("FACTS")?)?,
            places: HashMap::try_from(take("PLACES")?)?,
            remade: RingBuf::try_from(take("REMADE")?)?,
        })
    }

    /// How many slots there are.
    pub fn slots(&self) -> u32 {
        self.groups.len()
    }

    /// See [`CounterMemory::are_online`].
    pub fn are_online(&mut self, cpus: &[u32]) {
        self.counters.are_online(cpus);
    }

    /// What a slot has now: its next owner is told what comes on top. `group` is twice the number of its deployment, plus
    /// its role; what sockets remember from before `generation` is not the new owner's.
    pub fn begin(&mut self, slot: u32, group: u32, generation: u32) -> anyhow::Result<Seen> {
        self.groups.set(slot, group, 0).with_context(|| format!("write the group of slot {slot}"))?;
        self.owned_since.set(slot, generation, 0).with_context(|| format!("write the generation of slot {slot}"))?;
        self.forget_main(slot)?;
        self.counters.reach(slot)?;
        self.contended.reach(slot)?;
        let words = self.words(slot)?;
        let counters = Counters::from_words(&words);
        let mut seen = Seen {
            counters: words,
            runq_wait: SeenHistogram::default(),
            stall: SeenHistogram::default(),
            turnaround: SeenHistogram::default(),
            dependency: SeenHistogram::default(),
        };
        seen.runq_wait.update(&self.runq_wait, slot, counters.runq_waits)?;
        seen.stall.update(&self.stall, slot, counters.reclaims)?;
        seen.turnaround.update(&self.turnaround, slot, counters.turnarounds)?;
        seen.dependency.update(&self.dependency, slot, counters.dependency_turnarounds)?;
        Ok(seen)
    }

    /// Tells the kernel programs a target's main process, unless they know one.
    pub fn adopt_main(&mut self, slot: u32, tgid: u32) -> anyhow::Result<()> {
        let context = || format!("the main process of slot {slot}");
        if self.main.get(&slot, 0).with_context(context)?.tgid == 0 {
            self.main.set(slot, Main { tgid, ended: 0 }, 0).with_context(context)?;
        }
        Ok(())
    }

    /// The main process of a slot is to be found out anew.
    pub fn forget_main(&mut self, slot: u32) -> anyhow::Result<()> {
        self.main.set(slot, Main::default(), 0).with_context(|| format!("clear the main process of slot {slot}"))
    }

    pub fn track(&mut self, cgroup_id: u64, slot: u32) -> anyhow::Result<()> {
        self.cgroups.insert(cgroup_id, slot, 0).with_context(|| format!("track cgroup {cgroup_id}"))
    }

    pub fn untrack(&mut self, cgroup_id: u64) -> anyhow::Result<()> {
        self.cgroups.remove(&cgroup_id).with_context(|| format!("stop tracking cgroup {cgroup_id}"))
    }

    /// A cgroup that is made under this path, as the kernel tells it, is the slot's from its first moment on.
    pub fn expect(&mut self, path: &str, slot: u32) -> anyhow::Result<()> {
        let place = CgroupPath::new(path).with_context(|| format!("the path {path} is too long"))?;
        self.places.insert(place, slot, 0).with_context(|| format!("expect {path} in slot {slot}"))
    }

    pub fn expect_no_more(&mut self, path: &str) {
        if let Some(place) = CgroupPath::new(path) {
            // One that was never expected is not there.
            let _ = self.places.remove(&place);
        }
    }

    /// How many cgroups and how many places the kernel programs know.
    pub fn entries(&self) -> anyhow::Result<(usize, usize)> {
        let cgroups = self.cgroups.keys().try_fold(0, |n, key| key.map(|_| n + 1)).context("count the cgroups")?;
        let places = self.places.keys().try_fold(0, |n, key| key.map(|_| n + 1)).context("count the places")?;
        Ok((cgroups, places))
    }

    /// The cgroups that the kernel programs have put into slots since the last call.
    pub fn remade(&mut self) -> Vec<Remade> {
        let mut remade = Vec::new();
        while let Some(item) = self.remade.next() {
            remade.extend(decode_remade(&item));
        }
        remade
    }

    /// The levels first, and the generation when they are there: who knows the new one must not have looked at old levels.
    pub fn set(&mut self, settings: Settings) -> anyhow::Result<()> {
        let generation = self.settings.get(&0, 0).context("read the settings map")?.generation;
        for settings in [Settings { generation, ..settings }, settings] {
            self.settings.set(0, settings, 0).context("write the settings map")?;
        }
        Ok(())
    }

    /// What a slot has counted since the programs were loaded.
    fn words(&self, slot: u32) -> anyhow::Result<[u64; Counters::WORDS]> {
        Ok(sum(self.counters.read(slot)?, &self.contended.read(slot)?))
    }

    /// What was counted since the last read.
    pub fn read(&self, slot: u32, seen: &mut Seen) -> anyhow::Result<Counted> {
        let (words, went_back) = on_top(&mut seen.counters, &self.words(slot)?);
        let counters = Counters::from_words(&words);
        // Of what is not known the histograms are read all the same: the next ones are then of the next tick alone.
        let events = |counted: u64| counted.max(u64::from(went_back));
        Ok(Counted {
            runq_wait: seen.runq_wait.update(&self.runq_wait, slot, events(counters.runq_waits))?,
            stall: seen.stall.update(&self.stall, slot, events(counters.reclaims))?,
            turnaround: seen.turnaround.update(&self.turnaround, slot, events(counters.turnarounds))?,
            dependency: seen.dependency.update(&self.dependency, slot, events(counters.dependency_turnarounds))?,
            counters,
            went_back,
        })
    }

    /// What was lost since the programs were loaded.
    pub fn lost(&self) -> anyhow::Result<losses::Lost> {
        let lost = self.lost.get(&0, 0).context("read the lost-events map")?;
        let (all, exits) = lost.iter().fold((0, 0), |(all, exits), cpu| (all + cpu.sum(), exits + cpu.facts));
        Ok(losses::Lost { events: all - exits, exits })
    }

    /// Cgroups made and removed since the programs were loaded.
    pub fn tree_changes(&self) -> anyhow::Result<u64> {
        let changes = self.tree_changes.get(&0, 0).context("read the map of changes of the cgroup tree")?;
        Ok(changes.iter().sum())
    }

    /// The abnormal exits since the last call.
    pub fn exits(&mut self) -> Vec<Exit> {
        let mut exits = Vec::new();
        while let Some(item) = self.facts.next() {
            exits.extend(decode(&item));
        }
        exits
    }
}

/// What was counted in both places together. What is no count is 0 at every reading: a packet that was under way at one and is gone
/// at the next would look like a count that went back.
fn sum(mut words: [u64; Counters::WORDS], contended: &[u64; Counters::WORDS]) -> [u64; Counters::WORDS] {
    words.iter_mut().zip(contended).for_each(|(word, more)| *word += more);
    words[Counters::EGRESS_UNDER_WAY] = 0;
    words
}

/// What came on top of what was seen, which is `now` from here on, and whether a count went back, as it never should.
fn on_top(seen: &mut [u64; Counters::WORDS], now: &[u64; Counters::WORDS]) -> ([u64; Counters::WORDS], bool) {
    let went_back = seen.iter().zip(now).any(|(before, now)| now < before);
    let words = std::array::from_fn(|i| now[i].saturating_sub(seen[i]));
    *seen = *now;
    (words, went_back)
}

/// Fields of an [`Exit`] in the order of its layout; `None` for a record of another size.
fn decode(bytes: &[u8]) -> Option<Exit> {
    let (wide, narrow) = bytes.split_at_checked(16)?;
    let u64_at = |i: usize| Some(u64::from_ne_bytes(wide.get(i..i + 8)?.try_into().ok()?));
    let u32_at = |i: usize| Some(u32::from_ne_bytes(narrow.get(i..i + 4)?.try_into().ok()?));
    Some(Exit {
        at_ns: u64_at(0)?,
        cgroup_id: u64_at(8)?,
        slot: u32_at(0)?,
        pid: u32_at(4)?,
        exit_code: u32_at(8)?,
        oom: u32_at(12)?,
    })
}

fn decode_remade(bytes: &[u8]) -> Option<Remade> {
    let (id, rest) = bytes.split_first_chunk::<8>()?;
    let (slot, reserved) = rest.split_first_chunk::<4>()?;
    Some(Remade {
        cgroup_id: u64::from_ne_bytes(*id),
        slot: u32::from_ne_bytes(*slot),
        reserved: u32::from_ne_bytes(reserved.try_into().ok()?),
    })
}

impl SeenHistogram {
    /// The histogram since the last update. `events` is how many its counter had: without any, nothing is read.
    fn update(&mut self, map: &Array<MapData, Buckets>, slot: u32, events: u64) -> anyhow::Result<Histogram> {
        let was_active = std::mem::replace(&mut self.active, events > 0);
        if events == 0 && !was_active {
            return Ok(Histogram::default());
        }
        let banks = map.get(&slot, 0).with_context(|| format!("read a histogram of slot {slot}"))?;
        let words = self.words.get_or_insert_with(|| Box::new([0; HISTOGRAM_WORDS]));
        let mut difference = Vec::new();
        for (i, before) in words.iter_mut().enumerate() {
            let now = banks.words.iter().fold(0u64, |sum, bank| sum.wrapping_add(bank[i]));
            let more = now.wrapping_sub(std::mem::replace(before, now));
            for (bucket, count) in [(2 * i, more & u64::from(u32::MAX)), (2 * i + 1, more >> 32)] {
                if count > 0 {
                    difference.push((bucket as u16, count));
                }
            }
        }
        Ok(Histogram(difference))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slot's words as they are read: all counts are `counts`, of which 1 was counted in the other place.
    fn read(counts: u64, under_way: u64) -> [u64; Counters::WORDS] {
        let mut words = [counts - 1; Counters::WORDS];
        words[Counters::EGRESS_UNDER_WAY] = under_way;
        sum(words, &[1; Counters::WORDS])
    }

    #[test]
    fn each_count_that_went_back_is_told_and_the_next_difference_is_from_there() {
        for word in (0..Counters::WORDS).filter(|word| *word != Counters::EGRESS_UNDER_WAY) {
            let mut seen = read(7, 0);
            let mut now = read(9, 0);
            let (words, went_back) = on_top(&mut seen, &now);
            assert!(!went_back && words[word] == 2, "{word}: {words:?}");
            now[word] = 3;
            let (words, went_back) = on_top(&mut seen, &now);
            assert!(went_back && words == [0; Counters::WORDS], "{word}: {words:?}");
            now[word] = 8;
            let (words, went_back) = on_top(&mut seen, &now);
            assert!(!went_back && words[word] == 5 && words.iter().sum::<u64>() == 5, "{word}: {words:?}");
        }
    }

    #[test]
    fn packets_that_are_under_way_at_one_reading_and_gone_at_the_next_are_no_count_that_went_back() {
        let mut seen = read(10, 2);
        for (counts, under_way, more) in [(10, 0, 0), (12, 1, 2), (12, 0, 0), (13, 3, 1), (15, 1, 2)] {
            let (words, went_back) = on_top(&mut seen, &read(counts, under_way));
            let counters = Counters::from_words(&words);
            assert!(!went_back, "{counters:?}");
            assert_eq!((counters.tx_packets, counters.remade, counters.egress_under_way), (more, more, 0));
        }
    }

    #[test]
    fn an_exit_record_is_decoded_by_its_layout() {
        let exit = Exit { at_ns: 1, cgroup_id: 2, slot: 3, pid: 4, exit_code: 5, oom: 1 };
        let mut bytes = Vec::new();
        bytes.extend(exit.at_ns.to_ne_bytes());
        bytes.extend(exit.cgroup_id.to_ne_bytes());
        for field in [exit.slot, exit.pid, exit.exit_code, exit.oom] {
            bytes.extend(field.to_ne_bytes());
        }
        assert_eq!(bytes.len(), size_of::<Exit>());
        assert_eq!(decode(&bytes), Some(exit));
        assert_eq!(decode(&bytes[..20]), None);
        let remade = Remade { cgroup_id: 1 | 2 << 32, slot: 3, reserved: 4 };
        let bytes = [[1u32, 2, 3, 4].map(u32::to_ne_bytes)].concat().concat();
        assert_eq!(decode_remade(&bytes), Some(remade));
        assert_eq!(decode_remade(&bytes[..12]), None);
    }
}
