//! `canary run` on pods: real cgroups with the names that a kubelet and containerd give them, real processes in them, and an API
//! server that keeps versions and the `test` of JSON Patch. What a kubelet does to processes, the test does.

#[allow(dead_code, reason = "the backend's own tests use more of it")]
#[path = "../../canary-user/tests/kubernetes/cluster.rs"]
mod cluster;
#[allow(dead_code, reason = "the backend's own tests use more of it")]
#[path = "../../canary-user/tests/kubernetes/server.rs"]
mod server;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::Child,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use canary_e2e::{
    Sandbox,
    guard::{Configuration, Guard, PATIENCE},
    kernel_available,
    service::{Service, Traffic, outside},
    wait_until,
};
use canary_user::guard::Stage::{self, *};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    cluster::{NAMESPACE, deployment, pod, replica_set},
    server::Server,
};

/// Ends on SIGTERM; its children crash once it is told so.
const SERVICE: &str = "trap 'exit 0' TERM; while :; do [ -e CRASH ] && sh -c 'kill -SEGV $$'; sleep 0.1; done";
const STABLE: &str = "11111111-2222-4333-8444-555555555555";
const CANARY: &str = "66666666-7777-4888-9999-aaaaaaaaaaaa";
const NEXT: &str = "bbbbbbbb-cccc-4ddd-8eee-ffffffffffff";
/// Those of other tests: a guard finds what bears a UID wherever it is on the machine.
const FIRST_STABLE: &str = "33333333-4444-4555-8666-777777777777";
const FIRST_CANARY: &str = "88888888-9999-4aaa-8bbb-cccccccccccc";
const SECOND_CANARY: &str = "99999999-aaaa-4bbb-8ccc-dddddddddddd";
const ROUTED_STABLE: &str = "22222222-3333-4444-8555-666666666666";
const ROUTED_CANARY: &str = "77777777-8888-4999-8aaa-bbbbbbbbbbbb";

/// A node with one pod of each version, and what runs in them.
struct Node {
    /// Serves for as long as it is there.
    _runtime: tokio::runtime::Runtime,
    server: Server,
    sandbox: Sandbox,
    configuration: Configuration,
    children: Vec<Child>,
}

impl Drop for Node {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Node {
    /// `keys`: mode and what else the deployment has in the configuration; `stable`, `canary`: UIDs of the pods.
    fn start(keys: &str, stable: &str, canary: &str) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Runtime::new()?;
        let server = runtime.block_on(Server::start());
        let configuration = Configuration::new(&format!(
            "[kubernetes]\nkubeconfig = {:?}\nnode = \"node-a\"\nlease_namespace = \"canary-guard\"\n\
             [[deployment]]\nname = \"shop\"\norchestrator = \"kubernetes\"\n{keys}\n\
             budget = {{ per_hour = 60, cooldown = \"0s\" }}\n\
             stable = {{ kubernetes = {{ namespace = \"shop\", selector = \"app=checkout\" }} }}\n\
             canary = {{ kubernetes = {{ namespace = \"shop\", selector = \"app=checkout-canary\" }} }}\n",
            server.kubeconfig()
        ))?;
        let sandbox = Sandbox::new()?;
        let mut node = Self { _runtime: runtime, server, sandbox, configuration, children: Vec::new() };
        for (name, hash, uid) in [("checkout", "aaa", stable), ("checkout-canary", "bbb", canary)] {
            let mut store = node.server.store();
            store.put("deployments", deployment(name, hash, 1));
            store.put("replicasets", replica_set("Deployment", name, hash, 1));
            drop(store);
            node.start_pod(name, hash, uid)?;
        }
        node.server.store().put(
            "leases",
            json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                    "metadata": { "name": "canary-guard-shop", "namespace": "canary-guard" } }),
        );
        Ok(node)
    }

    fn cgroup(&self, uid: &str) -> String {
        let slice = format!("kubepods-burstable-pod{}.slice", uid.replace('-', "_"));
        format!("{}/kubepods.slice/kubepods-burstable.slice/{slice}", self.sandbox.base)
    }

    fn container(&self, uid: &str) -> String {
        format!("{}/cri-containerd-{}.scope", self.cgroup(uid), uid.replace('-', ""))
    }

    /// What scheduler, kubelet and containerd do for a new pod.
    fn start_pod(&mut self, name: &str, hash: &str, uid: &str) -> anyhow::Result<()> {
        let below = self.container(uid).trim_start_matches(&format!("{}/", self.sandbox.base)).to_owned();
        let container = self.sandbox.cgroup(&below)?;
        let crash = self.crash_file(name);
        let script = SERVICE.replace("CRASH", &crash.display().to_string());
        self.children.push(self.sandbox.run(&container, &script)?);
        let mut pod = pod(name, hash, &uid[..5]);
        pod["metadata"]["uid"] = json!(uid);
        self.server.store().put("pods", pod);
        Ok(())
    }

    /// A guard that has found both pods.
    fn guard(&self) -> anyhow::Result<Guard> {
        let guard = Guard::start(&self.configuration)?;
        let found = |role| guard.pages.version(role).is_ok_and(|version| !version.is_null());
        let both = wait_until("both pods are found", PATIENCE, || found("stable") && found("canary"));
        both.with_context(|| guard.said())?;
        Ok(guard)
    }

    fn crash_file(&self, name: &str) -> PathBuf {
        self.configuration.dir.path().join(format!("crash-{name}"))
    }

    fn crash(&self, name: &str) -> anyhow::Result<()> {
        fs::write(self.crash_file(name), "").context("have it crash")
    }

    fn wants_pod(&self, uid: &str) -> bool {
        self.server.store().all("pods").iter().any(|pod| pod["metadata"]["uid"] == uid)
    }

    /// What a kubelet does with a pod that is not wanted any more.
    fn end_pod(&mut self, uid: &str) -> anyhow::Result<()> {
        let container = self.container(uid);
        for pid in self.sandbox.pids(&container) {
            let pid = Pid::from_raw(pid).context("a pid")?;
            // One that has ended in between is none to be sent anything.
            let _ = kill_process(pid, Signal::TERM);
        }
        wait_until("the pod's processes end", PATIENCE, || {
            self.children.iter_mut().for_each(|child| drop(child.try_wait()));
            self.sandbox.pids(&container).is_empty()
        })?;
        for cgroup in [container, self.cgroup(uid)] {
            let dir = self.sandbox.root.dir(&cgroup);
            wait_until("the cgroup can be removed", PATIENCE, || fs::remove_dir(&dir).is_ok())?;
        }
        Ok(())
    }

    fn get(&self, resource: &str, name: &str) -> anyhow::Result<Value> {
        self.server.store().get(resource, NAMESPACE, name).cloned().with_context(|| format!("{resource} {name}"))
    }
}

