//! One message: what happened, in words and as data, and its form for each kind of receiver.

use serde_json::{Value, json};

use super::Waits;
use crate::{
    config::{NotifyKind, Occasion},
    guard::{Action, Stage, gates},
    http_client::percent_encoded,
    judge::Outcome,
    orchestrator::dry_run,
    watch::{News, api::DecisionLife, page::REPORT, units},
};

/// How long an alert stands that nothing ends: one that needs a person, and one that only tells.
const STANDS_MS: u64 = 24 * 3_600_000;
const TELLS_MS: u64 = 10 * 60_000;

/// What happened.
#[derive(Clone, Debug)]
pub struct Message {
    pub occasion: Occasion,
    pub deployment: String,
    pub unix_ms: u64,
    /// One line.
    pub title: String,
    /// Why, in a sentence or two.
    pub text: String,
    pub severity: Severity,
    /// Id of the decision that it is about.
    pub decision: Option<String>,
    /// Whether it ends the alert that an earlier message of this occasion raised.
    pub is_over: bool,
    /// Until when a person's word is waited for; `None` where none is.
    waits_until_ms: Option<u64>,
    /// The object of the API that it is about.
    data: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Info,
    Warning,
    Critical,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }

    /// As in syslog(3).
    pub fn priority(self) -> u8 {
        match self {
            Severity::Info => 6,
            Severity::Warning => 4,
            Severity::Critical => 3,
        }
    }
}

impl Message {
    /// `None` for what nobody is told of: the first verdict after a start, and steps between two stages.
    pub fn of(news: &News, waits: &Waits) -> Option<Self> {
        match news {
            News::Verdict(change) => {
                let (before, verdict) = (change.before?, &change.verdict);
                let regressed = verdict.outcome == Outcome::Regressed;
                let why = verdict.reasons.first().cloned().unwrap_or_default();
                Some(Self {
                    occasion: Occasion::Verdict,
                    deployment: change.deployment.clone(),
                    unix_ms: change.unix_ms,
                    title: format!("{}: canary {} (was {})", change.deployment, verdict.outcome.name(), before.name()),
                    text: why,
                    severity: if regressed { Severity::Critical } else { Severity::Info },
                    decision: None,
                    is_over: before == Outcome::Regressed,
                    waits_until_ms: None,
                    data: json!({ "verdict": &**change }),
                })
            }
            News::Decision(life) => {
                let last = life.stages.last()?;
                let waits_until_ms = waits_until_ms(life, waits);
                let (occasion, severity) = match last.stage {
                    Stage::Blocked => (Occasion::Blocked, Severity::Warning),
                    // A person has to answer, and in time.
                    Stage::Planned if waits_until_ms.is_some() => (Occasion::Planned, Severity::Critical),
                    Stage::Planned => (Occasion::Planned, Severity::Warning),
                    Stage::Declined => (Occasion::Declined, Severity::Warning),
                    Stage::Applied => (Occasion::Applied, Severity::Warning),
                    Stage::Verified => (Occasion::Verified, Severity::Info),
                    Stage::Recovered => (Occasion::Recovered, Severity::Info),
                    Stage::NotRecovered => (Occasion::NotRecovered, Severity::Critical),
                    // A rollout that was held goes on, and the guard with its watch over the canary.
                    Stage::Reverted if life.decision.action == Action::Hold => (Occasion::Reverted, Severity::Warning),
                    Stage::Reverted => (Occasion::Reverted, Severity::Critical),
                    // The condemned canary is as it was: by a person's will, or because a quarantine is for a time.
                    Stage::Undone => (Occasion::Undone, Severity::Warning),
                    // A person asked for it, and is told; the canary serves on, and is the guard's as before.
                    Stage::Failed if life.decision.action == Action::Hold => (Occasion::Failed, Severity::Warning),
                    Stage::Failed => (Occasion::Failed, Severity::Critical),
                    #[allow(unreachable_patterns)]
                    _ => return None,
                };
                let decision = &life.decision;
                let (what, then) = in_words(life, last.stage, waits_until_ms);
                Some(Self {
                    occasion,
                    deployment: decision.deployment.to_string(),
                    unix_ms: last.unix_ms,
                    title: format!("{}: {what}", decision.deployment),
                    text: format!("{}. {}{then}", decision.reason, last.detail),
                    severity,
                    decision: Some(decision.id.clone()),
                    is_over: false,
                    waits_until_ms,
                    data: json!({ "decision": &**life }),
                })
            }
            News::Gone { .. } => None,
        }
    }

    /// What ends the alert of a condemned canary though the verdict stays as it is: the canary is out of service. Others than
    /// Alertmanager keep no alert that would have to end.
    pub fn end_of_alert(news: &News) -> Option<Self> {
        let (deployment, unix_ms, why, decision) = match news {
            News::Gone { deployment, unix_ms } => (deployment, *unix_ms, "it is not there any more", None),
            News::Decision(life) => {
                let last = life.stages.last()?;
                let (Stage::Recovered | Stage::Closed) = last.stage else { return None };
                if !life.decision.action.takes_away() {
                    return None;
                }
                (&life.decision.deployment, last.unix_ms, &*last.detail, Some(life.decision.id.clone()))
            }
            News::Verdict(_) => return None,
        };
        Some(Self {
            occasion: Occasion::Verdict,
            deployment: deployment.to_string(),
            unix_ms,
            title: format!("{deployment}: the condemned canary is out of service"),
            text: why.to_owned(),
            severity: Severity::Info,
            decision,
            is_over: true,
            waits_until_ms: None,
            data: Value::Null,
        })
    }

