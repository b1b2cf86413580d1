//! Whether both sides have work: nothing can be compared while one of them is idle and the other is not.

use super::parameters::Parameters;
use crate::{
    targets::Role,
    window::{Event, Reading, Window},
};

/// For each side, windows in which only the other one had a turnaround, since it had one itself.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    stable_idle: u64,
    canary_idle: u64,
    /// Turnarounds per instance and window lately; 0 before there were any.
    stable_usual: f64,
    canary_usual: f64,
}

/// Weight of the newest window in the usual number of turnarounds.
const NEWEST: f64 = 0.02;

impl Traffic {
    /// What the canary's steps from window to window are to be multiplied by: readings that rest on fewer turnarounds than
    /// stable's are noisier by the root of the ratio, whatever the version.
    pub fn canary_step_scale(&self) -> f64 {
        if self.stable_usual > 0.0 && self.canary_usual > 0.0 {
            (self.canary_usual / self.stable_usual).sqrt().min(1.0)
        } else {
            1.0
        }
    }

    pub fn observe(&mut self, window: &Window) {
        let (Some(stable), Some(canary)) = (turnarounds(&window.stable), turnarounds(&window.canary)) else { return };
        self.stable_idle = if stable > 0 { 0 } else { self.stable_idle + u64::from(canary > 0) };
        self.canary_idle = if canary > 0 { 0 } else { self.canary_idle + u64::from(stable > 0) };
        follow(&mut self.stable_usual, stable as f64 / window.stable.len() as f64);
        follow(&mut self.canary_usual, canary as f64 / window.canary.len() as f64);
    }

    /// Says which side is idle. Not before as many windows as may be merged for want of work.
    pub fn one_sided(&self, p: &Parameters) -> Option<String> {
        let idle = [(Role::Stable, self.stable_idle, Role::Canary), (Role::Canary, self.canary_idle, Role::Stable)];
        let (side, windows, other) = idle.into_iter().find(|(_, windows, _)| *windows > 2 * p.silent_windows)?;
        Some(format!(
            "no turnaround on {side} in {windows} windows in which {other} had some: without traffic on both there is \
             nothing to compare"
        ))
    }
}

fn follow(usual: &mut f64, turnarounds: f64) {
    *usual += if *usual > 0.0 { NEWEST * (turnarounds - *usual) } else { turnarounds };
}

/// Whether an instance's turnarounds are counted. Resets come from the same hooks, and say by their absence that these are missing.
pub fn is_counted(reading: &Reading) -> bool {
    reading.turnarounds > 0 || reading.events[Event::ResetsOut as usize].is_some()
}

/// Of all instances together; `None` where nobody is, or where somebody is not counted.
pub fn turnarounds(readings: &[Reading]) -> Option<u64> {
    let counted = !readings.is_empty() && readings.iter().all(is_counted);
    counted.then(|| readings.iter().map(|r| r.turnarounds).fold(0, u64::saturating_add))
}
