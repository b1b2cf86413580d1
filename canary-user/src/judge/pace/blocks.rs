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
const EXCURSION_SCALES: usize = SCALES - EXCURSION_SCALE;
/// Length of that short memory, in windows.
const RECENT_WINDOWS: f32 = 48.0;
/// One over each length.
const SHARES: [f64; SCALES] = [1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625, 0.001953125];

/// Windows in the longest block.
const LONGEST: u16 = 1 << (SCALES - 1);

/// Most windows that an offset remembers.
const OFFSET_MEMORY: u16 = 7200;
/// Blocks after which the older ones count half, so that sums in single precision go on adding up.
const BLOCKS_MEMORY: f32 = 1_048_576.0;

/// One series of differences that noise is learned from, as blocks that are not complete. Single precision where nothing
/// adds up over a long time.
#[derive(Clone, Debug)]
pub struct Series {
    /// Residuals in the blocks so far, modulo the longest block.
    place: u16,
    /// Windows behind the mean difference.
    pub offset_n: u16,
    /// By scale: sum of the block that waits for the other half of the next longer one. The first is the latest residual in
    /// any case, NaN before there is one.
    halves: [f32; SCALES - 1],
}

const NO_HALVES: [f32; SCALES - 1] = {
    let mut halves = [0.0; SCALES - 1];
    halves[0] = f32::NAN;
    halves
};

impl Series {
    pub const EMPTY: Series = Series { place: 0, offset_n: 0, halves: NO_HALVES };

    /// Takes a residual into the mean difference.
    pub fn learn_offset(&mut self, offset: &mut f64, residual: f64) {
        if self.offset_n >= OFFSET_MEMORY {
            self.offset_n /= 2;
        }
        self.offset_n += 1;
        *offset += residual / f64::from(self.offset_n);
    }

    /// The latest residual, NaN where none came since the last cut.
    pub fn previous(&self) -> f64 {
        f64::from(self.halves[0])
    }

    /// Drops blocks that are not complete.
    pub fn cut(&mut self) {
        self.place = 0;
        self.halves[0] = f32::NAN;
    }

    /// Adds a residual and hands each block that it completes to `complete`, with its scale and sum.
    #[inline(always)]
    fn add(&mut self, x: f64, mut complete: impl FnMut(usize, f64)) {
        let place = self.place;
        self.place = (place + 1) % LONGEST;
        complete(0, x);
        let first = f64::from(std::mem::replace(&mut self.halves[0], x as f32));
        if place & 1 == 0 {
            return;
        }
        let mut sum = x + first;
        complete(1, sum);
        for (h, half) in self.halves.iter_mut().enumerate().skip(1) {
            if place >> h & 1 == 0 {
                *half = sum as f32;
                return;
            }
            sum += f64::from(*half);
            complete(h + 1, sum);
        }
    }
}

/// What blocks of all usable lengths say; 0 while no length is usable.
#[derive(Clone, Copy, Debug, Default)]
pub struct LongRun {
    /// Long-run variance per window: the largest over the lengths, or what the worst excursion asks for.
    pub variance: f64,
    /// The same with room for bursts that are longer than those seen.
    pub excursions: f64,
    /// Variance of block means at the longest usable length, less a part of what shorter blocks explain of it.
    pub wander: f64,
}

/// Complete blocks by their length B, pooled over the series; S is a block's sum.
#[derive(Clone, Debug, Default)]
pub struct Scales {
    /// Sum of S^2/B.
    energy: [f32; SCALES],
    blocks: [f32; SCALES],
    /// S^2/B with a short memory.
    recent: [f32; RECENT_SCALES],
    /// Largest S^2/B with S > 0: the worst excursion in the bad direction.
    worst: [f32; EXCURSION_SCALES],
    /// Blocks of which only the excursions were learned.
    mirrored: [f32; EXCURSION_SCALES],
}

impl Scales {
    /// Learns from one residual. `either_way`: excursions in the good direction count as well.
    #[inline(always)]
    pub fn learn(&mut self, series: &mut Series, x: f64, placebos: usize, either_way: bool) {
        let placebos = placebos as u16;
        let per_window = 1.0 / (RECENT_WINDOWS * f32::from(placebos.max(1)));
        let first = 100.0 * f32::from(placebos);
        series.add(x, |h, sum| {
            let energy = (sum * sum * SHARES[h]) as f32;
            self.energy[h] += energy;
            self.blocks[h] += 1.0;
            if self.blocks[h] > BLOCKS_MEMORY {
                self.energy[h] *= 0.5;
                self.blocks[h] *= 0.5;
            }
            if let Some(recent) = self.recent.get_mut(h) {
                let mut weight = ((1u32 << h) as f32 * per_window).min(0.25);
                if self.blocks[h] < first {
                    // The first blocks count alike.
                    let alike = 1.0 / self.blocks[h];
                    weight = if alike > weight { alike } else { weight };
                }
                *recent += weight * (energy - *recent);
            }
            if h >= EXCURSION_SCALE && (sum > 0.0 || either_way) {
                let worst = &mut self.worst[h - EXCURSION_SCALE];
                *worst = worst.max(energy);
            }
        });
    }

    /// Learns nothing but the worst excursion, and only from the good direction.
    pub fn learn_mirrored(&mut self, series: &mut Series, x: f64) {
        series.add(x, |h, sum| {
            let Some(excursion) = h.checked_sub(EXCURSION_SCALE) else { return };
            self.mirrored[excursion] += 1.0;
            let energy = (sum * sum * SHARES[h]) as f32;
            if sum < 0.0 && energy > self.worst[excursion] {
                self.worst[excursion] = energy;
            }
        });
    }

