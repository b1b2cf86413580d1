//! `canary run` on a real systemd: units found and followed, a canary that crashes stopped by a job, refusals.

use std::{fs, path::Path};

use anyhow::{Context as _, ensure};
use canary_e2e::{
    guard::{Configuration, Guard, PATIENCE, canary},
    machine::Machine,
    wait_until,
};
use canary_user::{
    guard::Stage::{self, *},
    journal::HistoryEntry,
};

/// Both versions: a process that ends on SIGTERM, whose children crash once it is told so.
const TEMPLATE: &str =
    "[Service]\nExecStartPre=/bin/mkdir -p /run/shop/%i\nExecStart=/run/bin/victim end /run/shop/%i\n";
const CANARY: &str = "shop@v2.service";
/// A canary that is started again after each crash, and crashes at once from when it is told so.
const FRAGILE: &str = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nRestart=always\nRestartSec=200ms\n\
    ExecStartPre=/bin/mkdir -p /run/shop/v2\n\
    ExecStart=/bin/sh -c 'echo >> /run/shop/v2/lives; touch /run/shop/v2/ready; until [ -e /run/shop/v2/crash ]; do sleep 0.05; done; \
    kill -SEGV $$$$'\n";

/// A machine in which both versions run and a guard that may roll back; the canary is told to crash by `crash`.
struct Shop {
    machine: Machine,
    configuration: Configuration,
    guard: Guard,
}

impl Shop {
    /// `extra` are unit files besides the template, `keys` lines of the deployment. Both versions run and are found.
    fn open(test: &str, extra: &[(&str, &str)], keys: &str) -> anyhow::Result<Option<Self>> {
        let Some(shop) = Self::boot(test, extra, keys, &["v1", "v2"])? else { return Ok(None) };
        let found = |role| shop.guard.pages.version(role).is_ok_and(|version| !version.is_null());
        let both =
            wait_until("both versions are found by their units", PATIENCE, || found("stable") && found("canary"));
        both.with_context(|| shop.guard.said())?;
        Ok(Some(shop))
    }

    /// The same, with only the versions in `ready` waited for.
    fn boot(test: &str, extra: &[(&str, &str)], keys: &str, ready: &[&str]) -> anyhow::Result<Option<Self>> {
        let Some(machine) = Machine::boot(test)? else { return Ok(None) };
        machine.place(Path::new(env!("CARGO_BIN_EXE_victim")))?;
        machine.units(&[("shop@.service", TEMPLATE)])?;
        machine.units(extra)?;
        // A socket can only be opened before what it starts.
        for (socket, _) in extra.iter().filter(|(name, _)| name.ends_with(".socket")) {
            machine.systemctl(&["start", socket])?;
        }
        machine.systemctl(&["start", "shop@v1.service"])?;
        machine.systemctl(&["start", "--no-block", CANARY])?;
        let configuration = Configuration::new(&format!(
            "systemd_bus = \"{}\"\n[[deployment]]\nname = \"shop\"\nmode = \"rollback\"\norchestrator = \"systemd\"\nsettle = \"1s\"\n\
             budget = {{ per_hour = 60, cooldown = \"0s\" }}\n{keys}\
             stable = {{ systemd = \"shop@v1*.service\" }}\ncanary = {{ systemd = \"shop@v2*.service\" }}\n",
            machine.bus()
        ))?;
        for version in ready {
            let ready = machine.run_dir().join("shop").join(version).join("ready");
            wait_until("the service listens for SIGTERM", PATIENCE, || ready.exists())?;
        }
        let guard = Guard::start(&configuration)?;
        Ok(Some(Self { machine, configuration, guard }))
    }

    fn until(&self, stage: Stage, words: &str) -> anyhow::Result<()> {
        self.configuration.until(stage, words, PATIENCE).with_context(|| self.guard.said())
    }

    /// The decision that was carried out.
    fn entry(&self) -> anyhow::Result<HistoryEntry> {
        let carried_out = |e: &HistoryEntry| e.stages.iter().any(|s| s.stage == Applied);
        self.configuration.history().into_iter().find(carried_out).context("a decision was carried out")
    }

