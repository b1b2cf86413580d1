//! What all deployments share: journal, pauses, the time, and the last look at an instance.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use tokio::sync::watch;

use super::{Moment, Pause, Pauses, ledger::Ledger, run::IncarnationNow};
use crate::orchestrator::pause::Paused;

pub(super) struct Desk {
    pub ledger: Ledger,
    /// Changed by [`Desk::pause`] and [`Desk::resume`] only.
    pub pauses: Pauses,
    /// When the latest tick ended.
    pub now: Moment,
    pub incarnation_now: IncarnationNow,
    /// Asked to stop: nothing is begun any more.
    pub is_stopping: bool,
    pause_file: PathBuf,
    /// The same pauses for orchestrators, whose calls are off the line.
    told: watch::Sender<Pauses>,
}

impl Desk {
    pub fn new(ledger: Ledger, pause_file: PathBuf, incarnation_now: IncarnationNow) -> Self {
        Self {
            ledger,
            pauses: Pauses::default(),
            now: Moment::default(),
            incarnation_now,
            is_stopping: false,
            pause_file,
            told: watch::channel(Pauses::default()).0,
        }
    }

    /// Takes the pauses up that an earlier life left.
    pub fn remember_pauses(&mut self) -> anyhow::Result<()> {
        let pauses =
            self.ledger.pauses(self.now).context("the guard does not run without knowing whether it is paused")?;
        self.pauses = Pauses::new(pauses);
        self.tell();
        Ok(())
    }

    /// Begins a pause, in place of the one that was there.
    pub fn pause(&mut self, pause: Pause) {
        self.pauses.begin(pause);
        self.tell();
    }

    /// Ends the pause of a deployment, or the one of all.
    pub fn resume(&mut self, deployment: Option<&str>) -> Option<Pause> {
        let ended = self.pauses.end(deployment);
        self.tell();
        ended
    }

    fn tell(&self) {
        self.told.send_replace(self.pauses.clone());
    }

    /// How an orchestrator asks whether a deployment is paused, at any moment: what [`Desk::paused_for`] says.
    pub fn for_orchestrators(&self) -> Paused {
        let (pause_file, told) = (self.pause_file.clone(), self.told.subscribe());
        Arc::new(move |deployment: &str| {
            let pauses = told.borrow().clone();
            paused(&pause_file, &pauses).or_else(|| paused_alone(&pauses, deployment))
        })
    }

    /// Ends the pauses whose time is over.
    pub fn end_pauses(&mut self) {
        let over = self.pauses.expire(self.now);
        self.tell();
        for pause in over {
            let what = pause.deployment.as_deref().unwrap_or("all deployments");
            tracing::info!("the pause of {what} is over ({pause})");
            // One that stays on record is over after the next start as well. The ledger has told the failure.
            let _ = self.ledger.end_pause(pause.deployment.as_deref());
        }
    }

    /// Why nothing is done to any canary, in words. What cannot be told counts as paused.
    pub fn paused(&self) -> Option<String> {
        paused(&self.pause_file, &self.pauses)
    }

    /// Why nothing is done to this deployment's canary.
    pub fn paused_for(&self, deployment: &str) -> Option<String> {
        self.paused().or_else(|| self.paused_alone(deployment))
    }

    /// The same, by the pause of this deployment alone.
    pub fn paused_alone(&self, deployment: &str) -> Option<String> {
        paused_alone(&self.pauses, deployment)
    }
}

fn paused(pause_file: &Path, pauses: &Pauses) -> Option<String> {
    let name = pause_file.display();
    match pause_file.try_exists() {
        Ok(false) => pauses.of(None).map(|pause| format!("{pause}; `canary resume` ends it")),
        Ok(true) => Some(format!("{name} exists; `canary resume --pause-file {name}` removes it")),
        Err(e) => Some(format!("cannot tell whether {name} exists: {e}")),
    }
}

fn paused_alone(pauses: &Pauses, deployment: &str) -> Option<String> {
    pauses.of(Some(deployment)).map(|pause| format!("{pause}; `canary resume {deployment}` ends it"))
}
