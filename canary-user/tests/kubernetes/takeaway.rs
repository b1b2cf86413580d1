//! Stable and canary as two Deployments: requests are kept from the canary, or it is scaled to 0; and the way back.

use canary_user::{
    guard::{Action, Stage},
    judge::Outcome,
    orchestrator::{Error, Orchestrator as _, State, TakesAway},
};
use serde_json::{Value, json};

use crate::cluster::{Cluster, NAMESPACE, decision};

pub const ROUTE: &str = "http_route = { name = \"checkout\", canary = \"checkout-canary\" }";

pub fn route(stable: Value, canary: Value) -> Value {
    let backend = |name: &str, weight: Value| match weight {
        Value::Null => json!({ "name": name, "port": 80 }),
        weight => json!({ "name": name, "port": 80, "weight": weight }),
    };
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": { "name": "checkout", "namespace": NAMESPACE },
        "spec": { "rules": [
            { "backendRefs": [backend("other", json!(1))] },
            { "backendRefs": [backend("checkout", stable), backend("checkout-canary", canary)] },
        ] },
    })
}

fn weight(cluster: &Cluster) -> Value {
    cluster.get("httproutes", "checkout")["spec"]["rules"][1]["backendRefs"][1]["weight"].clone()
}

#[tokio::test]
async fn the_canary_is_scaled_to_0_and_back() {
    let cluster = Cluster::two_deployments("").await;
    let (k, decision) = (&cluster.kubernetes, decision(Action::Drain, "checkout", "checkout-canary"));
    assert_eq!(k.state(&decision).await.expect("asked").state, State::NotInEffect);
    let plan = k.describe(&decision).await.expect("possible");
    assert_eq!(
        plan.steps,
        [
            "scale Deployment shop/checkout-canary from 2 to 0, on all nodes, if its spec is still generation 5",
            "tried out beforehand at the API server, which takes it (dryRun=All)",
        ]
    );
    assert_eq!(plan.inverse.as_deref(), Some("kubectl --namespace shop scale deployment checkout-canary --replicas 2"));
    assert_eq!(cluster.changes(), Vec::<String>::new(), "to describe is to ask");

    k.apply(&decision, &plan).await.expect("done");
    assert_eq!(cluster.get("deployments", "checkout-canary")["spec"]["replicas"], 0);
    assert_eq!(cluster.get("deployments", "checkout")["spec"]["replicas"], 2, "stable is as it was");
    assert_eq!(k.state(&decision).await.expect("asked").state, State::InEffect);

    k.undo(&decision, &plan).await.expect("undone");
    assert_eq!(cluster.get("deployments", "checkout-canary")["spec"]["replicas"], 2);
    k.undo(&decision, &plan).await.expect("undone already");
    let scale = "patch deployments/scale checkout-canary";
    assert_eq!(cluster.changes(), [scale, scale], "each way once, and by the part that needs least rights");
}

#[tokio::test]
async fn a_route_takes_the_weight_away_and_gives_back_what_was_there() {
    for before in [json!(20), Value::Null] {
        let cluster = Cluster::two_deployments(ROUTE).await;
        cluster.server.store().put("httproutes", route(json!(80), before.clone()));
        let (k, decision) = (&cluster.kubernetes, decision(Action::Drain, "checkout", "checkout-canary"));
        let plan = k.describe(&decision).await.expect("possible");
        assert!(plan.steps[0].starts_with("set the weight of checkout-canary in HTTPRoute shop/checkout from "));
        k.apply(&decision, &plan).await.expect("done");
        assert_eq!(weight(&cluster), 0);
        assert_eq!(k.state(&decision).await.expect("asked").state, State::InEffect);
        let route = cluster.get("httproutes", "checkout");
        assert_eq!(route["metadata"]["annotations"]["canary-guard/decision"], "checkout-1");
        assert_eq!(cluster.changes(), ["patch httproutes checkout"], "its pods run on");
        k.undo(&decision, &plan).await.expect("undone");
        assert_eq!(weight(&cluster), before);
    }
}

