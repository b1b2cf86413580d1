//! The HTTP server: the page, the API, metrics, the state as JSON, and the probes. Read only, but for the
//! commands that are handed in.

mod events;
mod gate;
mod human;
mod monitor;
mod probes;
pub mod tls;
mod v1;

use std::{future::Future, io::ErrorKind, net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::{Context, anyhow};
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use rustix::time::{ClockId, clock_gettime};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch::Receiver},
};
use tokio_rustls::rustls::ServerConfig;

use self::probes::{Freshness, freshness};
use super::{
    Board, Snapshot,
    metrics::{Metrics, format::Format},
};
use crate::control::Refusal;

/// Reports that are read from the journal at a time.
const READERS: usize = 4;
const INDEX: &str = "canary guard\n\n\
    /report/ID            the report of a decision, as one HTML file; with ?format=markdown for a chat, with ?format=json as JSON\n\
    /metrics              for Prometheus: OpenMetrics, or its text format 0.0.4, or protobuf with native histograms, as it is asked for\n\
    /monitor              CPU, memory and network use of the machine and of each version, P(t) and verdict, as JSON\n\
    /api/v1/deployments   each deployment with its verdict, versions and decision, as JSON\n\
    /api/v1/next          what to do next about each deployment, with the commands\n\
    /api/v1/verdicts      changes of verdict, newest first\n\
    /api/v1/decisions     decisions with their plans and stages, newest first\n\
    /api/v1/windows       the numbers of the last windows of a deployment\n\
    /api/v1/events        what happens, as server-sent events\n\
    /api/v1/status, /api/v1/history (with the token): how things stand with every gate that blocks, and the past\n\
    /api/v1/pause, /api/v1/resume (POST, with the token): no action is begun meanwhile\n\
    /api/v1/approve/ID, /api/v1/undo/ID, /api/v1/rollback/DEPLOYMENT, /api/v1/hold/DEPLOYMENT (POST, with the token)\n\
    /api/v1/openapi.json  all of /api/v1 as an OpenAPI document\n\
    /gate/DEPLOYMENT      for Argo Rollouts' web metric: JSON with a result, successful, failed or inconclusive\n\
    /gate/DEPLOYMENT/HOOK for Flagger's webhooks (POST): confirm-rollout, rollout, confirm-traffic-increase,\n\
    \x20                     confirm-promotion, rollback; 200 is yes, 403 is no\n\
    /healthz              200 while windows keep coming (and in the first minute), else 503\n\
    /readyz               200 once programs are attached and the first window is in, and while windows keep coming, else 503\n";

/// What is served, and from where.
#[derive(Clone, Debug)]
pub struct Sources {
    pub metrics: Metrics,
    pub snapshots: Receiver<Arc<Snapshot>>,
    pub board: Board,
    /// Where the evidence of decisions is kept; `None` = in memory only.
    pub journal: Option<PathBuf>,
    /// Certificate and key; `None` = plain HTTP.
    pub tls: Option<Arc<ServerConfig>>,
    /// The commands of [`crate::control`].
    pub commands: Router,
    /// Whether they are taken from who shows the token: the page then has a button.
    pub takes_commands: bool,
}

#[derive(Clone)]
struct Api {
    metrics: Metrics,
    snapshots: Receiver<Arc<Snapshot>>,
    board: Board,
    journal: Option<PathBuf>,
    /// Who may read it at a time: anybody who reaches the port may ask, and each reader takes a thread.
    readers: Arc<Semaphore>,
    takes_commands: bool,
    started_ns: u64,
}

/// Takes the address, apart from serving, so that a taken port is found before anything else starts.
///
/// # Errors
/// Names the address, and what to do where the port is taken.
pub async fn bind(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr).await.map_err(|e| {
        let advice = match e.kind() {
            ErrorKind::AddrInUse => ": the port is taken; choose another one with --listen ADDRESS:PORT",
            ErrorKind::AddrNotAvailable => ": this machine does not have that address; see --listen",
            ErrorKind::PermissionDenied => ": ports below 1024 need CAP_NET_BIND_SERVICE; see --listen",
            _ => "",
        };
        anyhow!(e).context(format!("listen on {addr} for metrics and status{advice}"))
    })
}

/// Serves until `shutdown` is ready; requests under way are finished. `commands` are those of [`crate::control`].
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    mut sources: Sources,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let tls = sources.tls.take();
    let router = routes(sources);
    match tls {
        None => axum::serve(listener, router).with_graceful_shutdown(shutdown).await,
        Some(tls) => axum::serve(tls::Tls::new(listener, tls)?, router).with_graceful_shutdown(shutdown).await,
    }
    .context("serve metrics and status")
}

/// Everything that is served, for whatever listens.
pub fn routes(sources: Sources) -> Router {
    let Sources { metrics, snapshots, board, journal, tls: _, commands, takes_commands } = sources;
    let readers = Arc::new(Semaphore::new(READERS));
    let api = Api { metrics, snapshots, board, journal, readers, takes_commands, started_ns: monotonic_ns() };
    Router::new()
        .route("/", get(human::root))
        .route("/page/now", get(human::now))
        .route("/page/style.css", get(human::style))
        .route("/page/live.js", get(human::script))
        .route("/report/{id}", get(human::report))
        .route("/metrics", get(metrics_page))
        .route("/monitor", get(monitor_page))
        .route("/gate/{deployment}", get(gate::metric).post(gate::hook_is_missing))
        .route("/gate/{deployment}/{hook}", get(gate::hook).post(gate::hook))
        .route("/healthz", get(probes::healthz))
        .route("/readyz", get(probes::readyz))
        .route("/api/v1/deployments", get(v1::deployments))
        .route("/api/v1/deployments/{name}", get(v1::deployment))
        .route("/api/v1/next", get(v1::next))
        .route("/api/v1/verdicts", get(v1::verdicts))
        .route("/api/v1/decisions", get(v1::decisions))
        .route("/api/v1/decisions/{id}", get(v1::decision))
        .route("/api/v1/windows", get(v1::windows))
        .route("/api/v1/events", get(events::events))
        .route("/api/v1/openapi.json", get(v1::document))
        .with_state(api)
        .merge(commands)
        .fallback(nothing_there)
}

/// Says what there is instead, as JSON below `/api/` like every refusal there.
async fn nothing_there(uri: Uri) -> Response {
    let path = uri.path();
    if path.starts_with("/api/") {
        return Refusal::not_found(format!("there is no {path}: /api/v1/openapi.json lists what there is"))
            .into_response();
    }
    (StatusCode::NOT_FOUND, format!("there is no {path} here; there is:\n\n{INDEX}")).into_response()
}

async fn metrics_page(State(api): State<Api>, headers: HeaderMap) -> Response {
    let accept: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|a| a.to_str().ok()).collect();
    let format = Format::wanted(&accept.join(","));
    let page = match format {
        Format::Protobuf => Ok(api.metrics.protobuf()),
        Format::OpenMetrics => api.metrics.openmetrics().map(String::into_bytes),
        Format::Text => api.metrics.text().map(String::into_bytes),
    };
    match page {
        Ok(page) => ([(header::CONTENT_TYPE, format.content_type()), (header::VARY, "accept")], page).into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, format!("encode metrics: {e}\n")).into_response(),
    }
}

async fn monitor_page(State(api): State<Api>) -> Json<serde_json::Value> {
    let snapshot = api.snapshots.borrow().clone();
    Json(monitor::page(&snapshot))
}

/// The clock of `Snapshot::t_ns`.
fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(test)]
pub(super) mod tests;
