//! What becomes of a decision where the next version is rolled out in the canary's place: it stays in effect, unless it is the same
//! version again.

use canary_user::{
    guard::{Action, Decision},
    orchestrator::{Orchestrator as _, State},
};
use serde_json::json;

use crate::{
    cluster::{Cluster, NAMESPACE, decision},
    takeaway::{ROUTE, route},
};

const CANARY: &str = "checkout-canary";

fn image(cluster: &Cluster, image: &str) {
    cluster.change("deployments", CANARY, |d| {
        d["spec"]["replicas"] = json!(2);
        d["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
    });
}

fn weigh(cluster: &Cluster, weight: i64) {
    cluster.change("httproutes", "checkout", |r| {
        r["spec"]["rules"][1]["backendRefs"][1]["weight"] = json!(weight);
    });
}

async fn carried_out(cluster: &Cluster, decision: &Decision) {
    let plan = cluster.kubernetes.describe(decision).await.expect("possible");
    cluster.kubernetes.apply(decision, &plan).await.expect("done");
    finds(cluster, decision, State::InEffect, "").await;
}

async fn finds(cluster: &Cluster, decision: &Decision, state: State, words: &str) {
    let found = cluster.kubernetes.state(decision).await.expect("asked");
    assert!(found.state == state && found.detail.contains(words), "{found:?} instead of {state:?}: {words}");
}

#[tokio::test]
async fn another_template_leaves_a_decision_in_effect_and_the_same_one_does_not() {
    let cluster = Cluster::two_deployments("").await;
    let decision = decision(Action::Drain, "checkout", CANARY);
    carried_out(&cluster, &decision).await;
    image(&cluster, "checkout:ccc");
    finds(&cluster, &decision, State::InEffect, "Deployment shop/checkout-canary has another template").await;
    image(&cluster, "checkout:bbb");
    finds(&cluster, &decision, State::NotInEffect, "wants 2 pods of ReplicaSet checkout-canary-bbb").await;
}

#[tokio::test]
async fn weight_for_the_next_version_is_not_weight_for_the_one_that_was_drained() {
    let cluster = Cluster::two_deployments(ROUTE).await;
    cluster.server.store().put("httproutes", route(json!(80), json!(20)));
    let decision = decision(Action::Drain, "checkout", CANARY);
    carried_out(&cluster, &decision).await;
    weigh(&cluster, 20);
    finds(&cluster, &decision, State::NotInEffect, "checkout-canary has weight 20").await;
    image(&cluster, "checkout:ccc");
    finds(&cluster, &decision, State::InEffect, "weight 20 in HTTPRoute shop/checkout, which is another version").await;
    cluster.server.store().remove("replicasets", NAMESPACE, "checkout-canary-bbb");
    finds(&cluster, &decision, State::InEffect, "the ReplicaSet of pod shop/checkout-canary-bbb-11111 is gone").await;
}

#[tokio::test]
async fn a_canary_that_was_deleted_after_its_drain_is_not_wanted_again() {
    let cluster = Cluster::two_deployments("").await;
    let decision = decision(Action::Drain, "checkout", CANARY);
    carried_out(&cluster, &decision).await;
    cluster.server.store().remove("deployments", NAMESPACE, CANARY);
    finds(&cluster, &decision, State::InEffect, "is gone or was replaced, and none of its pods is left").await;
}

#[tokio::test]
async fn a_hold_is_over_with_the_version_whose_rollout_was_held() {
    let cluster = Cluster::two_deployments("").await;
    let hold = decision(Action::Hold, "checkout", CANARY);
    carried_out(&cluster, &hold).await;
    cluster.server.store().remove("replicasets", NAMESPACE, "checkout-canary-bbb");
    let words = "the ReplicaSet of pod shop/checkout-canary-bbb-11111 is gone, and with it the rollout that was held";
    finds(&cluster, &hold, State::NotInEffect, words).await;

    let cluster = Cluster::two_deployments("").await;
    carried_out(&cluster, &hold).await;
    cluster.server.store().remove("deployments", NAMESPACE, CANARY);
    finds(&cluster, &hold, State::NotInEffect, "is gone, and with it the rollout that was held").await;
}
