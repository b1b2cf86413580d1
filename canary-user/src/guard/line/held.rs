//! A rollout that a person has held: it stands still, and its canary serves on. That is not what is done once to a canary, which is
//! judged and acted on as before: while it is held, and once the rollout goes on again, whoever saw to that. So a hold stands beside
//! the action in hand, and takes neither its place nor its watch.
//!
//! Both write to the same object, each only as it was planned on: so no two calls are out at a time where one of them is a hold's. One
//! that sets or ends a pause has little time, because a rollback may be waiting for it.

use super::{
    life::{SETTLE, Step, WATCH},
    looks::Looks,
    *,
};

/// How long setting or ending a pause may take: it is a look at the pods and one write.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);
/// How the watch ends where the rollout stood still to its end.
const STOOD_STILL: &str = "nobody let the rollout go on";

/// What is looked at once an orchestrator has said that it is done.
pub(super) fn proof(action: Action) -> &'static str {
    match action {
        Action::Hold => "it is asked whether the rollout stands still",
        _ => "the canary's counts are watched",
    }
}

/// A hold that was begun.
#[derive(Debug)]
pub(super) struct Held {
    decision: Decision,
    stands: Stands,
}

#[derive(Debug)]
enum Stands {
    /// The orchestrator was called and has not answered.
    Called,
    /// Whether it stands still is asked until this moment.
    Confirming { deadline_t_ns: u64, asking: bool, said: String },
    /// It does; watched until this moment for someone who lets it go on.
    Still { until_t_ns: u64, looks: Looks },
}

impl Held {
    pub fn is_of(&self, decision: &Decision) -> bool {
        self.decision.id == decision.id
    }

    pub fn is_called(&self) -> bool {
        matches!(self.stands, Stands::Called)
    }

    /// Whether it is neither known to stand still nor to have failed.
    pub fn is_under_way(&self) -> bool {
        !matches!(self.stands, Stands::Still { .. })
    }

    /// Whether this is what it waits for.
    fn asks(&self, what: &What) -> bool {
        match (what, &self.stands) {
            (What::Applied(_), Stands::Called) => true,
            (What::State(_), Stands::Confirming { asking, .. }) => *asking,
            (What::State(_), Stands::Still { looks, .. }) => looks.is_asking(),
            _ => false,
        }
    }
}

impl Line {
    /// The decision that an orchestrator is being asked to plan or to carry out, or the hold that it is being asked to take back: until
    /// its answer, no action begins that writes to the same object.
    pub(super) fn calling(&self) -> Option<&str> {
        let described = self.being_described.as_ref().map(|proposal| &proposal.decision);
        let called = self.in_hand.as_ref().filter(|a| matches!(a.step, Step::Applying)).map(|a| &a.decision);
        described.or(called).map(|decision| decision.id.as_str()).or_else(|| self.calling_for_hold())
    }

    /// The hold of which that is so: until the answer, no action is taken back either.
    pub(super) fn calling_for_hold(&self) -> Option<&str> {
        let described = self.being_described.as_ref().map(|proposal| &proposal.decision);
        let called = self.held.as_ref().filter(|held| held.is_called()).map(|held| &held.decision);
        let all = described.into_iter().chain(called).chain(self.being_undone());
        all.filter(|decision| decision.action == Action::Hold).map(|decision| decision.id.as_str()).next()
    }

    /// What a hold, and its end, wait for: whatever an orchestrator is being asked to do or to take back.
    pub(super) fn calling_for_any(&self) -> Option<&str> {
        self.calling().or_else(|| self.being_undone().map(|decision| decision.id.as_str()).next())
    }

    /// What keeps a rollout from being held now: a call that is out, an action that was begun and is not verified, or a hold of which
    /// the same is so. One that waits for a person's yes does not: who is asked may want to look first.
    pub(super) fn in_the_way_of_hold(&self) -> Option<&str> {
        let is_begun = |step: &Step| !step.is_done() && !matches!(step, Step::Awaiting { .. });
        let begun = self.in_hand.as_ref().filter(|a| is_begun(&a.step)).map(|a| a.decision.id.as_str());
        let held = self.held.as_ref().filter(|held| held.is_under_way()).map(|held| held.decision.id.as_str());
        self.calling_for_any().or(begun).or(held)
    }

    /// The call for a hold, which is on record.
    pub(super) fn hold(&mut self, decision: Decision, plan: Plan) {
        self.caller.apply(&decision, plan, DEADLINE);
        self.held = Some(Held { decision, stands: Stands::Called });
    }

