//! The page for people, and what belongs to it.

use anyhow::Context as _;
use axum::{
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Api, INDEX};
use crate::{
    control::{Refusal, RefusalKind},
    journal::Journal,
    watch::{
        html::STYLE,
        page,
        report::{DecisionReport, Evidence, Format, thinned},
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

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// Its form; where it is left out the one that Accept likes best, or HTML
    #[param(inline)]
    format: Option<Format>,
}

/// The report of a decision, from what was kept when it was made: it stays the same, whatever comes later.
#[utoipa::path(
    get, path = "/report/{id}",
    params(("id" = String, Path, description = "As in the list of decisions and in `canary history`"), Wanted),
    responses(
        (
            status = 200, description = "One HTML file that needs nothing else; Markdown for a chat; or what both are made from",
            content((String = "text/html"), (String = "text/markdown"), (DecisionReport = "application/json"))
        ),
        (status = 400, body = Refusal), (status = 404, body = Refusal),
        (status = 503, description = "The journal cannot be read now, and the decision is none of the latest", body = Refusal)
    )
)]
pub async fn report(
    State(api): State<Api>,
    Path(id): Path<String>,
    headers: HeaderMap,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(Wanted { format }) = wanted?;
    let accept: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|a| a.to_str().ok()).collect();
    let format = format.unwrap_or_else(|| Format::wanted(&accept.join(",")));
    let recorded = recorded(&api, &id).await;
    if let Err(error) = &recorded {
        tracing::warn!("a report is made from what is in memory: {error:#}");
    }
    // The journal has those, too, that are no longer among the latest.
    let (decision, kept) = match (api.board.decision(&id), recorded) {
        (latest, Ok(Some(recorded))) => (latest.unwrap_or(recorded.decision), recorded.evidence),
        (Some(latest), Ok(None) | Err(_)) => (latest, None),
        (None, Ok(None)) => return Err(Refusal::not_found(format!("no decision {id:?}: see `canary history`"))),
        (None, Err(error)) => {
            let why = format!("whether there is a decision {id:?} cannot be told now: {error:#}");
            return Err(Refusal::new(RefusalKind::Unavailable, why));
        }
    };
    let evidence = kept.or_else(|| {
        let windows = api.board.windows(&decision.decision.deployment, 0, usize::MAX).map(thinned).unwrap_or_default();
        let made_on = api.board.made_on(&id)?;
        Some(Evidence { windows, ..Evidence::clone(&made_on) })
    });
    let text = DecisionReport { decision, evidence }.text(format);
    let mut response = match format {
        Format::Html => page(text),
        Format::Markdown | Format::Json => {
            let kind = (header::CONTENT_TYPE, format.content_type());
            ([kind, (header::CACHE_CONTROL, "no-store"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], text)
                .into_response()
        }
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// What the journal has of a decision; `None` where it has nothing (yet), or where there is none.
async fn recorded(api: &Api, id: &str) -> anyhow::Result<Option<DecisionReport>> {
    let Some(journal) = api.journal.clone() else { return Ok(None) };
    let id = id.to_owned();
    let may_read = api.readers.clone().acquire_owned().await.context("wait for others who read the journal")?;
    let read = move || {
        let report = DecisionReport::recorded(&Journal::open_to_read(&journal)?, Some(&id));
        // Also where who asked has gone meanwhile.
        drop(may_read);
        report
    };
    tokio::task::spawn_blocking(read).await.context("read the journal").flatten()
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
