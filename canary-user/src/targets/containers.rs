//! Targets that are containers of Docker or Podman: which run, since when, and in which cgroup.

use std::{collections::HashMap, fs, sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{
    Identity, Role,
    cgroup::Root,
    located::{Instance, Located},
};
use crate::{
    config::{Config, Selector},
    orchestrator::docker::container::{Api, Container},
};

/// How often the daemon is asked which containers run.
const EVERY: Duration = Duration::from_millis(500);
/// How long it may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How deep containers' cgroups are looked for, where their processes cannot be seen from here.
const LEVELS: usize = 6;

/// Follows the containers that the configuration names, for as long as it is polled; returns at once where it names none.
///
/// While the daemon cannot be reached, what it said last is what counts: one that is gone is missed by its cgroup anyway.
pub async fn follow(config: Config, root: Root, located: Located) {
    let roles = config.deployments.iter().flat_map(|d| [Role::Stable, Role::Canary].map(|role| (d, role)));
    let wanted: Vec<(Arc<str>, Role, Selector)> = roles
        .map(|(d, role)| (d.name.clone(), role, d.role(role).selector.clone()))
        .filter(|(_, _, s)| matches!(s, Selector::Container(_) | Selector::Label(_) | Selector::Image(_)))
        .collect();
    if wanted.is_empty() {
        return;
    }
    let mut told = None;
    let mut places = HashMap::new();
    loop {
        let looked = look(&config, &wanted, &root, &located, &mut places).await;
        let text = looked.err().map(|e| format!("{e:#}"));
        if let Some(text) = text.as_ref().filter(|_| told != text) {
            tracing::error!("targets by container are not followed: {text}; tried again twice a second");
        }
        told = text;
        sleep(EVERY).await;
    }
}

async fn look(
    config: &Config,
    wanted: &[(Arc<str>, Role, Selector)],
    root: &Root,
    located: &Located,
    places: &mut HashMap<String, String>,
) -> anyhow::Result<()> {
    let api = Api::open(&config.docker_socket, ANSWER).await?;
    for (deployment, role, selector) in wanted {
        let mut instances = Vec::new();
        // Podman does not list one among those that run while it is between two of its lives.
        for container in api.select(selector, api.is_podman).await? {
            let run = container.run();
            if container.is_restarting() {
                let restarts = container.restart_count_before();
                if let Some(cgroup) = next_place(&container.id, places) {
                    let identity = Identity { name: container.name.into(), run: run.into(), restarts };
                    instances.push(Instance { cgroup, incarnation: None, identity });
                }
                continue;
            }
            if !container.is_running() {
                continue;
            }
            let Some((cgroup, incarnation)) = place(root, &container, places) else { continue };
            // Asked once more: a restart in between would pair one run with another's cgroup.
            if api.container(&container.id).await?.is_some_and(|now| now.is_running() && now.run() == run) {
                let restarts = container.restart_count();
                let identity = Identity { name: container.name.into(), run: run.into(), restarts };
                instances.push(Instance { cgroup, incarnation: Some(incarnation), identity });
            }
        }
        located.replace(deployment, *role, instances);
    }
    Ok(())
}

/// Where a container will have its cgroup that has none now: where it had one, or beside those of others, unless it has a parent
/// of its own.
fn next_place(id: &str, places: &HashMap<String, String>) -> Option<String> {
    let beside = || places.iter().next().map(|(other, path)| path.replace(other.as_str(), id));
    places.get(id).cloned().or_else(beside)
}

/// The container's cgroup, which has its id in its name with every driver, and the id of that cgroup.
fn place(root: &Root, container: &Container, places: &mut HashMap<String, String>) -> Option<(String, u64)> {
    if let Some(path) = places.get(&container.id)
        && let Some(id) = root.id(path)
    {
        return Some((path.clone(), id));
    }
    let found = by_process(container)
        .filter(|path| root.id(path).is_some())
        // The daemon may count processes in another namespace: then its number means another process here.
        .or_else(|| root.list("/", LEVELS).into_iter().map(|(path, _)| path).find(|path| is_of(path, &container.id)))?;
    let id = root.id(&found)?;
    places.insert(container.id.clone(), found.clone());
    Some((found, id))
}

fn by_process(container: &Container) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{}/cgroup", container.pid()?)).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    // The process may live in a cgroup below the container's own.
    let steps: Vec<&str> = path.split('/').collect();
    let own = (1..=steps.len()).map(|n| steps[..n].join("/")).find(|path| is_of(path, &container.id));
    own.filter(|path| !path.is_empty())
}

/// `docker-ID.scope`, `libpod-ID.scope`, `ID`; not `libpod-conmon-ID.scope`, which is Podman's own process.
fn is_of(path: &str, id: &str) -> bool {
    let last = path.rsplit('/').next().unwrap_or_default();
    let bare = last.strip_suffix(".scope").unwrap_or(last);
    !id.is_empty()
        && (bare == id || bare.strip_suffix(id).is_some_and(|driver| matches!(driver, "docker-" | "libpod-")))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{is_of, next_place};

    #[test]
    fn a_container_without_a_cgroup_is_expected_where_it_was_or_beside_others() {
        let places = HashMap::from([("4f2a".to_owned(), "/system.slice/docker-4f2a.scope".to_owned())]);
        assert_eq!(next_place("4f2a", &places).as_deref(), Some("/system.slice/docker-4f2a.scope"));
        assert_eq!(next_place("77", &places).as_deref(), Some("/system.slice/docker-77.scope"));
        assert_eq!(next_place("77", &HashMap::new()), None);
    }

    #[test]
    fn a_containers_cgroup_is_known_by_its_id_with_every_driver() {
        assert!(is_of("/system.slice/docker-4f2a.scope", "4f2a"));
        assert!(is_of("/docker/4f2a", "4f2a"));
        assert!(is_of("/machine.slice/libpod-4f2a.scope", "4f2a"));
        assert!(!is_of("/machine.slice/libpod-conmon-4f2a.scope", "4f2a"));
        assert!(!is_of("/docker/4f2a", "2a") && !is_of("/docker", ""));
    }
}
