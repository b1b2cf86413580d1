//! `[[notify]]`: who is told of changes of verdict and of what is done.

use std::{fmt, path::PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::{ConfigError, Mistake, check::Source};

/// One receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifyConfig {
    pub kind: NotifyKind,
    /// Where it is told; `None` for the journal of systemd.
    pub url: Option<Url>,
    /// What it is told of; never empty.
    pub on: Vec<Occasion>,
}

/// An address that may be a secret of its own, as those of chats are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Url {
    Written(String),
    /// The file that holds it.
    In(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyKind {
    /// POST of a JSON object.
    Webhook,
    /// POST of a message as Slack, Mattermost and others take it.
    Slack,
    /// Alerts for the API, version 2, of Prometheus' Alertmanager.
    Alertmanager,
    /// A line with fields in the journal of systemd.
    Journald,
}

/// What can be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    Verdict,
    Blocked,
    Planned,
    Declined,
    Applied,
    Verified,
    Recovered,
    NotRecovered,
    Reverted,
    Undone,
    Failed,
}

impl NotifyKind {
    pub const ALL: [NotifyKind; 4] =
        [NotifyKind::Webhook, NotifyKind::Slack, NotifyKind::Alertmanager, NotifyKind::Journald];

    pub fn name(self) -> &'static str {
        match self {
            NotifyKind::Webhook => "webhook",
            NotifyKind::Slack => "slack",
            NotifyKind::Alertmanager => "alertmanager",
            NotifyKind::Journald => "journald",
        }
    }
}

impl Occasion {
    pub const ALL: [Occasion; 11] = [
        Occasion::Verdict,
        Occasion::Blocked,
        Occasion::Planned,
        Occasion::Declined,
        Occasion::Applied,
        Occasion::Verified,
        Occasion::Recovered,
        Occasion::NotRecovered,
        Occasion::Reverted,
        Occasion::Undone,
        Occasion::Failed,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Occasion::Verdict => "verdict",
            Occasion::Blocked => "blocked",
            Occasion::Planned => "planned",
            Occasion::Declined => "declined",
            Occasion::Applied => "applied",
            Occasion::Verified => "verified",
            Occasion::Recovered => "recovered",
            Occasion::NotRecovered => "not_recovered",
            Occasion::Reverted => "reverted",
            Occasion::Undone => "undone",
            Occasion::Failed => "failed",
        }
    }
}

/// For who asks for Kubernetes Events here.
const EVENTS: &str = "remove this [[notify]]: Events of Kubernetes are written for each deployment that has \
                      orchestrator = \"kubernetes\", and for no other";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawNotify {
    pub kind: Option<Spanned<String>>,
    pub url: Option<Spanned<String>>,
    pub url_file: Option<Spanned<String>>,
    pub on: Option<Vec<Spanned<String>>>,
}

impl Source<'_> {
    pub(super) fn notify(&self, raw: Spanned<RawNotify>) -> Result<NotifyConfig, ConfigError> {
        let span = raw.span();
        let RawNotify { kind, url, url_file, on } = raw.into_inner();
        let kinds = || NotifyKind::ALL.map(NotifyKind::name).join(", ");
        let missing = |key: &str, add: &'static str| Err(self.mistake(span.clone(), key, Mistake::MissingKey { add }));
        let Some(kind) = kind else { return missing("notify.kind", "kind = \"webhook\"") };
        let unknown = |word: &Spanned<String>, key: &str, known: String| {
            let mistake = Mistake::UnknownWord { value: word.as_ref().clone(), known };
            self.mistake(word.span(), key, mistake)
        };
        let found = NotifyKind::ALL.into_iter().find(|k| k.name() == kind.as_ref());
        let kind = found.ok_or_else(|| {
            let word = kind.as_ref().to_lowercase().replace(['-', '_', ' '], "").replace("k8s", "kubernetes");
            if !["kubernetes", "event", "events", "kubernetesevent", "kubernetesevents"].contains(&&*word) {
                return unknown(&kind, "notify.kind", kinds());
            }
            let mistake = Mistake::NotAllowed { value: format!("\"{}\"", kind.as_ref()), write: EVENTS.into() };
            self.mistake(kind.span(), "notify.kind", mistake)
        })?;
        let url = match (url, url_file) {
            (None, None) if kind == NotifyKind::Journald => None,
            (None, None) => return missing("notify.url", "url = \"https://...\", or url_file = \"/...\""),
            (Some(url), _) if !url.as_ref().starts_with("http://") && !url.as_ref().starts_with("https://") => {
                let known = "an address that begins with http:// or https://".to_owned();
                return Err(unknown(&url, "notify.url", known));
            }
            (Some(url), None) => Some(Url::Written(url.into_inner())),
            (None, file) => Some(Url::In(self.path("notify.url_file", file, "")?)),
            (Some(_), Some(file)) => {
                let known = "either url or url_file".to_owned();
                return Err(unknown(&file, "notify.url_file", known));
            }
        };
        let occasions = || Occasion::ALL.map(Occasion::name).join(", ");
        let occasion = |word: Spanned<String>| {
            let found = Occasion::ALL.into_iter().find(|o| o.name() == word.as_ref());
            found.ok_or_else(|| unknown(&word, "notify.on", occasions()))
        };
        let on = match on {
            Some(words) if words.is_empty() => {
                return missing("notify.on", "an occasion, or leave it out for all of them");
            }
            Some(words) => words.into_iter().map(occasion).collect::<Result<_, _>>()?,
            None => Occasion::ALL.to_vec(),
        };
        Ok(NotifyConfig { kind, url, on })
    }
}

impl fmt::Display for NotifyConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |s: &str| toml::Value::from(s).to_string();
        writeln!(f, "\n[[notify]]\nkind = \"{}\"", self.kind.name())?;
        match &self.url {
            Some(Url::Written(url)) => writeln!(f, "url = {}", text(url))?,
            Some(Url::In(file)) => writeln!(f, "url_file = {}", text(&file.to_string_lossy()))?,
            None => {}
        }
        let on: Vec<String> = self.on.iter().map(|o| format!("\"{}\"", o.name())).collect();
        writeln!(f, "on = [{}]", on.join(", "))
    }
}
