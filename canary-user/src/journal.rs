//! The guard's memory on disk: decisions, the stages of actions, changes of verdict. One SQLite file.
//!
//! Every write is on disk (WAL, synchronous=FULL) when the call returns: intent, plan and inverse are committed before
//! an orchestrator is called. A damaged file is refused, never repaired and never deleted: without its memory the guard
//! cannot know what it has done already.

mod acted;
pub mod archive;
mod asked;
mod forget;
mod learned;
mod promotion;
mod seen;
#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use crate::{
    guard::{Action, Decision, Moment, Stage},
    judge::{Outcome, Verdict},
    orchestrator::Plan,
};

pub use asked::CommandEntry;
pub use promotion::OnRecord;

use acted::{acted_on, mark};

/// Raised with every change of the tables; [`UPGRADES`] has the way from each one before.
const SCHEMA: i64 = 2;

const TABLES: &str = "
CREATE TABLE schema_version (version INTEGER NOT NULL);
CREATE TABLE decision (
    id TEXT PRIMARY KEY, deployment TEXT NOT NULL, unix_ms INTEGER NOT NULL, action TEXT NOT NULL,
    decision TEXT NOT NULL, plan TEXT NOT NULL) STRICT;
CREATE TABLE stage (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, decision_id TEXT NOT NULL REFERENCES decision(id),
    stage TEXT NOT NULL, detail TEXT NOT NULL, unix_ms INTEGER NOT NULL,
    t_ns INTEGER NOT NULL, boot TEXT NOT NULL) STRICT;
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
-- An empty name stands for all deployments.
CREATE TABLE pause (deployment TEXT PRIMARY KEY, pause TEXT NOT NULL, boot TEXT NOT NULL) STRICT;
CREATE TABLE command (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, unix_ms INTEGER NOT NULL, who TEXT NOT NULL,
    command TEXT NOT NULL, accepted INTEGER NOT NULL, said TEXT NOT NULL) STRICT;
";

/// What turns schema 1 into 2, and so on. A stage of schema 1 has no monotonic time: it counts as of another boot.
const UPGRADES: [&str; 1] = ["
ALTER TABLE stage ADD COLUMN t_ns INTEGER NOT NULL DEFAULT 0;
ALTER TABLE stage ADD COLUMN boot TEXT NOT NULL DEFAULT '';
CREATE TABLE pause (deployment TEXT PRIMARY KEY, pause TEXT NOT NULL, boot TEXT NOT NULL) STRICT;
CREATE TABLE command (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, unix_ms INTEGER NOT NULL, who TEXT NOT NULL,
    command TEXT NOT NULL, accepted INTEGER NOT NULL, said TEXT NOT NULL) STRICT;
"];

/// The open journal.
#[derive(Debug)]
pub struct Journal {
    db: Connection,
    boot: String,
}

/// One change of stage.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct StageEntry {
    pub stage: Stage,
    pub detail: String,
    pub unix_ms: u64,
}

