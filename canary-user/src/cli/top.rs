//! `canary top`: a running guard in the terminal, with keys.

use std::{io::IsTerminal as _, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, ensure};

use super::Output;
use crate::watch::{
    api::State,
    top::{self, Client},
};

const NOTES: &str = "\
Reads the API of a running guard, so that its configuration has to name
'listen'. Keys: ? shows them all.
--output json prints the state once and ends.

Examples:
  canary top
  canary top --address 127.0.0.1:9847 --deployment shop
  canary top --output json";

/// Watch a running guard in the terminal: verdict, evidence, indicators side by side, causes, and what was done.
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct Args {
    /// Where the guard listens
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9847")]
    pub address: String,
    /// Begin with this deployment [default: the one with most evidence]
    #[arg(long, value_name = "NAME")]
    pub deployment: Option<String>,
    /// Holds the guard's token, for the keys that command it [default: none, only watch]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// text: a screen with keys; json: the state, once
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// # Errors
/// Where there is no terminal, or for JSON no guard.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.address, args.token_file.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    if args.output == Output::Json {
        let state: State = runtime.block_on(client.get("/api/v1/deployments"))?;
        println!("{}", serde_json::to_string_pretty(&state).context("write JSON")?);
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(
        std::io::stdout().is_terminal() && std::io::stdin().is_terminal(),
        "this is no terminal: use `canary top --output json`"
    );
    // It leaves the terminal as it was also when it panics.
    let mut terminal = ratatui::try_init().context("take the terminal")?;
    let done = runtime.block_on(top::run(&mut terminal, client, args.deployment.clone()));
    ratatui::restore();
    done?;
    Ok(ExitCode::SUCCESS)
}
