//! What keeps a unit from being stopped, asked before anything is done.

use std::time::Duration;

use tokio::time::sleep;

use super::bus::{Session, Unit};
use crate::targets::Identity;

/// systemd's own restart takes some milliseconds as a job; it is waited for so often …
const RESTART_LOOKS: u32 = 10;
/// … and that long each time.
const RESTART_LOOK: Duration = Duration::from_millis(50);

/// The unit, read when it is not just being started again by systemd itself, as one that crashes again and again often is.
pub async fn settled_from_restart(session: &Session, decided_on: &Identity) -> anyhow::Result<Unit> {
    for _ in 0..RESTART_LOOKS {
        let unit = session.unit(&decided_on.name).await?;
        if unit.job().is_none() || !decided_on.came_back(unit.number("NRestarts")) {
            return Ok(unit);
        }
        sleep(RESTART_LOOK).await;
    }
    session.unit(&decided_on.name).await
}

/// Why this unit must not be stopped, in words; `sockets` are those that will be stopped before it.
///
/// Another run than the one that was decided on is somebody else's doing, unless `NRestarts` has grown: it counts the starts by
/// `Restart=` alone, and falls back to 0 with any other (`service_start` of systemd's src/core/service.c).
///
/// The dependencies are the inverses of unit files' `Requires=`, `BindsTo=`, `PartOf=`, `Upholds=`, `PropagatesStopTo=`
/// (systemd.unit(5)): units that would go down with it, or would bring it back.
pub fn obstacle(unit: &Unit, decided_on: &Identity, sockets: &[String]) -> Option<String> {
    let name = &unit.name;
    let now = unit.invocation();
    if now != *decided_on.run && !decided_on.came_back(unit.number("NRestarts")) {
        return Some(format!(
            "{name} was started again since the decision (invocation {now} now, {} then): it is not touched",
            decided_on.run
        ));
    }
    if let Some(job) = unit.job() {
        return Some(format!("job {job} of {name} is under way: somebody else is acting on it"));
    }
    if unit.flag("RefuseManualStop") {
        return Some(format!("{name} has RefuseManualStop=yes: systemd stops it only with what needs it"));
    }
    if let Some(trigger) = unit.names("TriggeredBy").into_iter().find(|t| !sockets.contains(t)) {
        return Some(format!(
            "{trigger} would start {name} again: stop that first, or give the canary a socket of its own"
        ));
    }
    if let Some(keeper) = unit.names("UpheldBy").first() {
        return Some(format!("{keeper} upholds {name} and would start it again at once"));
    }
    for (property, words) in [
        ("BoundBy", "is bound to"),
        ("RequiredBy", "requires"),
        ("RequisiteOf", "requires"),
        ("ConsistsOf", "is part of"),
        ("PropagatesStopTo", "is stopped with"),
    ] {
        if let Some(other) = unit.names(property).first() {
            return Some(format!("{other} {words} {name} and would go down with it"));
        }
    }
    None
}

/// The sockets that are the unit's own: of its name, and for nothing else. Connections that wait in one are lost with it, but
/// none is handed to the canary once it is stopped.
pub async fn own_sockets(session: &Session, unit: &Unit) -> anyhow::Result<Vec<String>> {
    let mut own = Vec::new();
    for trigger in unit.names("TriggeredBy") {
        let stem = unit.name.strip_suffix(".service");
        if trigger.strip_suffix(".socket").is_some_and(|s| Some(s) == stem)
            && session.unit(&trigger).await?.names("Triggers") == [unit.name.as_str()]
        {
            own.push(trigger);
        }
    }
    Ok(own)
}
