//! The table of indicators and events.

use ratatui::{
    style::Style,
    text::{Line, Span},
};

use super::{
    frame::{Rank, Row, Rows},
    palette::Palette,
};
use crate::{
    judge::{IndicatorState, Verdict},
    watch::{text::pad, units},
};

const NAME: usize = 20;
/// A value with its unit.
const NUMBER: usize = 9;
const DIFFERENCE: usize = 10;
const ALLOWED: usize = 7;
const BAR: usize = 8;
/// From this width on the interval around the difference is shown.
const WIDE: usize = 100;

/// A heading and one row per indicator.
pub fn indicators<'a>(verdict: &'a Verdict, palette: Palette, width: usize, rows: &mut Rows<'a>) {
    let interval = if width >= WIDE { format!("  {:<19}", "(95 % interval)") } else { String::new() };
    let heading = format!(
        "{:<NAME$}  {:>NUMBER$}  {:>NUMBER$}  {:>DIFFERENCE$}{interval}  {:>ALLOWED$}  evidence",
        "indicator", "stable", "canary", "difference", "allowed"
    );
    rows.push((Rank::Usual, Row::Text(Line::styled(heading, palette.faint()))));
    for state in &verdict.indicators {
        rows.push((Rank::Usual, Row::Text(indicator(state, verdict.threshold_ln, palette, width))));
    }
}

fn indicator<'a>(state: &'a IndicatorState, threshold_ln: f64, palette: Palette, width: usize) -> Line<'a> {
    let name = pad(state.indicator.title(), NAME);
    if let Some(why) = state.missing.as_ref().filter(|_| !is_measured(state)) {
        return Line::styled(format!("{name}  not compared: {why}"), palette.faint());
    }
    let value = |v| units::indicator(state.indicator, v);
    let values = format!("{name}  {:>NUMBER$}  {:>NUMBER$}  ", value(state.stable), value(state.canary));
    if let Some(why) = &state.missing {
        return Line::from(vec![Span::raw(values), Span::styled(why.clone(), palette.faint())]);
    }
    let (Some(effect), Some(margin)) = (state.effect, state.margin) else {
        let why = not_compared(state);
        return Line::from(vec![Span::raw(values), Span::styled(format!("{why:>DIFFERENCE$}"), palette.faint())]);
    };
    let style = difference(state, effect, margin, palette);
    let mut spans = vec![Span::raw(values), Span::styled(format!("{:>DIFFERENCE$}", units::change(effect)), style)];
    if width >= WIDE {
        let interval = state.effect_low.zip(state.effect_high);
        let told = interval
            .map_or_else(String::new, |(low, high)| format!("({} to {})", units::change(low), units::change(high)));
        spans.push(Span::styled(format!("  {told:<19}"), palette.faint()));
    }
    spans.push(Span::styled(format!("  {:>ALLOWED$}  ", units::change(margin)), palette.faint()));
    spans.extend(bar(state.evidence_ln / threshold_ln, BAR, style, palette));
    if state.confirmed {
        spans.push(Span::styled(" proven", style));
    }
    Line::from(spans)
}

/// Whether there is a reading of either side: then it may be that nothing is compared yet.
pub fn is_measured(state: &IndicatorState) -> bool {
    state.stable.is_some() || state.canary.is_some()
}

/// Why an indicator has no difference. Without a reading on either side nothing is learned: the canary is gone, or nothing was
/// asked of either.
pub fn not_compared(state: &IndicatorState) -> &'static str {
    if is_measured(state) { "learning" } else { "no reading" }
}

/// Red where it is proven, yellow beyond the margin, green where it is better than the margin by as much.
fn difference(state: &IndicatorState, effect: f64, margin: f64, palette: Palette) -> Style {
    if state.confirmed {
        palette.bad()
    } else if effect > margin {
        palette.warning()
    } else if effect < -margin {
        palette.good()
    } else {
        Style::new()
    }
}

/// Counts since the canary's warm-up: a row for each kind where there is room, else one line of what happened.
pub fn events<'a>(verdict: &'a Verdict, palette: Palette, roomy: bool, rows: &mut Rows<'a>) {
    if roomy {
        rows.push((Rank::Blank, Row::Text(Line::default())));
        let heading =
            format!("{:<NAME$}  {:>NUMBER$}  {:>NUMBER$}  since the canary's warm-up", "events", "stable", "canary");
        rows.push((Rank::Usual, Row::Text(Line::styled(heading, palette.faint()))));
        for event in &verdict.events {
            let name = pad(short(event.event), NAME);
            let line = if event.missing {
                Line::styled(format!("{name}  not measured"), palette.faint())
            } else {
                let counts = [event.stable, event.canary].map(units::count);
                let text = format!("{name}  {:>NUMBER$}  {:>NUMBER$}", counts[0], counts[1]);
                Line::styled(text, weight(event.evidence_ln, verdict, palette))
            };
            rows.push((Rank::Usual, Row::Text(line)));
        }
        return;
    }
    let mut spans = vec![Span::styled(pad("events", NAME + 2), palette.faint())];
    let mut happened: Vec<_> = verdict.events.iter().filter(|e| !e.missing && e.canary + e.stable > 0).collect();
    happened.sort_by(|a, b| b.evidence_ln.total_cmp(&a.evidence_ln));
    if happened.is_empty() {
        spans.push(Span::styled("none counted", palette.faint()));
    }
    for (i, event) in happened.into_iter().enumerate() {
        let separator = if i == 0 { "" } else { "; " };
        let (canary, stable) = (units::count(event.canary), units::count(event.stable));
        let text = format!("{separator}{}: canary {canary}, stable {stable}", short(event.event));
        spans.push(Span::styled(text, weight(event.evidence_ln, verdict, palette)));
    }
    let says_something = verdict.events.iter().any(|e| !e.missing && e.evidence_ln / verdict.threshold_ln >= 0.5);
    rows.push((if says_something { Rank::Usual } else { Rank::Extra }, Row::Text(Line::from(spans))));
}

fn weight(evidence_ln: f64, verdict: &Verdict, palette: Palette) -> Style {
    match evidence_ln / verdict.threshold_ln {
        share if share >= 1.0 => palette.bad(),
        share if share >= 0.5 => palette.warning(),
        _ => Style::new(),
    }
}

/// Names that fit the column.
fn short(event: crate::window::Event) -> &'static str {
    use crate::window::Event;
    match event {
        Event::Crashes => "crashes",
        Event::ErrorExits => "exits with an error",
        Event::OomKills => "out-of-memory kills",
        Event::ResetsOut => "connections reset",
        Event::Retransmits => "segments sent again",
        Event::ServerErrors => "5xx responses",
        Event::ConnectFailures => "failed connects",
    }
}

/// A horizontal bar in eighths of a column over a faint ground; an unknown share is an empty bar.
pub fn bar(share: f64, width: usize, style: Style, palette: Palette) -> [Span<'static>; 2] {
    const EIGHTHS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    let eighths = (share * width as f64 * 8.0).round() as usize;
    let mut filled = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        filled.push(EIGHTHS[eighths % 8 - 1]);
    }
    let ground = "·".repeat(width.saturating_sub(filled.chars().count()));
    [Span::styled(filled, style), Span::styled(ground, palette.faint())]
}
