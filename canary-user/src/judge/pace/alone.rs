//! A single stable instance leaves no placebo: what it does by itself, before and beside the canary, stands in until the
//! pair is known.
//!
//! Its level wanders with all that instances share, which cancels in a pair, so this noise is too large rather than too
//! small. Two instances differ by twice the variance of one.

use super::{
    Frame, Phase,
    differences::{Differences, SERIES},
    learns_from_pair,
    noise::{Derived, Noise},
    track::Track,
};
use crate::judge::parameters::Parameters;

/// Noise of one indicator of a single stable instance.
#[derive(Clone, Debug)]
pub struct Alone {
    pub noise: Noise,
}

impl Alone {
    pub fn new(p: &Parameters) -> Self {
        Self { noise: Noise::new(p) }
    }

    /// Learns from stable's level. Answers whether location and scale became known just now.
    pub fn learn(&mut self, d: &Differences, has_canary: bool, p: &Parameters) -> bool {
        let was_ready = self.noise.is_ready();
        let level = d.levels.iter().copied().find(|x| !x.is_nan()).unwrap_or(f64::NAN);
        let mut row = [f64::NAN; SERIES];
        row[0] = std::f64::consts::SQRT_2 * level;
        self.noise.learn(&row, 1, p);
        self.noise.follow_canary(if has_canary { d.canary } else { f64::NAN });
        self.noise.is_ready() && !was_ready
    }

    /// Whether bets on `track` rest on this in the window of `frame`.
    pub fn stands_in(&self, track: &Track, frame: &Frame, p: &Parameters) -> bool {
        frame.phase == Phase::Judged
            && learns_from_pair(track, frame, p)
            && self.noise.is_ready()
            && self.noise.pairs() >= p.minimum_baseline
    }

    /// The pair is expected to be equal.
    pub fn derived(&self) -> Derived {
        Derived { offset: 0.0, ..self.noise.derived }
    }

    /// Standard deviation that the margin has to leave room for: nothing is known of how far equal instances differ.
    pub fn offset_spread(&self, p: &Parameters) -> f64 {
        (2.0 * p.tau0_pair * p.tau0_pair + self.noise.derived.wander).sqrt()
    }
}
