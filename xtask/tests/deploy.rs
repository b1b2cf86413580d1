//! What is in `deploy/` fits together and fits the repository.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("read {path}: {error}"))
}

/// The objects of the Kubernetes base, one file each; the whole of `deploy/kubernetes` is looked at in `kubernetes.rs`.
fn manifest(kind: &str) -> Value {
    let path = format!("deploy/kubernetes/base/{}.yaml", kind.to_lowercase());
    let object: Value = serde_saphyr::from_str(&read(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert_eq!(object["kind"], kind, "{path}");
    object
}

fn pod() -> Value {
    manifest("DaemonSet")["spec"]["template"]["spec"].clone()
}

fn names<'a>(list: &'a Value, key: &str) -> BTreeSet<&'a str> {
    list.as_array().unwrap().iter().map(|entry| entry[key].as_str().unwrap()).collect()
}

#[test]
fn the_daemonset_can_load_programs_and_sees_the_node() {
    let pod = pod();
    let container = &pod["containers"][0];
    assert_eq!(container["securityContext"]["privileged"], true);
    assert_eq!(pod["hostPID"], true);
    assert_eq!(pod["hostNetwork"], Value::Null, "the pod has no business on the host's network");
    assert_eq!(container["resources"]["limits"]["cpu"], Value::Null, "a throttled sensor loses events");
    assert!(container["resources"]["limits"]["memory"].is_string());
    let namespace = manifest("Namespace");
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "privileged");
}

#[test]
fn every_volume_is_mounted_and_every_mount_has_its_volume() {
    let pod = pod();
    assert_eq!(names(&pod["volumes"], "name"), names(&pod["containers"][0]["volumeMounts"], "name"));
    let host: BTreeSet<&str> =
        pod["volumes"].as_array().unwrap().iter().filter_map(|v| v["hostPath"]["path"].as_str()).collect();
    assert!(host.contains("/sys/fs/cgroup"), "the node's cgroups: {host:?}");
    assert!(!host.iter().any(|path| path.contains("sock")), "no runtime socket: {host:?}");
}

#[test]
fn the_probes_ask_the_port_that_the_guard_listens_on() {
    let pod = pod();
    let container = &pod["containers"][0];
    let port = &container["ports"][0];
    for (probe, path) in [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
        assert_eq!(container[probe]["httpGet"]["path"], path, "{probe}");
        assert_eq!(container[probe]["httpGet"]["port"], port["name"], "{probe}");
    }
    let config: toml::Table = toml::from_str(&config_map_text()).unwrap();
    let listen: std::net::SocketAddr = config["listen"].as_str().unwrap().parse().unwrap();
    assert_eq!(port["containerPort"], listen.port());
    assert!(listen.ip().is_unspecified(), "the kubelet asks from outside of the pod");
}

#[test]
fn the_config_map_is_mounted_where_the_guard_looks_and_starts_harmless() {
    let pod = pod();
    let arguments = pod["containers"][0]["args"].to_string();
    assert!(arguments.contains("/etc/canary/canary.toml"), "{arguments}");
    let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap().clone();
    assert!(mounts.iter().any(|m| m["name"] == "config" && m["mountPath"] == "/etc/canary"));
    let volumes = pod["volumes"].as_array().unwrap();
    assert!(volumes.iter().any(|v| v["name"] == "config" && v["configMap"]["name"] == "canary-guard"));
    assert_harmless(&config_map_text());
}

#[test]
fn the_service_account_has_no_rights() {
    for entry in fs::read_dir(repository().join("deploy/kubernetes/base")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.lines().any(|l| l.starts_with("kind:") && l.contains("Role")), "{}", path.display());
    }
    let account = manifest("ServiceAccount");
    assert_eq!(account["automountServiceAccountToken"], false);
    assert_eq!(pod()["serviceAccountName"], account["metadata"]["name"]);
    assert_eq!(pod()["automountServiceAccountToken"], false);
}

#[test]
fn the_example_configuration_starts_harmless() {
    assert_harmless(&read("deploy/canary.example.toml"));
}

fn config_map_text() -> String {
    read("deploy/kubernetes/base/canary.toml")
}

fn assert_harmless(config: &str) {
    let config: toml::Table = toml::from_str(config).expect("the configuration is TOML");
    let deployments = config["deployment"].as_array().unwrap();
    assert!(!deployments.is_empty());
    for deployment in deployments {
        assert_eq!(deployment["mode"].as_str(), Some("observe"));
        assert_eq!(deployment["orchestrator"].as_str(), Some("dry-run"));
        assert_ne!(deployment["stable"]["cgroup"], deployment["canary"]["cgroup"]);
    }
}

