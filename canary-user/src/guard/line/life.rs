//! The life of an action: planned, approved, applying, applied, verified or failed or reverted, recovered or not, closed.
//! Each stage is on disk before the next begins; the orchestrator is called once, and asked as often as needed.

use super::{held, looks::Looks, *};
use crate::{
    guard::{GateResult, recovery},
    orchestrator::Background,
    targets,
};

/// What an orchestrator may take beyond what its plan says, or the grace of the canary.
const CALL_MARGIN: Duration = Duration::from_secs(30);
/// What the counts may take to fall quiet beyond the grace of the canary.
pub(super) const SETTLE: Duration = Duration::from_secs(60);
/// How long a verified action is watched for someone who brings the canary back: longer than any usual reconciler.
pub(super) const WATCH: Duration = Duration::from_secs(600);

/// An action that was begun.
#[derive(Debug)]
pub(super) struct InHand {
    pub decision: Decision,
    pub plan: Plan,
    pub step: Step,
    /// The service before it.
    pub before: Before,
}

#[derive(Debug)]
pub(super) enum Step {
    /// A person has to approve it before this moment.
    Awaiting { until: Moment },
    /// The orchestrator was called and has not answered.
    Applying,
    /// Both sides have to agree: our counts (in words once quiet), and the orchestrator, which is being asked.
    Verifying { verification: Verification, quiet: Option<String>, asking: bool, said: String },
    /// A canary in quarantine goes on working: the orchestrator's word has to do.
    Confirming { deadline_t_ns: u64, asking: bool, said: String },
    /// Done; watched until this moment for someone who brings the canary back, and for whether it helped.
    Watching { verification: Verification, until_t_ns: u64, helped: Helped, looks: Looks },
}

/// Whether it helped.
#[derive(Debug)]
pub(super) enum Helped {
    Watched(recovery::Watch),
    Told,
    /// In words.
    NotKnown(String),
}

impl Helped {
    pub fn watched(before: Before) -> Self {
        Self::Watched(recovery::Watch::new(before))
    }

    /// What is said of it at the end of the watch, where nothing was said before.
    pub fn in_the_end(&self) -> String {
        match self {
            Self::Watched(_) => "; whether it helped is not known: too little was seen since".into(),
            Self::Told => String::new(),
            Self::NotKnown(words) => format!("; {words}"),
        }
    }
}

impl Step {
    /// Whether another canary may be acted on meanwhile.
    pub fn is_done(&self) -> bool {
        matches!(self, Step::Watching { .. })
    }
}

/// What one tick made of the action in hand.
enum Next {
    Go,
    End(Stage, String),
    /// By this gate, for this reason.
    HeldBack(&'static str, &'static str),
    CameBack(String, Vec<Target>),
}

impl Line {
    /// Whether an orchestrator's answer is waited for before the guard may end.
    pub fn is_waiting(&self) -> bool {
        let is_called = self.in_hand.as_ref().is_some_and(|a| matches!(a.step, Step::Applying));
        let is_holding = self.calling_for_hold().is_some();
        self.being_described.is_some() || is_called || is_holding || !self.brought_back.is_empty()
    }

    /// What keeps an action on the canary from being begun now.
    pub(super) fn in_the_way_of_action(&self) -> Option<&str> {
        let begun = self.in_hand.as_ref().filter(|a| !a.step.is_done()).map(|a| a.decision.id.as_str());
        self.calling().or(begun)
    }

    /// Intent on disk, approval where it is required, the last look, the mark that the call is made, the call. In this order.
    pub(super) fn carry_out(&mut self, decision: Decision, plan: Plan, desk: &mut Desk) {
        let blocking = decision.blocked_by().filter(|gate| gate.gate != gates::APPROVAL);
        if let Some(gate) = blocking {
            let detail = format!("{}: {}", gate.gate, gate.reason);
            let recorded = desk.ledger.decision(&decision, &plan, Stage::Blocked, &detail, self.now);
            self.show(decision, Stage::Blocked, with_failure(detail, recorded));
            return;
        }
        let steps = plan.steps.join("; ");
        if let Err(why) = desk.ledger.decision(&decision, &plan, Stage::Planned, &steps, self.now) {
            self.show(decision, Stage::Blocked, format!("no action, for the intent is not on disk: {why}"));
            return;
        }
        if self.watched.orchestrator.name() == dry_run::NAME {
            self.stop(decision, format!("{}: {steps}", dry_run::SAID), &mut desk.ledger);
            return;
        }
        match decision.blocked_by() {
            Some(_) => {
                let until = self.now.after(self.watched.config.approval_timeout);
                self.await_approval(decision, plan, until, &mut desk.ledger);
            }
            None => self.begin(decision, plan, false, desk),
        }
    }

