//! The whole line, live: sensor, windows, judge, guard, journal, watchers. `canary run` and the demo start it alike.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use prometheus_client::registry::Registry;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
};

use crate::{
    config::{Config, DeploymentConfig, JudgeConfig, OrchestratorKind},
    guard::{self, Judgement, Setup, Summary, Watched, incarnation_below},
    journal::Journal,
    judge::{Judge, Parameters},
    orchestrator::{Orchestrator, dry_run::DryRun, process::Process},
    targets::{Target, cgroup::Root, discover},
    telemetry::{self, Sensor, Tick, live, recording},
    watch::{Snapshot, metrics::Metrics, server},
    window::{Indicator, Windower},
};

/// Ticks that may wait for the line before the sensor waits for it.
const TICKS_IN_FLIGHT: usize = 8;

/// Who carries decisions out, for each deployment; see [`orchestrator`] for the usual answer.
pub type Orchestrators = Box<dyn Fn(&DeploymentConfig) -> Arc<dyn Orchestrator> + Send>;

/// Everything that a live guard is made of. Each part was opened by the caller, so that its failure has a clear place.
pub struct Daemon {
    pub config: Config,
    pub root: Root,
    pub sensor: telemetry::Options,
    pub journal: Journal,
    /// Where metrics and status are served; taken already.
    pub listener: Option<TcpListener>,
    pub recording: Option<recording::Writer>,
    pub orchestrator: Orchestrators,
    /// Called with every snapshot, on the line: it must not block.
    pub on_snapshot: guard::OnTick,
}

/// The backend that the configuration names.
pub fn orchestrator(root: &Root, deployment: &DeploymentConfig) -> Arc<dyn Orchestrator> {
    match deployment.orchestrator {
        OrchestratorKind::DryRun => Arc::new(DryRun),
        OrchestratorKind::Process => Arc::new(Process::new(root.path().to_owned(), deployment.grace, None)),
    }
}

/// Runs until `shutdown` completes. Everything is detached and closed when it returns.
///
/// # Errors
/// When the sensor cannot be loaded at all, or the journal cannot say what was left unfinished.
pub async fn run(daemon: Daemon, shutdown: impl Future<Output = ()>) -> anyhow::Result<Summary> {
    let Daemon { config, root, sensor, journal, listener, recording, orchestrator, mut on_snapshot } = daemon;
    let sensor = Sensor::load(root.clone(), &sensor)?;
    for refusal in &sensor.live().refused {
        tracing::warn!("not live: {refusal}");
    }

    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let (snapshots, watchers) = watch::channel(Arc::new(Snapshot::default()));
    let (stop_server, server_stopped) = oneshot::channel::<()>();
    let server = listener.map(|listener| {
        let stopped = async move {
            let _ = server_stopped.await;
        };
        tokio::spawn(server::serve(listener, Arc::new(registry), watchers, stopped))
    });

    let (send, ticks) = mpsc::channel(TICKS_IN_FLIGHT);
    let setup = Setup {
        deployments: config.deployments.iter().map(|d| watched(d, &config.judge, orchestrator(d))).collect(),
        journal,
        snapshots,
        on_tick: Some(Box::new(move |snapshot| {
            metrics.record(snapshot);
            on_snapshot(snapshot);
        })),
        pause_file: config.pause_file.clone(),
        incarnation_now: incarnation_below(root.path()),
    };
    let window = config.window;
    let live = live::start(sensor, window, follow(config, root), recording, send)?;
    let summary = guard::run(ticks, setup, shutdown).await;
    // Joining the sensor's thread waits for at most one read.
    drop(live);
    drop(stop_server);
    if let Some(server) = server {
        match tokio::time::timeout(Duration::from_secs(2), server).await {
            Ok(served) => served.context("the server's task panicked")??,
            Err(_) => tracing::warn!("a client kept its connection open; it is cut off"),
        }
    }
    summary
}

/// Asks the file system again and again; says so once when roles come to overlap.
fn follow(config: Config, root: Root) -> impl FnMut() -> Vec<Target> + Send {
    let mut told = None;
    move || {
        let paths: Vec<String> = discover::existing(&config, &root).into_iter().map(|(path, _)| path).collect();
        let overlap = config.overlap(&paths).err().map(|e| e.to_string());
        if let Some(text) = overlap.as_ref().filter(|_| overlap != told) {
            tracing::error!("{text}; what both match is not tracked");
        }
        told = overlap;
        discover::targets(&config, &root)
    }
}

fn watched(config: &DeploymentConfig, judge: &JudgeConfig, orchestrator: Arc<dyn Orchestrator>) -> Watched {
    let (mut windower, mut judge) = line(config.name.clone(), parameters(judge));
    Watched {
        config: config.clone(),
        window: Box::new(move |tick: &Tick| windower.push(tick)),
        judge: Box::new(move |window| Judgement {
            verdict: judge.observe(window),
            stable_shift: Indicator::ALL.map(|indicator| judge.stable_shift(indicator)),
        }),
        orchestrator,
    }
}

/// The pure part of one deployment's line; replay uses the same.
pub fn line(deployment: Arc<str>, parameters: Parameters) -> (Windower, Judge) {
    (Windower::new(deployment), Judge::new(parameters))
}

/// The judge's settings: its defaults, but for what the configuration says.
pub fn parameters(config: &JudgeConfig) -> Parameters {
    let mut parameters = Parameters::default();
    if let Some(alpha) = config.alpha {
        parameters.alpha = alpha;
    }
    if let Some(windows) = config.baseline_windows {
        parameters.minimum_baseline = windows;
    }
    if let Some(windows) = config.warmup_windows {
        parameters.warmup_windows = windows;
    }
    parameters
}

/// Opens a recording for `config`'s window length.
pub fn recording(path: Option<&PathBuf>, config: &Config) -> anyhow::Result<Option<recording::Writer>> {
    path.map(|path| recording::Writer::create(path, config.window.as_nanos() as u64)).transpose()
}
