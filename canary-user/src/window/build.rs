//! Builds windows out of ticks: merges until there is enough work to divide by, then divides.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Around, Event, Indicator, Node, Reading, Window};
use crate::{
    targets::{Role, Target},
    telemetry::{Above, Histogram, MemoryLimit, Sample, Throttling, Tick},
};

/// Turnarounds that each side must have before anything is divided by them: a mean of fewer is mostly noise.
const MIN_TURNAROUNDS: u64 = 30;
/// Waits for a CPU that the instances of each side must have on average before their 95th percentile is taken.
const MIN_WAITS: u64 = 30;
/// Of fewer than this it is the longest one, which is the longer the more there are: no reading.
const MIN_OWN_WAITS: u64 = 20;
/// Ticks after which a merged window is closed with what it has, those that were not clean among them. So many in a row that are not
/// clean end it without: it would be of two times.
const MAX_MERGED_TICKS: u32 = 60;

/// Turns ticks into the windows of one deployment. Keeps sums per instance, never raw history.
#[derive(Debug)]
pub struct Windower {
    deployment: Arc<str>,
    next_index: u64,
    /// Ticks since the first one that is added up.
    merged_ticks: u32,
    /// The same of the histograms of waits.
    wait_ticks: u32,
    /// Ticks in a row that were not clean.
    unclean_ticks: u32,
    /// Whether any turnaround was ever seen: from then on indicators are per turnaround, before that per second.
    works: bool,
    /// Roles of which a response in plain HTTP was ever seen: where they answered nothing, no response failed.
    in_plain_http: BTreeSet<Role>,
    sums: BTreeMap<Target, Sums>,
}

impl Windower {
    pub fn new(deployment: Arc<str>) -> Self {
        Self {
            deployment,
            next_index: 0,
            merged_ticks: 0,
            wait_ticks: 0,
            unclean_ticks: 0,
            works: false,
            in_plain_http: BTreeSet::new(),
            sums: BTreeMap::new(),
        }
    }

    /// One window per tick. Events are this tick's; indicators are NaN until enough work has come together, then they
    /// cover everything since they were last given, but for the ticks that were not clean.
    pub fn push(&mut self, tick: &Tick) -> Window {
        // Of an instance that is there twice, the first counts: both would be the same work.
        let mut known = BTreeSet::new();
        let samples: Vec<&Sample> = tick
            .samples
            .iter()
            .filter(|s| s.target.deployment == self.deployment && known.insert(&s.target.cgroup))
            .collect();
        let clean = tick.quality.is_clean();
        // Sums of an instance that went away say nothing any more, in whatever tick it did.
        let present: BTreeSet<&Target> = samples.iter().map(|s| &s.target).collect();
        self.sums.retain(|target, _| present.contains(target));
        self.pass(clean);
        if clean {
            for sample in &samples {
                self.works |= turnarounds(sample) > 0;
                self.sums.entry(sample.target.clone()).or_default().add(sample);
            }
        }
        self.in_plain_http.extend(samples.iter().filter(|s| s.http.is_some()).map(|s| s.target.role));
        let values = if clean && self.is_enough() { self.close() } else { BTreeMap::new() };
        let readings = |role: Role| {
            let in_plain_http = self.in_plain_http.contains(&role);
            let of_role = samples.iter().filter(|s| s.target.role == role);
            of_role
                .map(|s| {
                    let values = values.get(&s.target).copied().unwrap_or([f64::NAN; Indicator::COUNT]);
                    reading(s, values, in_plain_http)
                })
                .collect()
        };
        let window = Window {
            deployment: self.deployment.clone(),
            index: self.next_index,
            t_ns: tick.t_ns,
            span_ns: tick.span_ns,
            stable: readings(Role::Stable),
            canary: readings(Role::Canary),
            clean,
            node: node(tick, &samples),
        };
        self.next_index += 1;
        window
    }

    /// Counts the tick. One that is not clean is left out of the sums of both sides, and they grow older by it.
    fn pass(&mut self, clean: bool) {
        for ticks in [&mut self.merged_ticks, &mut self.wait_ticks] {
            // What has not begun does not begin with it.
            *ticks += u32::from(clean || *ticks > 0);
        }
        self.unclean_ticks = if clean { 0 } else { self.unclean_ticks + 1 };
        if self.unclean_ticks >= MAX_MERGED_TICKS {
            (self.merged_ticks, self.wait_ticks, self.unclean_ticks) = (0, 0, 0);
            self.sums.clear();
        }
    }

