//! The demo on a real systemd and on a real Docker, from its command line to its exit code, and what it leaves there: nothing.

use std::process::Command;

use anyhow::{Context as _, ensure};
use canary_e2e::{
    guard::PATIENCE,
    kernel_available,
    machine::{Engine, Machine},
    program::program,
    wait_until,
};
use serde_json::Value;

/// Slower than the demo's own rate: the machine may have other tests to run.
const RATE: &str = "150";

/// The demo in the machine; its last line.
fn demo(machine: &Machine, arguments: &[&str]) -> anyhow::Result<Value> {
    let demo = machine.place(&program("canary-demo")?)?;
    let words = [&["run", "--instances", "2", "--rate", RATE, "--output", "json"][..], arguments].concat();
    let said = machine.inside(&demo, &words)?;
    let last = said.lines().last().context("it says something")?;
    let summary: Value = serde_json::from_str(last).with_context(|| last.to_owned())?;
    ensure!(summary["type"] == "summary", "{summary}");
    Ok(summary)
}

fn names(summary: &Value) -> Vec<&str> {
    summary["instances"].as_array().into_iter().flatten().filter_map(|i| i["name"].as_str()).collect()
}

/// Requests that failed, of all instances.
fn failed(summary: &Value) -> u64 {
    let phases =
        summary["load"].as_array().into_iter().flatten().flat_map(|i| i["phases"].as_array().into_iter().flatten());
    phases.map(|phase| phase["failed"].as_u64().expect("a count")).sum()
}

/// What was found when the action was verified.
fn verified(summary: &Value) -> &str {
    let decisions = summary["decisions"].as_array().into_iter().flatten();
    decisions.filter(|d| d["stage"] == "verified").find_map(|d| d["detail"].as_str()).unwrap_or_default()
}

/// Starts the demo, and ends it by a signal once `serves`, a command of the shell, succeeds; tells its exit code.
fn ended_by(signal: &str, machine: &Machine, orchestrator: &str, serves: &str) -> anyhow::Result<i32> {
    let demo = machine.place(&program("canary-demo")?)?;
    let run = format!(
        "{demo} run --orchestrator {orchestrator} --rate {RATE} --output json >/run/said & pid=$!; \
         until {serves} >/dev/null; do kill -0 $pid || exit 1; sleep 0.1; done; \
         kill -{signal} $pid; wait $pid; echo $?"
    );
    let said = machine.inside("bash", &["-c", &run])?;
    said.trim().parse().with_context(|| said.clone())
}

fn nothing_is_left(machine: &Machine) -> anyhow::Result<()> {
    let units = machine.systemctl(&["list-units", "--all", "--no-legend", "--plain", "canary-demo-*"])?;
    assert_eq!(units.trim(), "", "units");
    let files =
        "ls -d /run/canary-demo /run/systemd/system/canary-demo-* /sys/fs/cgroup/canary-demo-* 2>/dev/null || true";
    assert_eq!(machine.inside("sh", &["-c", files])?.trim(), "", "files and cgroups");
    Ok(())
}

fn nothing_is_left_on_docker(machine: &Machine) -> anyhow::Result<()> {
    assert_eq!(machine.docker(&["ps", "--all", "--quiet"])?.trim(), "", "containers");
    assert_eq!(machine.docker(&["images", "--quiet"])?.trim(), "", "images");
    nothing_is_left(machine)
}

#[test]
fn the_demo_on_systemd_takes_the_canary_away_without_a_failed_request() -> anyhow::Result<()> {
    let Some(machine) = Machine::boot("the_demo_on_systemd_takes_the_canary_away_without_a_failed_request")? else {
        return Ok(());
    };
    let summary = demo(&machine, &["--orchestrator", "systemd", "--scenario", "network", "--severity", "3x"])?;
    assert_eq!((&summary["orchestrator"], &summary["as_expected"]), (&"systemd".into(), &true.into()), "{summary:#}");
    assert_eq!(
        names(&summary),
        ["canary-demo-v1-1.service", "canary-demo-v1-2.service", "canary-demo-v2-1.service"],
        "{summary:#}"
    );
    assert!(
        verified(&summary).contains("systemd finds it in effect: canary-demo-v2-1.service is inactive"),
        "{summary:#}"
    );
    // The canary serves on while the load learns that it goes.
    assert_eq!(failed(&summary), 0, "{summary:#}");
    nothing_is_left(&machine)
}

