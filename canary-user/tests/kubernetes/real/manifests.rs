//! `deploy/kubernetes` as kubectl applies it: its types, its admission, and the pods that the DaemonSet's controller makes of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use axum::http::Request;
use kube::ResourceExt as _;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    control_plane::{ControlPlane, With},
    kubelet::{Kubelet, NODE},
    objects::objects,
};
use crate::cluster::NAMESPACE;

#[path = "../../../../xtask/src/setup/kubectl/find.rs"]
mod find;

/// Of the API server's minor versions the first that knows `appArmorProfile`.
const KNOWS_APPARMOR: u32 = 30;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes").join(name).canonicalize().expect("shipped")
}

impl ControlPlane {
    fn run(&self, kubectl: &Path, arguments: &[&str]) -> Output {
        let kubeconfig = self.kubeconfig("admin");
        let cache = kubeconfig.with_file_name("kubectl-cache");
        let mut command = Command::new(kubectl);
        command.arg("--kubeconfig").arg(kubeconfig).arg("--cache-dir").arg(cache).args(arguments);
        command.output().expect("kubectl runs")
    }

    /// Has a directory applied, as its documentation says, and by the server's own merge, which takes no field that is not in
    /// its types.
    fn apply(&self, kubectl: &Path, directory: &Path) {
        for how in [&[][..], &["--server-side", "--force-conflicts"]] {
            let output = self.run(kubectl, &[&["apply", "-k", directory.to_str().expect("UTF-8")], how].concat());
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{} {how:?}: {said}", directory.display());
        }
    }

    async fn minor_version(&self) -> u32 {
        let asked = Request::get("/version").body(Vec::new()).expect("a request");
        let version: Value = self.admin.request(asked).await.expect("a version");
        let minor = version["minor"].as_str().expect("a number");
        minor.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().expect("a number")
    }
}

/// That of the PATH, or the one that setup installs; `None` after saying why the test is skipped.
fn find_kubectl(test: &str) -> Option<PathBuf> {
    let found = find::find(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    found.inspect_err(|why| println!("SKIP {test}: {why}")).ok()
}

#[tokio::test]
async fn a_real_api_server_takes_each_overlay() {
    let test = "a_real_api_server_takes_each_overlay";
    let Some(kubectl) = find_kubectl(test) else { return };
    let Some(plane) = ControlPlane::start(test, With::ApiServer).await else { return };
    for overlay in ["observe", "advise", "enforce"] {
        plane.apply(&kubectl, &shipped("overlays").join(overlay));
    }
    let daemonsets = objects(&plane.admin, "apps/v1", "DaemonSet", "canary-guard");
    let spec = daemonsets.get("canary-guard").await.expect("there").data["spec"]["template"]["spec"].clone();
    let secret = spec["volumes"].as_array().expect("volumes").iter().find(|v| v["secret"].is_object());
    assert_eq!(secret.expect("that of the webhook")["secret"]["defaultMode"], 0o400);
    let policies = objects(&plane.admin, "networking.k8s.io/v1", "NetworkPolicy", "canary-guard");
    let policy = policies.get("canary-guard").await.expect("there");
    assert_eq!(policy.data["spec"]["egress"][1]["ports"][0]["port"], 8080);
    let restricted = objects(&plane.admin, "v1", "Namespace", "").get("canary-actor").await.expect("there");
    assert_eq!(restricted.labels()["pod-security.kubernetes.io/enforce"], "restricted");
}

#[tokio::test]
async fn a_real_api_server_takes_the_least_privileges() {
    let test = "a_real_api_server_takes_the_least_privileges";
    let Some(kubectl) = find_kubectl(test) else { return };
    let Some(plane) = ControlPlane::start(test, With::ApiServer).await else { return };
    let minor = plane.minor_version().await;
    if minor < KNOWS_APPARMOR {
        println!("SKIP {test}: appArmorProfile came with Kubernetes 1.{KNOWS_APPARMOR}, and this is 1.{minor}");
        return;
    }
    plane.apply(&kubectl, &shipped("overlays/least-privilege"));
    let daemonsets = objects(&plane.admin, "apps/v1", "DaemonSet", "canary-guard");
    let set = daemonsets.get("canary-guard").await.expect("there");
    let context = &set.data["spec"]["template"]["spec"]["containers"][0]["securityContext"];
    assert_eq!((&context["privileged"], &context["appArmorProfile"]["type"]), (&json!(false), &json!("Unconfined")));
}

#[tokio::test]
async fn a_real_daemonset_makes_the_pod_of_a_guard_that_acts() {
    let test = "a_real_daemonset_makes_the_pod_of_a_guard_that_acts";
    let Some(kubectl) = find_kubectl(test) else { return };
    let Some(plane) = ControlPlane::start(test, With::Controllers).await else { return };
    let _kubelet = Kubelet::start(&plane, "");
    plane.put_namespace(NAMESPACE).await;
    let labels = json!({ "kubernetes.io/os": "linux" });
    plane.put(json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE, "labels": labels } })).await;
    let directory = tempfile::tempdir().expect("a directory");
    let own = directory.path().canonicalize().expect("it is there");
    // kustomize takes relative paths only.
    let up = "../".repeat(own.components().count() - 1);
    let at = |name: &str| format!("{up}{}", shipped(name).display().to_string().trim_start_matches('/'));
    let text = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
        "resources": [at("overlays/observe")], "components": [at("components/kubernetes")],
    });
    fs::write(own.join("kustomization.yaml"), text.to_string()).expect("write the overlay");
    plane.apply(&kubectl, &own);
    let daemonsets = objects(&plane.admin, "apps/v1", "DaemonSet", "canary-guard");
    while daemonsets.get("canary-guard").await.expect("there").data["status"]["numberReady"] != 1 {
        sleep(Duration::from_millis(100)).await;
    }
    let pods = objects(&plane.admin, "v1", "Pod", "canary-guard").list(&Default::default()).await.expect("pods").items;
    let [pod] = pods.as_slice() else { panic!("one node, {} pods", pods.len()) };
    let spec = &pod.data["spec"];
    assert_eq!((&spec["priority"], &spec["preemptionPolicy"]), (&json!(1_000_000), &json!("Never")));
    assert_eq!(spec["serviceAccountName"], "canary-guard-acting");
    let container = &spec["containers"][0];
    assert_eq!(container["securityContext"]["privileged"], true);
    assert_eq!(container["env"][0]["valueFrom"]["fieldRef"]["fieldPath"], "spec.nodeName");
    let token = "/var/run/secrets/kubernetes.io/serviceaccount";
    let mounts = container["volumeMounts"].as_array().expect("mounts");
    assert!(mounts.iter().any(|mount| mount["mountPath"] == token), "as the guard looks for its account: {mounts:?}");
}
