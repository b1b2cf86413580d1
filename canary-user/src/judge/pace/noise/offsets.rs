//! How far equal instances are apart, and what becomes of that where they come and go.
//!
//! An offset is a placebo's difference to the mean of the others, so it is one of a set of instances, its members. The canary is
//! compared with these alone, and who is new is one of them once its offset is known. Where the set changes, the offsets of
//! those that stay are moved to what they are in the new one: on average they say what they said before, and the canary is
//! expected where it was.

use super::{Estimates, Kind, Noise, OWN, PLACEBOS, Series, Sides};
use crate::judge::{earlier::Known, parameters::Parameters};

/// What an offset still weighs after the set of instances changed.
const OFFSET_AFTER_CHANGE: u16 = 300;
/// Windows after which the offset of an instance that is new is known well enough to move those of the others by it.
const KNOWN_AFTER: u16 = 30;

impl Noise {
    /// Those that others are compared with, a bit for each.
    #[inline]
    pub fn members(&self) -> u8 {
        self.members
    }

    /// Of those that take part, the ones that the canary is compared with.
    pub(super) fn beside_known(&self, sides: Sides) -> Sides {
        let known = self.members.count_ones() as usize;
        if known > 0 { Sides { stable: sides.stable.min(known), ..sides } } else { sides }
    }

    /// Where the canary is expected: at its own past if that is known, else where stable instances are on average.
    pub(super) fn canary_offset(&self, sides: Sides) -> f64 {
        if self.kind == Kind::Mean {
            return 0.0;
        }
        if self.has_own_past(sides) { self.offsets[OWN] } else { self.placebo_offset() }
    }

    /// Mean offset of the stable instances: next to nothing, but for noise that is not the same either way.
    fn placebo_offset(&self) -> f64 {
        let (sum, n) = self.placebo_offsets().fold((0.0, 0.0), |(sum, n), (offset, _)| (sum + offset, n + 1.0));
        if n > 0.0 { sum / n } else { 0.0 }
    }

    /// The offsets of the placebos that are known, and the windows behind each.
    fn placebo_offsets(&self) -> impl Iterator<Item = (f64, f64)> {
        let members = self.members;
        let placebos = self.offsets[..PLACEBOS].iter().zip(&self.series).enumerate();
        placebos
            .filter(move |(j, _)| is_member(members, *j))
            .map(|(_, (offset, series))| (*offset, f64::from(series.offset_n)))
    }

    /// What the margin has to leave for: offsets between instances and wander, as a standard deviation of ln.
    /// `tau0` is the spread between equal instances before it is seen, here or `earlier`.
    pub fn offset_spread(
        &self,
        estimates: &Estimates,
        sides: Sides,
        tau0: f64,
        earlier: &Known,
        p: &Parameters,
    ) -> f64 {
        let tau0_squared = tau0 * tau0;
        let wander = estimates.wander.max(earlier.wander);
        if self.has_own_past(sides) {
            let n = f64::from(self.series[OWN].offset_n);
            return (estimates.variance / n + 0.25 * tau0_squared + wander).sqrt();
        }
        let (k, m) = (sides.canary.max(1) as f64, self.beside_known(sides).stable.max(1) as f64);
        let (spread, others) = self.offset_squares(0.0);
        // What those showed that left was not unseen by that.
        let (spread, others) = (spread + f64::from(self.left_squares), others + f64::from(self.left));
        let tau_squared = (p.tau0_weight * tau0_squared + earlier.offset_squares + spread)
            / (p.tau0_weight + earlier.freedom + others);
        (tau_squared * (1.0 / k + 1.0 / m) + wander).sqrt()
    }

    /// Squared offsets of the members from their mean, and how many they are beyond the first. `noise` is the variance per window
    /// that is taken out of them.
    fn offset_squares(&self, noise: f64) -> (f64, f64) {
        let m = f64::from(self.members.count_ones()).max(1.0);
        let mean = self.placebo_offset();
        let (mut squares, mut known) = (0.0, 0.0);
        for (offset, n) in self.placebo_offsets() {
            let b = (offset - mean) * (m - 1.0) / m;
            squares += b * b - noise / n;
            known += 1.0f64;
        }
        (squares.max(0.0), (known - 1.0).max(0.0))
    }

