use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{oneshot, watch},
};

use super::*;
use crate::watch::{Metrics, story};

/// Head and body of the answer to a GET.
async fn get(addr: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(addr).await.expect("connects");
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
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
    let mut registry = Registry::default();
    let recorder = Metrics::register(&mut registry);
    let (snapshots, receiver) = watch::channel(Arc::<Snapshot>::default());
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, Arc::new(registry), receiver, async {
        let _ = stopped.await;
    }));

    let (head, body) = get(addr, "/healthz").await;
    assert!(head.starts_with("HTTP/1.1 200"), "starting is healthy: {head} {body}");
    assert!(get(addr, "/readyz").await.0.starts_with("HTTP/1.1 503"), "but not ready");

    let mut snapshot = story::snapshot(story::DECIDED + 1);
    snapshot.t_ns = monotonic_ns();
    recorder.record(&snapshot);
    snapshots.send_replace(Arc::new(snapshot.clone()));
    for path in ["/healthz", "/readyz"] {
        let (head, body) = get(addr, path).await;
        assert!(head.starts_with("HTTP/1.1 200") && body.contains("ok: last window"), "{path}: {head} {body}");
    }
    let (head, body) = get(addr, "/metrics").await;
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{head}");
    assert!(body.contains("canary_cpu_usage_seconds_total{") && body.ends_with("# EOF\n"));
    let (head, body) = get(addr, "/monitor").await;
    assert!(head.contains("content-type: application/json"), "{head}");
    check_monitor(&serde_json::from_str(&body).expect("JSON"));
    let (_, index) = get(addr, "/").await;
    for path in ["/metrics", "/monitor", "/healthz", "/readyz"] {
        assert!(index.contains(path), "{index}");
    }
    assert!(get(addr, "/nothing").await.0.starts_with("HTTP/1.1 404"));

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
    DEFAULT_LISTEN.parse::<SocketAddr>().expect("the default is an address");
}
