//! What one indicator does when nothing is wrong, learned in a stream from the placebo series.
//!
//! Goes in: rows of differences. Comes out: offsets, scale, long-run variance, wander and the price of each bet.
//! Nothing is looked at twice but the first `initial_windows` rows, which give location and scale to start from.
//! How far instances are apart, and what their coming and going makes of that: [`offsets`].

mod offsets;

use serde::{Deserialize, Serialize};

use super::{
    blocks::{LongRun, Scales, Series},
    differences::{OWN, PLACEBOS, SERIES},
    shape::{REACH, Shape},
};
use crate::judge::parameters::{BETS, Parameters};

/// Windows after which the shape of the noise is learned: before that the scale is too rough.
const SHAPE_AFTER: u8 = 64;
/// Windows that the first median of a series weighs: few, since the same windows are then learned from.
const START_WEIGHT: u16 = 10;
/// Scale of an indicator none of whose rows had a difference.
const SCALE_UNKNOWN: f64 = 0.1;
/// How fast the scale follows, per window of all placebos together.
const SCALE_RATE: f64 = 0.01;

/// What is compared, which sets how its noise is learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The level of an indicator.
    Level,
    /// How much it jumps from window to window.
    Steps,
    /// P(t): it is centred by construction, so its series have no offset of their own.
    Mean,
}

impl Kind {
    /// Robust standard deviations up to which a deviation counts at least.
    fn clip(self, p: &Parameters) -> f64 {
        if self == Kind::Steps { p.spread_clip } else { p.clip }
    }
}

/// The noise of one indicator. See `docs/judge.md` for the formulas.
#[derive(Clone, Debug)]
pub struct Noise {
    /// Kept until there is enough to start from; then empty for good.
    initial: Option<Box<Initial>>,
    /// By series: mean difference, and the blocks under way.
    offsets: [f64; SERIES],
    series: [Series; SERIES],
    scales: Scales,
    shape: Shape,
    /// Robust standard deviation.
    pub sigma: f64,
    /// Robust standard deviations up to which a deviation counts now: further than at least where the noise has a long
    /// memory, because there a change of a few of them is still small against the long run.
    reach: f64,
    /// Sums of x^2, of x times its predecessor, and their number.
    square_sum: f64,
    lagged_sum: f64,
    pairs: u32,
    placebo_pairs: u32,
    own_windows: u32,
    /// What those that left had added to the sum of the squared offsets, until others took their places.
    left_squares: f32,
    /// And how many they are.
    left: u8,
    /// Placebos whose offsets are of one another's mean, a bit for each. One that is new is not, until it is known.
    members: u8,
    /// Windows learned from, as far as the shape waits for them.
    windows: u8,
    kind: Kind,
    /// Mean squared step of the placebos from one window to the next.
    placebo_step: f64,
}

/// The first rows with a difference.
#[derive(Clone, Debug, Default)]
struct Initial {
    rows: Vec<[f32; SERIES]>,
    /// Whether there were any, also where those that they were of are gone.
    had_rows: bool,
}

/// How far the canary jumps from window to window: one that is noisier than the placebos is trusted less.
#[derive(Clone, Copy, Debug)]
pub struct CanarySteps {
    mean_square: f64,
    previous: f64,
}

/// What the noise says at one moment of the canary's difference.
#[derive(Clone, Copy, Debug)]
pub struct Estimates {
    /// Long-run variance per window, without the factor for a canary that is noisier than the placebos.
    pub variance: f64,
    /// The same with room for bursts on the canary that are longer than those seen.
    pub excursions: f64,
    /// The first without the factor for a noisy hour.
    pub usual_variance: f64,
    /// Variance of long block means when nothing happens.
    pub wander: f64,
    /// Where the canary is expected to be.
    pub offset: f64,
    /// Variance of the canary's steps over those of the placebos, within 1 and 25.
    pub canary_factor: f64,
    /// Robust standard deviation, and the largest deviation that counts.
    sigma: f64,
    pub clip: f64,
}

