//! The few colours of the view, and none where NO_COLOR is set (no-color.org). Weight and reversal stay then.

use ratatui::style::{Color, Modifier, Style};

use crate::judge::Outcome;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Palette {
    Colour,
    Plain,
}

impl Palette {
    pub fn from_env() -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        if no_color { Palette::Plain } else { Palette::Colour }
    }

    fn colour(self, colour: Color) -> Style {
        match self {
            Palette::Colour => Style::new().fg(colour),
            Palette::Plain => Style::new(),
        }
    }

    /// Explanations and labels. Dimmed by the terminal: some themes have the bright black of 16 colours as their ground.
    pub fn faint(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    pub fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub fn good(self) -> Style {
        self.colour(Color::Green)
    }

    /// Beyond what is allowed, not yet proven. A yellow that is legible on white and on black.
    pub fn warning(self) -> Style {
        self.colour(Color::Indexed(136))
    }

    /// Proven worse.
    pub fn bad(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }

    pub fn stable(self) -> Style {
        self.colour(Color::Cyan)
    }

    /// The verdict as a word on a coloured ground.
    pub fn verdict(self, outcome: Outcome) -> Style {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        if self == Palette::Plain {
            return bold.add_modifier(Modifier::REVERSED);
        }
        match outcome {
            Outcome::Healthy => bold.fg(Color::Black).bg(Color::Green),
            Outcome::Regressed => bold.fg(Color::White).bg(Color::Red),
            Outcome::Inconclusive => bold.fg(Color::Black).bg(Color::Yellow),
            Outcome::InsufficientData => bold.fg(Color::Black).bg(Color::Gray),
        }
    }
}
