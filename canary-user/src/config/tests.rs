//! The exact text of every mistake, and what a good configuration becomes.

mod outside;

use std::time::Duration;

use super::*;

const GOOD: &str = r#"window  = "1s"
listen  = "127.0.0.1:9847"
journal = "/var/lib/canary/journal.db"

[judge]
alpha = 0.001
baseline_windows = 300

[[deployment]]
name   = "checkout"
mode   = "rollback"
orchestrator = "process"
grace  = "10s"
stable = { cgroup = "/checkout/v1*", version = "v1" }
canary = { cgroup = "/checkout/v2*" }
[deployment.budget]
per_hour = 3
"#;

fn parse(text: &str) -> Config {
    Config::parse(text, "canary.toml").unwrap_or_else(|e| panic!("{e}"))
}

/// The error text after one replacement in the good configuration.
fn error(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    match Config::parse(&GOOD.replacen(from, to, 1), "canary.toml") {
        Ok(_) => panic!("accepted: {to}"),
        Err(e) => e.to_string(),
    }
}

#[test]
fn a_good_configuration_is_taken_with_its_defaults() {
    let c = parse(GOOD);
    assert_eq!(c.window, Duration::from_secs(1));
    assert_eq!(c.listen, Some("127.0.0.1:9847".parse().unwrap()));
    assert_eq!(c.pause_file, PathBuf::from("/run/canary/pause"));
    assert_eq!(c.api, ApiConfig { socket: "/run/canary/canary.sock".into(), group: None, token_file: None });
    assert_eq!(c.judge, Parameters::default());
    let d = &c.deployments[0];
    assert_eq!((&*d.name, d.mode, d.orchestrator), ("checkout", Mode::Rollback, OrchestratorKind::Process));
    assert_eq!(d.budget, Budget { per_hour: 3, cooldown: Duration::from_secs(900) });
    assert_eq!((d.minimum_healthy, d.max_age, d.stable.version.as_deref()), (1, None, Some("v1")));
}

#[test]
fn the_least_configuration_observes_and_only_says_what_it_would_do() {
    let c = parse("[[deployment]]\nname = \"a\"\nstable = { cgroup = \"/a/1\" }\ncanary = { cgroup = \"/a/2\" }\n");
    assert_eq!((c.window, c.listen), (Duration::from_secs(1), None));
    let d = &c.deployments[0];
    assert_eq!((d.mode, d.orchestrator, d.budget), (Mode::Observe, OrchestratorKind::DryRun, Budget::default()));
}

#[test]
fn the_rendering_is_a_configuration_that_means_the_same() {
    let api = "[api]\ngroup = \"deployers\"\ntoken_file = \"/etc/canary/token\"\n[judge]";
    let text = GOOD.replace("[judge]", api);
    let c = parse(&text.replace(
        "grace  = \"10s\"",
        "policy = { memory_in_use = \"quarantine\", crashes = \"rollback\" }\ngrace = \"1m 30s\"\nmax_age = \"2h\"\nminimum_healthy = 2\napproval = \"required\"",
    ));
    let rendered = c.to_string();
    assert_eq!(parse(&rendered).to_string(), rendered);
    // Every key of the judge is there; that they are the right ones is held by the page of keys.
    let (before, judge) = rendered.split_once("[judge]\n").expect("a section of its own");
    let (judge, after) = judge.split_once("\n[[deployment]]").expect("deployments after it");
    assert!(judge.contains("alpha = 0.001\n") && judge.contains("cpu_per_work = { direction = \"up\""), "{judge}");
    assert_eq!(
        format!("{before}[[deployment]]{after}"),
        r#"window = "1s"
listen = "127.0.0.1:9847"
journal = "/var/lib/canary/journal.db"
pause_file = "/run/canary/pause"
systemd_bus = "unix:path=/run/dbus/system_bus_socket"
docker_socket = "/run/docker.sock"
reports = "/var/lib/canary/reports"

[api]
socket = "/run/canary/canary.sock"
group = "deployers"
token_file = "/etc/canary/token"

[[deployment]]
name = "checkout"
mode = "rollback"
policy = { crashes = "rollback", memory_in_use = "quarantine" }
orchestrator = "process"
grace = "1m 30s"
settle = "5s"
quarantine = { lasts = "15m", cpu_weight = 10 }
max_age = "2h"
minimum_healthy = 2
blast_radius = 0.5
approval = "required"
approval_timeout = "15m"
stable = { cgroup = "/checkout/v1*", version = "v1" }
canary = { cgroup = "/checkout/v2*" }
budget = { per_hour = 3, cooldown = "15m" }
"#
    );
}

