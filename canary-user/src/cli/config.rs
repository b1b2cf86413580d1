//! `canary config`: check a configuration, print it with all defaults.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;

use super::Output;
use crate::{
    config::Config,
    targets::{cgroup::Root, discover},
};

const NOTES: &str = "\
A mistake is told with file, line, column, key and what to write instead. A
pattern that matches no cgroup yet is a warning on stderr.
Exit code: 0 the configuration is valid, 1 it is not.

Examples:
  canary config --config canary.toml
  canary config --config canary.toml >checked.toml    a configuration again
  canary config --output json                         one object, for programs";

/// Check a configuration and print it with all defaults.
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct Args {
    /// The configuration file to check
    #[arg(long, default_value = "/etc/canary/canary.toml")]
    pub config: PathBuf,
    /// text: the configuration as TOML; json: the same as one object
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// # Errors
/// The first mistake in the file, with its place; or two roles that match one existing cgroup.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(&args.config)?;
    // Without cgroup2 the file can still be checked by itself.
    match Root::find() {
        Ok(root) => warn_of_patterns(&config, &root)?,
        Err(error) => eprintln!("warning: the patterns were not tried on this machine: {error:#}"),
    }
    match args.output {
        Output::Text => print!("{config}"),
        Output::Json => println!("{}", json(&config)?),
    }
    Ok(ExitCode::SUCCESS)
}

/// The keys and values that are printed as TOML, in the other notation.
fn json(config: &Config) -> anyhow::Result<String> {
    let value: serde_json::Value = toml::from_str(&config.to_string()).context("read what was printed")?;
    serde_json::to_string_pretty(&value).context("write JSON")
}

/// Refuses roles that overlap on the cgroups that exist; warns of patterns that match nothing yet.
pub fn warn_of_patterns(config: &Config, root: &Root) -> anyhow::Result<()> {
    let paths: Vec<String> = discover::existing(config, root).into_iter().map(|(path, _)| path).collect();
    config.overlap(&paths)?;
    for warning in config.unmatched(&paths) {
        eprintln!("warning: {warning}");
    }
    Ok(())
}
