//! Golden replays: for each story a recording, made the same way in every run, goes through the real binary; what it says of
//! outcome, onset, causes, environment, stretches and advice is pinned by a text in `tests/golden/expected/`.
//!
//! `CANARY_REWRITE_GOLDEN=1 cargo test -p canary-user --test golden` writes the texts anew: look at the difference before it
//! is committed. A story is a service of three instances of stable and one of canary, 200 requests a second each, with 5 %
//! of noise; the canary comes at window 130 and is judged from 190 on. Stories differ in what happens from window 400 on.

mod stories;

use std::{fmt::Write as _, path::Path, process::Command};

use serde_json::Value;
use stories::{STORIES, Story};

/// The guard of this build.
fn own() -> Command {
    Command::new(env!("CARGO_BIN_EXE_canary"))
}

/// What a replay says, without the numbers that every improvement of the judge moves.
fn told(story: &Story, file: &Path, mut canary: Command) -> String {
    let output = canary.args(["replay", "--output", "json"]).arg(file).output().expect("the binary starts");
    assert!(output.stderr.is_empty(), "{}: {}", story.name, String::from_utf8_lossy(&output.stderr));
    let line: Value = serde_json::from_slice(&output.stdout).expect("one object");
    let verdict = &line["verdict"];
    let word = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let mut text = format!("# {}\n", story.about);
    let _ = writeln!(text, "outcome: {}", word(&verdict["outcome"]));
    let _ = writeln!(text, "exit code: {}", output.status.code().expect("it ends by itself"));
    let _ = writeln!(text, "hard fact: {}", word(&verdict["hard"]));
    let _ = writeln!(text, "onset: {}", word(&verdict["onset"]));
    for cause in verdict["causes"].as_array().expect("a list") {
        let _ = writeln!(text, "cause: {}: {}", word(&cause["signal"]), word(&cause["mechanism"]));
    }
    if verdict["forecast"].is_object() {
        let _ = writeln!(text, "forecast: memory runs out, by its own limit: {}", verdict["forecast"]["own_limit"]);
    }
    let environment = &verdict["environment"];
    for sign in environment["signs"].as_array().expect("a list") {
        let holds = if environment["holds"] == true { "holds the verdict back" } else { "seen" };
        let _ = writeln!(text, "environment: {} ({holds})", word(&sign["kind"]));
    }
    for stretch in verdict["stretches"].as_array().expect("a list") {
        let end = if stretch["end"].is_null() { "goes on".to_owned() } else { format!("to {}", stretch["end"]) };
        let told = ["role", "signal", "shape"].map(|key| word(&stretch[key])).join(" ");
        let _ = writeln!(text, "stretch: {told}, from {}, {end}", stretch["start"]);
    }
    for step in verdict["recommendations"].as_array().expect("a list") {
        let command = step["command"].as_str().map(|c| format!(": {c}")).unwrap_or_default();
        let _ = writeln!(
            text,
            "advice: {} (risk {}, confidence {}){command}",
            word(&step["step"]),
            word(&step["risk"]),
            word(&step["confidence"])
        );
    }
    if story.tells_reason {
        let _ = writeln!(text, "reason: {}", word(&verdict["reasons"][0]));
    }
    text
}

#[test]
fn stories_are_judged_as_pinned() {
    let dir = tempfile::tempdir().expect("tempdir");
    let pinned = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/expected");
    let rewrite = std::env::var_os("CANARY_REWRITE_GOLDEN").is_some();
    let mut differences = String::new();
    for story in STORIES {
        let recording = dir.path().join(format!("{}.jsonl", story.name));
        stories::record(story, &recording);
        let now = told(story, &recording, own());
        let path = pinned.join(format!("{}.txt", story.name));
        if rewrite {
            std::fs::write(&path, &now).expect("write the golden text");
            continue;
        }
        let before = std::fs::read_to_string(&path).unwrap_or_default();
        if before != now {
            let _ = writeln!(differences, "--- {}\n{before}\n+++ now\n{now}", path.display());
        }
    }
    assert!(differences.is_empty(), "{differences}\nCANARY_REWRITE_GOLDEN=1 writes them anew, if this is meant");
}

