//! What condemned a canary that an earlier life of the guard put under limits: it stands in for what is found under them. A
//! recording brings it along, so that what is judged again is told as it was live.

use serde::{Deserialize, Serialize};

use super::Decision;
use crate::judge::{Cause, Environment, HardFact, Outcome, Recommendation, Verdict};

/// A condemnation that stands while limits hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    pub(super) decision_id: String,
    pub(super) evidence_ln: Option<f64>,
    pub(super) hard: Option<HardFact>,
    pub(super) causes: Vec<Cause>,
    pub(super) reasons: Vec<String>,
    pub(super) recommendations: Vec<Recommendation>,
}

impl Standing {
    /// `condemned`: the verdict that the decision rests on; `None` = it is not known any more.
    pub(super) fn new(decision: &Decision, condemned: Option<Verdict>) -> Self {
        let decision_id = decision.id.clone();
        match condemned {
            Some(Verdict { evidence_ln, hard, causes, reasons, recommendations, .. }) => {
                // JSON, which it may come from and go to, has no other numbers.
                let evidence_ln = Some(evidence_ln).filter(|e| e.is_finite());
                Self { decision_id, evidence_ln, hard, causes, reasons, recommendations }
            }
            None => Self {
                decision_id,
                evidence_ln: None,
                hard: None,
                causes: Vec::new(),
                reasons: vec![decision.reason.clone()],
                recommendations: decision.recommendation.iter().cloned().collect(),
            },
        }
    }

    /// What is told in place of what was found under the limits. A hard fact that was found is told as it is.
    pub fn in_place_of(&self, found: Verdict) -> Verdict {
        if found.hard.is_some() {
            return found;
        }
        let why = format!(
            "in quarantine since before the guard was started ({}): condemned then, and judged anew once its limits are gone",
            self.decision_id
        );
        Verdict {
            outcome: Outcome::Regressed,
            evidence_ln: self.evidence_ln.unwrap_or(found.evidence_ln),
            hard: self.hard,
            // Its window was counted by that life.
            onset: None,
            causes: self.causes.clone(),
            reasons: [why].into_iter().chain(self.reasons.iter().cloned()).collect(),
            healthy_at_load: None,
            environment: Environment { holds: false, signs: found.environment.signs },
            recommendations: self.recommendations.clone(),
            ..found
        }
    }
}
