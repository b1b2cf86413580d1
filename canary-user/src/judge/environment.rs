//! Version or environment: what around a deployment speaks against the version being the reason.
//!
//! Goes in: windows, with what the machine and the limits did in them. Comes out: [`Sign`]s, each with the indicators that
//! it explains. They never condemn. While they explain everything that would condemn a canary, it is not condemned.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    instances,
    load::GROWS_WITH_LOAD,
    observe::mean,
    pace::EFFECT_WINDOWS,
    parameters::Parameters,
    traffic,
    verdict::{Sign, SignKind},
};
use crate::window::{Indicator, Reading, Window};

/// Windows that the usual use by others remembers.
const MEMORY_WINDOWS: f64 = 1800.0;
/// Share of the memory that is usually available, below which what is available is unusually little.
const UNUSUAL_MEMORY: f64 = 0.5;

/// What was around the latest windows. Constant memory.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    windows: u64,
    recent: [Recent; EFFECT_WINDOWS],
    /// The latest readings of both sides: where there is little work they come once in many windows.
    readings: [Both; EFFECT_WINDOWS],
    /// Their number, and what was done since the last ones.
    given: u64,
    since: Both,
    /// Share of the machine's CPUs that others usually use, of stable's waits that are for others, and of the machine's memory
    /// that is available.
    usual_others: Option<f64>,
    usual_wait: Option<f64>,
    usual_memory: Option<f64>,
}

/// One window as it is remembered; unknown is NaN.
#[derive(Clone, Debug)]
struct Recent {
    others: f64,
    memory_available: f64,
    has_canary: bool,
    canary: Side,
    stable: Side,
    held: Option<Held>,
}

/// The CPU limit that held back the canary's instance that was held back most.
#[derive(Clone, Debug)]
struct Held {
    share: f64,
    /// The path of the cgroup that has it, where that is known.
    by: Option<Arc<str>>,
}

/// Means over a role's instances in one window; unknown is NaN.
#[derive(Clone, Copy, Debug)]
struct Side {
    throttled: f64,
    turnarounds: f64,
    wait_ns: f64,
    wait_for_others_ns: f64,
}

const UNKNOWN: Side =
    Side { throttled: f64::NAN, turnarounds: f64::NAN, wait_ns: f64::NAN, wait_for_others_ns: f64::NAN };

/// What both roles did between two readings.
#[derive(Clone, Copy, Debug, Default)]
struct Both {
    canary: Work,
    stable: Work,
}

/// What an instance of a role did, on average, in the ticks that a reading is of; unknown is NaN, and where no turnaround was
/// counted all of it is nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Work {
    turnarounds: f64,
    seconds: f64,
    turnaround_ns: f64,
    cpu_ns: f64,
    bytes: f64,
    stall_ns: f64,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            others: f64::NAN,
            memory_available: f64::NAN,
            has_canary: false,
            canary: UNKNOWN,
            stable: UNKNOWN,
            held: None,
        }
    }
}

impl Held {
    fn of(canary: &[Reading]) -> Option<Self> {
        let held = |r: &Reading| Some(Self { share: r.around.throttled?, by: r.around.throttled_by.clone() });
        canary.iter().filter_map(held).max_by(|a, b| a.share.total_cmp(&b.share))
    }
}

/// Mean over the instances of which it is known; NaN where it is of none.
fn over(readings: &[Reading], read: impl Fn(&Reading) -> Option<f64>) -> f64 {
    mean(readings.iter().map(|r| read(r).unwrap_or(f64::NAN)))
}

/// Turnarounds of an instance in one tick. What nobody counts is not none.
fn turnarounds(reading: &Reading) -> Option<f64> {
    traffic::is_counted(reading).then_some(reading.turnarounds as f64)
}

/// A quotient of sums over what both are known of: what has much in it counts for more.
fn ratio<T>(of: &[T], above: impl Fn(&T) -> f64, below: impl Fn(&T) -> f64) -> Option<f64> {
    let known = of.iter().map(|x| (above(x), below(x))).filter(|(above, below)| (above + below).is_finite());
    let (above, below) = known.fold((0.0, 0.0), |(sum, n), (above, below)| (sum + above, n + below));
    (below > 0.0).then_some(above / below)
}

