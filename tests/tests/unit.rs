//! The unit as who installs it by hand meets it: by the steps of the page, under a real systemd, and each of its directives tried.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use canary_e2e::{
    guard::{PATIENCE, Pages, program},
    machine::Machine,
    wait_until,
};
use serde_json::Value;

const UNIT: &str = "canary-guard.service";
const TEXT: &str = include_str!("../../deploy/canary-guard.service");
/// Of the example configuration.
const LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 9847);
const SERVICE: &str = "[Service]\nExecStart=/bin/sh -c 'while :; do sleep 0.01; done'\n";
/// Directives that the unit names as not set.
const NOT_SET: [&str; 4] = ["ProtectControlGroups=yes", "ProcSubset=pid", "PrivateUsers=yes", "PrivateNetwork=yes"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The page's first block of commands, without the one that builds.
fn documented_steps() -> anyhow::Result<Vec<String>> {
    let page = fs::read_to_string(repository().join("docs/operations.md"))?;
    let (_, section) = page.split_once("\n## Install\n").context("the page says how it is installed")?;
    let indented =
        section.lines().skip_while(|line| !line.starts_with("    ")).take_while(|line| line.starts_with("    "));
    let (build, steps): (Vec<_>, Vec<_>) =
        indented.map(|line| line.trim().to_owned()).partition(|line| line.starts_with("cargo "));
    ensure!(build.len() == 1 && steps.len() > 4, "{build:?} {steps:?}");
    Ok(steps)
}

/// A machine with the repository, in which the guard is built, and with what the example configuration names.
fn machine_with_repository(test: &str) -> anyhow::Result<Option<Machine>> {
    let Some(machine) = Machine::boot(test)? else { return Ok(None) };
    let there = machine.run_dir().join("repository");
    fs::create_dir_all(there.join("target/release"))?;
    run(Command::new("strip").arg("-o").arg(there.join("target/release/canary")).arg(program()))?;
    run(Command::new("cp").arg("-r").arg(repository().join("deploy")).arg(&there))?;
    for service in ["shop-stable-1.service", "shop-canary-1.service"] {
        machine.units(&[(service, SERVICE)])?;
        machine.systemctl(&["start", service])?;
    }
    Ok(Some(machine))
}

/// In its repository, as a person at its shell.
fn at_its_shell(machine: &Machine, line: &str) -> anyhow::Result<String> {
    machine.inside("sh", &["-ec", &format!("cd /run/repository\n{line}")])
}

/// Settings on top of the unit's.
fn drop_in(machine: &Machine, settings: &str) -> anyhow::Result<()> {
    let directory = machine.run_dir().join("systemd/system").join(format!("{UNIT}.d"));
    fs::create_dir_all(&directory)?;
    fs::write(directory.join("test.conf"), format!("[Service]\n{settings}\n"))?;
    machine.systemctl(&["daemon-reload"]).map(drop)
}

fn state(machine: &Machine) -> String {
    machine.systemctl(&["status", UNIT]).unwrap_or_else(|error| format!("{error:#}"))
}

/// Waits until the guard has seen both versions of the configuration's deployment use CPU.
fn watches(machine: &Machine) -> anyhow::Result<()> {
    let counted = |role: &'static str| {
        let version = machine.in_its_network(move || Pages(SocketAddr::from(LISTEN)).version(role));
        version.is_ok_and(|v| v["cpu_usage"].as_f64().is_some_and(|cpus| cpus > 0.0))
    };
    let both = wait_until("both versions use CPU", PATIENCE, || counted("stable") && counted("canary"));
    both.with_context(|| state(machine))
}

