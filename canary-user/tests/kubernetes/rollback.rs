//! One Deployment, or one Rollout, in the middle of a rollout: the named version comes back, not "the one before".

use canary_user::{
    guard::Action,
    orchestrator::{Error, Orchestrator as _, State},
};
use serde_json::json;

use crate::{
    cluster::{Cluster, NAMESPACE, decision},
    server::without_hash,
};

#[tokio::test]
async fn the_template_that_stable_runs_comes_back_whole() {
    let cluster = Cluster::rolling("").await;
    let (k, decision) = (&cluster.kubernetes, decision(Action::Rollback, "checkout", "checkout"));
    let plan = k.describe(&decision).await.expect("possible");
    assert_eq!(
        plan.steps,
        [
            "give Deployment shop/checkout the template of ReplicaSet checkout-aaa (revision 3) instead of that of \
          checkout-bbb, if its spec is still generation 5",
            "tried out beforehand at the API server, which takes it (dryRun=All)"
        ]
    );
    assert_eq!(
        plan.takes_at_most_ms,
        Some(32_000),
        "the pod's grace, what the Deployment gives a rollout, and a little"
    );
    let back = "the template of ReplicaSet checkout-bbb again in Deployment shop/checkout, which rolls that version out to \
                all its pods";
    assert_eq!(plan.inverse.as_deref(), Some(back));
    k.apply(&decision, &plan).await.expect("done");
    let (deployment, stable) = (cluster.get("deployments", "checkout"), cluster.get("replicasets", "checkout-aaa"));
    assert_eq!(deployment["spec"]["template"], without_hash(&stable["spec"]["template"]));
    assert_eq!(deployment["spec"]["template"]["spec"]["fieldOfTheFuture"], json!({ "of": "aaa" }));
    assert_eq!(deployment["metadata"]["annotations"]["canary-guard/decision"], "checkout-1");
    let found = k.state(&decision).await.expect("asked");
    assert_eq!((found.state, cluster.changes().len()), (State::InEffect, 1), "{}", found.detail);

    k.undo(&decision, &plan).await.expect("undone");
    let (deployment, canary) = (cluster.get("deployments", "checkout"), cluster.get("replicasets", "checkout-bbb"));
    assert_eq!(deployment["spec"]["template"], without_hash(&canary["spec"]["template"]));
    assert!(deployment["spec"]["paused"].is_null(), "it was not before");
}

#[tokio::test]
async fn a_deployment_that_is_never_called_failed_is_not_waited_for_without_end() {
    let cluster = Cluster::rolling("").await;
    cluster.server.store().controls = false;
    cluster.change("deployments", "checkout", |d| d["spec"]["progressDeadlineSeconds"] = json!(i32::MAX));
    let decision = decision(Action::Rollback, "checkout", "checkout");
    let plan = cluster.kubernetes.describe(&decision).await.expect("possible");
    assert_eq!(plan.takes_at_most_ms, Some(631_000), "as where it says nothing");
}

#[tokio::test]
async fn a_second_guard_does_not_bring_the_canary_back() {
    let cluster = Cluster::rolling("").await;
    let (k, decision) = (&cluster.kubernetes, decision(Action::Rollback, "checkout", "checkout"));
    // Two decide at the same time; where `kubectl rollout undo` is called twice, the second is the way back to the canary.
    let (one, other) = (k.describe(&decision).await.expect("possible"), k.describe(&decision).await.expect("possible"));
    cluster.server.store().controls = false;
    let quick = canary_user::orchestrator::Plan { takes_at_most_ms: Some(1), ..one };
    k.apply(&decision, &quick).await.expect_err("the pods are still there: nobody carries it out here");
    let before = cluster.get("deployments", "checkout");
    let refused = k.apply(&decision, &other).await.expect_err("refused");
    assert!(matches!(&refused, Error::Refused(why) if why.contains("somebody acts already")), "{refused}");
    assert_eq!(cluster.get("deployments", "checkout"), before);
}

