//! What is written is there after a restart; what cannot be relied on is refused.

use std::{fs, path::PathBuf};

use tempfile::TempDir;

use super::*;
use crate::{
    control::Command,
    guard::{Action, Pause},
    judge::{Earlier, Known, Learned, Outcome},
    targets::{Role, Target},
    window::Indicator,
};

pub(super) const AT: Moment = Moment { unix_ms: 1_000_000, t_ns: 7 };

pub(super) fn target(incarnation: u64) -> Target {
    Target {
        deployment: "checkout".into(),
        role: Role::Canary,
        version: "v2".into(),
        cgroup: "/checkout/v2".into(),
        incarnation,
        identity: None,
    }
}

pub(super) fn decision(id: &str, incarnations: &[u64]) -> Decision {
    Decision {
        id: id.into(),
        deployment: "checkout".into(),
        unix_ms: 1_000_000,
        window: 7,
        action: Action::Drain,
        reason: "CPU per turnaround +31 %".into(),
        recommendation: None,
        gates: Vec::new(),
        canary: incarnations.iter().map(|i| target(*i)).collect(),
        stable: Vec::new(),
    }
}

pub(super) fn plan() -> Plan {
    Plan {
        orchestrator: "process".into(),
        steps: vec!["stop 41".into()],
        inverse: Some("start it".into()),
        undo: Some(serde_json::json!({ "cpu_weight": u64::MAX })),
        ..Plan::default()
    }
}

pub(super) fn verdict(outcome: Outcome) -> Verdict {
    Verdict {
        outcome,
        window: 3,
        evidence_ln: 1.5,
        threshold_ln: 6.9,
        p_canary: None,
        p_stable: None,
        indicators: Vec::new(),
        events: Vec::new(),
        hard: None,
        onset: None,
        causes: Vec::new(),
        reasons: vec!["no reason".into()],
        healthy_at_load: None,
        environment: Default::default(),
        forecast: None,
        recommendations: Vec::new(),
        stretches: Vec::new(),
        promotion: None,
        baseline_windows: 300,
        judged_windows: 4,
    }
}

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    (dir, path)
}

fn refused(path: &Path) -> String {
    format!("{:#}", Journal::open(path).expect_err("must be refused"))
}

#[test]
fn everything_is_there_after_each_reopening() {
    let (_dir, path) = place();
    let (d, p) = (decision("a", &[1, 2]), plan());
    let mut seen = Vec::new();
    Journal::open(&path).unwrap().record_decision(&d, &p, Stage::Planned, "stop 41", AT).unwrap();
    for stage in [Stage::Applying, Stage::Applied, Stage::Verified] {
        let mut journal = Journal::open(&path).unwrap();
        let open = journal.unfinished().unwrap().into_iter();
        seen.push(open.map(|e| (e.decision.id, e.stages.last().unwrap().stage, e.plan.inverse)).collect::<Vec<_>>());
        journal.record_stage("a", stage, "words", AT).unwrap();
    }
    let inverse = Some("start it".to_string());
    let at = |s| vec![("a".to_string(), s, inverse.clone())];
    assert_eq!(seen, [at(Stage::Planned), at(Stage::Applying), at(Stage::Applied)]);
    let mut journal = Journal::open(&path).unwrap();
    assert_eq!(journal.unfinished().unwrap().len(), 1, "it is watched");
    journal.record_stage("a", Stage::Closed, "nobody", AT).unwrap();
    assert!(journal.unfinished().unwrap().is_empty());
    let history = journal.history(10).unwrap();
    assert_eq!((history.len(), &history[0].decision, &history[0].plan), (1, &d, &p));
    let stages: Vec<Stage> = history[0].stages.iter().map(|s| s.stage).collect();
    assert_eq!(stages, [Stage::Planned, Stage::Applying, Stage::Applied, Stage::Verified, Stage::Closed]);
}