    /// What later rollouts should know; `None` while it is little.
    pub fn known(&self, sides: Sides, p: &Parameters) -> Option<Known> {
        if !self.is_ready() || self.placebo_pairs() < 3 * p.minimum_baseline {
            return None;
        }
        // A copy, as estimates set how far deviations count from here on.
        let Estimates { variance, excursions, wander, .. } = self.clone().estimate(None, sides, p);
        let (offset_squares, freedom) = self.offset_squares(variance);
        (freedom > 0.0).then_some(Known { offset_squares, freedom, wander, noise: excursions })
    }

    /// First idea of the offset of an instance that is warming up.
    pub fn prime(&mut self, series: usize, d: f64) {
        if !d.is_nan() {
            let residual = d - self.offsets[series];
            self.series[series].learn_offset(&mut self.offsets[series], residual);
        }
    }

    /// The instance of this series is gone: what was learned about noise stays, its offset does not.
    pub fn free(&mut self, series: usize, p: &Parameters) {
        if is_member(self.members, series) {
            self.leave(series, p);
        }
        self.series[series] = Series::EMPTY;
        self.offsets[series] = 0.0;
        if series == OWN {
            self.own_windows = 0;
        }
        if let Some(initial) = &mut self.initial {
            // Kept rows of a series that is gone must not become the offset of its successor.
            initial.rows.iter_mut().for_each(|row| row[series] = f32::NAN);
            // Nor does a row say anything of the scale in which nobody else is left.
            initial.rows.retain(|row| row.iter().any(|d| !d.is_nan()));
        }
    }

    /// The set of stable instances changed, and with it what each is compared with: offsets are learned anew
    /// from near where they were, and blocks across the change are dropped.
    pub fn soften(&mut self) {
        for series in &mut self.series {
            series.cut();
            series.offset_n = series.offset_n.min(OFFSET_AFTER_CHANGE);
        }
    }

    /// Takes those that are new among the members once the offset of each is known; `present`: who has a reading now. Until then
    /// nobody is compared with them, and the spread does not have them in. Answers whether there was any.
    #[inline]
    pub fn admit(&mut self, present: u8) -> bool {
        present & !self.members != 0 && self.is_ready() && self.admit_known(present)
    }

    fn admit_known(&mut self, present: u8) -> bool {
        let before = self.members.count_ones();
        // Who warms up is compared with the members, and takes no part yet.
        let takes_part = |j: &usize| {
            !is_member(self.members, *j) && (is_member(present, *j) || !self.series[*j].previous().is_nan())
        };
        let (mut new, mut all) = (0u8, 0u8);
        for j in (0..PLACEBOS).filter(takes_part) {
            all |= 1 << j;
            new |= u8::from(self.series[j].offset_n >= KNOWN_AFTER) << j;
        }
        // The first are compared with each other: they are known together or not at all.
        if new == 0 || (before == 0 && (new != all || new.count_ones() < 2)) {
            return false;
        }
        let (joined, mean) = (new.count_ones(), self.placebo_offset());
        let (from, to) = (f64::from(before), f64::from(before + joined));
        let excess: f64 = (0..PLACEBOS).filter(|j| is_member(new, *j)).map(|j| self.offsets[j] - mean).sum();
        // By how much the mean of all is above that of the members, from which the new ones' offsets are. Those of the first may be
        // from others that settled beside them and are not there yet: on average they are where they are, and nowhere else.
        let shift = excess / to;
        if before > 0 {
            self.recentre(mean, from, to, shift);
        }
        for j in (0..PLACEBOS).filter(|j| is_member(new, *j)) {
            let deviation = self.offsets[j] - mean - shift;
            self.offsets[j] = mean + if before > 0 { deviation * to / (to - 1.0) } else { deviation };
        }
        self.members |= new;
        // They take the places of those that left. The first of all says nothing of how far instances are apart.
        let taken = joined - u32::from(before == 0);
        let left = self.left.saturating_sub(taken as u8);
        if self.left > 0 {
            self.left_squares *= f32::from(left) / f32::from(self.left);
            self.left = left;
        }
        true
    }

