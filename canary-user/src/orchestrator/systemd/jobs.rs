//! Jobs: systemd answers a call to start or stop with a job, and says later how that ended.

use std::time::Duration;

use anyhow::anyhow;
use futures_util::StreamExt as _;
use tokio::time::{Instant, interval, sleep_until};

use super::{
    Error,
    bus::{JobRemoved, Session},
};

/// How often the unit is looked at while its job is waited for, in case the signal was lost.
const BACKSTOP: Duration = Duration::from_millis(500);
/// Looks in a row that may fail, as where systemd is busy with reading all units again: the job goes on meanwhile.
const UNANSWERED: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Start,
    Stop,
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Verb::Start => "start",
            Verb::Stop => "stop",
        }
    }
}

/// Starts or stops a unit and waits until that is done.
///
/// The mode is `fail`: where it would change a job that somebody else queued, systemd refuses.
///
/// # Errors
/// [`Error::Refused`] where systemd did not take the job, [`Error::Failed`] where it took it and the job did not end well
/// within `limit`, or where it is not known whether it took it.
pub async fn run(session: &Session, verb: Verb, unit: &str, limit: Duration) -> Result<(), Error> {
    // Listened for before the call: a job can be over before its call is answered.
    let mut removed = session.jobs_removed(unit).await?;
    let called = match verb {
        Verb::Start => session.manager.start_unit(unit, "fail").await,
        Verb::Stop => session.manager.stop_unit(unit, "fail").await,
    };
    let job = called.map_err(|e| not_taken(verb, unit, e))?;
    let (until, mut backstop) = (Instant::now() + limit, interval(BACKSTOP));
    let (mut gone, mut unanswered) = (false, 0);
    loop {
        tokio::select! {
            Some(signal) = removed.next() => {
                let Ok(body) = signal.map(|s| s.body()) else { continue };
                let Ok((_, ended_job, _, result)) = body.deserialize::<JobRemoved>() else { continue };
                if ended_job == job {
                    return ended(verb, unit, &result);
                }
            }
            _ = backstop.tick() => {
                let now = match session.unit(unit).await {
                    Ok(now) => now,
                    Err(_) if unanswered < UNANSWERED => {
                        unanswered += 1;
                        continue;
                    }
                    Err(e) => return Err(e.into()),
                };
                unanswered = 0;
                // Its signal may be on the way: only if it does not come by the next look, the state has to tell.
                if now.job().is_none() && std::mem::replace(&mut gone, true) {
                    let done = match verb {
                        Verb::Start => now.is_active() || now.text("Type") == "oneshot" && now.text("Result") == "success",
                        Verb::Stop => now.is_down(),
                    };
                    return if done { Ok(()) } else { Err(anyhow!("the {} job is gone and {now}", verb.name()).into()) };
                }
            }
            () = sleep_until(until) => {
                let limit = humantime::format_duration(limit);
                return Err(anyhow!("the {} job of {unit} was not over after {limit}", verb.name()).into());
            }
        }
    }
}

fn ended(verb: Verb, unit: &str, result: &str) -> Result<(), Error> {
    match result {
        "done" => Ok(()),
        // "canceled": by somebody else; "timeout", "failed", "dependency", "skipped", and what later systemds may say.
        other => Err(anyhow!("systemd ended the {} job of {unit} as \"{other}\"", verb.name()).into()),
    }
}

/// An error that systemd answered means that no job was queued. Silence does not.
fn not_taken(verb: Verb, unit: &str, error: zbus::Error) -> Error {
    match &error {
        zbus::Error::MethodError(name, message, _) => {
            let why = match name.as_str() {
                "org.freedesktop.systemd1.TransactionIsDestructive" => {
                    "another job is queued, somebody else is acting: "
                }
                "org.freedesktop.DBus.Error.NoReply" | "org.freedesktop.DBus.Error.Timeout" => {
                    return anyhow!("systemd did not answer the call to {} {unit}", verb.name()).into();
                }
                _ => "",
            };
            let message = message.as_deref().unwrap_or(name.as_str());
            Error::Refused(format!("systemd does not {} {unit}: {why}{message}", verb.name()))
        }
        _ => anyhow!("call systemd to {} {unit}: {error}", verb.name()).into(),
    }
}
