//! Who took a change back is told as far as the API server knows: by `managedFields`.

use canary_user::{
    guard::{Action, Decision},
    orchestrator::{Orchestrator as _, State},
};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, decision},
    takeaway::{ROUTE, route},
};

const CANARY: &str = "checkout-canary";

/// What a manager wrote, and when.
fn wrote(manager: &str, time: &str, fields: Value) -> Value {
    json!({ "manager": manager, "operation": "Update", "apiVersion": "apps/v1", "time": time, "fieldsType": "FieldsV1",
            "fieldsV1": fields })
}

async fn finds(cluster: &Cluster, decision: &Decision, words: &str) {
    let found = cluster.kubernetes.state(decision).await.expect("asked");
    assert!(found.state == State::NotInEffect && found.detail.ends_with(words), "{found:?} instead of {words}");
}

#[tokio::test]
async fn who_scales_the_canary_up_again_is_named() {
    let cluster = Cluster::two_deployments("").await;
    let decision = decision(Action::Drain, "checkout", CANARY);
    let plan = cluster.kubernetes.describe(&decision).await.expect("possible");
    cluster.kubernetes.apply(&decision, &plan).await.expect("done");
    cluster.change("deployments", CANARY, |d| d["spec"]["replicas"] = json!(2));
    finds(&cluster, &decision, "wants 2 pods of ReplicaSet checkout-canary-bbb").await;
    // The guard's own writes, and those of other fields, say nothing; of two the later one counts.
    let replicas = json!({ "f:spec": { "f:replicas": {} } });
    cluster.change("deployments", CANARY, |d| {
        d["metadata"]["managedFields"] = json!([
            wrote("kubectl-create", "2026-11-27T09:00:00Z", json!({ "f:spec": { "f:template": {} } })),
            wrote("helm", "2026-11-27T10:00:00Z", replicas.clone()),
            wrote("canary-guard", "2026-11-27T11:00:00Z", replicas),
            wrote("kube-controller-manager", "2026-11-27T12:00:00Z", json!({ "f:status": { "f:replicas": {} } })),
        ]);
    });
    finds(&cluster, &decision, "of ReplicaSet checkout-canary-bbb, as helm wrote at 2026-11-27T10:00:00Z").await;
}

#[tokio::test]
async fn who_gives_it_weight_again_and_who_retries_its_rollout_is_named() {
    let cluster = Cluster::two_deployments(ROUTE).await;
    let mut weighted = route(json!(80), json!(20));
    weighted["metadata"]["managedFields"] =
        json!([wrote("kubectl-edit", "2026-11-27T10:00:00Z", json!({ "f:spec": { "f:rules": {} } }))]);
    cluster.server.store().put("httproutes", weighted);
    let drain = decision(Action::Drain, "checkout", CANARY);
    finds(&cluster, &drain, "in HTTPRoute shop/checkout, as kubectl-edit wrote at 2026-11-27T10:00:00Z").await;

    let cluster = Cluster::rollout().await;
    cluster.change("rollouts", "checkout", |r| {
        r["metadata"]["managedFields"] =
            json!([wrote("kubectl-argo-rollouts", "2026-11-27T10:00:00Z", json!({ "f:status": { "f:abort": {} } }))]);
    });
    let rollback = decision(Action::Rollback, "checkout", "checkout");
    finds(&cluster, &rollback, "rolls bbb out, as kubectl-argo-rollouts wrote at 2026-11-27T10:00:00Z").await;
}

#[tokio::test]
async fn who_lets_a_held_rollout_go_on_is_named() {
    let cluster = Cluster::rollout().await;
    let hold = decision(Action::Hold, "checkout", "checkout");
    let plan = cluster.kubernetes.describe(&hold).await.expect("possible");
    cluster.kubernetes.apply(&hold, &plan).await.expect("done");
    cluster.change("rollouts", "checkout", |r| {
        r["spec"]["paused"] = json!(false);
        r["metadata"]["managedFields"] =
            json!([wrote("kubectl-argo-rollouts", "2026-11-27T10:00:00Z", json!({ "f:spec": { "f:paused": {} } }))]);
    });
    let words = "spec.paused of Rollout shop/checkout is false, as kubectl-argo-rollouts wrote at 2026-11-27T10:00:00Z";
    finds(&cluster, &hold, words).await;
}
