//! What all deployments share: journal, pauses, the time, and the last look at an instance.

use std::path::PathBuf;

use anyhow::Context as _;

use super::{Moment, Pauses, ledger::Ledger, run::IncarnationNow};

pub(super) struct Desk {
    pub ledger: Ledger,
    pub pauses: Pauses,
    /// When the latest tick ended.
    pub now: Moment,
    pub incarnation_now: IncarnationNow,
    /// Asked to stop: nothing is begun any more.
    pub is_stopping: bool,
    pause_file: PathBuf,
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
        }
    }

    /// Takes the pauses up that an earlier life left.
    pub fn remember_pauses(&mut self) -> anyhow::Result<()> {
        let pauses =
            self.ledger.pauses(self.now).context("the guard does not run without knowing whether it is paused")?;
        self.pauses = Pauses::new(pauses);
        Ok(())
    }

    /// Ends the pauses whose time is over.
    pub fn end_pauses(&mut self) {
        for pause in self.pauses.expire(self.now) {
            let what = pause.deployment.as_deref().unwrap_or("all deployments");
            tracing::info!("the pause of {what} is over ({pause})");
            // One that stays on record is over after the next start as well. The ledger has told the failure.
            let _ = self.ledger.end_pause(pause.deployment.as_deref());
        }
    }

    /// Why nothing is done to any canary, in words. What cannot be told counts as paused.
    pub fn paused(&self) -> Option<String> {
        let name = self.pause_file.display();
        match self.pause_file.try_exists() {
            Ok(false) => self.pauses.of(None).map(|pause| format!("{pause}; `canary resume` ends it")),
            Ok(true) => Some(format!("{name} exists; `canary resume --pause-file {name}` removes it")),
            Err(e) => Some(format!("cannot tell whether {name} exists: {e}")),
        }
    }

    /// Why nothing is done to this deployment's canary.
    pub fn paused_for(&self, deployment: &str) -> Option<String> {
        self.paused().or_else(|| self.paused_alone(deployment))
    }

    /// The same, by the pause of this deployment alone.
    pub fn paused_alone(&self, deployment: &str) -> Option<String> {
        self.pauses.of(Some(deployment)).map(|pause| format!("{pause}; `canary resume {deployment}` ends it"))
    }
}
