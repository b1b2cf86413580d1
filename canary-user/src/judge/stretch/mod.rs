//! Anomalous stretches: when one version left its own usual band in one indicator, also where no canary is running.
//!
//! Goes in: the level of one indicator of one role per window, as a logarithm. Comes out: [`Found`] stretches. They explain
//! and decide nothing: neither evidence nor outcome rests on them. Constant memory, no clock, no I/O. `docs/judge.md` has
//! the formulas and what is guaranteed.

mod detector;
mod list;
mod open;
mod usual;

pub use list::Stretches;
pub use usual::Norm;

use std::collections::VecDeque;

use self::{detector::Detector, open::Open, usual::Usual};
use super::{
    parameters::{BETS, Parameters},
    verdict::StretchShape,
};

/// Bets whose mean is compared with the run length: level above, level below, and how much it swings.
const STAKES: f64 = 3.0 * BETS as f64;

/// A window, by its number and by the end of it on the monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    pub index: u64,
    pub t_ns: u64,
}

/// A stretch that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// First window outside the band, as far as it can be told.
    pub start: Moment,
    /// Window in which it was found.
    pub found: Moment,
    /// Last window outside; `None` while it goes on.
    pub end: Option<Moment>,
    /// It did not end: where it is now is what is usual from here on.
    pub became_usual: bool,
    /// Median deviation from the usual as ln; of an oscillation, the deviation either way that one window in ten exceeds.
    pub size: f64,
    pub shape: StretchShape,
}

/// A window that is not learned from yet: what becomes a stretch must not have become usual before it is found.
#[derive(Clone, Copy, Debug)]
struct Held {
    at: Moment,
    level: f64,
    swing: f64,
}

/// One indicator of one role.
#[derive(Clone, Debug)]
pub struct Watch {
    /// Of the logarithm of the readings.
    level: Usual,
    /// Of sqrt(1 + u), where u is the distance to the usual level in standard deviations.
    swing: Usual,
    above: Detector,
    below: Detector,
    swings: Detector,
    held: VecDeque<Held>,
    open: Option<Open>,
}

impl Watch {
    pub fn new(p: &Parameters) -> Self {
        let none = Detector::default();
        Self {
            level: Usual::new(p),
            swing: Usual::new(p),
            above: none,
            below: none,
            swings: none,
            held: VecDeque::new(),
            open: None,
        }
    }

    /// Takes the level of one window, NaN where it is missing. `delta`: what counts as a change, as ln. Answers a stretch
    /// that ended.
    pub fn observe(&mut self, level: f64, at: Moment, delta: f64, p: &Parameters) -> Option<Found> {
        if !level.is_finite() {
            // Nobody is there any more. A few windows are usual: readings are given once enough work has come together.
            let gone = self.held.back().is_some_and(|last| at.index - last.at.index > 2 * p.silent_windows);
            return if gone { self.close(p) } else { None };
        }
        let held = Held { at, level, swing: self.swing_of(level) };
        self.held.push_back(held);
        if self.open.is_some() {
            // Nothing is learned from a stretch: its windows are forgotten.
            if self.held.len() > p.stretch_lag_windows {
                self.held.pop_front();
            }
            return self.go_on(&held, p);
        }
        self.bet(&held, p);
        if (self.above.sum() + self.below.sum() + self.swings.sum()) / STAKES >= p.stretch_run_length {
            self.begin(at);
        } else if self.held.len() > p.stretch_lag_windows || !self.level.has_baseline(p) {
            self.learn(delta, p);
        }
        None
    }

    /// Follows the stretch under way. Answers it where it ended.
    fn go_on(&mut self, held: &Held, p: &Parameters) -> Option<Found> {
        let open = self.open.as_mut()?;
        if open.is_out(held, &self.level, &self.swing, p) {
            // Those before it that seemed to be back were not.
            let latest = open.latest().index;
            self.held.iter().filter(|h| h.at.index > latest).for_each(|h| open.take(h, &self.level, &self.swing));
        }
        if let Some(end) = open.end(p) {
            let ended = open.found(Some(end), false, p);
            self.held.retain(|h| h.at.index > end.index);
            self.open = None;
            return Some(ended);
        }
        if held.at.index - open.start().index >= p.stretch_longest_windows {
            let ended = open.found(Some(held.at), true, p);
            self.adopt(p);
            return Some(ended);
        }
        None
    }

    /// Ends the stretch under way at its latest window, for want of more. Answers it.
    pub fn close(&mut self, p: &Parameters) -> Option<Found> {
        let open = self.open.take()?;
        self.held.clear();
        Some(open.found(Some(open.latest()), false, p))
    }

    /// The stretch that goes on.
    pub fn open(&self, p: &Parameters) -> Option<Found> {
        self.open.as_ref().map(|open| open.found(None, false, p))
    }

    /// What is usual of its level; not what a stretch under way makes of it.
    pub fn norm(&self, p: &Parameters) -> Option<Norm> {
        self.level.norm(p)
    }

    /// Memory in use, that on the heap with it. The first windows of both series come and go besides.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.held.capacity() * size_of::<Held>() + self.open.as_ref().map_or(0, Open::bytes)
    }

    /// Other instances make the level from here on: it is learned anew from near where it was. Noise stays.
    pub fn soften(&mut self, p: &Parameters) {
        self.level.soften(p);
        self.swing.soften(p);
        self.reset_stakes();
    }

    fn swing_of(&self, level: f64) -> f64 {
        if !self.level.is_ready() {
            return f64::NAN;
        }
        (1.0 + (level - self.level.level).abs() / self.level.sigma).sqrt()
    }

    fn learn(&mut self, delta: f64, p: &Parameters) {
        let Some(old) = self.held.pop_front() else { return };
        self.level.learn(old.level, delta, p);
        if !old.swing.is_nan() {
            self.swing.learn(old.swing, p.spread_delta, p);
        }
    }

    fn bet(&mut self, held: &Held, p: &Parameters) {
        if !self.level.has_baseline(p) {
            return;
        }
        let deviation = held.level - self.level.level;
        self.above.bet(deviation, &self.level.terms, held.at, p);
        self.below.bet(-deviation, &self.level.terms, held.at, p);
        if self.swing.has_baseline(p) {
            self.swings.bet(held.swing - self.swing.level, &self.swing.terms, held.at, p);
        }
    }

    /// Begins a stretch where the leading bet was last at its start.
    fn begin(&mut self, at: Moment) {
        let lead = [&self.above, &self.below, &self.swings]
            .into_iter()
            .map(Detector::leading)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map_or(at, |(_, since)| since);
        let mut open = Open::new(lead, at);
        self.held.iter().filter(|h| h.at.index >= lead.index).for_each(|h| open.take(h, &self.level, &self.swing));
        self.open = Some(open);
        self.reset_stakes();
    }

    /// Makes the latest windows what is usual.
    fn adopt(&mut self, p: &Parameters) {
        let mut levels: Vec<f64> = self.held.iter().map(|h| h.level).collect();
        self.level.adopt(usual::median(&mut levels), p);
        let mut swings: Vec<f64> = levels.iter().map(|x| self.swing_of(*x)).collect();
        self.swing.adopt(usual::median(&mut swings), p);
        self.held.clear();
        self.open = None;
        self.reset_stakes();
    }

    fn reset_stakes(&mut self) {
        self.above = Detector::default();
        self.below = Detector::default();
        self.swings = Detector::default();
    }
}
