//! `/healthz` and `/readyz`: for service managers and clusters. Neither depends on traffic or on anything outside.

use axum::{extract::State, http::StatusCode};

use super::{Api, monotonic_ns};
use crate::{
    telemetry::hooks,
    watch::{Snapshot, units},
};

/// Windows without a Snapshot after which the guard counts as stuck, and the least time that this may be.
const STALE_WINDOWS: u64 = 5;
const STALE_AT_LEAST_NS: u64 = 3_000_000_000;
/// Loading the kernel programs and finding the targets comes before the first Snapshot.
const START_NS: u64 = 60_000_000_000;

/// Whether the guard lives: 200 while windows keep coming, and in the first minute; else 503.
#[utoipa::path(
    get, path = "/healthz",
    responses((status = 200, body = String, content_type = "text/plain"), (status = 503, body = String, content_type = "text/plain"))
)]
pub async fn healthz(State(api): State<Api>) -> (StatusCode, String) {
    let now_ns = monotonic_ns();
    match freshness(&api.snapshots.borrow(), now_ns) {
        Freshness::NoneYet if now_ns.saturating_sub(api.started_ns) < START_NS => {
            (StatusCode::OK, "starting: no window yet\n".to_owned())
        }
        other => other.answer(),
    }
}

/// Whether the guard can do its work: 200 once kernel programs are attached and the first window is in, and while windows
/// keep coming; else 503. One line for each condition.
#[utoipa::path(
    get, path = "/readyz",
    responses((status = 200, body = String, content_type = "text/plain"), (status = 503, body = String, content_type = "text/plain"))
)]
pub async fn readyz(State(api): State<Api>) -> (StatusCode, String) {
    let snapshot = api.snapshots.borrow().clone();
    let (fresh, windows) = freshness(&snapshot, monotonic_ns()).answer();
    let (attached, hooks) = programs(&snapshot);
    // The server starts after the configuration was checked: it cannot be wrong any more.
    let text = format!("{windows}{hooks}configuration valid\n");
    let ready = fresh == StatusCode::OK && attached;
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text)
}

/// Whether any kernel program is live, and which are not.
pub fn programs(snapshot: &Snapshot) -> (bool, String) {
    if snapshot.sequence == 0 {
        return (false, "kernel programs: not known before the first window\n".to_owned());
    }
    let all = hooks::names().count();
    let missing = &snapshot.quality.hooks_missing;
    let live = hooks::names().filter(|name| !missing.iter().any(|m| m.split(':').next() == Some(name))).count();
    let lost: String = missing.iter().map(|m| format!("  not live: {m}\n")).collect();
    (live > 0, format!("kernel programs: {live} of {all} attached\n{lost}"))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    NoneYet,
    Fresh { age_ns: u64 },
    Stale { age_ns: u64 },
}

impl Freshness {
    pub fn answer(self) -> (StatusCode, String) {
        let ago = |age_ns: u64| units::duration_ns(age_ns as f64);
        match self {
            Freshness::NoneYet => (StatusCode::SERVICE_UNAVAILABLE, "no window yet\n".to_owned()),
            Freshness::Fresh { age_ns } => (StatusCode::OK, format!("ok: last window {} ago\n", ago(age_ns))),
            Freshness::Stale { age_ns } => {
                (StatusCode::SERVICE_UNAVAILABLE, format!("stuck: last window {} ago\n", ago(age_ns)))
            }
        }
    }
}

pub fn freshness(snapshot: &Snapshot, now_ns: u64) -> Freshness {
    // The channel starts with an empty Snapshot; every real one has a time.
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
