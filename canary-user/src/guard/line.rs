//! One deployment: its window, its judge, its rules and the action in hand. No await: calls are made off the line.

mod approval;
mod brought_back;
mod held;
mod kept;
mod life;
mod limited;
mod looks;
mod past;
mod returning;
mod temporary;
mod wanted;

use std::{sync::Arc, time::Duration};

use self::{
    approval::Yes,
    brought_back::BroughtBack,
    held::Held,
    kept::Kept,
    life::{InHand, Step},
    limited::{Limited, Marks},
    returning::Returning,
    temporary::Temporary,
};
use super::{
    Action, Advice, Approval, Decision, Facts, Guard, Moment, Stage,
    calls::{self, Answer, Caller, What},
    desk::Desk,
    facts::{self, Memory},
    gates::{self, Case},
    ledger::Ledger,
    recovery::{Before, Levels, Look, Recovery},
    rules::is_same_canary,
    run::Watched,
    verify::{Progress, Verification},
};
use crate::{
    config::ApprovalMode,
    control::status::{DecisionStatus, DeploymentStatus},
    journal::{HistoryEntry, StageEntry},
    judge::{Outcome, Verdict},
    orchestrator::{Plan, State, dry_run},
    targets::{Role, Target},
    telemetry::Tick,
    watch::{DecisionView, DeploymentView},
    window::Window,
};

/// How long after a refusal the orchestrator is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// Windows between two writes of what was learned about the service, and of how far a comparison has come.
const LEARN_WINDOWS: u64 = 300;
const HOUR: Duration = Duration::from_secs(3600);

/// A decision for which the orchestrator is being asked what it would do.
#[derive(Debug)]
struct Proposal {
    decision: Decision,
    /// The person who wants it; `None` = the guard itself.
    asked_by: Option<String>,
    /// It was planned before, and a person said yes to it.
    approved: Option<Yes>,
}

/// An orchestrator that would not act, as one would not while somebody else is acting. It may change its mind.
#[derive(Debug)]
struct Refusal {
    canary: Vec<Target>,
    why: String,
    asked_again_t_ns: u64,
}

impl Refusal {
    fn until_asked_again(canary: &[Target], why: &str, now: Moment) -> Self {
        Self { canary: canary.to_vec(), why: why.to_owned(), asked_again_t_ns: now.after(ASK_AGAIN).t_ns }
    }
}

/// One deployment with all that is remembered of it.
pub(super) struct Line {
    watched: Watched,
    caller: Caller,
    guard: Guard,
    memory: Memory,
    levels: Levels,
    current: Option<(Window, Verdict)>,
    outcome: Option<Outcome>,
    is_condemned: bool,
    condemned_t_ns: Option<u64>,
    in_hand: Option<InHand>,
    /// The hold that stands beside it.
    held: Option<Held>,
    being_described: Option<Proposal>,
    temporary: Vec<Temporary>,
    brought_back: Vec<BroughtBack>,
    limited: Vec<Limited>,
    marks: Marks,
    returning: Vec<Returning>,
    kept: Kept,
    refused: Option<Refusal>,
    view: Option<DecisionView>,
    /// Of the latest hold, which stands beside that.
    hold_view: Option<DecisionView>,
    advice: Advice,
    /// Other deployments that were condemned at about the same time.
    elsewhere: Vec<Arc<str>>,
    now: Moment,
}

impl Line {
    pub fn new(watched: Watched, caller: Caller) -> Self {
        let guard = Guard::new(watched.config.name.clone());
        Self {
            watched,
            caller,
            guard,
            memory: Memory::default(),
            levels: Levels::default(),
            current: None,
            outcome: None,
            is_condemned: false,
            condemned_t_ns: None,
            in_hand: None,
            held: None,
            being_described: None,
            temporary: Vec::new(),
            brought_back: Vec::new(),
            limited: Vec::new(),
            marks: Marks::default(),
            returning: Vec::new(),
            kept: Kept::default(),
            refused: None,
            view: None,
            hold_view: None,
            advice: Advice::default(),
            elsewhere: Vec::new(),
            now: Moment::default(),
        }
    }

    pub fn name(&self) -> &Arc<str> {
        &self.watched.config.name
    }

    pub fn verdict(&self) -> Option<&Verdict> {
        self.current.as_ref().map(|(_, verdict)| verdict)
    }

    /// When this deployment came to stand condemned the last time.
    pub fn condemned_t_ns(&self) -> Option<u64> {
        self.condemned_t_ns
    }

    /// Takes the time of a tick before anything is recorded with it.
    pub fn clock(&mut self, tick: &Tick) {
        self.now = Moment { unix_ms: tick.unix_ms, t_ns: tick.t_ns };
    }

