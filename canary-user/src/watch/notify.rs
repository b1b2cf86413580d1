//! Tells receivers outside of what happened: webhooks, chats, Alertmanager, the journal of systemd.
//!
//! Goes in: [`News`]. Comes out: deliveries, retried and counted. Each receiver has its own queue and its own task, so that
//! one that is slow or down delays neither the line nor the others.

mod deliver;
mod journald;
mod message;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{broadcast::error::RecvError, mpsc, watch},
    task::JoinSet,
};

use self::{deliver::Receiver, message::Message};
use super::{Board, News};
use crate::config::{NotifyConfig, NotifyKind, Occasion};

/// Messages that wait for one receiver; more are dropped and counted.
const WAITING: usize = 64;
/// What is still undelivered when the guard ends gets this long.
const GOODBYE: Duration = Duration::from_secs(5);

/// How long a decision of each deployment waits for a person's word.
pub type Waits = BTreeMap<Arc<str>, Duration>;

/// How deliveries ended, by kind of receiver and result: sent, failed, dropped. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct Deliveries(Arc<Mutex<BTreeMap<(&'static str, &'static str), u64>>>);

impl Deliveries {
    pub(super) fn count(&self, kind: &'static str, result: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry((kind, result)).or_default() += 1;
    }

    /// Kind, result, how often.
    pub fn counts(&self) -> Vec<(&'static str, &'static str, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|((kind, result), n)| (*kind, *result, *n)).collect()
    }
}

/// The running tasks.
#[derive(Debug)]
pub struct Notifier {
    tasks: JoinSet<()>,
    end: watch::Sender<bool>,
}

impl Notifier {
    /// Starts a task for each receiver. Nothing is sent before there is news. `external_url` is where the guard's own pages are
    /// reached; `None` = messages have no links to them.
    ///
    /// # Errors
    /// An address that cannot be read.
    pub fn start(
        receivers: &[NotifyConfig],
        waits: &Waits,
        external_url: Option<&str>,
        board: &Board,
        deliveries: &Deliveries,
    ) -> anyhow::Result<Self> {
        let (end, ended) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for config in receivers {
            let receiver = Receiver::new(config, external_url)?;
            let (send, queue) = mpsc::channel(WAITING);
            tasks.spawn(listen(config.clone(), waits.clone(), board.listen(), send, deliveries.clone(), ended.clone()));
            tasks.spawn(deliver::run(receiver, queue, deliveries.clone(), ended.clone()));
        }
        Ok(Self { tasks, end })
    }

    /// Delivers what waits, for a few seconds at most.
    pub async fn finish(mut self) {
        let _ = self.end.send(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(GOODBYE, all).await.is_err() {
            tracing::warn!("some notifications could not be delivered before the end");
        }
    }
}

/// Picks what this receiver wants to hear of. Its queue closes when it returns.
async fn listen(
    config: NotifyConfig,
    waits: Waits,
    mut news: tokio::sync::broadcast::Receiver<News>,
    send: mpsc::Sender<Arc<Message>>,
    deliveries: Deliveries,
    mut ended: watch::Receiver<bool>,
) {
    let kind = config.kind.name();
    // Whoever is told of a verdict is told when it is over, whatever else is wanted.
    let raises_alerts = config.kind == NotifyKind::Alertmanager && config.on.contains(&Occasion::Verdict);
    let pass = |news: &News| {
        let told = Message::of(news, &waits).filter(|m| config.on.contains(&m.occasion));
        let end = Message::end_of_alert(news).filter(|_| raises_alerts);
        for message in told.into_iter().chain(end) {
            if send.try_send(Arc::new(message)).is_err() {
                tracing::warn!("a notification to {kind} was dropped: {WAITING} wait already");
                deliveries.count(kind, "dropped");
            }
        }
    };
    loop {
        tokio::select! {
            heard = news.recv() => match heard {
                Ok(heard) => pass(&heard),
                Err(RecvError::Lagged(missed)) => (0..missed).for_each(|_| deliveries.count(kind, "dropped")),
                Err(RecvError::Closed) => return,
            },
            _ = ended.changed() => {
                while let Ok(heard) = news.try_recv() {
                    pass(&heard);
                }
                return;
            }
        }
    }
}
