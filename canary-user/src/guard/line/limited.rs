//! A canary under limits that an earlier life of the guard set. The judge of this life has never seen it without them, and what they
//! do to it says nothing about the version, neither for nor against it: it stands condemned by what it was condemned by, and is
//! judged anew once they are gone. A hard fact that is found besides is told.

use std::collections::BTreeSet;

use super::*;
use crate::{guard::standing::Standing, judge::HardFact, telemetry::Limits};

#[derive(Debug)]
pub(super) struct Limited {
    /// What it was condemned by.
    standing: Standing,
    /// As its instances are now.
    canary: BTreeSet<Target>,
    /// Whether it was the canary in the latest window.
    is_there: bool,
}

/// What a recording has to say of it, so that who judges it again tells the same.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Of the latest tick.
    latest: Limits,
    /// Limits ended since then.
    ended: bool,
    /// The decisions whose condemnation was told.
    told: BTreeSet<String>,
}

impl Limited {
    fn is_canary(&self, canary: &[Target], dies: bool) -> bool {
        let dies = dies || matches!(self.standing.hard, Some(HardFact::CrashLoop | HardFact::OomKill));
        let has = |target: &Target| {
            self.canary.contains(target) || self.canary.iter().any(|before| before.came_back_as(target, dies))
        };
        canary.iter().all(has)
    }
}

impl Marks {
    /// The next tick was judged; `standing`: what was told in place of what was found.
    fn judged(&mut self, standing: Option<&Standing>) {
        let is_new = standing.is_some_and(|s| self.told.insert(s.decision_id.clone()));
        self.latest = Limits {
            ended: std::mem::take(&mut self.ended),
            under: standing.map(|s| s.decision_id.clone()),
            condemned: standing.filter(|_| is_new).map(|s| serde_json::to_value(s).expect("it has keys that are text")),
        };
    }
}

impl Line {
    /// A quarantine of an earlier life whose end nobody has verified.
    pub(super) fn stay_condemned(&mut self, decision: &Decision, ledger: &Ledger) {
        let condemned = ledger.condemnation(decision).unwrap_or_else(|e| {
            tracing::warn!(decision = %decision.id, "it is not known any more what condemned the canary: {e:#}");
            None
        });
        let standing = Standing::new(decision, condemned);
        self.limited.push(Limited { standing, canary: decision.canary.iter().cloned().collect(), is_there: false });
    }

    /// What is said of the canary in this window, where the judge has found this.
    pub(super) fn under_limits(&mut self, found: Verdict, canary: &[Target]) -> Verdict {
        let dies = gates::dies_again(&found);
        // One that is gone may be between two of its lives.
        if !canary.is_empty() {
            self.limited.iter_mut().for_each(|limited| limited.is_there = limited.is_canary(canary, dies));
        }
        let standing = self.limited.iter().rev().find(|limited| limited.is_there).map(|limited| &limited.standing);
        self.marks.judged(standing);
        match standing {
            Some(standing) => standing.in_place_of(found),
            None => found,
        }
    }

    /// What a recording has to say of the latest tick; `None` = nothing.
    pub fn limits(&self) -> Option<&Limits> {
        Some(&self.marks.latest).filter(|limits| **limits != Limits::default())
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
        let Some(at) = self.limited.iter().position(|limited| limited.standing.decision_id == decision.id) else {
            return;
        };
        if self.limited.remove(at).is_there {
            self.watched.judge.reset_evidence();
            self.marks.ended = true;
        }
    }
}
