//! The ordered gates between a verdict and an action. Each is a pure function with a name, an answer and a reason.

use std::time::Duration;

use super::{
    Action, Approval, Facts, GateResult, Mode,
    facts::{RECENT_WINDOWS, Signal, condemning},
};
use crate::{
    judge::{HardFact, Outcome, SignKind, Verdict},
    orchestrator::TakesAway,
};

/// Windows in a row that have to condemn, where no hard fact does.
pub const CONFIRMING_WINDOWS: u64 = 2;
/// Time within which a second condemned deployment means that it is probably the environment, or us.
pub const BREAKER: Duration = Duration::from_secs(600);

/// The gate of what the guard may do at all, by its mode or a policy.
pub const MODE: &str = "mode";
/// The gate that a person can open; a decision that only this one holds back is planned, and waits.
pub const APPROVAL: &str = "approval";
/// Gates that look at the plan: with another one they may let through what they block now.
pub const OF_THE_PLAN: [&str; 2] = ["blast_radius", "rollback_possible"];
/// The gate that asks whether this guard is the one that acts.
pub const LEADERSHIP: &str = "leadership";

/// What a gate says of a hold that looks after those who go on serving.
const TAKES_NOTHING: &str = "a hold takes nothing away: the canary serves on";

type Answer = Result<String, String>;

/// What the gates look at.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    pub verdict: &'a Verdict,
    /// Windows in a row that this canary has been condemned in.
    pub regressed_windows: u64,
    pub facts: &'a Facts,
    pub action: Action,
}

type Gate = for<'a> fn(Case<'a>) -> Answer;

/// In the order in which they are asked.
pub const GATES: [(&str, Gate); 14] = [
    (MODE, mode),
    ("pause", pause),
    ("data_quality", data_quality),
    ("canary_window", canary_window),
    ("verdict", verdict),
    ("stable_healthy", stable_healthy),
    ("owner", owner),
    ("incarnation", incarnation),
    ("blast_radius", blast_radius),
    ("capacity", capacity),
    ("rollback_possible", rollback_possible),
    ("budget", budget),
    (LEADERSHIP, leadership),
    (APPROVAL, approval),
];

/// Asks the gates in order, up to and including the first that blocks.
pub fn evaluate(case: Case) -> Vec<GateResult> {
    evaluate_without(&[], case)
}

/// The same, with these gates left out.
pub fn evaluate_without(left_out: &[&str], case: Case) -> Vec<GateResult> {
    let mut results = Vec::with_capacity(GATES.len());
    for (name, gate) in GATES.into_iter().filter(|(name, _)| !left_out.contains(name)) {
        let (passed, reason) = match gate(case) {
            Ok(reason) => (true, reason),
            Err(reason) => (false, reason),
        };
        results.push(GateResult { gate: name.into(), passed, reason });
        if !passed {
            break;
        }
    }
    results
}

/// Asks all gates; gives those that block.
pub fn blocking(case: Case) -> Vec<GateResult> {
    let blocks = |(name, gate): (&str, Gate)| {
        let reason = gate(case).err()?;
        Some(GateResult { gate: name.into(), passed: false, reason })
    };
    GATES.into_iter().filter_map(blocks).collect()
}

/// What a mode does to a regressed canary. Observe and advise say what a rollback would be.
pub fn action_of(mode: Mode) -> Action {
    match mode {
        Mode::Observe | Mode::Advise | Mode::Rollback => Action::Rollback,
        Mode::Quarantine => Action::Quarantine,
        Mode::Drain => Action::Drain,
    }
}

fn mode(case: Case) -> Answer {
    let (mode, action) = (case.facts.mode, case.action);
    if let Some(by) = &case.facts.asked_by {
        return Ok(format!("{by} asks to {}: the mode {mode} limits what the guard does by itself", action.verb()));
    }
    let whose = case.facts.policy.map_or("mode".to_owned(), |signal| format!("policy for {signal}"));
    match mode {
        Mode::Observe => Err(format!("{whose} is observe: says that it would {} and does nothing", action.verb())),
        Mode::Advise => Err(format!("{whose} is advise: advises to {} and does nothing", action.verb())),
        Mode::Quarantine | Mode::Drain | Mode::Rollback => Ok(format!("{whose} is {mode}: may {}", action.verb())),
    }
}

fn pause(case: Case) -> Answer {
    match &case.facts.paused {
        Some(why) => Err(format!("paused: {why}")),
        None => Ok("not paused".into()),
    }
}

/// What a person decides instead of a gate; the gates that protect stable are asked all the same.
fn left_to(by: &str) -> Answer {
    Ok(format!("left to {by}, who asks for it"))
}