    /// Takes one out whose offset is known. What it had added to the sum of squares is kept, as far as it was not noise.
    fn leave(&mut self, series: usize, p: &Parameters) {
        let known = self.members.count_ones();
        let (mean, m) = (self.placebo_offset(), f64::from(known));
        let excess = self.offsets[series] - mean;
        self.members &= !(1 << series);
        if known < 2 {
            return;
        }
        let noise = self.scales.long_run(p).variance / f64::from(self.series[series].offset_n);
        self.left += 1;
        self.left_squares += (excess * excess * (m - 1.0) / m - noise).max(0.0) as f32;
        self.recentre(mean, m, m - 1.0, -excess / m);
    }

    /// Moves the members' offsets to where they are among `to` instances instead of `from`, the mean of which is `shift` higher.
    /// `mean` is that of the offsets, which stays.
    fn recentre(&mut self, mean: f64, from: f64, to: f64, shift: f64) {
        let members = self.members;
        for (_, offset) in self.offsets[..PLACEBOS].iter_mut().enumerate().filter(|(j, _)| is_member(members, *j)) {
            let deviation = (*offset - mean) * (from - 1.0) / from - shift;
            // The only one is compared with nobody.
            *offset = if to < 2.0 { mean } else { mean + deviation * to / (to - 1.0) };
        }
    }
}

fn is_member(members: u8, series: usize) -> bool {
    series < PLACEBOS && members & (1 << series) != 0
}

#[cfg(test)]
mod tests {
    use super::{super::SERIES, *};

    /// Where four instances are, as ln.
    const LEVELS: [f64; 4] = [0.03, -0.01, -0.02, 0.04];

    /// Each against the mean of the others; NaN is not there.
    fn row(levels: [f64; 4]) -> [f64; SERIES] {
        let there = || levels.iter().filter(|x| !x.is_nan());
        let (sum, others) = (there().sum::<f64>(), there().count() as f64 - 1.0);
        let mut row = [f64::NAN; SERIES];
        row.iter_mut().zip(levels).for_each(|(d, x)| *d = x - (sum - x) / others);
        row
    }

    fn sides(stable: usize) -> Sides {
        Sides { canary: 1, stable, placebo_variance: Sides::of_placebo(4), own_needed: 300 }
    }

    /// The four, after they were there for long.
    fn known(p: &Parameters) -> Noise {
        let mut noise = Noise::new(Kind::Level, p);
        (0..400).for_each(|_| {
            noise.learn(&row(LEVELS), 4, p);
        });
        noise
    }

    fn assert_offsets(noise: &Noise, levels: [f64; 4], tolerance: f64) {
        for (offset, expected) in noise.offsets().iter().zip(row(levels)).filter(|(_, expected)| !expected.is_nan()) {
            assert!((offset - expected).abs() < tolerance, "{:?} of {levels:?}", noise.offsets());
        }
        assert!(noise.canary_offset(sides(4)).abs() < tolerance, "{}", noise.canary_offset(sides(4)));
    }

    #[test]
    fn offsets_follow_the_set_of_instances_and_the_canary_is_expected_where_it_was() {
        let p = Parameters::default();
        let mut noise = known(&p);
        assert_offsets(&noise, LEVELS, 1e-6);
        let mut left = LEVELS;
        for gone in [0, 3, 1] {
            noise.free(gone, &p);
            left[gone] = f64::NAN;
            if gone == 1 {
                // Of a pair's differences only the sum is left, which is nothing.
                assert!(noise.offsets().iter().all(|offset| offset.abs() < 1e-6), "{:?}", noise.offsets());
            } else {
                assert_offsets(&noise, left, 1e-6);
            }
        }
    }

    #[test]
    fn an_instance_that_comes_back_has_its_place_among_the_others() {
        let p = Parameters::default();
        let mut noise = known(&p);
        noise.free(0, &p);
        let without = [f64::NAN, LEVELS[1], LEVELS[2], LEVELS[3]];
        (0..30).for_each(|_| noise.prime(0, row(LEVELS)[0]));
        // It warms up, and nobody is compared with it yet.
        assert!(!noise.admit(0b1110));
        for (offset, expected) in noise.offsets().iter().zip(row(without)).skip(1).filter(|(_, d)| !d.is_nan()) {
            assert!((offset - expected).abs() < 1e-6, "{:?}", noise.offsets());
        }
        assert!(noise.canary_offset(sides(3)).abs() < 1e-6, "{}", noise.canary_offset(sides(3)));
        assert!(noise.admit(0b1111));
        noise.learn(&row(LEVELS), 4, &p);
        assert_offsets(&noise, LEVELS, 1e-4);
        assert_eq!((noise.left, noise.left_squares), (0, 0.0));
    }

