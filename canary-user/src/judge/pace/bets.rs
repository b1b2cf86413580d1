//! Bets against "the canary is not worse": each loses on average while that is true, so growing a stake
//! 1000-fold has a probability of at most 1/1000, however often one looks (Ville's inequality).

use crate::judge::parameters::{BETS, Parameters};

/// More than this is never needed, and it keeps sums finite.
const WEALTH_LIMIT: f64 = 1e30;

/// When how much of the stake is put in: half at the start, the rest in equal parts over the horizon.
///
/// The weights sum to at most one, so the mixture over start times stays an e-process.
#[derive(Clone, Debug)]
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
    pub fn next_weight(&mut self, p: &Parameters) -> f64 {
        let weight = if self.age == 0 {
            p.start_weight
        } else if self.age.is_multiple_of(p.restart_every_windows) {
            (1.0 - p.start_weight) * p.restart_every_windows as f64 / p.horizon_windows as f64
        } else {
            0.0
        };
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
#[derive(Clone, Debug)]
pub struct Stakes([f64; BETS]);

impl Stakes {
    pub fn of(each: f64) -> Self {
        Self([each; BETS])
    }

    pub fn put_in(&mut self, weight: f64) {
        self.0.iter_mut().for_each(|s| *s += weight);
    }

    /// Multiplies stake `i` by e^`gains_ln[i]`.
    pub fn settle(&mut self, gains_ln: [f64; BETS]) {
        self.settle_up_to(gains_ln, WEALTH_LIMIT);
    }

    /// The same with a lower limit on each stake: what is not gained need not be lost again.
    pub fn settle_up_to(&mut self, gains_ln: [f64; BETS], limit: f64) {
        for (stake, gain) in self.0.iter_mut().zip(gains_ln) {
            if *stake > 0.0 {
                *stake = (*stake * gain.exp()).min(limit);
            }
        }
    }

    /// The e-value of one signal: what is not bet yet and the mean of its stakes. Never quite zero, so that its
    /// logarithm is finite.
    pub fn e_value(&self, restarts: &Restarts) -> f64 {
        (restarts.cash + self.mean()).max(1e-300)
    }

    pub fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / BETS as f64
    }
}

/// What bet `l` has to pay per window so that it does not win on average:
/// the bound of Bennett for a score of variance 1 clipped at `c`.
pub fn bennett(l: f64, c: f64) -> f64 {
    let u = l * c;
    (u.exp() - 1.0 - u) / (c * c)
}
