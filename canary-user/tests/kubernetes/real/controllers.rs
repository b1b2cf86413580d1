//! With the real controllers of Deployments and ReplicaSets: what the guard asks for is carried out, and seen to be.

use std::{collections::BTreeSet, time::Duration};

use canary_user::{
    guard::{Action, Decision},
    orchestrator::{Orchestrator as _, State},
    targets::{Identity, Role, Target},
};
use kube::{ResourceExt as _, api::ListParams};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    control_plane::{ControlPlane, With},
    kubelet::Kubelet,
    objects::{change, shop},
};
use crate::cluster::{NAMESPACE, decision, deployment, target};

/// As people write it.
async fn deploy(plane: &ControlPlane, name: &str, version: &str) {
    let mut object = deployment(name, version, 2);
    object["spec"] = json!({
        "replicas": 2,
        "selector": { "matchLabels": { "app": name } },
        "strategy": { "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } },
        "template": {
            "metadata": { "labels": { "app": name } },
            "spec": { "containers": [{ "name": "app", "image": format!("checkout:{version}") }] },
        },
    });
    plane.put(object).await;
    while plane.get("Deployment", name).await.data["status"]["availableReplicas"] != 2 {
        sleep(Duration::from_millis(100)).await;
    }
}

/// The pods of a version, as the guard finds them.
async fn targets(plane: &ControlPlane, role: Role, app: &str, image: &str) -> Vec<Target> {
    let which = ListParams::default().labels(&format!("app={app}"));
    let pods = shop(&plane.admin, "Pod").list(&which).await.expect("pods").items;
    let of_version = pods
        .iter()
        .filter(|pod| pod.data["spec"]["containers"][0]["image"] == image && pod.metadata.deletion_timestamp.is_none());
    let as_target = |pod: &kube::api::DynamicObject| {
        let (uid, hash) = (pod.uid().expect("a uid"), &pod.labels()["pod-template-hash"]);
        let identity = Identity {
            name: format!("{NAMESPACE}/{}", pod.name_any()).into(),
            run: format!("{uid} {hash}").into(),
            restarts: None,
        };
        Target { identity: Some(identity), ..target(role, &pod.name_any(), hash) }
    };
    of_version.map(as_target).collect()
}

async fn on(plane: &ControlPlane, action: Action, stable: (&str, &str), canary: (&str, &str)) -> Decision {
    let mut decision = decision(action, "checkout", "checkout");
    decision.stable = targets(plane, Role::Stable, stable.0, stable.1).await;
    decision.canary = targets(plane, Role::Canary, canary.0, canary.1).await;
    assert!(!decision.stable.is_empty() && !decision.canary.is_empty(), "{decision:?}");
    decision
}

/// How many pods each ReplicaSet of a Deployment wants, by its image.
async fn sets(plane: &ControlPlane, app: &str) -> BTreeSet<(String, i64)> {
    let which = ListParams::default().labels(&format!("app={app}"));
    let sets = shop(&plane.admin, "ReplicaSet").list(&which).await.expect("ReplicaSets").items;
    let image = |set: &Value| set["spec"]["template"]["spec"]["containers"][0]["image"].as_str().map(str::to_owned);
    sets.iter().map(|s| (image(&s.data).expect("an image"), s.data["spec"]["replicas"].as_i64().unwrap_or(0))).collect()
}

#[tokio::test]
async fn real_controllers_take_the_canary_away_and_bring_it_back() {
    let test = "real_controllers_take_the_canary_away_and_bring_it_back";
    let Some(plane) = ControlPlane::start(test, With::Controllers).await else { return };
    let k = plane.guard("").await;
    let _kubelet = Kubelet::start(&plane, "");
    deploy(&plane, "checkout", "aaa").await;
    deploy(&plane, "checkout-canary", "bbb").await;
    let drain = on(&plane, Action::Drain, ("checkout", "checkout:aaa"), ("checkout-canary", "checkout:bbb")).await;
    assert_eq!(drain.canary.len(), 2);
    let plan = k.describe(&drain).await.expect("possible");
    assert_eq!(k.state(&drain).await.expect("asked").state, State::NotInEffect);
    k.apply(&drain, &plan).await.expect("carried out");
    assert_eq!(k.state(&drain).await.expect("asked").state, State::InEffect);
    assert_eq!(targets(&plane, Role::Canary, "checkout-canary", "checkout:bbb").await, Vec::new());
    assert_eq!(targets(&plane, Role::Stable, "checkout", "checkout:aaa").await, drain.stable, "stable is as it was");
    k.undo(&drain, &plan).await.expect("undone");
    while targets(&plane, Role::Canary, "checkout-canary", "checkout:bbb").await.len() < 2 {
        sleep(Duration::from_millis(100)).await;
    }
    let again = k.state(&drain).await.expect("asked");
    assert_eq!(again.state, State::NotInEffect, "{}", again.detail);
    // Those that came are others than those that were decided on.
    let old = k.describe(&drain).await.expect_err("refused");
    assert!(old.to_string().contains("was replaced or is gone since the decision"), "{old}");
}

#[tokio::test]
async fn a_real_rollout_is_held_and_taken_back() {
    let test = "a_real_rollout_is_held_and_taken_back";
    let Some(plane) = ControlPlane::start(test, With::Controllers).await else { return };
    let k = plane.guard("").await;
    // The canary runs and never gets ready, so that its rollout stays where it is.
    let _kubelet = Kubelet::start(&plane, "checkout:bbb");
    deploy(&plane, "checkout", "aaa").await;
    let containers = json!([{ "name": "app", "image": "checkout:bbb" }]);
    let spec = json!({ "template": { "spec": { "containers": containers } } });
    change(&plane.admin, "Deployment", "checkout", json!({ "spec": spec })).await;
    let pods_of = async |image: &str| targets(&plane, Role::Canary, "checkout", image).await;
    while pods_of("checkout:bbb").await.is_empty() {
        sleep(Duration::from_millis(100)).await;
    }
    let (stable, canary) = (("checkout", "checkout:aaa"), ("checkout", "checkout:bbb"));
    let hold = on(&plane, Action::Hold, stable, canary).await;
    let held = k.describe(&hold).await.expect("possible");
    k.apply(&hold, &held).await.expect("held");
    assert_eq!(k.state(&hold).await.expect("asked").state, State::InEffect);

    let rollback = on(&plane, Action::Rollback, stable, canary).await;
    let plan = k.describe(&rollback).await.expect("possible");
    assert!(plan.steps[0].contains("(revision 1)"), "{:?}", plan.steps);
    k.apply(&rollback, &plan).await.expect("carried out");
    assert_eq!(k.state(&rollback).await.expect("asked").state, State::InEffect);
    // The controller has known its ReplicaSet again by the template: there is no third one.
    let back = BTreeSet::from([("checkout:aaa".to_owned(), 2), ("checkout:bbb".to_owned(), 0)]);
    assert_eq!(sets(&plane, "checkout").await, back);
    assert_eq!(pods_of("checkout:bbb").await, Vec::new());
    assert_eq!(targets(&plane, Role::Stable, "checkout", "checkout:aaa").await, rollback.stable, "it served all along");

    k.undo(&rollback, &plan).await.expect("undone");
    let seen = async || {
        let deployment = plane.get("Deployment", "checkout").await;
        deployment.data["status"]["observedGeneration"] == json!(deployment.metadata.generation)
    };
    while !seen().await {
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(
        sets(&plane, "checkout").await,
        back,
        "it is paused as it was: the condemned version is rolled out to nobody"
    );
    change(&plane.admin, "Deployment", "checkout", json!({ "spec": { "paused": false } })).await;
    while pods_of("checkout:bbb").await.is_empty() {
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(sets(&plane, "checkout").await.len(), 2);
    let reasons = plane.reasons().await;
    for reason in ["CanaryHold", "CanaryRollback", "CanaryUndo"] {
        assert!(reasons.contains(reason), "{reason} in {reasons:?}");
    }
}
