//! What one indicator does when nothing is wrong, learned in a stream from the placebo series.
//!
//! Goes in: rows of differences. Comes out: offsets, scale, long-run variance, wander and the price of each bet.
//! Nothing is looked at twice but the first `initial_windows` rows, which give location and scale to start from.

use super::{
    bets::bennett,
    blocks::{LongRun, Scales, Series},
    differences::{OWN, PLACEBOS, SERIES},
    shape::{REACH, Shape},
};
use crate::judge::{
    earlier::Known,
    parameters::{BETS, Parameters},
};

/// What an offset still weighs after the set of instances changed.
const OFFSET_AFTER_CHANGE: f32 = 300.0;
/// Windows after which the shape of the noise is learned: before that the scale is too rough.
const SHAPE_AFTER: u64 = 64;
/// Windows that the first median of a series weighs: few, since the same windows are then learned from.
const START_WEIGHT: f32 = 10.0;
/// Scale of an indicator none of whose rows had a difference.
const SCALE_UNKNOWN: f64 = 0.1;
/// How fast the scale follows, per window of all placebos together.
const SCALE_RATE: f64 = 0.01;

/// The noise of one indicator. See `docs/judge.md` for the formulas.
#[derive(Clone, Debug)]
pub struct Noise {
    /// P(t) is centred by construction, so its series have no offset of their own.
    learns_offset: bool,
    /// Robust standard deviations up to which a deviation counts at least, and up to which it counts now: further where the
    /// noise has a long memory, because there a change of a few of them is still small against the long run.
    clip: f64,
    reach: f64,
    /// Rows kept until there are enough to start from; then empty for good.
    initial: Option<Vec<[f32; SERIES]>>,
    series: [Series; SERIES],
    scales: Scales,
    /// Robust standard deviation.
    pub sigma: f64,
    windows: u64,
    /// Sums of x^2, of x times its predecessor, and their number.
    square_sum: f64,
    lagged_sum: f64,
    pairs: u64,
    placebo_pairs: u64,
    own_windows: u64,
    /// Mean squared step from one window to the next: of the placebos, and of the canary.
    placebo_step: f64,
    canary_step: f64,
    canary_previous: f64,
    shape: Shape,
    pub derived: Derived,
}

/// What follows from the noise; refreshed every few windows.
#[derive(Clone, Copy, Debug)]
pub struct Derived {
    /// Long-run variance per window of the canary's difference.
    pub long_run_variance: f64,
    /// The same without the factor for a canary that is noisier than the placebos.
    pub placebo_variance: f64,
    /// Variance of long block means when nothing happens.
    pub wander: f64,
    /// Where the canary is expected to be.
    pub offset: f64,
    /// Largest deviation that counts.
    pub clip: f64,
    /// For bets on "worse", which leave room for bursts on the canary, and for those on "healthy".
    pub worse: Terms,
    pub better: Terms,
}

/// What bets are made by.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// One over the standard deviation that deviations are measured in.
    pub precision: f64,
    /// e^-price of each bet.
    pub discount: [f64; BETS],
}

/// Sizes of both sides, which say how much less (or more) the canary's difference varies than a placebo's.
#[derive(Clone, Copy, Debug)]
pub struct Sides {
    pub canary: usize,
    pub stable: usize,
}

impl Sides {
    /// Variance of (mean of k - mean of m) over that of (one - mean of the m - 1 others), for independent instances.
    fn variance_share(self) -> f64 {
        if self.stable < 2 || self.canary == 0 {
            return 1.0;
        }
        let (k, m) = (self.canary as f64, self.stable as f64);
        (1.0 / k + 1.0 / m) / (1.0 + 1.0 / (m - 1.0))
    }
}

impl Noise {
    pub fn new(p: &Parameters) -> Self {
        Self::clipped(p, p.clip)
    }

