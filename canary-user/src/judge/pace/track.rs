//! One signal of the comparison: an indicator, or P(t) itself.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use super::{
    bets::{Restarts, Stakes, at_most, powers},
    differences::SERIES,
    noise::{CanarySteps, Estimates, Kind, Noise, Sides, Terms},
    shares::{P_LIMIT, share},
};
use crate::judge::parameters::{BETS, Parameters, Tolerance};

/// Windows over which an effect is averaged.
pub const EFFECT_WINDOWS: usize = 10;
/// Stakes on "healthy" stop growing at this many times what is needed, so that a later change is noticed soon.
const HEALTHY_LIMIT: f64 = 100.0;

/// Standard deviations below its mean at which the evidence for an equal version is still to be enough: 99 of 100 are shown
/// to be healthy within the horizon.
const HEALTHY_SURE: f64 = 2.33;

/// Noise, margin and stakes of one signal.
#[derive(Clone, Debug)]
pub struct Track {
    pub noise: Noise,
    canary_steps: CanarySteps,
    pub derived: Derived,
    weight: f64,
    /// The smallest change of ln that counts, and the one that "healthy" has to exclude.
    pub margin: f64,
    pub margin_healthy: f64,
    worse: Worse,
    stakes_healthy: Stakes,
    /// The latest differences beyond the offset, oldest overwritten, and the place of the next.
    recent: [f64; EFFECT_WINDOWS],
    /// Share of the margin used in the latest window; NaN where missing.
    pub p: f64,
    /// Since when the excess is above half the margin: long enough to tell a leak from a step.
    trend: Trend,
    bets: u32,
    /// Judged windows since there last was a difference.
    silent: u16,
    next_recent: u8,
    /// Whether what follows from the noise of something else stands in for that of its own.
    is_stood_in_for: bool,
}

/// What follows from the noise; refreshed every few windows.
#[derive(Clone, Copy, Debug)]
pub struct Derived {
    /// Long-run variance per window of the canary's difference.
    pub long_run_variance: f64,
    /// Where the canary is expected to be.
    pub offset: f64,
    /// Largest deviation that counts.
    pub clip: f64,
    /// For bets on "worse", which leave room for bursts on the canary.
    pub worse: Terms,
    /// e^-price of each bet on "healthy", which are made by the long-run variance.
    pub healthy_discount: [f64; BETS],
}

impl Derived {
    /// Before the noise is known, when nothing is bet.
    pub const UNKNOWN: Derived = Derived {
        long_run_variance: 1.0,
        offset: 0.0,
        clip: 0.0,
        worse: Terms::UNKNOWN,
        healthy_discount: [0.0; BETS],
    };

    pub fn of(noise: &Noise, estimates: &Estimates, p: &Parameters) -> Self {
        let variance = estimates.canary_factor * estimates.variance;
        Self {
            long_run_variance: variance,
            offset: estimates.offset,
            clip: estimates.clip,
            worse: noise.terms(estimates, estimates.canary_factor * estimates.excursions, p.smallest_bet),
            healthy_discount: noise.terms(estimates, variance, p.smallest_bet_healthy).discount,
        }
    }
}

/// Bets on "worse than the margin".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worse {
    stakes: Stakes,
    /// Sum of the scores since it was last at its minimum, and the window after that: where a change most likely began. One
    /// more than its index.
    score_sum: f64,
    after_start: Option<NonZeroU64>,
}

impl Worse {
    pub const NONE: Worse = Worse { stakes: Stakes::NONE, score_sum: 0.0, after_start: None };

    pub fn put_in(&mut self, weight: f64, p: &Parameters) {
        self.stakes.put_in(weight, &p.bet_shares);
    }

    /// Bets on the excess over the margin in window `index`.
    #[inline(always)]
    pub fn bet(&mut self, above: f64, clip: f64, terms: &Terms, index: u64, p: &Parameters) {
        let score = score(above, clip, terms.precision);
        if score.is_nan() {
            // No evidence either way.
            return;
        }
        self.stakes.settle(&factors(score, p.smallest_bet, &terms.discount, p));
        if self.score_sum + score <= 0.0 {
            (self.score_sum, self.after_start) = (0.0, None);
            return;
        }
        self.score_sum += score;
        if self.after_start.is_none() {
            self.after_start = NonZeroU64::MIN.checked_add(index);
        }
    }

