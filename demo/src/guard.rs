//! The guard on top of the demo: the same line as `canary run`. Where the instances are the demo's own processes, the fleet is its
//! orchestrator's supervisor.

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use canary_user::{
    config::Config,
    daemon::{self, Daemon},
    guard::{Mode, Summary},
    journal::Journal,
    orchestrator::process::{Control, Process},
    targets::cgroup::Root,
    telemetry,
    watch::{Teller, server},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::observer::Observer;

/// How long the canary may take to finish what it has in flight.
const GRACE: Duration = Duration::from_secs(2);
/// The judge takes no shorter one.
const LEAST_HORIZON: u64 = 60;

/// What the demo tells the guard.
pub struct Settings {
    pub window: Duration,
    /// How long the rollout is, in windows: what the judge promises is for so long, and what it can show within it.
    pub canary_windows: u64,
    pub mode: Mode,
    pub listen: Option<SocketAddr>,
    pub record: Option<PathBuf>,
    pub hands: Hands,
}

/// Whom the guard asks to take the canary away, and what names the versions there.
pub enum Hands {
    /// `cgroups` is the path of the demo's cgroups below the cgroup2 root.
    Process { cgroups: String, control: mpsc::Sender<Control> },
    /// `names` are patterns of stable's units and of the canary's.
    Systemd { bus: String, names: [String; 2] },
    /// `names` are patterns of stable's containers and of the canary's.
    Docker { socket: PathBuf, names: [String; 2] },
}

/// The keys of the deployment.
impl fmt::Display for Hands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (orchestrator, key, [stable, canary]) = match self {
            Hands::Process { cgroups, .. } => {
                ("process", "cgroup", [format!("{cgroups}/stable-*"), format!("{cgroups}/canary-*")])
            }
            Hands::Systemd { names, .. } => ("systemd", "systemd", names.clone()),
            Hands::Docker { names, .. } => ("docker", "container", names.clone()),
        };
        writeln!(f, "orchestrator = \"{orchestrator}\"")?;
        writeln!(f, "stable = {{ {key} = {stable:?}, version = \"v1\" }}")?;
        writeln!(f, "canary = {{ {key} = {canary:?}, version = \"v2\" }}")
    }
}

/// Starts the guard; it runs until `end` is dropped.
///
/// # Errors
/// A taken address, or a recording that cannot be made. What the kernel refuses ends the task.
pub async fn start(
    settings: Settings,
    observer: Arc<Observer>,
    teller: Teller,
    end: oneshot::Receiver<()>,
) -> anyhow::Result<JoinHandle<anyhow::Result<Summary>>> {
    let config = config(&settings)?;
    let root = Root::find()?;
    let listener = match config.listen {
        Some(address) => Some(server::bind(address).await?),
        None => None,
    };
    let (cgroup2, machine, whole) = (root.path().to_owned(), root.clone(), config.clone());
    let hands = settings.hands;
    // The demo's canary never outlives the demo, so there is nothing to remember on disk.
    let journal = Journal::in_memory()?;
    let daemon = Daemon {
        recording: daemon::recording(settings.record.as_ref(), &config, &journal)?,
        root,
        sensor: telemetry::Options::default(),
        journal,
        listener,
        socket: None,
        token: None,
        orchestrator: Box::new(move |deployment| match &hands {
            Hands::Process { control, .. } => {
                Ok(Arc::new(Process::new(cgroup2.clone(), deployment.grace, Some(control.clone()))))
            }
            Hands::Systemd { .. } | Hands::Docker { .. } => daemon::orchestrator(&whole, &machine, deployment),
        }),
        on_snapshot: Box::new(move |snapshot| {
            observer.see(snapshot);
            teller.snapshot(snapshot);
        }),
        config,
    };
    Ok(tokio::spawn(daemon::run(daemon, async move {
        let _ = end.await;
    })))
}

/// Written as a user would write it, so that it goes through the same checks.
fn config(settings: &Settings) -> anyhow::Result<Config> {
    let Settings { window, canary_windows, mode, listen, hands, .. } = settings;
    let horizon = (*canary_windows).max(LEAST_HORIZON);
    let listen = listen.map_or(String::new(), |address| format!("listen = \"{address}\""));
    let place = match hands {
        Hands::Process { .. } => String::new(),
        Hands::Systemd { bus, .. } => format!("systemd_bus = {bus:?}"),
        Hands::Docker { socket, .. } => format!("docker_socket = {socket:?}"),
    };
    let text = format!(
        r#"
        window = "{}"
        {listen}
        {place}
        [judge]
        horizon_windows = {horizon}
        [[deployment]]
        name = "demo"
        mode = "{mode}"
        grace = "{}"
        {hands}"#,
        humantime::format_duration(*window),
        humantime::format_duration(GRACE),
    );
    Config::parse(&text, "the demo's configuration").context("the demo's settings are not a valid configuration")
}
