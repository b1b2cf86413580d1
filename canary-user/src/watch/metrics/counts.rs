//! Running totals of one version: per-tick differences of all its instances, added up.

use std::collections::BTreeMap;

use canary_common::histogram;

use crate::telemetry::{BlockIo, Histogram, RoundTrip, Sample, WaitedFor};

/// log2 of the coarse `le` bounds in nanoseconds, 4.1 µs to 17 s. Powers of two are bounds of the log-linear buckets,
/// so a coarse bucket is an exact sum of fine ones.
const FIRST_BOUND_BITS: u32 = 12;
const LAST_BOUND_BITS: u32 = 34;

/// Totals since the version was first seen. A group that was never measured stays `None`.
#[derive(Debug, Default)]
pub struct Counts {
    pub on_cpu_ns: Option<u64>,
    pub run_queue_wait: Option<Distribution>,
    pub waited_for: Option<WaitedFor>,
    pub reclaim_ns: Option<u64>,
    pub reclaim_stall: Option<Distribution>,
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
    /// By class, 1xx to 5xx.
    pub responses: Option<[u64; 5]>,
    pub dependency: Option<Distribution>,
    pub dependency_rx_bytes: Option<u64>,
    pub dependency_tx_bytes: Option<u64>,
    pub accepted: Option<u64>,
    pub opened: Option<u64>,
    pub open_ns: Option<u64>,
    pub open_failed: Option<u64>,
    pub open_refused: Option<u64>,
    pub retransmits: Option<u64>,
    pub listen_overflows: Option<u64>,
    pub listen_drops: Option<u64>,
    pub major_faults: Option<u64>,
    /// high, max, oom, oom_kill.
    pub memory_events: Option<[u64; 4]>,
    pub block_io: Option<BlockIo>,
    pub resets_in: Option<u64>,
    pub resets_out: Option<u64>,
    /// Ended with status 0, another status, by a fault signal, by another signal, the OOM killer's among them.
    pub exits: Option<[u64; 4]>,
    /// By exit code as `wait` encodes it, other than 0.
    pub exit_codes: BTreeMap<u32, u64>,
    pub core_dumps: Option<u64>,
    pub forked: Option<u64>,
    pub executed: Option<u64>,
    pub restarts: Option<u64>,
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
    /// Sums over the instances that have it, and how many these are.
    parts: [(u64, u64); 3],
    round_trip: RoundTrip,
}

impl Level {
    /// `None` unless every live instance told: a sum over some of them would read as a drop.
    pub fn memory_bytes(&self) -> Option<u64> {
        (self.instances > 0 && !self.memory_missing).then_some(self.memory_bytes)
    }

    /// Limit, memory of processes, and of files; each `None` unless every live instance told.
    pub fn memory_parts_bytes(&self) -> [Option<u64>; 3] {
        self.parts.map(|(sum, count)| (self.instances > 0 && count == self.instances).then_some(sum))
    }

