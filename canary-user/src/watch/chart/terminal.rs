//! A chart as text, in braille dots: two columns and four rows of them in each character.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Color, Style},
    symbols::Marker,
    text::Line as Text,
    widgets::{Axis, Chart as Widget, Dataset, GraphType, LegendPosition, Widget as _},
};

use super::{Chart, Panel, Scale, Tone};
use crate::watch::text::wrap;

/// Draws the chart in `columns` by about `rows` characters; every line ends in a newline. `colour` adds ANSI colours.
pub fn terminal(chart: &Chart, columns: u16, rows: u16, colour: bool) -> String {
    let Some((from, to)) = chart.x_range() else { return format!("{}: nothing to draw\n", chart.title) };
    let to = if to > from { to } else { from + 1.0 };
    let mut text = format!("{}\n", chart.title);
    let each = (rows.saturating_sub(1) / chart.panels.len().max(1) as u16).max(6);
    let lowest = chart.panels.iter().rposition(|panel| panel.instead().is_none());
    for (i, panel) in chart.panels.iter().enumerate() {
        text.push_str(&format!("{}\n", panel.label));
        if let Some(words) = panel.instead() {
            wrap(words, usize::from(columns.max(20)) - 2).iter().for_each(|line| text.push_str(&format!("  {line}\n")));
            continue;
        }
        let last = Some(i) == lowest;
        text.push_str(&draw(chart, panel, (from, to), (columns.max(20), each - 1), last, colour));
    }
    let marks: Vec<String> =
        chart.marks.iter().map(|m| format!("{} at {} {:.0}", m.name, chart.x_label, m.at)).collect();
    if !marks.is_empty() {
        text.push_str(&format!("| {}\n", marks.join("; ")));
    }
    text
}

fn set(tone: Tone, points: &[(f64, f64)]) -> Dataset<'_> {
    Dataset::default().marker(Marker::Braille).graph_type(GraphType::Line).style(style(tone)).data(points)
}

fn draw(chart: &Chart, panel: &Panel, x: (f64, f64), (columns, rows): (u16, u16), last: bool, colour: bool) -> String {
    let y = panel.y_range();
    // Gaps: each stretch without one is a dataset of its own, named once.
    let stretches: Vec<(usize, &[(f64, f64)])> = panel
        .lines
        .iter()
        .enumerate()
        .flat_map(|(i, line)| line.points.split(|(_, y)| y.is_nan()).filter(|s| !s.is_empty()).map(move |s| (i, s)))
        .collect();
    let limit: Option<[(f64, f64); 2]> = panel.limit.as_ref().map(|(at, _)| [(x.0, *at), (x.1, *at)]);
    let marks: Vec<(Tone, [(f64, f64); 2])> =
        chart.marks.iter().map(|m| (m.tone, [(m.at, y.0), (m.at, y.1)])).collect();
    let mut sets = Vec::new();
    if let (Some(points), Some((_, name))) = (&limit, &panel.limit) {
        sets.push(set(Tone::Faint, points).name(Text::raw(name.clone())));
    }
    sets.extend(marks.iter().map(|(tone, points)| set(*tone, points)));
    let mut named = vec![false; panel.lines.len()];
    for (i, points) in &stretches {
        let one = set(panel.lines[*i].tone, points);
        let first = !std::mem::replace(&mut named[*i], true);
        sets.push(if first { one.name(Text::raw(panel.lines[*i].name.clone())) } else { one });
    }
    let x_labels: Vec<String> =
        if last { [x.0, (x.0 + x.1) / 2.0, x.1].iter().map(|v| chart.x_axis.tick(*v)).collect() } else { Vec::new() };
    let x_axis = Axis::default().bounds([x.0, x.1]).labels(x_labels);
    let y_axis = Axis::default().bounds([y.0, y.1]).labels(labels(panel, y));
    let area = Rect::new(0, 0, columns, rows);
    let mut buffer = Buffer::empty(area);
    Widget::new(sets)
        .x_axis(x_axis)
        .y_axis(y_axis)
        .legend_position(Some(LegendPosition::TopLeft))
        .hidden_legend_constraints((ratatui::layout::Constraint::Ratio(1, 2), ratatui::layout::Constraint::Ratio(4, 5)))
        .render(area, &mut buffer);
    to_text(&buffer, colour)
}

/// Labels at equal distances from the lowest to the highest, all of one width so that panels stand in line.
fn labels(panel: &Panel, (low, high): (f64, f64)) -> Vec<String> {
    let steps = match panel.scale {
        Scale::Log10 => ((high - low) as usize).clamp(1, 8),
        Scale::Linear | Scale::Of(_) => 2,
    };
    (0..=steps).map(|i| format!("{:>9}", panel.tick(low + (high - low) * i as f64 / steps as f64))).collect()
}

fn style(tone: Tone) -> Style {
    Style::new().fg(match tone {
        Tone::Stable => Color::Cyan,
        Tone::Canary => Color::Yellow,
        Tone::Evidence => Color::Magenta,
        Tone::Bad => Color::Red,
        Tone::Faint => Color::DarkGray,
    })
}

fn to_text(buffer: &Buffer, colour: bool) -> String {
    let mut text = String::new();
    for y in 0..buffer.area.height {
        let (mut row, mut now) = (String::new(), Color::Reset);
        for x in 0..buffer.area.width {
            let cell = &buffer[(x, y)];
            if colour && cell.fg != now && cell.symbol() != " " {
                now = cell.fg;
                row.push_str(&format!("\x1b[{}m", ansi(now)));
            }
            row.push_str(cell.symbol());
        }
        text.push_str(row.trim_end());
        text.push_str(if now == Color::Reset { "\n" } else { "\x1b[0m\n" });
    }
    text
}

fn ansi(colour: Color) -> u8 {
    match colour {
        Color::Red => 31,
        Color::Yellow => 33,
        Color::Magenta => 35,
        Color::Cyan => 36,
        Color::DarkGray => 90,
        _ => 0,
    }
}
