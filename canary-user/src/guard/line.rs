//! One deployment: its window, its judge, its rules and the action in hand. No await: calls are made off the line.

use std::{sync::Arc, time::Duration};

use super::{
    Decision, Facts, Guard, Stage,
    calls::{self, Answer, Caller, What},
    facts::{self, Memory},
    ledger::Ledger,
    run::{Desk, Judgement, Watched},
    verify::{Progress, Verification},
};
use crate::{
    judge::{Outcome, Verdict},
    orchestrator::{State, dry_run},
    targets::{Role, Target},
    telemetry::Tick,
    watch::{DecisionView, DeploymentView},
    window::Window,
};

/// What an orchestrator may take beyond the grace of the canary.
const CALL_MARGIN: Duration = Duration::from_secs(30);
/// What the counts may take to fall quiet beyond the grace of the canary.
const SETTLE: Duration = Duration::from_secs(60);
/// How long a verified action is watched for someone who brings the canary back: longer than any usual reconciler.
const WATCH: Duration = Duration::from_secs(600);
const HOUR_MS: u64 = 3_600_000;

/// An action that was begun.
#[derive(Debug)]
struct InHand {
    decision: Decision,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// The orchestrator was called and has not answered.
    Applying,
    /// Both sides have to agree: our counts (in words once quiet), and the orchestrator, which is being asked.
    Verifying { verification: Verification, quiet: Option<String>, asking: bool, said: String },
    /// Done; watched until this moment for someone who brings the canary back.
    Watching { verification: Verification, until_t_ns: u64 },
}

/// One deployment with all that is remembered of it.
pub(super) struct Line {
    watched: Watched,
    caller: Caller,
    guard: Guard,
    memory: Memory,
    current: Option<(Window, Judgement)>,
    outcome: Option<Outcome>,
    is_condemned: bool,
    condemned_t_ns: Option<u64>,
    in_hand: Option<InHand>,
    view: Option<DecisionView>,
    t_ns: u64,
    unix_ms: u64,
}

impl Line {
    pub fn new(watched: Watched, caller: Caller) -> Self {
        let guard = Guard::new(watched.config.name.clone());
        Self {
            watched,
            caller,
            guard,
            memory: Memory::default(),
            current: None,
            outcome: None,
            is_condemned: false,
            condemned_t_ns: None,
            in_hand: None,
            view: None,
            t_ns: 0,
            unix_ms: 0,
        }
    }

    pub fn name(&self) -> &Arc<str> {
        &self.watched.config.name
    }

    pub fn verdict(&self) -> Option<&Verdict> {
        self.current.as_ref().map(|(_, j)| &j.verdict)
    }

    /// Whether an orchestrator's answer is waited for.
    pub fn is_applying(&self) -> bool {
        self.in_hand.as_ref().is_some_and(|a| matches!(a.step, Step::Applying))
    }

    /// When this deployment came to stand condemned the last time.
    pub fn condemned_t_ns(&self) -> Option<u64> {
        self.condemned_t_ns
    }

    /// Takes the time of a tick before anything is recorded with it.
    pub fn clock(&mut self, tick: &Tick) {
        (self.t_ns, self.unix_ms) = (tick.t_ns, tick.unix_ms);
    }

    /// Tick to window to verdict.
    pub fn judge(&mut self, tick: &Tick, ledger: &mut Ledger) {
        let window = (self.watched.window)(tick);
        let judgement = (self.watched.judge)(&window);
        self.memory.observe(tick, &window);
        let verdict = &judgement.verdict;
        let stood = self.is_condemned;
        self.guard.observe(verdict, &facts::targets(tick, &self.watched.config.name, Role::Canary));
        self.is_condemned = self.guard.is_condemned(verdict);
        if self.is_condemned && !stood {
            self.condemned_t_ns = Some(tick.t_ns);
        }
        if self.outcome != Some(verdict.outcome) {
            self.outcome = Some(verdict.outcome);
            // The ledger has said so and remembers: a failure blocks every action from here on.
            let _ = ledger.verdict(&self.watched.config.name, tick.unix_ms, verdict);
        }
        self.current = Some((window, judgement));
    }

    /// Verdict to decision to action; first the action in hand. `elsewhere`: other deployments condemned at about
    /// the same time.
    pub fn act(&mut self, tick: &Tick, desk: &mut Desk, elsewhere: Vec<Arc<str>>) {
        self.progress(tick, &mut desk.ledger);
        if self.in_hand.as_ref().is_some_and(|a| !matches!(a.step, Step::Watching { .. })) {
            return;
        }
        let Some((_, judgement)) = &self.current else { return };
        if !self.is_condemned {
            return;
        }
        let facts = self.facts(tick, judgement, desk, elsewhere);
        if let Some(decision) = self.guard.decide(&judgement.verdict, &facts, tick.unix_ms) {
            self.carry_out(decision, desk);
        }
    }

