//! What the orchestrator "systemd" does to units of a real systemd, step by step and in which order.

use std::{path::Path, sync::Arc, time::Duration};

use canary_e2e::{
    decided,
    guard::PATIENCE,
    namespace,
    units::{Bench, CANARY, STABLE, TEMPLATE},
    wait_until,
};
use canary_user::{
    config::Config,
    guard::{Action, Decision},
    orchestrator::{Error, Orchestrator as _, State, systemd::Systemd},
    targets::cgroup::Root,
};

/// A refusal, with these words in it.
fn refused<T: std::fmt::Debug>(result: Result<T, Error>, words: &str) {
    match result {
        Err(Error::Refused(why)) => assert!(why.contains(words), "{why}"),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn stable_that_is_down_comes_up_and_settles_before_the_canary_goes() -> anyhow::Result<()> {
    let test = "stable_that_is_down_comes_up_and_settles_before_the_canary_goes";
    let Some(bench) = Bench::new(test, &[], "")? else { return Ok(()) };
    bench.machine.systemctl(&["stop", STABLE])?;
    let decision = bench.decision(Action::Rollback)?;
    let plan = bench.describe(&decision)?;
    assert_eq!(plan.steps.len(), 3, "{:?}", plan.steps);
    assert_eq!(bench.state(&decision)?, State::NotInEffect);
    bench.apply(&decision, &plan)?;
    bench.is(STABLE, "active")?;
    bench.is(CANARY, "inactive")?;
    assert_eq!(bench.state(&decision)?, State::InEffect);
    let settled = bench.moment(CANARY, "Inactive")? - bench.moment(STABLE, "Active")?;
    assert!(settled >= 500_000, "stable had {settled} µs before the canary was stopped");

    bench.undo(&decision, &plan)?;
    bench.is(CANARY, "active")
}

#[test]
fn a_canary_stays_where_stable_does_not_come_up() -> anyhow::Result<()> {
    let test = "a_canary_stays_where_stable_does_not_come_up";
    let Some(bench) = Bench::new(test, &[], "")? else { return Ok(()) };
    bench.machine.systemctl(&["stop", STABLE])?;
    // It starts, and ends before it has settled.
    bench.machine.units(&[(STABLE, "[Service]\nExecStart=/bin/sleep 0.1\n")])?;
    let decision = bench.decision(Action::Rollback)?;
    let plan = bench.describe(&decision)?;
    let failed = bench.apply(&decision, &plan).expect_err("stable does not stay up").to_string();
    assert!(failed.contains("the canary was not stopped"), "{failed}");
    bench.is(CANARY, "active")?;
    // A drain starts nothing: it needs a stable unit that runs.
    refused(bench.describe(&bench.decision(Action::Drain)?), "no stable unit of shop is active");
    refused(bench.describe(&bench.decision(Action::Hold)?), "systemd has no rollout to hold; `canary pause` keeps");
    Ok(())
}

#[test]
fn a_pause_that_begins_while_stable_settles_keeps_the_canary() -> anyhow::Result<()> {
    let test = "a_pause_that_begins_while_stable_settles_keeps_the_canary";
    let Some(bench) = Bench::new(test, &[], "")? else { return Ok(()) };
    bench.machine.systemctl(&["stop", STABLE])?;
    // It is asked for the first time when stable has settled.
    bench.systemd.heed_pauses(Arc::new(|deployment: &str| Some(format!("{deployment} by a test"))));
    let decision = bench.decision(Action::Rollback)?;
    let plan = bench.describe(&decision)?;
    let failed = bench.apply(&decision, &plan).expect_err("it is paused by then").to_string();
    assert!(failed.contains("paused: shop by a test") && failed.contains("was not touched"), "{failed}");
    bench.is(STABLE, "active")?;
    bench.is(CANARY, "active")?;
    // Now there is nothing to be done for stable first.
    let decision = bench.decision(Action::Rollback)?;
    let plan = bench.describe(&decision)?;
    refused(bench.apply(&decision, &plan), "paused: shop by a test");
    bench.is(CANARY, "active")
}

#[test]
fn a_unit_that_was_restarted_since_the_decision_is_not_touched() -> anyhow::Result<()> {
    let test = "a_unit_that_was_restarted_since_the_decision_is_not_touched";
    let Some(bench) = Bench::new(test, &[], "")? else { return Ok(()) };
    let decision = bench.decision(Action::Rollback)?;
    let plan = bench.describe(&decision)?;
    bench.machine.systemctl(&["restart", CANARY])?;
    refused(bench.describe(&decision), "started again since the decision");
    refused(bench.apply(&decision, &plan), "started again since the decision");
    bench.is(CANARY, "active")
}

#[test]
fn a_unit_that_systemd_itself_restarted_is_still_the_one_decided_on() -> anyhow::Result<()> {
    let test = "a_unit_that_systemd_itself_restarted_is_still_the_one_decided_on";
    let again = "[Service]\nExecStart=/bin/sleep infinity\nRestart=always\nRestartSec=0\n";
    let Some(bench) = Bench::new(test, &[(CANARY, again)], "")? else { return Ok(()) };
    let decision = bench.decision(Action::Rollback)?;
    let plan = bench.describe(&decision)?;
    let dies = || -> anyhow::Result<()> {
        let before = bench.machine.property(CANARY, "InvocationID")?;
        bench.machine.systemctl(&["kill", "--signal", "SEGV", CANARY])?;
        wait_until("systemd starts it again", PATIENCE, || {
            bench.machine.property(CANARY, "InvocationID").is_ok_and(|now| now != before)
                && bench.is(CANARY, "active").is_ok()
        })
    };
    dies()?;
    assert_eq!(bench.describe(&decision)?.steps, plan.steps, "it is the same canary");
    // Somebody's own restart sets systemd's count back: whatever runs now, nobody decided on.
    bench.machine.systemctl(&["restart", CANARY])?;
    refused(bench.apply(&decision, &plan), "started again since the decision");
    let decision = bench.decision(Action::Rollback)?;
    let plan = bench.describe(&decision)?;
    dies()?;
    bench.apply(&decision, &plan)?;
    bench.is(CANARY, "inactive")
}

#[test]
fn a_job_of_somebody_else_is_left_alone() -> anyhow::Result<()> {
    let test = "a_job_of_somebody_else_is_left_alone";
    let slow = "[Service]\nExecStart=/bin/sleep infinity\nExecReload=/bin/sleep infinity\n";
    let Some(bench) = Bench::new(test, &[(CANARY, slow)], "")? else { return Ok(()) };
    let decision = bench.decision(Action::Rollback)?;
    let plan = bench.describe(&decision)?;
    bench.machine.systemctl(&["reload", "--no-block", CANARY])?;
    refused(bench.describe(&decision), "is under way: somebody else is acting on it");
    refused(bench.apply(&decision, &plan), "is under way: somebody else is acting on it");
    bench.is(CANARY, "reloading")
}

#[test]
fn work_is_taken_away_by_the_drain_unit_before_the_canary_is_stopped() -> anyhow::Result<()> {
    let test = "work_is_taken_away_by_the_drain_unit_before_the_canary_is_stopped";
    let away = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'systemctl is-active shop@%i.service > /run/away-%i'\n";
    let keys = "drain_unit = \"away@%i.service\"";
    let Some(bench) = Bench::new(test, &[("away@.service", away)], keys)? else { return Ok(()) };
    let decision = bench.decision(Action::Drain)?;
    let plan = bench.describe(&decision)?;
    bench.apply(&decision, &plan)?;
    let found = std::fs::read_to_string(bench.machine.run_dir().join("away-v2"))?;
    assert_eq!(found.trim(), "active", "the canary still ran when its work was taken away");
    bench.is(CANARY, "inactive")
}

#[test]
fn a_drain_unit_that_fails_leaves_the_canary_running() -> anyhow::Result<()> {
    let test = "a_drain_unit_that_fails_leaves_the_canary_running";
    let away = "[Service]\nType=oneshot\nExecStart=/bin/false\n";
    let keys = "drain_unit = \"away.service\"";
    let Some(bench) = Bench::new(test, &[("away.service", away)], keys)? else { return Ok(()) };
    let decision = bench.decision(Action::Drain)?;
    let plan = bench.describe(&decision)?;
    let failed = bench.apply(&decision, &plan).expect_err("the drain unit fails").to_string();
    assert!(failed.contains("ended the start job of away.service as \"failed\""), "{failed}");
    bench.is(CANARY, "active")
}

#[test]
fn the_canarys_own_socket_goes_first_and_comes_back_with_it() -> anyhow::Result<()> {
    let test = "the_canarys_own_socket_goes_first_and_comes_back_with_it";
    let socket = "[Socket]\nListenStream=/run/shop.sock\n";
    let Some(bench) = Bench::new(test, &[], "")? else { return Ok(()) };
    bench.machine.systemctl(&["stop", CANARY])?;
    bench.machine.units(&[("shop@v2.socket", socket)])?;
    bench.machine.systemctl(&["start", "shop@v2.socket"])?;
    bench.machine.systemctl(&["start", CANARY])?;
    let decision = bench.decision(Action::Rollback)?;
    let plan = bench.describe(&decision)?;
    bench.apply(&decision, &plan)?;
    bench.is(CANARY, "inactive")?;
    bench.is("shop@v2.socket", "inactive")?;
    assert!(bench.moment("shop@v2.socket", "Inactive")? <= bench.moment(CANARY, "Inactive")?);
    bench.undo(&decision, &plan)?;
    bench.is("shop@v2.socket", "active")?;
    bench.is(CANARY, "active")
}

#[test]
fn a_trigger_that_appears_while_work_is_taken_away_keeps_the_canary() -> anyhow::Result<()> {
    let test = "a_trigger_that_appears_while_work_is_taken_away_keeps_the_canary";
    let later = format!("[Timer]\nOnActiveSec=1h\nUnit={CANARY}\n");
    let away = "[Service]\nType=oneshot\nExecStart=/bin/systemctl start later.timer\n";
    let keys = "drain_unit = \"away.service\"";
    let Some(bench) = Bench::new(test, &[("later.timer", &later), ("away.service", away)], keys)? else {
        return Ok(());
    };
    let decision = bench.decision(Action::Drain)?;
    let plan = bench.describe(&decision)?;
    let failed = bench.apply(&decision, &plan).expect_err("a timer would start it again").to_string();
    assert!(failed.contains("later.timer would start shop@v2.service again"), "{failed}");
    bench.is(CANARY, "active")
}

#[test]
fn what_needs_the_canary_keeps_it() -> anyhow::Result<()> {
    let test = "what_needs_the_canary_keeps_it";
    let needs = format!("[Unit]\nRequires={CANARY}\n[Service]\nExecStart=/bin/sleep infinity\n");
    let bound = needs.replace("Requires", "BindsTo");
    let Some(bench) = Bench::new(test, &[("needs.service", &needs), ("bound.service", &bound)], "")? else {
        return Ok(());
    };
    for (unit, words) in [("needs.service", "needs.service requires"), ("bound.service", "bound.service is bound to")] {
        bench.machine.systemctl(&["start", unit])?;
        refused(bench.describe(&bench.decision(Action::Rollback)?), words);
        bench.machine.systemctl(&["stop", unit])?;
    }
    bench.is(CANARY, "active")
}

/// Tries `what` on a canary that is quarantined for so long, where it is; it is told whether the kernel limits.
///
/// Without cgroup v2's cpu controller the kernel limits nothing: then its word that there is one is made up, so that all else
/// can be tried.
fn with_quarantine(
    test: &str,
    lasts: &str,
    what: impl FnOnce(&Bench, bool) -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<()> {
    let limited = format!("{TEMPLATE}CPUWeight=50\nCPUQuota=62.5%\n");
    let keys = format!("quarantine = {{ lasts = \"{lasts}\", cpu_weight = 5, cpu_percent = 20 }}");
    let Some(bench) = Bench::new(test, &[(CANARY, &limited)], &keys)? else { return Ok(()) };
    let controllers = bench.root.dir(&bench.machine.cgroup("")).join("cgroup.controllers");
    if std::fs::read_to_string(&controllers)?.split_whitespace().any(|c| c == "cpu") {
        return what(&bench, true);
    }
    refused(bench.describe(&bench.decision(Action::Quarantine)?), "there is no cpu controller in cgroup v2 here");
    namespace::with_other_text(&controllers, "cpu memory\n", move || what(&bench, false))
}

/// CPUWeight and CPUQuotaPerSecUSec of the canary.
fn limits(bench: &Bench) -> anyhow::Result<(String, String)> {
    Ok((bench.machine.property(CANARY, "CPUWeight")?, bench.machine.property(CANARY, "CPUQuotaPerSecUSec")?))
}

/// The same by its unit file.
fn own_limits() -> (String, String) {
    ("50".into(), "625ms".into())
}

#[test]
fn a_quarantine_ends_by_a_timer_of_systemd() -> anyhow::Result<()> {
    with_quarantine("a_quarantine_ends_by_a_timer_of_systemd", "10s", ends_by_a_timer)
}

fn ends_by_a_timer(bench: &Bench, kernel_limits: bool) -> anyhow::Result<()> {
    let limits = || limits(bench);
    let in_kernel = |weight: &str, max: &str| -> anyhow::Result<()> {
        if kernel_limits {
            let dir = bench.root.dir(&bench.machine.cgroup(&bench.machine.property(CANARY, "ControlGroup")?));
            assert_eq!(std::fs::read_to_string(dir.join("cpu.weight"))?.trim(), weight);
            assert_eq!(std::fs::read_to_string(dir.join("cpu.max"))?.trim(), max);
        }
        Ok(())
    };
    let (before, during) = (own_limits(), ("5".into(), "200ms".into()));
    let decision = bench.decision(Action::Quarantine)?;
    let plan = bench.describe(&decision)?;
    bench.apply(&decision, &plan)?;
    assert_eq!(bench.state(&decision)?, State::InEffect);
    assert_eq!(limits()?, during);
    in_kernel("5", "20000 100000")?;
    // Nobody is there to end it but systemd.
    wait_until("the timer gives back what was taken", PATIENCE, || limits().is_ok_and(|now| now == before))?;
    in_kernel("50", "62500 100000")?;
    assert_eq!(bench.state(&decision)?, State::NotInEffect);
    // Until what gave it back is done, it counts as a quarantine that has not ended.
    wait_until("the timer is done", PATIENCE, || bench.is("canary-release-shop-1-0.timer", "inactive").is_ok())?;

    // The second time a person ends it.
    let decision = Decision { id: "shop-2".into(), ..decision };
    let plan = bench.describe(&decision)?;
    bench.apply(&decision, &plan)?;
    assert_eq!(limits()?, during);
    bench.undo(&decision, &plan)?;
    assert_eq!(limits()?, before);
    bench.is(CANARY, "active")
}

#[test]
fn a_quarantine_that_outlives_its_timer_is_in_effect_until_it_is_undone() -> anyhow::Result<()> {
    with_quarantine("a_quarantine_that_outlives_its_timer_is_in_effect_until_it_is_undone", "10m", |bench, _| {
        let decision = bench.decision(Action::Quarantine)?;
        let plan = bench.describe(&decision)?;
        bench.apply(&decision, &plan)?;
        bench.machine.systemctl(&["stop", "canary-release-shop-1-0.timer"])?;
        assert_eq!(bench.state(&decision)?, State::InEffect, "nothing has given back what was taken");
        bench.machine.systemctl(&["restart", CANARY])?;
        assert_eq!(bench.state(&decision)?, State::InEffect, "limits stay over a restart");
        let again = Decision { id: "shop-2".into(), ..bench.decision(Action::Quarantine)? };
        refused(bench.describe(&again), "a quarantine would take nothing");
        bench.undo(&decision, &plan)?;
        assert_eq!(limits(bench)?, own_limits());
        assert_eq!(bench.state(&decision)?, State::NotInEffect);
        bench.is(CANARY, "active")
    })
}

#[test]
fn a_canary_that_is_in_quarantine_is_not_quarantined_again() -> anyhow::Result<()> {
    with_quarantine("a_canary_that_is_in_quarantine_is_not_quarantined_again", "10m", |bench, _| {
        let first = bench.decision(Action::Quarantine)?;
        let plan = bench.describe(&first)?;
        bench.apply(&first, &plan)?;
        bench.machine.systemctl(&["restart", CANARY])?;
        let second = Decision { id: "shop-2".into(), ..bench.decision(Action::Quarantine)? };
        refused(bench.describe(&second), "`systemctl start canary-release-shop-1-0.service` gives back");
        bench.undo(&first, &plan)?;
        let plan = bench.describe(&second)?;
        bench.apply(&second, &plan)?;
        assert_eq!(bench.state(&first)?, State::NotInEffect, "the limits are those of the second one");
        assert_eq!(bench.state(&second)?, State::InEffect);
        bench.undo(&second, &plan)?;
        assert_eq!(limits(bench)?, own_limits());
        Ok(())
    })
}

/// Longer than one look at the unit may take; the job goes on meanwhile.
#[test]
fn a_systemd_that_does_not_answer_for_a_while_is_waited_for() -> anyhow::Result<()> {
    let test = "a_systemd_that_does_not_answer_for_a_while_is_waited_for";
    let slow = "[Service]\nTimeoutStopSec=90\nExecStart=/bin/sh -c \"trap 'touch /run/told; sleep 15; exit 0' TERM; \
                touch /run/ready; while :; do sleep 0.1; done\"\n";
    let Some(bench) = Bench::new(test, &[(CANARY, slow)], "")? else { return Ok(()) };
    let there = |name: &str| bench.machine.run_dir().join(name).exists();
    wait_until("the canary listens for SIGTERM", PATIENCE, || there("ready"))?;
    let decision = bench.decision(Action::Drain)?;
    let plan = bench.describe(&decision)?;
    std::thread::scope(|scope| {
        let frozen = scope.spawn(|| {
            wait_until("its stop job has begun", PATIENCE, || there("told"))?;
            bench.machine.freeze_systemd()?;
            std::thread::sleep(Duration::from_secs(12));
            bench.machine.thaw_systemd()
        });
        let applied = bench.apply(&decision, &plan);
        frozen.join().expect("no panic")?;
        anyhow::Ok(applied?)
    })?;
    bench.is(CANARY, "inactive")
}

#[test]
fn a_systemd_that_cannot_be_reached_is_said() -> anyhow::Result<()> {
    let text = format!(
        "[[deployment]]\nname = \"shop\"\nmode = \"rollback\"\norchestrator = \"systemd\"\n\
         stable = {{ systemd = \"{STABLE}\" }}\ncanary = {{ systemd = \"{CANARY}\" }}\n"
    );
    let test = "a_systemd_that_cannot_be_reached_is_said";
    if !canary_e2e::kernel_available(test) {
        return Ok(());
    }
    let config = Config::parse(&text, "the test")?;
    let nowhere = Path::new(env!("CARGO_MANIFEST_DIR")).join("no-bus-here");
    let bus = format!("unix:path={}", nowhere.display());
    let systemd = Systemd::new(&bus, Root::find()?, &config.deployments[0]);
    let decision = decided::decision(Action::Rollback, Vec::new(), Vec::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    refused(runtime.block_on(systemd.describe(&decision)), "is it there, and may the guard use its bus?");
    Ok(())
}
