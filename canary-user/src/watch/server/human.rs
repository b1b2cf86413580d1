//! The page for people, and what belongs to it.

use anyhow::Context as _;
use axum::{
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::{Api, INDEX};
use crate::{
    control::Refusal,
    journal::Journal,
    watch::{
        html::STYLE,
        page,
        report::{self, Evidence, Report, thinned},
    },
};

/// The page runs its own script and nothing else, and stands in no frame.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'";

#[derive(Debug, Deserialize)]
pub struct Shown {
    deployment: Option<String>,
    width: Option<u32>,
}

/// The page for a browser; the list of paths as text for everything that does not ask for HTML.
pub async fn root(
    State(api): State<Api>,
    headers: HeaderMap,
    shown: Result<Query<Shown>, QueryRejection>,
) -> Result<Response, Refusal> {
    let wanted = headers.get(header::ACCEPT).and_then(|a| a.to_str().ok()).unwrap_or_default();
    if !wanted.contains("text/html") {
        return Ok(INDEX.into_response());
    }
    let Query(shown) = shown?;
    let snapshot = api.snapshots.borrow().clone();
    Ok(page(page::page(&snapshot, &api.board, shown.deployment.as_deref(), api.takes_commands).into_string()))
}

/// The part of the page that changes.
pub async fn now(State(api): State<Api>, shown: Result<Query<Shown>, QueryRejection>) -> Result<Response, Refusal> {
    let Query(Shown { deployment, width }) = shown?;
    let snapshot = api.snapshots.borrow().clone();
    Ok(page(page::now(&snapshot, &api.board, deployment.as_deref(), width.unwrap_or(page::WIDTH)).into_string()))
}

/// The report of a decision, from what was kept when it was made: it stays the same, whatever comes later.
pub async fn report(State(api): State<Api>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let why = || format!("no decision {id:?} among the latest: see `canary report` for older ones");
    let life = api.board.decision(&id).ok_or_else(|| Refusal::not_found(why()))?;
    let kept = kept(&api, &id).await;
    let evidence = kept.or_else(|| {
        let windows = api.board.windows(&life.decision.deployment, 0, usize::MAX).map(thinned).unwrap_or_default();
        let made_on = api.board.made_on(&id)?;
        Some(Evidence { windows, ..Evidence::clone(&made_on) })
    });
    Ok(page(report::html(&Report { life: &life, evidence: evidence.as_ref() })))
}

/// What the journal has of a decision; `None` where it has nothing (yet), or where there is none.
async fn kept(api: &Api, id: &str) -> Option<Evidence> {
    let (journal, id) = (api.journal.clone()?, id.to_owned());
    let read = move || -> anyhow::Result<Option<Evidence>> {
        let kept = Journal::open_to_read(&journal)?.evidence(&id)?;
        Ok(kept.map(|json| serde_json::from_str(&json)).transpose()?)
    };
    tokio::task::spawn_blocking(read).await.context("read the journal").flatten().unwrap_or_else(|error| {
        tracing::warn!("a report is made from what is in memory: {error:#}");
        None
    })
}

fn page(html: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, html).into_response()
}

pub async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")], STYLE).into_response()
}

pub async fn script() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/javascript; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
    (headers, page::SCRIPT).into_response()
}
