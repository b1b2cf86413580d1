//! The five answers: is a canary running, is it worse, how sure are we, what was done, what is to be done next.

use maud::{Markup, html};

use super::{View, class};
use crate::{
    guard::{Action, Mode, Stage, gates},
    judge::{HardFact, Outcome, Verdict},
    targets::Role,
    watch::{
        api::{DecisionLife, DecisionState, Deployment, WindowPoint},
        units,
    },
};

/// How long a condemned canary has to be away until it counts as gone. One that keeps crashing is started again, by itself and
/// after ever longer pauses.
pub(super) const AWAY_MS: u64 = 5_000;
pub(super) const AWAY_IN_CRASH_LOOP_MS: u64 = 120_000;

/// All five, the most important one first and largest.
pub fn answers(view: &View) -> Markup {
    let verdict = &view.deployment.verdict;
    let worse = html! {
        p.answer aria-live="polite" { (headline(view)) }
        @for reason in verdict.reasons.iter().take(2) {
            // What condemned it is told as of that moment; what is counted goes on.
            p.more { @if verdict.outcome == Outcome::Regressed { "When it was condemned: " } (reason) }
        }
    };
    let next = next(view);
    html! {
        div.answers {
            section.wide.(if is_gone(view) { "unknown" } else { class(verdict.outcome) }) { p.question { "Is it worse?" } (worse) }
            section { p.question { "Is a canary running?" } p.answer { (running(view.deployment)) } p.more { (stable(view.deployment)) } }
            section { p.question { "How sure are we?" } (sure(verdict)) }
            section.did { p.question { "What did we do?" }
                @for (did, detail) in done(view) { p.answer { (did) } @if !detail.is_empty() { p.more { (detail) } } } }
            section.next { p.question { "What to do next?" } p.answer { (next.what) } @if !next.why.is_empty() { p.more { (next.why) } }
                @for command in &next.commands { pre { (command) } } }
        }
    }
}

/// Whether the canary that stands condemned is gone: the verdict stays, and there is nothing left to be taken back.
pub fn is_gone(view: &View) -> bool {
    has_gone(view.deployment, || {
        let seen = |w: &&WindowPoint| w.indicators.values().any(|i| i.canary.is_some());
        let last_seen = view.windows.iter().rev().find(seen).or(view.windows.first());
        last_seen.zip(view.windows.last()).map(|(seen, now)| now.unix_ms.saturating_sub(seen.unix_ms))
    })
}

/// The same for who keeps no windows. `away_ms`: since a window last had a reading of the canary; `None` where no window is known.
pub fn has_gone(deployment: &Deployment, away_ms: impl FnOnce() -> Option<u64>) -> bool {
    let verdict = &deployment.verdict;
    if verdict.outcome != Outcome::Regressed || !versions(deployment, Role::Canary).is_empty() {
        return false;
    }
    let taken = |stage| matches!(stage, Stage::Verified | Stage::Recovered | Stage::NotRecovered | Stage::Closed);
    if deployment.decision.as_ref().is_some_and(|state| state.decision.action.takes_away() && taken(state.stage)) {
        return true;
    }
    let least_ms = if verdict.hard == Some(HardFact::CrashLoop) { AWAY_IN_CRASH_LOOP_MS } else { AWAY_MS };
    away_ms().is_none_or(|away_ms| away_ms >= least_ms)
}

/// What is said of it then, in the verdict's place: there is nothing left to be alarmed about.
pub const GONE: &str = "It was worse, and is gone";

