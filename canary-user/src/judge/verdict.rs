//! What the judge says.

use serde::{Deserialize, Serialize};

use crate::window::{Event, Indicator};

/// The four answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    pub outcome: Outcome,
    /// Index of the last window that was used.
    pub window: u64,
    /// The e-value of the whole comparison, natural logarithm: rollback at `threshold_ln`.
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    pub evidence_ln: f64,
    /// Whether its own evidence suffices as a family-wise claim.
    pub confirmed: bool,
    /// Why nothing is known about it.
    pub missing: Option<String>,
}

/// One kind of event since the canary's warm-up ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventState {
    pub event: Event,
    pub canary: u64,
    pub stable: u64,
    pub evidence_ln: f64,
    pub missing: bool,
}

/// A fact that condemns without statistics. It is a policy, outside alpha.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HardFact {
    OomKill,
    CrashLoop,
    /// The canary reports nothing while stable does.
    Silent,
}

/// A likely cause, with what speaks for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    /// Name of the indicator or event that carries the evidence.
    pub signal: String,
    /// In words with numbers: "CPU per turnaround +31 % (27 to 36 %), evidence 1 240, margin 4.1 %".
    pub text: String,
    /// The mechanism that this signal and the others together point to: "more work per request".
    pub mechanism: String,
    pub evidence_ln: f64,
}
