//! `canary top`: a running guard in the terminal, with keys.

use std::{io::IsTerminal as _, net::TcpStream, os::unix::net::UnixStream, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, ensure};

use super::Output;
use crate::{
    config::SOCKET,
    watch::{
        api::State,
        top::{self, Client, Trusted},
    },
};

/// Asked where nobody answers at the socket, or not this user.
const ADDRESS: &str = "127.0.0.1:9847";

const NOTES: &str = "\
Asks the running guard over its socket, as root or a member of the group under
[api]; its keys then need no token. Who may not use the socket asks at
--address, where the configuration names 'listen'. Keys: ? shows them all.
--output json prints the state once and ends.

Examples:
  canary top
  canary top --address 127.0.0.1:9847 --deployment shop
  canary top --address https://node-7:9847 --ca ca.pem --token-file token
  canary top --output json";

/// Watch a running guard in the terminal: verdict, evidence, indicators side by side, causes, and what was done.
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct Args {
    /// The running guard's socket; its configuration has it under [api]
    #[arg(long, value_name = "SOCKET", default_value = SOCKET, env = "CANARY_SOCKET")]
    pub socket: PathBuf,
    /// Where the guard listens; https://NAME:PORT where it has [tls] [default: the socket; where nobody answers there,
    /// 127.0.0.1:9847]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub address: Option<String>,
    /// Trust the certificates in this PEM file, for https [default: those that this machine trusts]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Begin with this deployment [default: the one with most evidence]
    #[arg(long, value_name = "NAME")]
    pub deployment: Option<String>,
    /// Holds the guard's token, for the keys that command it at an address [default: none, only watch there]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// text: a screen with keys; json: the state, once
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// # Errors
/// Where there is no terminal, or for JSON no guard.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let client = client(args)?;
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

/// Over the socket, unless another way is named or a guard answers only there.
fn client(args: &Args) -> anyhow::Result<Client> {
    let is_there = || UnixStream::connect(&args.socket).is_ok();
    let address = match args.address.as_deref() {
        Some(address) => address,
        None if is_there() || TcpStream::connect(ADDRESS).is_err() => return Ok(Client::over_socket(&args.socket)),
        None => ADDRESS,
    };
    let trusted = args.ca.as_deref().map_or(Trusted::Machine, Trusted::File);
    Client::new(address, args.token_file.as_deref(), trusted)
}
