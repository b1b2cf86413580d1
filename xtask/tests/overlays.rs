//! What kustomize makes of the overlays in `deploy/kubernetes` is what docs/operations.md says of each. The files by themselves are
//! looked at in `kubernetes.rs`, and both are held against the schemas of Kubernetes in `schemas.rs`.

use std::{collections::BTreeSet, fs, path::Path, sync::OnceLock};

use serde_json::{Value, json};

mod kustomize;
mod manifests;

use manifests::{ACTING, OVERLAYS, check_type, parse, read, root};

/// The overlay that needs most, with every component.
const EVERYTHING: &str = "enforce with every component";
const COMPONENTS: [&str; 3] = ["kubernetes", "least-privilege", "pod-monitor"];

struct Built {
    name: &'static str,
    objects: Vec<Value>,
}

impl Built {
    fn all<'a>(&'a self, kind: &str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    fn one(&self, kind: &str) -> &Value {
        let all: Vec<&Value> = self.all(kind).collect();
        let [one] = all[..] else { panic!("{}: {} of {kind}", self.name, all.len()) };
        one
    }

    fn pod(&self) -> &Value {
        &self.one("DaemonSet")["spec"]["template"]["spec"]
    }

    fn container(&self) -> &Value {
        assert_eq!(self.pod()["containers"].as_array().map(Vec::len), Some(1), "{}", self.name);
        &self.pod()["containers"][0]
    }

    fn configuration(&self) -> toml::Table {
        let text = self.one("ConfigMap")["data"]["canary.toml"].as_str().expect("the guard is started with that file");
        toml::from_str(text).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// What the guard may reach, as a set: a policy's rules have no order.
    fn egress(&self) -> BTreeSet<String> {
        let policy = self.one("NetworkPolicy");
        let types = policy["spec"]["policyTypes"].as_array().expect("a list");
        assert!(types.contains(&json!("Egress")), "{}: {policy}", self.name);
        policy["spec"]["egress"].as_array().expect("a list").iter().map(Value::to_string).collect()
    }

    fn is_least_privilege(&self) -> bool {
        ["least-privilege", EVERYTHING].contains(&self.name)
    }
}

/// Each overlay as it is shipped, and [`EVERYTHING`]; `None` after saying why the test is skipped.
fn built(test: &str) -> Option<&'static [Built]> {
    static BUILT: OnceLock<Result<Vec<Built>, String>> = OnceLock::new();
    let build = || -> Result<Vec<Built>, String> {
        let kubectl = kustomize::kubectl()?;
        let from =
            |name, directory: &Path| Built { name, objects: parse(&kustomize::build(&kubectl, directory), name) };
        let shipped = OVERLAYS.into_iter().map(|overlay| from(overlay, &root().join("overlays").join(overlay)));
        let mut all: Vec<Built> = shipped.collect();
        let copy = tempfile::tempdir().expect("a directory");
        all.push(from(EVERYTHING, &kustomize::with_components("enforce", &COMPONENTS, copy.path())));
        Ok(all)
    };
    match BUILT.get_or_init(build) {
        Ok(all) => Some(all),
        Err(why) => {
            println!("SKIP {test}: {why}");
            None
        }
    }
}

fn of<'a>(built: &'a [Built], name: &str) -> &'a Built {
    built.iter().find(|one| one.name == name).expect("it is built")
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().expect("a name")
}

