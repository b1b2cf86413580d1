//! `canary report`: what happened in one rollout, as a file for the ticket or as text for the chat.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, ensure};

use crate::{
    journal::Journal,
    watch::report::{DecisionReport, Format},
};

const NOTES: &str = "\
The journal may be read while the guard runs. It keeps the windows of the
latest 50 decisions; a report of an older one is without charts. The guard
writes each report by itself, too: see 'reports' in the configuration.

Examples:
  canary report --file rollback.html
  canary report shop-1795550412-1 --output markdown
  canary report --output json";

/// Write the report of a decision: verdict, evidence, charts, causes, gates, and the action's life.
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct Args {
    /// The decision, as `canary history` names it [default: the latest one]
    pub id: Option<String>,
    /// The guard's journal; the configuration names it as journal
    #[arg(long, default_value = "/var/lib/canary/journal.db")]
    pub journal: PathBuf,
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
    // Opening would make an empty journal, which is not the answer to a mistyped path.
    ensure!(args.journal.exists(), "there is no journal at {}: name it with --journal", args.journal.display());
    let journal = Journal::open_to_read(&args.journal)?;
    let report = DecisionReport::recorded(&journal, args.id.as_deref())?.with_context(|| match &args.id {
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
