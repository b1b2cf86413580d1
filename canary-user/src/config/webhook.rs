//! `[deployment.webhook]`: where the orchestrator "webhook" sends decisions.

use std::{fmt, path::PathBuf, time::Duration};

use axum::http::Uri;
use serde::Deserialize;
use toml::Spanned;

use super::{ConfigError, Mistake, check::Source};

const TIMEOUT: Duration = Duration::from_secs(10);
const RETRIES: u32 = 3;

/// Where the orchestrator "webhook" sends decisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookConfig {
    /// Takes the decision by POST.
    pub url: String,
    /// Answers a GET with the state; `{id}` in it is the decision's id.
    pub state_url: Option<String>,
    /// Takes the decision by POST, to undo it.
    pub undo_url: Option<String>,
    /// Holds the key of the signature; `None` = not signed.
    pub secret_file: Option<PathBuf>,
    /// For each try.
    pub timeout: Duration,
    /// Tries after the first.
    pub retries: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWebhook {
    pub url: Option<Spanned<String>>,
    pub state_url: Option<Spanned<String>>,
    pub undo_url: Option<Spanned<String>>,
    pub secret_file: Option<Spanned<String>>,
    pub timeout: Option<Spanned<String>>,
    pub retries: Option<Spanned<i64>>,
}

impl Source<'_> {
    pub(super) fn webhook(&self, name: &str, raw: Spanned<RawWebhook>) -> Result<WebhookConfig, ConfigError> {
        let span = raw.span();
        let raw = raw.into_inner();
        let key = |k: &str| format!("{name}.webhook.{k}");
        let Some(url) = raw.url else {
            return Err(self.mistake(span, key("url"), Mistake::MissingKey { add: "url = \"https://...\"" }));
        };
        let url = self.url(key("url"), url)?;
        let optional = |k: &str, raw: Option<Spanned<String>>| raw.map(|raw| self.url(key(k), raw)).transpose();
        Ok(WebhookConfig {
            url,
            state_url: optional("state_url", raw.state_url)?,
            undo_url: optional("undo_url", raw.undo_url)?,
            secret_file: raw.secret_file.map(|f| self.path(&key("secret_file"), Some(f), "")).transpose()?,
            timeout: self.duration(
                &key("timeout"),
                raw.timeout,
                TIMEOUT,
                (Duration::from_millis(100), Duration::from_secs(300)),
            )?,
            retries: self.number(&key("retries"), raw.retries, 0, 10)?.map_or(RETRIES, |n| n as u32),
        })
    }

    /// An address of http or https, with a host.
    pub(super) fn url(&self, key: String, raw: Spanned<String>) -> Result<String, ConfigError> {
        // Braces are no part of an address; those of `{id}` are filled in.
        let uri = raw.as_ref().replace("{id}", "id").parse::<Uri>().ok();
        let fits = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
        if uri.as_ref().is_some_and(fits) {
            return Ok(raw.into_inner());
        }
        Err(self.mistake(raw.span(), key, Mistake::BadAddress { value: raw.as_ref().clone() }))
    }
}

impl fmt::Display for WebhookConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |s: &str| toml::Value::from(s).to_string();
        write!(f, "webhook = {{ url = {}", text(&self.url))?;
        for (key, url) in [("state_url", &self.state_url), ("undo_url", &self.undo_url)] {
            if let Some(url) = url {
                write!(f, ", {key} = {}", text(url))?;
            }
        }
        if let Some(file) = &self.secret_file {
            write!(f, ", secret_file = {}", text(&file.to_string_lossy()))?;
        }
        let timeout = humantime::format_duration(self.timeout);
        writeln!(f, ", timeout = \"{timeout}\", retries = {} }}", self.retries)
    }
}
