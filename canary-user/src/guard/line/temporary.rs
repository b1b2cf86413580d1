//! What is only for a time: a quarantine ends, and what a person takes back is taken back.
//!
//! A backend ends a quarantine by itself. The guard looks whether it did, and where it did not it applies the recorded
//! inverse: again and again, each time after a look that found it still in effect, until two looks in a row found it gone.
//! They are further apart than any call may take: one that nobody saw the end of may still bring what was taken back.

use super::{held, life::WATCH, *};

/// What a backend's own timer may take beyond its time.
const MARGIN: Duration = Duration::from_secs(5);
/// Between two looks at what has not ended.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// How long taking it back may last: longer than a backend lets a start take, which with "systemd" may be 5 minutes.
const UNDO_DEADLINE: Duration = Duration::from_secs(330);

/// Something that has to be taken back.
#[derive(Debug)]
pub(super) struct Temporary {
    decision: Decision,
    plan: Plan,
    /// When the guard looks next.
    look_t_ns: u64,
    doing: Doing,
    /// Why it has to end, in words.
    why: String,
    /// A look has found it gone. A call that is late may still bring it.
    was_gone: bool,
    /// The last trouble that is on record.
    told: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Waiting,
    Looking,
    Undoing,
    /// Undoing because a person asked: once, with its end told.
    UndoingForAPerson,
}

impl Line {
    /// A quarantine that was called for at a moment: it may be in effect, and has to end.
    pub(super) fn begin_temporary(&mut self, decision: Decision, plan: Plan, called: Moment) {
        let lasts = Duration::from_millis(plan.ends_after_ms.unwrap_or(0)) + MARGIN;
        self.guard.quarantine(&decision.canary);
        // A clock that was set in between does not make it last longer.
        let look_t_ns = called.after(lasts).t_ns.min(self.now.after(lasts).t_ns);
        self.temporary.push(Temporary {
            decision,
            plan,
            look_t_ns,
            doing: Doing::Waiting,
            why: "its time is over".into(),
            was_gone: false,
            told: String::new(),
        });
    }

    /// What an orchestrator is being asked to take back.
    pub(super) fn being_undone(&self) -> impl Iterator<Item = &Decision> {
        let called = |t: &&Temporary| matches!(t.doing, Doing::Undoing | Doing::UndoingForAPerson);
        self.temporary.iter().filter(called).map(|t| &t.decision)
    }

    /// Looks after what should have ended.
    pub(super) fn end_temporary(&mut self) {
        let calling = self.in_hand.as_ref().filter(|a| matches!(a.step, Step::Applying)).map(|a| a.decision.id.clone());
        for temporary in self.temporary.iter_mut().filter(|t| Some(&t.decision.id) != calling.as_ref()) {
            if temporary.doing == Doing::Waiting && self.now.t_ns >= temporary.look_t_ns {
                temporary.doing = Doing::Looking;
                // Its time is over: that it came into effect meanwhile is no news any more, and would be told after its end began.
                let is_confirming = |a: &mut InHand| matches!(a.step, Step::Confirming { .. });
                self.in_hand.take_if(|a| a.decision.id == temporary.decision.id && is_confirming(a));
                self.caller.ask(&temporary.decision);
            }
        }
    }

    /// Takes an action back because a person asked.
    pub fn undo(&mut self, entry: HistoryEntry, by: &str, ledger: &mut Ledger) -> Result<String, String> {
        let HistoryEntry { decision, plan, stages } = entry;
        let has = |stage| stages.iter().any(|s: &StageEntry| s.stage == stage);
        let id = &decision.id;
        if !has(Stage::Applying) {
            let why = format!("{id} was not carried out: there is nothing to undo");
            let way = plan.inverse.filter(|_| plan.orchestrator == dry_run::NAME);
            return Err(way.map_or(why.clone(), |way| format!("{why}; {way}")));
        }
        if has(Stage::Undone) {
            return Err(format!("{id} is undone already"));
        }
        let is_in_hand = self.in_hand.as_ref().is_some_and(|a| a.decision.id == *id && !a.step.is_done());
        if is_in_hand || self.held.as_ref().is_some_and(|held| held.is_of(&decision) && held.is_under_way()) {
            return Err(format!("{id} is under way: ask again once it is verified or failed"));
        }
        let ours = self.caller.orchestrator.name();
        if plan.orchestrator != ours {
            let (was, way) = (&plan.orchestrator, plan.inverse.as_deref().unwrap_or("none is known"));
            return Err(format!(
                "{id} was carried out by {was}, and the deployment's orchestrator is {ours} now: configure {was} again, or get \
                 back by hand: {way}"
            ));
        }
        if plan.undo.is_none() {
            let way = plan.inverse.as_deref().unwrap_or("none is known");
            return Err(format!("{} cannot undo {id} by itself; the way back: {way}", plan.orchestrator));
        }
        let at = self.temporary.iter().position(|t| t.decision.id == *id);
        if at.is_some_and(|at| matches!(self.temporary[at].doing, Doing::Undoing | Doing::UndoingForAPerson)) {
            return Err(format!("{id} is being undone"));
        }
        let other = if decision.action == Action::Hold { self.calling_for_any() } else { self.calling_for_hold() };
        if let Some(other) = other {
            return Err(format!("{other} is under way, on the same rollout: ask again in a moment"));
        }
        let said = format!(
            "Undoing {id}: {}. `canary explain {id}` follows it.",
            plan.inverse.as_deref().unwrap_or("as recorded")
        );
        let why = format!("asked for by {by}");
        if let Err(error) = ledger.stage(id, Stage::Undoing, &why, self.now) {
            return Err(format!("nothing is done, for it is not on disk: {error}"));
        }
        let longest = self.longest_undo(&decision, &plan);
        self.caller.undo(&decision, plan.clone(), longest);
        self.show(decision.clone(), Stage::Undoing, why.clone());
        // What comes back from now on is wanted; whoever watched for it stops.
        self.drop_in_hand(&decision);
        if decision.action != Action::Quarantine {
            self.let_return(&decision, self.now.after(longest + WATCH).t_ns);
        }
        let (look_t_ns, told) = (self.now.after(LOOK_AGAIN).t_ns, String::new());
        let doing = Doing::UndoingForAPerson;
        let temporary = Temporary { decision, plan, look_t_ns, doing, why, was_gone: false, told };
        match at {
            Some(at) => self.temporary[at] = temporary,
            None => self.temporary.push(temporary),
        }
        Ok(said)
    }

