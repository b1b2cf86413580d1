//! More instances than slots: those that have none are counted, said and exported; the others are measured and judged.

use canary_common::MAX_SLOTS;
use canary_e2e::{
    Sandbox,
    guard::{Configuration, Guard},
    kernel_available,
    service::{Service, Traffic},
};

const TOO_MANY: u64 = 7;

#[test]
fn instances_beyond_the_slots_are_told_and_the_others_work() -> anyhow::Result<()> {
    if !kernel_available("instances_beyond_the_slots_are_told_and_the_others_work") {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let canary = Service::start(&sandbox, &sandbox.cgroup("canary-0")?)?;
    // With the canary there are TOO_MANY more than slots.
    let stable = (1..MAX_SLOTS as u64 + TOO_MANY)
        .map(|i| sandbox.cgroup(&format!("stable-{i:03}")))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let first = Service::start(&sandbox, &stable[0])?;
    let _traffic = Traffic::start(&[canary.address, first.address])?;
    let mut guard = Guard::start(&Configuration::shop(&sandbox)?)?;

    // The canary has its slot although its name sorts after none of them: without it nothing could be judged.
    let window = guard.until("both are measured", |w| {
        let mean = &w["indicators"]["turnaround_mean"];
        mean["stable"].is_number() && mean["canary"].is_number()
    })?;
    assert_eq!(window["quality"]["targets_without_slot"], TOO_MANY, "{window:#}");
    assert_eq!(window["clean"], true, "what is counted is counted well");
    let warning = format!("{TOO_MANY} instances are not counted");
    assert!(guard.said().contains(&warning) && guard.said().contains("narrow the patterns"), "{}", guard.said());

    let series = guard.pages.metrics()?;
    let value = |name: &str, role: &str| {
        let of_role = |s: &&canary_e2e::openmetrics::Series| s.labels.get("role").is_none_or(|r| r == role);
        series.iter().find(|s| s.name == name && of_role(s)).map(|s| s.value)
    };
    assert_eq!(value("canary_targets_without_slot", ""), Some(TOO_MANY as f64));
    assert_eq!(guard.pages.version("stable")?["instances"], MAX_SLOTS as u64 - 1);

    // Slots that come free go to those who wait.
    for cgroup in stable.iter().rev().take(2 * TOO_MANY as usize) {
        std::fs::remove_dir(sandbox.root.dir(cgroup))?;
    }
    guard.until("all have a slot", |w| w["quality"]["targets_without_slot"] == 0)?;
    let said = guard.said();
    assert_eq!(said.matches("instances are not counted").count(), 1, "told once, not with every look: {said}");
    assert!(said.contains("all instances are counted again"), "{said}");
    assert!(guard.stop()?.success());
    Ok(())
}