    /// Tick to window to verdict.
    pub fn judge(&mut self, tick: &Tick, ledger: &mut Ledger) {
        let window = (self.watched.window)(tick);
        self.take_up_control(tick, window.index, ledger);
        let found = self.watched.judge.observe(&window);
        let canary = facts::targets(tick, &self.watched.config.name, Role::Canary);
        let verdict = self.under_limits(found, &canary);
        self.memory.observe(tick, &window);
        self.levels.observe(&verdict);
        let stood = self.is_condemned;
        for (before, now) in self.guard.observe(&verdict, &canary) {
            // The ledger has told the failure, which blocks every action.
            let _ = ledger.came_back(&before, &now);
            self.follow_limited(&before, &now);
        }
        self.is_condemned = self.guard.is_condemned(&verdict);
        // What stands since an earlier life does not come to stand now.
        if self.is_condemned && !stood && !self.is_limited() {
            self.condemned_t_ns = Some(tick.t_ns);
        }
        if self.outcome != Some(verdict.outcome) {
            // What was before the first one after a start is not known.
            if let Some(before) = self.outcome.replace(verdict.outcome) {
                let why = verdict.reasons.first().map_or("", String::as_str);
                self.caller.note_verdict(&canary, before, verdict.outcome, why);
            }
            // The ledger has said so and remembers: a failure blocks every action from here on.
            let _ = ledger.verdict(&self.watched.config.name, tick.unix_ms, &verdict);
        }
        let is_due = window.index % LEARN_WINDOWS == LEARN_WINDOWS - 1;
        if is_due && let Some(learned) = self.watched.judge.learned() {
            let _ = ledger.learned(&self.watched.config.name, tick.unix_ms, &learned);
        }
        self.current = Some((window, verdict));
        self.keep_for_later(is_due, ledger);
    }

    /// Verdict to decision to action; first the action in hand. `elsewhere`: other deployments condemned at about
    /// the same time.
    pub fn act(&mut self, tick: &Tick, desk: &mut Desk, elsewhere: Vec<Arc<str>>) {
        self.elsewhere = elsewhere;
        self.progress(tick, &mut desk.ledger);
        self.progress_hold(tick.t_ns, &mut desk.ledger);
        self.let_newcomers_in(tick, &mut desk.ledger);
        self.end_temporary();
        let Some((_, verdict)) = &self.current else { return };
        self.advice = Advice {
            gates: Vec::new(),
            canary_served: self.memory.canary_served(),
            stable_instances: facts::targets(tick, &self.watched.config.name, Role::Stable).len(),
        };
        if !self.is_condemned {
            return;
        }
        let mut facts = self.facts(tick, verdict, desk);
        self.advice.gates = self.guard.advise(verdict, &facts);
        if self.in_the_way_of_action().is_some() {
            // Who waits for a person means to act, and keeps the lead until then.
            if let Some(action) = self.in_hand.as_ref().filter(|a| matches!(a.step, Step::Awaiting { .. })) {
                self.ask_for_lead(verdict, &mut facts, action.decision.action);
            }
            return;
        }
        let refused = self.refused.as_ref().filter(|r| is_same_canary(verdict, &r.canary, &facts.canary));
        if refused.is_some_and(|r| tick.t_ns < r.asked_again_t_ns) {
            return;
        }
        let wanted = gates::action_of(facts.mode);
        self.ask_for_lead(verdict, &mut facts, wanted);
        if let Some(decision) = self.guard.decide(verdict, &facts, tick.unix_ms) {
            self.caller.describe(&decision);
            self.being_described = Some(Proposal { decision, asked_by: None, approved: None });
        }
    }

    /// Asks for the lead where no gate before that one keeps the guard from acting: who will not act takes it from nobody.
    fn ask_for_lead(&self, verdict: &Verdict, facts: &mut Facts, action: Action) {
        let regressed_windows = self.guard.regressed_windows();
        let case = Case { verdict, regressed_windows, facts, action };
        if gates::evaluate_without(&[gates::LEADERSHIP, gates::APPROVAL], case).iter().all(|gate| gate.passed) {
            facts.leader = self.caller.orchestrator.leader();
        }
    }

    fn facts(&self, tick: &Tick, verdict: &Verdict, desk: &mut Desk) -> Facts {
        let config = &self.watched.config;
        let mut facts = self.memory.facts(tick, &config.name, verdict);
        let limited = config.policy.limits(config.mode, verdict);
        (facts.mode, facts.policy) = limited.map_or((config.mode, None), |(signal, mode)| (mode, Some(signal)));
        facts.paused = desk.paused_for(&config.name);
        facts.max_age = config.max_age;
        facts.minimum_healthy = config.minimum_healthy;
        facts.blast_radius = config.blast_radius;
        facts.leader = self.caller.orchestrator.standing();
        facts.approval = match config.approval {
            ApprovalMode::None => Approval::NotRequired,
            ApprovalMode::Required => Approval::Required(config.approval_timeout),
        };
        facts.per_hour = config.budget.per_hour;
        facts.cooldown = config.budget.cooldown;
        facts.condemned_elsewhere = self.elsewhere.clone();
        let span = HOUR.max(config.budget.cooldown);
        if let Some((acted_on, ages)) = desk.ledger.done(&config.name, &facts.canary, self.now, span) {
            facts.acted_on = acted_on;
            facts.actions_last_hour = ages.iter().filter(|age| **age <= HOUR).count();
            facts.since_last_action = ages.into_iter().min();
        }
        facts.journal_failure = desk.ledger.failure().cloned();
        facts
    }

