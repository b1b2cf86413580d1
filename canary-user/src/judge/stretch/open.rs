//! A stretch that goes on: how large it is, what shape it has, and when it is over.

use super::{
    Found, Held, Moment,
    usual::{Usual, median},
};
use crate::judge::{parameters::Parameters, verdict::StretchShape};

/// Deviations that are kept of a stretch; of longer ones every second, fourth, ... window.
const SAMPLES: usize = 64;
/// A stretch turns where it is so many usual standard deviations from its own mean, and this share of that mean; it is back
/// from that within this part of the way.
const TURN: f64 = 2.5;
const TURN_SHARE: f64 = 0.5;
const TURNED_BACK: f64 = 0.5;
/// Turns that make an oscillation at least.
const LEAST_TURNS: u64 = 4;
/// Standard errors by which a slope has to be clear of the noise.
const SLOPE_ERRORS: f64 = 2.5;
/// The deviation either way that is the size of an oscillation: one window in ten exceeds it.
const OSCILLATION_QUANTILE: f64 = 0.9;

/// The stretch under way.
#[derive(Clone, Debug)]
pub struct Open {
    start: Moment,
    found: Moment,
    latest: Moment,
    /// Deviations from the usual level, each with its place.
    samples: Vec<(f32, f32)>,
    /// Every so many windows one is kept.
    step: u64,
    windows: u64,
    sum: f64,
    swing_sum: f64,
    /// Excursions from the stretch's own mean, and the side it is on.
    turns: u64,
    side: i8,
    level: Back,
    swing: Back,
    /// Variance of the long run, for the error of a slope.
    variance: f64,
}

/// Evidence that one series is back: the log likelihood of "as usual" over "still so far away", since it was last at 0.
#[derive(Clone, Copy, Debug, Default)]
struct Back {
    evidence_ln: f64,
    /// Windows since.
    windows: u64,
    /// It never was away.
    idle: bool,
}

impl Back {
    fn observe(&mut self, deviation: f64, size: f64, usual: &Usual) {
        self.idle = size.abs() <= usual.terms.band;
        let scale = usual.terms.precision * usual.terms.precision;
        self.evidence_ln += (0.5 * size * size - size * deviation) * scale;
        self.windows += 1;
        if self.evidence_ln <= 0.0 {
            *self = Self { idle: self.idle, ..Self::default() };
        }
    }

    fn is_back(&self, p: &Parameters) -> bool {
        self.idle || (self.windows >= p.stretch_back_windows && self.evidence_ln >= libm::log(p.stretch_run_length))
    }
}

