//! Small multiples: each indicator with its numbers and its course, beside stable's band of what is allowed.

use maud::{Markup, html};

use super::{View, answers::is_gone, figures, own};
use crate::{
    judge::{IndicatorState, Verdict},
    watch::{
        api::{IndicatorPoint, WindowPoint},
        chart,
        terminal::table::not_compared,
        units,
    },
};

const HEIGHT: u32 = 120;

/// One small chart per indicator, those that are worse first. `width` is the room of the whole page in pixels.
pub fn indicators(view: &View, width: u32) -> Markup {
    let gone = is_gone(view).then_some(view.windows);
    let mut told: Vec<Told> = view.deployment.verdict.indicators.iter().map(|state| Told::of(state, gone)).collect();
    told.sort_by(|a, b| b.rank().total_cmp(&a.rank()));
    let each = (width.saturating_sub(70) / 3).clamp(250, 400).min(width.saturating_sub(60).max(200));
    html! {
        p.note {
            span.key.stable {} "stable " span.key.canary {} "canary " span.key.allowed {} "allowed: stable and its margin "
            span.key.onset {} "onset " span.key.action {} "action"
        }
        div.multiples {
            @for told in told {
                @let indicator = told.state.indicator;
                article.worse[told.state.confirmed].over[!told.state.confirmed && told.is_beyond()] {
                    h3 { (indicator.title()) }
                    (told.numbers())
                    @let figure = figures::indicator(indicator, view, each);
                    @if let Some(figure) = figure {
                        div.chart role="img" aria-label={ (indicator.title()) " of stable and canary over time" } {
                            (own(chart::svg(&figure, each, HEIGHT)))
                        }
                    }
                }
            }
        }
    }
}

/// The numbers that are told of one indicator.
struct Told<'a> {
    state: &'a IndicatorState,
    /// As now, or as the last window with a canary had them.
    numbers: IndicatorPoint,
    is_last: bool,
    is_gone: bool,
}

impl<'a> Told<'a> {
    /// `gone`: the windows of a canary that is gone, in the last of which its numbers are looked for.
    fn of(state: &'a IndicatorState, gone: Option<&[WindowPoint]>) -> Self {
        let f32 = |number: Option<f64>| number.map(|n| n as f32);
        let now = IndicatorPoint {
            stable: f32(state.stable),
            canary: f32(state.canary),
            effect: f32(state.effect),
            effect_low: f32(state.effect_low),
            effect_high: f32(state.effect_high),
            margin: f32(state.margin),
        };
        let points = || {
            gone.unwrap_or_default().iter().rev().map(|w| w.indicator(state.indicator)).filter(|p| p.canary.is_some())
        };
        let last = points().find(|p| p.effect.is_some()).or_else(|| points().next());
        Self { state, numbers: last.unwrap_or(now), is_last: last.is_some(), is_gone: gone.is_some() }
    }

    fn is_unmeasured(&self) -> bool {
        self.numbers.stable.is_none() && self.numbers.canary.is_none() && self.state.missing.is_some()
    }

    /// What is proven first, then by the share of the margin in use; what is not measured last.
    fn rank(&self) -> f64 {
        if self.is_unmeasured() {
            return -1e9;
        }
        let used = |(effect, margin): (f32, f32)| f64::from(effect) / f64::from(margin).max(1e-6);
        let used = self.numbers.effect.zip(self.numbers.margin).map_or(-1e6, used);
        used + if self.state.confirmed { 1e6 } else { 0.0 }
    }

    fn is_beyond(&self) -> bool {
        self.numbers.effect.zip(self.numbers.margin).is_some_and(|(effect, margin)| effect > margin)
    }

    fn numbers(&self) -> Markup {
        let (state, numbers) = (self.state, &self.numbers);
        if self.is_unmeasured() {
            return html! { p.note { "not measured: " (state.missing.as_deref().unwrap_or_default()) } };
        }
        let value = |v: Option<f32>| units::indicator(state.indicator, v.map(f64::from));
        let change = |ratio: f32| units::change(f64::from(ratio));
        html! {
            p.numbers {
                @if self.is_last { "before it went: " }
                "stable " b { (value(numbers.stable)) } ", canary " b { (value(numbers.canary)) }
            }
            p.numbers {
                @match (numbers.effect, numbers.margin) {
                    (Some(effect), Some(margin)) => {
                        b.bad[state.confirmed].warn[!state.confirmed && effect > margin] { (change(effect)) }
                        @if let Some((low, high)) = numbers.effect_low.zip(numbers.effect_high) {
                            " (" (change(low)) " to " (change(high)) ")"
                        }
                        ", " span { "allowed " (change(margin)) }
                        @if state.confirmed { ": " b.bad { "proven" } }
                    }
                    // What is still to be learned is for a canary that is there.
                    _ if self.is_gone => { span.note { "not compared while it was there" } }
                    _ => { span.note { "not compared yet: " (state.missing.as_deref().unwrap_or(not_compared(state))) } }
                }
            }
        }
    }
}

/// Since when events are counted, as the heading of their table.
pub const SINCE: &str = "since the canary's warm-up";
/// Beside the counts of a canary that a fact condemned.
pub const AFTER_THE_FACT: &str =
    "A fact counts from the canary's first moment on; these counts begin after its warm-up.";

/// Counts since the canary's warm-up.
pub fn events(verdict: &Verdict) -> Markup {
    html! {
        div.scroll { table {
            thead { tr { th { (SINCE) } th.n { "stable" } th.n { "canary" } } }
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
        @if verdict.hard.is_some() {
            p.note { (AFTER_THE_FACT) }
        }
    }
}