#[tokio::test]
async fn the_service_of_another_namespace_keeps_its_weight() {
    let cluster = Cluster::two_deployments(ROUTE).await;
    let mut route = route(json!(80), json!(20));
    let namesake = json!({ "name": "checkout-canary", "namespace": "bank", "port": 80, "weight": 7 });
    route["spec"]["rules"][1]["backendRefs"].as_array_mut().expect("backends").push(namesake);
    cluster.server.store().put("httproutes", route);
    let (k, decision) = (&cluster.kubernetes, decision(Action::Drain, "checkout", "checkout-canary"));
    let plan = k.describe(&decision).await.expect("possible");
    k.apply(&decision, &plan).await.expect("done");
    let route = cluster.get("httproutes", "checkout");
    assert_eq!((weight(&cluster), &route["spec"]["rules"][1]["backendRefs"][2]["weight"]), (json!(0), &json!(7)));
}

#[tokio::test]
async fn a_route_leaves_pods_with_their_probes_and_a_scale_to_0_leaves_none() {
    for (action, background) in [(Action::Drain, Some((2, 0.2))), (Action::Rollback, None)] {
        let cluster = Cluster::two_deployments(ROUTE).await;
        cluster.server.store().put("httproutes", route(json!(80), json!(20)));
        cluster.change("pods", "checkout-canary-bbb-11111", |pod| {
            let probe = json!({ "httpGet": { "path": "/health", "port": 8080 }, "periodSeconds": 10 });
            pod["spec"]["containers"] = json!([{ "name": "app", "livenessProbe": probe, "readinessProbe": probe }]);
        });
        let decision = decision(action, "checkout", "checkout-canary");
        let plan = cluster.kubernetes.describe(&decision).await.expect("possible");
        let found = plan.background.as_ref().map(|b| (b.burst, b.turnarounds_per_second));
        assert_eq!(found, background, "{action}");
        // As it is read again after a restart of the guard.
        let text = serde_json::to_string(&plan).expect("JSON");
        assert_eq!(serde_json::from_str::<canary_user::orchestrator::Plan>(&text).expect("a plan"), plan);
    }
}

#[tokio::test]
async fn without_another_backend_that_has_weight_it_is_scaled() {
    let cluster = Cluster::two_deployments(ROUTE).await;
    cluster.server.store().put("httproutes", route(json!(0), json!(100)));
    let (k, decision) = (&cluster.kubernetes, decision(Action::Drain, "checkout", "checkout-canary"));
    let plan = k.describe(&decision).await.expect("possible");
    k.apply(&decision, &plan).await.expect("done");
    assert_eq!(weight(&cluster), 100, "weight 0 for all would refuse the requests");
    assert_eq!(cluster.changes(), ["patch deployments/scale checkout-canary"]);
}

#[tokio::test]
async fn a_rollback_takes_the_weight_first_and_then_the_pods() {
    let cluster = Cluster::two_deployments(ROUTE).await;
    cluster.server.store().put("httproutes", route(json!(80), json!(20)));
    let (k, decision) = (&cluster.kubernetes, decision(Action::Rollback, "checkout", "checkout-canary"));
    let plan = k.describe(&decision).await.expect("possible");
    k.apply(&decision, &plan).await.expect("done");
    assert_eq!(cluster.changes(), ["patch httproutes checkout", "patch deployments/scale checkout-canary"]);
    k.undo(&decision, &plan).await.expect("undone");
    let back = ["patch deployments/scale checkout-canary", "patch httproutes checkout"];
    assert_eq!(cluster.changes()[2..], back, "pods first, then requests for them");
    assert_eq!(weight(&cluster), 20);
}

#[tokio::test]
async fn a_plan_says_how_much_it_takes_away_on_all_nodes() {
    for keys in ["", ROUTE] {
        let cluster = Cluster::two_deployments(keys).await;
        cluster.server.store().put("httproutes", route(json!(80), json!(20)));
        // One pod of each is seen from this node.
        cluster.change("deployments", "checkout-canary", |d| d["spec"]["replicas"] = json!(10));
        let plan = cluster.kubernetes.describe(&decision(Action::Drain, "checkout", "checkout-canary")).await;
        let takes_away = plan.expect("possible").takes_away;
        assert_eq!(takes_away, Some(TakesAway { instances: 10, of: 12 }), "{keys}");
    }
    let rolling = Cluster::rolling("").await;
    let plan = rolling.kubernetes.describe(&decision(Action::Rollback, "checkout", "checkout")).await;
    assert_eq!(plan.expect("possible").takes_away, None, "others come in their place");
}

