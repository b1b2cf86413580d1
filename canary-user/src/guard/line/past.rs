//! What an earlier life of the guard left unfinished: taken up by asking, never by sending again.

use super::{
    held,
    life::{Helped, Step, WATCH},
    looks::Looks,
    *,
};
use crate::guard::ledger::Past;

impl Line {
    /// Takes up what earlier lives of the guard did to this deployment and saw of it.
    pub fn remember(&mut self, past: Past, now: Moment, ledger: &mut Ledger) {
        self.guard.count_from(past.decisions);
        self.guard.leave(&past.declined);
        self.guard.remember(&past.begun);
        self.condemned_t_ns = past.condemned_ago.map(|ago| now.t_ns.saturating_sub(ago.as_nanos() as u64));
        self.remember_seen(past.seen);
        past.wanted.iter().for_each(|entry| self.remember_wanted(entry, ledger));
    }

    /// What somebody wants comes back as theirs, also where the guard was started again before it came.
    fn remember_wanted(&mut self, entry: &HistoryEntry, ledger: &mut Ledger) {
        let HistoryEntry { decision, stages, .. } = entry;
        let brings = |s: &&StageEntry| matches!(s.stage, Stage::Undoing | Stage::Undone | Stage::Reverted);
        let Some(last) = stages.iter().rev().find(brings) else { return };
        let until_t_ns = until(at(last, self.now), WATCH, self.now);
        if decision.action == Action::Quarantine || until_t_ns <= self.now.t_ns {
            return;
        }
        match last.stage {
            Stage::Reverted => self.let_follow(decision, Vec::new(), until_t_ns, ledger),
            _ => self.let_return(decision, until_t_ns),
        }
    }

    /// Takes up an action that an earlier run left unfinished, by what the orchestrator finds. Never sends it again.
    pub async fn reconcile(&mut self, entry: HistoryEntry, ledger: &mut Ledger) {
        let HistoryEntry { decision, plan, stages } = entry;
        let Some(last) = stages.last() else { return };
        let now = self.now;
        let called = stages.iter().find(|s| s.stage == Stage::Applying);
        if let Some(called) = called
            && decision.action.is_done_once()
        {
            self.guard.leave(&decision.canary);
            if decision.action == Action::Quarantine && !stages.iter().any(|s| s.stage == Stage::Undone) {
                self.begin_temporary(decision.clone(), plan.clone(), at(called, now));
                self.stay_condemned(&decision, ledger);
            }
        }
        match last.stage {
            Stage::Verified if decision.action == Action::Hold => {
                let then = at(last, now);
                let (stage, detail) = (last.stage, last.detail.clone());
                let verified = DecisionView { decision, stage, detail, t_ns: then.t_ns.min(now.t_ns) };
                self.take_up_hold(verified, until(then, WATCH, now), ledger);
            }
            Stage::Verified | Stage::Recovered | Stage::NotRecovered if decision.action != Action::Quarantine => {
                self.guard.release(&decision.canary);
                let verified = stages.iter().find(|s| s.stage == Stage::Verified).unwrap_or(last);
                let until_t_ns = until(at(verified, now), WATCH, now);
                let is_told = last.stage != Stage::Verified;
                let helped = if is_told { Helped::Told } else { Helped::watched(Before::default()) };
                if until_t_ns <= self.now.t_ns {
                    let end = helped.in_the_end();
                    let detail = format!("the guard was not running when its watch over it ended{end}");
                    return self.step(&decision, Stage::Closed, detail, ledger);
                }
                let verification = Verification::new(&decision.canary, plan.background.clone(), until_t_ns);
                let looks = Looks::after(self.now);
                let step = Step::Watching { verification, until_t_ns, helped, looks };
                self.take_in_hand(decision, plan, step, ledger);
            }
            Stage::Planned if self.still_waits(&decision) => {
                let planned = at(last, now);
                let t_ns = until(planned, self.watched.config.approval_timeout, now);
                let until = Moment { t_ns, ..planned.after(self.watched.config.approval_timeout) };
                self.await_approval(decision, plan, until, ledger);
            }
            Stage::Planned | Stage::Approved | Stage::Applying | Stage::Applied => {
                self.take_up(decision, plan, last.stage, ledger).await;
            }
            Stage::Undoing if decision.action != Action::Quarantine => {
                let found = calls::state(&self.caller.orchestrator, &decision).await;
                let said = calls::in_words(self.caller.orchestrator.name(), &found);
                let (stage, detail) = match found.map(|f| f.state) {
                    Ok(State::NotInEffect) => (Stage::Undone, format!("found after a restart, {said}")),
                    _ => (Stage::Failed, format!("undo: found unfinished after a restart, {said}; not sent again")),
                };
                self.step(&decision, stage, detail, ledger);
                // It may still come.
                self.let_return(&decision, now.after(WATCH).t_ns);
            }
            _ => {}
        }
    }

    /// Whether a planned decision of an earlier run may still be approved.
    fn still_waits(&self, decision: &Decision) -> bool {
        let required = self.watched.config.approval == ApprovalMode::Required;
        required && decision.blocked_by().is_some_and(|gate| gate.gate == gates::APPROVAL)
    }

    async fn take_up(&mut self, decision: Decision, plan: Plan, was: Stage, ledger: &mut Ledger) {
        let found = calls::state(&self.caller.orchestrator, &decision).await;
        let said = calls::in_words(self.caller.orchestrator.name(), &found);
        let (stage, detail) = match (was, found.map(|f| f.state)) {
            (Stage::Planned | Stage::Approved, _) => {
                (Stage::Failed, format!("the guard stopped before it called, nothing was done; {said}"))
            }
            (_, Ok(State::InEffect | State::InProgress)) => {
                let proof = held::proof(decision.action);
                (Stage::Applied, format!("found unfinished after a restart, {said}; {proof}"))
            }
            (_, Ok(State::NotInEffect) | Err(_)) => {
                (Stage::Failed, format!("found unfinished after a restart, {said}; not sent again"))
            }
        };
        tracing::warn!(decision = %decision.id, "{detail}");
        self.step(&decision, stage, detail, ledger);
        if stage == Stage::Applied && decision.action == Action::Hold {
            self.confirm_hold(decision, ledger);
        } else if stage == Stage::Applied {
            self.verify(InHand { decision, plan, step: Step::Applying, before: Before::default() }, ledger);
        }
    }
}

/// When a stage was, on the clock that only runs on.
fn at(stage: &StageEntry, now: Moment) -> Moment {
    Moment { unix_ms: stage.unix_ms, t_ns: 0 }.rebooted(now)
}

/// The end of what lasts so long from there. A clock that was set in between does not make it last longer than it should have.
fn until(from: Moment, span: Duration, now: Moment) -> u64 {
    from.after(span).t_ns.min(now.after(span).t_ns)
}