    /// The e-value against "not worse than the margin".
    pub fn evidence(&self, restarts: &Restarts) -> f64 {
        self.stakes.e_value(restarts)
    }

    /// Window at which the current run of evidence began.
    pub fn run_start(&self) -> Option<u64> {
        self.after_start.map(|after| after.get() - 1)
    }
}

/// The change of ln that "healthy" has to exclude: `delta_healthy`, or where the noise is so large that this could not be
/// shown even of an equal version, as much as can be within the horizon, up to a share of what the margin adds for noise.
fn margin_healthy(extra: f64, usual_variance: f64, tolerance: &Tolerance, p: &Parameters) -> f64 {
    // For a margin of x standard deviations of the mean over the horizon, the logarithm of the best bet is x^2/2 in the end,
    // give or take x. It has to bring its part of the stake to 1/beta.
    let needed = libm::log(BETS as f64 / (p.beta * p.start_weight));
    let x = HEALTHY_SURE + (HEALTHY_SURE * HEALTHY_SURE + 2.0 * needed).sqrt();
    let can_be_shown = x * (usual_variance / p.horizon_windows as f64).sqrt();
    let most = tolerance.delta_healthy + p.healthy_margin_share * extra;
    tolerance.delta_healthy.max(can_be_shown.min(most))
}

/// A deviation in long-run standard deviations.
fn score(x: f64, clip: f64, precision: f64) -> f64 {
    x.clamp(-clip, clip) * precision
}

/// What each bet is multiplied by.
fn factors(z: f64, smallest_bet: f64, discount: &[f64; BETS], p: &Parameters) -> [f64; BETS] {
    let mut factors = powers(smallest_bet, z);
    for (factor, discount) in factors.iter_mut().zip(discount) {
        // Less gain keeps it an e-process.
        *factor = at_most(*factor * discount, p.gain_limit);
    }
    factors
}

/// A straight line through the excess since its cumulated scores were last at their minimum.
#[derive(Clone, Copy, Debug, Default)]
struct Trend {
    score_sum: f64,
    excess_sum: f64,
    /// Sum of the excess times its place.
    excess_moment: f64,
    windows: u32,
}

impl Trend {
    fn add(&mut self, score: f64, excess: f64) {
        if self.score_sum + score <= 0.0 {
            *self = Self::default();
            return;
        }
        self.score_sum += score;
        self.excess_sum += excess;
        self.excess_moment += excess * f64::from(self.windows);
        self.windows = self.windows.saturating_add(1);
    }
}

/// The effect on one indicator, as differences of ln.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effect {
    pub mean: f64,
    /// Half the width of an interval of about 95 %.
    pub half_width: f64,
}

impl Track {
    /// No more are counted.
    pub const MOST_SILENT_WINDOWS: u64 = u16::MAX as u64;

    pub fn new(noise: Noise, weight: f64) -> Self {
        Self {
            noise,
            canary_steps: CanarySteps::NONE,
            derived: Derived::UNKNOWN,
            weight,
            margin: 1.0,
            margin_healthy: 1.0,
            worse: Worse::NONE,
            stakes_healthy: Stakes::NONE,
            recent: [f64::NAN; EFFECT_WINDOWS],
            p: f64::NAN,
            trend: Trend::default(),
            bets: 0,
            silent: 0,
            next_recent: 0,
            is_stood_in_for: false,
        }
    }

    /// P(t) as a signal, of known rough scale.
    pub fn of_mean(p: &Parameters, sigma: f64) -> Self {
        Self { margin: p.p_margin, ..Self::new(Noise::of_mean(p, sigma), 1.0) }
    }

    /// An indicator.
    pub fn of_level(p: &Parameters, weight: f64) -> Self {
        Self::new(Noise::new(Kind::Level, p), weight)
    }

    /// Weight in the evidence and in P(t).
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// Windows that were bet on.
    pub fn bets(&self) -> u64 {
        self.bets.into()
    }

    /// Learns from the placebos and follows the canary where there is one. Answers whether location and scale
    /// became known just now.
    pub fn learn(&mut self, row: &[f64; SERIES], canary: f64, placebos: usize, p: &Parameters) -> bool {
        let became_ready = self.noise.learn(row, placebos, p);
        self.canary_steps.follow(canary, &self.noise, p);
        became_ready
    }

