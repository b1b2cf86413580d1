//! `canary replay`: a recording through the same line as live; the exit code is the verdict.

mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use serde_json::json;

use super::{Output, wants_colour};
use crate::{
    config::{self, Config},
    daemon::Recorded,
    judge::{Earlier, Outcome, Parameters, Verdict, columns::ColumnState},
    telemetry::recording::Reader,
    watch::chart::{self, Timeline},
};

/// Points of a course that are kept: enough for any screen.
const POINTS: usize = 2000;
/// Size of the SVG, in pixels.
const SVG: (u32, u32) = (960, 560);
/// Size of the plot where there is no terminal to ask, in characters.
const PLOT: (u16, u16) = (100, 30);

const NOTES: &str = "\
Nothing is acted on, and neither root nor eBPF is needed. The same recording
gives the same verdict every time.
Exit code: 0 healthy, 10 regressed, 11 inconclusive, 12 insufficient data; of
several deployments that which most needs attention: regressed, else
inconclusive, else insufficient data. 1 where the recording cannot be read.

A table of indicators has the first line t,role,target and then any names; t
is in seconds, role stable or canary. It is judged by the same comparison,
without what only the kernel knows (docs/recording.md).

Examples:
  canary replay run.jsonl
  canary replay latencies.csv --lower-is-worse hit_rate
  canary replay run.jsonl --what-if alpha=0.01
  canary replay run.jsonl --what-if indicator.cpu_per_work.delta=0.1
  canary replay latencies.csv --what-if indicator.p99.delta=0.1
  canary replay run.jsonl --deployment shop --svg shop.svg
  canary replay run.jsonl --config canary.toml --deployment shop --output json";

/// Judge a recording again; the exit code is the verdict after its last window.
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct Args {
    /// A recording, as `canary record` or `--record` makes it; or a table of indicators, NAME.csv
    pub file: PathBuf,
    /// Of a table: this indicator is worse where it is smaller. May be given several times [default: larger is worse]
    #[arg(long = "lower-is-worse", value_name = "INDICATOR")]
    pub lower_is_worse: Vec<String>,
    /// Use the [judge] settings of this configuration [default: the judge's defaults]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Judge as if this key of [judge] had another value; may be given several times. Of a table, indicator.NAME is the column
    /// of that name [default: as configured]
    #[arg(long = "what-if", value_name = "KEY=VALUE")]
    pub what_if: Vec<String>,
    /// Tell of this deployment only, and let its verdict be the exit code [default: all]
    #[arg(long, value_name = "NAME")]
    pub deployment: Option<String>,
    /// Draw evidence and P(t) over time: auto draws where stdout is a terminal
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    pub plot: Plot,
    /// Also draw them to this SVG file; one that exists is overwritten [default: none]
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// text: the verdict with its reasons; json: one object {deployment, verdict, course} a line
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// When to draw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Plot {
    #[default]
    Auto,
    Always,
    Never,
}

/// How one deployment was judged: at the end, and on the way there.
struct Judged {
    verdict: Verdict,
    course: Timeline,
    /// Of a table: the state of each indicator.
    columns: Option<Vec<ColumnState>>,
}

/// Exit code 0 healthy, 10 regressed, 11 inconclusive, 12 insufficient data.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = args.config.as_ref().map(|path| Config::load(path)).transpose()?;
    let configured = |deployment: &str| {
        let own = config.as_ref().and_then(|c| c.deployments.iter().find(|d| *d.name == *deployment));
        own.map(|d| &d.judge).or(config.as_ref().map(|c| &c.judge)).cloned().unwrap_or_default()
    };
    let parameters = |deployment: &str| config::what_if(&configured(deployment), &args.what_if);
    let mut judged = if table::is_one(args) {
        let (of_columns, others): (Vec<String>, Vec<String>) =
            args.what_if.iter().cloned().partition(|pair| table::is_of_a_column(pair));
        let configured = configured(args.deployment.as_deref().unwrap_or_default());
        table::judge(args, config::what_if(&configured, &others)?, &of_columns)?
    } else {
        if !args.lower_is_worse.is_empty() {
            bail!("--lower-is-worse is for tables; of a recording, use --what-if indicator.NAME.direction=down");
        }
        judge(args, &parameters)?
    };
    if let Some(name) = &args.deployment {
        judged.retain(|deployment, _| **deployment == **name);
    }
    if judged.is_empty() {
        match &args.deployment {
            Some(name) => bail!("{} holds no window of deployment {name}", args.file.display()),
            None => bail!("{} holds no target: nothing can be judged", args.file.display()),
        }
    }
    draw(args, &judged)?;
    for (deployment, Judged { verdict, course, columns }) in &judged {
        match args.output {
            Output::Json => {
                let mut line = json!({ "deployment": deployment, "verdict": verdict, "course": course });
                if let Some(columns) = columns {
                    line["columns"] = json!(columns);
                }
                println!("{line}");
            }
            Output::Text => {
                print!("{}", describe(deployment, verdict));
                print!("{}", plot(args.plot, deployment, course));
            }
        }
    }
    let worst =
        judged.values().map(|j| j.verdict.outcome).max_by_key(|o| severity(*o)).context("there is a verdict")?;
    Ok(ExitCode::from(worst.exit_code()))
}