    fn is_enough(&self) -> bool {
        // Nothing is waited for where there is nobody, or where nobody counts.
        let side = |role: Role| self.work(role).is_none_or(|turnarounds| turnarounds >= MIN_TURNAROUNDS);
        !self.works || self.merged_ticks >= MAX_MERGED_TICKS || (side(Role::Stable) && side(Role::Canary))
    }

    /// Turnarounds of a role since its indicators were last given; `None` where they are not known.
    fn work(&self, role: Role) -> Option<u64> {
        let mut of_role = self.sums.iter().filter(|(target, _)| target.role == role).map(|(_, sums)| sums).peekable();
        of_role.peek()?;
        of_role
            .map(|s| (s.network_ticks == s.ticks).then_some(s.turnarounds))
            .try_fold(0u64, |sum, n| Some(sum.saturating_add(n?)))
    }

    fn close(&mut self) -> BTreeMap<Target, [f64; Indicator::COUNT]> {
        self.merged_ticks = 0;
        // What a side uses idle must not be compared with what the other uses under load: it has no reading at all.
        let idle = match (self.work(Role::Stable), self.work(Role::Canary)) {
            (Some(0), Some(1..)) => Some(Role::Stable),
            (Some(1..), Some(0)) => Some(Role::Canary),
            _ => None,
        };
        self.sums.retain(|target, _| Some(target.role) != idle);
        // Stall time by PSI and by reclaim hooks are different quantities: all instances by the same one.
        let by_psi = self.sums.values().all(|s| s.psi_ticks == s.ticks);
        let (works, tails) = (self.works, self.has_enough_waits());
        let closed = std::mem::take(&mut self.sums);
        if tails {
            self.wait_ticks = 0;
        } else {
            let open = closed.iter().filter(|(_, sums)| sums.has_cpu());
            self.sums = open.map(|(target, sums)| (target.clone(), sums.waits_only())).collect();
        }
        closed.into_iter().map(|(target, sums)| (target, sums.indicators(works, by_psi, tails))).collect()
    }

    /// Whether the tails of both sides can be told in this window. They wait for one another, as the rest does: what is
    /// compared covers the same time.
    fn has_enough_waits(&self) -> bool {
        let side = |role: Role| {
            let of_role = self.sums.iter().filter(|(target, _)| target.role == role).map(|(_, sums)| sums);
            let counts: Vec<u64> =
                of_role.filter(|sums| sums.populated && sums.has_cpu()).map(|sums| sums.waits.count()).collect();
            counts.iter().copied().fold(0, u64::saturating_add) >= MIN_WAITS * counts.len() as u64
        };
        self.wait_ticks >= MAX_MERGED_TICKS || (side(Role::Stable) && side(Role::Canary))
    }
}

/// What an instance added up since its indicators were last given. A group that was missing in any tick is missing.
#[derive(Debug, Default)]
struct Sums {
    ticks: u32,
    span_ns: u64,
    populated: bool,
    cpu_ticks: u32,
    on_cpu_ns: u64,
    runq_wait_ns: u64,
    runq_waits: u64,
    /// Since the tails were last given, which may be longer ago.
    waits: Histogram,
    psi_ticks: u32,
    memory_some_usec: u64,
    reclaim_ticks: u32,
    reclaim_ns: u64,
    memory_bytes: Option<u64>,
    network_ticks: u32,
    payload_bytes: u64,
    turnarounds: u64,
    turnaround_ns: u64,
    turnaround: Histogram,
    dependency_turnarounds: u64,
    dependency_turnaround_ns: u64,
}

