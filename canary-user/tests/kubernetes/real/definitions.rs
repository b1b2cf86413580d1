//! The kinds that others define: what of them the guard reads or changes, with the defaults and the parts that theirs have.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::{control_plane::ControlPlane, objects::objects};

/// The Gateway API's HTTPRoute: a backend's weight, kind and group have defaults, which the server writes.
pub async fn define_http_routes(plane: &ControlPlane) {
    let backend = json!({
        "type": "object", "required": ["name"],
        "properties": {
            "group": { "type": "string", "default": "" },
            "kind": { "type": "string", "default": "Service" },
            "name": { "type": "string" },
            "namespace": { "type": "string" },
            "port": { "type": "integer", "format": "int32" },
            "weight": { "type": "integer", "format": "int32", "default": 1, "minimum": 0, "maximum": 1_000_000 },
        },
    });
    let rule = json!({ "type": "object", "properties": { "backendRefs": { "type": "array", "items": backend } } });
    let spec = json!({ "type": "object", "properties": { "rules": { "type": "array", "items": rule } } });
    define(plane, ("gateway.networking.k8s.io", "v1", "HTTPRoute"), spec, json!({ "type": "object" }), true).await;
}

/// The Rollout of Argo. Those of its first versions had no part "status".
pub async fn define_rollouts(plane: &ControlPlane, with_status: bool) {
    let spec = json!({
        "type": "object",
        "properties": { "replicas": { "type": "integer" }, "paused": { "type": "boolean" } },
    });
    let weights = json!({
        "type": "object",
        "properties": {
            "canary": { "type": "object", "required": ["weight"], "properties": { "weight": { "type": "integer" } } },
        },
    });
    let status = json!({
        "type": "object",
        "properties": {
            "abort": { "type": "boolean" },
            "canary": { "type": "object", "properties": { "weights": weights } },
            "currentPodHash": { "type": "string" },
            "phase": { "type": "string" },
            "stableRS": { "type": "string" },
        },
    });
    define(plane, ("argoproj.io", "v1alpha1", "Rollout"), spec, status, with_status).await;
}

async fn define(
    plane: &ControlPlane,
    (group, version, kind): (&str, &str, &str),
    spec: Value,
    status: Value,
    with_status: bool,
) {
    let singular = kind.to_lowercase();
    let name = format!("{singular}s.{group}");
    let schema = json!({ "type": "object", "properties": { "spec": spec, "status": status } });
    let parts = if with_status { json!({ "status": {} }) } else { json!({}) };
    plane
        .put(json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {
                "name": name,
                // Asked for in groups of Kubernetes itself.
                "annotations": { "api-approved.kubernetes.io": "unapproved, for a test" },
            },
            "spec": {
                "group": group, "scope": "Namespaced",
                "names": { "kind": kind, "plural": format!("{singular}s"), "singular": singular },
                "versions": [{
                    "name": version, "served": true, "storage": true, "subresources": parts,
                    "schema": { "openAPIV3Schema": schema },
                }],
            },
        }))
        .await;
    let kinds = objects(&plane.admin, &format!("{group}/{version}"), kind, "default");
    loop {
        match kinds.list(&Default::default()).await {
            Ok(_) => return,
            Err(kube::Error::Api(status)) if status.code == 404 => sleep(Duration::from_millis(50)).await,
            Err(e) => panic!("{kind}: {e}"),
        }
    }
}
