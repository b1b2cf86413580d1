use std::{
    collections::BTreeSet,
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State as Shared},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use tokio::net::TcpListener;

use super::*;
use crate::orchestrator::decided;

/// What the service does with the next order. Once it is told to, and well behaved after that.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Well,
    /// Does it, and does not answer.
    SilentOnceDone,
    /// Does nothing and does not answer.
    Hangs,
    Overloaded,
    Refuses,
    Redirects,
}

/// A service that carries out each decision once.
struct Service {
    moods: Mutex<Vec<Mood>>,
    done: Mutex<BTreeSet<String>>,
    /// Headers and body of each order.
    orders: Mutex<Vec<(HeaderMap, Bytes)>>,
    was_redirected: AtomicBool,
}

async fn order(Shared(service): Shared<Arc<Service>>, headers: HeaderMap, body: Bytes) -> Response {
    let mood = service.moods.lock().expect("no panic").pop().unwrap_or(Mood::Well);
    let id = headers[IDEMPOTENCY_KEY].to_str().expect("a text").to_owned();
    service.orders.lock().expect("no panic").push((headers, body));
    match mood {
        Mood::Well => {
            service.done.lock().expect("no panic").insert(id);
            StatusCode::OK.into_response()
        }
        Mood::SilentOnceDone => {
            service.done.lock().expect("no panic").insert(id);
            std::future::pending().await
        }
        Mood::Hangs => std::future::pending().await,
        Mood::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "later").into_response(),
        Mood::Refuses => (StatusCode::CONFLICT, "a deployment is under way").into_response(),
        Mood::Redirects => (StatusCode::TEMPORARY_REDIRECT, [("location", "/elsewhere")]).into_response(),
    }
}

async fn elsewhere(Shared(service): Shared<Arc<Service>>) {
    service.was_redirected.store(true, SeqCst);
}

