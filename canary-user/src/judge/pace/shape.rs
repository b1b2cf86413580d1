//! The shape of the noise: how often which deviation occurs. It says what a bet wins on average when nothing is wrong.

use super::bets::{bennett, powers};
use crate::judge::parameters::BETS;

/// Robust standard deviations on each side of the middle that are told apart, a bin for each.
pub const REACH: f64 = 12.0;
const SIDE: usize = REACH as usize;
const BINS: usize = 2 * SIDE + 1;
/// Residuals needed before the shape is believed.
const NEEDED: f32 = 50.0;

/// Counts of residuals by their size.
#[derive(Clone, Debug)]
pub struct Shape {
    counts: [f32; BINS],
    n: f32,
}

/// Over the residuals, standardised.
pub struct Means {
    /// Of e^(l z), for each bet l.
    pub mean: [f64; BETS],
    /// Of z^2.
    pub square: f64,
}

impl Default for Shape {
    fn default() -> Self {
        Self { counts: [0.0; BINS], n: 0.0 }
    }
}

impl Shape {
    /// Adds a residual in robust standard deviations, within the reach.
    pub fn add(&mut self, deviations: f64) {
        // Rounds to the nearest bin; the sum is never negative.
        let bin = (deviations + SIDE as f64 + 0.5) as usize;
        self.counts[bin.min(BINS - 1)] += 1.0;
        self.n += 1.0;
    }

    /// What bets would have had, for a robust standard deviation and a clip of so many standard deviations of the long run.
    /// One more residual at the clip is taken as seen: what was not seen yet may come.
    pub fn means(&self, smallest_bet: f64, sigma: f64, clip: f64) -> Option<Means> {
        if self.n <= NEEDED {
            return None;
        }
        let inside = (clip / sigma) as usize;
        let inside = inside.min(SIDE);
        // From bin to bin each power grows by the same factor.
        let growth = powers(smallest_bet, sigma);
        let highest = powers(smallest_bet, clip);
        let lowest = highest.map(|x| 1.0 / x);
        let mut power = powers(smallest_bet, -(inside as f64) * sigma);
        let (mut mean, mut square) = (highest, 0.0);
        for (bin, count) in self.counts.iter().enumerate() {
            let count = f64::from(*count);
            let outside = bin.abs_diff(SIDE) > inside;
            let z = if outside { clip } else { bin.abs_diff(SIDE) as f64 * sigma };
            square += count * z * z;
            for a in 0..BETS {
                mean[a] += count
                    * if !outside {
                        power[a]
                    } else if bin < SIDE {
                        lowest[a]
                    } else {
                        highest[a]
                    };
                power[a] *= if outside { 1.0 } else { growth[a] };
            }
        }
        let n = f64::from(self.n);
        Some(Means { mean: mean.map(|m| m / (n + 1.0)), square: square / n })
    }

    /// e^-price of each bet. The price is what the bet would win on average on the placebos, at most Bennett's bound.
    /// Sigma and clip are standardised.
    pub fn discounts(&self, smallest_bet: f64, sigma: f64, clip: f64) -> [f64; BETS] {
        let c = clip.max(1e-3);
        let won = self.means(smallest_bet, sigma, c);
        // Half the squares of the bets: each is four times the one before.
        let half = 0.5 * smallest_bet * smallest_bet;
        let mut normal = libm::exp(-half);
        let mut observed = won.as_ref().map_or(1.0, |w| libm::exp(half * w.square));
        std::array::from_fn(|a| {
            let bound = libm::exp(-bennett(smallest_bet * (1u32 << a) as f64, c));
            // e^-(l^2/2 + max(0, ln mean - l^2 square/2)), without the logarithm.
            let discount = won.as_ref().map_or(bound, |w| bound.max(normal * (observed / w.mean[a]).min(1.0)));
            (normal, observed) = (fourth(normal), fourth(observed));
            discount
        })
    }
}

fn fourth(x: f64) -> f64 {
    (x * x) * (x * x)
}
