//! Events on the object, which `kubectl describe` shows.

use std::time::SystemTime;

use kube::api::DynamicObject;
use serde_json::json;

use super::{
    api::{Api, Kind},
    workload::Object,
};

/// Who reports, in the form of a domain (events.k8s.io/v1, `reportingController`).
const CONTROLLER: &str = "canary-guard";
/// The API server takes no longer notes, and no longer names of who reports.
const NOTE_BYTES: usize = 1024;
const INSTANCE_BYTES: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Normal,
    Warning,
}

/// What is told.
pub struct Note<'a> {
    pub kind: Type,
    /// What was tried or came of it: "rollback", "undo", "verified"; "verdict".
    pub action: &'a str,
    /// For programs, in one word: "CanaryRollbackFailed".
    pub reason: String,
    pub text: String,
    pub node: &'a str,
}

pub async fn write(api: &Api, about: &Object, note: &Note<'_>) -> anyhow::Result<()> {
    let Note { kind, action, reason, text, node } = note;
    let kind = match kind {
        Type::Normal => "Normal",
        Type::Warning => "Warning",
    };
    let resource = about.kind.resource();
    let event = json!({
        "apiVersion": Kind::Event.resource().api_version,
        "kind": "Event",
        "metadata": { "generateName": "canary-guard-", "namespace": about.namespace },
        "eventTime": humantime::format_rfc3339_micros(SystemTime::now()).to_string(),
        "type": kind,
        "reason": reason,
        "action": capital(action),
        "note": &text[..text.floor_char_boundary(NOTE_BYTES)],
        "reportingController": CONTROLLER,
        "reportingInstance": &node[..node.floor_char_boundary(INSTANCE_BYTES)],
        "regarding": {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "namespace": about.namespace,
            "name": about.name,
            "uid": about.uid,
        },
    });
    let event: DynamicObject = serde_json::from_value(event)?;
    api.create(Kind::Event, &about.namespace, &event).await
}

/// "CanaryNotRecovered" of "not_recovered".
pub fn reason(what: &str) -> String {
    what.split('_').fold("Canary".to_owned(), |reason, word| reason + &capital(word))
}

fn capital(word: &str) -> String {
    let (first, rest) = word.split_at(1.min(word.len()));
    format!("{}{rest}", first.to_ascii_uppercase())
}
