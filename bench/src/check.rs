//! What few runs decide, as a test: equal versions condemned, delays and causes of changes that are found with room to their
//! limits, and verdicts that would need the future. The same seed gives the same figures on every machine.

use indicatif::ProgressBar;

use crate::{
    experiments::{self, Effect, Experiment},
    rows::{self, CHECK, Results, Row},
    service::{IID, LOGN, T3},
};

/// Rows whose figures need no more runs than [`CHECK`] has. Time is left out: it is the machine's.
const DECIDED: [&str; 9] = ["1", "4", "5", "6", "7", "9", "10", "12", "13"];
/// And this of the row of what a window costs: verdicts that moved without the windows after them.
const ONLINE: &str = "15";

/// Steps besides those of +100 %.
const STEPS: [&str; 10] = [
    "+10 quiet iid",
    "+10 quiet ar0.3",
    "+10 quiet t3",
    "+20 quiet iid",
    "+20 quiet ar0.7",
    "+50 medium iid",
    "+50 medium ar0.7",
    "+50 medium ar0.9",
    "pair +50 quiet iid",
    "pair +50 quiet ar0.7",
];

/// What is run.
pub fn experiments() -> Vec<Experiment> {
    rows::experiments(CHECK).into_iter().filter(is_decided).collect()
}

fn is_decided(experiment: &Experiment) -> bool {
    let name = experiment.name.as_str();
    let chosen = match experiment.effect {
        Effect::Equal => true,
        Effect::Step { size, .. } => {
            STEPS.contains(&name) || (size == 1.0 && [IID, T3, LOGN].contains(&experiment.kind))
        }
        Effect::FromTheStart(_) => false,
        // The leaks are found close to their limit.
        Effect::Shape(_) => !name.contains("leak"),
    };
    (chosen || experiment.life.is_some()) && experiment.runs > 0
}

/// The rows that these decide.
pub fn rows(experiments: &[Experiment], seed: u64, threads: usize, bar: &ProgressBar) -> Vec<Row> {
    let outcomes = experiments::run(experiments, seed, threads, bar);
    let mut rows = Results { experiments, outcomes: &outcomes }.rows();
    rows.retain(|row| (DECIDED.contains(&row.row) || row.row == ONLINE) && !row.stretch);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SEED, threads};

    #[test]
    #[cfg_attr(debug_assertions, ignore = "ten million windows: cargo test --release")]
    fn what_few_runs_decide_holds() {
        let rows = rows(&experiments(), SEED, threads(), &ProgressBar::hidden());
        for decided in DECIDED.into_iter().chain([ONLINE]) {
            assert!(rows.iter().any(|row| row.row == decided), "row {decided} is not measured: {rows:#?}");
        }
        let short: Vec<&Row> = rows.iter().filter(|row| !row.holds).collect();
        assert!(short.is_empty(), "falls short: {short:#?}\n`cargo xtask bench judge --check` prints all of it");
    }

    /// One of so few would be within the limit of neither row.
    #[test]
    fn a_single_equal_version_that_is_condemned_falls_short() {
        for (prefix, limit) in [("equal ", 0.001), ("pair ", 0.002), ("whole ", 0.001)] {
            let all = experiments();
            let of = all.iter().filter(|e| e.effect == Effect::Equal && e.name.starts_with(prefix));
            let runs: usize = of.map(|e| e.runs).sum();
            assert!(runs > 300, "{prefix}: {runs}");
            let row = Row::share("1", prefix, 1, runs, limit, false);
            assert!(!row.holds, "{row:?}");
        }
    }
}
