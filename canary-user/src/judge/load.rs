//! How much load the canary was judged under, beside stable's: what grows with load is not known at more than it had.
//!
//! Goes in: judged windows. Comes out: the ratio of the loads per instance, where it is too little to call the canary healthy.
//! The exposure is turnarounds per second, as the kernel counts them. Constant memory.

use super::{parameters::Parameters, traffic};
use crate::window::{Indicator, Reading, Window};

/// What grows with load, and so is compared only at the load that both sides have.
pub const GROWS_WITH_LOAD: [Indicator; 6] = [
    Indicator::RunQueueWait,
    Indicator::RunQueueWaitP95,
    Indicator::MemoryStall,
    Indicator::MemoryInUse,
    Indicator::TurnaroundMean,
    Indicator::TurnaroundP95,
];

/// What was too little has to be more than enough by this factor: at the limit it would be now one and now the other.
const ENOUGH_AGAIN: f64 = 1.1;

/// The load of both sides since the canary's warm-up.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// Windows in which both were counted.
    windows: u64,
    /// Turnarounds per second and instance: running means that remember `soak_windows`.
    canary: f64,
    stable: f64,
    is_little: bool,
}

impl Load {
    /// Takes a judged window in. One in which somebody's turnarounds are not counted says nothing.
    pub fn observe(&mut self, window: &Window, p: &Parameters) {
        let (Some(canary), Some(stable)) = (per_second(&window.canary), per_second(&window.stable)) else { return };
        self.windows = self.windows.saturating_add(1);
        let newest = 1.0 / self.windows.min(p.soak_windows).max(1) as f64;
        self.canary += newest * (canary - self.canary);
        self.stable += newest * (stable - self.stable);
        // What a few windows say is not held on to.
        let factor = if self.is_little && self.windows >= p.soak_windows { ENOUGH_AGAIN } else { 1.0 };
        self.is_little = self.ratio().is_some_and(|ratio| ratio < factor / p.load_ratio);
    }

    fn ratio(&self) -> Option<f64> {
        (self.canary > 0.0 && self.stable > 0.0).then(|| self.canary / self.stable)
    }

    /// Load per instance, canary over stable, where it is too little; `None` also where it is not known.
    pub fn little(&self) -> Option<f64> {
        self.ratio().filter(|_| self.is_little)
    }
}

/// Turnarounds per second of an instance, on average; `None` where nobody is, or where somebody is not counted.
fn per_second(readings: &[Reading]) -> Option<f64> {
    let turnarounds = traffic::turnarounds(readings)?;
    let seconds: f64 = readings.iter().map(|r| r.seconds).sum();
    (seconds > 0.0).then(|| turnarounds as f64 / seconds)
}

/// Why these indicators, in the order of [`GROWS_WITH_LOAD`], are not known well enough at this load.
pub fn in_words(ratio: f64, concerned: &[Indicator]) -> String {
    let mut names: Vec<&str> = concerned.iter().map(|i| family(*i)).collect();
    names.dedup();
    let percent = 100.0 * ratio;
    let digits = usize::from(percent < 10.0);
    format!(
        "{}: compared at {percent:.digits$} % of stable's load per instance only; what the canary does at full load is not \
         known: give both the same load per instance, or raise judge.load_ratio",
        names.join(", ")
    )
}

/// Mean and tail, and the two kinds of memory, have one name here.
fn family(indicator: Indicator) -> &'static str {
    match indicator {
        Indicator::RunQueueWait | Indicator::RunQueueWaitP95 => "run-queue wait",
        Indicator::MemoryStall | Indicator::MemoryInUse => "memory",
        Indicator::TurnaroundMean | Indicator::TurnaroundP95 => "turnaround",
        Indicator::CpuPerWork | Indicator::BytesPerWork | Indicator::DependencyTurnaround => indicator.title(),
    }
}
