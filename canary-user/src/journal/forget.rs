//! What the journal does not keep for ever, so that it stays of a size. Never what is unfinished, nor what keeps a canary of this boot
//! from being acted on.

use std::time::Duration;

use anyhow::Context as _;
use rusqlite::{Transaction, params};

use super::{Journal, unfinished};

/// How long decisions and commands are kept at least.
const KEPT: Duration = Duration::from_secs(90 * 86_400);
/// So many of the latest of each are kept, however old they are: a wall clock that is set forward takes no more.
const LATEST: i64 = 1_000;
/// So many changes of verdict are kept of each deployment.
const VERDICTS: i64 = 5_000;

impl Journal {
    /// Forgets what is older than that, by the wall clock.
    ///
    /// # Errors
    /// Where the file cannot be written; nothing is forgotten then.
    pub fn forget(&mut self, unix_ms: u64) -> anyhow::Result<()> {
        let oldest = unix_ms.saturating_sub(KEPT.as_millis() as u64) as i64;
        let boot = self.boot.clone();
        let write = |tx: &Transaction| -> anyhow::Result<()> {
            for id in old_decisions(tx, oldest, &boot)? {
                // In this order, by which one refers to another.
                tx.execute("DELETE FROM acted WHERE decision_id = ?1", [&id])?;
                tx.execute("DELETE FROM stage WHERE decision_id = ?1", [&id])?;
                tx.execute("DELETE FROM decision WHERE id = ?1", [&id])?;
            }
            tx.execute(
                "DELETE FROM command WHERE unix_ms < ?1 AND seq <= (SELECT max(seq) FROM command) - ?2",
                params![oldest, LATEST],
            )?;
            tx.execute(
                "DELETE FROM verdict WHERE seq IN (SELECT seq FROM (
                    SELECT seq, row_number() OVER (PARTITION BY deployment ORDER BY seq DESC) AS place FROM verdict)
                 WHERE place > ?1)",
                [VERDICTS],
            )?;
            Ok(())
        };
        self.commit(write).context("journal: forget what is old")
    }
}

fn old_decisions(tx: &Transaction, oldest: i64, boot: &str) -> rusqlite::Result<Vec<String>> {
    let mut query = tx.prepare(&format!(
        "SELECT d.id FROM decision d
         WHERE d.unix_ms < ?1 AND d.rowid <= (SELECT max(rowid) FROM decision) - ?2 AND NOT ({})
            AND NOT EXISTS (SELECT 1 FROM acted a WHERE a.decision_id = d.id AND a.boot = ?3)
            AND NOT EXISTS (
                SELECT 1 FROM stage s
                WHERE s.decision_id = d.id AND s.boot = ?3 AND s.stage IN ('applying', 'declined'))",
        unfinished()
    ))?;
    let ids = query.query_map(params![oldest, LATEST, boot], |r| r.get(0))?;
    ids.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        control::Command,
        guard::{Action, Decision, Stage},
        journal::tests::{AT, decision, plan, verdict},
        judge::Outcome,
    };

    const DAY_MS: u64 = 86_400_000;

    fn decide(journal: &mut Journal, decision: &Decision, stages: &[Stage]) {
        journal.record_decision(decision, &plan(), stages[0], "", AT).expect("writable");
        for stage in &stages[1..] {
            journal.record_stage(&decision.id, *stage, "", AT).expect("writable");
        }
    }

    fn rows(journal: &Journal, table: &str) -> i64 {
        journal.db.query_row(&format!("SELECT count(*) FROM {table}"), [], |r| r.get(0)).expect("a number")
    }

    #[test]
    fn what_is_old_is_forgotten_but_for_what_still_matters() {
        let mut journal = Journal::in_memory().expect("a journal");
        journal.boot = "another".into();
        let quarantine = Decision { action: Action::Quarantine, ..decision("held", &[1]) };
        decide(&mut journal, &quarantine, &[Stage::Planned, Stage::Applying, Stage::Failed]);
        decide(&mut journal, &decision("waits", &[2]), &[Stage::Planned]);
        decide(&mut journal, &decision("past", &[3]), &[Stage::Planned, Stage::Applying, Stage::Failed]);
        journal.boot = "this".into();
        decide(&mut journal, &decision("acted", &[4]), &[Stage::Planned, Stage::Applying, Stage::Failed]);
        decide(&mut journal, &decision("declined", &[5]), &[Stage::Planned, Stage::Declined]);
        decide(&mut journal, &decision("blocked", &[6]), &[Stage::Blocked]);
        for n in 0..LATEST {
            decide(&mut journal, &decision(&format!("later-{n}"), &[7]), &[Stage::Blocked]);
        }
        let number = journal.latest_number().expect("readable");
        journal.forget(AT.unix_ms + 89 * DAY_MS).expect("writable");
        assert_eq!(rows(&journal, "decision"), LATEST + 6, "nothing is that old");
        journal.forget(AT.unix_ms + 91 * DAY_MS).expect("writable");
        let is_there = |id: &str| journal.entry(id).expect("readable").is_some();
        for (id, kept) in
            [("held", true), ("waits", true), ("past", false), ("acted", true), ("declined", true), ("blocked", false)]
        {
            assert_eq!(is_there(id), kept, "{id}");
        }
        assert!(is_there("later-0"), "the latest stay, whatever the clock says");
        assert_eq!((rows(&journal, "decision"), rows(&journal, "acted")), (LATEST + 4, 2));
        assert_eq!(journal.latest_number().expect("readable"), number, "ids go on from there");
        // What is forgotten is not in the way of what is written.
        decide(&mut journal, &decision("next", &[8]), &[Stage::Planned, Stage::Applying]);
    }

    #[test]
    fn commands_and_changes_of_verdict_are_bounded() {
        let mut journal = Journal::in_memory().expect("a journal");
        for n in 0..VERDICTS + 10 {
            journal.record_verdict("checkout", n as u64, &verdict(Outcome::Healthy)).expect("writable");
        }
        journal.record_verdict("cart", 1, &verdict(Outcome::Regressed)).expect("writable");
        for n in 0..LATEST + 10 {
            let undo = Command::Undo { id: n.to_string() };
            journal.record_command(&undo, "root", Ok("done"), AT.unix_ms).expect("writable");
        }
        journal.forget(AT.unix_ms).expect("writable");
        assert_eq!((rows(&journal, "verdict"), rows(&journal, "command")), (VERDICTS + 1, LATEST + 10));
        assert_eq!(journal.verdicts(2).expect("readable")[1].unix_ms, VERDICTS as u64 + 9, "the latest stay");
        journal.forget(AT.unix_ms + 91 * DAY_MS).expect("writable");
        assert_eq!(rows(&journal, "command"), LATEST);
        let latest = journal.commands(1).expect("readable").remove(0).command;
        assert_eq!(latest["id"], (LATEST + 9).to_string());
    }
}