#[test]
fn the_demo_on_docker_stops_the_container_of_a_canary_that_crashes() -> anyhow::Result<()> {
    let test = "the_demo_on_docker_stops_the_container_of_a_canary_that_crashes";
    let Some(machine) = Machine::boot_with(Engine::Docker, test)? else { return Ok(()) };
    let summary = demo(&machine, &["--orchestrator", "docker", "--scenario", "crash"])?;
    assert_eq!((&summary["orchestrator"], &summary["as_expected"]), (&"docker".into(), &true.into()), "{summary:#}");
    assert_eq!(names(&summary), ["canary-demo-v1-1", "canary-demo-v1-2", "canary-demo-v2-1"], "{summary:#}");
    assert!(verified(&summary).contains("docker finds it in effect: canary-demo-v2-1 is exited"), "{summary:#}");
    nothing_is_left_on_docker(&machine)
}

#[test]
fn the_demo_on_docker_drains_a_canary_that_sends_more() -> anyhow::Result<()> {
    let test = "the_demo_on_docker_drains_a_canary_that_sends_more";
    let Some(machine) = Machine::boot_with(Engine::Docker, test)? else { return Ok(()) };
    let options = ["--orchestrator", "docker", "--scenario", "network", "--severity", "3x", "--mode", "drain"];
    let summary = demo(&machine, &options)?;
    assert_eq!((&summary["mode"], &summary["as_expected"]), (&"drain".into(), &true.into()), "{summary:#}");
    assert!(verified(&summary).contains("docker finds it in effect: canary-demo-v2-1 is exited"), "{summary:#}");
    nothing_is_left_on_docker(&machine)
}

#[test]
fn a_killed_demo_leaves_no_unit_running_and_what_it_left_goes_with_the_next() -> anyhow::Result<()> {
    let test = "a_killed_demo_leaves_no_unit_running_and_what_it_left_goes_with_the_next";
    let Some(machine) = Machine::boot(test)? else { return Ok(()) };
    let serves = "systemctl is-active canary-demo-v1-3.service";
    assert_eq!(ended_by("KILL", &machine, "systemd", serves)?, 137);
    for number in [1, 2, 3] {
        let unit = format!("canary-demo-v1-{number}.service");
        let ended = || machine.property(&unit, "ActiveState").is_ok_and(|state| state == "inactive");
        wait_until("an instance ends after its demo", PATIENCE, ended)?;
    }
    assert_eq!(ended_by("INT", &machine, "systemd", serves)?, 1, "an interrupted run is no success");
    nothing_is_left(&machine)
}

#[test]
fn a_killed_demo_leaves_no_container_running_and_what_it_left_goes_with_the_next() -> anyhow::Result<()> {
    let test = "a_killed_demo_leaves_no_container_running_and_what_it_left_goes_with_the_next";
    let Some(machine) = Machine::boot_with(Engine::Docker, test)? else { return Ok(()) };
    let serves = "docker inspect canary-demo-v1-3";
    assert_eq!(ended_by("KILL", &machine, "docker", serves)?, 137);
    let ended = || machine.docker(&["ps", "--quiet"]).is_ok_and(|running| running.trim().is_empty());
    wait_until("the instances end after their demo", PATIENCE, ended)?;
    assert_eq!(ended_by("INT", &machine, "docker", serves)?, 1, "an interrupted run is no success");
    nothing_is_left_on_docker(&machine)
}

#[test]
fn without_a_systemd_or_a_docker_the_demo_says_what_to_do() -> anyhow::Result<()> {
    if !kernel_available("without_a_systemd_or_a_docker_the_demo_says_what_to_do") {
        return Ok(());
    }
    for arguments in [
        ["--orchestrator", "systemd", "--systemd-bus", "unix:path=/nowhere"],
        ["--orchestrator", "docker", "--docker-socket", "/nowhere"],
    ] {
        let ended = Command::new(program("canary-demo")?).arg("run").args(arguments).output()?;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert!(said.contains("apt-get install") && said.contains("--orchestrator process"), "{said}");
    }
    Ok(())
}
