//! The ordered gates between a verdict and an action. Each is a pure function with a name, an answer and a reason.

use std::time::Duration;

use super::{Action, Facts, GateResult, Mode, facts::RECENT_WINDOWS};
use crate::judge::{HardFact, Outcome, Verdict};

/// Windows in a row that have to condemn, where no hard fact does.
pub const CONFIRMING_WINDOWS: u64 = 2;
/// A stable side that moved this far from its own history (standard deviations) has been hit by something itself.
pub const STABLE_SHIFT_SD: f64 = 4.0;
/// Time within which a second condemned deployment means that it is probably the environment, or us.
pub const BREAKER: Duration = Duration::from_secs(600);

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
pub const GATES: [(&str, Gate); 10] = [
    ("mode", mode),
    ("pause", pause),
    ("data_quality", data_quality),
    ("canary_window", canary_window),
    ("verdict", verdict),
    ("stable_healthy", stable_healthy),
    ("incarnation", incarnation),
    ("capacity", capacity),
    ("budget", budget),
    ("approval", approval),
];

/// Asks the gates in order, up to and including the first that blocks.
pub fn evaluate(case: Case) -> Vec<GateResult> {
    let mut results = Vec::with_capacity(GATES.len());
    for (name, gate) in GATES {
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
    match mode {
        Mode::Observe => Err(format!("mode is observe: says that it would {} and does nothing", verb(action))),
        Mode::Advise => Err(format!("mode is advise: advises to {} and does nothing", verb(action))),
        Mode::Quarantine | Mode::Drain | Mode::Rollback => Ok(format!("mode is {mode}: may {}", verb(action))),
    }
}

fn verb(action: Action) -> &'static str {
    match action {
        Action::Rollback => "roll back",
        other => other.name(),
    }
}

fn pause(case: Case) -> Answer {
    match &case.facts.paused {
        Some(why) => Err(format!("paused: {why}")),
        None => Ok("not paused".into()),
    }
}

fn data_quality(case: Case) -> Answer {
    let f = case.facts;
    if !f.unmeasured.is_empty() {
        return Err(format!("not measured: {}", f.unmeasured.join(", ")));
    }
    if f.lost_events > 0 {
        return Err(format!("{} events lost in the last {RECENT_WINDOWS} windows", f.lost_events));
    }
    if f.targets_without_slot > 0 {
        return Err(format!(
            "{} targets not counted in the last {RECENT_WINDOWS} windows: no slot left for them",
            f.targets_without_slot
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
    let dies_again = matches!(case.verdict.hard, Some(HardFact::CrashLoop | HardFact::OomKill));
    if !f.canary_populated && !dies_again {
        return Err("no process lives in the canary any more: there is nothing to take away".into());
    }
    // Whole seconds: nanoseconds are noise to a reader.
    let age = Duration::from_secs(f.canary_age.as_secs());
    let age = humantime::format_duration(age);
    match f.max_age {
        Some(max) if f.canary_age > max => Err(format!(
            "the canary has run for {age}, longer than max_age {}: it is no canary any more",
            humantime::format_duration(max)
        )),
        Some(max) => Ok(format!("the canary has run for {age} of at most {}", humantime::format_duration(max))),
        None => Ok(format!("the canary is there, seen for {age}; no max_age is set")),
    }
}

fn verdict(case: Case) -> Answer {
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
    if let Some(n) = f.stable_oom_kills.filter(|n| *n > 0) {
        return Err(format!("stable has {n} OOM kills of its own: it is the environment"));
    }
    if let Some(n) = f.stable_crashes.filter(|n| *n > 0) {
        return Err(format!("stable has {n} crashes of its own: it is the environment"));
    }
    let mut said = Vec::new();
    for (place, (indicator, shift)) in f.stable_shift.iter().enumerate() {
        match shift {
            // NaN compares as false and must not pass.
            Some(sd) if sd.abs() < STABLE_SHIFT_SD => {
                said.push(format!("stable's {} is {sd:+.1} sd from its own history", indicator.title()));
            }
            Some(sd) => {
                return Err(format!(
                    "stable's {} shifted too, {sd:+.1} sd from its own history: it is the environment",
                    indicator.title()
                ));
            }
            None if place == 0 => {
                return Err(format!("it is not known whether stable's {} shifted too", indicator.title()));
            }
            None => said.push(format!("stable's own shift in {} is not known", indicator.title())),
        }
    }
    said.push(match (f.stable_oom_kills, f.stable_crashes) {
        (Some(_), Some(_)) => "no OOM kill and no crash of stable".into(),
        (Some(_), None) => "no OOM kill of stable, crashes not measured".into(),
        (None, Some(_)) => "no crash of stable, OOM kills not measured".into(),
        (None, None) => "OOM kills and crashes of stable not measured".into(),
    });
    Ok(said.join(", "))
}

fn incarnation(case: Case) -> Answer {
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
    if let Some(id) = &f.acted_on {
        return Err(format!("an action was already begun against this canary ({id}): one per rollout"));
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

fn approval(_: Case) -> Answer {
    Ok("not required".into())
}
