//! One signal of the comparison: an indicator, or P(t) itself.

use super::{
    bets::{Restarts, Stakes, powers},
    differences::{Differences, SERIES},
    noise::{Derived, Noise, Sides, Terms},
};
use crate::judge::{
    earlier::Known,
    parameters::{BETS, Parameters, Tolerance},
};

/// Windows over which an effect is averaged.
pub const EFFECT_WINDOWS: usize = 10;
/// P and its parts end here, so that one signal cannot drown the others.
const P_LIMIT: f64 = 3.0;

/// Stakes on "healthy" stop growing at this many times what is needed, so that a later change is noticed soon.
const HEALTHY_LIMIT: f64 = 100.0;

/// Noise, margin and stakes of one signal.
#[derive(Clone, Debug)]
pub struct Track {
    pub noise: Noise,
    tolerance: Tolerance,
    /// Whether "healthy" rests on it too.
    tells_healthy: bool,
    /// The smallest change of ln that counts, and the one that "healthy" has to exclude.
    pub margin: f64,
    pub margin_healthy: f64,
    per_margin: f64,
    stakes: Stakes,
    stakes_healthy: Stakes,
    /// The latest differences beyond the offset, oldest overwritten.
    recent: [f64; EFFECT_WINDOWS],
    recent_n: usize,
    /// Share of the margin used in the latest window; NaN where missing.
    pub p: f64,
    /// Since when the excess is above the margin: the onset.
    run: Run,
    /// Since when it is above half the margin: long enough to tell a leak from a step.
    trend: Run,
    pub bets: u64,
}

/// Cumulative sum of scores since it was last at its minimum: where a change most likely began.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    sum: f64,
    start: Option<u64>,
    excess_sum: f64,
    /// Sum of the excess times its place in the run.
    excess_moment: f64,
    windows: u64,
}

/// The effect on one indicator, as differences of ln.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effect {
    pub mean: f64,
    /// Half the width of an interval of about 95 %.
    pub half_width: f64,
}

impl Track {
    pub fn new(noise: Noise, tolerance: Tolerance) -> Self {
        Self {
            noise,
            tolerance,
            tells_healthy: true,
            margin: 1.0,
            margin_healthy: 1.0,
            per_margin: 1.0,
            stakes: Stakes::NONE,
            stakes_healthy: Stakes::NONE,
            recent: [f64::NAN; EFFECT_WINDOWS],
            recent_n: 0,
            p: f64::NAN,
            run: Run::default(),
            trend: Run::default(),
            bets: 0,
        }
    }

    /// For a signal that nothing but a regression is read from.
    pub fn one_sided(self) -> Self {
        Self { tells_healthy: false, ..self }
    }

    /// Weight in the evidence and in P(t).
    pub fn weight(&self) -> f64 {
        self.tolerance.weight
    }

    /// Share of the margin that difference `d` uses when `offset` is expected.
    pub fn share(&self, d: f64, offset: f64) -> f64 {
        ((d - offset) * self.per_margin).clamp(-P_LIMIT, P_LIMIT)
    }

    /// Learns from the placebos and follows the canary where there is one. Answers whether location and scale
    /// became known just now.
    pub fn learn(&mut self, row: &[f64; SERIES], canary: f64, placebos: usize, p: &Parameters) -> bool {
        let was_ready = self.noise.is_ready();
        self.noise.learn(row, placebos, p);
        self.noise.follow_canary(canary);
        self.noise.is_ready() && !was_ready
    }

    /// Margins for these sides, with the spread between equal instances that is assumed before it is seen, here or earlier.
    pub fn set_margins(&mut self, sides: Sides, tau0: f64, earlier: &Known, p: &Parameters) {
        let spread = self.noise.offset_spread(sides, tau0, earlier, p);
        self.set_margins_to(spread, p);
    }

    /// Margins that leave room for offsets and wander of this standard deviation.
    pub fn set_margins_to(&mut self, spread: f64, p: &Parameters) {
        let extra = p.margin_multiplier * spread;
        self.margin = self.tolerance.delta + extra;
        self.per_margin = 1.0 / self.margin;
        self.margin_healthy = self.tolerance.delta_healthy + p.healthy_margin_share * extra;
    }

    /// Keeps the canary's difference for the effect and, after the warm-up, for nothing else.
    pub fn record(&mut self, d: &Differences) {
        let excess = d.canary - self.noise.derived.offset;
        self.p = self.share(d.canary, self.noise.derived.offset);
        self.recent[self.recent_n % EFFECT_WINDOWS] = excess;
        self.recent_n += 1;
    }