#[test]
fn reports_are_beside_the_journal_unless_another_place_or_none_is_written() {
    let journal = "journal = \"/var/lib/canary/journal.db\"";
    let reports = |keys: &str| {
        let c = parse(&GOOD.replace(journal, keys));
        assert_eq!(parse(&c.to_string()).reports, c.reports, "{keys}: as it is printed");
        c.reports
    };
    assert_eq!(reports(""), Some("/var/lib/canary/reports".into()));
    assert_eq!(reports("journal = \"/srv/guard/shop.db\""), Some("/srv/guard/reports".into()));
    assert_eq!(reports("reports = \"/srv/incidents\""), Some("/srv/incidents".into()));
    assert_eq!(reports("reports = \"\""), None);
    assert_eq!(
        error(journal, "reports = \"incidents\""),
        "canary.toml:3:11: reports: \"incidents\" is not an absolute path: begin it with '/'"
    );
}

#[test]
fn the_address_that_links_lead_to_is_taken_without_its_slash() {
    let listen = "listen  = \"127.0.0.1:9847\"";
    let with = |url: &str| format!("{listen}\nexternal_url = \"{url}\"");
    let c = parse(&GOOD.replace(listen, &with("https://ops.example/canary/")));
    assert_eq!(c.external_url.as_deref(), Some("https://ops.example/canary"));
    assert_eq!(parse(&c.to_string()).external_url, c.external_url, "as it is printed");
    assert_eq!(parse(GOOD).external_url, None);
    for (url, says) in [
        ("ops.example", "\"ops.example\" is not an address: write http:// or https://, a host and a path"),
        (
            "https://ops.example/?a=b",
            "\"https://ops.example/?a=b\" is not allowed: paths are put behind it: write it without '?' and '#'",
        ),
    ] {
        assert_eq!(error(listen, &with(url)), format!("canary.toml:3:16: external_url: {says}"));
    }
}

#[test]
fn a_star_does_not_cross_a_slash() {
    let d = &parse(GOOD).deployments[0];
    assert_eq!(d.matches("/checkout/v1-a"), Some(Role::Stable));
    assert_eq!(d.matches("/checkout/v2"), Some(Role::Canary));
    assert_eq!(d.matches("/checkout/v2/worker"), None);
    assert_eq!(d.matches("/checkout"), None);
}