    fn facts(&self, tick: &Tick, judgement: &Judgement, desk: &mut Desk, elsewhere: Vec<Arc<str>>) -> Facts {
        let config = &self.watched.config;
        let mut facts = self.memory.facts(tick, &config.name, &judgement.verdict, &judgement.stable_shift);
        facts.mode = config.mode;
        facts.paused = desk.paused();
        facts.max_age = config.max_age;
        facts.minimum_healthy = config.minimum_healthy;
        facts.per_hour = config.budget.per_hour;
        facts.cooldown = config.budget.cooldown;
        facts.condemned_elsewhere = elsewhere;
        let span_ms = HOUR_MS.max(config.budget.cooldown.as_millis() as u64);
        if let Some((acted_on, times)) =
            desk.ledger.done(&config.name, &facts.canary, tick.unix_ms.saturating_sub(span_ms))
        {
            facts.acted_on = acted_on;
            facts.actions_last_hour = times.iter().filter(|t| **t + HOUR_MS >= tick.unix_ms).count();
            // A clock that was set back leaves actions in the future: no time has passed since them.
            facts.since_last_action =
                times.iter().max().map(|t| Duration::from_millis(tick.unix_ms.saturating_sub(*t)));
        }
        facts.journal_failure = desk.ledger.failure().cloned();
        facts
    }

    /// Intent on disk, a last look at pause and incarnation, the mark that the call is made, the call. In this order.
    fn carry_out(&mut self, decision: Decision, desk: &mut Desk) {
        let plan = self.watched.orchestrator.plan(&decision);
        if let Some(gate) = decision.blocked_by() {
            let detail = format!("{}: {}", gate.gate, gate.reason);
            let recorded = desk.ledger.decision(&decision, &plan, Stage::Blocked, &detail);
            self.show(decision, Stage::Blocked, with_failure(detail, recorded));
            return;
        }
        let steps = plan.steps.join("; ");
        if let Err(why) = desk.ledger.decision(&decision, &plan, Stage::Planned, &steps) {
            self.show(decision, Stage::Blocked, format!("no action, for the intent is not on disk: {why}"));
            return;
        }
        if self.watched.orchestrator.name() == dry_run::NAME {
            self.stop(decision, format!("dry run, nothing was done: {steps}"), &mut desk.ledger);
            return;
        }
        if let Some(why) = desk.paused() {
            self.guard.not_carried_out(&decision, "pause");
            self.stop(decision, format!("pause: {why}"), &mut desk.ledger);
            return;
        }
        if let Some(target) = decision.canary.iter().find(|t| (desk.incarnation_now)(t) != Some(t.incarnation)) {
            let detail = format!("incarnation: {} was replaced or removed just now", target.cgroup);
            self.stop(decision, detail, &mut desk.ledger);
            return;
        }
        let calls = format!("{} is called", plan.orchestrator);
        if let Err(why) = desk.ledger.stage(&decision.id, Stage::Applying, &calls, self.unix_ms) {
            self.show(decision, Stage::Blocked, format!("no action, for the call is not on disk: {why}"));
            return;
        }
        self.caller.apply(&decision, self.watched.config.grace + CALL_MARGIN);
        self.show(decision.clone(), Stage::Applying, calls);
        self.in_hand = Some(InHand { decision, step: Step::Applying });
    }

    /// A planned decision that is not carried out after all.
    fn stop(&mut self, decision: Decision, detail: String, ledger: &mut Ledger) {
        let recorded = ledger.stage(&decision.id, Stage::Blocked, &detail, self.unix_ms);
        self.show(decision, Stage::Blocked, with_failure(detail, recorded));
    }

    /// What this tick's counts say about the action in hand.
    fn progress(&mut self, tick: &Tick, ledger: &mut Ledger) {
        let Some(mut action) = self.in_hand.take() else { return };
        let end = match &mut action.step {
            Step::Applying => None,
            Step::Verifying { verification, quiet, asking, said } => match verification.observe(tick) {
                Progress::Quiet(words) => {
                    let overdue = verification.is_overdue(tick.t_ns) && !*asking && !said.is_empty();
                    let failed = format!("the counts are quiet ({words}), but {said}");
                    *quiet = Some(words);
                    if !overdue && !std::mem::replace(asking, true) {
                        self.caller.ask(&action.decision);
                    }
                    overdue.then_some((Stage::Failed, failed, Vec::new()))
                }
                Progress::CameBack(words, targets) => Some((Stage::Reverted, words, targets)),
                Progress::Overdue(words) => Some((Stage::Failed, words, Vec::new())),
                Progress::Watching => None,
            },
            Step::Watching { verification, until_t_ns } => match verification.observe(tick) {
                Progress::CameBack(words, targets) => Some((Stage::Reverted, words, targets)),
                _ if tick.t_ns >= *until_t_ns => return,
                _ => None,
            },
        };
        match end {
            None => self.in_hand = Some(action),
            Some((stage, detail, came_back)) => {
                if !came_back.is_empty() {
                    // Whoever brought it back wants it: never fight over it.
                    self.guard.mark_acted(&came_back);
                    let _ = ledger.mark_acted(&action.decision, &came_back);
                }
                self.step(&action.decision, stage, detail, ledger);
            }
        }
    }