/// What bets are made by.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// One over the standard deviation that deviations are measured in.
    pub precision: f64,
    /// e^-price of each bet.
    pub discount: [f64; BETS],
}

impl Terms {
    /// Before the noise is known, when nothing is bet.
    pub const UNKNOWN: Terms = Terms { precision: 1.0, discount: [0.0; BETS] };
}

/// Sizes of both sides, which say how much less (or more) the canary's difference varies than a placebo's.
#[derive(Clone, Copy, Debug)]
pub struct Sides {
    pub canary: usize,
    pub stable: usize,
    /// Variance of a placebo's difference over that of one instance, as it was on average where the noise was learned. 0
    /// where there never was a placebo.
    pub placebo_variance: f64,
    /// The canary's own past says where it is expected once it has more windows than this.
    pub own_needed: u64,
}

impl Sides {
    /// Variance of a difference (one - mean of the m - 1 others) over that of one instance, for independent instances.
    pub fn of_placebo(stable: usize) -> f64 {
        1.0 + 1.0 / (stable as f64 - 1.0)
    }

    /// Variance of (mean of k - mean of m) over that of a placebo.
    fn variance_share(self) -> f64 {
        if self.stable == 0 || self.canary == 0 || self.placebo_variance <= 0.0 {
            return 1.0;
        }
        let (k, m) = (self.canary as f64, self.stable as f64);
        (1.0 / k + 1.0 / m) / self.placebo_variance
    }
}

impl CanarySteps {
    pub const NONE: CanarySteps = CanarySteps { mean_square: 0.0, previous: f64::NAN };

    /// Follows the canary's difference; NaN is left out.
    pub fn follow(&mut self, d: f64, noise: &Noise, p: &Parameters) {
        if d.is_nan() || !noise.is_ready() {
            return;
        }
        let previous = std::mem::replace(&mut self.previous, d);
        if previous.is_nan() {
            return;
        }
        let limit = 1.5 * noise.kind.clip(p) * noise.sigma;
        let step = (d - previous).clamp(-limit, limit);
        if self.mean_square <= 0.0 {
            self.mean_square = noise.placebo_step;
        }
        self.mean_square += 0.02 * (step * step - self.mean_square);
    }
}

impl Noise {
    pub fn new(kind: Kind, p: &Parameters) -> Self {
        Self {
            initial: Some(Box::default()),
            offsets: [0.0; SERIES],
            series: [Series::EMPTY; SERIES],
            scales: Scales::default(),
            shape: Shape::default(),
            sigma: SCALE_UNKNOWN,
            reach: kind.clip(p),
            square_sum: 0.0,
            lagged_sum: 0.0,
            pairs: 0,
            placebo_pairs: 0,
            own_windows: 0,
            left_squares: 0.0,
            left: 0,
            members: 0,
            windows: 0,
            kind,
            placebo_step: 0.0,
        }
    }

