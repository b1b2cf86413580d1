//! The Lease on a real API server: its types, its versions, and the account's rights on it.

use std::time::Duration;

use canary_user::{
    config::KubernetesConfig,
    orchestrator::{Orchestrator as _, kubernetes::Kubernetes},
};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use tokio::time::sleep;

use super::{
    control_plane::{ControlPlane, With},
    objects::objects,
};
use crate::{cluster::config, lease::until};

const NAME: &str = "canary-guard-checkout";

#[tokio::test]
async fn of_two_guards_one_holds_the_lease_of_a_real_api_server() {
    let test = "of_two_guards_one_holds_the_lease_of_a_real_api_server";
    let Some(plane) = ControlPlane::start(test, With::ApiServer).await else { return };
    let token = plane.account().await;
    plane.grant(&token).await;
    let leases = objects(&plane.admin, "coordination.k8s.io/v1", "Lease", "canary-guard");
    let config = config(plane.kubeconfig(&token), "lease_namespace = \"canary-guard\"", "");
    let of = |node: &str| {
        let kubernetes = KubernetesConfig { node: Some(node.into()), ..config.kubernetes.clone() };
        Kubernetes::new(&kubernetes, &config.deployments[0])
    };
    let guards = [of("node-a"), of("node-b")];
    let mut led = 0;
    while led < 60 {
        let leaders = guards.iter().filter(|guard| guard.leader().is_ok()).count();
        assert!(leaders <= 1, "both believe that they lead");
        led += leaders;
        sleep(Duration::from_millis(50)).await;
    }
    let lease = leases.get(NAME).await.expect("there");
    assert_eq!(lease.data["spec"]["leaseTransitions"], 1, "nobody was fought");
    assert_eq!(lease.data["spec"]["leaseDurationSeconds"], 15);
    let holder = lease.data["spec"]["holderIdentity"].as_str().expect("somebody").to_owned();
    let (leads, waits) = if holder.starts_with("node-a") { (&guards[0], &guards[1]) } else { (&guards[1], &guards[0]) };
    until_said(waits, &format!("{holder} holds the Lease canary-guard/{NAME}")).await;
    assert_eq!(until(leads, true).await, format!("this guard holds the Lease {NAME}"));
    let renewed = lease.data["spec"]["renewTime"].clone();
    while leases.get(NAME).await.expect("there").data["spec"]["renewTime"] == renewed {
        assert!(leads.leader().is_ok(), "it is renewed in time");
        sleep(Duration::from_millis(200)).await;
    }

    // Taken by somebody else, and gone.
    let spec = json!({ "holderIdentity": "node-c", "leaseDurationSeconds": 3600 });
    let taken = Patch::Merge(json!({ "spec": spec }));
    leases.patch(NAME, &PatchParams::default(), &taken).await.expect("taken");
    for guard in &guards {
        until_said(guard, &format!("node-c holds the Lease canary-guard/{NAME}")).await;
    }
    leases.delete(NAME, &DeleteParams::default()).await.expect("gone");
    until_said(&guards[0], &format!("there is no Lease canary-guard/{NAME}")).await;
}

/// Asks until the guard does not lead, and says why in these words.
async fn until_said(guard: &Kubernetes, words: &str) {
    while !until(guard, false).await.contains(words) {
        sleep(Duration::from_millis(50)).await;
    }
}
