//! What was decided, done and asked for, as the journal has it: for those who may command the guard and not read its files.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::journal::{CommandEntry, HistoryEntry, Journal};

/// The most decisions that can be asked for at once.
pub const MOST: usize = 1_000_000;

/// The past.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Record {
    /// The latest, newest first.
    pub decisions: Vec<HistoryEntry>,
    /// All of them, oldest first.
    pub commands: Vec<CommandEntry>,
}

impl Record {
    pub fn read(journal: &Journal, limit: usize) -> anyhow::Result<Self> {
        // The most that SQLite counts to.
        const ALL: usize = usize::MAX >> 1;
        let mut commands = journal.commands(ALL)?;
        commands.reverse();
        Ok(Self { decisions: journal.history(limit.min(ALL))?, commands })
    }
}
