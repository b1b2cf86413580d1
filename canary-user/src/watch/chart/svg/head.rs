//! What stands above the axes: the caption, the key to the lines, and the names of the moments. None of it lies on a line.

use plotters::{
    element::{PathElement, Text},
    style::RGBColor,
};

use super::{Area, Drawn, INK, colour, font, stroke};
use crate::watch::{
    chart::{Chart, Panel, Tone},
    text::wrap,
};

/// Pixels to the left and right of the text.
const EDGE: i32 = 10;
/// Pixels of a row of the key or of names, of a caption of each size, of their letters, and of a character in them on average.
const ROW: i32 = 15;
const LETTERS: f64 = 10.5;
const ROW_CHARACTER: f64 = 6.4;
const CAPTION: i32 = 19;
const CAPTION_LETTERS: f64 = 12.0;
const CAPTION_CHARACTER: f64 = 7.0;
/// Pixels of a line's sample in the key, and between two entries.
const SAMPLE: i32 = 16;
const BETWEEN: i32 = 14;
/// Rows of names at most: a moment that finds no room in them has its line only.
const MOST_ROWS: usize = 4;

/// The head of one panel, laid out.
pub struct Head {
    width: i32,
    small: bool,
    caption: Vec<String>,
    key: Vec<(String, Tone)>,
    /// Whether the key stands on the caption's row.
    beside: bool,
    names: Vec<Name>,
}

struct Name {
    /// From the axes upwards.
    row: usize,
    x: i32,
    text: String,
    tone: Tone,
}

impl Head {
    /// A small panel has no key. `place` is where a moment stands in pixels; `None` = moments are not named here.
    pub fn new(chart: &Chart, panel: &Panel, width: u32, small: bool, place: Option<&dyn Fn(f64) -> f64>) -> Self {
        let width = i32::try_from(width).unwrap_or(i32::MAX);
        let character = if small { ROW_CHARACTER } else { CAPTION_CHARACTER };
        let columns = (f64::from(width - 2 * EDGE) / character).max(1.0) as usize;
        let caption = if panel.label.is_empty() { Vec::new() } else { wrap(&panel.label, columns) };
        let is_drawn = |points: &[(f64, f64)]| points.iter().any(|(x, y)| (x + y).is_finite());
        let lines = panel.lines.iter().filter(|line| is_drawn(&line.points)).map(|line| (line.name.clone(), line.tone));
        let limit = panel.limit.iter().map(|(_, name)| (name.clone(), Tone::Faint));
        let key: Vec<(String, Tone)> = if small { Vec::new() } else { lines.chain(limit).collect() };
        let mut head = Self { width, small, caption, key, beside: false, names: Vec::new() };
        if let [only] = head.caption.as_slice() {
            let caption = (CAPTION_CHARACTER * only.chars().count() as f64) as i32;
            head.beside = EDGE + caption + 2 * BETWEEN + head.key_width() + EDGE <= width;
        }
        if let Some(place) = place {
            head.names = names(chart, width, place);
        }
        head
    }

    /// Pixels that it takes.
    pub fn height(&self) -> i32 {
        let row = if self.small { ROW } else { CAPTION };
        let caption = row * self.caption.len() as i32;
        let key = if self.key.is_empty() || self.beside { 0 } else { ROW };
        let names = self.names.iter().map(|name| name.row as i32 + 1).max().unwrap_or(0);
        caption + key + ROW * names + i32::from(caption > 0) * 4
    }

    pub fn draw(&self, area: &Area<'_>) -> Drawn {
        let (row, size) = if self.small { (ROW, LETTERS) } else { (CAPTION, CAPTION_LETTERS) };
        let mut y = 4;
        for line in &self.caption {
            area.draw(&text(line, (EDGE, y), size, INK))?;
            y += row;
        }
        let (mut x, y) = if self.beside { (self.width - EDGE - self.key_width(), 6) } else { (EDGE, y) };
        for (name, tone) in &self.key {
            let middle = y + ROW / 2 - 1;
            area.draw(&PathElement::new(vec![(x, middle), (x + SAMPLE, middle)], stroke(*tone, 2)))?;
            area.draw(&text(name, (x + SAMPLE + 5, y), LETTERS, INK))?;
            x += entry_width(name);
        }
        for name in &self.names {
            let y = self.height() - ROW * (name.row as i32 + 1);
            area.draw(&text(&name.text, (name.x, y), LETTERS, colour(name.tone)))?;
        }
        Ok(())
    }

    fn key_width(&self) -> i32 {
        self.key.iter().map(|(name, _)| entry_width(name)).sum()
    }
}

fn entry_width(name: &str) -> i32 {
    SAMPLE + 5 + (ROW_CHARACTER * name.chars().count() as f64) as i32 + BETWEEN
}

