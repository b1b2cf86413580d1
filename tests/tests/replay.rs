//! A demo that is recorded, and its recording judged again by `canary replay`: the same verdict, with its exit code.

use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, ensure};
use canary_e2e::{
    Sandbox,
    guard::{Configuration, Guard, PATIENCE},
    kernel_available,
    program::program,
    wait_until,
};
use canary_user::{
    journal::Journal,
    judge::{Earlier, Known, Learned},
    window::Indicator,
};
use serde_json::Value;

fn replay(file: &std::path::Path) -> anyhow::Result<Output> {
    let output = Command::new(program("canary")?).args(["replay", "--output", "json"]).arg(file).output()?;
    ensure!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(output)
}

/// On a terminal, which the program `script` makes; its last argument is where it would keep what it saw.
#[test]
fn a_recording_shows_on_a_terminal_how_far_it_is_and_can_be_judged() -> anyhow::Result<()> {
    let test = "a_recording_shows_on_a_terminal_how_far_it_is_and_can_be_judged";
    if !kernel_available(test) {
        return Ok(());
    }
    if !Command::new("script").arg("--version").output().is_ok_and(|output| output.status.success()) {
        println!("SKIP {test}: there is no script here (apt-get install bsdutils)");
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    for cgroup in ["stable", "canary"] {
        sandbox.run(&sandbox.cgroup(cgroup)?, "exec sleep 600")?;
    }
    let configuration = Configuration::shop(&sandbox)?;
    let recording = configuration.dir.path().join("run.jsonl");
    let (program, file) = (program("canary")?, configuration.file());
    let record = format!("{} record --config {file} --file {}", program.display(), recording.display());
    let command = format!("stty cols 100 rows 24 && exec {record} --duration 2s");
    let script = ["--quiet", "--return", "--command", &command, "/dev/null"];
    let output = Command::new("script").args(script).env("TERM", "xterm").stdin(Stdio::null()).output()?;
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}");
    assert!(shown.contains(" of 20 windows, ") && shown.contains(" windows recorded to "), "{shown}");
    assert_eq!(replay(&recording)?.status.code(), Some(12), "too little to judge by");
    Ok(())
}

#[test]
fn a_recorded_crash_loop_is_judged_again_as_it_was_live() -> anyhow::Result<()> {
    if !kernel_available("a_recorded_crash_loop_is_judged_again_as_it_was_live") {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let recording = dir.path().join("crash.jsonl");
    let live = Command::new(program("canary-demo")?)
        .args(["run", "--scenario", "crash", "--duration", "60s", "--output", "json", "--record"])
        .arg(&recording)
        .output()?;
    let text = String::from_utf8(live.stdout)?;
    let last = text.lines().last().with_context(|| String::from_utf8_lossy(&live.stderr).into_owned())?;
    let live_summary: Value = serde_json::from_str(last)?;
    assert_eq!(live_summary["type"], "summary");
    assert_eq!(live_summary["as_expected"], true, "{}", live_summary["result"]);
    assert_eq!(live.status.code(), Some(0));

    let again = replay(&recording)?;
    assert_eq!(again.status.code(), Some(10));
    let judged: Value = serde_json::from_slice(&again.stdout)?;
    assert_eq!(judged["deployment"], "demo");
    for key in ["outcome", "hard", "onset", "causes", "reasons"] {
        assert_eq!(judged["verdict"][key], live_summary["verdict"][key], "{key}");
    }
    assert_eq!(judged["verdict"]["outcome"], "regressed");
    assert_eq!(judged["verdict"]["causes"][0]["signal"], "crashes");
    assert!(judged["verdict"]["onset"].is_u64());
    assert_eq!(replay(&recording)?.stdout, again.stdout, "the same bytes each time");

    // Its beginning: the canary has come, and still warms up.
    let short = dir.path().join("short.jsonl");
    let text = std::fs::read_to_string(&recording)?;
    let first =
        text.lines().position(|line| line.contains("\"role\":\"canary\"")).context("the canary was recorded")?;
    let head: Vec<&str> = text.lines().take(first + 10).collect();
    std::fs::write(&short, head.join("\n"))?;
    let early = replay(&short)?;
    assert_eq!(early.status.code(), Some(12));
    let judged: Value = serde_json::from_slice(&early.stdout)?;
    assert_eq!(judged["verdict"]["outcome"], "insufficient_data");
    Ok(())
}

/// The verdict rests on what earlier rollouts taught, so that a recording has to bring it along.
#[test]
fn what_was_known_of_a_service_beforehand_is_recorded() -> anyhow::Result<()> {
    if !kernel_available("what_was_known_of_a_service_beforehand_is_recorded") {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    sandbox.cgroup("stable")?;
    let configuration = Configuration::shop(&sandbox)?;
    let known = Known { offset_squares: 0.5, freedom: 2.0, wander: 0.25, noise: 0.125 };
    let known = Earlier([(Indicator::CpuPerWork, known)].into());
    let learned = Learned { instances: vec![("/shop/v1".into(), 1)], known };
    Journal::open(&configuration.journal())?.record_learned("shop", &learned, 1)?;
    let recording = configuration.dir.path().join("run.jsonl");
    let guard = Guard::start_as(&[], &configuration, &["--record", &recording.display().to_string()])?;
    wait_until("a window is recorded", PATIENCE, || {
        std::fs::read_to_string(&recording).is_ok_and(|text| text.lines().count() > 2)
    })?;
    drop(guard);
    let text = std::fs::read_to_string(&recording)?;
    let header: Value = serde_json::from_str(text.lines().next().context("a header")?)?;
    assert_eq!(header["earlier"]["shop"], serde_json::to_value(&learned.known)?);
    assert!(replay(&recording)?.status.code().is_some_and(|code| code >= 10), "it is read");
    let broken = configuration.dir.path().join("broken.jsonl");
    std::fs::write(&broken, text.replace("cpu_per_work", "colour"))?;
    let refused = Command::new(program("canary")?).arg("replay").arg(&broken).output()?;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && said.contains("broken.jsonl:1: what was known of shop"), "{said}");
    Ok(())
}

/// Two instances that do nothing: enough to be compared, and too little to learn from.
#[test]
fn a_service_is_recorded_and_calibrated_in_one_go() -> anyhow::Result<()> {
    if !kernel_available("a_service_is_recorded_and_calibrated_in_one_go") {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    for instance in ["stable-1", "stable-2"] {
        sandbox.cgroup(instance)?;
    }
    let (configuration, scratch) = (Configuration::shop(&sandbox)?, tempfile::tempdir()?);
    let mut command = Command::new(program("canary")?);
    command.args(["calibrate", "--live", "3s", "--output", "json", "--config", &configuration.file()]);
    let output = command.env("TMPDIR", scratch.path()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    let found: Value = serde_json::from_slice(&output.stdout).context("one object, and nothing besides")?;
    assert_eq!((&found["deployment"], &found["comparisons"]), (&"shop".into(), &2.into()), "{found}");
    assert_eq!((&found["instances"], &found["condemned"]), (&2.into(), &0.into()), "{found}");
    assert!(found["windows"].as_u64() > Some(2), "{found}");
    assert!(said.contains("windows recorded to"), "{said}");
    assert_eq!(std::fs::read_dir(scratch.path())?.count(), 0, "the recording is gone");
    Ok(())
}
