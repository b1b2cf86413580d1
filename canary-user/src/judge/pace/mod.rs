//! The comparison itself: a paired, anytime-valid e-process over any number of indicators.
//!
//! Goes in: one [`Frame`] of log differences per window. Comes out: P(t), the evidence, and per indicator the
//! state of its [`Track`]. Constant memory, no clock, no I/O. Formulas and their sources: `docs/judge.md`.

mod bets;
mod blocks;
mod differences;
mod noise;
mod track;

pub use bets::{Restarts, Stakes};
pub use differences::{Differences, OWN, PLACEBOS, SERIES, StableSide};
pub use track::{EFFECT_WINDOWS, Effect, Track};

use noise::Noise;

use super::parameters::{Parameters, Tolerance};

/// Windows between two refreshes of margins and prices.
const REFRESH_WINDOWS: u64 = 8;
/// Rough scale of P(t) to start from.
const P_SIGMA: f64 = 0.3;

/// Where the canary is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No canary yet: stable instances only (and, at an upgrade in place, the canary's own past).
    Baseline,
    /// The canary is there and is not bet on yet.
    WarmUp,
    Judged,
}

/// One window of the comparison.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Names the window in onsets.
    pub index: u64,
    /// One entry per indicator.
    pub differences: &'a [Differences],
    pub canary_instances: usize,
    pub stable_instances: usize,
    pub phase: Phase,
}

/// The running comparison of canary and stable.
#[derive(Clone, Debug)]
pub struct Pace {
    parameters: Parameters,
    indicators: Vec<Track>,
    /// P(t) as one more signal.
    mean: Track,
    p_stable: Option<f64>,
    restarts: Restarts,
    phase: Phase,
    windows: u64,
}

impl Pace {
    /// One indicator per tolerance.
    pub fn new(parameters: Parameters, tolerances: &[Tolerance]) -> Self {
        let p = &parameters;
        let indicators = tolerances.iter().map(|t| Track::new(Noise::new(p), *t)).collect();
        let mut mean = Track::new(Noise::centred(p, P_SIGMA), Tolerance::default());
        mean.margin = p.p_margin;
        Self {
            indicators,
            mean,
            p_stable: None,
            restarts: Restarts::default(),
            phase: Phase::Baseline,
            windows: 0,
            parameters,
        }
    }

    /// Takes one window in.
    pub fn observe(&mut self, frame: &Frame) {
        let p = &self.parameters;
        let has_canary = frame.phase != Phase::Baseline;
        let placebos = frame.stable_instances.min(PLACEBOS);
        let rows: Vec<Differences> = frame
            .differences
            .iter()
            .zip(&self.indicators)
            .map(|(d, track)| with_own_past(d, track, frame, p))
            .collect();

        let shares = self.mean_shares(&rows);
        self.p_stable = mean(&shares.series[..PLACEBOS]);
        let mut became_ready = false;
        for (track, d) in self.indicators.iter_mut().zip(&rows) {
            if has_canary && track.noise.is_ready() {
                track.record(d);
            }
            became_ready |= track.learn(&d.series, if has_canary { d.canary } else { f64::NAN }, placebos, p);
        }
        self.mean.p = if has_canary { shares.canary } else { f64::NAN };
        self.mean.learn(&shares.series, self.mean.p, placebos, p);

        if self.windows.is_multiple_of(REFRESH_WINDOWS) || became_ready || frame.phase != self.phase {
            self.refresh(frame, has_canary);
        }
        self.phase = frame.phase;
        self.windows += 1;
        if frame.phase == Phase::Judged {
            self.bet(&rows, shares.canary, frame);
        }
    }

    /// P of the canary and of every placebo: the mean share of the margin used, over the indicators present.
    fn mean_shares(&self, rows: &[Differences]) -> Differences {
        let over = |pick: &dyn Fn(&Track, &Differences) -> f64| -> f64 {
            let (mut sum, mut n) = (0.0, 0.0);
            for (track, d) in self.indicators.iter().zip(rows).filter(|(t, _)| t.noise.is_ready()) {
                let share = pick(track, d);
                if !share.is_nan() {
                    sum += share;
                    n += 1.0;
                }
            }
            sum / n
        };
        Differences {
            canary: over(&|t, d| t.share(d.canary, t.noise.derived.offset)),
            series: std::array::from_fn(|j| over(&|t, d| t.share(d.series[j], t.noise.series_offset(j)))),
        }
    }

    fn refresh(&mut self, frame: &Frame, has_canary: bool) {
        let p = &self.parameters;
        for track in self.indicators.iter_mut().filter(|t| t.noise.is_ready()) {
            track.noise.derive(has_canary, p);
            track.set_margins(frame.canary_instances, frame.stable_instances, p);
        }
        self.mean.noise.derive(has_canary, p);
    }