/// The verdict in one sentence.
pub fn headline(view: &View) -> String {
    let verdict = &view.deployment.verdict;
    let gone = is_gone(view);
    match (verdict.outcome, verdict.hard) {
        (Outcome::Regressed, Some(fact)) if gone => format!("{GONE}: {}", fact_of_the_past(fact)),
        (Outcome::Regressed, Some(fact)) => format!("Yes: {}", fact_in_words(fact)),
        (Outcome::Regressed, None) => {
            let mechanism = verdict.causes.first().map(|c| format!(": {}", c.mechanism)).unwrap_or_default();
            format!("{}{mechanism}", if gone { GONE } else { "Yes, it is worse" })
        }
        (Outcome::Healthy, _) => "No: it is as good as stable so far".to_owned(),
        (Outcome::Inconclusive, _) if verdict.evidence_share() >= 0.5 => {
            "Not proven, but the evidence grows".to_owned()
        }
        (Outcome::Inconclusive, _) if verdict.healthy_at_load.is_some() => {
            "Not at the little load that it has; at full load it is not known".to_owned()
        }
        (Outcome::Inconclusive, _) => "Not known yet".to_owned(),
        (Outcome::InsufficientData, _) => "Cannot be told: too little data".to_owned(),
    }
}

pub fn fact_in_words(fact: HardFact) -> &'static str {
    match fact {
        HardFact::OomKill => "it ran out of memory and was killed",
        HardFact::CrashLoop => "it keeps crashing",
        HardFact::Silent => "it went silent while stable did not",
    }
}

fn fact_of_the_past(fact: HardFact) -> &'static str {
    match fact {
        HardFact::CrashLoop => "it kept crashing",
        HardFact::OomKill | HardFact::Silent => fact_in_words(fact),
    }
}

fn versions(deployment: &Deployment, role: Role) -> Vec<String> {
    let of_role = deployment.versions.iter().filter(|v| v.role == role && v.instances > 0);
    of_role.map(|v| format!("{}, {}", v.version, counted(v.instances, "instance"))).collect()
}

fn running(deployment: &Deployment) -> String {
    match versions(deployment, Role::Canary).as_slice() {
        [] => "No".to_owned(),
        all => format!("Yes: {}", all.join("; ")),
    }
}

fn stable(deployment: &Deployment) -> String {
    match versions(deployment, Role::Stable).as_slice() {
        [] => "No stable instance runs either.".to_owned(),
        all => format!("Stable: {}. {}", all.join("; "), mode(deployment.mode)),
    }
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Observe => "The guard only watches (mode observe).",
        Mode::Advise => "The guard only advises (mode advise).",
        Mode::Quarantine => "The guard may restrict the canary (mode quarantine).",
        Mode::Drain => "The guard may stop the canary (mode drain).",
        Mode::Rollback => "The guard may roll back (mode rollback).",
    }
}

fn sure(verdict: &Verdict) -> Markup {
    let share = verdict.evidence_share();
    let share = if share.is_finite() { share } else { 0.0 };
    let (evidence, needed) = (units::evidence(verdict.evidence_ln), units::evidence(verdict.threshold_ln));
    let windows = format!("{} of the canary judged", counted(verdict.judged_windows as usize, "window"));
    if verdict.hard.is_some() {
        return html! {
            p.answer { "As sure as a fact is" }
            p.more { "A fact condemned it, whatever the evidence; that is " (evidence) " of " (needed) " by now. " (windows) "." }
        };
    }
    let condemned = verdict.outcome == Outcome::Regressed;
    html! {
        p.answer { @if condemned && share < 1.0 { "Condemned; " } (evidence) " of " (needed) @if condemned { " by now" } }
        div.meter.full[share >= 1.0] role="meter" aria-valuemin="0" aria-valuemax="1" aria-valuenow={ (format!("{share:.2}")) }
            aria-label={ "evidence that the canary is worse: " (evidence) " of " (needed) " needed" } {
            i style={ "width:" (format!("{:.1}%", share * 100.0)) } {}
        }
        p.more {
            "Evidence that it is worse; at " (needed) " it counts"
            @if condemned { ", and the verdict stands, whatever is seen since" }
            ". A good canary gets there at most once in " (needed) " rollouts. " (windows) "."
        }
    }
}

