//! A table of indicators as CSV: `t,role,target,<indicator>…`, one line per target and moment.
//!
//! `t` is in seconds and never goes back; lines with the same `t` are one window. `role` is "stable" or "canary". An empty
//! cell, "NaN" or "null" is a missing reading. Other readings are numbers, 0 or more: what is compared is their ratio.

use std::{io::Read, sync::Arc};

use anyhow::{Context as _, bail, ensure};

use crate::{judge::columns::Row, targets::Role};

/// First columns of every table.
const FIXED: [&str; 3] = ["t", "role", "target"];
/// More indicators than this are a mistake in the file.
const MOST_INDICATORS: usize = 1000;

/// All lines with one `t`.
#[derive(Clone, Debug, PartialEq)]
pub struct Moment {
    pub t_s: f64,
    pub stable: Vec<Row>,
    pub canary: Vec<Row>,
}

/// The whole table.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    pub indicators: Vec<Arc<str>>,
    pub moments: Vec<Moment>,
}

impl Table {
    /// Reads a table; `name` stands in errors.
    ///
    /// # Errors
    /// The first line that is not as it has to be, with its number.
    pub fn read(input: impl Read, name: &str) -> anyhow::Result<Table> {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).comment(Some(b'#')).from_reader(input);
        let header = reader.headers().with_context(|| format!("{name}:1: not CSV"))?.clone();
        let starts = FIXED.iter().enumerate().all(|(i, key)| header.get(i) == Some(key));
        ensure!(
            starts && header.len() > FIXED.len(),
            "{name}:1: the first line has to be t,role,target and then the name of each indicator"
        );
        ensure!(header.len() <= MOST_INDICATORS + FIXED.len(), "{name}:1: more than {MOST_INDICATORS} indicators");
        let indicators: Vec<Arc<str>> = header.iter().skip(FIXED.len()).map(Arc::from).collect();
        for (i, indicator) in indicators.iter().enumerate() {
            ensure!(!indicator.is_empty(), "{name}:1: column {} has no name", i + FIXED.len() + 1);
            ensure!(!indicators[..i].contains(indicator), "{name}:1: column {indicator} is there twice");
        }
        let mut moments: Vec<Moment> = Vec::new();
        for record in reader.records() {
            let record = record.with_context(|| format!("{name}: not CSV"))?;
            let line = record.position().map_or(0, |p| p.line());
            line_into(&record, &indicators, &mut moments).with_context(|| format!("{name}:{line}"))?;
        }
        ensure!(!moments.is_empty(), "{name} has no line with readings");
        Ok(Table { indicators, moments })
    }

    /// One hundredth of stable's usual reading of each column: differences far below it matter to nobody, and a ratio to
    /// nothing has no meaning. 0 where all of these are 0 or missing.
    ///
    /// Of the windows before the canary's first `warmup_windows` are over, in which nothing is bet: a verdict rests on no
    /// later window, and the canary has no say in how it is read.
    pub fn epsilons(&self, warmup_windows: u64) -> Vec<f64> {
        let reports = |row: &Row| row.values.iter().any(|v| v.is_finite());
        let came = self.moments.iter().position(|moment| moment.canary.iter().any(reports));
        let warmup = usize::try_from(warmup_windows).unwrap_or(usize::MAX);
        let windows = came.map_or(self.moments.len(), |came| came.saturating_add(warmup).max(1));
        let of = |i: usize| {
            let readings = self.moments.iter().take(windows).flat_map(|moment| &moment.stable).map(|row| row.values[i]);
            let (sum, n) = readings.filter(|v| v.is_finite()).fold((0.0, 0.0), |(sum, n), v| (sum + v, n + 1.0));
            if n > 0.0 && f64::is_finite(sum) { 0.01 * sum / n } else { 0.0 }
        };
        (0..self.indicators.len()).map(of).collect()
    }
}