    /// The last look, and the call. `is_other`: the plan is another one than that which is told so far.
    pub(super) fn begin(&mut self, decision: Decision, plan: Plan, is_other: bool, desk: &mut Desk) {
        if desk.is_stopping {
            self.stop(decision, "the guard was asked to stop before it called".into(), &mut desk.ledger);
            return;
        }
        if let Some(why) = desk.paused_for(&decision.deployment) {
            self.guard.not_carried_out(&decision, "pause");
            self.held_back(decision, "pause", why, &mut desk.ledger);
            return;
        }
        let mut looked_at = decision.canary.iter().filter(|t| !self.is_left_to_orchestrator(t));
        if let Some(target) = looked_at.find(|t| (desk.incarnation_now)(t) != Some(t.incarnation)) {
            let why = format!("{} was replaced or removed just now", target.cgroup);
            self.held_back(decision, "incarnation", why, &mut desk.ledger);
            return;
        }
        if let Err(why) = self.caller.orchestrator.leader() {
            self.guard.not_carried_out(&decision, gates::LEADERSHIP);
            self.held_back(decision, gates::LEADERSHIP, why, &mut desk.ledger);
            return;
        }
        let anew = if is_other { format!(", planned anew: {}", plan.steps.join("; ")) } else { String::new() };
        let calls = format!("{} is called{anew}", plan.orchestrator);
        if let Err(why) = desk.ledger.stage(&decision.id, Stage::Applying, &calls, self.now) {
            self.show(decision, Stage::Blocked, format!("no action, for the call is not on disk: {why}"));
            return;
        }
        // From here on it takes the place of a hold that stands, and not before that is certain. Shown first: of two holds the later.
        if decision.action.takes_away() || decision.action == Action::Hold {
            self.end_hold(&decision.id, &mut desk.ledger);
        }
        self.show(decision.clone(), Stage::Applying, calls);
        if decision.action == Action::Hold {
            return self.hold(decision, plan);
        }
        self.guard.leave(&decision.canary);
        self.caller.apply(&decision, plan.clone(), self.longest_call(&plan));
        if decision.action == Action::Quarantine {
            // From here on it may be in effect, whatever comes of the call.
            self.begin_temporary(decision.clone(), plan.clone(), self.now);
        }
        self.take_in_hand(decision, plan, Step::Applying, &mut desk.ledger);
    }

    /// Whether the orchestrator follows this instance over its manager's restarts, and refuses one that somebody else began.
    pub(super) fn is_left_to_orchestrator(&self, target: &Target) -> bool {
        target.identity.is_some() && self.caller.orchestrator.knows_runs()
    }

    /// How long the orchestrator may take to carry a plan out.
    pub(super) fn longest_call(&self, plan: &Plan) -> Duration {
        plan.takes_at_most(self.watched.config.grace) + CALL_MARGIN
    }

    /// In the place of an action that is only watched any more.
    pub(super) fn take_in_hand(&mut self, decision: Decision, plan: Plan, step: Step, ledger: &mut Ledger) {
        self.end_watch(&decision, ledger);
        let verdict = self.current.as_ref().map(|(_, verdict)| verdict);
        let levels = self.levels.means(&verdict.map_or(Vec::new(), facts::condemning_indicators));
        let before = self.memory.before(verdict.and_then(|v| v.p_canary), levels);
        self.in_hand = Some(InHand { decision, plan, step, before });
    }

