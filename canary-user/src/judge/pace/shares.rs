//! Shares of the margin in use, averaged over the indicators present: what P(t) is made of.

use super::differences::SERIES;

/// P and its parts end here, so that one signal cannot drown the others.
pub const P_LIMIT: f64 = 3.0;

/// The canary's place in [`Sums`], after those of the series.
pub const CANARY: usize = SERIES;

/// Share of the margin that an excess uses.
pub fn share(excess: f64, per_margin: f64) -> f64 {
    (excess * per_margin).clamp(-P_LIMIT, P_LIMIT)
}

/// P of the canary and of every series; NaN where no indicator is present.
#[derive(Clone, Copy, Debug)]
pub struct Shares {
    pub canary: f64,
    pub series: [f64; SERIES],
}

/// Sums of shares by their weight, and the weights of those present.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    shares: [f64; SERIES + 1],
    weights: [f64; SERIES + 1],
}

impl Sums {
    /// Adds the share of one indicator in one place.
    #[inline]
    pub fn add(&mut self, place: usize, share: f64, weight: f64) {
        self.shares[place] += weight * share;
        self.weights[place] += weight;
    }

    pub fn means(&self) -> Shares {
        let mean = |place: usize| self.shares[place] / self.weights[place];
        Shares { canary: mean(CANARY), series: std::array::from_fn(mean) }
    }
}
