//! `canary replay`: a recording through the same line as live; the exit code is the verdict.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::{Context as _, bail};
use serde_json::json;

use super::Output;
use crate::{
    config::{Config, JudgeConfig},
    daemon,
    judge::{Judge, Outcome, Verdict},
    telemetry::recording::Reader,
    window::Windower,
};

/// Judge a recording again.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A recording, as `canary record` or `--record` makes it
    pub file: PathBuf,
    /// Use the [judge] settings of this configuration instead of the defaults
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Judge this deployment only; needed for an exit code where a recording holds several
    #[arg(long)]
    pub deployment: Option<String>,
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// Exit code 0 healthy, 10 regressed, 11 inconclusive, 12 insufficient data.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let settings = match &args.config {
        Some(path) => Config::load(path)?.judge,
        None => JudgeConfig::default(),
    };
    let mut verdicts = judge(args, &settings)?;
    if let Some(name) = &args.deployment {
        verdicts.retain(|deployment, _| **deployment == **name);
    }
    if verdicts.is_empty() {
        match &args.deployment {
            Some(name) => bail!("{} holds no window of deployment {name}", args.file.display()),
            None => bail!("{} holds no target: nothing can be judged", args.file.display()),
        }
    }
    for (deployment, verdict) in &verdicts {
        match args.output {
            Output::Json => println!("{}", json!({ "deployment": deployment, "verdict": verdict })),
            Output::Text => print(deployment, verdict),
        }
    }
    let worst = verdicts.values().map(|v| v.outcome).max_by_key(|o| severity(*o)).context("there is a verdict")?;
    Ok(ExitCode::from(worst.exit_code()))
}

/// The last verdict on each deployment. A verdict that once was "regressed" stays so, as it does live.
fn judge(args: &Args, settings: &JudgeConfig) -> anyhow::Result<BTreeMap<Arc<str>, Verdict>> {
    let mut lines: BTreeMap<Arc<str>, (Windower, Judge)> = BTreeMap::new();
    let mut verdicts = BTreeMap::new();
    for tick in Reader::open(&args.file)? {
        let tick = tick?;
        for sample in &tick.samples {
            let name = &sample.target.deployment;
            if !lines.contains_key(name) {
                lines.insert(name.clone(), daemon::line(name.clone(), daemon::parameters(settings)));
            }
        }
        for (name, (windower, judge)) in &mut lines {
            verdicts.insert(name.clone(), judge.observe(&windower.push(&tick)));
        }
    }
    Ok(verdicts)
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

fn print(deployment: &str, verdict: &Verdict) {
    println!("{deployment}: {} at window {}", verdict.outcome.name(), verdict.window);
    for reason in &verdict.reasons {
        println!("    {reason}");
    }
    if let Some(onset) = verdict.onset {
        println!("    since window {onset}");
    }
    for cause in &verdict.causes {
        println!("    likely cause: {} ({})", cause.mechanism, cause.text);
    }
}