impl Work {
    /// Adds what was done in one tick.
    fn add(&mut self, readings: &[Reading]) {
        let turnarounds = over(readings, turnarounds);
        if !turnarounds.is_nan() {
            self.turnarounds += turnarounds;
            self.seconds += over(readings, |r| traffic::is_counted(r).then_some(r.seconds));
        }
    }

    /// The same with what readings say that cover it.
    fn read(self, readings: &[Reading]) -> Self {
        let value = |indicator: Indicator| over(readings, |r| Some(r.values[indicator as usize]));
        Self {
            turnaround_ns: self.turnarounds * value(Indicator::TurnaroundMean),
            cpu_ns: self.turnarounds * value(Indicator::CpuPerWork),
            bytes: self.turnarounds * value(Indicator::BytesPerWork),
            stall_ns: 1e9 * self.seconds * value(Indicator::MemoryStall),
            ..self
        }
    }
}

impl Side {
    fn of(readings: &[Reading]) -> Self {
        Self {
            throttled: over(readings, |r| r.around.throttled),
            turnarounds: over(readings, turnarounds),
            wait_ns: over(readings, |r| r.around.wait_ns.map(|ns| ns as f64)),
            wait_for_others_ns: over(readings, |r| r.around.wait_for_others_ns.map(|ns| ns as f64)),
        }
    }

    /// Share of the waits for a CPU in which processes of other cgroups had it; NaN where nobody waited.
    fn wait_share(&self) -> f64 {
        self.wait_for_others_ns / self.wait_ns
    }
}

impl Surroundings {
    /// Takes one window in. While versions are compared, what is unusual does not become usual: a neighbour that stays explains
    /// as much in its second hour as when it came.
    pub fn observe(&mut self, window: &Window, is_compared: bool, p: &Parameters) {
        let keeps = |usual: Option<f64>, is_unusual: bool| is_compared && usual.is_some() && is_unusual;
        let keeps_others = keeps(self.usual_others, self.busy_cpus(p).is_some());
        let keeps_wait = keeps(self.usual_wait, self.held_cpus(p).is_some());
        let keeps_memory = keeps(self.usual_memory, self.little_memory(p).is_some());
        let slot = (self.windows % EFFECT_WINDOWS as u64) as usize;
        // What is usual is learned from windows that have left the ring: a sudden neighbour is not compared with itself.
        let left = std::mem::take(&mut self.recent[slot]);
        let rate = (1.0 / (self.windows.max(1) as f64)).max(1.0 / MEMORY_WINDOWS);
        let learn = |usual: &mut Option<f64>, keeps: bool, left: f64| {
            if !keeps && left.is_finite() {
                *usual = Some(usual.map_or(left, |u| u + rate * (left - u)));
            }
        };
        learn(&mut self.usual_others, keeps_others, left.others);
        learn(&mut self.usual_wait, keeps_wait, left.stable.wait_share());
        learn(&mut self.usual_memory, keeps_memory, left.memory_available);
        self.recent[slot] = Recent {
            others: window.node.cpu_others.unwrap_or(f64::NAN),
            memory_available: window.node.memory_available.unwrap_or(f64::NAN),
            has_canary: !window.canary.is_empty(),
            canary: Side::of(&window.canary),
            stable: Side::of(&window.stable),
            held: Held::of(&window.canary),
        };
        self.windows += 1;
        self.read(window);
        if !self.has_canary() {
            self.forget_canary();
        }
    }

    /// Whether there was one in the latest windows.
    fn has_canary(&self) -> bool {
        self.recent.iter().any(|recent| recent.has_canary)
    }

