//! What `[[notify]]` of kind journald tells, read back from a real journald by its fields.

use anyhow::Context as _;
use canary_e2e::{
    Sandbox,
    guard::{Configuration, Guard, PATIENCE, shop},
    machine::Machine,
    wait_until,
};
use canary_user::guard::Stage;
use serde_json::Value;

/// What the machine's journal has with this field.
fn entries(machine: &Machine, field: &str) -> anyhow::Result<Vec<Value>> {
    let said = machine.inside("journalctl", &["--no-pager", "--output", "json", field])?;
    said.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

#[test]
fn a_verdict_and_a_decision_are_found_in_the_journal_by_their_fields() -> anyhow::Result<()> {
    let test = "a_verdict_and_a_decision_are_found_in_the_journal_by_their_fields";
    let Some(machine) = Machine::boot(test)? else { return Ok(()) };
    machine.systemctl(&["start", "systemd-journald.service"])?;
    let sandbox = Sandbox::new()?;
    let (stable, canary) = (sandbox.cgroup("stable")?, sandbox.cgroup("canary")?);
    sandbox.run(&stable, "exec sleep 600")?;
    sandbox.run(&canary, "exec sleep 600")?;
    let text = format!("{}[[notify]]\nkind = \"journald\"\n", shop(&sandbox));
    let configuration = Configuration::new(&text)?;
    // The guard runs on this machine, and finds the journal of the other in the place of this one's.
    let journal = machine.run_dir().join("systemd/journal");
    let there = format!(
        "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal && mount --bind {} /run/systemd/journal && exec \"$0\" \"$@\"",
        journal.display()
    );
    let wrapper = ["unshare", "--mount", "--propagation", "private", "sh", "-c", there.as_str()];
    let mut guard = Guard::start_as(&wrapper, &configuration, &[])?;
    // The first verdict after a start is no change.
    guard.until("a first verdict", |w| w["verdict"] == "insufficient_data")?;
    for _ in 0..2 {
        sandbox.run(&canary, "kill -SEGV $$")?.wait()?;
    }
    configuration.until(Stage::Blocked, "mode", PATIENCE).with_context(|| guard.said())?;

    let told = |field: &'static str| -> anyhow::Result<Value> {
        let mut found = Vec::new();
        wait_until(field, PATIENCE, || {
            found = entries(&machine, field).unwrap_or_default();
            !found.is_empty()
        })
        .with_context(|| guard.said())?;
        Ok(found.remove(0))
    };
    let verdict = told("CANARY_OCCASION=verdict")?;
    let message = verdict["MESSAGE"].as_str().context("a text")?;
    assert!(message.starts_with("shop: canary regressed (was "), "{message}");
    assert_eq!(
        (&verdict["SYSLOG_IDENTIFIER"], &verdict["CANARY_DEPLOYMENT"], &verdict["PRIORITY"]),
        (&"canary".into(), &"shop".into(), &"3".into()),
        "{verdict:#}"
    );
    let blocked = told("CANARY_OCCASION=blocked")?;
    let id = configuration.history().remove(0).decision.id;
    assert_eq!(blocked["CANARY_DECISION"], id.as_str(), "{blocked:#}");
    assert_eq!(blocked["MESSAGE_ID"], verdict["MESSAGE_ID"], "all messages of the guard are found by it");
    assert!(guard.stop()?.success());
    Ok(())
}
