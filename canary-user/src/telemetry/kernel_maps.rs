//! The maps, typed: the only place that reads or writes them.

use anyhow::Context as _;
use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, PerCpuArray, PerCpuValues, RingBuf},
    util::nr_cpus,
};
use canary_common::{Buckets, Counters, Exit, Lost, Settings, histogram};

/// Handles of all maps that the daemon touches.
pub struct KernelMaps {
    cgroups: HashMap<MapData, u64, u32>,
    settings: Array<MapData, Settings>,
    counters: PerCpuArray<MapData, Counters>,
    runq_wait: PerCpuArray<MapData, Buckets>,
    turnaround: PerCpuArray<MapData, Buckets>,
    lost: PerCpuArray<MapData, Lost>,
    facts: RingBuf<MapData>,
    cpus: usize,
}

/// Everything counted for one slot since it was taken, all CPUs together.
#[derive(Clone, Debug)]
pub struct SlotTotals {
    pub counters: Counters,
    pub runq_wait: Buckets,
    pub turnaround: Buckets,
}

impl KernelMaps {
    pub fn take(ebpf: &mut Ebpf) -> anyhow::Result<Self> {
        let mut take = |name: &str| ebpf.take_map(name).with_context(|| format!("the object has no map {name}"));
        Ok(Self {
            cgroups: HashMap::try_from(take("CGROUPS")?)?,
            settings: Array::try_from(take("SETTINGS")?)?,
            counters: PerCpuArray::try_from(take("COUNTERS")?)?,
            runq_wait: PerCpuArray::try_from(take("RUNQ_WAIT")?)?,
            turnaround: PerCpuArray::try_from(take("TURNAROUND")?)?,
            lost: PerCpuArray::try_from(take("LOST")?)?,
            facts: RingBuf::try_from(take("FACTS")?)?,
            cpus: nr_cpus().map_err(|(what, e)| anyhow::anyhow!("{what}: {e}"))?,
        })
    }

    /// How many slots there are.
    pub fn slots(&self) -> u32 {
        self.counters.len()
    }

    /// Zeroes a slot, so that its next owner starts from nothing.
    pub fn clear(&mut self, slot: u32) -> anyhow::Result<()> {
        let context = || format!("clear slot {slot}");
        self.counters.set(slot, zeros(self.cpus)?, 0).with_context(context)?;
        self.runq_wait.set(slot, zeros(self.cpus)?, 0).with_context(context)?;
        self.turnaround.set(slot, zeros(self.cpus)?, 0).with_context(context)
    }

    pub fn track(&mut self, cgroup_id: u64, slot: u32) -> anyhow::Result<()> {
        self.cgroups.insert(cgroup_id, slot, 0).with_context(|| format!("track cgroup {cgroup_id}"))
    }

    pub fn untrack(&mut self, cgroup_id: u64) -> anyhow::Result<()> {
        self.cgroups.remove(&cgroup_id).with_context(|| format!("stop tracking cgroup {cgroup_id}"))
    }

    pub fn set(&mut self, settings: Settings) -> anyhow::Result<()> {
        self.settings.set(0, settings, 0).context("write the settings map")
    }

    pub fn read(&self, slot: u32) -> anyhow::Result<SlotTotals> {
        let context = || format!("read slot {slot}");
        let mut counters = Counters::default();
        for one in self.counters.get(&slot, 0).with_context(context)?.iter() {
            add(&mut counters, one);
        }
        Ok(SlotTotals {
            counters,
            runq_wait: sum(&self.runq_wait.get(&slot, 0).with_context(context)?),
            turnaround: sum(&self.turnaround.get(&slot, 0).with_context(context)?),
        })
    }

    /// Events lost since the programs were loaded.
    pub fn lost(&self) -> anyhow::Result<u64> {
        let lost = self.lost.get(&0, 0).context("read the lost-events map")?;
        Ok(lost.iter().map(|l| l.pid_collisions + l.facts + l.socket_state).sum())
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

fn zeros<T: Default + Clone + aya::Pod>(cpus: usize) -> anyhow::Result<PerCpuValues<T>> {
    PerCpuValues::try_from(vec![T::default(); cpus]).context("one value for each CPU")
}

fn sum(values: &PerCpuValues<Buckets>) -> Buckets {
    let mut total = Buckets::default();
    for one in values.iter() {
        for (t, n) in total.counts.iter_mut().zip(one.counts) {
            *t += n;
        }
    }
    total
}

/// Applies `f` to each pair of counters. Destructured whole, so that a new counter cannot be forgotten.
fn combine(a: &Counters, b: &Counters, f: impl Fn(u64, u64) -> u64) -> Counters {
    macro_rules! each {
        ($($field:ident),* $(,)?) => {{
            let Counters { $($field),* } = *a;
            Counters { $($field: f($field, b.$field)),* }
        }};
    }
    each!(
        on_cpu_ns,
        runq_wait_ns,
        runq_waits,
        switches_voluntary,
        switches_involuntary,
        reclaim_ns,
        reclaims,
        rx_bytes,
        rx_packets,
        rx_payload_bytes,
        tx_bytes,
        tx_packets,
        tx_payload_bytes,
        turnarounds,
        turnaround_ns,
        resets_in,
        resets_out,
        retransmits,
        exits,
        exits_error,
        crashes,
        exits_killed,
        oom_kills,
    )
}

fn add(total: &mut Counters, one: &Counters) {
    *total = combine(total, one, |a, b| a + b);
}

impl SlotTotals {
    /// What came since `before`. Counters only grow while a slot has one owner; a reader that races a per-CPU write
    /// may see a value late, never one that shrinks, so saturation hides nothing.
    pub fn since(&self, before: &SlotTotals) -> SlotTotals {
        let buckets = |now: &Buckets, then: &Buckets| {
            let mut difference = Buckets { counts: [0; histogram::BUCKETS] };
            for (d, (n, t)) in difference.counts.iter_mut().zip(now.counts.iter().zip(then.counts)) {
                *d = n.saturating_sub(t);
            }
            difference
        };
        SlotTotals {
            counters: combine(&self.counters, &before.counters, |now, then| now.saturating_sub(then)),
            runq_wait: buckets(&self.runq_wait, &before.runq_wait),
            turnaround: buckets(&self.turnaround, &before.turnaround),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
