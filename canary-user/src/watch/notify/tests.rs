//! Real HTTP: what receivers get, in which order, and what becomes of it when they fail.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, extract::State, http::StatusCode, routing::any};
use serde_json::Value;

use super::{message::Severity, *};
use crate::{
    config::{NotifyKind, Occasion, Url},
    guard::{Action, Entry, GateResult, Stage},
    journal::StageEntry,
    orchestrator::Plan,
    watch::{
        api::DecisionLife,
        story::{self, DEPLOYMENT},
        top,
    },
};

/// A receiver that answers by the list, and with 200 after it.
#[derive(Clone, Default)]
struct Inbox {
    got: Arc<Mutex<Vec<(String, Value)>>>,
    answers: Arc<Mutex<Vec<u16>>>,
}

async fn inbox(answers: &[u16]) -> (SocketAddr, Inbox) {
    let inbox = Inbox { answers: Arc::new(Mutex::new(answers.to_vec())), ..Inbox::default() };
    let take = |State(inbox): State<Inbox>, uri: axum::http::Uri, body: String| async move {
        let mut answers = inbox.answers.lock().expect("no panic");
        let status = if answers.is_empty() { 200 } else { answers.remove(0) };
        inbox.got.lock().expect("no panic").push((uri.path().to_owned(), serde_json::from_str(&body).expect("JSON")));
        StatusCode::from_u16(status).expect("a status")
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    let router = Router::new().fallback(any(take)).with_state(inbox.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (addr, inbox)
}

fn config(kind: NotifyKind, addr: SocketAddr, on: &[Occasion]) -> NotifyConfig {
    NotifyConfig { kind, url: Some(Url::Written(format!("http://{addr}/hook"))), on: on.to_vec() }
}

/// What the guard writes when a canary is condemned and rolled back.
fn story_of(board: &Board) {
    let view = |index| story::snapshot(index).deployments[DEPLOYMENT].clone();
    for index in [50, story::DECIDED] {
        let verdict = view(index).verdict;
        board.tell(Entry::Verdict { deployment: DEPLOYMENT.into(), unix_ms: index, verdict });
    }
    let decision = view(story::DECIDED).decision.expect("decided").decision;
    let id = decision.id.clone();
    let plan = Plan { orchestrator: "fake".into(), steps: Vec::new(), inverse: None, ..Plan::default() };
    board.tell(Entry::Decided { decision, plan, stage: Stage::Planned, detail: "stop it".into() });
    for stage in [Stage::Applying, Stage::Applied, Stage::Verified] {
        board.tell(Entry::Stage { decision_id: id.clone(), stage, detail: "so it is".into(), unix_ms: 2 });
    }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: not within a minute");
}

#[tokio::test]
async fn every_occasion_reaches_each_kind_of_receiver_in_order() {
    let (addr, inbox) = inbox(&[]).await;
    let board = Board::default();
    let deliveries = Deliveries::default();
    let kinds = [NotifyKind::Webhook, NotifyKind::Slack, NotifyKind::Alertmanager];
    let receivers = kinds.map(|kind| config(kind, addr, &Occasion::ALL));
    let guard = Some("https://ops.example/canary");
    let notifier = Notifier::start(&receivers, &Waits::new(), guard, &board, &deliveries).expect("valid");
    story_of(&board);
    notifier.finish().await;
    let got = inbox.got.lock().expect("no panic").clone();
    let webhook: Vec<&Value> = got.iter().map(|(_, body)| body).filter(|b| b["version"] == 1).collect();
    let occasions: Vec<&str> = webhook.iter().filter_map(|b| b["occasion"].as_str()).collect();
    assert_eq!(occasions, ["verdict", "planned", "applied", "verified"], "the first verdict is no change");
    assert_eq!(webhook[0]["title"], "checkout: canary regressed (was healthy)");
    assert_eq!(webhook[0]["data"]["verdict"]["verdict"]["outcome"], "regressed");
    assert_eq!(webhook[3]["data"]["decision"]["stages"].as_array().map(Vec::len), Some(4));
    let (page, report) =
        ("https://ops.example/canary/?deployment=checkout", "https://ops.example/canary/report/checkout-1800000020-1");
    assert_eq!((&webhook[0]["url"], &webhook[3]["url"]), (&page.into(), &report.into()));
    let slack: Vec<&str> = got.iter().filter_map(|(_, body)| body["text"].as_str()).collect();
    assert!(
        slack.iter().any(|t| t.starts_with("*checkout: canary regressed (was healthy)*\nCPU per turnaround")),
        "{slack:?}"
    );
    let alerts: Vec<&Value> =
        got.iter().filter(|(path, _)| path == "/hook/api/v2/alerts").map(|(_, b)| &b[0]).collect();
    let names: Vec<&str> = alerts.iter().filter_map(|a| a["labels"]["alertname"].as_str()).collect();
    assert_eq!(names, ["CanaryRegressed", "CanaryActionPlanned", "CanaryActionApplied", "CanaryActionVerified"]);
    assert_eq!(alerts[0]["labels"]["severity"], "critical");
    assert_eq!((&alerts[0]["generatorURL"], &alerts[3]["generatorURL"]), (&page.into(), &report.into()));
    for link in [format!("\n<{page}|The page>"), format!("\n<{report}|The report>")] {
        assert!(slack.iter().any(|text| text.ends_with(&link)), "{link}: {slack:?}");
    }
    let counts = deliveries.counts();
    assert!(counts.contains(&("webhook", "sent", 4)) && counts.contains(&("alertmanager", "sent", 4)), "{counts:?}");
}

/// What is told of a decision that a person has to approve within 15 minutes, at a stage of it.
fn told(stage: Stage, orchestrator: &str) -> Message {
    let view = story::snapshot(story::DECIDED).deployments[DEPLOYMENT].clone();
    let mut decision = view.decision.expect("decided").decision;
    let reason = "a person has to approve it within 15m".to_owned();
    decision.gates.push(GateResult { gate: "approval".to_owned(), passed: false, reason });
    let plan = Plan { orchestrator: orchestrator.into(), ..Plan::default() };
    let stages = vec![StageEntry { stage, detail: "stop it".to_owned(), unix_ms: decision.unix_ms }];
    let waits = Waits::from([(DEPLOYMENT.into(), Duration::from_secs(15 * 60))]);
    Message::of(&News::Decision(Arc::new(DecisionLife { decision, plan, stages })), &waits).expect("an occasion")
}

#[test]
fn whoever_has_to_answer_is_told_how_and_until_when() {
    let message = told(Stage::Planned, "systemd");
    assert_eq!(message.title, "checkout: rollback waits for approval");
    let asked =
        "stop it. It waits for `canary approve checkout-1800000020-1` until 2027-01-15T08:15:20Z; no answer is a no";
    assert!(message.text.ends_with(asked), "{}", message.text);
    let slack = message.body(NotifyKind::Slack, None);
    assert!(slack["text"].as_str().is_some_and(|text| text.ends_with(asked)), "{slack}");
    let alert = message.body(NotifyKind::Alertmanager, None);
    assert_eq!(alert[0]["labels"]["alertname"], "CanaryActionPlanned");
    assert_eq!(alert[0]["labels"]["severity"], "critical");
    assert_eq!(alert[0]["endsAt"], "2027-01-15T08:15:20Z", "it stands as long as an answer is waited for");
    let dry = told(Stage::Planned, "dry-run");
    assert_eq!(dry.title, "checkout: rollback planned", "nothing waits in a dry run");
    assert_eq!(dry.severity, Severity::Warning);
}

#[test]
fn without_an_address_of_the_guard_a_message_has_no_link_and_in_one_a_name_is_encoded() {
    let mut message = told(Stage::Failed, "systemd");
    assert_eq!(message.body(NotifyKind::Webhook, None)["url"], Value::Null);
    assert_eq!(message.body(NotifyKind::Alertmanager, None)[0].get("generatorURL"), None);
    let slack = message.body(NotifyKind::Slack, None);
    assert!(slack["text"].as_str().is_some_and(|text| !text.contains('<')), "{slack}");
    message.decision = Some("shop & eu-1-2".to_owned());
    let linked = message.body(NotifyKind::Webhook, Some("https://ops.example"));
    assert_eq!(linked["url"], "https://ops.example/report/shop%20%26%20eu-1-2");
}

#[test]
fn what_became_of_it_is_told_too() {
    let undo = "`canary undo checkout-1800000020-1` brings the canary back";
    for (stage, title, alert, severity, text) in [
        (Stage::Declined, "nobody approved the rollback", "Declined", Severity::Warning, "take it back by hand"),
        (Stage::Recovered, "rollback done, and the service is back", "Recovered", Severity::Info, "stop it"),
        (Stage::NotRecovered, "rollback done, and it did not help", "NotRecovered", Severity::Critical, undo),
        (Stage::Undone, "rollback undone", "Undone", Severity::Warning, "stop it"),
    ] {
        let message = told(stage, "systemd");
        assert_eq!(message.title, format!("checkout: {title}"));
        assert_eq!(message.severity, severity);
        assert_eq!(message.occasion.name(), stage.name());
        assert!(message.text.ends_with(text), "{}", message.text);
        let body = message.body(NotifyKind::Alertmanager, None);
        assert_eq!(body[0]["labels"]["alertname"], format!("CanaryAction{alert}"));
    }
}

#[test]
fn the_end_of_a_quarantine_is_told_as_that() {
    let mut decision =
        story::snapshot(story::DECIDED).deployments[DEPLOYMENT].decision.clone().expect("decided").decision;
    decision.action = Action::Quarantine;
    let detail = "its time is over; systemd finds it not in effect".to_owned();
    let stages = vec![StageEntry { stage: Stage::Undone, detail, unix_ms: 1 }];
    let life = DecisionLife { decision, plan: Plan::default(), stages };
    let message = Message::of(&News::Decision(Arc::new(life)), &Waits::new()).expect("an occasion");
    assert_eq!((&*message.title, message.occasion.name()), ("checkout: quarantine ended", "undone"));
    assert!(message.text.ends_with("its time is over; systemd finds it not in effect"), "{}", message.text);
}

#[test]
fn a_hold_is_told_as_that_and_ends_no_alert() {
    let mut decision =
        story::snapshot(story::DECIDED).deployments[DEPLOYMENT].decision.clone().expect("decided").decision;
    decision.action = Action::Hold;
    for (stage, title, severity) in [
        (Stage::Verified, "rollout held", Severity::Info),
        (Stage::Reverted, "somebody lets the rollout go on", Severity::Warning),
        (Stage::Undone, "hold ended", Severity::Warning),
    ] {
        let stages = vec![StageEntry { stage, detail: "so it is".to_owned(), unix_ms: 1 }];
        let life = DecisionLife { decision: decision.clone(), plan: Plan::default(), stages };
        let message = Message::of(&News::Decision(Arc::new(life)), &Waits::new()).expect("an occasion");
        assert_eq!((message.title, message.severity), (format!("checkout: {title}"), severity));
    }
    let entry = |stage| StageEntry { stage, detail: "so it is".to_owned(), unix_ms: 1 };
    for (stages, title) in [
        (vec![entry(Stage::Applying), entry(Stage::Failed)], "hold failed"),
        (vec![entry(Stage::Verified), entry(Stage::Undoing), entry(Stage::Failed)], "undo of the hold failed"),
    ] {
        let life = DecisionLife { decision: decision.clone(), plan: Plan::default(), stages };
        let message = Message::of(&News::Decision(Arc::new(life)), &Waits::new()).expect("an occasion");
        assert_eq!((message.title, message.severity), (format!("checkout: {title}"), Severity::Warning));
    }
    let stages = vec![StageEntry { stage: Stage::Closed, detail: "so it is".to_owned(), unix_ms: 1 }];
    let life = DecisionLife { decision, plan: Plan::default(), stages };
    assert!(Message::end_of_alert(&News::Decision(Arc::new(life))).is_none(), "the condemned canary serves on");
}

#[tokio::test]
async fn an_alert_ends_with_the_verdict() {
    let (addr, inbox) = inbox(&[]).await;
    let board = Board::default();
    let receivers = [config(NotifyKind::Alertmanager, addr, &[Occasion::Verdict])];
    let notifier = Notifier::start(&receivers, &Waits::new(), None, &board, &Deliveries::default()).expect("valid");
    for (index, unix_ms) in [(30, 0), (50, 1_000), (story::DECIDED, 2_000), (10, 3_000)] {
        let verdict = story::snapshot(index).deployments[DEPLOYMENT].verdict.clone();
        board.tell(Entry::Verdict { deployment: DEPLOYMENT.into(), unix_ms, verdict });
    }
    notifier.finish().await;
    let got = inbox.got.lock().expect("no panic").clone();
    let labels: Vec<&Value> = got.iter().map(|(_, b)| &b[0]["labels"]).collect();
    assert_eq!(got.len(), 2, "that all is well is no alert: {got:?}");
    assert_eq!(labels[0], labels[1], "it ends the same alert");
    assert_eq!(got[1].1[0]["endsAt"], "1970-01-01T00:00:03Z");
}

/// What an Alertmanager that is told of verdicts alone gets while the canary is condemned and `more` is told.
async fn alerts_when(more: impl FnOnce(&Board)) -> Vec<Value> {
    let (addr, inbox) = inbox(&[]).await;
    let board = Board::default();
    let receivers = [
        config(NotifyKind::Alertmanager, addr, &[Occasion::Verdict]),
        config(NotifyKind::Slack, addr, &[Occasion::Verdict]),
    ];
    let notifier = Notifier::start(&receivers, &Waits::new(), None, &board, &Deliveries::default()).expect("valid");
    story_of(&board);
    more(&board);
    notifier.finish().await;
    let got = inbox.got.lock().expect("no panic").clone();
    assert_eq!(got.iter().filter(|(_, body)| body["text"].is_string()).count(), 1, "a chat keeps no alert: {got:?}");
    got.into_iter().filter(|(path, _)| path.ends_with("/alerts")).map(|(_, body)| body[0].clone()).collect()
}

#[tokio::test]
async fn an_alert_ends_when_the_canary_is_out_of_service_though_the_verdict_stays() {
    let id = story::snapshot(story::DECIDED).deployments[DEPLOYMENT].decision.clone().expect("decided").decision.id;
    let stage = |stage, unix_ms| Entry::Stage { decision_id: id.clone(), stage, detail: "so it is".into(), unix_ms };
    assert_eq!(alerts_when(|_| ()).await.len(), 1, "verified is not yet known to help, and may be reverted");
    let reverted = alerts_when(|board| board.tell(stage(Stage::Reverted, 9_000))).await;
    assert_eq!(reverted.len(), 1, "{reverted:?}");
    for end in [Stage::Recovered, Stage::Closed] {
        let alerts = alerts_when(|board| board.tell(stage(end, 9_000))).await;
        assert_eq!(alerts.len(), 2, "{alerts:?}");
        assert_eq!(alerts[0]["labels"], alerts[1]["labels"], "it ends the same alert");
        assert_eq!(alerts[1]["endsAt"], "1970-01-01T00:00:09Z");
    }
    let gone = |board: &Board| {
        let mut snapshot = story::snapshot(story::GONE);
        board.record(&snapshot);
        (snapshot.t_ns, snapshot.unix_ms) = (snapshot.t_ns + 300_000_000_000, 9_000);
        board.record(&snapshot);
    };
    let alerts = alerts_when(gone).await;
    assert_eq!(alerts.len(), 2, "whoever took it away: {alerts:?}");
    assert_eq!((&alerts[1]["labels"], &alerts[1]["endsAt"]), (&alerts[0]["labels"], &"1970-01-01T00:00:09Z".into()));
}

#[tokio::test]
async fn a_failing_receiver_is_tried_again_and_holds_up_nobody() {
    let (addr, slow) = inbox(&[503, 429]).await;
    let (other, quick) = inbox(&[]).await;
    let board = Board::default();
    let deliveries = Deliveries::default();
    let planned = [Occasion::Planned];
    let receivers = [config(NotifyKind::Webhook, addr, &planned), config(NotifyKind::Slack, other, &planned)];
    let notifier = Notifier::start(&receivers, &Waits::new(), None, &board, &deliveries).expect("valid");
    story_of(&board);
    until("the other receiver is told", || quick.got.lock().expect("no panic").len() == 1).await;
    until("the third attempt", || slow.got.lock().expect("no panic").len() == 3).await;
    notifier.finish().await;
    assert!(deliveries.counts().contains(&("webhook", "sent", 1)), "{:?}", deliveries.counts());
}

#[tokio::test]
async fn a_refusal_is_not_tried_again_and_is_counted() {
    let (addr, inbox) = inbox(&[404]).await;
    let board = Board::default();
    let deliveries = Deliveries::default();
    let receivers = [config(NotifyKind::Webhook, addr, &[Occasion::Planned])];
    let notifier = Notifier::start(&receivers, &Waits::new(), None, &board, &deliveries).expect("valid");
    story_of(&board);
    notifier.finish().await;
    assert_eq!(inbox.got.lock().expect("no panic").len(), 1);
    assert_eq!(deliveries.counts(), [("webhook", "failed", 1)]);
}

#[test]
fn journald_gets_fields_that_survive_line_breaks() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("socket");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("a socket");
    let board = Board::default();
    let mut news = board.listen();
    story_of(&board);
    let mut told = std::iter::from_fn(|| news.try_recv().ok()).filter_map(|n| Message::of(&n, &Waits::new()));
    let planned = told.nth(1).expect("news");
    journald::send(&path, &planned).expect("sent");
    let mut datagram = [0; 4096];
    let n = socket.recv(&mut datagram).expect("received");
    let text = String::from_utf8_lossy(&datagram[..n]).into_owned();
    for part in ["MESSAGE\n", "checkout: rollback planned", "CANARY_OCCASION\n", "planned\n", "CANARY_DECISION\n"] {
        assert!(text.contains(part), "{part:?} is missing in {text:?}");
    }
}

/// Ends with the test.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_real_alertmanager_takes_the_alerts() {
    let test = "a_real_alertmanager_takes_the_alerts";
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("alertmanager.yml");
    std::fs::write(&file, "route: { receiver: nobody }\nreceivers: [{ name: nobody }]\n").expect("writable");
    // Free when asked.
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let started = std::process::Command::new("prometheus-alertmanager")
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.path={}", dir.path().display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg("--cluster.listen-address=")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn();
    let _running = match started {
        Ok(child) => Running(child),
        Err(error) => {
            println!("SKIP {test}: prometheus-alertmanager: {error}: apt-get install prometheus-alertmanager");
            return;
        }
    };
    let address = format!("127.0.0.1:{port}");
    let client = top::Client::new(&address, None, top::Trusted::Machine).expect("an address");
    for attempt in 0.. {
        match client.get::<Value>("/api/v2/status").await {
            Ok(_) => break,
            Err(error) => assert!(attempt < 600, "it does not come up: {error:#}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let board = Board::default();
    let deliveries = Deliveries::default();
    let url = Some(Url::Written(format!("http://{address}")));
    let receivers = [NotifyConfig { kind: NotifyKind::Alertmanager, url, on: Occasion::ALL.to_vec() }];
    let guard = Some("https://ops.example/canary");
    let notifier = Notifier::start(&receivers, &Waits::new(), guard, &board, &deliveries).expect("valid");
    // Alerts of now: what ended in 1970 is not kept.
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis() as u64;
    for (index, unix_ms) in [(50, now), (story::DECIDED, now)] {
        let verdict = story::snapshot(index).deployments[DEPLOYMENT].verdict.clone();
        board.tell(Entry::Verdict { deployment: DEPLOYMENT.into(), unix_ms, verdict });
    }
    notifier.finish().await;
    assert_eq!(deliveries.counts(), [("alertmanager", "sent", 1)]);
    let alerts: Value = client.get("/api/v2/alerts").await.expect("alerts");
    assert_eq!(alerts[0]["labels"]["alertname"], "CanaryRegressed", "{alerts:#}");
    assert_eq!(alerts[0]["labels"]["deployment"], DEPLOYMENT);
    assert_eq!(alerts[0]["generatorURL"], "https://ops.example/canary/?deployment=checkout");
    assert!(alerts[0]["annotations"]["description"].as_str().is_some_and(|d| d.starts_with("CPU per turnaround")));
}