fn line_into(record: &csv::StringRecord, indicators: &[Arc<str>], moments: &mut Vec<Moment>) -> anyhow::Result<()> {
    let cell = |i: usize| record.get(i).unwrap_or_default();
    let t_s: f64 = cell(0)
        .parse()
        .ok()
        .filter(|t: &f64| t.is_finite() && *t >= 0.0 && *t < 1e10)
        .with_context(|| format!("t is \"{}\": write seconds, such as 12.5", cell(0)))?;
    let role = match cell(1) {
        "stable" => Role::Stable,
        "canary" => Role::Canary,
        other => bail!("role is \"{other}\": write stable or canary"),
    };
    let target: Arc<str> = cell(2).into();
    ensure!(!target.is_empty(), "target is empty: write the name of the instance");
    let mut values = Vec::with_capacity(indicators.len());
    for (i, indicator) in indicators.iter().enumerate() {
        values.push(match cell(FIXED.len() + i) {
            "" | "NaN" | "nan" | "null" => f64::NAN,
            text => {
                let value = text.parse().ok().filter(|v: &f64| v.is_finite() && *v >= 0.0);
                value.with_context(|| format!("{indicator} is \"{text}\": write a number, 0 or more, or nothing"))?
            }
        });
    }
    match moments.last() {
        Some(last) if t_s < last.t_s => bail!("time goes back: t {t_s} after {}", last.t_s),
        Some(last) if t_s == last.t_s => {}
        _ => moments.push(Moment { t_s, stable: Vec::new(), canary: Vec::new() }),
    }
    let moment = moments.last_mut().context("a moment was just made")?;
    let known = moment.stable.iter().chain(&moment.canary).any(|r| r.target == target);
    ensure!(!known, "{target} has a second line with t {t_s}");
    let side = if role == Role::Stable { &mut moment.stable } else { &mut moment.canary };
    side.push(Row { target, values });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Table> {
        Table::read(text.as_bytes(), "t.csv")
    }

    #[test]
    fn lines_of_one_time_are_one_window_and_empty_cells_are_missing() {
        let table = read("t,role,target,latency_ms,errors\n0,stable,a,1.5,\n0,canary,c,2,0\n1,stable,a,NaN,3\n")
            .expect("valid");
        assert_eq!(table.indicators.iter().map(|i| &**i).collect::<Vec<_>>(), ["latency_ms", "errors"]);
        assert_eq!((table.moments.len(), table.moments[0].stable.len(), table.moments[0].canary.len()), (2, 1, 1));
        assert!(table.moments[0].stable[0].values[1].is_nan() && table.moments[1].stable[0].values[0].is_nan());
    }

    /// What is added before the logarithm is chosen neither by the canary nor by anything after a verdict.
    #[test]
    fn what_is_added_rests_on_stable_before_the_canary_is_judged() {
        let start = "t,role,target,x,y\n0,stable,a,1,\n1,stable,a,3,\n1,canary,c,1000,7\n2,stable,a,5,0\n";
        let of =
            |rest: &str, warmup_windows: u64| read(&format!("{start}{rest}")).expect("valid").epsilons(warmup_windows);
        let near = |found: Vec<f64>, x: f64| assert!((found[0] - x).abs() < 1e-12 && found[1] == 0.0, "{found:?}");
        near(of("", 2), 0.03);
        near(of("3,stable,a,1e6,5\n3,canary,c,1e6,5\n", 2), 0.03);
        near(of("3,stable,a,1e6,5\n3,canary,c,1e6,5\n", 1), 0.02);
        near(of("", 0), 0.01);
        // Where the canary is there from the start, stable's first window at least.
        let both = read("t,role,target,x\n0,stable,a,2\n0,canary,c,9\n1,stable,a,8\n").expect("valid");
        assert_eq!((both.epsilons(0), both.epsilons(60)), (vec![0.02], vec![0.05]));
    }

    #[test]
    fn every_mistake_has_its_line() {
        let cases = [
            ("", "t.csv:1: the first line has to be t,role,target"),
            ("time,role,target,x\n", "t.csv:1: the first line has to be t,role,target"),
            ("t,role,target\n", "t.csv:1: the first line has to be"),
            ("t,role,target,x,x\n", "t.csv:1: column x is there twice"),
            ("t,role,target,x\n", "t.csv has no line with readings"),
            ("t,role,target,x\n1,stable,a\n", "t.csv: not CSV"),
            ("t,role,target,x\nnoon,stable,a,1\n", "t.csv:2: t is \"noon\""),
            ("t,role,target,x\n1,both,a,1\n", "t.csv:2: role is \"both\""),
            ("t,role,target,x\n1,stable,,1\n", "t.csv:2: target is empty"),
            ("t,role,target,x\n1,stable,a,-1\n", "t.csv:2: x is \"-1\""),
            ("t,role,target,x\n1,stable,a,inf\n", "t.csv:2: x is \"inf\""),
            ("t,role,target,x\n2,stable,a,1\n1,stable,a,1\n", "t.csv:3: time goes back: t 1 after 2"),
            ("t,role,target,x\n2,stable,a,1\n2,canary,a,1\n", "t.csv:3: a has a second line with t 2"),
        ];
        for (text, expected) in cases {
            let error = format!("{:#}", read(text).expect_err(text));
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
    }
}
