//! How far stable has been held against what it was before a promotion: it goes on over a restart of the guard.

use anyhow::{Context as _, bail};
use rusqlite::{OptionalExtension as _, Transaction, params};

use super::Journal;
use crate::{
    guard::Moment,
    judge::{CONTROL_FORMAT, KeptControl},
};

/// The latest of each deployment. Not part of the schema's version: programs that do not know the table work on without it, and
/// what is in it has a format of its own.
pub(super) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS promotion (
    deployment TEXT PRIMARY KEY, boot TEXT NOT NULL, t_ns INTEGER NOT NULL, span_ns INTEGER NOT NULL,
    format INTEGER NOT NULL, control TEXT NOT NULL) STRICT;
";

/// What an earlier life of the guard left, in this boot.
#[derive(Clone, Debug, PartialEq)]
pub struct OnRecord {
    pub control: KeptControl,
    /// CLOCK_MONOTONIC end of the last window in it.
    pub t_ns: u64,
    /// Length of that window.
    pub span_ns: u64,
}

impl Journal {
    /// Keeps how far it has come, in place of what was kept of the deployment before. `at`: the end of the last window in it.
    pub fn record_control(
        &mut self,
        deployment: &str,
        control: &KeptControl,
        at: Moment,
        span_ns: u64,
    ) -> anyhow::Result<()> {
        let boot = self.boot.clone();
        let write = |tx: &Transaction| -> anyhow::Result<()> {
            let (at, span, text) = (at.t_ns as i64, span_ns as i64, serde_json::to_string(control)?);
            tx.execute(
                "INSERT OR REPLACE INTO promotion VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![deployment, boot, at, span, CONTROL_FORMAT, text],
            )?;
            Ok(())
        };
        self.commit(write).with_context(|| format!("journal: keep what {deployment} was like before a promotion"))
    }

    /// Forgets it.
    pub fn end_control(&mut self, deployment: &str) -> anyhow::Result<()> {
        let end = |tx: &Transaction| -> anyhow::Result<()> {
            tx.execute("DELETE FROM promotion WHERE deployment = ?1", [deployment])?;
            Ok(())
        };
        self.commit(end).with_context(|| format!("journal: forget what {deployment} was like before a promotion"))
    }

    /// What was left of a deployment.
    ///
    /// # Errors
    /// Where it cannot be used, in words.
    pub fn control(&self, deployment: &str) -> anyhow::Result<Option<OnRecord>> {
        let query = "SELECT boot, t_ns, span_ns, format, control FROM promotion WHERE deployment = ?1";
        let row = self.db.query_row(query, [deployment], |r| {
            let (boot, control): (String, String) = (r.get(0)?, r.get(4)?);
            Ok((boot, r.get::<_, i64>(1)? as u64, r.get::<_, i64>(2)? as u64, r.get::<_, i64>(3)?, control))
        });
        let Some((boot, t_ns, span_ns, format, text)) = row.optional().context("journal: read it")? else {
            return Ok(None);
        };
        if format != i64::from(CONTROL_FORMAT) {
            bail!("another version of the canary kept it (format {format}, this one reads {CONTROL_FORMAT})");
        }
        if boot != self.boot {
            bail!("the machine was started again since: none of the instances that were compared is there any more");
        }
        let control = serde_json::from_str(&text).context("it cannot be read")?;
        Ok(Some(OnRecord { control, t_ns, span_ns }))
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;
    use serde_json::json;

    use super::*;

    const AT: Moment = Moment { unix_ms: 5, t_ns: 7_000_000_000 };

    fn control(windows: u64) -> KeptControl {
        let text = json!({
            "instances": [["/shop/v2", 4]], "settings": "", "windows": windows, "worse": false,
            "restarts": {"age": 3, "cash": 0.5}, "tracks": {},
        });
        serde_json::from_value(text).expect("a comparison")
    }

    #[test]
    fn one_comparison_is_kept_of_each_deployment_until_it_ends() {
        let mut journal = Journal::in_memory().expect("a journal");
        assert_eq!(journal.control("shop").expect("readable"), None);
        for windows in 0..50 {
            journal.record_control("shop", &control(windows), AT, 1_000_000_000).expect("writable");
        }
        journal.record_control("cart", &control(7), AT, 1_000_000_000).expect("writable");
        let rows = |journal: &Journal| -> i64 {
            journal.db.query_row("SELECT count(*) FROM promotion", [], |r| r.get(0)).expect("a number")
        };
        assert_eq!(rows(&journal), 2, "the latest takes the place of the one before");
        let kept = OnRecord { control: control(49), t_ns: 7_000_000_000, span_ns: 1_000_000_000 };
        assert_eq!(journal.control("shop").expect("readable"), Some(kept));
        journal.end_control("shop").expect("writable");
        assert_eq!((journal.control("shop").expect("readable"), rows(&journal)), (None, 1));
    }

    #[test]
    fn one_of_another_format_or_boot_and_a_damaged_one_are_refused_in_words() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("journal.db");
        let mut journal = Journal::open(&path).expect("a journal");
        journal.record_control("shop", &control(1), AT, 1).expect("writable");
        let refused = |change: &str| {
            Connection::open(&path).and_then(|db| db.execute(change, [])).expect("changed");
            format!("{:#}", journal.control("shop").expect_err("it is refused"))
        };
        let said = refused("UPDATE promotion SET control = '{}'");
        assert!(said.starts_with("it cannot be read: missing field"), "{said}");
        let said = refused("UPDATE promotion SET boot = 'another'");
        assert!(said.starts_with("the machine was started again since: "), "{said}");
        let said = refused("UPDATE promotion SET format = 99");
        assert_eq!(said, "another version of the canary kept it (format 99, this one reads 1)");
    }
}
