//! Every number of the judge by its name: what the configuration, `canary replay --what-if` and the documentation share.

use super::parameters::{BETS, Direction, IndicatorParameters, Missing, Parameters};
use crate::window::Indicator;

/// One key of `[judge]`.
#[derive(Clone, Copy)]
pub struct Setting {
    pub key: &'static str,
    pub kind: Kind,
    /// What it is for, in one sentence.
    pub meaning: &'static str,
    pub least: f64,
    pub most: f64,
    get: fn(&Parameters) -> Vec<f64>,
    set: fn(&mut Parameters, &[f64]),
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Number,
    /// A whole number.
    Whole,
    /// So many shares of one whole: they sum to at most 1.
    Shares(usize),
}

impl Setting {
    /// The value that holds, as TOML.
    pub fn value(&self, p: &Parameters) -> toml::Value {
        let values = (self.get)(p);
        let number = |v: f64| match self.kind {
            Kind::Whole => toml::Value::Integer(v as i64),
            Kind::Number | Kind::Shares(_) => toml::Value::Float(v),
        };
        match self.kind {
            Kind::Shares(_) => toml::Value::Array(values.into_iter().map(number).collect()),
            Kind::Number | Kind::Whole => number(values[0]),
        }
    }

    /// Sets it. The caller has checked kind and range.
    pub fn apply(&self, p: &mut Parameters, values: &[f64]) {
        (self.set)(p, values);
    }
}

impl std::fmt::Debug for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.key)
    }
}

macro_rules! setting {
    ($field:ident, $key:literal, number $least:literal to $most:literal, $meaning:literal) => {
        Setting {
            key: $key,
            kind: Kind::Number,
            meaning: $meaning,
            least: $least,
            most: $most,
            get: |p| vec![p.$field],
            set: |p, v| p.$field = v[0],
        }
    };
    ($field:ident, $key:literal, whole $least:literal to $most:literal, $meaning:literal) => {
        Setting {
            key: $key,
            kind: Kind::Whole,
            meaning: $meaning,
            least: $least,
            most: $most,
            get: |p| vec![p.$field as f64],
            set: |p, v| p.$field = v[0] as _,
        }
    };
}

