//! The tables of the orchestrators that reach outside.

use super::*;

const OUTSIDE: &str = r#"[[deployment]]
name = "shop"
orchestrator = "webhook"
stable = { cgroup = "/a/1" }
canary = { cgroup = "/a/2" }
webhook = { url = "https://deploy.example/act", state_url = "https://deploy.example/{id}", secret_file = "/etc/secret", retries = 0 }
command = { run = ["/bin/roll-back", "it's"], state = ["/bin/test"], timeout = "5s" }
"#;

fn mistake(from: &str, to: &str) -> String {
    assert!(OUTSIDE.contains(from), "{from}");
    Config::parse(&OUTSIDE.replacen(from, to, 1), "c.toml").map(|_| ()).expect_err(to).to_string()
}

#[test]
fn the_tables_of_webhook_and_command_are_taken_with_their_defaults() {
    let c = parse(OUTSIDE);
    let webhook = c.deployments[0].webhook.as_ref().expect("a webhook");
    assert_eq!((webhook.retries, webhook.timeout), (0, Duration::from_secs(10)));
    let command = c.deployments[0].command.as_ref().expect("a command");
    assert_eq!(command.run, ["/bin/roll-back", "it's"]);
    assert_eq!((&command.undo, command.timeout), (&None, Duration::from_secs(5)));
    assert_eq!(parse(&c.to_string()).to_string(), c.to_string());
}

#[test]
fn who_asks_a_receiver_for_kubernetes_events_is_told_who_writes_them() {
    let refused = |kind: &str| {
        let text = format!("{OUTSIDE}[[notify]]\nkind = \"{kind}\"\n");
        Config::parse(&text, "c.toml").map(|_| ()).expect_err(kind).to_string()
    };
    for kind in ["kubernetes", "KubernetesEvent", "events", "k8s", "k8s-events"] {
        let expected = format!(
            "c.toml:9:8: notify.kind: \"{kind}\" is not allowed: remove this [[notify]]: Events of Kubernetes are written for each \
             deployment that has orchestrator = \"kubernetes\", and for no other"
        );
        assert_eq!(refused(kind), expected);
    }
    for other in ["pager", "eventbridge"] {
        let unknown = refused(other);
        let known = format!("\"{other}\" is not known here: write webhook, slack, alertmanager, journald");
        assert!(unknown.ends_with(&known), "{unknown}");
    }
}

#[test]
fn their_mistakes_are_told() {
    let cases = [
        (
            "https://deploy.example/act",
            "deploy.example/act",
            "c.toml:6:19: shop.webhook.url: \"deploy.example/act\" is not an address: write http:// or https://, a host and a path",
        ),
        (
            "url = \"https://deploy.example/act\", ",
            "",
            "c.toml:6:11: shop.webhook.url: missing: add url = \"https://...\"",
        ),
        ("retries = 0", "retries = 11", "c.toml:6:131: shop.webhook.retries: 11 is out of range: write 0 to 10"),
        (
            "\"/bin/roll-back\"",
            "\"roll-back\"",
            "c.toml:7:19: shop.command.run: \"roll-back\" is not an absolute path: begin it with '/'",
        ),
        ("[\"/bin/test\"]", "[]", "c.toml:7:55: shop.command.state: \"\" is not an absolute path: begin it with '/'"),
    ];
    for (from, to, expected) in cases {
        assert_eq!(mistake(from, to), expected);
    }
    for orchestrator in ["webhook", "command"] {
        let text = OUTSIDE.replace("orchestrator = \"webhook\"", &format!("orchestrator = \"{orchestrator}\""));
        let without: String = text.lines().filter(|l| !l.starts_with(orchestrator)).map(|l| format!("{l}\n")).collect();
        let error = Config::parse(&without, "c.toml").expect_err("no table").to_string();
        assert!(
            error.starts_with(&format!("c.toml:1:1: shop.{orchestrator}: missing: add {orchestrator} = {{")),
            "{error}"
        );
    }
}
