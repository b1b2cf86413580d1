//! Hands the decision to an HTTP service that knows how to carry it out.
//!
//! Goes out: a POST with the decision as JSON. Comes back: 2xx, it is done; 4xx, it is refused and nothing was done;
//! anything else, and silence, may mean either, so that it is sent again. The service tells one decision from another by
//! the header `Idempotency-Key` and carries each out once. Redirects are not followed.

use std::time::Duration;

use anyhow::{Context, anyhow};
use ring::hmac;
use serde::Deserialize;
use tokio::time::sleep;

use super::{
    BoxFuture, Error, Found, Orchestrator, Plan, State, hold,
    pause::{LastLook, Paused},
};
use crate::{
    config::WebhookConfig,
    guard::{Action, Decision},
    http_client::{Answer, HttpClient, percent_encoded},
};

/// First pause between two tries; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Hexadecimal HMAC-SHA256 (RFC 2104) of the body, behind `sha256=`.
pub const SIGNATURE: &str = "x-canary-signature";
/// The decision's id, percent-encoded, since a header is ASCII: the same for each try. To undo it is another order, with
/// `-undo` behind that.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
const NAME: &str = "webhook";

/// POSTs decisions.
pub struct Webhook {
    config: WebhookConfig,
    client: HttpClient,
    last_look: LastLook,
}

/// What `state_url` answers.
#[derive(Deserialize)]
struct Told {
    state: State,
    #[serde(default)]
    detail: String,
}

impl Webhook {
    /// # Errors
    /// TLS that cannot be set up.
    pub fn new(config: WebhookConfig) -> anyhow::Result<Self> {
        Ok(Self { client: HttpClient::new()?, config, last_look: LastLook::default() })
    }

    /// Read each time, so that it can be replaced while the guard runs.
    fn key(&self) -> anyhow::Result<Option<hmac::Key>> {
        let Some(path) = &self.config.secret_file else { return Ok(None) };
        let secret =
            std::fs::read(path).with_context(|| format!("read the secret of the webhook, {}", path.display()))?;
        let secret = secret.trim_ascii();
        anyhow::ensure!(!secret.is_empty(), "the secret of the webhook, {}, is empty", path.display());
        Ok(Some(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    /// Sends until there is an answer that ends it. `order`: what the service knows it by; `look`: whether it still may, where an earlier try may have been heard.
    async fn post(
        &self,
        url: &str,
        order: String,
        decision: &Decision,
        look: impl Fn(bool) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let key = self.key().map_err(Error::refused)?;
        let body = serde_json::to_string(decision).map_err(Error::refused)?;
        let mut headers = vec![("content-type", "application/json".to_owned()), (IDEMPOTENCY_KEY, order)];
        if let Some(key) = key {
            headers.push((SIGNATURE, format!("sha256={}", hex(hmac::sign(&key, body.as_bytes()).as_ref()))));
        }
        let mut pause = FIRST_PAUSE;
        let mut tries = 0;
        let mut may_be_done = false;
        loop {
            look(may_be_done)?;
            tries += 1;
            let why = match self.client.send("POST", url, &headers, body.clone(), self.config.timeout).await {
                Ok(Answer { status: 200..=299, .. }) => return Ok(()),
                Ok(a @ Answer { status: 500.. | 408 | 425 | 429, .. }) => a.to_string(),
                // An earlier try may have been heard: then a refusal of this one does not say that nothing was done.
                Ok(a @ Answer { status: 400..=499, .. }) if !may_be_done => {
                    return Err(Error::refused(format!("{url}: {a}")));
                }
                Ok(a) => return Err(anyhow!("{url}: {a}").into()),
                Err(e) => format!("{e:#}"),
            };
            may_be_done = true;
            if tries > self.config.retries {
                return Err(anyhow!("{url}: {why}; tried {tries} times, it may have been done nevertheless").into());
            }
            tracing::warn!(decision = %decision.id, "{url}: {why}; sent again in {pause:?}");
            sleep(pause).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    async fn ask(&self, decision: &Decision) -> anyhow::Result<Found> {
        let Some(url) = &self.config.state_url else {
            anyhow::bail!("it is not known: give webhook.state_url, so that it can be asked");
        };
        let url = url.replace("{id}", &percent_encoded(&decision.id));
        let answer = self.client.send("GET", &url, &[], String::new(), self.config.timeout).await?;
        anyhow::ensure!((200..300).contains(&answer.status), "{url}: {answer}");
        let told: Told = serde_json::from_str(&answer.body).with_context(|| {
            format!(
                "{url} has to answer {{\"state\": \"in_effect\", \"not_in_effect\" or \"in_progress\"}}, not {answer}"
            )
        })?;
        let detail = if told.detail.is_empty() { format!("{url} says so") } else { told.detail };
        Ok(Found { state: told.state, detail })
    }

    fn takes_at_most(&self) -> Duration {
        let pauses = std::iter::successors(Some(FIRST_PAUSE), |p| Some((2 * *p).min(LONGEST_PAUSE)));
        self.config.timeout * (self.config.retries + 1) + pauses.take(self.config.retries as usize).sum::<Duration>()
    }
}

impl Orchestrator for Webhook {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cannot_hold(&self) -> Option<String> {
        Some(hold::not_handed_over(NAME))
    }

    fn heed_pauses(&self, paused: Paused) {
        self.last_look.heed(paused);
    }

    fn describe<'a>(&'a self, decision: &'a Decision) -> BoxFuture<'a, Result<Plan, Error>> {
        Box::pin(async move {
            if decision.action == Action::Hold {
                return Err(Error::Refused(hold::not_handed_over(NAME)));
            }
            let signed = if self.key().map_err(Error::refused)?.is_some() { "signed" } else { "not signed" };
            let c = &self.config;
            let steps = vec![format!(
                "POST the decision to {} with Idempotency-Key {}, {signed}; up to {} tries of {}",
                c.url,
                decision.id,
                c.retries + 1,
                humantime::format_duration(c.timeout)
            )];
            let inverse = match &c.undo_url {
                Some(url) => format!("POST the decision to {url} with Idempotency-Key {}-undo", decision.id),
                None => "whatever undoes it in the service that was called; no webhook.undo_url is given".to_owned(),
            };
            Ok(Plan {
                orchestrator: NAME.into(),
                steps,
                inverse: Some(inverse),
                // That there is a way. Which, the configuration says when it comes to that.
                undo: c.undo_url.as_ref().map(|way| serde_json::json!(way)),
                takes_at_most_ms: Some(self.takes_at_most().as_millis() as u64),
                ..Plan::default()
            })
        })
    }

    fn apply<'a>(&'a self, decision: &'a Decision, _plan: &'a Plan) -> BoxFuture<'a, Result<(), Error>> {
        const SENT: &str = "an earlier try may have been heard, and it is not sent again";
        Box::pin(self.post(&self.config.url, percent_encoded(&decision.id), decision, move |may_be_done| {
            self.last_look.ask(&decision.deployment, may_be_done.then_some(SENT))
        }))
    }

    fn state<'a>(&'a self, decision: &'a Decision) -> BoxFuture<'a, anyhow::Result<Found>> {
        Box::pin(self.ask(decision))
    }

    fn undo<'a>(&'a self, decision: &'a Decision, _plan: &'a Plan) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            match &self.config.undo_url {
                // Taken back is also while paused.
                Some(url) => {
                    self.post(url, format!("{}-undo", percent_encoded(&decision.id)), decision, |_| Ok(())).await
                }
                None => Err(Error::refused("webhook.undo_url is not given: undo it in the service that was called")),
            }
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests;
