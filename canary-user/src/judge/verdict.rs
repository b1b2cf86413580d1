//! What the judge says.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    targets::Role,
    window::{Event, Indicator},
};

/// The four answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Healthy,
    Regressed,
    Inconclusive,
    InsufficientData,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Healthy => "healthy",
            Outcome::Regressed => "regressed",
            Outcome::Inconclusive => "inconclusive",
            Outcome::InsufficientData => "insufficient data",
        }
    }

    /// The process exit code of verbs whose answer is a verdict.
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Healthy => 0,
            Outcome::Regressed => 10,
            Outcome::Inconclusive => 11,
            Outcome::InsufficientData => 12,
        }
    }
}

/// The state of the comparison after one window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Verdict {
    pub outcome: Outcome,
    /// Index of the last window that was used.
    pub window: u64,
    /// The e-value of the whole comparison, natural logarithm: rollback at `threshold_ln`.
    #[serde(deserialize_with = "nan_from_null")]
    pub evidence_ln: f64,
    /// ln(1/alpha).
    pub threshold_ln: f64,
    /// P(t) of the canary: mean share of the allowed margin that its indicators use. `None` before there is a baseline.
    pub p_canary: Option<f64>,
    /// P(t) of the stable instances, each taken as if it were the canary, averaged.
    pub p_stable: Option<f64>,
    /// One entry per [`Indicator`], in its order.
    pub indicators: Vec<IndicatorState>,
    /// One entry per [`Event`], in its order.
    pub events: Vec<EventState>,
    /// Set once a hard fact (OOM kill, crash loop) condemned the canary, outside the statistics.
    pub hard: Option<HardFact>,
    /// Most likely window at which the regression began; set when `outcome` is `Regressed`.
    pub onset: Option<u64>,
    /// Causes by evidence, the strongest first; set when `outcome` is `Regressed`.
    pub causes: Vec<Cause>,
    /// Why the outcome is what it is, in words with numbers, the most important first.
    pub reasons: Vec<String>,
    /// Load per instance, canary over stable, where the canary is shown to be healthy at that load, which is too little to call it
    /// so: the outcome is `Inconclusive`.
    #[serde(default)]
    pub healthy_at_load: Option<f64>,
    /// What around the deployment speaks against the version being the reason.
    #[serde(default)]
    pub environment: Environment,
    /// When the canary's memory runs out, if it goes on growing as it does.
    #[serde(default)]
    pub forecast: Option<Forecast>,
    /// What to do, the most urgent first.
    #[serde(default)]
    pub recommendations: Vec<Recommendation>,
    /// When one version left its own usual band in one indicator, by the start: the latest, also without a canary. They
    /// explain and decide nothing.
    #[serde(default)]
    pub stretches: Vec<Stretch>,
    /// Stable since all of its instances were replaced, as by a promotion, against what it was before. It tells and advises,
    /// and condemns nobody.
    #[serde(default)]
    pub promotion: Option<Promotion>,
    /// Windows of the stable instances that the noise was learned from.
    pub baseline_windows: u64,
    /// Windows of the canary after its warm-up.
    pub judged_windows: u64,
}

impl Verdict {
    /// Progress of the evidence towards the rollback threshold, 0 to 1.
    pub fn evidence_share(&self) -> f64 {
        (self.evidence_ln / self.threshold_ln).clamp(0.0, 1.0)
    }
}

/// One indicator after one window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct IndicatorState {
    pub indicator: Indicator,
    /// Mean of the canary instances in this window, in the indicator's unit; `None` where missing.
    pub canary: Option<f64>,
    /// Mean of the stable instances.
    pub stable: Option<f64>,
    /// Canary against stable beyond the usual offset, averaged over the last 10 windows: 0.31 is 31 % more.
    pub effect: Option<f64>,
    /// Interval around `effect` (about 95 %).
    pub effect_low: Option<f64>,
    pub effect_high: Option<f64>,
    /// The smallest change that counts, as a ratio minus one: 0.041 is 4.1 %.
    pub margin: Option<f64>,
    /// p_i(t): share of the margin used in this window, -3 to 3.
    pub p: Option<f64>,
    /// ln of this indicator's e-value.
    #[serde(deserialize_with = "nan_from_null")]
    pub evidence_ln: f64,
    /// Whether its own evidence suffices as a family-wise claim.
    pub confirmed: bool,
    /// Why nothing is known about it.
    pub missing: Option<String>,
}

