//! The demo on processes of its own, each scenario from its command line to its exit code.
//!
//! A scenario takes up to a minute and a half: `CANARY_DEMO_SCENARIOS=cpu,oom` runs these only. `CANARY_DEMO_ROUNDS=5` runs
//! `cpu` five times more, for the median of how long it takes.

use std::{
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, ensure};
use canary_demo::scenario::Scenario;
use canary_e2e::{kernel_available, program::program};
use canary_user::targets::cgroup::Root;
use clap::ValueEnum as _;
use serde_json::{Value, json};

/// Two demos at a time would be each other's noisy neighbour.
static ALONE: Mutex<()> = Mutex::new(());

/// Exit code and last line of a demo.
fn demo(scenario: Scenario, options: &[&str]) -> anyhow::Result<(Option<i32>, Value)> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let ended = Command::new(program("canary-demo")?)
        .args(["run", "--orchestrator", "process", "--output", "json", "--scenario", &scenario.name()])
        .args(options)
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8(ended.stdout)?;
    let last = said.lines().last().with_context(|| String::from_utf8_lossy(&ended.stderr).into_owned())?;
    let summary: Value = serde_json::from_str(last).with_context(|| last.to_owned())?;
    ensure!(summary["type"] == "summary" && summary["scenario"] == scenario.name(), "{summary}");
    Ok((ended.status.code(), summary))
}

/// Whether the scenario can and is to be run; prints why not otherwise.
fn asked_for(test: &str, scenario: Scenario) -> anyhow::Result<bool> {
    if !kernel_available(test) {
        return Ok(false);
    }
    let Ok(list) = std::env::var("CANARY_DEMO_SCENARIOS") else { return Ok(true) };
    let names: Vec<&str> = list.split(',').map(str::trim).collect();
    for name in &names {
        // A name that is mistyped would leave all of them out.
        ensure!(Scenario::from_str(name, false).is_ok(), "CANARY_DEMO_SCENARIOS={list}: there is no scenario {name:?}");
    }
    let asked = names.contains(&scenario.name().as_str());
    if !asked {
        println!("SKIP {test}: CANARY_DEMO_SCENARIOS={list} leaves {} out", scenario.name());
    }
    Ok(asked)
}

/// The canary goes, by one rollback that is carried out and seen in effect.
fn rolled_back(scenario: Scenario, options: &[&str]) -> anyhow::Result<Value> {
    let (code, summary) = demo(scenario, options)?;
    assert_eq!((code, &summary["as_expected"]), (Some(0), &json!(true)), "{summary:#}");
    assert_eq!((&summary["expected"], &summary["mode"]), (&json!("roll_back"), &json!("rollback")), "{summary:#}");
    let stages = summary["decisions"].as_array().context("decisions are listed")?;
    // Where the machine's other work slows stable down at that moment, too, the rollback waits until it does not.
    let (blocked, carried_out): (Vec<&Value>, Vec<&Value>) =
        stages.iter().partition(|stage| !stage["blocked_by"].is_null());
    assert!(blocked.iter().all(|stage| stage["blocked_by"] == "stable_healthy"), "{summary:#}");
    assert!(!carried_out.is_empty(), "{summary:#}");
    for stage in &carried_out {
        assert_eq!((&stage["id"], &stage["action"]), (&carried_out[0]["id"], &json!("rollback")), "{summary:#}");
    }
    assert!(carried_out.iter().any(|stage| stage["stage"] == "verified"), "{summary:#}");
    Ok(summary)
}

/// `signal` and `mechanism` are what those of the first cause begin with.
fn is_rolled_back(test: &str, scenario: Scenario, signal: &str, mechanism: &str) -> anyhow::Result<()> {
    if !asked_for(test, scenario)? {
        return Ok(());
    }
    has_first_cause(&rolled_back(scenario, &[])?, signal, mechanism);
    Ok(())
}

/// `signal` and `mechanism` are what those of the cause begin with.
fn has_first_cause(summary: &Value, signal: &str, mechanism: &str) {
    let cause = &summary["verdict"]["causes"][0];
    let begins = |key: &str, with: &str| cause[key].as_str().is_some_and(|said| said.starts_with(with));
    assert!(begins("signal", signal) && begins("mechanism", mechanism), "{summary:#}");
}

/// The judge has seen that it is not, or not alone, the version: one of these signs.
fn has_seen(summary: &Value, signs: &[&str]) {
    let mut seen = summary["signs"].as_array().into_iter().flatten().filter_map(Value::as_str);
    assert!(seen.any(|sign| signs.contains(&sign)), "none of {signs:?}: {summary:#}");
}

