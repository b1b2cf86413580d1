//! Small multiples: each indicator with its numbers and its course, beside stable's band of what is allowed.

use maud::{Markup, html};

use super::{View, figures, own};
use crate::{
    judge::{IndicatorState, Verdict},
    watch::{chart, units},
};

const HEIGHT: u32 = 120;

/// One small chart per indicator, those that are worse first. `width` is the room of the whole page in pixels.
pub fn indicators(view: &View, width: u32) -> Markup {
    let verdict = &view.deployment.verdict;
    let mut states: Vec<&IndicatorState> = verdict.indicators.iter().collect();
    states.sort_by(|a, b| rank(b).total_cmp(&rank(a)));
    let each = (width.saturating_sub(70) / 3).clamp(250, 400).min(width.saturating_sub(60).max(200));
    html! {
        p.note {
            span.key.stable {} "stable " span.key.canary {} "canary " span.key.allowed {} "allowed: stable and its margin"
        }
        div.multiples {
            @for state in states {
                article.worse[state.confirmed].over[!state.confirmed && beyond(state)] {
                    h3 { (state.indicator.title()) }
                    (numbers(state))
                    @let figure = figures::indicator(state.indicator, view.windows, each);
                    @if let Some(figure) = figure { div.chart { (own(chart::svg(&figure, each, HEIGHT))) } }
                }
            }
        }
    }
}

/// What is proven first, then by the share of the margin in use; what is not measured last.
fn rank(state: &IndicatorState) -> f64 {
    if state.stable.is_none() && state.canary.is_none() && state.missing.is_some() {
        return -1e9;
    }
    let used = state.effect.zip(state.margin).map_or(-1e6, |(effect, margin)| effect / margin.max(1e-6));
    used + if state.confirmed { 1e6 } else { 0.0 }
}

fn beyond(state: &IndicatorState) -> bool {
    state.effect.zip(state.margin).is_some_and(|(effect, margin)| effect > margin)
}

fn numbers(state: &IndicatorState) -> Markup {
    if state.stable.is_none() && state.canary.is_none() && state.missing.is_some() {
        return html! { p.note { "not measured: " (state.missing.as_deref().unwrap_or_default()) } };
    }
    let value = |v| units::indicator(state.indicator, v);
    html! {
        p.numbers { "stable " b { (value(state.stable)) } ", canary " b { (value(state.canary)) } }
        p.numbers {
            @match (state.effect, state.margin) {
                (Some(effect), Some(margin)) => {
                    b.bad[state.confirmed].warn[!state.confirmed && effect > margin] { (units::change(effect)) }
                    @if let Some((low, high)) = state.effect_low.zip(state.effect_high) {
                        " (" (units::change(low)) " to " (units::change(high)) ")"
                    }
                    ", " span { "allowed " (units::change(margin)) }
                    @if state.confirmed { ": " b.bad { "proven" } }
                }
                _ => { span.note { "not compared yet: " (state.missing.as_deref().unwrap_or("learning")) } }
            }
        }
    }
}

/// Counts since the canary's warm-up.
pub fn events(verdict: &Verdict) -> Markup {
    html! {
        div.scroll { table {
            thead { tr { th { "since the canary's warm-up" } th.n { "stable" } th.n { "canary" } } }
            tbody {
                @for event in &verdict.events {
                    tr {
                        td { (event.event.title()) }
                        @if event.missing { td.n colspan="2" { "not measured" } }
                        @else { td.n { (units::count(event.stable)) } td.n { (units::count(event.canary)) } }
                    }
                }
            }
        } }
    }
}
