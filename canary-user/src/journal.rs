//! The guard's memory on disk: decisions, the stages of actions, changes of verdict. One SQLite file.
//!
//! Every write is on disk (WAL, synchronous=FULL) when the call returns: intent, plan and inverse are committed before
//! an orchestrator is called. A damaged file is refused, never repaired and never deleted: without its memory the guard
//! cannot know what it has done already.

#[cfg(test)]
mod tests;

use std::{path::Path, time::Duration};

use anyhow::{Context, bail};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, Transaction, params};

use crate::{
    guard::{Decision, Stage},
    judge::Verdict,
    orchestrator::Plan,
    targets::Target,
};

/// Raised with every change of the tables.
const SCHEMA: i64 = 1;

const TABLES: &str = "
CREATE TABLE schema_version (version INTEGER NOT NULL);
CREATE TABLE decision (
    id TEXT PRIMARY KEY, deployment TEXT NOT NULL, unix_ms INTEGER NOT NULL, action TEXT NOT NULL,
    decision TEXT NOT NULL, plan TEXT NOT NULL) STRICT;
CREATE TABLE stage (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, decision_id TEXT NOT NULL REFERENCES decision(id),
    stage TEXT NOT NULL, detail TEXT NOT NULL, unix_ms INTEGER NOT NULL) STRICT;
CREATE INDEX stage_of ON stage(decision_id, seq);
-- The canary instances that an action was begun against. The key is the last line of defence: none can be acted on twice.
-- Cgroup ids begin anew at boot, hence the boot id.
CREATE TABLE acted (
    deployment TEXT NOT NULL, cgroup TEXT NOT NULL, incarnation TEXT NOT NULL, boot TEXT NOT NULL,
    decision_id TEXT NOT NULL REFERENCES decision(id),
    PRIMARY KEY (deployment, cgroup, incarnation, boot)) STRICT;
CREATE TABLE verdict (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, deployment TEXT NOT NULL, unix_ms INTEGER NOT NULL,
    outcome TEXT NOT NULL, verdict TEXT NOT NULL) STRICT;
";

/// The open journal.
#[derive(Debug)]
pub struct Journal {
    db: Connection,
    boot: String,
}

/// One change of stage.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct StageEntry {
    pub stage: Stage,
    pub detail: String,
    pub unix_ms: u64,
}

/// A decision with its whole life, oldest stage first.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct HistoryEntry {
    pub decision: Decision,
    pub plan: Plan,
    pub stages: Vec<StageEntry>,
}

/// A verdict that differs in outcome from the one before it.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct VerdictEntry {
    pub deployment: String,
    pub unix_ms: u64,
    pub verdict: Verdict,
}

