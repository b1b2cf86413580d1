//! What events are counted by: how much work and time each side had in a window, in those that are judged with it, and lately.

use super::{clumping::Clumps, traffic};
use crate::window::{Event, Reading, Window};

/// Windows that are added up at most until both sides have work, as readings are.
pub const MERGED_WINDOWS: u32 = 60;
/// So many turnarounds of stable stay away by chance once in twenty times.
const MISSED: f64 = 3.0;

/// One side of one kind of event in one window, or in several.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Side {
    pub count: u64,
    pub turnarounds: u64,
    pub seconds: f64,
    /// Somebody's turnarounds are not counted: what there is is not all of them.
    pub is_uncounted: bool,
}

impl Side {
    /// Over the instances that count this kind; `None` if none does.
    pub fn of(readings: &[Reading], event: Event) -> Option<Side> {
        let mut side = None;
        for reading in readings {
            let Some(count) = reading.events[event as usize] else { continue };
            side.get_or_insert(Side::default()).add(Side {
                count,
                turnarounds: reading.turnarounds,
                seconds: reading.seconds,
                is_uncounted: !traffic::is_counted(reading),
            });
        }
        side
    }

    pub fn add(&mut self, other: Side) {
        self.count = self.count.saturating_add(other.count);
        self.turnarounds = self.turnarounds.saturating_add(other.turnarounds);
        self.seconds += other.seconds;
        self.is_uncounted |= other.is_uncounted;
    }
}

/// What is judged at once: a window, or those that were added up until both sides had work.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    pub canary: Side,
    pub stable: Side,
    pub windows: u32,
    /// Window of the canary's first event.
    pub first_event: Option<u64>,
    /// How stable's events clumped by time and by work as of before it: what is judged must not say how far it is
    /// believed.
    pub clumps_by_time: Clumps,
    pub clumps_by_work: Clumps,
}

impl Block {
    pub fn add(&mut self, later: &Block) {
        self.canary.add(later.canary);
        self.stable.add(later.stable);
        self.windows += later.windows;
        self.first_event = self.first_event.or(later.first_event);
    }

    /// Whether somebody's turnarounds are not counted.
    pub fn is_uncounted(&self) -> bool {
        self.canary.is_uncounted || self.stable.is_uncounted
    }

    pub fn both_work(&self) -> bool {
        self.canary.turnarounds > 0 && self.stable.turnarounds > 0
    }

    /// In turnarounds.
    pub fn by_work(&self) -> Exposures {
        Exposures { canary: self.canary.turnarounds as f64, stable: self.stable.turnarounds as f64 }
    }

    /// In seconds.
    pub fn by_time(&self) -> Exposures {
        Exposures { canary: self.canary.seconds, stable: self.stable.seconds }
    }
}

/// What both sides were exposed to, in one unit: events are to be expected in proportion.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Exposures {
    pub canary: f64,
    pub stable: f64,
}

impl Exposures {
    /// What turnarounds say of how work is shared out, less what chance may have given the canary of it: each side's are
    /// taken one standard error to where the canary has less. Else those of a few turnarounds would be the largest of
    /// several ratios by chance alone. Source: Wilson's interval, "Probable inference", 1927, for Poisson counts.
    fn less_chance(self) -> Exposures {
        let error = |turnarounds: f64| (turnarounds + 0.25).sqrt();
        let canary = (self.canary + 0.5 - error(self.canary)).max(0.0);
        Exposures { canary, stable: self.stable + 0.5 + error(self.stable) }
    }

    /// Whether both were. Where only one side was, all events are its own whatever their rate: they tell nothing.
    pub fn are_of_both(&self) -> bool {
        self.canary > 0.0 && self.stable > 0.0
    }

    /// The canary's share of the events where its rate is so many times stable's, and stable's.
    pub fn shares(&self, ratio: f64) -> (f64, f64) {
        let canary = ratio * self.canary;
        let all = canary + self.stable;
        (canary / all, self.stable / all)
    }
}

/// What work both sides have had until now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// Windows in a row in which the canary had no turnaround; `None` before it had any.
    canary_idle: Option<u32>,
    /// Turnarounds, those of a window for less the longer it is ago: they are of about [`MERGED_WINDOWS`].
    lately: Exposures,
    /// Turnarounds that stable would have had by now since its last one, had it gone on while the canary did: after some
    /// it is asked nothing any more.
    missed: f64,
}

impl Work {
    /// Takes a clean window in, with or without a canary.
    pub fn observe(&mut self, window: &Window) {
        let counted = (traffic::turnarounds(&window.canary), traffic::turnarounds(&window.stable));
        if window.canary.iter().any(|r| r.turnarounds > 0) {
            self.canary_idle = Some(0);
        } else if counted.0.is_some() {
            // What is not counted is not known to be none.
            self.canary_idle = self.canary_idle.map(|idle| idle.saturating_add(1));
        }
        if let (Some(canary), Some(stable)) = counted {
            if stable > 0 {
                self.missed = 0.0;
            } else if canary > 0 {
                self.missed += self.lately.stable / f64::from(MERGED_WINDOWS);
            }
            follow(&mut self.lately.canary, canary);
            follow(&mut self.lately.stable, stable);
        }
    }

    /// Whether the canary ever had a turnaround.
    pub fn canary_worked(&self) -> bool {
        self.canary_idle.is_some()
    }

    /// Whether it has had none for as long as anybody waits for one.
    pub fn canary_answers_nothing(&self) -> bool {
        self.canary_idle.is_none_or(|idle| idle >= MERGED_WINDOWS)
    }

    /// Of time, of the window's work and of that of lately, the one by which most is to be expected of the canary.
    ///
    /// Whether processes end by the clock, as those of probes and timers do, or by what is asked is not known. By whichever it is, a
    /// canary that is no worse has no larger share. What a window has to do with work in which there is none, or in which it is not
    /// counted, as in the last one of a cgroup that is gone, is told by lately. Where stable is asked nothing any more, all that comes
    /// of work is the canary's: exposures of one side alone, by which nothing is judged.
    pub fn most_expected(&self, window: &Block) -> Exposures {
        if self.missed >= MISSED {
            return Exposures { canary: 1.0, stable: 0.0 };
        }
        let of_window = if window.is_uncounted() { Exposures::default() } else { window.by_work().less_chance() };
        let known = [window.by_time(), of_window, self.lately].into_iter().filter(Exposures::are_of_both);
        known.max_by(|a, b| (a.canary / a.stable).total_cmp(&(b.canary / b.stable))).unwrap_or(window.by_time())
    }
}

fn follow(lately: &mut f64, turnarounds: u64) {
    *lately += turnarounds as f64 - *lately / f64::from(MERGED_WINDOWS);
}
