//! What the guard tells others who carry a rollout out: whether they should take the canary away. Pure.

use serde::{Deserialize, Serialize};

use super::{
    Facts, GateResult,
    gates::{Case, evaluate_without},
};

/// The gates about the guard's own right to act: whoever asks has rules of his own for that.
const OWN: [&str; 6] = ["mode", "owner", "blast_radius", "rollback_possible", "leadership", "approval"];

/// What others are told about one deployment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Advice {
    /// While the canary stands condemned, what the gates say about taking it away, up to the first that blocks; empty while
    /// it does not.
    pub gates: Vec<GateResult>,
    /// Whether the canary instances that are there ever had a request; `None` = not measured, or there are none.
    pub canary_served: Option<bool>,
    /// Stable instances that the canary can be compared with.
    pub stable_instances: usize,
}

impl Advice {
    /// Whether the canary should be taken away: condemned, and no gate speaks against it.
    pub fn condemns(&self) -> bool {
        !self.gates.is_empty() && self.objection().is_none()
    }

    /// The gate that keeps a condemned canary where it is.
    pub fn objection(&self) -> Option<&GateResult> {
        self.gates.iter().find(|gate| !gate.passed)
    }
}

/// Asks the gates that are about the canary and its surroundings, in their order, up to the first that blocks. What the
/// guard did itself does not count: its budget is not that of others.
pub fn gates(case: Case) -> Vec<GateResult> {
    let facts = Facts {
        acted_on: None,
        actions_last_hour: 0,
        per_hour: usize::MAX,
        since_last_action: None,
        journal_failure: None,
        ..case.facts.clone()
    };
    evaluate_without(&OWN, Case { facts: &facts, ..case })
}
