//! Who a pod belongs to: its ReplicaSet, and the Deployment or Rollout above that.

use std::fmt;

use kube::{ResourceExt as _, api::DynamicObject};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::api::{Api, Kind};
use crate::{orchestrator::Error, targets::Target};

/// The label by which a ReplicaSet of a Deployment knows its pods.
pub const TEMPLATE_HASH: &str = "pod-template-hash";
/// The same for those of Argo Rollouts.
pub const ROLLOUT_HASH: &str = "rollouts-pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";
/// A pod's name has this many characters of its owner's at most, and five of its own
/// (`maxGeneratedNameLength` of k8s.io/apiserver).
const NAME_BASE: usize = 58;

/// One object, and the state of its `spec` that something was decided on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// The API server counts it up with every change of `spec`, and not with those of `status`.
    pub generation: i64,
}

impl Object {
    pub fn of(kind: Kind, object: &DynamicObject) -> Self {
        Self {
            kind,
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            uid: object.uid().unwrap_or_default(),
            generation: object.metadata.generation.unwrap_or_default(),
        }
    }

    pub fn place(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// A pod as a decision names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodRun<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
    pub hash: &'a str,
}

impl<'a> PodRun<'a> {
    pub fn of(target: &'a Target) -> Result<Self, Error> {
        let read = target.identity.as_ref().and_then(|identity| {
            let (namespace, name) = identity.name.split_once('/')?;
            let (uid, hash) = identity.run.split_once(' ')?;
            Some(Self { namespace, name, uid, hash })
        });
        read.ok_or_else(|| {
            Error::refused(format!(
                "{} was not found as a pod: name the versions by kubernetes = {{ namespace, selector }} to have Kubernetes \
                 act on them",
                target.cgroup
            ))
        })
    }
}

impl fmt::Display for PodRun<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pod {}/{}", self.namespace, self.name)
    }
}

/// The template hash of a pod or a ReplicaSet; "" where it has none.
pub fn template_hash(labels: &std::collections::BTreeMap<String, String>) -> &str {
    labels.get(TEMPLATE_HASH).or_else(|| labels.get(ROLLOUT_HASH)).map_or("", String::as_str)
}

/// The same pod, if it is there: not another one of that name.
pub async fn pod(api: &Api, run: PodRun<'_>) -> anyhow::Result<Option<DynamicObject>> {
    let found = api.get(Kind::Pod, run.namespace, run.name).await?;
    Ok(found.filter(|pod| pod.uid().as_deref() == Some(run.uid) && template_hash(pod.labels()) == run.hash))
}

/// One version in the cluster.
pub struct Side {
    pub pods: Vec<DynamicObject>,
    pub replica_set: DynamicObject,
    pub kind: Kind,
    pub workload: DynamicObject,
    /// The longest that its pods may take to end.
    pub grace_seconds: u64,
}

impl Side {
    /// Where all of these pods belong. Each has to be there as it was when it was decided, and to belong to the same.
    pub async fn of(api: &Api, targets: &[Target]) -> Result<Self, Error> {
        let mut side: Option<Side> = None;
        for target in targets {
            let run = PodRun::of(target)?;
            let Some(pod) = pod(api, run).await.map_err(Error::refused)? else {
                return Err(Error::refused(format!(
                    "{run} ({}, template {}) was replaced or is gone since the decision: its successor is not touched",
                    run.uid, run.hash
                )));
            };
            if let Some(class) = string(&pod.data, "/spec/priorityClassName").filter(|c| c.starts_with("system-")) {
                return Err(Error::refused(format!(
                    "{run} has priority class {class}: the system's own is not touched"
                )));
            }
            match &mut side {
                Some(side) if owner(&pod).is_some_and(|(_, _, uid)| Some(uid) == side.replica_set.uid()) => {
                    side.pods.push(pod);
                }
                Some(side) => {
                    return Err(Error::refused(format!(
                        "{run} does not belong to ReplicaSet {} like the others: which version is meant is not clear",
                        side.replica_set.name_any()
                    )));
                }
                None => side = Some(Self::above(api, run, pod).await?),
            }
        }
        side.ok_or_else(|| Error::refused("the decision names no pod"))
    }

