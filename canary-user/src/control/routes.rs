//! The commands as HTTP, on the unix socket and on the guard's port alike; they differ in who may ask.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use axum::{
    Json, Router,
    body::Bytes,
    extract::{ConnectInfo, FromRequestParts, Path, Query, State, rejection::QueryRejection},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, de::DeserializeOwned};
use utoipa::{
    IntoParams, Modify, OpenApi, ToSchema,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};

use super::{Answer, Command, Control, Done, MOST, Record, Refusal, RefusalKind, Reply, Status, Token, socket::Peer};
use crate::journal::Journal;

/// The commands in the OpenAPI document.
#[derive(OpenApi)]
#[openapi(paths(status, history, pause, resume, approve, rollback, hold, undo), modifiers(&Bearer))]
pub struct Document;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.description = Some("What is in token_file under [api]; without one, commands are refused.".into());
        document.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// Who may ask.
#[derive(Clone, Debug)]
pub enum Access {
    /// Whom the kernel names as the other end of the unix socket: root and this group.
    Peer { group: Option<u32> },
    /// Who shows this token.
    Bearer(Token),
    /// Nobody: no token is configured.
    Nobody,
}

/// Decisions of a history that is asked for without a limit.
const LATEST: usize = 50;

const REFUSED: &str = "Not done: 400 it cannot be understood, 401 the token is missing or wrong, 403 no token is configured, \
    404 there is no such deployment or decision, 409 not as things stand, 503 the guard is about to stop";

#[derive(Clone)]
struct Desk {
    control: Control,
    access: Access,
    journal: Option<PathBuf>,
}

/// The commands, and for who may give them how things stand and what was done. `journal`: where the past is read; `None` = nowhere
/// that it could be.
pub fn routes(control: Control, access: Access, journal: Option<PathBuf>) -> Router {
    Router::new()
        .route("/api/v1/status", get(status))
        .route("/api/v1/history", get(history))
        .route("/api/v1/pause", post(pause))
        .route("/api/v1/resume", post(resume))
        .route("/api/v1/approve/{id}", post(approve))
        .route("/api/v1/rollback/{deployment}", post(rollback))
        .route("/api/v1/hold/{deployment}", post(hold))
        .route("/api/v1/undo/{id}", post(undo))
        .with_state(Desk { control, access, journal })
}

/// Somebody who may ask, by name.
struct Asker(String);

impl FromRequestParts<Desk> for Asker {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, desk: &Desk) -> Result<Self, Refusal> {
        let refuse = |kind, why: String| Err(Refusal::new(kind, why));
        match &desk.access {
            Access::Peer { group } => match parts.extensions.get::<ConnectInfo<Peer>>() {
                Some(ConnectInfo(peer)) => match peer.may_command(*group) {
                    Ok(name) => Ok(Asker(name)),
                    Err(why) => refuse(RefusalKind::NotAllowed, why),
                },
                None => refuse(RefusalKind::NotAllowed, "the kernel does not say who asks".into()),
            },
            Access::Nobody => refuse(
                RefusalKind::NotAllowed,
                "no token is configured, so that this port takes no commands: set token_file under [api], or use the \
                 verbs of `canary` on the guard's machine"
                    .into(),
            ),
            Access::Bearer(token) => match parts.headers.get(header::AUTHORIZATION).map(|h| h.to_str()) {
                Some(Ok(shown)) if token.is_shown_by(shown) => Ok(Asker("the API token".into())),
                Some(_) => refuse(RefusalKind::Unauthenticated, "this is not the token in token_file".into()),
                None => refuse(
                    RefusalKind::Unauthenticated,
                    "show the token in token_file as a header: Authorization: Bearer TOKEN".into(),
                ),
            },
        }
    }
}

