//! What is done to one object, and what takes it back.

use std::fmt;

use kube::{ResourceExt as _, api::DynamicObject};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    api::Api,
    inverse::Inverse,
    patch::send,
    workload::{Object, flag, number, string},
};
use crate::orchestrator::Error;

/// What is done to one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Weight 0 for a Service in an HTTPRoute.
    Weight {
        route: Object,
        service: String,
        weights: Vec<Backend>,
    },
    Scale {
        deployment: Object,
        from: i64,
        to: i64,
        note: Option<String>,
    },
    /// The pods' template of a ReplicaSet, given back to its Deployment.
    Template {
        deployment: Object,
        replica_set: String,
        revision: String,
        template: Value,
        replaced: String,
        unpause: bool,
        /// The hold that ends with the pause; `None` = there is none, or it was not the guard's.
        of: Option<String>,
        note: Option<String>,
    },
    Abort {
        rollout: Object,
    },
    Pause {
        workload: Object,
        paused: bool,
        /// The decision whose pause ends; `None` = it begins, or was not the guard's.
        of: Option<String>,
        /// Of the version whose pause ends, where the guard may set it again: for that version and no other.
        replica_set: Option<String>,
    },
}

/// One of a route's backends, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    pub rule: usize,
    pub backend: usize,
    /// `None` = not written, which means 1.
    pub weight: Option<i64>,
}

impl Backend {
    pub(super) fn pointer(self) -> String {
        format!("/spec/rules/{}/backendRefs/{}", self.rule, self.backend)
    }
}

/// The places of a Service of a route's own namespace in it.
///
/// # Errors
/// In words, where a rule would be left without any weight.
pub fn backends(route: &DynamicObject, service: &str) -> Result<Vec<Backend>, String> {
    let rules = route.data.pointer("/spec/rules").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut found = Vec::new();
    for (rule, r) in rules.iter().enumerate() {
        let refs = r.get("backendRefs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let is_it = |b: &Value| {
            string(b, "/name") == Some(service)
                && string(b, "/group").is_none_or(str::is_empty)
                && string(b, "/kind").is_none_or(|kind| kind == "Service")
                && string(b, "/namespace").is_none_or(|namespace| route.namespace().as_deref() == Some(namespace))
        };
        let weight = |b: &Value| number(b, "/weight");
        if !refs.iter().any(is_it) {
            continue;
        }
        if !refs.iter().any(|b| !is_it(b) && weight(b).unwrap_or(1) > 0) {
            return Err(format!("no other backend of its rule {rule} has a weight: its requests would be refused"));
        }
        let places = refs.iter().enumerate().filter(|(_, b)| is_it(b));
        found.extend(places.map(|(backend, b)| Backend { rule, backend, weight: weight(b) }));
    }
    Ok(found)
}

impl Change {
    pub fn object(&self) -> &Object {
        match self {
            Change::Weight { route, .. } => route,
            Change::Scale { deployment, .. } | Change::Template { deployment, .. } => deployment,
            Change::Abort { rollout } => rollout,
            Change::Pause { workload, .. } => workload,
        }
    }