    /// The first two of four are known. `primed`: for how many windows the others were seen beside these.
    fn two_of_four(primed: [usize; 2], p: &Parameters) -> Noise {
        let mut noise = known(p);
        noise.free(2, p);
        noise.free(3, p);
        let mean = 0.5 * (LEVELS[0] + LEVELS[1]);
        for (place, windows) in [2, 3].into_iter().zip(primed) {
            (0..windows).for_each(|_| noise.prime(place, LEVELS[place] - mean));
        }
        noise
    }

    #[test]
    fn several_join_at_once_and_who_is_not_known_yet_keeps_nobody_out() {
        let p = Parameters::default();
        let mut both = two_of_four([30, 30], &p);
        assert!(both.admit(0b1111));
        assert_eq!(both.members(), 0b1111);
        assert_offsets(&both, LEVELS, 1e-6);

        let mut one = two_of_four([30, 29], &p);
        assert!(one.admit(0b1111));
        assert_eq!((one.members(), one.beside_known(sides(4)).stable), (0b0111, 3));
        let three = row([LEVELS[0], LEVELS[1], LEVELS[2], f64::NAN]);
        assert!(one.offsets().iter().zip(three).take(3).all(|(offset, x)| (offset - x).abs() < 1e-6), "{one:?}");
        assert!(!one.admit(0b1111), "29 windows of it are too few");
    }

    #[test]
    fn the_first_are_known_together_and_where_they_are_on_average_is_where_the_canary_is_expected() {
        let p = Parameters::default();
        let mut noise = known(&p);
        (0..4).for_each(|place| noise.free(place, &p));
        // All restarted one after the other: each settles beside all of them, and two of them are through before the others.
        (0..4).for_each(|place| (0..30).for_each(|_| noise.prime(place, row(LEVELS)[place])));
        assert!(!noise.admit(0b0001), "one alone is compared with nobody");
        assert!(noise.admit(0b0011));
        assert!(noise.canary_offset(sides(2)).abs() < 1e-12, "{}", noise.canary_offset(sides(2)));
        assert!(noise.admit(0b1111));
        assert!(noise.canary_offset(sides(4)).abs() < 1e-12, "{}", noise.canary_offset(sides(4)));
    }

    #[test]
    fn how_far_instances_are_apart_is_not_forgotten_with_those_that_leave() {
        let p = Parameters::default();
        let mut noise = known(&p);
        let spread = |noise: &Noise| {
            let (squares, freedom) = noise.offset_squares(0.0);
            (squares + f64::from(noise.left_squares), freedom + f64::from(noise.left))
        };
        let (squares, freedom) = spread(&noise);
        assert_eq!(freedom, 3.0);
        let mean = LEVELS.iter().sum::<f64>() / 4.0;
        let expected: f64 = LEVELS.iter().map(|x| (x - mean) * (x - mean)).sum();
        assert!((squares - expected).abs() < 1e-6, "{squares} {expected}");
        for gone in [2, 0, 3, 1] {
            noise.free(gone, &p);
            let (after, freedom) = spread(&noise);
            assert_eq!(freedom, 3.0, "after {gone}");
            assert!((after - squares).abs() < 1e-6, "after {gone}: {after} {squares}");
        }
    }

    #[test]
    fn a_canary_beside_fewer_instances_than_the_noise_was_learned_of_is_noisier() {
        let alone = Sides { placebo_variance: Sides::of_placebo(8), ..sides(1) };
        assert!((alone.variance_share() - 1.75).abs() < 1e-12, "{}", alone.variance_share());
        let never = Sides { placebo_variance: 0.0, ..sides(1) };
        assert_eq!(never.variance_share(), 1.0, "a pair is learned from as it is");
    }
}
