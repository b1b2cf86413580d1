//! The verbs against a running guard on real cgroups: a pause over a restart, the status, a rollback that a person wants,
//! and its story; and the same over HTTP.

use std::{fs::Permissions, os::unix::fs::PermissionsExt as _, process::Command};

use anyhow::{Context as _, ensure};
use canary_e2e::{
    Sandbox,
    guard::{Configuration, Guard, TOKEN},
    guarded::Guarded,
    kernel_available,
    program::program,
};
use canary_user::guard::Stage::*;
use serde_json::{Value, json};

/// What a verb prints, and whether it was granted.
fn verb(guarded: &Guarded, words: &[&str]) -> anyhow::Result<(bool, String)> {
    let mut command = Command::new(program("canary")?);
    command.args(words).env("CANARY_SOCKET", guarded.file("canary.sock"));
    let output = command.output()?;
    let both = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    Ok((output.status.success(), both.concat()))
}

fn granted(guarded: &Guarded, words: &[&str]) -> anyhow::Result<String> {
    let (granted, said) = verb(guarded, words)?;
    ensure!(granted, "canary {}: {said}", words.join(" "));
    Ok(said)
}

#[test]
fn a_person_pauses_looks_and_rolls_back() -> anyhow::Result<()> {
    if !kernel_available("a_person_pauses_looks_and_rolls_back") {
        return Ok(());
    }
    let mut guarded = Guarded::new(env!("CARGO_BIN_EXE_victim"), "end")?;
    let life = guarded.start()?;
    life.sees(3)?;
    let said = granted(&guarded, &["pause", "--for", "1h", "--reason", "a look first"])?;
    assert!(said.starts_with("Paused all deployments by root until ") && said.contains(": a look first"), "{said}");
    let (done, said) = verb(&guarded, &["pause", "tset"])?;
    assert!(!done && said.contains("did you mean 'test'?"), "{said}");
    drop(life);

    // The crash loop would be acted on, were it not for the pause that the next life finds in the journal.
    guarded.crash()?;
    let life = guarded.start()?;
    life.condemns_again(10)?;
    assert_eq!(guarded.stages(), [[Blocked]]);
    let status: Value = serde_json::from_str(&granted(&guarded, &["status", "--output", "json"])?)?;
    assert!(status["paused"].as_str().is_some_and(|why| why.contains("a look first")), "{status}");
    assert_eq!(status["deployments"][0]["verdict"], "regressed");
    assert_eq!(status["deployments"][0]["blocked_by"][0]["gate"], "pause");
    assert_eq!(status["deployments"][0]["next"]["what"], "Resume the guard, or take the canary back", "{status:#}");
    let (done, said) = verb(&guarded, &["rollback", "test"])?;
    assert!(!done && said.contains("pause: paused: by root"), "{said}");
    assert_eq!(guarded.terms(), 0);

    let said = granted(&guarded, &["resume"])?;
    assert!(said.starts_with("Resumed all deployments"), "{said}");
    guarded.until(Verified)?;
    assert_eq!(guarded.terms(), 1);
    assert!(!guarded.lives()?);
    let id = guarded.history().remove(0).decision.id;
    let journal = guarded.file("journal.db").display().to_string();
    let story = granted(&guarded, &["explain", &id, "--journal", &journal])?;
    for part in ["Because", "passed  pause", "Plan (process)", "Way back", "verified"] {
        assert!(story.contains(part), "no {part:?} in:\n{story}");
    }
    let (done, said) = verb(&guarded, &["undo", &id])?;
    assert!(!done && said.contains("process cannot undo") && said.contains("the way back: start version"), "{said}");
    Ok(())
}