#[test]
fn systemd_understands_the_unit() {
    let available = Command::new("systemd-analyze").arg("--version").output();
    if !available.is_ok_and(|output| output.status.success()) {
        println!("SKIP systemd_understands_the_unit: there is no systemd-analyze here");
        return;
    }
    // `verify` wants the executable to exist; the one that will be installed need not be here.
    let directory = tempfile::tempdir().unwrap();
    let unit = directory.path().join("canary-guard.service");
    let text = read("deploy/canary-guard.service");
    assert!(text.contains("ExecStart=/usr/bin/canary run --config /etc/canary/canary.toml"));
    fs::write(&unit, text.replace("/usr/bin/canary", "/bin/true")).unwrap();
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // Other units of the machine are loaded too: only what is said of ours counts. An unknown key is a warning, not a failure.
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("canary-guard")).collect();
    assert!(ours.is_empty(), "{ours:?}");
    assert!(output.status.success(), "{said}");
}

#[test]
fn the_unit_leaves_the_guard_what_it_needs() {
    let unit = read("deploy/canary-guard.service");
    let set: Vec<&str> = unit.lines().filter(|line| !line.starts_with('#')).collect();
    for needed in ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"] {
        assert!(set.iter().any(|line| line.starts_with("CapabilityBoundingSet=") && line.contains(needed)), "{needed}");
    }
    for blinding in ["ProtectControlGroups", "ProcSubset", "PrivateUsers", "PrivateNetwork"] {
        assert!(!set.iter().any(|line| line.starts_with(blinding)), "{blinding}");
    }
    assert!(set.contains(&"SystemCallFilter=@system-service bpf perf_event_open"));
}

/// What it allows is tried by the test of the image.
#[test]
fn the_seccomp_profile_is_of_the_form_that_docker_and_kubelets_take_and_keeps_the_host_closed() {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Profile {
        default_action: String,
        architectures: Vec<String>,
        syscalls: Vec<Rule>,
    }
    // Docker's own files have more (`archMap`, `includes`), which a kubelet's runtime does not read.
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Rule {
        names: Vec<String>,
        action: String,
    }
    let profile: Profile = serde_json::from_str(&read("deploy/seccomp/canary-guard.json")).unwrap();
    assert_eq!(profile.default_action, "SCMP_ACT_ERRNO");
    assert_eq!(profile.architectures, ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"]);
    let [rule] = &profile.syscalls[..] else { panic!("one rule") };
    assert_eq!(rule.action, "SCMP_ACT_ALLOW");
    let allowed: BTreeSet<&str> = rule.names.iter().map(String::as_str).collect();
    for needed in ["bpf", "perf_event_open", "kill", "chown", "futex", "execve"] {
        assert!(allowed.contains(needed), "{needed}");
    }
    for closed in [
        "mount",
        "setns",
        "unshare",
        "ptrace",
        "init_module",
        "finit_module",
        "kexec_load",
        "reboot",
        "open_by_handle_at",
    ] {
        assert!(!allowed.contains(closed), "{closed}");
    }
    let patch: Value =
        serde_saphyr::from_str(&read("deploy/kubernetes/components/least-privilege/daemonset.yaml")).unwrap();
    let named = &patch["spec"]["template"]["spec"]["containers"][0]["securityContext"]["seccompProfile"];
    assert_eq!(named["type"], "Localhost");
    assert!(repository().join("deploy/seccomp").join(named["localhostProfile"].as_str().unwrap()).exists(), "{named}");
}

#[test]
fn the_image_copies_what_exists_and_every_member_of_the_workspace() {
    let root = repository();
    let dockerfile = read("deploy/Dockerfile");
    let mut copied = BTreeSet::new();
    for line in dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")) {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        words.pop().expect("a destination");
        if words[0].starts_with("--from=") {
            continue;
        }
        for source in words {
            assert!(root.join(source).exists(), "COPY {source}: there is no such path");
            copied.insert(source.to_owned());
        }
    }
    let workspace: toml::Table = toml::from_str(&read("Cargo.toml")).unwrap();
    for list in ["members", "exclude"] {
        // What fuzzes is for those who change the guard.
        for member in workspace["workspace"][list].as_array().unwrap().iter().filter(|m| m.as_str() != Some("fuzz")) {
            let member = member.as_str().unwrap();
            assert!(copied.contains(member), "the image's build lacks {member}");
        }
    }
}

#[test]
fn the_alerts_fire_when_they_should_and_not_else() {
    let available = Command::new("promtool").arg("--version").output();
    if !available.is_ok_and(|output| output.status.success()) {
        println!(
            "SKIP the_alerts_fire_when_they_should_and_not_else: there is no promtool here (apt-get install prometheus)"
        );
        return;
    }
    let output = Command::new("promtool")
        .args(["test", "rules", "canary.rules.test.yml"])
        .current_dir(repository().join("deploy/prometheus"))
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    // An alert that is not tested would be taken for one that is.
    let tests = read("deploy/prometheus/canary.rules.test.yml");
    let rules: Value = serde_saphyr::from_str(&read("deploy/prometheus/canary.rules.yml")).unwrap();
    for rule in rules["groups"][0]["rules"].as_array().unwrap() {
        let alert = rule["alert"].as_str().unwrap();
        assert!(tests.contains(&format!("alertname: {alert}\n")), "no test makes {alert} fire");
    }
}