/// How each deployment stands: verdict, pause, decision, and every gate that blocks now.
#[utoipa::path(
    get, path = "/api/v1/status", security(("token" = [])),
    responses((status = 200, body = Status), (status = "default", body = Refusal, description = REFUSED))
)]
async fn status(State(desk): State<Desk>, asker: Asker) -> Response {
    answer(desk.control.ask(Command::Status, asker.0).await)
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Latest {
    /// At most this many decisions, the newest
    #[param(minimum = 0, maximum = 1000000, default = 50)]
    limit: Option<usize>,
}

/// What was decided, done and asked for: decisions with their lives, and every command.
#[utoipa::path(
    get, path = "/api/v1/history", params(Latest), security(("token" = [])),
    responses((status = 200, body = Record), (status = "default", body = Refusal, description = REFUSED))
)]
async fn history(State(desk): State<Desk>, _: Asker, latest: Result<Query<Latest>, QueryRejection>) -> Response {
    let limit = match latest.map(|Query(latest)| latest.limit.unwrap_or(LATEST)) {
        Ok(limit) if limit <= MOST => limit,
        Ok(limit) => {
            return Refusal::invalid(format!("limit: {limit} is out of range: write 0 to {MOST}")).into_response();
        }
        Err(rejection) => return Refusal::from(rejection).into_response(),
    };
    let Some(journal) = desk.journal else {
        return Refusal::new(RefusalKind::NotFound, "this guard keeps no journal on disk").into_response();
    };
    // Beside the guard's own connection, and off its threads.
    let read = move || Record::read(&Journal::open_to_read(&journal)?, limit);
    match tokio::task::spawn_blocking(read).await.context("read the journal").flatten() {
        Ok(record) => Json(record).into_response(),
        Err(error) => Refusal::new(RefusalKind::Unavailable, format!("{error:#}")).into_response(),
    }
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Pause {
    /// Only this one; all of them where it is left out
    deployment: Option<String>,
    /// Until it is resumed where it is left out; as in the configuration: "1h", "15m"
    #[schema(pattern = "^[1-9][0-9]{0,3} ?[smhd]$")]
    r#for: Option<String>,
    reason: Option<String>,
}

/// Keeps the guard from beginning an action; it goes on watching and judging.
#[utoipa::path(
    post, path = "/api/v1/pause", request_body = Option<Pause>, security(("token" = [])),
    responses((status = 200, body = Done), (status = "default", body = Refusal, description = REFUSED))
)]
async fn pause(State(desk): State<Desk>, asker: Asker, body: Bytes) -> Response {
    let command = json::<Pause>(&body).and_then(|p| {
        let for_ms = p.r#for.as_deref().map(duration_ms).transpose()?;
        Ok(Command::Pause { deployment: p.deployment, for_ms, reason: p.reason.unwrap_or_default() })
    });
    ask(desk, asker, command).await
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Resume {
    /// The pause of this one; the pause of all where it is left out
    deployment: Option<String>,
}

/// Ends a pause.
#[utoipa::path(
    post, path = "/api/v1/resume", request_body = Option<Resume>, security(("token" = [])),
    responses((status = 200, body = Done), (status = "default", body = Refusal, description = REFUSED))
)]
async fn resume(State(desk): State<Desk>, asker: Asker, body: Bytes) -> Response {
    ask(desk, asker, json::<Resume>(&body).map(|r| Command::Resume { deployment: r.deployment })).await
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// Lets a decision that waits for approval be carried out.
#[utoipa::path(
    post, path = "/api/v1/approve/{id}", request_body = Option<Nothing>, security(("token" = [])),
    params(("id" = String, Path, description = "As in the list of decisions")),
    responses((status = 200, body = Done), (status = "default", body = Refusal, description = REFUSED))
)]
async fn approve(State(desk): State<Desk>, asker: Asker, Path(id): Path<String>, body: Bytes) -> Response {
    ask(desk, asker, json::<Nothing>(&body).map(|_| Command::Approve { id })).await
}