/// All of them, in the order in which they are documented.
pub const SETTINGS: &[Setting] = &[
    setting!(alpha, "alpha", number 1e-9 to 0.1, "probability of condemning a canary that is no worse, over one horizon"),
    setting!(beta, "beta", number 1e-6 to 0.5, "probability of calling an indicator healthy that is worse than its `delta_healthy`"),
    setting!(minimum_baseline, "baseline_windows", whole 30.0 to 100_000.0, "windows that the noise is learned from before anything is judged, summed over the instances of stable"),
    setting!(warmup_windows, "warmup_windows", whole 0.0 to 100_000.0, "windows that a new or restarted instance sits out"),
    setting!(soak_windows, "soak_windows", whole 1.0 to 1_000_000.0, "windows that are judged before \"healthy\" may be said"),
    setting!(horizon_windows, "horizon_windows", whole 60.0 to 10_000_000.0, "windows over which the stake is spread, and for which `alpha` holds"),
    setting!(start_weight, "start_weight", number 0.01 to 1.0, "share of the stake that is bet from the first judged window on"),
    setting!(smallest_bet, "smallest_bet", number 0.001 to 1.0, "size of the smallest bet, in long-run standard deviations; each other is twice the one before"),
    setting!(smallest_bet_healthy, "smallest_bet_healthy", number 0.001 to 1.0, "the same for the bets on \"healthy\""),
    Setting {
        key: "bet_shares",
        kind: Kind::Shares(BETS),
        meaning: "shares of the stake on the bets, the smallest bet first; they have to sum to at most 1, else `alpha` does not hold",
        least: 0.0,
        most: 1.0,
        get: |p| p.bet_shares.to_vec(),
        set: |p, v| p.bet_shares.copy_from_slice(v),
    },
    setting!(gain_limit, "gain_limit", number 1.5 to 1000.0, "the most by which one window can multiply the evidence of an indicator, so that several have to agree"),
    setting!(clip, "clip", number 0.5 to 12.0, "a window's deviation counts up to this many standard deviations: robust ones, or those of the long run where they are larger"),
    setting!(margin_multiplier, "margin_multiplier", number 0.0 to 10.0, "standard deviations of offset and wander that the margin adds to `delta`"),
    setting!(healthy_margin_share, "healthy_margin_share", number 0.0 to 1.0, "the most that the healthy test adds to `delta_healthy` where an equal version could not be shown to be below that within the horizon, as a share of that addition"),
    setting!(tau0, "tau0", number 0.0 to 0.5, "spread between equal instances (standard deviation of ln) that is assumed before it was seen"),
    setting!(tau0_weight, "tau0_weight", number 0.1 to 1000.0, "how many instances' worth of observation `tau0` stands for"),
    setting!(scale_floor, "scale_floor", number 0.000001 to 0.5, "smallest scale of noise (standard deviation of ln) that is believed"),
    setting!(initial_windows, "initial_windows", whole 10.0 to 10_000.0, "windows that are kept to find location and scale before learning goes on in a stream"),
    setting!(excursion_factor, "excursion_factor", number 0.0 to 10.0, "factor on the worst excursion seen among the stable instances"),
    setting!(excursion_factor_pair, "excursion_factor_pair", number 0.0 to 10.0, "the same where all that is known comes from a single pair"),
    setting!(burst_factor, "burst_factor", number 0.0 to 10.0, "the same where the noise is seen to come in bursts of 8 windows or more"),
    setting!(wander_noise_share, "wander_noise_share", number 0.0 to 1.0, "share of the variance of long block means that is not counted as wander, as far as blocks a quarter as long explain it and the noise does not come in bursts"),
    setting!(few_blocks_discount, "few_blocks_discount", number 0.0 to 2.0, "standard errors by which the variance of blocks is taken smaller where it is compared with that of other lengths"),
    setting!(tau0_pair, "tau0_pair", number 0.0 to 0.5, "with a single stable instance, `tau0` until the pair's own past is known"),
    setting!(spread_delta, "spread_delta", number 0.0 to 10.0, "allowed rise of sqrt(1 + u), u being the mean step from window to window over stable's usual step: 0.1 is steps larger by about a third"),
    setting!(spread_tau0, "spread_tau0", number 0.0 to 0.5, "spread of that between equal instances, as `tau0`"),
    setting!(spread_clip, "spread_clip", number 0.5 to 12.0, "a deviation of it counts up to this many robust standard deviations"),
    setting!(spread_weight, "spread_weight", number 0.0 to 1.0, "part of each indicator's evidence that rests on its steps instead of its level"),
    setting!(p_margin, "p_margin", number 0.05 to 10.0, "margin of P(t): this share of all margins used at once counts as a change"),
    setting!(p_weight, "p_weight", number 0.0 to 0.9, "weight of P(t) in the evidence; indicators and events share the rest"),
    setting!(event_null_ratio, "event_null_ratio", number 1.0 to 10.0, "ratio of event rates, canary over stable, up to which nothing is wrong"),
    setting!(event_gain_limit_ln, "event_gain_limit_ln", number 0.1 to 20.0, "the most by which the events of one window can raise the logarithm of their evidence"),
    setting!(silent_windows, "silent_windows", whole 30.0 to 100_000.0, "windows without any reading after which the canary counts as silent; an instance is forgotten after twice as many"),
    Setting {
        key: "hard_span_s",
        kind: Kind::Number,
        meaning: "seconds within which hard facts belong together",
        least: 1.0,
        most: 86_400.0,
        get: |p| vec![p.hard_span_ns as f64 / 1e9],
        set: |p, v| p.hard_span_ns = (v[0] * 1e9) as u64,
    },
    setting!(neighbour_wait_share, "neighbour_wait_share", number 0.05 to 1.0, "share of the time that both sides wait for a CPU from which, held by other cgroups, a neighbour is the reason"),
    setting!(wait_explains_share, "wait_explains_share", number 0.05 to 1.0, "share of what the canary's turnaround takes longer that its waits for CPUs held by others have to make up to be the reason, or those for its limit, or its stalls on memory"),
    setting!(others_cpu_share, "others_cpu_share", number 0.05 to 1.0, "share of the machine's CPUs from which others make it busy"),
    setting!(others_rise, "others_rise", number 0.0 to 1.0, "how far that has to be above the usual share, and likewise the share of waits"),
    setting!(memory_available_share, "memory_available_share", number 0.0 to 0.9, "share of the machine's memory below which it is short of it"),
    setting!(throttled_share, "throttled_share", number 0.01 to 1.0, "share of its periods, beyond stable's, in which the CPU limit holds the canary back, from which it is the reason"),
    setting!(fixed_cost_share, "fixed_cost_share", number 0.0 to 1.0, "share of what a request costs stable that may be fixed costs divided by the load: with an R-th of the load, a canary may cost 1 + share x (R - 1) times as much"),
    setting!(load_ratio, "load_ratio", number 1.1 to 1000.0, "load per instance, canary over stable, from which what grows with load is not compared, and below whose inverse the canary is not called healthy"),
    setting!(stable_worse_sd, "stable_worse_sd", number 1.0 to 100.0, "how far stable has to be above what it was before the onset to be worse itself, in standard deviations"),
    setting!(stable_worse_share, "stable_worse_share", number 0.0 to 10.0, "how much of the canary's change stable's own has to be, as logarithms"),
    setting!(stretch_run_length, "stretch_run_length", number 100.0 to 1e9, "windows that pass on average, at least, until a stretch is found in one indicator of one version in which nothing happened; also the evidence at which one is over"),
    setting!(stretch_reference_windows, "stretch_reference_windows", whole 60.0 to 1_000_000.0, "windows that the usual level of one version remembers"),
    setting!(stretch_baseline_windows, "stretch_baseline_windows", whole 60.0 to 100_000.0, "windows that are learned from before a stretch is looked for"),
    setting!(stretch_lag_windows, "stretch_lag_windows", whole 0.0 to 1_000.0, "windows that are not learned from yet: so much time there is to find a stretch before it becomes usual"),
    setting!(stretch_clip, "stretch_clip", number 0.5 to 12.0, "a window's deviation from the usual level counts up to this many standard deviations of the long run, at most 12 robust ones"),
    setting!(stretch_back_windows, "stretch_back_windows", whole 1.0 to 1_000.0, "windows back inside the band, at least, before a stretch is over"),
    setting!(stretch_burst_windows, "stretch_burst_windows", whole 1.0 to 10_000.0, "longest stretch that is called a burst"),
    setting!(stretch_longest_windows, "stretch_longest_windows", whole 60.0 to 10_000_000.0, "after so many windows a stretch is over and where it is is usual"),
    setting!(stretch_drift_share, "stretch_drift_share", number 0.05 to 2.0, "rise of a straight line through a stretch, over twice its mean, from which it is a drift: a ramp has 1, a step 0"),
    setting!(stretch_turn_share, "stretch_turn_share", number 0.001 to 1.0, "how often per window a stretch leaves its own mean, from which it is an oscillation"),
    setting!(stretches_kept, "stretches_kept", whole 1.0 to 1_000.0, "stretches that are remembered of a deployment, the latest"),
    setting!(continuous_windows, "continuous_windows", whole 0.0 to 10_000_000.0, "windows for which stable is held against what it was before all its instances were replaced, as by a promotion; 0 = not at all"),
];

