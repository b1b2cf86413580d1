//! Rollouts that a person has held: the pause and its end, and what takes a canary away that is held.

use canary_user::{
    guard::{Action, Decision},
    orchestrator::{Error, Orchestrator as _, Plan, State},
};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, NAMESPACE, decision},
    takeaway::{ROUTE, route},
};

const CANARY: &str = "checkout-canary";

/// Has the guard hold the canary's rollout, by decision checkout-1.
async fn hold(cluster: &Cluster, canary: &str) -> (Decision, Plan) {
    let hold = decision(Action::Hold, "checkout", canary);
    let plan = cluster.kubernetes.describe(&hold).await.expect("possible");
    cluster.kubernetes.apply(&hold, &plan).await.expect("in effect at once");
    (hold, plan)
}

/// The next decision.
fn later(action: Action, canary: &str) -> Decision {
    Decision { id: "checkout-2".into(), ..decision(action, "checkout", canary) }
}

/// A Rollout of Argo whose canary has no weight as soon as it is aborted, with this in its strategy.
async fn rollout(canary: Value) -> Cluster {
    let cluster = Cluster::rollout().await;
    cluster.change("rollouts", "checkout", |r| {
        r["spec"]["strategy"]["canary"] = canary;
        r["status"]["canary"] = json!({ "weights": { "canary": { "weight": 0 } } });
    });
    cluster
}

#[tokio::test]
async fn a_hold_pauses_and_its_undo_ends_that() {
    let cluster = Cluster::rolling("").await;
    let (k, decision) = (&cluster.kubernetes, decision(Action::Hold, "checkout", "checkout"));
    let plan = k.describe(&decision).await.expect("possible");
    k.apply(&decision, &plan).await.expect("done");
    assert_eq!(cluster.get("deployments", "checkout")["spec"]["paused"], true);
    k.undo(&decision, &plan).await.expect("undone");
    assert_eq!(cluster.get("deployments", "checkout")["spec"]["paused"], false);
    assert_eq!(k.state(&decision).await.expect("asked").state, State::NotInEffect);
}

#[tokio::test]
async fn a_hold_leaves_every_pod_and_takes_as_long_as_it_takes_to_write() {
    let cluster = Cluster::rolling("").await;
    let (k, hold) = (&cluster.kubernetes, decision(Action::Hold, "checkout", "checkout"));
    let plan = k.describe(&hold).await.expect("possible");
    assert_eq!(
        plan.steps,
        [
            "set spec.paused of Deployment shop/checkout to true, if its spec is still generation 5",
            "tried out beforehand at the API server, which takes it (dryRun=All)"
        ]
    );
    assert_eq!(plan.inverse.as_deref(), Some("spec.paused false again in Deployment shop/checkout"));
    assert_eq!((plan.takes_away, plan.takes_at_most_ms), (None, Some(30_000)));
    let pods = cluster.server.store().all("pods");
    k.apply(&hold, &plan).await.expect("in effect at once");
    assert_eq!(k.state(&hold).await.expect("asked").state, State::InEffect);
    assert_eq!(cluster.server.store().all("pods"), pods);
    assert_eq!(cluster.changes(), ["patch deployments checkout"]);
}

