//! What there is to change for a decision, worked out from the cluster as it is now.

use kube::{ResourceExt as _, api::DynamicObject};

use super::{
    Kubernetes,
    api::{Api, Kind},
    change::{Change, backends},
    hold::paused_by,
    owner,
    probes::background,
    workload::{
        Object, PodRun, Side, flag, number, owner as owner_of, pod, string, template, template_hash, workload_of,
    },
};
use crate::{
    guard::{Action, Decision},
    orchestrator::{Background, Error, TakesAway},
    targets::Target,
};

/// Until a Deployment that does not get on is called failed, where it says nothing else (`progressDeadlineSeconds`).
const PROGRESS_SECONDS: i64 = 600;
/// What a Deployment has there that is never called failed (`HasProgressDeadline` of kubernetes).
const NO_DEADLINE: i64 = i32::MAX as i64;

/// The changes of one decision.
pub struct Work {
    pub changes: Vec<Change>,
    /// The longest that the cluster may take to carry them out.
    pub takes_seconds: u64,
    /// Of pods that run on; `None` = they end.
    pub background: Option<Background>,
    /// On all nodes; `None` = others come in the place of the pods, so that nothing is taken away.
    pub takes_away: Option<TakesAway>,
}

impl Kubernetes {
    pub(super) async fn work(&self, api: &Api, decision: &Decision) -> Result<Work, Error> {
        match decision.action {
            Action::Hold | Action::Drain | Action::Rollback => {}
            Action::Quarantine => {
                return Err(Error::refused(
                    "Kubernetes has nothing that takes resources from running pods for a time: use mode drain or rollback",
                ));
            }
            Action::Promote => return Err(Error::refused("promoting is left to who began the rollout")),
        }
        let canary = Side::of(api, &decision.canary).await?;
        not_paused(&canary)?;
        if decision.action == Action::Hold {
            stable_not_paused(api, decision).await?;
            return Ok(Work { changes: vec![hold(&canary)?], takes_seconds: 0, background: None, takes_away: None });
        }
        let stable = self.stable(api, decision).await?;
        stable.as_ref().map_or(Ok(()), not_paused)?;
        let Some(stable) = stable else {
            let name = &decision.deployment;
            return Err(Error::refused(format!("no stable pod of {name} is left: what to go back to is not known")));
        };
        let mut changes = match (canary.kind, canary.is_same_workload(&stable)) {
            (Kind::Rollout, true) => abort(&canary, &stable)?,
            (Kind::Deployment, true) if decision.action == Action::Rollback => vec![template_back(&canary, &stable)?],
            (Kind::Deployment, true) => {
                return Err(Error::refused(format!(
                    "stable and canary are pods of the one {}: those that are taken away would come again with the same \
                     version; use mode rollback",
                    canary.object()
                )));
            }
            (Kind::Deployment, false) => self.take_away(api, decision, &canary, &stable).await?,
            _ => return Err(Error::refused(format!("{} and {} are two Rollouts", canary.object(), stable.object()))),
        };
        let end = end_of_hold(&canary, &changes);
        changes.extend(end);
        let background = run_on(&canary, &changes).then(|| background(&canary.pods));
        let background = background.transpose().map_err(Error::refused)?;
        let takes_away = takes_away(&canary, &stable, &changes);
        Ok(Work { takes_seconds: takes_seconds(&canary, &changes), changes, background, takes_away })
    }

    /// Where stable belongs, by those of its pods that are still there; `None` = none is.
    async fn stable(&self, api: &Api, decision: &Decision) -> Result<Option<Side>, Error> {
        let mut there: Vec<Target> = Vec::new();
        for target in &decision.stable {
            if pod(api, PodRun::of(target)?).await.map_err(Error::refused)?.is_some() {
                there.push(target.clone());
            }
        }
        if there.is_empty() {
            return Ok(None);
        }
        Side::of(api, &there).await.map(Some)
    }

    /// Two Deployments: requests are kept from the canary where a route can do that, else, or for good, it is scaled to 0.
    async fn take_away(
        &self,
        api: &Api,
        decision: &Decision,
        canary: &Side,
        stable: &Side,
    ) -> Result<Vec<Change>, Error> {
        let available = number(&stable.workload.data, "/status/availableReplicas").unwrap_or_default();
        if available < self.minimum_healthy as i64 {
            return Err(Error::refused(format!(
                "{} has {available} available pods of the {} that are needed to take the load",
                stable.object(),
                self.minimum_healthy
            )));
        }
        // One that Flagger owns tells that the canary is its own, too.
        if let Some((kind, name, _)) = owner_of(&stable.workload).filter(|(kind, ..)| kind == "Canary") {
            return Err(Error::refused(format!(
                "{} belongs to {kind} {name}: let Flagger ask the guard (/gate)",
                stable.object()
            )));
        }
        let mut changes = Vec::new();
        changes.extend(self.weight(api, &canary.object().namespace).await?);
        if changes.is_empty() || decision.action == Action::Rollback {
            changes.extend(scale_to_0(api, canary).await?);
        }
        if changes.is_empty() {
            return Err(Error::refused(format!("{} has no replicas and no weight already", canary.object())));
        }
        Ok(changes)
    }

