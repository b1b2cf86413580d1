//! The whole line, live: sensor, windows, judge, guard, journal, watchers. `canary run` and the demo start it alike.

mod recorded;
pub mod recorder;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
pub use recorded::Recorded;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::{
    config::{Config, DeploymentConfig, OrchestratorKind},
    control::{self, Access, Socket},
    guard::{self, Setup, Summary, Watched, incarnation_below},
    journal::{Journal, archive::Archive},
    judge::{Earlier, Judge, Parameters},
    orchestrator::{
        Orchestrator, command::Command, docker::Docker, dry_run::DryRun, kubernetes::Kubernetes, process::Process,
        systemd::Systemd, webhook::Webhook,
    },
    targets::{self, Target, cgroup::Root, discover, located::Located},
    telemetry::{self, Sensor, Tick, live, recording},
    watch::{
        Board, Snapshot,
        metrics::Metrics,
        notify::{Deliveries, Notifier, Waits},
        report::{Directory, Reporter},
        server,
    },
    window::Windower,
};

/// Ticks that may wait for the line before the sensor waits for it.
const TICKS_IN_FLIGHT: usize = 8;

/// Who carries decisions out, for each deployment; see [`orchestrator`] for the usual answer.
pub type Orchestrators = Box<dyn Fn(&DeploymentConfig) -> anyhow::Result<Arc<dyn Orchestrator>> + Send>;

/// Everything that a live guard is made of. Each part was opened by the caller, so that its failure has a clear place.
pub struct Daemon {
    pub config: Config,
    pub root: Root,
    pub sensor: telemetry::Options,
    pub journal: Journal,
    /// Where metrics and status are served; taken already.
    pub listener: Option<TcpListener>,
    /// Where the verbs find the guard; taken already.
    pub socket: Option<Socket>,
    /// What commands over HTTP have to show; `None` = HTTP takes none.
    pub token: Option<control::Token>,
    pub recording: Option<recording::Writer>,
    pub orchestrator: Orchestrators,
    /// Called with every snapshot, on the line: it must not block.
    pub on_snapshot: guard::OnTick,
}

/// The backend that the configuration names.
///
/// # Errors
/// Where the backend lacks something on this machine.
pub fn orchestrator(
    config: &Config,
    root: &Root,
    deployment: &DeploymentConfig,
) -> anyhow::Result<Arc<dyn Orchestrator>> {
    const CHECKED: &str = "a configuration without it is refused";
    Ok(match deployment.orchestrator {
        OrchestratorKind::DryRun => Arc::new(DryRun),
        OrchestratorKind::Systemd => Arc::new(Systemd::new(&config.systemd_bus, root.clone(), deployment)),
        OrchestratorKind::Docker => Arc::new(Docker::new(&config.docker_socket, deployment)),
        OrchestratorKind::Kubernetes => Arc::new(Kubernetes::new(&config.kubernetes, deployment)),
        OrchestratorKind::Process => Arc::new(Process::new(root.path().to_owned(), deployment.grace, None)),
        OrchestratorKind::Webhook => Arc::new(Webhook::new(deployment.webhook.clone().expect(CHECKED))?),
        OrchestratorKind::Command => Arc::new(Command::new(deployment.command.clone().expect(CHECKED))),
    })
}

