//! The report of a rollout: one self-contained HTML file for the incident's ticket, or Markdown for a chat.
//!
//! Goes in: a decision with its life, and the evidence that was kept of it. Comes out: text. Pure: no clock, no I/O.

mod directory;
mod form;
mod keep;
mod markdown;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use maud::{DOCTYPE, Markup, html};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    api::{DecisionLife, Deployment, State, WindowPoint},
    chart,
    html::{self as blocks, View, answers},
    units,
};
use crate::telemetry::{Machine, OwnCost, Quality};

pub use directory::{Counts, Directory};
pub use form::{DecisionReport, Format};
pub use keep::{Reporter, thinned};
pub use markdown::markdown;

const WIDTH: u32 = 1080;
/// Room on a phone: a picture for 1080 pixels is illegible there.
const PHONE: u32 = 330;

/// What is kept of a decision: the state when it was made, and the windows around it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Evidence {
    /// The deployment in the window of the decision.
    pub deployment: Deployment,
    /// Length of a window.
    pub span_ns: u64,
    pub quality: Quality,
    pub machine: Option<Machine>,
    /// What the guard itself used until then.
    pub own: Option<OwnCost>,
    /// Oldest first; of those long before the decision only some.
    pub windows: Vec<WindowPoint>,
}

impl Evidence {
    /// What a state says of a deployment, without windows; `None` where it is not in it.
    pub fn at(state: &State, deployment: &str) -> Option<Self> {
        Some(Self {
            deployment: state.deployment(deployment)?.clone(),
            span_ns: state.span_ns,
            quality: state.quality.clone(),
            machine: state.machine,
            own: state.own.clone(),
            windows: Vec::new(),
        })
    }
}

/// A decision with what is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    pub life: &'a Arc<DecisionLife>,
    /// `None` where it was decided too long ago.
    pub evidence: Option<&'a Evidence>,
}

/// One HTML file that needs nothing else.
pub fn html(report: &Report) -> String {
    let life = report.life;
    let decision = &life.decision;
    let heading = format!("{}: {}", decision.deployment, outcome(life));
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (heading) }
                link rel="icon" href="data:,";
                style { (blocks::own(blocks::STYLE.to_owned())) }
            }
            body {
                header { h1 { (heading) } span.grow {} span.live { (units::when(decision.unix_ms)) ", " code { (decision.id) } } }
                main {
                    section.caution { p.answer { (decision.reason) } p.more { (ending(life)) } }
                    @match report.evidence {
                        Some(evidence) => (measured(evidence, life)),
                        None => { section { p.note { (GONE) } } }
                    }
                    (blocks::section("life", "The action's life", lived(life)))
                    (blocks::section("gates", "Gates that were asked", blocks::history::gates(life)))
                    (blocks::section("plan", "Plan and way back", plan(life)))
                    @if let Some(evidence) = report.evidence { (blocks::section("quality", "Quality of the data", quality(evidence))) }
                }
                footer { p { "Written by the canary guard " (env!("CARGO_PKG_VERSION")) ". Times are UTC." } }
            }
        }
    }
    .into_string()
}

const GONE: &str = "The windows of this decision are not kept any more, or cannot be read: the journal has them of the latest 50, \
                    and another version of the guard may have written them otherwise.";

fn measured(evidence: &Evidence, life: &Arc<DecisionLife>) -> Markup {
    let decisions = [life.clone()];
    let deployment = &evidence.deployment;
    let view = View { deployment, windows: &evidence.windows, decisions: &decisions, verdicts: &[], paused: None };
    let course = blocks::figures::course(&view, WIDTH);
    html! {
        (blocks::section("verdict", "Verdict", verdict(evidence, life)))
        @if let Some(course) = course {
            (blocks::section("course", "Over time", html! {
                div.chart.on-wide role="img" aria-label=(blocks::course_in_words(&course)) { (blocks::own(chart::svg(&course, WIDTH, 420))) }
                @if let Some(course) = blocks::figures::course(&view, PHONE) {
                    div.chart.on-phone role="img" aria-label=(blocks::course_in_words(&course)) { (blocks::own(chart::svg(&course, PHONE, 560))) }
                }
                (blocks::stretches(&deployment.verdict))
            }))
        }
        (blocks::section("causes", "Likely causes", blocks::causes(&deployment.verdict)))
        @if !deployment.verdict.recommendations.is_empty() {
            (blocks::section("advice", blocks::ADVICE, blocks::advice(&deployment.verdict)))
        }
        (blocks::section("indicators", "What was compared", blocks::indicators(&view, WIDTH)))
        (blocks::section("events", "Counts", blocks::events(&deployment.verdict)))
    }
}

