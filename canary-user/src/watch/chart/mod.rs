//! Charts of a comparison over time: the same drawing for a terminal and as SVG.
//!
//! Goes in: a [`Timeline`] of verdicts, or any [`Chart`]. Comes out: text ([`terminal`]) or one `<svg>` element ([`svg`]).
//! Pure: no clock, no I/O. A window without a value is a gap, never a zero.

mod svg;
mod terminal;
mod timeline;

#[cfg(test)]
mod tests;

pub use svg::svg;
pub use terminal::terminal;
pub use timeline::{Point, Timeline, without_p};

use crate::window::Indicator;

/// Panels one below the other over the same x axis.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chart {
    pub title: String,
    /// What the x axis counts, such as "window".
    pub x_label: String,
    pub x_axis: Axis,
    pub panels: Vec<Panel>,
    /// Moments, drawn through all panels.
    pub marks: Vec<Mark>,
}

/// One set of axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    pub label: String,
    pub scale: Scale,
    /// What lies behind the lines.
    pub bands: Vec<Band>,
    pub lines: Vec<Line>,
    /// A level that means something, such as the evidence that is needed, with its name.
    pub limit: Option<(f64, String)>,
    /// Said where no line has a point: why that is so.
    pub if_empty: String,
}

/// How the y axis grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    #[default]
    Linear,
    /// Values are logarithms to base 10, and labelled by what they are logarithms of.
    Log10,
    /// Values of an indicator, labelled in its unit. The axis need not begin at zero.
    Of(Indicator),
}

/// What the x axis is labelled with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Axis {
    /// Plain numbers.
    #[default]
    Count,
    /// Seconds since 1970 as time of day in UTC.
    Clock,
}

/// A range of y over x, as (x, lowest, highest); NaN interrupts it.
#[derive(Clone, Debug, PartialEq)]
pub struct Band {
    pub tone: Tone,
    pub points: Vec<(f64, f64, f64)>,
}

/// One line. Points are (x, y) by rising x; a y that is NaN interrupts it.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub name: String,
    pub tone: Tone,
    pub points: Vec<(f64, f64)>,
}

/// A moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    pub at: f64,
    pub name: String,
    pub tone: Tone,
}

/// What a colour stands for, the same everywhere: stable is blue, the canary orange, what condemns red.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Stable,
    Canary,
    Evidence,
    Bad,
    Faint,
}

impl Axis {
    /// The label of an x value.
    fn tick(self, x: f64) -> String {
        match self {
            Axis::Count => format!("{x:.0}"),
            Axis::Clock => super::units::clock((x * 1000.0).round() as u64),
        }
    }
}

impl Chart {
    /// Lowest and highest x of all points and marks; `None` without any.
    fn x_range(&self) -> Option<(f64, f64)> {
        let points = self.panels.iter().flat_map(|p| &p.lines).flat_map(|l| &l.points).map(|(x, _)| *x);
        range(points.chain(self.marks.iter().map(|m| m.at)))
    }
}

impl Panel {
    /// The words that stand in the place of lines; `None` where there is something to draw.
    pub fn instead(&self) -> Option<&str> {
        let is_drawn = self.lines.iter().flat_map(|l| &l.points).any(|(x, y)| (x + y).is_finite());
        Some(&*self.if_empty).filter(|words| !is_drawn && !words.is_empty())
    }

    /// Lowest and highest y that is drawn, with some air; 0 to 1 where there is nothing.
    fn y_range(&self) -> (f64, f64) {
        let values = self.lines.iter().flat_map(|l| &l.points).map(|(_, y)| *y);
        let zero = (self.scale == Scale::Linear).then_some(0.0);
        let edges = self.bands.iter().flat_map(|b| &b.points).flat_map(|(_, low, high)| [*low, *high]);
        let (low, high) =
            range(values.chain(edges).chain(self.limit.iter().map(|(y, _)| *y)).chain(zero)).unwrap_or((0.0, 1.0));
        match self.scale {
            Scale::Log10 => (low.floor(), (high + 0.2).ceil()),
            Scale::Of(indicator) => {
                // What is always 0 has an axis all the same, with labels that differ.
                let least = if indicator == Indicator::MemoryStall { 1e-4 } else { 4.0 };
                let air = (0.08 * (high - low)).max(0.01 * high.abs()).max(least);
                ((low - air).max(0.0), high + air)
            }
            Scale::Linear => {
                let air = (0.08 * (high - low)).max(0.05);
                (if low < 0.0 { low - air } else { low }, high + air)
            }
        }
    }

    /// The label of a y value.
    fn tick(&self, y: f64) -> String {
        match self.scale {
            Scale::Linear => format!("{y:.1}"),
            // Two of them may differ by less than is worth telling elsewhere.
            Scale::Of(Indicator::MemoryStall) if y.abs() < 1e-3 => super::units::small_share(y),
            Scale::Of(indicator) => super::units::indicator(indicator, Some(y)),
            Scale::Log10 if y < 0.0 => format!("{}", 10f64.powf(y)),
            Scale::Log10 if y <= 6.0 => super::units::count(10f64.powf(y).round() as u64),
            Scale::Log10 => format!("1e{y:.0}"),
        }
    }
}

fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|v| v.is_finite()).fold(None, |range, v| {
        let (low, high) = range.unwrap_or((v, v));
        Some((low.min(v), high.max(v)))
    })
}
