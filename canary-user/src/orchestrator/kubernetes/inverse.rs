//! What takes a change back, where it still stands.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    api::{Api, Kind},
    change::Backend,
    hold,
    patch::send,
    workload::{Object, flag, number, string, template},
};
use crate::orchestrator::Error;

/// What takes a change back, as it stands in the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Inverse {
    Weight {
        route: Object,
        service: String,
        weights: Vec<Backend>,
    },
    Scale {
        deployment: Object,
        replicas: i64,
        was_set_to: i64,
    },
    Template {
        deployment: Object,
        replica_set: String,
        was_set_to: String,
        /// Whether the rollout was paused before, and is to be again.
        #[serde(default)]
        paused: bool,
        /// The hold whose pause that was.
        #[serde(default)]
        of: Option<String>,
    },
    Pause {
        workload: Object,
        paused: bool,
        /// The hold that is given back, whose the pause is again.
        #[serde(default)]
        of: Option<String>,
        /// Of the version whose rollout was held: that of another one is not to stand still.
        #[serde(default)]
        replica_set: Option<String>,
    },
}

impl Inverse {
    /// Takes the change back where it still stands; what somebody changed since is left, and told. Gives the generation of the object
    /// afterwards, as [`send`] does.
    pub async fn make(&self, api: &Api, decision: &str) -> Result<i64, Error> {
        let since = |object: &Object, what: String| {
            Err(Error::refused(format!("{object} was changed by someone else since, it has {what}: it is not touched")))
        };
        match self {
            Inverse::Weight { route, service, weights } => {
                send(api, route, None, decision, |now| {
                    let mut all = Vec::new();
                    for b in weights {
                        let there = now.data.pointer(&b.pointer());
                        let there = there.filter(|there| string(there, "/name") == Some(service));
                        let Some(there) = there else { return since(route, "other backends".into()) };
                        let path = format!("{}/weight", b.pointer());
                        match number(there, "/weight") {
                            now if now.unwrap_or(1) == b.weight.unwrap_or(1) => {}
                            Some(0) => all.push(match b.weight {
                                Some(weight) => json!({ "op": "replace", "path": path, "value": weight }),
                                None => json!({ "op": "remove", "path": path }),
                            }),
                            now => return since(route, format!("weight {} for {service}", now.unwrap_or(1))),
                        }
                    }
                    Ok(Some(all).filter(|all| !all.is_empty()))
                })
                .await
            }
            Inverse::Scale { deployment, replicas, was_set_to } => {
                send(api, deployment, Some("scale"), decision, |now| match number(&now.data, "/spec/replicas") {
                    Some(now) if now == *replicas => Ok(None),
                    // "add" also replaces; a scale of 0 does not have the field.
                    Some(now) if now == *was_set_to => {
                        Ok(Some(vec![json!({ "op": "add", "path": "/spec/replicas", "value": replicas })]))
                    }
                    now => since(deployment, format!("{} replicas", now.unwrap_or(1))),
                })
                .await
            }
            Inverse::Template { deployment, replica_set, was_set_to, paused, of } => {
                let back = template_of(api, &deployment.namespace, replica_set).await?;
                let set = template_of(api, &deployment.namespace, was_set_to).await?;
                send(api, deployment, None, of.as_deref().unwrap_or(decision), |now| match template(now) {
                    Some(now) if now == back => Ok(None),
                    Some(now) if now == set => {
                        let mut all = vec![json!({ "op": "replace", "path": "/spec/template", "value": back })];
                        // In the same change: a moment without it would begin to roll that version out to everybody.
                        if *paused {
                            all.push(json!({ "op": "add", "path": "/spec/paused", "value": true }));
                        }
                        Ok(Some(all))
                    }
                    _ => since(deployment, "another template".into()),
                })
                .await
            }
            Inverse::Pause { workload, paused, of, replica_set } => {
                let held = match replica_set {
                    Some(name) => Some(template_of(api, &workload.namespace, name).await?),
                    None => None,
                };
                send(api, workload, None, of.as_deref().unwrap_or(decision), |now| {
                    if flag(&now.data, "/spec/paused") == *paused {
                        return Ok(None);
                    }
                    if held.is_some() && template(now) != held {
                        return since(workload, "another template".into());
                    }
                    // A pause that somebody set since is theirs, and so is one of another decision.
                    if !*paused && let Some(whose) = hold::paused_by_another(now, decision) {
                        return Err(Error::refused(format!(
                            "{workload} is paused{whose}: it is not touched; by hand, spec.paused false lets its rollout go on"
                        )));
                    }
                    Ok(Some(vec![json!({ "op": "add", "path": "/spec/paused", "value": paused })]))
                })
                .await
            }
        }
    }
}

async fn template_of(api: &Api, namespace: &str, replica_set: &str) -> Result<Value, Error> {
    let found = api.get(Kind::ReplicaSet, namespace, replica_set).await.map_err(Error::refused)?;
    found.as_ref().and_then(template).ok_or_else(|| {
        Error::refused(format!("ReplicaSet {replica_set} is gone, and with it what there is to go back to"))
    })
}
