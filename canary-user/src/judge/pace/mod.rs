//! The comparison itself: a paired, anytime-valid e-process over any number of indicators.
//!
//! Goes in: one [`Frame`] of log differences per window. Comes out: P(t), the evidence, and per indicator the
//! state of its [`Track`]. Constant memory, no clock, no I/O. Formulas and their sources: `docs/judge.md`.

mod alone;
mod bets;
mod blocks;
mod differences;
mod members;
mod noise;
mod pair;
mod shape;
mod shares;
mod spread;
mod track;

pub use bets::{Restarts, Stakes};
pub use differences::{Differences, OWN, PLACEBOS, SERIES, StableSide};
pub use noise::{Sides, Terms};
pub use spread::Spread;
pub use track::{EFFECT_WINDOWS, Effect, Track, Worse};

// The same noise, prices and bets, for what is not compared.
pub(super) use bets::powers;
pub(super) use blocks::{Scales, Series};
pub(super) use shape::{REACH, Shape};

use alone::Alone;
use pair::{bet, learns_from_pair, may_bet, with_own_past};
use shares::{CANARY, Shares, Sums, share};
use spread::BLOCK_WINDOWS;

use super::{
    earlier::Known,
    parameters::{Parameters, Tolerance},
};

/// Windows between two refreshes of margins and prices; blocks of steps, for how much indicators jump.
const REFRESH_WINDOWS: u64 = 16;
/// Rough scale of P(t) to start from.
const P_SIGMA: f64 = 0.3;

/// Where the canary is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No canary yet: stable instances only (and, where who feeds it knows that, the canary's own past as stable's version).
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
    /// Those that the canary is compared with.
    pub stable_instances: usize,
    /// Whether one of these has no reading.
    pub misses_some: bool,
    pub phase: Phase,
    /// What the canary's steps from window to window are multiplied by before they are compared: below 1 where its
    /// readings rest on less work than stable's and are noisier for that alone.
    pub canary_step_scale: f64,
}

/// The running comparison of canary and stable.
#[derive(Clone, Debug)]
pub struct Pace {
    parameters: Parameters,
    tolerances: Vec<Tolerance>,
    indicators: Vec<Track>,
    /// By indicator: how much its readings jump.
    spreads: Vec<Spread>,
    /// By indicator: what is known from earlier rollouts.
    earlier: Vec<Known>,
    /// By indicator, for a single stable instance: what it does by itself. Stands in for placebos until the pair is known.
    alone: Vec<Alone>,
    /// Whether the canary was there as stable's version before. Else what is known of its own past came from a pair.
    has_own_past: bool,
    /// P(t) as one more signal.
    mean: Track,
    /// By indicator: the canary's difference of the latest block of steps.
    canary_steps: Vec<f64>,
    p_stable: Option<f64>,
    restarts: Restarts,
    phase: Phase,
    sides: Sides,
    /// Stable instances in the latest window that had any.
    stable: usize,
    /// [`Sides::placebo_variance`], and the windows of placebos that it is a mean of.
    placebo_variance: f64,
    placebo_windows: u64,
    windows: u64,
    /// The set of stable instances changed, and nothing was refreshed since.
    has_changed: bool,
}

impl Pace {
    /// Memory that one indicator takes with up to [`PLACEBOS`] placebos and an own past, beside its settings: its level and
    /// how much it jumps. Until the first `initial_windows` rows came together these are kept besides, and with a single
    /// stable instance what that does by itself ([`Pace::ALONE_BYTES`]).
    pub const INDICATOR_BYTES: usize = size_of::<Track>() + size_of::<Spread>();
    pub const ALONE_BYTES: usize = size_of::<Alone>();

    /// One indicator per tolerance.
    pub fn new(parameters: Parameters, tolerances: &[Tolerance]) -> Self {
        let p = &parameters;
        Self {
            tolerances: tolerances.to_vec(),
            indicators: tolerances.iter().map(|t| Track::of_level(p, t.weight)).collect(),
            spreads: tolerances.iter().map(|_| Spread::new(p)).collect(),
            earlier: vec![Known::default(); tolerances.len()],
            alone: Vec::new(),
            has_own_past: false,
            mean: Track::of_mean(p, P_SIGMA),
            canary_steps: vec![f64::NAN; tolerances.len()],
            p_stable: None,
            restarts: Restarts::default(),
            phase: Phase::Baseline,
            sides: Sides { canary: 0, stable: 0, placebo_variance: 0.0, own_needed: p.minimum_baseline },
            stable: 0,
            placebo_variance: 0.0,
            placebo_windows: 0,
            windows: 0,
            has_changed: false,
            parameters,
        }
    }