#[test]
fn every_mistake_has_its_own_text() {
    let cases = [
        ("window ", "windw ", "canary.toml:1:1: windw: unknown key: did you mean 'window'?"),
        ("per_hour", "per_day", "canary.toml:17:1: per_day: unknown key: did you mean 'per_hour'?"),
        ("per_hour", "zzz", "canary.toml:17:1: zzz: unknown key: remove it; known here are per_hour, cooldown"),
        (
            "\"1s\"",
            "\"1 sec?\"",
            "canary.toml:1:11: window: \"1 sec?\" is not a duration: write a number and a unit, such as \"1s\" or \"500ms\"",
        ),
        ("\"1s\"", "\"90s\"", "canary.toml:1:11: window: \"1m 30s\" is out of range: write \"100ms\" to \"1m\""),
        ("\"1s\"", "1", "canary.toml:1:11: window: invalid type: integer `1`, expected a string"),
        ("0.001", "0.5", "canary.toml:6:9: judge.alpha: 0.5 is out of range: write 0.000000001 to 0.1"),
        ("0.001", "nan", "canary.toml:6:9: judge.alpha: NaN is out of range: write 0.000000001 to 0.1"),
        ("300", "3", "canary.toml:7:20: judge.baseline_windows: 3 is out of range: write 30 to 100000"),
        ("= 3\n", "= 0\n", "canary.toml:17:12: checkout.budget.per_hour: 0 is out of range: write 1 to 60"),
        ("name   = \"checkout\"", "", "canary.toml:9:1: deployment.name: missing: add name = \"...\""),
        (
            "canary = { cgroup = \"/checkout/v2*\" }",
            "",
            "canary.toml:9:1: checkout.canary: missing: add canary = { cgroup = \"/...\" }",
        ),
        (
            "cgroup = \"/checkout/v2*\"",
            "version = \"v2\"",
            "canary.toml:15:10: checkout.canary.cgroup: missing: add cgroup = \"/...\"",
        ),
        (
            "\"checkout\"",
            "\"\"",
            "canary.toml:10:10: deployment.name: the name is empty: write the name that people know the service by",
        ),
        (
            "\"/checkout/v2*\"",
            "\" \"",
            "canary.toml:15:21: checkout.canary.cgroup: the pattern is empty: write a path below the cgroup2 root, such as \"/checkout/v1*\"",
        ),
        (
            "\"/checkout/v2*\"",
            "\"checkout/v2\"",
            "canary.toml:15:21: checkout.canary.cgroup: \"checkout/v2\" does not begin with '/': write the path from the cgroup2 root, \"/checkout/v2\"",
        ),
        (
            "\"/checkout/v2*\"",
            "\"/sys/fs/cgroup/checkout/v2\"",
            "canary.toml:15:21: checkout.canary.cgroup: \"/sys/fs/cgroup/checkout/v2\" names the mount point: write the path from the cgroup2 root, \"/checkout/v2\"",
        ),
        (
            "\"/checkout/v2*\"",
            "\"/\"",
            "canary.toml:15:21: checkout.canary.cgroup: \"/\" is the whole machine: write the cgroup of one version, such as \"/checkout/v1*\"",
        ),
        (
            "\"/checkout/v2*\"",
            "\"/checkout/[v2\"",
            "canary.toml:15:21: checkout.canary.cgroup: \"/checkout/[v2\" is not a glob: unclosed character class; missing ']'; put '[' and '{' in brackets to mean them literally",
        ),
        (
            "\"/checkout/v2*\"",
            "\"/checkout/v1*\"",
            "canary.toml:15:21: checkout.canary.cgroup: \"/checkout/v1*\" is also the pattern of stable (canary.toml:14:21): a version cannot be compared with itself",
        ),
        (
            "\"rollback\"",
            "\"roll-back\"",
            "canary.toml:11:10: checkout.mode: unknown mode \"roll-back\": choose observe, advise, quarantine, drain or rollback",
        ),
        (
            "\"rollback\"",
            "\"rollback\"\npolicy = { memory = \"drain\" }",
            "canary.toml:12:12: memory: unknown key: did you mean 'memory_stall'?",
        ),
        (
            "\"rollback\"",
            "\"rollback\"\npolicy = { crashes = \"stop\" }",
            "canary.toml:12:22: checkout.policy.crashes: unknown mode \"stop\": choose observe, advise, quarantine, drain or rollback",
        ),
        (
            "\"rollback\"",
            "\"drain\"\npolicy = { crashes = \"rollback\" }",
            "canary.toml:12:22: checkout.policy.crashes: rollback is not allowed: the deployment's mode is drain, and a policy may only go less far",
        ),
        (
            "\"rollback\"",
            "\"rollback\"\napproval = \"yes\"",
            "canary.toml:12:12: checkout.approval: \"yes\" is not known here: write none or required",
        ),
        (
            "\"process\"",
            "\"nomad\"",
            "canary.toml:12:16: checkout.orchestrator: unknown orchestrator \"nomad\": choose one of dry-run, process, systemd, docker, kubernetes, webhook, command",
        ),
        (
            "\"process\"",
            "\"systemd\"",
            "canary.toml:14:21: checkout.stable.cgroup: orchestrator \"systemd\" acts on what it knows by name, not by 'cgroup': write systemd = \"...service\"",
        ),
        (
            "\"process\"",
            "\"docker\"",
            "canary.toml:14:21: checkout.stable.cgroup: orchestrator \"docker\" acts on what it knows by name, not by 'cgroup': write container, label or image",
        ),
        (
            "cgroup = \"/checkout/v2*\"",
            "systemd = \"checkout@v2\"",
            "canary.toml:15:22: checkout.canary.systemd: \"checkout@v2\" is not the name of a service: write one, such as \"checkout@v2*.service\"",
        ),
        (
            "cgroup = \"/checkout/v2*\"",
            "cgroup = \"/checkout/v2*\", image = \"checkout:2\"",
            "canary.toml:15:46: checkout.canary.image: the instances are named by 'cgroup' already: keep one of the two",
        ),
        (
            "grace  = \"10s\"",
            "grace  = \"10s\"\nquarantine = { cpu_weight = 0 }",
            "canary.toml:14:29: checkout.quarantine.cpu_weight: 0 is out of range: write 1 to 10000",
        ),
        (
            "\"127.0.0.1:9847\"",
            "\"localhost\"",
            "canary.toml:2:11: listen: \"localhost\" is not an address: write IP:port, such as \"127.0.0.1:9847\"",
        ),
        (
            "[judge]",
            "[api]\ntoken_file = \"token\"\n[judge]",
            "canary.toml:6:14: api.token_file: \"token\" is not an absolute path: begin it with '/'",
        ),
        (
            "\"/var/lib/canary/journal.db\"",
            "\"journal.db\"",
            "canary.toml:3:11: journal: \"journal.db\" is not an absolute path: begin it with '/'",
        ),
    ];
    for (from, to, expected) in cases {
        assert_eq!(error(from, to), expected);
    }
}

