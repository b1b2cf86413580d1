//! One rollout before the judge's own core, window by window: what `cargo xtask bench judge` and its `--stdin` share.

use canary_user::judge::{
    Known, Parameters, Tolerance,
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
        Self::of(parameters, &vec![Tolerance::default(); indicators], canary, stable)
    }

    /// The same for indicators of which each has its own tolerance.
    pub fn of(parameters: Parameters, tolerances: &[Tolerance], canary: usize, stable: usize) -> Self {
        let indicators = tolerances.len();
        Self {
            indicators,
            canary,
            stable,
            warmup: parameters.warmup_windows as usize,
            soak: parameters.soak_windows,
            threshold_ln: parameters.threshold_ln(),
            differences: vec![Differences::MISSING; indicators],
            pace: Pace::new(parameters, tolerances),
            t: 0,
            regressed_at: None,
            healthy_at: None,
        }
    }

    /// The same, with what is known of each indicator from earlier rollouts.
    pub fn knowing(self, known: impl IntoIterator<Item = Known>) -> Self {
        Self { pace: self.pace.knowing(known), ..self }
    }

    /// What this rollout taught of each indicator.
    pub fn known(&self) -> Vec<Known> {
        (0..self.indicators).map(|i| self.pace.known(i).unwrap_or_default()).collect()
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
            stable_instances: self.stable.min(PLACEBOS),
            misses_some: false,
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
    // No more have a place.
    for (place, ln) in stable.iter().enumerate().take(PLACEBOS) {
        side.add(place, *ln);
    }
    side.pair(canary_mean)
}

#[cfg(test)]
mod tests {
    use canary_user::judge::Parameters;

    use super::*;
    use crate::service::{AR7, BURSTY, Change, DIURNAL, Kind, LOGN, LOWCOUNT, MISSING, Service, Shape, Size, T3};

    /// FNV-1a over the bits of numbers, whatever the sign of a NaN.
    fn add(digest: &mut u64, numbers: &[f64]) {
        for byte in numbers.iter().flat_map(|x| (if x.is_nan() { f64::NAN } else { *x }).to_bits().to_le_bytes()) {
            *digest = (*digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// All that is known after each window of a rollout whose second indicator becomes 30 % worse: what speaks against the
    /// canary and, as the second number, what speaks for it.
    fn digests(kind: Kind, size: Size) -> [u64; 2] {
        let change = Change { at: 700, parts: vec![(1, Shape::Step(0.3))] };
        let mut service = Service::new(kind, size, Some(change), 5, 1);
        let mut trial = Trial::new(Parameters::default(), size.indicators, size.canary, size.stable);
        let mut readings = vec![0.0; size.indicators * service.instances()];
        let mut digests = [0xcbf2_9ce4_8422_2325; 2];
        for t in 0..size.before + size.windows {
            service.next(&mut readings);
            if t >= size.before {
                trial.window(&readings);
            } else {
                let rows = || readings.chunks_exact(size.canary + size.stable);
                let stable: Vec<f64> = rows().flat_map(|row| &row[size.canary..]).copied().collect();
                let own: Vec<f64> = rows().flat_map(|row| &row[..size.canary]).copied().collect();
                trial.before(&stable, size.own_past.then_some(&own));
            }
            let pace = &trial.pace;
            add(&mut digests[0], &[pace.evidence_ln(&[]), pace.mean().p, pace.p_stable().unwrap_or(f64::NAN)]);
            for (i, track) in pace.indicators().iter().enumerate() {
                let (effect, run) = (track.effect(), |start: Option<u64>| start.map_or(f64::NAN, |w| w as f64));
                let against = [
                    pace.indicator_evidence(i),
                    track.margin,
                    track.p,
                    effect.map_or(f64::NAN, |e| e.mean),
                    effect.map_or(f64::NAN, |e| e.half_width),
                    run(track.run_start()),
                    run(pace.spread(i).run_start()),
                    f64::from(u8::from(track.is_growing())),
                ];
                add(&mut digests[0], &against);
                add(&mut digests[1], &[pace.healthy_evidence(i), track.margin_healthy]);
            }
        }
        digests
    }

    /// The same windows give the same bits on every machine, and faster code gives those of the code before it.
    #[test]
    fn every_bit_of_the_evidence_is_pinned() {
        let usual = Size { windows: 1860, ..Size::default() };
        let pair = Size { stable: 1, ..usual };
        let own = Size { own_past: true, ..usual };
        let many = Size { stable: 10, canary: 2, indicators: 3, windows: 7000, ..usual };
        let cases: [(Kind, Size, [u64; 2]); 14] = [
            (AR7, usual, [0xce91_55c8_8b29_597c, 0x3354_1776_6c57_333b]),
            (T3, usual, [0xa5e5_8ef5_a33b_48ab, 0x8328_f070_01aa_498e]),
            (LOGN, usual, [0xa3d1_644f_521c_67ab, 0xe604_843d_56d7_ff30]),
            (DIURNAL, usual, [0xde3f_c4fd_041a_85ee, 0xfc47_8e75_fdd3_b7f6]),
            (BURSTY, usual, [0x2d2e_33df_8f65_6530, 0x20ee_26d4_4891_25f7]),
            (LOWCOUNT, usual, [0x46b5_1db3_fa14_468d, 0x87b5_f614_e574_1660]),
            (MISSING, usual, [0xf1d6_23f4_431a_2638, 0xf523_afb0_c252_e9d8]),
            (AR7, pair, [0x3583_6f5b_eecb_046f, 0xce5e_be8e_54fe_3d5a]),
            (BURSTY, pair, [0xd9b7_3b93_fcdd_222c, 0xbe00_6f87_68f8_38e2]),
            (MISSING, pair, [0x5833_a81c_a7f7_f66a, 0x339d_e085_d54c_26f5]),
            (AR7, own, [0x6394_0768_62b6_964a, 0x8b7e_241a_f8e7_5c38]),
            (MISSING, own, [0x3e7c_3e80_be79_f042, 0xfacd_c02b_deac_bcc3]),
            (AR7, many, [0x4269_a722_5b47_3a18, 0xfc11_5162_fe5d_d850]),
            (MISSING, many, [0x1a60_3c0a_c256_02da, 0x5d5e_8390_8209_3746]),
        ];
        let found = cases.map(|(kind, size, _)| digests(kind, size));
        assert_eq!(found, cases.map(|(_, _, pinned)| pinned), "{found:#018x?}");
    }
}