#[tokio::test]
async fn a_rollout_that_goes_on_meanwhile_is_not_touched() {
    let cluster = Cluster::rolling("").await;
    let (k, decision) = (&cluster.kubernetes, decision(Action::Rollback, "checkout", "checkout"));
    let plan = k.describe(&decision).await.expect("possible");
    cluster.meanwhile(|store| {
        store.change("deployments", NAMESPACE, "checkout", |d| {
            d["spec"]["template"]["spec"]["containers"][0]["image"] = json!("checkout:ccc");
        });
    });
    k.apply(&decision, &plan).await.expect_err("refused");
    let image = &cluster.get("deployments", "checkout")["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, "checkout:ccc", "the newer version is somebody's intent");
}

#[tokio::test]
async fn a_paused_rollout_gets_on_again_with_the_old_template() {
    let cluster = Cluster::rolling("").await;
    cluster.change("deployments", "checkout", |d| d["spec"]["paused"] = json!(true));
    let (k, decision) = (&cluster.kubernetes, decision(Action::Rollback, "checkout", "checkout"));
    let plan = k.describe(&decision).await.expect("possible");
    assert!(plan.steps[0].contains("and end its pause"), "{:?}", plan.steps);
    k.apply(&decision, &plan).await.expect("done");
    assert!(cluster.get("deployments", "checkout")["spec"]["paused"].is_null());

    let back = "the template of ReplicaSet checkout-bbb and the pause again in Deployment shop/checkout: its pods come once \
                somebody lets the rollout go on";
    assert_eq!(plan.inverse.as_deref(), Some(back));
    k.undo(&decision, &plan).await.expect("undone");
    let (deployment, canary) = (cluster.get("deployments", "checkout"), cluster.get("replicasets", "checkout-bbb"));
    assert_eq!(deployment["spec"]["template"], without_hash(&canary["spec"]["template"]));
    assert_eq!(deployment["spec"]["paused"], true);
    assert_eq!(canary["spec"]["replicas"], 0, "the condemned version is rolled out to nobody");
    assert_eq!(cluster.changes().len(), 2, "template and pause in one change, each way");
    assert_eq!(k.state(&decision).await.expect("asked").state, State::NotInEffect);
    k.undo(&decision, &plan).await.expect("undone already");
    assert_eq!(cluster.changes().len(), 2);
}

#[tokio::test]
async fn a_rollout_without_a_part_for_its_status_is_aborted_and_its_pause_ended() {
    let cluster = Cluster::rollout().await;
    cluster.server.store().whole_rollouts = true;
    cluster.change("rollouts", "checkout", |r| {
        r["spec"]["paused"] = json!(true);
        r["status"]["canary"] = json!({ "weights": { "canary": { "weight": 0 } } });
    });
    let (k, rollback) = (&cluster.kubernetes, decision(Action::Rollback, "checkout", "checkout"));
    let plan = k.describe(&rollback).await.expect("possible");
    k.apply(&rollback, &plan).await.expect("the second change expects what the first one left");
    let rollout = cluster.get("rollouts", "checkout");
    assert_eq!((&rollout["status"]["abort"], &rollout["spec"]["paused"]), (&json!(true), &json!(false)));
    let whole = "patch rollouts checkout";
    assert_eq!(cluster.changes(), ["patch rollouts/status checkout", whole, whole]);
}

#[tokio::test]
async fn what_somebody_changes_between_two_changes_of_one_object_is_not_touched() {
    let cluster = Cluster::rollout().await;
    cluster.change("rollouts", "checkout", |r| r["spec"]["paused"] = json!(true));
    let (k, rollback) = (&cluster.kubernetes, decision(Action::Rollback, "checkout", "checkout"));
    let plan = k.describe(&rollback).await.expect("possible");
    cluster.meanwhile(|_| ());
    cluster.meanwhile(|store| {
        store.change("rollouts", NAMESPACE, "checkout", |r| r["spec"]["replicas"] = json!(3));
    });
    let failed = k.apply(&rollback, &plan).await.expect_err("broken off");
    let words = "after a part was done: Rollout shop/checkout was changed since (its spec is generation 3 now, 2 then)";
    assert!(matches!(&failed, Error::Failed(e) if e.to_string().contains(words)), "{failed}");
    let rollout = cluster.get("rollouts", "checkout");
    assert_eq!((&rollout["status"]["abort"], &rollout["spec"]["paused"]), (&json!(true), &json!(true)));
}

#[tokio::test]
async fn pods_of_one_deployment_are_not_drained() {
    let cluster = Cluster::rolling("").await;
    let (k, decision) = (&cluster.kubernetes, decision(Action::Drain, "checkout", "checkout"));
    let refused = k.describe(&decision).await.expect_err("refused");
    assert!(refused.to_string().contains("come again with the same version"), "{refused}");
}

#[tokio::test]
async fn pods_that_argo_leaves_without_weight_go_on_answering_probes() {
    let cluster = Cluster::rollout().await;
    cluster
        .change("rollouts", "checkout", |r| r["spec"]["strategy"]["canary"]["trafficRouting"] = json!({ "nginx": {} }));
    let decision = decision(Action::Rollback, "checkout", "checkout");
    let plan = cluster.kubernetes.describe(&decision).await.expect("possible");
    assert!(plan.background.is_some_and(|b| b.whose == "the kubelet's probes" && b.burst == 0), "they have none here");
}

#[tokio::test]
async fn a_rollout_of_argo_is_aborted_and_retried_by_people_only() {
    let cluster = Cluster::rollout().await;
    // What comes from a repository is no obstacle: the status is not in it.
    cluster.change("rollouts", "checkout", |r| {
        r["metadata"]["annotations"] = json!({ "argocd.argoproj.io/tracking-id": "shop" });
    });
    let (k, decision) = (&cluster.kubernetes, decision(Action::Rollback, "checkout", "checkout"));
    let plan = k.describe(&decision).await.expect("possible");
    assert!(plan.undo.is_none());
    let back = plan.inverse.clone().expect("in words");
    assert!(back.contains("kubectl argo rollouts --namespace shop retry rollout checkout"), "{back}");
    cluster.meanwhile(|store| {
        // Its controller takes the requests away from the canary at once.
        store.change("rollouts", NAMESPACE, "checkout", |r| {
            r["status"]["canary"] = json!({ "weights": { "canary": { "weight": 0 } } });
        });
    });
    assert!(plan.background.is_none(), "without traffic routing its pods end at once");
    k.apply(&decision, &plan).await.expect("done");
    assert_eq!(cluster.get("rollouts", "checkout")["status"]["abort"], true);
    assert_eq!(cluster.changes().last().map(String::as_str), Some("patch rollouts/status checkout"));
    k.undo(&decision, &plan).await.expect_err("for people");
    let again = k.describe(&decision).await.expect_err("refused");
    assert!(again.to_string().contains("was aborted already"), "{again}");
}
