//! Containers as the daemon tells them.

use std::{collections::HashMap, fmt, path::Path, time::Duration};

use anyhow::Context as _;
use bollard::{
    API_DEFAULT_VERSION, Docker as Client,
    errors::Error as ApiError,
    models::{ContainerInspectResponse, HealthStatusEnum, RestartPolicy, RestartPolicyNameEnum},
    query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder},
};
use serde::Deserialize;

use super::podman::Podman;
use crate::{config::Selector, targets::Identity};

/// A client of one daemon.
pub struct Api {
    pub client: Client,
    /// It is Podman, which answers Docker's calls: not all of them alike.
    pub is_podman: bool,
    podman: Podman,
}

/// A container in the daemon's list.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Listed {
    id: Option<String>,
    names: Option<Vec<String>>,
    image: Option<String>,
}

/// A container at one moment.
pub struct Container {
    pub id: String,
    pub name: String,
    inspected: ContainerInspectResponse,
    /// It has ended, and Podman's cleanup has not come to it yet.
    awaits_cleanup: bool,
}

impl Api {
    /// `answer`: how long the daemon may take to answer one call.
    pub async fn open(socket: &Path, answer: Duration) -> anyhow::Result<Self> {
        let path = socket.to_str().context("the path of Docker's socket is not UTF-8")?;
        let open = async {
            let client = Client::connect_with_unix(path, answer.as_secs().max(1), API_DEFAULT_VERSION)?;
            // A daemon refuses calls of a newer version than its own.
            let client = client.negotiate_version().await?;
            let version = client.version().await?;
            Ok::<_, ApiError>((client, version))
        };
        let opened = open.await;
        let (client, version) = opened
            .with_context(|| format!("reach Docker at {path}: is it there, and may the guard use its socket?"))?;
        let is_podman = version.components.iter().flatten().any(|component| component.name == "Podman Engine");
        let podman = Podman { socket: path.into(), answer };
        Ok(Self { client, is_podman, podman })
    }

    /// `None` where there is none.
    pub async fn container(&self, id: &str) -> anyhow::Result<Option<Container>> {
        let found = if self.is_podman { self.podman.inspect(id).await? } else { self.inspect(id).await? };
        Ok(found.map(|(inspected, awaits_cleanup)| Container {
            id: inspected.id.clone().unwrap_or_default(),
            name: inspected.name.as_deref().unwrap_or_default().trim_start_matches('/').to_owned(),
            inspected,
            awaits_cleanup,
        }))
    }

    async fn inspect(&self, id: &str) -> anyhow::Result<Option<(ContainerInspectResponse, bool)>> {
        match self.client.inspect_container(id, None::<InspectContainerOptions>).await {
            Ok(inspected) => Ok(Some((inspected, false))),
            Err(ApiError::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            Err(e) => Err(e).with_context(|| format!("ask Docker about container {id}")),
        }
    }

    async fn list(&self, all: bool, label: Option<&str>) -> anyhow::Result<Vec<Listed>> {
        let mut options = ListContainersOptionsBuilder::new().all(all);
        if let Some(label) = label {
            options = options.filters(&HashMap::from([("label", vec![label])]));
        }
        let listed =
            self.client.list_containers(Some(options.build())).await.context("ask Docker for its containers")?;
        Ok(listed.into_iter().map(|c| Listed { id: c.id, names: c.names, image: c.image }).collect())
    }

    /// The containers that are selected; `all` = also those that do not run.
    pub async fn select(&self, selector: &Selector, all: bool) -> anyhow::Result<Vec<Container>> {
        let label = match selector {
            Selector::Label(label) => Some(label.as_str()),
            _ => None,
        };
        let listed = match self.is_podman {
            true => self.podman.list(all, label).await?,
            false => self.list(all, label).await?,
        };
        let mut found = Vec::new();
        for summary in listed {
            let mut names = summary.names.iter().flatten().map(|n| n.trim_start_matches('/'));
            let selected = match selector {
                Selector::Container(pattern) => names.any(|n| pattern.matches(n)),
                Selector::Image(pattern) => summary.image.as_deref().is_some_and(|i| pattern.matches(i)),
                Selector::Label(_) => true,
                _ => false,
            };
            // One that vanishes in between is none any more.
            if let Some(id) = summary.id.filter(|_| selected) {
                found.extend(self.container(&id).await?);
            }
        }
        Ok(found)
    }
}

/// The id in a run's name.
pub fn id_of(run: &str) -> &str {
    run.split(' ').next().unwrap_or_default()
}

/// The moment of the start in a run's name.
pub fn started_of(run: &str) -> &str {
    run.split(' ').nth(1).unwrap_or_default()
}

impl Container {
    fn state(&self) -> Option<&bollard::models::ContainerState> {
        self.inspected.state.as_ref()
    }

    /// What tells this run from every other: the id, and when it was started.
    pub fn run(&self) -> String {
        let started = self.state().and_then(|s| s.started_at.as_deref()).unwrap_or_default();
        format!("{} {started}", self.id)
    }

    /// The first process, in the numbers of the daemon's pid namespace.
    pub fn pid(&self) -> Option<i64> {
        self.state().and_then(|s| s.pid).filter(|pid| *pid > 0)
    }

    pub fn is_running(&self) -> bool {
        self.state().and_then(|s| s.running).unwrap_or_default() && !self.is_restarting()
    }

    /// Its processes are frozen: it keeps its connections and answers none of them.
    pub fn is_paused(&self) -> bool {
        self.state().and_then(|s| s.paused).unwrap_or_default()
    }

