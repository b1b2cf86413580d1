//! One of several guards acts: who holds the Lease.

use std::time::Duration;

use canary_user::{
    config::KubernetesConfig,
    orchestrator::{Orchestrator, kubernetes::Kubernetes},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    cluster::{config, hands},
    server::Server,
};

const NAMESPACE: &str = "canary-guard";
const NAME: &str = "canary-guard-checkout";

async fn server(spec: Value) -> Server {
    let server = Server::start().await;
    server.store().put(
        "leases",
        json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": { "name": NAME, "namespace": NAMESPACE }, "spec": spec }),
    );
    server
}

fn guard(server: &Server) -> Kubernetes {
    hands(server, "lease_namespace = \"canary-guard\"", "")
}

/// The node of the holder, whose name has more than that.
fn held_on(lease: &Value) -> &str {
    lease["spec"]["holderIdentity"].as_str().and_then(|holder| holder.split_once('_')).expect("a holder").0
}

/// Asks until the answer is of this kind; gives its words.
pub async fn until(guard: &Kubernetes, leads: bool) -> String {
    for _ in 0..1_000 {
        match (guard.leader(), leads) {
            (Ok(said), true) => return said,
            (Err(said), false) if !said.contains("is asked for once") => return said,
            _ => sleep(Duration::from_millis(50)).await,
        }
    }
    panic!("never: {:?}", guard.leader());
}

#[tokio::test]
async fn a_free_lease_is_taken_when_somebody_asks() {
    let server = server(json!({})).await;
    let guard = guard(&server);
    assert!(guard.standing().expect_err("it holds nothing").contains("is asked for once something is to be done"));
    sleep(Duration::from_millis(200)).await;
    assert!(server.store().calls.is_empty(), "nobody wants to act");
    assert!(guard.leader().expect_err("not yet").contains("is asked for once something is to be done"));
    assert_eq!(until(&guard, true).await, "this guard holds the Lease canary-guard-checkout");
    let lease = server.store().get("leases", NAMESPACE, NAME).expect("there").clone();
    assert_eq!((held_on(&lease), &lease["spec"]["leaseTransitions"]), ("node-a", &json!(1)));
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 15);
}

#[tokio::test]
async fn another_holder_is_named_and_outlived() {
    let server = server(json!({ "holderIdentity": "node-b", "leaseDurationSeconds": 2, "leaseTransitions": 4 })).await;
    let guard = guard(&server);
    assert_eq!(until(&guard, false).await, "node-b holds the Lease canary-guard/canary-guard-checkout");
    // It is renewed for a while: as long as that goes on, it is not taken.
    for n in 0..6 {
        sleep(Duration::from_millis(700)).await;
        assert!(guard.leader().is_err());
        server.store().change("leases", NAMESPACE, NAME, |lease| lease["spec"]["renewTime"] = json!(n));
    }
    until(&guard, true).await;
    let lease = server.store().get("leases", NAMESPACE, NAME).expect("there").clone();
    assert_eq!((held_on(&lease), &lease["spec"]["leaseTransitions"]), ("node-a", &json!(5)));
}

#[tokio::test]
async fn a_lease_that_was_lost_is_not_relied_on() {
    let server = server(json!({})).await;
    let guard = guard(&server);
    until(&guard, true).await;
    server.store().change("leases", NAMESPACE, NAME, |lease| {
        lease["spec"] = json!({ "holderIdentity": "node-b", "leaseDurationSeconds": 3600 });
    });
    assert!(until(&guard, false).await.starts_with("node-b holds the Lease"));
}

#[tokio::test]
async fn a_lease_that_cannot_be_renewed_is_not_relied_on() {
    let server = server(json!({})).await;
    let guard = guard(&server);
    until(&guard, true).await;
    server.store().forbidden = Some(("update".into(), "leases".into()));
    let said = until(&guard, false).await;
    assert!(said.contains("was not renewed in time") && said.contains("status 403"), "{said}");
}

#[tokio::test]
async fn a_lease_that_the_server_does_not_take_is_not_called_anothers() {
    let server = server(json!({})).await;
    server.store().policy = Some("leases".into());
    let said = until(&guard(&server), false).await;
    assert!(
        said.contains("take the Lease canary-guard/canary-guard-checkout") && said.contains("status 422"),
        "{said}"
    );
}

#[tokio::test]
async fn a_lease_that_does_not_exist_is_told() {
    let server = Server::start().await;
    let said = until(&guard(&server), false).await;
    assert!(said.contains("there is no Lease canary-guard/canary-guard-checkout"), "{said}");
}

#[tokio::test]
async fn of_two_that_ask_at_the_same_time_one_leads() {
    of_two_one_leads("node-a", "node-b").await;
}

#[tokio::test]
async fn of_two_on_one_node_one_leads() {
    of_two_one_leads("node-a", "node-a").await;
}

async fn of_two_one_leads(one: &str, other: &str) {
    let server = server(json!({})).await;
    let config = config(server.kubeconfig(), "lease_namespace = \"canary-guard\"", "");
    let of = |node: &str| {
        let kubernetes = KubernetesConfig { node: Some(node.into()), ..config.kubernetes.clone() };
        Kubernetes::new(&kubernetes, &config.deployments[0])
    };
    let guards = [of(one), of(other)];
    let mut led = 0;
    for _ in 0..120 {
        let leaders = guards.iter().filter(|guard| guard.leader().is_ok()).count();
        assert!(leaders <= 1, "both believe that they lead");
        led += leaders;
        sleep(Duration::from_millis(50)).await;
    }
    assert!(led > 60, "one led in {led} of 120 looks");
    let lease = server.store().get("leases", NAMESPACE, NAME).expect("there").clone();
    assert_eq!(lease["spec"]["leaseTransitions"], 1, "nobody was fought");
}
