//! Log readings of one indicator become paired differences: what all instances share cancels.

/// Stable instances that are also taken, each in turn, as if they were the canary. More only help the mean.
pub const PLACEBOS: usize = 8;
/// Series that noise is learned from: the placebos and the canary's own past.
pub const SERIES: usize = PLACEBOS + 1;
/// Index of the canary's own past among the series.
pub const OWN: usize = PLACEBOS;

/// One indicator in one window, as differences of natural logarithms. NaN where a side is missing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Differences {
    /// Mean of the canary minus mean of stable.
    pub canary: f64,
    /// By series: stable instance j minus the mean of the other stable instances; last, the canary's own past
    /// minus stable (only where who feeds it knows the canary to be the old version, which the guard does not).
    pub series: [f64; SERIES],
    /// What they are differences of: the mean of the canary, and each placebo.
    pub canary_level: f64,
    pub levels: [f64; PLACEBOS],
}

impl Differences {
    pub const MISSING: Differences = Differences {
        canary: f64::NAN,
        series: [f64::NAN; SERIES],
        canary_level: f64::NAN,
        levels: [f64::NAN; PLACEBOS],
    };
}

/// The stable side of one indicator in one window, as logarithms.
#[derive(Clone, Copy, Debug)]
pub struct StableSide {
    slots: [f64; PLACEBOS],
    sum: f64,
    count: u32,
}

impl Default for StableSide {
    fn default() -> Self {
        Self { slots: [f64::NAN; PLACEBOS], sum: 0.0, count: 0 }
    }
}

impl StableSide {
    /// Adds one instance's reading. `slot` is its place among the placebos, if it has one.
    pub fn add(&mut self, slot: Option<usize>, ln: f64) {
        if ln.is_nan() {
            return;
        }
        self.sum += ln;
        self.count += 1;
        if let Some(slot) = slot {
            self.slots[slot] = ln;
        }
    }

    /// Mean over the instances that reported; NaN if none did.
    pub fn mean(&self) -> f64 {
        self.sum / f64::from(self.count)
    }

    /// Pairs the canary's mean (NaN where missing) and each placebo with the stable instances.
    pub fn pair(&self, canary_mean: f64) -> Differences {
        let mut d = Differences { canary_level: canary_mean, levels: self.slots, ..Differences::MISSING };
        if self.count >= 2 {
            let others = f64::from(self.count - 1);
            // An empty slot has no difference.
            for (series, x) in d.series.iter_mut().zip(self.slots).filter(|(_, x)| !x.is_nan()) {
                *series = x - (self.sum - x) / others;
            }
        }
        d.canary = canary_mean - self.mean();
        d
    }
}