    /// The part of the object that has an address, and rights, of its own.
    fn part(&self) -> Option<&'static str> {
        match self {
            Change::Scale { .. } => Some("scale"),
            Change::Abort { .. } => Some("status"),
            _ => None,
        }
    }

    fn operations(&self, now: &DynamicObject) -> Vec<Value> {
        let set = |path: String, value: Value| json!({ "op": "add", "path": path, "value": value });
        match self {
            Change::Weight { service, weights, .. } => weights
                .iter()
                .flat_map(|b| {
                    let name = json!({ "op": "test", "path": format!("{}/name", b.pointer()), "value": service });
                    [name, set(format!("{}/weight", b.pointer()), json!(0))]
                })
                .collect(),
            Change::Scale { to, .. } => vec![set("/spec/replicas".into(), json!(to))],
            Change::Template { template, unpause, .. } => {
                let mut all = vec![json!({ "op": "replace", "path": "/spec/template", "value": template })];
                if *unpause && flag(&now.data, "/spec/paused") {
                    all.push(json!({ "op": "remove", "path": "/spec/paused" }));
                }
                all
            }
            Change::Abort { .. } => vec![set("/status/abort".into(), json!(true))],
            Change::Pause { paused, .. } => vec![set("/spec/paused".into(), json!(paused))],
        }
    }

    /// Carries it out, on the object as it was decided on and on no other: its generation has to be `expected`, the one that was
    /// planned on or that an earlier change of the same decision has left. Gives the one that it leaves. `look`: whether it still
    /// may, asked right before each try.
    pub async fn make(
        &self,
        api: &Api,
        decision: &str,
        expected: i64,
        look: impl Fn() -> Result<(), Error>,
    ) -> Result<i64, Error> {
        send(api, self.object(), self.part(), decision, |now| {
            let object = self.object();
            let generation = now.metadata.generation.unwrap_or_default();
            if generation != expected {
                return Err(Error::refused(format!(
                    "{object} was changed since (its spec is generation {generation} now, {expected} then): it is not touched"
                )));
            }
            look()?;
            Ok(Some(self.operations(now)))
        })
        .await
    }

    /// The decision whose hold this ends, where the canary is taken away all the same without that.
    pub fn ends_a_hold_that_keeps_nothing(&self) -> Option<&str> {
        match self {
            Change::Pause { of: Some(of), replica_set: Some(_), .. } => Some(of),
            _ => None,
        }
    }

    /// What takes it back; `None` where only people can.
    pub fn inverse(&self) -> Option<Inverse> {
        Some(match self.clone() {
            Change::Weight { route, service, weights } => Inverse::Weight { route, service, weights },
            Change::Scale { deployment, from, to, .. } => Inverse::Scale { deployment, replicas: from, was_set_to: to },
            Change::Template { deployment, replica_set, replaced, unpause, of, .. } => {
                Inverse::Template { deployment, replica_set: replaced, was_set_to: replica_set, paused: unpause, of }
            }
            Change::Abort { .. } => return None,
            Change::Pause { workload, paused, of, replica_set } => {
                Inverse::Pause { workload, paused: !paused, of, replica_set }
            }
        })
    }

    /// The way back in words.
    pub fn way_back(&self) -> String {
        let object = self.object();
        let (namespace, name) = object.place();
        match self {
            Change::Weight { weights, .. } => {
                let weights: Vec<String> = weights.iter().map(|b| b.weight.unwrap_or(1).to_string()).collect();
                format!("weight {} again in {object}", weights.join(", "))
            }
            Change::Scale { from, .. } => {
                format!("kubectl --namespace {namespace} scale deployment {name} --replicas {from}")
            }
            Change::Template { replaced, unpause: true, .. } => format!(
                "the template of ReplicaSet {replaced} and the pause again in {object}: its pods come once somebody lets the \
                 rollout go on"
            ),
            Change::Template { replaced, .. } => format!(
                "the template of ReplicaSet {replaced} again in {object}, which rolls that version out to all its pods"
            ),
            Change::Abort { .. } => format!(
                "for people only, it promotes the canary again: kubectl argo rollouts --namespace {namespace} retry rollout {name}"
            ),
            Change::Pause { replica_set: Some(version), .. } => {
                format!("spec.paused true again in {object}, if it still has the template of ReplicaSet {version}")
            }
            Change::Pause { paused, .. } => format!("spec.paused {} again in {object}", !paused),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let generation = self.object().generation;
        let noted = |note: &Option<String>| note.as_ref().map(|n| format!("; {n}")).unwrap_or_default();
        match self {
            Change::Weight { route, service, weights } => {
                let weights: Vec<String> = weights.iter().map(|b| b.weight.unwrap_or(1).to_string()).collect();
                let from = weights.join(", ");
                write!(
                    f,
                    "set the weight of {service} in {route} from {from} to 0, if its spec is still generation {generation}"
                )
            }
            Change::Scale { deployment, from, to, note } => write!(
                f,
                "scale {deployment} from {from} to {to}, on all nodes, if its spec is still generation {generation}{}",
                noted(note)
            ),
            Change::Template { deployment, replica_set, revision, replaced, unpause, note, .. } => write!(
                f,
                "give {deployment} the template of ReplicaSet {replica_set} (revision {revision}) instead of that of {replaced}{}, if \
                 its spec is still generation {generation}{}",
                if *unpause { " and end its pause" } else { "" },
                noted(note)
            ),
            Change::Abort { rollout } => {
                write!(f, "abort {rollout} (status.abort), if its spec is still generation {generation}")
            }
            Change::Pause { workload, paused: true, .. } => {
                write!(f, "set spec.paused of {workload} to true, if its spec is still generation {generation}")
            }
            Change::Pause { workload, of, .. } => write!(
                f,
                "set spec.paused of {workload} to false{}, if its spec is still generation {generation} but for what is done before",
                of.as_ref().map(|of| format!(", which ends the hold by decision {of}")).unwrap_or_default()
            ),
        }
    }
}