/// A parameter that is added has to get a setting: this stops compiling until it is looked at.
const _: fn(Parameters) = |p| {
    let Parameters {
        alpha: _,
        beta: _,
        tau0: _,
        tau0_weight: _,
        margin_multiplier: _,
        healthy_margin_share: _,
        clip: _,
        smallest_bet: _,
        smallest_bet_healthy: _,
        bet_shares: _,
        gain_limit: _,
        start_weight: _,
        horizon_windows: _,
        burst_factor: _,
        wander_noise_share: _,
        few_blocks_discount: _,
        tau0_pair: _,
        spread_delta: _,
        spread_tau0: _,
        spread_clip: _,
        spread_weight: _,
        p_margin: _,
        p_weight: _,
        warmup_windows: _,
        soak_windows: _,
        minimum_baseline: _,
        initial_windows: _,
        scale_floor: _,
        excursion_factor: _,
        excursion_factor_pair: _,
        event_null_ratio: _,
        event_gain_limit_ln: _,
        silent_windows: _,
        hard_span_ns: _,
        neighbour_wait_share: _,
        wait_explains_share: _,
        others_cpu_share: _,
        others_rise: _,
        memory_available_share: _,
        throttled_share: _,
        load_ratio: _,
        fixed_cost_share: _,
        stable_worse_sd: _,
        stable_worse_share: _,
        stretch_run_length: _,
        stretch_reference_windows: _,
        stretch_baseline_windows: _,
        stretch_lag_windows: _,
        stretch_clip: _,
        stretch_back_windows: _,
        stretch_burst_windows: _,
        stretch_longest_windows: _,
        stretch_drift_share: _,
        stretch_turn_share: _,
        stretches_kept: _,
        continuous_windows: _,
        indicators: _,
    } = p;
};

/// One key of `[judge.indicator.NAME]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndicatorKey {
    Direction,
    Weight,
    Delta,
    DeltaHealthy,
    Epsilon,
    Steps,
    Critical,
    Mute,
    Missing,
}

impl IndicatorKey {
    pub const ALL: [IndicatorKey; 9] = [
        IndicatorKey::Direction,
        IndicatorKey::Weight,
        IndicatorKey::Delta,
        IndicatorKey::DeltaHealthy,
        IndicatorKey::Epsilon,
        IndicatorKey::Steps,
        IndicatorKey::Critical,
        IndicatorKey::Mute,
        IndicatorKey::Missing,
    ];