    /// It can take the load.
    pub fn serves(&self) -> bool {
        self.is_running() && !self.is_paused() && self.is_healthy()
    }

    /// It has ended and its restart policy will start it. With Podman it may, until its cleanup has said that it does not.
    pub fn is_restarting(&self) -> bool {
        let is_said_to = self.state().and_then(|s| s.restarting).unwrap_or_default();
        is_said_to || (self.awaits_cleanup && self.restarts().is_some())
    }

    fn health(&self) -> Option<HealthStatusEnum> {
        self.state()?.health.as_ref()?.status
    }

    /// It has no health check, or passes it.
    pub fn is_healthy(&self) -> bool {
        !matches!(self.health(), Some(HealthStatusEnum::STARTING | HealthStatusEnum::UNHEALTHY))
    }

    pub fn is_unhealthy(&self) -> bool {
        self.health() == Some(HealthStatusEnum::UNHEALTHY)
    }

    /// The restart policy, where it has one that would bring it back.
    pub fn restarts(&self) -> Option<RestartPolicy> {
        let policy = self.inspected.host_config.as_ref()?.restart_policy.clone()?;
        let none = matches!(policy.name, None | Some(RestartPolicyNameEnum::EMPTY | RestartPolicyNameEnum::NO));
        (!none).then_some(policy)
    }

    /// How often its restart policy has started it; a start by anybody else sets that to 0 (`ResetRestartManager` of moby's
    /// container/container.go).
    pub fn restart_count(&self) -> Option<u64> {
        self.inspected.restart_count.and_then(|n| u64::try_from(n).ok())
    }

    /// The same for the life that has ended, of one that is restarting: Docker counts the next one already.
    pub fn restart_count_before(&self) -> Option<u64> {
        let counted = u64::from(!self.awaits_cleanup);
        self.restart_count().and_then(|n| n.checked_sub(counted))
    }

    /// Whether it is the run that was decided on, or what its restart policy has made of it since.
    pub fn is_run_of(&self, decided_on: &Identity) -> bool {
        let same = self.id == id_of(&decided_on.run) && decided_on.came_back(self.restart_count());
        self.run() == *decided_on.run || same
    }

    /// Why this container must not be stopped, in words.
    pub fn obstacle(&self, decided_on: &Identity) -> Option<String> {
        let name = &self.name;
        if !self.is_run_of(decided_on) {
            let (now, then) = (self.run(), started_of(&decided_on.run));
            return Some(format!(
                "{name} was started again since the decision (at {} now, {then} then): it is not touched",
                started_of(&now)
            ));
        }
        if self.inspected.host_config.as_ref().and_then(|h| h.auto_remove).unwrap_or_default() {
            return Some(format!(
                "{name} was made with --rm: stopping it would delete it, and there would be no way back"
            ));
        }
        self.owner()
    }

    /// Who else looks after this container, and what to tell them.
    pub fn owner(&self) -> Option<String> {
        let config = self.inspected.config.as_ref()?;
        let label = |key: &str| config.labels.as_ref().and_then(|l| l.get(key)).map(String::as_str);
        let name = &self.name;
        if let Some(service) = label("com.docker.swarm.service.name").or(label("com.docker.swarm.service.id")) {
            return Some(format!(
                "{name} belongs to the swarm service {service}, which would replace it: docker service rollback {service}"
            ));
        }
        if let Some(project) = label("com.docker.compose.project") {
            let service = label("com.docker.compose.service").unwrap_or("SERVICE");
            return Some(format!(
                "{name} belongs to the compose project {project}: docker compose --project-name {project} stop {service}"
            ));
        }
        // Podman sets it as a label; older ones in the environment only.
        let of_unit = |pair: &String| pair.strip_prefix("PODMAN_SYSTEMD_UNIT=").map(str::to_owned);
        let unit = label("PODMAN_SYSTEMD_UNIT").map(str::to_owned);
        if let Some(unit) = unit.or_else(|| config.env.iter().flatten().find_map(of_unit)) {
            return Some(format!(
                "{name} belongs to the unit {unit}, which would start it again: name it as {{ systemd = \"{unit}\" }} with \
                 orchestrator \"systemd\""
            ));
        }
        if let Some(pod) = label("io.kubernetes.pod.name") {
            return Some(format!("{name} belongs to the pod {pod}, whose kubelet would start it again"));
        }
        None
    }
}

/// "shop-canary is running".
impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.state().and_then(|s| s.status).map(|s| s.to_string()).unwrap_or_default();
        write!(f, "{} is {status}", self.name)?;
        match self.health() {
            Some(health @ (HealthStatusEnum::STARTING | HealthStatusEnum::UNHEALTHY)) => write!(f, ", health {health}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Container;

    fn container(state: Value) -> Container {
        let inspected = serde_json::from_value(json!({ "Id": "4f2a", "State": state })).expect("a container");
        Container { id: "4f2a".into(), name: "shop-v1".into(), inspected, awaits_cleanup: false }
    }

    #[test]
    fn who_runs_and_is_neither_frozen_nor_ill_can_take_the_load() {
        assert!(container(json!({ "Running": true, "Paused": false })).serves());
        // Docker says of one that is paused that it runs.
        assert!(!container(json!({ "Running": true, "Paused": true })).serves());
        assert!(!container(json!({ "Running": false })).serves());
        assert!(!container(json!({ "Running": true, "Health": { "Status": "unhealthy" } })).serves());
    }
}