#[test]
fn a_canary_that_crashes_is_scaled_to_0_and_its_return_is_noticed() -> anyhow::Result<()> {
    if !kernel_available("a_canary_that_crashes_is_scaled_to_0_and_its_return_is_noticed") {
        return Ok(());
    }
    let mut node = Node::start("mode = \"rollback\"", STABLE, CANARY)?;
    let guard = node.guard()?;
    node.crash("checkout-canary")?;
    let unwanted = wait_until("the pod is not wanted any more", PATIENCE, || !node.wants_pod(CANARY));
    unwanted.with_context(|| format!("{}\n{:#?}", guard.said(), node.configuration.history()))?;
    node.end_pod(CANARY)?;
    let until = |node: &Node, stage: Stage, words: &str| {
        node.configuration.until(stage, words, PATIENCE).with_context(|| guard.said())
    };
    until(&node, Verified, "Deployment shop/checkout-canary wants no pods")?;
    assert_eq!(node.get("deployments", "checkout-canary")?["spec"]["replicas"], 0);
    assert_eq!(node.get("deployments", "checkout")?["spec"]["replicas"], 1);
    assert!(node.wants_pod(STABLE), "stable runs on");

    let carried_out = node.configuration.history().into_iter().find(|e| e.stages.iter().any(|s| s.stage == Applied));
    let entry = carried_out.context("a decision was carried out")?;
    let identity = entry.decision.canary[0].identity.as_ref().context("a pod")?;
    assert_eq!(&*identity.name, "shop/checkout-canary-bbb-66666");
    assert_eq!(&*identity.run, format!("{CANARY} bbb"));
    assert_eq!(&*entry.decision.canary[0].cgroup, node.cgroup(CANARY));
    let led = entry.decision.gates.iter().find(|g| g.gate == "leadership").context("it was asked who leads")?;
    assert_eq!(led.reason, "this guard holds the Lease canary-guard-shop");

    // Somebody scales it up again: it is told who that was, and not fought.
    node.server.store().change("deployments", NAMESPACE, "checkout-canary", |d| {
        d["spec"]["replicas"] = json!(1);
        d["metadata"]["managedFields"] = json!([{
            "manager": "helm", "operation": "Update", "apiVersion": "apps/v1", "time": "2026-11-27T10:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": { "f:spec": { "f:replicas": {} } },
        }]);
    });
    node.start_pod("checkout-canary", "bbb", NEXT)?;
    until(&node, Reverted, "the canary is back")?;
    until(&node, Reverted, "as helm wrote at 2026-11-27T10:00:00Z")?;
    assert_eq!(node.get("deployments", "checkout-canary")?["spec"]["replicas"], 1);
    Ok(())
}

