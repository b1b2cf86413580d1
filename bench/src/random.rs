//! Random numbers that are the same on every machine and in every run: SplitMix64, and deviates from it by functions whose
//! results do not depend on the machine's own mathematics library.

use std::f64::consts::TAU;

/// A stream of random numbers. Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
    /// The second of a pair of normal deviates.
    spare: Option<f64>,
}

impl Random {
    /// A stream of its own for each list of numbers.
    pub fn new(seed: &[u64]) -> Self {
        let mut random = Self { state: 0x6a09_e667_f3bc_c908, spare: None };
        for part in seed {
            random.state ^= part.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            random.state = random.bits();
        }
        random
    }

    fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// Uniform among the whole numbers `from` to `to - 1`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + (self.uniform() * (to - from) as f64) as u64
    }

    /// Standard normal: Marsaglia's polar method.
    pub fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        loop {
            let (u, v) = (2.0 * self.uniform() - 1.0, 2.0 * self.uniform() - 1.0);
            let square = u * u + v * v;
            if square > 0.0 && square < 1.0 {
                let factor = (-2.0 * libm::log(square) / square).sqrt();
                self.spare = Some(v * factor);
                return u * factor;
            }
        }
    }

    /// Gamma with this shape and mean `shape`: Marsaglia and Tsang, "A simple method for generating gamma variables", 2000.
    pub fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let boost = libm::pow(1.0 - self.uniform(), 1.0 / shape);
            return boost * self.gamma(shape + 1.0);
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = 1.0 + c * x;
            if v <= 0.0 {
                continue;
            }
            let v = v * v * v;
            if libm::log(1.0 - self.uniform()) < 0.5 * x * x + d - d * v + d * libm::log(v) {
                return d * v;
            }
        }
    }

    /// Student's t with `freedom` degrees, scaled to variance 1.
    pub fn student(&mut self, freedom: f64) -> f64 {
        let chi_square = 2.0 * self.gamma(0.5 * freedom);
        self.normal() * ((freedom - 2.0) / chi_square).sqrt()
    }

    /// Poisson: the product of uniforms for small means; in parts for large ones, which add up.
    pub fn poisson(&mut self, mean: f64) -> u64 {
        const PART: f64 = 16.0;
        let (mut left, mut n) = (mean, 0);
        while left > 0.0 {
            let limit = libm::exp(-left.min(PART));
            let mut product = self.uniform();
            while product > limit {
                product *= self.uniform();
                n += 1;
            }
            left -= PART;
        }
        n
    }

    /// A phase in radians.
    pub fn phase(&mut self) -> f64 {
        TAU * self.uniform()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and variance of many draws.
    fn moments(mut draw: impl FnMut() -> f64) -> (f64, f64) {
        const N: usize = 200_000;
        let values: Vec<f64> = (0..N).map(|_| draw()).collect();
        let mean = values.iter().sum::<f64>() / N as f64;
        (mean, values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / N as f64)
    }

    #[test]
    fn deviates_have_the_moments_of_their_distributions() {
        let mut r = Random::new(&[1]);
        let close = |(mean, variance): (f64, f64), (m, v): (f64, f64)| {
            assert!(
                (mean - m).abs() < 0.03 * m.max(1.0) && (variance - v).abs() < 0.05 * v,
                "{mean} {variance}: {m} {v}"
            );
        };
        close(moments(|| r.normal()), (0.0, 1.0));
        close(moments(|| r.uniform()), (0.5, 1.0 / 12.0));
        close(moments(|| r.gamma(5.0)), (5.0, 5.0));
        close(moments(|| r.gamma(0.5)), (0.5, 0.5));
        close(moments(|| r.poisson(0.4) as f64), (0.4, 0.4));
        close(moments(|| r.poisson(40.0) as f64), (40.0, 40.0));
        close(moments(|| r.student(8.0)), (0.0, 1.0));
        close(moments(|| r.between(3, 7) as f64), (4.5, 1.25));
    }

    #[test]
    fn a_seed_names_one_stream() {
        let draw = |seed: &[u64]| -> Vec<u64> {
            let mut r = Random::new(seed);
            (0..8).map(|_| r.normal().to_bits()).collect()
        };
        assert_eq!(draw(&[1, 2]), draw(&[1, 2]));
        assert_ne!(draw(&[1, 2]), draw(&[2, 1]));
        assert_ne!(draw(&[1]), draw(&[1, 0]));
    }
}
