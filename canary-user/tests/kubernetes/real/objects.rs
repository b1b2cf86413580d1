//! What there is in the real API server, made and changed as its administrator; and the guard's hands, with the account that
//! `deploy/kubernetes/components/kubernetes/rbac.yaml` makes.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use axum::http::Request;
use canary_user::{
    guard::{Action, Decision},
    orchestrator::{Error, Orchestrator as _, Plan, kubernetes::Kubernetes},
    targets::Identity,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::control_plane::ControlPlane;
use crate::{
    cluster::{NAMESPACE, config, decision, deployment, pod, replica_set},
    rights::{Right, flat, manifests, rights},
};

const ACCOUNT: &str = "canary-guard-acting";
const ITS_NAMESPACE: &str = "canary-guard";

/// Objects of one kind; "" is for those without a namespace.
pub fn objects(client: &Client, version: &str, kind: &str, namespace: &str) -> Api<DynamicObject> {
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    match namespace {
        "" => Api::all_with(client.clone(), &resource),
        namespace => Api::namespaced_with(client.clone(), namespace, &resource),
    }
}

/// The objects of the example service.
pub fn shop(client: &Client, kind: &str) -> Api<DynamicObject> {
    let version = match kind {
        "Pod" => "v1",
        "HTTPRoute" => "gateway.networking.k8s.io/v1",
        "Rollout" => "argoproj.io/v1alpha1",
        "Event" => "events.k8s.io/v1",
        _ => "apps/v1",
    };
    objects(client, version, kind, NAMESPACE)
}

/// Changes a part of an object, as somebody else would.
pub async fn change(client: &Client, kind: &str, name: &str, part: Value) -> DynamicObject {
    let patch = Patch::Merge(part);
    shop(client, kind).patch(name, &PatchParams::default(), &patch).await.unwrap_or_else(|e| panic!("{name}: {e}"))
}

pub async fn change_status(client: &Client, kind: &str, name: &str, status: Value) {
    let patch = Patch::Merge(json!({ "status": status }));
    let changed = shop(client, kind).patch_status(name, &PatchParams::default(), &patch).await;
    changed.unwrap_or_else(|e| panic!("{name}: {e}"));
}

/// The deployment's own example has a field that no server knows, which this one would drop.
fn known(mut object: Value) -> Value {
    let spec = object["spec"]["template"]["spec"].as_object_mut().expect("a template");
    spec.remove("fieldOfTheFuture");
    object
}

impl ControlPlane {
    /// Makes an object, whose version, kind and namespace it has itself.
    pub async fn put(&self, object: Value) -> DynamicObject {
        let word = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let api = objects(&self.admin, &word("/apiVersion"), &word("/kind"), &word("/metadata/namespace"));
        let made = serde_json::from_value(object.clone()).expect("an object");
        api.create(&PostParams::default(), &made).await.unwrap_or_else(|e| panic!("make {object}: {e}"))
    }

    pub async fn put_namespace(&self, name: &str) {
        self.put(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } })).await;
    }

    pub async fn get(&self, kind: &str, name: &str) -> DynamicObject {
        shop(&self.admin, kind).get(name).await.unwrap_or_else(|e| panic!("{kind} {name}: {e}"))
    }

    /// The namespaces of the example and of the guard, and the guard's account, with no rights yet. Gives a token of it, as a
    /// kubelet asks for it.
    pub async fn account(&self) -> String {
        for namespace in [NAMESPACE, ITS_NAMESPACE] {
            self.put_namespace(namespace).await;
        }
        let all = manifests();
        self.put(all.iter().find(|m| m["kind"] == "ServiceAccount").expect("shipped").clone()).await;
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": { "expirationSeconds": 3600 },
        });
        let accounts = objects(&self.admin, "v1", "ServiceAccount", ITS_NAMESPACE);
        let answer: Value =
            accounts.create_subresource("token", ACCOUNT, &PostParams::default(), &request).await.expect("a token");
        answer["status"]["token"].as_str().expect("a token").to_owned()
    }

    /// The rest of what is shipped for it. Returns when the server's own memory of who may do what has it, too.
    pub async fn grant(&self, token: &str) {
        for object in manifests().into_iter().filter(|m| m["kind"] != "ServiceAccount") {
            self.put(object).await;
        }
        let wanted = rights();
        loop {
            let mut has = self.rules(token, NAMESPACE).await;
            has.extend(self.rules(token, ITS_NAMESPACE).await);
            if wanted.is_subset(&has) {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// What the server says that who has this token may do in a namespace.
    pub async fn rules(&self, token: &str, namespace: &str) -> BTreeSet<Right> {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": { "namespace": namespace },
        });
        let asked = Request::post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews")
            .header("content-type", "application/json")
            .body(review.to_string().into_bytes())
            .expect("a request");
        let answer: Value = self.client(token).await.request(asked).await.expect("a review");
        assert_eq!(answer["status"]["incomplete"], false, "{answer}");
        let rules = answer["status"]["resourceRules"].as_array().expect("rules").clone();
        rules.iter().flat_map(|rule| flat(namespace, rule)).collect()
    }

    /// The guard with its account's rights, as they are shipped, and the services' namespace.
    pub async fn guard(&self, keys: &str) -> Kubernetes {
        let token = self.account().await;
        self.grant(&token).await;
        self.hands(&token, keys)
    }

    pub fn hands(&self, token: &str, keys: &str) -> Kubernetes {
        hands(self.kubeconfig(token), keys)
    }

    /// Puts an object in with an owner, whose uid the server has given.
    async fn put_owned(&self, mut object: Value, owner: &str, version: &str) {
        let name = object["metadata"]["ownerReferences"][0]["name"].as_str().expect("an owner").to_owned();
        let uid = self.get(owner, &name).await.uid().expect("a uid");
        object["metadata"]["ownerReferences"][0]["apiVersion"] = json!(version);
        object["metadata"]["ownerReferences"][0]["uid"] = json!(uid);
        self.put(object).await;
    }

    /// A Deployment with ReplicaSets and pods of these hashes, as its controller would leave them.
    pub async fn service(&self, name: &str, wants: &str, hashes: &[&str]) {
        let mut object = known(deployment(name, wants, 2));
        object["spec"]["selector"] = json!({ "matchLabels": { "app": name } });
        self.put(object).await;
        let status = json!({ "replicas": 2, "availableReplicas": 2, "readyReplicas": 2 });
        change_status(&self.admin, "Deployment", name, status).await;
        self.versions("Deployment", "apps/v1", name, hashes).await;
    }

    /// ReplicaSets and pods of these hashes.
    pub async fn versions(&self, owner: &str, version: &str, name: &str, hashes: &[&str]) {
        for hash in hashes {
            let mut set = known(replica_set(owner, name, hash, 1));
            set["spec"]["selector"] = json!({ "matchLabels": { "app": name } });
            let mut pod = pod(name, hash, "11111");
            pod["spec"]["containers"] = json!([{ "name": "app", "image": "checkout" }]);
            if owner == "Rollout" {
                for labels in ["/metadata/labels", "/spec/template/metadata/labels"] {
                    [&mut set, &mut pod].into_iter().filter_map(|o| o.pointer_mut(labels)).for_each(as_argo_labels);
                }
            }
            self.put_owned(set, owner, version).await;
            self.put_owned(pod, "ReplicaSet", "apps/v1").await;
        }
    }

    /// A decision on pods with the uids that the server gave.
    pub async fn decision(&self, action: Action, canary: &str) -> Decision {
        let mut decision = decision(action, "checkout", canary);
        for target in decision.stable.iter_mut().chain(&mut decision.canary) {
            let identity = target.identity.take().expect("a pod");
            let name = identity.name.rsplit('/').next().expect("a name");
            let hash = identity.run.rsplit(' ').next().expect("a hash");
            let uid = self.get("Pod", name).await.uid().expect("a uid");
            target.identity =
                Some(Identity { name: identity.name.clone(), run: format!("{uid} {hash}").into(), restarts: None });
        }
        decision
    }

    pub async fn reasons(&self) -> BTreeSet<String> {
        let events = shop(&self.admin, "Event").list(&Default::default()).await.expect("Events");
        events.items.iter().filter_map(|e| e.data["reason"].as_str().map(str::to_owned)).collect()
    }
}

pub fn hands(kubeconfig: PathBuf, keys: &str) -> Kubernetes {
    let config = config(kubeconfig, "", keys);
    Kubernetes::new(&config.kubernetes, &config.deployments[0])
}

fn as_argo_labels(labels: &mut Value) {
    let labels = labels.as_object_mut().expect("labels");
    let hash = labels.remove("pod-template-hash").expect("a hash");
    labels.insert("rollouts-pod-template-hash".into(), hash);
}

/// Applies what nobody carries out here, so that the guard does not see it in effect.
pub async fn apply(k: &Kubernetes, decision: &Decision) -> Plan {
    let plan = k.describe(decision).await.expect("possible");
    let quick = Plan { takes_at_most_ms: Some(1), ..plan.clone() };
    let failed = k.apply(decision, &quick).await.expect_err("there is no controller");
    assert!(matches!(failed, Error::Failed(_)), "{failed}");
    plan
}
