//! The screen: tabs, one pane, what was said, and the keys.

use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    style::{Modifier, Style},
    text::{Line, Span},
    widgets::{Paragraph, Widget, Wrap},
};

use super::{Pane, Top};
use crate::{
    guard::Stage,
    judge::{IndicatorState, Outcome, Stretch, Verdict},
    watch::{
        api::{Deployment, WindowPoint},
        html::{ADVICE, STRETCHES, View, ruled_out},
        terminal::{
            frame::{Answers, Frame},
            table::{is_measured, not_compared},
        },
        text::pad,
        units,
    },
};

pub struct Screen<'a>(pub &'a Top);

/// Columns of a name, and of a course beside it.
const NAME: usize = 22;
const COURSE: usize = 30;
/// Stands for names that are left out.
const LEFT_OUT: &str = "… ";
/// Stretches that are listed; more would push the gates of a decision off the screen.
const STRETCHES_SHOWN: usize = 4;

impl Widget for Screen<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let top = self.0;
        let rows = [Constraint::Length(1), Constraint::Min(1), Constraint::Length(1), Constraint::Length(1)];
        let [tabs, pane, said, keys] = Layout::vertical(rows).areas(area);
        let answers = self.answers().unwrap_or_default();
        self.tabs(tabs.width.into(), answers.is_gone).render(tabs, buffer);
        match top.pane {
            Pane::Overview => {
                Frame { model: &top.model, palette: top.palette, answers: &answers }.render(pane, buffer);
            }
            Pane::Detail => self.text(self.detail(pane.width.into()), pane, buffer),
            Pane::Log => self.text(self.log(), pane, buffer),
            Pane::Help => self.text(help(), pane, buffer),
        }
        self.said().render(said, buffer);
        let hint = "q quit  Tab deployment  Enter causes  l log  p pause  a approve  ? help";
        Line::styled(pad(hint, keys.width.into()), top.palette.faint().add_modifier(Modifier::REVERSED))
            .render(keys, buffer);
    }
}

