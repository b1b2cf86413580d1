//! Running totals of one version: per-tick differences of all its instances, added up.

use canary_common::histogram;

use crate::telemetry::{Histogram, Sample};

/// log2 of the coarse `le` bounds in nanoseconds, 4.1 µs to 17 s. Powers of two are bounds of the log-linear buckets,
/// so a coarse bucket is an exact sum of fine ones.
const FIRST_BOUND_BITS: u32 = 12;
const LAST_BOUND_BITS: u32 = 34;

/// Totals since the version was first seen. A group that was never measured stays `None`.
#[derive(Debug, Default)]
pub struct Counts {
    pub on_cpu_ns: Option<u64>,
    pub run_queue_wait: Option<Distribution>,
    pub reclaim_ns: Option<u64>,
    pub cpu_waiting_usec: Option<u64>,
    pub memory_waiting_usec: Option<u64>,
    pub memory_stalled_usec: Option<u64>,
    pub io_waiting_usec: Option<u64>,
    pub io_stalled_usec: Option<u64>,
    pub rx_bytes: Option<u64>,
    pub rx_packets: Option<u64>,
    pub tx_bytes: Option<u64>,
    pub tx_packets: Option<u64>,
    pub turnaround: Option<Distribution>,
    pub retransmits: Option<u64>,
    pub resets_in: Option<u64>,
    pub resets_out: Option<u64>,
    /// Ended with status 0, another status, by a fault signal, by another signal.
    pub exits: Option<[u64; 4]>,
    pub oom_kills: Option<u64>,
    pub periods: Option<u64>,
    pub throttled_periods: Option<u64>,
    pub throttled_usec: Option<u64>,
    /// Levels of this tick, not totals.
    pub level: Level,
    last_seen_ns: u64,
}

/// What the instances of one tick have together.
#[derive(Debug, Default)]
pub struct Level {
    pub instances: u64,
    memory_bytes: u64,
    memory_missing: bool,
}

impl Level {
    /// `None` unless every live instance told: a sum over some of them would read as a drop.
    pub fn memory_bytes(&self) -> Option<u64> {
        (self.instances > 0 && !self.memory_missing).then_some(self.memory_bytes)
    }
}

/// A histogram since the start with its sum.
#[derive(Debug, Default)]
pub struct Distribution {
    pub sum_ns: u64,
    pub fine: Histogram,
}

impl Distribution {
    /// (bound in seconds, count of its own), ascending, the last without a bound.
    pub fn coarse(&self) -> Vec<(f64, u64)> {
        let mut fine = self.fine.0.iter().peekable();
        let mut buckets: Vec<(f64, u64)> = (FIRST_BOUND_BITS..=LAST_BOUND_BITS)
            .map(|bits| {
                let last = histogram::bucket(1 << bits);
                let mut n = 0;
                while let Some((_, more)) = fine.next_if(|(bucket, _)| usize::from(*bucket) <= last) {
                    n += more;
                }
                ((1u64 << bits) as f64 / 1e9, n)
            })
            .collect();
        buckets.push((f64::INFINITY, fine.map(|(_, n)| n).sum()));
        buckets
    }
}

impl Counts {
    pub fn last_seen_ns(&self) -> u64 {
        self.last_seen_ns
    }

    /// Levels hold for one tick only.
    pub fn begin_tick(&mut self) {
        self.level = Level::default();
    }

    pub fn add(&mut self, sample: &Sample, t_ns: u64) {
        self.last_seen_ns = t_ns;
        if let Some(cpu) = &sample.cpu {
            add(&mut self.on_cpu_ns, cpu.on_cpu_ns);
            distribute(&mut self.run_queue_wait, cpu.runq_wait_ns, &cpu.runq_wait);
        }
        if let Some(reclaim) = sample.reclaim {
            add(&mut self.reclaim_ns, reclaim.stall_ns);
        }
        if let Some(pressure) = sample.pressure {
            add(&mut self.cpu_waiting_usec, pressure.cpu_some_usec);
            add(&mut self.memory_waiting_usec, pressure.memory_some_usec);
            add(&mut self.memory_stalled_usec, pressure.memory_full_usec);
            add(&mut self.io_waiting_usec, pressure.io_some_usec);
            add(&mut self.io_stalled_usec, pressure.io_full_usec);
        }
        if let Some(network) = &sample.network {
            add(&mut self.rx_bytes, network.rx_bytes);
            add(&mut self.rx_packets, network.rx_packets);
            add(&mut self.tx_bytes, network.tx_bytes);
            add(&mut self.tx_packets, network.tx_packets);
            add(&mut self.resets_in, network.resets_in);
            add(&mut self.resets_out, network.resets_out);
            distribute(&mut self.turnaround, network.turnaround_ns, &network.turnaround);
        }
        if let Some(retransmits) = sample.retransmits {
            add(&mut self.retransmits, retransmits);
        }
        if let Some(l) = sample.lifecycle {
            let ok = l.exits.saturating_sub(l.exits_error + l.crashes + l.exits_killed);
            let total = self.exits.get_or_insert_default();
            for (sum, more) in total.iter_mut().zip([ok, l.exits_error, l.crashes, l.exits_killed]) {
                *sum += more;
            }
        }
        if let Some(oom_kills) = sample.oom_kills {
            add(&mut self.oom_kills, oom_kills);
        }
        if let Some(throttling) = sample.throttling {
            add(&mut self.periods, throttling.periods);
            add(&mut self.throttled_periods, throttling.throttled_periods);
            add(&mut self.throttled_usec, throttling.throttled_usec);
        }
        self.add_level(sample);
    }

    fn add_level(&mut self, sample: &Sample) {
        if sample.populated == Some(false) {
            return;
        }
        self.level.instances += 1;
        match &sample.memory {
            Some(memory) => self.level.memory_bytes += memory.in_use_bytes,
            None => self.level.memory_missing = true,
        }
    }
}

fn add(total: &mut Option<u64>, more: u64) {
    *total.get_or_insert(0) += more;
}

fn distribute(total: &mut Option<Distribution>, sum_ns: u64, histogram: &Histogram) {
    let total = total.get_or_insert_default();
    total.sum_ns += sum_ns;
    total.fine.merge(histogram);
}