/// Each name begins at its line, or ends at the right edge; those that would touch stand in rows above each other.
fn names(chart: &Chart, width: i32, place: &dyn Fn(f64) -> f64) -> Vec<Name> {
    let mut marks: Vec<_> = chart.marks.iter().filter(|mark| mark.at.is_finite()).collect();
    marks.sort_by(|a, b| a.at.total_cmp(&b.at));
    let mut ends: Vec<i32> = Vec::new();
    let mut names = Vec::new();
    for mark in marks {
        let text = format!("{} ({})", mark.name, chart.x_axis.tick(mark.at));
        let length = (ROW_CHARACTER * text.chars().count() as f64) as i32;
        let x = (place(mark.at) as i32).min(width - EDGE - length).max(0);
        let row = ends.iter().position(|end| *end + 6 <= x).unwrap_or(ends.len());
        if row == MOST_ROWS {
            continue;
        }
        if row == ends.len() {
            ends.push(0);
        }
        ends[row] = x + length;
        names.push(Name { row, x, text, tone: mark.tone });
    }
    names
}

/// Writes words into the middle of axes that have no line. `left` and `room` are where they may stand, `below` what is below the
/// axes, in pixels.
pub fn write_instead(area: &Area<'_>, words: &str, (left, room): (i32, f64), below: i32) -> Drawn {
    let lines = wrap(words, (room / ROW_CHARACTER).max(1.0) as usize);
    let height = i32::try_from(area.dim_in_pixel().1).unwrap_or(i32::MAX);
    let top = ((height - below - ROW * lines.len() as i32) / 2).max(0);
    for (i, line) in lines.iter().enumerate() {
        area.draw(&text(line, (left, top + ROW * i as i32), LETTERS, INK))?;
    }
    Ok(())
}

/// `size`: of its letters, in pixels.
fn text(text: &str, at: (i32, i32), size: f64, colour: RGBColor) -> Text<'static, (i32, i32), String> {
    Text::new(text.to_owned(), at, font(size).color(&colour))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::chart::{Axis, Line, Mark, Scale};

    fn panel(label: &str) -> Panel {
        let line = |name: &str, y| Line { name: name.to_owned(), tone: Tone::Stable, points: vec![(0.0, y), (1.0, y)] };
        Panel {
            label: label.to_owned(),
            scale: Scale::Linear,
            bands: Vec::new(),
            lines: vec![line("stable", 1.0), line("never read", f64::NAN)],
            limit: Some((1.0, "all of it".to_owned())),
            if_empty: String::new(),
        }
    }

    fn chart(at: &[f64]) -> Chart {
        let mark = |at: &f64| Mark { at: *at, name: "applied".to_owned(), tone: Tone::Faint };
        Chart { x_axis: Axis::Count, marks: at.iter().map(mark).collect(), ..Chart::default() }
    }

    #[test]
    fn a_caption_wraps_where_it_is_narrow_and_the_key_moves_below_it() {
        let label = "P(t): 0 is as usual, 1 is all that is allowed";
        let wide = Head::new(&chart(&[]), &panel(label), 1000, false, None);
        assert!(wide.beside && wide.caption == [label]);
        let narrow = Head::new(&chart(&[]), &panel(label), 250, false, None);
        assert!(!narrow.beside && narrow.caption.len() == 2, "{:?}", narrow.caption);
        assert_eq!(narrow.caption.join(" "), label, "nothing is cut");
        assert!(narrow.height() > wide.height());
        let key: Vec<&str> = wide.key.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(key, ["stable", "all of it"], "what is not drawn has no entry");
        assert_eq!(Head::new(&chart(&[]), &panel(""), 300, true, None).height(), 0);
    }

    #[test]
    fn names_stay_inside_and_apart() {
        let place = |x: f64| x;
        let head = Head::new(&chart(&[100.0, 120.0, 500.0, 590.0]), &panel(""), 600, false, Some(&place));
        let length = |name: &Name| (ROW_CHARACTER * name.text.chars().count() as f64) as i32;
        assert!(head.names.iter().all(|name| name.x >= 0 && name.x + length(name) <= 600 - EDGE));
        for (i, a) in head.names.iter().enumerate() {
            for b in head.names.iter().skip(i + 1).filter(|b| b.row == a.row) {
                assert!(b.x >= a.x + length(a), "{} and {} touch", a.text, b.text);
            }
        }
        assert_eq!(head.names.iter().map(|name| name.row).collect::<Vec<_>>(), [0, 1, 0, 1]);
        let many = Head::new(&chart(&[5.0; 9]), &panel(""), 600, false, Some(&place));
        assert_eq!(many.names.len(), MOST_ROWS, "the others have their lines");
    }
}