    /// An action that is only watched ends by another one that takes its place.
    fn end_watch(&mut self, by: &Decision, ledger: &mut Ledger) {
        let Some(InHand { decision: watched, step, .. }) = self.in_hand.take() else { return };
        let Step::Watching { helped, .. } = step else { return };
        let helped = helped.in_the_end();
        let detail = format!("not watched any longer, for {} is in hand{helped}", by.id);
        tracing::info!(decision = %watched.id, "{detail}");
        self.caller.note(&watched, Stage::Closed, &detail);
        // The ledger has told the failure, which blocks every action.
        let _ = ledger.stage(&watched.id, Stage::Closed, &detail, self.now);
    }

    /// A gate that let the decision through blocks it in the last look.
    pub(super) fn held_back(&mut self, mut decision: Decision, gate: &str, reason: String, ledger: &mut Ledger) {
        let detail = format!("{gate}: {reason}");
        // Whoever counts what gates hold back sees this one, and not the approval that it waited for.
        decision.gates.retain(|result| result.passed && result.gate != gate);
        decision.gates.push(GateResult { gate: gate.into(), passed: false, reason });
        self.stop(decision, detail, ledger);
    }

    /// A planned decision that is not carried out after all.
    fn stop(&mut self, decision: Decision, detail: String, ledger: &mut Ledger) {
        let recorded = ledger.stage(&decision.id, Stage::Blocked, &detail, self.now);
        self.show(decision, Stage::Blocked, with_failure(detail, recorded));
    }

    /// What this tick's counts say about the action in hand.
    pub(super) fn progress(&mut self, tick: &Tick, ledger: &mut Ledger) {
        let Some(mut action) = self.in_hand.take() else { return };
        let next = match &mut action.step {
            Step::Applying => Next::Go,
            Step::Awaiting { until } if tick.t_ns >= until.t_ns => {
                let waited = humantime::format_duration(self.watched.config.approval_timeout);
                let canary = facts::targets(tick, &self.watched.config.name, Role::Canary);
                let before = &action.decision.canary;
                let same = self.verdict().is_some_and(|verdict| is_same_canary(verdict, before, &canary));
                self.guard.leave(before);
                if same {
                    self.guard.leave(&canary);
                }
                Next::End(Stage::Declined, format!("nobody approved it within {waited}"))
            }
            Step::Awaiting { .. } => {
                let canary = facts::targets(tick, &self.watched.config.name, Role::Canary);
                let verdict = self.verdict();
                match verdict.is_some_and(|verdict| is_same_canary(verdict, &action.decision.canary, &canary)) {
                    true => Next::Go,
                    false => {
                        self.guard.not_carried_out(&action.decision, "incarnation");
                        Next::HeldBack("incarnation", "the canary was replaced or removed while it waited for approval")
                    }
                }
            }
            Step::Verifying { verification, quiet, asking, said } => match (verification.observe(tick), quiet) {
                (Progress::CameBack(words, targets), _) => Next::CameBack(words, targets),
                (Progress::Overdue(words), _) => Next::End(Stage::Failed, words),
                (Progress::Watching, None) => Next::Go,
                (progress, quiet) => {
                    if let Progress::Quiet(words) = progress {
                        *quiet = Some(words);
                    }
                    // Also where nothing is counted any more: that they were quiet holds until they are seen busy.
                    let overdue = verification.is_overdue(tick.t_ns) && !*asking && !said.is_empty();
                    if !overdue && !std::mem::replace(asking, true) {
                        self.caller.ask(&action.decision);
                    }
                    let words = quiet.as_deref().unwrap_or_default();
                    let failed = format!("the counts are quiet ({words}), but {said}");
                    if overdue { Next::End(Stage::Failed, failed) } else { Next::Go }
                }
            },
            Step::Confirming { deadline_t_ns, asking, said } => {
                if tick.t_ns >= *deadline_t_ns && !*asking {
                    Next::End(Stage::Failed, format!("it did not take effect: {said}"))
                } else {
                    if !std::mem::replace(asking, true) {
                        self.caller.ask(&action.decision);
                    }
                    Next::Go
                }
            }
            Step::Watching { verification, until_t_ns, helped, looks } => {
                if looks.is_due(tick.t_ns) {
                    self.caller.ask(&action.decision);
                }
                let is_over = tick.t_ns >= *until_t_ns;
                match verification.observe(tick) {
                    Progress::CameBack(words, targets) => Next::CameBack(words, targets),
                    _ => {
                        let answer = match helped {
                            Helped::Watched(watch) => watch.observe(self.look(tick)),
                            Helped::Told | Helped::NotKnown(_) => None,
                        };
                        if let Some(answer) = answer {
                            *helped = self.tell_whether_it_helped(&action.decision, answer, ledger);
                        }
                        let closed = format!("nobody brought the canary back{}", helped.in_the_end());
                        if is_over { Next::End(Stage::Closed, closed) } else { Next::Go }
                    }
                }
            }
        };
        match next {
            Next::Go => self.in_hand = Some(action),
            Next::End(stage, detail) => self.step(&action.decision, stage, detail, ledger),
            Next::HeldBack(gate, why) => self.held_back(action.decision, gate, why.into(), ledger),
            Next::CameBack(words, targets) => {
                // Whoever brought it back wants it: never fight over it.
                self.leave_to_somebody(&action.decision, targets, ledger);
                self.ask_who(action.decision, words);
            }
        }
    }

