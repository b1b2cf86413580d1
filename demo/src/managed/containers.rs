//! Each instance is a container, of an image with this program and nothing else.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, anyhow};
use bollard::{
    body_full,
    errors::Error as ApiError,
    models::{ContainerCreateBody, HostConfig, RestartPolicy, RestartPolicyNameEnum},
    query_parameters::{
        CreateContainerOptionsBuilder, CreateImageOptionsBuilder, RemoveContainerOptionsBuilder,
        RemoveImageOptionsBuilder, StartContainerOptions,
    },
};
use canary_user::{config::Selector, orchestrator::docker::container::Api};
use futures_util::TryStreamExt as _;

use super::{Found, image};

const REPOSITORY: &str = "canary-demo";
const IMAGE: &str = "canary-demo:latest";
/// On every container of the demo.
const LABEL: &str = "canary-demo";
/// How long the daemon may take to answer: it may have to copy the image.
const ANSWER: Duration = Duration::from_secs(120);
/// An instance is ready so long after its start. The guard looks twice a second for containers that run, and Docker waits
/// longer before each start of one that crashed: one that crashed at once would hardly ever be found running.
const READY_AFTER: &str = "1s";
/// The instance's directory of the registry, inside.
const REGISTRY: &str = "/registry";

pub(super) struct Containers {
    pub socket: PathBuf,
    api: Api,
    program: PathBuf,
    arguments: Vec<String>,
}

impl Containers {
    pub async fn open(socket: &Path, program: PathBuf, arguments: Vec<String>) -> anyhow::Result<Self> {
        let api = Api::open(socket, ANSWER).await.context(
            "install and start Docker (apt-get install docker.io), name the socket of another with --docker-socket, or take \
             another orchestrator: --orchestrator process or systemd",
        )?;
        Ok(Self { socket: socket.to_owned(), api, program, arguments })
    }

    pub async fn make_image(&self) -> anyhow::Result<()> {
        let program = self.program.clone();
        let files = tokio::task::spawn_blocking(move || image::files(&program)).await.context("pack the image")??;
        let options = CreateImageOptionsBuilder::new().from_src("-").repo(REPOSITORY).tag("latest").build();
        let made = self.api.client.create_image(Some(options), Some(body_full(files.into())), None);
        made.try_collect::<Vec<_>>().await.with_context(|| format!("have Docker make the image {IMAGE}"))?;
        Ok(())
    }

    pub async fn start(&self, name: &str, dir: &Path) -> anyhow::Result<()> {
        let policy = RestartPolicy { name: Some(RestartPolicyNameEnum::ON_FAILURE), maximum_retry_count: None };
        let command = [image::PROGRAM, "serve", "--registry", REGISTRY, "--ready-after", READY_AFTER].map(String::from);
        let config = ContainerCreateBody {
            image: Some(IMAGE.into()),
            cmd: Some(command.into_iter().chain(self.arguments.iter().cloned()).collect()),
            labels: Some(HashMap::from([(LABEL.into(), String::new())])),
            host_config: Some(HostConfig {
                // The load reaches each instance on the loopback.
                network_mode: Some("host".into()),
                binds: Some(vec![format!("{}:{REGISTRY}", dir.display())]),
                restart_policy: Some(policy),
                ..Default::default()
            }),
            ..Default::default()
        };
        let client = &self.api.client;
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        client.create_container(Some(options), config).await.with_context(|| format!("have Docker create {name}"))?;
        let started = client.start_container(name, None::<StartContainerOptions>).await;
        started.with_context(|| format!("have Docker start {name}"))
    }

    pub async fn found(&self, name: &str) -> anyhow::Result<Found> {
        let container = self.api.container(name).await?.ok_or_else(|| anyhow!("there is no container {name}"))?;
        Ok(Found {
            is_down: !container.is_running() && !container.is_restarting(),
            restarts: container.restart_count().unwrap_or_default(),
            words: container.to_string(),
        })
    }

    pub async fn remove_all(&self) -> anyhow::Result<()> {
        for container in self.api.select(&Selector::Label(LABEL.into()), true).await? {
            let options = RemoveContainerOptionsBuilder::new().force(true).build();
            let removed = self.api.client.remove_container(&container.id, Some(options)).await;
            unless_gone(removed).with_context(|| format!("remove the container {}", container.name))?;
        }
        let options = RemoveImageOptionsBuilder::new().build();
        let removed = self.api.client.remove_image(IMAGE, Some(options), None).await;
        unless_gone(removed.map(drop)).with_context(|| format!("remove the image {IMAGE}"))
    }
}

fn unless_gone(removed: Result<(), ApiError>) -> Result<(), ApiError> {
    match removed {
        Err(ApiError::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
        other => other,
    }
}