    async fn above(api: &Api, run: PodRun<'_>, pod: DynamicObject) -> Result<Self, Error> {
        let namespace = run.namespace;
        let not_ours = |what: String, kind: &str, name: &str| {
            Error::refused(format!("{what} belongs to {kind} {name}, which the guard does not act on"))
        };
        let Some((kind, name, uid)) = owner(&pod) else {
            return Err(Error::refused(format!("{run} belongs to no ReplicaSet: nothing would bring it back")));
        };
        if kind != "ReplicaSet" {
            return Err(not_ours(run.to_string(), &kind, &name));
        }
        let gone = |what: &str| Error::refused(format!("{what}, the owner of {run}, is gone"));
        let replica_set = api.get(Kind::ReplicaSet, namespace, &name).await.map_err(Error::refused)?;
        let replica_set = replica_set
            .filter(|rs| rs.uid().as_ref() == Some(&uid))
            .ok_or_else(|| gone(&format!("ReplicaSet {name}")))?;
        let (kind, name, workload) = workload_of(api, namespace, &replica_set).await.map_err(Error::refused)?;
        let kind = kind.map_err(|kind| match kind.as_str() {
            "" => Error::refused(format!("ReplicaSet {} of {run} belongs to no Deployment", replica_set.name_any())),
            kind => not_ours(format!("ReplicaSet {}", replica_set.name_any()), kind, &name),
        })?;
        let workload = workload.ok_or_else(|| gone(&format!("{kind} {name}")))?;
        let grace_seconds =
            pod.data.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_u64).unwrap_or(30);
        Ok(Self { pods: vec![pod], replica_set, kind, workload, grace_seconds })
    }

    pub fn object(&self) -> Object {
        Object::of(self.kind, &self.workload)
    }

    pub fn is_same_workload(&self, other: &Side) -> bool {
        self.kind == other.kind && self.workload.uid() == other.workload.uid()
    }

    /// The number that the Deployment's controller gave this version.
    pub fn revision(&self) -> String {
        self.replica_set.annotations().get(REVISION).map_or("unknown", String::as_str).to_owned()
    }
}

/// Kind (`Err` = one that is not acted on, "" = none), name and object of a ReplicaSet's owner.
pub async fn workload_of(
    api: &Api,
    namespace: &str,
    replica_set: &DynamicObject,
) -> anyhow::Result<(Result<Kind, String>, String, Option<DynamicObject>)> {
    let Some((kind, name, uid)) = owner(replica_set) else { return Ok((Err(String::new()), String::new(), None)) };
    let kind = match kind.as_str() {
        "Deployment" => Kind::Deployment,
        "Rollout" => Kind::Rollout,
        _ => return Ok((Err(kind), name, None)),
    };
    let workload = api.get(kind, namespace, &name).await?;
    Ok((Ok(kind), name, workload.filter(|w| w.uid().as_ref() == Some(&uid))))
}

/// The ReplicaSet that a pod was of, also where the pod is gone; `None` = it is gone, too.
pub async fn replica_set_of(api: &Api, run: PodRun<'_>) -> anyhow::Result<Option<DynamicObject>> {
    anyhow::ensure!(!run.hash.is_empty(), "{run} has no template hash: its ReplicaSet is not known");
    for label in [TEMPLATE_HASH, ROLLOUT_HASH] {
        let all = api.list(Kind::ReplicaSet, run.namespace, &format!("{label}={}", run.hash)).await?;
        let of_pod = |set: &DynamicObject| {
            let name = set.name_any();
            let base = name.get(..NAME_BASE).unwrap_or(&name);
            run.name.strip_prefix(base).is_some_and(|rest| rest.starts_with('-') || base.len() == NAME_BASE)
        };
        if let Some(found) = all.into_iter().find(of_pod) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Kind, name and uid of the controller that looks after an object.
pub fn owner(object: &DynamicObject) -> Option<(String, String, String)> {
    let owners = object.metadata.owner_references.iter().flatten();
    let owner = owners.into_iter().find(|owner| owner.controller == Some(true))?;
    Some((owner.kind.clone(), owner.name.clone(), owner.uid.clone()))
}

/// The pods' template that a Deployment or ReplicaSet has, without the hash that a ReplicaSet adds to it.
pub fn template(object: &DynamicObject) -> Option<Value> {
    let mut template = object.data.pointer("/spec/template")?.clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(TEMPLATE_HASH);
    }
    Some(template)
}

pub fn string<'a>(data: &'a Value, pointer: &str) -> Option<&'a str> {
    data.pointer(pointer)?.as_str()
}

pub fn number(data: &Value, pointer: &str) -> Option<i64> {
    data.pointer(pointer)?.as_i64()
}

pub fn flag(data: &Value, pointer: &str) -> bool {
    data.pointer(pointer).and_then(Value::as_bool).unwrap_or_default()
}