impl Journal {
    /// Opens the journal, and makes it where there is none yet.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let name = path.display();
        let directory = path.parent().unwrap_or(Path::new("/"));
        if !directory.is_dir() {
            bail!(
                "journal {name}: there is no directory {}: create it, or set 'journal' to another place",
                directory.display()
            );
        }
        if path.is_dir() {
            bail!("journal {name} is a directory: set 'journal' to a file in it, such as {name}/journal.db");
        }
        let boot = boot_id()?;
        let unwritable = || {
            format!(
                "journal {name} cannot be written: let the guard write to {}, or set 'journal' to another place",
                directory.display()
            )
        };
        let db = Connection::open(path).with_context(unwritable)?;
        Self::prepare(db, boot).map_err(|e| match e.downcast_ref::<rusqlite::Error>() {
            Some(rusqlite::Error::SqliteFailure(f, _)) => match f.code {
                rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt => {
                    damaged(path, &e.to_string())
                }
                rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked => {
                    e.context(format!("journal {name} is in use: stop the other guard that uses it"))
                }
                _ => e.context(unwritable()),
            },
            Some(_) => e.context(unwritable()),
            None if e.is::<Damaged>() => damaged(path, &e.to_string()),
            None => e.context(format!("journal {name}")),
        })
    }

    /// Opens a journal that exists, only to read: beside a guard that runs, and without making or changing anything.
    pub fn open_to_read(path: &Path) -> anyhow::Result<Self> {
        let name = path.display();
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags)
            .with_context(|| format!("journal {name} cannot be read: it is made by the first `canary run`"))?;
        db.busy_timeout(Duration::from_secs(5))?;
        let journal = Self { db, boot: boot_id()? };
        check_version(&journal.db).with_context(|| format!("journal {name}"))?;
        Ok(journal)
    }

    /// A journal that lasts as long as the process, for replays and tests.
    pub fn in_memory() -> anyhow::Result<Self> {
        Self::prepare(Connection::open_in_memory().context("open a journal in memory")?, "memory".into())
    }

    fn prepare(db: Connection, boot: String) -> anyhow::Result<Self> {
        db.busy_timeout(Duration::from_secs(5))?;
        let check: String = db.query_row("PRAGMA quick_check(1)", [], |r| r.get(0))?;
        if check != "ok" {
            return Err(Damaged(check).into());
        }
        // Answers with the mode in effect: "memory" for a journal in memory.
        let _mode: String = db.query_row("PRAGMA journal_mode = WAL", [], |r| r.get(0))?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "foreign_keys", true)?;
        let mut journal = Self { db, boot };
        let tx = journal.db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let tables: i64 = tx.query_row("SELECT count(*) FROM sqlite_schema WHERE type = 'table'", [], |r| r.get(0))?;
        if tables == 0 {
            tx.execute_batch(TABLES)?;
            tx.execute("INSERT INTO schema_version VALUES (?1)", [SCHEMA])?;
        }
        check_version(&tx)?;
        tx.commit()?;
        Ok(journal)
    }

    /// Records a decision with its plan and inverse, and the first stage of its life, in one commit.
    pub fn record_decision(
        &mut self,
        decision: &Decision,
        plan: &Plan,
        first: Stage,
        detail: &str,
    ) -> anyhow::Result<()> {
        let write = |tx: &Transaction| -> anyhow::Result<()> {
            let (json, plan) = (serde_json::to_string(decision)?, serde_json::to_string(plan)?);
            let action = decision.action.name();
            tx.execute(
                "INSERT INTO decision VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![decision.id, &*decision.deployment, decision.unix_ms as i64, action, json, plan],
            )?;
            stage_row(tx, &decision.id, first, detail, decision.unix_ms)
        };
        self.commit(write).with_context(|| format!("journal: record decision {}", decision.id))
    }

    /// Records a change of stage. [`Stage::Applying`] also marks the canary's instances as acted on, in the same commit,
    /// and fails where one of them was already.
    pub fn record_stage(&mut self, decision_id: &str, stage: Stage, detail: &str, unix_ms: u64) -> anyhow::Result<()> {
        let boot = self.boot.clone();
        let write = |tx: &Transaction| -> anyhow::Result<()> {
            if stage == Stage::Applying {
                let json: String =
                    tx.query_row("SELECT decision FROM decision WHERE id = ?1", [decision_id], |r| r.get(0))?;
                let decision: Decision = serde_json::from_str(&json)?;
                if let Some(id) = acted_on(tx, &boot, &decision.deployment, &decision.canary)? {
                    bail!("an action was already begun against this canary ({id})");
                }
                mark(tx, &boot, decision_id, &decision.deployment, &decision.canary)?;
            }
            stage_row(tx, decision_id, stage, detail, unix_ms)
        };
        self.commit(write).with_context(|| format!("journal: record {} of {decision_id}", stage.name()))
    }

    /// Counts these instances as acted on by the decision: a canary that someone brought back is theirs.
    pub fn mark_acted(&mut self, decision: &Decision, targets: &[Target]) -> anyhow::Result<()> {
        let boot = self.boot.clone();
        self.commit(|tx| mark(tx, &boot, &decision.id, &decision.deployment, targets))
            .with_context(|| format!("journal: mark what came back after {}", decision.id))
    }

    /// Decisions whose action was begun and has no end yet, oldest first, with the stage that they are in.
    pub fn unfinished(&self) -> anyhow::Result<Vec<(Decision, Stage, Plan)>> {
        let all = self.entries("ORDER BY d.rowid ASC", i64::MAX).context("journal: read unfinished actions")?;
        let begun = |s: Stage| matches!(s, Stage::Planned | Stage::Applying | Stage::Applied);
        Ok(all
            .into_iter()
            .filter_map(|e| e.stages.last().map(|s| s.stage).filter(|s| begun(*s)).map(|s| (e.decision, s, e.plan)))
            .collect())
    }

    /// Actions on a deployment whose orchestrator was called at or after a moment: decision and time, oldest first.
    pub fn actions_since(&self, deployment: &str, unix_ms: u64) -> anyhow::Result<Vec<(String, u64)>> {
        let read = || -> rusqlite::Result<Vec<(String, u64)>> {
            let mut query = self.db.prepare_cached(
                "SELECT s.decision_id, s.unix_ms FROM stage s JOIN decision d ON d.id = s.decision_id
                 WHERE d.deployment = ?1 AND s.stage = 'applying' AND s.unix_ms >= ?2 ORDER BY s.seq",
            )?;
            let rows = query
                .query_map(params![deployment, unix_ms as i64], |r| Ok((r.get(0)?, r.get::<_, i64>(1)? as u64)))?;
            rows.collect()
        };
        read().with_context(|| format!("journal: read the actions on {deployment}"))
    }

    /// The decision by which an action was already begun against any of these instances.
    pub fn acted_on(&self, deployment: &str, canary: &[Target]) -> anyhow::Result<Option<String>> {
        acted_on(&self.db, &self.boot, deployment, canary)
            .with_context(|| format!("journal: read what was done to {deployment}"))
    }

    /// The latest decisions with their stages, newest first.
    pub fn history(&self, limit: usize) -> anyhow::Result<Vec<HistoryEntry>> {
        self.entries("ORDER BY d.rowid DESC", limit as i64).context("journal: read the history")
    }

    /// Records a change of verdict.
    pub fn record_verdict(&mut self, deployment: &str, unix_ms: u64, verdict: &Verdict) -> anyhow::Result<()> {
        let write = |tx: &Transaction| -> anyhow::Result<()> {
            tx.execute(
                "INSERT INTO verdict (deployment, unix_ms, outcome, verdict) VALUES (?1, ?2, ?3, ?4)",
                params![deployment, unix_ms as i64, verdict.outcome.name(), serde_json::to_string(verdict)?],
            )?;
            Ok(())
        };
        self.commit(write).with_context(|| format!("journal: record a verdict on {deployment}"))
    }

    /// The latest changes of verdict, newest first.
    pub fn verdicts(&self, limit: usize) -> anyhow::Result<Vec<VerdictEntry>> {
        let mut query =
            self.db.prepare_cached("SELECT deployment, unix_ms, verdict FROM verdict ORDER BY seq DESC LIMIT ?1")?;
        let rows = query.query_map([limit as i64], |r| {
            Ok(VerdictEntry { deployment: r.get(0)?, unix_ms: r.get::<_, i64>(1)? as u64, verdict: json(r, 2)? })
        })?;
        rows.collect::<rusqlite::Result<_>>().context("journal: read the verdicts")
    }

    fn entries(&self, order: &str, limit: i64) -> rusqlite::Result<Vec<HistoryEntry>> {
        let mut decisions =
            self.db.prepare_cached(&format!("SELECT d.id, d.decision, d.plan FROM decision d {order} LIMIT ?1"))?;
        let mut stages =
            self.db.prepare_cached("SELECT stage, detail, unix_ms FROM stage WHERE decision_id = ?1 ORDER BY seq")?;
        let rows = decisions.query_map([limit], |r| Ok((r.get::<_, String>(0)?, json(r, 1)?, json(r, 2)?)))?;
        rows.map(|row| {
            let (id, decision, plan) = row?;
            let stages = stages.query_map([id], |r| {
                // A stage is stored by its name, which is also its name in JSON.
                let stage = from_json(0, &format!("\"{}\"", r.get::<_, String>(0)?))?;
                Ok(StageEntry { stage, detail: r.get(1)?, unix_ms: r.get::<_, i64>(2)? as u64 })
            })?;
            Ok(HistoryEntry { decision, plan, stages: stages.collect::<rusqlite::Result<_>>()? })
        })
        .collect()
    }

    fn commit(&mut self, write: impl FnOnce(&Transaction) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let tx = self.db.transaction()?;
        write(&tx)?;
        Ok(tx.commit()?)
    }
}

