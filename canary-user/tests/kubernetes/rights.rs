//! The Roles in `deploy/kubernetes/components/kubernetes/rbac.yaml` allow every call that is made, and nothing besides.

use std::{collections::BTreeSet, path::Path, time::Duration};

use canary_user::{
    guard::Action,
    orchestrator::Orchestrator as _,
    targets::{cgroup::Root, follow_pods, located::Located},
};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{
    cluster::{Cluster, NAMESPACE, config, decision, hands},
    server::{Call, Server},
};

const ROUTE: &str = "http_route = { name = \"checkout\", canary = \"checkout-canary\" }";

/// Each right by itself: namespace, group, resource, verb, names ("" = all).
pub type Right = (String, String, String, String, String);

/// What is shipped for a guard that acts.
pub fn manifests() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes/components/kubernetes/rbac.yaml");
    let text = std::fs::read_to_string(path).expect("the manifest");
    serde_saphyr::from_multiple(&text).expect("YAML")
}

/// The rights of one rule.
pub fn flat(namespace: &str, rule: &Value) -> Vec<Right> {
    let words = |key: &str| -> Vec<String> {
        let words = rule[key].as_array().map(Vec::as_slice).unwrap_or_default();
        words.iter().map(|w| w.as_str().expect("a word").to_owned()).collect()
    };
    let names = Some(words("resourceNames")).filter(|n| !n.is_empty()).unwrap_or(vec![String::new()]);
    let mut rights = Vec::new();
    for (group, resource) in words("apiGroups").iter().flat_map(|g| words("resources").into_iter().map(move |r| (g, r)))
    {
        for (verb, name) in words("verbs").iter().flat_map(|v| names.iter().map(move |n| (v, n))) {
            rights.push((namespace.into(), group.clone(), resource.clone(), verb.clone(), name.clone()));
        }
    }
    rights
}

pub fn rights() -> BTreeSet<Right> {
    let manifests = manifests();
    assert!(!manifests.iter().any(|m| m["kind"] == "ClusterRole"), "no right holds for the whole cluster");
    let mut rights = BTreeSet::new();
    for role in manifests.iter().filter(|m| m["kind"] == "Role") {
        let namespace = role["metadata"]["namespace"].as_str().expect("a namespace");
        rights.extend(role["rules"].as_array().expect("rules").iter().flat_map(|rule| flat(namespace, rule)));
    }
    for (_, group, resource, verb, _) in &rights {
        assert!(![group, resource, verb].contains(&&"*".to_owned()), "no right is for everything");
    }
    rights
}

/// Describes, applies and undoes, with whatever comes of it.
async fn act(cluster: &Cluster, action: Action, canary: &str) {
    let (k, decision) = (&cluster.kubernetes, decision(action, "checkout", canary));
    let plan = k.describe(&decision).await.expect("possible");
    k.apply(&decision, &plan).await.expect("done");
    k.state(&decision).await.expect("asked");
    if plan.undo.is_some() {
        k.undo(&decision, &plan).await.expect("undone");
    }
}

/// The same of a rollback while the rollout is held.
async fn hold_and_roll_back(cluster: &Cluster, canary: &str) {
    let (k, hold) = (&cluster.kubernetes, decision(Action::Hold, "checkout", canary));
    let plan = k.describe(&hold).await.expect("possible");
    k.apply(&hold, &plan).await.expect("done");
    act(cluster, Action::Rollback, canary).await;
}

