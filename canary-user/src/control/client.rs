//! What the verbs use to reach the running guard: HTTP over its unix socket.

use std::{io::ErrorKind, path::Path, time::Duration};

use anyhow::{Context as _, anyhow};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Incoming},
    header,
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;

use super::Refusal;

/// Longer than the guard's own limit, so that its words come first.
const LIMIT: Duration = Duration::from_secs(100);

/// Asks the guard behind a socket. `body`: what to send along; `None` = it is only read.
///
/// # Errors
/// No guard there, not allowed, or what the guard refuses: in words that say what to do.
pub fn ask<T: DeserializeOwned>(socket: &Path, path: &str, body: Option<&Value>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        tokio::time::timeout(LIMIT, exchange(socket, path, body))
            .await
            .with_context(|| format!("the guard at {} does not answer", socket.display()))?
    })
}

async fn exchange<T: DeserializeOwned>(socket: &Path, path: &str, body: Option<&Value>) -> anyhow::Result<T> {
    let name = socket.display();
    let request = Request::builder()
        .method(if body.is_some() { Method::POST } else { Method::GET })
        .uri(path)
        .header(header::HOST, "guard")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body.map(Value::to_string).unwrap_or_default())))
        .context("write the request")?;
    let response = send(socket, request).await?;
    let status = response.status();
    let broken = || format!("the guard at {name} broke off");
    let bytes = response.into_body().collect().await.with_context(broken)?.to_bytes();
    if status.is_success() {
        return serde_json::from_slice(&bytes).with_context(|| format!("{name} is not a guard of this version"));
    }
    match serde_json::from_slice::<Refusal>(&bytes) {
        Ok(refusal) => Err(refusal.into()),
        Err(_) => Err(anyhow!("{name} answers {status} to {path}: is this guard of another version?")),
    }
}

/// One request to the guard behind a socket. The request names a host and a path.
///
/// # Errors
/// No guard there, or not allowed, in words that say what to do.
pub async fn send(socket: &Path, request: Request<Full<Bytes>>) -> anyhow::Result<Response<Incoming>> {
    let name = socket.display();
    let stream = UnixStream::connect(socket).await.map_err(|e| match e.kind() {
        ErrorKind::NotFound => anyhow!(
            "no guard listens at {name}: start `canary run`, or name another one's socket with --socket (its \
             configuration has it under [api])"
        ),
        ErrorKind::ConnectionRefused => anyhow!("the guard that listened at {name} is gone: start `canary run`"),
        ErrorKind::PermissionDenied => {
            anyhow!("{name} may not be used by this user: ask as root, or as a member of the group under [api]")
        }
        _ => anyhow!(e).context(format!("connect to the guard at {name}")),
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    sender.send_request(request).await.with_context(|| format!("the guard at {name} broke off"))
}
