//! Carries a decision out and proves that it took effect. One trait; dry run is a backend, and the default.

pub mod dry_run;
pub mod process;

use std::{future::Future, pin::Pin};

use serde::{Deserialize, Serialize};

use crate::guard::Decision;

/// What an orchestrator would do, shown in dry run and kept in the journal before anything is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Name of the backend.
    pub orchestrator: String,
    /// The steps in order, each in words with exact names.
    pub steps: Vec<String>,
    /// How to get back, in words; `None` where there is no way back.
    pub inverse: Option<String>,
}

/// What the orchestrator finds when it is asked, without changing anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The canary is stopped or takes no more work, as the decision wanted.
    InEffect,
    /// The canary runs as if nothing had been done.
    NotInEffect,
    /// Under way.
    InProgress,
}

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The hands of the guard. Calls carry the decision, and with it the incarnations that it was made on:
/// a target that was replaced since is not touched.
pub trait Orchestrator: Send + Sync {
    /// Name of the backend, for journal, metrics and people.
    fn name(&self) -> &'static str;

    /// Exactly what [`Orchestrator::apply`] would do.
    fn plan(&self, decision: &Decision) -> Plan;

    /// Carries the decision out. Returns once it is in effect or has failed; called at most once per decision.
    fn apply<'a>(&'a self, decision: &'a Decision) -> BoxFuture<'a, anyhow::Result<()>>;

    /// Reads the state that the decision asked for; used to verify, and after a restart to reconcile.
    fn state<'a>(&'a self, decision: &'a Decision) -> BoxFuture<'a, anyhow::Result<State>>;
}
