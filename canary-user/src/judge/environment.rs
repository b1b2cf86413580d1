//! Version or environment: what around a deployment speaks against the version being the reason.
//!
//! Goes in: windows, with what the machine and the limits did in them. Comes out: [`Sign`]s, each with the indicators that
//! it explains. They never condemn. While they explain everything that would condemn a canary, it is not condemned.

use super::{
    pace::EFFECT_WINDOWS,
    parameters::Parameters,
    verdict::{Sign, SignKind},
};
use crate::window::{Indicator, Reading, Window};

/// Windows that the usual use by others remembers.
const MEMORY_WINDOWS: f64 = 1800.0;

/// What was around the latest windows. Constant memory.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    windows: u64,
    recent: [Recent; EFFECT_WINDOWS],
    /// Share of the machine's CPUs that others usually use, and of stable's waits that are for others.
    usual_others: Option<f64>,
    usual_wait: Option<f64>,
}

/// One window as it is remembered; unknown is NaN.
#[derive(Clone, Copy, Debug)]
struct Recent {
    others: f64,
    memory_available: f64,
    canary: Side,
    stable: Side,
}

/// Means over a role's instances in one window; unknown is NaN.
#[derive(Clone, Copy, Debug)]
struct Side {
    throttled: f64,
    turnarounds: f64,
    seconds: f64,
    turnaround_ns: f64,
    cpu_ns: f64,
    bytes: f64,
    wait_ns: f64,
    wait_for_others_ns: f64,
}

const UNKNOWN: Side = Side {
    throttled: f64::NAN,
    turnarounds: f64::NAN,
    seconds: f64::NAN,
    turnaround_ns: f64::NAN,
    cpu_ns: f64::NAN,
    bytes: f64::NAN,
    wait_ns: f64::NAN,
    wait_for_others_ns: f64::NAN,
};

impl Default for Recent {
    fn default() -> Self {
        Self { others: f64::NAN, memory_available: f64::NAN, canary: UNKNOWN, stable: UNKNOWN }
    }
}

impl Side {
    fn of(readings: &[Reading]) -> Self {
        let mean = |read: &dyn Fn(&Reading) -> Option<f64>| {
            super::observe::mean(readings.iter().map(|r| read(r).unwrap_or(f64::NAN)))
        };
        let all = |i: Indicator| mean(&|r| Some(r.values[i as usize] * r.turnarounds as f64));
        Self {
            throttled: mean(&|r| r.around.throttled),
            turnarounds: mean(&|r| Some(r.turnarounds as f64)),
            seconds: mean(&|r| Some(r.seconds)),
            turnaround_ns: mean(&|r| Some(r.values[Indicator::TurnaroundMean as usize])),
            cpu_ns: all(Indicator::CpuPerWork),
            bytes: all(Indicator::BytesPerWork),
            wait_ns: mean(&|r| r.around.wait_ns.map(|ns| ns as f64)),
            wait_for_others_ns: mean(&|r| r.around.wait_for_others_ns.map(|ns| ns as f64)),
        }
    }

    /// Share of the waits for a CPU in which processes of other cgroups had it; NaN where nobody waited.
    fn wait_share(&self) -> f64 {
        self.wait_for_others_ns / self.wait_ns
    }
}

impl Surroundings {
    pub fn observe(&mut self, window: &Window) {
        let slot = (self.windows % EFFECT_WINDOWS as u64) as usize;
        // What is usual is learned from windows that have left the ring: a sudden neighbour is not compared with itself.
        let rate = (1.0 / (self.windows.max(1) as f64)).max(1.0 / MEMORY_WINDOWS);
        let learn = |usual: &mut Option<f64>, left: f64| {
            if left.is_finite() {
                *usual = Some(usual.map_or(left, |u| u + rate * (left - u)));
            }
        };
        learn(&mut self.usual_others, self.recent[slot].others);
        learn(&mut self.usual_wait, self.recent[slot].stable.wait_share());
        self.recent[slot] = Recent {
            others: window.node.cpu_others.unwrap_or(f64::NAN),
            memory_available: window.node.memory_available.unwrap_or(f64::NAN),
            canary: Side::of(&window.canary),
            stable: Side::of(&window.stable),
        };
        self.windows += 1;
    }

    fn mean(&self, read: impl Fn(&Recent) -> f64) -> Option<f64> {
        let mean = super::observe::mean(self.recent.iter().map(read));
        mean.is_finite().then_some(mean)
    }

    /// A quotient of means: windows with much in them count for more.
    fn ratio(&self, above: impl Fn(&Recent) -> f64, below: impl Fn(&Recent) -> f64) -> Option<f64> {
        let (above, below) = (self.mean(above)?, self.mean(below)?);
        (below > 0.0).then_some(above / below)
    }

