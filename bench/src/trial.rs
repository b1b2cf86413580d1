//! One rollout before the judge's own core, window by window: what `cargo xtask bench judge` and its `--stdin` share.

use canary_user::judge::{
    Parameters, Tolerance,
    pace::{Differences, Frame, OWN, PLACEBOS, Pace, Phase, StableSide},
};

/// The judge at work on one rollout. Readings come as natural logarithms, NaN where missing.
pub struct Trial {
    pace: Pace,
    indicators: usize,
    canary: usize,
    stable: usize,
    warmup: usize,
    soak: u64,
    threshold_ln: f64,
    differences: Vec<Differences>,
    t: usize,
    /// Window in which the canary was condemned.
    pub regressed_at: Option<usize>,
    /// First window in which it was called healthy.
    pub healthy_at: Option<usize>,
}

impl Trial {
    pub fn new(parameters: Parameters, indicators: usize, canary: usize, stable: usize) -> Self {
        Self {
            indicators,
            canary,
            stable,
            warmup: parameters.warmup_windows as usize,
            soak: parameters.soak_windows,
            threshold_ln: parameters.threshold_ln(),
            differences: vec![Differences::MISSING; indicators],
            pace: Pace::new(parameters, &vec![Tolerance::default(); indicators]),
            t: 0,
            regressed_at: None,
            healthy_at: None,
        }
    }

    /// A window before the canary: for each indicator the readings of the stable instances, and of the canary's where they
    /// were there as stable's version.
    pub fn before(&mut self, stable: &[f64], own: Option<&[f64]>) {
        for i in 0..self.indicators {
            let own = own.map_or(f64::NAN, |own| mean(&own[i * self.canary..(i + 1) * self.canary]));
            let mut d = pair(&stable[i * self.stable..(i + 1) * self.stable], own);
            d.series[OWN] = std::mem::replace(&mut d.canary, f64::NAN);
            self.differences[i] = d;
        }
        self.observe(Phase::Baseline);
    }

    /// A window of the rollout: for each indicator the canary's readings, then stable's. Answers whether more windows
    /// can change what is known.
    pub fn window(&mut self, readings: &[f64]) -> bool {
        for (d, row) in self.differences.iter_mut().zip(readings.chunks_exact(self.canary + self.stable)) {
            let (canary, stable) = row.split_at(self.canary);
            *d = pair(stable, mean(canary));
        }
        let phase = if self.t < self.warmup { Phase::WarmUp } else { Phase::Judged };
        self.observe(phase);
        if phase == Phase::Judged {
            let evidence_ln = self.pace.evidence_ln(&[]);
            if evidence_ln >= self.threshold_ln {
                self.regressed_at = Some(self.t);
            } else if self.healthy_at.is_none()
                && self.pace.age() > self.soak
                && evidence_ln < 0.5 * self.threshold_ln
                && (0..self.indicators).all(|i| self.pace.is_healthy(i))
            {
                self.healthy_at = Some(self.t);
            }
        }
        self.t += 1;
        self.regressed_at.is_none()
    }

    fn observe(&mut self, phase: Phase) {
        self.pace.observe(&Frame {
            index: self.t as u64,
            differences: &self.differences,
            canary_instances: self.canary,
            stable_instances: self.stable,
            phase,
            canary_step_scale: 1.0,
        });
    }

    /// Indicators by evidence, the strongest first.
    pub fn causes(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.indicators).collect();
        order.sort_by(|a, b| self.pace.indicator_evidence(*b).total_cmp(&self.pace.indicator_evidence(*a)));
        order
    }
}

/// Mean of what is there; NaN if nothing is.
fn mean(values: &[f64]) -> f64 {
    let (sum, n) = values.iter().filter(|x| !x.is_nan()).fold((0.0, 0.0), |(sum, n), x| (sum + x, n + 1.0));
    sum / n
}

fn pair(stable: &[f64], canary_mean: f64) -> Differences {
    let mut side = StableSide::default();
    for (j, ln) in stable.iter().enumerate() {
        side.add((j < PLACEBOS).then_some(j), *ln);
    }
    side.pair(canary_mean)
}
