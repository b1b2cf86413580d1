//! The same on a real kube-apiserver with etcd, as the service account that `deploy/kubernetes/components/kubernetes/rbac.yaml` makes: the server's own
//! defaults, versions, JSON Patch and RBAC. Nobody carries Deployments out here: what is looked at is what they want.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use canary_user::{
    guard::{Action, Decision},
    orchestrator::{Error, Orchestrator as _, Plan, kubernetes::Kubernetes},
    targets::Identity,
};
use kube::{
    Api, Client, Config, ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::cluster::{NAMESPACE, config, decision, deployment, pod, replica_set};

const GUARD: &str = "system:serviceaccount:canary-guard:canary-guard-acting";

/// Both servers; ended when dropped.
struct ControlPlane {
    directory: TempDir,
    children: Vec<Child>,
    port: u16,
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port()
}

impl ControlPlane {
    /// `None`, and the reason is printed, where there is none to start.
    async fn start(test: &str) -> Option<Self> {
        let Some(assets) = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from) else {
            println!("SKIP {test}: KUBEBUILDER_ASSETS names no directory with kube-apiserver and etcd");
            return None;
        };
        for program in ["kube-apiserver", "etcd"] {
            if !assets.join(program).exists() {
                println!("SKIP {test}: there is no {program} in {}", assets.display());
                return None;
            }
        }
        let directory = TempDir::new().expect("a directory");
        let at = |name: &str| directory.path().join(name).display().to_string();
        let key = Command::new("openssl").args(["genrsa", "-out", &at("key"), "2048"]).stderr(Stdio::null()).status();
        if !key.is_ok_and(|status| status.success()) {
            println!("SKIP {test}: there is no openssl to make a key with");
            return None;
        }
        fs::write(at("tokens"), format!("admin,admin,1,system:masters\nguard,{GUARD},2\n")).expect("write the tokens");
        let (client, peer, port) = (free_port(), free_port(), free_port());
        let start = |program: &str, arguments: &[String]| {
            let log = fs::File::create(at(&format!("{program}.log"))).expect("a log");
            let mut command = Command::new(assets.join(program));
            command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
            command.spawn().unwrap_or_else(|e| panic!("start {program}: {e}"))
        };
        let [client, peer] = [client, peer].map(|port| format!("http://127.0.0.1:{port}"));
        let etcd = [
            format!("--data-dir={}", at("etcd")),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            "--unsafe-no-fsync".into(),
        ];
        let apiserver = [
            format!("--etcd-servers={client}"),
            "--bind-address=127.0.0.1".into(),
            format!("--secure-port={port}"),
            format!("--cert-dir={}", at("certificates")),
            format!("--token-auth-file={}", at("tokens")),
            "--authorization-mode=RBAC".into(),
            "--service-cluster-ip-range=10.0.0.0/24".into(),
            "--service-account-issuer=https://localhost".into(),
            format!("--service-account-key-file={}", at("key")),
            format!("--service-account-signing-key-file={}", at("key")),
            "--disable-admission-plugins=ServiceAccount".into(),
        ];
        let children = vec![start("etcd", &etcd), start("kube-apiserver", &apiserver)];
        let plane = Self { directory, children, port };
        let admin = plane.client("admin").await;
        for _ in 0..600 {
            if admin.apiserver_version().await.is_ok()
                && plane.put("v1", "Namespace", "", json!({ "metadata": { "name": NAMESPACE } })).await
            {
                return Some(plane);
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("{}", fs::read_to_string(plane.directory.path().join("kube-apiserver.log")).unwrap_or_default());
    }

    fn kubeconfig(&self, token: &str) -> PathBuf {
        let path = self.directory.path().join(format!("kubeconfig-{token}"));
        let server = format!("https://127.0.0.1:{}", self.port);
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{ "name": "test", "cluster": { "server": server, "insecure-skip-tls-verify": true } }],
            "users": [{ "name": "test", "user": { "token": token } }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
        });
        fs::write(&path, text.to_string()).expect("write the kubeconfig");
        path
    }

    async fn client(&self, token: &str) -> Client {
        let read = Kubeconfig::read_from(self.kubeconfig(token)).expect("a kubeconfig");
        let config =
            Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.expect("a configuration");
        Client::try_from(config).expect("a client")
    }

    async fn objects(&self, version: &str, kind: &str, namespace: &str) -> Api<DynamicObject> {
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let client = self.client("admin").await;
        match namespace {
            "" => Api::all_with(client, &resource),
            namespace => Api::namespaced_with(client, namespace, &resource),
        }
    }

    /// Makes an object; whether that went well.
    async fn put(&self, version: &str, kind: &str, namespace: &str, mut object: Value) -> bool {
        (object["apiVersion"], object["kind"]) = (json!(version), json!(kind));
        let object = serde_json::from_value(object).expect("an object");
        self.objects(version, kind, namespace).await.create(&PostParams::default(), &object).await.is_ok()
    }

    async fn get(&self, kind: &str, name: &str) -> DynamicObject {
        let version = if kind == "Pod" { "v1" } else { "apps/v1" };
        self.objects(version, kind, NAMESPACE).await.get(name).await.expect("there")
    }

    /// The Roles as they are shipped.
    async fn grant(&self) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes/components/kubernetes/rbac.yaml");
        let text = fs::read_to_string(path).expect("the manifest");
        assert!(self.put("v1", "Namespace", "", json!({ "metadata": { "name": "canary-guard" } })).await);
        for object in serde_saphyr::from_multiple::<Value>(&text).expect("YAML") {
            let words = |key: &str| object[key].as_str().expect("a word").to_owned();
            let namespace = object["metadata"]["namespace"].as_str().expect("a namespace").to_owned();
            assert!(self.put(&words("apiVersion"), &words("kind"), &namespace, object.clone()).await, "{object}");
        }
    }

    /// Puts an object in with an owner, whose uid the server has given.
    async fn put_owned(&self, version: &str, kind: &str, mut object: Value, owner: &str) {
        let name = object["metadata"]["ownerReferences"][0]["name"].as_str().expect("an owner").to_owned();
        let uid = self.get(owner, &name).await.uid().expect("a uid");
        object["metadata"]["ownerReferences"][0]["apiVersion"] = json!("apps/v1");
        object["metadata"]["ownerReferences"][0]["uid"] = json!(uid);
        assert!(self.put(version, kind, NAMESPACE, object.clone()).await, "{object}");
    }

    /// A Deployment with ReplicaSets and pods of these hashes, as its controller would leave them.
    async fn service(&self, name: &str, wants: &str, hashes: &[&str]) {
        let selector = json!({ "matchLabels": { "app": name } });
        let mut object = deployment(name, wants, 2);
        object["spec"]["selector"] = selector.clone();
        object["spec"]["template"]["spec"].as_object_mut().expect("a table").remove("fieldOfTheFuture");
        assert!(self.put("apps/v1", "Deployment", NAMESPACE, object).await);
        let status = Patch::Merge(json!({ "status": { "replicas": 2, "availableReplicas": 2, "readyReplicas": 2 } }));
        let deployments = self.objects("apps/v1", "Deployment", NAMESPACE).await;
        deployments.patch_status(name, &PatchParams::default(), &status).await.expect("a status");
        for hash in hashes {
            let mut set = replica_set("Deployment", name, hash, 1);
            set["spec"]["selector"] = selector.clone();
            set["spec"]["template"]["spec"].as_object_mut().expect("a table").remove("fieldOfTheFuture");
            self.put_owned("apps/v1", "ReplicaSet", set, "Deployment").await;
            let mut pod = pod(name, hash, "11111");
            pod["spec"]["containers"] = json!([{ "name": "app", "image": "checkout" }]);
            self.put_owned("v1", "Pod", pod, "ReplicaSet").await;
        }
    }

    fn hands(&self) -> Kubernetes {
        let config = config(self.kubeconfig("guard"), "", "");
        Kubernetes::new(&config.kubernetes, &config.deployments[0])
    }

    /// A decision on pods with the uids that the server gave.
    async fn decision(&self, action: Action, canary: &str) -> Decision {
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
}

