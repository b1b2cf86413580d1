//! What is usual of one series: its level over the latest windows, its noise, and the band that follows from both.

use crate::judge::{
    pace::{REACH, Scales, Series, Shape},
    parameters::{BETS, Parameters},
};

/// Windows between two refreshes of band and prices.
const REFRESH_WINDOWS: u64 = 16;
/// Windows that the first median weighs: few, since the same windows are then learned from.
const START_WEIGHT: f64 = 10.0;
/// What the level still weighs where it is learned anew.
const WEIGHT_AFTER_CHANGE: f64 = 30.0;
/// Windows after which the shape of the noise is learned: before that the scale is too rough.
const SHAPE_AFTER: u64 = 64;
/// How fast the scale follows, per window.
const SCALE_RATE: f64 = 0.005;

/// Level and noise of one series.
#[derive(Clone, Debug)]
pub struct Usual {
    /// Kept until there are enough to start from; then empty for good.
    initial: Option<Vec<f64>>,
    pub level: f64,
    /// Windows behind the level.
    weight: f64,
    /// Robust standard deviation.
    pub sigma: f64,
    windows: u64,
    series: Series,
    scales: Scales,
    shape: Shape,
    /// Sums of x^2, of x times its predecessor, and their number.
    square_sum: f64,
    lagged_sum: f64,
    pairs: f64,
    /// What lies within `reach` standard deviations counts in full.
    reach: f64,
    pub terms: Terms,
}

/// What bets are made by.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Deviations up to this are usual.
    pub band: f64,
    /// Largest deviation beyond the band that counts.
    pub clip: f64,
    /// One over the standard deviation of the long run.
    pub precision: f64,
    /// e^-price of each bet.
    pub discount: [f64; BETS],
}

/// Level and bets of a series whose noise is known.
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    pub level: f64,
    pub terms: Terms,
}

impl Usual {
    pub fn new(p: &Parameters) -> Self {
        Self {
            initial: Some(Vec::new()),
            level: 0.0,
            weight: 0.0,
            sigma: p.scale_floor,
            windows: 0,
            series: Series::EMPTY,
            scales: Scales::default(),
            shape: Shape::default(),
            square_sum: 0.0,
            lagged_sum: 0.0,
            pairs: 0.0,
            reach: p.clip,
            terms: Terms { band: 1.0, clip: 1.0, precision: 1.0, discount: [0.0; BETS] },
        }
    }

    /// Whether level and scale are known.
    pub fn is_ready(&self) -> bool {
        self.initial.is_none()
    }

    /// Whether enough was learned to tell what is not usual.
    pub fn has_baseline(&self, p: &Parameters) -> bool {
        self.is_ready() && self.windows >= p.stretch_baseline_windows
    }

    pub fn norm(&self, p: &Parameters) -> Option<Norm> {
        self.has_baseline(p).then_some(Norm { level: self.level, terms: self.terms })
    }

    /// Standard deviation, with the tails that the robust one leaves out.
    pub fn deviation(&self) -> f64 {
        let variance = if self.pairs > 0.0 { self.square_sum / self.pairs } else { 0.0 };
        variance.sqrt().max(self.sigma)
    }

    /// Learns from one window. `delta` is what counts as a change.
    pub fn learn(&mut self, x: f64, delta: f64, p: &Parameters) {
        let Some(first) = &mut self.initial else {
            self.learn_one(x, delta, p);
            return;
        };
        first.push(x);
        if first.len() >= p.initial_windows
            && let Some(mut first) = self.initial.take()
        {
            let in_order = first.clone();
            self.level = median(&mut first);
            let mut distances: Vec<f64> = first.iter().map(|x| (x - self.level).abs()).collect();
            // 1.4826 makes the median absolute deviation a standard deviation for normal noise.
            self.sigma = (1.4826 * median(&mut distances)).max(p.scale_floor);
            self.weight = START_WEIGHT;
            in_order.into_iter().for_each(|x| self.learn_one(x, delta, p));
            self.derive(delta, p);
        }
    }

    fn learn_one(&mut self, x: f64, delta: f64, p: &Parameters) {
        self.windows += 1;
        let limit = self.reach * self.sigma;
        let residual = x - self.level;
        let x = residual.clamp(-limit, limit);
        if self.windows > SHAPE_AFTER {
            self.shape.add(x / self.sigma);
        }
        self.weight = (self.weight + 1.0).min(p.stretch_reference_windows as f64);
        self.level += x / self.weight;
        let previous = self.series.previous();
        self.scales.learn(&mut self.series, x, 1, true);
        if !previous.is_nan() {
            self.pairs += 1.0;
            self.square_sum += x * x;
            self.lagged_sum += x * previous;
        }
        // Streaming MAD: half of normal noise lies within 0.6745 standard deviations.
        let outside = if residual.abs() > 0.6745 * self.sigma { 1.0 } else { -1.0 };
        self.sigma = (self.sigma * (1.0 + SCALE_RATE * outside)).max(p.scale_floor);
        if self.windows.is_multiple_of(REFRESH_WINDOWS) {
            self.derive(delta, p);
        }
    }

    /// Refreshes [`Terms`] by the judge's own estimates: the largest variance over blocks of any length, what autocorrelation
    /// asks for, and what the worst excursion does.
    fn derive(&mut self, delta: f64, p: &Parameters) {
        self.shape.fade();
        let blocks = self.scales.long_run(p);
        let mut variance = blocks.variance;
        if self.pairs > 20.0 {
            let phi = ((self.lagged_sum / (self.square_sum + 1e-300)).max(0.0) + 0.5 / self.pairs.sqrt()).min(0.97);
            variance = variance.max(self.square_sum / self.pairs * (1.0 + phi) / (1.0 - phi));
        }
        if variance <= 0.0 {
            variance = self.sigma * self.sigma;
        }
        let noisy = self.scales.noisy_hour();
        let excursions = noisy * blocks.excursions.max(variance);
        self.reach = (p.stretch_clip * variance.sqrt() / self.sigma).clamp(p.clip, REACH);
        let clip = self.reach * self.sigma;
        let precision = 1.0 / excursions.sqrt();
        self.terms = Terms {
            band: delta + p.margin_multiplier * (noisy * variance / self.weight + blocks.wander).sqrt(),
            clip,
            precision,
            discount: self.shape.discounts(p.smallest_bet, self.sigma * precision, clip * precision),
        };
    }

    /// The level is learned anew from near where it was.
    pub fn soften(&mut self, p: &Parameters) {
        self.series.cut();
        self.weight = self.weight.min(WEIGHT_AFTER_CHANGE);
        self.terms.band =
            self.terms.band.max(p.margin_multiplier / (self.terms.precision * self.weight.max(1.0).sqrt()));
    }

    /// Takes another level for the usual one.
    pub fn adopt(&mut self, level: f64, p: &Parameters) {
        self.level = level;
        self.soften(p);
    }
}

/// Mean of the two middle values for an even number; 0 for no value.
pub fn median(values: &mut [f64]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { 0.5 * (values[middle - 1] + values[middle]) } else { values[middle] }
}