fn data_quality(case: Case) -> Answer {
    let f = case.facts;
    if let Some(by) = &f.asked_by {
        return left_to(by);
    }
    if !f.unmeasured.is_empty() {
        return Err(format!("not measured: {}", f.unmeasured.join(", ")));
    }
    if f.lost_events > 0 {
        return Err(format!("{} lost in the last {RECENT_WINDOWS} windows", counted(f.lost_events, "event")));
    }
    if f.targets_without_slot > 0 {
        return Err(format!(
            "{} not counted in the last {RECENT_WINDOWS} windows: no slot left for them",
            counted(f.targets_without_slot, "target")
        ));
    }
    Ok(format!("no event lost in the last {RECENT_WINDOWS} windows, everything measured that condemned"))
}

fn canary_window(case: Case) -> Answer {
    let f = case.facts;
    if f.canary.is_empty() {
        return Err("there is no canary any more".into());
    }
    // One that dies again and again is empty between a death and its next start, and still to be taken away.
    if !f.canary_populated && !dies_again(case.verdict) {
        let what = if case.action == Action::Hold { "hold" } else { "take away" };
        return Err(format!("no process lives in the canary any more: there is nothing to {what}"));
    }
    // Whole seconds: nanoseconds are noise to a reader.
    let age = Duration::from_secs(f.canary_age.as_secs());
    let age = humantime::format_duration(age);
    match f.max_age {
        Some(max) if f.canary_age > max && f.asked_by.is_none() => Err(format!(
            "the canary has run for {age}, longer than max_age {}: it is no canary any more",
            humantime::format_duration(max)
        )),
        Some(max) => Ok(format!("the canary has run for {age} of at most {}", humantime::format_duration(max))),
        None => Ok(format!("the canary is there, seen for {age}; no max_age is set")),
    }
}

/// Whether the canary ends again and again, so that most of the time none may be there.
pub fn dies_again(verdict: &Verdict) -> bool {
    matches!(verdict.hard, Some(HardFact::CrashLoop | HardFact::OomKill))
}

fn verdict(case: Case) -> Answer {
    if let Some(by) = &case.facts.asked_by {
        return left_to(by);
    }
    if case.verdict.outcome != Outcome::Regressed {
        return Err(format!("the verdict is {}", case.verdict.outcome.name()));
    }
    match case.verdict.hard {
        Some(HardFact::OomKill) => Ok("a hard fact: an OOM kill".into()),
        Some(HardFact::CrashLoop) => Ok("a hard fact: a crash loop".into()),
        Some(HardFact::Silent) => Ok("a hard fact: the canary is silent while stable is not".into()),
        None if case.regressed_windows >= CONFIRMING_WINDOWS => {
            Ok(format!("regressed in {} windows in a row", case.regressed_windows))
        }
        None => Err(format!(
            "regressed in {} of {CONFIRMING_WINDOWS} windows in a row: not confirmed yet",
            case.regressed_windows
        )),
    }
}

fn stable_healthy(case: Case) -> Answer {
    let f = case.facts;
    if let Some(by) = &f.asked_by {
        return left_to(by);
    }
    if let Some(n) = f.stable_oom_kills.filter(|n| *n > 0) {
        return Err(format!("stable has {} of its own: it is the environment", counted(n, "OOM kill")));
    }
    if let Some(n) = f.stable_crashes.filter(|n| *n > 0) {
        return Err(format!("stable has {} of its own: it is the environment", counted(n, "crash")));
    }
    // The judge has condemned it all the same, for another signal or by a fact: what leads must not be shared by stable.
    let leading = condemning(case.verdict).into_iter().next();
    let worse = case.verdict.environment.signs.iter().filter(|sign| sign.kind == SignKind::StableWorse);
    for sign in worse {
        if sign.explains.iter().any(|i| leading == Some(Signal::Indicator(*i))) {
            return Err(format!("{}: it is the environment", sign.text));
        }
    }
    let no_worse = "stable is not worse itself in what condemned the canary";
    Ok(match (f.stable_oom_kills, f.stable_crashes) {
        (Some(_), Some(_)) => format!("{no_worse}, no OOM kill and no crash of stable"),
        (Some(_), None) => format!("{no_worse}, no OOM kill of stable, crashes not measured"),
        (None, Some(_)) => format!("{no_worse}, no crash of stable, OOM kills not measured"),
        (None, None) => format!("{no_worse}, OOM kills and crashes of stable not measured"),
    })
}

fn owner(case: Case) -> Answer {
    match &case.facts.described {
        None => Ok("the orchestrator is asked next".into()),
        Some(Ok(plan)) => Ok(format!("{} has hold of the canary", plan.orchestrator)),
        Some(Err(why)) => Err(why.clone()),
    }
}

fn blast_radius(case: Case) -> Answer {
    if case.action == Action::Hold {
        return Ok(TAKES_NOTHING.into());
    }
    let f = case.facts;
    let (away, all) = (f.canary.len(), f.canary.len() + f.stable.len());
    let ours = TakesAway { instances: away as u64, of: all as u64 };
    // What is seen from here may be a small part of what the orchestrator would take away.
    let of_plan = f.described.as_ref().and_then(|described| described.as_ref().ok()?.takes_away);
    let (takes, scope) = match of_plan.filter(|plan| plan.share() > ours.share()) {
        Some(plan) => (plan, ", on all nodes"),
        None => (ours, ""),
    };
    let share = takes.share();
    let said = format!("{} of {} instances would be taken away{scope}", takes.instances, takes.of);
    match &f.asked_by {
        Some(by) if share > f.blast_radius => Ok(format!("{said}: left to {by}, who asks for it")),
        None if share > f.blast_radius => Err(format!("{said}, blast_radius is {}", f.blast_radius)),
        _ => Ok(said),
    }
}