/// Applies the inverse that was recorded with an action.
#[utoipa::path(
    post, path = "/api/v1/undo/{id}", request_body = Option<Nothing>, security(("token" = [])),
    params(("id" = String, Path, description = "As in the list of decisions")),
    responses((status = 200, body = Done), (status = "default", body = Refusal, description = REFUSED))
)]
async fn undo(State(desk): State<Desk>, asker: Asker, Path(id): Path<String>, body: Bytes) -> Response {
    ask(desk, asker, json::<Nothing>(&body).map(|_| Command::Undo { id })).await
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Rollback {
    reason: Option<String>,
}

/// Takes a canary away, whatever the verdict and the mode.
#[utoipa::path(
    post, path = "/api/v1/rollback/{deployment}", request_body = Option<Rollback>, security(("token" = [])),
    params(("deployment" = String, Path, description = "Its name in the configuration")),
    responses((status = 200, body = Done), (status = "default", body = Refusal, description = REFUSED))
)]
async fn rollback(State(desk): State<Desk>, asker: Asker, Path(deployment): Path<String>, body: Bytes) -> Response {
    let command = json::<Rollback>(&body)
        .map(|r| Command::Rollback { deployment, reason: r.reason.unwrap_or_default().trim().to_owned() });
    ask(desk, asker, command).await
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Hold {
    reason: Option<String>,
}

/// Has the rollout of a canary stand still, whatever the verdict and the mode. It serves on; an undo lets the rollout go on.
#[utoipa::path(
    post, path = "/api/v1/hold/{deployment}", request_body = Option<Hold>, security(("token" = [])),
    params(("deployment" = String, Path, description = "Its name in the configuration")),
    responses((status = 200, body = Done), (status = "default", body = Refusal, description = REFUSED))
)]
async fn hold(State(desk): State<Desk>, asker: Asker, Path(deployment): Path<String>, body: Bytes) -> Response {
    let command = json::<Hold>(&body)
        .map(|h| Command::Hold { deployment, reason: h.reason.unwrap_or_default().trim().to_owned() });
    ask(desk, asker, command).await
}

async fn ask(desk: Desk, asker: Asker, command: Result<Command, Refusal>) -> Response {
    answer(match command {
        Ok(command) => desk.control.ask(command, asker.0).await,
        Err(refusal) => Err(refusal),
    })
}

/// An empty body is an empty object, and so is null.
fn json<T: Default + DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    if body.is_empty() {
        return Ok(T::default());
    }
    let read = serde_json::from_slice::<Option<T>>(body).map(Option::unwrap_or_default);
    read.map_err(|e| Refusal::invalid(format!("the body: {e}")))
}

/// A duration that is longer than nothing, in milliseconds.
fn duration_ms(text: &str) -> Result<u64, Refusal> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration >= Duration::from_secs(1) => Ok(duration.as_millis().try_into().unwrap_or(u64::MAX)),
        _ => Err(Refusal::invalid(format!(
            "for: \"{text}\" is no duration of 1s or more: write a number and a unit, such as \"1h\" or \"30m\""
        ))),
    }
}

fn answer(answer: Answer) -> Response {
    match answer {
        Ok(Reply::Status(status)) => Json(status).into_response(),
        Ok(Reply::Done(done)) => Json(done).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let code = match self.kind {
            RefusalKind::Invalid => StatusCode::BAD_REQUEST,
            RefusalKind::Unauthenticated => StatusCode::UNAUTHORIZED,
            RefusalKind::NotAllowed => StatusCode::FORBIDDEN,
            RefusalKind::NotFound => StatusCode::NOT_FOUND,
            RefusalKind::NotNow => StatusCode::CONFLICT,
            RefusalKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        let mut response = (code, Json(&self)).into_response();
        if self.kind == RefusalKind::Unauthenticated {
            let bearer = header::HeaderValue::from_static("Bearer realm=\"canary\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        response
    }
}