impl Open {
    pub fn new(start: Moment, found: Moment) -> Self {
        Self {
            start,
            found,
            latest: found,
            samples: Vec::with_capacity(SAMPLES),
            step: 1,
            windows: 0,
            sum: 0.0,
            swing_sum: 0.0,
            turns: 0,
            side: 0,
            level: Back::default(),
            swing: Back::default(),
            variance: 0.0,
        }
    }

    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.samples.capacity() * size_of::<(f32, f32)>()
    }

    pub fn start(&self) -> Moment {
        self.start
    }

    /// Takes one of its windows.
    pub fn take(&mut self, held: &Held, level: &Usual, swing: &Usual) {
        let deviation = held.level - level.level;
        let place = held.at.index.saturating_sub(self.start.index) as f32;
        if self.samples.len() == SAMPLES {
            let mut keep = false;
            self.samples.retain(|_| {
                keep = !keep;
                keep
            });
            self.step *= 2;
        }
        if self.windows.is_multiple_of(self.step) {
            self.samples.push((place, deviation as f32));
        }
        self.windows += 1;
        self.sum += deviation;
        if !held.swing.is_nan() {
            self.swing_sum += held.swing - swing.level;
        }
        let mean = self.sum / self.windows as f64;
        // A step to where the noise is larger is not an oscillation.
        let far = (TURN * level.deviation()).max(TURN_SHARE * mean.abs());
        let from_mean = (deviation - mean) / far;
        let side = i8::from(from_mean > 1.0) - i8::from(from_mean < -1.0);
        if side != 0 && side != self.side {
            self.turns += 1;
            self.side = side;
        } else if from_mean.abs() < TURNED_BACK {
            self.side = 0;
        }
        self.latest = held.at;
        self.variance = 1.0 / (level.terms.precision * level.terms.precision);
    }

    /// Looks at a window after it was found. Answers whether the stretch still goes on in it, and with that in all windows
    /// before it.
    pub fn is_out(&mut self, held: &Held, level: &Usual, swing: &Usual, p: &Parameters) -> bool {
        let (size, n) = (self.median(), self.windows.max(1) as f64);
        self.level.observe(held.level - level.level, size, level);
        if swing.has_baseline(p) {
            self.swing.observe(held.swing - swing.level, self.swing_sum / n, swing);
        } else {
            self.swing.idle = true;
        }
        let away = |back: &Back| !back.idle && back.windows == 0;
        away(&self.level) || away(&self.swing)
    }

    /// Its latest window.
    pub fn latest(&self) -> Moment {
        self.latest
    }

    /// The last window outside, once that is sure.
    pub fn end(&self, p: &Parameters) -> Option<Moment> {
        let parts = [&self.level, &self.swing];
        parts.iter().all(|b| b.is_back(p)).then_some(self.latest)
    }

    pub fn found(&self, end: Option<Moment>, became_usual: bool, p: &Parameters) -> Found {
        let shape = self.shape(end, p);
        let size = if shape == StretchShape::Oscillation { self.swing_size() } else { self.median() };
        Found { start: self.start, found: self.found, end, became_usual, size, shape }
    }

    fn shape(&self, end: Option<Moment>, p: &Parameters) -> StretchShape {
        let windows = end.unwrap_or(self.latest).index.saturating_sub(self.start.index) + 1;
        let turns = self.turns >= LEAST_TURNS && self.turns as f64 >= p.stretch_turn_share * self.windows as f64;
        match turns {
            false if windows <= p.stretch_burst_windows => StretchShape::Burst,
            // A noisy ramp crosses its own mean often, too.
            _ if self.drifts(p) => StretchShape::Drift,
            true => StretchShape::Oscillation,
            false => StretchShape::Step,
        }
    }

    /// Whether a straight line through it rises (or falls) by much of its size, away from the usual.
    fn drifts(&self, p: &Parameters) -> bool {
        let n = self.samples.len() as f64;
        let (mut places, mut values) = (0.0, 0.0);
        for (place, value) in &self.samples {
            places += f64::from(*place) / n;
            values += f64::from(*value) / n;
        }
        let (mut both, mut square, mut total, mut length) = (0.0, 0.0, 0.0, 0.0f64);
        for (place, value) in &self.samples {
            let (place, value) = (f64::from(*place) - places, f64::from(*value) - values);
            both += place * value;
            square += place * place;
            total += value * value;
            length = length.max(2.0 * place);
        }
        if n < 3.0 || square <= 0.0 {
            return false;
        }
        let slope = both / square;
        let residual = (total - slope * both).max(0.0) / (n - 2.0);
        let error = (self.variance.max(residual) / square).sqrt();
        let rises = slope * values > 0.0 && slope.abs() > SLOPE_ERRORS * error;
        rises && slope.abs() * length >= 2.0 * p.stretch_drift_share * values.abs()
    }

    fn median(&self) -> f64 {
        median(&mut self.samples.iter().map(|(_, d)| f64::from(*d)).collect::<Vec<_>>())
    }

    fn swing_size(&self) -> f64 {
        let mut sizes: Vec<f64> = self.samples.iter().map(|(_, d)| f64::from(d.abs())).collect();
        sizes.sort_by(f64::total_cmp);
        let place = (OSCILLATION_QUANTILE * sizes.len().saturating_sub(1) as f64).round() as usize;
        sizes.get(place).copied().unwrap_or(0.0)
    }
}
