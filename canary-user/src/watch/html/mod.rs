//! A deployment as HTML: the same blocks for the live page and for the report of a rollout.
//!
//! Goes in: what the API says. Comes out: markup. Pure: no clock, no I/O. What is missing is said, never drawn as zero.

mod advice;
pub mod answers;
pub mod figures;
pub mod history;
mod indicators;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use maud::{Markup, PreEscaped, html};

use super::{
    api::{DecisionLife, Deployment, VerdictChange, WindowPoint},
    chart::{Chart, Panel},
    units,
};
use crate::judge::{Outcome, Verdict};

pub use advice::{ADVICE, advice};
pub use indicators::{AFTER_THE_FACT, SINCE, events, indicators};

/// What [`figures::course`] shows, for who does not see it.
pub const COURSE: &str = "P(t) of both roles and the evidence over time";

/// The same of one chart, with what it says in the place of lines.
pub fn course_in_words(course: &Chart) -> String {
    let instead: String = course.panels.iter().filter_map(Panel::instead).map(|words| format!(". {words}")).collect();
    format!("{COURSE}{instead}")
}

/// The stylesheet of the page and of the report.
pub const STYLE: &str = include_str!("../page/style.css");

/// What is known of one deployment.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub deployment: &'a Deployment,
    /// Oldest first.
    pub windows: &'a [WindowPoint],
    /// Newest first.
    pub decisions: &'a [Arc<DecisionLife>],
    /// Newest first.
    pub verdicts: &'a [Arc<VerdictChange>],
    /// Why no action is begun.
    pub paused: Option<&'a str>,
}

/// A block with a heading.
pub fn section(id: &str, heading: &str, body: Markup) -> Markup {
    html! { section id=(id) aria-labelledby={ (id) "-h" } { h2 id={ (id) "-h" } { (heading) } (body) } }
}

/// Likely causes, the one with most evidence first.
pub fn causes(verdict: &Verdict) -> Markup {
    html! {
        @if verdict.causes.is_empty() {
            p.note { "A cause is named once the canary is called worse." }
        } @else {
            ol {
                @for cause in &verdict.causes {
                    li {
                        strong { (cause.mechanism) }
                        // A hard fact stands outside the statistics.
                        @if cause.evidence_ln > 0.0 { " (evidence " (units::evidence(cause.evidence_ln)) " when it was condemned)" }
                        br; (cause.text)
                    }
                }
            }
        }
        @let out = ruled_out(verdict);
        @if !out.is_empty() { p.note { "Ruled out, being no worse than allowed: " (out.join(", ")) "." } }
        @let unknown = not_measured(verdict);
        @if !unknown.is_empty() { p.note { "Not compared: " (unknown.join("; ")) "." } }
    }
}

/// The heading of the verdict's stretches, wherever they are told.
pub const STRETCHES: &str = "Out of its own usual band";

/// When one version left its own usual band, the latest last; nothing where none did.
pub fn stretches(verdict: &Verdict) -> Markup {
    html! {
        @if !verdict.stretches.is_empty() {
            p.note { (STRETCHES) ":" }
            ul { @for stretch in &verdict.stretches { li { (stretch.text) } } }
        }
    }
}

/// Indicators whose whole interval is within the margin: what the cause is not.
pub fn ruled_out(verdict: &Verdict) -> Vec<&'static str> {
    let within = |i: &&crate::judge::IndicatorState| {
        verdict.outcome == Outcome::Regressed
            && !i.confirmed
            // What is not compared yet rules nothing out.
            && i.missing.is_none()
            && i.effect_high.zip(i.margin).is_some_and(|(high, margin)| high <= margin)
    };
    verdict.indicators.iter().filter(within).map(|i| i.indicator.title()).collect()
}

/// Indicators without a reading, with the reason.
pub fn not_measured(verdict: &Verdict) -> Vec<String> {
    let missing = verdict.indicators.iter().filter_map(|i| Some((i.indicator.title(), i.missing.as_ref()?)));
    missing.map(|(title, why)| format!("{title} ({why})")).collect()
}

/// Markup that this program made itself, such as a chart.
pub fn own(markup: String) -> Markup {
    PreEscaped(markup)
}

/// The name of an outcome as a class of the stylesheet.
pub fn class(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Healthy => "healthy",
        Outcome::Regressed => "regressed",
        Outcome::Inconclusive => "inconclusive",
        Outcome::InsufficientData => "unknown",
    }
}