    async fn weight(&self, api: &Api, namespace: &str) -> Result<Option<Change>, Error> {
        let Some(config) = &self.http_route else { return Ok(None) };
        let found = api.get(Kind::HttpRoute, namespace, &config.name).await.map_err(Error::refused)?;
        let route =
            found.ok_or_else(|| Error::refused(format!("there is no HTTPRoute {namespace}/{}", config.name)))?;
        let object = Object::of(Kind::HttpRoute, &route);
        if let Some(why) = owner::obstacle(&object, &route) {
            return Err(Error::Refused(why));
        }
        let service = config.canary.clone();
        let weights = match backends(&route, &service) {
            // Without another backend that has weight, what is left is to scale.
            Err(_) => return Ok(None),
            Ok(weights) if weights.is_empty() => {
                return Err(Error::refused(format!("{object} has no backend {service}")));
            }
            Ok(weights) => weights.into_iter().filter(|b| b.weight != Some(0)).collect::<Vec<_>>(),
        };
        Ok((!weights.is_empty()).then_some(Change::Weight { route: object, service, weights }))
    }
}

/// A guard sees the pods of its own node, while weights and replicas are those of all nodes.
fn takes_away(canary: &Side, stable: &Side, changes: &[Change]) -> Option<TakesAway> {
    let of_all_nodes = |change: &Change| matches!(change, Change::Weight { .. } | Change::Scale { .. });
    changes.iter().any(of_all_nodes).then(|| {
        let instances = number(&canary.workload.data, "/spec/replicas").unwrap_or(1).unsigned_abs();
        let stay = number(&stable.workload.data, "/status/availableReplicas").unwrap_or_default().unsigned_abs();
        TakesAway { instances, of: instances + stay }
    })
}

/// A rollout takes as long as its owner gives it; what is scaled to 0 only has to end.
fn takes_seconds(canary: &Side, changes: &[Change]) -> u64 {
    let rolls = changes.iter().any(|change| matches!(change, Change::Template { .. } | Change::Abort { .. }));
    let progress =
        number(&canary.workload.data, "/spec/progressDeadlineSeconds").filter(|seconds| *seconds < NO_DEADLINE);
    let progress = progress.unwrap_or(PROGRESS_SECONDS).unsigned_abs();
    canary.grace_seconds + if rolls { progress } else { 0 }
}

/// Whether the canary's pods run on where these changes were made, and only get no requests any more.
fn run_on(canary: &Side, changes: &[Change]) -> bool {
    changes.iter().all(|change| match change {
        // Nothing is taken away by its end.
        Change::Weight { .. } | Change::Pause { .. } => true,
        // Argo takes the weight away at once, and the pods after `abortScaleDownDelaySeconds`, if ever.
        Change::Abort { .. } => has_traffic_routing(canary),
        _ => false,
    })
}

/// Whether Argo takes requests away by weights, and not by the number of pods.
fn has_traffic_routing(canary: &Side) -> bool {
    canary.workload.data.pointer("/spec/strategy/canary/trafficRouting").is_some()
}

/// Whether an abort takes no request away before Argo has changed the numbers of pods, which it leaves as they are while
/// `spec.paused` is set (`haltProgress` of argo-rollouts): where weights follow how much of stable is available, too.
fn waits_for_pods(canary: &Side) -> bool {
    !has_traffic_routing(canary) || flag(&canary.workload.data, "/spec/strategy/canary/dynamicStableScale")
}

/// The end of a hold on the canary's own object, where no other change ends it: its next version would stand still, too, and nobody
/// would know why. A pause that is not the guard's is somebody's will, and stays.
fn end_of_hold(canary: &Side, changes: &[Change]) -> Option<Change> {
    let ends = |change: &Change| matches!(change, Change::Template { .. } | Change::Pause { .. });
    let of = paused_by(&canary.workload).filter(|_| !changes.iter().any(ends))?;
    let replica_set = Some(canary.replica_set.name_any());
    Some(Change::Pause { workload: canary.object(), paused: false, of: Some(of.to_owned()), replica_set })
}

async fn scale_to_0(api: &Api, canary: &Side) -> Result<Option<Change>, Error> {
    let deployment = canary.object();
    may_change(&deployment, &canary.workload)?;
    let from = number(&canary.workload.data, "/spec/replicas").unwrap_or(1);
    if from == 0 {
        return Ok(None);
    }
    let scaler = owner::autoscaler(api, &deployment).await?;
    let notes: Vec<String> = scaler.into_iter().chain(owner::note(&canary.workload)).collect();
    let note = Some(notes.join(", ")).filter(|note| !note.is_empty());
    Ok(Some(Change::Scale { deployment, from, to: 0, note }))
}

