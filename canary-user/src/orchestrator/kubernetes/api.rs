//! The API server: which objects are asked for, how, and what its refusals mean.

use std::{fmt, path::Path, time::Duration};

use anyhow::Context as _;
use json_patch::Patch as JsonPatch;
use kube::{
    Api as ObjectApi, Client, Config,
    api::{DynamicObject, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, GroupVersionKind},
};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::orchestrator::Error;

const CONNECT: Duration = Duration::from_secs(5);
/// The API server's own limit for most requests is a minute; who waits that long here has no answer for the guard.
const ANSWER: Duration = Duration::from_secs(10);
/// Pauses before what the API server had no time for is sent again; it asks for one of a second (`Retry-After`).
const BUSY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];
/// As whom changes are told in `managedFields`.
pub const MANAGER: &str = "canary-guard";

/// The kinds of objects that are read or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    Pod,
    ReplicaSet,
    Deployment,
    HorizontalPodAutoscaler,
    /// Of the Gateway API.
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
    /// Of Argo Rollouts.
    Rollout,
    Lease,
    Event,
}

impl Kind {
    pub fn resource(self) -> ApiResource {
        let (group, version, kind, plural) = match self {
            Kind::Pod => ("", "v1", "Pod", "pods"),
            Kind::ReplicaSet => ("apps", "v1", "ReplicaSet", "replicasets"),
            Kind::Deployment => ("apps", "v1", "Deployment", "deployments"),
            // What is asked of it is in its first version, too, which every API server has.
            Kind::HorizontalPodAutoscaler => {
                ("autoscaling", "v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
            }
            Kind::HttpRoute => ("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
            Kind::Rollout => ("argoproj.io", "v1alpha1", "Rollout", "rollouts"),
            Kind::Lease => ("coordination.k8s.io", "v1", "Lease", "leases"),
            Kind::Event => ("events.k8s.io", "v1", "Event", "events"),
        };
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resource().kind)
    }
}

/// A client of one API server.
///
/// Objects are kept as the JSON that the server sent: what this program does not know of a pod's template must not be lost
/// when it is written back.
#[derive(Clone)]
pub struct Api {
    client: Client,
    dry_run: bool,
}

impl Api {
    /// As the kubeconfig says, or by the service account of this pod.
    pub async fn open(kubeconfig: Option<&Path>) -> anyhow::Result<Self> {
        let mut config = match kubeconfig {
            Some(path) => {
                let told = || format!("read the kubeconfig {}", path.display());
                let read = Kubeconfig::read_from(path).with_context(told)?;
                Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.with_context(told)?
            }
            None => Config::incluster().context(
                "find the API server: not in a pod with a service account's token, and [kubernetes] names no kubeconfig",
            )?,
        };
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(ANSWER);
        config.reset_reader_on_write = true;
        // A change is sent once: what became of it is asked for, not tried out.
        config.default_retry = false;
        Ok(Self { client: Client::try_from(config).context("make a client of the API server")?, dry_run: false })
    }

    /// The same, on which what is written has the API server ask everybody who may refuse it (rights, admission, quota), and
    /// changes nothing (`dryRun=All`).
    pub fn dry_run(&self) -> Self {
        Self { client: self.client.clone(), dry_run: true }
    }

    pub fn of<K>(&self, namespace: &str) -> ObjectApi<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        ObjectApi::namespaced(self.client.clone(), namespace)
    }

    fn objects(&self, kind: Kind, namespace: &str) -> ObjectApi<DynamicObject> {
        ObjectApi::namespaced_with(self.client.clone(), namespace, &kind.resource())
    }

    /// `None` where there is none.
    pub async fn get(&self, kind: Kind, namespace: &str, name: &str) -> anyhow::Result<Option<DynamicObject>> {
        let objects = self.objects(kind, namespace);
        let got = patiently(|| objects.get_opt(name)).await;
        got.map_err(|e| told(e, format!("get {kind} {namespace}/{name}")))
    }

    /// All of one kind that have these labels; "" = all.
    pub async fn list(&self, kind: Kind, namespace: &str, labels: &str) -> anyhow::Result<Vec<DynamicObject>> {
        let mut which = ListParams::default();
        if !labels.is_empty() {
            which = which.labels(labels);
        }
        let objects = self.objects(kind, namespace);
        let listed = patiently(|| objects.list(&which)).await;
        Ok(listed.map_err(|e| told(e, format!("list {kind} in {namespace}")))?.items)
    }

    /// Changes one object, or a part of it that has an address of its own: "scale", "status". Gives the generation that it has then,
    /// where the answer says so: that about a scale does not.
    pub async fn patch(
        &self,
        kind: Kind,
        (namespace, name): (&str, &str),
        part: Option<&str>,
        patch: &JsonPatch,
    ) -> Result<Option<i64>, kube::Error> {
        let objects = self.objects(kind, namespace);
        let how = PatchParams { dry_run: self.dry_run, field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let patch = Patch::<()>::Json(patch.clone());
        patiently(|| async {
            match part {
                None => objects.patch(name, &how, &patch).await.map(|object| object.metadata.generation),
                Some("scale") => objects.patch_scale(name, &how, &patch).await.map(|_| None),
                Some(part) => {
                    objects.patch_subresource(part, name, &how, &patch).await.map(|object| object.metadata.generation)
                }
            }
        })
        .await
    }

    pub async fn create(&self, kind: Kind, namespace: &str, object: &DynamicObject) -> anyhow::Result<()> {
        let created = self.objects(kind, namespace).create(&self.post(), object).await;
        created.map(drop).map_err(|e| told(e, format!("create {kind} in {namespace}")))
    }

    /// Writes an object as it is, if it is still the version that was read.
    pub async fn replace(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        object: &DynamicObject,
    ) -> Result<DynamicObject, kube::Error> {
        self.objects(kind, namespace).replace(name, &self.post(), object).await
    }

    fn post(&self) -> PostParams {
        PostParams { dry_run: self.dry_run, field_manager: Some(MANAGER.into()) }
    }
}

/// Sends again what the API server did not look at, because too much was asked of it at once (429).
async fn patiently<T, F>(call: impl Fn() -> F) -> Result<T, kube::Error>
where
    F: Future<Output = Result<T, kube::Error>>,
{
    for pause in BUSY {
        match call().await {
            Err(kube::Error::Api(status)) if status.code == 429 => sleep(pause).await,
            other => return other,
        }
    }
    call().await
}

/// A failure of the API with what was to be done; the server's words without the client's around them.
pub fn told(error: kube::Error, doing: String) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => {
            anyhow::anyhow!("{doing}: the API server says: {} (status {})", status.message, status.code)
        }
        other => anyhow::Error::new(other).context(format!("{doing} at the API server")),
    }
}

/// What it means that a change was not taken: the API server changes all of it or nothing.
pub fn not_taken(error: kube::Error, doing: String) -> Error {
    match &error {
        kube::Error::Api(status) if (400..500).contains(&status.code) => Error::refused(told(error, doing)),
        _ => told(error, doing).into(),
    }
}

/// Whether someone else may have changed the object in between: a version that is not the current one (409), or a JSON Patch
/// whose `test` does not hold (422, which validation and admission policies answer with, too).
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 409 | 422))
}