/// A decision with its whole life, oldest stage first.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
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
        if directory.exists() && !directory.is_dir() {
            let file = directory.display();
            bail!("journal {name}: {file} is a file, not a directory: set 'journal' to another place");
        }
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

    /// The file; `None` for a journal in memory.
    pub fn path(&self) -> Option<PathBuf> {
        self.db.path().filter(|path| !path.is_empty()).map(PathBuf::from)
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
        let tx = journal.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let tables: i64 = tx.query_row("SELECT count(*) FROM sqlite_schema WHERE type = 'table'", [], |r| r.get(0))?;
        if tables == 0 {
            tx.execute_batch(TABLES)?;
            tx.execute("INSERT INTO schema_version VALUES (?1)", [SCHEMA])?;
        }
        upgrade(&tx)?;
        check_version(&tx)?;
        [learned::TABLE, promotion::TABLE, seen::TABLE].iter().try_for_each(|table| tx.execute_batch(table))?;
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
        at: Moment,
    ) -> anyhow::Result<()> {
        let boot = self.boot.clone();
        let write = |tx: &Transaction| -> anyhow::Result<()> {
            let (json, plan) = (serde_json::to_string(decision)?, serde_json::to_string(plan)?);
            let action = decision.action.name();
            tx.execute(
                "INSERT INTO decision VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![decision.id, &*decision.deployment, decision.unix_ms as i64, action, json, plan],
            )?;
            stage_row(tx, &boot, &decision.id, first, detail, at)
        };
        self.commit(write).with_context(|| format!("journal: record decision {}", decision.id))
    }

    /// Puts another plan, and the canary as it is now, in the place of those that a decision was recorded with.
    pub fn plan_anew(&mut self, decision: &Decision, plan: &Plan) -> anyhow::Result<()> {
        let write = |tx: &Transaction| -> anyhow::Result<()> {
            let (json, plan) = (serde_json::to_string(decision)?, serde_json::to_string(plan)?);
            let changed = tx.execute(
                "UPDATE decision SET decision = ?2, plan = ?3 WHERE id = ?1",
                params![decision.id, json, plan],
            )?;
            ensure!(changed == 1, "there is no such decision");
            Ok(())
        };
        self.commit(write).with_context(|| format!("journal: plan {} anew", decision.id))
    }

    /// Records a change of stage. [`Stage::Applying`] also marks the canary's instances as acted on, in the same commit,
    /// and fails where one of them was already; not for a hold, which is not what is done once to a canary.
    pub fn record_stage(&mut self, decision_id: &str, stage: Stage, detail: &str, at: Moment) -> anyhow::Result<()> {
        let boot = self.boot.clone();
        let write = |tx: &Transaction| -> anyhow::Result<()> {
            if stage == Stage::Applying {
                let json: String =
                    tx.query_row("SELECT decision FROM decision WHERE id = ?1", [decision_id], |r| r.get(0))?;
                let decision: Decision = serde_json::from_str(&json)?;
                if decision.action.is_done_once() {
                    if let Some(id) = acted_on(tx, &boot, &decision.deployment, &decision.canary)? {
                        bail!("an action was already begun against this canary ({id})");
                    }
                    mark(tx, &boot, decision_id, &decision.deployment, &decision.canary)?;
                }
            }
            stage_row(tx, &boot, decision_id, stage, detail, at)
        };
        self.commit(write).with_context(|| format!("journal: record {} of {decision_id}", stage.name()))
    }

    /// Decisions whose life is not over, oldest first: those that were begun and have no end yet, those that are watched
    /// still, and quarantines that were called for and are not undone.
    pub fn unfinished(&self) -> anyhow::Result<Vec<HistoryEntry>> {
        let which = format!("WHERE {} ORDER BY d.rowid", unfinished());
        self.entries_by(&which, params![]).context("journal: read unfinished actions")
    }

    /// A decision with its whole life.
    pub fn entry(&self, id: &str) -> anyhow::Result<Option<HistoryEntry>> {
        let all = self.entries_of(id);
        Ok(all.with_context(|| format!("journal: read decision {id}"))?.pop())
    }

    /// When the verdict on a deployment last became "regressed", by the wall clock.
    pub fn last_condemned_unix_ms(&self, deployment: &str) -> anyhow::Result<Option<u64>> {
        let query = "SELECT max(unix_ms) FROM verdict WHERE deployment = ?1 AND outcome = ?2";
        let latest = self.db.query_row(query, [deployment, Outcome::Regressed.name()], |r| r.get::<_, Option<i64>>(0));
        Ok(latest.with_context(|| format!("journal: read the verdicts on {deployment}"))?.map(|ms| ms as u64))
    }

    /// The verdict that a decision was made on: the latest before it that condemned, whatever the wall clock did since.
    pub fn condemnation(&self, decision: &Decision) -> anyhow::Result<Option<Verdict>> {
        let query = "SELECT verdict FROM verdict WHERE deployment = ?1 AND outcome = ?2
                     ORDER BY unix_ms <= ?3 DESC, seq DESC LIMIT 1";
        let key = params![&*decision.deployment, Outcome::Regressed.name(), decision.unix_ms as i64];
        let found = self.db.query_row(query, key, |r| json(r, 0)).optional();
        found.with_context(|| format!("journal: read the verdict that {} rests on", decision.id))
    }

    /// Actions of this boot that a person took back, or whose canary somebody brought back, with their lives: what comes back
    /// after them is somebody's.
    pub fn wanted(&self, deployment: &str) -> anyhow::Result<Vec<HistoryEntry>> {
        let which = "WHERE d.deployment = ?1 AND EXISTS (
            SELECT 1 FROM stage s
            WHERE s.decision_id = d.id AND s.stage IN ('undoing', 'undone', 'reverted') AND s.boot = ?2) ORDER BY d.rowid";
        let found = self.entries_by(which, params![deployment, self.boot]);
        found.with_context(|| format!("journal: read what was taken back of {deployment}"))
    }

    /// How long ago the orchestrator was called for a deployment, for each call within `span`, oldest first; one for a hold, which
    /// takes nothing away, does not count. By the clock that only runs on where the call was of this boot; else by the wall
    /// clock, to which a call in the future (the clock was set back) is of this moment.
    pub fn action_ages(&self, deployment: &str, now: Moment, span: Duration) -> anyhow::Result<Vec<Duration>> {
        let read = || -> rusqlite::Result<Vec<Duration>> {
            let mut query = self.db.prepare_cached(
                "SELECT s.unix_ms, s.t_ns, s.boot = ?2 FROM stage s JOIN decision d ON d.id = s.decision_id
                 WHERE d.deployment = ?1 AND s.stage = 'applying' AND d.action <> 'hold' ORDER BY s.seq",
            )?;
            let rows = query.query_map(params![deployment, self.boot], |r| {
                let (unix_ms, t_ns) = (r.get::<_, i64>(0)? as u64, r.get::<_, i64>(1)? as u64);
                Ok(match r.get(2)? {
                    true => Duration::from_nanos(now.t_ns.saturating_sub(t_ns)),
                    false => Duration::from_millis(now.unix_ms.saturating_sub(unix_ms)),
                })
            })?;
            rows.filter(|age| age.as_ref().map_or(true, |age| *age <= span)).collect()
        };
        read().with_context(|| format!("journal: read the actions on {deployment}"))
    }

    /// A number that is no lower than how many decisions there ever were, also those that are forgotten.
    pub fn latest_number(&self) -> anyhow::Result<u64> {
        let latest = self.db.query_row("SELECT max(rowid) FROM decision", [], |r| r.get::<_, Option<i64>>(0));
        Ok(latest.context("journal: count the decisions")?.unwrap_or(0) as u64)
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
        self.entries_by(&format!("{order} LIMIT ?1"), params![limit])
    }

    fn entries_of(&self, id: &str) -> rusqlite::Result<Vec<HistoryEntry>> {
        self.entries_by("WHERE d.id = ?1", params![id])
    }

    fn entries_by(&self, which: &str, values: &[&dyn rusqlite::ToSql]) -> rusqlite::Result<Vec<HistoryEntry>> {
        let query = format!("SELECT d.id, d.decision, d.plan FROM decision d {which}");
        let mut decisions = self.db.prepare_cached(&query)?;
        let mut stages =
            self.db.prepare_cached("SELECT stage, detail, unix_ms FROM stage WHERE decision_id = ?1 ORDER BY seq")?;
        let rows = decisions.query_map(values, |r| Ok((r.get::<_, String>(0)?, json(r, 1)?, json(r, 2)?)))?;
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
        // What begins by reading cannot wait for another writer, such as the archive, once it comes to write: SQLite refuses it at
        // once (https://sqlite.org/lang_transaction.html, "read transactions versus write transactions").
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        write(&tx)?;
        Ok(tx.commit()?)
    }
}

