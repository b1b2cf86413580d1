//! `canary history`: what was decided and done, newest first.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use serde_json::json;

use super::{Output, past::Past};
use crate::journal::HistoryEntry;

const NOTES: &str = "\
The journal may be read while the guard runs; who may not read it but command
the guard gets it from there.
Exit code: 0 also where nothing was decided yet, 1 there is no such journal.

Examples:
  canary history
  canary history --limit 1 --output json  an array of {decision, plan, stages}";

/// Show what was decided and done, from the journal, newest first: each decision, why, which gate held it back, and
/// each stage that it went through.
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct Args {
    #[command(flatten)]
    pub past: Past,
    /// Show at most this many decisions
    #[arg(long, default_value_t = 20)]
    pub limit: usize,
    /// text: a few lines per decision, times in UTC; json: one array, times in milliseconds since 1970
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let entries = args.past.read(args.limit)?.decisions;
    match args.output {
        Output::Json => {
            let all: Vec<_> = entries.iter().map(object).collect();
            println!("{}", serde_json::to_string_pretty(&all).context("write JSON")?);
        }
        Output::Text if entries.is_empty() => println!("Nothing was decided yet."),
        Output::Text => entries.iter().for_each(print),
    }
    Ok(ExitCode::SUCCESS)
}

fn object(entry: &HistoryEntry) -> serde_json::Value {
    let stages: Vec<_> =
        entry.stages.iter().map(|s| json!({ "stage": s.stage, "detail": s.detail, "unix_ms": s.unix_ms })).collect();
    json!({ "decision": entry.decision, "plan": entry.plan, "stages": stages })
}

fn print(entry: &HistoryEntry) {
    let decision = &entry.decision;
    println!("{}  {}  {} {}", when(decision.unix_ms), decision.id, decision.action, decision.deployment);
    println!("    because {}", decision.reason);
    if let Some(gate) = decision.blocked_by() {
        println!("    held back by {}: {}", gate.gate, gate.reason);
    }
    for stage in &entry.stages {
        println!("    {} {}: {}", when(stage.unix_ms), stage.stage.name(), stage.detail);
    }
}

pub(super) fn when(unix_ms: u64) -> String {
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + Duration::from_millis(unix_ms)).to_string()
}
