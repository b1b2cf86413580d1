//! What a running guard serves: OpenMetrics that a strict reader takes, and `/monitor`.

use std::collections::BTreeSet;

use canary_e2e::{
    Sandbox,
    guard::{Configuration, Guard},
    kernel_available,
    service::{Service, Traffic},
};
use serde_json::Value;

const LABELS: [&str; 14] = [
    "deployment",
    "role",
    "shape",
    "version",
    "indicator",
    "state",
    "mode",
    "kind",
    "action",
    "result",
    "le",
    "hook",
    "holder",
    "peer",
];

struct Watched {
    sandbox: Sandbox,
    _services: Vec<Service>,
    _traffic: Traffic,
    guard: Guard,
}

/// A guard on three instances with traffic, once both roles are measured.
fn watched() -> anyhow::Result<Watched> {
    let sandbox = Sandbox::new()?;
    let service = |name: &str| Service::start(&sandbox, &sandbox.cgroup(name)?);
    let services = ["stable-0", "stable-1", "canary-0"].map(service).into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let addresses: Vec<_> = services.iter().map(|s| s.address).collect();
    let traffic = Traffic::start(&addresses)?;
    let mut guard = Guard::start(&Configuration::shop(&sandbox)?)?;
    guard.until("both are measured, and placebos", |w| {
        let mean = &w["indicators"]["turnaround_mean"];
        mean["stable"].is_number() && mean["canary"].is_number() && w["p"]["stable"].is_number()
    })?;
    Ok(Watched { sandbox, _services: services, _traffic: traffic, guard })
}

#[test]
fn metrics_are_openmetrics_by_version_and_never_by_cgroup() -> anyhow::Result<()> {
    if !kernel_available("metrics_are_openmetrics_by_version_and_never_by_cgroup") {
        return Ok(());
    }
    let watched = watched()?;
    let (head, page) = watched.guard.pages.get("/metrics")?;
    assert!(head.to_lowercase().contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    let series = canary_e2e::openmetrics::parse(&page)?;

    for (role, version, instances) in [("stable", "1.4", 2.0), ("canary", "1.5", 1.0)] {
        let of_version = |name: &str| {
            series.iter().find(|s| {
                let label = |name: &str| s.labels.get(name).map(String::as_str);
                let own = (label("deployment"), label("role"), label("version"));
                s.name == name && own == (Some("shop"), Some(role), Some(version))
            })
        };
        assert_eq!(of_version("canary_targets").map(|s| s.value), Some(instances), "{role}");
        for name in [
            "canary_cpu_usage_seconds_total",
            "canary_memory_in_use_bytes",
            "canary_network_receive_bytes_total",
            "canary_network_transmit_bytes_total",
            "canary_turnaround_seconds_count",
            "canary_process_exits_total",
        ] {
            assert!(of_version(name).is_some(), "{name} of {role} is missing");
        }
        assert!(of_version("canary_network_receive_bytes_total").is_some_and(|s| s.value > 0.0));
    }
    let verdict: Vec<_> = series.iter().filter(|s| s.name == "canary_verdict" && s.value == 1.0).collect();
    assert!(verdict.len() == 1 && verdict[0].labels["state"] == "insufficient_data", "{verdict:?}");

    let names: BTreeSet<&str> = series.iter().flat_map(|s| s.labels.keys().map(String::as_str)).collect();
    assert!(names.iter().all(|name| LABELS.contains(name)), "{names:?}");
    let root = &watched.sandbox.root;
    let ids = ["stable-0", "stable-1", "canary-0"].map(|c| root.id(&format!("{}/{c}", watched.sandbox.base)));
    for (label, value) in series.iter().flat_map(|s| &s.labels) {
        let id = value.parse().ok();
        assert!(!value.contains("canary-e2e") && !value.contains('/'), "a path is in {label}={value:?}");
        assert!(label == "le" || id.is_none() || !ids.contains(&id), "a cgroup's id is in {label}={value:?}");
    }
    assert!(watched.guard.stop()?.success());
    Ok(())
}

#[test]
fn counters_only_grow() -> anyhow::Result<()> {
    if !kernel_available("counters_only_grow") {
        return Ok(());
    }
    let mut watched = watched()?;
    let before = watched.guard.pages.metrics()?;
    for _ in 0..5 {
        watched.guard.next_window()?;
    }
    let after = watched.guard.pages.metrics()?;
    let mut grown = 0;
    for old in before.iter().filter(|s| s.name.ends_with("_total") || s.name.ends_with("_count")) {
        let new = after.iter().find(|s| s.name == old.name && s.labels == old.labels);
        let new = new.unwrap_or_else(|| panic!("{old:?} is gone"));
        assert!(new.value >= old.value, "{old:?} fell to {}", new.value);
        grown += usize::from(new.value > old.value);
    }
    assert!(grown > 10, "only {grown} counters grew in five windows with traffic");
    Ok(())
}

#[test]
fn monitor_has_the_machine_each_version_and_the_verdict() -> anyhow::Result<()> {
    if !kernel_available("monitor_has_the_machine_each_version_and_the_verdict") {
        return Ok(());
    }
    let watched = watched()?;
    let page = watched.guard.pages.monitor()?;
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("not a number: {value} in {page:#}"));

    let machine = &page["machine"];
    assert!((0.0..=1.0).contains(&number(&machine["cpu_usage"])));
    let memory = &machine["memory_usage"];
    assert!(number(&memory["used_bytes"]) > 0.0 && number(&memory["used_bytes"]) < number(&memory["total_bytes"]));
    for direction in ["rx_bytes_per_second", "tx_bytes_per_second"] {
        assert!(number(&machine["network_usage"][direction]) >= 0.0);
    }

    let shop = &page["deployments"]["shop"];
    for (role, version, instances) in [("stable", "1.4", 2), ("canary", "1.5", 1)] {
        let own = watched.guard.pages.version(role)?;
        assert_eq!((&own["version"], &own["instances"]), (&version.into(), &instances.into()), "{own:#}");
        assert!(number(&own["cpu_usage"]) >= 0.0 && number(&own["memory_usage"]) > 0.0, "{own:#}");
        for direction in ["rx_bytes_per_second", "tx_bytes_per_second"] {
            assert!(number(&own["network_usage"][direction]) > 0.0, "{own:#}");
        }
    }
    assert!(number(&shop["p"]["stable"]).abs() < 10.0);
    assert!(shop["p"].as_object().is_some_and(|p| p.contains_key("canary")), "{shop:#}");
    assert_eq!(shop["verdict"], "insufficient_data");
    assert!(shop["reasons"].as_array().is_some_and(|r| !r.is_empty()), "a verdict has its reasons: {shop:#}");
    assert_eq!(shop["mode"], "observe");
    assert!(watched.guard.stop()?.success());
    Ok(())
}
