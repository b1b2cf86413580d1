//! Canaries that somebody wants: what a person takes back comes back as theirs, and whoever brings one instance back may bring the
//! others a little later.

use std::collections::BTreeSet;

use super::{life::WATCH, *};

/// Who comes until a moment is left alone.
#[derive(Debug)]
pub(super) struct Returning {
    decision: Decision,
    until_t_ns: u64,
    /// Instances that are let in already, or were there before.
    known: BTreeSet<Target>,
    /// Whoever takes the place of one that has come is another rollout.
    one_for_a_place: bool,
}

impl Returning {
    fn newcomers(&self, canary: &[Target]) -> Vec<Target> {
        let is_new = |target: &&Target| {
            let is_of_it = self.decision.canary.iter().any(|then| then.is_same_version(target));
            let takes_a_place = || self.one_for_a_place && self.known.iter().any(|known| target.is_in_place_of(known));
            let is_known = self.known.contains(*target) || self.decision.canary.contains(target);
            is_of_it && !is_known && !takes_a_place()
        };
        canary.iter().filter(is_new).cloned().collect()
    }
}

impl Line {
    /// A person takes an action back, or has: until then, the canary that comes is theirs.
    pub(super) fn let_return(&mut self, decision: &Decision, until_t_ns: u64) {
        // What was held was there all along, and is the guard's to judge as before.
        if !decision.action.is_done_once() {
            return;
        }
        self.guard.leave(&decision.canary);
        match self.returning.iter_mut().find(|returning| returning.decision.id == decision.id) {
            Some(returning) => (returning.until_t_ns, returning.one_for_a_place) = (until_t_ns, false),
            None => {
                let known = self.memory.canary().cloned().collect();
                let decision = decision.clone();
                self.returning.push(Returning { decision, until_t_ns, known, one_for_a_place: false });
            }
        }
    }

    /// Somebody brought these instances back: they are theirs, and so is what follows until then in other places.
    pub(super) fn let_follow(&mut self, decision: &Decision, came: Vec<Target>, until_t_ns: u64, ledger: &mut Ledger) {
        if !decision.action.is_done_once() {
            return;
        }
        self.let_in(decision, &came, ledger);
        let known = came.into_iter().collect();
        let decision = decision.clone();
        self.returning.push(Returning { decision, until_t_ns, known, one_for_a_place: true });
    }

    /// The same, from this moment on for as long as a canary is watched.
    pub(super) fn leave_to_somebody(&mut self, decision: &Decision, came: Vec<Target>, ledger: &mut Ledger) {
        let until_t_ns = self.now.after(WATCH).t_ns;
        self.let_follow(decision, came, until_t_ns, ledger);
    }

    /// Leaves alone who has come in this tick.
    pub(super) fn let_newcomers_in(&mut self, tick: &Tick, ledger: &mut Ledger) {
        self.returning.retain(|returning| tick.t_ns < returning.until_t_ns);
        if self.returning.is_empty() {
            return;
        }
        let canary = facts::targets(tick, self.name(), Role::Canary);
        for mut returning in std::mem::take(&mut self.returning) {
            let newcomers = returning.newcomers(&canary);
            self.let_in(&returning.decision, &newcomers, ledger);
            returning.known.extend(newcomers);
            self.returning.push(returning);
        }
    }

    fn let_in(&mut self, decision: &Decision, targets: &[Target], ledger: &mut Ledger) {
        if targets.is_empty() {
            return;
        }
        self.guard.leave(targets);
        // The ledger has told the failure, which blocks every action.
        let _ = ledger.mark_acted(decision, targets);
    }
}
