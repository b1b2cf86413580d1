//! What Podman has of its own: a state that Docker does not know, and containers that it starts again in the moment of a stop.
//!
//! A container that has ended is "stopped" until Podman's cleanup comes to it, some tenths of a second later: that starts it again
//! where its restart policy says so, and makes it "exited" otherwise. The client of Docker's interface takes no answer with a
//! state that Docker has not, so that Podman is asked here.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, anyhow, ensure};
use bollard::models::ContainerInspectResponse;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, StatusCode, body::Bytes, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    net::UnixStream,
    time::{Instant, sleep, timeout},
};

use super::{
    container::{Api, Listed},
    still, stop,
};
use crate::{http_client::percent_encoded, orchestrator::Error, targets::Identity};

/// For how long, beyond its grace, a container is stopped again that its restart policy goes on starting.
pub const INSISTS_FOR: Duration = Duration::from_secs(60);
/// Between two stops: one that ends at once after each start is there for some milliseconds.
const AGAIN: Duration = Duration::from_millis(20);

/// Podman behind its socket.
pub struct Podman {
    pub socket: PathBuf,
    /// How long it may take to answer.
    pub answer: Duration,
}

impl Podman {
    /// The container, and whether it waits for the cleanup; `None` where there is none.
    pub async fn inspect(&self, id: &str) -> anyhow::Result<Option<(ContainerInspectResponse, bool)>> {
        let path = format!("/containers/{}/json", percent_encoded(id));
        let told = self.get(&path).await.with_context(|| format!("ask Podman about container {id}"))?;
        told.map(in_words_of_docker).transpose().with_context(|| format!("read what Podman says of container {id}"))
    }

    /// `all` = also those that do not run.
    pub async fn list(&self, all: bool, label: Option<&str>) -> anyhow::Result<Vec<Listed>> {
        let filters = label.map(|label| percent_encoded(&serde_json::json!({ "label": [label] }).to_string()));
        let filters = filters.map(|filters| format!("&filters={filters}")).unwrap_or_default();
        let told = self.get(&format!("/containers/json?all={all}{filters}")).await;
        let told = told.context("ask Podman for its containers")?.context("Podman has no list of containers")?;
        serde_json::from_value(told).context("read Podman's list of containers")
    }

    /// `None` = not found.
    async fn get(&self, path: &str) -> anyhow::Result<Option<Value>> {
        let exchange = async {
            let stream = UnixStream::connect(&self.socket).await?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            let request = Request::builder().uri(path).header(header::HOST, "podman").body(Empty::<Bytes>::new())?;
            let response = sender.send_request(request).await?;
            let status = response.status();
            anyhow::Ok((status, response.into_body().collect().await?.to_bytes()))
        };
        let late = || anyhow!("no answer within {}", humantime::format_duration(self.answer));
        let (status, body) = timeout(self.answer, exchange).await.map_err(|_| late())??;
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        ensure!(status.is_success(), "answer {status} '{}'", String::from_utf8_lossy(&body).escape_debug());
        Ok(Some(serde_json::from_slice(&body)?))
    }
}

/// "stopped" is "exited" in Docker's words; whether it was.
fn in_words_of_docker(mut told: Value) -> anyhow::Result<(ContainerInspectResponse, bool)> {
    let stopped = told.pointer_mut("/State/Status").filter(|status| **status == "stopped");
    let awaits_cleanup = stopped.is_some();
    if let Some(status) = stopped {
        *status = "exited".into();
    }
    Ok((serde_json::from_value(told)?, awaits_cleanup))
}

/// Stops a container until it stays down. Podman has no way to change a restart policy, and heeds a stop only while the container
/// runs: one between two of its lives is lost.
pub async fn stop_for_good(api: &Api, name: &str, decided_on: &Identity, grace: Duration) -> Result<(), Error> {
    let until = Instant::now() + grace + INSISTS_FOR;
    let mut was_stopped = false;
    loop {
        let now = match still(api, name, decided_on).await {
            Err(Error::Refused(why)) if was_stopped => return Err(anyhow!("after it was stopped: {why}").into()),
            other => other?,
        };
        if !now.is_running() && !now.is_restarting() {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(anyhow!(
                "Podman goes on starting {name} by its restart policy, and heeds a stop only while it runs, which is too short: \
                 `podman rm --force {name}` takes it away"
            )
            .into());
        }
        match stop(api, name, decided_on, grace).await {
            Ok(()) => was_stopped = true,
            // It ended, or was started, just then.
            Err(Error::Refused(_)) => {}
            Err(failed) => return Err(failed),
        }
        sleep(AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::in_words_of_docker;

    #[test]
    fn what_waits_for_the_cleanup_has_exited_in_dockers_words() {
        for (status, awaits) in [("stopped", true), ("exited", false), ("running", false)] {
            let told = json!({ "Id": "4f2a", "RestartCount": 3, "State": { "Status": status, "Running": false } });
            let (inspected, awaits_cleanup) = in_words_of_docker(told).expect("a container");
            assert_eq!(awaits_cleanup, awaits, "{status}");
            let said = inspected.state.and_then(|state| state.status).map(|status| status.to_string());
            assert_eq!(said.as_deref(), Some(if awaits { "exited" } else { status }));
            assert_eq!(inspected.restart_count, Some(3));
        }
        in_words_of_docker(json!([1])).expect_err("no container");
    }
}
