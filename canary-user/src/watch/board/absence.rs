//! Condemned canaries that are not there any more: their verdict stays as it is, and who was told of it has to hear the end.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    judge::Outcome,
    targets::Role,
    watch::{DeploymentView, Snapshot},
};

/// How long a canary has to be away: service managers wait minutes before they start one again that keeps crashing.
pub const GONE_AFTER_NS: u64 = 300_000_000_000;

/// Of each deployment whose condemned canary is away: since when.
#[derive(Debug, Default)]
pub struct Absences(BTreeMap<Arc<str>, Absence>);

#[derive(Debug)]
struct Absence {
    since_t_ns: u64,
    told: bool,
}

impl Absences {
    /// Takes a tick in. Answers the deployments whose canary has been away for long enough, each once.
    pub fn observe(&mut self, snapshot: &Snapshot) -> Vec<Arc<str>> {
        self.0.retain(|name, _| snapshot.deployments.get(name).is_some_and(is_away));
        let mut gone = Vec::new();
        for (name, _) in snapshot.deployments.iter().filter(|(_, view)| is_away(view)) {
            let new = Absence { since_t_ns: snapshot.t_ns, told: false };
            let absence = self.0.entry(name.clone()).or_insert(new);
            if !absence.told && snapshot.t_ns.saturating_sub(absence.since_t_ns) >= GONE_AFTER_NS {
                absence.told = true;
                gone.push(name.clone());
            }
        }
        gone
    }
}

/// Whether a condemned canary has no process, and had none that ended in this tick.
fn is_away(view: &DeploymentView) -> bool {
    let mut canary = view.samples.iter().filter(|s| s.target.role == Role::Canary);
    let lives = canary.any(|s| s.populated != Some(false) || s.lifecycle.is_some_and(|l| l.exits > 0));
    view.verdict.outcome == Outcome::Regressed && !lives
}
