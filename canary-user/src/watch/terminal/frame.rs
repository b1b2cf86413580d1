//! One frame: rows with a rank, so that a low terminal loses the blank rows and the explanations first.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::Style,
    text::{Line, Span},
    widgets::{Sparkline, SparklineBar, Widget},
};

use super::{
    model::{Model, Point, Shown, Side},
    palette::Palette,
    table,
};
use crate::{
    guard::{Mode, Stage},
    judge::{Outcome, Verdict},
    targets::Role,
    watch::{
        api::DecisionState,
        html::{
            View,
            answers::{GONE, Next, is_gone, next},
        },
        text::{pad, wrap},
        units,
    },
};

/// Rows of the full frame and of the one for 24 rows.
const ROOMY: u16 = 32;
const COMPACT: u16 = 22;
/// Columns of the labels at the left.
const LABEL: usize = 22;
/// Columns that a decision's detail takes at least.
const DETAIL: usize = 30;
/// P(t) at which a bar is at its full height; 1, all of the margin, stands at half.
const P_FULL: f64 = 2.0;

/// Rows that the view takes of a terminal with `rows`, so that some of the scrollback can be seen above it.
pub fn height(rows: u16) -> u16 {
    match rows {
        38.. => ROOMY,
        24.. => COMPACT,
        _ => rows.saturating_sub(2).max(1),
    }
}

#[derive(Clone, Copy)]
pub struct Frame<'a> {
    pub model: &'a Model,
    pub palette: Palette,
    pub answers: &'a Answers,
}

/// What the page answers, in its words.
#[derive(Debug, Default)]
pub struct Answers {
    /// Whether the condemned canary is gone, which is told in the verdict's place.
    pub is_gone: bool,
    /// What a person should do; `None` = it is not told.
    pub next: Option<Next>,
}

impl Answers {
    pub fn of(view: &View) -> Self {
        Self { is_gone: is_gone(view), next: Some(next(view)) }
    }
}

/// How long a row stays when there are too few.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    Always,
    Usual,
    /// Only where there is room.
    Extra,
    Blank,
}

pub enum Row<'a> {
    Text(Line<'a>),
    /// P(t) of a role over time.
    Pulse(Role, &'a Shown),
}

pub type Rows<'a> = Vec<(Rank, Row<'a>)>;

impl Widget for Frame<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let mut rows = self.rows(area.width.into(), area.height >= ROOMY);
        for rank in [Rank::Blank, Rank::Extra, Rank::Usual] {
            while rows.len() > area.height.into() {
                let Some(last) = rows.iter().rposition(|(r, _)| *r == rank) else { break };
                rows.remove(last);
            }
        }
        for ((_, row), line) in rows.into_iter().zip(area.rows()) {
            match row {
                Row::Text(text) => text.render(line, buffer),
                Row::Pulse(role, shown) => self.pulse(role, shown, line, buffer),
            }
        }
    }
}

impl<'a> Frame<'a> {
    /// Rows of `area` that the frame fills.
    pub fn used(&self, area: Rect) -> u16 {
        let wanted = self.rows(area.width.into(), area.height >= ROOMY).len();
        u16::try_from(wanted).unwrap_or(u16::MAX).min(area.height)
    }

