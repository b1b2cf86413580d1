use std::{fs, path::PathBuf};

use super::*;
use crate::orchestrator::decided;

/// A directory with programs of the test.
struct Bed(tempfile::TempDir);

impl Bed {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A shell script, with the directory as its first argument.
    fn program(&self, name: &str, script: &str) -> Vec<String> {
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("write the program");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("make it executable");
        vec![path.display().to_string(), self.0.path().display().to_string()]
    }

    fn command(&self, run: &str, state: Option<&str>, timeout_ms: u64) -> Command {
        Command::new(CommandConfig {
            run: self.program("run", run),
            state: state.map(|s| self.program("state", s)),
            undo: None,
            timeout: Duration::from_millis(timeout_ms),
        })
    }
}

fn decision() -> Decision {
    decided::decision(Action::Drain, Vec::new(), Vec::new())
}

async fn apply(command: &Command) -> Result<(), Error> {
    command.apply(&decision(), &Plan::default()).await
}

#[tokio::test]
async fn the_program_gets_the_decision_and_its_word_is_the_exit_code() {
    let bed = Bed::new();
    let script = "cat >$1/input; echo $CANARY_DECISION_ID $CANARY_DEPLOYMENT $CANARY_ACTION >$1/environment";
    let command = bed.command(script, Some("test -e $1/input"), 30_000);
    assert_eq!(command.state(&decision()).await.expect("a state").state, State::NotInEffect);
    apply(&command).await.expect("done");
    let input = fs::read_to_string(bed.path("input")).expect("it ran");
    assert_eq!(serde_json::from_str::<Decision>(&input).expect("the decision"), decision());
    assert_eq!(fs::read_to_string(bed.path("environment")).expect("it ran"), "shop-1795000000000-0001 shop drain\n");
    assert_eq!(command.state(&decision()).await.expect("a state").state, State::InEffect);
}

#[tokio::test]
async fn a_program_that_takes_canaries_away_is_not_asked_to_hold_a_rollout() {
    let bed = Bed::new();
    let command = bed.command("touch $1/ran", None, 30_000);
    let hold = Decision { action: Action::Hold, ..decision() };
    let refused = command.describe(&hold).await.expect_err("refused");
    assert!(matches!(&refused, Error::Refused(why) if Some(why) == command.cannot_hold().as_ref()), "{refused}");
    let why = "what command hands a decision to takes canaries away, and is not asked to hold a rollout: ";
    assert!(command.cannot_hold().is_some_and(|said| said.starts_with(why)));
    assert!(!bed.path("ran").exists());
}

#[tokio::test]
async fn a_refusal_and_a_failure_are_told_apart_with_what_was_said() {
    let bed = Bed::new();
    let error = apply(&bed.command("echo a deployment is under way >&2; exit 75", None, 30_000)).await.expect_err("no");
    assert!(matches!(&error, Error::Refused(why) if why.ends_with(": a deployment is under way")), "{error}");
    for script in ["echo half; echo way; exit 1", "kill -9 $$"] {
        let error = apply(&bed.command(script, None, 30_000)).await.expect_err("no");
        assert!(matches!(&error, Error::Failed(_)) && error.to_string().contains("may have done a part"), "{error}");
    }
    assert!(matches!(apply(&bed.command("echo half; echo way; exit 1", None, 30_000)).await,
        Err(Error::Failed(e)) if e.to_string().contains(": half / way")));
}

#[tokio::test]
async fn while_paused_nothing_is_run() {
    let bed = Bed::new();
    let command = bed.command("touch $1/ran", None, 30_000);
    command.heed_pauses(std::sync::Arc::new(|_: &str| Some("incident 12".to_owned())));
    let error = apply(&command).await.expect_err("paused");
    assert!(matches!(&error, Error::Refused(why) if why == "paused: incident 12"), "{error}");
    assert!(!bed.path("ran").exists());
}

#[test]
fn what_is_quoted_is_text_on_one_line() {
    assert_eq!(tail(b" \n"), "");
    assert_eq!(tail(b"half\nway \xff\x1b[2J\0!\n"), ": half / way \u{fffd} [2J !");
    let long = "ä".repeat(LONGEST_QUOTE_BYTES);
    assert_eq!(tail(long.as_bytes()), format!(": {}", "ä".repeat(LONGEST_QUOTE_BYTES / 2)));
}