    /// The same, with what is known of each indicator from earlier rollouts.
    pub fn knowing(self, earlier: impl IntoIterator<Item = Known>) -> Self {
        let mut earlier: Vec<Known> = earlier.into_iter().collect();
        earlier.resize(self.indicators.len(), Known::default());
        Self { earlier, ..self }
    }

    /// Takes one window in.
    pub fn observe(&mut self, frame: &Frame) {
        self.admit(frame);
        let differences = self.beside_known(frame);
        let frame = &Frame { differences: &differences, ..*frame };
        let p = &self.parameters;
        let has_canary = frame.phase != Phase::Baseline;
        let placebos = frame.stable_instances.min(PLACEBOS);
        let mut became_ready = false;
        if frame.stable_instances > 0 {
            self.stable = frame.stable_instances;
        }
        if placebos > 1 {
            self.placebo_windows += placebos as u64;
            let newest = placebos as f64 / self.placebo_windows as f64;
            self.placebo_variance += (Sides::of_placebo(frame.stable_instances) - self.placebo_variance) * newest;
        }
        // What the canary did as stable's version says more than what stable does by itself.
        self.has_own_past |= !has_canary && frame.differences.iter().any(|d| !d.series[OWN].is_nan());
        if frame.stable_instances == 1 && !self.has_own_past {
            self.alone.resize_with(self.indicators.len(), || Alone::new(p));
            for (alone, d) in self.alone.iter_mut().zip(frame.differences) {
                became_ready |= alone.learn(d, has_canary, p);
            }
        }
        let block_ends = self.windows % BLOCK_WINDOWS == BLOCK_WINDOWS - 1;
        let p_canary = self.compare(frame, has_canary, placebos, became_ready, block_ends);
        self.phase = frame.phase;
        self.windows += 1;
        if frame.phase == Phase::Judged {
            self.bet(frame, p_canary, block_ends);
        }
    }

    /// Learns and refreshes; answers P(t) of the canary.
    fn compare(
        &mut self,
        frame: &Frame,
        has_canary: bool,
        placebos: usize,
        mut became_ready: bool,
        block_ends: bool,
    ) -> f64 {
        let p = &self.parameters;
        let shares = self.mean_shares(frame);
        self.p_stable = mean(&shares.series[..PLACEBOS]);
        for (track, d) in self.indicators.iter_mut().zip(frame.differences) {
            if has_canary && track.has_margin() {
                track.record(d.canary);
            }
            let canary = if has_canary { d.canary } else { f64::NAN };
            became_ready |= track.learn(&with_own_past(d, &track.noise, frame, p), canary, placebos, p);
        }
        self.spreads.iter_mut().zip(frame.differences).for_each(|(spread, d)| spread.observe(d));
        if block_ends {
            became_ready |= self.compare_spreads(frame, placebos);
        }
        self.mean.p = if has_canary { shares.canary } else { f64::NAN };
        self.mean.learn(&shares.series, self.mean.p, placebos, &self.parameters);
        // At once, so that the others are not long compared with what they are not known beside.
        became_ready |= std::mem::take(&mut self.has_changed);
        if self.windows.is_multiple_of(REFRESH_WINDOWS) || became_ready || frame.phase != self.phase {
            self.refresh(frame, has_canary, became_ready);
        }
        shares.canary
    }

    /// The same for how much each indicator jumps. Answers whether one became ready.
    fn compare_spreads(&mut self, frame: &Frame, placebos: usize) -> bool {
        let p = &self.parameters;
        let mut became_ready = false;
        for ((spread, canary), d) in self.spreads.iter_mut().zip(&mut self.canary_steps).zip(frame.differences) {
            let steps = spread.differences(frame.canary_step_scale);
            became_ready |= spread.noise.admit(steps.present);
            let steps = steps.among(spread.noise.members());
            let mut row = *with_own_past(&steps, &spread.noise, frame, p);
            *canary = steps.canary;
            if frame.phase == Phase::Baseline && !d.series[OWN].is_nan() {
                row[OWN] = std::mem::replace(canary, f64::NAN);
            }
            became_ready |= spread.noise.learn(&row, placebos, p);
        }
        became_ready
    }

    /// P of the canary and of every placebo: the mean share of the margin used, over the indicators present.
    fn mean_shares(&self, frame: &Frame) -> Shares {
        let mut sums = Sums::default();
        for (track, d) in self.indicators.iter().zip(frame.differences).filter(|(t, _)| t.has_margin()) {
            let (weight, per_margin) = (track.weight(), 1.0 / track.margin);
            // What stands in for the noise of the pair knows no offset of it.
            if track.noise.is_ready() {
                let row = with_own_past(d, &track.noise, frame, &self.parameters);
                for (j, (d, offset)) in row.iter().zip(track.noise.offsets()).enumerate() {
                    if !d.is_nan() {
                        sums.add(j, share(d - offset, per_margin), weight);
                    }
                }
            }
            if !d.canary.is_nan() {
                sums.add(CANARY, share(d.canary - track.derived.offset, per_margin), weight);
            }
        }
        sums.means()
    }