    /// Asks until it is known whether it stands still.
    pub(super) fn confirm_hold(&mut self, decision: Decision, ledger: &mut Ledger) {
        self.end_hold(&decision.id, ledger);
        let deadline_t_ns = self.now.after(SETTLE).t_ns;
        let stands = Stands::Confirming { deadline_t_ns, asking: false, said: "it was not asked".into() };
        self.held = Some(Held { decision, stands });
    }

    /// Goes on with the watch of an earlier life of the guard, which is shown as it was verified then.
    pub(super) fn take_up_hold(&mut self, verified: DecisionView, until_t_ns: u64, ledger: &mut Ledger) {
        let decision = verified.decision.clone();
        if until_t_ns <= self.now.t_ns {
            let detail = "the guard was not running when its watch over it ended".to_owned();
            return self.step(&decision, Stage::Closed, detail, ledger);
        }
        self.end_hold(&decision.id, ledger);
        self.hold_view = Some(verified);
        let stands = Stands::Still { until_t_ns, looks: Looks::after(self.now) };
        self.held = Some(Held { decision, stands });
    }

    /// A hold is neither confirmed nor watched any longer: what takes the canary away ends it, and another hold takes its place.
    pub(super) fn end_hold(&mut self, by: &str, ledger: &mut Ledger) {
        let Some(Held { decision, .. }) = self.held.take() else { return };
        self.step(&decision, Stage::Closed, format!("not watched any longer, for {by} is in hand"), ledger);
    }

    /// What the time has made of it.
    pub(super) fn progress_hold(&mut self, t_ns: u64, ledger: &mut Ledger) {
        let Some(mut held) = self.held.take() else { return };
        let end = match &mut held.stands {
            Stands::Called => None,
            Stands::Confirming { deadline_t_ns, asking, said } if t_ns >= *deadline_t_ns && !*asking => {
                Some((Stage::Failed, format!("it did not take effect: {said}")))
            }
            Stands::Confirming { asking, .. } => {
                if !std::mem::replace(asking, true) {
                    self.caller.ask(&held.decision);
                }
                None
            }
            Stands::Still { until_t_ns, looks } => {
                if looks.is_due(t_ns) {
                    self.caller.ask(&held.decision);
                }
                (t_ns >= *until_t_ns).then(|| (Stage::Closed, STOOD_STILL.to_owned()))
            }
        };
        match end {
            Some((stage, detail)) => self.step(&held.decision, stage, detail, ledger),
            None => self.held = Some(held),
        }
    }

    /// Takes an answer in that the hold waits for; gives back one that it does not.
    pub(super) fn hold_answered(&mut self, answer: Answer, ledger: &mut Ledger) -> Option<Answer> {
        let waits = |held: &mut Held| held.decision.id == answer.decision_id && held.asks(&answer.what);
        let Some(mut held) = self.held.take_if(waits) else { return Some(answer) };
        let name = self.caller.orchestrator.name();
        match answer.what {
            What::Applied(Ok(said)) => {
                self.step(&held.decision, Stage::Applied, format!("{said}; {}", proof(Action::Hold)), ledger);
                self.confirm_hold(held.decision, ledger);
            }
            What::Applied(Err(why)) => {
                self.step(&held.decision, Stage::Failed, format!("{name}: {why}; not tried again"), ledger);
            }
            What::State(found) => {
                let words = calls::in_words(name, &found);
                match &mut held.stands {
                    Stands::Confirming { asking, said, .. } => {
                        (*asking, *said) = (false, words.clone());
                        if found.is_ok_and(|f| f.state == State::InEffect) {
                            self.step(&held.decision, Stage::Verified, words, ledger);
                            let (until_t_ns, looks) = (self.now.after(WATCH).t_ns, Looks::after(self.now));
                            held.stands = Stands::Still { until_t_ns, looks };
                        }
                    }
                    Stands::Still { looks, .. } => {
                        if looks.is_gone(&found, self.now) {
                            let detail = format!("somebody lets the rollout go on: {words}");
                            self.step(&held.decision, Stage::Reverted, detail, ledger);
                            return None;
                        }
                    }
                    Stands::Called => {}
                }
                self.held = Some(held);
            }
            // It asks for no other.
            What::Described(_) | What::Undone(_) => self.held = Some(held),
        }
        None
    }
}
