//! One stable instance: no placebo tells what is usual. Then the pair itself, during its first judged windows, is taken as the
//! canary's own past: offset and noise are learned from it, and bets begin after it.

use std::borrow::Cow;

use super::{
    Frame, Phase,
    differences::{Differences, OWN, SERIES},
    noise::Noise,
    track::Track,
};
use crate::judge::parameters::Parameters;

/// Whether it is learned from in the window of `frame`.
#[inline]
pub fn learns_from_pair(noise: &Noise, frame: &Frame, p: &Parameters) -> bool {
    frame.phase == Phase::Judged
        && frame.stable_instances < 2
        && noise.placebo_pairs() < p.minimum_baseline
        // P(t) is there once the initial windows gave location and scale, and needs its own minimum.
        && noise.own_windows() <= p.minimum_baseline + p.initial_windows as u64
}

/// The row that is learned from.
#[inline]
pub fn with_own_past<'a>(d: &'a Differences, noise: &Noise, frame: &Frame, p: &Parameters) -> Cow<'a, [f64; SERIES]> {
    let mut row = Cow::Borrowed(&d.series);
    if learns_from_pair(noise, frame, p) {
        row.to_mut()[OWN] = d.canary;
    }
    row
}

/// Bets once there is enough baseline.
#[inline]
pub fn bet(track: &mut Track, canary: f64, frame: &Frame, p: &Parameters) {
    if may_bet(&mut track.noise, canary, frame, p) {
        track.bet(canary, frame.index, p);
    }
}

/// Whether there is enough baseline to bet. Where there is no placebo, noise goes on learning from the canary's difference.
#[inline]
pub fn may_bet(noise: &mut Noise, canary: f64, frame: &Frame, p: &Parameters) -> bool {
    if learns_from_pair(noise, frame, p) {
        return false;
    }
    let has_baseline = noise.has_baseline(p);
    if frame.stable_instances < 2 {
        noise.learn_mirrored(canary);
    }
    has_baseline
}
