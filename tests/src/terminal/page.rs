//! What a terminal shows, as a page for a browser: each sequence of its colours becomes a style.

use std::fmt::Write as _;

/// `screen`: with its sequences, as `tmux capture-pane -e` gives it.
pub fn page(screen: &str) -> String {
    const HEAD: &str = "<!DOCTYPE html><meta charset=\"utf-8\"><style>:root { color-scheme: light dark; --ink: #1c2129; --ground: #fff; } \
                        @media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --ground: #12151a; } } \
                        body { margin: 8px; color: var(--ink); background: var(--ground); } \
                        pre { margin: 0; font: 14px/1.25 \"DejaVu Sans Mono\", monospace; }</style><pre>";
    let mut text = HEAD.to_owned();
    let mut look = Look::default();
    for (i, part) in screen.split("\x1b[").enumerate() {
        // What stands before the first sequence has none.
        let told =
            if i == 0 { part } else { part.split_once('m').map_or("", |(numbers, rest)| look.take(numbers, rest)) };
        let told = told.replace('&', "&amp;").replace('<', "&lt;");
        // Strings take every write.
        let _ = write!(text, "<span style=\"{}\">{told}</span>", look.css());
    }
    text + "</pre>"
}

/// What the sequences up to here have switched on (ECMA-48, SGR).
#[derive(Default)]
struct Look {
    bold: bool,
    dim: bool,
    underlined: bool,
    reversed: bool,
    ink: Option<u8>,
    ground: Option<u8>,
}

impl Look {
    /// Takes a sequence in, and gives back what follows it.
    fn take<'a>(&mut self, numbers: &str, rest: &'a str) -> &'a str {
        let mut numbers = numbers.split([';', ':']).map(|n| n.parse::<u8>().unwrap_or(0));
        while let Some(number) = numbers.next() {
            match number {
                0 => *self = Self::default(),
                1 => self.bold = true,
                2 => self.dim = true,
                4 => self.underlined = true,
                7 => self.reversed = true,
                22 => (self.bold, self.dim) = (false, false),
                24 => self.underlined = false,
                27 => self.reversed = false,
                30..=37 => self.ink = Some(number - 30),
                90..=97 => self.ink = Some(number - 82),
                39 => self.ink = None,
                40..=47 => self.ground = Some(number - 40),
                100..=107 => self.ground = Some(number - 92),
                49 => self.ground = None,
                // One of 256.
                38 | 48 if numbers.next() == Some(5) => {
                    let place = if number == 38 { &mut self.ink } else { &mut self.ground };
                    *place = numbers.next();
                }
                _ => {}
            }
        }
        rest
    }

    fn css(&self) -> String {
        let (ink, ground) = (self.ink.map(colour), self.ground.map(colour));
        let (mut ink, mut ground) =
            (ink.unwrap_or_else(|| "var(--ink)".into()), ground.unwrap_or_else(|| "transparent".into()));
        if self.reversed {
            let paper = if self.ground.is_none() { "var(--ground)".into() } else { ground };
            (ink, ground) = (paper, ink);
        }
        let mut css = format!("color:{ink};background:{ground}");
        for (is, more) in [
            (self.bold, ";font-weight:bold"),
            (self.dim, ";opacity:.6"),
            (self.underlined, ";text-decoration:underline"),
        ] {
            css += if is { more } else { "" };
        }
        css
    }
}

/// As xterm has them: 16 by name, a cube of 6 by 6 by 6, and greys.
fn colour(number: u8) -> String {
    const NAMED: [&str; 16] = [
        "#000000", "#cd0000", "#00a000", "#cdcd00", "#0000ee", "#cd00cd", "#00a0a0", "#c5c5c5", "#7f7f7f", "#ff0000",
        "#00ff00", "#ffff00", "#5c5cff", "#ff00ff", "#00ffff", "#ffffff",
    ];
    match number {
        0..=15 => NAMED[usize::from(number)].to_owned(),
        16..=231 => {
            let level = |n: u8| if n == 0 { 0 } else { 55 + 40 * n };
            let n = number - 16;
            format!("rgb({},{},{})", level(n / 36), level(n / 6 % 6), level(n % 6))
        }
        232.. => {
            let grey = 8 + 10 * (number - 232);
            format!("rgb({grey},{grey},{grey})")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_becomes_a_page_with_its_colours() {
        let page = page("a<b\x1b[1m\x1b[38;5;136mwarns\x1b[0m, \x1b[41mbad\x1b[49m\x1b[7m keys\x1b[27m");
        for part in [
            "<span style=\"color:var(--ink);background:transparent\">a&lt;b</span>",
            "<span style=\"color:rgb(175,135,0);background:transparent;font-weight:bold\">warns</span>",
            "<span style=\"color:var(--ink);background:transparent\">, </span>",
            "<span style=\"color:var(--ink);background:#cd0000\">bad</span>",
            "<span style=\"color:var(--ground);background:var(--ink)\"> keys</span>",
        ] {
            assert!(page.contains(part), "no {part} in {page}");
        }
    }
}