/// What needs no statistics does not wait for them.
fn is_rolled_back_at_once(test: &str, scenario: Scenario, cause: &str) -> anyhow::Result<()> {
    if !asked_for(test, scenario)? {
        return Ok(());
    }
    let summary = rolled_back(scenario, &[])?;
    let windows = summary["windows_to_drain"].as_f64().with_context(|| format!("it was stopped: {summary:#}"))?;
    println!("{test}: stopped after {windows:.1} windows");
    assert!(windows <= 3.0, "{windows} windows: {summary:#}");
    assert_eq!(summary["verdict"]["causes"][0]["signal"], cause, "{summary:#}");
    Ok(())
}

/// Nothing is decided, and so nothing done. Whether the verdict is "healthy" in the end is not asked: on a busy machine it may
/// still be inconclusive by then, which is no failure of the guard.
fn is_left_alone(scenario: Scenario) -> anyhow::Result<Value> {
    let (code, summary) = demo(scenario, &[])?;
    assert_eq!(summary["expected"], "stay_quiet", "{summary:#}");
    assert_eq!(summary["decisions"], json!([]), "{summary:#}");
    assert_ne!(summary["verdict"]["outcome"], "regressed", "{summary:#}");
    let judged = summary["verdict"]["judged_windows"].as_u64();
    assert!(judged.is_some_and(|windows| windows > 0), "nothing was judged: {summary:#}");
    // The only reason for another exit code.
    let undecided = "the canary is healthy, and the verdict is";
    if code != Some(0) {
        assert!(summary["result"].as_str().is_some_and(|result| result.starts_with(undecided)), "{code:?} {summary:#}");
    }
    Ok(summary)
}

#[test]
fn a_canary_that_takes_more_cpu_is_rolled_back() -> anyhow::Result<()> {
    let test = "a_canary_that_takes_more_cpu_is_rolled_back";
    is_rolled_back(test, Scenario::Cpu, "cpu_per_work", "more work per request")
}

#[test]
fn a_canary_that_outgrows_its_memory_limit_is_rolled_back() -> anyhow::Result<()> {
    // The CPU that reading takes comes first, or the stall: see below for where it is the stall alone.
    let test = "a_canary_that_outgrows_its_memory_limit_is_rolled_back";
    is_rolled_back(test, Scenario::Memory, "", "")
}

#[test]
fn a_canary_whose_working_set_outgrows_its_memory_is_rolled_back() -> anyhow::Result<()> {
    let test = "a_canary_whose_working_set_outgrows_its_memory_is_rolled_back";
    is_rolled_back(test, Scenario::Thrash, "memory_stall", "working set outgrows its memory")
}

#[test]
fn a_canary_that_has_more_memory_in_use_is_rolled_back() -> anyhow::Result<()> {
    let test = "a_canary_that_has_more_memory_in_use_is_rolled_back";
    is_rolled_back(test, Scenario::WorkingSet, "memory_in_use", "larger working set")
}

#[test]
fn a_canary_that_leaks_is_rolled_back() -> anyhow::Result<()> {
    let test = "a_canary_that_leaks_is_rolled_back";
    is_rolled_back(test, Scenario::Leak, "memory_in_use", "grows: leak")
}

#[test]
fn a_canary_that_sends_more_is_rolled_back() -> anyhow::Result<()> {
    let test = "a_canary_that_sends_more_is_rolled_back";
    is_rolled_back(test, Scenario::Network, "bytes_per_work", "larger responses or retries")
}

#[test]
fn a_canary_that_answers_later_is_rolled_back() -> anyhow::Result<()> {
    let test = "a_canary_that_answers_later_is_rolled_back";
    is_rolled_back(test, Scenario::Latency, "turnaround", "waits on something outside")
}

#[test]
fn a_canary_that_its_dependency_answers_later_is_rolled_back() -> anyhow::Result<()> {
    let test = "a_canary_that_its_dependency_answers_later_is_rolled_back";
    is_rolled_back(test, Scenario::Dependency, "dependency_turnaround", "what it depends on answers it later")
}

#[test]
fn a_canary_that_waits_longer_now_and_then_is_rolled_back() -> anyhow::Result<()> {
    let test = "a_canary_that_waits_longer_now_and_then_is_rolled_back";
    is_rolled_back(test, Scenario::Tail, "run_queue_wait_p95", "waits for a CPU for longer now and then")
}

#[test]
fn a_canary_that_answers_later_beside_a_neighbour_is_rolled_back() -> anyhow::Result<()> {
    let test = "a_canary_that_answers_later_beside_a_neighbour_is_rolled_back";
    if !asked_for(test, Scenario::NeighbourAndLatency)? {
        return Ok(());
    }
    let summary = rolled_back(Scenario::NeighbourAndLatency, &[])?;
    has_first_cause(&summary, "turnaround", "waits on something outside");
    has_seen(&summary, &["neighbour", "cpu_pressure"]);
    Ok(())
}

