//! Whether the canary's readings jump more from window to window than stable's, at the same mean: spikes and variance.
//!
//! Each instance's mean step u of |x(t) - x(t-1)| over four windows, in units of stable's usual step, is taken as
//! sqrt(1 + u) and then compared like any other reading, paired and against placebos: the root lets one large step count
//! for more than a small one, but not for as much as many. Where readings come from few requests, steps are larger for
//! that alone: the frame says by how much the canary's are to be taken smaller.

use super::{
    differences::{Differences, PLACEBOS, StableSide},
    noise::Noise,
    track::Track,
};
use crate::judge::parameters::{Parameters, Tolerance};

/// Blocks that the usual step remembers.
const MEMORY_STEPS: f32 = 500.0;
/// A block counts at most so many times the usual step when that is learned.
const STEP_LIMIT: f32 = 10.0;

/// Windows whose steps are taken together.
pub const BLOCK_WINDOWS: u64 = 4;

/// The companion of one indicator.
#[derive(Clone, Debug)]
pub struct Spread {
    pub track: Track,
    stable: [Steps; PLACEBOS],
    canary: Steps,
    /// Mean step of stable and the number of steps behind it.
    usual: f32,
    usual_n: f32,
}

/// Steps of one instance in the block under way.
#[derive(Clone, Copy, Debug)]
struct Steps {
    previous: f32,
    sum: f32,
    n: f32,
}

impl Steps {
    const NONE: Steps = Steps { previous: f32::NAN, sum: 0.0, n: 0.0 };

    fn add(&mut self, level: f64) {
        let level = level as f32;
        let step = (level - self.previous).abs();
        self.previous = level;
        // NaN where either is missing.
        if step >= 0.0 {
            self.sum += step;
            self.n += 1.0;
        }
    }

    /// Mean step of the block, which ends. NaN where more than half of it is missing.
    fn take(&mut self) -> f32 {
        let mean = if 2.0 * self.n >= BLOCK_WINDOWS as f32 { self.sum / self.n } else { f32::NAN };
        (self.sum, self.n) = (0.0, 0.0);
        mean
    }
}

impl Spread {
    pub fn new(p: &Parameters) -> Self {
        let tolerance = Tolerance { delta: p.spread_delta, ..Tolerance::default() };
        Self {
            track: Track::new(Noise::clipped(p, p.spread_clip), tolerance).one_sided(),
            stable: [Steps::NONE; PLACEBOS],
            canary: Steps::NONE,
            usual: 0.0,
            usual_n: 0.0,
        }
    }

    /// Takes a window in.
    pub fn observe(&mut self, d: &Differences) {
        self.stable.iter_mut().zip(d.levels).for_each(|(steps, level)| steps.add(level));
        self.canary.add(d.canary_level);
    }

    /// Differences of the roots of the block that ends.
    pub fn differences(&mut self, canary_scale: f64) -> Differences {
        let known = self.usual > 0.0;
        let per_usual = 1.0 / f64::from(self.usual);
        let root = |step: f64| if known { (1.0 + step * per_usual).sqrt() } else { f64::NAN };
        let mut side = StableSide::default();
        for (j, steps) in self.stable.iter_mut().enumerate() {
            let step = steps.take();
            if step.is_nan() {
                continue;
            }
            side.add(Some(j), root(f64::from(step)));
            self.usual_n = (self.usual_n + 1.0).min(MEMORY_STEPS);
            let bounded = if known { step.min(STEP_LIMIT * self.usual) } else { step };
            self.usual += (bounded - self.usual) / self.usual_n;
        }
        side.pair(root(f64::from(self.canary.take()) * canary_scale))
    }

    /// Another canary.
    pub fn reset(&mut self) {
        self.canary = Steps::NONE;
        self.track.reset(true);
    }
}
