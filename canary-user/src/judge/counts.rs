//! Rare events on both sides: an exact conditional test.
//!
//! Given the total of a window, the canary's count is binomial; its share under "no worse" follows from the exposures.
//! The e-value is the mean over four alternative ratios of the likelihood ratio, with restarts, so that a late burst is
//! found although the past was quiet. Source: the conditional test of two Poisson rates, as an e-process.

use super::{
    clumping::Clumping,
    pace::{Restarts, Stakes},
    parameters::{BETS, Parameters},
    verdict::EventState,
};
use crate::window::{Event, Reading, Window};

/// Ratios of rates, canary over stable, that are bet on, and the share of the stake on each.
const RATIOS: [f64; BETS] = [1.5, 2.0, 4.0, 8.0];
const SHARES: [f64; BETS] = [0.15, 0.15, 0.5, 0.2];
/// Share of the stake that is bet from the first window on. The rest is for what begins late.
const START_WEIGHT: f64 = 0.85;

/// The counts of all kinds of event since the canary's warm-up ended.
#[derive(Clone, Debug)]
pub struct Counts {
    kinds: [Kind; Event::COUNT],
    restarts: Restarts,
}

#[derive(Clone, Debug)]
struct Kind {
    canary: u64,
    stable: u64,
    stakes: Stakes,
    clumping: Clumping,
    /// Both sides counted this kind at least once (zero is a count).
    seen: bool,
    onset: Option<u64>,
}

impl Kind {
    fn new() -> Self {
        Self { canary: 0, stable: 0, stakes: Stakes::NONE, clumping: Clumping::default(), seen: false, onset: None }
    }
}

/// One side of one kind in one window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Side {
    count: u64,
    turnarounds: u64,
    seconds: f64,
}

impl Side {
    /// Over the instances that count this kind; `None` if none does.
    fn of(readings: &[Reading], event: usize) -> Option<Side> {
        let mut side = None;
        for reading in readings {
            let Some(count) = reading.events[event] else { continue };
            let side = side.get_or_insert(Side::default());
            side.count = side.count.saturating_add(count);
            side.turnarounds = side.turnarounds.saturating_add(reading.turnarounds);
            side.seconds += reading.seconds;
        }
        side
    }
}

impl Side {
    fn exposure(&self, by_work: bool) -> f64 {
        if by_work { self.turnarounds as f64 } else { self.seconds }
    }
}

impl Default for Counts {
    fn default() -> Self {
        Self { kinds: std::array::from_fn(|_| Kind::new()), restarts: Restarts::default() }
    }
}

impl Counts {
    /// Takes one window after the warm-up in.
    pub fn observe(&mut self, window: &Window, p: &Parameters) {
        if self.restarts.age() >= p.horizon_windows && self.e_values().iter().all(|e| *e <= 1.0) {
            self.restarts = Restarts::default();
            self.kinds.iter_mut().for_each(|k| k.stakes = Stakes::NONE);
        }
        let weight = self.restarts.next_weight(START_WEIGHT, p.horizon_windows);
        for (event, kind) in self.kinds.iter_mut().enumerate() {
            kind.stakes.put_in(weight, &SHARES);
            let sides = (Side::of(&window.canary, event), Side::of(&window.stable, event));
            if let (Some(canary), Some(stable)) = sides {
                kind.observe(canary, stable, window.index, p);
            }
        }
    }

    /// Takes one window before that in: nothing is bet, but how stable's events clump is learned.
    pub fn learn(&mut self, window: &Window) {
        for (event, kind) in self.kinds.iter_mut().enumerate() {
            if let Some(stable) = Side::of(&window.stable, event) {
                kind.clumping.learn(stable.count as f64, stable.exposure(stable.turnarounds > 0));
            }
        }
    }

    /// For another canary: what was counted is dropped, how stable's events clump is kept.
    pub fn forget_canary(&mut self) {
        self.restarts = Restarts::default();
        for kind in &mut self.kinds {
            *kind = Kind { clumping: kind.clumping.clone(), ..Kind::new() };
        }
    }

    /// ln of the e-value of one kind.
    pub fn evidence_ln(&self, event: Event) -> f64 {
        libm::log(self.e_value(&self.kinds[event as usize]))
    }

    /// The e-values of the kinds that both sides counted.
    pub fn e_values(&self) -> Vec<f64> {
        self.kinds.iter().filter(|k| k.seen).map(|k| self.e_value(k)).collect()
    }

    fn e_value(&self, kind: &Kind) -> f64 {
        kind.stakes.e_value(&self.restarts)
    }

    /// Window of the first event of the current evidence.
    pub fn onset(&self, event: Event) -> Option<u64> {
        self.kinds[event as usize].onset
    }

    pub fn states(&self) -> Vec<EventState> {
        let state = |event: Event| {
            let kind = &self.kinds[event as usize];
            EventState {
                event,
                canary: kind.canary,
                stable: kind.stable,
                evidence_ln: libm::log(self.e_value(kind)),
                missing: !kind.seen,
            }
        };
        Event::ALL.into_iter().map(state).collect()
    }
}

impl Kind {
    fn observe(&mut self, canary: Side, stable: Side, index: u64, p: &Parameters) {
        self.seen = true;
        self.canary = self.canary.saturating_add(canary.count);
        self.stable = self.stable.saturating_add(stable.count);
        let by_work = canary.turnarounds > 0 && stable.turnarounds > 0;
        let (exposed_canary, exposed_stable) = (canary.exposure(by_work), stable.exposure(by_work));
        if exposed_canary > 0.0 && exposed_stable > 0.0 {
            let share = |ratio: f64| ratio * exposed_canary / (ratio * exposed_canary + exposed_stable);
            let null = share(p.event_null_ratio);
            // Events that clump vary by more than a binomial: the gain is tempered by the factor.
            let excess = self.clumping.excess_variance(null, canary.count as f64 + stable.count as f64);
            self.stakes.settle(&RATIOS.map(|ratio| {
                let bet = share(ratio);
                let gain = canary.count as f64 * libm::log(bet / null)
                    + stable.count as f64 * libm::log((1.0 - bet) / (1.0 - null));
                // Events that come in one clump are one fact. Less gain keeps it an e-process.
                libm::exp((gain / (1.0 + excess)).min(p.event_gain_limit_ln))
            }));
        }
        self.clumping.learn(stable.count as f64, stable.exposure(stable.turnarounds > 0));
        if self.stakes.sum() < 0.5 {
            self.onset = None;
        } else if canary.count > 0 {
            self.onset.get_or_insert(index);
        }
    }
}
