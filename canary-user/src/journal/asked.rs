//! What people asked of the guard: the pauses that hold, and every command with its answer.

use anyhow::Context as _;
use rusqlite::{Transaction, params};

use super::{Journal, json};
use crate::{
    control::Command,
    guard::{Moment, Pause},
};

/// A command that was given to the guard, with what came of it.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct CommandEntry {
    pub unix_ms: u64,
    /// Who gave it.
    pub by: String,
    /// As it was given.
    #[schema(value_type = Object)]
    pub command: serde_json::Value,
    pub accepted: bool,
    /// The answer, in words.
    pub said: String,
}

impl Journal {
    /// The pauses that are on record, their ends on this boot's clock.
    pub fn pauses(&self, now: Moment) -> anyhow::Result<Vec<Pause>> {
        let mut query = self.db.prepare_cached("SELECT pause, boot FROM pause ORDER BY deployment")?;
        let rows = query.query_map([], |r| Ok((json::<Pause>(r, 0)?, r.get::<_, String>(1)?)))?;
        let of_this_boot = |row: rusqlite::Result<(Pause, String)>| {
            let (mut pause, boot) = row?;
            if boot != self.boot {
                pause.until = pause.until.map(|until| until.rebooted(now));
            }
            Ok(pause)
        };
        rows.map(of_this_boot).collect::<rusqlite::Result<_>>().context("journal: read the pauses")
    }

    /// Keeps a pause, in place of the one of the same deployment.
    pub fn record_pause(&mut self, pause: &Pause) -> anyhow::Result<()> {
        let boot = self.boot.clone();
        let write = |tx: &Transaction| -> anyhow::Result<()> {
            let key = pause.deployment.as_deref().unwrap_or_default();
            tx.execute(
                "INSERT OR REPLACE INTO pause VALUES (?1, ?2, ?3)",
                params![key, serde_json::to_string(pause)?, boot],
            )?;
            Ok(())
        };
        self.commit(write).context("journal: record a pause")
    }

    /// Forgets the pause of a deployment, or the one of all.
    pub fn end_pause(&mut self, deployment: Option<&str>) -> anyhow::Result<()> {
        let end = |tx: &Transaction| -> anyhow::Result<()> {
            tx.execute("DELETE FROM pause WHERE deployment = ?1", [deployment.unwrap_or_default()])?;
            Ok(())
        };
        self.commit(end).context("journal: record the end of a pause")
    }

    /// Keeps a command with its answer.
    pub fn record_command(
        &mut self,
        command: &Command,
        by: &str,
        answer: Result<&str, &str>,
        unix_ms: u64,
    ) -> anyhow::Result<()> {
        let write = |tx: &Transaction| -> anyhow::Result<()> {
            let (Ok(said) | Err(said)) = answer;
            tx.execute(
                "INSERT INTO command (unix_ms, who, command, accepted, said) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![unix_ms as i64, by, serde_json::to_string(command)?, answer.is_ok(), said],
            )?;
            Ok(())
        };
        self.commit(write).context("journal: record a command")
    }

    /// The latest commands, newest first.
    pub fn commands(&self, limit: usize) -> anyhow::Result<Vec<CommandEntry>> {
        let mut query = self
            .db
            .prepare_cached("SELECT unix_ms, who, command, accepted, said FROM command ORDER BY seq DESC LIMIT ?1")?;
        let rows = query.query_map([limit as i64], |r| {
            Ok(CommandEntry {
                unix_ms: r.get::<_, i64>(0)? as u64,
                by: r.get(1)?,
                command: json(r, 2)?,
                accepted: r.get(3)?,
                said: r.get(4)?,
            })
        })?;
        rows.collect::<rusqlite::Result<_>>().context("journal: read the commands")
    }
}
