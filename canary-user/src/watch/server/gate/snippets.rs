//! The shipped templates for Argo Rollouts and Flagger, held against what a running server answers.

use std::{fs, net::SocketAddr, path::Path};

use serde_json::Value;
use tokio::sync::watch;

use super::super::{Board, Sources, bind, serve, tests::request};
use super::*;
use crate::watch::story;

fn documents(path: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").join(path);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_saphyr::from_multiple(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A server that shows the story at a window, with its deployment under the name that the templates use.
struct Shown {
    addr: SocketAddr,
    snapshots: watch::Sender<Arc<Snapshot>>,
}

impl Shown {
    async fn start() -> Self {
        let listener = bind("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let (snapshots, receiver) = watch::channel(Arc::<Snapshot>::default());
        let (metrics, board) = (Default::default(), Board::default());
        let sources = Sources {
            metrics,
            snapshots: receiver,
            board,
            journal: None,
            tls: None,
            commands: axum::Router::new(),
            takes_commands: false,
        };
        tokio::spawn(serve(listener, sources, std::future::pending()));
        Self { addr, snapshots }
    }

    fn at(&self, index: u64) {
        let mut snapshot = story::snapshot(index);
        snapshot.t_ns = monotonic_ns();
        let view = snapshot.deployments.remove(story::DEPLOYMENT).expect("the story's deployment");
        snapshot.deployments.insert("shop".into(), view);
        self.snapshots.send_replace(Arc::new(snapshot));
    }
}

/// The path of an address whose host is the guard's Service.
fn path(url: &str) -> &str {
    url.strip_prefix("http://canary-guard.canary-guard.svc:9847").unwrap_or_else(|| panic!("another host: {url}"))
}

/// A window in which the canary is healthy, condemned, and not known to be either.
const HEALTHY: u64 = 50;
const CONDEMNED: u64 = story::DECIDED;
const UNKNOWN: u64 = 5;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Successful,
    Failed,
    Inconclusive,
    Error,
    Running,
}

/// What the web provider makes of an answer: an error where there is none, else by the two conditions.
async fn measured(metric: &Value, args: &[(&str, &str)], addr: Option<SocketAddr>) -> Phase {
    let web = &metric["provider"]["web"];
    let mut url = web["url"].as_str().expect("url").to_owned();
    for (name, value) in args {
        url = url.replace(&format!("{{{{args.{name}}}}}"), value);
    }
    assert!(!url.contains("{{"), "an argument without a value: {url}");
    let Some(addr) = addr else { return Phase::Error };
    let (head, body) = request(addr, "GET", path(&url), "").await;
    if !head.starts_with("HTTP/1.1 2") {
        return Phase::Error;
    }
    let field = web["jsonPath"].as_str().and_then(|p| p.strip_prefix("{$.")?.strip_suffix('}')).expect("{$.field}");
    let page: Value = serde_json::from_str(&body).expect("JSON");
    let value = page[field].as_str().unwrap_or_else(|| panic!("{field} of {page} is no text"));
    let holds = |condition: &str| {
        let wanted = metric[condition].as_str().and_then(|c| c.strip_prefix("result == \"")?.strip_suffix('"'));
        value == wanted.unwrap_or_else(|| panic!("{condition} is not of the form result == \"…\""))
    };
    match (holds("failureCondition"), holds("successCondition")) {
        (true, _) => Phase::Failed,
        (false, true) => Phase::Successful,
        (false, false) => Phase::Inconclusive,
    }
}

/// How Argo Rollouts judges a metric by its measurements: limits first, then the count.
fn assessed(metric: &Value, measurements: &[Phase]) -> Phase {
    let count = |phase| measurements.iter().filter(|m| **m == phase).count() as u64;
    let limit = |name: &str| metric[name].as_u64().unwrap_or_else(|| panic!("{name} is not set"));
    let errors = measurements.iter().rev().take_while(|m| **m == Phase::Error).count() as u64;
    if count(Phase::Failed) > limit("failureLimit") {
        Phase::Failed
    } else if count(Phase::Inconclusive) > limit("inconclusiveLimit") {
        Phase::Inconclusive
    } else if errors > limit("consecutiveErrorLimit") {
        Phase::Error
    } else if metric["count"].as_u64().is_some_and(|n| measurements.len() as u64 - count(Phase::Error) >= n) {
        Phase::Successful
    } else {
        Phase::Running
    }
}

#[tokio::test]
async fn the_analysis_templates_read_the_answers_as_they_are_meant() {
    let shown = Shown::start().await;
    let templates = documents("deploy/argo-rollouts/analysis-templates.yaml");
    assert_eq!(templates.len(), 2);
    for template in &templates {
        assert_eq!(
            (&template["apiVersion"], &template["kind"]),
            (&"argoproj.io/v1alpha1".into(), &"AnalysisTemplate".into())
        );
        let metric = &template["spec"]["metrics"][0];
        let guard = template["spec"]["args"][1]["value"].as_str().expect("the guard's address has a default");
        let args = [("deployment", "shop"), ("guard", guard)];
        let mut measurements = Vec::new();
        for window in [UNKNOWN, HEALTHY, CONDEMNED] {
            shown.at(window);
            measurements.push(measured(metric, &args, Some(shown.addr)).await);
        }
        assert_eq!(measurements, [Phase::Inconclusive, Phase::Successful, Phase::Failed], "{template}");
        let unknown = measured(metric, &[("deployment", "no-such"), ("guard", guard)], Some(shown.addr)).await;
        assert_eq!(unknown, Phase::Inconclusive, "a name that is mistyped aborts nothing");
        assert_eq!(assessed(metric, &[Phase::Failed]), Phase::Failed, "one condemned canary is enough");
        let away = measured(metric, &args, None).await;
        assert_eq!(assessed(metric, &[away; 1000]), Phase::Running, "a guard that is away aborts nothing");
    }
    let [watch, healthy] = &templates[..] else { unreachable!("two templates") };
    assert_eq!(assessed(&watch["spec"]["metrics"][0], &[Phase::Inconclusive; 1000]), Phase::Running);
    let healthy = &healthy["spec"]["metrics"][0];
    assert_eq!(assessed(healthy, &[Phase::Inconclusive; 10]), Phase::Inconclusive, "pauses: missing data is no pass");
    let mostly = [[Phase::Successful; 6].as_slice(), &[Phase::Inconclusive; 4]].concat();
    assert_eq!(assessed(healthy, &mostly), Phase::Successful);
}

#[tokio::test]
async fn the_canary_asks_each_hook_at_its_own_address() {
    let shown = Shown::start().await;
    let [canary] = &documents("deploy/flagger/canary.yaml")[..] else { panic!("one document") };
    assert_eq!((&canary["apiVersion"], &canary["kind"]), (&"flagger.app/v1beta1".into(), &"Canary".into()));
    let hooks = canary["spec"]["analysis"]["webhooks"].as_array().expect("webhooks");
    let mut answers = Vec::new();
    for hook in hooks {
        let (kind, url) = (hook["type"].as_str().expect("a type"), hook["url"].as_str().expect("a url"));
        assert_eq!(path(url), format!("/gate/shop/{kind}"), "the address answers another type than it is asked for");
        let mut go = Vec::new();
        for window in [UNKNOWN, HEALTHY, CONDEMNED] {
            shown.at(window);
            // What Flagger sends.
            let body = r#"{"name":"shop","namespace":"shop","phase":"Progressing","checksum":"7f8c","metadata":{}}"#;
            let (head, text) = request(shown.addr, "POST", path(url), body).await;
            let code: u16 = head.split(' ').nth(1).and_then(|c| c.parse().ok()).expect("a status");
            assert!(text.len() > 10, "Flagger logs the text of a refusal: {text}");
            // Flagger takes 200 to 202 for yes.
            go.push(code <= 202);
        }
        answers.push((kind, go));
    }
    let expected = [
        ("confirm-rollout", vec![true, true, true]),
        ("confirm-traffic-increase", vec![false, true, false]),
        ("confirm-promotion", vec![false, true, false]),
        ("rollback", vec![false, false, true]),
    ];
    assert_eq!(answers, expected);
    let (head, text) = request(shown.addr, "POST", "/gate/shop", "{}").await;
    assert!(head.starts_with("HTTP/1.1 405") && text.contains("/gate/shop/rollback"), "{head} {text}");
    let (head, text) = request(shown.addr, "POST", "/gate/shop/rollbak", "{}").await;
    assert!(head.starts_with("HTTP/1.1 404") && text.contains("confirm-promotion, rollback"), "{head} {text}");
}