#[test]
fn a_canary_that_resets_connections_is_rolled_back() -> anyhow::Result<()> {
    let test = "a_canary_that_resets_connections_is_rolled_back";
    is_rolled_back(test, Scenario::Errors, "resets_out", "connections broken off")
}

#[test]
fn a_canary_that_answers_with_errors_is_rolled_back() -> anyhow::Result<()> {
    let test = "a_canary_that_answers_with_errors_is_rolled_back";
    is_rolled_back(test, Scenario::ServerErrors, "server_errors", "answers that it failed")
}

#[test]
fn a_canary_that_cannot_reach_what_it_asks_is_rolled_back() -> anyhow::Result<()> {
    let test = "a_canary_that_cannot_reach_what_it_asks_is_rolled_back";
    is_rolled_back(test, Scenario::Unreachable, "connect_failures", "cannot reach what it depends on")
}

#[test]
fn a_canary_whose_packets_are_lost_is_rolled_back() -> anyhow::Result<()> {
    let test = "a_canary_whose_packets_are_lost_is_rolled_back";
    is_rolled_back(test, Scenario::PacketLoss, "retransmits", "packets lost or answered late on the way")
}

#[test]
fn a_canary_whose_helpers_end_with_an_error_is_rolled_back() -> anyhow::Result<()> {
    let test = "a_canary_whose_helpers_end_with_an_error_is_rolled_back";
    is_rolled_back(test, Scenario::Exits, "error_exits", "gives up with an error")
}

#[test]
fn a_canary_that_crashes_is_stopped_within_three_windows() -> anyhow::Result<()> {
    let test = "a_canary_that_crashes_is_stopped_within_three_windows";
    is_rolled_back_at_once(test, Scenario::Crash, "crashes")
}

#[test]
fn a_canary_that_is_killed_for_its_memory_is_stopped_within_three_windows() -> anyhow::Result<()> {
    let test = "a_canary_that_is_killed_for_its_memory_is_stopped_within_three_windows";
    is_rolled_back_at_once(test, Scenario::Oom, "oom_kills")
}

#[test]
fn a_healthy_canary_is_left_alone() -> anyhow::Result<()> {
    if asked_for("a_healthy_canary_is_left_alone", Scenario::Healthy)? {
        is_left_alone(Scenario::Healthy)?;
    }
    Ok(())
}

#[test]
fn a_canary_beside_a_noisy_neighbour_is_left_alone() -> anyhow::Result<()> {
    if asked_for("a_canary_beside_a_noisy_neighbour_is_left_alone", Scenario::NoisyNeighbour)? {
        has_seen(&is_left_alone(Scenario::NoisyNeighbour)?, &["neighbour", "cpu_pressure"]);
    }
    Ok(())
}

#[test]
fn a_canary_that_its_cpu_limit_holds_back_is_left_alone() -> anyhow::Result<()> {
    let test = "a_canary_that_its_cpu_limit_holds_back_is_left_alone";
    if !asked_for(test, Scenario::Quota)? {
        return Ok(());
    }
    let offered = std::fs::read_to_string(Root::find()?.path().join("cgroup.controllers"))?;
    if !offered.split_whitespace().any(|offer| offer == "cpu") {
        println!("SKIP {test}: cgroup v2 has no cpu controller here");
        return Ok(());
    }
    let summary = is_left_alone(Scenario::Quota)?;
    has_seen(&summary, &["throttled"]);
    assert_eq!(summary["held"], true, "it would have been condemned for its waits: {summary:#}");
    Ok(())
}

#[test]
fn a_canary_that_takes_twice_the_cpu_is_stopped_within_40_windows() -> anyhow::Result<()> {
    let test = "a_canary_that_takes_twice_the_cpu_is_stopped_within_40_windows";
    if !kernel_available(test) {
        return Ok(());
    }
    let Ok(rounds) = std::env::var("CANARY_DEMO_ROUNDS") else {
        println!("SKIP {test}: it takes a minute a round; CANARY_DEMO_ROUNDS=5 runs five");
        return Ok(());
    };
    let rounds: usize = rounds.parse().with_context(|| format!("CANARY_DEMO_ROUNDS={rounds} is no number"))?;
    ensure!(rounds > 0, "CANARY_DEMO_ROUNDS=0 would show nothing");
    let mut all_windows = Vec::new();
    for _ in 0..rounds {
        let summary = rolled_back(Scenario::Cpu, &["--severity", "2x"])?;
        all_windows.push(summary["windows_to_drain"].as_f64().with_context(|| format!("stopped: {summary:#}"))?);
    }
    all_windows.sort_by(f64::total_cmp);
    println!("{test}: {all_windows:.1?}");
    assert!(all_windows[rounds / 2] <= 40.0, "{all_windows:?}");
    Ok(())
}
