//! A small API server: objects with versions, JSON Patch with its `test`, subresources, selectors, and a log of every call.
//!
//! What it keeps to, because the guard relies on it: a version that counts up with every write, a generation that counts up with
//! those of `spec`, who set each field of `spec` last, 409 for a write of an old version, 422 for a `test` that does not hold, all of
//! a patch or nothing, and nothing at all of a dry run.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Query, State},
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse as _, Response},
};
use canary_user::{config::TlsConfig, watch::server::tls};
use serde_json::{Value, json};
use tempfile::TempDir;

/// One call, in the words of a Role.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    pub verb: String,
    pub group: String,
    /// With its part: "deployments/scale".
    pub resource: String,
    pub namespace: String,
    /// "" for all and for new ones.
    pub name: String,
    /// Who asked for nothing to be changed (`dryRun=All`).
    pub dry_run: bool,
    /// As whom it is to be told in `managedFields`.
    pub manager: String,
}

/// Group, resource, namespace, name.
type Key = (String, String, String, String);
type Meanwhile = Box<dyn FnOnce(&mut Store) + Send>;

#[derive(Default)]
pub struct Store {
    objects: BTreeMap<Key, Value>,
    version: u64,
    pub calls: Vec<Call>,
    /// What others do just before the next changes arrive, one each.
    pub meanwhile: Vec<Meanwhile>,
    /// Whether Deployments are carried out, as their controller would.
    pub controls: bool,
    /// Who may ask; `None` = everybody.
    pub token: Option<String>,
    /// Calls that are refused: verb and resource.
    pub forbidden: Option<(String, String)>,
    /// What an admission policy lets nobody change.
    pub policy: Option<String>,
    /// How many of the next calls it has no time for.
    pub busy: usize,
    /// Whether Rollouts have no part for their status, as those of old: then each change of it counts their generation up.
    pub whole_rollouts: bool,
}

#[derive(Clone)]
pub struct Server {
    store: Arc<Mutex<Store>>,
    address: SocketAddr,
    directory: Arc<TempDir>,
}

impl Server {
    /// Serves for as long as the runtime lives.
    pub async fn start() -> Self {
        let store = Arc::new(Mutex::new(Store { controls: true, ..Store::default() }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().fallback(answer).with_state(store.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let directory = Arc::new(TempDir::new().expect("a directory"));
        Self { store, address, directory }
    }

    /// The same with TLS, for who shows a token.
    pub async fn start_with_tls(files: &TlsConfig, token: &str) -> Self {
        let store = Arc::new(Mutex::new(Store { controls: true, token: Some(token.into()), ..Store::default() }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let listener = tls::Tls::new(listener, tls::load(files).expect("certificate and key")).expect("a listener");
        let router = Router::new().fallback(answer).with_state(store.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let directory = Arc::new(TempDir::new().expect("a directory"));
        Self { store, address, directory }
    }

    /// A file by which clients find this server, if it shows one of these certificates, and show it this token.
    pub fn kubeconfig_with_tls(&self, authority: &Path, token: &str) -> String {
        let path = self.directory.path().join("kubeconfig");
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{ "name": "test", "cluster": {
                "server": format!("https://{}", self.address), "certificate-authority": authority,
            } }],
            "users": [{ "name": "test", "user": { "token": token } }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
        });
        std::fs::write(&path, text.to_string()).expect("write the kubeconfig");
        path.to_str().expect("UTF-8").to_owned()
    }

    /// A file by which clients find this server.
    pub fn kubeconfig(&self) -> String {
        let path = self.directory.path().join("kubeconfig");
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{ "name": "test", "cluster": { "server": format!("http://{}", self.address) } }],
            "users": [{ "name": "test", "user": {} }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
        });
        std::fs::write(&path, text.to_string()).expect("write the kubeconfig");
        path.to_str().expect("UTF-8").to_owned()
    }

    pub fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().expect("no test panics while it holds it")
    }
}

impl Store {
    fn key(&self, resource: &str, namespace: &str, name: &str) -> Key {
        let group = match resource {
            "pods" => "",
            "deployments" | "replicasets" => "apps",
            "horizontalpodautoscalers" => "autoscaling",
            "httproutes" => "gateway.networking.k8s.io",
            "rollouts" => "argoproj.io",
            "leases" => "coordination.k8s.io",
            "events" => "events.k8s.io",
            other => panic!("which group has {other}?"),
        };
        (group.into(), resource.into(), namespace.into(), name.into())
    }

