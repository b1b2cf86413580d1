//! The binary as a user meets it: wrong uses say what to do, and the shipped example is valid.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Output},
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
        "window = \"100ms\"\njournal = \"{}\"\n[[deployment]]\nname = \"none\"\n\
         stable = {{ cgroup = \"/no-such-cgroup/v1\" }}\ncanary = {{ cgroup = \"/no-such-cgroup/v2\" }}\n",
        dir.join("journal.db").display()
    );
    fs::write(&path, text).expect("write the configuration");
    path.display().to_string()
}

#[test]
fn the_example_configuration_is_valid() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/canary.example.toml");
    let output = canary(&["config", "--config", example]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("minimum_healthy = 1"));
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
    if let Err(error) = canary_user::targets::cgroup::Root::find() {
        println!("SKIP {test}: {error:#}");
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
    if let Err(error) = canary_user::targets::cgroup::Root::find() {
        println!("SKIP {test}: {error:#}");
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
fn wrong_usage_is_exit_code_2() {
    assert_eq!(canary(&["no-such-verb"]).status.code(), Some(2));
}
