//! What to do about a verdict, and why.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    judge::{Recommendation, Step},
    targets::Target,
};

/// How far the guard may go, from least to most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Says what it would do.
    #[default]
    Observe,
    /// Says what to do and tells the watchers.
    Advise,
    /// May take resources from the canary.
    Quarantine,
    /// May take new work from the canary and stop it.
    Drain,
    /// May make stable the desired state again.
    Rollback,
}

impl Mode {
    pub const ALL: [Mode; 5] = [Mode::Observe, Mode::Advise, Mode::Quarantine, Mode::Drain, Mode::Rollback];

    pub fn name(self) -> &'static str {
        match self {
            Mode::Observe => "observe",
            Mode::Advise => "advise",
            Mode::Quarantine => "quarantine",
            Mode::Drain => "drain",
            Mode::Rollback => "rollback",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Mode {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        Mode::ALL
            .into_iter()
            .find(|m| m.name() == s)
            .ok_or_else(|| format!("unknown mode '{s}': choose observe, advise, quarantine, drain or rollback"))
    }
}

/// What can be done to a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Its rollout stands still, and it serves on. Only a person asks for that.
    Hold,
    /// Resources are taken from it for a time.
    Quarantine,
    /// New work is taken from it, and it is stopped.
    Drain,
    /// Stable is the desired state again.
    Rollback,
    /// It takes stable's place.
    Promote,
}

impl Action {
    pub fn name(self) -> &'static str {
        match self {
            Action::Hold => "hold",
            Action::Quarantine => "quarantine",
            Action::Drain => "drain",
            Action::Rollback => "rollback",
            Action::Promote => "promote",
        }
    }

    /// Whether the canary serves no more once it is in effect.
    pub fn takes_away(self) -> bool {
        matches!(self, Action::Drain | Action::Rollback)
    }

    /// Whether it is what is done once to a canary. A hold takes nothing away, and a canary that is held may be rolled back.
    pub fn is_done_once(self) -> bool {
        self != Action::Hold
    }

    /// The recommendation that it carries out.
    fn step(self) -> Option<Step> {
        match self {
            Action::Quarantine => Some(Step::Throttle),
            Action::Drain => Some(Step::Drain),
            Action::Rollback => Some(Step::RollBack),
            Action::Hold | Action::Promote => None,
        }
    }

    /// The one among several that it carries out; `None` where none of them asks for it.
    pub fn chosen(self, recommendations: &[Recommendation]) -> Option<&Recommendation> {
        recommendations.iter().find(|r| Some(r.step) == self.step())
    }

    /// As in "would roll back".
    pub fn verb(self) -> &'static str {
        match self {
            Action::Rollback => "roll back",
            other => other.name(),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One gate's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GateResult {
    /// Name of the gate, as in [`GATES`](super::gates::GATES).
    pub gate: String,
    pub passed: bool,
    /// In words, whether it passed or not.
    pub reason: String,
}

/// What the guard decided about one deployment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Decision {
    /// Unique and sortable: deployment, time and a counter.
    pub id: String,
    #[schema(value_type = String)]
    pub deployment: Arc<str>,
    pub unix_ms: u64,
    /// Window that the decision rests on.
    pub window: u64,
    pub action: Action,
    /// The verdict's strongest reason, in words.
    pub reason: String,
    /// The judge's recommendation that it carries out; null where the judge asked for something else.
    #[serde(default)]
    pub recommendation: Option<Recommendation>,
    /// Gates in order, up to and including the first that blocked.
    pub gates: Vec<GateResult>,
    /// The canary targets, as they were when it was decided.
    pub canary: Vec<Target>,
    /// The stable targets that are to carry the load.
    pub stable: Vec<Target>,
}

impl Decision {
    /// The gate that keeps this decision from being carried out.
    pub fn blocked_by(&self) -> Option<&GateResult> {
        self.gates.iter().find(|g| !g.passed)
    }

    /// The same of one that has come to this stage: nothing holds back what goes on, as it does once a person has approved it.
    pub fn held_back_by(&self, stage: Stage) -> Option<&GateResult> {
        self.blocked_by().filter(|_| matches!(stage, Stage::Blocked | Stage::Planned))
    }
}

/// Where an action is in its life. Each step is in the journal before the next begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Decided, but a gate blocked it: nothing was done.
    Blocked,
    /// Intent and inverse are on disk.
    Planned,
    /// A person said yes, where that is required.
    Approved,
    /// No person said yes in time: nothing was done, and nothing will be to these instances.
    Declined,
    /// The orchestrator was called.
    Applying,
    /// The orchestrator says it is done.
    Applied,
    /// The kernel's own counts show that the canary is quiet; where it serves on, the orchestrator finds the action in effect.
    Verified,
    /// Some windows later, the service is as it should be.
    Recovered,
    /// Some windows later, it is not: taking the canary away did not help.
    NotRecovered,
    /// Someone else brought the canary back, or let a rollout go on that was held.
    Reverted,
    Failed,
    /// The recorded inverse is being applied: a person asked, or a quarantine did not end by itself.
    Undoing,
    /// The canary is as it was before the action.
    Undone,
    /// Verified, and nobody took that back for as long as it was watched.
    Closed,
}

impl Stage {
    /// Those in which an action may still have something to be done or found out.
    pub const OPEN: [Stage; 8] = [
        Stage::Planned,
        Stage::Approved,
        Stage::Applying,
        Stage::Applied,
        Stage::Verified,
        Stage::Recovered,
        Stage::NotRecovered,
        Stage::Undoing,
    ];

    pub fn is_open(self) -> bool {
        Self::OPEN.contains(&self)
    }

    pub fn name(self) -> &'static str {
        match self {
            Stage::Blocked => "blocked",
            Stage::Planned => "planned",
            Stage::Approved => "approved",
            Stage::Declined => "declined",
            Stage::Applying => "applying",
            Stage::Applied => "applied",
            Stage::Verified => "verified",
            Stage::Reverted => "reverted",
            Stage::Recovered => "recovered",
            Stage::NotRecovered => "not_recovered",
            Stage::Failed => "failed",
            Stage::Undoing => "undoing",
            Stage::Undone => "undone",
            Stage::Closed => "closed",
        }
    }
}