/// Runs until `shutdown` completes. Everything is detached and closed when it returns.
///
/// # Errors
/// When the sensor cannot be loaded at all, or the journal cannot say what was left unfinished.
pub async fn run(daemon: Daemon, shutdown: impl Future<Output = ()>) -> anyhow::Result<Summary> {
    let Daemon { config, root, sensor, journal, listener, socket, token, recording, orchestrator, mut on_snapshot } =
        daemon;
    let tls = config.tls.as_ref().map(server::tls::load).transpose()?;
    let watched = |d: &DeploymentConfig| anyhow::Ok(watched(d, &root, orchestrator(d)?, &journal.earlier(&d.name)?));
    let deployments = config.deployments.iter().map(watched).collect::<anyhow::Result<_>>()?;
    let sensor = Sensor::load(root.clone(), &sensor)?;
    for refusal in &sensor.live().refused {
        tracing::warn!("not live: {refusal}");
    }

    let metrics = Metrics::default();
    let board = Board::remembering(&journal)?;
    let deliveries = Deliveries::default();
    metrics.tell_of(deliveries.clone());
    let waits: Waits = config.deployments.iter().map(|d| (d.name.clone(), d.approval_timeout)).collect();
    let notifier = Notifier::start(&config.notify, &waits, config.external_url.as_deref(), &board, &deliveries)?;
    // A journal in memory belongs to a demo, of which nothing is left.
    let journal_path = journal.path();
    let archive = journal_path.as_ref().map(|path| Archive::open(path)).transpose()?;
    let (snapshots, watchers) = watch::channel(Arc::new(Snapshot::default()));
    let reports = config.reports.clone().filter(|_| journal_path.is_some()).map(Directory::new);
    if let Some(reports) = &reports {
        metrics.tell_of_reports(reports.counts());
    }
    let reporter = Reporter::new(board.clone(), watchers.clone(), archive, reports);
    let reporter = tokio::spawn(reporter.run());
    let (stop_servers, servers_stopped) = watch::channel(());
    let stopped = || {
        let mut stopped = servers_stopped.clone();
        async move {
            let _ = stopped.changed().await;
        }
    };
    let (commands, requests) = control::channel();
    let mut servers = Vec::new();
    let sources = |commands, takes_commands, tls| server::Sources {
        metrics: metrics.clone(),
        snapshots: watchers.clone(),
        board: board.clone(),
        journal: journal_path.clone(),
        tls,
        commands,
        takes_commands,
    };
    if let Some(listener) = listener {
        let takes_commands = token.is_some();
        let access = token.map_or(Access::Nobody, Access::Bearer);
        let routes = control::routes(commands.clone(), access, journal_path.clone());
        servers.push(tokio::spawn(server::serve(listener, sources(routes, takes_commands, tls), stopped())));
    }
    if let Some(socket) = socket {
        let routes = control::routes(commands, Access::Peer { group: socket.group() }, journal_path.clone());
        // The page's button shows a token, for which nobody asks here.
        let routes = server::routes(sources(routes, false, None));
        servers.push(tokio::spawn(socket.serve(routes, stopped())));
    }

    let (send, ticks) = mpsc::channel(TICKS_IN_FLIGHT);
    let setup = Setup {
        deployments,
        journal,
        snapshots,
        record: recording.map(record).transpose()?,
        on_entry: Some(Box::new({
            let board = board.clone();
            move |entry| board.tell(entry)
        })),
        on_tick: Some(Box::new(move |snapshot| {
            metrics.record(snapshot);
            board.record(snapshot);
            on_snapshot(snapshot);
        })),
        pause_file: config.pause_file.clone(),
        incarnation_now: incarnation_below(root.path()),
        requests: Some(requests),
    };
    let window = config.window;
    let located = Located::default();
    let followers = followers(&config, &root, &located);
    let live = live::start(sensor, window, follow(config, root, located), send)?;
    let summary = guard::run(ticks, setup, shutdown).await;
    followers.iter().for_each(|task| task.abort());
    // Joining the sensor's thread waits for at most one read.
    drop(live);
    notifier.finish().await;
    // It ends with the snapshots.
    if tokio::time::timeout(Duration::from_secs(5), reporter).await.is_err() {
        tracing::warn!("a report is still being written; it is left");
    }
    drop(stop_servers);
    for server in servers {
        match tokio::time::timeout(Duration::from_secs(2), server).await {
            Ok(served) => served.context("the server's task panicked")??,
            Err(_) => tracing::warn!("a client kept its connection open; it is cut off"),
        }
    }
    summary
}

/// Tasks that ask the orchestrators where instances run.
pub fn followers(config: &Config, root: &Root, located: &Located) -> Vec<JoinHandle<()>> {
    vec![
        tokio::spawn(targets::follow_units(config.clone(), root.clone(), located.clone())),
        tokio::spawn(targets::follow_containers(config.clone(), root.clone(), located.clone())),
        tokio::spawn(targets::follow_pods(config.clone(), root.clone(), located.clone())),
    ]
}

/// Asks the file system again and again; says so once when roles come to overlap.
fn follow(config: Config, root: Root, located: Located) -> impl FnMut() -> Vec<Target> + Send {
    let mut told = None;
    move || {
        let existing = discover::existing(&config, &root);
        let paths: Vec<String> = existing.iter().map(|(path, _)| path.clone()).collect();
        let overlap = config.overlap(&paths).err().map(|e| e.to_string());
        if let Some(text) = overlap.as_ref().filter(|_| overlap != told) {
            tracing::error!("{text}; what both match is not tracked");
        }
        told = overlap;
        discover::among(&config, existing, &root, &located)
    }
}

fn watched(config: &DeploymentConfig, root: &Root, orchestrator: Arc<dyn Orchestrator>, earlier: &Earlier) -> Watched {
    let (mut windower, judge) = line(config.name.clone(), config.judge.clone(), earlier);
    Watched {
        config: config.clone(),
        window: Box::new(move |tick: &Tick| windower.push(tick)),
        judge: Box::new(judge.at_mount(&root.path().to_string_lossy())),
        orchestrator,
    }
}

/// Writes each tick, beside the line.
pub(crate) fn record(mut recording: recording::Writer) -> anyhow::Result<guard::Record> {
    recorder::beside(move |tick| recording.tick(tick))
}

/// The pure part of one deployment's line; replay uses the same.
pub fn line(deployment: Arc<str>, parameters: Parameters, earlier: &Earlier) -> (Windower, Judge) {
    (Windower::new(deployment), Judge::knowing(parameters, earlier))
}

/// The deployments of a recording: each is judged from its first tick on.
pub fn names(config: &Config) -> Vec<String> {
    config.deployments.iter().map(|deployment| deployment.name.to_string()).collect()
}

/// Opens a recording of `config`'s deployments, with what the journal knows of the services.
pub fn recording(
    path: Option<&PathBuf>,
    config: &Config,
    journal: &Journal,
) -> anyhow::Result<Option<recording::Writer>> {
    let Some(path) = path else { return Ok(None) };
    let mut earlier = BTreeMap::new();
    for deployment in &config.deployments {
        let known = journal.earlier(&deployment.name)?;
        if !known.is_empty() {
            earlier.insert(deployment.name.to_string(), serde_json::to_value(known)?);
        }
    }
    recording::Writer::knowing(path, config.window.as_nanos() as u64, names(config), earlier).map(Some)
}
