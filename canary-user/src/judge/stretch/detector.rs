//! An e-detector: bets that start anew whenever they are down, so that a change is found whenever it begins.
//!
//! Each stake is M <- max(M, 1) e with an e-value e of this window. That is at most the sum of the e-processes begun at each
//! window, whose mean after t windows is at most t when nothing happens: a mean of stakes reaches c no sooner than after c
//! windows on average (Shin, Ramdas and Rinaldo, arXiv 2203.03532).

use super::{Moment, usual::Terms};
use crate::judge::{
    pace::powers,
    parameters::{BETS, Parameters},
};

/// Bets in one direction on one series.
#[derive(Clone, Copy, Debug)]
pub struct Detector {
    stakes: [f64; BETS],
    /// First window since each was at its start.
    since: [Moment; BETS],
}

impl Default for Detector {
    fn default() -> Self {
        Self { stakes: [0.0; BETS], since: [Moment::default(); BETS] }
    }
}

impl Detector {
    /// Bets on a deviation beyond the band.
    pub fn bet(&mut self, deviation: f64, terms: &Terms, at: Moment, p: &Parameters) {
        let z = (deviation - terms.band).clamp(-terms.clip, terms.clip) * terms.precision;
        let factors = powers(p.smallest_bet, z).into_iter().zip(terms.discount);
        for ((stake, since), (factor, discount)) in self.stakes.iter_mut().zip(&mut self.since).zip(factors) {
            if *stake <= 1.0 {
                (*stake, *since) = (1.0, at);
            }
            *stake *= factor * discount;
        }
    }

    pub fn sum(&self) -> f64 {
        self.stakes.iter().sum()
    }

    /// The largest stake, and since when it grows: by the latest of the bets that have at least half of its evidence. A small
    /// bet may have begun on noise that a larger one did not take for a beginning.
    pub fn leading(&self) -> (f64, Moment) {
        let largest = self.stakes.iter().copied().fold(0.0, f64::max);
        let close = (0..BETS).filter(|a| self.stakes[*a] >= largest.sqrt()).map(|a| self.since[a]);
        (largest, close.max_by_key(|m| m.index).unwrap_or_default())
    }
}
