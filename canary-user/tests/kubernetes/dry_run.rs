//! What the API server would refuse is known before anything is done, in its own words.

use canary_user::{
    guard::{Action, Decision},
    orchestrator::{Error, Orchestrator as _},
};
use serde_json::json;

use crate::cluster::{Cluster, NAMESPACE, decision};

const ROUTE: &str = "http_route = { name = \"checkout\", canary = \"checkout-canary\" }";
const WEIGHT: &str = "patch httproutes checkout";
const SCALE: &str = "patch deployments/scale checkout-canary";

/// A canary that has a weight and pods, and the decision to take both.
async fn two_changes() -> (Cluster, Decision) {
    let cluster = Cluster::two_deployments(ROUTE).await;
    cluster.server.store().put(
        "httproutes",
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": { "name": "checkout", "namespace": NAMESPACE },
            "spec": { "rules": [{ "backendRefs": [{ "name": "checkout" }, { "name": "checkout-canary" }] }] },
        }),
    );
    (cluster, decision(Action::Rollback, "checkout", "checkout-canary"))
}

fn forbid_to_scale(cluster: &Cluster) {
    cluster.server.store().forbidden = Some(("patch".into(), "deployments/scale".into()));
}

#[tokio::test]
async fn a_plan_is_tried_out_whole_and_changes_nothing() {
    let (cluster, decision) = two_changes().await;
    let objects = || (cluster.get("httproutes", "checkout"), cluster.get("deployments", "checkout-canary"));
    let before = objects();
    let plan = cluster.kubernetes.describe(&decision).await.expect("possible");
    assert_eq!(cluster.dry_runs(), [WEIGHT, SCALE]);
    assert_eq!((cluster.changes(), objects()), (Vec::new(), before));
    assert_eq!(plan.steps[2], "tried out beforehand at the API server, which takes it (dryRun=All)");
    cluster.kubernetes.apply(&decision, &plan).await.expect("done");
    assert_eq!(cluster.changes(), [WEIGHT, SCALE]);
    let store = cluster.server.store();
    let managers = store.calls.iter().filter(|call| call.verb == "patch").map(|call| &call.manager);
    assert!(managers.clone().count() == 6 && managers.clone().all(|manager| manager == "canary-guard"));
}

#[tokio::test]
async fn what_the_server_would_refuse_is_refused_when_it_is_planned() {
    let (cluster, decision) = two_changes().await;
    forbid_to_scale(&cluster);
    let refused = cluster.kubernetes.describe(&decision).await.expect_err("refused");
    let Error::Refused(why) = refused else { panic!("{refused}") };
    assert!(why.starts_with("scale Deployment shop/checkout-canary from 2 to 0"), "it tells what would be done: {why}");
    assert!(why.contains("(dryRun=All)") && why.contains("cannot patch (status 403)"), "{why}");
}

#[tokio::test]
async fn of_two_changes_none_is_made_where_the_second_would_be_refused() {
    let (cluster, decision) = two_changes().await;
    let plan = cluster.kubernetes.describe(&decision).await.expect("possible");
    forbid_to_scale(&cluster);
    let refused = cluster.kubernetes.apply(&decision, &plan).await.expect_err("refused");
    assert!(matches!(&refused, Error::Refused(why) if why.contains("cannot patch (status 403)")), "{refused}");
    assert_eq!(cluster.changes(), Vec::<String>::new(), "the weight is as it was");
}

#[tokio::test]
async fn a_policy_that_says_no_is_asked_once() {
    let cluster = Cluster::two_deployments("").await;
    cluster.server.store().policy = Some("deployments/scale".into());
    let decision = decision(Action::Drain, "checkout", "checkout-canary");
    let refused = cluster.kubernetes.describe(&decision).await.expect_err("refused");
    assert!(refused.to_string().contains("ValidatingAdmissionPolicy 'freeze' denied request"), "{refused}");
    assert_eq!(cluster.dry_runs(), [SCALE], "nobody else changed it: to ask again brings the same answer");
}
