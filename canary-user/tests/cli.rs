//! The binary as a user meets it: wrong uses say what to do, and the shipped example is valid.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Output},
};

use canary_user::{
    guard::{Action, Decision, Moment, Stage},
    journal::Journal,
    orchestrator::Plan,
    targets::cgroup::Root,
    telemetry::capabilities,
};

fn canary(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_canary")).args(args).output().expect("the binary starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A valid configuration on cgroups that nobody has, with its journal in `dir`.
fn config(dir: &Path) -> String {
    let path = dir.join("canary.toml");
    let text = format!(
        "window = \"100ms\"\njournal = \"{}\"\napi.socket = \"{}\"\n[[deployment]]\nname = \"none\"\n\
         stable = {{ cgroup = \"/no-such-cgroup/v1\" }}\ncanary = {{ cgroup = \"/no-such-cgroup/v2\" }}\n",
        dir.join("journal.db").display(),
        dir.join("canary.sock").display()
    );
    fs::write(&path, text).expect("write the configuration");
    path.display().to_string()
}

/// Whether `canary run` gets as far as its journal and its address here; prints why not otherwise.
fn can_run(test: &str) -> bool {
    let lacks = capabilities::ensure_held().err().or_else(|| Root::find().err());
    lacks.as_ref().inspect(|error| println!("SKIP {test}: {error:#}")).is_none()
}

#[test]
fn the_example_configuration_is_valid() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/canary.example.toml");
    let output = canary(&["config", "--config", example]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("minimum_healthy = 1"));
}

#[test]
fn a_configuration_is_printed_as_json_with_the_same_keys_and_values() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/canary.example.toml");
    let printed = |output: &str| {
        let output = canary(&["config", "--config", example, "--output", output]);
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let json: serde_json::Value = serde_json::from_str(&printed("json")).expect("JSON, and nothing besides");
    let text: serde_json::Value = toml::from_str(&printed("text")).expect("TOML");
    assert_eq!(json, text);
    assert_eq!(json["deployment"][0]["mode"], "observe");
    assert!(json["window"].is_string() && json["deployment"][0]["minimum_healthy"].is_number(), "{json:#}");
}

#[test]
fn a_missing_configuration_and_an_unknown_key_are_named() {
    let dir = tempfile::tempdir().expect("tempdir");
    let missing = dir.path().join("nowhere.toml").display().to_string();
    let output = canary(&["run", "--config", &missing]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--config"), "{}", stderr(&output));

    let path = config(dir.path());
    fs::write(&path, "windw = \"1s\"\n").expect("write");
    let output = canary(&["config", "--config", &path]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("windw") && text.contains(":1:"), "{text}");
}

#[test]
fn a_taken_port_is_said_before_anything_is_loaded() {
    let test = "a_taken_port_is_said_before_anything_is_loaded";
    if !can_run(test) {
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("its address").to_string();
    let output = canary(&["run", "--config", &config(dir.path()), "--listen", &address]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains(&address) && text.contains("--listen"), "{text}");
}

#[test]
fn a_corrupt_journal_is_refused_and_kept() {
    let test = "a_corrupt_journal_is_refused_and_kept";
    if !can_run(test) {
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    let path = config(dir.path());
    let journal = dir.path().join("journal.db");
    fs::write(&journal, b"this is no database, and long enough to be looked at as one".repeat(100)).expect("write");
    let output = canary(&["run", "--config", &path]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("journal.db"), "{}", stderr(&output));
    assert!(journal.exists(), "what it cannot read it does not delete");
}

#[test]
fn a_replay_of_something_else_names_the_line() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("run.jsonl");
    fs::write(&path, "{\"not\":\"a header\"}\n").expect("write");
    let output = canary(&["replay", &path.display().to_string()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("run.jsonl:1"), "{}", stderr(&output));
}

#[test]
fn a_report_is_printed_or_written_in_the_form_that_is_asked_for() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("journal.db");
    let decision = Decision {
        id: "shop-1".into(),
        deployment: "shop".into(),
        unix_ms: 1_800_000_000_000,
        window: 7,
        action: Action::Rollback,
        reason: "CPU per turnaround +31 %".into(),
        recommendation: None,
        gates: Vec::new(),
        canary: Vec::new(),
        stable: Vec::new(),
    };
    let plan = Plan { orchestrator: "process".into(), steps: vec!["stop it".into()], ..Plan::default() };
    let at = Moment { unix_ms: decision.unix_ms, t_ns: 1 };
    let mut journal = Journal::open(&path).expect("a journal");
    journal.record_decision(&decision, &plan, Stage::Planned, "", at).expect("recorded");
    drop(journal);
    let journal = path.display().to_string();
    let report = |more: &[&str]| canary(&[&["report", "--journal", &journal][..], more].concat());
    let printed = |more: &[&str]| {
        let output = report(more);
        assert!(output.status.success(), "{more:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    for (form, begins, part) in [
        ("html", "<!DOCTYPE html>", "shop: rollback planned"),
        ("markdown", "## shop: rollback planned", "CPU per turnaround"),
        ("json", "{", "\"shop-1\""),
    ] {
        let text = printed(&["--output", form]);
        assert!(text.starts_with(begins) && text.contains(part), "{form}: {text}");
        let file = dir.path().join(form).display().to_string();
        assert_eq!(printed(&["--output", form, "--file", &file]), "");
        assert_eq!(fs::read_to_string(&file).expect("written"), text);
    }
    assert_eq!(printed(&[]), printed(&["--output", "html"]));
    // A file is no form, and says so.
    let output = report(&["--output", "shop.html"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("markdown"), "{}", stderr(&output));
}

#[test]
fn a_guard_that_cannot_be_reached_is_said_with_what_to_do() {
    let socket = "/no-such-directory/canary.sock";
    for words in [&["status"][..], &["pause", "--for", "1h"], &["resume", "shop"], &["hold", "shop"]] {
        let output = canary(&[words, &["--socket", socket]].concat());
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        let text = stderr(&output);
        assert!(text.contains(socket) && text.contains("start `canary run`") && text.contains("--socket"), "{text}");
    }
    assert_eq!(canary(&["pause", "--for", "soon"]).status.code(), Some(2));
}

#[test]
fn wrong_usage_is_exit_code_2() {
    assert_eq!(canary(&["no-such-verb"]).status.code(), Some(2));
}

#[test]
fn a_hook_that_does_not_exist_is_refused_with_those_that_do() {
    let output = canary(&["run", "--disable-hook", "sched_swich"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("sched_switch"), "{}", stderr(&output));
}

#[test]
fn pause_and_resume_say_what_they_did() {
    let dir = tempfile::tempdir().expect("tempdir");
    let file = dir.path().join("run/pause");
    let path = file.display().to_string();
    for (verb, exists, word) in [
        ("pause", true, "Paused"),
        ("pause", true, "Paused"),
        ("resume", false, "Resumed"),
        ("resume", false, "Not paused"),
    ] {
        let output = canary(&[verb, "--pause-file", &path]);
        assert!(output.status.success(), "{}", stderr(&output));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.starts_with(word) && said.contains(&path), "{verb}: {said}");
        assert_eq!(file.exists(), exists, "{verb}");
    }
}
