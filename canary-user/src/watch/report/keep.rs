//! Keeps the evidence of each decision when it is made, and writes its report when it has come to an end; anew when more is
//! known, such as whether it helped.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context as _;
use tokio::sync::{broadcast::error::RecvError, watch};

use super::{Directory, Evidence, Report};
use crate::{
    guard::Stage,
    journal::archive::Archive,
    watch::{
        Board, News, Snapshot,
        api::{DecisionLife, WindowPoint},
    },
};

/// Windows that are kept in full before the end, and how many of those before them.
const FULL: usize = 300;
const THIN: usize = 300;
/// Decisions whose state is remembered until they end.
const OPEN: usize = 50;

/// Follows the news on decisions, beside the line.
#[derive(Debug)]
pub struct Reporter {
    board: Board,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Where evidence is kept over restarts; `None` = nowhere.
    archive: Option<Archive>,
    /// Where reports are written; `None` = nowhere.
    directory: Option<Directory>,
    made: BTreeMap<String, Evidence>,
}

impl Reporter {
    pub fn new(
        board: Board,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        archive: Option<Archive>,
        directory: Option<Directory>,
    ) -> Self {
        Self { board, snapshots, archive, directory, made: BTreeMap::new() }
    }

    /// Runs until the guard ends, and finishes what it heard of until then.
    pub async fn run(mut self) {
        let mut news = self.board.listen();
        loop {
            let heard = tokio::select! {
                biased;
                heard = news.recv() => heard,
                // News come before the snapshot of their tick.
                closed = async { while self.snapshots.changed().await.is_ok() {} } => { let () = closed; break }
            };
            match heard {
                Ok(News::Decision(life)) => self = self.stage(life).await,
                Ok(News::Verdict(_) | News::Gone { .. }) => {}
                Err(RecvError::Lagged(missed)) => tracing::warn!("{missed} news came too fast for the reports"),
                Err(RecvError::Closed) => return,
            }
        }
        while let Ok(heard) = news.try_recv() {
            if let News::Decision(life) = heard {
                self = self.stage(life).await;
            }
        }
    }

    async fn stage(mut self, life: Arc<DecisionLife>) -> Self {
        // With the window in which this happened; where the guard ends instead, without it.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), self.snapshots.changed()).await;
        let evidence = self.evidence(&life);
        // Disks may be slow, and the runtime has other things to do.
        let wrote = tokio::task::spawn_blocking(move || {
            self.write(&life, evidence.as_ref());
            self
        });
        wrote.await.expect("writing a report does not panic")
    }

    /// What an earlier life of the guard kept of a decision: the state of now is not the one that it was made on.
    fn kept(&self, life: &DecisionLife) -> Option<Evidence> {
        // At its first stage there is nothing to find.
        let archive = self.archive.as_ref().filter(|_| life.stages.len() > 1)?;
        let read = || anyhow::Ok(archive.kept(&life.decision.id)?.map(|text| serde_json::from_str(&text)).transpose()?);
        read().unwrap_or_else(|error| {
            tracing::warn!("the report of {} is without its evidence: {error:#}", life.decision.id);
            None
        })
    }

    /// The state at the decision, with the windows until now; `None` where nobody kept it.
    fn evidence(&mut self, life: &DecisionLife) -> Option<Evidence> {
        let decision = &life.decision;
        let windows = self.board.windows(&decision.deployment, 0, usize::MAX).unwrap_or_default();
        if !self.made.contains_key(&decision.id) {
            let seen = self.board.made_on(&decision.id).map(|made| Evidence::clone(&made));
            let made = seen.or_else(|| self.kept(life))?;
            if self.made.len() >= OPEN {
                self.made.pop_first();
            }
            self.made.insert(decision.id.clone(), made);
        }
        let made = self.made.get_mut(&decision.id)?;
        // After a restart there are none of the decision, and over a watch in which nothing happened those around it would be
        // thinned out.
        let reach_back = windows.first().is_some_and(|w| w.unix_ms <= decision.unix_ms);
        if made.windows.is_empty() || (reach_back && life.stage() != Some(Stage::Closed)) {
            made.windows = thinned(windows);
        }
        Some(made.clone())
    }

    /// What fails is told, and keeps nothing else from being done.
    fn write(&mut self, life: &Arc<DecisionLife>, evidence: Option<&Evidence>) {
        let id = &life.decision.id;
        if let Err(error) = self.keep(id, evidence) {
            tracing::warn!("{error:#}");
        }
        let Some(directory) = self.directory.as_mut().filter(|_| life.stage().is_some_and(is_told)) else { return };
        if let Some(error) = directory.write(id, &super::html(&Report { life, evidence })) {
            tracing::warn!("{error:#}; until one is written, canary_reports_total alone counts those that are not");
        }
    }

    fn keep(&mut self, id: &str, evidence: Option<&Evidence>) -> anyhow::Result<()> {
        let (Some(archive), Some(evidence)) = (&mut self.archive, evidence) else { return Ok(()) };
        archive.keep(id, &serde_json::to_string(evidence).context("write the evidence as JSON")?)
    }
}

/// Whether the report is written at this stage: nothing more is done, or something new is known of what was.
fn is_told(stage: Stage) -> bool {
    match stage {
        Stage::Planned | Stage::Approved | Stage::Applying | Stage::Applied | Stage::Undoing => false,
        Stage::Blocked | Stage::Declined | Stage::Failed | Stage::Verified | Stage::Recovered => true,
        Stage::NotRecovered | Stage::Reverted | Stage::Closed | Stage::Undone => true,
    }
}

/// The latest windows in full, and some of those before them.
pub fn thinned(windows: Vec<WindowPoint>) -> Vec<WindowPoint> {
    let old = windows.len().saturating_sub(FULL);
    let every = old.div_ceil(THIN).max(1) as u64;
    windows
        .into_iter()
        .enumerate()
        .filter(|(i, w)| *i >= old || w.window.is_multiple_of(every))
        .map(|(_, w)| w)
        .collect()
}
