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

/// The judge first, then the others. Of what was run: empty where none of it was.
pub fn comparison(results: &Results) -> Vec<Comparison> {
    type Look<'a> = &'a dyn Fn(&Outcome) -> (Option<usize>, bool);
    let of = |detector: &'static str, look: Look| {
        let seen = |name: &str| -> Option<Vec<(Option<usize>, bool)>> {
            let seen: Vec<_> = results.of(name).iter().filter(|o| o.others.is_some()).map(look).collect();
            Some(seen).filter(|seen| !seen.is_empty())
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
            equal_condemned: compared()
                .filter_map(|k| Some((k.name, share(seen(&format!("equal {}", k.name))?))))
                .collect(),
            delay: ["iid", "ar0.7", "t3", "diurnal"]
                .into_iter()
                .filter_map(|kind| Some((kind, median(seen(&format!("+50 medium {kind}"))?))))
                .collect(),
        }
    };
    let mut list = vec![of("this judge", &|o| (o.delay, o.early))];
    for (d, name) in NAMES.into_iter().enumerate() {
        list.push(of(name, &move |o| o.others.map_or((None, false), |others| others[d])));
    }
    list.retain(|c| !c.equal_condemned.is_empty() || !c.delay.is_empty());
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
    if let Some(first) = report.comparison.first() {
        println!();
        let title = |is_there: bool, title: &str| if is_there { title.to_owned() } else { String::new() };
        let titles = [title(!first.equal_condemned.is_empty(), EQUAL), title(!first.delay.is_empty(), DELAY)];
        println!("the same runs, {}", side_by_side(titles));
        for c in &report.comparison {
            println!("{}: {}", c.detector, figures(c));
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

/// What stands before and after the mark in the lines of the comparison.
const EQUAL: &str = "equal versions condemned";
const DELAY: &str = "+50 % in a medium indicator: windows until found, median";

fn figures(c: &Comparison) -> String {
    let equal: Vec<String> =
        c.equal_condemned.iter().map(|(k, x)| format!("{k} {}", number(*x, Unit::Share))).collect();
    let windows = |delay: Option<f64>| delay.map_or("-".to_owned(), |d| format!("{d:.0}"));
    let delay: Vec<String> = c.delay.iter().map(|(k, d)| format!("{k} {}", windows(*d))).collect();
    side_by_side([equal.join(", "), delay.join(", ")])
}

/// What there is of both.
fn side_by_side(parts: [String; 2]) -> String {
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" | ")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        detectors::DETECTORS,
        experiments::{Effect, Experiment},
        service::{IID, Size},
    };

    fn experiment(name: &str) -> Experiment {
        let (effect, size) = (Effect::Equal, Size::default());
        Experiment { name: name.to_owned(), kind: IID, size, effect, runs: 2, compared: 2, life: None }
    }

    fn outcome(delay: Option<usize>) -> Outcome {
        Outcome { delay, others: Some([(None, false); DETECTORS]), ..Outcome::default() }
    }

    /// What was not asked for has no figure, rather than one that is no number.
    #[test]
    fn only_what_was_run_is_compared() {
        let experiments = [experiment("equal iid"), experiment("+100 loud t3")];
        let outcomes = [vec![outcome(Some(3)), outcome(None)], vec![outcome(Some(9))]];
        let of = |n: usize| comparison(&Results { experiments: &experiments[n..], outcomes: &outcomes[n..] });
        let found = of(0);
        assert_eq!(found.len(), 1 + DETECTORS);
        assert_eq!((&found[0].equal_condemned, found[0].delay.len()), (&vec![("iid", 0.5)], 0));
        assert_eq!((figures(&found[0]), figures(&found[1])), ("iid 50.00 %".to_owned(), "iid 0.00 %".to_owned()));
        assert!(of(1).is_empty(), "none of it was run");
    }
}