    /// Mean of the round-trip times to clients and to dependencies, in nanoseconds.
    pub fn round_trips_ns(&self) -> [Option<f64>; 2] {
        let r = &self.round_trip;
        [(r.sum_ns, r.samples), (r.dependency_sum_ns, r.dependency_samples)]
            .map(|(sum, n)| (n > 0).then(|| sum as f64 / n as f64))
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
            if let Some(more) = cpu.waited_for {
                let total = self.waited_for.get_or_insert_default();
                total.own_ns += more.own_ns;
                total.other_role_ns += more.other_role_ns;
                total.other_cgroup_ns += more.other_cgroup_ns;
                total.kernel_ns += more.kernel_ns;
                total.idle_ns += more.idle_ns;
            }
        }
        if let Some(reclaim) = &sample.reclaim {
            add(&mut self.reclaim_ns, reclaim.stall_ns);
            if let Some(stall) = &reclaim.stall {
                distribute(&mut self.reclaim_stall, reclaim.stall_ns, stall);
            }
        }
        if let Some(queue) = sample.listen_queue {
            add(&mut self.listen_overflows, queue.overflows);
            add(&mut self.listen_drops, queue.drops);
        }
        if let Some(faults) = sample.major_faults {
            add(&mut self.major_faults, faults);
        }
        if let Some(e) = sample.memory_events {
            let total = self.memory_events.get_or_insert_default();
            total.iter_mut().zip([e.high, e.max, e.oom, e.oom_kill]).for_each(|(sum, more)| *sum += more);
        }
        if let Some(io) = sample.block_io {
            let total = self.block_io.get_or_insert_default();
            total.read_bytes += io.read_bytes;
            total.write_bytes += io.write_bytes;
            total.reads += io.reads;
            total.writes += io.writes;
        }
        if let Some(pressure) = sample.pressure {
            add(&mut self.memory_waiting_usec, pressure.memory_some_usec);
            add(&mut self.memory_stalled_usec, pressure.memory_full_usec);
            let more = [pressure.cpu_some_usec, pressure.io_some_usec, pressure.io_full_usec];
            let totals = [&mut self.cpu_waiting_usec, &mut self.io_waiting_usec, &mut self.io_stalled_usec];
            for (total, more) in totals.into_iter().zip(more) {
                if let Some(more) = more {
                    add(total, more);
                }
            }
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
        if let Some(http) = sample.http {
            let classes =
                [http.responses_1xx, http.responses_2xx, http.responses_3xx, http.responses_4xx, http.responses_5xx];
            let total = self.responses.get_or_insert_default();
            total.iter_mut().zip(classes).for_each(|(sum, more)| *sum += more);
        }
        if let Some(dependency) = &sample.dependency {
            distribute(&mut self.dependency, dependency.turnaround_ns, &dependency.turnaround);
            add(&mut self.dependency_rx_bytes, dependency.rx_payload_bytes);
            add(&mut self.dependency_tx_bytes, dependency.tx_payload_bytes);
        }
        if let Some(connections) = sample.connections {
            add(&mut self.accepted, connections.accepted);
            add(&mut self.opened, connections.opened);
            add(&mut self.open_ns, connections.open_ns);
            add(&mut self.open_failed, connections.failed);
            add(&mut self.open_refused, connections.refused);
        }
        if let Some(retransmits) = sample.retransmits {
            add(&mut self.retransmits, retransmits);
        }
        if let Some(l) = sample.lifecycle {
            // The kernel programs count what the OOM killer ends apart from the rest: it is killed all the same, and where its
            // hook is missing it is told as that.
            let killed = l.exits_killed + sample.oom_kills.unwrap_or(0);
            let ok = l.exits.saturating_sub(l.exits_error + l.crashes + killed);
            let total = self.exits.get_or_insert_default();
            for (sum, more) in total.iter_mut().zip([ok, l.exits_error, l.crashes, killed]) {
                *sum += more;
            }
        }
        if let Some(core_dumps) = sample.lifecycle.and_then(|l| l.core_dumps) {
            add(&mut self.core_dumps, core_dumps);
        }
        for (code, n) in sample.exit_codes.iter().flatten() {
            *self.exit_codes.entry(*code).or_default() += n;
        }
        if let Some(starts) = sample.starts {
            add(&mut self.forked, starts.forked);
            add(&mut self.executed, starts.executed);
            add(&mut self.restarts, starts.restarts);
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
        if let Some(r) = sample.round_trip {
            let level = &mut self.level.round_trip;
            level.sum_ns += r.sum_ns;
            level.samples += r.samples;
            level.dependency_sum_ns += r.dependency_sum_ns;
            level.dependency_samples += r.dependency_samples;
        }
        match &sample.memory {
            Some(memory) => {
                self.level.memory_bytes += memory.in_use_bytes;
                let parts = [memory.limit_bytes, memory.anon_bytes, memory.file_bytes];
                for ((sum, count), part) in self.level.parts.iter_mut().zip(parts) {
                    *sum += part.unwrap_or(0);
                    *count += u64::from(part.is_some());
                }
            }
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