#[test]
fn a_person_takes_a_canary_away_that_is_not_condemned() -> anyhow::Result<()> {
    if !kernel_available("a_person_takes_a_canary_away_that_is_not_condemned") {
        return Ok(());
    }
    let mut guarded = Guarded::new(env!("CARGO_BIN_EXE_victim"), "end")?;
    let life = guarded.start()?;
    life.sees(3)?;
    let (done, said) = verb(&guarded, &["hold", "test"])?;
    let instead = "`canary pause` keeps the guard from acting, `canary rollback` takes it away";
    assert!(!done && said.contains(&format!("a canary of process has no rollout to hold; {instead}")), "{said}");
    let said = granted(&guarded, &["rollback", "test", "--reason", "wrong prices"])?;
    assert!(said.starts_with("Rolling back test as decision test-"), "{said}");
    guarded.until(Verified)?;
    assert_eq!((guarded.terms(), guarded.lives()?), (1, false));
    let decision = guarded.history().pop().context("a decision")?.decision;
    assert_eq!(decision.reason, "asked for by root: wrong prices");
    Ok(())
}

#[test]
fn over_http_the_token_opens_what_a_person_may_do() -> anyhow::Result<()> {
    if !kernel_available("over_http_the_token_opens_what_a_person_may_do") {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let sleeper = |name: &str| sandbox.run(&sandbox.cgroup(name)?, "exec sleep 600");
    let (_stable, mut canary) = (sleeper("stable-0")?, sleeper("canary-0")?);
    let mut guard = Guard::start(&Configuration::shop_with_token(&sandbox)?)?;
    guard.until("a window", |_| true)?;
    let pages = guard.pages;
    let token = format!("Authorization: Bearer {TOKEN}\r\n");
    let post = |path: &str, body: &str| pages.post(path, &token, body);
    let state = || -> anyhow::Result<Value> { Ok(serde_json::from_str(&pages.get("/api/v1/deployments")?.1)?) };

    for headers in ["", "Authorization: Bearer the-token-of-somebody-else\r\n"] {
        let (code, refusal) = pages.post("/api/v1/pause", headers, "")?;
        assert_eq!((code, &refusal["kind"]), (401, &json!("unauthenticated")), "{refusal}");
    }
    assert_eq!(state()?["paused"], Value::Null);
    let (code, said) = post("/api/v1/pause", r#"{"for": "1h", "reason": "a look first"}"#)?;
    assert!(code == 200 && said["said"].as_str().is_some_and(|s| s.starts_with("Paused all deployments")), "{said}");
    guard.until("the pause in a window", |_| state().is_ok_and(|s| s["paused"].is_string()))?;
    let (code, refusal) = post("/api/v1/rollback/shop", "")?;
    assert!(code == 409 && refusal["error"].as_str().is_some_and(|e| e.starts_with("pause: ")), "{refusal}");
    let (code, refusal) = post("/api/v1/pause", r#"{"for": "soon"}"#)?;
    assert_eq!((code, &refusal["kind"]), (400, &json!("invalid")));
    let (code, _) = post("/api/v1/resume", "")?;
    assert_eq!(code, 200);

    let (code, refusal) = pages.get_as("/api/v1/status", "")?;
    assert_eq!((code, &refusal["kind"]), (401, &json!("unauthenticated")), "{refusal}");
    let (code, status) = pages.get_as("/api/v1/status", &token)?;
    let gate = &status["deployments"][0]["blocked_by"][0]["gate"];
    assert_eq!((code, gate), (200, &json!("mode")), "the only place on the port that says what blocks: {status:#}");
    let (code, history) = pages.get_as("/api/v1/history?limit=5", &token)?;
    let asked = history["commands"].as_array().context("the commands")?;
    assert!(code == 200 && asked.iter().any(|c| c["command"]["command"] == "pause"), "{history:#}");

    // The orchestrator is the dry run: all that a rollback does is told, and nothing is done.
    let (code, said) = post("/api/v1/rollback/shop", r#"{"reason": "wrong prices"}"#)?;
    assert!(code == 200, "{said}");
    let decisions = || -> anyhow::Result<Value> { Ok(serde_json::from_str(&pages.get("/api/v1/decisions")?.1)?) };
    guard.until("the decision", |_| decisions().is_ok_and(|d| d[0]["stages"][1].is_object()))?;
    let decision = &decisions()?[0];
    assert_eq!(decision["decision"]["reason"], "asked for by the API token: wrong prices");
    assert!(decision["stages"][1]["detail"].as_str().is_some_and(|d| d.starts_with("dry run")), "{decision:#}");
    let id = decision["decision"]["id"].as_str().context("its id")?;
    let (code, refusal) = post(&format!("/api/v1/undo/{id}"), "")?;
    let words = "there is nothing to undo; a dry run changes nothing; an undo would start again shop 1.5 in ";
    assert!(code == 409 && refusal["error"].as_str().is_some_and(|e| e.contains(words)), "{refusal}");
    let (code, said) = post("/api/v1/hold/shop", r#"{"reason": "a look first"}"#)?;
    let words = "Holding the rollout of shop as decision shop-";
    assert!(code == 200 && said["said"].as_str().is_some_and(|s| s.starts_with(words)), "{said}");
    let is_held = |d: &Value| d[0]["decision"]["action"] == "hold" && d[0]["stages"][1].is_object();
    guard.until("the hold", |_| decisions().is_ok_and(|d| is_held(&d)))?;
    let held = decisions()?;
    let words = "dry run, nothing was done: would hold shop 1.5 in ";
    assert!(held[0]["stages"][1]["detail"].as_str().is_some_and(|d| d.starts_with(words)), "{held:#}");
    let (code, refusal) = post("/api/v1/hold/shp", "")?;
    assert_eq!((code, &refusal["kind"]), (404, &json!("not_found")));
    let (code, refusal) = post("/api/v1/approve/none", "")?;
    assert_eq!((code, &refusal["kind"]), (404, &json!("not_found")));
    assert!(canary.try_wait()?.is_none(), "the canary runs on");
    assert!(guard.stop()?.success());
    Ok(())
}

/// Who may approve has to know what.
#[test]
fn a_member_of_the_group_reads_the_past_from_the_guard() -> anyhow::Result<()> {
    let test = "a_member_of_the_group_reads_the_past_from_the_guard";
    if !kernel_available(test) {
        return Ok(());
    }
    let guarded = Guarded::new(env!("CARGO_BIN_EXE_victim"), "end")?;
    let file = guarded.file("canary.toml");
    std::fs::write(&file, format!("api.group = \"4242\"\n{}", std::fs::read_to_string(&file)?))?;
    guarded.crash()?;
    let _life = guarded.start()?;
    guarded.until(Verified)?;
    // The socket can be reached, and the journal not be read.
    let mode = |name: &str, mode: u32| std::fs::set_permissions(guarded.file(name), Permissions::from_mode(mode));
    mode("", 0o711)?;
    mode("journal.db", 0o600)?;
    let id = guarded.history()[0].decision.id.clone();
    // The build may lie in somebody's home.
    let copy = guarded.file("canary");
    ensure!(Command::new("cp").arg(program("canary")?).arg(&copy).status()?.success(), "cp");
    let as_member = |group: &str, words: &[&str]| -> anyhow::Result<(bool, String)> {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", group, "--clear-groups", "--"]).arg(&copy);
        command.args(words).arg("--journal").arg(guarded.file("journal.db"));
        let output = command.env("CANARY_SOCKET", guarded.file("canary.sock")).output().context("start setpriv")?;
        let both = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        Ok((output.status.success(), both.concat()))
    };
    let (told, said) = as_member("4242", &["history"])?;
    ensure!(told && said.contains(&id) && said.contains("verified: "), "{said}");
    let (told, said) = as_member("4242", &["explain", &id])?;
    ensure!(told && said.contains("Gates") && said.contains("crash loop"), "{said}");
    for words in [&["report", "--output", "markdown"][..], &["report", &id, "--output", "markdown"]] {
        let (told, said) = as_member("4242", words)?;
        ensure!(told && said.contains(&id) && said.contains("### Gates that were asked"), "{said}");
    }
    let (told, said) = as_member("4243", &["history"])?;
    ensure!(
        !told && said.contains("this user may not read") && said.contains("may not be used by this user"),
        "{said}"
    );
    Ok(())
}
