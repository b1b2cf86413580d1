//! What is not touched, and why: each by its name, and nothing is changed.

use canary_user::{
    guard::{Action, Decision},
    orchestrator::{Error, Orchestrator as _},
    targets::Role,
};
use serde_json::json;

use crate::cluster::{Cluster, NAMESPACE, decision, pod, replica_set, target};

/// Asserts that the decision is refused for this reason, when described and when applied, and that nothing was changed.
async fn refused(cluster: &Cluster, decision: &Decision, why: &str) {
    let k = &cluster.kubernetes;
    let plan = canary_user::orchestrator::Plan::default();
    for answer in [k.describe(decision).await.map(drop), k.apply(decision, &plan).await] {
        match answer {
            Err(Error::Refused(said)) => assert!(said.contains(why), "{said}\ninstead of: {why}"),
            other => panic!("{other:?} instead of: {why}"),
        }
    }
    assert_eq!(cluster.changes(), Vec::<String>::new(), "{why}");
}

fn drain() -> Decision {
    decision(Action::Drain, "checkout", "checkout-canary")
}

#[tokio::test]
async fn a_pod_that_was_replaced_since() {
    let cluster = Cluster::two_deployments("").await;
    let name = "checkout-canary-bbb-11111";
    cluster.change("pods", name, |pod| pod["metadata"]["uid"] = json!("another"));
    refused(&cluster, &drain(), "was replaced or is gone since the decision").await;

    let cluster = Cluster::two_deployments("").await;
    cluster.change("pods", name, |pod| pod["metadata"]["labels"]["pod-template-hash"] = json!("ccc"));
    refused(&cluster, &drain(), "was replaced or is gone since the decision").await;

    let cluster = Cluster::two_deployments("").await;
    cluster.server.store().remove("pods", NAMESPACE, name);
    refused(&cluster, &drain(), "was replaced or is gone since the decision").await;
}

#[tokio::test]
async fn a_target_that_is_no_pod() {
    let cluster = Cluster::two_deployments("").await;
    let mut decision = drain();
    decision.canary[0].identity = None;
    refused(&cluster, &decision, "was not found as a pod").await;
}

#[tokio::test]
async fn what_its_owner_paused_by_an_annotation() {
    for (deployment, value, why) in [
        (
            "checkout-canary",
            "true",
            "paused: Deployment shop/checkout-canary has the annotation canary-guard/pause; `kubectl",
        ),
        ("checkout", "sale until Monday", "has the annotation canary-guard/pause (sale until Monday)"),
    ] {
        let cluster = Cluster::two_deployments("").await;
        cluster
            .change("deployments", deployment, |d| d["metadata"]["annotations"] = json!({"canary-guard/pause": value}));
        refused(&cluster, &drain(), why).await;
    }
    let cluster = Cluster::two_deployments("").await;
    cluster.change("deployments", "checkout", |d| {
        d["metadata"]["annotations"] = json!({"canary-guard/pause": "false"});
    });
    cluster.kubernetes.describe(&drain()).await.expect("that is no pause");
}

#[tokio::test]
async fn owners_that_would_change_it_back() {
    let metadata = [
        (json!({ "annotations": { "argocd.argoproj.io/tracking-id": "a" } }), "from a repository by Argo CD"),
        (json!({ "labels": { "argocd.argoproj.io/instance": "a" } }), "from a repository by Argo CD"),
        (json!({ "labels": { "kustomize.toolkit.fluxcd.io/name": "a" } }), "from a repository by Flux"),
        (json!({ "labels": { "helm.toolkit.fluxcd.io/name": "a" } }), "from a repository by Flux"),
        (
            json!({ "labels": { "argocd.argoproj.io/instance": "a" },
                    "annotations": { "kustomize.toolkit.fluxcd.io/reconcile": "disabled" } }),
            "from a repository by Argo CD",
        ),
        (json!({ "managedFields": [{ "manager": "argocd-controller" }] }), "from a repository by Argo CD"),
        (json!({ "managedFields": [{ "manager": "kustomize-controller" }] }), "from a repository by Flux"),
        (
            json!({ "ownerReferences": [
                { "apiVersion": "v1", "kind": "Shop", "name": "shop", "uid": "1", "controller": true },
            ] }),
            "belongs to Shop shop, whose operator would change it back",
        ),
    ];
    for (metadata, why) in metadata {
        let cluster = Cluster::two_deployments("").await;
        cluster.change("deployments", "checkout-canary", |d| {
            d["metadata"].as_object_mut().expect("a table").extend(metadata.as_object().expect("a table").clone());
        });
        refused(&cluster, &drain(), why).await;
    }
}