    fn rows(&self, width: usize, roomy: bool) -> Rows<'a> {
        let mut rows: Rows = vec![(Rank::Always, Row::Text(self.title(width)))];
        let Some(shown) = &self.model.shown else {
            rows.push((Rank::Always, text("Waiting for the first window …", self.palette.faint())));
            self.footer(&mut rows);
            return rows;
        };
        rows.push((Rank::Usual, text(pad(&sides(shown), width), Style::new())));
        if !self.model.others.is_empty() {
            let others = format!("also watched: {}", self.model.others.join(", "));
            rows.push((Rank::Usual, text(pad(&others, width), self.palette.faint())));
        }
        rows.push(blank());
        self.verdict(shown, width, &mut rows);
        rows.push((Rank::Always, Row::Text(self.evidence(shown, width))));
        rows.push(blank());
        let about = "P(t), share of the allowed change in use: 0 is as usual, 1 is all of it";
        rows.push((Rank::Extra, text(about, self.palette.faint())));
        rows.push((Rank::Always, Row::Pulse(Role::Stable, shown)));
        rows.push((Rank::Always, Row::Pulse(Role::Canary, shown)));
        rows.push(blank());
        table::indicators(&shown.verdict, self.palette, width, &mut rows);
        table::events(&shown.verdict, self.palette, roomy, &mut rows);
        rows.push(blank());
        self.decision(shown, width, &mut rows);
        self.next(width, &mut rows);
        self.footer(&mut rows);
        rows
    }

    /// What to do next, with its command beside it or below it where there is no room.
    fn next(&self, width: usize, rows: &mut Rows<'a>) {
        let Some(next) = &self.answers.next else { return };
        let label = Span::styled(pad("next", LABEL), self.palette.faint());
        let command = next.commands.first().map(String::as_str).unwrap_or_default();
        let fits = LABEL + next.what.chars().count() + 2 + command.chars().count() <= width;
        let beside = if fits && !command.is_empty() { format!(": {command}") } else { String::new() };
        let what = Span::styled(next.what.clone(), self.palette.strong());
        rows.push((Rank::Always, Row::Text(Line::from(vec![label, what, Span::raw(beside)]))));
        if !fits && !command.is_empty() {
            rows.push((Rank::Usual, text(command.to_owned(), Style::new())));
        }
    }

    fn title(&self, width: usize) -> Line<'a> {
        let right = match &self.model.shown {
            Some(shown) => format!("{}  {:>5}", mode(shown.mode), units::elapsed(self.model.elapsed_ns())),
            None => String::new(),
        };
        let room = width.saturating_sub(right.chars().count() + 2);
        let left = pad(&self.model.title, room);
        Line::from(vec![
            Span::styled(left, self.palette.strong()),
            Span::styled(format!("  {right}"), self.palette.faint()),
        ])
    }

    fn verdict(&self, shown: &Shown, width: usize, rows: &mut Rows<'a>) {
        let verdict = &shown.verdict;
        // Why it was worse is told beside it.
        let (word, style) = if self.answers.is_gone {
            (format!(" {GONE} "), self.palette.verdict(Outcome::InsufficientData))
        } else {
            (format!(" {} ", verdict.outcome.name().to_uppercase()), self.palette.verdict(verdict.outcome))
        };
        let room = width.saturating_sub(word.chars().count() + 2);
        let mut reasons = verdict.reasons.iter().flat_map(|r| wrap(&mechanism_first(r, verdict), room));
        let first = reasons.next().unwrap_or_default();
        rows.push((
            Rank::Always,
            Row::Text(Line::from(vec![Span::styled(word.clone(), style), Span::raw(format!("  {first}"))])),
        ));
        for more in reasons.take(2) {
            let indent = " ".repeat(word.chars().count() + 2);
            rows.push((Rank::Extra, text(format!("{indent}{more}"), Style::new())));
        }
    }

    fn evidence(&self, shown: &Shown, width: usize) -> Line<'a> {
        let verdict = &shown.verdict;
        let threshold = units::evidence(verdict.threshold_ln);
        let evidence = units::evidence(verdict.evidence_ln);
        if verdict.hard.is_some() {
            // A bar that is empty beside a canary that stands condemned would say the opposite.
            let told = format!("{evidence} of {threshold}; a fact condemned it, whatever that is");
            return Line::from(vec![Span::raw(pad("evidence", LABEL)), Span::raw(told)]);
        }
        let told = format!("  {evidence} of {threshold} needed to call it worse");
        let style = match verdict.outcome {
            Outcome::Regressed if self.answers.is_gone => self.palette.strong(),
            Outcome::Regressed => self.palette.bad(),
            _ => self.palette.warning(),
        };
        let bar_width = width.saturating_sub(LABEL + told.chars().count()).min(50);
        let mut spans = vec![Span::raw(pad("evidence", LABEL))];
        spans.extend(table::bar(verdict.evidence_share(), bar_width, style, self.palette));
        spans.push(Span::raw(told));
        Line::from(spans)
    }

    fn pulse(&self, role: Role, shown: &Shown, line: Rect, buffer: &mut Buffer) {
        let (side, read): (_, fn(&Point) -> Option<f64>) = match role {
            Role::Stable => (&shown.stable, |p| p.stable),
            Role::Canary => (&shown.canary, |p| p.canary),
        };
        let style = if role == Role::Stable { self.palette.stable() } else { Style::new() };
        let number = format!("{:>7}", units::p(shown.history.back().and_then(read)));
        let (label, number_width) = (pad(&format!("{role} {}", side.versions), LABEL), 7u16);
        let bars = Rect {
            x: line.x + (LABEL as u16).min(line.width),
            width: line.width.saturating_sub(LABEL as u16 + number_width),
            ..line
        };
        buffer.set_stringn(line.x, line.y, label, line.width.into(), style);
        let data = grouped(shown, read, bars.width.into()).into_iter().map(|p| match p {
            // The lowest level, not nothing, stands for 0: nothing is a window without a value.
            Some(p) => {
                let level = (p / P_FULL * 8.0).round().clamp(1.0, 8.0) as u64;
                SparklineBar::from(level).style(if p > 1.0 { self.palette.warning() } else { style })
            }
            None => SparklineBar::from(None),
        });
        Sparkline::default().data(data).max(8).absent_value_symbol(" ").render(bars, buffer);
        let used = skip_to(line, bars, number_width);
        buffer.set_stringn(used, line.y, number, number_width.into(), self.palette.strong());
    }

    fn decision(&self, shown: &Shown, width: usize, rows: &mut Rows<'a>) {
        match &shown.decision {
            Some(state) => {
                let head = format!("{} {}", state.decision.action, stage(state.stage));
                self.standing(("decision", head), state, (Rank::Always, width), rows);
            }
            None => {
                let label = Span::styled(pad("decision", LABEL), self.palette.faint());
                let none = Line::from(vec![label, Span::styled("none yet", self.palette.faint())]);
                rows.push((Rank::Always, Row::Text(none)));
            }
        }
        if let Some(hold) = &shown.hold {
            self.standing(("hold", of_hold(hold.stage).to_owned()), hold, (Rank::Usual, width), rows);
        }
    }

    /// Where a decision stands, with what happened last.
    fn standing(
        &self,
        (label, head): (&str, String),
        view: &DecisionState,
        (rank, width): (Rank, usize),
        rows: &mut Rows<'a>,
    ) {
        let label = Span::styled(pad(label, LABEL), self.palette.faint());
        let style = match view.stage {
            Stage::Verified | Stage::Recovered | Stage::Closed => self.palette.good().patch(self.palette.strong()),
            Stage::Failed | Stage::Reverted | Stage::NotRecovered => self.palette.bad(),
            _ => self.palette.strong(),
        };
        let detail = match view.decision.held_back_by(view.stage) {
            // "mode is observe: …" names its gate.
            Some(gate) if gate.reason.starts_with(&gate.gate) => gate.reason.clone(),
            Some(gate) => format!("{}: {}", gate.gate.replace('_', " "), gate.reason),
            None => not_said_by(&head, &view.detail).to_owned(),
        };
        // Beside the head, or below it where the column would be too narrow to be read.
        let beside = width.saturating_sub(LABEL + head.chars().count() + 2);
        let room = if beside >= DETAIL { beside } else { width.saturating_sub(LABEL) };
        let mut lines = wrap(&detail, room).into_iter();
        let first = if beside >= DETAIL { lines.next().unwrap_or_default() } else { String::new() };
        let first = Line::from(vec![label, Span::styled(head, style), Span::raw(format!("  {first}"))]);
        rows.push((rank, Row::Text(first)));
        for (i, more) in lines.enumerate() {
            let rank = if i == 0 { Rank::Usual } else { Rank::Extra };
            rows.push((rank, text(format!("{}{more}", " ".repeat(width - room)), Style::new())));
        }
    }

    fn footer(&self, rows: &mut Rows<'a>) {
        for line in &self.model.footer {
            rows.push((Rank::Usual, text(line.clone(), Style::new())));
        }
        if let Some(caution) = &self.model.caution {
            rows.push((Rank::Usual, text(caution.clone(), self.palette.warning())));
        }
    }
}

