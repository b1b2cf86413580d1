//! What others do between the guard's last look and its write: the real server's versions and its `test` of JSON Patch decide.

use std::{
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::to_bytes,
    extract::{Request, State},
    http::{Method, header},
    response::{IntoResponse as _, Response},
};
use canary_user::{
    guard::{Action, Decision},
    orchestrator::{Error, Orchestrator as _, Plan, kubernetes::Kubernetes},
};
use kube::{
    Client,
    api::{DeleteParams, PostParams},
    client::Body,
};
use serde_json::{Value, json};

use super::{
    control_plane::{ControlPlane, With},
    definitions::{define_http_routes, define_rollouts},
    objects::{change, change_status, hands, shop},
};
use crate::cluster::NAMESPACE;

type Act = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Stands between the guard and the API server, which answers.
#[derive(Clone)]
struct Between {
    client: Client,
    /// What somebody does just before the next change arrives.
    meanwhile: Arc<Mutex<Option<Act>>>,
    /// What came of the changes that were not only tried out.
    answers: Arc<Mutex<Vec<u16>>>,
}

impl Between {
    async fn start(plane: &ControlPlane, token: &str) -> (Self, PathBuf) {
        let between = Self { client: plane.client(token).await, meanwhile: Arc::default(), answers: Arc::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let server = format!("http://{}", listener.local_addr().expect("an address"));
        let router = Router::new().fallback(pass_on).with_state(between.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (between, plane.kubeconfig_by(&server, token))
    }

    fn meanwhile(&self, act: impl Future<Output = ()> + Send + 'static) {
        *self.meanwhile.lock().expect("no test panics while it holds it") = Some(Box::pin(act));
    }

    /// What came of the changes since it was asked last.
    fn answers(&self) -> Vec<u16> {
        std::mem::take(&mut *self.answers.lock().expect("no test panics while it holds it"))
    }
}

async fn pass_on(State(between): State<Between>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let is_change = parts.method == Method::PATCH && !parts.uri.query().unwrap_or_default().contains("dryRun");
    let act = is_change.then(|| between.meanwhile.lock().expect("no test panics while it holds it").take()).flatten();
    if let Some(act) = act {
        act.await;
    }
    let mut onward = axum::http::Request::builder().method(parts.method).uri(parts.uri);
    for name in [header::CONTENT_TYPE, header::ACCEPT] {
        if let Some(value) = parts.headers.get(&name) {
            onward = onward.header(name, value);
        }
    }
    let body = to_bytes(body, usize::MAX).await.expect("a whole request");
    let onward = onward.body(Body::from(body)).expect("a request");
    let answer = between.client.send(onward).await.expect("the API server answers");
    let (status, body) = (answer.status(), answer.into_body().collect_bytes().await.expect("a whole answer"));
    if is_change {
        between.answers.lock().expect("no test panics while it holds it").push(status.as_u16());
    }
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Describes, and applies while somebody does something.
async fn apply_while(
    k: &Kubernetes,
    between: &Between,
    decision: &Decision,
    act: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let plan = k.describe(decision).await.expect("possible");
    between.meanwhile(act);
    k.apply(decision, &Plan { takes_at_most_ms: Some(1), ..plan }).await
}

fn assert_refused(result: Result<(), Error>, why: &str) {
    match result {
        Err(Error::Refused(said)) => assert!(said.contains(why), "{said}\ninstead of: {why}"),
        other => panic!("{other:?} instead of: {why}"),
    }
}

#[tokio::test]
async fn a_real_api_server_keeps_what_changed_meanwhile() {
    let test = "a_real_api_server_keeps_what_changed_meanwhile";
    let Some(plane) = ControlPlane::start(test, With::ApiServer).await else { return };
    let token = plane.account().await;
    plane.grant(&token).await;
    let (between, kubeconfig) = Between::start(&plane, &token).await;
    let (k, admin) = (hands(kubeconfig, ""), plane.admin.clone());
    plane.service("checkout", "bbb", &["aaa", "bbb"]).await;
    plane.service("checkout-canary", "bbb", &["bbb"]).await;
    let (drain, rollback) =
        (plane.decision(Action::Drain, "checkout-canary").await, plane.decision(Action::Rollback, "checkout").await);
    let replicas = async || plane.get("Deployment", "checkout-canary").await.data["spec"]["replicas"].clone();

    // Its template is taken back: only of the spec that was decided on.
    let other = admin.clone();
    let newer = apply_while(&k, &between, &rollback, async move {
        let containers = json!([{ "name": "app", "image": "checkout:ccc" }]);
        let spec = json!({ "template": { "spec": { "containers": containers } } });
        change(&other, "Deployment", "checkout", json!({ "spec": spec })).await;
    });
    assert_refused(newer.await, "was changed since (its spec is generation 2 now, 1 then)");
    assert_eq!(between.answers(), [422], "the version was no longer the current one");
    let image = &plane.get("Deployment", "checkout").await.data["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, "checkout:ccc", "the newer version is somebody's intent");

    // A scale, the same; what moves beside the spec is no reason to stop.
    let other = admin.clone();
    let scaled = apply_while(&k, &between, &drain, async move {
        change(&other, "Deployment", "checkout-canary", json!({ "spec": { "replicas": 3 } })).await;
    });
    assert_refused(scaled.await, "was changed since (its spec is generation 2 now, 1 then)");
    assert_eq!((between.answers(), replicas().await), (vec![422], json!(3)));
    let other = admin.clone();
    let beside = apply_while(&k, &between, &drain, async move {
        let condition = json!({ "type": "Available", "status": "True" });
        change_status(&other, "Deployment", "checkout-canary", json!({ "conditions": [condition] })).await;
    });
    let failed = beside.await.expect_err("there is no controller");
    assert!(matches!(failed, Error::Failed(_)), "it was done: {failed}");
    assert_eq!((between.answers(), replicas().await), (vec![422, 200], json!(0)));

    // Another object of the same name is not touched.
    change(&admin, "Deployment", "checkout-canary", json!({ "spec": { "replicas": 2 } })).await;
    let other = admin.clone();
    let replaced = apply_while(&k, &between, &drain, async move {
        let deployments = shop(&other, "Deployment");
        let mut successor = deployments.get("checkout-canary").await.expect("there");
        deployments.delete("checkout-canary", &DeleteParams::background()).await.expect("deleted");
        (successor.metadata.uid, successor.metadata.resource_version) = (None, None);
        deployments.create(&PostParams::default(), &successor).await.expect("made again");
    });
    assert_refused(replaced.await, "was replaced or is gone");
    assert_eq!((between.answers().len(), replicas().await), (1, json!(2)));
}

#[tokio::test]
async fn a_real_api_server_keeps_what_changed_meanwhile_of_kinds_that_others_define() {
    let test = "a_real_api_server_keeps_what_changed_meanwhile_of_kinds_that_others_define";
    let Some(plane) = ControlPlane::start(test, With::ApiServer).await else { return };
    let token = plane.account().await;
    plane.grant(&token).await;
    define_http_routes(&plane).await;
    define_rollouts(&plane, true).await;
    let (between, kubeconfig) = Between::start(&plane, &token).await;
    let k = hands(kubeconfig, "http_route = { name = \"checkout\", canary = \"checkout-canary\" }");
    let admin = plane.admin.clone();
    plane.service("checkout", "aaa", &["aaa"]).await;
    plane.service("checkout-canary", "bbb", &["bbb"]).await;
    let drain = plane.decision(Action::Drain, "checkout-canary").await;
    let backends = |weight: u8| json!([{ "name": "checkout" }, { "name": "checkout-canary", "weight": weight }]);
    plane
        .put(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": { "name": "checkout", "namespace": NAMESPACE },
            "spec": { "rules": [{ "backendRefs": backends(20) }] },
        }))
        .await;
    let weight = async || {
        let route = plane.get("HTTPRoute", "checkout").await;
        route.data["spec"]["rules"][0]["backendRefs"][1]["weight"].clone()
    };
    let (other, more) = (admin.clone(), json!({ "spec": { "rules": [{ "backendRefs": backends(30) }] } }));
    let stepped = apply_while(&k, &between, &drain, async move {
        change(&other, "HTTPRoute", "checkout", more).await;
    });
    assert_refused(stepped.await, "was changed since (its spec is generation 2 now, 1 then)");
    assert_eq!((between.answers(), weight().await), (vec![422], json!(30)));
    let other = admin.clone();
    let beside = apply_while(&k, &between, &drain, async move {
        change(&other, "HTTPRoute", "checkout", json!({ "metadata": { "labels": { "seen": "yes" } } })).await;
    });
    beside.await.expect("done at the second try");
    assert_eq!((between.answers(), weight().await), (vec![422, 200], json!(0)));

    for name in ["checkout", "checkout-canary"] {
        shop(&admin, "Deployment").delete(name, &DeleteParams::background()).await.expect("deleted");
    }
    for kind in ["ReplicaSet", "Pod"] {
        shop(&admin, kind)
            .delete_collection(&DeleteParams::default().grace_period(0), &Default::default())
            .await
            .expect("deleted");
    }
    let status = json!({ "stableRS": "aaa", "currentPodHash": "bbb" });
    plane
        .put(json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout",
            "metadata": { "name": "checkout", "namespace": NAMESPACE }, "spec": { "replicas": 2 },
        }))
        .await;
    change_status(&admin, "Rollout", "checkout", status).await;
    plane.versions("Rollout", "argoproj.io/v1alpha1", "checkout", &["aaa", "bbb"]).await;
    let rollback = plane.decision(Action::Rollback, "checkout").await;
    let other = admin.clone();
    let abort = apply_while(&k, &between, &rollback, async move {
        change_status(&other, "Rollout", "checkout", json!({ "phase": "Progressing" })).await;
    });
    let failed = abort.await.expect_err("there is no controller");
    assert!(matches!(failed, Error::Failed(_)), "it was done: {failed}");
    let rollout: Value = plane.get("Rollout", "checkout").await.data;
    assert_eq!((between.answers(), &rollout["status"]["abort"]), (vec![422, 200], &json!(true)));
}