fn not_paused(side: &Side) -> Result<(), Error> {
    owner::paused(&side.object(), &side.workload).map_or(Ok(()), |why| Err(Error::Refused(why)))
}

/// The same of stable for a hold, which does nothing to it: whose pods they are is asked as far as that can be told, and which
/// version they are is not.
async fn stable_not_paused(api: &Api, decision: &Decision) -> Result<(), Error> {
    for target in &decision.stable {
        let Ok(run) = PodRun::of(target) else { continue };
        let found = pod(api, run).await.map_err(Error::refused)?;
        let Some((_, name, uid)) = found.as_ref().and_then(owner_of).filter(|(kind, ..)| kind == "ReplicaSet") else {
            continue;
        };
        let replica_set = api.get(Kind::ReplicaSet, run.namespace, &name).await.map_err(Error::refused)?;
        let Some(replica_set) = replica_set.filter(|set| set.uid().as_ref() == Some(&uid)) else { continue };
        let found = workload_of(api, run.namespace, &replica_set).await.map_err(Error::refused)?;
        if let (Ok(kind), _, Some(workload)) = found {
            // The others are of the same, whichever of its versions they run.
            let why = owner::paused(&Object::of(kind, &workload), &workload);
            return why.map_or(Ok(()), |why| Err(Error::Refused(why)));
        }
    }
    Ok(())
}

fn may_change(object: &Object, found: &DynamicObject) -> Result<(), Error> {
    owner::obstacle(object, found).map_or(Ok(()), |why| Err(Error::Refused(why)))
}

fn hold(canary: &Side) -> Result<Change, Error> {
    let workload = canary.object();
    may_change(&workload, &canary.workload)?;
    if flag(&canary.workload.data, "/spec/paused") {
        return Err(Error::refused(format!("{workload} is paused already")));
    }
    Ok(Change::Pause { workload, paused: true, of: None, replica_set: None })
}

/// One Deployment in the middle of a rollout: the template of the ReplicaSet that stable runs, named, not "the one before".
fn template_back(canary: &Side, stable: &Side) -> Result<Change, Error> {
    let deployment = canary.object();
    may_change(&deployment, &canary.workload)?;
    let (name, wanted) = (canary.replica_set.name_any(), template(&canary.workload));
    if stable.replica_set.uid() == canary.replica_set.uid() {
        return Err(Error::refused(format!(
            "stable and canary are both pods of ReplicaSet {name}: there is no difference"
        )));
    }
    if wanted != template(&canary.replica_set) {
        return Err(Error::refused(format!(
            "{deployment} does not want ReplicaSet {name} any more: somebody acts already"
        )));
    }
    let of_stable = template(&stable.replica_set);
    let template = of_stable
        .ok_or_else(|| Error::refused(format!("ReplicaSet {} has no template", stable.replica_set.name_any())))?;
    Ok(Change::Template {
        deployment,
        replica_set: stable.replica_set.name_any(),
        revision: stable.revision(),
        template,
        replaced: name,
        unpause: flag(&canary.workload.data, "/spec/paused"),
        of: paused_by(&canary.workload).map(str::to_owned),
        note: owner::note(&canary.workload),
    })
}

/// An abort, and the end of a pause that would keep pods and requests. In this order: what goes on again goes back to stable.
fn abort(canary: &Side, stable: &Side) -> Result<Vec<Change>, Error> {
    let rollout = canary.object();
    if let Some(why) = owner::of_the_system(&rollout) {
        return Err(Error::Refused(why));
    }
    let (status, hash) = (&canary.workload.data, template_hash(canary.replica_set.labels()));
    if flag(status, "/status/abort") {
        return Err(Error::refused(format!("{rollout} was aborted already")));
    }
    if string(status, "/status/currentPodHash") != Some(hash) {
        return Err(Error::refused(format!("{rollout} does not roll {hash} out any more")));
    }
    let stable_hash = template_hash(stable.replica_set.labels());
    if string(status, "/status/stableRS") != Some(stable_hash) || stable_hash == hash {
        return Err(Error::refused(format!("{rollout} does not call {stable_hash} its stable version")));
    }
    let mut changes = vec![Change::Abort { rollout: rollout.clone() }];
    if flag(status, "/spec/paused") && waits_for_pods(canary) {
        let of = paused_by(&canary.workload).map(str::to_owned);
        // What goes back to the canary is for people, and the pause with it.
        changes.push(Change::Pause { workload: rollout, paused: false, of, replica_set: None });
    }
    Ok(changes)
}