/// The detail without its first words, where they are the last ones before it: "the service is back: …".
fn not_said_by<'a>(head: &str, detail: &'a str) -> &'a str {
    detail.split_once(": ").filter(|(first, _)| head.ends_with(*first)).map_or(detail, |(_, rest)| rest)
}

/// The mechanism before the numbers that speak for it, which a narrow line may cut.
fn mechanism_first(reason: &str, verdict: &Verdict) -> String {
    let cause = verdict.causes.iter().find(|cause| reason.starts_with(&cause.text));
    cause.map_or_else(|| reason.to_owned(), |cause| format!("{}: {}", cause.mechanism, cause.text))
}

/// P(t) of all that is remembered, oldest first, in at most `width` values: several windows share one where there are more. The
/// groups do not move as windows are added. `None` where none of a group has a value.
fn grouped(shown: &Shown, read: fn(&Point) -> Option<f64>, width: usize) -> Vec<Option<f64>> {
    let windows: Vec<Point> = shown.history.iter().copied().collect();
    let size = windows.len().div_ceil(width.max(1)).max(1) as u64;
    let mean = |group: &[Point]| {
        let known = group.iter().filter_map(read).filter(|p| p.is_finite());
        let (sum, n) = known.fold((0.0, 0.0), |(sum, n), p| (sum + p, n + 1.0));
        (n > 0.0).then(|| sum / n)
    };
    let groups: Vec<Option<f64>> = windows.chunk_by(|a, b| a.window / size == b.window / size).map(mean).collect();
    let skip = groups.len().saturating_sub(width);
    groups.into_iter().skip(skip).collect()
}

