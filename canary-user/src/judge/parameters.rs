//! Every number of the judge that can be set, with its default and what it is for.

use crate::window::Indicator;

/// How many bets are held at once: the evidence is their mean.
pub const BETS: usize = 4;

/// What counts as a change of one indicator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// A rise of the canary over stable up to this share is allowed (0.02 is 2 %), before the margin for noise is added.
    pub delta: f64,
    /// "Healthy" means: shown to be below this share.
    pub delta_healthy: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { delta: 0.02, delta_healthy: 0.10 }
    }
}

/// How one indicator of a [`Window`](crate::window::Window) is read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IndicatorParameters {
    pub tolerance: Tolerance,
    /// Added before the logarithm, in the indicator's unit: differences far below it matter to nobody.
    pub epsilon: f64,
}

impl IndicatorParameters {
    fn of(indicator: Indicator) -> Self {
        let epsilon = match indicator {
            Indicator::CpuPerWork => 1_000.0,
            Indicator::RunQueueWait => 20_000.0,
            Indicator::MemoryStall => 0.01,
            Indicator::MemoryInUse => 8.0 * 1024.0 * 1024.0,
            Indicator::BytesPerWork => 64.0,
            Indicator::TurnaroundMean | Indicator::TurnaroundP95 => 50_000.0,
        };
        let delta = if indicator == Indicator::MemoryInUse { 0.05 } else { 0.02 };
        Self { tolerance: Tolerance { delta, ..Tolerance::default() }, epsilon }
    }
}

/// The judge's settings. Lengths of time are counted in windows, because noise is.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    /// Probability of condemning a canary that is not worse than its margins, over one `horizon`.
    pub alpha: f64,
    /// Probability of calling an indicator healthy that is worse than its `delta_healthy`.
    pub beta: f64,
    /// Spread (standard deviation of ln) between equal instances that is assumed before it was seen.
    pub tau0: f64,
    /// How many instances' worth of observation `tau0` stands for.
    pub tau0_weight: f64,
    /// How many standard deviations of offset and wander the margin adds to `delta`.
    pub margin_multiplier: f64,
    /// Share of the margin for noise that the healthy test adds to `delta_healthy`.
    pub healthy_margin_share: f64,
    /// A window's deviation counts up to this many robust standard deviations.
    pub clip: f64,
    /// Sizes of the bets, in long-run standard deviations. The largest times `clip` is the most
    /// (as a logarithm) by which one window can raise the evidence: 1.2 by default, so that at least
    /// six windows have to agree.
    pub bets: [f64; BETS],
    /// Share of the stake that is bet from the first judged window on.
    pub start_weight: f64,
    /// The rest is bet in equal parts, one each so many windows, to find what begins late.
    pub restart_every_windows: u64,
    /// Windows over which the stake is spread, and for which `alpha` holds.
    pub horizon_windows: u64,
    /// Margin of P(t): this share of all indicators' margins used at once counts as a change.
    pub p_margin: f64,
    /// Weight of P(t) in the evidence; the indicators and events share the rest.
    pub p_weight: f64,
    /// Windows that a new or restarted instance sits out.
    pub warmup_windows: u64,
    /// Windows that are judged before "healthy" may be said.
    pub soak_windows: u64,
    /// Placebo windows (summed over the stable instances) needed before an indicator is bet on.
    pub minimum_baseline: u64,
    /// Placebo windows kept to find location and scale before learning goes on in a stream.
    pub initial_windows: usize,
    /// Smallest scale (robust standard deviation of ln) that is believed.
    pub scale_floor: f64,
    /// Factor on the worst excursion seen among the stable instances.
    pub excursion_factor: f64,
    /// The same where all that is known comes from a single pair: less was seen.
    pub excursion_factor_pair: f64,
    /// Ratio of event rates, canary over stable, up to which nothing is wrong.
    pub event_null_ratio: f64,
    /// The most by which the events of one window can raise the evidence of their kind, as a logarithm: a clump of them
    /// in one window is one fact, and at least four windows have to agree.
    pub event_gain_limit_ln: f64,
    /// Windows without any canary reading after which the canary counts as silent.
    pub silent_windows: u64,
    /// Time within which hard facts belong together, on the windows' own clock.
    pub hard_span_ns: u64,
    /// By [`Indicator`] as index.
    pub indicators: [IndicatorParameters; Indicator::COUNT],
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            alpha: 0.001,
            beta: 0.05,
            tau0: 0.005,
            tau0_weight: 3.0,
            margin_multiplier: 3.0,
            healthy_margin_share: 0.33,
            clip: 3.0,
            bets: [0.05, 0.1, 0.2, 0.4],
            start_weight: 0.5,
            restart_every_windows: 10,
            horizon_windows: 3600,
            p_margin: 0.75,
            p_weight: 0.25,
            warmup_windows: 60,
            soak_windows: 300,
            minimum_baseline: 300,
            initial_windows: 60,
            scale_floor: 0.003,
            excursion_factor: 1.3,
            excursion_factor_pair: 2.0,
            event_null_ratio: 1.1,
            event_gain_limit_ln: 2.5,
            silent_windows: 30,
            hard_span_ns: 300_000_000_000,
            indicators: Indicator::ALL.map(IndicatorParameters::of),
        }
    }
}

impl Parameters {
    /// ln(1/alpha): the evidence at which the canary is condemned.
    pub fn threshold_ln(&self) -> f64 {
        -self.alpha.ln()
    }
}
