//! The command line: one file per verb, errors printed once, at the edge.

pub mod act;
pub mod calibrate;
pub mod check;
pub mod completions;
pub mod config;
pub mod explain;
pub mod guard;
pub mod history;
pub mod man;
mod past;
pub mod pause;
pub mod record;
pub mod replay;
pub mod report;
pub mod run;
pub mod status;
pub mod top;

use std::io::IsTerminal;

use clap::{Parser, Subcommand, ValueEnum};

/// Watches what each version of a service costs the kernel and takes a canary back that got worse.
#[derive(Debug, Parser)]
#[command(name = "canary", version, propagate_version = true, after_help = EXAMPLES)]
pub struct Cli {
    /// What to log to stderr: error, warn, info, debug (with the kernel programs' own lines), trace; or a filter like
    /// "warn,canary_user::guard=debug"
    #[arg(long, global = true, default_value = "warn", env = "CANARY_LOG")]
    pub log: String,
    #[command(subcommand)]
    pub verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  canary check                       can this machine run the guard, and what
                                     is lost where not
  canary config --config FILE        check a configuration, and print it whole
  canary run --config FILE           watch, judge, and act as far as each
                                     deployment's mode allows
  canary top                         watch the running guard in the terminal
  canary record --config FILE --file run.jsonl
  canary replay run.jsonl            judge a recording again; the exit code is
                                     the verdict
  canary calibrate run.jsonl         how often it would be wrong here, and how
                                     small a change it would find
  canary status                      how things stand, and what keeps the
                                     guard from acting
  canary history --limit 5           what was decided and done, newest first
  canary report --file shop.html     the latest decision as one file: verdict,
                                     charts, causes, what was done
  canary explain ID                  one decision's whole story: reasons,
                                     gates, plan, stages, the way back
  canary rollback shop               take the canary of shop away, whatever
                                     the verdict
  canary hold shop                   have its rollout stand still while you
                                     look; `canary undo ID` lets it go on
  canary pause --for 1h              keep the guard from acting for an hour;
                                     `canary resume` ends it

Exit codes: 0 done, 1 failure, 2 wrong usage. Of `replay`, where the verdict
is the answer: 0 healthy, 10 regressed, 11 inconclusive, 12 insufficient data.";

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the guard on the cgroups that the configuration names
    Run(run::Args),
    /// Tell whether this machine can run the guard: kernel, BTF, cgroup2, PSI, capabilities, each hook tried for real
    Check(check::Args),
    /// Watch a running guard in the terminal; keys choose, show causes and decisions, pause
    Top(top::Args),
    /// Check a configuration and print it with all defaults
    Config(config::Args),
    /// Record what the kernel counts to a file, without judging
    Record(record::Args),
    /// Ask how often the judge would be wrong on your service, and how small a change it would find
    Calibrate(calibrate::Args),
    /// Judge a recording again; the exit code is the verdict
    Replay(replay::Args),
    /// Show how each deployment stands, and what keeps the guard from acting
    Status(status::Args),
    /// Show what was decided and done, from the journal
    History(history::Args),
    /// Write the report of a decision, for the incident's ticket or for a chat
    Report(report::Args),
    /// Tell the whole story of one decision, from the journal
    Explain(explain::Args),
    /// Let a decision that waits for approval be carried out
    Approve(act::ApproveArgs),
    /// Take the canary of a deployment away, whatever the verdict
    Rollback(act::RollbackArgs),
    /// Have the rollout of a deployment stand still; its canary serves on
    Hold(act::HoldArgs),
    /// Take an action back, as was recorded with it
    Undo(act::UndoArgs),
    /// Keep the guard from acting until it is resumed; watching and judging go on
    Pause(pause::PauseArgs),
    /// Let the guard act again
    Resume(pause::ResumeArgs),
    /// Write what makes a shell complete verbs and options
    Completions(completions::Args),
    /// Write the manual pages into a directory
    Man(man::Args),
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    #[default]
    Text,
    Json,
}

/// Whether who reads this stream wants colours: it is a terminal, and NO_COLOR is not set (no-color.org).
fn wants_colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Logs to stderr. A filter that cannot be read is reported and replaced by the default.
pub fn start_log(filter: &str) {
    let parsed = tracing_subscriber::EnvFilter::try_new(filter);
    if let Err(error) = &parsed {
        eprintln!("canary: --log {filter}: {error}; logging warnings only");
    }
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(wants_colour(&std::io::stderr()))
        .with_env_filter(parsed.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn")))
        .init();
}

/// Whether debug lines are wanted, and so the kernel programs' own.
fn wants_kernel_debug() -> bool {
    tracing::enabled!(tracing::Level::DEBUG)
}