#[test]
fn the_steps_of_the_page_install_a_guard_that_watches_acts_and_is_started_anew_when_it_is_stuck() -> anyhow::Result<()>
{
    let test = "the_steps_of_the_page_install_a_guard_that_watches_acts_and_is_started_anew_when_it_is_stuck";
    let Some(machine) = machine_with_repository(test)? else { return Ok(()) };
    for step in documented_steps()? {
        at_its_shell(&machine, &step).with_context(|| step.clone())?;
    }
    assert_eq!(machine.property(UNIT, "UnitFileState")?, "enabled");
    assert_eq!(machine.property(UNIT, "ActiveState")?, "active", "{}", state(&machine));
    assert_eq!(machine.property(UNIT, "StatusText")?, "Windows are coming in", "it was started when it said so");
    watches(&machine)?;

    // Stopped, it gives no sign of life; the unit's own minute is for machines that are slow.
    drop_in(&machine, "WatchdogSec=5")?;
    machine.systemctl(&["restart", UNIT])?;
    let pid = machine.property(UNIT, "MainPID")?;
    machine.inside("kill", &["-STOP", &pid])?;
    let another = || machine.property(UNIT, "MainPID").is_ok_and(|now| now != pid && now != "0");
    wait_until("systemd starts it anew", PATIENCE, another).with_context(|| state(&machine))?;
    watches(&machine)?;

    // With all that the unit takes from it, it still stops the processes of others.
    let acts = "sed -i 's/^mode = .*/mode = \"rollback\"/; s/^orchestrator = .*/orchestrator = \"process\"/' /etc/canary/canary.toml";
    at_its_shell(&machine, acts)?;
    drop_in(&machine, "")?;
    machine.systemctl(&["restart", UNIT])?;
    watches(&machine)?;
    at_its_shell(&machine, "canary rollback shop")?;
    let gone = || machine.property("shop-canary-1.service", "ActiveState").is_ok_and(|state| state != "active");
    wait_until("the canary is stopped", PATIENCE, gone)
        .with_context(|| at_its_shell(&machine, "canary history").unwrap_or_default())?;
    assert_eq!(machine.property("shop-stable-1.service", "ActiveState")?, "active");
    // Its state directory is where it may write.
    let written = || at_its_shell(&machine, "ls /var/lib/canary/reports/shop-*.html").is_ok();
    wait_until("the report is there without being asked for", PATIENCE, written).with_context(|| state(&machine))?;
    Ok(())
}

/// What `canary check` finds under the unit with further settings.
fn found_with(machine: &Machine, name: &str, settings: &str) -> anyhow::Result<Vec<Value>> {
    let output = machine.run_dir().join(format!("{name}.json"));
    let once = TEXT.lines().filter_map(|line| match line.split_once('=').map_or(line, |(key, _)| key) {
        "[Service]" => Some(format!("[Service]\nStandardOutput=file:/run/{name}.json\n{settings}")),
        "Type" => Some("Type=oneshot".to_owned()),
        "ExecStart" => Some("ExecStart=/run/repository/target/release/canary check --output json".to_owned()),
        "Restart" | "RestartSec" | "WatchdogSec" => None,
        _ => Some(line.to_owned()),
    });
    let unit = format!("{name}.service");
    machine.units(&[(&unit, &once.collect::<Vec<_>>().join("\n"))])?;
    // It fails where the guard cannot run: what it said is looked at.
    let _ = machine.systemctl(&["start", &unit]);
    let said = fs::read_to_string(&output).with_context(|| format!("{settings}: it did not run"))?;
    serde_json::from_str(&said).with_context(|| format!("{settings}: {said}"))
}

#[test]
fn what_the_unit_sets_takes_nothing_from_the_guard_and_what_it_does_not_set_would() -> anyhow::Result<()> {
    let test = "what_the_unit_sets_takes_nothing_from_the_guard_and_what_it_does_not_set_would";
    let (_, reasons) = TEXT.split_once("# Not set, because").context("the unit names them")?;
    let named: Vec<&str> = reasons.lines().skip(1).filter_map(|l| l.strip_prefix("# ")?.split(' ').next()).collect();
    assert_eq!(named, NOT_SET.map(|setting| setting.split_once('=').map_or(setting, |(key, _)| key)));

    let Some(machine) = machine_with_repository(test)? else { return Ok(()) };
    let ok = |findings: &[Value]| -> Vec<(String, bool)> {
        findings.iter().map(|f| (f["what"].to_string(), f["ok"] == true)).collect()
    };
    let free = machine.inside("/run/repository/target/release/canary", &["check", "--output", "json"])?;
    let free: Vec<Value> = serde_json::from_str(&free).with_context(|| free.clone())?;
    let set = found_with(&machine, "as-it-is", "")?;
    assert!(free.len() > 10, "{free:?}");
    assert_eq!(ok(&set), ok(&free), "under the unit everything is found that is without it");
    assert_eq!(found_with(&machine, "once-more", "")?, set, "what is found does not change by itself");

    for setting in NOT_SET.iter().filter(|setting| !setting.starts_with("PrivateNetwork")) {
        let name = setting.split_once('=').map_or(*setting, |(key, _)| key).to_lowercase();
        assert_ne!(found_with(&machine, &name, setting)?, set, "{setting} costs nothing: set it");
    }

    // Nothing is lost of what it counts, and nobody hears of it.
    for step in documented_steps()? {
        at_its_shell(&machine, &step).with_context(|| step.clone())?;
    }
    let reached = || machine.in_its_network(|| Ok(TcpStream::connect(SocketAddr::from(LISTEN))?)).is_ok();
    assert!(reached(), "{}", state(&machine));
    drop_in(&machine, "PrivateNetwork=yes")?;
    machine.systemctl(&["restart", UNIT])?;
    assert_eq!(machine.property(UNIT, "ActiveState")?, "active", "{}", state(&machine));
    assert!(!reached(), "PrivateNetwork costs nothing: set it");
    Ok(())
}
