//! `/api/v1`: the state, what changed and what was decided, as JSON. Handlers only; the types are in `watch::api`.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
};
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi};

use super::{Api, events, human, probes};
use crate::{
    control::{self, Refusal},
    watch::{
        api::{self, DecisionLife, NextStep, VerdictChange, WindowPoint, Windows},
        board::WINDOWS_KEPT,
        page,
    },
};

/// Entries of a list without `limit`, and with the largest one.
const LIMIT: usize = 50;
const MOST: usize = 1000;

/// The document at `/api/v1/openapi.json`, made from the handlers and the types.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "canary guard",
        description = "What the guard sees, how it judges and what it did; with a token, commands. What was not measured is null."
    ),
    paths(
        deployments,
        deployment,
        next,
        verdicts,
        decisions,
        decision,
        windows,
        events::events,
        human::report,
        probes::healthz,
        probes::readyz
    ),
    components(schemas(api::WindowEvent))
)]
struct Document;

/// The whole document: what is told here, and the commands.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    document.merge(control::Document::openapi());
    document
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct List {
    /// Only of this deployment; all of them where it is left out
    deployment: Option<String>,
    /// At most this many, the newest
    #[param(minimum = 1, maximum = 1000, default = 50)]
    limit: Option<usize>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Since {
    /// The deployment; may be left out where there is only one
    deployment: Option<String>,
    /// Index of the first window to send; 0 where it is left out
    #[param(minimum = 0, default = 0)]
    since: Option<u64>,
    /// At most this many, the newest
    #[param(minimum = 1, maximum = 3600, default = 3600)]
    limit: Option<usize>,
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self::invalid(rejection.body_text())
    }
}

fn within(limit: Option<usize>, default: usize, most: usize) -> Result<usize, Refusal> {
    match limit {
        None => Ok(default),
        Some(n) if (1..=most).contains(&n) => Ok(n),
        Some(n) => Err(Refusal::invalid(format!("limit: {n} is out of range: write 1 to {most}"))),
    }
}

pub async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(openapi())
}

/// Every deployment after the latest window, with the machine and the quality of the data.
#[utoipa::path(get, path = "/api/v1/deployments", responses((status = 200, body = api::State)))]
pub async fn deployments(State(api): State<Api>) -> Json<api::State> {
    Json(api::State::from(&**api.snapshots.borrow()))
}

/// One deployment after the latest window.
#[utoipa::path(
    get, path = "/api/v1/deployments/{name}",
    params(("name" = String, Path, description = "Its name in the configuration")),
    responses((status = 200, body = api::Deployment), (status = 404, body = Refusal))
)]
pub async fn deployment(State(api): State<Api>, Path(name): Path<String>) -> Result<Json<api::Deployment>, Refusal> {
    let state = api::State::from(&**api.snapshots.borrow());
    let found = state.deployments.iter().find(|d| *d.name == name).cloned();
    found.map(Json).ok_or_else(|| Refusal::not_found(unknown(&name, &state)))
}

/// What a person should do about each deployment now, in the words of the page.
#[utoipa::path(get, path = "/api/v1/next", responses((status = 200, body = [NextStep])))]
pub async fn next(State(api): State<Api>) -> Json<Vec<NextStep>> {
    let snapshot = api.snapshots.borrow().clone();
    Json(page::next(&snapshot, &api.board))
}

fn unknown(name: &str, state: &api::State) -> String {
    let names: Vec<&str> = state.deployments.iter().map(|d| &*d.name).collect();
    match names.as_slice() {
        [] => format!("no deployment {name:?}: no window has come in yet"),
        names => format!("no deployment {name:?}: choose {}", names.join(" or ")),
    }
}

/// Changes of verdict, newest first; those that the journal remembers from earlier lives of the guard too.
#[utoipa::path(
    get, path = "/api/v1/verdicts", params(List),
    responses((status = 200, body = [VerdictChange]), (status = 400, body = Refusal))
)]
pub async fn verdicts(
    State(api): State<Api>,
    list: Result<Query<List>, QueryRejection>,
) -> Result<Json<Vec<Arc<VerdictChange>>>, Refusal> {
    let Query(List { deployment, limit }) = list?;
    Ok(Json(api.board.verdicts(deployment.as_deref(), within(limit, LIMIT, MOST)?)))
}

/// Decisions with their plans and stages, newest first; those that the journal remembers too.
#[utoipa::path(
    get, path = "/api/v1/decisions", params(List),
    responses((status = 200, body = [DecisionLife]), (status = 400, body = Refusal))
)]
pub async fn decisions(
    State(api): State<Api>,
    list: Result<Query<List>, QueryRejection>,
) -> Result<Json<Vec<Arc<DecisionLife>>>, Refusal> {
    let Query(List { deployment, limit }) = list?;
    Ok(Json(api.board.decisions(deployment.as_deref(), within(limit, LIMIT, MOST)?)))
}

/// One decision with its plan and its stages.
#[utoipa::path(
    get, path = "/api/v1/decisions/{id}",
    params(("id" = String, Path, description = "As in the list of decisions and in `canary history`")),
    responses((status = 200, body = DecisionLife), (status = 404, body = Refusal))
)]
pub async fn decision(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Arc<DecisionLife>>, Refusal> {
    let found = api.board.decision(&id);
    let why =
        || format!("no decision {id:?} among the latest: see /api/v1/decisions, or `canary history` for older ones");
    found.map(Json).ok_or_else(|| Refusal::not_found(why()))
}

/// The windows of one deployment that are kept in memory, oldest first: what the charts are drawn from.
#[utoipa::path(
    get, path = "/api/v1/windows", params(Since),
    responses((status = 200, body = Windows), (status = 400, body = Refusal), (status = 404, body = Refusal))
)]
pub async fn windows(
    State(api): State<Api>,
    since: Result<Query<Since>, QueryRejection>,
) -> Result<Json<Windows>, Refusal> {
    let Query(Since { deployment, since, limit }) = since?;
    let limit = within(limit, WINDOWS_KEPT, WINDOWS_KEPT)?;
    let snapshot = api.snapshots.borrow().clone();
    let name = match (deployment, snapshot.deployments.len()) {
        (Some(name), _) => name,
        (None, 1) => snapshot.deployments.keys().next().map(|n| n.to_string()).unwrap_or_default(),
        (None, 0) => return Err(Refusal::not_found("no window has come in yet".to_owned())),
        (None, _) => {
            let why = "there are several deployments: name one with ?deployment=".to_owned();
            return Err(Refusal::invalid(why));
        }
    };
    let since = since.unwrap_or(0);
    // More than the document's type of numbers holds.
    if i64::try_from(since).is_err() {
        return Err(Refusal::invalid(format!("since: {since} is out of range: write 0 to {}", i64::MAX)));
    }
    let Some(windows) = api.board.windows(&name, since, limit) else {
        return Err(Refusal::not_found(unknown(&name, &api::State::from(&*snapshot))));
    };
    let next = windows.last().map_or(since, |w: &WindowPoint| w.window + 1);
    Ok(Json(Windows { deployment: name, kept: WINDOWS_KEPT, next, windows }))
}
