//! What a report is made from: the state at a decision and the windows around it, kept beside the decision.
//!
//! A connection of its own, so that the line never waits for it. Only the latest [`KEPT`] are kept.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};

use super::{HistoryEntry, Journal};

/// Decisions whose evidence is kept; each takes about 200 KB.
pub const KEPT: i64 = 50;

// Not part of the schema's version: programs that do not know the table work on without it.
const TABLE: &str = "
CREATE TABLE IF NOT EXISTS evidence (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, decision_id TEXT NOT NULL UNIQUE, evidence TEXT NOT NULL) STRICT;
";

/// The part of the journal that reports are made from.
#[derive(Debug)]
pub struct Archive(Connection);

impl Archive {
    /// Opens it in a journal that exists.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn open(journal: &Path) -> anyhow::Result<Self> {
        let what = || format!("journal {}: keep evidence in it", journal.display());
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(journal, flags).with_context(what)?;
        db.busy_timeout(Duration::from_secs(5))?;
        db.execute_batch(TABLE).with_context(what)?;
        Ok(Self(db))
    }

    /// Keeps the evidence of a decision, in place of what was kept of it before, and forgets the oldest.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn keep(&mut self, decision_id: &str, evidence: &str) -> anyhow::Result<()> {
        let write = |db: &mut Connection| -> rusqlite::Result<()> {
            let tx = db.transaction()?;
            tx.execute(
                "INSERT INTO evidence (decision_id, evidence) VALUES (?1, ?2)
                 ON CONFLICT (decision_id) DO UPDATE SET evidence = excluded.evidence",
                params![decision_id, evidence],
            )?;
            tx.execute("DELETE FROM evidence WHERE seq <= (SELECT max(seq) FROM evidence) - ?1", [KEPT])?;
            tx.commit()
        };
        write(&mut self.0).with_context(|| format!("journal: keep the evidence of {decision_id}"))
    }

    /// What was kept of a decision; `None` where it was decided too long ago.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn kept(&self, decision_id: &str) -> anyhow::Result<Option<String>> {
        kept(&self.0, decision_id)
    }
}

fn kept(db: &Connection, decision_id: &str) -> anyhow::Result<Option<String>> {
    let query = "SELECT evidence FROM evidence WHERE decision_id = ?1";
    let found = db.query_row(query, [decision_id], |r| r.get(0)).optional();
    found.with_context(|| format!("journal: read the evidence of {decision_id}"))
}

impl Journal {
    /// The decision of this id, or the latest one for `None`.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    pub fn decision(&self, id: Option<&str>) -> anyhow::Result<Option<HistoryEntry>> {
        let found = match id {
            None => self.entries("ORDER BY d.rowid DESC", 1),
            Some(id) => self.entries_of(id),
        };
        Ok(found.context("journal: look for a decision")?.into_iter().next())
    }

    /// What was kept of a decision; `None` where it was decided too long ago.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    pub fn evidence(&self, decision_id: &str) -> anyhow::Result<Option<String>> {
        let has_table = "SELECT count(*) FROM sqlite_schema WHERE name = 'evidence'";
        let tables: i64 = self.db.query_row(has_table, [], |r| r.get(0))?;
        if tables == 0 {
            return Ok(None);
        }
        kept(&self.db, decision_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_evidence_is_kept_and_the_oldest_forgotten() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("journal.db");
        let journal = Journal::open(&path).expect("a new journal");
        assert_eq!(journal.evidence("a").expect("readable"), None, "there is no table yet");
        let mut archive = Archive::open(&path).expect("a journal");
        for n in 0..=KEPT {
            archive.keep(&n.to_string(), "first").expect("writable");
        }
        archive.keep("7", "second").expect("writable");
        assert_eq!(journal.evidence("0").expect("readable"), None, "the oldest is gone");
        assert_eq!(journal.evidence("7").expect("readable").as_deref(), Some("second"));
        assert_eq!(journal.evidence(&KEPT.to_string()).expect("readable").as_deref(), Some("first"));
        assert!(journal.decision(None).expect("readable").is_none());
    }
}
