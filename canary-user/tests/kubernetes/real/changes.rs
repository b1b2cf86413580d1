//! Each change that the guard makes, and its way back, as its account and with the rights that are shipped.

use canary_user::{
    guard::{Action, Stage},
    orchestrator::{Orchestrator as _, Plan, State},
};
use serde_json::{Value, json};

use super::{
    control_plane::{ControlPlane, With},
    definitions::{define_http_routes, define_rollouts},
    objects::{apply, change, change_status},
};
use crate::cluster::NAMESPACE;

const ROUTE: &str = "http_route = { name = \"checkout\", canary = \"checkout-canary\" }";

async fn two_deployments(plane: &ControlPlane) {
    plane.service("checkout", "aaa", &["aaa"]).await;
    plane.service("checkout-canary", "bbb", &["bbb"]).await;
}

#[tokio::test]
async fn a_real_api_server_takes_the_changes_and_the_roles_allow_them() {
    let test = "a_real_api_server_takes_the_changes_and_the_roles_allow_them";
    let Some(plane) = ControlPlane::start(test, With::ApiServer).await else { return };
    let token = plane.account().await;
    let k = plane.hands(&token, "");
    two_deployments(&plane).await;
    let drain = plane.decision(Action::Drain, "checkout-canary").await;
    let forbidden = k.describe(&drain).await.expect_err("no Role yet");
    assert!(forbidden.to_string().contains("cannot get resource \"pods\""), "{forbidden}");
    plane.grant(&token).await;

    let before = plane.get("Deployment", "checkout-canary").await;
    k.describe(&drain).await.expect("possible");
    assert_eq!(plane.get("Deployment", "checkout-canary").await, before, "to describe is to try out");
    let plan = apply(&k, &drain).await;
    assert_eq!(plane.get("Deployment", "checkout-canary").await.data["spec"]["replicas"], 0);
    assert_eq!(k.state(&drain).await.expect("asked").state, State::InProgress);
    k.undo(&drain, &plan).await.expect("undone");
    assert_eq!(plane.get("Deployment", "checkout-canary").await.data["spec"]["replicas"], 2);
    change(&plane.admin, "Deployment", "checkout-canary", json!({ "spec": { "replicas": 1 } })).await;
    let refused = k.undo(&drain, &plan).await.expect_err("somebody else's");
    assert!(refused.to_string().contains("it has 1 replicas"), "{refused}");

    for stage in [Stage::Planned, Stage::Verified, Stage::NotRecovered, Stage::Blocked] {
        k.note(&drain, stage, &"as long as it may be ".repeat(100)).await;
    }
    let reasons = plane.reasons().await;
    for reason in ["DrainFailed", "Undo", "UndoFailed", "Planned", "Verified", "NotRecovered", "Blocked"] {
        assert!(reasons.contains(&format!("Canary{reason}")), "{reason} in {reasons:?}");
    }
}

#[tokio::test]
async fn a_real_api_server_takes_the_weight_away_and_gives_it_back() {
    let test = "a_real_api_server_takes_the_weight_away_and_gives_it_back";
    let Some(plane) = ControlPlane::start(test, With::ApiServer).await else { return };
    let k = plane.guard(ROUTE).await;
    define_http_routes(&plane).await;
    two_deployments(&plane).await;
    let drain = plane.decision(Action::Drain, "checkout-canary").await;
    let none = k.describe(&drain).await.expect_err("no route");
    assert!(none.to_string().contains("there is no HTTPRoute shop/checkout"), "{none}");
    let weight = async || {
        let route = plane.get("HTTPRoute", "checkout").await;
        route.data["spec"]["rules"][0]["backendRefs"][1]["weight"].clone()
    };
    let backends = |weight: Value| {
        let canary = json!({ "name": "checkout-canary", "port": 80, "weight": weight });
        json!([{ "name": "checkout", "port": 80, "weight": 80 }, canary])
    };
    plane
        .put(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": { "name": "checkout", "namespace": NAMESPACE },
            "spec": { "rules": [{ "backendRefs": backends(json!(20)) }] },
        }))
        .await;
    // One that is not written is 1, by the definition of the kind.
    for (written, before) in [(json!(20), json!(20)), (Value::Null, json!(1))] {
        let spec = json!({ "rules": [{ "backendRefs": backends(written) }] });
        change(&plane.admin, "HTTPRoute", "checkout", json!({ "spec": spec })).await;
        assert_eq!(weight().await, before);
        let plan = k.describe(&drain).await.expect("possible");
        assert_eq!(weight().await, before, "to describe is to try out");
        k.apply(&drain, &plan).await.expect("in effect at once");
        assert_eq!(weight().await, 0);
        let route = plane.get("HTTPRoute", "checkout").await;
        assert_eq!(route.metadata.annotations.expect("some")["canary-guard/decision"], "checkout-1");
        k.undo(&drain, &plan).await.expect("undone");
        assert_eq!(weight().await, before);
    }
    // For good: the requests first, and then the pods.
    let rollback = plane.decision(Action::Rollback, "checkout-canary").await;
    let plan = apply(&k, &rollback).await;
    assert_eq!(weight().await, 0);
    assert_eq!(plane.get("Deployment", "checkout-canary").await.data["spec"]["replicas"], 0);
    k.undo(&rollback, &plan).await.expect("undone");
    assert_eq!(weight().await, 1);
    assert_eq!(plane.get("Deployment", "checkout-canary").await.data["spec"]["replicas"], 2);
}

