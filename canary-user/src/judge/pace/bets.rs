//! Bets against "the canary is not worse": each loses on average while that is true, so growing a stake
//! 1000-fold has a probability of at most 1/1000, however often one looks (Ville's inequality).

use serde::{Deserialize, Serialize};

use crate::judge::parameters::BETS;

/// More than this is never needed, and it keeps sums finite.
const WEALTH_LIMIT: f64 = 1e30;

/// When how much of the stake is put in: a part at the start, the rest in equal parts over the horizon.
///
/// The weights sum to at most one, so the mixture over start times stays an e-process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Restarts {
    age: u64,
    /// What has not been bet yet.
    pub cash: f64,
}

impl Default for Restarts {
    fn default() -> Self {
        Self { age: 0, cash: 1.0 }
    }
}

impl Restarts {
    /// Weight to put in before the bet of this window. To be called once per judged window.
    pub fn next_weight(&mut self, start_weight: f64, horizon_windows: u64) -> f64 {
        let weight = if self.age == 0 { start_weight } else { (1.0 - start_weight) / horizon_windows as f64 };
        self.age += 1;
        let weight = weight.min(self.cash);
        self.cash -= weight;
        weight
    }

    /// Windows since the first weight.
    pub fn age(&self) -> u64 {
        self.age
    }
}

/// The stakes of one signal, one per size of bet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stakes([f64; BETS]);

impl Stakes {
    pub const NONE: Stakes = Stakes([0.0; BETS]);

    /// Puts in a weight, each stake its share of it. The shares sum to one.
    pub fn put_in(&mut self, weight: f64, shares: &[f64; BETS]) {
        for (stake, share) in self.0.iter_mut().zip(shares) {
            *stake += weight * share;
        }
    }

    /// Multiplies each stake by its factor.
    pub fn settle(&mut self, factors: &[f64; BETS]) {
        self.settle_up_to(factors, WEALTH_LIMIT);
    }

    /// The same with a lower limit on each stake: what is not gained need not be lost again.
    pub fn settle_up_to(&mut self, factors: &[f64; BETS], limit: f64) {
        for (stake, factor) in self.0.iter_mut().zip(factors) {
            *stake = at_most(*stake * factor, limit);
        }
    }

    /// The e-value of one signal: what is not bet yet and its stakes. Never quite zero, so that its logarithm is finite.
    pub fn e_value(&self, restarts: &Restarts) -> f64 {
        (restarts.cash + self.sum()).max(1e-300)
    }

    /// Takes so much out of the stakes, from each its share; what there is, where that is less.
    pub fn take(&mut self, amount: f64) {
        let sum = self.sum();
        let left = if sum > amount { (sum - amount) / sum } else { 0.0 };
        self.0.iter_mut().for_each(|stake| *stake *= left);
    }

    pub fn sum(&self) -> f64 {
        self.0.iter().sum()
    }
}

/// The smaller of both, the limit for NaN: one instruction, as `min` is not.
pub fn at_most(x: f64, limit: f64) -> f64 {
    if x < limit { x } else { limit }
}

/// e^(l z) for each bet l: every bet is twice the one before, so its power is the square.
pub fn powers(smallest_bet: f64, z: f64) -> [f64; BETS] {
    let mut power = exp_small(smallest_bet * z);
    std::array::from_fn(|_| {
        let this = power;
        power *= power;
        this
    })
}

/// e^x: ten terms of its series where they suffice (|x| up to 1/2, to 3e-10), which is what bets need.
fn exp_small(x: f64) -> f64 {
    if x.abs() > 0.5 {
        return libm::exp(x);
    }
    let mut sum = 1.0 + x / 9.0;
    for n in [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0] {
        sum = 1.0 + x * (1.0 / n) * sum;
    }
    sum
}

/// What bet `l` has to pay per window so that it does not win on average:
/// the bound of Bennett for a score of variance 1 clipped at `c`.
pub fn bennett(l: f64, c: f64) -> f64 {
    let u = l * c;
    (libm::exp(u) - 1.0 - u) / (c * c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_stake_is_taken_out_of_what_was_won() {
        let mut stakes = Stakes([1.0, 2.0, 3.0, 4.0]);
        stakes.take(1.0);
        assert!((stakes.sum() - 9.0).abs() < 1e-12 && (stakes.0[3] - 3.6).abs() < 1e-12, "{stakes:?}");
        let mut lost = Stakes([0.1, 0.0, 0.2, 0.1]);
        lost.take(1.0);
        assert_eq!(lost.sum(), 0.0, "no debts");
    }
}