async fn state(Shared(service): Shared<Arc<Service>>, Path(id): Path<String>) -> String {
    let done = service.done.lock().expect("no panic").contains(&percent_encoded(&id));
    format!(r#"{{"state": "{}", "detail": "asked for {id}"}}"#, if done { "in_effect" } else { "not_in_effect" })
}

/// The service, started, and the backend that calls it.
async fn started(moods: &[Mood], retries: u32) -> (Arc<Service>, Webhook, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let secret_file = dir.path().join("secret");
    fs::write(&secret_file, "s3cret\n").expect("write the secret");
    let service = Arc::new(Service {
        moods: Mutex::new(moods.iter().rev().copied().collect()),
        done: Mutex::default(),
        orders: Mutex::default(),
        was_redirected: AtomicBool::default(),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let router = Router::new()
        .route("/act", post(order))
        .route("/undo", post(order))
        .route("/elsewhere", post(elsewhere))
        .route("/state/{id}", get(state))
        .with_state(service.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let config = WebhookConfig {
        url: format!("{base}/act"),
        state_url: Some(format!("{base}/state/{{id}}")),
        undo_url: Some(format!("{base}/undo")),
        secret_file: Some(secret_file),
        timeout: Duration::from_millis(300),
        retries,
    };
    (service, Webhook::new(config).expect("a client"), dir)
}

/// Its id has to be escaped where it goes into an address or a header.
fn decision() -> Decision {
    let decision = decided::decision(Action::Rollback, Vec::new(), Vec::new());
    Decision { id: format!("{}/ü", decision.id), ..decision }
}

async fn apply(webhook: &Webhook) -> Result<(), Error> {
    webhook.apply(&decision(), &Plan::default()).await
}

async fn finds(webhook: &Webhook) -> State {
    webhook.state(&decision()).await.expect("a state").state
}

#[tokio::test]
async fn a_service_that_takes_canaries_away_is_not_asked_to_hold_a_rollout() {
    let (service, webhook, _dir) = started(&[], 0).await;
    let hold = Decision { action: Action::Hold, ..decision() };
    let refused = webhook.describe(&hold).await.expect_err("refused");
    assert!(matches!(&refused, Error::Refused(why) if Some(why) == webhook.cannot_hold().as_ref()), "{refused}");
    assert!(service.orders.lock().expect("no panic").is_empty());
}

#[tokio::test]
async fn the_decision_arrives_signed_and_under_its_id() {
    let (service, webhook, _dir) = started(&[], 0).await;
    assert_eq!(finds(&webhook).await, State::NotInEffect);
    apply(&webhook).await.expect("done");
    assert_eq!(finds(&webhook).await, State::InEffect);
    let (headers, body) = service.orders.lock().expect("no panic")[0].clone();
    let sent: Decision = serde_json::from_slice(&body).expect("the decision as JSON");
    assert_eq!(sent, decision());
    assert_eq!(headers["content-type"], "application/json");
    let signature = headers[SIGNATURE].to_str().expect("a text").strip_prefix("sha256=").expect("sha256=").to_owned();
    let tag: Vec<u8> =
        (0..signature.len()).step_by(2).map(|i| u8::from_str_radix(&signature[i..i + 2], 16).expect("hex")).collect();
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"s3cret");
    hmac::verify(&key, &body, &tag).expect("signed with the secret, without the newline of its file");
}

#[test]
fn the_signature_is_hmac_sha256() {
    // RFC 4231, test case 2.
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"Jefe");
    let tag = hmac::sign(&key, b"what do ya want for nothing?");
    assert_eq!(hex(tag.as_ref()), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

#[tokio::test]
async fn silence_after_it_was_done_is_asked_again_under_the_same_id_and_done_once() {
    let (service, webhook, _dir) = started(&[Mood::SilentOnceDone], 2).await;
    apply(&webhook).await.expect("the second try is answered");
    assert_eq!(service.orders.lock().expect("no panic").len(), 2);
    assert_eq!(service.done.lock().expect("no panic").len(), 1, "one id, done once");
}

#[tokio::test]
async fn silence_to_the_end_is_a_failure_that_may_have_been_done_and_the_state_tells() {
    let (service, webhook, _dir) = started(&[Mood::SilentOnceDone, Mood::Hangs], 1).await;
    let error = apply(&webhook).await.expect_err("no answer");
    assert!(matches!(error, Error::Failed(_)), "{error}");
    assert!(error.to_string().contains("no answer within 300ms; tried 2 times, it may have been done"), "{error}");
    assert_eq!(service.orders.lock().expect("no panic").len(), 2);
    assert_eq!(finds(&webhook).await, State::InEffect);
}

#[tokio::test]
async fn an_overloaded_service_is_asked_again() {
    let (service, webhook, _dir) = started(&[Mood::Overloaded], 1).await;
    apply(&webhook).await.expect("the second try is answered");
    assert_eq!(service.orders.lock().expect("no panic").len(), 2);
}

#[tokio::test]
async fn a_refusal_is_told_and_not_asked_again() {
    let (service, webhook, _dir) = started(&[Mood::Refuses], 3).await;
    let error = apply(&webhook).await.expect_err("refused");
    assert!(matches!(&error, Error::Refused(why) if why.contains("409 'a deployment is under way'")), "{error}");
    assert_eq!(service.orders.lock().expect("no panic").len(), 1);
    // After a try that may have been heard, a refusal does not prove that nothing was done.
    let (_, webhook, _dir) = started(&[Mood::Hangs, Mood::Refuses], 3).await;
    assert!(matches!(apply(&webhook).await, Err(Error::Failed(_))));
}

#[tokio::test]
async fn a_pause_that_begins_between_two_tries_ends_them_and_keeps_nothing_from_being_undone() {
    let (service, webhook, _dir) = started(&[Mood::Overloaded], 3).await;
    let heard = service.clone();
    let paused = move |deployment: &str| {
        assert_eq!(deployment, "shop");
        (!heard.orders.lock().expect("no panic").is_empty()).then(|| "incident 12".to_owned())
    };
    webhook.heed_pauses(Arc::new(paused));
    let error = apply(&webhook).await.expect_err("paused");
    assert!(matches!(error, Error::Failed(_)), "the first try may have been heard: {error}");
    assert!(error.to_string().contains("paused: incident 12; an earlier try may have been heard"), "{error}");
    assert_eq!(service.orders.lock().expect("no panic").len(), 1);
    let error = apply(&webhook).await.expect_err("paused");
    assert!(matches!(&error, Error::Refused(why) if why == "paused: incident 12"), "{error}");
    assert_eq!(service.orders.lock().expect("no panic").len(), 1);
    webhook.undo(&decision(), &Plan::default()).await.expect("undone");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (service, webhook, _dir) = started(&[Mood::Redirects], 3).await;
    let error = apply(&webhook).await.expect_err("not done");
    assert!(error.to_string().contains("answer 307"), "{error}");
    assert!(!service.was_redirected.load(SeqCst));
}

#[tokio::test]
async fn garbage_and_a_closed_port_are_failures() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/act", listener.local_addr().expect("an address"));
    let config = WebhookConfig {
        state_url: Some(url.clone()),
        url,
        undo_url: None,
        secret_file: None,
        timeout: Duration::from_secs(5),
        retries: 0,
    };
    let webhook = Webhook::new(config).expect("a client");
    let server = tokio::spawn(async move {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"\x00\xffnothing that HTTP knows\r\n\r\n").await;
        }
    });
    assert!(matches!(apply(&webhook).await, Err(Error::Failed(_))));
    webhook.state(&decision()).await.expect_err("no state can be read from it");
    server.await.expect("no panic");
    assert!(matches!(apply(&webhook).await, Err(Error::Failed(_))), "nobody listens");
    let error = webhook.undo(&decision(), &Plan::default()).await.expect_err("no address");
    assert!(matches!(error, Error::Refused(_)), "{error}");
}

#[tokio::test]
async fn without_its_secret_nothing_is_sent() {
    let (service, webhook, dir) = started(&[], 0).await;
    for (text, why) in [(Some(" \n"), "is empty"), (None, "read the secret")] {
        match text {
            Some(text) => fs::write(dir.path().join("secret"), text).expect("write"),
            None => fs::remove_file(dir.path().join("secret")).expect("remove"),
        }
        for refused in [webhook.describe(&decision()).await.map(|_| ()), apply(&webhook).await] {
            let error = refused.expect_err("not sent");
            assert!(matches!(&error, Error::Refused(w) if w.contains(why)), "{error}");
        }
    }
    assert!(service.orders.lock().expect("no panic").is_empty());
}

#[tokio::test]
async fn the_plan_says_what_is_sent_and_how_long_it_may_take() {
    let (service, webhook, _dir) = started(&[], 2).await;
    let plan = webhook.describe(&decision()).await.expect("a plan");
    assert!(plan.steps[0].contains("/act with Idempotency-Key shop-1795000000000-0001/ü, signed; up to 3 tries"));
    assert_eq!(plan.takes_at_most_ms, Some(3 * 300 + 500 + 1000));
    assert!(service.orders.lock().expect("no panic").is_empty(), "asking changes nothing");
    assert!(plan.inverse.is_some_and(|way| way.ends_with("/undo with Idempotency-Key shop-1795000000000-0001/ü-undo")));
}

#[tokio::test]
async fn an_undo_is_an_order_of_its_own() {
    let (service, webhook, _dir) = started(&[], 0).await;
    apply(&webhook).await.expect("done");
    // A service that keeps its keys for all addresses would take the same key for an order that it has carried out.
    webhook.undo(&decision(), &Plan::default()).await.expect("undone");
    let id = percent_encoded(&decision().id);
    let done: Vec<String> = service.done.lock().expect("no panic").iter().cloned().collect();
    assert_eq!(done, [id.clone(), format!("{id}-undo")]);
}
