//! From verdict to decision: one per rollout, told once. Pure: time and facts are arguments.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Action, Decision, Facts, GateResult, advice,
    gates::{self, CONFIRMING_WINDOWS, Case},
};
use crate::{
    judge::{Outcome, Verdict},
    targets::{self, Target},
};

/// What was told about which canary: each gate that held a decision on it back, once.
#[derive(Clone, Debug)]
struct Told {
    canary: Vec<Target>,
    blocked_by: BTreeSet<String>,
}

/// The rules for one deployment.
#[derive(Debug)]
pub struct Guard {
    deployment: Arc<str>,
    told: Option<Told>,
    /// The canary that is being condemned, since how many windows in a row, and the last of them.
    condemned: Option<(Vec<Target>, u64, u64)>,
    /// Instances that a decision was let through against; never again.
    acted: BTreeSet<Target>,
    /// Those of them that were really acted on, or that somebody wants as they are: what comes back from its own end in their
    /// place is the same.
    left: BTreeSet<Target>,
    /// The canary that was there last.
    latest: Vec<Target>,
    /// Those that were let through for a quarantine, or that an earlier life of the guard called one for: what condemns them
    /// later and asks for more is told.
    quarantined: BTreeSet<Target>,
    decisions: u64,
}

impl Guard {
    pub fn new(deployment: Arc<str>) -> Self {
        Self {
            deployment,
            told: None,
            condemned: None,
            acted: BTreeSet::new(),
            left: BTreeSet::new(),
            latest: Vec::new(),
            quarantined: BTreeSet::new(),
            decisions: 0,
        }
    }

    /// How many decisions there are already, so that the next one's id is new whatever the clock does.
    pub fn count_from(&mut self, decisions: u64) {
        self.decisions = decisions;
    }

    /// Takes in a window's verdict; call once per window, before [`Guard::decide`]. Answers instances to leave alone with what
    /// they came back from.
    pub fn observe(&mut self, verdict: &Verdict, canary: &[Target]) -> Vec<(Target, Target)> {
        self.condemned = match self.condemned.take() {
            _ if verdict.outcome != Outcome::Regressed => None,
            Some((before, n, last)) if before == canary => {
                Some((before, n + u64::from(verdict.window > last), verdict.window))
            }
            _ => Some((canary.to_vec(), 1, verdict.window)),
        };
        if !canary.is_empty() {
            self.latest = canary.to_vec();
        }
        let dies = gates::dies_again(verdict);
        let newcomers = canary.iter().filter(|target| !self.left.contains(target));
        let same = newcomers.filter_map(|target| {
            let before = self.left.iter().find(|left| left.came_back_as(target, dies))?;
            Some((before.clone(), target.clone()))
        });
        let came_back: Vec<(Target, Target)> = same.collect();
        // Whoever is there otherwise was put there: what was left in that place is over.
        let is_new = |target: &&Target| !self.left.contains(target) && !came_back.iter().any(|(_, now)| now == *target);
        let new: Vec<&Target> = canary.iter().filter(is_new).collect();
        self.left.retain(|left| !new.iter().any(|target| target.is_in_place_of(left)));
        for (before, target) in &came_back {
            // Its earlier life is over: one that restarts for days takes no more room.
            self.left.remove(before);
            self.acted.remove(before);
            self.leave(std::slice::from_ref(target));
            // Limits stay over a restart, and so does what was told of it.
            if self.quarantined.remove(before) {
                self.quarantined.insert(target.clone());
            }
            let told = self.told.iter_mut().flat_map(|told| &mut told.canary);
            told.filter(|told| *told == before).for_each(|told| *told = target.clone());
        }
        came_back
    }

    /// Whether the canary stands condemned: by a hard fact, or by enough windows in a row.
    pub fn is_condemned(&self, verdict: &Verdict) -> bool {
        self.condemned.as_ref().is_some_and(|(_, n, _)| verdict.hard.is_some() || *n >= CONFIRMING_WINDOWS)
    }

    /// Windows in a row that the canary that is there has been condemned in.
    pub fn regressed_windows(&self) -> u64 {
        self.condemned.as_ref().map_or(0, |(_, n, _)| *n)
    }