#[test]
fn every_stage_reads_back_as_itself() {
    let mut journal = Journal::in_memory().unwrap();
    let all = [
        Stage::Blocked,
        Stage::Planned,
        Stage::Applying,
        Stage::Applied,
        Stage::Verified,
        Stage::Approved,
        Stage::Declined,
        Stage::Recovered,
        Stage::NotRecovered,
        Stage::Reverted,
        Stage::Failed,
        Stage::Undoing,
        Stage::Undone,
        Stage::Closed,
    ];
    journal.record_decision(&decision("a", &[1]), &plan(), all[0], "", AT).unwrap();
    for stage in &all[1..] {
        journal.record_stage("a", *stage, "", AT).unwrap();
    }
    let read: Vec<Stage> = journal.history(1).unwrap()[0].stages.iter().map(|s| s.stage).collect();
    assert_eq!(read, all);
}

#[test]
fn an_instance_is_acted_on_once_even_among_others() {
    let mut journal = Journal::in_memory().unwrap();
    journal.record_decision(&decision("a", &[1, 2]), &plan(), Stage::Planned, "", AT).unwrap();
    assert_eq!(journal.acted_on("checkout", &[target(1)]).unwrap(), None, "planned is not begun");
    journal.record_stage("a", Stage::Applying, "", AT).unwrap();
    assert_eq!(journal.acted_on("checkout", &[target(3), target(2)]).unwrap().as_deref(), Some("a"));
    assert_eq!(journal.acted_on("checkout", &[target(3)]).unwrap(), None);
    assert_eq!(journal.acted_on("cart", &[target(1)]).unwrap(), None);
    journal.record_decision(&decision("b", &[2, 3]), &plan(), Stage::Planned, "", AT).unwrap();
    let error = format!("{:#}", journal.record_stage("b", Stage::Applying, "", AT).unwrap_err());
    assert_eq!(error, "journal: record applying of b: an action was already begun against this canary (a)");
    // All or nothing: the refused stage left no trace.
    assert_eq!(journal.acted_on("checkout", &[target(3)]).unwrap(), None);
    assert_eq!(journal.history(1).unwrap()[0].stages.len(), 1);
}

#[test]
fn a_hold_is_not_what_is_done_once_to_a_canary() {
    let mut journal = Journal::in_memory().unwrap();
    let begin = |journal: &mut Journal, decision: &Decision| {
        journal.record_decision(decision, &plan(), Stage::Planned, "", AT).unwrap();
        journal.record_stage(&decision.id, Stage::Applying, "", AT).unwrap();
    };
    let hold = |id: &str| Decision { action: Action::Hold, ..decision(id, &[1]) };
    begin(&mut journal, &hold("a"));
    journal.came_back(&target(1), &target(2)).unwrap();
    assert_eq!(journal.acted_on("checkout", &[target(1), target(2)]).unwrap(), None);
    assert!(journal.canaries_with("checkout", Stage::Applying).unwrap().is_empty());
    assert!(journal.action_ages("checkout", AT, Duration::from_secs(3600)).unwrap().is_empty());
    assert_eq!(journal.unfinished().unwrap().len(), 1, "it is to have an end all the same");
    begin(&mut journal, &decision("b", &[1]));
    begin(&mut journal, &hold("c"));
    assert_eq!(journal.acted_on("checkout", &[target(1)]).unwrap().as_deref(), Some("b"));
    assert_eq!(journal.canaries_with("checkout", Stage::Applying).unwrap(), [target(1)]);
    assert_eq!(journal.action_ages("checkout", AT, Duration::from_secs(3600)).unwrap().len(), 1);
}

#[test]
fn what_came_back_counts_as_acted_on() {
    let mut journal = Journal::in_memory().unwrap();
    let d = decision("a", &[1]);
    journal.record_decision(&d, &plan(), Stage::Planned, "", AT).unwrap();
    journal.mark_acted(&d, &[target(9)]).unwrap();
    assert_eq!(journal.acted_on("checkout", &[target(9)]).unwrap().as_deref(), Some("a"));
}

