//! Whether the canary's readings jump more from window to window than stable's, at the same mean: spikes and variance.
//!
//! Each instance's mean step u of |x(t) - x(t-1)| over four windows, in units of stable's usual step, is taken as
//! sqrt(1 + u) and then compared like any other reading, paired and against placebos: the root lets one large step count
//! for more than a small one, but not for as much as many. Where readings come from few requests, steps are larger for
//! that alone: the frame says by how much the canary's are to be taken smaller.

use super::{
    bets::Restarts,
    differences::{Differences, PLACEBOS, SERIES, StableSide},
    noise::{Kind, Noise, Sides, Terms},
    track::Worse,
};
use crate::judge::{earlier::Known, parameters::Parameters};

/// Blocks that the usual step remembers.
const MEMORY_STEPS: u16 = 500;
/// A block counts at most so many times the usual step when that is learned.
const STEP_LIMIT: f32 = 10.0;

/// Windows whose steps are taken together.
pub const BLOCK_WINDOWS: u64 = 4;

/// The canary's place among the steps.
const CANARY: usize = PLACEBOS;

/// The companion of one indicator.
#[derive(Clone, Debug)]
pub struct Spread {
    pub noise: Noise,
    margin: f64,
    /// Where the canary is expected to be, and the largest deviation that counts.
    offset: f64,
    clip: f64,
    terms: Terms,
    worse: Worse,
    steps: Steps,
}

/// Steps of each instance in the block under way: the placebos, and the mean of the canary as the last.
#[derive(Clone, Debug)]
struct Steps {
    previous: [f32; SERIES],
    sum: [f32; SERIES],
    n: [u8; SERIES],
    /// Mean step of stable and the number of steps behind it.
    usual: f32,
    usual_n: u16,
}

impl Steps {
    const NONE: Steps =
        Steps { previous: [f32::NAN; SERIES], sum: [0.0; SERIES], n: [0; SERIES], usual: 0.0, usual_n: 0 };

    fn add(&mut self, levels: &[f64; PLACEBOS], canary: f64) {
        for (j, level) in levels.iter().chain([&canary]).enumerate() {
            let now = *level as f32;
            let previous = std::mem::replace(&mut self.previous[j], now);
            if now.is_nan() || previous.is_nan() {
                continue;
            }
            self.sum[j] += (now - previous).abs();
            self.n[j] += 1;
        }
    }

    fn learn_usual(&mut self, step: f32) {
        self.usual_n = (self.usual_n + 1).min(MEMORY_STEPS);
        self.usual += (step - self.usual) / f32::from(self.usual_n);
    }

    /// Mean step of the block, which ends. NaN where more than half of it is missing.
    fn take(&mut self, j: usize) -> f32 {
        let n = f32::from(std::mem::take(&mut self.n[j]));
        let sum = std::mem::take(&mut self.sum[j]);
        if 2.0 * n >= BLOCK_WINDOWS as f32 { sum / n } else { f32::NAN }
    }
}

impl Spread {
    pub fn new(p: &Parameters) -> Self {
        Self {
            noise: Noise::new(Kind::Steps, p),
            margin: 1.0,
            offset: 0.0,
            clip: 0.0,
            // Nothing is bet before the noise is known.
            terms: Terms::UNKNOWN,
            worse: Worse::NONE,
            steps: Steps::NONE,
        }
    }

    /// Takes a window in.
    pub fn observe(&mut self, d: &Differences) {
        self.steps.add(&d.levels, d.canary_level);
    }

    /// Refreshes what follows from the noise.
    pub fn refresh(&mut self, sides: Sides, p: &Parameters) {
        // A canary that jumps more is what is looked for here: its own steps do not excuse it.
        let estimates = self.noise.estimate(None, sides, p);
        self.terms = self.noise.terms(&estimates, estimates.excursions, p.smallest_bet);
        (self.offset, self.clip) = (estimates.offset, estimates.clip);
        self.margin = p.spread_delta
            + p.margin_multiplier * self.noise.offset_spread(&estimates, sides, p.spread_tau0, &Known::default(), p);
    }

    pub fn put_in(&mut self, weight: f64, p: &Parameters) {
        self.worse.put_in(weight, p);
    }

    /// Bets on the canary's difference in window `index`.
    pub fn bet(&mut self, canary: f64, index: u64, p: &Parameters) {
        if !canary.is_nan() {
            self.worse.bet(canary - self.offset - self.margin, self.clip, &self.terms, index, p);
        }
    }

    /// The e-value against "not worse than the margin".
    pub fn evidence(&self, restarts: &Restarts) -> f64 {
        self.worse.evidence(restarts)
    }

    /// Window at which the current run of evidence began.
    pub fn run_start(&self) -> Option<u64> {
        self.worse.run_start()
    }

    /// Differences of the roots of the block that ends.
    pub fn differences(&mut self, canary_scale: f64) -> Differences {
        let steps = &mut self.steps;
        let known = steps.usual > 0.0;
        let per_usual = 1.0 / f64::from(steps.usual);
        let root = |step: f64| if known { (1.0 + step * per_usual).sqrt() } else { f64::NAN };
        let mut side = StableSide::default();
        for j in 0..PLACEBOS {
            let step = steps.take(j);
            if step.is_nan() {
                continue;
            }
            side.add(j, root(f64::from(step)));
            steps.learn_usual(if known { step.min(STEP_LIMIT * steps.usual) } else { step });
        }
        side.pair(root(f64::from(steps.take(CANARY)) * canary_scale))
    }

    /// Drops evidence.
    pub fn reset(&mut self) {
        self.worse = Worse::NONE;
    }

    /// Another canary: evidence is dropped, and the steps of the one before.
    pub fn forget_canary(&mut self) {
        self.reset();
        self.steps.previous[CANARY] = f32::NAN;
        self.steps.take(CANARY);
    }
}
