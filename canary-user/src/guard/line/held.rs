//! A rollout that a person has held: it stands still, and its canary serves on. That is not what is done once to a canary,
//! which is judged and acted on as before: while it is held, and once the rollout goes on again, whoever saw to that.

use super::{
    life::{InHand, Step, WATCH},
    looks::Looks,
    *,
};

/// How the watch ends where the rollout stood still to its end.
pub(super) const STOOD_STILL: &str = "nobody let the rollout go on";

/// What is looked at once an orchestrator has said that it is done.
pub(super) fn proof(action: Action) -> &'static str {
    match action {
        Action::Hold => "it is asked whether the rollout stands still",
        _ => "the canary's counts are watched",
    }
}

impl Line {
    /// The orchestrator finds the rollout standing still: it is asked from time to time whether it still does.
    pub(super) fn watch_held(&mut self, action: InHand) {
        let step = Step::Holding { until_t_ns: self.now.after(WATCH).t_ns, looks: Looks::after(self.now) };
        self.in_hand = Some(InHand { step, ..action });
    }

    /// Goes on with the watch of an earlier life of the guard.
    pub(super) fn take_up_held(&mut self, decision: Decision, plan: Plan, until_t_ns: u64, ledger: &mut Ledger) {
        if until_t_ns <= self.now.t_ns {
            let detail = "the guard was not running when its watch over it ended".to_owned();
            return self.step(&decision, Stage::Closed, detail, ledger);
        }
        let step = Step::Holding { until_t_ns, looks: Looks::after(self.now) };
        self.take_in_hand(decision, plan, step, ledger);
    }
}
