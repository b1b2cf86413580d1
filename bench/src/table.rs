//! The result as text and as JSON.

use serde::Serialize;

use crate::{
    detectors::NAMES,
    experiments::Outcome,
    rows::{Results, Row, Unit, compared},
};

/// How the judge and each other detector do on the same runs.
#[derive(Serialize)]
pub struct Comparison {
    pub detector: &'static str,
    /// Share of equal versions condemned, by kind.
    pub equal_condemned: Vec<(&'static str, f64)>,
    /// Windows until +50 % in a medium indicator is found, median, by kind; `None` where most alarms came before it.
    pub delay: Vec<(&'static str, Option<f64>)>,
}

#[derive(Serialize)]
pub struct Report {
    pub seed: u64,
    pub quick: bool,
    pub seconds: f64,
    pub holds: bool,
    pub rows: Vec<Row>,
    pub comparison: Vec<Comparison>,
}

/// The judge first, then the others.
pub fn comparison(results: &Results) -> Vec<Comparison> {
    type Look<'a> = &'a dyn Fn(&Outcome) -> (Option<usize>, bool);
    let of = |detector: &'static str, look: Look| {
        let seen = |name: &str| -> Vec<(Option<usize>, bool)> {
            results.of(name).iter().filter(|o| o.others.is_some()).map(look).collect()
        };
        let share = |found: Vec<(Option<usize>, bool)>| {
            found.iter().filter(|(t, early)| t.is_some() || *early).count() as f64 / found.len() as f64
        };
        let median = |found: Vec<(Option<usize>, bool)>| {
            let mut delays: Vec<f64> = found.iter().map(|(t, _)| t.map_or(f64::INFINITY, |t| t as f64)).collect();
            delays.sort_by(f64::total_cmp);
            delays.get(delays.len() / 2).copied().filter(|d| d.is_finite())
        };
        Comparison {
            detector,
            equal_condemned: compared().map(|k| (k.name, share(seen(&format!("equal {}", k.name))))).collect(),
            delay: ["iid", "ar0.7", "t3", "diurnal"]
                .map(|kind| (kind, median(seen(&format!("+50 medium {kind}")))))
                .into(),
        }
    };
    let mut list = vec![of("this judge", &|o| (o.delay, o.early))];
    for (d, name) in NAMES.into_iter().enumerate() {
        list.push(of(name, &move |o| o.others.map_or((None, false), |others| others[d])));
    }
    list
}

pub fn print(report: &Report) {
    println!("{:<4} {:<72} {:>12} {:>12} {:>8}  ", "row", "what", "value", "limit", "runs");
    for row in &report.rows {
        let sign = if row.at_least { ">=" } else { "<=" };
        let mark = match (row.holds, row.stretch) {
            (true, _) => "ok",
            (false, true) => "not reached (goal)",
            (false, false) => "FALLS SHORT",
        };
        let limit = format!("{sign} {}", number(row.limit, row.unit));
        let detail = if row.detail.is_empty() { String::new() } else { format!("  ({})", row.detail) };
        println!(
            "{:<4} {:<72} {:>12} {limit:>12} {:>8}  {mark}{detail}",
            row.row,
            row.what,
            number(row.value, row.unit),
            row.runs
        );
    }
    if !report.comparison.is_empty() {
        println!();
        println!("the same runs, equal versions condemned | +50 % in a medium indicator: windows until found, median");
        for c in &report.comparison {
            let equal: Vec<String> =
                c.equal_condemned.iter().map(|(k, x)| format!("{k} {}", number(*x, Unit::Share))).collect();
            let delay: Vec<String> = c
                .delay
                .iter()
                .map(|(k, d)| format!("{k} {}", d.map_or("-".to_owned(), |d| format!("{d:.0}"))))
                .collect();
            println!("{}: {} | {}", c.detector, equal.join(", "), delay.join(", "));
        }
    }
    println!();
    let short = report.rows.iter().filter(|r| !r.holds && !r.stretch).count();
    let goals = report.rows.iter().filter(|r| !r.holds && r.stretch).count();
    println!(
        "{} of {} figures hold, {short} fall short, {goals} goals are not reached; seed {}, {:.0} s",
        report.rows.iter().filter(|r| r.holds).count(),
        report.rows.len(),
        report.seed,
        report.seconds
    );
}

fn number(value: f64, unit: Unit) -> String {
    match unit {
        _ if value.is_infinite() => "never".to_owned(),
        Unit::Share => format!("{:.2} %", 100.0 * value),
        Unit::Windows | Unit::Number => format!("{value:.0}"),
        Unit::PerDay => format!("{value:.2}"),
        Unit::Nanoseconds => format!("{value:.0} ns"),
        Unit::Bytes => format!("{value:.0} B"),
    }
}