/// One kind of event since the canary's warm-up ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventState {
    pub event: Event,
    pub canary: u64,
    pub stable: u64,
    #[serde(deserialize_with = "nan_from_null")]
    pub evidence_ln: f64,
    pub missing: bool,
}

/// A fact that condemns without statistics. It is a policy, outside alpha.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HardFact {
    OomKill,
    CrashLoop,
    /// The canary reports nothing while stable does.
    Silent,
}

/// A likely cause, with what speaks for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Cause {
    /// Name of the indicator or event that carries the evidence.
    pub signal: String,
    /// In words with numbers: "CPU per turnaround +31 % (27 to 36 %) since window 412 (14 windows), evidence 30 400 of the 21 300
    /// that suffice alone, margin 4.1 %".
    pub text: String,
    /// The mechanism that this signal and the others together point to: "more work per request".
    pub mechanism: String,
    /// What could have been the reason and is as it was: "run-queue wait +1 %".
    #[serde(default)]
    pub ruled_out: Vec<String>,
    #[serde(deserialize_with = "nan_from_null")]
    pub evidence_ln: f64,
}

/// The environment of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Environment {
    /// Whether it explains all that would condemn the canary, which is therefore not condemned: the outcome is
    /// inconclusive.
    pub holds: bool,
    pub signs: Vec<Sign>,
}

/// Something around the version that makes indicators worse.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Sign {
    pub kind: SignKind,
    /// In words with numbers.
    pub text: String,
    pub explains: Vec<Indicator>,
}

/// What kind of thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SignKind {
    /// Stable got worse at the same time.
    StableWorse,
    /// Processes of other cgroups hold the CPUs that both sides wait for.
    Neighbour,
    /// Others use much of the machine's CPUs, and more than usual.
    CpuPressure,
    /// The machine is short of memory.
    MemoryPressure,
    /// The canary is held back by its CPU limit.
    Throttled,
    /// The canary has much more load per instance than stable, or so much less that fixed costs show.
    UnequalLoad,
}

impl SignKind {
    /// Whether both sides have it from the machine that they are on.
    pub fn is_of_the_machine(self) -> bool {
        matches!(self, SignKind::Neighbour | SignKind::CpuPressure | SignKind::MemoryPressure)
    }
}

/// When memory runs out at the present slope.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Forecast {
    /// Of the canary's instance whose memory runs out first.
    pub in_use_bytes: u64,
    pub limit_bytes: u64,
    /// Whether this is the limit of its cgroup; else it is what it uses and the machine has left for it.
    pub own_limit: bool,
    pub bytes_per_s: f64,
    /// Until the limit is reached, with an interval of 95 %.
    pub seconds: f64,
    pub seconds_low: f64,
    pub seconds_high: f64,
    /// First window that the slope was taken from.
    pub since_window: u64,
}

impl Forecast {
    /// "its limit of 512 MiB is reached in 7 min at this slope (5 to 11)".
    pub fn in_words(&self) -> String {
        let mib = |bytes: u64| bytes as f64 / (1024.0 * 1024.0);
        let end = if self.own_limit {
            format!("its limit of {:.0} MiB is reached", mib(self.limit_bytes))
        } else {
            let left = self.limit_bytes.saturating_sub(self.in_use_bytes);
            format!("the memory that the machine has left for it, {:.0} MiB, is used up", mib(left))
        };
        let (unit, per) = if self.seconds < 120.0 { ("s", 1.0) } else { ("min", 60.0) };
        format!(
            "{end} in {:.0} {unit} at this slope ({:.0} to {:.0})",
            self.seconds / per,
            self.seconds_low / per,
            self.seconds_high / per
        )
    }
}

/// Something that can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    Wait,
    RaiseLimit,
    Throttle,
    Drain,
    RollBack,
    Restart,
    MoveOffNode,
    Upgrade,
    Stop,
}

impl Step {
    pub fn name(self) -> &'static str {
        match self {
            Step::Wait => "wait",
            Step::RaiseLimit => "raise a limit",
            Step::Throttle => "throttle",
            Step::Drain => "drain",
            Step::RollBack => "roll back",
            Step::Restart => "restart",
            Step::MoveOffNode => "move off the machine",
            Step::Upgrade => "upgrade the rest",
            Step::Stop => "stop",
        }
    }
}

