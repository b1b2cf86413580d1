//! The wait for a person's yes. What there is to do is asked for anew once it was given: a crash loop restarts and a service is
//! scaled while a person thinks, and only what is planned now is carried out.

use super::{
    life::{InHand, Step},
    *,
};

/// A person's yes, with the plan that it was given to.
#[derive(Debug)]
pub(super) struct Yes {
    by: String,
    to: Plan,
}

impl Line {
    /// ID of the decision that waits for approval.
    pub fn awaiting(&self) -> Option<&str> {
        let waits = |a: &&InHand| matches!(a.step, Step::Awaiting { .. });
        self.in_hand.as_ref().filter(waits).map(|a| a.decision.id.as_str())
    }

    pub(super) fn await_approval(&mut self, decision: Decision, plan: Plan, until: Moment, ledger: &mut Ledger) {
        let detail =
            format!("waits for `canary approve {}` until {}; no answer is a no", decision.id, until.wall_clock());
        self.show(decision.clone(), Stage::Planned, detail);
        self.take_in_hand(decision, plan, Step::Awaiting { until }, ledger);
    }

    /// A person approves the decision that waits; `Err` = not as things stand.
    pub fn approve(&mut self, by: &str, tick: &Tick, desk: &mut Desk) -> Result<String, String> {
        let Some((_, verdict)) = &self.current else { return Err("no window was judged yet".into()) };
        // What is planned now has to be what is there when it is carried out.
        if let Some(id) = self.calling() {
            return Err(format!("{id} is under way, on the same rollout: approve it in a moment; it goes on waiting"));
        }
        let waits = |a: &mut InHand| matches!(a.step, Step::Awaiting { .. });
        let Some(action) = self.in_hand.take_if(waits) else { return Err("nothing waits for approval".into()) };
        let mut facts = self.facts(tick, verdict, desk);
        facts.described = Some(Ok(action.plan.clone()));
        facts.approval = Approval::Given(by.to_owned());
        self.ask_for_lead(verdict, &mut facts, action.decision.action);
        let regressed_windows = self.guard.regressed_windows();
        let case = Case { verdict, regressed_windows, facts: &facts, action: action.decision.action };
        if let Some(gate) = gates::evaluate(case).into_iter().find(|gate| !gate.passed) {
            let why = format!("not as things stand: {}: {}; it goes on waiting", gate.gate, gate.reason);
            self.in_hand = Some(action);
            return Err(why);
        }
        let same = is_same_canary(verdict, &action.decision.canary, &facts.canary);
        let InHand { mut decision, plan, .. } = action;
        if same {
            // It may have died and come back since it was decided.
            let pairs = decision.canary.iter().zip(&facts.canary);
            let now = pairs.map(|(then, now)| if self.is_left_to_orchestrator(then) { then } else { now });
            decision.canary = now.cloned().collect();
        }
        let detail = format!("by {by}");
        if let Err(why) = desk.ledger.stage(&decision.id, Stage::Approved, &detail, self.now) {
            self.show(decision, Stage::Blocked, format!("no action, for the approval is not on disk: {why}"));
            return Err(format!("the approval is not on disk, nothing is done: {why}"));
        }
        self.show(decision.clone(), Stage::Approved, detail);
        let id = decision.id.clone();
        self.caller.describe(&decision);
        let approved = Some(Yes { by: by.to_owned(), to: plan });
        self.being_described = Some(Proposal { decision, asked_by: None, approved });
        let name = self.caller.orchestrator.name();
        Ok(format!("Approved {id}; {name} is asked once more what there is to do. `canary explain {id}` follows it."))
    }

    /// What there is to do now is known, or that nothing will be done: all gates are asked again with that.
    pub(super) fn planned_anew(
        &mut self,
        decision: Decision,
        yes: Yes,
        described: Result<Plan, String>,
        tick: Option<&Tick>,
        desk: &mut Desk,
    ) {
        let (Some(tick), Some((_, verdict))) = (tick, &self.current) else { return };
        let mut facts = self.facts(tick, verdict, desk);
        facts.described = Some(described.clone());
        facts.approval = Approval::Given(yes.by);
        self.ask_for_lead(verdict, &mut facts, decision.action);
        let regressed_windows = self.guard.regressed_windows();
        let case = Case { verdict, regressed_windows, facts: &facts, action: decision.action };
        let blocking = gates::evaluate(case).pop().filter(|gate| !gate.passed);
        let plan = match (blocking, described) {
            (None, Ok(plan)) => plan,
            (gate, described) => {
                // Where nothing is planned, a gate blocks by that.
                let (gate, reason) = gate.map_or_else(Default::default, |gate| (gate.gate, gate.reason));
                self.guard.not_carried_out(&decision, &gate);
                if let Err(why) = described {
                    self.refused = Some(Refusal::until_asked_again(&decision.canary, &why, self.now));
                }
                return self.held_back(decision, &gate, reason, &mut desk.ledger);
            }
        };
        if let Err(why) = desk.ledger.planned_anew(&decision, &plan) {
            self.show(decision, Stage::Blocked, format!("no action, for the plan is not on disk: {why}"));
            return;
        }
        let is_other = plan.steps != yes.to.steps;
        self.begin(decision, plan, is_other, desk);
    }
}