/// What was known of each deployment when the recording began.
pub(super) fn earlier(reader: &Reader, file: &Path) -> anyhow::Result<BTreeMap<String, Earlier>> {
    let known = reader.header().earlier.iter().map(|(name, known)| {
        let known = serde_json::from_value(known.clone());
        Ok((name.clone(), known.with_context(|| format!("{}:1: what was known of {name}", file.display()))?))
    });
    known.collect()
}

/// The last verdict on each deployment. A verdict that once was "regressed" stays so, as it does live.
fn judge(
    args: &Args,
    parameters: &dyn Fn(&str) -> anyhow::Result<Parameters>,
) -> anyhow::Result<BTreeMap<Arc<str>, Judged>> {
    // Refused before anything is read: a mistyped key costs nothing.
    parameters("")?;
    let mut judged: BTreeMap<Arc<str>, Judged> = BTreeMap::new();
    let reader = Reader::open(&args.file)?;
    let earlier = earlier(&reader, &args.file)?;
    let line = |name: &Arc<str>| -> anyhow::Result<Recorded> {
        let earlier = earlier.get(&**name).cloned().unwrap_or_default();
        Ok(Recorded::new(name.clone(), parameters(name)?, &earlier))
    };
    // Those that were watched are judged from the first tick on, as they were live: windows have the same numbers then.
    let mut lines: BTreeMap<Arc<str>, Recorded> = BTreeMap::new();
    for name in &reader.header().deployments {
        let name: Arc<str> = name.as_str().into();
        lines.insert(name.clone(), line(&name)?);
    }
    let mut seen: BTreeSet<Arc<str>> = BTreeSet::new();
    // Drawn on a terminal only, and only once it takes a while.
    let style = ProgressStyle::with_template("{spinner} {pos} ticks judged, {per_sec}")?;
    let bar = ProgressBar::new_spinner().with_style(style).with_finish(ProgressFinish::AndClear);
    for tick in bar.wrap_iter(reader) {
        let tick = tick?;
        for sample in &tick.samples {
            let name = &sample.target.deployment;
            if seen.contains(name) {
                continue;
            }
            seen.insert(name.clone());
            if !lines.contains_key(name) {
                lines.insert(name.clone(), line(name)?);
            }
        }
        for (name, line) in &mut lines {
            let verdict = line.push(&tick).with_context(|| args.file.display().to_string())?;
            match judged.get_mut(name) {
                Some(known) => {
                    known.course.push(&verdict, tick.t_ns);
                    known.verdict = verdict;
                }
                None => {
                    let mut course = Timeline::new(POINTS);
                    course.push(&verdict, tick.t_ns);
                    judged.insert(name.clone(), Judged { verdict, course, columns: None });
                }
            }
        }
    }
    // Of those that never were there is nothing to tell.
    judged.retain(|name, _| seen.contains(name));
    Ok(judged)
}

/// Which verdict speaks for several: what needs attention most.
fn severity(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Healthy => 0,
        Outcome::InsufficientData => 1,
        Outcome::Inconclusive => 2,
        Outcome::Regressed => 3,
    }
}

fn draw(args: &Args, judged: &BTreeMap<Arc<str>, Judged>) -> anyhow::Result<()> {
    let Some(path) = &args.svg else { return Ok(()) };
    if judged.len() > 1 {
        let names: Vec<&str> = judged.keys().map(|n| &**n).collect();
        bail!("--svg draws one deployment: choose one with --deployment ({})", names.join(", "));
    }
    for (deployment, Judged { course, .. }) in judged {
        let text = chart::svg(&course.chart(&**deployment), SVG.0, SVG.1);
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn plot(when: Plot, deployment: &str, course: &Timeline) -> String {
    let terminal = std::io::stdout().is_terminal();
    if when == Plot::Never || (when == Plot::Auto && !terminal) {
        return String::new();
    }
    let (columns, rows) = crossterm::terminal::size().ok().filter(|_| terminal).unwrap_or(PLOT);
    let colour = wants_colour(&std::io::stdout());
    // Some of the screen is left for the verdict above it.
    let drawn =
        chart::terminal(&course.chart(deployment), columns.min(160), rows.saturating_sub(8).clamp(16, 40), colour);
    format!("\n{drawn}")
}

/// The verdict with what speaks for it.
fn describe(deployment: &str, verdict: &Verdict) -> String {
    let mut text = String::new();
    // Strings take every write.
    let _ = writeln!(text, "{deployment}: {} at window {}", verdict.outcome.name(), verdict.window);
    for reason in &verdict.reasons {
        let _ = writeln!(text, "    {reason}");
    }
    if let Some(onset) = verdict.onset {
        let _ = writeln!(text, "    since window {onset}");
    }
    for cause in &verdict.causes {
        let _ = writeln!(text, "    likely cause: {} ({})", cause.mechanism, cause.text);
        if !cause.ruled_out.is_empty() {
            let _ = writeln!(text, "        not: {}", cause.ruled_out.join(", "));
        }
    }
    for sign in &verdict.environment.signs {
        let _ = writeln!(text, "    environment: {}", sign.text);
    }
    if let Some(forecast) = &verdict.forecast {
        let _ = writeln!(text, "    forecast: {}", forecast.in_words());
    }
    for stretch in &verdict.stretches {
        let _ = writeln!(text, "    stretch: {}", stretch.text);
    }
    for step in &verdict.recommendations {
        let _ = writeln!(text, "    advice {}: {}", step.priority, step.in_words());
        if !step.would_change.is_empty() {
            let _ = writeln!(text, "        unless {}", step.would_change);
        }
    }
    text
}