/// Whether the life of a decision `d` is not over, in SQL: see [`Journal::unfinished`].
fn unfinished() -> String {
    let has = |stage: Stage| {
        format!("EXISTS (SELECT 1 FROM stage h WHERE h.decision_id = d.id AND h.stage = '{}')", stage.name())
    };
    let (quarantine, called, undone) = (Action::Quarantine.name(), has(Stage::Applying), has(Stage::Undone));
    let open = Stage::OPEN.map(|stage| format!("'{}'", stage.name())).join(", ");
    format!(
        "NOT (d.action = '{quarantine}' AND {undone}) AND (d.action = '{quarantine}' AND {called} OR
            (SELECT l.stage FROM stage l WHERE l.decision_id = d.id ORDER BY l.seq DESC LIMIT 1) IN ({open}))"
    )
}

fn boot_id() -> anyhow::Result<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .context("read /proc/sys/kernel/random/boot_id, which tells this boot's cgroup ids from another's")?;
    Ok(id.trim().to_owned())
}

/// Brings the tables of an older canary up to date, within the transaction.
fn upgrade(tx: &Transaction) -> anyhow::Result<()> {
    let version: Option<i64> =
        tx.query_row("SELECT max(version) FROM schema_version", [], |r| r.get(0)).unwrap_or(None);
    let Some(version) = version.filter(|v| (1..SCHEMA).contains(v)) else { return Ok(()) };
    for step in &UPGRADES[version as usize - 1..] {
        tx.execute_batch(step)?;
    }
    tx.execute("INSERT INTO schema_version VALUES (?1)", [SCHEMA])?;
    Ok(())
}

fn check_version(db: &Connection) -> anyhow::Result<()> {
    let version: Option<i64> = match db.query_row("SELECT max(version) FROM schema_version", [], |r| r.get(0)) {
        Ok(version) => version,
        Err(_) => bail!("not a journal: an SQLite file of something else; set 'journal' to another file"),
    };
    match version {
        Some(SCHEMA) => Ok(()),
        Some(v) if v > 0 && v < SCHEMA => {
            bail!(
                "written by an older canary (schema {v}, this one reads {SCHEMA}): its next `canary run` brings it up to date"
            )
        }
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

fn stage_row(tx: &Transaction, boot: &str, id: &str, stage: Stage, detail: &str, at: Moment) -> anyhow::Result<()> {
    tx.execute(
        "INSERT INTO stage (decision_id, stage, detail, unix_ms, t_ns, boot) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![id, stage.name(), detail, at.unix_ms as i64, at.t_ns as i64, boot],
    )?;
    Ok(())
}

fn json<T: serde::de::DeserializeOwned>(row: &Row, column: usize) -> rusqlite::Result<T> {
    from_json(column, &row.get::<_, String>(column)?)
}

fn from_json<T: serde::de::DeserializeOwned>(column: usize, text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(e)))
}