    /// Scales with enough blocks.
    fn usable(&self) -> impl Iterator<Item = usize> {
        (0..SCALES).filter(|h| self.blocks[*h] >= BLOCKS_NEEDED)
    }

    /// What the blocks say of the noise.
    ///
    /// The largest of n squared normal deviates of variance v is about 2 v ln n (Leadbetter, Lindgren and Rootzen, Extremes and Related
    /// Properties of Random Sequences and Processes, 1983, theorem 1.5.3): so the worst excursion among n blocks tells a variance, too.
    pub fn long_run(&self, p: &Parameters) -> LongRun {
        let mut all = LongRun::default();
        let mut most_bursts: f64 = 0.0;
        let largest_factor = p.burst_factor.max(p.excursion_factor).max(p.excursion_factor_pair);
        let mut longest = None;
        for h in self.usable() {
            let mean = self.mean_energy(h);
            longest = Some(h);
            // The excursions are never below the variance.
            if mean > all.variance {
                // The largest of several estimates is too large by chance: those of few blocks count by what is sure of them.
                let sure = mean * (1.0 - p.few_blocks_discount * (2.0 / f64::from(self.blocks[h])).sqrt());
                all.variance = all.variance.max(sure);
                all.excursions = all.excursions.max(sure);
            }
            // Shorter ones are no excursions but single windows, which the price of the bets takes in.
            let Some(excursion) = h.checked_sub(EXCURSION_SCALE) else { continue };
            let worst = f64::from(self.worst[excursion]);
            // At least 12 blocks: twice their logarithm is above 4, so that less changes nothing, by whichever factor.
            if worst * largest_factor > 4.0 * all.variance {
                let mirrored = self.mirrored[excursion];
                let usual = worst / (2.0 * libm::log(f64::from(self.blocks[h] + mirrored)));
                let factor = if mirrored > 0.0 { p.excursion_factor_pair } else { p.excursion_factor };
                all.variance = all.variance.max(factor * usual);
                // Normal noise has no more than the mean here. What has more comes in bursts, and longer ones may come.
                let bursts = ((usual / mean - 1.5) / 0.5).clamp(0.0, 1.0);
                most_bursts = most_bursts.max(bursts);
                let factor = factor + bursts * (p.burst_factor - factor).max(0.0);
                all.excursions = all.excursions.max(factor * usual);
            }
        }
        if let Some(h) = longest {
            // Noise that blocks a quarter as long have as well averages out, and the bets pay for it: the margin is for what does
            // not. Both are estimates of few blocks, and bursts are rarer than blocks: then all of it stays.
            let explained =
                h.checked_sub(2).map_or(0.0, |shorter| (self.mean_energy(shorter) / self.mean_energy(h)).min(1.0));
            all.wander =
                self.mean_energy(h) * SHARES[h] * (1.0 - p.wander_noise_share * (1.0 - most_bursts) * explained);
        }
        all
    }

    /// Mean of S^2/B over the blocks of one length.
    fn mean_energy(&self, scale: usize) -> f64 {
        f64::from(self.energy[scale] / self.blocks[scale])
    }

    /// Factor for a time that is noisier than usual, at least 1.
    pub fn noisy_hour(&self) -> f64 {
        let recent = self.usable().take_while(|h| *h < RECENT_SCALES);
        recent.fold(1.0, |most, h| {
            most.max(0.8 * f64::from(self.recent[h] * self.blocks[h] / (self.energy[h] + f32::MIN_POSITIVE)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The blocks that `n` residuals 1, 2, ... complete, as scale and sum.
    fn completed(series: &mut Series, n: u32) -> Vec<(usize, f64)> {
        let mut all = Vec::new();
        (1..=n).for_each(|x| series.add(f64::from(x), |scale, sum| all.push((scale, sum))));
        all
    }

    #[test]
    fn every_length_completes_its_blocks() {
        let all = completed(&mut Series::EMPTY.clone(), 1024);
        for scale in 0..SCALES {
            let length = 1usize << scale;
            let sums: Vec<f64> = all.iter().filter(|(s, _)| *s == scale).map(|(_, sum)| *sum).collect();
            let expected: Vec<f64> =
                (0..1024 / length).map(|b| (b * length + 1..=(b + 1) * length).sum::<usize>() as f64).collect();
            assert_eq!(sums, expected, "blocks of {length}");
        }
    }

    #[test]
    fn an_excursion_counts_by_its_own_factor_whatever_that_of_bursts_is() {
        let (mut scales, mut series) = (Scales::default(), Series::EMPTY);
        for n in 0..512u32 {
            // Every other window as much above as the one before it below, but for 16 windows that are above.
            let x = if (128..144).contains(&n) { 3.0 } else { 1.0 - 2.0 * f64::from(n % 2) };
            scales.learn(&mut series, x, 1, false);
        }
        let variance = |excursion_factor: f64, burst_factor: f64| {
            let p = Parameters { excursion_factor, burst_factor, excursion_factor_pair: 0.0, ..Parameters::default() };
            scales.long_run(&p).variance
        };
        assert!(variance(1.3, 3.5) > 2.0 * variance(0.0, 3.5), "{} {}", variance(1.3, 3.5), variance(0.0, 3.5));
        assert_eq!(variance(1.3, 0.0), variance(1.3, 3.5));
    }

    #[test]
    fn the_latest_residual_is_kept_until_a_cut() {
        let mut series = Series::EMPTY;
        assert!(series.previous().is_nan());
        for n in 1..=9 {
            series.add(f64::from(n), |_, _| {});
            assert_eq!(series.previous(), f64::from(n));
        }
        series.cut();
        assert!(series.previous().is_nan());
        // Nothing of the block before the cut is in those after it.
        assert_eq!(completed(&mut series, 2), [(0, 1.0), (0, 2.0), (1, 3.0)]);
    }
}