    pub fn put_in(&mut self, weight: f64, p: &Parameters) {
        if weight > 0.0 {
            self.stakes.put_in(weight, &p.bet_shares);
            self.stakes_healthy.put_in(weight, &[1.0 / BETS as f64; BETS]);
        }
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
        self.noise.is_ready() && self.noise.pairs() >= p.minimum_baseline
    }

    /// Bets on the canary's difference in window `index`, against and for it.
    pub fn bet(&mut self, canary: f64, index: u64, p: &Parameters) {
        let derived = self.noise.derived;
        self.bet_by(&derived, canary, index, p);
    }

    /// The same with noise that was learned elsewhere.
    pub fn bet_by(&mut self, noise: &Derived, canary: f64, index: u64, p: &Parameters) {
        if canary.is_nan() {
            return;
        }
        let excess = canary - noise.offset;
        let score = |x: f64, terms: &Terms| x.clamp(-noise.clip, noise.clip) * terms.precision;
        let factors = |z: f64, smallest_bet: f64, terms: &Terms| -> [f64; BETS] {
            let mut factors = powers(smallest_bet, z);
            for (factor, discount) in factors.iter_mut().zip(terms.discount) {
                // Less gain keeps it an e-process.
                *factor = (*factor * discount).min(p.gain_limit);
            }
            factors
        };
        let worse = score(excess - self.margin, &noise.worse);
        self.stakes.settle(&factors(worse, p.smallest_bet, &noise.worse));
        self.bets += 1;
        if self.tells_healthy {
            let better = score(self.margin_healthy - excess, &noise.better);
            self.stakes_healthy
                .settle_up_to(&factors(better, p.smallest_bet_healthy, &noise.better), HEALTHY_LIMIT / p.beta);
        }
        let half = score(excess - 0.5 * self.margin, &noise.worse);
        self.run.add(worse, excess, index);
        self.trend.add(half, excess, index);
    }

    /// The e-value against "not worse than the margin".
    pub fn evidence(&self, restarts: &Restarts) -> f64 {
        self.stakes.e_value(restarts)
    }

    /// The e-value against "worse than the healthy margin". Restarted like the other: one bad stretch that proved nothing
    /// does not keep a canary from being called healthy for good.
    pub fn evidence_healthy(&self, restarts: &Restarts) -> f64 {
        self.stakes_healthy.e_value(restarts)
    }

    /// Window at which the current run of evidence began.
    pub fn run_start(&self) -> Option<u64> {
        self.run.start
    }

    /// Whether the canary's excess has been rising since the run of evidence began: a leak, not a step. The slope of a
    /// straight line has to be clear of the noise and to explain a good part of the excess.
    pub fn is_growing(&self) -> bool {
        let Run { excess_sum, excess_moment, windows, .. } = self.trend;
        if windows < 2 * EFFECT_WINDOWS as u64 {
            return false;
        }
        let n = windows as f64;
        let mean = excess_sum / n;
        let slope = (excess_moment - 0.5 * (n - 1.0) * excess_sum) / (n * (n * n - 1.0) / 12.0);
        let error = (12.0 * self.noise.derived.long_run_variance / (n * n * n)).sqrt();
        slope > 2.5 * error && slope * n > 0.25 * mean
    }

    pub fn effect(&self) -> Option<Effect> {
        let (mut sum, mut n) = (0.0, 0.0);
        for x in self.recent.iter().filter(|x| !x.is_nan()) {
            sum += x;
            n += 1.0;
        }
        let half_width = 1.96 * (self.noise.derived.long_run_variance / n).sqrt();
        (n > 0.0).then(|| Effect { mean: sum / n, half_width })
    }

    /// Mean share of the margin used over the effect's windows.
    pub fn mean_share(&self) -> Option<f64> {
        self.effect().map(|e| (e.mean / self.margin).clamp(-P_LIMIT, P_LIMIT))
    }

    /// Drops evidence, keeps noise. `another_canary`: what was learned about the canary's own past goes too.
    pub fn reset(&mut self, another_canary: bool) {
        self.stakes = Stakes::NONE;
        self.run = Run::default();
        self.trend = Run::default();
        if another_canary {
            self.stakes_healthy = Stakes::NONE;
            self.bets = 0;
            self.recent = [f64::NAN; EFFECT_WINDOWS];
            self.p = f64::NAN;
            self.noise.forget_canary();
        }
    }
}

impl Run {
    fn add(&mut self, score: f64, excess: f64, index: u64) {
        if self.sum + score <= 0.0 {
            *self = Run::default();
            return;
        }
        self.sum += score;
        self.excess_sum += excess;
        self.excess_moment += excess * self.windows as f64;
        self.windows += 1;
        self.start.get_or_insert(index);
    }
}
