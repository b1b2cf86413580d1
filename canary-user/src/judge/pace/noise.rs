//! What one indicator does when nothing is wrong, learned in a stream from the placebo series.
//!
//! Goes in: rows of differences. Comes out: offsets, scale, long-run variance, wander and the price of each bet.
//! Nothing is looked at twice but the first `initial_windows` rows, which give location and scale to start from.

use super::{
    bets::bennett,
    blocks::{Scales, Series},
    differences::{OWN, PLACEBOS, SERIES},
};
use crate::judge::parameters::{BETS, Parameters};

/// Most windows that an offset remembers.
const OFFSET_MEMORY: f64 = 7200.0;
/// What an offset still weighs after the set of instances changed.
const OFFSET_AFTER_CHANGE: f64 = 300.0;
/// Windows after which the shape of the noise is learned: before that the scale is too rough.
const SHAPE_AFTER: u64 = 64;
/// Windows that the first median of a series weighs: few, since the same windows are then learned from.
const START_WEIGHT: f64 = 10.0;
/// Scale of an indicator none of whose rows had a difference.
const SCALE_UNKNOWN: f64 = 0.1;

/// The noise of one indicator. See `docs/judge.md` for the formulas.
#[derive(Clone, Debug)]
pub struct Noise {
    /// P(t) is centred by construction, so its series have no offset of their own.
    learns_offset: bool,
    /// Rows kept until there are enough to start from; then empty for good.
    initial: Option<Vec<[f64; SERIES]>>,
    series: [Series; SERIES],
    scales: Scales,
    /// Robust standard deviation.
    pub sigma: f64,
    windows: u64,
    /// Sums of x^2 and of x times its predecessor, and their number.
    square_sum: f64,
    lagged_sum: f64,
    pairs: u64,
    placebo_pairs: u64,
    own_windows: u64,
    /// Mean squared step from one window to the next: of the placebos, and of the canary.
    placebo_step: f64,
    canary_step: f64,
    canary_previous: f64,
    /// Moment generating function of the standardised residuals at each bet, and their variance: sums and number.
    moments: [f64; BETS],
    moment_square: f64,
    moment_n: f64,
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
    /// Price of each bet.
    pub price: [f64; BETS],
}

