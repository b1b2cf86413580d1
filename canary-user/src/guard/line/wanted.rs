//! What a person wants done to the canary, whatever the verdict and the mode: taken away, or its rollout held where it is.

use super::*;

impl Line {
    /// A rollback or a hold, asked for by a person; `Err` = not as things stand.
    pub fn wanted(
        &mut self,
        action: Action,
        by: &str,
        reason: &str,
        tick: &Tick,
        desk: &mut Desk,
    ) -> Result<String, String> {
        // Known without a look at the canary: who asks is told at once.
        let obstacle = self.caller.orchestrator.cannot_hold().filter(|_| action == Action::Hold);
        if let Some(why) = obstacle {
            return Err(why);
        }
        let Some((_, verdict)) = &self.current else { return Err("no window was judged yet".into()) };
        let in_the_way = match action {
            Action::Hold => self.in_the_way_of_hold(),
            _ => self.in_the_way_of_action(),
        };
        if let Some(id) = in_the_way {
            return Err(format!("{id} is under way: `canary explain {id}` tells where it stands"));
        }
        let mut facts = self.facts(tick, verdict, desk);
        facts.asked_by = Some(by.to_owned());
        self.ask_for_lead(verdict, &mut facts, action);
        let case = Case { verdict, regressed_windows: 0, facts: &facts, action };
        let gates = gates::evaluate(case);
        if let Some(gate) = gates.iter().find(|gate| !gate.passed) {
            return Err(format!("{}: {}", gate.gate, gate.reason));
        }
        let words = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        let reason = format!("asked for by {by}{words}");
        let decision = self.guard.wanted(verdict, action, &facts, gates, reason, self.now.unix_ms);
        let id = decision.id.clone();
        self.caller.describe(&decision);
        self.being_described = Some(Proposal { decision, asked_by: Some(by.to_owned()), approved: None });
        let name = self.name();
        Ok(match action {
            Action::Hold => format!(
                "Holding the rollout of {name} as decision {id}. `canary explain {id}` follows it, `canary undo {id}` lets it \
                 go on."
            ),
            _ => format!("Rolling back {name} as decision {id}. `canary explain {id}` follows it."),
        })
    }
}
