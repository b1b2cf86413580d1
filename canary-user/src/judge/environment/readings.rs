//! What readings say of both sides: their load, and what each turnaround takes.
//!
//! Where there is little work, readings are merged: they come once in many windows, and each is of all those since the one before. So
//! is what is added up here.

use crate::{
    judge::{exposure::MERGED_WINDOWS, instances, observe::mean, pace::EFFECT_WINDOWS, traffic},
    window::{Indicator, Reading, Window},
};

/// The latest readings of both sides. Constant memory.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    latest: [Both; EFFECT_WINDOWS],
    /// Their number, and what was done since the last ones.
    given: u64,
    since: Both,
    /// Which windows the latest are of, and the latest tails of waits, which may be merged for longer.
    span: Span,
    tail: Span,
}

/// The windows that a reading is of, by their number: those after `from`, up to `to`.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    from: u64,
    to: u64,
}

impl Span {
    /// The next reading came in this window.
    fn end(&mut self, window: u64) {
        *self = Span { from: self.to, to: window };
    }
}

/// What both roles did between two readings.
#[derive(Clone, Copy, Debug, Default)]
struct Both {
    canary: Done,
    stable: Done,
}

impl Both {
    /// Whether this is known of both, and both had turnarounds that it is for.
    fn has(&self, of: fn(&Done) -> f64) -> bool {
        [self.canary, self.stable].iter().all(|side| side.turnarounds > 0.0 && of(side).is_finite())
    }
}

/// What an instance of a role did, and waited for, on average, in the ticks that a reading is of; unknown is NaN, and where no
/// turnaround was counted all of it is nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    turnarounds: f64,
    seconds: f64,
    /// For a CPU, and that part of it in which other cgroups had it.
    pub wait_ns: f64,
    pub wait_for_others_ns: f64,
    pub turnaround_ns: f64,
    pub cpu_ns: f64,
    pub bytes: f64,
    pub stall_ns: f64,
}

impl Done {
    /// Adds what was done in one tick.
    fn add(&mut self, readings: &[Reading]) {
        let turnarounds = over(readings, turnarounds);
        if !turnarounds.is_nan() {
            self.turnarounds += turnarounds;
            self.seconds += over(readings, |r| traffic::is_counted(r).then_some(r.seconds));
            // Waits that are not known in one of the ticks are not known for the reading: without that tick they would be too short.
            self.wait_ns += over(readings, wait_ns);
            self.wait_for_others_ns += over(readings, wait_for_others_ns);
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

impl Readings {
    /// Takes the window of this number in: what was done in it, and what readings say where it has any.
    pub fn observe(&mut self, window: &Window, number: u64) {
        self.since.canary.add(&window.canary);
        self.since.stable.add(&window.stable);
        let [canary, stable] = [&window.canary, &window.stable].map(|side| side.iter().any(instances::reports));
        if canary || stable {
            self.span.end(number);
            let since = std::mem::take(&mut self.since);
            if canary && stable {
                let slot = (self.given % EFFECT_WINDOWS as u64) as usize;
                self.latest[slot] =
                    Both { canary: since.canary.read(&window.canary), stable: since.stable.read(&window.stable) };
                self.given += 1;
            }
        }
        let has_tail = |r: &Reading| r.values[Indicator::RunQueueWaitP95 as usize].is_finite();
        if window.stable.iter().chain(&window.canary).any(has_tail) {
            self.tail.end(number);
        }
    }

    /// Another canary, or none: what readings said is not of it.
    pub fn forget_canary(&mut self) {
        self.latest = Default::default();
        self.since = Both::default();
    }

    /// Whether the latest reading of an indicator may be of this window, the latest one being `now`. Where none came for longer than
    /// they are merged, what was seen in its windows is over.
    pub fn covers(&self, indicator: Indicator, window: u64, now: u64) -> bool {
        let Span { from, to } = if indicator == Indicator::RunQueueWaitP95 { self.tail } else { self.span };
        window == now || (window > from && now.saturating_sub(to) <= u64::from(MERGED_WINDOWS))
    }

    /// What each turnaround of the canary takes, and of stable: of the same readings, each for as much work as it is of.
    pub fn each(&self, of: fn(&Done) -> f64) -> Option<(f64, f64)> {
        let each = |side: fn(&Both) -> Done| {
            let known = self.latest.iter().filter(|b| b.has(of));
            ratio(known, |b| of(&side(b)), |b| side(b).turnarounds)
        };
        Some((each(|b| b.canary)?, each(|b| b.stable)?))
    }

    /// By how much more that is for the canary.
    pub fn more(&self, of: fn(&Done) -> f64) -> Option<f64> {
        self.each(of).map(|(canary, stable)| canary - stable)
    }

    /// Requests of the canary that are in flight, on average.
    pub fn in_flight(&self) -> Option<f64> {
        ratio(&self.latest, |b| b.canary.turnaround_ns, |b| 1e9 * b.canary.seconds)
    }

    /// CPUs that an instance of the canary uses; `None` where that is not known.
    pub fn canary_cpus(&self) -> Option<f64> {
        ratio(&self.latest, |b| b.canary.cpu_ns, |b| 1e9 * b.canary.seconds).filter(|cpus| *cpus > 0.0)
    }

    /// Load per instance, canary over stable.
    pub fn load_ratio(&self) -> Option<f64> {
        let load = |side: fn(&Both) -> Done| ratio(&self.latest, |b| side(b).turnarounds, |b| side(b).seconds);
        let (canary, stable) = (load(|b| b.canary)?, load(|b| b.stable)?);
        (canary > 0.0 && stable > 0.0).then(|| canary / stable)
    }
}

/// Mean over the instances of which it is known; NaN where it is of none.
pub fn over(readings: &[Reading], read: impl Fn(&Reading) -> Option<f64>) -> f64 {
    mean(readings.iter().map(|r| read(r).unwrap_or(f64::NAN)))
}

/// Turnarounds of an instance in one tick. What nobody counts is not none.
fn turnarounds(reading: &Reading) -> Option<f64> {
    traffic::is_counted(reading).then_some(reading.turnarounds as f64)
}

/// What an instance waits for a CPU in one tick.
pub fn wait_ns(reading: &Reading) -> Option<f64> {
    reading.around.wait_ns.map(|ns| ns as f64)
}

/// The part of that in which other cgroups had it.
pub fn wait_for_others_ns(reading: &Reading) -> Option<f64> {
    reading.around.wait_for_others_ns.map(|ns| ns as f64)
}

/// A quotient of sums over what both are known of: what has much in it counts for more.
pub fn ratio<'a, T: 'a>(
    of: impl IntoIterator<Item = &'a T>,
    above: impl Fn(&T) -> f64,
    below: impl Fn(&T) -> f64,
) -> Option<f64> {
    let known = of.into_iter().map(|x| (above(x), below(x))).filter(|(above, below)| (above + below).is_finite());
    let (above, below) = known.fold((0.0, 0.0), |(sum, n), (above, below)| (sum + above, n + below));
    (below > 0.0).then_some(above / below)
}