    /// For P(t), of known rough scale.
    pub fn of_mean(p: &Parameters, sigma: f64) -> Self {
        Self { initial: None, sigma, ..Self::new(Kind::Mean, p) }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether location and scale are known.
    pub fn is_ready(&self) -> bool {
        self.initial.is_none()
    }

    /// Whether there was any row with a difference, since the canary became another one.
    pub fn has_rows(&self) -> bool {
        self.initial.as_ref().is_none_or(|initial| initial.had_rows)
    }

    /// Another canary: rows that are gone with what they were of count no more.
    pub fn forget_what_is_gone(&mut self) {
        if let Some(initial) = &mut self.initial {
            initial.had_rows = !initial.rows.is_empty();
        }
    }

    /// Placebo windows learned from, summed over the series.
    pub fn pairs(&self) -> u64 {
        self.pairs.into()
    }

    /// The part of them that came from stable instances.
    pub fn placebo_pairs(&self) -> u64 {
        self.placebo_pairs.into()
    }

    /// Those that say what to expect of the canary. A pair that is none any more taught what noise there is, and not that.
    pub fn baseline_pairs(&self) -> u64 {
        if self.own_windows > 0 { self.pairs() } else { self.placebo_pairs() }
    }

    /// Whether there is enough baseline to bet.
    pub fn has_baseline(&self, p: &Parameters) -> bool {
        self.is_ready() && self.baseline_pairs() >= p.minimum_baseline
    }

    /// Windows of the canary's own past.
    pub fn own_windows(&self) -> u64 {
        self.own_windows.into()
    }

    /// Whether the canary's own past says where it is expected.
    pub fn has_own_past(&self, sides: Sides) -> bool {
        self.series[OWN].offset_n > 0 && self.own_windows() > sides.own_needed
    }

    /// Mean difference of each series.
    pub fn offsets(&self) -> &[f64; SERIES] {
        &self.offsets
    }

    /// Learns from one row. `placebos` is the number of placebo series in use. Answers whether location and scale became
    /// known just now.
    pub fn learn(&mut self, row: &[f64; SERIES], placebos: usize, p: &Parameters) -> bool {
        if row.iter().all(|d| d.is_nan()) {
            return false;
        }
        let Some(initial) = &mut self.initial else {
            self.learn_row(row, placebos, p);
            return false;
        };
        initial.rows.push(row.map(|d| d as f32));
        initial.had_rows = true;
        if initial.rows.len() < p.initial_windows {
            return false;
        }
        let rows = std::mem::take(&mut initial.rows);
        self.initial = None;
        self.start_from(&rows, p);
        rows.iter().for_each(|row| self.learn_row(&row.map(f64::from), placebos, p));
        true
    }

    /// Robust location of each series and common scale: medians, so that start-up peaks do no harm.
    fn start_from(&mut self, rows: &[[f32; SERIES]], p: &Parameters) {
        let mut deviations = Vec::new();
        for (j, (series, offset)) in self.series.iter_mut().zip(&mut self.offsets).enumerate() {
            let mut values: Vec<f64> = rows.iter().map(|r| f64::from(r[j])).filter(|d| !d.is_nan()).collect();
            if values.is_empty() {
                continue;
            }
            let location = median(&mut values);
            if j < PLACEBOS {
                self.members |= 1 << j;
            }
            series.offset_n = values.len().min(START_WEIGHT.into()) as u16;
            *offset = location;
            deviations.extend(values.iter().map(|d| (d - location).abs()));
        }
        // 1.4826 makes the median absolute deviation a standard deviation for normal noise.
        self.sigma = (1.4826 * median(&mut deviations)).max(p.scale_floor);
    }

    fn learn_row(&mut self, row: &[f64; SERIES], placebos: usize, p: &Parameters) {
        self.windows = self.windows.saturating_add(1);
        let learns_shape = self.windows > SHAPE_AFTER + 1;
        let rate = SCALE_RATE / (placebos + 1) as f64;
        let (near, limit) = (self.kind.clip(p) * self.sigma, self.reach * self.sigma);
        let per_sigma = 1.0 / self.sigma;
        // Streaming MAD: half of normal noise lies within 0.6745 standard deviations.
        let half = 0.6745 * self.sigma;
        let (mut outside, mut pairs) = (0.0, 0);
        let has_own = !row[OWN].is_nan();
        let own_pairs = u32::from(has_own && !self.series[OWN].previous().is_nan());
        let (mut square_sum, mut lagged_sum, mut placebo_step) = (self.square_sum, self.lagged_sum, self.placebo_step);
        for (j, (d, (series, offset))) in row.iter().zip(self.series.iter_mut().zip(&mut self.offsets)).enumerate() {
            if d.is_nan() {
                continue;
            }
            let residual = d - *offset;
            let x = bounded(residual, limit);
            if learns_shape {
                self.shape.add(x * per_sigma);
            }
            outside += if residual.abs() > half { 1.0 } else { -1.0 };
            let previous = series.previous();
            // In a pair of equals an excursion either way shows what one of them does when nothing is wrong.
            let either_way = j == OWN && placebos < 2;
            self.scales.learn(series, x, placebos, either_way);
            if self.kind != Kind::Mean {
                series.learn_offset(offset, bounded(residual, near));
            }
            if !previous.is_nan() {
                pairs += 1;
                square_sum += x * x;
                lagged_sum += x * previous;
                let step = (x - previous) * (x - previous);
                placebo_step = if placebo_step > 0.0 { placebo_step + rate * (step - placebo_step) } else { step };
            }
        }
        self.pairs = self.pairs.saturating_add(pairs);
        self.placebo_pairs = self.placebo_pairs.saturating_add(pairs - own_pairs);
        self.own_windows = self.own_windows.saturating_add(u32::from(has_own));
        (self.square_sum, self.lagged_sum, self.placebo_step) = (square_sum, lagged_sum, placebo_step);
        self.sigma = (self.sigma * (1.0 + rate * outside)).max(p.scale_floor);
    }

    /// Goes on learning from a pair whose learning is over, from one side only: when the canary seems better than usual it
    /// may be the stable instance that is worse, and what one does the other may do. A canary that gets worse teaches
    /// nothing here.
    pub fn learn_mirrored(&mut self, d: f64) {
        if d.is_nan() || self.series[OWN].offset_n == 0 {
            return;
        }
        let limit = self.reach * self.sigma;
        let x = (d - self.offsets[OWN]).clamp(-limit, limit);
        self.scales.learn_mirrored(&mut self.series[OWN], x);
    }

    /// Refreshes what is concluded from what was learned. `canary`: how far it jumps, where that is held against it.
    pub fn estimate(&mut self, canary: Option<&CanarySteps>, sides: Sides, p: &Parameters) -> Estimates {
        let sides = self.beside_known(sides);
        self.shape.fade();
        let LongRun { mut variance, mut excursions, mut wander } = self.scales.long_run(p);
        if self.pairs > 20 {
            let n = f64::from(self.pairs);
            let phi = ((self.lagged_sum / (self.square_sum + 1e-300)).max(0.0) + 0.5 / n.sqrt()).min(0.97);
            variance = variance.max(self.square_sum / n * (1.0 + phi) / (1.0 - phi));
        }
        if variance <= 0.0 {
            variance = self.sigma * self.sigma;
        }
        let share = if self.has_own_past(sides) { 1.0 } else { sides.variance_share() };
        let factor = share * self.scales.noisy_hour();
        excursions = factor * excursions.max(variance);
        let usual_variance = share * variance;
        variance *= factor;
        wander *= share;
        let canary_step = canary.map_or(0.0, |steps| steps.mean_square);
        let canary_factor = if self.placebo_step > 0.0 && canary_step > 0.0 {
            (canary_step / (share * self.placebo_step)).clamp(1.0, 25.0)
        } else {
            1.0
        };
        let least = self.kind.clip(p);
        self.reach = (least * (variance / factor).sqrt() / self.sigma).clamp(least, REACH);
        let scale = (share * canary_factor).sqrt();
        Estimates {
            variance,
            excursions,
            usual_variance,
            wander,
            offset: self.canary_offset(sides),
            canary_factor,
            sigma: self.sigma * scale,
            clip: self.reach * self.sigma * scale,
        }
    }

    /// What bets from this size on are made by where the long-run variance of the canary's difference is `variance`.
    pub fn terms(&self, estimates: &Estimates, variance: f64, smallest_bet: f64) -> Terms {
        let precision = 1.0 / variance.sqrt();
        let (sigma, clip) = (estimates.sigma * precision, estimates.clip * precision);
        Terms { precision, discount: self.shape.discounts(smallest_bet, sigma, clip) }
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