    /// Puts an object in as it is, and gives it what every object has.
    pub fn put(&mut self, resource: &str, mut object: Value) {
        let text = |object: &Value, key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text(&object, "namespace"), text(&object, "name"));
        let key = self.key(resource, &namespace, &name);
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-of-{resource}-{name}"));
        }
        if object["metadata"]["generation"].is_null() {
            object["metadata"]["generation"] = json!(1);
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(key, object);
    }

    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<&Value> {
        self.objects.get(&self.key(resource, namespace, name))
    }

    pub fn all(&self, resource: &str) -> Vec<Value> {
        self.objects.iter().filter(|(key, _)| key.1 == resource).map(|(_, object)| object.clone()).collect()
    }

    pub fn remove(&mut self, resource: &str, namespace: &str, name: &str) {
        let key = self.key(resource, namespace, name);
        self.objects.remove(&key).expect("it is there");
    }

    /// Somebody changes an object, and does not say who, unless with the change.
    pub fn change(&mut self, resource: &str, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let key = self.key(resource, namespace, name);
        let mut object = self.objects[&key].clone();
        change(&mut object);
        self.write(&key, object, "");
    }

    fn write(&mut self, key: &Key, mut object: Value, manager: &str) -> Value {
        let before = self.objects.get(key).cloned().unwrap_or_default();
        let status_counts = self.whole_rollouts && key.1 == "rollouts";
        if before["spec"] != object["spec"] || status_counts && before["status"] != object["status"] {
            object["metadata"]["generation"] = json!(before["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
        }
        if before["metadata"]["managedFields"] == object["metadata"]["managedFields"] {
            note_manager(&before, &mut object, manager);
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(key.clone(), object.clone());
        if self.controls && key.1 == "deployments" {
            self.control(&key.2, &object);
        }
        self.objects[key].clone()
    }

    /// Does at once what the Deployment controller does: one ReplicaSet has all replicas, the others none, nor pods.
    fn control(&mut self, namespace: &str, deployment: &Value) {
        let replicas = deployment["spec"]["replicas"].as_i64().unwrap_or(1);
        // Paused, it is scaled all the same: to 0 by none; among whom others are shared out is not played here.
        if deployment["spec"]["paused"] == json!(true) && replicas > 0 {
            return;
        }
        let is_owner = |object: &Value, uid: &Value| object["metadata"]["ownerReferences"][0]["uid"] == *uid;
        let wanted = without_hash(&deployment["spec"]["template"]);
        let sets: Vec<Value> = self.all("replicasets");
        for set in sets.iter().filter(|set| is_owner(set, &deployment["metadata"]["uid"])) {
            let has = if without_hash(&set["spec"]["template"]) == wanted { replicas } else { 0 };
            let key = self.key("replicasets", namespace, set["metadata"]["name"].as_str().expect("a name"));
            let stored = self.objects.get_mut(&key).expect("listed just now");
            (stored["spec"]["replicas"], stored["status"]["replicas"]) = (json!(has), json!(has));
            if has == 0 {
                self.objects.retain(|key, pod| key.1 != "pods" || !is_owner(pod, &set["metadata"]["uid"]));
            }
        }
        let name = deployment["metadata"]["name"].as_str().expect("a name");
        let key = self.key("deployments", namespace, name);
        let stored = self.objects.get_mut(&key).expect("written just now");
        stored["status"] = json!({ "replicas": replicas, "availableReplicas": replicas });
    }
}

/// Whoever changes a field of `spec` has it from then on, and nobody else; what is gone is nobody's.
fn note_manager(before: &Value, object: &mut Value, manager: &str) {
    let spec = |object: &Value| object["spec"].as_object().cloned().unwrap_or_default();
    let (was, is) = (spec(before), spec(object));
    let names = was.keys().chain(is.keys());
    let changed: BTreeSet<&String> = names.filter(|name| was.get(*name) != is.get(*name)).collect();
    let mut entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    if !manager.is_empty() && !changed.is_empty() && !entries.iter().any(|entry| entry["manager"] == manager) {
        entries.push(json!({ "manager": manager, "operation": "Update", "fieldsV1": { "f:spec": {} } }));
    }
    for entry in &mut entries {
        let is_theirs = entry["manager"] == manager;
        let Some(fields) = entry.pointer_mut("/fieldsV1/f:spec").and_then(Value::as_object_mut) else { continue };
        for name in &changed {
            fields.remove(&format!("f:{name}"));
            if is_theirs && is.contains_key(*name) {
                fields.insert(format!("f:{name}"), json!({}));
            }
        }
    }
    if !entries.is_empty() {
        object["metadata"]["managedFields"] = json!(entries);
    }
}

pub fn without_hash(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove("pod-template-hash");
    }
    template
}

fn refuse(code: u16, reason: &str, message: &str) -> Response {
    let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message });
    (StatusCode::from_u16(code).expect("a status"), Json(status)).into_response()
}

