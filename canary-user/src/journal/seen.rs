//! Since when canaries are seen: their age is not forgotten with the guard.

use anyhow::Context as _;
use rusqlite::{OptionalExtension as _, Transaction, params};

use super::{Journal, json};
use crate::guard::FirstSeen;

/// The canary that was there last, of each deployment. Not part of the schema's version: programs that do not know the table work
/// on without it.
pub(super) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS seen (deployment TEXT PRIMARY KEY, boot TEXT NOT NULL, instances TEXT NOT NULL) STRICT;
";

impl Journal {
    /// Keeps since when a canary's instances are seen, in place of what was kept of the deployment before.
    pub fn record_seen(&mut self, deployment: &str, instances: &[FirstSeen]) -> anyhow::Result<()> {
        let boot = self.boot.clone();
        let write = |tx: &Transaction| -> anyhow::Result<()> {
            let text = serde_json::to_string(instances)?;
            tx.execute("INSERT OR REPLACE INTO seen VALUES (?1, ?2, ?3)", params![deployment, boot, text])?;
            Ok(())
        };
        self.commit(write).with_context(|| format!("journal: keep since when the canary of {deployment} is seen"))
    }

    /// The same, of this boot: cgroup ids and the clock begin anew with each.
    pub fn seen(&self, deployment: &str) -> anyhow::Result<Vec<FirstSeen>> {
        let query = "SELECT instances FROM seen WHERE deployment = ?1 AND boot = ?2";
        let found = self.db.query_row(query, params![deployment, self.boot], |r| json(r, 0)).optional();
        let what = || format!("journal: read since when the canary of {deployment} is seen");
        Ok(found.with_context(what)?.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canary_that_was_there_last_is_kept_for_this_boot() {
        let mut journal = Journal::in_memory().expect("a journal");
        let seen = |incarnation| vec![FirstSeen { cgroup: "/shop/v2".into(), incarnation, t_ns: 9 }];
        assert!(journal.seen("shop").expect("readable").is_empty());
        for incarnation in 0..50 {
            journal.record_seen("shop", &seen(incarnation)).expect("writable");
        }
        let rows: i64 = journal.db.query_row("SELECT count(*) FROM seen", [], |r| r.get(0)).expect("a number");
        assert_eq!((journal.seen("shop").expect("readable"), rows), (seen(49), 1));
        assert!(journal.seen("cart").expect("readable").is_empty());
        journal.boot = "another".into();
        assert!(journal.seen("shop").expect("readable").is_empty(), "its ids say nothing there");
    }
}
