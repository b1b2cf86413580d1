//! Sums over blocks of 1, 2, ... 512 windows: how much memory the noise has, and how bad its excursions get.

use crate::judge::parameters::Parameters;

/// Block lengths 2^0 to 2^9.
const SCALES: usize = 10;
/// Blocks of one length needed before their variance is used.
const BLOCKS_NEEDED: f32 = 12.0;
/// Scales (lengths 1 to 8) whose variance is also followed with a short memory.
const RECENT_SCALES: usize = 4;
/// Scale from which on blocks are long enough for an excursion: 8 windows.
const EXCURSION_SCALE: usize = 3;
/// Length of that short memory, in windows.
const RECENT_WINDOWS: f32 = 48.0;
/// One over each length.
const SHARES: [f64; SCALES] = [1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625, 0.001953125];

/// Most windows that an offset remembers.
const OFFSET_MEMORY: f32 = 7200.0;
/// Blocks after which the older ones count half, so that sums in single precision go on adding up.
const BLOCKS_MEMORY: f32 = 1_048_576.0;

/// One series of differences that noise is learned from. Single precision where nothing adds up over a long time.
#[derive(Clone, Debug)]
pub struct Series {
    /// Mean difference, and the windows behind it.
    pub offset: f64,
    pub offset_n: f32,
    /// Residuals in the blocks so far.
    residuals: u32,
    /// By scale: sum of the block that waits for the other half of the next longer one.
    halves: [f32; SCALES - 1],
    pub previous: f32,
}

impl Series {
    pub const EMPTY: Series =
        Series { offset: 0.0, offset_n: 0.0, residuals: 0, halves: [0.0; SCALES - 1], previous: f32::NAN };

    /// Takes a residual into the offset.
    pub fn learn_offset(&mut self, x: f64) {
        if self.offset_n >= OFFSET_MEMORY {
            self.offset_n *= 0.5;
        }
        self.offset_n += 1.0;
        self.offset += x / f64::from(self.offset_n);
    }

    /// Drops blocks that are not complete.
    pub fn cut(&mut self) {
        self.residuals = 0;
        self.previous = f32::NAN;
    }

    /// Adds a residual and hands each block that it completes to `complete`, with its scale and sum.
    fn add(&mut self, x: f64, mut complete: impl FnMut(usize, f64)) {
        let place = self.residuals;
        self.residuals = self.residuals.wrapping_add(1);
        let mut sum = x;
        complete(0, sum);
        for (h, half) in self.halves.iter_mut().enumerate() {
            if place >> h & 1 == 0 {
                *half = sum as f32;
                return;
            }
            sum += f64::from(*half);
            complete(h + 1, sum);
        }
    }
}

/// Complete blocks of one length B, pooled over the series; S is a block's sum.
#[derive(Clone, Copy, Debug, Default)]
struct Scale {
    /// Sum of S^2/B.
    energy: f32,
    blocks: f32,
    /// Largest S^2/B with S > 0: the worst excursion in the bad direction.
    worst: f32,
    /// Blocks of which only the excursions were learned.
    mirrored: f32,
    /// S^2/B with a short memory.
    recent: f32,
}

/// What blocks of all usable lengths say; 0 while no length is usable.
#[derive(Clone, Copy, Debug, Default)]
pub struct LongRun {
    /// Long-run variance per window: the largest over the lengths, or what the worst excursion asks for.
    pub variance: f64,
    /// The same with room for bursts that are longer than those seen.
    pub excursions: f64,
    /// Variance of block means at the longest usable length.
    pub wander: f64,
}

/// All lengths.
#[derive(Clone, Debug, Default)]
pub struct Scales([Scale; SCALES]);

impl Scales {
    /// Learns from one residual. `either_way`: excursions in the good direction count as well.
    pub fn learn(&mut self, series: &mut Series, x: f64, placebos: usize, either_way: bool) {
        let per_window = 1.0 / (RECENT_WINDOWS * placebos.max(1) as f32);
        series.add(x, |h, sum| {
            let scale = &mut self.0[h];
            let energy = (sum * sum * SHARES[h]) as f32;
            scale.energy += energy;
            scale.blocks += 1.0;
            if scale.blocks > BLOCKS_MEMORY {
                scale.energy *= 0.5;
                scale.blocks *= 0.5;
            }
            if h < RECENT_SCALES {
                let memory = (1u32 << h) as f32 * per_window;
                let early = if scale.blocks < 100.0 * placebos as f32 { 1.0 / scale.blocks } else { 0.0 };
                scale.recent += memory.min(0.25).max(early) * (energy - scale.recent);
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
            let energy = (sum * sum * SHARES[h]) as f32;
            if sum < 0.0 && energy > scale.worst {
                scale.worst = energy;
            }
        });
    }

    fn usable(&self) -> impl Iterator<Item = (usize, &Scale)> {
        self.0.iter().enumerate().filter(|(_, s)| s.blocks >= BLOCKS_NEEDED)
    }

    /// What the blocks say of the noise.
    pub fn long_run(&self, p: &Parameters) -> LongRun {
        let mut all = LongRun::default();
        for (h, scale) in self.usable() {
            let mean = f64::from(scale.energy / scale.blocks);
            all.wander = mean * SHARES[h];
            // The largest of several estimates is too large by chance: those of few blocks count by what is sure of them.
            let sure = mean * (1.0 - p.few_blocks_discount * (2.0 / f64::from(scale.blocks)).sqrt());
            all.variance = all.variance.max(sure);
            all.excursions = all.excursions.max(sure);
            let worst = f64::from(scale.worst);
            // Shorter ones are no excursions but single windows, which the price of the bets takes in. At least 12 blocks:
            // twice their logarithm is above 4.
            if h >= EXCURSION_SCALE && worst * p.burst_factor > 4.0 * all.variance {
                let usual = worst / (2.0 * libm::log(f64::from(scale.blocks + scale.mirrored)));
                let factor = if scale.mirrored > 0.0 { p.excursion_factor_pair } else { p.excursion_factor };
                all.variance = all.variance.max(factor * usual);
                // Normal noise has no more than the mean here. What has more comes in bursts, and longer ones may come.
                let bursts = ((usual / mean - 1.5) / 0.5).clamp(0.0, 1.0);
                let factor = factor + bursts * (p.burst_factor - factor).max(0.0);
                all.excursions = all.excursions.max(factor * usual);
            }
        }
        all
    }

    /// Factor for a time that is noisier than usual, at least 1.
    pub fn noisy_hour(&self) -> f64 {
        let recent = self.usable().filter(|(h, _)| *h < RECENT_SCALES);
        recent.fold(1.0, |most, (_, s)| most.max(0.8 * f64::from(s.recent * s.blocks / (s.energy + f32::MIN_POSITIVE))))
    }
}