impl Sums {
    fn add(&mut self, sample: &Sample) {
        self.ticks += 1;
        add(&mut self.span_ns, sample.span_ns);
        self.populated |= sample.populated != Some(false);
        if let Some(cpu) = &sample.cpu {
            self.cpu_ticks += 1;
            add(&mut self.on_cpu_ns, cpu.on_cpu_ns);
            add(&mut self.runq_wait_ns, cpu.runq_wait_ns);
            add(&mut self.runq_waits, cpu.runq_waits);
            self.waits.merge(&cpu.runq_wait);
        }
        if let Some(pressure) = &sample.pressure {
            self.psi_ticks += 1;
            add(&mut self.memory_some_usec, pressure.memory_some_usec);
        }
        if let Some(reclaim) = &sample.reclaim {
            self.reclaim_ticks += 1;
            add(&mut self.reclaim_ns, reclaim.stall_ns);
        }
        self.memory_bytes = sample.memory.map(|m| m.in_use_bytes).or(self.memory_bytes);
        if let Some(network) = &sample.network {
            self.network_ticks += 1;
            add(&mut self.payload_bytes, network.rx_payload_bytes);
            add(&mut self.payload_bytes, network.tx_payload_bytes);
            add(&mut self.turnarounds, network.turnarounds);
            add(&mut self.turnaround_ns, network.turnaround_ns);
            self.turnaround.merge(&network.turnaround);
        }
        if let Some(dependency) = &sample.dependency {
            add(&mut self.dependency_turnarounds, dependency.turnarounds);
            add(&mut self.dependency_turnaround_ns, dependency.turnaround_ns);
        }
    }

    fn has_cpu(&self) -> bool {
        self.cpu_ticks == self.ticks
    }

    /// What goes on being added up where the rest was given and there were too few waits.
    fn waits_only(&self) -> Self {
        Self { waits: self.waits.clone(), ..Self::default() }
    }

    /// `tails` says whether there were waits enough.
    fn indicators(&self, works: bool, by_psi: bool, tails: bool) -> [f64; Indicator::COUNT] {
        let has_cpu = self.has_cpu();
        let has_network = self.network_ticks == self.ticks;
        let has_tail = tails && has_cpu && self.populated && self.waits.count() >= MIN_OWN_WAITS;
        let seconds = self.span_ns as f64 / 1e9;
        // An empty cgroup uses nothing, which is no reading of the version.
        let unit = match (works, has_network) {
            (true, true) => self.turnarounds as f64,
            (true, false) => f64::NAN,
            (false, _) => seconds,
        };
        let ratio = |present: bool, amount: f64, by: f64| {
            if present && self.populated && by > 0.0 { amount / by } else { f64::NAN }
        };
        Indicator::ALL.map(|indicator| match indicator {
            Indicator::CpuPerWork => ratio(has_cpu, self.on_cpu_ns as f64, unit),
            Indicator::RunQueueWait => ratio(has_cpu, self.runq_wait_ns as f64, self.runq_waits as f64),
            Indicator::RunQueueWaitP95 if has_tail => self.waits.quantile_ns(0.95).unwrap_or(f64::NAN),
            Indicator::RunQueueWaitP95 => f64::NAN,
            Indicator::MemoryStall if by_psi => ratio(true, self.memory_some_usec as f64 / 1e6, seconds),
            Indicator::MemoryStall => ratio(self.reclaim_ticks == self.ticks, self.reclaim_ns as f64 / 1e9, seconds),
            Indicator::MemoryInUse => self.memory_bytes.filter(|_| self.populated).map_or(f64::NAN, |b| b as f64),
            Indicator::BytesPerWork => ratio(has_network, self.payload_bytes as f64, unit),
            Indicator::TurnaroundMean => ratio(has_network, self.turnaround_ns as f64, self.turnarounds as f64),
            Indicator::TurnaroundP95 if has_network => self.turnaround.quantile_ns(0.95).unwrap_or(f64::NAN),
            Indicator::TurnaroundP95 => f64::NAN,
            Indicator::DependencyTurnaround => {
                ratio(has_network, self.dependency_turnaround_ns as f64, self.dependency_turnarounds as f64)
            }
        })
    }
}

/// No count of a real kernel comes near the end of 64 bits; one in a damaged recording may.
fn add(sum: &mut u64, count: u64) {
    *sum = sum.saturating_add(count);
}

fn turnarounds(sample: &Sample) -> u64 {
    sample.network.as_ref().map_or(0, |n| n.turnarounds)
}

