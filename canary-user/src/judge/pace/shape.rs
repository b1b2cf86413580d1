//! The shape of the noise: how often which deviation occurs. It says what a bet wins on average when nothing is wrong.

use super::bets::{bennett, powers};
use crate::judge::parameters::BETS;

/// Robust standard deviations on each side of the middle that are told apart, a bin for each.
pub const REACH: f64 = 12.0;
const SIDE: usize = REACH as usize;
const BINS: usize = 2 * SIDE + 1;
/// Residuals needed before the shape is believed.
const NEEDED: f64 = 50.0;
/// Residuals after which the older ones count half, so that counts in single precision go on adding up.
const MEMORY: f64 = 4_194_304.0;

/// Counts of residuals by their size.
#[derive(Clone, Debug)]
pub struct Shape {
    counts: [f32; BINS],
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
        Self { counts: [0.0; BINS] }
    }
}

impl Shape {
    /// Adds a residual in robust standard deviations, within the reach.
    #[inline]
    pub fn add(&mut self, deviations: f64) {
        // Rounds to the nearest bin; the sum is never negative.
        let bin = (deviations + SIDE as f64 + 0.5) as u32 as usize;
        self.counts[bin.min(BINS - 1)] += 1.0;
    }

    /// Residuals that are remembered.
    fn n(&self) -> f64 {
        self.counts.iter().map(|count| f64::from(*count)).sum()
    }

    /// Lets what is long ago count less. To be called from time to time.
    pub fn fade(&mut self) {
        if self.n() > MEMORY {
            self.counts.iter_mut().for_each(|count| *count *= 0.5);
        }
    }

    /// What bets would have had, for a robust standard deviation and a clip of so many standard deviations of the long run.
    /// One more residual at the clip is taken as seen: what was not seen yet may come.
    pub fn means(&self, smallest_bet: f64, sigma: f64, clip: f64) -> Option<Means> {
        let n = self.n();
        if n <= NEEDED {
            return None;
        }
        let inside = ((clip / sigma) as usize).min(SIDE);
        // From bin to bin each power grows by the same factor.
        let growth = powers(smallest_bet, sigma);
        let highest = powers(smallest_bet, clip);
        let lowest = highest.map(|x| 1.0 / x);
        let mut power = powers(smallest_bet, -(inside as f64) * sigma);
        let mut all = Means { mean: highest, square: 0.0 };
        let (below, rest) = self.counts.split_at(SIDE - inside);
        let (within, above) = rest.split_at(2 * inside + 1);
        // Few of them were ever seen.
        let seen = |count: &&f32| **count > 0.0;
        below.iter().filter(seen).for_each(|count| all.add(*count, clip, &lowest));
        for (bin, count) in within.iter().enumerate() {
            all.add(*count, bin.abs_diff(inside) as f64 * sigma, &power);
            power.iter_mut().zip(growth).for_each(|(power, growth)| *power *= growth);
        }
        above.iter().filter(seen).for_each(|count| all.add(*count, clip, &highest));
        Some(Means { mean: all.mean.map(|m| m / (n + 1.0)), square: all.square / n })
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
            let bet = smallest_bet * (1u32 << a) as f64;
            // e^-(l^2/2 + max(0, ln mean - l^2 square/2)), without the logarithm.
            let share = won.as_ref().map_or(0.0, |w| (observed / w.mean[a]).min(1.0));
            let estimate = normal * share;
            (normal, observed) = (fourth(normal), fourth(observed));
            if is_above_bennett(share, bet, c) { estimate } else { estimate.max(libm::exp(-bennett(bet, c))) }
        })
    }
}

impl Means {
    /// Adds so many residuals of a size, before the sums are divided by the number of all.
    #[inline]
    fn add(&mut self, count: f32, z: f64, powers: &[f64; BETS]) {
        let count = f64::from(count);
        self.square += count * z * z;
        self.mean.iter_mut().zip(powers).for_each(|(mean, power)| *mean += count * power);
    }
}

/// Whether e^(-l^2/2) times `share` is certainly above e^-Bennett(l, c), which spares the exponentials.
///
/// (e^u - 1 - u)/c^2 is at least l^2/2 + l^3 c/6 + l^4 c^2/24, and e^-x at most 1/(1 + x). What is smaller than the rounding
/// errors of the bound itself is left to the comparison.
fn is_above_bennett(share: f64, bet: f64, c: f64) -> bool {
    let x = bet * bet * bet * c * (1.0 / 6.0 + bet * c / 24.0);
    c > 0.1 && share * (1.0 + x) > 1.0 + 1e-9
}

fn fourth(x: f64) -> f64 {
    (x * x) * (x * x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_certainly_above_the_bound_is_above_it() {
        let mut spared = 0;
        for bet in [0.001, 0.05, 0.1, 0.2, 0.4, 0.8, 4.0] {
            for c in (1..400).map(|i| 0.03 * f64::from(i)) {
                for share in (0..=200).map(|i| f64::from(i) / 200.0) {
                    if is_above_bennett(share, bet, c) {
                        spared += 1;
                        let estimate = libm::exp(-0.5 * bet * bet) * share;
                        assert!(estimate >= libm::exp(-bennett(bet, c)), "bet {bet}, clip {c}, share {share}");
                    }
                }
            }
        }
        assert!(spared > 10_000, "{spared}");
    }

    #[test]
    fn counts_go_on_adding_up() {
        let mut shape = Shape::default();
        shape.counts[SIDE] = MEMORY as f32 - 7.0;
        shape.counts[0] = 8.0;
        let before = shape.means(0.1, 1.0, 3.0).expect("enough were seen");
        shape.fade();
        assert_eq!(shape.n(), (MEMORY + 1.0) / 2.0);
        shape.add(-REACH);
        assert_eq!(shape.counts[0], 5.0);
        let after = shape.means(0.1, 1.0, 3.0).expect("enough were seen");
        assert!((before.mean[0] - after.mean[0]).abs() < 1e-5, "{} {}", before.mean[0], after.mean[0]);
    }
}
