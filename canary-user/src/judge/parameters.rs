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
    /// Weight of its evidence and of its share in P(t), relative to the other indicators; 0 leaves it out.
    pub weight: f64,
    /// Whether larger steps from window to window speak against the canary, too, at whatever level. Not of what fills up: a
    /// canary that warms its caches changes more than a stable that has done so long ago.
    pub steps: bool,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { delta: 0.02, delta_healthy: 0.10, weight: 1.0, steps: true }
    }
}

/// How one indicator of a [`Window`](crate::window::Window) is read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct IndicatorParameters {
    pub tolerance: Tolerance,
    /// Added before the logarithm, in the indicator's unit: differences far below it matter to nobody.
    pub epsilon: f64,
    /// Which change is worse.
    pub direction: Direction,
    /// Condemns alone once its own evidence reaches 1/alpha.
    pub critical: bool,
    /// Shown, and neither bet on nor needed for "healthy".
    pub mute: bool,
    pub missing: Missing,
}

/// Which change of an indicator is worse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    #[default]
    Up,
    Down,
}

impl Direction {
    pub fn name(self) -> &'static str {
        match self {
            Direction::Up => "up",
            Direction::Down => "down",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        [Direction::Up, Direction::Down].into_iter().find(|d| d.name() == name)
    }

    /// Factor on a logarithm after which larger is worse.
    pub fn sign(self) -> f64 {
        match self {
            Direction::Up => 1.0,
            Direction::Down => -1.0,
        }
    }
}

/// What becomes of the verdict where an indicator that one side reports is missing. Never a reason to act.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missing {
    /// Not healthy. The others can still condemn.
    #[default]
    Inconclusive,
    /// Insufficient data, whatever the others say.
    Insufficient,
    /// The others decide.
    Ignore,
}

impl Missing {
    pub fn name(self) -> &'static str {
        match self {
            Missing::Inconclusive => "inconclusive",
            Missing::Insufficient => "insufficient",
            Missing::Ignore => "ignore",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        [Missing::Inconclusive, Missing::Insufficient, Missing::Ignore].into_iter().find(|m| m.name() == name)
    }
}

