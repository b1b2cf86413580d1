//! Who may not act any more just before the first change leaves everything as it is; what was begun is finished.

use std::sync::Arc;

use canary_user::{
    guard::{Action, Decision},
    orchestrator::{Error, Orchestrator as _},
};
use serde_json::json;
use tokio::time::{Duration, sleep};

use crate::{
    cluster::{Cluster, NAMESPACE, decision, hands},
    takeaway::{ROUTE, route},
};

/// A canary that has a weight and pods, and the decision to take both.
async fn two_changes() -> (Cluster, Decision) {
    let cluster = Cluster::two_deployments(ROUTE).await;
    cluster.server.store().put("httproutes", route(json!(80), json!(20)));
    (cluster, decision(Action::Rollback, "checkout", "checkout-canary"))
}

/// A pause that begins once so many patches were sent, those that are tried out among them or not.
fn paused_after(cluster: &Cluster, patches: usize, dry_run: bool) {
    let server = cluster.server.clone();
    cluster.kubernetes.heed_pauses(Arc::new(move |deployment: &str| {
        assert_eq!(deployment, "checkout");
        let store = server.store();
        let sent = store.calls.iter().filter(|c| c.verb == "patch" && c.dry_run == dry_run).count();
        (sent >= patches).then(|| "incident 12".to_owned())
    }));
}

async fn refused(cluster: &Cluster, decision: &Decision) {
    let plan = cluster.kubernetes.describe(decision).await.expect("possible");
    let refused = cluster.kubernetes.apply(decision, &plan).await.expect_err("refused");
    assert!(matches!(&refused, Error::Refused(why) if why.ends_with("paused: incident 12")), "{refused}");
}

#[tokio::test]
async fn a_pause_that_begins_while_the_plan_is_tried_out_again_keeps_the_canary() {
    let (cluster, decision) = two_changes().await;
    // Two for the plan, two more right before it is carried out.
    paused_after(&cluster, 4, true);
    refused(&cluster, &decision).await;
    assert_eq!((cluster.dry_runs().len(), cluster.changes()), (4, Vec::new()));
}

#[tokio::test]
async fn a_pause_that_begins_between_two_tries_of_a_change_keeps_the_canary() {
    let cluster = Cluster::two_deployments("").await;
    paused_after(&cluster, 1, false);
    cluster.meanwhile(|store| {
        store.change("deployments", NAMESPACE, "checkout-canary", |d| d["status"]["conditions"] = json!([{}]));
    });
    refused(&cluster, &decision(Action::Drain, "checkout", "checkout-canary")).await;
    assert_eq!(cluster.changes().len(), 1, "which was for a version that was not current any more");
    assert_eq!(cluster.get("deployments", "checkout-canary")["spec"]["replicas"], 2);
}

#[tokio::test]
async fn what_was_begun_before_a_pause_is_finished() {
    let (cluster, decision) = two_changes().await;
    paused_after(&cluster, 1, false);
    let plan = cluster.kubernetes.describe(&decision).await.expect("possible");
    cluster.kubernetes.apply(&decision, &plan).await.expect("done");
    assert_eq!(cluster.changes(), ["patch httproutes checkout", "patch deployments/scale checkout-canary"]);
}

#[tokio::test]
async fn who_lost_the_lead_meanwhile_changes_nothing() {
    let mut cluster = Cluster::two_deployments("").await;
    let lease = |holder: &str| {
        json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": { "name": "canary-guard-checkout", "namespace": "canary-guard" },
                "spec": { "holderIdentity": holder, "leaseDurationSeconds": 3600 } })
    };
    cluster.server.store().put("leases", lease(""));
    cluster.kubernetes = hands(&cluster.server, "lease_namespace = \"canary-guard\"", "");
    let (k, decision) = (&cluster.kubernetes, decision(Action::Drain, "checkout", "checkout-canary"));
    while k.leader().is_err() {
        sleep(Duration::from_millis(20)).await;
    }
    let plan = k.describe(&decision).await.expect("possible");
    cluster.server.store().put("leases", lease("node-b"));
    while k.standing().is_ok() {
        sleep(Duration::from_millis(20)).await;
    }
    let refused = k.apply(&decision, &plan).await.expect_err("refused");
    assert!(matches!(&refused, Error::Refused(why) if why.contains("node-b holds the Lease")), "{refused}");
    let scaled = cluster.changes().iter().any(|change| change.contains("deployments"));
    assert!(!scaled, "{:?}", cluster.changes());
}
