//! Where the verbs that tell the past read it: in the journal, or from the running guard where this user may not read that.

use std::{
    fs::File,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use crate::{
    config::SOCKET,
    control::{MOST, Record, client},
    http_client::percent_encoded,
    journal::Journal,
    watch::{api::DecisionLife, report::DecisionReport},
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
        self.read_or_ask(|journal| Record::read(journal, limit), |socket| history(socket, limit))
    }

    /// The report of the decision of this id, or of the latest one for `None`; `None` where there is no such decision.
    ///
    /// # Errors
    /// As [`Past::read`]; the guard that is asked refuses an id that it does not know.
    pub fn report(&self, id: Option<&str>) -> anyhow::Result<Option<DecisionReport>> {
        self.read_or_ask(|journal| DecisionReport::recorded(journal, id), |socket| report(socket, id))
    }

    fn read_or_ask<T>(
        &self,
        read: impl FnOnce(&Journal) -> anyhow::Result<T>,
        ask: impl FnOnce(&Path) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let name = self.journal.display();
        // Opening by SQLite would make an empty journal, which is not the answer to a mistyped path.
        match File::open(&self.journal) {
            Ok(_) => read(&Journal::open_to_read(&self.journal)?),
            Err(e) if e.kind() == ErrorKind::PermissionDenied => ask(&self.socket)
                .with_context(|| format!("this user may not read {name}, and the guard was asked instead")),
            Err(e) if e.kind() == ErrorKind::NotFound => bail!("there is no journal at {name}: name it with --journal"),
            Err(e) => Err(e).with_context(|| format!("read the journal {name}")),
        }
    }
}

fn history(socket: &Path, limit: usize) -> anyhow::Result<Record> {
    client::ask(socket, &format!("/api/v1/history?limit={}", limit.min(MOST)), None)
}

/// Without the commands, which `history` has all of.
fn latest(socket: &Path) -> anyhow::Result<Vec<DecisionLife>> {
    client::ask(socket, "/api/v1/decisions?limit=1", None)
}

fn report(socket: &Path, id: Option<&str>) -> anyhow::Result<Option<DecisionReport>> {
    let id = match id {
        Some(id) => Some(id.to_owned()),
        None => latest(socket)?.into_iter().next().map(|latest| latest.decision.id),
    };
    let path = id.map(|id| format!("/report/{}?format=json", percent_encoded(&id)));
    path.map(|path| client::ask(socket, &path, None)).transpose()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        config::ApiConfig,
        control::{self, Access},
        guard::{Action, Decision, Moment, Stage},
        orchestrator::Plan,
        watch::{Board, Metrics, Snapshot, server},
    };

    fn decision(number: u32) -> Decision {
        Decision {
            id: format!("shop eu-1800000000000-000{number}"),
            deployment: "shop eu".into(),
            unix_ms: 1_800_000_000_000,
            window: 7,
            action: Action::Rollback,
            reason: "CPU per turnaround +31 %".into(),
            recommendation: None,
            gates: Vec::new(),
            canary: Vec::new(),
            stable: Vec::new(),
        }
    }

    /// A guard's socket with its journal, in which these decisions are.
    async fn guard(dir: &Path, decisions: u32) -> Past {
        let path = dir.join("journal.db");
        let mut journal = Journal::open(&path).expect("a new journal");
        for number in 0..decisions {
            let at = Moment { unix_ms: 1_800_000_000_000, t_ns: 1 };
            let recorded = journal.record_decision(&decision(number), &Plan::default(), Stage::Planned, "", at);
            recorded.expect("writable");
        }
        let api = ApiConfig { socket: dir.join("canary.sock"), ..ApiConfig::default() };
        let socket = control::bind(&api).await.expect("a free place");
        let board = Board::remembering(&journal).expect("readable");
        let (snapshots, receiver) = tokio::sync::watch::channel(Arc::<Snapshot>::default());
        let sources = server::Sources {
            metrics: Metrics::default(),
            snapshots: receiver,
            board,
            journal: Some(path.clone()),
            tls: None,
            commands: control::routes(control::channel().0, Access::Peer { group: None }, Some(path.clone())),
            takes_commands: false,
        };
        tokio::spawn(async move {
            let _snapshots = snapshots;
            socket.serve(server::routes(sources), std::future::pending()).await
        });
        Past { journal: path, socket: api.socket }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_guard_gives_the_report_that_its_journal_has() {
        let dir = tempfile::tempdir().expect("a directory");
        let past = guard(dir.path(), 2).await;
        let ask = move || {
            for (id, found) in [(None, decision(1).id), (Some(decision(0).id), decision(0).id)] {
                let asked = report(&past.socket, id.as_deref()).expect("granted").expect("there is one");
                assert_eq!(asked.decision.decision.id, found);
                assert_eq!(Some(asked), past.report(id.as_deref()).expect("readable"));
            }
            let error = report(&past.socket, Some("nowhere")).expect_err("there is none").to_string();
            assert!(error.contains("no decision \"nowhere\": see `canary history`"), "{error}");
        };
        tokio::task::spawn_blocking(ask).await.expect("no panic");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn there_is_no_report_before_there_is_a_decision() {
        let dir = tempfile::tempdir().expect("a directory");
        let past = guard(dir.path(), 0).await;
        let ask = move || (report(&past.socket, None), past.report(None));
        let (asked, read) = tokio::task::spawn_blocking(ask).await.expect("no panic");
        assert!(asked.expect("granted").is_none() && read.expect("readable").is_none());
    }
}