/// Where the number stands: at the right edge, on a narrow line over the label.
fn skip_to(line: Rect, bars: Rect, number_width: u16) -> u16 {
    if bars.width == 0 { line.right().saturating_sub(number_width).max(line.x) } else { bars.right() }
}

fn sides(shown: &Shown) -> String {
    let side = |side: &Side| {
        let plural = if side.instances == 1 { "" } else { "s" };
        match side.instances {
            0 if side.versions.is_empty() => "none seen yet".to_owned(),
            0 => format!("{} (none running)", side.versions),
            n => format!("{} ({n} instance{plural})", side.versions),
        }
    };
    format!("{}: canary {} against stable {}", shown.name, side(&shown.canary), side(&shown.stable))
}

fn text<'a>(text: impl Into<std::borrow::Cow<'a, str>>, style: Style) -> Row<'a> {
    Row::Text(Line::styled(text, style))
}

fn blank<'a>() -> (Rank, Row<'a>) {
    (Rank::Blank, Row::Text(Line::default()))
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Observe => "mode observe: only watches",
        Mode::Advise => "mode advise: only tells what to do",
        Mode::Quarantine => "mode quarantine: may restrict the canary",
        Mode::Drain => "mode drain: may stop the canary",
        Mode::Rollback => "mode rollback: may roll back",
    }
}

fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Blocked => "not done",
        Stage::Planned => "planned",
        Stage::Approved => "approved",
        Stage::Declined => "not done, nobody approved it",
        Stage::Applying => "under way",
        Stage::Applied => "applied, to be verified",
        Stage::Verified => "done and verified",
        Stage::Reverted => "undone by someone else",
        Stage::Recovered => "done and verified, the service is back",
        Stage::NotRecovered => "done and verified, it did not help",
        Stage::Failed => "failed",
        Stage::Undoing => "being undone",
        Stage::Undone => "undone",
        Stage::Closed => "done and over",
    }
}

/// The same of a rollout that is held, or was to be.
fn of_hold(of: Stage) -> &'static str {
    match of {
        Stage::Verified => "the rollout stands still",
        Stage::Closed => "not watched any longer",
        Stage::Reverted => "ended by someone else",
        Stage::Undone => "ended",
        other => stage(other),
    }
}
