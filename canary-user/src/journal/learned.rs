//! What was learned of services: kept from one version of a service to the next, and over restarts of the guard.

use anyhow::Context as _;
use rusqlite::{Transaction, params};

use super::{Journal, json};
use crate::judge::{Earlier, Learned};

/// By set of stable instances. Not part of the schema's version: programs that do not know the table work on without it.
pub(super) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS learned (
    deployment TEXT NOT NULL, boot TEXT NOT NULL, instances TEXT NOT NULL, unix_ms INTEGER NOT NULL, known TEXT NOT NULL,
    PRIMARY KEY (deployment, boot, instances)) STRICT;
";
/// Sets of stable instances that are remembered of a service, the latest.
const SETS: i64 = 20;

impl Journal {
    /// Keeps what one set of stable instances taught, in place of what the same set taught before.
    pub fn record_learned(&mut self, deployment: &str, learned: &Learned, unix_ms: u64) -> anyhow::Result<()> {
        let boot = self.boot.clone();
        let instances = serde_json::to_string(&learned.instances)?;
        let write = |tx: &Transaction| -> anyhow::Result<()> {
            tx.execute(
                "INSERT OR REPLACE INTO learned VALUES (?1, ?2, ?3, ?4, ?5)",
                params![deployment, boot, instances, unix_ms as i64, serde_json::to_string(&learned.known)?],
            )?;
            tx.execute(
                "DELETE FROM learned WHERE deployment = ?1 AND rowid NOT IN
                 (SELECT rowid FROM learned WHERE deployment = ?1 ORDER BY unix_ms DESC, rowid DESC LIMIT ?2)",
                params![deployment, SETS],
            )?;
            Ok(())
        };
        self.commit(write).with_context(|| format!("journal: record what was learned of {deployment}"))
    }

    /// What is known of a service from before: all sets together.
    pub fn earlier(&self, deployment: &str) -> anyhow::Result<Earlier> {
        let read = || -> rusqlite::Result<Vec<Earlier>> {
            let mut query =
                self.db.prepare_cached("SELECT known FROM learned WHERE deployment = ?1 ORDER BY unix_ms, rowid")?;
            query.query_map([deployment], |r| json(r, 0))?.collect()
        };
        let sets = read().with_context(|| format!("journal: read what was learned of {deployment}"))?;
        Ok(Earlier::pooled(&sets))
    }
}
