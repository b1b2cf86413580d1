//! What the sensor costs: `cargo xtask bench overhead`. Everything that is compared runs in one go, in alternation.

pub mod daemon;
mod http;
mod programs;
mod readings;
mod sched;

use std::{collections::BTreeMap, fmt};

use serde_json::{Value, json};

/// A figure with the limit that it has to keep.
#[derive(Clone, Debug)]
pub struct Row {
    /// Names the row; `--row` takes a part of it.
    pub name: String,
    /// What the figure is, with its unit.
    pub what: &'static str,
    pub figure: f64,
    pub limit: Limit,
    /// Smallest and largest of the rounds.
    pub spread: (f64, f64),
    /// What the figure was made of.
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    AtMost(f64),
    AtLeast(f64),
    /// Told for comparison.
    None,
}

impl Row {
    /// The median of the rounds.
    fn of(name: impl Into<String>, what: &'static str, rounds: &[f64], limit: Limit, detail: String) -> Self {
        let spread =
            rounds.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &x| (low.min(x), high.max(x)));
        Self { name: name.into(), what, figure: median(rounds), limit, spread, detail }
    }

    pub fn holds(&self) -> bool {
        match self.limit {
            Limit::AtMost(limit) => self.figure <= limit,
            Limit::AtLeast(limit) => self.figure >= limit,
            Limit::None => true,
        }
    }

    pub fn json(&self) -> Value {
        let (bound, limit) = match self.limit {
            Limit::AtMost(limit) => (Some("at_most"), Some(limit)),
            Limit::AtLeast(limit) => (Some("at_least"), Some(limit)),
            Limit::None => (None, None),
        };
        json!({
            "row": self.name, "what": self.what, "figure": self.figure, "bound": bound, "limit": limit,
            "lowest": self.spread.0, "highest": self.spread.1, "detail": self.detail, "holds": self.holds(),
        })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::AtMost(limit) => write!(f, "≤ {limit}"),
            Limit::AtLeast(limit) => write!(f, "≥ {limit}"),
            Limit::None => f.write_str("–"),
        }
    }
}

/// Which rows to measure, and how often.
#[derive(Clone, Debug)]
pub struct Plan {
    pub rounds: usize,
    /// Part of a row's name; empty for all.
    pub row: String,
}

impl Plan {
    /// Whether any of these rows is asked for.
    fn wants(&self, rows: &[&str]) -> bool {
        rows.iter().any(|row| row.contains(&self.row))
    }
}

/// Measures what the plan asks for. Progress goes to stderr.
///
/// # Errors
/// Without root, without one of the tools that are compared with, or where the sensor does not load.
pub fn measure(plan: &Plan) -> anyhow::Result<Vec<Row>> {
    anyhow::ensure!(rustix::process::geteuid().is_root(), "needs root: programs are loaded and cgroups made");
    let mut rows = Vec::new();
    rows.extend(sched::events(plan)?);
    rows.extend(sched::workload(plan)?);
    rows.extend(http::all(plan)?);
    rows.extend(readings::all(plan)?);
    rows.extend(daemon::all(plan)?);
    rows.retain(|row| row.name.contains(&plan.row));
    Ok(rows)
}

/// The table for people.
pub fn table(rows: &[Row]) -> String {
    let mut lines = vec![["row", "figure", "limit", "holds", "spread", "what"].map(str::to_owned)];
    lines.extend(rows.iter().map(|row| {
        [
            row.name.clone(),
            number(row.figure),
            row.limit.to_string(),
            if row.limit == Limit::None {
                "–"
            } else if row.holds() {
                "yes"
            } else {
                "NO"
            }
            .into(),
            format!("{} to {}", number(row.spread.0), number(row.spread.1)),
            if row.detail.is_empty() { row.what.into() } else { format!("{} ({})", row.what, row.detail) },
        ]
    }));
    let mut widths = BTreeMap::new();
    for line in &lines {
        for (column, cell) in line.iter().enumerate() {
            let width = widths.entry(column).or_insert(0);
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().enumerate().map(|(column, cell)| format!("{cell:<0$}", widths[&column]));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

fn number(x: f64) -> String {
    if x.abs() >= 20.0 { format!("{x:.0}") } else { format!("{x:.3}") }
}

/// Of an odd or even number of values; NaN of none.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_is_the_median_and_is_held_against_its_limit() {
        let row = |limit| Row::of("r", "w", &[3.0, 1.0, 2.0], limit, String::new());
        assert_eq!((row(Limit::None).figure, row(Limit::None).spread), (2.0, (1.0, 3.0)));
        assert!(row(Limit::AtMost(2.0)).holds() && !row(Limit::AtMost(1.9)).holds());
        assert!(row(Limit::AtLeast(2.0)).holds() && !row(Limit::AtLeast(2.1)).holds());
        assert!((median(&[1.0, 4.0, 2.0, 3.0]) - 2.5).abs() < 1e-12);
        assert!(!Row::of("r", "w", &[], Limit::AtMost(1.0), String::new()).holds(), "nothing measured holds nothing");
    }
}