/// `in_plain_http` says whether the role was seen to answer so.
fn reading(sample: &Sample, values: [f64; Indicator::COUNT], in_plain_http: bool) -> Reading {
    Reading {
        instance: sample.target.cgroup.clone(),
        incarnation: sample.target.incarnation,
        values,
        events: Event::ALL.map(|event| match event {
            Event::Crashes => sample.lifecycle.map(|l| l.crashes),
            Event::ErrorExits => sample.lifecycle.map(|l| l.exits_error),
            Event::OomKills => sample.oom_kills,
            Event::ResetsOut => sample.network.as_ref().map(|n| n.resets_out),
            Event::Retransmits => sample.retransmits,
            Event::ServerErrors => server_errors(sample, in_plain_http),
            Event::ConnectFailures => sample.connections.map(|c| c.failed),
        }),
        turnarounds: turnarounds(sample),
        seconds: sample.span_ns as f64 / 1e9,
        around: around(sample),
    }
}

/// A tick without any response has no status, and none that failed: the sensor tells of those that there were. Turnarounds without a
/// status are encrypted, or of another protocol.
fn server_errors(sample: &Sample, in_plain_http: bool) -> Option<u64> {
    let answered_nothing = || sample.network.as_ref().is_some_and(|n| n.turnarounds == 0);
    let none_failed = || (in_plain_http && answered_nothing()).then_some(0);
    sample.http.map(|h| h.responses_5xx).or_else(none_failed)
}

/// Whoever sets a limit, it is the tightest that the instance meets.
fn around(sample: &Sample) -> Around {
    let waited_for = sample.cpu.as_ref().and_then(|c| c.waited_for);
    let (own, without) = (&sample.target.cgroup, Above::default());
    let above = sample.above.as_ref().unwrap_or(&without);
    let held = |throttling: Option<Throttling>, by: Option<&Arc<str>>| Some((throttling?.share()?, by.cloned()));
    // Of two that hold it back alike, the nearer one.
    let most =
        held(above.throttling, above.throttled_by.as_ref()).into_iter().chain(held(sample.throttling, Some(own)));
    let (throttled, throttled_by) = most.max_by(|a, b| a.0.total_cmp(&b.0)).unzip();
    let own_memory = sample.memory.and_then(|memory| {
        let limit_bytes = memory.limit_bytes?;
        Some(MemoryLimit { cgroup: own.clone(), limit_bytes, in_use_bytes: memory.in_use_bytes })
    });
    let smallest = own_memory.as_ref().map(|limit| limit.limit_bytes).into_iter().chain(above.memory_limit_bytes).min();
    Around {
        throttled,
        throttled_by: throttled_by.flatten(),
        memory_limit_bytes: smallest,
        memory: own_memory.into_iter().chain(above.memory.clone()).min_by_key(MemoryLimit::left_bytes),
        unknown_memory_limit: above.memory_limit_bytes.is_some() && above.memory.is_none(),
        wait_ns: waited_for.map(|w| w.sum_ns()),
        wait_for_others_ns: waited_for.map(|w| w.other_cgroup_ns.saturating_add(w.kernel_ns)),
    }
}

/// CPU time of an instance: by the kernel's own book where there is one, else by ours.
pub fn cpu_ns(sample: &Sample) -> Option<f64> {
    let by_kernel = sample.kernel_cpu_usec.map(|usec| 1e3 * usec as f64);
    by_kernel.or(sample.cpu.as_ref().map(|cpu| cpu.on_cpu_ns as f64))
}

/// What the machine does besides this deployment.
fn node(tick: &Tick, samples: &[&Sample]) -> Node {
    let Some(machine) = tick.machine else { return Node::default() };
    let own_ns: Option<f64> = samples.iter().copied().map(cpu_ns).sum();
    let capacity_ns = f64::from(machine.cpus) * tick.span_ns as f64;
    let total = machine.memory_total_bytes as f64;
    Node {
        cpu_others: own_ns
            .filter(|_| capacity_ns > 0.0)
            .map(|own| (machine.cpu_busy - own / capacity_ns).clamp(0.0, 1.0)),
        memory_available: (total > 0.0).then(|| machine.memory_available_bytes as f64 / total),
        memory_available_bytes: (total > 0.0).then_some(machine.memory_available_bytes),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