#[test]
fn kustomize_builds_each_overlay() {
    let Some(built) = built("kustomize_builds_each_overlay") else { return };
    for one in built {
        one.objects.iter().for_each(|object| check_type(object, one.name));
        // Each name that is used is that of something built.
        let spaces: BTreeSet<&str> = one.all("Namespace").map(name).collect();
        for object in &one.objects {
            // Of the service that the example is about.
            let is_users = one.name == EVERYTHING && object["metadata"]["namespace"] == "shop";
            let space = object["metadata"]["namespace"].as_str().filter(|_| !is_users);
            assert!(space.is_none_or(|space| spaces.contains(space)), "{}: {object}", one.name);
        }
        let pod = one.pod();
        let account = |wanted: &Value| one.all("ServiceAccount").any(|account| account["metadata"]["name"] == *wanted);
        assert!(account(&pod["serviceAccountName"]), "{}", one.name);
        for binding in one.all("RoleBinding") {
            assert!(account(&binding["subjects"][0]["name"]), "{binding}");
            let role = |role: &Value| {
                role["metadata"]["name"] == binding["roleRef"]["name"]
                    && role["metadata"]["namespace"] == binding["metadata"]["namespace"]
            };
            assert!(one.all("Role").any(role), "{binding}");
        }
        // The mount has the generated name, with the content's hash.
        let volumes = pod["volumes"].as_array().expect("volumes");
        let mounted = volumes.iter().find_map(|volume| volume["configMap"]["name"].as_str());
        assert_eq!(mounted, Some(name(one.one("ConfigMap"))), "{}", one.name);
        let names = |list: &Value| -> BTreeSet<String> {
            list.as_array().expect("a list").iter().map(|entry| entry["name"].to_string()).collect()
        };
        assert_eq!(names(&pod["volumes"]), names(&one.container()["volumeMounts"]), "{}", one.name);
        let labels = &one.one("DaemonSet")["spec"]["template"]["metadata"]["labels"];
        assert_eq!(one.one("DaemonSet")["spec"]["selector"]["matchLabels"], *labels, "{}", one.name);
        assert_eq!(one.one("Service")["spec"]["selector"], *labels, "{}", one.name);
        assert_eq!(one.one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"], *labels, "{}", one.name);
        let port = &one.container()["ports"][0]["name"];
        assert_eq!(one.one("Service")["spec"]["ports"][0]["targetPort"], *port, "{}", one.name);
        assert_eq!(one.one("NetworkPolicy")["spec"]["ingress"][0]["ports"][0]["port"], *port, "{}", one.name);
        for monitor in one.all("PodMonitor") {
            assert_eq!(monitor["spec"]["selector"]["matchLabels"], *labels);
            assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["port"], *port);
        }
        assert_eq!(one.all("PodMonitor").count(), usize::from(one.name == EVERYTHING));
    }
}

