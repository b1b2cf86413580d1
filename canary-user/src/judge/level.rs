//! The stable instances' own level over time: did stable change too?

use super::pace::EFFECT_WINDOWS;

/// Windows that the long-run level remembers.
const MEMORY_WINDOWS: f64 = 1800.0;
/// Windows of long-run level needed before anything is said.
const NEEDED_WINDOWS: u64 = 60;
/// Smallest standard deviation of ln that is believed, so that a perfectly flat series does not make small steps huge.
const DEVIATION_FLOOR: f64 = 0.003;

/// Mean level of one indicator on stable: long-run, and in the last windows.
#[derive(Clone, Debug, Default)]
pub struct Level {
    recent: [f64; EFFECT_WINDOWS],
    n: u64,
    mean: f64,
    variance: f64,
}

impl Level {
    /// Takes one mean of ln values; NaN is left out.
    pub fn observe(&mut self, ln: f64) {
        if ln.is_nan() {
            return;
        }
        let oldest = std::mem::replace(&mut self.recent[(self.n % EFFECT_WINDOWS as u64) as usize], ln);
        self.n += 1;
        // The last windows enter the long run only when they leave the ring: a shift is not compared with itself.
        let Some(settled) = self.n.checked_sub(EFFECT_WINDOWS as u64).filter(|n| *n > 0) else { return };
        let rate = (1.0 / settled as f64).max(1.0 / MEMORY_WINDOWS);
        let step = oldest - self.mean;
        self.mean += rate * step;
        self.variance = (1.0 - rate) * (self.variance + rate * step * step);
    }

    /// How far the last windows are above the long run, in standard deviations of single windows.
    pub fn shift(&self) -> Option<f64> {
        if self.n < NEEDED_WINDOWS + EFFECT_WINDOWS as u64 {
            return None;
        }
        let recent = self.recent.iter().sum::<f64>() / EFFECT_WINDOWS as f64;
        Some((recent - self.mean) / self.variance.sqrt().max(DEVIATION_FLOOR))
    }
}
