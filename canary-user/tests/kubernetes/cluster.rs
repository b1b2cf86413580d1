//! Services as they stand in a cluster, and decisions on them.

use std::path::Path;

use canary_user::{
    config::Config,
    guard::{Action, Decision},
    orchestrator::kubernetes::Kubernetes,
    targets::{Identity, Role, Target},
};
use serde_json::{Value, json};

use crate::server::{Server, Store};

pub const NAMESPACE: &str = "shop";

/// A service in a cluster of its own, with the guard's hands on it.
pub struct Cluster {
    pub server: Server,
    pub kubernetes: Kubernetes,
}

impl Cluster {
    /// `keys`: what else the deployment has in the configuration.
    pub async fn with(keys: &str) -> Self {
        let server = Server::start().await;
        let kubernetes = hands(&server, "", keys);
        Self { server, kubernetes }
    }

    /// Two Deployments, checkout and checkout-canary.
    pub async fn two_deployments(keys: &str) -> Self {
        let cluster = Self::with(keys).await;
        let mut store = cluster.server.store();
        for (name, hash, revision) in [("checkout", "aaa", 7), ("checkout-canary", "bbb", 3)] {
            store.put("deployments", deployment(name, hash, 2));
            store.put("replicasets", replica_set("Deployment", name, hash, revision));
            store.put("pods", pod(name, hash, "11111"));
        }
        drop(store);
        cluster
    }

    /// One Deployment, checkout, in the middle of a rollout from aaa (revision 3) to bbb (revision 4).
    pub async fn rolling(keys: &str) -> Self {
        let cluster = Self::with(keys).await;
        let mut store = cluster.server.store();
        store.put("deployments", deployment("checkout", "bbb", 2));
        for (hash, revision) in [("zzz", 2), ("aaa", 3), ("bbb", 4)] {
            store.put("replicasets", replica_set("Deployment", "checkout", hash, revision));
        }
        for hash in ["aaa", "bbb"] {
            store.put("pods", pod("checkout", hash, "11111"));
        }
        drop(store);
        cluster
    }

    /// The same as an Argo Rollout.
    pub async fn rollout() -> Self {
        let cluster = Self::with("").await;
        let mut store = cluster.server.store();
        store.put(
            "rollouts",
            json!({
                "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout",
                "metadata": { "name": "checkout", "namespace": NAMESPACE },
                "spec": { "replicas": 2 },
                "status": { "stableRS": "aaa", "currentPodHash": "bbb", "phase": "Progressing" },
            }),
        );
        for hash in ["aaa", "bbb"] {
            for (resource, mut object) in
                [("replicasets", replica_set("Rollout", "checkout", hash, 1)), ("pods", pod("checkout", hash, "11111"))]
            {
                let labels = object["metadata"]["labels"].as_object_mut().expect("labels");
                let hash = labels.remove("pod-template-hash").expect("a hash");
                labels.insert("rollouts-pod-template-hash".into(), hash);
                store.put(resource, object);
            }
        }
        drop(store);
        cluster
    }

    pub fn get(&self, resource: &str, name: &str) -> Value {
        self.server.store().get(resource, NAMESPACE, name).unwrap_or_else(|| panic!("no {resource} {name}")).clone()
    }

    pub fn change(&self, resource: &str, name: &str, change: impl FnOnce(&mut Value)) {
        self.server.store().change(resource, NAMESPACE, name, change);
    }

    pub fn meanwhile(&self, act: impl FnOnce(&mut Store) + Send + 'static) {
        self.server.store().meanwhile.push(Box::new(act));
    }

    /// The calls that change something, in order: "patch deployments/scale checkout-canary".
    pub fn changes(&self) -> Vec<String> {
        self.writes(false)
    }

    /// The same of those that were only tried out.
    pub fn dry_runs(&self) -> Vec<String> {
        self.writes(true)
    }

    fn writes(&self, dry_run: bool) -> Vec<String> {
        let store = self.server.store();
        let writes = store.calls.iter().filter(|c| !["get", "list"].contains(&c.verb.as_str()));
        let writes = writes.filter(|c| c.resource != "events" && c.dry_run == dry_run);
        writes.map(|c| format!("{} {} {}", c.verb, c.resource, c.name)).collect()
    }
}