/// Everything that the guard does in a cluster, once; the calls that it made.
async fn calls() -> BTreeSet<Call> {
    let mut calls = BTreeSet::new();
    let scaled = Cluster::two_deployments("").await;
    act(&scaled, Action::Drain, "checkout-canary").await;
    let routed = Cluster::two_deployments(ROUTE).await;
    routed.server.store().put(
        "httproutes",
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": { "name": "checkout", "namespace": NAMESPACE },
            "spec": { "rules": [{ "backendRefs": [{ "name": "checkout" }, { "name": "checkout-canary" }] }] },
        }),
    );
    act(&routed, Action::Rollback, "checkout-canary").await;
    let rolling = Cluster::rolling("").await;
    act(&rolling, Action::Rollback, "checkout").await;
    let held = Cluster::rolling("").await;
    act(&held, Action::Hold, "checkout").await;
    let held_and_rolled_back = Cluster::rolling("").await;
    hold_and_roll_back(&held_and_rolled_back, "checkout").await;
    let rollout = Cluster::rollout().await;
    rollout.meanwhile(|store| {
        store.change("rollouts", NAMESPACE, "checkout", |r| {
            r["status"]["canary"] = json!({ "weights": { "canary": { "weight": 0 } } });
        });
    });
    act(&rollout, Action::Rollback, "checkout").await;
    for cluster in [scaled, routed, rolling, held, held_and_rolled_back, rollout] {
        calls.extend(cluster.server.store().calls.iter().cloned());
    }

    let server = Server::start().await;
    server.store().put(
        "leases",
        json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": { "name": "canary-guard-checkout", "namespace": "canary-guard" } }),
    );
    let leads = hands(&server, "lease_namespace = \"canary-guard\"", "");
    while leads.leader().is_err() {
        sleep(Duration::from_millis(20)).await;
    }
    let root = Root::find().expect("a machine with cgroup v2");
    let follow = follow_pods(config(server.kubeconfig(), "", ""), root, Located::default());
    timeout(Duration::from_millis(500), follow).await.expect_err("it goes on for ever");
    calls.extend(server.store().calls.iter().cloned());
    calls
}

/// The right by which a call is allowed.
fn right_to(call: &Call, rights: &BTreeSet<Right>) -> Option<Right> {
    let Call { verb, group, resource, namespace, name, .. } = call.clone();
    let right = |name: String| (namespace.clone(), group.clone(), resource.clone(), verb.clone(), name);
    [right(name), right(String::new())].into_iter().find(|right| rights.contains(right))
}

/// The calls that were made and that no Role which is shipped allows.
fn not_allowed(cluster: &Cluster) -> BTreeSet<String> {
    let (rights, store) = (rights(), cluster.server.store());
    let missing = store.calls.iter().filter(|call| right_to(call, &rights).is_none());
    missing.map(|call| format!("{} {} {}", call.verb, call.resource, call.name)).collect()
}

/// It would be the right to run anything in the Rollout's place, which an abort does not need.
#[tokio::test]
async fn to_hold_a_rollout_of_argo_takes_one_right_that_is_not_shipped() {
    let rollout = Cluster::rollout().await;
    act(&rollout, Action::Hold, "checkout").await;
    let right = BTreeSet::from(["patch rollouts checkout".to_owned()]);
    assert_eq!(not_allowed(&rollout), right);
    rollout.change("rollouts", "checkout", |r| {
        r["status"]["canary"] = json!({ "weights": { "canary": { "weight": 0 } } });
    });
    hold_and_roll_back(&rollout, "checkout").await;
    assert_eq!(not_allowed(&rollout), right, "what ends the hold needs no other");
}

/// As above: to scale it needs less.
#[tokio::test]
async fn to_hold_the_canarys_own_deployment_takes_one_right_that_is_not_shipped() {
    let two = Cluster::two_deployments("").await;
    act(&two, Action::Hold, "checkout-canary").await;
    let right = BTreeSet::from(["patch deployments checkout-canary".to_owned()]);
    assert_eq!(not_allowed(&two), right);
    hold_and_roll_back(&two, "checkout-canary").await;
    assert_eq!(not_allowed(&two), right, "what ends the hold needs no other");
}

#[tokio::test]
async fn the_roles_allow_every_call_and_nothing_besides() {
    let (rights, mut used) = (rights(), BTreeSet::new());
    for call in calls().await {
        used.insert(right_to(&call, &rights).unwrap_or_else(|| panic!("no Role allows {call:?}")));
    }
    let unused: Vec<&Right> = rights.difference(&used).collect();
    assert!(unused.is_empty(), "nothing needs {unused:?}");
}
