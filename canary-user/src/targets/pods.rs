//! Targets that are pods of this node: which there are, of which template, and in which cgroup.

mod cgroups;

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt as _, api::ListParams};
use tokio::time::{sleep, timeout};

use super::{
    Identity, Role,
    cgroup::Root,
    located::{Instance, Located},
};
use crate::{
    config::{self, Config, Selector},
    orchestrator::kubernetes::{api::Api, template_hash},
};

/// How often the API server is asked which pods this node has. It answers from memory.
const EVERY: Duration = Duration::from_secs(2);
/// How long it may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How deep pods' cgroups are looked for: kubelets in containers, as kind's, have some levels above their own.
const LEVELS: usize = 9;

/// Follows the pods that the configuration names, for as long as it is polled; returns at once where it names none.
///
/// While the API server cannot be reached, what it said last is what counts: a pod that is gone is missed by its cgroup anyway.
pub async fn follow(config: Config, root: Root, located: Located) {
    let roles = config.deployments.iter().flat_map(|d| [Role::Stable, Role::Canary].map(|role| (d, role)));
    let wanted: Vec<(Arc<str>, Role, config::Pods)> = roles
        .filter_map(|(d, role)| match &d.role(role).selector {
            Selector::Pods(pods) => Some((d.name.clone(), role, pods.clone())),
            _ => None,
        })
        .collect();
    if wanted.is_empty() {
        return;
    }
    let node = config.kubernetes.node_name();
    let (mut told, mut api, mut places) = (None, None, HashMap::new());
    loop {
        let look = look(&config, &node, &wanted, &root, &located, &mut api, &mut places);
        let looked =
            timeout(ANSWER, look).await.unwrap_or_else(|_| Err(anyhow::anyhow!("the API server does not answer")));
        let text = looked.err().map(|e| format!("{e:#}"));
        if let Some(text) = text.as_ref().filter(|_| told != text) {
            tracing::error!("targets by pod are not followed: {text}; tried again every {} s", EVERY.as_secs());
        }
        told = text;
        sleep(EVERY).await;
    }
}

async fn look(
    config: &Config,
    node: &str,
    wanted: &[(Arc<str>, Role, config::Pods)],
    root: &Root,
    located: &Located,
    api: &mut Option<Api>,
    places: &mut HashMap<String, String>,
) -> anyhow::Result<()> {
    let api = match api {
        Some(api) => api,
        None => api.insert(Api::open(config.kubernetes.kubeconfig.as_deref()).await?),
    };
    for (deployment, role, pods) in wanted {
        let which = ListParams::default().labels(&pods.selector).fields(&format!("spec.nodeName={node}")).match_any();
        let listed = api.of::<Pod>(&pods.namespace).list(&which).await;
        let listed = listed.with_context(|| format!("list the pods of {deployment} in {}", pods.namespace))?;
        let instances = listed.items.iter().filter_map(|pod| instance(pod, pods, root, places)).collect();
        located.replace(deployment, *role, instances);
    }
    places.retain(|_, path| root.id(path).is_some());
    Ok(())
}

/// A pod whose processes run; one that is being deleted runs on until its cgroup is gone.
fn instance(pod: &Pod, pods: &config::Pods, root: &Root, places: &mut HashMap<String, String>) -> Option<Instance> {
    let uid = pod.metadata.uid.as_deref()?;
    let status = pod.status.as_ref()?;
    if status.phase.as_deref() != Some("Running") {
        return None;
    }
    let container = match &pods.container {
        None => None,
        Some(name) => {
            let statuses = status.container_statuses.iter().flatten();
            let statuses = statuses.chain(status.init_container_statuses.iter().flatten());
            let status = statuses.into_iter().find(|s| s.name == *name)?;
            Some(cgroups::container_id(status.container_id.as_deref()?)?)
        }
    };
    // The names of both have ids in them that are given once: what is found by them is of this pod.
    let key = container.unwrap_or(uid);
    let cgroup = match places.get(key).filter(|path| root.id(path).is_some()) {
        Some(path) => path.clone(),
        None => {
            let paths = root.list("/", LEVELS).into_iter().map(|(path, _)| path);
            let found = cgroups::find(paths, uid, container)?;
            places.insert(key.to_owned(), found.clone());
            found
        }
    };
    let incarnation = root.id(&cgroup)?;
    let name = format!("{}/{}", pods.namespace, pod.name_any());
    let run = format!("{uid} {}", template_hash(pod.labels()));
    // The pod stays the same one over the restarts of its containers: they are none of it.
    let identity = Identity { name: name.into(), run: run.into(), restarts: None };
    Some(Instance { cgroup, incarnation: Some(incarnation), identity })
}
