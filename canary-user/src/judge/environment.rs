//! Version or environment: what around a deployment speaks against the version being the reason.
//!
//! Goes in: windows, with what the machine and the limits did in them. Comes out: [`Sign`]s, each with the indicators that
//! it explains. They never condemn. While they explain everything that would condemn a canary, it is not condemned.
//! What was seen in a window explains the reading that is of it, also where that comes much later.

mod readings;

use std::{collections::BTreeMap, sync::Arc};

use readings::{Readings, over, ratio, wait_for_others_ns, wait_ns};

use super::{
    load::GROWS_WITH_LOAD,
    observe::mean,
    pace::EFFECT_WINDOWS,
    parameters::Parameters,
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
    readings: Readings,
    seen: LastSeen,
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
    canary: Waits,
    stable: Waits,
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
struct Waits {
    throttled: f64,
    wait_ns: f64,
    wait_for_others_ns: f64,
}

const UNKNOWN: Waits = Waits { throttled: f64::NAN, wait_ns: f64::NAN, wait_for_others_ns: f64::NAN };

/// What the windows last told of each kind of thing, and when.
#[derive(Clone, Debug, Default)]
struct LastSeen {
    neighbour: Option<Sighting<TakenCpus>>,
    /// Share of the machine's CPUs that others use.
    busy: Option<Sighting<f64>>,
    /// Share of the machine's memory that is left.
    little_memory: Option<Sighting<f64>>,
    throttled: Option<Sighting<Throttled>>,
}

/// By the number of the window.
#[derive(Clone, Debug)]
struct Sighting<T> {
    window: u64,
    what: T,
}

/// Share of the waits in which others have the CPU: of the canary's, where there is one, and of stable's.
#[derive(Clone, Copy, Debug)]
struct TakenCpus {
    canary: Option<f64>,
    stable: f64,
}

/// Share of the periods in which the CPU limits hold back, and the cgroup whose limit it mostly is for the canary.
#[derive(Clone, Debug)]
struct Throttled {
    canary: f64,
    stable: Option<f64>,
    by: Option<Arc<str>>,
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

impl Waits {
    fn of(readings: &[Reading]) -> Self {
        Self {
            throttled: over(readings, |r| r.around.throttled),
            wait_ns: over(readings, wait_ns),
            wait_for_others_ns: over(readings, wait_for_others_ns),
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
        let keeps_others = keeps(self.usual_others, self.is_seen_now(&self.seen.busy));
        let keeps_wait = keeps(self.usual_wait, self.is_seen_now(&self.seen.neighbour));
        let keeps_memory = keeps(self.usual_memory, self.is_seen_now(&self.seen.little_memory));
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
            canary: Waits::of(&window.canary),
            stable: Waits::of(&window.stable),
            held: Held::of(&window.canary),
        };
        self.windows += 1;
        self.readings.observe(window, self.windows);
        if !self.has_canary() {
            self.forget_canary();
        }
        self.look(p);
    }

    /// Takes note of what the latest windows tell.
    fn look(&mut self, p: &Parameters) {
        let (neighbour, busy) = (self.taken_cpus(p), self.busy_cpus(p));
        let (little_memory, throttled) = (self.little_memory(p), self.held_back(p));
        note(&mut self.seen.neighbour, self.windows, neighbour);
        note(&mut self.seen.busy, self.windows, busy);
        note(&mut self.seen.little_memory, self.windows, little_memory);
        note(&mut self.seen.throttled, self.windows, throttled);
    }

    /// Whether there was one in the latest windows.
    fn has_canary(&self) -> bool {
        self.recent.iter().any(|recent| recent.has_canary)
    }

    /// Another canary, or none: what readings and its limit said is not of it.
    pub fn forget_canary(&mut self) {
        self.readings.forget_canary();
        self.seen.throttled = None;
    }

    fn is_seen_now<T>(&self, seen: &Option<Sighting<T>>) -> bool {
        seen.as_ref().is_some_and(|seen| seen.window == self.windows)
    }

    /// What was seen in a window that a latest reading may be of.
    fn lately<'a, T>(&self, seen: &'a Option<Sighting<T>>) -> Option<&'a Sighting<T>> {
        let is_read = |indicator: &Indicator, window: u64| self.readings.covers(*indicator, window, self.windows);
        // The tail, which may be of more, and all the others.
        seen.as_ref().filter(|seen| QUEUE.iter().any(|indicator| is_read(indicator, seen.window)))
    }

    /// The sign of what was last seen in this window: it explains those indicators whose latest readings may be of it.
    fn sign(&self, kind: SignKind, window: u64, mut explains: Vec<Indicator>, mut text: String) -> Option<Sign> {
        explains.retain(|indicator| self.readings.covers(*indicator, window, self.windows));
        let ago = self.windows - window;
        if ago > 0 {
            text += &format!(", last seen {ago} {} ago", if ago == 1 { "window" } else { "windows" });
        }
        (!explains.is_empty()).then_some(Sign { kind, explains, text })
    }

    /// The path of the cgroup whose CPU limit held the canary back most in the latest windows; `None` where that is not known. While
    /// that limit explains a reading it is the one of that time.
    pub fn held_back_by(&self) -> Option<&str> {
        let by = match self.lately(&self.seen.throttled) {
            Some(seen) => seen.what.by.as_ref(),
            None => self.most_held_back_by(),
        };
        by.map(|path| &**path)
    }

    fn most_held_back_by(&self) -> Option<&Arc<str>> {
        let mut shares: BTreeMap<Option<&Arc<str>>, f64> = BTreeMap::new();
        for held in self.recent.iter().filter_map(|recent| recent.held.as_ref()) {
            *shares.entry(held.by.as_ref()).or_default() += held.share;
        }
        shares.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).and_then(|(by, _)| by)
    }

    /// CPUs that an instance of the canary uses; `None` where that is not known.
    pub fn canary_cpus(&self) -> Option<f64> {
        self.readings.canary_cpus()
    }

    fn mean(&self, read: impl Fn(&Recent) -> f64) -> Option<f64> {
        let mean = mean(self.recent.iter().map(read));
        mean.is_finite().then_some(mean)
    }

    /// What is unusual around the latest windows, and around those that the latest readings are of, but for stable's own changes.
    pub fn signs(&self, p: &Parameters) -> Vec<Sign> {
        [self.neighbour(p), self.busy_node(p), self.memory(p), self.throttled(p), self.load(p), self.little_load(p)]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Both sides, or stable where there is no canary, wait for CPUs that other cgroups hold.
    fn neighbour(&self, p: &Parameters) -> Option<Sign> {
        let Sighting { window, what } = self.lately(&self.seen.neighbour)?;
        let stable = percent(what.stable);
        let wait = match what.canary {
            Some(canary) => format!("canary waits {} and stable {stable}", percent(canary)),
            None => format!("stable waits {stable}"),
        };
        let text = format!(
            "a neighbour holds the CPUs: of its waits for one, {wait} for processes of other cgroups, usually {}",
            percent(self.usual_wait.unwrap_or(0.0))
        );
        self.sign(SignKind::Neighbour, *window, self.taken_cpus_explain(p), text)
    }

    /// Share of the canary's waits, where there is one, and of stable's, in which others have the CPU, where that is much and more
    /// than usual.
    fn taken_cpus(&self, p: &Parameters) -> Option<TakenCpus> {
        let share =
            |side: fn(&Recent) -> Waits| ratio(&self.recent, |r| side(r).wait_for_others_ns, |r| side(r).wait_ns);
        let (canary, stable) = (share(|r| r.canary), share(|r| r.stable)?);
        // One of whose waits nothing is known is no canary that waits.
        let least = if self.has_canary() { canary?.min(stable) } else { stable };
        let usual = self.usual_wait.unwrap_or(0.0);
        (least >= p.neighbour_wait_share && stable >= usual + p.others_rise).then_some(TakenCpus { canary, stable })
    }

    /// Others take much of the machine's CPUs, and more than usual.
    fn busy_node(&self, p: &Parameters) -> Option<Sign> {
        let Sighting { window, what: others } = self.lately(&self.seen.busy)?;
        let usual = percent(self.usual_others.unwrap_or(0.0));
        let text = format!("others on this machine use {} of its CPUs, usually {usual}", percent(*others));
        self.sign(SignKind::CpuPressure, *window, self.taken_cpus_explain(p), text)
    }

    /// The share that they take, where it is so much.
    fn busy_cpus(&self, p: &Parameters) -> Option<f64> {
        let usual = self.usual_others.unwrap_or(0.0);
        self.mean(|a| a.others).filter(|others| *others >= p.others_cpu_share && *others >= usual + p.others_rise)
    }

    /// What others explain by having the CPUs. They make a turnaround longer by the wait that they cause, and that is
    /// measured: where the canary's turnaround grew by much more than it waits for them, the rest is its own.
    fn taken_cpus_explain(&self, p: &Parameters) -> Vec<Indicator> {
        match (self.readings.more(|done| done.wait_for_others_ns), self.longer_ns()) {
            (Some(waited), Some(longer)) if waited < p.wait_explains_share * longer => QUEUE.to_vec(),
            // Where the waits are not known they may be all of it.
            _ => waits(),
        }
    }

    /// By how much the canary's turnaround takes longer than stable's.
    fn longer_ns(&self) -> Option<f64> {
        self.readings.more(|done| done.turnaround_ns)
    }

    /// Whether what holds up the canary's own tasks, by so much `more_ns` for each turnaround than stable's, is enough to be why its
    /// turnaround takes longer. Each such time holds up the requests that are in flight besides: as many as there are on average,
    /// and where it happens in a `share` of the time only, as many as gather in that. Where any of it is not known it may be all of
    /// it.
    fn is_enough(&self, more_ns: Option<f64>, share: f64, p: &Parameters) -> bool {
        match (more_ns, self.readings.in_flight(), self.longer_ns()) {
            (Some(more), Some(in_flight), Some(longer)) => {
                more * (1.0 + in_flight / share) >= p.wait_explains_share * longer
            }
            _ => true,
        }
    }

    /// The machine is short of memory.
    fn memory(&self, p: &Parameters) -> Option<Sign> {
        let Sighting { window, what: available } = self.lately(&self.seen.little_memory)?;
        let mut explains = vec![Indicator::MemoryStall];
        if self.is_enough(self.readings.more(|done| done.stall_ns), 1.0, p) {
            explains.extend([Indicator::TurnaroundMean, Indicator::TurnaroundP95]);
        }
        let usual = self.usual_memory.map_or(String::new(), |usual| format!(", usually {}", percent(usual)));
        let text = format!("the machine has only {} of its memory left{usual}", percent(*available));
        self.sign(SignKind::MemoryPressure, *window, explains, text)
    }

    /// The share of its memory that is left, where that is little, and less than usual: what was so all along makes nothing worse.
    fn little_memory(&self, p: &Parameters) -> Option<f64> {
        let unusual = self.usual_memory.map_or(f64::INFINITY, |usual| UNUSUAL_MEMORY * usual);
        self.mean(|a| a.memory_available).filter(|left| *left < p.memory_available_share && *left < unusual)
    }

    /// The canary is held back by its CPU limit.
    fn throttled(&self, p: &Parameters) -> Option<Sign> {
        let Sighting { window, what } = self.lately(&self.seen.throttled)?;
        let stable = what.stable.map_or("stable has no limit".to_owned(), |t| format!("stable in {}", percent(t)));
        let waits_enough = self.is_enough(self.readings.more(|done| done.wait_ns), what.canary, p);
        let explains = if waits_enough { waits() } else { QUEUE.to_vec() };
        let text = format!("the CPU limit holds the canary back in {} of its periods ({stable})", percent(what.canary));
        self.sign(SignKind::Throttled, *window, explains, text)
    }

    /// How often it is, where that is much and more often than stable by its own: what holds both back alike makes neither worse.
    fn held_back(&self, p: &Parameters) -> Option<Throttled> {
        let canary = self.mean(|a| a.canary.throttled)?;
        let stable = self.mean(|a| a.stable.throttled);
        let is_much = canary >= p.throttled_share + stable.unwrap_or(0.0);
        is_much.then(|| Throttled { canary, stable, by: self.most_held_back_by().cloned() })
    }

    /// A canary with less work per instance: what a service does whether it is asked or not (timers, health checks, garbage
    /// collection) weighs more on each request. Where stable's cost of a request is v + F/n, n requests in a time, and F/n
    /// the share f of it, an equal version with n/R requests has 1 + f (R - 1) times the cost.
    fn little_load(&self, p: &Parameters) -> Option<Sign> {
        let load_ratio = self.readings.load_ratio()?;
        let fixed = p.fixed_cost_share * (1.0 / load_ratio - 1.0);
        if fixed < p.indicators[Indicator::CpuPerWork as usize].tolerance.delta {
            return None;
        }
        let explained = |costs: Option<(f64, f64)>| costs.is_some_and(|(c, s)| c <= (1.0 + fixed) * s);
        let cpu_ns = self.readings.each(|done| done.cpu_ns);
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
        if explained(self.readings.each(|done| done.bytes)) {
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
        let load_ratio = self.readings.load_ratio()?;
        (load_ratio > p.load_ratio).then(|| Sign {
            kind: SignKind::UnequalLoad,
            explains: GROWS_WITH_LOAD.to_vec(),
            text: format!(
                "the canary has {load_ratio:.1} times the load of a stable instance: what grows with load cannot be compared",
            ),
        })
    }
}

/// Keeps what is seen in this window, and else what was before.
fn note<T>(seen: &mut Option<Sighting<T>>, window: u64, now: Option<T>) {
    if let Some(what) = now {
        *seen = Some(Sighting { window, what });
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