    /// The decision about a condemned canary: once, and again only if a gate blocks it that has not yet, or none does any more.
    pub fn decide(&mut self, verdict: &Verdict, facts: &Facts, unix_ms: u64) -> Option<Decision> {
        let action = gates::action_of(facts.mode);
        // Of one that is gone there is nothing more to say, if that is our doing.
        let canary = if facts.canary.is_empty() { &self.latest } else { &facts.canary };
        let asks_for_more =
            action != Action::Quarantine && canary.iter().all(|target| self.quarantined.contains(target));
        let is_done = canary.iter().any(|target| self.acted.contains(target)) && !asks_for_more;
        if !self.is_condemned(verdict) || is_done {
            return None;
        }
        let regressed_windows = self.regressed_windows();
        let gates = gates::evaluate(Case { verdict, regressed_windows, facts, action });
        match gates.last().filter(|g| !g.passed && g.gate != gates::APPROVAL) {
            Some(gate) => {
                let same = |told: &Told| is_same_canary(verdict, &told.canary, &facts.canary);
                let mut told = self.told.take().filter(same).map_or_else(BTreeSet::new, |told| told.blocked_by);
                let is_news = told.insert(gate.gate.clone());
                self.told = Some(Told { canary: facts.canary.clone(), blocked_by: told });
                if !is_news {
                    return None;
                }
            }
            None => {
                self.mark_acted(&facts.canary);
                if action == Action::Quarantine {
                    self.quarantine(&facts.canary);
                }
            }
        }
        Some(self.decision(verdict, action, facts, gates, strongest_reason(verdict), unix_ms))
    }

    /// The decision that a person wants, whatever the verdict.
    pub fn wanted(
        &mut self,
        verdict: &Verdict,
        action: Action,
        facts: &Facts,
        gates: Vec<GateResult>,
        reason: String,
        unix_ms: u64,
    ) -> Decision {
        if action.is_done_once() {
            self.mark_acted(&facts.canary);
        }
        self.decision(verdict, action, facts, gates, reason, unix_ms)
    }

    fn decision(
        &mut self,
        verdict: &Verdict,
        action: Action,
        facts: &Facts,
        gates: Vec<GateResult>,
        reason: String,
        unix_ms: u64,
    ) -> Decision {
        self.decisions += 1;
        Decision {
            id: format!("{}-{unix_ms:013}-{:04}", self.deployment, self.decisions),
            deployment: self.deployment.clone(),
            unix_ms,
            window: verdict.window,
            action,
            reason,
            recommendation: action.chosen(&verdict.recommendations).cloned(),
            gates,
            canary: facts.canary.clone(),
            stable: facts.stable.clone(),
        }
    }

    /// What the gates say to others about this canary; nothing while it does not stand condemned.
    pub fn advise(&self, verdict: &Verdict, facts: &Facts) -> Vec<GateResult> {
        match &self.condemned {
            Some((_, n, _)) if self.is_condemned(verdict) => {
                advice::gates(Case { verdict, regressed_windows: *n, facts, action: Action::Rollback })
            }
            _ => Vec::new(),
        }
    }

    /// A decision was let through against these instances: no other one is.
    fn mark_acted(&mut self, targets: &[Target]) {
        self.acted.extend(targets.iter().cloned());
    }

    /// These instances were acted on, or somebody wants them as they are: never again, nor what comes back in their place.
    pub fn leave(&mut self, targets: &[Target]) {
        self.mark_acted(targets);
        self.left.extend(targets.iter().cloned());
    }

    /// These were taken away, and that was seen: what is there later is another rollout, or somebody's doing that is watched for.
    pub fn release(&mut self, targets: &[Target]) {
        self.left.retain(|left| !targets.contains(left));
    }

    /// These are in quarantine, or may be.
    pub fn quarantine(&mut self, targets: &[Target]) {
        self.quarantined.extend(targets.iter().cloned());
    }

    /// An earlier life of the guard acted on these: what comes back in their place is the same.
    pub fn remember(&mut self, targets: &[Target]) {
        self.left.extend(targets.iter().cloned());
    }

    /// A decision that was let through was stopped before the orchestrator was called: it may be taken again once `gate`
    /// does not block any more.
    pub fn not_carried_out(&mut self, decision: &Decision, gate: &str) {
        // It was marked by nothing of this decision's, and what was told of its canary stays told.
        if !decision.action.is_done_once() {
            return;
        }
        for target in &decision.canary {
            self.acted.remove(target);
            self.quarantined.remove(target);
        }
        let told = self.told.take().filter(|told| told.canary == decision.canary);
        let mut blocked_by = told.map_or_else(BTreeSet::new, |told| told.blocked_by);
        blocked_by.insert(gate.into());
        self.told = Some(Told { canary: decision.canary.clone(), blocked_by });
    }
}

/// One that dies again and again is the same all along, whatever its service manager makes for it each time.
pub fn is_same_canary(verdict: &Verdict, before: &[Target], now: &[Target]) -> bool {
    before == now || gates::dies_again(verdict) && targets::same_places(before, now)
}

fn strongest_reason(verdict: &Verdict) -> String {
    let cause = verdict.causes.first().map(|c| c.text.clone());
    cause.or_else(|| verdict.reasons.first().cloned()).unwrap_or_else(|| "regressed; the judge names no cause".into())
}