impl IndicatorParameters {
    fn of(indicator: Indicator) -> Self {
        let epsilon = match indicator {
            Indicator::CpuPerWork => 1_000.0,
            Indicator::RunQueueWait | Indicator::RunQueueWaitP95 => 20_000.0,
            Indicator::MemoryStall => 0.01,
            Indicator::MemoryInUse => 8.0 * 1024.0 * 1024.0,
            Indicator::BytesPerWork => 64.0,
            Indicator::TurnaroundMean | Indicator::TurnaroundP95 | Indicator::DependencyTurnaround => 50_000.0,
        };
        let fills_up = indicator == Indicator::MemoryInUse;
        let delta = if fills_up { 0.05 } else { 0.02 };
        // Where waits are few it is read seldom, and learned from for longer than anybody waits; their mean is there by then.
        let missing = if indicator == Indicator::RunQueueWaitP95 { Missing::Ignore } else { Missing::default() };
        let tolerance = Tolerance { delta, steps: !fills_up, ..Tolerance::default() };
        Self { tolerance, epsilon, missing, ..Self::default() }
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
    /// Share of the margin for noise that the healthy test adds to `delta_healthy` at most: only as much as an equal version
    /// needs to be shown healthy within the horizon.
    pub healthy_margin_share: f64,
    /// A window's deviation counts up to this many standard deviations: robust ones, or those of the long run where they are
    /// larger (up to 12 robust ones).
    pub clip: f64,
    /// Size of the smallest bet, in long-run standard deviations. Each other is twice the one before.
    pub smallest_bet: f64,
    /// The same for the bets on "healthy".
    pub smallest_bet_healthy: f64,
    /// Shares of the stake that go into the bets, from the smallest to the largest; they sum to one.
    pub bet_shares: [f64; BETS],
    /// The most by which one window can multiply the evidence of an indicator, so that many windows have to agree.
    pub gain_limit: f64,
    /// Share of the stake that is bet from the first judged window on. The rest is bet in equal parts over the horizon,
    /// to find what begins late.
    pub start_weight: f64,
    /// Windows over which the stake is spread, and for which `alpha` holds.
    pub horizon_windows: u64,
    /// Margin of P(t): this share of all indicators' margins used at once counts as a change.
    pub p_margin: f64,
    /// Allowed rise of sqrt(1 + u), where u is an instance's step from window to window over stable's usual step:
    /// 0.1 is steps larger by about a third.
    pub spread_delta: f64,
    /// Spread of that between equal instances, as for `tau0`.
    pub spread_tau0: f64,
    /// A deviation of it counts up to this many robust standard deviations.
    pub spread_clip: f64,
    /// Part of each indicator's evidence that rests on its steps instead of its level.
    pub spread_weight: f64,
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
    /// For a single stable instance, `tau0` until the pair's own past is known.
    pub tau0_pair: f64,
    /// How many standard errors the variance of blocks is taken smaller, where it is compared with that of other lengths.
    pub few_blocks_discount: f64,
    /// Factor on the worst excursion seen among the stable instances.
    pub excursion_factor: f64,
    /// How much more an excursion counts where the noise is known to come in one-sided bursts.
    pub burst_factor: f64,
    /// Share of the variance of long block means that is not counted as wander, as far as shorter blocks explain it.
    pub wander_noise_share: f64,
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
    /// Share of the time that both sides wait for a CPU from which, held by other cgroups, a neighbour is the reason.
    pub neighbour_wait_share: f64,
    /// Share of what the canary takes longer that its waits for others' CPUs have to make up to be the reason, or those for its
    /// limit, or its stalls on memory.
    pub wait_explains_share: f64,
    /// Share of the machine's CPUs from which others make it busy.
    pub others_cpu_share: f64,
    /// How far that has to be above the usual share, and likewise the share of waits.
    pub others_rise: f64,
    /// Share of the machine's memory below which it is short of it.
    pub memory_available_share: f64,
    /// Share of its periods, beyond stable's, in which the CPU limit holds the canary back, from which it is the reason.
    pub throttled_share: f64,
    /// Load per instance, canary over stable, from which what grows with load is not compared, and below whose inverse the
    /// canary is not called healthy.
    pub load_ratio: f64,
    /// Share of what a request costs stable, in CPU and bytes, that may be fixed costs divided by the load: a canary with less
    /// load may cost more by as much as that share makes of it.
    pub fixed_cost_share: f64,
    /// How far stable has to be above what it was before the canary's onset to be worse itself, in standard deviations.
    pub stable_worse_sd: f64,
    /// How much of the canary's change stable's own has to be, as logarithms.
    pub stable_worse_share: f64,
    /// Windows that pass on average, at least, until a stretch is found in one indicator of one version in which nothing
    /// happened. It is also the evidence at which one is over.
    pub stretch_run_length: f64,
    /// Windows that the usual level remembers.
    pub stretch_reference_windows: u64,
    /// Windows that are learned from before a stretch is looked for.
    pub stretch_baseline_windows: u64,
    /// Windows that are not learned from yet: so much time there is to find a stretch before it becomes usual.
    pub stretch_lag_windows: usize,
    /// A window's deviation counts up to this many standard deviations of the long run, at most 12 robust ones.
    pub stretch_clip: f64,
    /// Windows back inside the band, at least, before a stretch is over.
    pub stretch_back_windows: u64,
    /// A stretch is a burst up to this length.
    pub stretch_burst_windows: u64,
    /// After this length a stretch is what is usual.
    pub stretch_longest_windows: u64,
    /// A stretch is a drift where a straight line through it rises by this share of twice its mean: a ramp has 1, a step 0.
    pub stretch_drift_share: f64,
    /// A stretch is an oscillation where it leaves its own mean this often, per window.
    pub stretch_turn_share: f64,
    /// Stretches that are remembered, of a deployment.
    pub stretches_kept: usize,
    /// Windows for which stable is held against what it was before all its instances were replaced; 0 = not at all.
    pub continuous_windows: u64,
    /// By [`Indicator`] as index.
    pub indicators: [IndicatorParameters; Indicator::COUNT],
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            alpha: 0.001,
            beta: 0.05,
            tau0: 0.005,
            tau0_weight: 1.5,
            margin_multiplier: 3.1,
            healthy_margin_share: 0.5,
            clip: 3.0,
            smallest_bet: 0.1,
            smallest_bet_healthy: 0.05,
            bet_shares: [0.15, 0.2, 0.25, 0.4],
            gain_limit: 5.5,
            start_weight: 0.5,
            horizon_windows: 3600,
            p_margin: 0.75,
            spread_delta: 0.1,
            spread_tau0: 0.015,
            spread_clip: 5.0,
            spread_weight: 0.15,
            p_weight: 0.25,
            warmup_windows: 60,
            soak_windows: 300,
            minimum_baseline: 300,
            initial_windows: 60,
            scale_floor: 0.003,
            tau0_pair: 0.02,
            few_blocks_discount: 0.5,
            excursion_factor: 1.3,
            burst_factor: 3.5,
            wander_noise_share: 0.6,
            excursion_factor_pair: 2.0,
            event_null_ratio: 1.1,
            event_gain_limit_ln: 2.5,
            silent_windows: 30,
            hard_span_ns: 300_000_000_000,
            neighbour_wait_share: 0.5,
            wait_explains_share: 0.5,
            others_cpu_share: 0.5,
            others_rise: 0.2,
            memory_available_share: 0.05,
            throttled_share: 0.1,
            load_ratio: 2.0,
            fixed_cost_share: 0.1,
            stable_worse_sd: 4.0,
            stable_worse_share: 0.25,
            stretch_run_length: 86_400.0,
            stretch_reference_windows: 600,
            stretch_baseline_windows: 120,
            stretch_lag_windows: 60,
            stretch_clip: 5.0,
            stretch_back_windows: 10,
            stretch_burst_windows: 30,
            stretch_longest_windows: 3600,
            stretch_drift_share: 0.5,
            stretch_turn_share: 0.05,
            stretches_kept: 20,
            continuous_windows: 3_600,
            indicators: Indicator::ALL.map(IndicatorParameters::of),
        }
    }
}

impl Parameters {
    /// Size of bet `a`.
    pub fn bet(&self, a: usize) -> f64 {
        self.smallest_bet * (1u32 << a) as f64
    }

    /// ln(1/alpha): the evidence at which the canary is condemned.
    pub fn threshold_ln(&self) -> f64 {
        -libm::log(self.alpha)
    }
}