fn at(seconds: u64) -> Moment {
    Moment::default().after(Duration::from_secs(seconds))
}

#[test]
fn calls_are_counted_and_not_plans_by_the_clock_that_only_runs_on() {
    let mut journal = Journal::in_memory().unwrap();
    for (id, incarnation, called) in [("a", 1, 5), ("b", 2, 9)] {
        journal.record_decision(&decision(id, &[incarnation]), &plan(), Stage::Planned, "", AT).unwrap();
        journal.record_stage(id, Stage::Applying, "", at(called)).unwrap();
    }
    journal.record_decision(&decision("c", &[3]), &plan(), Stage::Planned, "", AT).unwrap();
    let ages = |journal: &Journal, now, span| journal.action_ages("checkout", now, Duration::from_secs(span)).unwrap();
    assert_eq!(ages(&journal, at(10), 5), [Duration::from_secs(5), Duration::from_secs(1)]);
    assert_eq!(ages(&journal, at(10), 4), [Duration::from_secs(1)]);
    assert!(journal.action_ages("cart", at(10), Duration::MAX).unwrap().is_empty());
    // The wall clock was set forward by a day, and back.
    for unix_ms in [86_400_000, 0] {
        let now = Moment { unix_ms, ..at(10) };
        assert_eq!(ages(&journal, now, 5), [Duration::from_secs(5), Duration::from_secs(1)]);
    }
    // After a reboot only the wall clock is left; a call in its future is of this moment.
    journal.boot = "another".into();
    assert_eq!(ages(&journal, Moment { t_ns: 1, ..at(10) }, 60), [Duration::from_secs(5), Duration::from_secs(1)]);
    assert_eq!(ages(&journal, Moment { t_ns: 1, ..at(6) }, 60), [Duration::from_secs(1), Duration::ZERO]);
}

#[test]
fn pauses_and_commands_are_kept_and_ends_hold_after_a_reboot() {
    let (_dir, path) = place();
    let mut journal = Journal::open(&path).unwrap();
    let pause = |deployment: Option<&str>, until| Pause {
        deployment: deployment.map(Into::into),
        reason: "incident".into(),
        by: "root".into(),
        since_unix_ms: 0,
        until,
    };
    let (all, one) = (pause(None, Some(at(100))), pause(Some("checkout"), None));
    for p in [&pause(None, None), &one, &all] {
        journal.record_pause(p).unwrap();
    }
    let command = Command::Resume { deployment: None };
    journal.record_command(&command, "root", Err("no"), 7).unwrap();
    let mut journal = Journal::open(&path).unwrap();
    assert_eq!(journal.pauses(at(10)).unwrap(), [all, one.clone()], "the later one of all took the place of the first");
    journal.boot = "another".into();
    let end = journal.pauses(Moment { t_ns: 1_000, ..at(10) }).unwrap()[0].until.unwrap();
    assert_eq!(end, Moment { t_ns: 90_000_001_000, ..at(100) }, "90 s from now on the clock of this boot");
    journal.end_pause(None).unwrap();
    assert_eq!(journal.pauses(at(10)).unwrap(), [one]);
    let told = &journal.commands(9).unwrap()[0];
    assert_eq!((&*told.by, told.accepted, &*told.said, told.unix_ms), ("root", false, "no", 7));
    assert_eq!(told.command["command"], "resume");
}

