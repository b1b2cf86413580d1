//! What keeps a unit from being stopped, asked before anything is done.

use super::bus::{Session, Unit};

/// Why this unit must not be stopped, in words; `sockets` are those that will be stopped before it.
///
/// The dependencies are the inverses of unit files' `Requires=`, `BindsTo=`, `PartOf=`, `Upholds=`, `PropagatesStopTo=`
/// (systemd.unit(5)): units that would go down with it, or would bring it back.
pub fn obstacle(unit: &Unit, run: &str, sockets: &[String]) -> Option<String> {
    let name = &unit.name;
    let now = unit.invocation();
    if now != run {
        return Some(format!(
            "{name} was started again since the decision (invocation {now} now, {run} then): it is not touched"
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
