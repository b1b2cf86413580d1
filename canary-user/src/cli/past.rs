//! Where the verbs that tell the past read it: in the journal, or from the running guard where this user may not read that.

use std::{fs::File, io::ErrorKind, path::PathBuf};

use anyhow::{Context as _, bail};

use crate::{
    config::SOCKET,
    control::{MOST, Record, client},
    journal::Journal,
};

#[derive(Debug, clap::Args)]
pub struct Past {
    /// The guard's journal; the configuration names it as journal
    #[arg(long, value_name = "FILE", default_value = "/var/lib/canary/journal.db")]
    pub journal: PathBuf,
    /// The running guard's socket, which is asked where this user may not read the journal
    #[arg(long, value_name = "SOCKET", default_value = SOCKET, env = "CANARY_SOCKET")]
    pub socket: PathBuf,
}

impl Past {
    /// The latest decisions, newest first, and every command.
    ///
    /// # Errors
    /// There is no such journal, or neither it nor the guard may be asked by this user.
    pub fn read(&self, limit: usize) -> anyhow::Result<Record> {
        let name = self.journal.display();
        // Opening by SQLite would make an empty journal, which is not the answer to a mistyped path.
        match File::open(&self.journal) {
            Ok(_) => Record::read(&Journal::open_to_read(&self.journal)?, limit),
            Err(e) if e.kind() == ErrorKind::PermissionDenied => {
                let limit = limit.min(MOST);
                let asked = client::ask(&self.socket, &format!("/api/v1/history?limit={limit}"), None);
                asked.with_context(|| format!("this user may not read {name}, and the guard was asked instead"))
            }
            Err(e) if e.kind() == ErrorKind::NotFound => bail!("there is no journal at {name}: name it with --journal"),
            Err(e) => Err(e).with_context(|| format!("read the journal {name}")),
        }
    }
}