async fn answer(
    State(store): State<Arc<Mutex<Store>>>,
    method: Method,
    uri: Uri,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let steps: Vec<&str> = uri.path().split('/').skip(1).collect();
    let (group, rest) = match steps.as_slice() {
        ["api", "v1", "namespaces", rest @ ..] => ("", rest),
        ["apis", group, _, "namespaces", rest @ ..] => (*group, rest),
        _ => return refuse(404, "NotFound", "no such address"),
    };
    let (namespace, resource, name, part) = match rest {
        [namespace, resource] => (*namespace, *resource, "", ""),
        [namespace, resource, name] => (*namespace, *resource, *name, ""),
        [namespace, resource, name, part] => (*namespace, *resource, *name, *part),
        _ => return refuse(404, "NotFound", "no such address"),
    };
    let verb = match (method.as_str(), name) {
        ("GET", "") => "list",
        ("GET", _) => "get",
        ("PATCH", _) => "patch",
        ("PUT", _) => "update",
        ("POST", "") => "create",
        _ => return refuse(405, "MethodNotAllowed", "not here"),
    };
    let dry_run = query.get("dryRun").is_some_and(|which| which == "All");
    let whole = if part.is_empty() { resource.to_owned() } else { format!("{resource}/{part}") };
    let mut store = store.lock().expect("no test panics while it holds it");
    let shown = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if store.token.as_ref().is_some_and(|token| *shown != format!("Bearer {token}")) {
        return refuse(401, "Unauthorized", "Unauthorized");
    }
    store.calls.push(Call {
        verb: verb.into(),
        group: group.into(),
        resource: whole.clone(),
        namespace: namespace.into(),
        name: name.into(),
        dry_run,
        manager: query.get("fieldManager").cloned().unwrap_or_default(),
    });
    if store.busy > 0 {
        store.busy -= 1;
        // As its priority and fairness says it: no Status.
        return (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")], "Too many requests, please try again later.")
            .into_response();
    }
    if store.forbidden.as_ref().is_some_and(|f| *f == (verb.into(), whole.clone())) {
        return refuse(403, "Forbidden", &format!("{whole} is forbidden: cannot {verb}"));
    }
    if ["patch", "update"].contains(&verb) && store.policy.as_ref() == Some(&whole) {
        return refuse(
            422,
            "Invalid",
            &format!("ValidatingAdmissionPolicy 'freeze' denied request: no change of {whole}"),
        );
    }
    let key: Key = (group.into(), resource.into(), namespace.into(), name.into());
    let manager = query.get("fieldManager").map_or("", String::as_str);
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    match verb {
        "list" => {
            let items: Vec<&Value> = store
                .objects
                .iter()
                .filter(|(k, object)| (&k.0, &k.1, &k.2) == (&key.0, &key.1, &key.2) && selected(object, &query))
                .map(|(_, object)| object)
                .collect();
            Json(json!({ "kind": "List", "apiVersion": "v1", "metadata": {}, "items": items })).into_response()
        }
        "get" => match store.objects.get(&key) {
            Some(object) => Json(object).into_response(),
            None => refuse(404, "NotFound", &format!("{resource} {name} not found")),
        },
        "create" => {
            let version = store.version;
            let mut object = body;
            if let Some(generate) = object["metadata"]["generateName"].as_str() {
                object["metadata"]["name"] = json!(format!("{generate}{version}"));
            }
            if !dry_run {
                store.put(resource, object.clone());
            }
            (StatusCode::CREATED, Json(object)).into_response()
        }
        "update" => {
            let Some(now) = store.objects.get(&key) else { return refuse(404, "NotFound", "not found") };
            if now["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] {
                return refuse(409, "Conflict", "the object has been modified");
            }
            Json(if dry_run { body } else { store.write(&key, body, manager) }).into_response()
        }
        _ => {
            if headers.get("content-type").is_none_or(|t| t != "application/json-patch+json") {
                return refuse(415, "UnsupportedMediaType", "only JSON Patch is known here");
            }
            patch(&mut store, &key, part, body, (dry_run, manager))
        }
    }
}

fn patch(store: &mut Store, key: &Key, part: &str, body: Value, (dry_run, manager): (bool, &str)) -> Response {
    if store.whole_rollouts && (&*key.1, part) == ("rollouts", "status") {
        return refuse(404, "NotFound", "the server could not find the requested resource");
    }
    if !dry_run && !store.meanwhile.is_empty() {
        let meanwhile = store.meanwhile.remove(0);
        meanwhile(store);
    }
    let Some(now) = store.objects.get(key).cloned() else { return refuse(404, "NotFound", "not found") };
    let Ok(patch) = serde_json::from_value::<json_patch::Patch>(body) else {
        return refuse(400, "BadRequest", "not a JSON Patch");
    };
    let mut seen = match part {
        "scale" => json!({
            "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": now["metadata"].clone(),
            // The field is not written where it is 0 (`omitempty` of k8s.io/api, autoscaling/v1).
            "spec": match now["spec"]["replicas"].as_i64() {
                Some(0) => json!({}),
                replicas => json!({ "replicas": replicas }),
            },
        }),
        _ => now.clone(),
    };
    if let Err(e) = json_patch::patch(&mut seen, &patch) {
        return refuse(
            422,
            "Invalid",
            &format!("the server rejected our request due to an error in our request ({e})"),
        );
    }
    if dry_run {
        return Json(seen).into_response();
    }
    let mut object = now;
    match part {
        "scale" => object["spec"]["replicas"] = seen["spec"]["replicas"].clone(),
        "status" => object["status"] = seen["status"].clone(),
        // Where there is a status with an address, it cannot be changed with the rest; Rollouts of old have none.
        _ => object = seen.clone(),
    }
    let written = store.write(key, object, manager);
    Json(if part == "scale" { seen } else { written }).into_response()
}

fn selected(object: &Value, query: &BTreeMap<String, String>) -> bool {
    let labels = &object["metadata"]["labels"];
    let pairs = |key: &str| {
        let text = query.get(key).cloned().unwrap_or_default();
        let pairs = text.split(',').filter(|p| !p.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        pairs.into_iter().map(|p| p.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).expect("key=value"))
    };
    let by_labels = pairs("labelSelector").all(|(key, value)| labels[&key] == json!(value));
    by_labels
        && pairs("fieldSelector").all(|(key, value)| {
            let pointer = format!("/{}", key.replace('.', "/"));
            object.pointer(&pointer) == Some(&json!(value))
        })
}