#[tokio::test]
async fn what_flagger_drives_and_a_route_from_a_repository() {
    let cluster = Cluster::two_deployments("").await;
    cluster.change("deployments", "checkout", |d| {
        d["metadata"]["ownerReferences"] = json!([
            { "apiVersion": "flagger.app/v1beta1", "kind": "Canary", "name": "checkout", "uid": "1", "controller": true },
        ]);
    });
    refused(&cluster, &drain(), "belongs to Canary checkout: let Flagger ask the guard").await;

    let cluster = Cluster::two_deployments("http_route = { name = \"checkout\", canary = \"checkout-canary\" }").await;
    cluster.server.store().put(
        "httproutes",
        json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
                "metadata": { "name": "checkout", "namespace": NAMESPACE,
                              "annotations": { "argocd.argoproj.io/tracking-id": "a" } },
                "spec": { "rules": [{ "backendRefs": [{ "name": "checkout" }, { "name": "checkout-canary" }] }] } }),
    );
    refused(&cluster, &drain(), "HTTPRoute shop/checkout is applied from a repository by Argo CD").await;
}

#[tokio::test]
async fn what_flux_was_told_to_leave_alone_is_no_obstacle() {
    let cluster = Cluster::two_deployments("").await;
    cluster.change("deployments", "checkout-canary", |d| {
        d["metadata"]["labels"] = json!({ "kustomize.toolkit.fluxcd.io/name": "a" });
        d["metadata"]["annotations"] = json!({ "kustomize.toolkit.fluxcd.io/reconcile": "disabled" });
    });
    cluster.kubernetes.describe(&drain()).await.expect("possible");
}

#[tokio::test]
async fn who_changes_it_back_later_is_named() {
    let cluster = Cluster::two_deployments("").await;
    cluster.change("deployments", "checkout-canary", |d| {
        d["metadata"]["annotations"] = json!({ "meta.helm.sh/release-name": "shop" });
    });
    cluster.server.store().put("horizontalpodautoscalers", autoscaler(json!(2), json!({})));
    let plan = cluster.kubernetes.describe(&drain()).await.expect("possible");
    let step = &plan.steps[0];
    assert!(step.contains("HorizontalPodAutoscaler canary stays off until it is scaled up"), "{step}");
    assert!(step.contains("until the next upgrade of the Helm release shop"), "{step}");
}

fn autoscaler(minimum: serde_json::Value, labels: serde_json::Value) -> serde_json::Value {
    json!({
        "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
        "metadata": { "name": "canary", "namespace": NAMESPACE, "labels": labels },
        "spec": { "minReplicas": minimum, "scaleTargetRef": { "kind": "Deployment", "name": "checkout-canary" } },
    })
}

#[tokio::test]
async fn autoscalers_that_scale_up_from_0() {
    let keda = json!({ "scaledobject.keda.sh/name": "canary" });
    for (scaler, why) in [
        (autoscaler(json!(0), json!({})), "HorizontalPodAutoscaler canary scales"),
        (autoscaler(json!(1), keda), "KEDA's ScaledObject canary"),
    ] {
        let cluster = Cluster::two_deployments("").await;
        cluster.server.store().put("horizontalpodautoscalers", scaler);
        refused(&cluster, &drain(), why).await;
    }
}