impl Screen<'_> {
    fn text(&self, lines: Vec<Line<'_>>, area: Rect, buffer: &mut Buffer) {
        Paragraph::new(lines).wrap(Wrap { trim: false }).scroll((self.0.scroll, 0)).render(area, buffer);
    }

    /// What the page would say of the deployment that is shown.
    fn answers(&self) -> Option<Answers> {
        let known = &self.0.known;
        let deployment = known.state.deployment(&self.0.model.shown.as_ref()?.name)?;
        let paused = known.state.paused.as_deref().or(deployment.paused.as_deref());
        let (windows, decisions, verdicts) = (&known.windows, &known.decisions, &known.verdicts);
        Some(Answers::of(&View { deployment, windows, decisions, verdicts, paused }))
    }

    /// A pause, which must not be overlooked, and the names with their verdicts. Where these have no room, those before the
    /// chosen one are left out until it is on the screen. `is_gone`: whether the chosen one's condemned canary is.
    fn tabs(&self, width: usize, is_gone: bool) -> Line<'_> {
        let top = self.0;
        let all = &top.known.state.deployments;
        let shown = top.model.shown.as_ref().map(|s| &*s.name);
        let at = all.iter().position(|d| shown == Some(&*d.name)).unwrap_or(0);
        let mut spans = Vec::new();
        let alone = all.get(at).is_some_and(|d| d.paused.is_some());
        if alone || top.known.state.paused.is_some() {
            spans.push(Span::styled(" PAUSED ", top.palette.warning().add_modifier(Modifier::REVERSED)));
            spans.push(Span::raw("  "));
        }
        let word = |d: &Deployment| {
            let gone = if is_gone && shown == Some(&*d.name) { ", gone" } else { "" };
            format!("{}{gone}", d.verdict.outcome.name())
        };
        let columns = |d: &Deployment| d.name.chars().count() + 1 + word(d).len() + 3;
        let room = width.saturating_sub(spans.iter().map(Span::width).sum());
        let mut from = 0;
        while from < at && all[from..=at].iter().map(columns).sum::<usize>() + LEFT_OUT.len() > room {
            from += 1;
        }
        if from > 0 {
            spans.push(Span::styled(LEFT_OUT, top.palette.faint()));
        }
        for deployment in &all[from..] {
            let outcome = deployment.verdict.outcome;
            let chosen = shown == Some(&*deployment.name);
            let name =
                if chosen { top.palette.strong().add_modifier(Modifier::UNDERLINED) } else { top.palette.faint() };
            let mark = match outcome {
                Outcome::Regressed if is_gone && chosen => top.palette.faint(),
                Outcome::Regressed => top.palette.bad(),
                Outcome::Healthy => top.palette.good(),
                _ => top.palette.faint(),
            };
            spans.push(Span::styled(deployment.name.to_string(), name));
            spans.push(Span::styled(format!(" {}   ", word(deployment)), mark));
        }
        Line::from(spans)
    }

    /// A question, what was said last, or the latest that happened.
    fn said(&self) -> Line<'_> {
        let top = self.0;
        if let Some(command) = &top.asked {
            return Line::styled(command.question(), top.palette.warning().add_modifier(Modifier::BOLD));
        }
        if let Some(said) = &top.said {
            return Line::styled(said.clone(), top.palette.warning());
        }
        let latest = self.happened().into_iter().next();
        latest.map_or_else(Line::default, |(at, what)| {
            Line::styled(format!("{} {what}", units::clock(at)), top.palette.faint())
        })
    }

    /// Changes of verdict and stages, newest first.
    fn happened(&self) -> Vec<(u64, String)> {
        let known = &self.0.known;
        let verdict = |v: &std::sync::Arc<crate::watch::api::VerdictChange>| {
            let why = v.verdict.reasons.first().map(|r| format!(": {r}")).unwrap_or_default();
            (v.unix_ms, format!("{}{why}", v.verdict.outcome.name()))
        };
        let mut all: Vec<(u64, String)> = known.verdicts.iter().map(verdict).collect();
        for life in &known.decisions {
            let stage = |s: &crate::journal::StageEntry| {
                (s.unix_ms, format!("{} {}: {}", life.decision.action, s.stage.name(), s.detail))
            };
            all.extend(life.stages.iter().map(stage));
        }
        all.sort_by_key(|(at, _)| *at);
        all.reverse();
        all
    }

    fn log(&self) -> Vec<Line<'_>> {
        let palette = self.0.palette;
        let lines = self.happened().into_iter().map(|(at, what)| {
            Line::from(vec![Span::styled(format!("{}  ", units::clock(at)), palette.faint()), Span::raw(what)])
        });
        let lines: Vec<_> = lines.collect();
        if lines.is_empty() { vec![Line::styled("Nothing happened yet.", palette.faint())] } else { lines }
    }

    fn detail(&self, width: usize) -> Vec<Line<'_>> {
        let (top, palette) = (self.0, self.0.palette);
        let Some(shown) = &top.model.shown else { return vec![Line::raw("No window yet.")] };
        let verdict = &shown.verdict;
        let heading = |text: &str| Line::styled(text.to_owned(), palette.strong());
        let mut lines = vec![heading("Canary against stable by window: a dot is as stable, a full bar is all allowed")];
        let course = width.saturating_sub(NAME + 25).min(2 * COURSE);
        lines.extend(verdict.indicators.iter().map(|i| self.course(i, course)));
        lines.push(Line::default());
        lines.push(heading("Likely causes"));
        if verdict.causes.is_empty() {
            lines.push(Line::styled("named once the canary is called worse", palette.faint()));
        }
        for (n, cause) in verdict.causes.iter().enumerate() {
            lines.push(Line::from(vec![
                Span::raw(format!("{}. ", n + 1)),
                Span::styled(cause.mechanism.clone(), palette.strong()),
                Span::raw(format!(": {}", cause.text)),
            ]));
        }
        let out = ruled_out(verdict);
        if !out.is_empty() {
            lines.push(Line::styled(format!("ruled out: {}", out.join(", ")), palette.faint()));
        }
        lines.extend(self.advice(verdict));
        lines.extend(self.stretches(verdict));
        lines.push(Line::default());
        lines.push(heading("Reasons"));
        lines.extend(verdict.reasons.iter().map(|r| Line::raw(r.clone())));
        for state in shown.decision.iter().chain(&shown.hold) {
            let id = &state.decision.id;
            let Some(life) = top.known.decisions.iter().find(|life| life.decision.id == *id) else { continue };
            lines.push(Line::default());
            lines.push(heading(&format!("Decision {}", life.decision.id)));
            for gate in &life.decision.gates {
                let (word, style) = if gate.passed { ("passed", palette.good()) } else { ("blocked", palette.bad()) };
                lines.push(Line::from(vec![
                    Span::styled(format!("{:<8} {:<15}", word, gate.gate.replace('_', " ")), style),
                    Span::raw(gate.reason.clone()),
                ]));
            }
            lines.extend(life.plan.steps.iter().map(|s| Line::raw(format!("plan     {s}"))));
            let back = life.plan.inverse.as_deref().unwrap_or("there is none");
            lines.push(Line::raw(format!("way back {back}")));
            for stage in &life.stages {
                let style = match stage.stage {
                    Stage::Verified => palette.good(),
                    Stage::Failed | Stage::Reverted => palette.bad(),
                    _ => Style::new(),
                };
                let at = units::clock(stage.unix_ms);
                lines.push(Line::styled(format!("{at} {}: {}", stage.stage.name(), stage.detail), style));
            }
        }
        lines
    }

    /// What is recommended, each command on a line of its own so that it can be copied. A reason that stands among the causes
    /// or reasons is not told again. Nothing where nothing is recommended.
    fn advice(&self, verdict: &Verdict) -> Vec<Line<'static>> {
        let palette = self.0.palette;
        let mut lines: Vec<Line<'static>> = Vec::new();
        for step in &verdict.recommendations {
            let told = verdict.reasons.contains(&step.because)
                || verdict.causes.iter().any(|cause| step.because.contains(&cause.text));
            let because = if told || step.because.is_empty() { String::new() } else { format!(": {}", step.because) };
            let (risk, confidence) = (step.risk.name(), step.confidence.name());
            lines.push(Line::from(vec![
                Span::raw(format!("{}. ", step.priority)),
                Span::styled(step.step.name(), palette.strong()),
                Span::raw(format!(" (risk {risk}, confidence {confidence}){because}")),
            ]));
            if let Some(command) = &step.command {
                lines.push(Line::raw(format!("   {command}")));
            }
            lines.push(Line::styled(format!("   undo: {}", step.undo), palette.faint()));
            if !step.would_change.is_empty() {
                lines.push(Line::styled(format!("   unless {}", step.would_change), palette.faint()));
            }
        }
        if !lines.is_empty() {
            lines.splice(0..0, [Line::default(), Line::styled(ADVICE, palette.strong())]);
        }
        lines
    }

    /// The stretches that go on and then the latest that are over, each with when it began. Nothing where there was none.
    fn stretches(&self, verdict: &Verdict) -> Vec<Line<'_>> {
        let (state, palette) = (&self.0.known.state, self.0.palette);
        let mut latest: Vec<_> = verdict.stretches.iter().rev().collect();
        latest.sort_by_key(|s| s.end.is_some());
        let told = |s: &&Stretch| {
            let ago_ms = state.t_ns.saturating_sub(s.start_t_ns) / 1_000_000;
            let began = format!("{}  ", units::clock(state.unix_ms.saturating_sub(ago_ms)));
            let style = if s.end.is_none() { palette.warning() } else { Style::new() };
            Line::from(vec![Span::styled(began, palette.faint()), Span::styled(s.text.clone(), style)])
        };
        let mut lines: Vec<Line<'_>> = latest.iter().take(STRETCHES_SHOWN).map(told).collect();
        if !lines.is_empty() {
            lines.splice(0..0, [Line::default(), Line::styled(STRETCHES, palette.strong())]);
        }
        match latest.len().saturating_sub(STRETCHES_SHOWN) {
            0 => {}
            more => lines.push(Line::styled(format!("{more} before: `canary report` or the page"), palette.faint())),
        }
        lines
    }

    /// The share of its margin that an indicator used in each window, as bars.
    fn course(&self, state: &IndicatorState, width: usize) -> Line<'static> {
        let palette = self.0.palette;
        let name = pad(state.indicator.title(), NAME);
        if let Some(why) = &state.missing {
            let lacks = if is_measured(state) { "not compared" } else { "not measured" };
            return Line::styled(format!("{name}{lacks}: {why}"), palette.faint());
        }
        let windows = &self.0.known.windows;
        let skip = windows.len().saturating_sub(width);
        let bars: String = windows.iter().skip(skip).map(|w| bar(w, state)).collect();
        let style = if state.confirmed { palette.bad() } else { Style::new() };
        let told = state.effect.map_or_else(|| not_compared(state).to_owned(), units::change);
        Line::from(vec![
            Span::raw(name),
            Span::styled(format!("{told:>10}  "), style),
            Span::styled(bars, style),
            Span::styled(if state.confirmed { " proven" } else { "" }, style),
        ])
    }
}

fn bar(window: &WindowPoint, state: &IndicatorState) -> char {
    const BARS: [char; 9] = ['·', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let point = window.indicator(state.indicator);
    match point.effect.zip(point.margin) {
        Some((effect, margin)) if margin > 0.0 => BARS[((effect / margin).clamp(0.0, 1.0) * 8.0).round() as usize],
        _ => ' ',
    }
}

fn help() -> Vec<Line<'static>> {
    [
        "q, Esc       quit (Esc closes a pane first)",
        "Tab, ← →     the next or previous deployment; without a choice, the one with most evidence is shown",
        "Enter, d     causes, recommendations, stretches, reasons, gates, plan and the course of each indicator",
        "l            what happened: changes of verdict and every stage of every decision, newest first",
        "↑ ↓, j k     scroll",
        "p            pause the guard, or resume it (asks first; with --address it needs --token-file)",
        "a            approve the decision that waits for it (asks first; with --address it needs --token-file)",
        "",
        "Times are UTC.",
        "P(t) is the share of the allowed change that a version's indicators use on average: 0 is as usual, 1 all of it.",
        "Evidence says how surprising all this would be if the canary were no worse; where its bar is full, it counts as worse.",
    ]
    .into_iter()
    .map(Line::raw)
    .collect()
}
