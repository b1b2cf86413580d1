//! What the cluster says of a decision, read without changing anything.

use kube::{ResourceExt as _, api::DynamicObject};

use super::{
    Kubernetes,
    api::{Api, Kind},
    hold,
    owner::writer,
    workload::{Object, PodRun, flag, number, pod, replica_set_of, string, template, template_hash, workload_of},
};
use crate::{
    config::HttpRouteConfig,
    guard::{Action, Decision},
    orchestrator::{Found, State},
    targets::Target,
};

/// The Deployment or Rollout of a canary, as far as it is still there.
pub(super) async fn workload(api: &Api, canary: &[Target]) -> anyhow::Result<Option<Object>> {
    let Some(first) = canary.first() else { return Ok(None) };
    let run = PodRun::of(first)?;
    let Some(replica_set) = replica_set_of(api, run).await? else { return Ok(None) };
    let (kind, _, workload) = workload_of(api, run.namespace, &replica_set).await?;
    Ok(kind.ok().zip(workload).map(|(kind, workload)| Object::of(kind, &workload)))
}

impl Kubernetes {
    pub(super) async fn found(&self, api: &Api, decision: &Decision) -> anyhow::Result<Found> {
        let say = |state, detail: String| Ok(Found { state, detail });
        let Some(first) = decision.canary.first() else { anyhow::bail!("the decision names no pod") };
        let run = PodRun::of(first)?;
        if let Some(config) = self.drains_by_route(decision)
            && let Some(found) = without_weight(api, run.namespace, config).await?
        {
            // What has weight again may be the next version, behind the same Service.
            if found.state == State::NotInEffect
                && let Some(why) = replaced(api, decision, run).await?
            {
                return say(State::InEffect, format!("{}, which is another version by now: {why}", found.detail));
            }
            return Ok(found);
        }
        if decision.action == Action::Hold {
            return held(api, run).await;
        }
        let left = left(api, decision).await?;
        let Some(replica_set) = replica_set_of(api, run).await? else {
            return match left.first() {
                Some(pod) => say(State::InProgress, format!("{pod} is left of a ReplicaSet that is gone")),
                None => say(State::InEffect, format!("the ReplicaSet of {run} is gone, and its pods with it")),
            };
        };
        let set = replica_set.name_any();
        let (kind, name, workload) = workload_of(api, run.namespace, &replica_set).await?;
        let replicas = number(&replica_set.data, "/status/replicas").unwrap_or_default();
        let (Ok(kind), Some(workload)) = (kind, workload) else {
            let detail = format!("{name}, the owner of ReplicaSet {set}, is gone or was replaced");
            return match left.first() {
                None if replicas == 0 => say(State::InEffect, format!("{detail}, and none of its pods is left")),
                _ => say(State::NotInEffect, detail),
            };
        };
        let object = Object::of(kind, &workload);
        let away = match kind {
            Kind::Rollout => given_up(&object, &workload, template_hash(replica_set.labels())),
            _ => unwanted(&object, &workload, &replica_set),
        };
        let away = match away {
            Ok(away) => away,
            Err(why) => return say(State::NotInEffect, why),
        };
        // Argo takes the pods away some time after the requests.
        if kind == Kind::Rollout && number(&workload.data, "/status/canary/weights/canary/weight") == Some(0) {
            return say(State::InEffect, format!("{away}, and its canary has weight 0"));
        }
        match left.first() {
            _ if replicas > 0 => say(State::InProgress, format!("{away}; ReplicaSet {set} still has {replicas}")),
            Some(pod) => say(State::InProgress, format!("{away}; {pod} has not ended yet")),
            None => say(State::InEffect, format!("{away}; ReplicaSet {set} has none")),
        }
    }
}