#[tokio::test]
async fn what_moves_beside_the_spec_is_no_reason_to_stop() {
    let cluster = Cluster::two_deployments("").await;
    let (k, decision) = (&cluster.kubernetes, decision(Action::Drain, "checkout", "checkout-canary"));
    let plan = k.describe(&decision).await.expect("possible");
    cluster.meanwhile(|store| {
        store.change("deployments", NAMESPACE, "checkout-canary", |d| d["status"]["conditions"] = json!([{}]));
    });
    k.apply(&decision, &plan).await.expect("done at the second try");
    assert_eq!(cluster.changes().len(), 2, "the first was for a version that was not current any more");
    assert_eq!(cluster.get("deployments", "checkout-canary")["spec"]["replicas"], 0);
}

#[tokio::test]
async fn a_spec_that_somebody_changes_just_then_is_not_touched() {
    let cluster = Cluster::two_deployments("").await;
    let (k, decision) = (&cluster.kubernetes, decision(Action::Drain, "checkout", "checkout-canary"));
    let plan = k.describe(&decision).await.expect("possible");
    cluster.meanwhile(|store| {
        store.change("deployments", NAMESPACE, "checkout-canary", |d| d["spec"]["replicas"] = json!(3));
    });
    let refused = k.apply(&decision, &plan).await.expect_err("refused");
    assert!(matches!(&refused, Error::Refused(why) if why.contains("generation 6 now, 5 then")), "{refused}");
    assert_eq!(cluster.get("deployments", "checkout-canary")["spec"]["replicas"], 3);
}

#[tokio::test]
async fn another_object_of_the_same_name_is_not_touched() {
    let cluster = Cluster::two_deployments("").await;
    let (k, decision) = (&cluster.kubernetes, decision(Action::Drain, "checkout", "checkout-canary"));
    let plan = k.describe(&decision).await.expect("possible");
    cluster.meanwhile(|store| {
        store.change("deployments", NAMESPACE, "checkout-canary", |d| d["metadata"]["uid"] = json!("another"));
    });
    let refused = k.apply(&decision, &plan).await.expect_err("refused");
    assert!(matches!(&refused, Error::Refused(why) if why.contains("was replaced or is gone")), "{refused}");
    assert_eq!(cluster.get("deployments", "checkout-canary")["spec"]["replicas"], 2);
}

#[tokio::test]
async fn what_somebody_changed_since_is_not_undone() {
    let cluster = Cluster::two_deployments("").await;
    let (k, decision) = (&cluster.kubernetes, decision(Action::Drain, "checkout", "checkout-canary"));
    let plan = k.describe(&decision).await.expect("possible");
    k.apply(&decision, &plan).await.expect("done");
    cluster.change("deployments", "checkout-canary", |d| d["spec"]["replicas"] = json!(1));
    let refused = k.undo(&decision, &plan).await.expect_err("refused");
    assert!(matches!(&refused, Error::Refused(why) if why.contains("it has 1 replicas")), "{refused}");
    assert_eq!(cluster.get("deployments", "checkout-canary")["spec"]["replicas"], 1);
}

#[tokio::test]
async fn an_undo_that_would_be_refused_in_part_touches_nothing() {
    let cluster = Cluster::two_deployments(ROUTE).await;
    cluster.server.store().put("httproutes", route(json!(80), json!(20)));
    let (k, decision) = (&cluster.kubernetes, decision(Action::Rollback, "checkout", "checkout-canary"));
    let plan = k.describe(&decision).await.expect("possible");
    k.apply(&decision, &plan).await.expect("done");
    let made = cluster.changes();
    cluster.change("httproutes", "checkout", |r| r["spec"]["rules"][1]["backendRefs"][1]["weight"] = json!(5));
    let refused = k.undo(&decision, &plan).await.expect_err("refused");
    assert!(matches!(&refused, Error::Refused(why) if why.contains("weight 5 for checkout-canary")), "{refused}");
    assert_eq!(cluster.changes(), made, "the pods, which would come first, are left, too");
}

#[tokio::test]
async fn pods_that_do_not_end_are_told_after_their_time() {
    let cluster = Cluster::two_deployments("").await;
    cluster.server.store().controls = false;
    let (k, decision) = (&cluster.kubernetes, decision(Action::Drain, "checkout", "checkout-canary"));
    let mut plan = k.describe(&decision).await.expect("possible");
    assert_eq!(plan.takes_at_most_ms, Some(31_000), "the pod's own grace, and a little");
    plan.takes_at_most_ms = Some(1);
    let failed = k.apply(&decision, &plan).await.expect_err("not done");
    assert!(matches!(failed, Error::Failed(_)), "it was changed, and is not in effect: {failed}");
    assert_eq!(k.state(&decision).await.expect("asked").state, State::InProgress);
}