#[test]
fn a_journal_of_the_first_schema_is_brought_up_to_date() {
    let (_dir, path) = place();
    let mut journal = Journal::open(&path).unwrap();
    journal.record_decision(&decision("a", &[1]), &plan(), Stage::Planned, "", AT).unwrap();
    drop(journal);
    Connection::open(&path)
        .unwrap()
        .execute_batch(
            "ALTER TABLE stage DROP COLUMN t_ns; ALTER TABLE stage DROP COLUMN boot; DROP TABLE pause;
             DROP TABLE command; UPDATE schema_version SET version = 1",
        )
        .unwrap();
    let error = format!("{:#}", Journal::open_to_read(&path).unwrap_err());
    assert!(error.contains("its next `canary run` brings it up to date"), "{error}");
    let mut journal = Journal::open(&path).unwrap();
    assert_eq!(journal.history(9).unwrap().len(), 1);
    journal.record_stage("a", Stage::Applying, "", AT).unwrap();
    assert!(journal.pauses(AT).unwrap().is_empty() && journal.commands(9).unwrap().is_empty());
    assert!(Journal::open_to_read(&path).is_ok());
}

#[test]
fn what_was_learned_of_a_service_is_kept_by_set_of_instances_the_latest_twenty() {
    let mut journal = Journal::in_memory().unwrap();
    let learned = |instance: u64, freedom: f64| Learned {
        instances: vec![("/shop/v1".into(), instance)],
        known: Earlier(
            [(Indicator::CpuPerWork, Known { offset_squares: 0.0, freedom, wander: 0.0, noise: 0.0 })].into(),
        ),
    };
    let freedom = |journal: &Journal| journal.earlier("shop").unwrap().of(Indicator::CpuPerWork).freedom;
    assert!(journal.earlier("shop").unwrap().is_empty());
    journal.record_learned("shop", &learned(1, 1.0), 10).unwrap();
    journal.record_learned("shop", &learned(1, 2.0), 20).unwrap();
    journal.record_learned("cart", &learned(1, 4.0), 20).unwrap();
    assert_eq!(freedom(&journal), 2.0, "the same set again says nothing new, another service nothing at all");
    for instance in 0..30 {
        journal.record_learned("shop", &learned(instance, 0.25), 30 + instance).unwrap();
    }
    assert_eq!(freedom(&journal), 5.0);
    assert!(!journal.earlier("cart").unwrap().is_empty());
}

#[test]
fn the_newest_come_first_and_no_more_than_asked_for() {
    let mut journal = Journal::in_memory().unwrap();
    for id in ["a", "b", "c"] {
        journal.record_decision(&decision(id, &[1]), &plan(), Stage::Blocked, "mode", AT).unwrap();
    }
    let ids: Vec<String> = journal.history(2).unwrap().into_iter().map(|e| e.decision.id).collect();
    assert_eq!(ids, ["c", "b"]);
    for (outcome, at) in [(Outcome::Healthy, 1), (Outcome::Regressed, 2)] {
        journal.record_verdict("checkout", at, &verdict(outcome)).unwrap();
    }
    let newest = &journal.verdicts(1).unwrap()[0];
    assert_eq!((newest.deployment.as_str(), newest.unix_ms), ("checkout", 2));
    assert_eq!(newest.verdict, verdict(Outcome::Regressed));
}

#[test]
fn the_same_decision_is_not_recorded_twice_and_a_stage_needs_its_decision() {
    let mut journal = Journal::in_memory().unwrap();
    journal.record_decision(&decision("a", &[1]), &plan(), Stage::Planned, "", AT).unwrap();
    assert!(journal.record_decision(&decision("a", &[1]), &plan(), Stage::Planned, "", AT).is_err());
    assert!(journal.record_stage("b", Stage::Applied, "", AT).is_err());
}

#[test]
fn every_commit_reaches_the_disk() {
    let (_dir, path) = place();
    let journal = Journal::open(&path).unwrap();
    let pragma =
        |name: &str| journal.db.pragma_query_value(None, name, |r| r.get::<_, rusqlite::types::Value>(0)).unwrap();
    assert_eq!(pragma("journal_mode"), rusqlite::types::Value::Text("wal".into()));
    assert_eq!(pragma("synchronous"), rusqlite::types::Value::Integer(2));
}