#[test]
fn each_built_guard_is_probed_updated_and_kept_as_the_base_says() {
    let Some(built) = built("each_built_guard_is_probed_updated_and_kept_as_the_base_says") else { return };
    for one in built {
        let (pod, container) = (one.pod(), one.container());
        for (probe, path) in
            [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")]
        {
            let asked = &container[probe]["httpGet"];
            assert_eq!(
                (&asked["path"], &asked["port"]),
                (&json!(path), &container["ports"][0]["name"]),
                "{}",
                one.name
            );
        }
        let listen = one.configuration()["listen"].as_str().expect("an address").to_owned();
        let listen: std::net::SocketAddr = listen.parse().expect("an address");
        assert_eq!(container["ports"][0]["containerPort"], listen.port(), "{}", one.name);
        assert!(listen.ip().is_unspecified(), "{}: the kubelet asks from outside of the pod", one.name);
        let update = json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": "10%" } });
        assert_eq!(one.one("DaemonSet")["spec"]["updateStrategy"], update, "{}", one.name);
        let class = one.one("PriorityClass");
        assert_eq!(pod["priorityClassName"], class["metadata"]["name"], "{}", one.name);
        assert_eq!((&class["preemptionPolicy"], &class["globalDefault"]), (&json!("Never"), &json!(false)));
        assert!(class["value"].as_i64().is_some_and(|value| value > 0), "{}: above usual workloads", one.name);
        assert_eq!(pod["tolerations"], json!([{ "operator": "Exists" }]), "{}: on every node", one.name);
        assert_eq!(pod["nodeSelector"], json!({ "kubernetes.io/os": "linux" }), "{}", one.name);
        assert_eq!((&pod["hostPID"], &pod["hostNetwork"]), (&json!(true), &Value::Null), "{}", one.name);
        assert_eq!(container["resources"]["limits"]["cpu"], Value::Null, "{}: throttled, it loses events", one.name);
        assert!(container["resources"]["limits"]["memory"].is_string(), "{}", one.name);
    }
}

/// Where it is written to, and where not.
#[test]
fn each_built_guard_writes_its_journal_on_the_node_and_nothing_to_cgroups() {
    let test = "each_built_guard_writes_its_journal_on_the_node_and_nothing_to_cgroups";
    let Some(built) = built(test) else { return };
    for one in built {
        let mounts = one.container()["volumeMounts"].as_array().expect("mounts");
        let writable: BTreeSet<&str> = mounts
            .iter()
            .filter(|mount| mount["readOnly"] != true)
            .map(|mount| mount["mountPath"].as_str().expect("a path"))
            .collect();
        assert_eq!(writable, BTreeSet::from(["/run/canary", "/var/lib/canary"]), "{}", one.name);
        let mount = |path: &str| mounts.iter().find(|mount| mount["mountPath"] == path).expect("mounted");
        let volumes = one.pod()["volumes"].as_array().expect("volumes");
        for path in ["/sys/fs/cgroup", "/run/canary", "/var/lib/canary"] {
            let volume = volumes.iter().find(|volume| volume["name"] == mount(path)["name"]).expect("its volume");
            assert_eq!(volume["hostPath"]["path"], path, "{}: the node's own", one.name);
        }
        let configuration = one.configuration();
        let journal = configuration["journal"].as_str().expect("a path");
        assert!(Path::new(journal).starts_with("/var/lib/canary"), "{}: {journal}", one.name);
    }
}

#[test]
fn each_built_guard_acts_as_far_as_the_page_says() {
    let Some(built) = built("each_built_guard_acts_as_far_as_the_page_says") else { return };
    for one in built {
        let configuration = one.configuration();
        let deployment = configuration["deployment"][0].as_table().expect("a table");
        let told = |key: &str| deployment.get(key).and_then(toml::Value::as_str);
        let wanted = match one.name {
            "observe" | "least-privilege" => (Some("observe"), Some("dry-run"), None),
            "advise" => (Some("advise"), Some("dry-run"), None),
            _ => (Some("rollback"), Some("webhook"), Some("required")),
        };
        assert_eq!((told("mode"), told("orchestrator"), told("approval")), wanted, "{}", one.name);
        let volumes = one.pod()["volumes"].as_array().expect("volumes");
        let secrets: Vec<&Value> = volumes.iter().filter(|volume| volume["secret"].is_object()).collect();
        assert_eq!(secrets.len(), usize::from(told("orchestrator") == Some("webhook")), "{}", one.name);
        for secret in secrets {
            assert_eq!(secret["secret"]["defaultMode"], 0o400, "{}", one.name);
            let mounts = one.container()["volumeMounts"].as_array().expect("mounts");
            let mount = mounts.iter().find(|mount| mount["name"] == secret["name"]).expect("its mount");
            let file = deployment["webhook"]["secret_file"].as_str().expect("a path");
            assert!(Path::new(file).starts_with(mount["mountPath"].as_str().expect("a path")), "{}: {file}", one.name);
        }
    }
}

/// Without what the other tests look at one by one: how far it acts, its privileges, and what it may reach.
fn in_common(built: &Built) -> Vec<Value> {
    let is_others = |object: &Value| {
        let places = [&object["metadata"]["name"], &object["metadata"]["namespace"]];
        object["kind"] == "ConfigMap" || places.into_iter().any(|place| place == "canary-actor")
    };
    let mut objects: Vec<Value> = built.objects.iter().filter(|object| !is_others(object)).cloned().collect();
    for object in &mut objects {
        if object["kind"] == "DaemonSet" {
            let pod = &mut object["spec"]["template"]["spec"];
            pod["containers"][0]["securityContext"].take();
            let mounts = pod["containers"][0]["volumeMounts"].as_array_mut().expect("mounts");
            mounts.retain(|mount| mount["name"] != "webhook");
            let volumes = pod["volumes"].as_array_mut().expect("volumes");
            volumes.retain(|volume| volume["name"] != "webhook" && volume["name"] != "config");
        }
        if object["kind"] == "NetworkPolicy" {
            object["spec"]["egress"].take();
        }
    }
    objects
}

#[test]
fn the_built_overlays_differ_in_nothing_else() {
    let Some(built) = built("the_built_overlays_differ_in_nothing_else") else { return };
    let observe = in_common(of(built, "observe"));
    for overlay in OVERLAYS {
        assert_eq!(in_common(of(built, overlay)), observe, "{overlay}");
    }
}

/// Those that the page names for the overlay.
fn documented_capabilities() -> BTreeSet<String> {
    let page = read(&root().join("../../docs/operations.md"));
    let row = page.lines().find(|line| line.starts_with("| `overlays/least-privilege` |")).expect("its row");
    let words = row.split(|c: char| !c.is_ascii_uppercase() && c != '_');
    words.filter(|word| word.len() > 2).map(str::to_owned).collect()
}

#[test]
fn a_built_guard_is_privileged_or_has_the_capabilities_that_the_page_names_and_no_others() {
    let test = "a_built_guard_is_privileged_or_has_the_capabilities_that_the_page_names_and_no_others";
    let Some(built) = built(test) else { return };
    for one in built {
        let mut context = one.container()["securityContext"].clone();
        let added = context["capabilities"]["add"].take();
        if one.is_least_privilege() {
            let added: BTreeSet<String> = serde_json::from_value(added).expect("a list");
            assert_eq!(added, documented_capabilities(), "{}", one.name);
            let wanted = json!({
                "privileged": false, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsUser": 0,
                "capabilities": { "drop": ["ALL"], "add": null },
                "seccompProfile": { "type": "Localhost", "localhostProfile": "canary-guard.json" },
                "appArmorProfile": { "type": "Unconfined" },
            });
            assert_eq!(context, wanted, "{}", one.name);
        } else {
            let wanted = json!({ "privileged": true, "readOnlyRootFilesystem": true, "runAsUser": 0 });
            assert_eq!((&one.container()["securityContext"], &added), (&wanted, &Value::Null), "{}", one.name);
        }
        assert_eq!(one.pod()["securityContext"], Value::Null, "{}: what holds is the container's", one.name);
    }
}

#[test]
fn nobody_in_a_built_overlay_has_rights_on_the_api_server() {
    let Some(built) = built("nobody_in_a_built_overlay_has_rights_on_the_api_server") else { return };
    for one in built.iter().filter(|one| one.name != EVERYTHING) {
        for object in &one.objects {
            assert!(!object["kind"].as_str().expect("a kind").contains("Role"), "{}: {object}", one.name);
        }
        assert_eq!(one.pod()["serviceAccountName"], "canary-guard", "{}", one.name);
        assert_eq!(one.pod()["automountServiceAccountToken"], false, "{}", one.name);
        for account in one.all("ServiceAccount") {
            assert_eq!(account["automountServiceAccountToken"], false, "{}: {account}", one.name);
        }
        for volume in one.pod()["volumes"].as_array().expect("volumes") {
            assert_eq!(volume["projected"], Value::Null, "{}: no token another way", one.name);
        }
    }
}

#[test]
fn who_is_built_to_act_on_the_api_server_may_change_what_is_named_and_nothing_else() {
    let test = "who_is_built_to_act_on_the_api_server_may_change_what_is_named_and_nothing_else";
    let Some(built) = built(test) else { return };
    let acting = of(built, EVERYTHING);
    assert_eq!(acting.pod()["serviceAccountName"], "canary-guard-acting");
    assert_eq!(acting.pod()["automountServiceAccountToken"], true);
    assert_eq!(acting.container()["env"][0]["name"], "NODE_NAME");
    for kind in ["ClusterRole", "ClusterRoleBinding"] {
        assert_eq!(acting.all(kind).count(), 0, "none for the whole cluster");
    }
    let subject = json!([{ "kind": "ServiceAccount", "name": "canary-guard-acting", "namespace": "canary-guard" }]);
    assert!(acting.all("RoleBinding").all(|binding| binding["subjects"] == subject));
    let mut changes = 0;
    for role in acting.all("Role") {
        for rule in role["rules"].as_array().expect("rules") {
            let list = |key: &str| -> Vec<&str> {
                rule[key].as_array().into_iter().flatten().map(|word| word.as_str().expect("a word")).collect()
            };
            let all = [list("apiGroups"), list("resources"), list("resourceNames"), list("verbs")].concat();
            assert!(!all.contains(&"*") && !all.contains(&"secrets"), "{rule}");
            let changing: Vec<&str> =
                list("verbs").into_iter().filter(|verb| !["get", "list", "watch"].contains(verb)).collect();
            // Events are added, and change nothing.
            if changing.is_empty() || (changing == ["create"] && list("resources") == ["events"]) {
                continue;
            }
            changes += 1;
            assert!(!list("resourceNames").is_empty(), "{rule}");
            assert!(changing.iter().all(|verb| ["patch", "update"].contains(verb)), "{rule}");
        }
    }
    assert!(changes > 0, "it acts");
}

#[test]
fn a_built_guard_reaches_what_its_overlay_and_its_components_name() {
    let Some(built) = built("a_built_guard_reaches_what_its_overlay_and_its_components_name") else { return };
    for silent in ["observe", "advise", "least-privilege"] {
        assert_eq!(of(built, silent).egress(), BTreeSet::new(), "{silent}");
    }
    let space =
        |name: &str| json!([{ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": name } } }]);
    let ports = |all: &[(u16, &str)]| -> Value {
        all.iter().map(|(port, protocol)| json!({ "port": port, "protocol": protocol })).collect()
    };
    let dns = json!({ "ports": ports(&[(53, "UDP"), (53, "TCP")]), "to": space("kube-system") });
    let receiver = json!({ "ports": ports(&[(8080, "TCP")]), "to": space("canary-actor") });
    let server = json!({ "ports": ports(&[(443, "TCP"), (6443, "TCP")]) });
    let enforce = of(built, "enforce").egress();
    assert_eq!(enforce, [&dns, &receiver].map(Value::to_string).into());
    let everything = of(built, EVERYTHING).egress();
    assert_eq!(everything, [&dns, &receiver, &server].map(Value::to_string).into());
}

/// Named by another kustomization, a component is applied after the overlay, where it is applied before it in the overlay's own.
#[test]
fn kustomize_builds_an_overlay_that_acts_on_the_api_server() {
    let test = "kustomize_builds_an_overlay_that_acts_on_the_api_server";
    let Some(built) = built(test) else { return };
    let kubectl = kustomize::kubectl().expect("it built the others");
    let dir = tempfile::tempdir().expect("a directory");
    let own = dir.path().canonicalize().expect("it is there");
    // kustomize takes relative paths only.
    let up = "../".repeat(own.components().count() - 1);
    let at = |name: &str| {
        let path = root().join(name).canonicalize().expect("it is there");
        format!("{up}{}", path.display().to_string().trim_start_matches('/'))
    };
    for overlay in ["observe", "enforce"] {
        let text = json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
            "resources": [at(&format!("overlays/{overlay}"))], "components": [at(ACTING)],
        });
        fs::write(own.join("kustomization.yaml"), text.to_string()).expect("write the overlay");
        let acting = Built { name: "acting", objects: parse(&kustomize::build(&kubectl, &own), overlay) };
        acting.objects.iter().for_each(|object| check_type(object, "acting"));
        assert_eq!(acting.pod()["serviceAccountName"], "canary-guard-acting");
        assert_eq!(acting.container()["securityContext"]["privileged"], true, "the rest is as it was");
        let added: Vec<String> = acting.egress().difference(&of(built, overlay).egress()).cloned().collect();
        assert!(added.len() == 1 && added[0].contains("6443"), "{overlay}: {added:?}");
        assert!(acting.egress().is_superset(&of(built, overlay).egress()), "{overlay} reaches what it did");
    }
}
