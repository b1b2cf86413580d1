//! Who of both sides is compared in one window, whatever is read of them: what the indicators of a window and the columns of a
//! table share.

use super::{
    instances::{Instances, Part},
    observe::mean,
    pace::{Differences, Frame, PLACEBOS, Pace, Phase, StableSide},
    parameters::Parameters,
};
use crate::window::Window;

/// Who takes part in one window, in its order.
pub struct Pairing {
    stable: Vec<Part>,
    /// Whether it is through its warm-up.
    canary: Vec<bool>,
    phase: Phase,
    misses_some: bool,
}

/// One indicator of them.
pub struct Paired {
    pub differences: Differences,
    /// Means of those through their warm-up, of stable as far as the canary is compared with them; NaN where none has a reading.
    pub stable: f64,
    pub canary: f64,
}

impl Pairing {
    pub fn of(window: &Window, instances: &Instances, phase: Phase, p: &Parameters) -> Self {
        Self {
            stable: window.stable.iter().map(|r| instances.stable_part(r, p)).collect(),
            canary: window.canary.iter().map(|r| instances.canary_is_active(r)).collect(),
            phase,
            misses_some: instances.misses_some(),
        }
    }

    /// Pairs one indicator, of which `stable` and `canary` are the readings as ln, NaN where missing, in the order of the window.
    /// Takes note in `pace` of those that settle.
    pub fn pair(
        &self,
        indicator: usize,
        stable: impl Iterator<Item = f64>,
        canary: impl Iterator<Item = f64> + Clone,
        pace: &mut Pace,
    ) -> Paired {
        let (mut side, mut settling) = (StableSide::default(), [f64::NAN; PLACEBOS]);
        for (part, ln) in self.stable.iter().zip(stable) {
            match part {
                Part::Active(place) => side.add(*place, ln),
                Part::Settling(place) => settling[*place] = ln,
                Part::SitsOut => {}
            }
        }
        pace.prime(indicator, &side, &settling);
        let active = mean(canary.clone().zip(&self.canary).filter(|(_, active)| **active).map(|(ln, _)| ln));
        // During the first warm-up the canary's steps are followed, not bet on.
        let taking_part = if self.phase == Phase::Judged { active } else { mean(canary) };
        Paired { differences: side.pair(taking_part), stable: side.mean(), canary: active }
    }

    /// The window of all indicators as the comparison takes it.
    pub fn frame<'a>(&self, index: u64, differences: &'a [Differences], canary_step_scale: f64) -> Frame<'a> {
        let active = self.canary.iter().filter(|active| **active).count();
        Frame {
            index,
            differences,
            canary_instances: if self.phase == Phase::Judged { active } else { self.canary.len() },
            stable_instances: self.stable.iter().filter(|part| matches!(part, Part::Active(_))).count(),
            misses_some: self.misses_some,
            phase: self.phase,
            canary_step_scale,
        }
    }
}