/// What was done about this canary, and about its rollout, each with its detail: the latest first, and the other only while it is
/// not over.
fn done(view: &View) -> Vec<(String, String)> {
    let (decision, hold) = (view.deployment.decision.as_ref(), view.deployment.held());
    let mut told: Vec<&DecisionState> = decision.into_iter().chain(hold).collect();
    told.sort_by_key(|state| std::cmp::Reverse(state.t_ns));
    let of_interest = told.iter().enumerate().filter(|(at, state)| *at == 0 || state.stage.is_open());
    let mut all: Vec<(String, String)> = of_interest.map(|(_, state)| what_was_done(view, state)).collect();
    if all.is_empty() {
        all.push(("Nothing".to_owned(), String::new()));
    }
    all
}

fn what_was_done(view: &View, state: &DecisionState) -> (String, String) {
    let at =
        units::clock(life(view, state).and_then(|l| l.stages.last()).map_or(state.decision.unix_ms, |s| s.unix_ms));
    let gate = state.decision.held_back_by(state.stage);
    let detail = gate.map_or_else(|| state.detail.clone(), |g| g.reason.clone());
    let action = state.decision.action;
    let said = match state.stage {
        Stage::Blocked => match gate {
            Some(gate) if gate.gate == "mode" => format!("Nothing: would {}", action.verb()),
            Some(gate) => format!("Nothing: gate {} holds it back", gate.gate.replace('_', " ")),
            None => "Nothing was carried out".to_owned(),
        },
        Stage::Planned if waits_for_approval(state) => format!("Nothing yet: {action} waits for approval"),
        Stage::Planned => format!("Planned: {action}"),
        Stage::Approved => format!("Approved: {action}"),
        Stage::Declined => format!("Nothing: nobody approved the {action}"),
        Stage::Applying => format!("Under way: {action}"),
        Stage::Applied => format!("Done, being verified: {action}"),
        Stage::Verified if action == Action::Hold => "The rollout is held".to_owned(),
        Stage::Verified => format!("Done and verified: {action}"),
        Stage::Recovered => format!("Done, and the service is back: {action}"),
        Stage::NotRecovered => format!("Done, and it did not help: {action}"),
        // It does not end by itself.
        Stage::Closed if action == Action::Hold => "Held; not watched any longer".to_owned(),
        Stage::Closed => format!("Done and over: {action}"),
        Stage::Reverted => format!("{action} was undone by someone else"),
        Stage::Failed if undo_failed(view, state) => format!("The undo failed: {action}"),
        Stage::Failed => format!("{action} failed"),
        Stage::Undoing => format!("Being undone: {action}"),
        Stage::Undone => format!("Undone: {action}"),
    };
    (capital(&said), format!("{at} UTC: {detail}"))
}

fn life<'a>(view: &View<'a>, state: &DecisionState) -> Option<&'a DecisionLife> {
    view.decisions.iter().find(|d| d.decision.id == state.decision.id).map(|d| &**d)
}

/// Whether it is the undo that failed, and not what was to be undone.
fn undo_failed(view: &View, state: &DecisionState) -> bool {
    let was_undone = |life: &DecisionLife| life.stages.iter().any(|s| s.stage == Stage::Undoing);
    state.stage == Stage::Failed && life(view, state).is_some_and(was_undone)
}

/// What a person should do now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Next {
    pub what: String,
    pub why: String,
    pub commands: Vec<String>,
}

/// The next step: from where the action on this canary stands, and the hold of its rollout, else from the verdict. What is under
/// way, or waits for a person, comes before a hold, and that before what is over.
pub fn next(view: &View) -> Next {
    let (decision, hold) = (view.deployment.decision.as_ref(), view.deployment.held());
    let acted_on = || decision.and_then(|state| after(view, state));
    let under_way = decision.filter(|state| state.stage.is_open()).and_then(|_| acted_on());
    let told = under_way.or_else(|| hold.and_then(|state| after_hold(view, state))).or_else(acted_on);
    told.unwrap_or_else(|| after_verdict(view))
}

fn say(what: &str, why: impl Into<String>, commands: &[String]) -> Next {
    Next { what: what.to_owned(), why: why.into(), commands: commands.to_vec() }
}