    pub(super) fn temporary_answered(&mut self, answer: Answer, ledger: &mut Ledger) {
        let Some(at) = self.temporary.iter().position(|t| t.decision.id == answer.decision_id) else { return };
        let name = self.caller.orchestrator.name();
        let mut temporary = self.temporary.remove(at);
        let is_quarantine = temporary.decision.action == Action::Quarantine;
        match (answer.what, temporary.doing) {
            (What::State(found), Doing::Looking) => {
                let said = calls::in_words(name, &found);
                match found.map(|f| f.state) {
                    Ok(State::NotInEffect) if !std::mem::replace(&mut temporary.was_gone, true) => {
                        let apart = LOOK_AGAIN.max(self.longest_call(&temporary.plan));
                        (temporary.doing, temporary.look_t_ns) = (Doing::Waiting, self.now.after(apart).t_ns);
                    }
                    Ok(State::NotInEffect) => {
                        self.drop_in_hand(&temporary.decision);
                        self.limits_ended(&temporary.decision);
                        let detail = format!("{}; {said}", temporary.why);
                        return self.step(&temporary.decision, Stage::Undone, detail, ledger);
                    }
                    // It is looked at again in the next window, and ended once the hold is made or let go.
                    Ok(State::InEffect) if self.calling_for_hold().is_some() => temporary.doing = Doing::Waiting,
                    Ok(State::InEffect) => {
                        let detail = format!("{} and {said}: the recorded inverse is applied", temporary.why);
                        // Ending it is safe whether or not this is on disk.
                        self.step(&temporary.decision, Stage::Undoing, detail, ledger);
                        let longest = self.longest_undo(&temporary.decision, &temporary.plan);
                        self.caller.undo(&temporary.decision, temporary.plan.clone(), longest);
                        (temporary.doing, temporary.was_gone) = (Doing::Undoing, false);
                    }
                    Ok(State::InProgress) | Err(_) => self.look_later(&mut temporary, said, ledger),
                }
            }
            (What::Undone(Ok(said)), Doing::Undoing | Doing::UndoingForAPerson) if is_quarantine => {
                self.drop_in_hand(&temporary.decision);
                let detail = format!("{said}; looked at until that is certain");
                self.step(&temporary.decision, Stage::Undoing, detail, ledger);
                (temporary.doing, temporary.was_gone) = (Doing::Looking, false);
                self.caller.ask(&temporary.decision);
            }
            (What::Undone(undone), Doing::UndoingForAPerson) if !is_quarantine => {
                self.drop_in_hand(&temporary.decision);
                let (stage, detail) = match undone {
                    Ok(said) => (Stage::Undone, said),
                    Err(why) => (Stage::Failed, format!("undo: {name}: {why}")),
                };
                self.step(&temporary.decision, stage, detail, ledger);
                // One that failed may bring the canary back all the same, late or in part.
                return self.let_return(&temporary.decision, self.now.after(WATCH).t_ns);
            }
            (What::Undone(Err(why)), _) => self.look_later(&mut temporary, format!("{name}: {why}"), ledger),
            // An answer to an earlier question.
            _ => {}
        }
        self.temporary.push(temporary);
    }

    fn longest_undo(&self, decision: &Decision, plan: &Plan) -> Duration {
        if decision.action == Action::Hold { held::DEADLINE } else { UNDO_DEADLINE.max(self.longest_call(plan)) }
    }

    /// What is undone is neither confirmed nor watched any more.
    fn drop_in_hand(&mut self, decision: &Decision) {
        self.in_hand.take_if(|a| a.decision.id == decision.id);
        self.held.take_if(|held| held.is_of(decision));
    }

    fn look_later(&mut self, temporary: &mut Temporary, why: String, ledger: &mut Ledger) {
        (temporary.doing, temporary.look_t_ns) = (Doing::Waiting, self.now.after(LOOK_AGAIN).t_ns);
        if temporary.told != why {
            temporary.told.clone_from(&why);
            self.step(&temporary.decision, Stage::Failed, format!("undo: {why}; looked at again every minute"), ledger);
        }
    }
}