/// Whether the rollout of a pod's version stands still. Of a version that is gone there is none any more, whoever saw to that.
async fn held(api: &Api, run: PodRun<'_>) -> anyhow::Result<Found> {
    let over = |what: String| {
        Ok(Found {
            state: State::NotInEffect,
            detail: format!("{what} is gone, and with it the rollout that was held"),
        })
    };
    let Some(replica_set) = replica_set_of(api, run).await? else { return over(format!("the ReplicaSet of {run}")) };
    let (kind, name, workload) = workload_of(api, run.namespace, &replica_set).await?;
    let (Ok(kind), Some(workload)) = (kind, workload) else {
        return over(format!("{name}, the owner of ReplicaSet {},", replica_set.name_any()));
    };
    let object = Object::of(kind, &workload);
    let paused = flag(&workload.data, "/spec/paused");
    let state = if paused { State::InEffect } else { State::NotInEffect };
    let by = if paused { String::new() } else { writer(&workload, hold::PAUSED) };
    Ok(Found { state, detail: format!("spec.paused of {object} is {paused}{by}") })
}

/// The decision's pods that are still there, as they were.
async fn left<'a>(api: &Api, decision: &'a Decision) -> anyhow::Result<Vec<PodRun<'a>>> {
    let mut left = Vec::new();
    for target in &decision.canary {
        let run = PodRun::of(target)?;
        if pod(api, run).await?.is_some() {
            left.push(run);
        }
    }
    Ok(left)
}

/// Why what is in the canary's place now is not the version of the decision, of which nothing is left; `None` = it may be.
async fn replaced(api: &Api, decision: &Decision, run: PodRun<'_>) -> anyhow::Result<Option<String>> {
    if !left(api, decision).await?.is_empty() {
        return Ok(None);
    }
    let Some(replica_set) = replica_set_of(api, run).await? else {
        return Ok(Some(format!("the ReplicaSet of {run} is gone")));
    };
    if number(&replica_set.data, "/status/replicas").unwrap_or_default() > 0 {
        return Ok(None);
    }
    let (kind, name, workload) = workload_of(api, run.namespace, &replica_set).await?;
    let (Ok(kind), Some(workload)) = (kind, workload) else { return Ok(Some(format!("{name} is gone"))) };
    let object = Object::of(kind, &workload);
    let is_another = match kind {
        Kind::Rollout => string(&workload.data, "/status/currentPodHash") != Some(template_hash(replica_set.labels())),
        _ => template(&workload) != template(&replica_set),
    };
    Ok(is_another.then(|| format!("{object} has another template")))
}

/// What a route says; `None` where its canary was left to be scaled, because nobody else has weight.
async fn without_weight(api: &Api, namespace: &str, config: &HttpRouteConfig) -> anyhow::Result<Option<Found>> {
    let (name, service) = (&config.name, &config.canary);
    let Some(route) = api.get(Kind::HttpRoute, namespace, name).await? else { return Ok(None) };
    let Ok(backends) = super::change::backends(&route, service) else { return Ok(None) };
    let weight: i64 = backends.iter().map(|b| b.weight.unwrap_or(1)).sum();
    let state = if weight == 0 { State::InEffect } else { State::NotInEffect };
    let by = if weight == 0 { String::new() } else { writer(&route, &[("f:spec", "f:rules")]) };
    let detail = format!("{service} has weight {weight} in HTTPRoute {namespace}/{name}{by}");
    Ok(Some(Found { state, detail }))
}

/// Whether a Deployment wants no pod of this ReplicaSet, in words.
fn unwanted(object: &Object, deployment: &DynamicObject, replica_set: &DynamicObject) -> Result<String, String> {
    if number(&deployment.data, "/spec/replicas") == Some(0) {
        return Ok(format!("{object} wants no pods"));
    }
    if template(deployment) != template(replica_set) {
        return Ok(format!("{object} has another template"));
    }
    let wanted = number(&deployment.data, "/spec/replicas").unwrap_or(1);
    let by = writer(deployment, &[("f:spec", "f:replicas"), ("f:spec", "f:template")]);
    Err(format!("{object} wants {wanted} pods of ReplicaSet {}{by}", replica_set.name_any()))
}

/// Whether a Rollout has given this version up, in words.
fn given_up(object: &Object, rollout: &DynamicObject, hash: &str) -> Result<String, String> {
    if string(&rollout.data, "/status/currentPodHash") != Some(hash) {
        return Ok(format!("{object} rolls another version out"));
    }
    if flag(&rollout.data, "/status/abort") {
        return Ok(format!("{object} is aborted"));
    }
    let by = writer(rollout, &[("f:status", "f:abort"), ("f:spec", "f:template")]);
    Err(format!("{object} rolls {hash} out{by}"))
}