    /// An orchestrator's answer.
    pub fn answered(&mut self, answer: Answer, ledger: &mut Ledger) {
        let Some(mut action) = self.in_hand.take_if(|a| a.decision.id == answer.decision_id) else { return };
        let name = self.caller.orchestrator.name();
        match (answer.what, &mut action.step) {
            (What::Applied(Ok(())), Step::Applying) => {
                let detail = format!("{name} says that it is done; the canary's counts are watched");
                self.step(&action.decision, Stage::Applied, detail, ledger);
                self.verify(action.decision);
            }
            (What::Applied(Err(why)), Step::Applying) => {
                self.step(&action.decision, Stage::Failed, format!("{name}: {why}; not tried again"), ledger);
            }
            (What::State(found), Step::Verifying { quiet, asking, said, .. }) => {
                *asking = false;
                *said = calls::in_words(name, &found);
                if let (Ok(State::InEffect), Some(words)) = (found, quiet) {
                    let detail = format!("{words}; {said}");
                    self.step(&action.decision, Stage::Verified, detail, ledger);
                    let Step::Verifying { verification, .. } = action.step else { return };
                    action.step = Step::Watching { verification, until_t_ns: self.t_ns + WATCH.as_nanos() as u64 };
                }
                self.in_hand = Some(action);
            }
            _ => self.in_hand = Some(action),
        }
    }

    fn verify(&mut self, decision: Decision) {
        let deadline_t_ns = self.t_ns + (self.watched.config.grace + SETTLE).as_nanos() as u64;
        let verification = Verification::new(&decision.canary, deadline_t_ns);
        let step = Step::Verifying { verification, quiet: None, asking: false, said: String::new() };
        self.in_hand = Some(InHand { decision, step });
    }

    /// Takes up an action that an earlier run left unfinished, by what the orchestrator finds. Never sends it again.
    pub async fn reconcile(&mut self, decision: Decision, was: Stage, ledger: &mut Ledger) {
        let found = calls::state(&self.caller.orchestrator, &decision).await;
        let said = calls::in_words(self.caller.orchestrator.name(), &found);
        let (stage, detail) = match (was, &found) {
            (Stage::Planned, _) => {
                (Stage::Failed, format!("the guard stopped before it called, nothing was done; {said}"))
            }
            (_, Ok(State::InEffect | State::InProgress)) => {
                (Stage::Applied, format!("found unfinished after a restart, {said}; the canary's counts are watched"))
            }
            (_, Ok(State::NotInEffect) | Err(_)) => {
                (Stage::Failed, format!("found unfinished after a restart, {said}; not sent again"))
            }
        };
        tracing::warn!(decision = %decision.id, "{detail}");
        if was != Stage::Planned {
            self.guard.mark_acted(&decision.canary);
        }
        self.step(&decision, stage, detail, ledger);
        if stage == Stage::Applied {
            self.verify(decision);
        }
    }

    /// A change of stage, on disk and for the watchers. What happened has happened, recorded or not.
    fn step(&mut self, decision: &Decision, stage: Stage, detail: String, ledger: &mut Ledger) {
        let recorded = ledger.stage(&decision.id, stage, &detail, self.unix_ms);
        self.show(decision.clone(), stage, with_failure(detail, recorded));
    }

    fn show(&mut self, decision: Decision, stage: Stage, detail: String) {
        tracing::info!(decision = %decision.id, action = %decision.action, stage = stage.name(), "{detail}");
        self.view = Some(DecisionView { decision, stage, detail, t_ns: self.t_ns });
    }

    /// What watchers see of this deployment; `None` before its first window.
    pub fn view(&self, tick: &Tick) -> Option<DeploymentView> {
        let (window, judgement) = self.current.as_ref()?;
        let mine = |t: &Target| t.deployment == self.watched.config.name;
        Some(DeploymentView {
            mode: self.watched.config.mode,
            window: window.clone(),
            verdict: judgement.verdict.clone(),
            samples: tick.samples.iter().filter(|s| mine(&s.target)).cloned().collect(),
            decision: self.view.clone(),
        })
    }
}

fn with_failure(detail: String, recorded: Result<(), String>) -> String {
    match recorded {
        Ok(()) => detail,
        Err(why) => format!("{detail} (not recorded: {why})"),
    }
}
