//! Commands to the running guard: one enum, answered by the guard's loop.
//!
//! Goes in: requests over the unix socket (who asks is known by the peer's credentials) and over HTTP (where a token is
//! configured). Comes out: a [`Reply`], or a [`Refusal`] that says what to do. Nothing here decides or acts: the
//! loop does, between two ticks, so that a command never meets a half-taken step.

pub mod client;
mod record;
mod routes;
mod socket;
pub mod status;
mod token;

#[cfg(test)]
mod tests;

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use utoipa::ToSchema;

pub use record::{MOST, Record};
pub use routes::{Access, Document, routes};
pub use socket::{Socket, bind};
pub use status::Status;
pub use token::Token;

/// Requests that may wait for the loop.
const WAITING: usize = 16;
/// The loop answers between two ticks; the longest window is a minute.
const ANSWER_LIMIT: Duration = Duration::from_secs(90);

/// What a person can ask of the running guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    Status,
    /// No action is begun while this holds: on one deployment, or on all where none is named.
    Pause {
        deployment: Option<String>,
        /// How long; `None` = until it is resumed.
        for_ms: Option<u64>,
        reason: String,
    },
    /// Ends the pause of that deployment, or the one of all.
    Resume {
        deployment: Option<String>,
    },
    /// Lets the decision that waits for approval be carried out.
    Approve {
        id: String,
    },
    /// Takes the canary away, whatever the verdict and the mode.
    Rollback {
        deployment: String,
        reason: String,
    },
    /// Has the canary's rollout stand still, whatever the verdict and the mode; it serves on.
    Hold {
        deployment: String,
        reason: String,
    },
    /// Applies the inverse that was recorded with an action.
    Undo {
        id: String,
    },
}

impl Command {
    /// Whether it changes what the guard does, and so has to be in the journal.
    pub fn is_change(&self) -> bool {
        !matches!(self, Command::Status)
    }
}

/// A command on its way to the loop.
#[derive(Debug)]
pub struct Request {
    pub command: Command,
    /// Who asks, in words: "root", "uid 1000", "the API token".
    pub by: String,
    pub answer: oneshot::Sender<Answer>,
}

pub type Answer = Result<Reply, Refusal>;

/// What was done, or how things stand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reply {
    Status(Box<Status>),
    Done(Done),
}

/// That a command was carried out, or begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Done {
    /// In a sentence.
    pub said: String,
}

impl Reply {
    pub fn done(said: impl Into<String>) -> Self {
        Reply::Done(Done { said: said.into() })
    }
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Refusal {
    pub kind: RefusalKind,
    /// In words, with what to do about it.
    pub error: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// The request cannot be understood.
    Invalid,
    /// Who asks has not shown who they are.
    Unauthenticated,
    /// Who asks may not.
    NotAllowed,
    /// There is no such deployment or decision.
    NotFound,
    /// Not as things stand.
    NotNow,
    /// The guard does not answer.
    Unavailable,
}

impl Refusal {
    pub fn new(kind: RefusalKind, error: impl Into<String>) -> Self {
        Self { kind, error: error.into() }
    }

    pub fn invalid(error: impl Into<String>) -> Self {
        Self::new(RefusalKind::Invalid, error)
    }

    pub fn not_found(error: impl Into<String>) -> Self {
        Self::new(RefusalKind::NotFound, error)
    }

    pub fn not_now(error: impl Into<String>) -> Self {
        Self::new(RefusalKind::NotNow, error)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)
    }
}

impl std::error::Error for Refusal {}

/// The way to the loop; cheap to clone.
#[derive(Clone, Debug)]
pub struct Control(mpsc::Sender<Request>);

/// The way to the loop, and the loop's end of it.
pub fn channel() -> (Control, mpsc::Receiver<Request>) {
    let (send, receive) = mpsc::channel(WAITING);
    (Control(send), receive)
}

impl Control {
    /// Asks the loop and waits for its answer.
    pub async fn ask(&self, command: Command, by: String) -> Answer {
        let gone = || Refusal::new(RefusalKind::Unavailable, "the guard is about to stop: ask again once it runs");
        let (answer, answered) = oneshot::channel();
        self.0.send(Request { command, by, answer }).await.map_err(|_| gone())?;
        match tokio::time::timeout(ANSWER_LIMIT, answered).await {
            Ok(answer) => answer.map_err(|_| gone())?,
            Err(_) => Err(Refusal::new(
                RefusalKind::Unavailable,
                "the guard's line gives no answer: /healthz and its log say whether windows still come",
            )),
        }
    }
}

/// "did you mean 'shop'?", or all there are.
pub fn nearest<'a>(asked: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let near = known
        .clone()
        .map(|name| (strsim::normalized_damerau_levenshtein(asked, name), name))
        .filter(|(likeness, _)| *likeness >= 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match near {
        Some((_, name)) => format!("did you mean '{name}'?"),
        None => format!("there is {}", known.collect::<Vec<_>>().join(", ")),
    }
}