#[test]
fn another_rollout_after_a_rollback_is_no_return_and_is_guarded_too() -> anyhow::Result<()> {
    if !kernel_available("another_rollout_after_a_rollback_is_no_return_and_is_guarded_too") {
        return Ok(());
    }
    let mut node = Node::start("mode = \"rollback\"", FIRST_STABLE, FIRST_CANARY)?;
    let guard = node.guard()?;
    let told = |node: &Node| format!("{}\n{:#?}", guard.said(), node.configuration.history());
    let verified = |node: &Node| {
        let history = node.configuration.history();
        history.iter().filter(|e| e.stages.iter().any(|s| s.stage == Verified)).count()
    };
    for (hash, uid, times) in [("bbb", FIRST_CANARY, 1), ("ccc", SECOND_CANARY, 2)] {
        if times == 2 {
            // Somebody rolls the next version out, which does not crash by itself.
            fs::remove_file(node.crash_file("checkout-canary"))?;
            let mut store = node.server.store();
            store.put("replicasets", replica_set("Deployment", "checkout-canary", hash, 2));
            let spec = deployment("checkout-canary", hash, 1)["spec"].clone();
            store.change("deployments", NAMESPACE, "checkout-canary", |d| d["spec"] = spec);
            drop(store);
            node.start_pod("checkout-canary", hash, uid)?;
            let found = || guard.pages.version("canary").is_ok_and(|version| !version.is_null());
            wait_until("the next one is found", PATIENCE, found).with_context(|| told(&node))?;
            thread::sleep(Duration::from_secs(3));
        }
        node.crash("checkout-canary")?;
        wait_until("it is not wanted any more", PATIENCE, || !node.wants_pod(uid)).with_context(|| told(&node))?;
        node.end_pod(uid)?;
        wait_until("that is verified", PATIENCE, || verified(&node) == times).with_context(|| told(&node))?;
    }
    let reverted = node.configuration.history().iter().any(|e| e.stages.iter().any(|s| s.stage == Reverted));
    anyhow::ensure!(!reverted, "{}", told(&node));
    Ok(())
}

/// Asks on a connection of its own each time, as a kubelet does, until it is dropped.
struct Probes(Arc<AtomicBool>);

impl Probes {
    fn start(address: SocketAddr, every: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        thread::spawn(move || {
            while !asked.load(Ordering::Relaxed) {
                let asked = outside(|| TcpStream::connect(address)).and_then(|mut stream| {
                    stream.write_all(&[b'q'; 100])?;
                    stream.read_exact(&mut [0; 1000])
                });
                asked.expect("it answers");
                thread::sleep(every);
            }
        });
        Self(stop)
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_canary_that_a_route_keeps_requests_from_is_quiet_beside_its_probes() -> anyhow::Result<()> {
    if !kernel_available("a_canary_that_a_route_keeps_requests_from_is_quiet_beside_its_probes") {
        return Ok(());
    }
    let route = "http_route = { name = \"checkout\", canary = \"checkout-canary\" }";
    let node = Node::start(&format!("mode = \"drain\"\n{route}"), ROUTED_STABLE, ROUTED_CANARY)?;
    let mut store = node.server.store();
    store.put(
        "httproutes",
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": { "name": "checkout", "namespace": NAMESPACE },
            "spec": { "rules": [{ "backendRefs": [{ "name": "checkout" }, { "name": "checkout-canary" }] }] },
        }),
    );
    let probe = json!({ "httpGet": { "path": "/", "port": 8080 }, "periodSeconds": 1 });
    store.change("pods", NAMESPACE, &format!("checkout-canary-bbb-{}", &ROUTED_CANARY[..5]), |pod| {
        pod["spec"]["containers"] = json!([{ "name": "app", "livenessProbe": probe, "readinessProbe": probe }]);
    });
    drop(store);
    let service = Service::start(&node.sandbox, &node.container(ROUTED_CANARY))?;
    let _kubelet = Probes::start(service.address, Duration::from_millis(500));
    let users = Traffic::start(&[service.address])?;
    let guard = node.guard()?;

    // It goes on crashing, which costs CPU, and answering probes: what the route can take away are its users.
    node.crash("checkout-canary")?;
    let weight =
        || node.get("httproutes", "checkout").map(|r| r["spec"]["rules"][0]["backendRefs"][1]["weight"].clone());
    let drained = wait_until("it has no weight", PATIENCE, || weight().is_ok_and(|weight| weight == 0));
    drained.with_context(|| format!("{}\n{:#?}", guard.said(), node.configuration.history()))?;
    drop(users);
    let until =
        |stage: Stage, words: &str| node.configuration.until(stage, words, PATIENCE).with_context(|| guard.said());
    until(Verified, "no more than the kubelet's probes explain (twice 2 a second); kubernetes finds it in effect")?;
    assert!(node.wants_pod(ROUTED_CANARY), "its pod runs on");

    // A minute of probes would not end its watch; one user does.
    thread::sleep(Duration::from_secs(3));
    let ends = |e: &canary_user::journal::HistoryEntry| e.stages.iter().any(|s| s.stage == Reverted);
    assert!(!node.configuration.history().iter().any(ends), "{:#?}", node.configuration.history());
    let _users = Traffic::start(&[service.address])?;
    until(Reverted, "more than the kubelet's probes explain (twice 2 a second)")
}
