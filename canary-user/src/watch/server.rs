//! The HTTP API: metrics, the state as JSON, and the probes. Read only; nothing here reaches the line.

mod monitor;

use std::{future::Future, io::ErrorKind, net::SocketAddr, sync::Arc};

use anyhow::{Context, anyhow};
use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::registry::Registry;
use rustix::time::{ClockId, clock_gettime};
use tokio::{net::TcpListener, sync::watch::Receiver};

use super::{Snapshot, metrics};

/// Where the API listens if nothing else is said: this machine only.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:9847";

/// Windows without a Snapshot after which the guard counts as stuck, and the least time that this may be.
const STALE_WINDOWS: u64 = 5;
const STALE_AT_LEAST_NS: u64 = 3_000_000_000;
/// Loading the kernel programs and finding the targets comes before the first Snapshot.
const START_NS: u64 = 60_000_000_000;

const INDEX: &str = "canary guard\n\n\
    /metrics  OpenMetrics, for Prometheus\n\
    /monitor  CPU, memory and network use of the machine and of each version, P(t) and verdict, as JSON\n\
    /healthz  200 while windows keep coming (and in the first minute), else 503\n\
    /readyz   200 once the first window is in and while windows keep coming, else 503\n";

#[derive(Clone)]
struct Api {
    registry: Arc<Registry>,
    snapshots: Receiver<Arc<Snapshot>>,
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

/// Serves until `shutdown` is ready; requests under way are finished.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    registry: Arc<Registry>,
    snapshots: Receiver<Arc<Snapshot>>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let api = Api { registry, snapshots, started_ns: monotonic_ns() };
    let router = Router::new()
        .route("/", get(|| async { INDEX }))
        .route("/metrics", get(metrics_page))
        .route("/monitor", get(monitor_page))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(api);
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await.context("serve metrics and status")
}

async fn metrics_page(State(api): State<Api>) -> Response {
    match metrics::encode(&api.registry) {
        Ok(page) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], page).into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, format!("encode metrics: {e}\n")).into_response(),
    }
}

async fn monitor_page(State(api): State<Api>) -> Json<serde_json::Value> {
    let snapshot = api.snapshots.borrow().clone();
    Json(monitor::page(&snapshot))
}

async fn healthz(State(api): State<Api>) -> (StatusCode, String) {
    let now_ns = monotonic_ns();
    match freshness(&api.snapshots.borrow(), now_ns) {
        Freshness::NoneYet if now_ns.saturating_sub(api.started_ns) < START_NS => {
            (StatusCode::OK, "starting: no window yet\n".to_owned())
        }
        other => other.answer(),
    }
}

async fn readyz(State(api): State<Api>) -> (StatusCode, String) {
    freshness(&api.snapshots.borrow(), monotonic_ns()).answer()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Freshness {
    NoneYet,
    Fresh { age_ns: u64 },
    Stale { age_ns: u64 },
}

impl Freshness {
    fn answer(self) -> (StatusCode, String) {
        let ago = |age_ns: u64| super::units::duration_ns(age_ns as f64);
        match self {
            Freshness::NoneYet => (StatusCode::SERVICE_UNAVAILABLE, "no window yet\n".to_owned()),
            Freshness::Fresh { age_ns } => (StatusCode::OK, format!("ok: last window {} ago\n", ago(age_ns))),
            Freshness::Stale { age_ns } => {
                (StatusCode::SERVICE_UNAVAILABLE, format!("stuck: last window {} ago\n", ago(age_ns)))
            }
        }
    }
}

fn freshness(snapshot: &Snapshot, now_ns: u64) -> Freshness {
    // The channel starts with an empty Snapshot; the first real one has the sequence number 1 or a time.
    if snapshot.t_ns == 0 {
        return Freshness::NoneYet;
    }
    let age_ns = now_ns.saturating_sub(snapshot.t_ns);
    if age_ns <= (STALE_WINDOWS * snapshot.span_ns).max(STALE_AT_LEAST_NS) {
        Freshness::Fresh { age_ns }
    } else {
        Freshness::Stale { age_ns }
    }
}

/// The clock of `Snapshot::t_ns`.
fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(test)]
mod tests;