    /// What is unusual around the latest windows, but for stable's own changes.
    pub fn signs(&self, p: &Parameters) -> Vec<Sign> {
        [self.neighbour(p), self.busy_node(p), self.memory(p), self.throttled(p), self.load(p), self.little_load(p)]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Both sides wait for CPUs that other cgroups hold.
    fn neighbour(&self, p: &Parameters) -> Option<Sign> {
        let share = |side: fn(&Recent) -> Side| self.ratio(|r| side(r).wait_for_others_ns, |r| side(r).wait_ns);
        let (canary, stable) = (share(|r| r.canary)?, share(|r| r.stable)?);
        let usual = self.usual_wait.unwrap_or(0.0);
        (canary.min(stable) >= p.neighbour_wait_share && stable >= usual + p.others_rise).then(|| Sign {
            kind: SignKind::Neighbour,
            explains: self.taken_cpus_explain(p),
            text: format!(
                "a neighbour holds the CPUs: of its waits for one, canary waits {} and stable {} for processes of other \
                 cgroups, usually {}",
                percent(canary),
                percent(stable),
                percent(usual)
            ),
        })
    }

    /// Others take much of the machine's CPUs, and more than usual.
    fn busy_node(&self, p: &Parameters) -> Option<Sign> {
        let others = self.mean(|a| a.others)?;
        let usual = self.usual_others.unwrap_or(0.0);
        (others >= p.others_cpu_share && others >= usual + p.others_rise).then(|| Sign {
            kind: SignKind::CpuPressure,
            explains: self.taken_cpus_explain(p),
            text: format!("others on this machine use {} of its CPUs, usually {}", percent(others), percent(usual)),
        })
    }

    /// What others explain by having the CPUs. They make a turnaround longer by the wait that they cause, and that is
    /// measured: where the canary's turnaround grew by much more than it waits for them, the rest is its own.
    fn taken_cpus_explain(&self, p: &Parameters) -> Vec<Indicator> {
        let waits_ns = |side: fn(&Recent) -> Side| self.ratio(|r| side(r).wait_for_others_ns, |r| side(r).turnarounds);
        let more = |canary: Option<f64>, stable: Option<f64>| Some(canary? - stable?);
        let waited_ns = more(waits_ns(|r| r.canary), waits_ns(|r| r.stable));
        let longer_ns = more(self.mean(|r| r.canary.turnaround_ns), self.mean(|r| r.stable.turnaround_ns));
        match (waited_ns, longer_ns) {
            (Some(waited), Some(longer)) if waited < p.wait_explains_share * longer => QUEUE.to_vec(),
            // Where the waits are not known they may be all of it.
            _ => waits(),
        }
    }

    fn memory(&self, p: &Parameters) -> Option<Sign> {
        let available = self.mean(|a| a.memory_available)?;
        (available < p.memory_available_share).then(|| Sign {
            kind: SignKind::MemoryPressure,
            explains: vec![Indicator::MemoryStall, Indicator::TurnaroundMean, Indicator::TurnaroundP95],
            text: format!("the machine has only {} of its memory left", percent(available)),
        })
    }

    /// The canary is held back by its CPU limit.
    fn throttled(&self, p: &Parameters) -> Option<Sign> {
        let canary = self.mean(|a| a.canary.throttled).filter(|t| *t >= p.throttled_share)?;
        let stable = self.mean(|a| a.stable.throttled);
        let stable = stable.map_or("stable has no limit".to_owned(), |t| format!("stable in {}", percent(t)));
        Some(Sign {
            kind: SignKind::Throttled,
            explains: waits(),
            text: format!("the CPU limit holds the canary back in {} of its periods ({stable})", percent(canary)),
        })
    }

    /// Load per instance, canary over stable.
    fn load_ratio(&self) -> Option<f64> {
        let load = |side: fn(&Recent) -> Side| self.ratio(|r| side(r).turnarounds, |r| side(r).seconds);
        let (canary, stable) = (load(|r| r.canary)?, load(|r| r.stable)?);
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
        let per_work = |of: fn(&Side) -> f64| {
            let one = |side: fn(&Recent) -> Side| self.ratio(|r| of(&side(r)), |r| side(r).turnarounds);
            Some((one(|r| r.canary)?, one(|r| r.stable)?))
        };
        let explained = |costs: Option<(f64, f64)>| costs.is_some_and(|(c, s)| c <= (1.0 + fixed) * s);
        let cpu_ns = per_work(|side| side.cpu_ns);
        let mut explains = Vec::new();
        if explained(cpu_ns) {
            explains.push(Indicator::CpuPerWork);
            // Work that is rarely done takes more CPU, and so longer.
            let longer_ns = self.mean(|r| r.canary.turnaround_ns)? - self.mean(|r| r.stable.turnaround_ns)?;
            if cpu_ns.is_some_and(|(canary, stable)| canary - stable >= p.wait_explains_share * longer_ns) {
                explains.extend([Indicator::TurnaroundMean, Indicator::TurnaroundP95]);
            }
        }
        if explained(per_work(|side| side.bytes)) {
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
            explains: vec![
                Indicator::RunQueueWait,
                Indicator::RunQueueWaitP95,
                Indicator::MemoryStall,
                Indicator::MemoryInUse,
                Indicator::TurnaroundMean,
                Indicator::TurnaroundP95,
            ],
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
