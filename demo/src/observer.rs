//! What the guard did, seen through its snapshots: the demo's own record for its summary.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use canary_user::{
    guard::Stage,
    judge::SignKind,
    watch::{DecisionView, Snapshot},
};
use tokio::sync::Notify;

/// Collects while the run goes on.
pub struct Observer {
    window: Duration,
    seen: Mutex<Seen>,
    settled: Notify,
}

/// What was seen so far.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub last: Arc<Snapshot>,
    /// Every stage of every decision, in order of time.
    pub decisions: Vec<DecisionView>,
    /// CLOCK_MONOTONIC of the moment at which the scenario began to go wrong.
    pub onset_ns: Option<u64>,
    /// What the judge has seen around the canary since then, and whether it held a verdict back for that.
    pub signs: Vec<SignKind>,
    pub held: bool,
    /// Windows from the onset until the snapshot that shows the canary condemned.
    pub windows_to_decide: Option<f64>,
    /// The same until the snapshot that shows it stopped by the orchestrator.
    pub windows_to_drain: Option<f64>,
}

impl Observer {
    pub fn new(window: Duration) -> Self {
        Self { window, seen: Mutex::default(), settled: Notify::new() }
    }

    pub fn onset(&self, at_ns: u64) {
        self.lock().onset_ns = Some(at_ns);
    }

    pub fn see(&self, snapshot: &Arc<Snapshot>) {
        let mut seen = self.lock();
        seen.last = snapshot.clone();
        let since_onset = seen.onset_ns.is_some();
        for view in snapshot.deployments.values() {
            let environment = &view.verdict.environment;
            for sign in environment.signs.iter().filter(|_| since_onset) {
                if !seen.signs.contains(&sign.kind) {
                    seen.signs.push(sign.kind);
                }
            }
            seen.held |= since_onset && environment.holds;
            let Some(decision) = &view.decision else { continue };
            let known =
                seen.decisions.iter().any(|d| d.decision.id == decision.decision.id && d.stage == decision.stage);
            if known {
                continue;
            }
            let windows = seen
                .onset_ns
                .map(|onset_ns| snapshot.t_ns.saturating_sub(onset_ns) as f64 / self.window.as_nanos() as f64);
            if seen.windows_to_decide.is_none() {
                seen.windows_to_decide = windows;
            }
            if matches!(decision.stage, Stage::Applied | Stage::Verified) && seen.windows_to_drain.is_none() {
                seen.windows_to_drain = windows;
            }
            seen.decisions.push(decision.clone());
            if matches!(decision.stage, Stage::Blocked | Stage::Verified | Stage::Reverted | Stage::Failed) {
                self.settled.notify_one();
            }
        }
    }

    /// Waits until an action has come to its end.
    pub async fn settled(&self) {
        self.settled.notified().await;
    }

    pub fn seen(&self) -> Seen {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