#[tokio::test]
async fn one_that_hangs_is_killed_with_all_it_started() {
    let bed = Bed::new();
    // The child keeps the pipes open and ignores what a terminal or a polite supervisor would send.
    let script = "(trap '' TERM INT HUP; echo $$ >$1/started; exec sleep 600) & wait";
    let error = apply(&bed.command(script, None, 1500)).await.expect_err("no end");
    assert!(error.to_string().contains("did not end within 1s 500ms and was killed"), "{error}");
    assert!(matches!(error, Error::Failed(_)));
    // The group's number is that of its leader.
    let group: i32 = fs::read_to_string(bed.path("started")).expect("it ran").trim().parse().expect("a number");
    let group = Pid::from_raw(group).expect("not zero");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while rustix::process::test_kill_process_group(group).is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "a process of the group lives on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn one_that_leaves_a_child_with_its_output_has_ended() {
    let bed = Bed::new();
    let left = |code: u8| format!("sleep 600 & echo $! >>$1/left; echo half way; exit {code}");
    let ends = [apply(&bed.command(&left(0), None, 30_000)).await, apply(&bed.command(&left(1), None, 30_000)).await];
    let left = fs::read_to_string(bed.path("left")).expect("it ran");
    let left = left.lines().map(|pid| Pid::from_raw(pid.parse().expect("a number")).expect("not zero"));
    let live: Vec<bool> = left.map(|pid| rustix::process::kill_process(pid, Signal::KILL).is_ok()).collect();
    assert_eq!(live, [true, true], "what they left is their own business");
    let [Ok(()), Err(Error::Failed(why))] = &ends else { panic!("{ends:?}") };
    assert!(why.to_string().contains(": half way"), "{why}");
}

#[tokio::test]
async fn one_that_did_it_and_hangs_is_found_out_by_the_state() {
    let bed = Bed::new();
    let command = bed.command("touch $1/done; exec sleep 600", Some("test -e $1/done"), 1500);
    assert!(matches!(apply(&command).await, Err(Error::Failed(_))));
    assert_eq!(command.state(&decision()).await.expect("a state").state, State::InEffect);
}

#[tokio::test]
async fn the_state_is_not_known_where_nobody_tells_it() {
    let bed = Bed::new();
    for (script, expected) in
        [("exit 0", State::InEffect), ("exit 1", State::NotInEffect), ("exit 2", State::InProgress)]
    {
        let found = bed.command("true", Some(script), 30_000).state(&decision()).await.expect("a state");
        assert_eq!(found.state, expected);
    }
    for state in [None, Some("exit 3"), Some("kill -9 $$")] {
        bed.command("true", state, 30_000).state(&decision()).await.expect_err("unknown is not a state");
    }
}

#[tokio::test]
async fn a_program_that_reads_nothing_and_says_much_is_fine() {
    let bed = Bed::new();
    apply(&bed.command("exec 0<&-; yes | head -c 1000000", None, 30_000)).await.expect("done");
}

#[tokio::test]
async fn what_cannot_be_run_is_refused_beforehand() {
    let bed = Bed::new();
    let command = bed.command("true", None, 30_000);
    let plan = command.describe(&decision()).await.expect("a plan");
    assert!(plan.steps[0].starts_with(&format!("run {}", command.config.run[0])), "{:?}", plan.steps);
    assert_eq!(plan.takes_at_most_ms, Some(30_000));
    fs::set_permissions(bed.path("run"), fs::Permissions::from_mode(0o644)).expect("take the right away");
    for refused in [command.describe(&decision()).await.map(|_| ()), apply(&command).await] {
        assert!(matches!(&refused, Err(Error::Refused(why)) if why.contains("is not executable")), "{refused:?}");
    }
    fs::remove_file(bed.path("run")).expect("remove");
    assert!(matches!(command.describe(&decision()).await, Err(Error::Refused(_))));
    assert!(matches!(command.undo(&decision(), &plan).await, Err(Error::Refused(_))));
}