#[tokio::test]
async fn an_event_on_the_deployment_tells_what_was_done() {
    let cluster = Cluster::two_deployments("").await;
    let (k, decision) = (&cluster.kubernetes, decision(Action::Drain, "checkout", "checkout-canary"));
    let plan = k.describe(&decision).await.expect("possible");
    k.apply(&decision, &plan).await.expect("done");
    cluster.change("deployments", "checkout-canary", |d| d["spec"]["replicas"] = json!(1));
    k.undo(&decision, &plan).await.expect_err("refused");
    for (stage, detail) in [
        (Stage::Applied, "the call has told that"),
        (Stage::Verified, "no turnaround"),
        (Stage::NotRecovered, "it did not help"),
        (Stage::Blocked, "mode: mode is observe"),
    ] {
        k.note(&decision, stage, detail).await;
    }
    let events = cluster.server.store().all("events");
    let reasons: Vec<(&Value, &Value)> = events.iter().map(|e| (&e["type"], &e["reason"])).collect();
    assert_eq!(reasons.len(), 5, "{events:?}");
    assert!(reasons.contains(&(&json!("Normal"), &json!("CanaryVerified"))));
    assert!(reasons.contains(&(&json!("Warning"), &json!("CanaryNotRecovered"))));
    assert!(reasons.contains(&(&json!("Warning"), &json!("CanaryBlocked"))));
    assert!(reasons.contains(&(&json!("Normal"), &json!("CanaryDrain"))));
    assert!(reasons.contains(&(&json!("Warning"), &json!("CanaryUndoFailed"))));
    for event in &events {
        assert_eq!(event["regarding"]["uid"], "uid-of-deployments-checkout-canary");
        let note = event["note"].as_str().expect("text");
        assert!(note.contains("decision checkout-1") && note.contains("CPU per turnaround +64 %"), "{note}");
        assert!(note.len() <= 1024, "the API server takes no more");
    }
}

#[tokio::test]
async fn an_event_on_the_deployment_tells_each_change_of_verdict() {
    let cluster = Cluster::two_deployments("").await;
    let (k, canary) = (&cluster.kubernetes, decision(Action::Drain, "checkout", "checkout-canary").canary);
    let why = "CPU per turnaround +64 %, margin 4.1 %";
    k.note_verdict(&canary, Outcome::Healthy, Outcome::Regressed, why).await;
    k.note_verdict(&canary, Outcome::Regressed, Outcome::InsufficientData, &"ü".repeat(2000)).await;
    k.note_verdict(&[], Outcome::Regressed, Outcome::InsufficientData, "nothing is left to write it on").await;
    let events = cluster.server.store().all("events");
    let told: Vec<(&Value, &Value)> = events.iter().map(|e| (&e["type"], &e["reason"])).collect();
    assert_eq!(told.len(), 2, "{events:?}");
    assert!(told.contains(&(&json!("Warning"), &json!("CanaryRegressed"))), "{told:?}");
    assert!(told.contains(&(&json!("Normal"), &json!("CanaryInsufficientData"))), "{told:?}");
    let notes: Vec<&str> = events.iter().filter_map(|e| e["note"].as_str()).collect();
    assert!(notes.iter().any(|note| *note == format!("canary regressed (was healthy): {why}")), "{notes:?}");
    assert!(notes.iter().all(|note| note.len() <= 1024), "the API server takes no more");
    assert!(events.iter().all(|e| e["regarding"]["uid"] == "uid-of-deployments-checkout-canary"));
}

#[tokio::test]
async fn an_event_that_cannot_be_written_holds_nothing_up() {
    let cluster = Cluster::two_deployments("").await;
    cluster.server.store().forbidden = Some(("create".into(), "events".into()));
    let (k, decision) = (&cluster.kubernetes, decision(Action::Drain, "checkout", "checkout-canary"));
    let plan = k.describe(&decision).await.expect("possible");
    k.apply(&decision, &plan).await.expect("done all the same");
}
