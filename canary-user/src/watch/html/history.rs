//! What happened, newest first: changes of verdict and every stage of every decision, on one line of time.

use maud::{Markup, html};

use super::{View, class};
use crate::{
    guard::Stage,
    http_client::percent_encoded,
    watch::{api::DecisionLife, units},
};

/// Entries that are shown at most.
const MOST: usize = 30;

/// The log of one deployment. `link` is where the report of a decision is found; `None` = no links.
pub fn timeline(view: &View, link: Option<&str>) -> Markup {
    let mut entries: Vec<(u64, Markup)> = Vec::new();
    for change in view.verdicts.iter().take(MOST) {
        let verdict = &change.verdict;
        let why = verdict.reasons.first().cloned().unwrap_or_default();
        let told = html! { span.tag.(class(verdict.outcome)) { (verdict.outcome.name()) } " " (why) };
        entries.push((change.unix_ms, told));
    }
    for life in view.decisions.iter().take(MOST) {
        for stage in &life.stages {
            let (action, detail) = (life.decision.action, &stage.detail);
            let told = html! { span.tag.(tone(stage.stage)) { (action) " " (stage.stage.name()) } ": " (detail) };
            entries.push((stage.unix_ms, told));
        }
    }
    // Stable, so that stages of the same millisecond stay in their order; then newest first.
    entries.sort_by_key(|(unix_ms, _)| *unix_ms);
    entries.reverse();
    html! {
        @if entries.is_empty() { p.note { "Nothing happened yet." } }
        ol.timeline {
            @for (unix_ms, told) in entries.into_iter().take(MOST) {
                li { time datetime=(units::when(unix_ms)) { (units::clock(unix_ms)) } div { (told) } }
            }
        }
        @if let (Some(link), [newest, ..]) = (link, view.decisions) {
            p { a id="report" href={ (link) (percent_encoded(&newest.decision.id)) } { "Report of the latest decision" } }
        }
    }
}

fn tone(stage: Stage) -> &'static str {
    match stage {
        Stage::Verified => "good",
        Stage::Failed | Stage::Reverted => "bad",
        _ => "warn",
    }
}

/// The gates that a decision was asked, in order, up to the one that blocked.
pub fn gates(life: &DecisionLife) -> Markup {
    html! {
        ol {
            @for gate in &life.decision.gates {
                li {
                    span.tag.good[gate.passed].bad[!gate.passed] { (gate.gate.replace('_', " ")) @if gate.passed { " passed" } @else { " blocked" } }
                    ": " (gate.reason)
                }
            }
        }
    }
}