    /// With another clip than that of levels.
    pub fn clipped(p: &Parameters, clip: f64) -> Self {
        let terms = Terms { precision: 1.0, discount: std::array::from_fn(|a| libm::exp(-bennett(p.bet(a), clip))) };
        Self {
            learns_offset: true,
            clip,
            reach: clip,
            initial: Some(Vec::new()),
            series: [Series::EMPTY; SERIES],
            scales: Scales::default(),
            sigma: SCALE_UNKNOWN,
            windows: 0,
            square_sum: 0.0,
            lagged_sum: 0.0,
            pairs: 0,
            placebo_pairs: 0,
            own_windows: 0,
            placebo_step: 0.0,
            canary_step: 0.0,
            canary_previous: f64::NAN,
            shape: Shape::default(),
            derived: Derived {
                long_run_variance: 1.0,
                placebo_variance: 1.0,
                wander: 0.0,
                offset: 0.0,
                clip,
                worse: terms,
                better: terms,
            },
        }
    }

    /// For P(t): centred, of known rough scale.
    pub fn centred(p: &Parameters, sigma: f64) -> Self {
        Self { learns_offset: false, initial: None, sigma, ..Self::new(p) }
    }

    /// Whether location and scale are known.
    pub fn is_ready(&self) -> bool {
        self.initial.is_none()
    }

    /// Whether there was any row with a difference.
    pub fn has_rows(&self) -> bool {
        self.initial.as_ref().is_none_or(|rows| !rows.is_empty())
    }

    /// Placebo windows learned from, summed over the series.
    pub fn pairs(&self) -> u64 {
        self.pairs
    }

    /// The part of them that came from stable instances.
    pub fn placebo_pairs(&self) -> u64 {
        self.placebo_pairs
    }

    /// Windows of the canary's own past.
    pub fn own_windows(&self) -> u64 {
        self.own_windows
    }

    pub fn has_own_past(&self) -> bool {
        self.series[OWN].offset_n > 0.0
    }

    pub fn series_offset(&self, series: usize) -> f64 {
        self.series[series].offset
    }

    /// Learns from one row. `placebos` is the number of placebo series in use.
    pub fn learn(&mut self, row: &[f64; SERIES], placebos: usize, p: &Parameters) {
        if row.iter().all(|d| d.is_nan()) {
            return;
        }
        let Some(rows) = &mut self.initial else {
            self.learn_row(row, placebos, p);
            return;
        };
        rows.push(row.map(|d| d as f32));
        if rows.len() >= p.initial_windows
            && let Some(rows) = self.initial.take()
        {
            self.start_from(&rows, p);
            rows.iter().for_each(|row| self.learn_row(&row.map(f64::from), placebos, p));
            self.derive(false, Sides { canary: 1, stable: placebos }, p);
        }
    }

    /// Robust location of each series and common scale: medians, so that start-up peaks do no harm.
    fn start_from(&mut self, rows: &[[f32; SERIES]], p: &Parameters) {
        let mut deviations = Vec::new();
        for (j, series) in self.series.iter_mut().enumerate() {
            let mut values: Vec<f64> = rows.iter().map(|r| f64::from(r[j])).filter(|d| !d.is_nan()).collect();
            if values.is_empty() {
                continue;
            }
            let location = median(&mut values);
            series.offset_n = (values.len() as f32).min(START_WEIGHT);
            series.offset = location;
            deviations.extend(values.iter().map(|d| (d - location).abs()));
        }
        // 1.4826 makes the median absolute deviation a standard deviation for normal noise.
        self.sigma = (1.4826 * median(&mut deviations)).max(p.scale_floor);
    }

    fn learn_row(&mut self, row: &[f64; SERIES], placebos: usize, p: &Parameters) {
        self.windows += 1;
        let learns_shape = self.windows > SHAPE_AFTER + 1;
        let rate = SCALE_RATE / (placebos + 1) as f64;
        let (near, limit) = (self.clip * self.sigma, self.reach * self.sigma);
        let per_sigma = 1.0 / self.sigma;
        // Streaming MAD: half of normal noise lies within 0.6745 standard deviations.
        let half = 0.6745 * self.sigma;
        let mut outside = 0.0;
        for (j, d) in row.iter().enumerate() {
            if d.is_nan() {
                continue;
            }
            let series = &mut self.series[j];
            let residual = d - series.offset;
            let x = bounded(residual, limit);
            if learns_shape {
                self.shape.add(x * per_sigma);
            }
            outside += if residual.abs() > half { 1.0 } else { -1.0 };
            if self.learns_offset {
                series.learn_offset(bounded(residual, near));
            }
            let previous = f64::from(std::mem::replace(&mut series.previous, x as f32));
            // In a pair of equals an excursion either way shows what one of them does when nothing is wrong.
            let either_way = j == OWN && placebos < 2;
            self.scales.learn(series, x, placebos, either_way);
            self.own_windows += u64::from(j == OWN);
            if !previous.is_nan() {
                self.pairs += 1;
                self.placebo_pairs += u64::from(j < PLACEBOS);
                self.square_sum += x * x;
                self.lagged_sum += x * previous;
                let step = (x - previous) * (x - previous);
                if self.placebo_step > 0.0 {
                    self.placebo_step += rate * (step - self.placebo_step);
                } else {
                    self.placebo_step = step;
                }
            }
        }
        self.sigma = (self.sigma * (1.0 + rate * outside)).max(p.scale_floor);
    }

