//! Carries a decision out and proves that it took effect. One trait; dry run is a backend, and the default.

pub mod command;
#[cfg(test)]
mod decided;
pub mod docker;
pub mod dry_run;
mod hold;
pub mod kubernetes;
pub mod pause;
pub mod process;
pub mod systemd;
pub mod webhook;

use std::{fmt, future::Future, pin::Pin, time::Duration};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use self::pause::Paused;
use crate::{
    guard::{Decision, Stage},
    judge::Outcome,
    targets::Target,
};

/// What an orchestrator would do, shown in dry run and kept in the journal before anything is done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// Name of the backend.
    pub orchestrator: String,
    /// The steps in order, each in words with exact names.
    pub steps: Vec<String>,
    /// How to get back, in words; `None` where there is no way back.
    pub inverse: Option<String>,
    /// The same for [`Orchestrator::undo`], such as the values that were there before, in the backend's own form;
    /// `None` where only people can get back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub undo: Option<serde_json::Value>,
    /// The longest that [`Orchestrator::apply`] may take where everything is slow but goes well, in milliseconds;
    /// `None` = the canary's grace and a little.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takes_at_most_ms: Option<u64>,
    /// What is only for a time ends this long after it was applied, in milliseconds, whether or not the guard lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_after_ms: Option<u64>,
    /// What goes on at the instances where the action takes requests away from them and leaves them running; `None` = they end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<Background>,
    /// How much of the service the action takes away, where that is more than the decision's own instances; `None` = those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takes_away: Option<TakesAway>,
}

/// Instances of the whole service, wherever they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TakesAway {
    pub instances: u64,
    /// Of stable and canary together.
    pub of: u64,
}

impl TakesAway {
    pub fn share(self) -> f64 {
        self.instances as f64 / self.of.max(1) as f64
    }
}

/// Turnarounds that no user asked for, such as those of health checks: so many at once, and then at a rate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Background {
    /// Who asks, in words: "the kubelet's probes".
    pub whose: String,
    /// The most that may come at once.
    pub burst: u64,
    pub turnarounds_per_second: f64,
}

impl Background {
    /// How long it takes the rate to bring as many as may come at once: each source has had its turn by then.
    pub fn round(&self) -> Duration {
        let seconds = self.burst as f64 / self.turnarounds_per_second;
        Duration::try_from_secs_f64(seconds).unwrap_or_default()
    }
}

impl Plan {
    /// What is told where nothing would be done, and why.
    pub fn nothing(orchestrator: &str, why: impl fmt::Display) -> Self {
        Self { orchestrator: orchestrator.into(), steps: vec![format!("nothing: {why}")], ..Self::default() }
    }

    /// How long [`Orchestrator::apply`] may take, where `usual` holds unless the plan says more.
    pub fn takes_at_most(&self, usual: Duration) -> Duration {
        self.takes_at_most_ms.map_or(usual, |ms| Duration::from_millis(ms).max(usual))
    }
}

/// What the orchestrator finds when it is asked, without changing anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// What the decision wanted holds: the canary is stopped, takes no more work, has its resources taken away, or its rollout
    /// stands still.
    InEffect,
    /// The canary runs as if nothing had been done.
    NotInEffect,
    /// Under way.
    InProgress,
}

/// A state with what it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub state: State,
    /// In words with exact names and, where the orchestrator tells, who changed it: "checkout@v2.service is inactive".
    pub detail: String,
}

/// Why a call did not do what it should.
#[derive(Debug)]
pub enum Error {
    /// The orchestrator or the backend will not do it, for this reason. Nothing was changed.
    Refused(String),
    /// It broke off, or what became of it is not known: a part may have been done. The state that is found decides.
    Failed(anyhow::Error),
}

impl Error {
    /// For checks before the first change.
    pub fn refused(why: impl fmt::Display) -> Self {
        // With the causes, where it is an error that has some.
        Self::Refused(format!("{why:#}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Refused(why) => write!(f, "refused, nothing was done: {why}"),
            Error::Failed(e) => write!(f, "{e:#}"),
        }
    }
}

impl std::error::Error for Error {}

/// What is not known to have changed nothing may have changed something.
impl From<anyhow::Error> for Error {
    fn from(e: anyhow::Error) -> Self {
        Self::Failed(e)
    }
}

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The hands of the guard. Calls carry the decision, and with it the incarnations that it was made on
/// ([`Target::incarnation`](crate::targets::Target) and [`Target::identity`](crate::targets::Target)): a target that
/// was replaced since is refused.
pub trait Orchestrator: Send + Sync {
    /// Name of the backend, for journal, metrics and people.
    fn name(&self) -> &'static str;

    /// Whether this guard is the one that acts where several watch the same service: why it is, or why it is not. Asked
    /// again just before the call.
    fn leader(&self) -> Result<String, String> {
        Ok("this guard acts alone".into())
    }

    /// The same for somebody who only wants to know, and means nothing to be done: it takes the lead from nobody.
    fn standing(&self) -> Result<String, String> {
        self.leader()
    }

    /// Whether it tells the runs of an instance apart by [`Target::identity`](crate::targets::Target) and refuses one that
    /// somebody began since the decision. Then a cgroup that was made again is its to judge: its manager may have restarted it.
    fn knows_runs(&self) -> bool {
        false
    }

    /// Why it holds no rollout, whichever it is, and what to do instead; `None` = it can hold one. What it is asked to describe all
    /// the same it refuses in these words.
    fn cannot_hold(&self) -> Option<String> {
        Some(hold::no_rollout(self.name()))
    }

    /// Whether it has a place of its own for what happens to a decision.
    fn keeps_notes(&self) -> bool {
        false
    }

    /// Notes there what happened. Nothing waits for it, and one that cannot be written holds nothing up.
    fn note<'a>(&'a self, _decision: &'a Decision, _stage: Stage, _detail: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    /// Notes there that the verdict on these instances of the canary is another one than before, and why. As [`Orchestrator::note`].
    fn note_verdict<'a>(
        &'a self,
        _canary: &'a [Target],
        _before: Outcome,
        _now: Outcome,
        _why: &'a str,
    ) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    /// Told how to ask for pauses, by the guard that takes it. Whoever has more to do than one call asks again right before it
    /// takes anything from the canary ([`pause::LastLook`]).
    fn heed_pauses(&self, _paused: Paused) {}

    /// Exactly what [`Orchestrator::apply`] would do, and the way back. Asks and changes nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] where the action is not possible here, as far as that can be known beforehand.
    fn describe<'a>(&'a self, decision: &'a Decision) -> BoxFuture<'a, Result<Plan, Error>>;

    /// Carries the decision's action out as planned: hold, quarantine, drain or rollback. Returns once it is in effect or has failed;
    /// called at most once per decision.
    fn apply<'a>(&'a self, decision: &'a Decision, plan: &'a Plan) -> BoxFuture<'a, Result<(), Error>>;

    /// Reads whether what the decision asked for holds; used to verify, and after a restart to reconcile.
    fn state<'a>(&'a self, decision: &'a Decision) -> BoxFuture<'a, anyhow::Result<Found>>;

    /// Applies the inverse that the plan recorded: where a person asks for it, and where a quarantine should have ended by
    /// itself and has not. May be called again after a failure; what is undone already stays so.
    fn undo<'a>(&'a self, decision: &'a Decision, plan: &'a Plan) -> BoxFuture<'a, Result<(), Error>>;
}
