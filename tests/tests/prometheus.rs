//! A real Prometheus scrapes a real guard: every rule in `deploy/prometheus/` is evaluated, those of a bad canary fire, and every
//! query of the dashboard in `deploy/grafana/` is answered.

use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, ensure};
use aya::sys::{Stats, enable_stats};
use canary_e2e::{
    Sandbox,
    guard::{Configuration, Guard, PATIENCE, Pages, shop},
    kernel_available,
    service::{Service, Traffic},
    wait_until,
};
use serde_json::Value;
use tempfile::TempDir;

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

fn shipped_rules() -> anyhow::Result<String> {
    Ok(fs::read_to_string(deploy("prometheus/canary.rules.yml"))?)
}

/// A Prometheus of its own that scrapes one guard each second.
struct Prometheus {
    child: Child,
    pages: Pages,
    _dir: TempDir,
}

impl Prometheus {
    /// `options` beside those that say where its files and its port are.
    fn start(guard: &Pages, rules: &str, options: &[&str]) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        fs::write(dir.path().join("canary.rules.yml"), rules)?;
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [canary.rules.yml]\nscrape_configs:\n\
             - job_name: canary-guard\n  static_configs: [{{targets: [\"{}\"]}}]\n",
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
            .args(options)
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

    /// Names of the alerts that fire now, of the deployment `shop`.
    fn firing(&self) -> anyhow::Result<BTreeSet<String>> {
        let answer: Value = serde_json::from_str(&self.pages.get("/api/v1/alerts")?.1)?;
        let alerts = answer["data"]["alerts"].as_array().context("a list of alerts")?;
        let fires = |a: &&Value| a["state"] == "firing" && a["labels"]["deployment"] == "shop";
        Ok(alerts
            .iter()
            .filter(fires)
            .map(|a| a["labels"]["alertname"].as_str().unwrap_or_default().to_owned())
            .collect())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn dashboard() -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&fs::read_to_string(deploy("grafana/canary.json"))?)?)
}

/// The queries of all panels.
fn queries(dashboard: &Value) -> anyhow::Result<Vec<&str>> {
    let panels = dashboard["panels"].as_array().context("a dashboard has panels")?;
    ensure!(panels.len() >= 15, "only {} panels", panels.len());
    let targets = panels.iter().flat_map(|p| p["targets"].as_array().into_iter().flatten());
    targets.map(|target| target["expr"].as_str().context("a target has a query")).collect()
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
    // Before the guard asks for the first time: what its kernel programs cost has no series while nobody has it counted.
    let _counted = enable_stats(Stats::RunTime).context("switch kernel.bpf_stats on")?;
    let guard = Guard::start(&Configuration::shop(&sandbox)?)?;
    let prometheus = Prometheus::start(&guard.pages, &shipped_rules()?, &[])?;

    let scraped = || {
        prometheus.query("count_over_time(up{job=\"canary-guard\"}[1m]) > 4 and up == 1").is_ok_and(|s| !s.is_empty())
    };
    wait_until("Prometheus scrapes the guard", PATIENCE, scraped).with_context(|| guard.said())?;

    let dashboard = dashboard()?;
    ensure!(queries(&dashboard)?.iter().any(|q| q.contains("canary_hook_run_seconds_total")), "what each hook costs");
    for query in queries(&dashboard)? {
        let asked = query.replace("$__rate_interval", "30s").replace("$deployment", ".*");
        prometheus.query(&asked)?;
        // Some have no value before a baseline was learned, which takes half a minute.
        let answered = || prometheus.query(&asked).is_ok_and(|series| !series.is_empty());
        wait_until(&format!("an answer to {query}"), PATIENCE, answered).with_context(|| guard.said())?;
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

#[test]
fn the_alerts_of_a_canary_that_crashes_fire_and_end_when_it_is_gone() -> anyhow::Result<()> {
    const TEST: &str = "the_alerts_of_a_canary_that_crashes_fire_and_end_when_it_is_gone";
    if !kernel_available(TEST) {
        return Ok(());
    }
    if !has("prometheus") {
        println!("SKIP {TEST}: there is no prometheus here (apt-get install prometheus)");
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let service = |name: &str| Service::start(&sandbox, &sandbox.cgroup(name)?);
    let stable = service("stable-0")?;
    let canary = service("canary-0")?;
    let traffic = Traffic::start(&[stable.address, canary.address])?;
    // In mode rollback, but what it would do is a dry run.
    let configuration = Configuration::new(&format!("{}mode = \"rollback\"\n", shop(&sandbox)))?;
    let mut guard = Guard::start(&configuration)?;
    guard.until("both are measured", |w| w["indicators"]["turnaround_mean"]["canary"].is_number())?;
    // As shipped, but for how long the canary has to be gone: a test need not wait five minutes.
    let rules = shipped_rules()?;
    ensure!(rules.contains("[5m]"), "the rules look back");
    let prometheus = Prometheus::start(&guard.pages, &rules.replace("[5m]", "[10s]"), &[])?;
    let scraped = || prometheus.query("canary_targets{role=\"canary\"} == 1").is_ok_and(|s| !s.is_empty());
    wait_until("Prometheus sees the canary", PATIENCE, scraped).with_context(|| guard.said())?;
    assert_eq!(prometheus.firing()?, BTreeSet::new());

    // Two crashes within five minutes are a fact.
    for _ in 0..2 {
        sandbox.run(&format!("{}/canary-0", sandbox.base), "kill -SEGV $$")?.wait()?;
    }
    guard.until("the canary is condemned", |w| w["verdict"] == "regressed" && w["decision"]["stage"] == "blocked")?;
    let expected: BTreeSet<String> = ["CanaryRegressed", "CanaryWouldHaveActed"].map(str::to_owned).into();
    let fires = || prometheus.firing().is_ok_and(|firing| firing == expected);
    wait_until("the alerts fire", PATIENCE, fires)
        .with_context(|| format!("{:?}; the guard said {}", prometheus.firing(), guard.said()))?;

    // A person takes it away. The verdict stays, and nobody is paged for it.
    drop(traffic);
    drop(canary);
    let ended = || prometheus.firing().is_ok_and(|firing| firing.is_empty());
    wait_until("the alerts end", PATIENCE, ended).with_context(|| format!("{:?}", prometheus.firing()))?;
    assert!(guard.stop()?.success());
    Ok(())
}

#[test]
fn with_native_histograms_prometheus_takes_them_and_their_quantiles() -> anyhow::Result<()> {
    const TEST: &str = "with_native_histograms_prometheus_takes_them_and_their_quantiles";
    if !kernel_available(TEST) {
        return Ok(());
    }
    if !has("prometheus") {
        println!("SKIP {TEST}: there is no prometheus here (apt-get install prometheus)");
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let stable = sandbox.cgroup("stable-0")?;
    let service = Service::start(&sandbox, &stable)?;
    let _traffic = Traffic::start(&[service.address])?;
    // The service's own process does nothing but sleep: this one waits for a CPU again and again.
    let mut busy = sandbox.run(&stable, "while :; do sleep 0.01; done")?;
    let guard = Guard::start(&Configuration::shop(&sandbox)?)?;
    let prometheus = Prometheus::start(&guard.pages, &shipped_rules()?, &["--enable-feature=native-histograms"])?;

    // Both from the same scrapes: the native histogram, and what it is made of, which the text has as classic buckets.
    for name in ["canary_run_queue_wait_seconds", "canary_turnaround_seconds"] {
        let number = |query: String| -> Option<f64> {
            let answer = prometheus.query(&query).ok()?;
            answer.first()?["value"][1].as_str()?.parse().ok()
        };
        let counted =
            || number(format!("histogram_count(rate({name}{{role=\"stable\"}}[10s]))")).is_some_and(|n| n > 0.0);
        wait_until(&format!("Prometheus has {name} natively"), PATIENCE, counted).with_context(|| guard.said())?;
        let sum_per_count = |t: &str| number(format!("histogram_sum({t}) / histogram_count({t})"));
        let total = format!("{name}{{role=\"stable\"}}");
        let mean_s = sum_per_count(&total).context("a mean")?;
        // Every value lies between the quantiles 0 and 1, so that the mean does, too.
        let quantile = |q: f64| number(format!("histogram_quantile({q}, {total})")).context("a quantile");
        let (least_s, middle_s, most_s) = (quantile(0.0)?, quantile(0.5)?, quantile(1.0)?);
        assert!(least_s <= mean_s && mean_s <= most_s * 1.16, "{name}: {least_s} <= {mean_s} <= {most_s}");
        assert!(least_s <= middle_s && middle_s <= most_s && most_s > 1e-6, "{name}: {middle_s}, {most_s}");
        // Classic buckets would have the label `le`.
        assert!(prometheus.query(&format!("{name}_bucket"))?.is_empty(), "{name} was read as classic");
        // A classic bucket is a power of two wide, and the text is a little younger: a unit that is wrong is far more.
        let text = guard.pages.get("/metrics")?.1;
        let (least_s, bound_s) = classic_median_s(&text, name)?;
        ensure!(
            (least_s..=bound_s * 2.0).contains(&middle_s),
            "{name}: {middle_s} s, and between {least_s} and {bound_s} s in the text"
        );
    }
    let dashboard = dashboard()?;
    let quantiles: Vec<_> = queries(&dashboard)?.into_iter().filter(|q| q.contains("_bucket")).collect();
    ensure!(!quantiles.is_empty(), "the dashboard has histograms");
    for query in quantiles {
        let asked = query.replace("$__rate_interval", "10s").replace("$deployment", ".*");
        assert!(!prometheus.query(&asked)?.is_empty(), "nothing answers {query}");
    }
    busy.kill()?;
    busy.wait()?;
    Ok(())
}

/// What the median of stable's values lies between, from a page in text: a quarter of the smallest bound that at least half of
/// them keep, and that bound. The lowest bucket has everything that is shorter.
fn classic_median_s(page: &str, name: &str) -> anyhow::Result<(f64, f64)> {
    let lines = || page.lines().filter(|l| l.starts_with(name) && l.contains("role=\"stable\""));
    let value = |line: &str| line.rsplit(' ').next().and_then(|v| v.parse::<f64>().ok());
    let count = lines().find(|l| l.starts_with(&format!("{name}_count"))).and_then(value).context("a count")?;
    let bound = |line: &str| line.split("le=\"").nth(1)?.split('"').next()?.parse::<f64>().ok();
    let buckets: Vec<&str> = lines().filter(|l| l.starts_with(&format!("{name}_bucket"))).collect();
    let half = buckets.iter().position(|l| value(l).is_some_and(|n| n >= count / 2.0));
    let half = half.context("a bucket with half of all")?;
    let bound_s = bound(buckets[half]).context("its bound")?;
    Ok((if half == 0 { 0.0 } else { bound_s / 4.0 }, bound_s))
}