    /// Goes on learning from a pair whose learning is over, from one side only: when the canary seems better than usual it
    /// may be the stable instance that is worse, and what one does the other may do. A canary that gets worse teaches
    /// nothing here.
    pub fn learn_mirrored(&mut self, d: f64) {
        if d.is_nan() || !self.has_own_past() {
            return;
        }
        let limit = self.reach * self.sigma;
        let x = (d - self.series[OWN].offset).clamp(-limit, limit);
        self.scales.learn_mirrored(&mut self.series[OWN], x);
    }

    /// Follows how far the canary jumps from window to window: a canary noisier than the placebos is trusted less.
    pub fn follow_canary(&mut self, d: f64) {
        if d.is_nan() || !self.is_ready() {
            return;
        }
        let previous = std::mem::replace(&mut self.canary_previous, d);
        if previous.is_nan() {
            return;
        }
        let limit = 1.5 * self.clip * self.sigma;
        let step = (d - previous).clamp(-limit, limit);
        if self.canary_step <= 0.0 {
            self.canary_step = self.placebo_step;
        }
        self.canary_step += 0.02 * (step * step - self.canary_step);
    }

    /// Refreshes [`Derived`].
    pub fn derive(&mut self, has_canary: bool, sides: Sides, p: &Parameters) {
        let LongRun { mut variance, mut excursions, mut wander } = self.scales.long_run(p);
        if self.pairs > 20 {
            let n = self.pairs as f64;
            let phi = ((self.lagged_sum / (self.square_sum + 1e-300)).max(0.0) + 0.5 / n.sqrt()).min(0.97);
            variance = variance.max(self.square_sum / n * (1.0 + phi) / (1.0 - phi));
        }
        if variance <= 0.0 {
            variance = self.sigma * self.sigma;
        }
        let share = if self.has_own_past() { 1.0 } else { sides.variance_share() };
        let factor = share * self.scales.noisy_hour();
        excursions = factor * excursions.max(variance);
        variance *= factor;
        wander *= share;
        let mut canary_factor = 1.0;
        if has_canary && self.placebo_step > 0.0 && self.canary_step > 0.0 {
            canary_factor = (self.canary_step / (share * self.placebo_step)).clamp(1.0, 25.0);
        }
        self.reach = (self.clip * (variance / factor).sqrt() / self.sigma).clamp(self.clip, REACH);
        let scale = (share * canary_factor).sqrt();
        let clip = self.reach * self.sigma * scale;
        let terms = |variance: f64, smallest_bet: f64| {
            let precision = 1.0 / (canary_factor * variance).sqrt();
            let (sigma, clip) = (self.sigma * scale * precision, clip * precision);
            Terms { precision, discount: self.shape.discounts(smallest_bet, sigma, clip) }
        };
        self.derived = Derived {
            long_run_variance: canary_factor * variance,
            placebo_variance: variance,
            wander,
            offset: self.canary_offset(),
            clip,
            worse: terms(excursions, p.smallest_bet),
            better: terms(variance, p.smallest_bet_healthy),
        };
    }

    /// Where the canary is expected: at its own past if that is known, else where stable instances are on average.
    fn canary_offset(&self) -> f64 {
        if !self.learns_offset {
            return 0.0;
        }
        if self.has_own_past() { self.series[OWN].offset } else { self.placebo_offset() }
    }

