//! Plays the scheduler and one kubelet: pods run at once and end when they are to. There are no containers.

use std::time::Duration;

use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::sleep};

use super::{control_plane::ControlPlane, objects::objects};

pub const NODE: &str = "node-a";

/// Ends when dropped.
pub struct Kubelet(JoinHandle<()>);

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Kubelet {
    /// Pods of the image `never_ready` run and do not get ready.
    pub fn start(plane: &ControlPlane, never_ready: &'static str) -> Self {
        let client = plane.admin.clone();
        Self(tokio::spawn(async move {
            loop {
                // What fails was changed meanwhile: the next look sees it.
                let all = objects(&client, "v1", "Pod", "").list(&Default::default()).await;
                for pod in all.map(|all| all.items).unwrap_or_default() {
                    let _ = look_after(&client, &pod, never_ready).await;
                }
                sleep(Duration::from_millis(100)).await;
            }
        }))
    }
}

async fn look_after(client: &Client, pod: &DynamicObject, never_ready: &str) -> Result<(), kube::Error> {
    let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
    let pods: Api<DynamicObject> = objects(client, "v1", "Pod", &namespace);
    if pod.metadata.deletion_timestamp.is_some() {
        return pods.delete(&name, &DeleteParams::default().grace_period(0)).await.map(drop);
    }
    if pod.data["spec"]["nodeName"].is_null() {
        let target = json!({ "apiVersion": "v1", "kind": "Node", "name": NODE });
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": { "name": name, "namespace": namespace }, "target": target,
        });
        return pods.create_subresource::<_, Value>("binding", &name, &PostParams::default(), &binding).await.map(drop);
    }
    if pod.data["status"]["phase"] != "Running" {
        let ready = if pod.data["spec"]["containers"][0]["image"] == never_ready { "False" } else { "True" };
        let condition = json!({ "type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z" });
        let status = Patch::Merge(json!({ "status": { "phase": "Running", "conditions": [condition] } }));
        return pods.patch_status(&name, &PatchParams::default(), &status).await.map(drop);
    }
    Ok(())
}
