//! A single stable instance leaves no placebo: what it does by itself, before and beside the canary, stands in until the
//! pair is known.
//!
//! Its level wanders with all that instances share, which cancels in a pair, so this noise is too large rather than too
//! small. Two instances differ by twice the variance of one.

use super::{
    Frame, Phase,
    differences::{Differences, SERIES},
    learns_from_pair,
    noise::{CanarySteps, Kind, Noise, Sides},
    track::{Derived, Track},
};
use crate::judge::{earlier::Known, parameters::Parameters};

/// The series that its level is learned as.
const LEVEL: usize = 0;

/// Noise of one indicator of a single stable instance.
#[derive(Clone, Debug)]
pub struct Alone {
    noise: Noise,
    canary_steps: CanarySteps,
    pub derived: Derived,
    /// Variance of long block means.
    wander: f64,
    /// Long-run variance per window.
    pub usual_variance: f64,
    /// Whether its level is that of an instance that was not seen yet.
    is_another: bool,
}

impl Alone {
    pub fn new(p: &Parameters) -> Self {
        Self {
            noise: Noise::new(Kind::Level, p),
            canary_steps: CanarySteps::NONE,
            derived: Derived::UNKNOWN,
            wander: 0.0,
            usual_variance: 1.0,
            is_another: false,
        }
    }

    /// Learns from stable's level. Answers whether location and scale became known just now.
    pub fn learn(&mut self, d: &Differences, has_canary: bool, p: &Parameters) -> bool {
        let level = d.levels.iter().copied().find(|x| !x.is_nan()).unwrap_or(f64::NAN);
        let mut row = [f64::NAN; SERIES];
        row[LEVEL] = std::f64::consts::SQRT_2 * level;
        if self.is_another && !level.is_nan() {
            // Where another instance is may be as far off as it likes.
            self.noise.prime(LEVEL, row[LEVEL]);
            self.is_another = false;
        }
        let became_ready = self.noise.learn(&row, 1, p);
        self.canary_steps.follow(if has_canary { d.canary } else { f64::NAN }, &self.noise, p);
        became_ready
    }

    /// Stable is another instance: its noise is taken to be alike, and its level is not.
    pub fn another(&mut self, p: &Parameters) {
        self.noise.free(LEVEL, p);
        self.is_another = self.noise.is_ready();
    }

    /// Refreshes what follows from the noise once that is known. The pair is expected to be equal.
    pub fn refresh(&mut self, has_canary: bool, sides: Sides, p: &Parameters) {
        if self.noise.is_ready() {
            // No placebo is in it.
            let sides = Sides { placebo_variance: 0.0, ..sides };
            let estimates = self.noise.estimate(has_canary.then_some(&self.canary_steps), sides, p);
            self.derived = Derived { offset: 0.0, ..Derived::of(&self.noise, &estimates, p) };
            (self.wander, self.usual_variance) = (estimates.wander, estimates.usual_variance);
        }
    }

    /// Whether bets on `track` rest on this in the window of `frame`.
    pub fn stands_in(&self, track: &Track, frame: &Frame, p: &Parameters) -> bool {
        frame.phase == Phase::Judged
            && learns_from_pair(&track.noise, frame, p)
            && self.noise.is_ready()
            && self.noise.pairs() >= p.minimum_baseline
    }

    /// Standard deviation that the margin has to leave room for: how far equal instances differ is known from `earlier` rollouts
    /// at most.
    pub fn offset_spread(&self, earlier: &Known, p: &Parameters) -> f64 {
        (pair_squares(earlier, p) + self.wander.max(earlier.wander)).sqrt()
    }
}

/// Variance of the difference between two equal instances.
pub fn pair_squares(earlier: &Known, p: &Parameters) -> f64 {
    // (w tau0^2 + Q)/(w + F), as what `earlier` moves it by.
    let tau0_squared = p.tau0_pair * p.tau0_pair;
    let moved = (earlier.offset_squares - earlier.freedom * tau0_squared) / (p.tau0_weight + earlier.freedom);
    2.0 * (tau0_squared + moved)
}