    pub fn name(self) -> &'static str {
        match self {
            IndicatorKey::Direction => "direction",
            IndicatorKey::Weight => "weight",
            IndicatorKey::Delta => "delta",
            IndicatorKey::DeltaHealthy => "delta_healthy",
            IndicatorKey::Epsilon => "epsilon",
            IndicatorKey::Steps => "steps",
            IndicatorKey::Critical => "critical",
            IndicatorKey::Mute => "mute",
            IndicatorKey::Missing => "missing",
        }
    }

    pub fn meaning(self) -> &'static str {
        match self {
            IndicatorKey::Direction => "which change is worse: \"up\" or \"down\"",
            IndicatorKey::Weight => "weight of its evidence and of its share in P(t), relative to the other indicators",
            IndicatorKey::Delta => {
                "change in the bad direction that is allowed, before the margin for noise is added: 0.02 is 2 %"
            }
            IndicatorKey::DeltaHealthy => "change that \"healthy\" has to exclude",
            IndicatorKey::Epsilon => {
                "added before the logarithm, in the indicator's unit: differences far below it matter to nobody"
            }
            IndicatorKey::Steps => {
                "whether larger steps from window to window count against the canary at whatever level"
            }
            IndicatorKey::Critical => {
                "condemns alone once its own evidence reaches 1/`alpha`, without being averaged with the others; each adds at most `alpha` to the error"
            }
            IndicatorKey::Mute => "shown, and neither bet on nor needed for \"healthy\"",
            IndicatorKey::Missing => {
                "what a missing reading makes of the verdict: \"inconclusive\", \"insufficient\" (insufficient data), or \"ignore\" (healthy without it)"
            }
        }
    }

    /// The value that holds, as TOML.
    pub fn value(self, i: &IndicatorParameters) -> toml::Value {
        match self {
            IndicatorKey::Direction => i.direction.name().into(),
            IndicatorKey::Weight => i.tolerance.weight.into(),
            IndicatorKey::Delta => i.tolerance.delta.into(),
            IndicatorKey::DeltaHealthy => i.tolerance.delta_healthy.into(),
            IndicatorKey::Epsilon => i.epsilon.into(),
            IndicatorKey::Steps => i.tolerance.steps.into(),
            IndicatorKey::Critical => i.critical.into(),
            IndicatorKey::Mute => i.mute.into(),
            IndicatorKey::Missing => i.missing.name().into(),
        }
    }

    /// Sets it. In words what may be written, where that is something else.
    pub fn apply(self, i: &mut IndicatorParameters, value: &toml::Value) -> Result<(), String> {
        let number = |least: f64, most: f64| {
            let number = value.as_float().or_else(|| value.as_integer().map(|n| n as f64));
            number.filter(|v| *v >= least && *v <= most).ok_or_else(|| format!("write {least} to {most}"))
        };
        let yes_or_no = || value.as_bool().ok_or_else(|| "write true or false".to_owned());
        let word = || value.as_str().unwrap_or_default();
        match self {
            IndicatorKey::Direction => {
                i.direction = Direction::named(word()).ok_or("write \"up\" or \"down\"")?;
            }
            IndicatorKey::Weight => i.tolerance.weight = number(0.01, 100.0)?,
            IndicatorKey::Delta => i.tolerance.delta = number(0.0, 10.0)?,
            IndicatorKey::DeltaHealthy => i.tolerance.delta_healthy = number(0.001, 10.0)?,
            IndicatorKey::Epsilon => i.epsilon = number(1e-9, 1e15)?,
            IndicatorKey::Steps => i.tolerance.steps = yes_or_no()?,
            IndicatorKey::Critical => i.critical = yes_or_no()?,
            IndicatorKey::Mute => i.mute = yes_or_no()?,
            IndicatorKey::Missing => {
                i.missing = Missing::named(word()).ok_or("write \"inconclusive\", \"insufficient\" or \"ignore\"")?;
            }
        }
        Ok(())
    }
}

/// The settings of one indicator as an inline table.
pub fn indicator_table(i: &IndicatorParameters) -> String {
    let pairs = IndicatorKey::ALL.map(|key| format!("{} = {}", key.name(), key.value(i)));
    format!("{{ {} }}", pairs.join(", "))
}

/// The indicator of this name.
pub fn indicator_named(name: &str) -> Option<Indicator> {
    Indicator::ALL.into_iter().find(|i| i.name() == name)
}