/// How much, in three grades: finer ones would be made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    Low,
    Medium,
    High,
}

impl Grade {
    pub fn name(self) -> &'static str {
        match self {
            Grade::Low => "low",
            Grade::Medium => "medium",
            Grade::High => "high",
        }
    }
}

/// One thing to do, with what speaks for and against it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Recommendation {
    /// 1 is the most urgent.
    pub priority: u8,
    pub step: Step,
    pub because: String,
    /// Of doing it.
    pub risk: Grade,
    /// How it is undone.
    pub undo: String,
    pub confidence: Grade,
    /// For the first canary instance, and of a limit for whoever has it; `None` where no single command does it.
    pub command: Option<String>,
    /// What would change this advice.
    pub would_change: String,
}

impl Recommendation {
    /// "roll back (risk medium, confidence high): more work per request …".
    pub fn in_words(&self) -> String {
        let command = self.command.as_ref().map(|c| format!(" [{c}]")).unwrap_or_default();
        let (risk, confidence) = (self.risk.name(), self.confidence.name());
        format!("{} (risk {risk}, confidence {confidence}): {}{command}", self.step.name(), self.because)
    }
}

/// A stretch of time in which one version left its own usual band in one indicator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Stretch {
    pub role: Role,
    /// Name of the indicator.
    pub signal: String,
    /// First window outside the band, as far as it can be told.
    pub start: u64,
    /// CLOCK_MONOTONIC end of that window.
    pub start_t_ns: u64,
    /// Window in which it was found.
    pub found: u64,
    /// Last window outside; null while it goes on.
    pub end: Option<u64>,
    pub end_t_ns: Option<u64>,
    /// It lasted so long that where it was at `end` is what is usual from there on.
    pub became_usual: bool,
    /// Median change against the usual level as a ratio minus one: 0.4 is 40 % more. Of an oscillation, the change either
    /// way that one window in ten exceeds.
    pub size: f64,
    /// So far, while it goes on.
    pub shape: StretchShape,
    /// In words: "stable: CPU per turnaround +40 % from window 812 to 950 (step)".
    pub text: String,
}

impl Stretch {
    /// Whether both go on in some window.
    pub fn overlaps(&self, other: &Stretch) -> bool {
        let before = |a: &Stretch, b: &Stretch| a.end.is_some_and(|end| end < b.start);
        !before(self, other) && !before(other, self)
    }
}

/// Stable against what it was before all of its instances were replaced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Promotion {
    /// First window in which none of the instances before was there any more; null where that was before the guard was started.
    pub since: Option<u64>,
    /// Windows compared, those that passed while the guard was not there among them, and how many are to be.
    pub windows: u64,
    pub of_windows: u64,
    /// Whether the evidence reached 1/alpha; it stays.
    pub worse: bool,
    /// The e-value of all indicators together, natural logarithm.
    #[serde(deserialize_with = "nan_from_null")]
    pub evidence_ln: f64,
    /// By evidence, the strongest first.
    pub indicators: Vec<Promoted>,
    /// In words with numbers.
    pub text: String,
}

/// One indicator of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Promoted {
    pub indicator: Indicator,
    /// Mean change since then: 0.31 is 31 % more.
    pub effect: f64,
    /// Interval around `effect` (about 95 %).
    pub effect_low: f64,
    pub effect_high: f64,
    /// The smallest rise that counts, as a ratio minus one.
    pub margin: f64,
    #[serde(deserialize_with = "nan_from_null")]
    pub evidence_ln: f64,
}

/// The course of a stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StretchShape {
    /// To another level, and there.
    Step,
    /// Further and further away.
    Drift,
    /// Short.
    Burst,
    /// Out and back, again and again.
    Oscillation,
}

impl StretchShape {
    pub fn name(self) -> &'static str {
        match self {
            StretchShape::Step => "step",
            StretchShape::Drift => "drift",
            StretchShape::Burst => "burst",
            StretchShape::Oscillation => "oscillation",
        }
    }
}

/// JSON has null where a number is not finite.
fn nan_from_null<'de, D: serde::Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(d)?.unwrap_or(f64::NAN))
}
