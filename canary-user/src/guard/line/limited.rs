//! A canary under limits that an earlier life of the guard set. The judge of this life has never seen it without them, and what they
//! do to it says nothing about the version, neither for nor against it: it stands condemned by what it was condemned by, and is
//! judged anew once they are gone. A hard fact that is found besides is told.

use std::collections::BTreeSet;

use super::*;
use crate::judge::{Cause, Environment, HardFact, Recommendation};

#[derive(Debug)]
pub(super) struct Limited {
    decision_id: String,
    /// As its instances are now.
    canary: BTreeSet<Target>,
    /// What it was condemned by.
    evidence_ln: Option<f64>,
    hard: Option<HardFact>,
    causes: Vec<Cause>,
    reasons: Vec<String>,
    recommendations: Vec<Recommendation>,
    /// Whether it was the canary in the latest window.
    is_there: bool,
}

impl Limited {
    fn new(decision: &Decision, condemned: Option<Verdict>) -> Self {
        let limited = Self {
            decision_id: decision.id.clone(),
            canary: decision.canary.iter().cloned().collect(),
            evidence_ln: None,
            hard: None,
            causes: Vec::new(),
            reasons: vec![decision.reason.clone()],
            recommendations: decision.recommendation.iter().cloned().collect(),
            is_there: false,
        };
        match condemned {
            Some(Verdict { evidence_ln, hard, causes, reasons, recommendations, .. }) => {
                Self { evidence_ln: Some(evidence_ln), hard, causes, reasons, recommendations, ..limited }
            }
            None => limited,
        }
    }

    fn is_canary(&self, canary: &[Target], dies: bool) -> bool {
        let dies = dies || matches!(self.hard, Some(HardFact::CrashLoop | HardFact::OomKill));
        let has = |target: &Target| {
            self.canary.contains(target) || self.canary.iter().any(|before| before.came_back_as(target, dies))
        };
        canary.iter().all(has)
    }

    /// In place of what was found under its limits.
    fn verdict(&self, found: Verdict) -> Verdict {
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
            environment: Environment { holds: false, signs: found.environment.signs },
            recommendations: self.recommendations.clone(),
            ..found
        }
    }
}

impl Line {
    /// A quarantine of an earlier life whose end nobody has verified.
    pub(super) fn stay_condemned(&mut self, decision: &Decision, ledger: &Ledger) {
        let condemned = ledger.condemnation(decision).unwrap_or_else(|e| {
            tracing::warn!(decision = %decision.id, "it is not known any more what condemned the canary: {e:#}");
            None
        });
        self.limited.push(Limited::new(decision, condemned));
    }

    /// What is said of the canary in this window, where the judge has found this.
    pub(super) fn under_limits(&mut self, found: Verdict, canary: &[Target]) -> Verdict {
        let dies = gates::dies_again(&found);
        // One that is gone may be between two of its lives.
        if !canary.is_empty() {
            self.limited.iter_mut().for_each(|limited| limited.is_there = limited.is_canary(canary, dies));
        }
        match self.limited.iter().rev().find(|limited| limited.is_there) {
            Some(limited) if found.hard.is_none() => limited.verdict(found),
            _ => found,
        }
    }

    /// Whether the canary is under limits of an earlier life.
    pub(super) fn is_limited(&self) -> bool {
        self.limited.iter().any(|limited| limited.is_there)
    }

    /// `now` is `before`, come back from its own end: limits stay.
    pub(super) fn follow_limited(&mut self, before: &Target, now: &Target) {
        for limited in &mut self.limited {
            if limited.canary.remove(before) {
                limited.canary.insert(now.clone());
            }
        }
    }

    /// The limits of a decision are gone, and with them what the judge has seen under them.
    pub(super) fn limits_ended(&mut self, decision: &Decision) {
        let Some(at) = self.limited.iter().position(|limited| limited.decision_id == decision.id) else { return };
        if self.limited.remove(at).is_there {
            self.watched.judge.reset_evidence();
        }
    }
}
