//! What the guard's account may do, as the real server's RBAC says: each right that is shipped, and none besides.

use std::collections::BTreeSet;

use canary_user::{
    orchestrator::Orchestrator as _,
    targets::{cgroup::Root, follow_pods, located::Located},
};
use kube::{
    Error,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::{
    control_plane::{ControlPlane, With},
    objects::{change_status, objects, shop},
};
use crate::{
    cluster::{NAMESPACE, config},
    rights::{Right, rights},
};

#[tokio::test]
async fn a_real_api_server_grants_what_is_shipped_and_nothing_besides() {
    let test = "a_real_api_server_grants_what_is_shipped_and_nothing_besides";
    let Some(plane) = ControlPlane::start(test, With::ApiServer).await else { return };
    let token = plane.account().await;
    plane.put_namespace("bank").await;
    let everybodys = |namespace: &str, rules: &BTreeSet<Right>| -> BTreeSet<Right> {
        rules.iter().cloned().map(|(_, g, r, v, n)| (namespace.to_owned(), g, r, v, n)).collect()
    };
    let before = plane.rules(&token, "bank").await;
    let asks_about_itself = |(_, group, resource, verb, _): &Right| {
        group.ends_with(".k8s.io") && resource.starts_with("selfsubject") && verb == "create"
    };
    assert!(before.iter().all(asks_about_itself), "what each account may do: {before:?}");
    plane.grant(&token).await;
    for namespace in [NAMESPACE, "canary-guard", "bank"] {
        let here = rights().into_iter().filter(|right| right.0 == namespace);
        let wanted: BTreeSet<Right> = here.chain(everybodys(namespace, &before)).collect();
        assert_eq!(plane.rules(&token, namespace).await, wanted, "{namespace}");
    }
}

fn is_forbidden<T>(what: &str, result: Result<T, Error>) {
    match result {
        Err(Error::Api(status)) if status.code == 403 => {}
        Err(e) => panic!("{what}: {e}"),
        Ok(_) => panic!("{what} is allowed"),
    }
}

#[tokio::test]
async fn a_real_api_server_forbids_the_guard_what_it_does_not_need() {
    let test = "a_real_api_server_forbids_the_guard_what_it_does_not_need";
    let Some(plane) = ControlPlane::start(test, With::ApiServer).await else { return };
    let token = plane.account().await;
    plane.grant(&token).await;
    plane.put_namespace("bank").await;
    for name in ["checkout", "checkout-canary", "payment"] {
        plane.service(name, "aaa", &["aaa"]).await;
    }
    let guard = plane.client(&token).await;
    let (all, create) = (Default::default(), PostParams::default());
    let patch = (PatchParams::default(), Patch::Merge(json!({ "spec": { "replicas": 0 } })));

    is_forbidden("to read secrets", objects(&guard, "v1", "Secret", NAMESPACE).list(&all).await);
    is_forbidden("to read another namespace", objects(&guard, "v1", "Pod", "bank").list(&all).await);
    is_forbidden("to read all namespaces", objects(&guard, "v1", "Pod", "").list(&all).await);
    is_forbidden("to end pods", shop(&guard, "Pod").delete("checkout-aaa-11111", &DeleteParams::default()).await);
    let deployments = shop(&guard, "Deployment");
    is_forbidden("to list Deployments", deployments.list(&all).await);
    is_forbidden("to scale stable", deployments.patch_scale("checkout", &patch.0, &patch.1).await);
    is_forbidden(
        "to change the canary besides its scale",
        deployments.patch("checkout-canary", &patch.0, &patch.1).await,
    );
    is_forbidden("to scale others", deployments.patch_scale("payment", &patch.0, &patch.1).await);
    is_forbidden("to change others", deployments.patch("payment", &patch.0, &patch.1).await);
    is_forbidden("to change a status", deployments.patch_status("checkout", &patch.0, &patch.1).await);
    let lease = |name: &str| -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": { "name": name, "namespace": "canary-guard" },
        }))
        .expect("a Lease")
    };
    let leases = objects(&guard, "coordination.k8s.io/v1", "Lease", "canary-guard");
    is_forbidden("to make Leases", leases.create(&create, &lease("another")).await);
    is_forbidden("to take others' Leases", leases.replace("another", &create, &lease("another")).await);
    is_forbidden(
        "to give itself rights",
        objects(&guard, "rbac.authorization.k8s.io/v1", "Role", NAMESPACE).list(&all).await,
    );
    let scaled = deployments.patch_scale("checkout-canary", &patch.0, &patch.1).await.expect("what it is there for");
    assert_eq!(scaled.spec.and_then(|spec| spec.replicas).unwrap_or_default(), 0);
}

#[tokio::test]
async fn pods_of_a_real_api_server_are_found_with_the_rights_that_are_shipped() {
    let test = "pods_of_a_real_api_server_are_found_with_the_rights_that_are_shipped";
    let Some(plane) = ControlPlane::start(test, With::ApiServer).await else { return };
    let root = Root::find().expect("a machine with cgroup v2");
    let token = plane.account().await;
    plane.grant(&token).await;
    plane.service("checkout", "aaa", &["aaa"]).await;
    plane.service("checkout-canary", "bbb", &["bbb"]).await;
    let mut cgroups = Vec::new();
    for (name, track) in [("checkout-aaa-11111", "stable"), ("checkout-canary-bbb-11111", "canary")] {
        let labels = json!({ "metadata": { "labels": { "app": "checkout", "track": track } } });
        let pod = super::objects::change(&plane.admin, "Pod", name, labels).await;
        change_status(&plane.admin, "Pod", name, json!({ "phase": "Running" })).await;
        let uid = pod.metadata.uid.expect("a uid");
        let path = root.dir(&format!("/pod{uid}"));
        if let Err(e) = std::fs::create_dir(&path) {
            println!("SKIP {test}: no cgroup can be made here: {e}");
            return;
        }
        cgroups.push(Cgroup(path));
    }
    let config = config(plane.kubeconfig(&token), "", "");
    let located = Located::default();
    let looks = tokio::spawn(follow_pods(config.clone(), root.clone(), located.clone()));
    let found = loop {
        let found = located.targets(&config, &root);
        if found.len() == 2 {
            break found;
        }
        assert!(!looks.is_finished(), "it goes on for ever");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    looks.abort();
    let names: Vec<_> =
        found.iter().map(|t| (t.role.name(), t.identity.as_ref().expect("a pod").name.to_string())).collect();
    let [stable, canary] =
        ["checkout-aaa-11111", "checkout-canary-bbb-11111"].map(|name| format!("{NAMESPACE}/{name}"));
    assert_eq!(names, [("stable", stable), ("canary", canary)]);
    // A decision on them is one that the server knows.
    let mut drain = plane.decision(canary_user::guard::Action::Drain, "checkout-canary").await;
    drain.canary = found.into_iter().filter(|t| t.role.name() == "canary").collect();
    plane.hands(&token, "").describe(&drain).await.expect("possible");
}

/// A cgroup without processes, removed when dropped.
struct Cgroup(std::path::PathBuf);

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}