    /// Refreshes what follows from the noise. `earlier_noise`: the variance that leaves room for bursts, as it was in earlier
    /// rollouts; what was quiet so far may still be like that.
    pub fn refresh(&mut self, has_canary: bool, sides: Sides, earlier_noise: f64, p: &Parameters) -> Estimates {
        let mut estimates = self.noise.estimate(has_canary.then_some(&self.canary_steps), sides, p);
        estimates.excursions = estimates.excursions.max(earlier_noise);
        self.derived = Derived::of(&self.noise, &estimates, p);
        estimates
    }

    /// Judges by what was learned elsewhere until the next refresh, or goes back to its own noise. The margins are to be set, too.
    pub fn stand_in(&mut self, derived: Option<&Derived>) {
        self.is_stood_in_for = derived.is_some();
        if let Some(derived) = derived {
            self.derived = *derived;
        }
    }

    pub fn is_stood_in_for(&self) -> bool {
        self.is_stood_in_for
    }

    /// Whether its margins are known, whatever from.
    pub fn has_margin(&self) -> bool {
        self.noise.is_ready() || self.is_stood_in_for
    }

    /// Sets margins that leave room for offsets and wander of this standard deviation. `usual_variance`: of the long run.
    pub fn set_margins(&mut self, spread: f64, usual_variance: f64, tolerance: &Tolerance, p: &Parameters) {
        let extra = p.margin_multiplier * spread;
        // Of nothing at all no share could be told.
        self.margin = (tolerance.delta + extra).max(f64::MIN_POSITIVE);
        self.margin_healthy = margin_healthy(extra, usual_variance, tolerance, p);
    }

    /// Keeps the canary's difference for the effect and, after the warm-up, for nothing else.
    pub fn record(&mut self, canary: f64) {
        let excess = canary - self.derived.offset;
        self.p = share(excess, 1.0 / self.margin);
        self.recent[usize::from(self.next_recent)] = excess;
        self.next_recent = (self.next_recent + 1) % EFFECT_WINDOWS as u8;
    }

    pub fn put_in(&mut self, weight: f64, p: &Parameters) {
        self.worse.put_in(weight, p);
        self.stakes_healthy.put_in(weight, &[1.0 / BETS as f64; BETS]);
    }

    /// Takes note of whether a judged window has a difference.
    pub fn follow_presence(&mut self, canary: f64) {
        self.silent = if canary.is_nan() { self.silent.saturating_add(1) } else { 0 };
    }

    /// Judged windows since there last was a difference, up to [`Track::MOST_SILENT_WINDOWS`].
    pub fn silent_windows(&self) -> u64 {
        self.silent.into()
    }

    /// Whether there ever was a pair of readings to learn from.
    pub fn has_data(&self) -> bool {
        self.noise.has_rows()
    }

    pub fn has_any_bet(&self) -> bool {
        self.bets > 0
    }

    /// Whether there is enough baseline to bet.
    pub fn has_baseline(&self, p: &Parameters) -> bool {
        self.noise.has_baseline(p)
    }

    /// Bets on the canary's difference in window `index`, against and for it. What is not a number is no evidence.
    pub fn bet(&mut self, canary: f64, index: u64, p: &Parameters) {
        let noise = &self.derived;
        let excess = canary - noise.offset;
        if !(excess - self.margin - self.margin_healthy).is_finite() {
            return;
        }
        self.worse.bet(excess - self.margin, noise.clip, &noise.worse, index, p);
        self.bets = self.bets.saturating_add(1);
        if self.noise.kind() == Kind::Level {
            let better = score(self.margin_healthy - excess, noise.clip, 1.0 / noise.long_run_variance.sqrt());
            let factors = factors(better, p.smallest_bet_healthy, &noise.healthy_discount, p);
            self.stakes_healthy.settle_up_to(&factors, HEALTHY_LIMIT / p.beta);
        }
        self.trend.add(score(excess - 0.5 * self.margin, noise.clip, noise.worse.precision), excess);
    }

    /// The e-value against "not worse than the margin".
    pub fn evidence(&self, restarts: &Restarts) -> f64 {
        self.worse.evidence(restarts)
    }

    /// The e-value against "worse than the healthy margin". Restarted like the other: one bad stretch that proved nothing
    /// does not keep a canary from being called healthy for good.
    pub fn evidence_healthy(&self, restarts: &Restarts) -> f64 {
        self.stakes_healthy.e_value(restarts)
    }

    /// Window at which the current run of evidence began.
    pub fn run_start(&self) -> Option<u64> {
        self.worse.run_start()
    }

