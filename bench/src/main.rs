//! What the judge can be relied on for, measured: generated services, the guard's own comparison on them, and a table of
//! what it has to reach. `cargo xtask bench judge` starts it.
#![forbid(unsafe_code)]

mod check;
mod counts;
mod detectors;
mod experiments;
mod random;
mod recorded;
mod rows;
mod service;
mod speed;
mod stdin;
mod stretches;
mod table;
mod trial;
mod whole;

use std::{io, process::ExitCode, thread, time::Instant};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use rows::{FULL, QUICK, Results, Row, Unit};
use table::Report;

/// What the random numbers begin with, unless told otherwise. No parameter was chosen on it.
const SEED: u64 = 20;

#[derive(Parser)]
#[command(name = "canary-bench", about = "Measure what the judge can be relied on for", after_help = EXAMPLES)]
struct Options {
    /// Fewer runs: about half a minute on two CPUs instead of several
    #[arg(long)]
    quick: bool,
    /// Only what few runs decide, as `cargo xtask test` does it: equal versions condemned, delays and causes with room to their
    /// limits; less than a minute on two CPUs
    #[arg(long, conflicts_with_all = ["quick", "only"])]
    check: bool,
    /// Judge scenarios read from stdin instead, one JSON verdict line each on stdout; the protocol is in bench/src/stdin.rs
    #[arg(long, conflicts_with_all = ["quick", "check", "only", "output", "seed"])]
    stdin: bool,
    /// Only what contains this in its name, e.g. "+20 quiet" or "equal iid"; "events" is the count test, "stretch"
    /// what is told of anomalous stretches, "recorded" replicas of a real service, "whole" equal versions and "told" causes before the whole judge [default: all]
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// What the random numbers begin with
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Output {
    #[default]
    Text,
    Json,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask bench judge                 every figure that docs/judge.md gives, with its limit
  cargo xtask bench judge --quick         fewer runs
  cargo xtask bench judge --check         the part that a test decides
  cargo xtask bench judge --output json   the same to be read by a program
  cargo xtask bench judge --stdin         judge scenarios of one's own

Exit codes: 0 every figure holds, 1 one falls short, 2 wrong usage. The same seed gives the same verdicts on every machine.";

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    if options.stdin {
        stdin::serve(&mut io::stdin().lock(), &mut io::stdout().lock())?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = if options.check { check(options.seed)? } else { measure(&options)? };
    match options.output {
        Output::Text => table::print(&report),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report).context("write the report as JSON")?),
    }
    Ok(if report.holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure(options: &Options) -> Result<Report> {
    let &Options { quick, seed, .. } = options;
    let started = Instant::now();
    let scale = if quick { QUICK } else { FULL };
    // Alone, before the other threads begin.
    let nanoseconds = speed::nanoseconds();
    let threads = threads();
    let asked = |name: &str| options.only.as_ref().is_none_or(|text| name.contains(text.as_str()));
    let experiments: Vec<_> = rows::experiments(scale).into_iter().filter(|e| asked(&e.name)).collect();
    let questions: Vec<_> = rows::events().into_iter().filter(|_| asked("events")).collect();
    let asked_stretches: Vec<_> = stretches::questions().into_iter().filter(|q| asked(&q.name())).collect();
    let steps = stretches::steps(&asked_stretches, scale.days)
        + experiments.iter().map(|e| e.runs).sum::<usize>()
        + questions.len() * scale.counts;
    let bar = progress(steps)?;

    let outcomes = experiments::run(&experiments, seed, threads, &bar);
    let results = Results { experiments: &experiments, outcomes: &outcomes };
    let mut rows = results.rows();
    for (what, events) in questions {
        rows.push(counted(what, counts::many(events, seed, scale.counts, threads, &bar)));
    }
    rows.extend(stretches::rows(&asked_stretches, seed, scale.days, threads, &bar));
    if asked("recorded") {
        rows.extend(recorded::rows()?);
    }
    bar.finish_and_clear();
    rows.push(Row::new("15", "time per indicator and window", nanoseconds, 150.0, Unit::Nanoseconds));
    let bytes = canary_user::judge::pace::Pace::INDICATOR_BYTES as f64;
    rows.push(Row::new("15", "state per indicator", bytes, 2048.0, Unit::Bytes));
    rows.sort_by_key(|row| row.row.parse::<u32>().unwrap_or(u32::MAX));
    Ok(Report {
        seed,
        quick,
        seconds: started.elapsed().as_secs_f64(),
        holds: rows.iter().all(|row| row.holds || row.stretch),
        comparison: table::comparison(&results),
        rows,
    })
}

/// What few runs decide: no other detectors, no time.
fn check(seed: u64) -> Result<Report> {
    let started = Instant::now();
    let experiments = check::experiments();
    let bar = progress(experiments.iter().map(|e| e.runs).sum())?;
    let mut rows = check::rows(&experiments, seed, threads(), &bar);
    bar.finish_and_clear();
    rows.sort_by_key(|row| row.row.parse::<u32>().unwrap_or(u32::MAX));
    Ok(Report {
        seed,
        quick: true,
        seconds: started.elapsed().as_secs_f64(),
        holds: rows.iter().all(|row| row.holds),
        comparison: Vec::new(),
        rows,
    })
}

fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn progress(steps: usize) -> Result<ProgressBar> {
    let bar = ProgressBar::new(steps as u64);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} runs, {elapsed}, {eta} left");
    bar.set_style(style.context("the template is a constant")?);
    Ok(bar)
}

/// The row of one question to the count test.
fn counted(what: &str, mut condemned: Vec<Option<u64>>) -> Row {
    let runs = condemned.len();
    if !what.starts_with("windows") {
        let n = condemned.iter().flatten().count();
        return Row::share("14", what, n, runs, 0.001, false);
    }
    condemned.sort_by_key(|t| t.unwrap_or(u64::MAX));
    let median = condemned[runs / 2].map_or(f64::INFINITY, |t| t as f64);
    Row::new("14", what, median, 41.0, Unit::Windows).on(runs)
}