/// Applies what nobody carries out.
async fn apply(k: &Kubernetes, decision: &Decision) -> Plan {
    // A Role that was made just now is not known to the server's own cache at once.
    let mut described = k.describe(decision).await;
    for _ in 0..100 {
        if !described.as_ref().is_err_and(|e| e.to_string().contains("forbidden")) {
            break;
        }
        sleep(Duration::from_millis(100)).await;
        described = k.describe(decision).await;
    }
    let plan = described.expect("possible");
    let quick = Plan { takes_at_most_ms: Some(1), ..plan.clone() };
    let failed = k.apply(decision, &quick).await.expect_err("there is no controller");
    assert!(matches!(failed, Error::Failed(_)), "{failed}");
    plan
}

#[tokio::test]
async fn a_real_api_server_takes_the_changes_and_the_roles_allow_them() {
    let test = "a_real_api_server_takes_the_changes_and_the_roles_allow_them";
    let Some(plane) = ControlPlane::start(test).await else { return };
    let k = plane.hands();

    plane.service("checkout", "aaa", &["aaa"]).await;
    plane.service("checkout-canary", "bbb", &["bbb"]).await;
    let drain = plane.decision(Action::Drain, "checkout-canary").await;
    let forbidden = k.describe(&drain).await.expect_err("no Role yet");
    assert!(forbidden.to_string().contains("forbidden"), "{forbidden}");
    plane.grant().await;
    let plan = apply(&k, &drain).await;
    assert_eq!(plane.get("Deployment", "checkout-canary").await.data["spec"]["replicas"], 0);
    k.undo(&drain, &plan).await.expect("undone");
    assert_eq!(plane.get("Deployment", "checkout-canary").await.data["spec"]["replicas"], 2);
    let events = plane.objects("events.k8s.io/v1", "Event", NAMESPACE).await.list(&Default::default()).await;
    assert!(events.expect("Events").items.iter().any(|e| e.data["reason"] == "CanaryUndo"));
}

#[tokio::test]
async fn a_real_api_server_takes_a_template_back() {
    let Some(plane) = ControlPlane::start("a_real_api_server_takes_a_template_back").await else { return };
    plane.grant().await;
    plane.service("checkout", "bbb", &["aaa", "bbb"]).await;
    let (k, rollback) = (plane.hands(), plane.decision(Action::Rollback, "checkout").await);
    let image = async || {
        let deployment = plane.get("Deployment", "checkout").await;
        deployment.data["spec"]["template"]["spec"]["containers"][0]["image"].clone()
    };
    let plan = apply(&k, &rollback).await;
    assert_eq!(image().await, "checkout:aaa");
    k.undo(&rollback, &plan).await.expect("undone");
    assert_eq!(image().await, "checkout:bbb");
}
