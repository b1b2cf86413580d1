//! `deploy/kubernetes`: every file is what the API server takes, every name in it exists, and each overlay does what it says.
//! What kustomize makes of them is looked at in `overlays.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

mod manifests;

use manifests::{ACTING, OVERLAYS, check_type, parse, read, root};

/// What a kustomization may hold, as far as ours do; another key is a misspelt one, or one to be added here.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Kustomization {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    components: Vec<String>,
    #[serde(default)]
    config_map_generator: Vec<Generator>,
    #[serde(default)]
    patches: Vec<Patch>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Generator {
    name: String,
    namespace: String,
    behavior: Option<String>,
    files: Vec<String>,
}

/// Part of an object, which names it; or, with a target, operations on that (RFC 6902).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    path: String,
    target: Option<Target>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    kind: String,
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Operation {
    op: String,
    path: String,
    value: Value,
}

/// Every file that is for kustomize.
fn kustomized() -> Vec<PathBuf> {
    ["actor", "base", "components", "overlays"].iter().flat_map(|dir| files(&root().join(dir))).collect()
}

/// Every file below `dir`.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn documents(path: &Path) -> Vec<Value> {
    parse(&read(path), &path.display().to_string())
}

fn kustomization(dir: &Path) -> Kustomization {
    let path = dir.join("kustomization.yaml");
    serde_saphyr::from_str(&read(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Kind, namespace and name: what a patch and its object have in common.
fn identity(object: &Value) -> [String; 3] {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    [text(&object["kind"]), text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"])]
}

/// The objects that a kustomization brings, patches left out: those of its resources and of its components.
fn resources(dir: &Path) -> Vec<Value> {
    let here = kustomization(dir);
    let mut found = Vec::new();
    for name in here.resources.iter().chain(&here.components) {
        let path = dir.join(name);
        found.extend(if path.is_dir() { resources(&path) } else { documents(&path) });
    }
    found
}

fn object(kind: &str, from: &[Value]) -> Value {
    from.iter().find(|o| o["kind"] == kind).unwrap_or_else(|| panic!("no {kind}")).clone()
}

#[test]
fn each_file_is_of_its_type_and_has_no_unknown_field() {
    let mut kinds = BTreeMap::<String, usize>::new();
    for path in kustomized() {
        let place = path.display().to_string();
        match path.extension().and_then(|e| e.to_str()) {
            Some("yaml") if path.ends_with("kustomization.yaml") => drop(kustomization(path.parent().expect("a dir"))),
            Some("yaml") => {
                // Operations are checked on what they are applied to, below.
                for object in documents(&path).into_iter().filter(|document| !document.is_array()) {
                    check_type(&object, &place);
                    *kinds.entry(identity(&object)[0].clone()).or_default() += 1;
                }
            }
            // Configurations are read by the guard's own check: `shipped_configurations_are_valid`.
            Some("toml") => {}
            other => panic!("{place}: what is a file that ends in {other:?}?"),
        }
    }
    for kind in ["Namespace", "ServiceAccount", "DaemonSet", "NetworkPolicy", "PriorityClass", "Service", "PodMonitor"]
    {
        assert!(kinds.contains_key(kind), "no {kind}: {kinds:?}");
    }
}

#[test]
fn a_misspelt_field_would_be_found() {
    let mut daemonset = object("DaemonSet", &resources(&root().join("base")));
    check_type(&daemonset, "as it is");
    daemonset["spec"]["template"]["spec"]["hostPid"] = true.into();
    let checked = std::panic::catch_unwind(|| check_type(&daemonset, "misspelt"));
    assert!(checked.is_err());
}

#[test]
fn every_file_is_named_by_a_kustomization_and_every_name_exists() {
    let mut named = BTreeSet::new();
    for path in kustomized().into_iter().filter(|p| p.ends_with("kustomization.yaml")) {
        let dir = path.parent().expect("a directory");
        let here = kustomization(dir);
        let component = dir.starts_with(root().join("components"));
        assert_eq!(here.kind, if component { "Component" } else { "Kustomization" }, "{}", path.display());
        let version = if component { "v1alpha1" } else { "v1beta1" };
        assert_eq!(here.api_version, format!("kustomize.config.k8s.io/{version}"), "{}", path.display());
        let generated = here.config_map_generator.iter().flat_map(|g| &g.files);
        let patches = here.patches.iter().map(|p| &p.path);
        for name in here.resources.iter().chain(&here.components).chain(generated).chain(patches) {
            let target = dir.join(name).canonicalize().unwrap_or_else(|e| panic!("{}: {name}: {e}", path.display()));
            let is_kustomized = target.is_file() || target.join("kustomization.yaml").is_file();
            assert!(is_kustomized, "{}: {name} has no kustomization.yaml", path.display());
            named.insert(target);
        }
        named.insert(path.canonicalize().expect("it is there"));
    }
    let all: BTreeSet<PathBuf> = kustomized().iter().map(|p| p.canonicalize().expect("it is there")).collect();
    let lost: Vec<_> = all.difference(&named).collect();
    assert!(lost.is_empty(), "named by no kustomization: {lost:?}");
    let overlays: BTreeSet<_> = fs::read_dir(root().join("overlays"))
        .expect("overlays")
        .map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    assert_eq!(overlays, OVERLAYS.map(str::to_owned).into());
}

/// What operations make of the base's object is still of its type. They add to lists, as several patches of one object can.
fn check_operations(target: &Target, operations: Value, base: &[Value], place: &str) {
    let operations: Vec<Operation> = serde_json::from_value(operations).unwrap_or_else(|e| panic!("{place}: {e}"));
    let is_it = |o: &&Value| o["kind"] == target.kind.as_str() && o["metadata"]["name"] == target.name.as_str();
    let found = base.iter().find(is_it);
    let mut patched = found.unwrap_or_else(|| panic!("{place}: {target:?} is not in the base")).clone();
    for Operation { op, path, value } in operations {
        assert_eq!(op, "add", "{place}");
        let end = path.strip_suffix("/-").unwrap_or_else(|| panic!("{place}: {path} is not the end of a list"));
        let list = patched.pointer_mut(end).and_then(Value::as_array_mut);
        list.unwrap_or_else(|| panic!("{place}: the base has no list {end}")).push(value);
    }
    check_type(&patched, place);
}

#[test]
fn patches_and_generated_configurations_replace_what_is_in_the_base() {
    let base = resources(&root().join("base"));
    let known: BTreeSet<_> = base.iter().map(identity).collect();
    let generated = |g: &Generator| (g.name.clone(), g.namespace.clone());
    let maps: Vec<_> = kustomization(&root().join("base")).config_map_generator.iter().map(generated).collect();
    let mut patches = 0;
    for path in kustomized().into_iter().filter(|p| p.ends_with("kustomization.yaml")) {
        let dir = path.parent().expect("a directory");
        let here = kustomization(dir);
        for patch in &here.patches {
            for document in documents(&dir.join(&patch.path)) {
                patches += 1;
                let place = format!("{}: {}", path.display(), patch.path);
                match &patch.target {
                    Some(target) => check_operations(target, document, &base, &place),
                    None => {
                        let named = identity(&document);
                        assert!(known.contains(&named), "{place}: {named:?} is not in the base");
                    }
                }
            }
        }
        for generator in &here.config_map_generator {
            assert!(maps.contains(&generated(generator)), "{}: {generator:?}", path.display());
            let wanted = (!dir.ends_with("base")).then_some("replace");
            assert_eq!(generator.behavior.as_deref(), wanted, "{}", path.display());
            assert_eq!(generator.files, ["canary.toml"], "the DaemonSet starts the guard with that name");
        }
    }
    assert!(patches >= 3, "{patches}");
}

#[test]
fn each_overlay_acts_as_far_as_its_name_says() {
    let told = |overlay: &str| -> (String, String) {
        let config: toml::Table =
            toml::from_str(&read(&root().join("overlays").join(overlay).join("canary.toml"))).unwrap();
        let deployment = &config["deployment"][0];
        (deployment["mode"].as_str().unwrap().to_owned(), deployment["orchestrator"].as_str().unwrap().to_owned())
    };
    assert_eq!(told("observe"), ("observe".to_owned(), "dry-run".to_owned()));
    assert_eq!(told("advise"), ("advise".to_owned(), "dry-run".to_owned()));
    assert_eq!(told("enforce"), ("rollback".to_owned(), "webhook".to_owned()));
    assert_eq!(kustomization(&root().join("overlays/least-privilege")).resources, ["../observe"]);
    let enforce: toml::Table = toml::from_str(&read(&root().join("overlays/enforce/canary.toml"))).unwrap();
    assert_eq!(enforce["deployment"][0]["approval"].as_str(), Some("required"));
}

#[test]
fn the_key_of_the_webhook_is_mounted_where_the_configuration_looks() {
    let dir = root().join("overlays/enforce");
    let config: toml::Table = toml::from_str(&read(&dir.join("canary.toml"))).unwrap();
    let webhook = &config["deployment"][0]["webhook"];
    let patch = object("DaemonSet", &documents(&dir.join("daemonset.yaml")));
    let pod = &patch["spec"]["template"]["spec"];
    let mount = pod["containers"][0]["volumeMounts"][0]["mountPath"].as_str().unwrap();
    assert!(Path::new(webhook["secret_file"].as_str().unwrap()).starts_with(mount), "{webhook}");
    assert_eq!(pod["volumes"][0]["name"], pod["containers"][0]["volumeMounts"][0]["name"]);
    // What it calls it may reach.
    let host = webhook["url"].as_str().unwrap().trim_start_matches("http://").split('/').next().unwrap().to_owned();
    let (name, port) = host.split_once(':').unwrap();
    let namespace = name.split('.').nth(1).unwrap();
    let policy = documents(&dir.join("networkpolicy.yaml"))[0].to_string();
    assert!(policy.contains(&format!("\"kubernetes.io/metadata.name\":\"{namespace}\"")), "{policy}");
    assert!(policy.contains(&format!("\"port\":{port}")), "{policy}");
}

/// Names of the capabilities that the overlay adds, without CAP_.
fn least_capabilities() -> Vec<String> {
    let patch = object("DaemonSet", &documents(&root().join("components/least-privilege/daemonset.yaml")));
    let context = &patch["spec"]["template"]["spec"]["containers"][0]["securityContext"];
    assert_eq!(context["privileged"], false);
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["capabilities"]["drop"], serde_json::json!(["ALL"]));
    serde_json::from_value(context["capabilities"]["add"].clone()).expect("a list")
}

#[test]
fn least_privilege_names_what_each_capability_is_for() {
    let page = read(&root().join("../../docs/operations.md"));
    let text = read(&root().join("components/least-privilege/daemonset.yaml"));
    let added = least_capabilities();
    for needed in ["BPF", "PERFMON", "NET_ADMIN"] {
        assert!(added.iter().any(|name| name == needed), "the guard does not start without {needed}: {added:?}");
    }
    for name in &added {
        assert!(page.contains(name), "docs/operations.md does not say what {name} is for");
        let line = text.lines().find(|line| line.trim().starts_with(&format!("- {name}"))).expect("its line");
        assert!(line.contains("# to "), "{line}");
    }
    assert!(!added.iter().any(|name| ["SYS_ADMIN", "KILL", "DAC_OVERRIDE"].contains(&name.as_str())), "{added:?}");
}

#[test]
fn the_sensor_has_no_rights_on_the_api_server() {
    for overlay in OVERLAYS {
        for object in resources(&root().join("overlays").join(overlay)) {
            let bound = object["subjects"].as_array().cloned().unwrap_or_default();
            let to_sensor = bound.iter().any(|s| s["name"] == "canary-guard" || s["kind"] == "Group");
            assert!(!to_sensor, "{overlay}: {object:#}");
        }
    }
    for path in kustomized() {
        let place = path.strip_prefix(root()).expect("below").to_owned();
        let text = read(&path);
        let has_rights = text.lines().any(|line| line.starts_with("kind: ") && line.contains("Role"));
        let may = place.starts_with("actor") || place.starts_with(ACTING);
        assert!(!has_rights || may, "{}: rights belong to who acts", place.display());
    }
}

#[test]
fn who_acts_on_the_api_server_has_an_account_of_its_own() {
    let dir = root().join(ACTING);
    let roles = resources(&dir);
    let account = object("ServiceAccount", &roles)["metadata"]["name"].clone();
    assert_ne!(account, object("ServiceAccount", &resources(&root().join("base")))["metadata"]["name"]);
    let patch = object("DaemonSet", &documents(&dir.join("daemonset.yaml")));
    let pod = &patch["spec"]["template"]["spec"];
    assert_eq!((&pod["serviceAccountName"], &pod["automountServiceAccountToken"]), (&account, &Value::Bool(true)));
    // A container of another name would be added instead of changed.
    let base = object("DaemonSet", &resources(&root().join("base")));
    assert_eq!(pod["containers"][0]["name"], base["spec"]["template"]["spec"]["containers"][0]["name"]);
    assert_eq!(pod["containers"][0]["env"][0]["name"], "NODE_NAME", "the guard asks for it");
    let of = |kind: &str, name: fn(&Value) -> &Value| -> BTreeSet<String> {
        let all = roles.iter().filter(|m| m["kind"] == kind);
        all.map(|m| format!("{}/{}", m["metadata"]["namespace"], name(m))).collect()
    };
    let bound = of("RoleBinding", |m| &m["roleRef"]["name"]);
    assert_eq!(of("Role", |m| &m["metadata"]["name"]), bound, "each Role is bound");
    for binding in roles.iter().filter(|m| m["kind"] == "RoleBinding") {
        assert_eq!(binding["subjects"][0]["name"], account);
    }
}

#[test]
fn the_monitor_and_the_policy_select_the_guards_pods_and_port() {
    let base = resources(&root().join("base"));
    let pod = object("DaemonSet", &base)["spec"]["template"].clone();
    let port = &pod["spec"]["containers"][0]["ports"][0];
    let monitor = object("PodMonitor", &resources(&root().join("components/pod-monitor")));
    assert_eq!(monitor["spec"]["selector"]["matchLabels"], pod["metadata"]["labels"]);
    assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["port"], port["name"]);
    // The alerts ask for this job.
    let job = monitor["spec"]["jobLabel"].as_str().unwrap();
    assert_eq!(pod["metadata"]["labels"][job], "canary-guard");
    let policy = object("NetworkPolicy", &base);
    assert_eq!(policy["spec"]["podSelector"]["matchLabels"], pod["metadata"]["labels"]);
    assert_eq!(policy["spec"]["ingress"][0]["ports"][0]["port"], port["name"]);
    let class = object("PriorityClass", &base);
    assert_eq!(pod["spec"]["priorityClassName"], class["metadata"]["name"]);
    assert_eq!(class["preemptionPolicy"], "Never");
}