    /// Mean offset of the stable instances.
    fn placebo_offset(&self) -> f64 {
        let (mut sum, mut n) = (0.0, 0.0);
        for series in self.series[..PLACEBOS].iter().filter(|s| s.offset_n > 0.0) {
            sum += series.offset;
            n += 1.0;
        }
        if n > 0.0 { sum / n } else { 0.0 }
    }

    /// What the margin has to leave for: offsets between instances and wander, as a standard deviation of ln.
    /// `tau0` is the spread between equal instances before it is seen, here or `earlier`.
    pub fn offset_spread(&self, sides: Sides, tau0: f64, earlier: &Known, p: &Parameters) -> f64 {
        let d = &self.derived;
        let tau0_squared = tau0 * tau0;
        let wander = d.wander.max(earlier.wander);
        if self.has_own_past() {
            return (d.placebo_variance / f64::from(self.series[OWN].offset_n) + 0.25 * tau0_squared + wander).sqrt();
        }
        let (k, m) = (sides.canary.max(1) as f64, sides.stable.max(1) as f64);
        let (spread, others) = self.offset_squares(sides.stable, 0.0);
        let tau_squared = (p.tau0_weight * tau0_squared + earlier.offset_squares + spread)
            / (p.tau0_weight + earlier.freedom + others);
        (tau_squared * (1.0 / k + 1.0 / m) + wander).sqrt()
    }

    /// Squared offsets of `stable` instances from their mean, and how many instances they are beyond the first. `noise` is
    /// the variance per window that is taken out of them.
    fn offset_squares(&self, stable: usize, noise: f64) -> (f64, f64) {
        let m = stable.max(1) as f64;
        let mean = self.placebo_offset();
        let (mut squares, mut known) = (0.0, 0.0);
        for series in self.series[..PLACEBOS].iter().filter(|s| s.offset_n > 0.0) {
            let b = (series.offset - mean) * (m - 1.0) / m;
            squares += b * b - noise / f64::from(series.offset_n);
            known += 1.0f64;
        }
        (squares.max(0.0), (known - 1.0).max(0.0))
    }

    /// What later rollouts should know of `stable` instances; `None` while it is little.
    pub fn known(&self, stable: usize, p: &Parameters) -> Option<Known> {
        let (offset_squares, freedom) = self.offset_squares(stable, self.derived.placebo_variance);
        let much = 3 * p.minimum_baseline;
        (self.is_ready() && self.placebo_pairs >= much && freedom > 0.0).then_some(Known {
            offset_squares,
            freedom,
            wander: self.derived.wander,
        })
    }

    /// First idea of the offset of an instance that is warming up.
    pub fn prime(&mut self, series: usize, d: f64) {
        if !d.is_nan() {
            let series = &mut self.series[series];
            series.learn_offset(d - series.offset);
        }
    }

    /// The instance of this series is gone: what was learned about noise stays, its offset does not.
    pub fn free(&mut self, series: usize) {
        self.series[series] = Series::EMPTY;
        if series == OWN {
            self.own_windows = 0;
        }
        // Kept rows of a series that is gone must not become the offset of its successor.
        self.initial.iter_mut().flatten().for_each(|row| row[series] = f32::NAN);
    }

    /// The set of stable instances changed, and with it what each is compared with: offsets are learned anew
    /// from near where they were, and blocks across the change are dropped.
    pub fn soften(&mut self) {
        for series in &mut self.series {
            series.cut();
            if series.offset_n > OFFSET_AFTER_CHANGE {
                series.offset_n = OFFSET_AFTER_CHANGE;
            }
        }
    }

    /// Another canary: its own past and its own noisiness are not those of the one before.
    pub fn forget_canary(&mut self) {
        self.free(OWN);
        self.canary_step = 0.0;
        self.canary_previous = f64::NAN;
    }
}

/// `x` within `limit` either way.
fn bounded(x: f64, limit: f64) -> f64 {
    if x > limit {
        limit
    } else if x < -limit {
        -limit
    } else {
        x
    }
}

/// Mean of the two middle values for an even number; 0 for no value.
fn median(values: &mut [f64]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { 0.5 * (values[middle - 1] + values[middle]) } else { values[middle] }
}
