//! A canary that somebody brought back, by the counts: told once the orchestrator has said what it finds and, where it knows, who it
//! was. The instances are left alone from the first moment on.

use super::*;

/// What was seen, until the orchestrator has answered.
#[derive(Debug)]
pub(super) struct BroughtBack {
    decision: Decision,
    words: String,
}

impl Line {
    pub(super) fn ask_who(&mut self, decision: Decision, words: String) {
        self.caller.ask(&decision);
        self.brought_back.push(BroughtBack { decision, words });
    }

    /// Whether this was the answer to that.
    pub(super) fn is_told_who(&mut self, answer: &Answer, ledger: &mut Ledger) -> bool {
        let What::State(found) = &answer.what else { return false };
        let at = self.brought_back.iter().position(|b| b.decision.id == answer.decision_id);
        let Some(BroughtBack { decision, words }) = at.map(|at| self.brought_back.remove(at)) else { return false };
        let said = calls::in_words(self.caller.orchestrator.name(), found);
        self.step(&decision, Stage::Reverted, format!("{words}; {said}"), ledger);
        true
    }
}
