//! The guard on top of the demo: the same line as `canary run`, with the fleet as its orchestrator's supervisor.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

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

/// What the demo tells the guard.
pub struct Settings {
    pub window: Duration,
    pub mode: Mode,
    pub listen: Option<SocketAddr>,
    pub record: Option<PathBuf>,
    /// Path of the demo's cgroups below the cgroup2 root.
    pub cgroups: String,
    pub control: mpsc::Sender<Control>,
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
    let cgroup2 = root.path().to_owned();
    let control = settings.control;
    let daemon = Daemon {
        recording: daemon::recording(settings.record.as_ref(), &config)?,
        root,
        sensor: telemetry::Options::default(),
        // The demo's canary never outlives the demo, so there is nothing to remember on disk.
        journal: Journal::in_memory()?,
        listener,
        socket: None,
        token: None,
        orchestrator: Box::new(move |deployment| {
            Ok(Arc::new(Process::new(cgroup2.clone(), deployment.grace, Some(control.clone()))))
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
    let Settings { window, mode, listen, cgroups, .. } = settings;
    let listen = listen.map_or(String::new(), |address| format!("listen = \"{address}\""));
    let text = format!(
        r#"
        window = "{}"
        {listen}
        [[deployment]]
        name = "demo"
        mode = "{mode}"
        orchestrator = "process"
        grace = "{}"
        stable = {{ cgroup = "{cgroups}/stable-*", version = "v1" }}
        canary = {{ cgroup = "{cgroups}/canary-*", version = "v2" }}
        "#,
        humantime::format_duration(*window),
        humantime::format_duration(GRACE),
    );
    Config::parse(&text, "the demo's configuration").context("the demo's settings are not a valid configuration")
}