#[tokio::test]
async fn a_pause_that_is_not_the_holds_own_any_more_is_not_ended() {
    let cluster = Cluster::rolling("").await;
    let (k, hold) = (&cluster.kubernetes, decision(Action::Hold, "checkout", "checkout"));
    let plan = k.describe(&hold).await.expect("possible");
    k.apply(&hold, &plan).await.expect("done");
    let pauses = |paused: bool| cluster.change("deployments", "checkout", |d| d["spec"]["paused"] = json!(paused));
    let refused = async |whose: &str| {
        let refused = k.undo(&hold, &plan).await.expect_err("refused");
        let words = format!("Deployment shop/checkout is paused{whose}: it is not touched");
        assert!(matches!(&refused, Error::Refused(why) if why.contains(&words)), "{refused}\ninstead of: {words}");
        assert_eq!(cluster.get("deployments", "checkout")["spec"]["paused"], true);
    };
    // Somebody lets it go on, and holds it again.
    pauses(false);
    pauses(true);
    refused(", and the API server does not say that this decision did it").await;
    let fields = json!({ "f:spec": { "f:paused": {} } });
    cluster.change("deployments", "checkout", |d| {
        d["metadata"]["managedFields"] =
            json!([{ "manager": "kubectl-rollout", "time": "2026-11-27T10:00:00Z", "fieldsV1": fields }]);
    });
    refused(", as kubectl-rollout wrote at 2026-11-27T10:00:00Z").await;
    // Where two want it, it is not the guard's alone.
    cluster.change("deployments", "checkout", |d| {
        let ours = json!({ "manager": "canary-guard", "time": "2026-11-27T11:00:00Z", "fieldsV1": fields });
        d["metadata"]["managedFields"].as_array_mut().expect("one").push(ours);
    });
    refused(", as kubectl-rollout wrote at 2026-11-27T10:00:00Z").await;
    // The guard itself does, for another decision.
    pauses(false);
    let later = Decision { id: "checkout-2".into(), ..hold.clone() };
    let again = k.describe(&later).await.expect("possible");
    k.apply(&later, &again).await.expect("done");
    refused(", by decision checkout-2 of the guard").await;
    k.undo(&later, &again).await.expect("its own");
    assert_eq!(cluster.get("deployments", "checkout")["spec"]["paused"], false);
    k.undo(&hold, &plan).await.expect("nothing is left to end");
}

#[tokio::test]
async fn a_rollout_of_argo_that_is_held_is_aborted_and_its_pause_ended() {
    let cluster = Cluster::rollout().await;
    let (k, hold) = (&cluster.kubernetes, decision(Action::Hold, "checkout", "checkout"));
    let held = k.describe(&hold).await.expect("possible");
    k.apply(&hold, &held).await.expect("in effect at once");
    assert_eq!(cluster.get("rollouts", "checkout")["spec"]["paused"], true);
    assert_eq!(k.state(&hold).await.expect("asked").state, State::InEffect);
    // While it is paused, Argo would leave as many pods of the canary as there are.
    let rollback = decision(Action::Rollback, "checkout", "checkout");
    let plan = k.describe(&rollback).await.expect("possible");
    assert!(plan.steps[0].starts_with("abort Rollout shop/checkout"), "{:?}", plan.steps);
    assert!(plan.steps[1].starts_with("set spec.paused of Rollout shop/checkout to false"), "{:?}", plan.steps);
    let back = plan.inverse.clone().expect("in words");
    assert!(back.starts_with("spec.paused true again in Rollout shop/checkout; for people only"), "{back}");
    cluster.meanwhile(|store| {
        store.change("rollouts", NAMESPACE, "checkout", |r| {
            r["status"]["canary"] = json!({ "weights": { "canary": { "weight": 0 } } });
        });
    });
    k.apply(&rollback, &plan).await.expect("done");
    let rollout = cluster.get("rollouts", "checkout");
    assert_eq!((&rollout["status"]["abort"], &rollout["spec"]["paused"]), (&json!(true), &json!(false)));
    assert_eq!(cluster.changes().last().map(String::as_str), Some("patch rollouts checkout"), "after the abort");
    assert_eq!(k.state(&hold).await.expect("asked").state, State::NotInEffect);
    // To take it back then finds nothing to do.
    k.undo(&hold, &held).await.expect("undone");
}