#[tokio::test]
async fn stable_that_cannot_take_the_load() {
    let cluster = Cluster::two_deployments("minimum_healthy = 2").await;
    cluster.change("deployments", "checkout", |d| d["spec"]["replicas"] = json!(1));
    refused(&cluster, &drain(), "has 1 available pods of the 2 that are needed").await;

    let cluster = Cluster::two_deployments("").await;
    cluster.server.store().remove("pods", NAMESPACE, "checkout-aaa-11111");
    refused(&cluster, &drain(), "no stable pod of checkout is left").await;
}

#[tokio::test]
async fn workloads_that_are_not_deployments() {
    for (kind, why) in [("StatefulSet", "belongs to StatefulSet db"), ("DaemonSet", "belongs to DaemonSet db")] {
        let cluster = Cluster::two_deployments("").await;
        cluster.change("pods", "checkout-canary-bbb-11111", |pod| {
            pod["metadata"]["ownerReferences"][0]["kind"] = json!(kind);
            pod["metadata"]["ownerReferences"][0]["name"] = json!("db");
        });
        refused(&cluster, &drain(), why).await;
    }
    let cluster = Cluster::two_deployments("").await;
    cluster.change("pods", "checkout-canary-bbb-11111", |pod| pod["metadata"]["ownerReferences"] = json!([]));
    refused(&cluster, &drain(), "belongs to no ReplicaSet").await;
}

#[tokio::test]
async fn the_systems_own() {
    let cluster = Cluster::two_deployments("").await;
    cluster.change("pods", "checkout-canary-bbb-11111", |pod| {
        pod["spec"]["priorityClassName"] = json!("system-node-critical");
    });
    refused(&cluster, &drain(), "has priority class system-node-critical").await;
}

#[tokio::test]
async fn a_rollout_in_a_namespace_of_the_system() {
    let cluster = Cluster::rollout().await;
    for resource in ["rollouts", "replicasets", "pods"] {
        let mut store = cluster.server.store();
        for mut object in store.all(resource) {
            object["metadata"]["namespace"] = json!("kube-system");
            store.put(resource, object);
        }
    }
    let mut decision = decision(Action::Rollback, "checkout", "checkout");
    for target in decision.stable.iter_mut().chain(&mut decision.canary) {
        let identity = target.identity.as_mut().expect("a pod");
        identity.name = identity.name.replace(NAMESPACE, "kube-system").into();
    }
    refused(&cluster, &decision, "Rollout kube-system/checkout is in a namespace of the system").await;
}

#[tokio::test]
async fn canary_pods_of_two_versions() {
    let cluster = Cluster::two_deployments("").await;
    let mut decision = drain();
    decision.canary.push(target(Role::Canary, "checkout-aaa-11111", "aaa"));
    refused(&cluster, &decision, "does not belong to ReplicaSet checkout-canary-bbb like the others").await;
}

#[tokio::test]
async fn a_rollout_that_is_paused_already_or_is_not_to_be_held() {
    let hold = decision(Action::Hold, "checkout", "checkout");
    for (change, why) in [
        (json!({ "spec": { "paused": true } }), "Deployment shop/checkout is paused already"),
        (
            json!({ "metadata": { "annotations": { "canary-guard/pause": "incident 12" } } }),
            "has the annotation canary-guard/pause (incident 12)",
        ),
        (json!({ "metadata": { "labels": { "argocd.argoproj.io/instance": "a" } } }), "from a repository by Argo CD"),
    ] {
        let cluster = Cluster::rolling("").await;
        cluster.change("deployments", "checkout", |deployment| {
            for (part, fields) in change.as_object().expect("parts") {
                let there = deployment[part].as_object_mut().expect("a table");
                there.extend(fields.as_object().expect("fields").clone());
            }
        });
        refused(&cluster, &hold, why).await;
    }
}

