//! What is done to units, one thing after the other.

use std::{fmt, time::Duration};

use anyhow::anyhow;
use tokio::time::{Instant, sleep};

use super::{
    Error, Undo,
    bus::Session,
    check,
    jobs::{self, Verb},
    quarantine::{self, Limits},
};
use crate::targets::Identity;

/// How often a unit that has to settle is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Start {
        unit: String,
        limit: Duration,
    },
    Settle {
        unit: String,
        settle: Duration,
    },
    /// The user's drain unit: done when its start job is.
    Drain {
        unit: String,
        limit: Duration,
    },
    StopSocket {
        unit: String,
        limit: Duration,
    },
    Stop {
        decided_on: Identity,
        /// The plan's own, stopped before it.
        sockets: Vec<String>,
        limit: Duration,
    },
    Limit {
        unit: String,
        run: String,
        limits: Limits,
        lasts: Duration,
        timer: String,
    },
}

impl Step {
    pub fn takes_at_most(&self) -> Duration {
        match self {
            Step::Start { limit, .. } | Step::Drain { limit, .. } => *limit,
            // systemd itself needs a little after its own limit, to kill and to clean up.
            Step::StopSocket { limit, .. } | Step::Stop { limit, .. } => *limit + Duration::from_secs(10),
            Step::Settle { settle, .. } => *settle + Duration::from_secs(1),
            Step::Limit { .. } => Duration::from_secs(10),
        }
    }

    /// Whether it takes anything from the canary, be it new connections only.
    pub fn takes_away(&self) -> bool {
        match self {
            Step::Start { .. } | Step::Settle { .. } => false,
            Step::Drain { .. } | Step::StopSocket { .. } | Step::Stop { .. } | Step::Limit { .. } => true,
        }
    }

    /// `begun`: something was changed by an earlier step, so that a refusal is not one any more.
    pub async fn run(&self, session: &Session, undo: &Undo, begun: bool) -> Result<(), Error> {
        let end = match self {
            Step::Start { unit, limit } => {
                // A unit that failed too often is refused its start until that is forgotten. Errs where it never failed.
                let _ = session.manager.reset_failed_unit(unit).await;
                jobs::run(session, Verb::Start, unit, *limit).await
            }
            Step::Settle { unit, settle } => settled(session, unit, *settle).await,
            Step::Drain { unit, limit } => jobs::run(session, Verb::Start, unit, *limit).await,
            Step::StopSocket { unit, limit } => jobs::run(session, Verb::Stop, unit, *limit).await,
            Step::Stop { decided_on, sockets, limit } => {
                let now = check::settled_from_restart(session, decided_on).await?;
                // Those sockets were stopped a moment ago; another trigger may have come since the plan.
                match check::obstacle(&now, decided_on, sockets) {
                    Some(why) => Err(Error::Refused(why)),
                    None => jobs::run(session, Verb::Stop, &now.name, *limit + Duration::from_secs(10)).await,
                }
            }
            Step::Limit { unit, run, limits, lasts, timer } => {
                let now = session.unit(unit).await?;
                let before = undo.limits.iter().find(|(name, _)| name == unit).map(|(_, before)| before);
                match before {
                    _ if now.invocation() != *run => {
                        Err(Error::Refused(format!("{unit} was started again: it is not touched")))
                    }
                    Some(before) => quarantine::impose(session, unit, limits, before, *lasts, timer).await,
                    None => Err(Error::Refused(format!("what {unit} had before is not known"))),
                }
            }
        };
        end.map_err(|e| match e {
            Error::Refused(why) if begun => anyhow!("after a part was done: {why}").into(),
            other => other,
        })
    }
}

/// Waits until a unit has been active for `settle` without having been restarted.
async fn settled(session: &Session, unit: &str, settle: Duration) -> Result<(), Error> {
    let first = session.unit(unit).await?;
    let (run, restarts, until) = (first.invocation(), first.number("NRestarts"), Instant::now() + settle);
    loop {
        let now = session.unit(unit).await?;
        if !now.is_active() || now.invocation() != run || now.number("NRestarts") != restarts {
            return Err(anyhow!("stable does not stay up ({now}): the canary was not stopped").into());
        }
        if Instant::now() >= until {
            return Ok(());
        }
        sleep(LOOK).await;
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = humantime::format_duration;
        match self {
            Step::Start { unit, .. } => write!(f, "start {unit}, for stable is down"),
            Step::Settle { unit, settle } => {
                write!(f, "wait until {unit} has been active for {} without a restart", time(*settle))
            }
            Step::Drain { unit, .. } => write!(f, "start the drain unit {unit} and wait until it is done"),
            Step::StopSocket { unit, .. } => write!(f, "stop {unit}, so that no new connection comes"),
            Step::Stop { decided_on: Identity { name, run, .. }, limit, .. } => write!(
                f,
                "stop {name}, if it is still invocation {run} or what Restart= made of it; systemd kills what is left of it \
                 after {}",
                time(*limit)
            ),
            Step::Limit { unit, run, limits, lasts, .. } => {
                write!(f, "limit {unit} to {limits} for {}, if it is still invocation {run}", time(*lasts))
            }
        }
    }
}
