//! What people ask of the running guard, answered between two ticks.

use std::time::Duration;

use super::{Action, Pause, desk::Desk, line::Line};
use crate::{
    control::{Answer, Command, Done, Refusal, RefusalKind, Reply, Request, Status, nearest},
    journal::HistoryEntry,
    telemetry::Tick,
};

/// Answers a request. What changes something is on record with its answer, whether it was granted or not.
pub(super) fn answer(lines: &mut [Line], desk: &mut Desk, tick: &Tick, request: Request) {
    let Request { command, by, answer } = request;
    let done = carry_out(lines, desk, tick, &command, &by);
    if command.is_change() {
        let said = match &done {
            Ok(Reply::Done(Done { said })) => Ok(said.as_str()),
            Ok(Reply::Status(_)) => Ok(""),
            Err(refusal) => Err(refusal.error.as_str()),
        };
        tracing::info!(by, granted = said.is_ok(), "{command:?}: {}", said.unwrap_or_else(|why| why));
        // The ledger tells a failure and blocks every action from here on.
        let _ = desk.ledger.command(&command, &by, said, desk.now.unix_ms);
    }
    // Who asked may have gone.
    let _ = answer.send(done);
}

fn carry_out(lines: &mut [Line], desk: &mut Desk, tick: &Tick, command: &Command, by: &str) -> Answer {
    match command {
        Command::Status => Ok(Reply::Status(Box::new(status(lines, desk, tick)))),
        Command::Pause { deployment, for_ms, reason } => pause(lines, desk, deployment.as_deref(), *for_ms, reason, by),
        Command::Resume { deployment } => resume(lines, desk, deployment.as_deref()),
        Command::Approve { id } => approve(lines, desk, tick, id, by),
        Command::Rollback { deployment, reason } => {
            let said = known(lines, deployment)?.wanted(Action::Rollback, by, reason, tick, desk);
            said.map(Reply::done).map_err(Refusal::not_now)
        }
        Command::Hold { deployment, reason } => {
            let said = known(lines, deployment)?.wanted(Action::Hold, by, reason, tick, desk);
            said.map(Reply::done).map_err(Refusal::not_now)
        }
        Command::Undo { id } => undo(lines, desk, id, by),
    }
}

/// Refuses a name that is not configured, with the nearest one.
fn known<'a>(lines: &'a mut [Line], name: &str) -> Result<&'a mut Line, Refusal> {
    match lines.iter().position(|line| **line.name() == *name) {
        Some(at) => Ok(&mut lines[at]),
        None => {
            let names = lines.iter().map(|line| &**line.name());
            Err(Refusal::not_found(format!("there is no deployment '{name}': {}", nearest(name, names))))
        }
    }
}

fn pause(
    lines: &mut [Line],
    desk: &mut Desk,
    deployment: Option<&str>,
    for_ms: Option<u64>,
    reason: &str,
    by: &str,
) -> Answer {
    let deployment = deployment.map(|name| known(lines, name).map(|line| line.name().clone())).transpose()?;
    let pause = Pause {
        deployment,
        reason: reason.trim().to_owned(),
        by: by.to_owned(),
        since_unix_ms: desk.now.unix_ms,
        until: for_ms.map(|ms| desk.now.after(Duration::from_millis(ms))),
    };
    let what = pause.deployment.as_deref().unwrap_or("all deployments");
    let mut said = format!("Paused {what} {pause}. No action is begun; watching and judging go on.");
    if let Err(why) = desk.ledger.pause(&pause) {
        said += &format!(" It is not on disk ({why}) and ends when the guard does.");
    }
    desk.pause(pause);
    Ok(Reply::done(said))
}

fn resume(lines: &mut [Line], desk: &mut Desk, deployment: Option<&str>) -> Answer {
    if let Some(name) = deployment {
        known(lines, name)?;
    }
    let what = deployment.unwrap_or("all deployments");
    let ended = desk.resume(deployment);
    if ended.is_some()
        && let Err(why) = desk.ledger.end_pause(deployment)
    {
        return Ok(Reply::done(format!(
            "Resumed {what}, and not on disk ({why}): after a restart it is paused again."
        )));
    }
    let mut said = match &ended {
        Some(pause) => format!("Resumed {what}; it was paused {pause}."),
        None => format!("{what}: not paused by `canary pause`."),
    };
    // What else still holds: the file, or the pause of all.
    let still = match deployment {
        Some(name) => desk.paused_for(name),
        None => desk.paused(),
    };
    if let Some(why) = still {
        said += &format!(" Still paused: {why}.");
    }
    Ok(Reply::done(said))
}

fn approve(lines: &mut [Line], desk: &mut Desk, tick: &Tick, id: &str, by: &str) -> Answer {
    match lines.iter_mut().find(|line| line.awaiting() == Some(id)) {
        Some(line) => line.approve(by, tick, desk).map(Reply::done).map_err(Refusal::not_now),
        None => {
            let waiting: Vec<&str> = lines.iter().filter_map(|line| line.awaiting()).collect();
            let what = match waiting.as_slice() {
                [] => "no decision waits for approval".to_owned(),
                several => format!("those that wait are {}", several.join(", ")),
            };
            match entry(desk, id)? {
                Some(entry) => {
                    let stage = entry.stages.last().map_or("unknown", |s| s.stage.name());
                    Err(Refusal::not_now(format!("{id} does not wait for approval, it is {stage}; {what}")))
                }
                None => Err(Refusal::not_found(format!("there is no decision '{id}': {what}"))),
            }
        }
    }
}

fn undo(lines: &mut [Line], desk: &mut Desk, id: &str, by: &str) -> Answer {
    let Some(entry) = entry(desk, id)? else {
        return Err(Refusal::not_found(format!("there is no decision '{id}': `canary history` lists them")));
    };
    let line = known(lines, &entry.decision.deployment)?;
    line.undo(entry, by, &mut desk.ledger).map(Reply::done).map_err(Refusal::not_now)
}

fn entry(desk: &Desk, id: &str) -> Result<Option<HistoryEntry>, Refusal> {
    desk.ledger.entry(id).map_err(|e| Refusal::new(RefusalKind::Unavailable, format!("{e:#}")))
}

fn status(lines: &[Line], desk: &mut Desk, tick: &Tick) -> Status {
    Status {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        unix_ms: tick.unix_ms,
        span_ns: tick.span_ns,
        paused: desk.paused(),
        journal_failure: desk.ledger.failure().cloned(),
        deployments: lines.iter().filter_map(|line| line.status(tick, desk)).collect(),
    }
}