/// The backend, as a configuration makes it.
pub fn hands(server: &Server, section: &str, keys: &str) -> Kubernetes {
    let config = config(server.kubeconfig(), section, keys);
    Kubernetes::new(&config.kubernetes, &config.deployments[0])
}

pub fn config(kubeconfig: impl AsRef<Path>, section: &str, keys: &str) -> Config {
    let text = format!(
        "[kubernetes]\nkubeconfig = \"{}\"\nnode = \"node-a\"\n{section}\n\
         [[deployment]]\nname = \"checkout\"\nmode = \"rollback\"\norchestrator = \"kubernetes\"\n\
         stable = {{ kubernetes = {{ namespace = \"shop\", selector = \"app=checkout,track=stable\" }} }}\n\
         canary = {{ kubernetes = {{ namespace = \"shop\", selector = \"app=checkout,track=canary\" }} }}\n{keys}\n",
        kubeconfig.as_ref().display()
    );
    Config::parse(&text, "test").unwrap_or_else(|e| panic!("{e}"))
}

fn template(name: &str, hash: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": name } },
        "spec": {
            "containers": [{ "name": "app", "image": format!("checkout:{hash}") }],
            // A field that no version of this client has heard of: it has to come back as it was.
            "fieldOfTheFuture": { "of": hash },
        },
    })
}

pub fn deployment(name: &str, hash: &str, replicas: i64) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": name, "namespace": NAMESPACE, "generation": 5 },
        "spec": { "replicas": replicas, "progressDeadlineSeconds": 1, "template": template(name, hash) },
        "status": { "replicas": replicas, "availableReplicas": replicas },
    })
}

pub fn replica_set(owner: &str, name: &str, hash: &str, revision: i64) -> Value {
    let mut template = template(name, hash);
    template["metadata"]["labels"]["pod-template-hash"] = json!(hash);
    let resource = if owner == "Rollout" { "rollouts" } else { "deployments" };
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": format!("{name}-{hash}"), "namespace": NAMESPACE, "labels": { "app": name, "pod-template-hash": hash },
            "annotations": { "deployment.kubernetes.io/revision": revision.to_string() },
            "ownerReferences": [{
                "apiVersion": "v1", "kind": owner, "name": name, "uid": format!("uid-of-{resource}-{name}"), "controller": true,
            }],
        },
        "spec": { "replicas": 1, "template": template },
        "status": { "replicas": 1 },
    })
}

pub fn pod(name: &str, hash: &str, random: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("{name}-{hash}-{random}"), "namespace": NAMESPACE,
            "labels": { "app": name, "pod-template-hash": hash },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{name}-{hash}"),
                "uid": format!("uid-of-replicasets-{name}-{hash}"), "controller": true,
            }],
        },
        "spec": { "nodeName": "node-a", "terminationGracePeriodSeconds": 1 },
        "status": { "phase": "Running" },
    })
}

pub fn target(role: Role, pod: &str, hash: &str) -> Target {
    Target {
        deployment: "checkout".into(),
        role,
        version: hash.into(),
        cgroup: format!("/kubepods/{pod}").into(),
        incarnation: 1,
        identity: Some(Identity {
            name: format!("{NAMESPACE}/{pod}").into(),
            run: format!("uid-of-pods-{pod} {hash}").into(),
            restarts: None,
        }),
    }
}

/// A decision on the pod of `stable` and that of `canary`, each the name of its workload.
pub fn decision(action: Action, stable: &str, canary: &str) -> Decision {
    let one = |role, name: &str, hash: &str| vec![target(role, &format!("{name}-{hash}-11111"), hash)];
    Decision {
        id: "checkout-1".into(),
        deployment: "checkout".into(),
        unix_ms: 1,
        window: 1,
        action,
        reason: "CPU per turnaround +64 %".into(),
        recommendation: None,
        gates: Vec::new(),
        canary: one(Role::Canary, canary, "bbb"),
        stable: one(Role::Stable, stable, "aaa"),
    }
}
