//! The live view: an inline frame at the end of the terminal's own text, so that the scrollback stays and the last frame
//! remains. Lines where stdout is not a terminal.
//!
//! Goes in: Snapshots and log lines. Comes out: what is seen. Reads no keys and leaves the terminal's mode alone;
//! `canary top` shows the same frame on a screen of its own, with keys.

pub(super) mod frame;
pub(super) mod model;
pub(super) mod palette;
pub(super) mod table;

use std::io::{IsTerminal, Stdout, stdout};

use ratatui::{
    Terminal, TerminalOptions, Viewport,
    backend::{Backend, CrosstermBackend},
    text::{Line, Span, Text},
    widgets::Widget,
};

use self::{
    frame::{Answers, Frame},
    model::Model,
    palette::Palette,
};
use super::{PlainView, Snapshot, api, text::wrap};

/// Shows one deployment: the one that is asked for, else the one with most evidence against its canary.
pub struct TerminalView(Output);

enum Output {
    // Boxed: a terminal holds two screens' worth of cells.
    Live(Box<Live<CrosstermBackend<Stdout>>>),
    Lines(PlainView<Stdout>),
}

/// The view on any backend of ratatui.
struct Live<B: Backend> {
    terminal: Terminal<B>,
    model: Model,
    palette: Palette,
}

impl TerminalView {
    /// Takes the last lines of the terminal. `title` names the run; `deployment` is the one to show, `None` for the
    /// one with most evidence. Without a terminal, in the background, or where the terminal does not
    /// tell where its cursor is, it writes lines.
    pub fn new(title: impl Into<String>, deployment: Option<String>) -> Self {
        let lines = || Self(Output::Lines(PlainView::new(stdout())));
        if !stdout().is_terminal() || !in_foreground() {
            return lines();
        }
        let rows = ratatui::crossterm::terminal::size().map_or(24, |(_, rows)| rows);
        match Live::new(CrosstermBackend::new(stdout()), rows, Model::new(title, deployment), Palette::from_env()) {
            Ok(live) => Self(Output::Live(Box::new(live))),
            Err(_) => lines(),
        }
    }

    /// Free lines at the end of the frame, such as requests served and failed. The frame's own labels take 22 columns.
    pub fn set_footer(&mut self, footer: Vec<String>) {
        match &mut self.0 {
            Output::Live(live) => live.model.set_footer(footer),
            Output::Lines(plain) => plain.set_footer(footer),
        }
    }

    /// Shows the state after a tick.
    ///
    /// # Errors
    /// If stdout fails.
    pub fn draw(&mut self, snapshot: &Snapshot) -> anyhow::Result<()> {
        match &mut self.0 {
            Output::Live(live) => live.draw(snapshot),
            Output::Lines(plain) => Ok(plain.draw(snapshot)?),
        }
    }

    /// Writes a line above the frame, stamped with the time since the first Snapshot. It stays in the scrollback.
    ///
    /// # Errors
    /// If stdout fails.
    pub fn log(&mut self, line: &str) -> anyhow::Result<()> {
        match &mut self.0 {
            Output::Live(live) => live.log(line),
            Output::Lines(plain) => Ok(plain.log(line)?),
        }
    }

    /// Draws the last frame anew (a key's echo may have marred it) and leaves the cursor below it.
    ///
    /// # Errors
    /// If stdout fails.
    pub fn finish(self) -> anyhow::Result<()> {
        match self.0 {
            Output::Live(mut live) => live.finish(),
            Output::Lines(_) => Ok(()),
        }
    }
}

impl<B: Backend> Live<B>
where
    B::Error: Send + Sync + 'static,
{
    fn new(backend: B, rows: u16, model: Model, palette: Palette) -> anyhow::Result<Self> {
        let viewport = Viewport::Inline(frame::height(rows));
        let terminal = Terminal::with_options(backend, TerminalOptions { viewport })?;
        Ok(Self { terminal, model, palette })
    }

    fn draw(&mut self, snapshot: &Snapshot) -> anyhow::Result<()> {
        self.model.update(&api::State::from(snapshot));
        self.redraw()
    }

    fn redraw(&mut self) -> anyhow::Result<()> {
        let frame = Frame { model: &self.model, palette: self.palette, answers: &self.answers() };
        self.terminal.draw(|f| f.render_widget(frame, f.area()))?;
        Ok(())
    }

    /// What to do next is left to those who may be asked more.
    fn answers(&self) -> Answers {
        Answers { is_gone: self.model.shown.as_ref().is_some_and(|shown| shown.is_gone), next: None }
    }

    fn log(&mut self, line: &str) -> anyhow::Result<()> {
        let stamp = format!("{:>7}  ", super::units::elapsed(self.model.elapsed_ns()));
        let indent = " ".repeat(stamp.len());
        // Control characters, tabs among them, would shift what follows.
        let clean: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let room = usize::from(self.terminal.size()?.width).saturating_sub(stamp.len());
        let lines: Vec<Line> = wrap(clean.trim_end(), room)
            .into_iter()
            .enumerate()
            .map(|(i, text)| {
                let margin = if i == 0 { stamp.clone() } else { indent.clone() };
                Line::from(vec![Span::styled(margin, self.palette.faint()), Span::raw(text)])
            })
            .collect();
        let height = u16::try_from(lines.len()).unwrap_or(u16::MAX);
        self.terminal.insert_before(height, |buffer| Text::from(lines).render(buffer.area, buffer))?;
        self.redraw()
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        self.terminal.clear()?;
        self.redraw()?;
        let area = self.terminal.get_frame().area();
        let used = Frame { model: &self.model, palette: self.palette, answers: &self.answers() }.used(area);
        self.terminal.set_cursor_position((0, area.y + used.saturating_sub(1)))?;
        self.terminal.show_cursor()?;
        self.terminal.backend_mut().append_lines(1)?;
        Ok(())
    }
}

/// Whether the terminal would let us ask for its cursor: it stops a job in the background that does.
fn in_foreground() -> bool {
    rustix::termios::tcgetpgrp(stdout()).is_ok_and(|group| group == rustix::process::getpgrp())
}

#[cfg(test)]
mod tests;