/// `None` where nothing was carried out, and where the canary that it was carried out on is gone and another runs.
fn after(view: &View, state: &DecisionState) -> Option<Next> {
    let (id, another_runs) = (&state.decision.id, running(view.deployment) != "No");
    let explain = [format!("canary explain {id}")];
    Some(match state.stage {
        Stage::Failed if undo_failed(view, state) => {
            let back = life(view, state).and_then(|l| l.plan.inverse.as_deref()).unwrap_or("none is known");
            let again = if state.decision.action == Action::Quarantine { "; it is looked at every minute" } else { "" };
            say("Get back by hand", format!("The guard's undo failed{again}. The way back: {back}."), &explain)
        }
        Stage::Failed if is_gone(view) => {
            say("Find out why the guard's action failed", "The canary is gone all the same.", &explain)
        }
        Stage::Failed => {
            say("Take the canary back by hand", "The guard's action failed, and is not tried again.", &explain)
        }
        Stage::Reverted => {
            say("Find out who brought the canary back", "The guard does not act on this canary again.", &explain)
        }
        Stage::Planned if waits_for_approval(state) => say(
            "Approve it, or take the canary back by hand",
            "Nothing is done before a person says so.",
            &[format!("canary approve {id}")],
        ),
        Stage::Planned | Stage::Approved => say("Wait: the guard is about to act", "", &[]),
        Stage::Applying | Stage::Applied => say("Wait: the guard verifies that the canary is quiet", "", &[]),
        Stage::Undoing => say("Wait: the canary comes back as it was", "", &[]),
        Stage::NotRecovered => say(
            "Look elsewhere: it was not the canary alone",
            "The service is no better without it. This brings the canary back:",
            &[format!("canary undo {id}")],
        ),
        Stage::Verified | Stage::Recovered | Stage::Closed if !another_runs => mend(),
        Stage::Verified | Stage::Recovered | Stage::Closed | Stage::Blocked | Stage::Declined | Stage::Undone => {
            return None;
        }
    })
}

/// `None` where the rollout that stands still, or was to, asks for nothing. A canary that is worse is one for the guard all the same:
/// what is to be done about it is told as if nothing were held.
fn after_hold(view: &View, hold: &DecisionState) -> Option<Next> {
    let (id, outcome) = (&hold.decision.id, view.deployment.verdict.outcome);
    let explain = [format!("canary explain {id}")];
    let only_told = matches!(view.deployment.mode, Mode::Observe | Mode::Advise);
    let held_back = view.deployment.decision.as_ref().is_none_or(|state| state.stage == Stage::Blocked);
    Some(match hold.stage {
        Stage::Planned | Stage::Approved | Stage::Applying | Stage::Applied => {
            say("Wait: the rollout is about to stand still", "", &[])
        }
        Stage::Undoing => say("Wait: the rollout is about to go on", "", &[]),
        _ if outcome == Outcome::Regressed && !is_gone(view) => {
            if !only_told || !held_back {
                return None;
            }
            say(
                "Take the canary back",
                "A hold leaves it at work, and the guard may do no more in this mode.",
                &[format!("canary rollback {}", view.deployment.name)],
            )
        }
        Stage::Failed if undo_failed(view, hold) => {
            say("Let the rollout go on by hand", "The undo of the hold failed, and is not tried again.", &explain)
        }
        Stage::Failed => {
            say("Hold the rollout by hand", "The guard's action failed, and is not tried again.", &explain)
        }
        Stage::Verified if outcome == Outcome::Healthy => say(
            "Let the rollout go on",
            "It is held, and the canary is as good as stable so far.",
            &[format!("canary undo {id}")],
        ),
        Stage::Closed if outcome == Outcome::Healthy => say(
            "Let the rollout go on",
            "It was held; whether it still is, is not watched any longer. The canary is as good as stable so far.",
            &[format!("canary undo {id}")],
        ),
        _ => return None,
    })
}

fn mend() -> Next {
    say("Nothing: mend it before the next rollout", "The report has what an incident needs.", &[])
}