/// Another processor rounds and orders as this one does. User emulation has no bpf(): what loads programs is not tried.
#[test]
fn the_guard_for_arm64_starts_and_judges_each_story_as_pinned() {
    let test = "the_guard_for_arm64_starts_and_judges_each_story_as_pinned";
    let Some(guard) = std::env::var_os("CANARY_ARM64") else {
        println!(
            "SKIP {test}: CANARY_ARM64 names no guard for arm64, which `cargo xtask dist --arch arm64` makes in some minutes"
        );
        return;
    };
    const EMULATOR: &str = "qemu-aarch64-static";
    if Command::new(EMULATOR).arg("--version").output().is_err() {
        println!("SKIP {test}: there is no {EMULATOR}: apt-get install qemu-user-static");
        return;
    }
    let arm64 = || {
        let mut command = Command::new(EMULATOR);
        command.arg(&guard);
        command
    };
    let run = |arguments: &[&str]| {
        let output = arm64().args(arguments).output().expect("the emulator starts");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(run(&["--version"]).trim(), format!("canary {}", env!("CARGO_PKG_VERSION")));
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/canary.example.toml").display().to_string();
    assert!(run(&["config", "--config", &example]).contains("[[deployment]]"));
    let dir = tempfile::tempdir().expect("tempdir");
    for story in STORIES {
        let recording = dir.path().join(format!("{}.jsonl", story.name));
        stories::record(story, &recording);
        assert_eq!(told(story, &recording, arm64()), told(story, &recording, own()), "{}", story.name);
    }
}

#[test]
fn a_replay_tells_stretches_in_words() {
    let dir = tempfile::tempdir().expect("tempdir");
    let recording = dir.path().join("worse.jsonl");
    stories::record(STORIES.iter().find(|s| s.name == "slow-leak").expect("the story is there"), &recording);
    let output =
        Command::new(env!("CARGO_BIN_EXE_canary")).arg("replay").arg(&recording).output().expect("the binary starts");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let line = text.lines().find(|l| l.starts_with("    stretch: canary: memory in use +"));
    assert!(line.is_some_and(|l| l.ends_with("(so far: drift)")), "{text}");
}

#[test]
fn every_golden_text_has_its_story() {
    let pinned = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/expected");
    for entry in std::fs::read_dir(pinned).expect("the directory is there") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        assert!(STORIES.iter().any(|s| format!("{}.txt", s.name) == name), "{name} belongs to no story");
    }
}

#[test]
fn calibrating_compares_equals_and_finds_smaller_changes_in_longer_time() {
    let dir = tempfile::tempdir().expect("tempdir");
    let recording = dir.path().join("worse.jsonl");
    // The canary that is worse is left out.
    let story = STORIES.iter().find(|s| s.name == "more-cpu").expect("the story is there");
    stories::record(story, &recording);
    let mut command = Command::new(env!("CARGO_BIN_EXE_canary"));
    let output =
        command.arg("calibrate").arg(&recording).args(["--output", "json"]).output().expect("the binary starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let line: Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!((&line["deployment"], &line["comparisons"], &line["condemned"]), (&"shop".into(), &3.into(), &0.into()));
    assert_eq!((&line["instances"], &line["independent"]), (&3.into(), &false.into()));
    assert_eq!((&line["canaries"], &line["sets"], &line["sets_possible"]), (&1.into(), &3.into(), &3.into()));
    assert!(line["false_alarms_high"].as_f64().expect("a number") > 0.5, "three comparisons prove little: {line}");
    let cpu = &line["indicators"][0];
    assert_eq!(cpu["indicator"], "cpu_per_work");
    let number = |key: &str| cpu[key].as_f64().unwrap_or_else(|| panic!("{key}: {cpu}"));
    // Noise of 4 %, of 5 % in the number of requests that CPU follows, of a difference to the mean of two others.
    assert!((0.03..0.08).contains(&number("noise")), "{cpu}");
    assert!(number("found_in_1_min") > number("found_in_5_min"), "{cpu}");
    assert!(
        number("found_in_5_min") > number("found_in_30_min") && number("found_in_30_min") > number("margin"),
        "{cpu}"
    );
}

#[test]
fn calibrating_takes_each_set_of_several_instances_and_says_where_they_are_too_few() {
    let dir = tempfile::tempdir().expect("tempdir");
    let recording = dir.path().join("good.jsonl");
    stories::record(STORIES.iter().find(|s| s.name == "good-canary").expect("the story is there"), &recording);
    let calibrate = |file: &Path, more: &[&str]| {
        let mut command = own();
        let output = command.arg("calibrate").arg(file).args(more).output().expect("the binary starts");
        let told = [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("UTF-8"));
        (output.status.code(), told)
    };
    let (code, [pairs, said]) = calibrate(&recording, &["--canaries", "2"]);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert!(pairs.starts_with("shop: 3 comparisons of equals among 3 instances, "), "{pairs}");
    assert!(pairs.contains("\n    as the canary: all 3 sets of 2 instances\n"), "{pairs}");
    assert!(pairs.contains("\n    one instance is left as stable"), "{pairs}");
    let (code, [singles, _]) = calibrate(&recording, &[]);
    assert_eq!(code, Some(0));
    assert!(!singles.contains("as the canary") && !singles.contains("left as stable"), "as it was: {singles}");
    let (code, [_, said]) = calibrate(&recording, &["--canaries", "3"]);
    assert_eq!(code, Some(1));
    let few = "shop is left out: 3 stable at once, and 3 as the canary takes 4, or better 5";
    assert!(said.contains(few) && said.contains("no equals to compare"), "{said}");
    for written in ["0", "two", "-1"] {
        let (code, [_, said]) = calibrate(&recording, &[&format!("--canaries={written}")]);
        let instead = format!("'{written}' for '--canaries <K>': write 1 or more, but fewer than stable has");
        assert!(code == Some(2) && said.contains(&instead) && said.contains("one has to be left"), "{said}");
    }
    let (code, [_, said]) = calibrate(Path::new("/dev/null"), &[]);
    assert!(code == Some(1) && said.contains("/dev/null is no file: a recording is read twice"), "{said}");
}