#[test]
fn text_that_is_not_toml_is_refused_where_it_breaks() {
    let text = error("window  =", "window  ");
    assert_eq!(text, "canary.toml:1:10: not TOML: key with no value, expected `=`");
}

#[test]
fn no_deployment_and_a_name_given_twice_are_refused() {
    let none = Config::parse("window = \"1s\"\n", "c.toml").unwrap_err().to_string();
    assert_eq!(none, "c.toml:1:1: deployment: missing: add at least one [[deployment]] with name, stable and canary");
    let twice = format!("{GOOD}[[deployment]]\nname = \"checkout\"\n");
    assert_eq!(
        Config::parse(&twice, "c.toml").unwrap_err().to_string(),
        "c.toml:19:8: deployment.name: \"checkout\" is already the name of the deployment at c.toml:10:10: give each its own name"
    );
}

#[test]
fn a_cgroup_for_two_roles_is_refused_with_both_places() {
    let c = parse(&GOOD.replace("/checkout/v1*", "/checkout/*"));
    assert_eq!(c.overlap(&["/checkout/v1".into()]), Ok(()));
    assert_eq!(
        c.overlap(&["/checkout/v1".into(), "/checkout/v2".into()]).unwrap_err().to_string(),
        "canary.toml:15:21: checkout.canary.cgroup: cgroup /checkout/v2 is also matched by checkout.stable.cgroup (canary.toml:14:21): narrow one of the two patterns"
    );
}

#[test]
fn a_cgroup_inside_one_of_another_role_is_refused_either_way() {
    let paths = ["/checkout".to_string(), "/checkout/v2".to_string()];
    let text = "cgroup /checkout/v2 lies inside /checkout, which";
    let c = parse(&GOOD.replace("/checkout/v1*", "/checkout"));
    let e = c.overlap(&paths).unwrap_err().to_string();
    assert!(e.starts_with("canary.toml:15:21: checkout.canary.cgroup: ") && e.contains(text), "{e}");
    let c = parse(&GOOD.replace("/checkout/v1*", "/checkout/v2").replace("/checkout/v2*", "/checkout"));
    let e = c.overlap(&paths).unwrap_err().to_string();
    assert!(e.starts_with("canary.toml:14:21: checkout.stable.cgroup: ") && e.contains(text), "{e}");
}

#[test]
fn a_pattern_that_matches_nothing_yet_is_a_warning() {
    assert_eq!(
        parse(GOOD).unmatched(&["/checkout/v1".into()]),
        ["canary.toml:15:21: checkout.canary.cgroup: no cgroup matches \"/checkout/v2*\" yet; it is watched for"]
    );
}

#[test]
fn versions_are_named_as_systemd_and_docker_name_them() {
    let units = GOOD
        .replace("\"process\"", "\"systemd\"")
        .replace("cgroup = \"/checkout/v1*\"", "systemd = \"checkout@v1*.service\"");
    let c = parse(&units.replace("cgroup = \"/checkout/v2*\"", "systemd = \"checkout@v2.service\""));
    let d = &c.deployments[0];
    let names = d.stable.units().expect("units");
    assert!(names.matches("checkout@v1-a.service") && !names.matches("checkout@v2.service"));
    assert_eq!((names.only(), d.canary.units().and_then(|p| p.only())), (None, Some("checkout@v2.service")));
    assert_eq!((d.matches("/checkout/v1-a"), parse(&c.to_string()).to_string()), (None, c.to_string()));
    for written in ["container = \"checkout-v?\"", "label = \"version=1\"", "image = \"checkout:1*\""] {
        let containers = GOOD.replace("\"process\"", "\"docker\"").replace("cgroup = \"/checkout/v1*\"", written);
        let c = parse(&containers.replace("cgroup = \"/checkout/v2*\"", "label = \"version=2\""));
        assert!(c.to_string().contains(&format!("stable = {{ {written}")), "{c}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let e = format!("{:#}", Config::load(Path::new("/nonexistent/canary.toml")).unwrap_err());
    assert!(e.starts_with("read configuration /nonexistent/canary.toml: name an existing file"), "{e}");
}
