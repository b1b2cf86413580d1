//! `canary explain`: the whole story of one decision, from the journal.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::json;

use super::{Output, history::when, past::Past};
use crate::{
    control::{Record, nearest},
    journal::{CommandEntry, HistoryEntry},
};

const NOTES: &str = "\
Reads the journal, beside a running guard and without one; who may not read it
but command the guard gets it from there. IDs are those of `canary history`
and `canary status`; the beginning of one is enough where only one decision
begins so.
Exit code: 0 told, 1 there is no such decision or no journal.

Examples:
  canary explain shop-1795000000000-0001
  canary explain shop-1795000000000-0001 --output json
                                one object: decision, plan, stages, commands";

/// Tell the whole story of one decision: the verdict's reasons, each gate with its reason, the plan, each stage with its
/// time, the way back, and whether it helped.
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct Args {
    /// ID of the decision, or its beginning
    pub id: String,
    #[command(flatten)]
    pub past: Past,
    /// text: for people, times in UTC; json: one object, times in milliseconds since 1970
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Record { decisions, mut commands } = args.past.read(usize::MAX)?;
    let entry = find(decisions, &args.id)?;
    commands.retain(|command| names(command, &entry.decision.id));
    match args.output {
        Output::Json => {
            let whole = json!({
                "decision": entry.decision, "plan": entry.plan, "stages": entry.stages, "commands": commands,
            });
            println!("{}", serde_json::to_string_pretty(&whole).context("write JSON")?);
        }
        Output::Text => print!("{}", text(&entry, &commands)),
    }
    Ok(ExitCode::SUCCESS)
}

fn find(mut all: Vec<HistoryEntry>, id: &str) -> anyhow::Result<HistoryEntry> {
    let mut found: Vec<usize> = (0..all.len()).filter(|at| all[*at].decision.id.starts_with(id)).collect();
    if let Some(exact) = found.iter().copied().find(|at| all[*at].decision.id == id) {
        found = vec![exact];
    }
    match found.as_slice() {
        [at] => Ok(all.swap_remove(*at)),
        [] if all.is_empty() => bail!("there is no decision '{id}': nothing was decided yet"),
        [] => {
            let near = nearest(id, all.iter().take(5).map(|e| e.decision.id.as_str()));
            bail!("there is no decision '{id}': {near}; `canary history` lists them")
        }
        several => {
            let ids: Vec<&str> = several.iter().take(5).map(|at| all[*at].decision.id.as_str()).collect();
            bail!("'{id}' begins {} decisions: {}", several.len(), ids.join(", "))
        }
    }
}

/// Whether a command was about this decision.
fn names(command: &CommandEntry, id: &str) -> bool {
    command.command["id"] == id || command.said.contains(id)
}

fn text(entry: &HistoryEntry, commands: &[CommandEntry]) -> String {
    let d = &entry.decision;
    let mut text = format!("{}\n{} {}, decided {}\n", d.id, d.action, d.deployment, when(d.unix_ms));
    let mut part = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            text += &format!("\n{title}\n");
            lines.iter().for_each(|line| text += &format!("  {line}\n"));
        }
    };
    let mut because = vec![d.reason.clone(), format!("the evidence goes up to window {}", d.window)];
    because.extend(d.recommendation.as_ref().map(|r| format!("recommendation {}: {}", r.priority, r.in_words())));
    part("Because", because);
    let instance = |t: &crate::targets::Target| format!("{} {} {}", t.role, t.version, t.cgroup);
    part("About", d.canary.iter().chain(&d.stable).map(instance).collect());
    let gate = |g: &crate::guard::GateResult| {
        format!("{} {:<17} {}", if g.passed { "passed " } else { "BLOCKED" }, g.gate, g.reason)
    };
    part("Gates", d.gates.iter().map(gate).collect());
    part(&format!("Plan ({})", entry.plan.orchestrator), entry.plan.steps.clone());
    part("Way back", entry.plan.inverse.clone().into_iter().collect());
    let stage = |s: &crate::journal::StageEntry| format!("{} {:<13} {}", when(s.unix_ms), s.stage.name(), s.detail);
    part("What happened", entry.stages.iter().map(stage).collect());
    let command = |c: &CommandEntry| {
        let granted = if c.accepted { "granted" } else { "refused" };
        format!("{} {} {granted}: {}", when(c.unix_ms), c.by, c.said)
    };
    part("What people asked", commands.iter().map(command).collect());
    text
}
