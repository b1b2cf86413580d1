mod reports;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{oneshot, watch},
};

use super::{probes::programs, *};
use crate::{
    control::Refusal,
    watch::{Metrics, api, metrics::protobuf, story},
};

/// Head and body of the answer to a GET.
async fn get(addr: SocketAddr, path: &str) -> (String, String) {
    request(addr, "GET", path, "").await
}

/// Head and body, which need not be text, of the answer to a GET by who accepts that.
async fn get_as(addr: SocketAddr, path: &str, accept: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(addr).await.expect("connects");
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sends");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("an end of the head");
    let body = answer.split_off(end + 4);
    (String::from_utf8(answer).expect("a head is text"), body)
}

/// Head and body of the answer to a request.
pub async fn request(addr: SocketAddr, method: &str, path: &str, body: &str) -> (String, String) {
    let mut stream = TcpStream::connect(addr).await.expect("connects");
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    (head.to_owned(), body.to_owned())
}

#[tokio::test]
async fn serves_every_endpoint_and_stops_when_told() {
    let listener = bind("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let recorder = Metrics::default();
    let (snapshots, receiver) = watch::channel(Arc::<Snapshot>::default());
    let (stop, stopped) = oneshot::channel::<()>();
    let board = Board::default();
    let sources = Sources {
        metrics: recorder.clone(),
        snapshots: receiver,
        board: board.clone(),
        journal: None,
        tls: None,
        commands: axum::Router::new(),
        takes_commands: false,
    };
    let server = tokio::spawn(serve(listener, sources, async {
        let _ = stopped.await;
    }));

    let (head, body) = get(addr, "/healthz").await;
    assert!(head.starts_with("HTTP/1.1 200"), "starting is healthy: {head} {body}");
    assert!(get(addr, "/readyz").await.0.starts_with("HTTP/1.1 503"), "but not ready");

    let mut snapshot = story::snapshot(story::DECIDED + 1);
    snapshot.t_ns = monotonic_ns();
    recorder.record(&snapshot);
    board.record(&snapshot);
    snapshots.send_replace(Arc::new(snapshot.clone()));
    for path in ["/healthz", "/readyz"] {
        let (head, body) = get(addr, path).await;
        assert!(head.starts_with("HTTP/1.1 200") && body.contains("ok: last window"), "{path}: {head} {body}");
    }
    let (head, body) = get(addr, "/metrics").await;
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{head}");
    assert!(body.contains("canary_cpu_usage_seconds_total{") && body.ends_with("# EOF\n"));
    let (head, body) = get_as(addr, "/metrics", "text/plain;version=0.0.4").await;
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    let text = String::from_utf8(body).expect("text");
    assert!(text.contains("# TYPE canary_cpu_usage_seconds_total counter\n") && !text.contains("# EOF"), "{text}");
    let (head, body) = get_as(addr, "/metrics", protobuf::CONTENT_TYPE).await;
    assert!(head.contains(&format!("content-type: {}", protobuf::CONTENT_TYPE)), "{head}");
    assert!(body.windows(29).any(|w| w == b"canary_run_queue_wait_seconds"), "the families of the same page");
    let (head, body) = get(addr, "/monitor").await;
    assert!(head.contains("content-type: application/json"), "{head}");
    check_monitor(&serde_json::from_str(&body).expect("JSON"));
    let (_, index) = get(addr, "/").await;
    let schemas = v1::openapi().components.expect("there are types").schemas;
    assert!(schemas.contains_key("Stretch") && schemas.contains_key("StretchShape"), "{:?}", schemas.keys());
    let paths = v1::openapi().paths.paths;
    assert!(paths.len() >= 14 && paths.contains_key("/api/v1/pause"), "{} paths", paths.len());
    for path in
        paths.keys().map(String::as_str).chain(["/metrics", "/monitor", "/gate/DEPLOYMENT", "/api/v1/openapi.json"])
    {
        assert!(index.contains(path.split("/{").next().unwrap_or(path)), "{path} is not in\n{index}");
    }
    let (head, body) = get(addr, "/nothing").await;
    assert!(head.starts_with("HTTP/1.1 404") && head.contains("text/plain"), "{head}");
    assert!(body.starts_with("there is no /nothing here") && body.contains("/metrics "), "{body}");
    let (head, body) = get(addr, "/api/v2/verdicts").await;
    assert!(head.starts_with("HTTP/1.1 404") && head.contains("application/json"), "{head}");
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(body["kind"], "not_found");
    assert!(body["error"].as_str().is_some_and(|error| error.contains("/api/v1/openapi.json")), "{body}");

    snapshot.t_ns = 1;
    snapshots.send_replace(Arc::new(snapshot));
    let (head, body) = get(addr, "/healthz").await;
    assert!(head.starts_with("HTTP/1.1 503") && body.starts_with("stuck"), "{head} {body}");

    stop.send(()).expect("the server waits");
    server.await.expect("no panic").expect("a clean stop");
    assert!(TcpStream::connect(addr).await.is_err(), "the port is free again");
}

fn check_monitor(page: &Value) {
    assert_eq!(page["machine"]["cpu_usage"], 0.42);
    assert_eq!(page["machine"]["memory_usage"]["share"], 0.25);
    assert_eq!(page["machine"]["network_usage"]["rx_bytes_per_second"], 1_000_000.0);
    let checkout = &page["deployments"][story::DEPLOYMENT];
    let [stable, canary] = checkout["versions"].as_array().expect("versions").as_slice() else {
        panic!("two versions: {checkout}")
    };
    assert_eq!(
        (&stable["role"], &stable["version"], &stable["instances"]),
        (&"stable".into(), &"v1.4.2".into(), &2.into())
    );
    assert_eq!(stable["cpu_usage"], 0.32, "two instances with 40 ms in 250 ms");
    assert_eq!(canary["cpu_usage"], 0.208);
    assert_eq!(canary["memory_usage"], 120 << 20);
    assert_eq!(stable["network_usage"]["tx_bytes_per_second"], 3_200_000.0);
    assert_eq!(checkout["verdict"], "regressed");
    assert_eq!(checkout["decision"]["stage"], "planned");
    assert!(checkout["p"]["canary"].as_f64().is_some_and(|p| p > 1.0));
}

#[test]
fn an_instance_that_is_not_known_makes_the_sum_unknown() {
    let mut snapshot = story::snapshot(5);
    snapshot.machine = None;
    let view = snapshot.deployments.get_mut(story::DEPLOYMENT).expect("the story's deployment");
    view.samples[0].memory = None;
    view.samples[0].cpu = None;
    view.samples[0].network = None;
    let page = monitor::page(&snapshot);
    assert_eq!(page["machine"], Value::Null);
    let stable = &page["deployments"][story::DEPLOYMENT]["versions"][0];
    assert_eq!(stable["memory_usage"], Value::Null);
    assert_eq!(stable["network_usage"]["rx_bytes_per_second"], Value::Null);
    assert!(stable["cpu_usage"].is_f64(), "the kernel's own book steps in for on-CPU time");
    let empty = monitor::page(&Snapshot::default());
    assert_eq!(empty["deployments"], Value::Object(serde_json::Map::new()));
}

#[tokio::test]
async fn a_taken_port_is_told_with_what_to_do() {
    let first = bind("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
    let addr = first.local_addr().expect("an address");
    let error = bind(addr).await.expect_err("taken").to_string();
    assert!(error.contains(&addr.to_string()) && error.contains("--listen"), "{error}");
}

#[test]
fn freshness_is_measured_in_windows() {
    let snapshot = Snapshot { t_ns: 100_000_000_000, span_ns: 2_000_000_000, ..Snapshot::default() };
    let at = |seconds: u64| freshness(&snapshot, seconds * 1_000_000_000);
    assert_eq!(at(110), Freshness::Fresh { age_ns: 10_000_000_000 });
    assert_eq!(at(111), Freshness::Stale { age_ns: 11_000_000_000 });
    assert_eq!(freshness(&Snapshot::default(), 5), Freshness::NoneYet);
}

#[tokio::test]
async fn the_api_says_what_is_and_refuses_with_what_to_do() {
    let (addr, snapshots, board) = served().await;
    let (head, body) = get(addr, "/api/v1/windows").await;
    assert!(head.starts_with("HTTP/1.1 404") && body.contains("no window has come in yet"), "{head} {body}");
    for index in 0..=story::DECIDED {
        board.record(&story::snapshot(index));
    }
    snapshots.send_replace(Arc::new(story::snapshot(story::DECIDED)));

    let state: api::State = json(addr, "/api/v1/deployments").await;
    assert_eq!(state, api::State::from(&story::snapshot(story::DECIDED)), "it comes back as it was");
    let one: api::Deployment = json(addr, "/api/v1/deployments/checkout").await;
    assert_eq!(Some(&one), state.deployment("checkout"));
    assert_eq!(one.versions[1].cpu_usage, Some(0.208));
    let windows: api::Windows = json(addr, "/api/v1/windows?since=75").await;
    assert_eq!((windows.windows.len(), windows.next), (6, story::DECIDED + 1));

    for (path, status, says) in [
        ("/api/v1/deployments/other", "404", "choose checkout"),
        ("/api/v1/windows?deployment=other", "404", "choose checkout"),
        ("/api/v1/windows?limit=0", "400", "limit: 0 is out of range: write 1 to 3600"),
        ("/api/v1/windows?since=-1", "400", "since"),
        ("/api/v1/verdicts?limit=1001", "400", "write 1 to 1000"),
        ("/api/v1/decisions?limit=x", "400", "limit"),
        ("/api/v1/decisions/none", "404", "canary history"),
    ] {
        let (head, body) = get(addr, path).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {head}");
        let refused: Refusal = serde_json::from_str(&body).unwrap_or_else(|e| panic!("{path}: {e}: {body}"));
        assert!(refused.error.contains(says), "{path}: {}", refused.error);
    }
}

#[tokio::test]
async fn what_to_do_next_is_what_the_page_says() {
    let (addr, snapshots, board) = served().await;
    let steps: Vec<api::NextStep> = json(addr, "/api/v1/next").await;
    assert!(steps.is_empty(), "nothing is watched yet: {steps:?}");
    for (index, what) in
        [(50, "Go on with the rollout"), (story::DECIDED + 8, "Nothing: mend it before the next rollout")]
    {
        (0..=index).for_each(|i| board.record(&story::snapshot(i)));
        snapshots.send_replace(Arc::new(story::snapshot(index)));
        let steps: Vec<api::NextStep> = json(addr, "/api/v1/next").await;
        assert_eq!(steps.len(), 1);
        assert_eq!((&*steps[0].deployment, &*steps[0].what), (story::DEPLOYMENT, what));
        let (_, page) = get(addr, "/page/now").await;
        assert!(page.contains(what) && page.contains(&steps[0].why), "{page}");
    }
}

#[tokio::test]
async fn what_to_do_next_knows_when_a_condemned_canary_was_seen_last() {
    let (addr, snapshots, board) = served().await;
    (0..=story::GONE).for_each(|i| board.record(&story::snapshot(i)));
    let mut away = story::snapshot(story::GONE);
    away.deployments.get_mut(story::DEPLOYMENT).expect("the story's deployment").decision = None;
    snapshots.send_replace(Arc::new(away));
    let steps: Vec<api::NextStep> = json(addr, "/api/v1/next").await;
    assert_eq!(steps[0].what, "Wait: the guard decides in the next window", "it may be back in a moment");
}

#[tokio::test]
async fn a_pause_of_one_deployment_is_on_its_page_and_leaves_the_button_alone() {
    let (addr, snapshots, _board) = served().await;
    let mut snapshot = story::snapshot(story::DECIDED);
    snapshot.deployments.get_mut(story::DEPLOYMENT).expect("the story's deployment").paused = Some("by root".into());
    snapshots.send_replace(Arc::new(snapshot.clone()));
    let (_, page) = get(addr, "/page/now").await;
    assert!(page.contains("checkout is paused. </strong>No action is begun on it: by root"), "{page}");
    assert!(!page.contains("data-paused"));
    snapshot.paused = Some("by root".into());
    snapshots.send_replace(Arc::new(snapshot));
    assert!(get(addr, "/page/now").await.1.contains("data-paused"));
}

#[tokio::test]
async fn events_tell_each_window_and_each_stage_and_end_with_the_guard() {
    let (addr, snapshots, board) = served().await;
    let mut stream = TcpStream::connect(addr).await.expect("connects");
    stream.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: test\r\n\r\n").await.expect("sends");
    let mut text = String::new();
    let mut read = async |text: &mut String, until: &str| {
        let mut part = [0; 65536];
        while !text.contains(until) {
            let n = stream.read(&mut part).await.expect("reads");
            assert!(n > 0, "it ended before {until:?} came: {text}");
            text.push_str(&String::from_utf8_lossy(&part[..n]));
        }
    };
    read(&mut text, "text/event-stream").await;
    snapshots.send_replace(Arc::new(story::snapshot(story::DECIDED)));
    read(&mut text, "event: window").await;
    read(&mut text, "\"outcome\":\"regressed\"").await;
    let verdict = story::snapshot(story::DECIDED).deployments[story::DEPLOYMENT].verdict.clone();
    let entry = crate::guard::Entry::Verdict { deployment: story::DEPLOYMENT.into(), unix_ms: 1, verdict };
    board.tell(entry);
    read(&mut text, "event: verdict").await;
    drop((snapshots, board));
    read(&mut text, "\r\n0\r\n").await;
}

#[test]
fn a_guard_without_any_program_is_not_ready() {
    let mut snapshot = story::snapshot(1);
    assert!(programs(&snapshot).0);
    snapshot.quality.hooks_missing = crate::telemetry::hooks::names().map(|n| format!("{n}: refused")).collect();
    let (attached, text) = programs(&snapshot);
    let all = crate::telemetry::hooks::names().count();
    let first = format!("kernel programs: 0 of {all} attached\n  not live: sched_switch");
    assert!(!attached && text.starts_with(&first), "{text}");
    assert!(!programs(&Snapshot::default()).0, "nothing is known before the first window");
}

/// A server on the story's deployment, with what feeds it. It ends with the runtime.
async fn served() -> (SocketAddr, watch::Sender<Arc<Snapshot>>, Board) {
    served_with(None).await
}

async fn served_with(journal: Option<PathBuf>) -> (SocketAddr, watch::Sender<Arc<Snapshot>>, Board) {
    let listener = bind("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let (snapshots, receiver) = watch::channel(Arc::<Snapshot>::default());
    let board = Board::default();
    let sources = Sources {
        metrics: Metrics::default(),
        snapshots: receiver,
        board: board.clone(),
        journal,
        tls: None,
        commands: axum::Router::new(),
        takes_commands: false,
    };
    tokio::spawn(serve(listener, sources, std::future::pending()));
    (addr, snapshots, board)
}

async fn json<T: serde::de::DeserializeOwned>(addr: SocketAddr, path: &str) -> T {
    let (head, body) = get(addr, path).await;
    assert!(
        head.starts_with("HTTP/1.1 200") && head.contains("content-type: application/json"),
        "{path}: {head} {body}"
    );
    serde_json::from_str(&body).unwrap_or_else(|e| panic!("{path}: {e}: {body}"))
}

/// A certificate for localhost by the openssl of the machine; `None`, with the reason printed, where there is none.
pub fn certificate(test: &str, dir: &std::path::Path) -> Option<crate::config::TlsConfig> {
    let (certificate, key) = (dir.join("certificate.pem"), dir.join("key.pem"));
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .args([&key, std::path::Path::new("-out"), &certificate])
        .output();
    match made {
        Ok(output) if output.status.success() => Some(crate::config::TlsConfig { certificate, key }),
        Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            println!("SKIP {test}: openssl: {error}");
            None
        }
    }
}

#[tokio::test]
async fn tls_with_the_configured_certificate() {
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types};
    let dir = tempfile::tempdir().expect("a directory");
    let Some(files) = certificate("tls_with_the_configured_certificate", dir.path()) else { return };
    let listener = bind("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let (_snapshots, receiver) = watch::channel(Arc::<Snapshot>::default());
    let tls = Some(tls::load(&files).expect("certificate and key"));
    let sources = Sources {
        metrics: Metrics::default(),
        snapshots: receiver,
        board: Board::default(),
        journal: None,
        tls,
        commands: axum::Router::new(),
        takes_commands: false,
    };
    tokio::spawn(serve(listener, sources, std::future::pending()));
    // Somebody who says nothing holds nobody up.
    let _silent = TcpStream::connect(addr).await.expect("connects");

    let mut roots = RootCertStore::empty();
    let pem = std::fs::read(&files.certificate).expect("readable");
    let certificate = <pki_types::CertificateDer as pki_types::pem::PemObject>::from_pem_slice(&pem).expect("PEM");
    roots.add(certificate).expect("a certificate");
    let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let stream = TcpStream::connect(addr).await.expect("connects");
    let name = pki_types::ServerName::try_from("localhost").expect("a name");
    let mut stream = connector.connect(name, stream).await.expect("a handshake");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("starting"), "{answer}");

    let wrong = crate::config::TlsConfig { key: files.certificate.clone(), ..files };
    let error = format!("{:#}", tls::load(&wrong).expect_err("no key"));
    assert!(error.contains("tls.key") && error.contains("certificate.pem"), "{error}");
}

#[tokio::test]
async fn a_browser_gets_the_page_and_everything_else_the_list() {
    let (addr, snapshots, board) = served().await;
    (0..=story::DECIDED).for_each(|i| board.record(&story::snapshot(i)));
    snapshots.send_replace(Arc::new(story::snapshot(story::DECIDED)));
    let mut stream = TcpStream::connect(addr).await.expect("connects");
    let request =
        "GET /?deployment=checkout HTTP/1.1\r\nHost: test\r\nAccept: text/html,*/*\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("sends");
    let mut page = String::new();
    stream.read_to_string(&mut page).await.expect("an answer");
    assert!(page.contains("content-security-policy: default-src 'self'"), "{page}");
    for part in ["<!DOCTYPE html>", "Yes, it is worse: more work per request", "<svg", "page/live.js"] {
        assert!(page.contains(part), "'{part}' is missing");
    }
    assert!(get(addr, "/").await.1.starts_with("canary guard\n"));
    for (path, kind) in
        [("/page/style.css", "text/css"), ("/page/live.js", "text/javascript"), ("/page/now?width=400", "text/html")]
    {
        let (head, body) = get(addr, path).await;
        assert!(head.starts_with("HTTP/1.1 200") && head.contains(kind) && body.len() > 1000, "{path}: {head}");
    }
    assert!(get(addr, "/page/now?deployment=other").await.1.contains("There is no deployment other"));
    assert!(get(addr, "/report/none").await.0.starts_with("HTTP/1.1 404"));
}