impl Noise {
    pub fn new(p: &Parameters) -> Self {
        Self {
            learns_offset: true,
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
            moments: [0.0; BETS],
            moment_square: 0.0,
            moment_n: 0.0,
            derived: Derived {
                long_run_variance: 1.0,
                placebo_variance: 1.0,
                wander: 0.0,
                offset: 0.0,
                clip: p.clip,
                price: p.bets.map(|l| bennett(l, p.clip)),
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
        if self.learns_offset { self.series[series].offset() } else { 0.0 }
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
        rows.push(*row);
        if rows.len() >= p.initial_windows
            && let Some(rows) = self.initial.take()
        {
            self.start_from(&rows, p);
            rows.iter().for_each(|row| self.learn_row(row, placebos, p));
            self.derive(false, p);
        }
    }

    /// Robust location of each series and common scale: medians, so that start-up peaks do no harm.
    fn start_from(&mut self, rows: &[[f64; SERIES]], p: &Parameters) {
        let mut deviations = Vec::new();
        for (j, series) in self.series.iter_mut().enumerate() {
            let mut values: Vec<f64> = rows.iter().map(|r| r[j]).filter(|d| !d.is_nan()).collect();
            if values.is_empty() {
                continue;
            }
            let location = median(&mut values);
            series.offset_n = (values.len() as f64).min(START_WEIGHT);
            series.offset_sum = location * series.offset_n;
            deviations.extend(values.iter().map(|d| (d - location).abs()));
        }
        // 1.4826 makes the median absolute deviation a standard deviation for normal noise.
        self.sigma = (1.4826 * median(&mut deviations)).max(p.scale_floor);
    }

    fn learn_row(&mut self, row: &[f64; SERIES], placebos: usize, p: &Parameters) {
        self.windows += 1;
        let rate = 0.01 / (placebos + 1) as f64;
        for (j, d) in row.iter().enumerate().filter(|(_, d)| !d.is_nan()) {
            let offset = self.series_offset(j);
            let residual = d - offset;
            let limit = p.clip * self.sigma;
            let x = residual.clamp(-limit, limit);
            // Streaming MAD: half of normal noise lies within 0.6745 standard deviations.
            let outside = residual.abs() > 0.6745 * self.sigma;
            self.sigma = (self.sigma * (if outside { rate } else { -rate }).exp()).max(p.scale_floor);
            if self.learns_offset {
                let series = &mut self.series[j];
                series.offset_sum += offset + x;
                series.offset_n += 1.0;
                if series.offset_n > OFFSET_MEMORY {
                    series.offset_sum *= 0.5;
                    series.offset_n *= 0.5;
                }
            }
            // In a pair of equals an excursion either way shows what one of them does when nothing is wrong.
            let either_way = j == OWN && placebos < 2;
            self.scales.learn(&mut self.series[j], x, placebos, either_way);
            if self.windows > SHAPE_AFTER + 1 {
                let z = x / self.derived.long_run_variance.sqrt();
                self.moment_square += z * z;
                self.moment_n += 1.0;
                for (sum, l) in self.moments.iter_mut().zip(p.bets) {
                    *sum += (l * z).exp();
                }
            }
            let previous = std::mem::replace(&mut self.series[j].previous, x);
            if !previous.is_nan() {
                self.square_sum += x * x;
                self.lagged_sum += x * previous;
                self.pairs += 1;
                self.placebo_pairs += u64::from(j < PLACEBOS);
                let step = (x - previous) * (x - previous);
                if self.placebo_step > 0.0 {
                    self.placebo_step += rate * (step - self.placebo_step);
                } else {
                    self.placebo_step = step;
                }
            }
            self.own_windows += u64::from(j == OWN);
        }
    }

    /// Goes on learning from a pair whose learning is over, from one side only: when the canary seems better than usual it
    /// may be the stable instance that is worse, and what one does the other may do. A canary that gets worse teaches
    /// nothing here.
    pub fn learn_mirrored(&mut self, d: f64, p: &Parameters) {
        if d.is_nan() || !self.has_own_past() {
            return;
        }
        let limit = p.clip * self.sigma;
        let x = (d - self.series_offset(OWN)).clamp(-limit, limit);
        self.scales.learn_mirrored(&mut self.series[OWN], x);
    }

    /// Follows how far the canary jumps from window to window: a canary noisier than the placebos is trusted less.
    pub fn follow_canary(&mut self, d: f64, p: &Parameters) {
        if d.is_nan() || !self.is_ready() {
            return;
        }
        let previous = std::mem::replace(&mut self.canary_previous, d);
        if previous.is_nan() {
            return;
        }
        let limit = 1.5 * p.clip * self.sigma;
        let step = (d - previous).clamp(-limit, limit);
        if self.canary_step <= 0.0 {
            self.canary_step = self.placebo_step;
        }
        self.canary_step += 0.02 * (step * step - self.canary_step);
    }

    /// Refreshes [`Derived`].
    pub fn derive(&mut self, has_canary: bool, p: &Parameters) {
        let (mut variance, wander) = self.scales.variance_and_wander(p);
        if self.pairs > 20 {
            let n = self.pairs as f64;
            let phi = ((self.lagged_sum / (self.square_sum + 1e-300)).max(0.0) + 0.5 / n.sqrt()).min(0.97);
            variance = variance.max(self.square_sum / n * (1.0 + phi) / (1.0 - phi));
        }
        if variance <= 0.0 {
            variance = self.sigma * self.sigma;
        }
        variance *= self.scales.noisy_hour();
        let mut canary_factor = 1.0;
        if has_canary && self.placebo_step > 0.0 && self.canary_step > 0.0 {
            canary_factor = (self.canary_step / self.placebo_step).clamp(1.0, 25.0);
        }
        let long_run_variance = variance * canary_factor;
        let clip = p.clip * self.sigma * canary_factor.sqrt();
        self.derived = Derived {
            long_run_variance,
            placebo_variance: variance,
            wander,
            offset: self.canary_offset(),
            clip,
            price: self.prices(clip / long_run_variance.sqrt(), p),
        };
    }

    /// Where the canary is expected: at its own past if that is known, else where stable instances are on average.
    fn canary_offset(&self) -> f64 {
        if !self.learns_offset {
            return 0.0;
        }
        if self.has_own_past() {
            return self.series[OWN].offset();
        }
        let (mut sum, mut n) = (0.0, 0.0);
        for series in self.series[..PLACEBOS].iter().filter(|s| s.offset_n > 0.0) {
            sum += series.offset();
            n += 1.0;
        }
        if n > 0.0 { sum / n } else { 0.0 }
    }

    /// Price of each bet: what it would win on average on the placebos, at most Bennett's bound.
    fn prices(&self, clip_standardised: f64, p: &Parameters) -> [f64; BETS] {
        let c = clip_standardised.max(1e-3);
        std::array::from_fn(|a| {
            let l = p.bets[a];
            let bound = bennett(l, c);
            if self.moment_n <= 50.0 {
                return bound;
            }
            let normal = 0.5 * l * l;
            let mean = (self.moments[a] + (l * c).exp()) / (self.moment_n + 1.0);
            let excess = mean.ln() - normal * self.moment_square / self.moment_n;
            bound.min(normal + excess.max(0.0))
        })
    }

    /// What the margin has to leave for: offsets between instances and wander, as a standard deviation of ln.
    /// `k` and `m` are the numbers of canary and stable instances.
    pub fn offset_spread(&self, k: usize, m: usize, p: &Parameters) -> f64 {
        let d = &self.derived;
        let tau0_squared = p.tau0 * p.tau0;
        if self.has_own_past() {
            return (d.placebo_variance / self.series[OWN].offset_n + 0.25 * tau0_squared + d.wander).sqrt();
        }
        let known: Vec<f64> = self.series[..PLACEBOS].iter().filter(|s| s.offset_n > 0.0).map(Series::offset).collect();
        let (k, m) = (k.max(1) as f64, m.max(1) as f64);
        let spread: f64 = known.iter().map(|b| ((b - d.offset) * (m - 1.0) / m).powi(2)).sum();
        let others = (known.len() as f64 - 1.0).max(0.0);
        let tau_squared = (p.tau0_weight * tau0_squared + spread) / (p.tau0_weight + others);
        (tau_squared * (1.0 / k + 1.0 / m) + d.wander).sqrt()
    }

    /// First idea of the offset of an instance that is warming up.
    pub fn prime(&mut self, series: usize, d: f64) {
        if !d.is_nan() {
            self.series[series].offset_sum += d;
            self.series[series].offset_n += 1.0;
        }
    }

    /// The instance of this series is gone: what was learned about noise stays, its offset does not.
    pub fn free(&mut self, series: usize) {
        self.series[series] = Series::EMPTY;
        if series == OWN {
            self.own_windows = 0;
        }
        // Kept rows of a series that is gone must not become the offset of its successor.
        self.initial.iter_mut().flatten().for_each(|row| row[series] = f64::NAN);
    }

    /// The set of stable instances changed, and with it what each is compared with: offsets are learned anew
    /// from near where they were, and blocks across the change are dropped.
    pub fn soften(&mut self) {
        for series in &mut self.series {
            series.cut();
            if series.offset_n > OFFSET_AFTER_CHANGE {
                series.offset_sum *= OFFSET_AFTER_CHANGE / series.offset_n;
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

/// Mean of the two middle values for an even number; 0 for no value.
fn median(values: &mut [f64]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { 0.5 * (values[middle - 1] + values[middle]) } else { values[middle] }
}
