//! `canary run`: the guard on the cgroups that the configuration names.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::builder::PossibleValuesParser;
use tokio::signal::unix::{SignalKind, signal};

use super::{Output, config::warn_of_patterns, wants_kernel_debug};
use crate::{
    config::Config,
    control::{self, Token},
    daemon::{self, Daemon},
    journal::Journal,
    targets::cgroup::Root,
    telemetry::{Options, capabilities, hooks},
    watch::{Show, TerminalView, View, server, systemd::Systemd},
};

const NOTES: &str = "\
Needs root, or the capabilities that `canary check` lists. Runs until SIGINT
or SIGTERM, and leaves nothing in the kernel.
Exit code: 0 it was asked to stop, 1 it could not start or go on.

Examples:
  canary run --config canary.toml
  canary run --config canary.toml --listen 127.0.0.1:9847 --record run.jsonl
  canary run --config canary.toml --output json >windows.jsonl";

/// Run the guard on the cgroups that the configuration names.
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct Args {
    /// The configuration file
    #[arg(long, default_value = "/etc/canary/canary.toml")]
    pub config: PathBuf,
    /// Serve metrics, status and probes here, such as 127.0.0.1:9847 [default: the configuration's listen]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Also record what the kernel counts to this new file, for `canary replay` [default: no recording]
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Leave this hook out; what it would have counted is absent, not zero. May be given several times [default: none]
    #[arg(long = "disable-hook", value_name = "HOOK", value_parser = PossibleValuesParser::new(hooks::names()))]
    pub disable_hooks: Vec<String>,
    /// text: a live view on a terminal, else lines; json: one object per window and deployment, one a line
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// # Errors
/// Each part that cannot be had is named: configuration, cgroup2, journal, address, kernel.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut config = Config::load(&args.config)?;
    config.listen = args.listen.or(config.listen);
    // First of all: without them the next complaint would be about a journal that only root can write.
    capabilities::ensure_held()?;
    let root = Root::find()?;
    warn_of_patterns(&config, &root)?;
    let journal = Journal::open(&config.journal)?;
    let recording = daemon::recording(args.record.as_ref(), &config, &journal)?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(async {
            // Taken before the kernel programs are loaded: a mistyped address costs nothing.
            let listener = match config.listen {
                Some(address) => Some(server::bind(address).await?),
                None => None,
            };
            let token = config.api.token_file.as_deref().map(Token::read).transpose()?;
            // A guard that cannot be commanded still watches, and the pause file still holds it.
            let socket = control::bind(&config.api).await;
            if let Err(error) = &socket {
                tracing::warn!("`canary status`, `pause` and the like do not reach this guard: {error:#}");
            }
            let (for_orchestrator, settings) = (root.clone(), config.clone());
            let view = match args.output {
                Output::Json => View::Json,
                Output::Text => {
                    let names: Vec<&str> = config.deployments.iter().map(|d| &*d.name).collect();
                    View::Terminal(Box::new(TerminalView::new(format!("canary: {}", names.join(", ")), None)))
                }
            };
            let stop = asked_to_stop()?;
            let show = Show::start(view)?;
            let teller = show.teller();
            let mut systemd = Systemd::from_environment(config.window);
            let daemon = Daemon {
                config,
                root,
                sensor: Options { disabled_hooks: args.disable_hooks.clone(), kernel_debug: wants_kernel_debug() },
                journal,
                listener,
                socket: socket.ok(),
                token,
                recording,
                orchestrator: Box::new(move |deployment| {
                    daemon::orchestrator(&settings, &for_orchestrator, deployment)
                }),
                on_snapshot: Box::new(move |snapshot| {
                    teller.snapshot(snapshot);
                    if let Some(systemd) = &mut systemd {
                        systemd.window_came();
                    }
                }),
            };
            let done = daemon::run(daemon, stop).await;
            if let Err(error) = show.finish() {
                tracing::warn!("the view ended early: {error:#}");
            }
            done
        })?;
    Ok(ExitCode::SUCCESS)
}

/// SIGINT or SIGTERM. Registered at once, so that one that comes early is not missed.
pub fn asked_to_stop() -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