fn verdict(evidence: &Evidence, life: &DecisionLife) -> Markup {
    let verdict = &evidence.deployment.verdict;
    html! {
        p.answer.bad[verdict.outcome == crate::judge::Outcome::Regressed] { (verdict.outcome.name().to_uppercase()) }
        p { (sure(evidence)) }
        ul { @for reason in &verdict.reasons { li { (reason) } } }
        @if let Some(since) = since(evidence, life) { p { (since) } }
    }
}

/// How sure the guard was.
fn sure(evidence: &Evidence) -> String {
    let verdict = &evidence.deployment.verdict;
    let (told, needed) = (units::evidence(verdict.evidence_ln), units::evidence(verdict.threshold_ln));
    let windows = answers::counted(verdict.judged_windows as usize, "window");
    match verdict.hard {
        Some(fact) => {
            format!("A fact, whatever the evidence: {}. Evidence {told} of {needed}.", answers::fact_in_words(fact))
        }
        None => format!(
            "Evidence {told} of {needed} needed to call it worse, when it was decided, from {windows} of the canary."
        ),
    }
}

/// When the change began.
fn since(evidence: &Evidence, life: &DecisionLife) -> Option<String> {
    let verdict = &evidence.deployment.verdict;
    let onset = verdict.onset?;
    let ago = life.decision.window.checked_sub(onset)? as f64 * evidence.span_ns as f64;
    let at = evidence.windows.iter().find(|w| w.window >= onset).map(|w| format!(" at {}", units::clock(w.unix_ms)));
    let at = at.unwrap_or_default();
    Some(format!("It began{at} in window {}, {} before the decision.", units::count(onset), units::duration_ns(ago)))
}

/// The decision and where it ended, in few words.
fn outcome(life: &DecisionLife) -> String {
    let stage = life.stage().map_or("", |s| s.name());
    format!("{} {stage}", life.decision.action)
}

/// The last stage in words.
fn ending(life: &DecisionLife) -> String {
    let last = life.stages.last();
    last.map_or_else(String::new, |s| format!("{} at {}: {}", s.stage.name(), units::clock(s.unix_ms), s.detail))
}

fn lived(life: &DecisionLife) -> Markup {
    let first = life.stages.first().map_or(0, |s| s.unix_ms);
    html! {
        div.scroll { table {
            thead { tr { th { "UTC" } th.n { "after" } th { "stage" } th { "what happened" } } }
            tbody {
                @for stage in &life.stages {
                    tr {
                        td { (units::clock(stage.unix_ms)) }
                        td.n { (format!("{:.1} s", stage.unix_ms.saturating_sub(first) as f64 / 1e3)) }
                        td { (stage.stage.name()) } td { (stage.detail) }
                    }
                }
            }
        } }
    }
}

fn plan(life: &DecisionLife) -> Markup {
    html! {
        p { "By " code { (life.plan.orchestrator) } ":" }
        ol { @for step in &life.plan.steps { li { (step) } } }
        p { b { "Way back: " } (life.plan.inverse.as_deref().unwrap_or("there is none")) }
        p.note { "Canary: " @for target in &life.decision.canary { code { (target.cgroup) } " " } }
    }
}

fn quality(evidence: &Evidence) -> Markup {
    html! { ul { @for line in data(evidence) { li { (line) } } } }
}

/// What is to be known about the data and the guard's own cost.
fn data(evidence: &Evidence) -> Vec<String> {
    let unclean = evidence.windows.iter().filter(|w| !w.clean).count();
    let kept = units::count(evidence.windows.len() as u64);
    let mut lines =
        vec![format!("{unclean} of {kept} kept windows were not judged: they lost something, or the machine slept.")];
    lines.extend(blocks::not_measured(&evidence.deployment.verdict).into_iter().map(|m| format!("Not compared: {m}.")));
    lines.extend(evidence.quality.hooks_missing.iter().map(|hook| format!("Not live: {hook}.")));
    if let Some(machine) = &evidence.machine {
        let busy = units::share(machine.cpu_busy);
        lines.push(format!("The machine: {} CPUs, {busy} busy in the window of the decision.", machine.cpus));
    }
    if let Some(own) = &evidence.own {
        lines.push(own.in_words());
    }
    lines
}
