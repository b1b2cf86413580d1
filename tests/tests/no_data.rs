//! Where there is nothing to compare the verdict says so, in words, and condemns nobody.

use canary_e2e::{
    Sandbox,
    guard::{Configuration, Guard, shop},
    kernel_available,
    service::{Service, Traffic},
};
use serde_json::Value;

fn reasons(window: &Value) -> String {
    window["reasons"].to_string()
}

/// Whether what is compared can be true: a division by nearly nothing gives more than any machine has.
fn is_sound(window: &Value) -> bool {
    fn is_small(value: &Value) -> bool {
        match value {
            Value::Number(n) => n.as_f64().is_some_and(|n| n.abs() < 1e13),
            Value::Object(all) => all.values().all(is_small),
            _ => true,
        }
    }
    is_small(&window["indicators"]) && is_small(&window["p"]) && !window.to_string().contains("NaN")
}

#[test]
fn a_canary_that_never_appears_and_then_does() -> anyhow::Result<()> {
    if !kernel_available("a_canary_that_never_appears_and_then_does") {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let stable = Service::start(&sandbox, &sandbox.cgroup("stable-0")?)?;
    let _traffic = Traffic::start(&[stable.address])?;
    let mut guard = Guard::start(&Configuration::shop(&sandbox)?)?;
    let pattern = format!("{}/canary*", sandbox.base);
    for _ in 0..40 {
        let window = guard.next_window()?;
        assert_eq!(window["verdict"], "insufficient_data", "{window:#}");
        assert!(reasons(&window).contains("there is no canary"), "{}", reasons(&window));
        assert_eq!(window["p"]["canary"], Value::Null);
        assert!(is_sound(&window), "{window:#}");
    }
    assert!(guard.said().contains(&pattern), "the pattern that matches nothing is named: {}", guard.said());

    let canary = Service::start(&sandbox, &sandbox.cgroup("canary-0")?)?;
    let _more = Traffic::start(&[canary.address])?;
    let window = guard.until("the canary is measured", |w| {
        w["indicators"]["turnaround_mean"]["canary"].is_number() && !reasons(w).contains("no canary")
    })?;
    assert!(reasons(&window).contains("the canary warms up"), "{}", reasons(&window));
    assert!(guard.stop()?.success());
    Ok(())
}

/// Instances of both with processes in them, traffic on one role only, and a judge that needs little to begin.
fn one_side_without_traffic(test: &str, busy: &str, quiet: &str) -> anyhow::Result<()> {
    if !kernel_available(test) {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let service = |name: &str| Service::start(&sandbox, &sandbox.cgroup(name)?);
    let all = ["stable-0", "stable-1", "canary-0"].map(service).into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let (canary, stable) = all.split_last().expect("three");
    let served: Vec<_> =
        if busy == "canary" { vec![canary.address] } else { stable.iter().map(|s| s.address).collect() };
    let _traffic = Traffic::start(&served)?;
    let judge = "[judge]\nbaseline_windows = 30\nwarmup_windows = 0\n";
    let mut guard = Guard::start(&Configuration::new(&format!("{judge}{}", shop(&sandbox)))?)?;
    let said = format!("no turnaround on {quiet}");
    let mut told = 0;
    for _ in 0..150 {
        let window = guard.next_window()?;
        assert!(!["regressed", "healthy"].iter().any(|v| window["verdict"] == **v), "{window:#}");
        for indicator in ["turnaround_mean", "turnaround_p95", "cpu_per_work", "bytes_per_work"] {
            assert_eq!(window["indicators"][indicator][quiet], Value::Null, "{indicator}: {window:#}");
        }
        assert!(is_sound(&window), "{window:#}");
        told += usize::from(window.to_string().contains(&said));
    }
    assert!(told > 50, "{said:?} was told in {told} of 150 windows: {:#}", guard.next_window()?);
    // The reader of metrics refuses numbers that are not finite.
    guard.pages.metrics()?;
    assert!(guard.stop()?.success());
    Ok(())
}

#[test]
fn stable_without_traffic() -> anyhow::Result<()> {
    one_side_without_traffic("stable_without_traffic", "canary", "stable")
}

#[test]
fn a_canary_without_traffic() -> anyhow::Result<()> {
    one_side_without_traffic("a_canary_without_traffic", "stable", "canary")
}