fn rollback_possible(case: Case) -> Answer {
    let Some(Ok(plan)) = &case.facts.described else { return Ok("the orchestrator is asked next".into()) };
    let name = &plan.orchestrator;
    let Some(inverse) = &plan.inverse else { return Err(format!("{name} knows no way back from it")) };
    if case.action == Action::Quarantine && name != crate::orchestrator::dry_run::NAME {
        if plan.undo.is_none() {
            return Err(format!("{name} cannot take a quarantine back by itself"));
        }
        if plan.ends_after_ms.is_none() {
            return Err(format!("{name} plans a quarantine without an end"));
        }
    }
    Ok(format!("the way back: {inverse}"))
}

fn leadership(case: Case) -> Answer {
    case.facts.leader.clone()
}

fn incarnation(case: Case) -> Answer {
    if let (Some(by), Some((newest, _))) = (&case.facts.asked_by, &case.facts.newest_canary) {
        return Ok(format!("{by} asks about the instances that run now, {newest} among them"));
    }
    // A hard fact is about the targets of its own window; statistics go back to where the change began.
    let v = case.verdict;
    let since = match (v.hard, v.onset) {
        (None, Some(onset)) => onset.min(v.window),
        (None, None) => (v.window + 1).saturating_sub(case.regressed_windows),
        (Some(_), _) => v.window,
    };
    match &case.facts.newest_canary {
        None => Err("there is no canary any more".into()),
        Some((cgroup, first)) if *first > since => Err(format!(
            "{cgroup} came in window {first}, after the evidence began in window {since}: it is on another instance"
        )),
        Some(_) => Ok(format!("the same canary instances since window {since}")),
    }
}

fn capacity(case: Case) -> Answer {
    if case.action == Action::Hold {
        return Ok(TAKES_NOTHING.into());
    }
    let f = case.facts;
    if f.stable_reporting < f.minimum_healthy {
        return Err(format!(
            "{} stable instances populated and reporting, {} needed to carry the load",
            f.stable_reporting, f.minimum_healthy
        ));
    }
    let enough = format!("{} stable instances populated and reporting", f.stable_reporting);
    match (f.stable_had_turnarounds, f.stable_turnarounds) {
        (false, _) => Ok(enough),
        (true, Some(0)) => Err(format!(
            "stable had turnarounds before and none in the last {RECENT_WINDOWS} windows: it serves nothing"
        )),
        (true, Some(n)) => Ok(format!("{enough}, {n} turnarounds in the last {RECENT_WINDOWS} windows")),
        (true, None) => Err("stable had turnarounds before and they are not measured any more".into()),
    }
}

fn budget(case: Case) -> Answer {
    let f = case.facts;
    if let Some(why) = &f.journal_failure {
        return Err(format!("the journal cannot be relied on, no action until the guard is started again: {why}"));
    }
    if let Some(id) = f.acted_on.as_ref().filter(|_| case.action.is_done_once()) {
        return Err(format!("an action was already begun against this canary ({id}): one per rollout"));
    }
    if let Some(by) = &f.asked_by {
        return left_to(by);
    }
    if !f.condemned_elsewhere.is_empty() {
        return Err(format!(
            "{} condemned within {} as well: probably the environment or the guard itself",
            f.condemned_elsewhere.join(", "),
            humantime::format_duration(BREAKER)
        ));
    }
    if f.actions_last_hour >= f.per_hour {
        return Err(format!("{} actions in the last hour, {} allowed", f.actions_last_hour, f.per_hour));
    }
    if let Some(since) = f.since_last_action.filter(|s| *s < f.cooldown) {
        return Err(format!(
            "the last action was {} ago, the cooldown is {}",
            humantime::format_duration(Duration::from_secs(since.as_secs())),
            humantime::format_duration(f.cooldown)
        ));
    }
    Ok(format!("{} of {} actions used in the last hour, none against this canary", f.actions_last_hour, f.per_hour))
}

/// "1 crash", "2 crashes", "2 OOM kills".
fn counted(n: u64, what: &str) -> String {
    let ending = if what.ends_with("sh") { "es" } else { "s" };
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}{ending}") }
}

fn approval(case: Case) -> Answer {
    match (&case.facts.asked_by, &case.facts.approval) {
        (Some(by), _) | (None, Approval::Given(by)) => Ok(format!("by {by}")),
        (None, Approval::NotRequired) => Ok("not required".into()),
        (None, Approval::Required(within)) => {
            Err(format!("a person has to approve it within {}", humantime::format_duration(*within)))
        }
    }
}
