//! A real Prometheus scrapes a real guard: every rule in `deploy/prometheus/` is evaluated, and every query of the dashboard in
//! `deploy/grafana/` is answered.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, ensure};
use canary_e2e::{
    Sandbox,
    guard::{Configuration, Guard, PATIENCE, Pages},
    kernel_available,
    service::{Service, Traffic},
    wait_until,
};
use serde_json::Value;
use tempfile::TempDir;

/// What has no value before a baseline was learned, which takes half a minute: answered, with nothing in it.
const NOTHING_YET: [&str; 4] =
    ["canary_indicator_effect_ratio", "canary_indicator_margin_ratio", "canary_memory_in_use_bytes", "canary_p{"];

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

fn has(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

/// A Prometheus of its own, with the shipped rules, that scrapes one guard each second.
struct Prometheus {
    child: Child,
    pages: Pages,
    _dir: TempDir,
}

impl Prometheus {
    fn start(guard: &Pages) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let rules = deploy("prometheus/canary.rules.yml").canonicalize()?;
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{:?}]\nscrape_configs:\n\
             - job_name: canary-guard\n  static_configs: [{{targets: [\"{}\"]}}]\n",
            rules.display().to_string(),
            guard.0
        );
        fs::write(dir.path().join("prometheus.yml"), config)?;
        // Free when asked; Prometheus ends with its reason in the log if somebody else takes it in between.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log = fs::File::create(dir.path().join("log"))?;
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("start prometheus")?;
        Ok(Self { child, pages: Pages(address), _dir: dir })
    }

    /// The series that a query gives now.
    fn query(&self, query: &str) -> anyhow::Result<Vec<Value>> {
        let (_, body) = self.pages.get(&format!("/api/v1/query?query={}", percent_encoded(query)))?;
        let answer: Value = serde_json::from_str(&body).with_context(|| body.clone())?;
        ensure!(answer["status"] == "success", "{query}: {answer}");
        Ok(answer["data"]["result"].as_array().cloned().unwrap_or_default())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

#[test]
fn every_rule_and_every_query_of_the_dashboard_is_answered() -> anyhow::Result<()> {
    const TEST: &str = "every_rule_and_every_query_of_the_dashboard_is_answered";
    if !kernel_available(TEST) {
        return Ok(());
    }
    if !has("prometheus") {
        println!("SKIP {TEST}: there is no prometheus here (apt-get install prometheus)");
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let service = |name: &str| Service::start(&sandbox, &sandbox.cgroup(name)?);
    let services = ["stable-0", "stable-1", "canary-0"].map(service).into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let _traffic = Traffic::start(&services.iter().map(|s| s.address).collect::<Vec<_>>())?;
    let guard = Guard::start(&Configuration::shop(&sandbox)?)?;
    let prometheus = Prometheus::start(&guard.pages)?;

    let scraped = || {
        prometheus.query("count_over_time(up{job=\"canary-guard\"}[1m]) > 4 and up == 1").is_ok_and(|s| !s.is_empty())
    };
    wait_until("Prometheus scrapes the guard", PATIENCE, scraped).with_context(|| guard.said())?;

    let dashboard: Value = serde_json::from_str(&fs::read_to_string(deploy("grafana/canary.json"))?)?;
    let panels = dashboard["panels"].as_array().context("a dashboard has panels")?;
    ensure!(panels.len() >= 15, "only {} panels", panels.len());
    for target in panels.iter().flat_map(|p| p["targets"].as_array().into_iter().flatten()) {
        let query = target["expr"].as_str().context("a target has a query")?;
        let asked = query.replace("$__rate_interval", "30s").replace("$deployment", ".*");
        let answered = !prometheus.query(&asked)?.is_empty();
        assert!(answered || NOTHING_YET.iter().any(|name| query.contains(name)), "nothing answers {query}");
    }
    for annotation in dashboard["annotations"]["list"].as_array().into_iter().flatten() {
        prometheus.query(&annotation["expr"].as_str().context("a query")?.replace("$deployment", ".*"))?;
    }

    let rules: Value = serde_json::from_str(&prometheus.pages.get("/api/v1/rules")?.1)?;
    let rules = rules["data"]["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
    assert!(rules.len() >= 8, "{rules:#?}");
    for rule in &rules {
        assert_eq!((&rule["health"], &rule["lastError"]), (&"ok".into(), &Value::Null), "{rule:#}");
        assert_eq!(rule["state"], "inactive", "nothing is wrong here: {rule:#}");
    }
    assert!(guard.stop()?.success());
    Ok(())
}