    /// The body for a receiver that takes JSON. `external_url` is where the guard's own pages are reached.
    pub fn body(&self, kind: NotifyKind, external_url: Option<&str>) -> Value {
        let link = external_url.map(|url| self.link(url));
        match kind {
            NotifyKind::Slack => {
                let name = if self.decision.is_some() { "The report" } else { "The page" };
                let link = link.map_or_else(String::new, |link| format!("\n<{}|{name}>", escaped(&link)));
                json!({ "text": format!("*{}*\n{}{link}", escaped(&self.title), escaped(&self.text)) })
            }
            NotifyKind::Alertmanager => json!([self.alert(link)]),
            NotifyKind::Webhook | NotifyKind::Journald => json!({
                "version": 1,
                "occasion": self.occasion.name(),
                "deployment": self.deployment,
                "severity": self.severity.name(),
                "unix_ms": self.unix_ms,
                "title": self.title,
                "text": self.text,
                "url": link,
                "data": self.data,
            }),
        }
    }

    /// Where to read on: the report of the decision that it is about, or else the page of the deployment.
    fn link(&self, external_url: &str) -> String {
        match &self.decision {
            Some(id) => format!("{external_url}/{REPORT}{}", percent_encoded(id)),
            None => format!("{external_url}/?deployment={}", percent_encoded(&self.deployment)),
        }
    }

    /// Of the type `postableAlert`. The labels are the alert's identity: no numbers, no times.
    fn alert(&self, link: Option<String>) -> Value {
        let name = match self.occasion {
            Occasion::Verdict => "CanaryRegressed".to_owned(),
            other => format!("CanaryAction{}", camel(other.name())),
        };
        let is_alert = self.occasion != Occasion::Verdict || self.severity == Severity::Critical;
        let stands = if self.severity == Severity::Critical { STANDS_MS } else { TELLS_MS };
        let ends = match self.waits_until_ms {
            Some(until_ms) => until_ms,
            None if is_alert => self.unix_ms + stands,
            None => self.unix_ms,
        };
        // What ends an alert has to carry the labels of what raised it.
        let severity = if self.occasion == Occasion::Verdict { Severity::Critical } else { self.severity };
        let mut alert = json!({
            "labels": {
                "alertname": name,
                "deployment": self.deployment,
                "severity": severity.name(),
                "source": "canary",
            },
            "annotations": { "summary": self.title, "description": self.text },
            "startsAt": units::when(self.unix_ms),
            "endsAt": units::when(ends),
        });
        if let Some(link) = link {
            alert["generatorURL"] = link.into();
        }
        alert
    }

    /// Whether this receiver is told at all: Alertmanager knows alerts only, not that all is well.
    pub fn is_for(&self, kind: NotifyKind) -> bool {
        let all_well = self.occasion == Occasion::Verdict && self.severity != Severity::Critical && !self.is_over;
        kind != NotifyKind::Alertmanager || !all_well
    }
}

/// When a planned decision that needs a person's word is taken for declined; `None` for any other. That may be seconds before
/// the guard's own deadline, which counts from when the orchestrator had said what it would do.
fn waits_until_ms(life: &DecisionLife, waits: &Waits) -> Option<u64> {
    let decision = &life.decision;
    // A dry run is over as soon as it is planned.
    let waits_for_word = life.stage() == Some(Stage::Planned)
        && life.plan.orchestrator != dry_run::NAME
        && decision.blocked_by().is_some_and(|gate| gate.gate == gates::APPROVAL);
    let wait = waits.get(&decision.deployment).filter(|_| waits_for_word)?;
    Some(decision.unix_ms.saturating_add(wait.as_millis() as u64))
}

/// What happened, for the title, and what a person can do about it, to follow the detail of the stage.
fn in_words(life: &DecisionLife, stage: Stage, waits_until_ms: Option<u64>) -> (String, String) {
    let (id, action) = (&life.decision.id, life.decision.action);
    match (stage, waits_until_ms) {
        (Stage::Planned, Some(until_ms)) => {
            let until = units::when(until_ms);
            let then = format!(". It waits for `canary approve {id}` until {until}; no answer is a no");
            (format!("{action} waits for approval"), then)
        }
        (Stage::Declined, _) => {
            let then = ". The guard leaves this canary alone from now on: take it back by hand";
            (format!("nobody approved the {action}"), then.to_owned())
        }
        (Stage::Recovered, _) => (format!("{action} done, and the service is back"), String::new()),
        (Stage::NotRecovered, _) => {
            let then = format!(". Look elsewhere; `canary undo {id}` brings the canary back");
            (format!("{action} done, and it did not help"), then)
        }
        (Stage::Verified, _) if action == Action::Hold => {
            ("rollout held".to_owned(), format!(". `canary undo {id}` lets it go on"))
        }
        (Stage::Reverted, _) if action == Action::Hold => ("somebody lets the rollout go on".to_owned(), String::new()),
        (Stage::Undone, _) if matches!(action, Action::Quarantine | Action::Hold) => {
            (format!("{action} ended"), String::new())
        }
        (Stage::Failed, _) if life.stages.iter().any(|s| s.stage == Stage::Undoing) => {
            (format!("undo of the {action} failed"), String::new())
        }
        (stage, _) => (format!("{action} {}", stage.name()), String::new()),
    }
}

/// "not_recovered" as "NotRecovered".
fn camel(name: &str) -> String {
    let capital = |word: &str| {
        let (first, rest) = word.split_at(1);
        first.to_uppercase() + rest
    };
    name.split('_').map(capital).collect()
}

/// Slack's three control characters.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