    fn tell_whether_it_helped(&mut self, decision: &Decision, answer: Recovery, ledger: &mut Ledger) -> Helped {
        let (stage, words) = match answer {
            Recovery::Recovered(words) => (Stage::Recovered, words),
            Recovery::NotRecovered(words) => (Stage::NotRecovered, words),
            Recovery::Unknown(words) => {
                tracing::warn!(decision = %decision.id, "{words}");
                return Helped::NotKnown(words);
            }
        };
        self.step(decision, stage, words, ledger);
        Helped::Told
    }

    /// Stable in this window.
    fn look(&self, tick: &Tick) -> Look {
        let verdict = self.current.as_ref().map(|(_, verdict)| verdict);
        Look {
            p_stable: verdict.and_then(|v| v.p_stable),
            levels: verdict.map_or(Vec::new(), |v| v.indicators.iter().map(|i| (i.indicator, i.stable)).collect()),
            ..facts::look(tick, &self.watched.config.name)
        }
    }

    /// An orchestrator's answer.
    pub fn answered(&mut self, answer: Answer, tick: Option<&Tick>, desk: &mut Desk) {
        if let What::Described(described) = answer.what {
            if let Some(proposal) = self.being_described.take_if(|p| p.decision.id == answer.decision_id) {
                self.described(proposal, described, tick, desk);
            }
            return;
        }
        if self.is_told_who(&answer, &mut desk.ledger) {
            return;
        }
        let Some(mut action) =
            self.in_hand.take_if(|a| a.decision.id == answer.decision_id && a.step.asks(&answer.what))
        else {
            if let Some(answer) = self.hold_answered(answer, &mut desk.ledger) {
                self.temporary_answered(answer, &mut desk.ledger);
            }
            return;
        };
        let ledger = &mut desk.ledger;
        let name = self.caller.orchestrator.name();
        match (answer.what, &mut action.step) {
            (What::Applied(Ok(said)), Step::Applying) => {
                let detail = format!("{said}; {}", held::proof(action.decision.action));
                self.step(&action.decision, Stage::Applied, detail, ledger);
                self.verify(action, ledger);
            }
            (What::Applied(Err(why)), Step::Applying) => {
                self.step(&action.decision, Stage::Failed, format!("{name}: {why}; not tried again"), ledger);
            }
            (What::State(found), Step::Verifying { quiet, asking, said, .. }) => {
                *asking = false;
                *said = calls::in_words(name, &found);
                if let (Some(State::InEffect), Some(words)) = (found.map(|f| f.state).ok(), quiet) {
                    let detail = format!("{words}; {said}");
                    self.step(&action.decision, Stage::Verified, detail, ledger);
                    self.guard.release(&action.decision.canary);
                    let Step::Verifying { verification, .. } = action.step else { return };
                    let helped = Helped::watched(action.before.clone());
                    let until_t_ns = self.now.after(WATCH).t_ns;
                    action.step = Step::Watching { verification, until_t_ns, helped, looks: Looks::after(self.now) };
                }
                self.in_hand = Some(action);
            }
            (What::State(found), Step::Confirming { asking, said, .. }) => {
                *asking = false;
                *said = calls::in_words(name, &found);
                if found.is_ok_and(|f| f.state == State::InEffect) {
                    let detail = said.clone();
                    self.step(&action.decision, Stage::Verified, detail, ledger);
                } else {
                    self.in_hand = Some(action);
                }
            }
            (What::State(found), Step::Watching { looks, .. }) => {
                if !looks.is_gone(&found, self.now) {
                    self.in_hand = Some(action);
                    return;
                }
                let canary = tick.map(|tick| facts::targets(tick, &self.watched.config.name, Role::Canary));
                // The next rollout, where it runs beside it, is none of that.
                let canary = targets::of_version(&action.decision.canary, canary.unwrap_or_default());
                self.leave_to_somebody(&action.decision, canary, ledger);
                let detail = format!("somebody wants the canary again: {}", calls::in_words(name, &found));
                self.step(&action.decision, Stage::Reverted, detail, ledger);
            }
            _ => self.in_hand = Some(action),
        }
    }

