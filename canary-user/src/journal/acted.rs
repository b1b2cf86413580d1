//! Which instances something was done to: none is acted on twice, whatever becomes of the guard.

use anyhow::Context as _;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::{Journal, json};
use crate::{
    guard::{Decision, Stage},
    targets::Target,
};

impl Journal {
    /// Counts these instances as acted on by the decision: a canary that someone brought back is theirs.
    pub fn mark_acted(&mut self, decision: &Decision, targets: &[Target]) -> anyhow::Result<()> {
        let boot = self.boot.clone();
        self.commit(|tx| mark(tx, &boot, &decision.id, &decision.deployment, targets))
            .with_context(|| format!("journal: mark what came back after {}", decision.id))
    }

    /// One instance took the place of another one that was acted on, as its next life: it counts as acted on in its place.
    pub fn came_back(&mut self, before: &Target, now: &Target) -> anyhow::Result<()> {
        let boot = self.boot.clone();
        let write = |tx: &Transaction| -> anyhow::Result<()> {
            let moved = tx.execute(
                "UPDATE OR REPLACE acted SET cgroup = ?4, incarnation = ?5
                 WHERE deployment = ?1 AND cgroup = ?2 AND incarnation = ?3 AND boot = ?6",
                params![
                    &*before.deployment,
                    &*before.cgroup,
                    before.incarnation.to_string(),
                    &*now.cgroup,
                    now.incarnation.to_string(),
                    boot
                ],
            )?;
            // An earlier life of the guard followed it, too, and it came back once more while none was there: the mark is on a
            // life between, and what is known of it is the decision.
            if moved == 0
                && let Some(id) = begun_against(tx, &boot, before)?
            {
                mark(tx, &boot, &id, &now.deployment, std::slice::from_ref(now))?;
            }
            Ok(())
        };
        self.commit(write).with_context(|| format!("journal: record that {} came back", now.cgroup))
    }

    /// The canary instances of this boot's decisions that came to a stage, but for those that were seen gone and stayed so, or
    /// were only held.
    pub fn canaries_with(&self, deployment: &str, stage: Stage) -> anyhow::Result<Vec<Target>> {
        let read = || -> rusqlite::Result<Vec<Target>> {
            let mut query = self.db.prepare_cached(
                "SELECT d.decision FROM stage s JOIN decision d ON d.id = s.decision_id
                 WHERE d.deployment = ?1 AND s.stage = ?3 AND s.boot = ?2 AND d.action <> 'hold' AND (
                    NOT EXISTS (SELECT 1 FROM stage v WHERE v.decision_id = d.id AND v.stage = 'verified')
                    OR d.action = 'quarantine'
                    OR EXISTS (SELECT 1 FROM stage r WHERE r.decision_id = d.id AND r.stage = 'reverted'))",
            )?;
            let rows = query.query_map(params![deployment, self.boot, stage.name()], |r| json::<Decision>(r, 0))?;
            Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().flat_map(|d| d.canary).collect())
        };
        read().with_context(|| format!("journal: read what is {} on {deployment}", stage.name()))
    }

    /// The decision by which an action was already begun against any of these instances.
    pub fn acted_on(&self, deployment: &str, canary: &[Target]) -> anyhow::Result<Option<String>> {
        acted_on(&self.db, &self.boot, deployment, canary)
            .with_context(|| format!("journal: read what was done to {deployment}"))
    }
}

pub(super) fn mark(tx: &Transaction, boot: &str, id: &str, deployment: &str, targets: &[Target]) -> anyhow::Result<()> {
    for t in targets {
        tx.execute(
            "INSERT OR IGNORE INTO acted VALUES (?1, ?2, ?3, ?4, ?5)",
            params![deployment, &*t.cgroup, t.incarnation.to_string(), boot, id],
        )?;
    }
    Ok(())
}

pub(super) fn acted_on(
    db: &Connection,
    boot: &str,
    deployment: &str,
    targets: &[Target],
) -> anyhow::Result<Option<String>> {
    let mut query = db.prepare_cached(
        "SELECT decision_id FROM acted WHERE deployment = ?1 AND cgroup = ?2 AND incarnation = ?3 AND boot = ?4",
    )?;
    for t in targets {
        let key = params![deployment, &*t.cgroup, t.incarnation.to_string(), boot];
        if let Some(id) = query.query_row(key, |r| r.get(0)).optional()? {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// The latest decision against exactly this instance that an orchestrator was called for; a hold is none.
fn begun_against(db: &Connection, boot: &str, target: &Target) -> anyhow::Result<Option<String>> {
    let mut query = db.prepare_cached(
        "SELECT d.id, d.decision FROM decision d JOIN stage s ON s.decision_id = d.id
         WHERE d.deployment = ?1 AND s.stage = 'applying' AND s.boot = ?2 AND d.action <> 'hold' ORDER BY d.rowid DESC",
    )?;
    let rows = query
        .query_map(params![&*target.deployment, boot], |r| Ok((r.get::<_, String>(0)?, json::<Decision>(r, 1)?)))?;
    for row in rows {
        let (id, decision) = row?;
        if decision.canary.contains(target) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::tests::{AT, decision, plan, target};

    #[test]
    fn the_mark_is_followed_also_where_an_instance_came_back_while_no_guard_was_there() {
        let mut journal = Journal::in_memory().expect("a journal");
        journal.record_decision(&decision("a", &[1]), &plan(), Stage::Planned, "", AT).expect("writable");
        journal.record_stage("a", Stage::Applying, "", AT).expect("writable");
        let acted_on = |journal: &Journal, n| journal.acted_on("checkout", &[target(n)]).expect("readable");
        journal.came_back(&target(1), &target(2)).expect("writable");
        assert_eq!((acted_on(&journal, 1), acted_on(&journal, 2).as_deref()), (None, Some("a")));
        // Another life of the guard knows it by the decision, which has the first of its lives.
        journal.came_back(&target(1), &target(4)).expect("writable");
        assert_eq!(acted_on(&journal, 4).as_deref(), Some("a"));
        journal.came_back(&target(7), &target(8)).expect("writable");
        assert_eq!(acted_on(&journal, 8), None, "nothing was begun against that one");
    }
}