#[tokio::test]
async fn a_hold_where_the_owner_of_stable_says_so() {
    let cluster = Cluster::two_deployments("").await;
    let hold = decision(Action::Hold, "checkout", "checkout-canary");
    cluster.change("deployments", "checkout", |d| {
        d["metadata"]["annotations"] = json!({ "canary-guard/pause": "incident 12" });
    });
    let why = "paused: Deployment shop/checkout has the annotation canary-guard/pause (incident 12)";
    refused(&cluster, &hold, why).await;
    // Where no stable pod is left there is no other owner to ask.
    cluster.server.store().remove("pods", NAMESPACE, "checkout-aaa-11111");
    cluster.kubernetes.describe(&hold).await.expect("possible");
}

#[tokio::test]
async fn a_stable_whose_version_is_not_clear_keeps_no_rollout_from_being_held() {
    let cluster = Cluster::two_deployments("").await;
    // Stable is being restarted: its pods are of two templates.
    cluster.server.store().put("replicasets", replica_set("Deployment", "checkout", "ccc", 8));
    cluster.server.store().put("pods", pod("checkout", "ccc", "11111"));
    let mut hold = decision(Action::Hold, "checkout", "checkout-canary");
    hold.stable.push(target(Role::Stable, "checkout-ccc-11111", "ccc"));
    cluster.kubernetes.describe(&hold).await.expect("nothing is done to stable");
    let drain = Decision { action: Action::Drain, ..hold.clone() };
    refused(&cluster, &drain, "which version is meant is not clear").await;
    cluster.change("deployments", "checkout", |d| {
        d["metadata"]["annotations"] = json!({ "canary-guard/pause": "incident 12" });
    });
    refused(&cluster, &hold, "Deployment shop/checkout has the annotation canary-guard/pause (incident 12)").await;

    let cluster = Cluster::two_deployments("").await;
    cluster.change("pods", "checkout-aaa-11111", |pod| {
        pod["metadata"]["ownerReferences"][0]["kind"] = json!("StatefulSet");
    });
    cluster.kubernetes.describe(&decision(Action::Hold, "checkout", "checkout-canary")).await.expect("possible");
}

#[tokio::test]
async fn a_quarantine_and_a_promotion() {
    let cluster = Cluster::two_deployments("").await;
    let of = |action| decision(action, "checkout", "checkout-canary");
    refused(&cluster, &of(Action::Quarantine), "takes resources from running pods").await;
    refused(&cluster, &of(Action::Promote), "left to who began the rollout").await;
}

#[tokio::test]
async fn a_route_that_does_not_have_the_canary() {
    let cluster = Cluster::two_deployments("http_route = { name = \"a\", canary = \"b\" }").await;
    refused(&cluster, &drain(), "there is no HTTPRoute shop/a").await;
    cluster.server.store().put(
        "httproutes",
        json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
                "metadata": { "name": "a", "namespace": NAMESPACE }, "spec": { "rules": [] } }),
    );
    refused(&cluster, &drain(), "HTTPRoute shop/a has no backend b").await;
}

#[tokio::test]
async fn a_right_that_is_missing_is_told_in_the_servers_words() {
    let cluster = Cluster::two_deployments("").await;
    let (k, decision) = (&cluster.kubernetes, drain());
    let plan = k.describe(&decision).await.expect("possible");
    cluster.server.store().forbidden = Some(("patch".into(), "deployments/scale".into()));
    let error = k.apply(&decision, &plan).await.expect_err("refused");
    assert!(matches!(&error, Error::Refused(why) if why.contains("cannot patch (status 403)")), "{error}");
}

#[tokio::test]
async fn a_server_that_is_busy_is_asked_again_for_a_while() {
    let cluster = Cluster::two_deployments("").await;
    let (k, decision) = (&cluster.kubernetes, drain());
    cluster.server.store().busy = 1;
    let plan = k.describe(&decision).await.expect("possible a second later");
    cluster.server.store().busy = 3;
    let refused = k.apply(&decision, &plan).await.expect_err("refused");
    assert!(matches!(&refused, Error::Refused(why) if why.contains("status 429")), "{refused}");
    assert_eq!(cluster.changes(), Vec::<String>::new());
    k.apply(&decision, &plan).await.expect("it has time again");
}