fn after_verdict(view: &View) -> Next {
    if is_gone(view) {
        return mend();
    }
    let first = view.deployment.verdict.reasons.first().cloned().unwrap_or_default();
    let name = &view.deployment.name;
    let held_back = view.deployment.decision.as_ref().filter(|state| state.stage == Stage::Blocked);
    let left_alone = view.deployment.decision.as_ref().filter(|s| matches!(s.stage, Stage::Declined | Stage::Undone));
    match view.deployment.verdict.outcome {
        Outcome::Regressed => match (held_back, left_alone) {
            (Some(state), _) => blocked(view, state),
            (None, Some(state)) => {
                by_hand(view, state, "Take the canary back by hand", "The guard leaves this canary alone.")
            }
            (None, None) => say("Wait: the guard decides in the next window", "", &[]),
        },
        Outcome::Healthy => {
            say("Go on with the rollout", "The guard goes on watching; it never promotes by itself.", &[])
        }
        Outcome::Inconclusive if view.deployment.verdict.healthy_at_load.is_some() => {
            say("Give canary and stable the same load per instance", first, &[])
        }
        Outcome::Inconclusive => say("Wait", first, &[]),
        Outcome::InsufficientData if running(view.deployment) == "No" => say(
            "Nothing: the guard waits for a canary",
            format!("It is compared with stable of {name} as soon as it is there."),
            &[],
        ),
        Outcome::InsufficientData => say("Wait, and see that the canary gets traffic", first, &[]),
    }
}

/// Whether it waits for a person.
pub fn waits_for_approval(state: &DecisionState) -> bool {
    state.stage == Stage::Planned && state.decision.blocked_by().is_some_and(|gate| gate.gate == gates::APPROVAL)
}

/// The command that does what was decided: as recommended now, for the canary may have been started anew, or as it was then.
fn command(view: &View, state: &DecisionState) -> Option<String> {
    let (decision, now) = (&state.decision, &view.deployment.verdict.recommendations);
    let chosen = decision.action.chosen(now).or(decision.recommendation.as_ref());
    chosen.and_then(|r| r.command.clone()).or_else(|| now.iter().find_map(|r| r.command.clone()))
}

/// What a person does in the guard's place. Where no command is known, what the guard would have done is told in its own
/// words, which are none to be typed.
fn by_hand(view: &View, state: &DecisionState, what: &str, why: &str) -> Next {
    if let Some(command) = command(view, state) {
        return say(what, why, &[command]);
    }
    let steps = life(view, state).map(|l| l.plan.steps.join("; ")).unwrap_or_default();
    let planned = if steps.is_empty() { String::new() } else { format!(" It planned: {steps}.") };
    say(what, format!("{why}{planned}"), &[])
}

/// The command that ends a pause, which stands last in the guard's words about it.
fn resume(paused: &str) -> Option<String> {
    let (before, _) = paused.rsplit_once('`')?;
    let (_, command) = before.rsplit_once('`')?;
    command.starts_with("canary resume").then(|| command.to_owned())
}

fn blocked(view: &View, state: &DecisionState) -> Next {
    let gate = state.decision.blocked_by();
    match gate.map(|g| g.gate.as_str()) {
        Some("mode") => by_hand(view, state, "Take the canary back", "The guard may not do it in this mode."),
        Some("pause") => match view.paused {
            Some(paused) => {
                let commands: Vec<String> = resume(paused).into_iter().chain(command(view, state)).collect();
                say("Resume the guard, or take the canary back", paused, &commands)
            }
            None => say("Wait: the guard is no longer paused, and decides anew", "", &[]),
        },
        Some(gate) => Next {
            what: "Look at what holds the guard back".to_owned(),
            why: format!("Gate {}; once it lets through, the guard decides anew.", gate.replace('_', " ")),
            commands: vec![format!("canary explain {}", state.decision.id)],
        },
        None => by_hand(view, state, "Take the canary back", "The guard did not do it."),
    }
}

/// "1 instance", "3 instances".
pub fn counted(n: usize, what: &str) -> String {
    format!("{} {what}{}", units::count(n as u64), if n == 1 { "" } else { "s" })
}

/// With a capital at its beginning.
pub fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