    /// Takes the readings of a window, where it has any.
    fn read(&mut self, window: &Window) {
        self.since.canary.add(&window.canary);
        self.since.stable.add(&window.stable);
        let [canary, stable] = [&window.canary, &window.stable].map(|side| side.iter().any(instances::reports));
        if canary || stable {
            let since = std::mem::take(&mut self.since);
            if canary && stable {
                let slot = (self.given % EFFECT_WINDOWS as u64) as usize;
                self.readings[slot] =
                    Both { canary: since.canary.read(&window.canary), stable: since.stable.read(&window.stable) };
                self.given += 1;
            }
        }
    }

    /// Another canary, or none: what readings said is not of it.
    pub fn forget_canary(&mut self) {
        self.readings = Default::default();
        self.since = Both::default();
    }

    /// The path of the cgroup whose CPU limit held the canary back most in the latest windows; `None` where that is not known.
    pub fn held_back_by(&self) -> Option<&str> {
        let mut shares: BTreeMap<Option<&str>, f64> = BTreeMap::new();
        for held in self.recent.iter().filter_map(|recent| recent.held.as_ref()) {
            *shares.entry(held.by.as_deref()).or_default() += held.share;
        }
        shares.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).and_then(|(by, _)| by)
    }

    /// CPUs that an instance of the canary uses; `None` where that is not known.
    pub fn canary_cpus(&self) -> Option<f64> {
        ratio(&self.readings, |b| b.canary.cpu_ns, |b| 1e9 * b.canary.seconds).filter(|cpus| *cpus > 0.0)
    }

    fn mean(&self, read: impl Fn(&Recent) -> f64) -> Option<f64> {
        let mean = mean(self.recent.iter().map(read));
        mean.is_finite().then_some(mean)
    }

    /// What each turnaround of the canary takes, and of stable: of the same readings, each for as much work as it is of.
    fn each(&self, of: fn(&Work) -> f64) -> Option<(f64, f64)> {
        let each = |side: fn(&Both) -> Work| ratio(&self.readings, |b| of(&side(b)), |b| side(b).turnarounds);
        Some((each(|b| b.canary)?, each(|b| b.stable)?))
    }

    /// What is unusual around the latest windows, but for stable's own changes.
    pub fn signs(&self, p: &Parameters) -> Vec<Sign> {
        [self.neighbour(p), self.busy_node(p), self.memory(p), self.throttled(p), self.load(p), self.little_load(p)]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Both sides, or stable where there is no canary, wait for CPUs that other cgroups hold.
    fn neighbour(&self, p: &Parameters) -> Option<Sign> {
        let (canary, stable) = self.held_cpus(p)?;
        let stable = percent(stable);
        let wait = match canary {
            Some(canary) => format!("canary waits {} and stable {stable}", percent(canary)),
            None => format!("stable waits {stable}"),
        };
        Some(Sign {
            kind: SignKind::Neighbour,
            explains: self.taken_cpus_explain(p),
            text: format!(
                "a neighbour holds the CPUs: of its waits for one, {wait} for processes of other cgroups, usually {}",
                percent(self.usual_wait.unwrap_or(0.0))
            ),
        })
    }

    /// Share of the canary's waits, where there is one, and of stable's, in which others have the CPU, where that is much and more
    /// than usual.
    fn held_cpus(&self, p: &Parameters) -> Option<(Option<f64>, f64)> {
        let share =
            |side: fn(&Recent) -> Side| ratio(&self.recent, |r| side(r).wait_for_others_ns, |r| side(r).wait_ns);
        let (canary, stable) = (share(|r| r.canary), share(|r| r.stable)?);
        // One of whose waits nothing is known is no canary that waits.
        let least = if self.has_canary() { canary?.min(stable) } else { stable };
        let usual = self.usual_wait.unwrap_or(0.0);
        (least >= p.neighbour_wait_share && stable >= usual + p.others_rise).then_some((canary, stable))
    }

    /// Others take much of the machine's CPUs, and more than usual.
    fn busy_node(&self, p: &Parameters) -> Option<Sign> {
        let (others, usual) = (self.busy_cpus(p)?, self.usual_others.unwrap_or(0.0));
        Some(Sign {
            kind: SignKind::CpuPressure,
            explains: self.taken_cpus_explain(p),
            text: format!("others on this machine use {} of its CPUs, usually {}", percent(others), percent(usual)),
        })
    }

    /// The share that they take, where it is so much.
    fn busy_cpus(&self, p: &Parameters) -> Option<f64> {
        let usual = self.usual_others.unwrap_or(0.0);
        self.mean(|a| a.others).filter(|others| *others >= p.others_cpu_share && *others >= usual + p.others_rise)
    }

    /// What others explain by having the CPUs. They make a turnaround longer by the wait that they cause, and that is
    /// measured: where the canary's turnaround grew by much more than it waits for them, the rest is its own.
    fn taken_cpus_explain(&self, p: &Parameters) -> Vec<Indicator> {
        match (self.more_waits_ns(|side| side.wait_for_others_ns), self.longer_ns()) {
            (Some(waited), Some(longer)) if waited < p.wait_explains_share * longer => QUEUE.to_vec(),
            // Where the waits are not known they may be all of it.
            _ => waits(),
        }
    }

    /// By how much the canary's turnaround takes longer than stable's.
    fn longer_ns(&self) -> Option<f64> {
        self.each(|work| work.turnaround_ns).map(|(canary, stable)| canary - stable)
    }

    /// By how much longer the canary waits for each turnaround than stable.
    fn more_waits_ns(&self, of: fn(&Side) -> f64) -> Option<f64> {
        let each = |side: fn(&Recent) -> Side| ratio(&self.recent, |r| of(&side(r)), |r| side(r).turnarounds);
        Some(each(|r| r.canary)? - each(|r| r.stable)?)
    }

    /// Whether what holds up the canary's own tasks, by so much `more_ns` for each turnaround than stable's, is enough to be why its
    /// turnaround takes longer. Each such time holds up the requests that are in flight besides: as many as there are on average,
    /// and where it happens in a `share` of the time only, as many as gather in that. Where any of it is not known it may be all of
    /// it.
    fn is_enough(&self, more_ns: Option<f64>, share: f64, p: &Parameters) -> bool {
        let in_flight = ratio(&self.readings, |b| b.canary.turnaround_ns, |b| 1e9 * b.canary.seconds);
        match (more_ns, in_flight, self.longer_ns()) {
            (Some(more), Some(in_flight), Some(longer)) => {
                more * (1.0 + in_flight / share) >= p.wait_explains_share * longer
            }
            _ => true,
        }
    }

    /// The machine is short of memory.
    fn memory(&self, p: &Parameters) -> Option<Sign> {
        let available = self.little_memory(p)?;
        let mut explains = vec![Indicator::MemoryStall];
        let stalls = self.each(|work| work.stall_ns).map(|(canary, stable)| canary - stable);
        if self.is_enough(stalls, 1.0, p) {
            explains.extend([Indicator::TurnaroundMean, Indicator::TurnaroundP95]);
        }
        let usual = self.usual_memory.map_or(String::new(), |usual| format!(", usually {}", percent(usual)));
        Some(Sign {
            kind: SignKind::MemoryPressure,
            explains,
            text: format!("the machine has only {} of its memory left{usual}", percent(available)),
        })
    }

    /// The share of its memory that is left, where that is little, and less than usual: what was so all along makes nothing worse.
    fn little_memory(&self, p: &Parameters) -> Option<f64> {
        let unusual = self.usual_memory.map_or(f64::INFINITY, |usual| UNUSUAL_MEMORY * usual);
        self.mean(|a| a.memory_available).filter(|left| *left < p.memory_available_share && *left < unusual)
    }

    /// The canary is held back by its CPU limit, and more often than stable by its own: what holds both back alike makes neither
    /// worse.
    fn throttled(&self, p: &Parameters) -> Option<Sign> {
        let canary = self.mean(|a| a.canary.throttled)?;
        let stable = self.mean(|a| a.stable.throttled);
        if canary < p.throttled_share + stable.unwrap_or(0.0) {
            return None;
        }
        let stable = stable.map_or("stable has no limit".to_owned(), |t| format!("stable in {}", percent(t)));
        let waits_enough = self.is_enough(self.more_waits_ns(|side| side.wait_ns), canary, p);
        Some(Sign {
            kind: SignKind::Throttled,
            explains: if waits_enough { waits() } else { QUEUE.to_vec() },
            text: format!("the CPU limit holds the canary back in {} of its periods ({stable})", percent(canary)),
        })
    }

    /// Load per instance, canary over stable.
    fn load_ratio(&self) -> Option<f64> {
        let load = |side: fn(&Both) -> Work| ratio(&self.readings, |b| side(b).turnarounds, |b| side(b).seconds);
        let (canary, stable) = (load(|b| b.canary)?, load(|b| b.stable)?);
        (canary > 0.0 && stable > 0.0).then(|| canary / stable)
    }

    /// A canary with less work per instance: what a service does whether it is asked or not (timers, health checks, garbage
    /// collection) weighs more on each request. Where stable's cost of a request is v + F/n, n requests in a time, and F/n
    /// the share f of it, an equal version with n/R requests has 1 + f (R - 1) times the cost.
    fn little_load(&self, p: &Parameters) -> Option<Sign> {
        let load_ratio = self.load_ratio()?;
        let fixed = p.fixed_cost_share * (1.0 / load_ratio - 1.0);
        if fixed < p.indicators[Indicator::CpuPerWork as usize].tolerance.delta {
            return None;
        }
        let explained = |costs: Option<(f64, f64)>| costs.is_some_and(|(c, s)| c <= (1.0 + fixed) * s);
        let cpu_ns = self.each(|work| work.cpu_ns);
        let mut explains = Vec::new();
        if explained(cpu_ns) {
            explains.push(Indicator::CpuPerWork);
            // Work that is rarely done takes more CPU, and so longer.
            if let (Some((canary, stable)), Some(longer_ns)) = (cpu_ns, self.longer_ns())
                && canary - stable >= p.wait_explains_share * longer_ns
            {
                explains.extend([Indicator::TurnaroundMean, Indicator::TurnaroundP95]);
            }
        }
        if explained(self.each(|work| work.bytes)) {
            explains.push(Indicator::BytesPerWork);
        }
        Some(Sign {
            kind: SignKind::UnequalLoad,
            explains,
            text: format!(
                "the canary has {} of the load of a stable instance: what a service costs beside its requests can make \
                 each of them up to {} dearer",
                percent(load_ratio),
                percent(fixed)
            ),
        })
    }

    /// A canary with much more work per instance is compared with stable only in what is counted per unit of work.
    fn load(&self, p: &Parameters) -> Option<Sign> {
        let load_ratio = self.load_ratio()?;
        (load_ratio > p.load_ratio).then(|| Sign {
            kind: SignKind::UnequalLoad,
            explains: GROWS_WITH_LOAD.to_vec(),
            text: format!(
                "the canary has {load_ratio:.1} times the load of a stable instance: what grows with load cannot be compared",
            ),
        })
    }
}

/// Waiting for a CPU itself.
const QUEUE: [Indicator; 2] = [Indicator::RunQueueWait, Indicator::RunQueueWaitP95];

/// What waiting for a CPU makes longer.
fn waits() -> Vec<Indicator> {
    QUEUE.into_iter().chain([Indicator::TurnaroundMean, Indicator::TurnaroundP95]).collect()
}

/// Stable got worse in an indicator at the same time: by `shift` standard deviations and a `rise` of ln against what it was
/// right before, while the canary has an `effect` (of ln) over stable.
pub fn stable_worse(indicator: Indicator, shift: f64, rise: f64, effect: f64, p: &Parameters) -> Option<Sign> {
    let is_alike = rise >= p.stable_worse_share * effect;
    (shift >= p.stable_worse_sd && rise > 0.0 && is_alike).then(|| Sign {
        kind: SignKind::StableWorse,
        explains: vec![indicator],
        text: format!(
            "stable got worse too: {} {:+.0} % against what it was before",
            indicator.title(),
            100.0 * libm::expm1(rise)
        ),
    })
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}