#[tokio::test]
async fn a_real_api_server_takes_a_template_back() {
    let test = "a_real_api_server_takes_a_template_back";
    let Some(plane) = ControlPlane::start(test, With::ApiServer).await else { return };
    let k = plane.guard("").await;
    plane.service("checkout", "bbb", &["aaa", "bbb"]).await;
    let image = async || {
        let deployment = plane.get("Deployment", "checkout").await;
        deployment.data["spec"]["template"]["spec"]["containers"][0]["image"].clone()
    };
    let hold = plane.decision(Action::Hold, "checkout").await;
    let held = k.describe(&hold).await.expect("possible");
    k.apply(&hold, &held).await.expect("in effect at once");
    assert_eq!(plane.get("Deployment", "checkout").await.data["spec"]["paused"], true);
    assert_eq!(k.state(&hold).await.expect("asked").state, State::InEffect);
    k.undo(&hold, &held).await.expect("undone");
    let paused = plane.get("Deployment", "checkout").await.data["spec"]["paused"].clone();
    assert!(paused.is_null() || paused == false, "{paused}");
    k.apply(&hold, &k.describe(&hold).await.expect("possible")).await.expect("held again");

    let rollback = plane.decision(Action::Rollback, "checkout").await;
    // Two guards decide at the same time.
    let [one, other] = [k.describe(&rollback).await, k.describe(&rollback).await].map(|plan| plan.expect("possible"));
    assert!(one.steps[0].contains("and end its pause"), "{:?}", one.steps);
    let quick = Plan { takes_at_most_ms: Some(1), ..one };
    k.apply(&rollback, &quick).await.expect_err("there is no controller");
    assert_eq!(image().await, "checkout:aaa");
    assert!(plane.get("Deployment", "checkout").await.data["spec"]["paused"].is_null());
    let refused = k.apply(&rollback, &other).await.expect_err("done already");
    assert!(refused.to_string().contains("somebody acts already"), "{refused}");
    assert_eq!(image().await, "checkout:aaa", "the second does not bring the canary back");
    k.undo(&rollback, &quick).await.expect("undone");
    assert_eq!(image().await, "checkout:bbb");
    assert_eq!(plane.get("Deployment", "checkout").await.data["spec"]["paused"], true, "as it was before the rollback");
}

#[tokio::test]
async fn a_real_api_server_takes_the_abort_of_a_rollout() {
    let test = "a_real_api_server_takes_the_abort_of_a_rollout";
    let Some(plane) = ControlPlane::start(test, With::ApiServer).await else { return };
    let k = plane.guard("").await;
    define_rollouts(&plane, true).await;
    roll(&plane).await;
    // To hold it takes the right to change it whole, which is not shipped.
    let hold = plane.decision(Action::Hold, "checkout").await;
    let refused = k.describe(&hold).await.expect_err("refused");
    assert!(refused.to_string().contains("cannot patch resource \"rollouts\""), "{refused}");
    let admin = plane.hands("admin", "");
    let held = admin.describe(&hold).await.expect("possible");
    admin.apply(&hold, &held).await.expect("in effect at once");
    assert_eq!(plane.get("Rollout", "checkout").await.data["spec"]["paused"], true);
    admin.undo(&hold, &held).await.expect("undone");
    assert_eq!(admin.state(&hold).await.expect("asked").state, State::NotInEffect);

    let rollback = plane.decision(Action::Rollback, "checkout").await;
    let plan = apply(&k, &rollback).await;
    let rollout = plane.get("Rollout", "checkout").await;
    assert_eq!(
        (&rollout.data["status"]["abort"], &rollout.data["status"]["phase"]),
        (&json!(true), &json!("Progressing"))
    );
    // Its controller takes the requests away from the canary.
    change_status(
        &plane.admin,
        "Rollout",
        "checkout",
        json!({ "canary": { "weights": { "canary": { "weight": 0 } } } }),
    )
    .await;
    assert_eq!(k.state(&rollback).await.expect("asked").state, State::InEffect);
    k.undo(&rollback, &plan).await.expect_err("for people");
    assert!(plane.reasons().await.contains("CanaryRollbackFailed"), "an Event on the Rollout");
}

#[tokio::test]
async fn a_rollout_without_a_part_for_its_status_is_aborted_whole() {
    let test = "a_rollout_without_a_part_for_its_status_is_aborted_whole";
    let Some(plane) = ControlPlane::start(test, With::ApiServer).await else { return };
    let guard = plane.guard("").await;
    define_rollouts(&plane, false).await;
    roll(&plane).await;
    let rollback = plane.decision(Action::Rollback, "checkout").await;
    // The Roles that are shipped allow the part only: who has such a Rollout adds the right on the whole.
    let refused = guard.describe(&rollback).await.expect_err("refused");
    assert!(refused.to_string().contains("cannot patch resource \"rollouts\""), "{refused}");
    apply(&plane.hands("admin", ""), &rollback).await;
    assert_eq!(plane.get("Rollout", "checkout").await.data["status"]["abort"], true);
}

/// A Rollout from aaa to bbb, with its ReplicaSets and pods.
async fn roll(plane: &ControlPlane) {
    let status = json!({ "stableRS": "aaa", "currentPodHash": "bbb", "phase": "Progressing" });
    plane
        .put(json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout",
            "metadata": { "name": "checkout", "namespace": NAMESPACE },
            "spec": { "replicas": 2 }, "status": status,
        }))
        .await;
    if plane.get("Rollout", "checkout").await.data["status"].is_null() {
        change_status(&plane.admin, "Rollout", "checkout", status).await;
    }
    plane.versions("Rollout", "argoproj.io/v1alpha1", "checkout", &["aaa", "bbb"]).await;
}
