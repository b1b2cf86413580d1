//! Sums over blocks of 1, 2, ... 512 windows: how much memory the noise has, and how bad its excursions get.

use crate::judge::parameters::Parameters;

/// Block lengths 2^0 to 2^9.
const SCALES: usize = 10;
/// Blocks of one length needed before their variance is used.
const BLOCKS_NEEDED: f64 = 12.0;
/// Scales (lengths 1 to 8) whose variance is also followed with a short memory.
const RECENT_SCALES: usize = 4;
/// Length of that short memory, in windows.
const RECENT_WINDOWS: f64 = 48.0;

/// One series of differences that noise is learned from.
#[derive(Clone, Debug)]
pub struct Series {
    pub offset_sum: f64,
    pub offset_n: f64,
    /// Sums of the blocks that are not complete yet, by scale.
    blocks: [f64; SCALES],
    /// Residuals in the blocks; block h is complete when this is a multiple of 2^h.
    residuals: u64,
    pub previous: f64,
}

impl Series {
    pub const EMPTY: Series =
        Series { offset_sum: 0.0, offset_n: 0.0, blocks: [0.0; SCALES], residuals: 0, previous: f64::NAN };

    pub fn offset(&self) -> f64 {
        self.offset_sum / self.offset_n.max(1.0)
    }

    /// Drops blocks that are not complete.
    pub fn cut(&mut self) {
        self.blocks = [0.0; SCALES];
        self.residuals = 0;
        self.previous = f64::NAN;
    }

    /// Adds a residual and hands each block that it completes to `complete`, with its scale and sum.
    fn add(&mut self, x: f64, mut complete: impl FnMut(usize, f64)) {
        self.residuals += 1;
        for (h, block) in self.blocks.iter_mut().enumerate() {
            *block += x;
            if self.residuals.is_multiple_of(1 << h) {
                complete(h, std::mem::take(block));
            }
        }
    }
}

/// Complete blocks of one length B, pooled over the series; S is a block's sum.
#[derive(Clone, Copy, Debug, Default)]
struct Scale {
    /// Sum of S^2/B.
    energy: f64,
    blocks: f64,
    /// Largest S^2/B with S > 0: the worst excursion in the bad direction.
    worst: f64,
    /// Blocks of which only the excursions were learned.
    mirrored: f64,
    /// S^2/B with a short memory.
    recent: f64,
}

/// All lengths.
#[derive(Clone, Debug, Default)]
pub struct Scales([Scale; SCALES]);

impl Scales {
    /// Learns from one residual. `either_way`: excursions in the good direction count as well.
    pub fn learn(&mut self, series: &mut Series, x: f64, placebos: usize, either_way: bool) {
        series.add(x, |h, sum| {
            let scale = &mut self.0[h];
            let length = (1u64 << h) as f64;
            let energy = sum * sum / length;
            scale.energy += energy;
            scale.blocks += 1.0;
            if h < RECENT_SCALES {
                let memory = length / (RECENT_WINDOWS * placebos.max(1) as f64);
                scale.recent += memory.min(0.25).max(1.0 / scale.blocks) * (energy - scale.recent);
            }
            if (sum > 0.0 || either_way) && energy > scale.worst {
                scale.worst = energy;
            }
        });
    }

    /// Learns nothing but the worst excursion, and only from the good direction.
    pub fn learn_mirrored(&mut self, series: &mut Series, x: f64) {
        series.add(x, |h, sum| {
            let scale = &mut self.0[h];
            scale.mirrored += 1.0;
            let energy = sum * sum / (1u64 << h) as f64;
            if sum < 0.0 && energy > scale.worst {
                scale.worst = energy;
            }
        });
    }

    fn usable(&self) -> impl Iterator<Item = (usize, &Scale)> {
        self.0.iter().enumerate().filter(|(_, s)| s.blocks >= BLOCKS_NEEDED)
    }

    /// Long-run variance per window (the largest over the lengths, or what the worst excursion asks for), and the
    /// variance of block means at the longest usable length. Both 0 while no length is usable.
    pub fn variance_and_wander(&self, p: &Parameters) -> (f64, f64) {
        let (mut variance, mut wander) = (0.0f64, 0.0);
        for (h, scale) in self.usable() {
            let mean = scale.energy / scale.blocks;
            wander = mean / (1u64 << h) as f64;
            let factor = if scale.mirrored > 0.0 { p.excursion_factor_pair } else { p.excursion_factor };
            let excursion = factor * scale.worst / (2.0 * (scale.blocks + scale.mirrored).ln());
            variance = variance.max(mean).max(excursion);
        }
        (variance, wander)
    }

    /// Factor for a time that is noisier than usual, at least 1.
    pub fn noisy_hour(&self) -> f64 {
        let recent = self.usable().filter(|(h, _)| *h < RECENT_SCALES);
        recent.fold(1.0, |most, (_, s)| most.max(0.8 * s.recent / (s.energy / s.blocks + 1e-300)))
    }
}