    /// What the orchestrator would do is known, or that it will do nothing: all gates are asked again with that.
    fn described(&mut self, proposal: Proposal, described: Result<Plan, String>, tick: Option<&Tick>, desk: &mut Desk) {
        let Proposal { mut decision, asked_by, approved } = proposal;
        if let Some(yes) = approved {
            return self.planned_anew(decision, yes, described, tick, desk);
        }
        let name = self.caller.orchestrator.name();
        let plan = described.clone().unwrap_or_else(|why| Plan::nothing(name, why));
        if is_held_back(&decision) {
            return self.carry_out(decision, plan, desk);
        }
        let (Some(tick), Some((_, verdict))) = (tick, &self.current) else { return };
        let refusal = described.as_ref().err().cloned();
        let mut facts = self.facts(tick, verdict, desk);
        (facts.described, facts.asked_by) = (Some(described), asked_by);
        self.ask_for_lead(verdict, &mut facts, decision.action);
        let regressed_windows = self.guard.regressed_windows();
        let case = Case { verdict, regressed_windows, facts: &facts, action: decision.action };
        decision.gates = gates::evaluate(case);
        // What keeps a person's hold back says nothing of what the guard may do by itself, and is told each time.
        if decision.action == Action::Hold {
            return self.carry_out(decision, plan, desk);
        }
        let Some(gate) = decision.blocked_by().filter(|_| is_held_back(&decision)) else {
            return self.carry_out(decision, plan, desk);
        };
        // A plan that is not let through is as good as a refusal.
        let of_plan = gates::OF_THE_PLAN.contains(&&*gate.gate).then(|| gate.reason.clone());
        let gate = gate.gate.clone();
        self.guard.not_carried_out(&decision, &gate);
        if let Some(why) = refusal.or(of_plan) {
            let told = self.refused.replace(Refusal::until_asked_again(&decision.canary, &why, self.now));
            if told.is_some_and(|r| is_same_canary(verdict, &r.canary, &decision.canary) && r.why == why) {
                return;
            }
        }
        self.carry_out(decision, plan, desk);
    }

    /// How this deployment stands; `None` before its first window.
    pub fn status(&self, tick: &Tick, desk: &mut Desk) -> Option<DeploymentStatus> {
        let (_, verdict) = self.current.as_ref()?;
        let config = &self.watched.config;
        let facts = self.facts(tick, verdict, desk);
        let regressed_windows = self.guard.regressed_windows();
        let case = Case { verdict, regressed_windows, facts: &facts, action: gates::action_of(facts.mode) };
        let finite = |n: f64| Some(n).filter(|n| n.is_finite());
        let hold = self.hold_view.as_ref().filter(|hold| hold.is_of_interest(self.memory.canary()));
        let running = |role| facts::samples(tick, &config.name, role).filter(|s| s.populated != Some(false)).count();
        Some(DeploymentStatus {
            name: config.name.clone(),
            mode: config.mode,
            orchestrator: self.caller.orchestrator.name().into(),
            stable_instances: running(Role::Stable),
            canary_instances: running(Role::Canary),
            verdict: verdict.outcome,
            reasons: verdict.reasons.clone(),
            p_stable: verdict.p_stable.and_then(finite),
            p_canary: verdict.p_canary.and_then(finite),
            evidence_ln: finite(verdict.evidence_ln),
            threshold_ln: verdict.threshold_ln,
            paused: desk.pauses.of(Some(&config.name)).cloned(),
            blocked_by: gates::blocking(case),
            decision: self.view.as_ref().map(decision_status),
            hold: hold.map(decision_status),
        })
    }

    /// What watchers see of this deployment; `None` before its first window.
    pub fn view(&self, tick: &Tick, desk: &Desk) -> Option<DeploymentView> {
        let (window, verdict) = self.current.as_ref()?;
        let mine = |t: &Target| t.deployment == self.watched.config.name;
        Some(DeploymentView {
            mode: self.watched.config.mode,
            paused: desk.paused_alone(self.name()),
            leads: self.caller.orchestrator.standing().is_ok(),
            window: window.clone(),
            verdict: verdict.clone(),
            samples: tick.samples.iter().filter(|s| mine(&s.target)).cloned().collect(),
            decision: self.view.clone(),
            hold: self.hold_view.clone(),
            advice: self.advice.clone(),
        })
    }
}

fn decision_status(view: &DecisionView) -> DecisionStatus {
    let DecisionView { decision, stage, detail, .. } = view;
    DecisionStatus {
        id: decision.id.clone(),
        unix_ms: decision.unix_ms,
        action: decision.action,
        reason: decision.reason.clone(),
        stage: *stage,
        detail: detail.clone(),
    }
}

/// Whether a gate blocks other than the one that a person can open.
fn is_held_back(decision: &Decision) -> bool {
    decision.blocked_by().is_some_and(|gate| gate.gate != gates::APPROVAL)
}

fn with_failure(detail: String, recorded: Result<(), String>) -> String {
    match recorded {
        Ok(()) => detail,
        Err(why) => format!("{detail} (not recorded: {why})"),
    }
}