    fn approve(&self, id: &str) -> anyhow::Result<()> {
        let socket = self.configuration.dir.path().join("canary.sock");
        let output = canary(&[]).args(["approve", id]).env("CANARY_SOCKET", socket).output()?;
        ensure!(output.status.success(), "canary approve {id}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn crash(&self) -> anyhow::Result<()> {
        fs::write(self.machine.run_dir().join("shop/v2/crash"), "").context("tell the canary to crash its children")
    }
}

#[test]
fn a_canary_that_crashes_is_stopped_by_a_job_and_its_return_is_noticed() -> anyhow::Result<()> {
    let test = "a_canary_that_crashes_is_stopped_by_a_job_and_its_return_is_noticed";
    let Some(shop) = Shop::open(test, &[], "")? else { return Ok(()) };
    let run = shop.machine.property(CANARY, "InvocationID")?;
    shop.crash()?;
    shop.until(Verified, "")?;
    let entry = shop.entry()?;
    let stages: Vec<Stage> = entry.stages.iter().map(|s| s.stage).collect();
    assert!(stages.starts_with(&[Planned, Applying, Applied, Verified]), "{stages:?}");
    let identity = entry.decision.canary[0].identity.clone().context("the canary is known by its unit")?;
    assert_eq!((&*identity.name, &*identity.run), (CANARY, run.as_str()));
    assert_eq!(entry.plan.steps.len(), 1, "stable runs, nothing is to be started: {:?}", entry.plan.steps);
    assert_eq!(entry.plan.inverse.as_deref(), Some("systemctl start shop@v2.service"));
    assert_eq!(shop.machine.property(CANARY, "ActiveState")?, "inactive");
    assert_eq!(shop.machine.property("shop@v1.service", "ActiveState")?, "active");
    let terms = fs::read_to_string(shop.machine.run_dir().join("shop/v2/terms")).unwrap_or_default();
    assert_eq!(terms.lines().count(), 1, "one SIGTERM, from systemd");

    shop.machine.systemctl(&["start", CANARY])?;
    shop.until(Reverted, "the canary is back")?;
    assert_eq!(shop.machine.property(CANARY, "ActiveState")?, "active", "nobody is fought");
    Ok(())
}

/// Each run of it has another invocation and another cgroup, and most end before anybody can look.
#[test]
fn a_canary_that_systemd_starts_again_after_each_crash_is_stopped() -> anyhow::Result<()> {
    let test = "a_canary_that_systemd_starts_again_after_each_crash_is_stopped";
    let Some(shop) = Shop::open(test, &[(CANARY, FRAGILE)], "")? else { return Ok(()) };
    shop.crash()?;
    shop.until(Verified, "")?;
    let lives = fs::read_to_string(shop.machine.run_dir().join("shop/v2/lives"))?;
    assert!(lives.lines().count() > 1, "systemd has started it again");
    assert!(matches!(&*shop.machine.property(CANARY, "ActiveState")?, "inactive" | "failed"));
    assert_eq!(shop.machine.property("shop@v1.service", "ActiveState")?, "active");
    Ok(())
}

/// What was decided on is runs behind by the time somebody says yes.
#[test]
fn a_crash_loop_is_stopped_once_a_person_approves() -> anyhow::Result<()> {
    let test = "a_crash_loop_is_stopped_once_a_person_approves";
    let Some(shop) = Shop::open(test, &[(CANARY, FRAGILE)], "approval = \"required\"\n")? else { return Ok(()) };
    shop.crash()?;
    shop.until(Planned, "")?;
    let waiting = shop.configuration.history().remove(0).decision;
    let decided_on = waiting.canary[0].identity.clone().context("the canary is known by its unit")?.run;
    wait_until("systemd starts it again", PATIENCE, || {
        shop.machine.property(CANARY, "InvocationID").is_ok_and(|run| !run.is_empty() && *run != *decided_on)
    })?;
    assert!(
        shop.configuration.history().iter().all(|e| e.stages.iter().all(|s| s.stage != Applying)),
        "nobody said yes"
    );
    shop.approve(&waiting.id).with_context(|| shop.guard.said())?;
    shop.until(Verified, "")?;
    let entry = shop.entry()?;
    let stages: Vec<Stage> = entry.stages.iter().map(|s| s.stage).collect();
    assert!(stages.starts_with(&[Planned, Approved, Applying, Applied, Verified]), "{stages:?}");
    assert!(matches!(&*shop.machine.property(CANARY, "ActiveState")?, "inactive" | "failed"));
    assert_eq!(shop.machine.property("shop@v1.service", "ActiveState")?, "active");
    Ok(())
}

/// It never runs for long enough to be found running: systemd says where it will be started again.
#[test]
fn a_canary_that_crashes_at_every_start_is_stopped_though_it_was_never_seen() -> anyhow::Result<()> {
    let test = "a_canary_that_crashes_at_every_start_is_stopped_though_it_was_never_seen";
    let broken = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nRestart=always\nRestartSec=300ms\n\
                  ExecStart=/bin/sh -c 'kill -SEGV $$$$'\n";
    let Some(shop) = Shop::boot(test, &[(CANARY, broken)], "", &["v1"])? else { return Ok(()) };
    shop.until(Verified, "")?;
    assert!(matches!(&*shop.machine.property(CANARY, "ActiveState")?, "inactive" | "failed"));
    assert_eq!(shop.machine.property("shop@v1.service", "ActiveState")?, "active");
    Ok(())
}

/// The first decision is recorded as blocked, with these words, and the canary runs on.
fn refuses(shop: &Shop, words: &str) -> anyhow::Result<()> {
    shop.crash()?;
    shop.until(Blocked, words)?;
    assert_eq!(shop.machine.property(CANARY, "ActiveState")?, "active");
    Ok(())
}

#[test]
fn a_canary_that_a_foreign_socket_would_start_again_is_refused() -> anyhow::Result<()> {
    let socket = "[Socket]\nListenStream=/run/door.sock\nService=shop@v2.service\n";
    let test = "a_canary_that_a_foreign_socket_would_start_again_is_refused";
    let Some(shop) = Shop::open(test, &[("door.socket", socket)], "")? else { return Ok(()) };
    refuses(&shop, "door.socket would start shop@v2.service again")
}

#[test]
fn a_canary_that_is_upheld_is_refused() -> anyhow::Result<()> {
    let keeper = "[Unit]\nUpholds=shop@v2.service\n[Service]\nExecStart=/bin/sleep infinity\n";
    let Some(shop) = Shop::open("a_canary_that_is_upheld_is_refused", &[("keeper.service", keeper)], "")? else {
        return Ok(());
    };
    shop.machine.systemctl(&["start", "keeper.service"])?;
    refuses(&shop, "keeper.service upholds shop@v2.service")
}

#[test]
fn a_canary_that_refuses_manual_stops_is_refused() -> anyhow::Result<()> {
    let stubborn = format!("[Unit]\nRefuseManualStop=yes\n{TEMPLATE}");
    let test = "a_canary_that_refuses_manual_stops_is_refused";
    let Some(shop) = Shop::open(test, &[("shop@v2.service", &stubborn)], "")? else { return Ok(()) };
    refuses(&shop, "RefuseManualStop=yes")
}
