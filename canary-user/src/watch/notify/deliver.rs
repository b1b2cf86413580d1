//! Delivery to one receiver, in order, with retries.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use hyper::Uri;
use tokio::sync::{mpsc, watch};

use super::{Deliveries, journald, message::Message};
use crate::{
    config::{NotifyConfig, NotifyKind, Url},
    http_client::HttpClient,
};

/// Pauses between attempts; after the last one it has failed.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(16), Duration::from_secs(64)];
/// For one attempt.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where Alertmanager takes alerts.
const ALERTS: &str = "/api/v2/alerts";

/// Who is told, and how.
#[derive(Debug)]
pub enum Receiver {
    Http {
        kind: NotifyKind,
        url: String,
        client: HttpClient,
        /// Where the guard's own pages are reached.
        external_url: Option<String>,
    },
    Journald(PathBuf),
}

/// Why an attempt did not succeed, and whether another may.
enum Refusal {
    ForGood(anyhow::Error),
    ForNow(anyhow::Error),
}

impl Receiver {
    /// # Errors
    /// An address that cannot be read or is none.
    pub fn new(config: &NotifyConfig, external_url: Option<&str>) -> anyhow::Result<Self> {
        let address = match &config.url {
            None => return Ok(Receiver::Journald(journald::SOCKET.into())),
            Some(Url::Written(url)) => url.clone(),
            Some(Url::In(file)) => {
                let text =
                    fs::read_to_string(file).with_context(|| format!("notify: read url_file {}", file.display()))?;
                text.trim().to_owned()
            }
        };
        let kind = config.kind;
        let address = match kind {
            NotifyKind::Alertmanager if !address.ends_with(ALERTS) => {
                format!("{}{ALERTS}", address.trim_end_matches('/'))
            }
            _ => address,
        };
        // Not the address itself: it may be a secret.
        let _: Uri = address.parse().with_context(|| format!("notify: the url of {} is none", kind.name()))?;
        let external_url = external_url.map(str::to_owned);
        Ok(Receiver::Http { kind, url: address, client: HttpClient::new()?, external_url })
    }

    fn kind(&self) -> NotifyKind {
        match self {
            Receiver::Http { kind, .. } => *kind,
            Receiver::Journald(_) => NotifyKind::Journald,
        }
    }

    async fn attempt(&self, message: &Message) -> Result<(), Refusal> {
        match self {
            Receiver::Journald(socket) => journald::send(socket, message).map_err(Refusal::ForNow),
            Receiver::Http { kind, url, client, external_url } => {
                let body = message.body(*kind, external_url.as_deref()).to_string();
                let headers = [("content-type", "application/json".to_owned())];
                let answer = client.send("POST", url, &headers, body, PATIENCE).await.map_err(Refusal::ForNow)?;
                let error = match answer.status {
                    200..=299 => return Ok(()),
                    // What the receiver says of it helps whoever reads the log.
                    _ => anyhow::anyhow!("{answer}"),
                };
                let later = matches!(answer.status, 500..|408| 429);
                Err(if later { Refusal::ForNow(error) } else { Refusal::ForGood(error) })
            }
        }
    }

    async fn deliver(&self, message: &Message, ended: &mut watch::Receiver<bool>) -> anyhow::Result<()> {
        let mut pauses = PAUSES.iter();
        loop {
            let error = match self.attempt(message).await {
                Ok(()) => return Ok(()),
                Err(Refusal::ForGood(error)) => return Err(error.context("not tried again")),
                Err(Refusal::ForNow(error)) => error,
            };
            let Some(pause) = pauses.next() else { bail!(error.context(format!("{} attempts", PAUSES.len() + 1))) };
            if *ended.borrow() {
                return Err(error.context("the guard ends"));
            }
            tracing::debug!("notification to {}: {error:#}; again in {pause:?}", self.kind().name());
            tokio::select! {
                () = tokio::time::sleep(*pause) => {}
                // One more attempt, at once, before the end.
                _ = ended.changed() => {}
            }
        }
    }
}

/// Until the queue closes.
pub async fn run(
    receiver: Receiver,
    mut queue: mpsc::Receiver<Arc<Message>>,
    deliveries: Deliveries,
    mut ended: watch::Receiver<bool>,
) {
    let kind = receiver.kind();
    while let Some(message) = queue.recv().await {
        if !message.is_for(kind) {
            continue;
        }
        match receiver.deliver(&message, &mut ended).await {
            Ok(()) => deliveries.count(kind.name(), "sent"),
            Err(error) => {
                tracing::warn!("notification to {} failed: {}: {error:#}", kind.name(), message.title);
                deliveries.count(kind.name(), "failed");
            }
        }
    }
}
