//! Who else looks after an object, and would take a change back.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::{ResourceExt as _, api::DynamicObject};

use super::{
    api::{Api, Kind, MANAGER},
    workload::{Object, number, owner, string},
};
use crate::orchestrator::Error;

const FLUX: &str = "Flux";
/// Marks that controllers of a repository leave on what they apply: label or annotation, who it is.
const REPOSITORY: [(&str, &str); 4] = [
    ("argocd.argoproj.io/tracking-id", "Argo CD"),
    ("argocd.argoproj.io/instance", "Argo CD"),
    ("kustomize.toolkit.fluxcd.io/name", FLUX),
    ("helm.toolkit.fluxcd.io/name", FLUX),
];
/// The names by which the same write, in `managedFields`.
const WRITERS: [(&str, &str); 4] = [
    ("argocd-controller", "Argo CD"),
    ("argocd-application-controller", "Argo CD"),
    ("kustomize-controller", FLUX),
    ("helm-controller", FLUX),
];
/// With this annotation Flux leaves an object alone.
const FLUX_OFF: (&str, &str) = ("kustomize.toolkit.fluxcd.io/reconcile", "disabled");
const HELM_RELEASE: &str = "meta.helm.sh/release-name";

/// With this annotation on a Deployment or a Rollout its owner keeps the guard from acting; "false" is as good as none.
const PAUSE: &str = "canary-guard/pause";

/// Why nothing is done about a workload: its owner said so on it.
pub fn paused(what: &Object, object: &DynamicObject) -> Option<String> {
    let reason = object.annotations().get(PAUSE).filter(|value| *value != "false")?;
    let reason = if reason.is_empty() || reason == "true" { String::new() } else { format!(" ({reason})") };
    Some(format!("paused: {what} has the annotation {PAUSE}{reason}; `kubectl annotate` with {PAUSE}- removes it"))
}

/// Why nothing of an object is changed: it is one of the system's own.
pub fn of_the_system(what: &Object) -> Option<String> {
    let is_so = what.namespace.starts_with("kube-");
    is_so.then(|| format!("{what} is in a namespace of the system: it is not touched"))
}

/// Why the `spec` of an object is not changed: it is the system's own, or somebody would change it back.
pub fn obstacle(what: &Object, object: &DynamicObject) -> Option<String> {
    if let Some(why) = of_the_system(what) {
        return Some(why);
    }
    if let Some((kind, name, _)) = owner(object) {
        let hint = if kind == "Canary" { ": let Flagger ask the guard (/gate)" } else { "" };
        return Some(format!("{what} belongs to {kind} {name}, whose operator would change it back{hint}"));
    }
    let by = repository(object)?;
    Some(format!(
        "{what} is applied from a repository by {by}, which would change it back: take the version back in the repository"
    ))
}

fn repository(object: &DynamicObject) -> Option<&'static str> {
    let leaves_alone = object.annotations().get(FLUX_OFF.0).is_some_and(|v| v == FLUX_OFF.1);
    let marked = |key: &str| object.annotations().contains_key(key) || object.labels().contains_key(key);
    let writes = |name: &str| object.managed_fields().iter().any(|field| field.manager.as_deref() == Some(name));
    let marks = REPOSITORY.iter().filter(|(key, _)| marked(key));
    let writers = WRITERS.iter().filter(|(name, _)| writes(name));
    marks.chain(writers).map(|(_, by)| *by).find(|by| !(*by == FLUX && leaves_alone))
}

/// Who wrote one of these fields of an object last, other than the guard, and when: ", as helm wrote at 2026-11-27T10:00:00Z"; ""
/// where the API server does not say. A field is a part of the object and its name there, as `managedFields` has them.
///
/// A manager's time is that of its latest change to any of its fields.
pub fn writer(object: &DynamicObject, fields: &[(&str, &str)]) -> String {
    let others = having(object, fields).filter(|entry| entry.manager.as_deref() != Some(MANAGER));
    let newest = others.max_by(|a, b| a.time.cmp(&b.time));
    let Some((entry, manager)) = newest.and_then(|entry| Some((entry, entry.manager.as_ref()?))) else {
        return String::new();
    };
    let at = entry.time.as_ref().map(|time| format!(" at {}", time.0)).unwrap_or_default();
    format!(", as {manager} wrote{at}")
}

/// Whether the API server says that the guard, and nobody else, set one of these fields last.
pub fn is_guards(object: &DynamicObject, fields: &[(&str, &str)]) -> bool {
    let mut managers = having(object, fields).map(|entry| entry.manager.as_deref()).peekable();
    managers.peek().is_some() && managers.all(|manager| manager == Some(MANAGER))
}

/// What the API server has of who set one of these fields.
fn having<'a>(object: &'a DynamicObject, fields: &[(&str, &str)]) -> impl Iterator<Item = &'a ManagedFieldsEntry> {
    let has = move |entry: &&ManagedFieldsEntry| {
        let of = entry.fields_v1.as_ref().map(|of| &of.0);
        of.is_some_and(|of| fields.iter().any(|(part, name)| of.get(part).is_some_and(|part| part.get(name).is_some())))
    };
    object.managed_fields().iter().filter(has)
}

/// What the plan says of who may change it back later, though not at once.
pub fn note(object: &DynamicObject) -> Option<String> {
    let release = object.annotations().get(HELM_RELEASE)?;
    Some(format!("until the next upgrade of the Helm release {release}"))
}

/// What an autoscaler does about a Deployment that is scaled to 0: `Err` = bring it back.
pub async fn autoscaler(api: &Api, deployment: &Object) -> Result<Option<String>, Error> {
    let all = api.list(Kind::HorizontalPodAutoscaler, &deployment.namespace, "").await.map_err(Error::refused)?;
    let Some(scaler) = all.iter().find(|scaler| {
        string(&scaler.data, "/spec/scaleTargetRef/kind") == Some("Deployment")
            && string(&scaler.data, "/spec/scaleTargetRef/name") == Some(&deployment.name)
    }) else {
        return Ok(None);
    };
    let name = scaler.name_any();
    if let Some(keda) = scaler.labels().get("scaledobject.keda.sh/name") {
        return Err(Error::refused(format!(
            "{deployment} is scaled by KEDA's ScaledObject {keda}, which would scale it up again from 0"
        )));
    }
    // At 0 replicas the autoscaler stops, unless its own minimum is 0, too.
    if number(&scaler.data, "/spec/minReplicas") == Some(0) {
        return Err(Error::refused(format!("HorizontalPodAutoscaler {name} scales {deployment} up again from 0")));
    }
    Ok(Some(format!("HorizontalPodAutoscaler {name} stays off until it is scaled up")))
}