    fn refresh(&mut self, frame: &Frame, has_canary: bool, all: bool) {
        let p = &self.parameters;
        let sides = Sides {
            canary: frame.canary_instances,
            stable: frame.stable_instances,
            placebo_variance: self.placebo_variance,
            own_needed: if self.has_own_past { 0 } else { p.minimum_baseline },
        };
        self.sides = sides;
        let known = self.tolerances.iter().zip(&self.earlier);
        let tracks = self.indicators.iter_mut().zip(known).filter(|(t, _)| t.noise.is_ready());
        for (track, (tolerance, earlier)) in tracks {
            let estimates = track.refresh(has_canary, sides, earlier.noise, p);
            let spread = track.noise.offset_spread(&estimates, sides, p.tau0, earlier, p);
            track.set_margins(spread, estimates.usual_variance, tolerance, p);
        }
        // These change with a block only.
        let due = all || frame.phase != self.phase || self.windows.is_multiple_of(BLOCK_WINDOWS * REFRESH_WINDOWS);
        for spread in self.spreads.iter_mut().filter(|s| due && s.noise.is_ready()) {
            spread.refresh(sides, p);
        }
        self.mean.refresh(has_canary, sides, 0.0, p);
        self.alone.iter_mut().for_each(|alone| alone.refresh(has_canary, sides, p));
        let known = self.tolerances.iter().zip(&self.earlier);
        for (i, (track, (tolerance, earlier))) in self.indicators.iter_mut().zip(known).enumerate() {
            let alone = self.alone.get(i).filter(|alone| alone.stands_in(track, frame, p));
            track.stand_in(alone.map(|alone| &alone.derived));
            if let Some(alone) = alone {
                track.set_margins(alone.offset_spread(earlier, p), alone.usual_variance, tolerance, p);
            }
        }
    }