    fn bet(&mut self, rows: &[Differences], p_canary: f64, frame: &Frame) {
        // Alpha holds for one horizon. After it the stake is renewed, but never in the middle of a run that is winning.
        if self.restarts.age() >= self.parameters.horizon_windows && self.evidence_ln(&[]) <= 0.0 {
            self.restarts = Restarts::default();
            self.indicators.iter_mut().for_each(|t| t.reset(false));
            self.mean.reset(false);
        }
        let p = &self.parameters;
        let weight = self.restarts.next_weight(p);
        for (track, d) in self.indicators.iter_mut().zip(rows) {
            track.put_in(weight);
            if learns_from_pair(track, frame, p) {
                continue;
            }
            if track.has_baseline(p) {
                track.bet(d.canary, frame.index, p);
            }
            if frame.stable_instances < 2 {
                track.noise.learn_mirrored(d.canary, p);
            }
        }
        self.mean.put_in(weight);
        if self.mean.has_baseline(p) {
            self.mean.bet(p_canary, frame.index, p);
            if frame.stable_instances < 2 {
                self.mean.noise.learn_mirrored(p_canary, p);
            }
        }
    }

    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    pub fn indicators(&self) -> &[Track] {
        &self.indicators
    }

    /// P(t) as a signal.
    pub fn mean(&self) -> &Track {
        &self.mean
    }

    /// P(t) of the stable instances, each as if it were the canary, averaged.
    pub fn p_stable(&self) -> Option<f64> {
        self.p_stable
    }

    /// Windows since the first bet.
    pub fn age(&self) -> u64 {
        self.restarts.age()
    }

    pub fn indicator_evidence(&self, indicator: usize) -> f64 {
        self.indicators[indicator].evidence(&self.restarts)
    }

    /// ln of the e-value of the whole comparison: the weighted mean of the e-values of the indicators that ever had
    /// data, of `others` (counts) and of P(t). A mean of e-values is an e-value under any dependence.
    pub fn evidence_ln(&self, others: &[f64]) -> f64 {
        let present = self.indicators.iter().filter(|t| t.has_data()).map(|t| t.evidence(&self.restarts));
        let (sum, n) = present.chain(others.iter().copied()).fold((0.0, 0.0), |(s, n), e| (s + e, n + 1.0));
        let signals = if n > 0.0 { sum / n } else { 1.0 };
        let weight = self.parameters.p_weight;
        ((1.0 - weight) * signals + weight * self.mean.evidence(&self.restarts)).ln()
    }

    /// Whether offset and noise of an indicator came from the pair itself, for want of a second stable instance.
    pub fn rests_on_pair(&self, indicator: usize) -> bool {
        let noise = &self.indicators[indicator].noise;
        noise.own_windows() > 0 && noise.placebo_pairs() < self.parameters.minimum_baseline
    }

    /// The e-value that one of `signals` has to reach alone to be named as a cause with family-wise confidence.
    pub fn confirmed_at(&self, signals: usize) -> f64 {
        signals as f64 / ((1.0 - self.parameters.p_weight) * self.parameters.alpha)
    }

    /// Whether an indicator is shown to be below its healthy margin.
    pub fn is_healthy(&self, indicator: usize) -> bool {
        let track = &self.indicators[indicator];
        track.has_baseline(&self.parameters) && track.evidence_healthy() >= 1.0 / self.parameters.beta
    }

    /// First idea of the offset of a stable instance that is warming up in `series`.
    pub fn prime(&mut self, indicator: usize, series: usize, d: f64) {
        self.indicators[indicator].noise.prime(series, d);
    }

    /// The stable instance of `series` is gone.
    pub fn free(&mut self, series: usize) {
        self.indicators.iter_mut().for_each(|t| t.noise.free(series));
        self.mean.noise.free(series);
    }

    /// The set of stable instances changed.
    pub fn soften(&mut self) {
        self.indicators.iter_mut().for_each(|t| t.noise.soften());
        self.mean.noise.soften();
    }

    /// Another canary: evidence is dropped, noise is kept.
    pub fn reset_evidence(&mut self) {
        self.restarts = Restarts::default();
        self.indicators.iter_mut().for_each(|t| t.reset(true));
        self.mean.reset(true);
        self.phase = Phase::Baseline;
    }
}

/// With one stable instance there is no placebo. Then the pair itself, during its first judged windows, is taken
/// as the canary's own past: offset and noise are learned from it, and bets begin after it.
fn learns_from_pair(track: &Track, frame: &Frame, p: &Parameters) -> bool {
    frame.phase == Phase::Judged
        && frame.stable_instances < 2
        && track.noise.placebo_pairs() < p.minimum_baseline
        // P(t) is there once the initial windows gave location and scale, and needs its own minimum.
        && track.noise.own_windows() <= p.minimum_baseline + p.initial_windows as u64
}

fn with_own_past(d: &Differences, track: &Track, frame: &Frame, p: &Parameters) -> Differences {
    let mut d = *d;
    if learns_from_pair(track, frame, p) {
        d.series[OWN] = d.canary;
    }
    d
}

/// Mean of what is not NaN.
fn mean(values: &[f64]) -> Option<f64> {
    let (sum, n) = values.iter().filter(|v| !v.is_nan()).fold((0.0, 0u32), |(s, n), v| (s + v, n + 1));
    (n > 0).then(|| sum / f64::from(n))
}