    /// Whether the canary's excess has been rising since the run of evidence began: a leak, not a step. The slope of a
    /// straight line has to be clear of the noise and to explain a good part of the excess.
    pub fn is_growing(&self) -> bool {
        let Trend { excess_sum, excess_moment, windows, .. } = self.trend;
        if windows < 2 * EFFECT_WINDOWS as u32 {
            return false;
        }
        let n = f64::from(windows);
        let mean = excess_sum / n;
        let slope = (excess_moment - 0.5 * (n - 1.0) * excess_sum) / (n * (n * n - 1.0) / 12.0);
        let error = (12.0 * self.derived.long_run_variance / (n * n * n)).sqrt();
        slope > 2.5 * error && slope * n > 0.25 * mean
    }

    pub fn effect(&self) -> Option<Effect> {
        let (mut sum, mut n) = (0.0, 0.0);
        for x in self.recent.iter().filter(|x| !x.is_nan()) {
            sum += x;
            n += 1.0;
        }
        let half_width = 1.96 * (self.derived.long_run_variance / n).sqrt();
        (n > 0.0).then(|| Effect { mean: sum / n, half_width })
    }

    /// Mean share of the margin used over the effect's windows.
    pub fn mean_share(&self) -> Option<f64> {
        self.effect().map(|e| (e.mean / self.margin).clamp(-P_LIMIT, P_LIMIT))
    }

    /// For another horizon, for which a stake of one is put in anew. What speaks for "healthy" is not lost: its new stake is
    /// taken out of what was won, so that it goes on as one e-process.
    pub fn renew(&mut self) {
        self.worse = Worse::NONE;
        self.trend = Trend::default();
        self.stakes_healthy.take(1.0);
    }

    /// Drops evidence either way, keeps noise.
    pub fn drop_evidence(&mut self) {
        self.renew();
        self.stakes_healthy = Stakes::NONE;
    }

    /// Another canary: what was seen of the one before goes with the evidence.
    pub fn forget_canary(&mut self) {
        self.drop_evidence();
        self.bets = 0;
        self.silent = 0;
        self.recent = [f64::NAN; EFFECT_WINDOWS];
        self.p = f64::NAN;
        self.canary_steps = CanarySteps::NONE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_number_is_no_evidence() {
        let p = Parameters::default();
        let mut worse = Worse::NONE;
        worse.put_in(0.5, &p);
        let before = worse.clone();
        worse.bet(f64::NAN, 1.0, &Terms::UNKNOWN, 7, &p);
        assert_eq!(worse, before);

        let mut track = Track::of_level(&p, 1.0);
        track.put_in(0.5, &p);
        let before = (track.worse.clone(), track.stakes_healthy.clone());
        track.bet(f64::NAN, 7, &p);
        track.bet(f64::INFINITY, 7, &p);
        track.derived.offset = f64::NEG_INFINITY;
        track.bet(0.1, 7, &p);
        assert_eq!((track.worse, track.stakes_healthy, track.bets), (before.0, before.1, 0));
    }

    #[test]
    fn the_healthy_margin_is_no_wider_than_the_noise_asks_for() {
        let (p, tolerance) = (Parameters::default(), Tolerance::default());
        let margin = |deviation: f64| {
            let wander = deviation / 512f64.sqrt();
            margin_healthy(p.margin_multiplier * wander, deviation * deviation, &tolerance, &p)
        };
        // 6.277 standard deviations of the mean over the horizon have to fit in.
        assert_eq!(margin(0.5), tolerance.delta_healthy);
        assert_eq!(margin(0.95), tolerance.delta_healthy);
        assert!((margin(1.1) - 6.277 * 1.1 / 60.0).abs() < 1e-3, "{}", margin(1.1));
        let most = 0.1 + 0.5 * p.margin_multiplier * 4.0 / 512f64.sqrt();
        assert!((margin(4.0) - most).abs() < 1e-9, "{}", margin(4.0));
    }

    #[test]
    fn a_margin_of_nothing_leaves_shares_that_are_numbers() {
        let (p, tolerance) = (Parameters::default(), Tolerance { delta: 0.0, ..Tolerance::default() });
        let mut track = Track::of_level(&p, 1.0);
        track.set_margins(0.0, 0.0, &tolerance, &p);
        for (excess, share) in [(0.0, 0.0), (0.1, P_LIMIT), (-0.1, -P_LIMIT)] {
            track.record(excess);
            assert_eq!(track.p, share);
        }
    }
}