#[tokio::test]
async fn what_takes_a_canary_away_ends_the_hold_of_its_own_deployment() {
    let cluster = Cluster::two_deployments(ROUTE).await;
    cluster.server.store().put("httproutes", route(json!(80), json!(20)));
    let (hold, held) = hold(&cluster, CANARY).await;
    let (k, rollback) = (&cluster.kubernetes, later(Action::Rollback, CANARY));
    let plan = k.describe(&rollback).await.expect("possible");
    let back = "spec.paused true again in Deployment shop/checkout-canary, if it still has the template of ReplicaSet \
                checkout-canary-bbb; ";
    assert!(plan.inverse.as_ref().is_some_and(|way| way.starts_with(back)), "{:?}", plan.inverse);
    let end = "set spec.paused of Deployment shop/checkout-canary to false, which ends the hold by decision checkout-1, if its \
               spec is still generation 6 but for what is done before";
    assert_eq!(plan.steps[2], end, "{:?}", plan.steps);
    k.apply(&rollback, &plan).await.expect("done");
    let of_canary = |field: &str| cluster.get("deployments", CANARY)["spec"][field].clone();
    assert_eq!(
        (of_canary("replicas"), of_canary("paused")),
        (json!(0), json!(false)),
        "the next version is rolled out"
    );
    let (weight, scale, pause) =
        ("patch httproutes checkout", "patch deployments/scale checkout-canary", "patch deployments checkout-canary");
    assert_eq!(cluster.changes(), [pause, weight, scale, pause], "held, and after all else let go");
    k.undo(&rollback, &plan).await.expect("undone");
    assert_eq!((of_canary("replicas"), of_canary("paused")), (json!(2), json!(true)), "as it was");
    assert_eq!(cluster.changes()[4..], [pause, scale, weight]);
    k.undo(&hold, &held).await.expect("the hold's own again");
    assert_eq!(of_canary("paused"), json!(false));
}

#[tokio::test]
async fn a_hold_that_comes_back_with_its_template_is_ended_by_its_own_undo() {
    let cluster = Cluster::rolling("").await;
    let (hold, held) = hold(&cluster, "checkout").await;
    let (k, rollback) = (&cluster.kubernetes, later(Action::Rollback, "checkout"));
    let plan = k.describe(&rollback).await.expect("possible");
    k.apply(&rollback, &plan).await.expect("done");
    k.undo(&rollback, &plan).await.expect("undone");
    assert_eq!(cluster.get("deployments", "checkout")["spec"]["paused"], true, "as it was");
    k.undo(&hold, &held).await.expect("the hold's own again");
    assert_eq!(cluster.get("deployments", "checkout")["spec"]["paused"], false);
}

#[tokio::test]
async fn an_undo_holds_no_version_that_came_since_and_touches_nothing() {
    let cluster = Cluster::two_deployments(ROUTE).await;
    cluster.server.store().put("httproutes", route(json!(80), json!(20)));
    hold(&cluster, CANARY).await;
    let (k, rollback) = (&cluster.kubernetes, later(Action::Rollback, CANARY));
    let plan = k.describe(&rollback).await.expect("possible");
    k.apply(&rollback, &plan).await.expect("done");
    let made = cluster.changes();
    // A mended version comes, with as many pods as the one before had.
    cluster.change("deployments", CANARY, |d| {
        d["spec"]["replicas"] = json!(2);
        d["spec"]["template"]["spec"]["containers"][0]["image"] = json!("checkout:ccc");
    });
    let refused = k.undo(&rollback, &plan).await.expect_err("refused");
    assert!(matches!(&refused, Error::Refused(why) if why.contains("it has another template")), "{refused}");
    assert_eq!(cluster.changes(), made);
    assert_eq!(cluster.get("deployments", CANARY)["spec"]["paused"], false);
    // Nor where nothing is left of the version that was held.
    cluster.server.store().remove("replicasets", NAMESPACE, "checkout-canary-bbb");
    let refused = k.undo(&rollback, &plan).await.expect_err("refused");
    let words = "ReplicaSet checkout-canary-bbb is gone";
    assert!(matches!(&refused, Error::Refused(why) if why.contains(words)), "{refused}");
    assert_eq!(cluster.changes(), made);
}

#[tokio::test]
async fn a_hold_that_cannot_be_ended_leaves_no_condemned_canary_at_work() {
    let cluster = Cluster::two_deployments("").await;
    hold(&cluster, CANARY).await;
    let (k, rollback) = (&cluster.kubernetes, later(Action::Rollback, CANARY));
    // The right to change the Deployment as a whole is taken away, which its scale does not need.
    let forbid = |what| cluster.server.store().forbidden = what;
    forbid(Some(("patch".into(), "deployments".into())));
    let plan = k.describe(&rollback).await.expect("possible");
    assert!(plan.steps[2].starts_with("the hold by decision checkout-1 stays, whose end"), "{:?}", plan.steps);
    // Where it may again, the plan is none any more.
    forbid(None);
    let refused = k.apply(&rollback, &plan).await.expect_err("refused");
    assert!(matches!(&refused, Error::Refused(why) if why.contains("has changed since it was planned")), "{refused}");
    forbid(Some(("patch".into(), "deployments".into())));
    k.apply(&rollback, &plan).await.expect("done");
    let canary = cluster.get("deployments", CANARY);
    assert_eq!((&canary["spec"]["replicas"], &canary["spec"]["paused"]), (&json!(0), &json!(true)));
    k.undo(&rollback, &plan).await.expect("undone");
    assert_eq!(cluster.get("deployments", CANARY)["spec"]["replicas"], 2);
}