fn boot_id() -> anyhow::Result<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .context("read /proc/sys/kernel/random/boot_id, which tells this boot's cgroup ids from another's")?;
    Ok(id.trim().to_owned())
}

fn check_version(db: &Connection) -> anyhow::Result<()> {
    let version: Option<i64> = match db.query_row("SELECT max(version) FROM schema_version", [], |r| r.get(0)) {
        Ok(version) => version,
        Err(_) => bail!("not a journal: an SQLite file of something else; set 'journal' to another file"),
    };
    match version {
        Some(SCHEMA) => Ok(()),
        Some(v) if v > SCHEMA => bail!(
            "written by a newer canary (schema {v}, this one knows {SCHEMA}): use that version, or move the file away"
        ),
        _ => Err(Damaged("no schema version".into()).into()),
    }
}

/// The integrity check's complaint.
#[derive(Debug)]
struct Damaged(String);

impl std::fmt::Display for Damaged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Damaged {}

fn damaged(path: &Path, found: &str) -> anyhow::Error {
    let name = path.display();
    anyhow::anyhow!(
        "journal {name} is damaged ({found}): the guard does not act without its memory. \
         Move the file away (mv {name} {name}.damaged) and start again; nothing was changed in it"
    )
}

fn stage_row(tx: &Transaction, id: &str, stage: Stage, detail: &str, unix_ms: u64) -> anyhow::Result<()> {
    tx.execute(
        "INSERT INTO stage (decision_id, stage, detail, unix_ms) VALUES (?1, ?2, ?3, ?4)",
        params![id, stage.name(), detail, unix_ms as i64],
    )?;
    Ok(())
}

fn mark(tx: &Transaction, boot: &str, id: &str, deployment: &str, targets: &[Target]) -> anyhow::Result<()> {
    for t in targets {
        tx.execute(
            "INSERT OR IGNORE INTO acted VALUES (?1, ?2, ?3, ?4, ?5)",
            params![deployment, &*t.cgroup, t.incarnation.to_string(), boot, id],
        )?;
    }
    Ok(())
}

fn acted_on(db: &Connection, boot: &str, deployment: &str, targets: &[Target]) -> anyhow::Result<Option<String>> {
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

fn json<T: serde::de::DeserializeOwned>(row: &Row, column: usize) -> rusqlite::Result<T> {
    from_json(column, &row.get::<_, String>(column)?)
}

fn from_json<T: serde::de::DeserializeOwned>(column: usize, text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(e)))
}
