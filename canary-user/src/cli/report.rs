//! `canary report`: what happened in one rollout, as a file for the ticket or as text for the chat.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context as _;

use super::past::Past;
use crate::watch::report::Format;

const NOTES: &str = "\
The journal may be read while the guard runs; who may not read it but command
the guard gets the report from there. It keeps the windows of the latest 50
decisions; a report of an older one is without charts. The guard writes each
report by itself, too: see 'reports' in the configuration.

Examples:
  canary report --file rollback.html
  canary report shop-1795550412000-0001 --output markdown
  canary report --output json";

/// Write the report of a decision: verdict, evidence, charts, causes, gates, and the action's life.
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct Args {
    /// The decision, as `canary history` names it [default: the latest one]
    pub id: Option<String>,
    #[command(flatten)]
    pub past: Past,
    /// html: one file that needs nothing else; markdown: for a chat; json: what both are made from
    #[arg(long, value_enum, default_value_t)]
    pub output: Format,
    /// Write to this file; one that exists is overwritten [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// # Errors
/// Where there is no such journal or decision.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let report = args.past.report(args.id.as_deref())?.with_context(|| match &args.id {
        Some(id) => format!("there is no decision {id}: `canary history` lists them"),
        None => "nothing was decided yet".to_owned(),
    })?;
    let text = report.text(args.output);
    match &args.file {
        Some(file) => fs::write(file, text).with_context(|| format!("write {}", file.display()))?,
        None => print!("{text}"),
    }
    Ok(ExitCode::SUCCESS)
}