#[tokio::test]
async fn a_drain_by_weight_ends_the_hold_and_leaves_the_pods() {
    let cluster = Cluster::two_deployments(ROUTE).await;
    cluster.server.store().put("httproutes", route(json!(80), json!(20)));
    hold(&cluster, CANARY).await;
    let (k, drain) = (&cluster.kubernetes, later(Action::Drain, CANARY));
    let plan = k.describe(&drain).await.expect("possible");
    assert!(plan.background.is_some(), "its pods run on");
    k.apply(&drain, &plan).await.expect("done");
    let canary = cluster.get("deployments", CANARY);
    assert_eq!((&canary["spec"]["replicas"], &canary["spec"]["paused"]), (&json!(2), &json!(false)));
    assert_eq!(k.state(&drain).await.expect("asked").state, State::InEffect);
}

#[tokio::test]
async fn a_pause_of_somebody_else_outlasts_what_takes_the_canary_away() {
    let cluster = Cluster::two_deployments("").await;
    cluster.change("deployments", CANARY, |d| d["spec"]["paused"] = json!(true));
    let routed = rollout(json!({ "trafficRouting": { "nginx": {} } })).await;
    routed.change("rollouts", "checkout", |r| r["spec"]["paused"] = json!(true));
    for (cluster, resource, canary) in [(cluster, "deployments", CANARY), (routed, "rollouts", "checkout")] {
        let (k, rollback) = (&cluster.kubernetes, later(Action::Rollback, canary));
        let plan = k.describe(&rollback).await.expect("possible");
        assert_eq!(plan.steps.len(), 2, "one change, tried out: {:?}", plan.steps);
        k.apply(&rollback, &plan).await.expect("done");
        assert_eq!(cluster.get(resource, canary)["spec"]["paused"], true, "{resource}");
    }
}

#[tokio::test]
async fn an_abort_ends_the_hold_also_where_weights_take_the_requests() {
    let cluster = rollout(json!({ "trafficRouting": { "nginx": {} } })).await;
    hold(&cluster, "checkout").await;
    let (k, rollback) = (&cluster.kubernetes, later(Action::Rollback, "checkout"));
    let plan = k.describe(&rollback).await.expect("possible");
    assert!(plan.steps[1].contains("to false, which ends the hold by decision checkout-1"), "{:?}", plan.steps);
    assert!(plan.background.is_some(), "its pods run on for a while");
    k.apply(&rollback, &plan).await.expect("done");
    let rollout = cluster.get("rollouts", "checkout");
    assert_eq!((&rollout["status"]["abort"], &rollout["spec"]["paused"]), (&json!(true), &json!(false)));
    let (pause, abort) = ("patch rollouts checkout", "patch rollouts/status checkout");
    assert_eq!(cluster.changes(), [pause, abort, pause], "what goes on again goes back to stable");
}

/// Argo gives stable its weight back as its pods become available, and makes none while the Rollout is paused.
#[tokio::test]
async fn an_abort_ends_any_pause_where_stable_has_to_be_scaled_up_first() {
    let cluster = rollout(json!({ "trafficRouting": { "nginx": {} }, "dynamicStableScale": true })).await;
    cluster.change("rollouts", "checkout", |r| r["spec"]["paused"] = json!(true));
    let (k, rollback) = (&cluster.kubernetes, later(Action::Rollback, "checkout"));
    let plan = k.describe(&rollback).await.expect("possible");
    assert!(
        plan.steps[1].starts_with("set spec.paused of Rollout shop/checkout to false, if its spec"),
        "{:?}",
        plan.steps
    );
    k.apply(&rollback, &plan).await.expect("done");
    assert_eq!(cluster.get("rollouts", "checkout")["spec"]["paused"], false);
}
