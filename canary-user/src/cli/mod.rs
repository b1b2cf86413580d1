//! The command line: one file per verb, errors printed once, at the edge.

pub mod check;
pub mod config;
pub mod history;
pub mod pause;
pub mod record;
pub mod replay;
pub mod run;

use clap::{Parser, Subcommand, ValueEnum};

/// Watches what each version of a service costs the kernel and takes a canary back that got worse.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, after_help = EXAMPLES)]
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
  canary check                            can this machine do it, and what is lost where not
  canary config --config canary.toml      check a configuration and print it with all defaults
  canary run --config canary.toml         watch, judge, and act as far as each deployment's mode allows
  canary record --config canary.toml --out run.jsonl
  canary replay run.jsonl                 judge a recording again; exit code 0, 10, 11 or 12 is the verdict

Exit codes where a verdict is the answer: 0 healthy, 10 regressed, 11 inconclusive, 12 insufficient data.
Everywhere: 1 failure, 2 wrong usage.";

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the guard on the cgroups that the configuration names
    Run(run::Args),
    /// Tell whether this machine can do it: kernel, BTF, cgroup2, PSI, capabilities, each hook tried for real
    Check(check::Args),
    /// Check a configuration and print it with all defaults
    Config(config::Args),
    /// Record every sample to a file, without judging
    Record(record::Args),
    /// Judge a recording again
    Replay(replay::Args),
    /// What was decided and done, from the journal
    History(history::Args),
    /// Keep the guard from acting until it is resumed
    Pause(pause::Args),
    /// Let the guard act again
    Resume(pause::Args),
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    #[default]
    Text,
    Json,
}

/// Logs to stderr. A filter that cannot be read is reported and replaced by the default.
pub fn start_log(filter: &str) {
    let parsed = tracing_subscriber::EnvFilter::try_new(filter);
    if let Err(error) = &parsed {
        eprintln!("canary: --log {filter}: {error}; logging warnings only");
    }
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(parsed.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn")))
        .init();
}

/// Whether debug lines are wanted, and so the kernel programs' own.
fn wants_kernel_debug() -> bool {
    tracing::enabled!(tracing::Level::DEBUG)
}