    /// The canary of a decision, with what its manager has made of it since then: that is nobody's doing.
    fn as_it_came_back(&self, decision: &Decision) -> Vec<Target> {
        let dies = self.verdict().is_some_and(gates::dies_again);
        let is_later = |now: &&Target| decision.canary.iter().any(|then| then.came_back_as(now, dies));
        decision.canary.iter().chain(self.memory.canary().filter(is_later)).cloned().collect()
    }

    pub(super) fn verify(&mut self, mut action: InHand, ledger: &mut Ledger) {
        self.end_watch(&action.decision, ledger);
        let round = action.plan.background.as_ref().map_or(Duration::ZERO, Background::round);
        let deadline_t_ns = self.now.after(self.watched.config.grace + SETTLE + round).t_ns;
        action.step = match action.decision.action {
            Action::Quarantine => Step::Confirming { deadline_t_ns, asking: false, said: "it was not asked".into() },
            _ => {
                let background = action.plan.background.clone();
                let verification =
                    Verification::new(&self.as_it_came_back(&action.decision), background, deadline_t_ns);
                Step::Verifying { verification, quiet: None, asking: false, said: String::new() }
            }
        };
        self.in_hand = Some(action);
    }

    /// A change of stage, on disk and for the watchers. What happened has happened, recorded or not.
    pub(super) fn step(&mut self, decision: &Decision, stage: Stage, detail: String, ledger: &mut Ledger) {
        let recorded = ledger.stage(&decision.id, stage, &detail, self.now);
        self.show(decision.clone(), stage, with_failure(detail, recorded));
    }

    pub(super) fn show(&mut self, decision: Decision, stage: Stage, detail: String) {
        let name = stage.name();
        match stage {
            // These need a person.
            Stage::Failed | Stage::Reverted | Stage::NotRecovered => {
                tracing::error!(decision = %decision.id, action = %decision.action, stage = name, "{detail}");
            }
            _ => tracing::info!(decision = %decision.id, action = %decision.action, stage = name, "{detail}"),
        }
        self.caller.note(&decision, stage, &detail);
        let is_hold = decision.action == Action::Hold;
        let view = Some(DecisionView { decision, stage, detail, t_ns: self.now.t_ns });
        *(if is_hold { &mut self.hold_view } else { &mut self.view }) = view;
    }
}

impl Step {
    /// Whether this is what the step waits for.
    fn asks(&self, what: &What) -> bool {
        match what {
            What::Applied(_) => matches!(self, Step::Applying),
            // What is held for a time is asked for, too: one answer for each who asked.
            What::State(_) => match self {
                Step::Verifying { asking, .. } | Step::Confirming { asking, .. } => *asking,
                Step::Watching { looks, .. } => looks.is_asking(),
                Step::Awaiting { .. } | Step::Applying => false,
            },
            What::Described(_) | What::Undone(_) => false,
        }
    }
}