    fn bet(&mut self, frame: &Frame, p_canary: f64, block_ends: bool) {
        // Alpha holds for one horizon. After it the stake is renewed, but never in the middle of a run that is winning.
        if self.restarts.age() >= self.parameters.horizon_windows && self.evidence_ln(&[]) <= 0.0 {
            self.restarts = Restarts::default();
            self.indicators.iter_mut().for_each(Track::renew);
            self.spreads.iter_mut().for_each(Spread::reset);
            self.mean.renew();
        }
        let p = &self.parameters;
        let weight = self.restarts.next_weight(p.start_weight, p.horizon_windows);
        for (track, d) in self.indicators.iter_mut().zip(frame.differences) {
            track.put_in(weight, p);
            track.follow_presence(d.canary);
            if track.is_stood_in_for() && learns_from_pair(&track.noise, frame, p) {
                track.bet(d.canary, frame.index, p);
            } else {
                bet(track, d.canary, frame, p);
            }
        }
        let counted = self.tolerances.iter().map(|t| t.steps);
        for ((spread, canary), _) in self.spreads.iter_mut().zip(&self.canary_steps).zip(counted).filter(|(_, c)| *c) {
            spread.put_in(weight, p);
            if block_ends && may_bet(&mut spread.noise, *canary, frame, p) {
                spread.bet(*canary, frame.index, p);
            }
        }
        self.mean.put_in(weight, p);
        bet(&mut self.mean, p_canary, frame, p);
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

    /// The e-value of an indicator: of its level and, with a smaller weight, of its spread.
    pub fn indicator_evidence(&self, indicator: usize) -> f64 {
        let w = self.spread_weight(indicator);
        (1.0 - w) * self.indicators[indicator].evidence(&self.restarts) + w * self.spread_evidence(indicator)
    }

    fn spread_weight(&self, indicator: usize) -> f64 {
        if self.tolerances[indicator].steps { self.parameters.spread_weight } else { 0.0 }
    }

    fn spread_evidence(&self, indicator: usize) -> f64 {
        self.spreads[indicator].evidence(&self.restarts)
    }

    /// Whether an indicator's evidence comes from how much it jumps rather than from its level.
    pub fn is_spread(&self, indicator: usize) -> bool {
        let w = self.spread_weight(indicator);
        let level = (1.0 - w) * self.indicators[indicator].evidence(&self.restarts);
        w * self.spread_evidence(indicator) > level.max(1.0)
    }

    /// How much an indicator jumps.
    pub fn spread(&self, indicator: usize) -> &Spread {
        &self.spreads[indicator]
    }

    /// ln of the e-value of the whole comparison: the weighted mean of the e-values of the indicators that ever had
    /// data, of `others` (counts) and of P(t). A mean of e-values is an e-value under any dependence.
    pub fn evidence_ln(&self, others: &[f64]) -> f64 {
        let present = (0..self.indicators.len()).filter(|i| self.indicators[*i].has_data());
        let present = present.map(|i| (self.indicators[i].weight(), self.indicator_evidence(i)));
        let others = others.iter().map(|e| (1.0, *e));
        let (sum, n) = present.chain(others).fold((0.0, 0.0), |(s, n), (w, e)| (s + w * e, n + w));
        let signals = if n > 0.0 { sum / n } else { 1.0 };
        let weight = self.parameters.p_weight;
        libm::log((1.0 - weight) * signals + weight * self.mean.evidence(&self.restarts))
    }

    /// Where offset and noise of an indicator come from the pair itself, for want of a second stable instance: the standard
    /// deviation between two equal instances, as far as anything is known of it, which says what cannot be seen by that.
    pub fn rests_on_pair(&self, indicator: usize) -> Option<f64> {
        let noise = &self.indicators[indicator].noise;
        let is_of_pair = !self.has_own_past && noise.own_windows() > 0;
        let rests = is_of_pair && (self.stable < 2 || noise.has_own_past(self.sides));
        rests.then(|| alone::pair_squares(&self.earlier[indicator], &self.parameters).sqrt())
    }

    /// The e-value that one of `signals` (their number, or their weight over its own) has to reach alone to be named as a
    /// cause with family-wise confidence.
    pub fn confirmed_at(&self, signals: f64) -> f64 {
        signals / ((1.0 - self.parameters.p_weight) * self.parameters.alpha)
    }

    pub fn healthy_evidence(&self, indicator: usize) -> f64 {
        self.indicators[indicator].evidence_healthy(&self.restarts)
    }

    /// Whether an indicator is shown to be below its healthy margin, and still read.
    pub fn is_healthy(&self, indicator: usize) -> bool {
        let track = &self.indicators[indicator];
        track.has_baseline(&self.parameters)
            && self.healthy_evidence(indicator) >= 1.0 / self.parameters.beta
            && self.silent_for(indicator).is_none()
    }

    /// Judged windows since canary and stable both had a reading of an indicator, where they are so many that nothing is known of
    /// it any more. Where there is little work, readings come once in as many windows as are merged.
    pub fn silent_for(&self, indicator: usize) -> Option<u64> {
        self.too_long(self.indicators[indicator].silent_windows())
    }

    /// The same of all indicators together.
    pub fn all_silent_for(&self) -> Option<u64> {
        self.too_long(self.silent_windows())
    }

    /// Judged windows since canary and stable both had a reading of anything.
    pub fn silent_windows(&self) -> u64 {
        self.indicators.iter().map(Track::silent_windows).min().unwrap_or(0)
    }

    fn too_long(&self, windows: u64) -> Option<u64> {
        let most = (2 * self.parameters.silent_windows).min(Track::MOST_SILENT_WINDOWS - 1);
        (windows > most).then_some(windows)
    }

    /// What later rollouts should know of an indicator; `None` while it is little.
    pub fn known(&self, indicator: usize) -> Option<Known> {
        self.indicators[indicator].noise.known(self.sides, &self.parameters)
    }

    /// What was bet on was not the version: the stakes begin anew, all that was learned is kept.
    pub fn drop_evidence(&mut self) {
        self.restarts = Restarts::default();
        self.indicators.iter_mut().for_each(Track::drop_evidence);
        self.spreads.iter_mut().for_each(Spread::reset);
        self.mean.drop_evidence();
    }

    /// Another canary: evidence is dropped, noise is kept.
    pub fn reset_evidence(&mut self) {
        self.restarts = Restarts::default();
        self.indicators.iter_mut().for_each(Track::forget_canary);
        self.spreads.iter_mut().for_each(Spread::forget_canary);
        self.mean.forget_canary();
        self.free(OWN);
        self.indicators.iter_mut().for_each(|t| t.noise.forget_what_is_gone());
        self.has_own_past = false;
        self.phase = Phase::Baseline;
    }
}

/// Mean of what is not NaN.
fn mean(values: &[f64]) -> Option<f64> {
    let (sum, n) = values.iter().filter(|v| !v.is_nan()).fold((0.0, 0u32), |(s, n), v| (s + v, n + 1));
    (n > 0).then(|| sum / f64::from(n))
}