#[test]
fn a_place_that_cannot_be_written_is_refused_with_what_to_do() {
    let (dir, path) = place();
    let missing = dir.path().join("none/journal.db");
    let error = refused(&missing);
    assert!(error.contains("there is no directory") && error.contains("create it, or set 'journal'"), "{error}");
    assert!(refused(dir.path()).contains("is a directory: set 'journal' to a file in it"));
    fs::write(&path, "").unwrap();
    assert!(refused(&path.join("journal.db")).contains("is a file, not a directory"));
    // Not even root writes here.
    let error = refused(Path::new("/proc/journal.db"));
    assert!(error.starts_with("journal /proc/journal.db cannot be written: let the guard write to /proc"), "{error}");
}

#[test]
fn a_damaged_journal_is_refused_and_left_as_it_is() {
    let (_dir, path) = place();
    let mut journal = Journal::open(&path).unwrap();
    for n in 0..200 {
        journal.record_decision(&decision(&n.to_string(), &[n]), &plan(), Stage::Blocked, "mode", AT).unwrap();
    }
    drop(journal);
    let good = fs::read(&path).unwrap();
    let mut holes = good.clone();
    for page in 1..good.len() / 4096 {
        holes[page * 4096..page * 4096 + 64].fill(0xaa);
    }
    let mut cut = good.clone();
    cut.truncate(good.len() / 2);
    for bytes in [b"this is no database, it only has its name ".repeat(99), holes, cut] {
        fs::write(&path, &bytes).unwrap();
        let error = refused(&path);
        assert!(error.starts_with(&format!("journal {} is damaged (", path.display())), "{error}");
        assert!(error.contains("Move the file away (mv "), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "not changed");
    }
    fs::write(&path, good).unwrap();
    assert_eq!(Journal::open(&path).unwrap().history(1000).unwrap().len(), 200);
}

#[test]
fn a_journal_of_a_newer_version_and_a_file_of_something_else_are_refused() {
    let (dir, path) = place();
    drop(Journal::open(&path).unwrap());
    Connection::open(&path).unwrap().execute("UPDATE schema_version SET version = 99", []).unwrap();
    assert!(refused(&path).contains("written by a newer canary (schema 99, this one knows 2)"));
    let other = dir.path().join("other.db");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE music (title TEXT)").unwrap();
    assert!(refused(&other).contains("an SQLite file of something else"));
}

#[test]
fn a_reader_sees_what_a_running_guard_writes_and_changes_nothing() {
    let (_dir, path) = place();
    let error = format!("{:#}", Journal::open_to_read(&path).expect_err("there is none"));
    assert!(error.contains("cannot be read: it is made by the first `canary run`") && !path.exists(), "{error}");
    let mut journal = Journal::open(&path).unwrap();
    journal.record_decision(&decision("a", &[1]), &plan(), Stage::Planned, "", AT).unwrap();
    let mut reader = Journal::open_to_read(&path).unwrap();
    assert_eq!(reader.history(9).unwrap().len(), 1);
    journal.record_decision(&decision("b", &[2]), &plan(), Stage::Planned, "", AT).unwrap();
    assert_eq!(reader.history(9).unwrap().len(), 2);
    assert!(reader.record_stage("a", Stage::Failed, "", AT).is_err());
}

#[test]
fn a_writer_beside_it_is_waited_for() {
    let (_dir, path) = place();
    let mut journal = Journal::open(&path).unwrap();
    journal.record_decision(&decision("d-1", &[1]), &plan(), Stage::Planned, "", AT).unwrap();
    let other = Connection::open(&path).unwrap();
    // As the archive does, at the worst moment: this stage is looked up before it is written.
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let ends = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        other.execute_batch("COMMIT").unwrap();
    });
    journal.record_stage("d-1", Stage::Applying, "", AT).expect("it waits for the other writer");
    ends.join().unwrap();
}
