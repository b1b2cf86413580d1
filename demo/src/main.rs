//! `canary-demo`: the demo's command line. `run` is for people; it starts the other verbs as its child processes.

#![forbid(unsafe_code)]

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use canary_demo::{enter, neighbour, run, serve, service, upstream};
use clap::{Parser, Subcommand};
use tokio::runtime::Builder;

const EXAMPLES: &str = "\
Examples:
  canary-demo run
  canary-demo run --scenario latency --severity 3x
  canary-demo run --orchestrator systemd --scenario crash
  canary-demo run --scenario healthy --duration 2m --output json >windows.jsonl

Exit codes: 0 the guard did what the scenario calls for, 1 it did not or the run failed, 2 wrong usage.";

/// A small HTTP service in two versions, load on both, and the guard on top. Needs root.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Start stable and canary in cgroups of their own, send load, and make the canary regress
    Run(run::Options),
    /// One instance of the service. Takes faults on standard input, one JSON object per line; ends when it closes. With a
    /// registry, from there instead.
    #[command(hide = true)]
    Serve {
        /// Address to listen on; port 0 lets the system choose. The address is printed as the first line.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        #[command(flatten)]
        equipment: service::Equipment,
        /// Directory in which this instance and the demo find each other.
        #[arg(long)]
        registry: Option<PathBuf>,
        /// How long after its start it tells the registry its address.
        #[arg(long, value_parser = humantime::parse_duration, default_value = "0s")]
        ready_after: Duration,
    },
    /// Moves itself into cgroups and becomes the program after '--'.
    #[command(hide = true)]
    Enter(enter::Options),
    /// What instances depend on. Ends when standard input closes; its address is printed as the first line.
    #[command(hide = true)]
    Upstream,
    /// Does nothing, as what an instance starts now and then.
    #[command(hide = true)]
    Helper {
        /// Whether it ends with status 1.
        #[arg(long)]
        fail: bool,
    },
    /// Keeps this many threads busy until standard input closes.
    #[command(hide = true)]
    Burn {
        #[arg(long)]
        threads: usize,
    },
}

fn main() -> ExitCode {
    // The demo speaks through its view; the log is for what goes wrong.
    canary_user::cli::start_log("warn");
    match Cli::parse().verb.execute() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("canary-demo: {e:#}");
            ExitCode::FAILURE
        }
    }
}

impl Verb {
    /// False where the verb ran and its answer is no.
    fn execute(self) -> anyhow::Result<bool> {
        match self {
            Verb::Run(options) => {
                let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().context("runtime")?;
                runtime.block_on(run::run(options))
            }
            Verb::Serve { listen, equipment, registry, ready_after } => {
                let runtime = Builder::new_current_thread().enable_all().build().context("runtime")?;
                runtime.block_on(serve::serve(listen, equipment, registry.map(|dir| (dir, ready_after)))).map(|()| true)
            }
            Verb::Enter(options) => enter::enter(options).map(|()| true),
            Verb::Upstream => upstream::serve().map(|()| true),
            Verb::Helper { fail } => Ok(!fail),
            Verb::Burn { threads } => neighbour::burn(threads).map(|()| true),
        }
    }
}
