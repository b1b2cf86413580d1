//! The reports that are served, and what is said where the journal cannot be read.

use super::*;
use crate::{
    guard::{Entry, Moment},
    journal::{Journal, archive::Archive},
    watch::report,
};

/// The decision of the story, as the line tells it.
fn decided() -> (String, Entry) {
    let view = story::snapshot(story::DECIDED).deployments[story::DEPLOYMENT].decision.clone().expect("decided");
    let (decision, plan) = (view.decision, crate::orchestrator::Plan::default());
    (decision.id.clone(), Entry::Decided { decision, plan, stage: view.stage, detail: view.detail })
}

#[tokio::test]
async fn a_report_stays_what_it_was_when_another_canary_runs() {
    let (addr, snapshots, board) = served().await;
    (0..=story::DECIDED).for_each(|i| board.record(&story::snapshot(i)));
    let (id, entry) = decided();
    board.tell(entry);
    snapshots.send_replace(Arc::new(story::snapshot(story::DECIDED)));
    let verdict = async || {
        let (head, body) = get(addr, &format!("/report/{id}")).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let section = body.split("<section id=\"verdict\"").nth(1).and_then(|rest| rest.split("</section>").next());
        section.unwrap_or_else(|| panic!("no verdict in {body}")).to_owned()
    };
    let first = verdict().await;
    assert!(first.contains("REGRESSED") && first.contains("CPU per turnaround +31 %"), "{first}");
    let mut healthy = story::snapshot(50);
    healthy.deployments.get_mut(story::DEPLOYMENT).expect("the story's deployment").window.index = story::WINDOWS;
    board.record(&healthy);
    snapshots.send_replace(Arc::new(healthy));
    assert_eq!(verdict().await, first);
}

#[tokio::test]
async fn a_report_is_what_the_journal_kept_of_its_decision() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("journal.db");
    let mut journal = Journal::open(&path).expect("a new journal");
    let (addr, snapshots, board) = served_with(Some(path.clone())).await;
    let (id, entry) = decided();
    let Entry::Decided { decision, plan, stage, detail } = &entry else { panic!("a decision: {entry:?}") };
    journal.record_decision(decision, plan, *stage, detail, Moment::default()).expect("writable");
    board.tell(entry);
    snapshots.send_replace(Arc::new(story::snapshot(50)));
    let without = get(addr, &format!("/report/{id}")).await.1;
    assert!(without.contains("not kept any more") && !without.contains("HEALTHY"), "not the state of now: {without}");
    let state = api::State::from(&story::snapshot(story::DECIDED));
    let mut evidence = report::Evidence::at(&state, story::DEPLOYMENT).expect("the story's deployment");
    evidence.deployment.verdict.reasons = vec!["as it was kept".to_owned()];
    let mut archive = Archive::open(&path).expect("a journal");
    archive.keep(&id, &serde_json::to_string(&evidence).expect("JSON")).expect("writable");
    drop(journal);
    assert!(get(addr, &format!("/report/{id}")).await.1.contains("as it was kept"));
    // One that is not among the latest is found there, too.
    let (later, _snapshots, _board) = served_with(Some(path)).await;
    assert!(get(later, &format!("/report/{id}")).await.1.contains("as it was kept"));
}

#[tokio::test]
async fn a_report_comes_in_the_form_that_is_asked_for() {
    let (addr, _snapshots, board) = served().await;
    (0..=story::DECIDED).for_each(|i| board.record(&story::snapshot(i)));
    let (id, entry) = decided();
    board.tell(entry);
    let path = format!("/report/{id}");
    let markdown = ("content-type: text/markdown; charset=utf-8", "## checkout: rollback planned");
    let json = ("content-type: application/json", "{\n  \"decision\": {");
    let html = ("content-type: text/html; charset=utf-8", "<!DOCTYPE html>");
    for (query, accept, (kind, begins)) in [
        ("", "*/*", html),
        ("", "text/markdown", markdown),
        ("", "application/json", json),
        ("?format=markdown", "text/html", markdown),
        ("?format=json", "*/*", json),
        ("?format=html", "application/json", html),
    ] {
        let (head, body) = get_as(addr, &format!("{path}{query}"), accept).await;
        let body = String::from_utf8(body).expect("text");
        assert!(head.starts_with("HTTP/1.1 200") && head.contains(kind), "{query} {accept}: {head}");
        assert!(head.contains("vary: accept"), "{query} {accept}: {head}");
        assert!(body.starts_with(begins), "{query} {accept}: {body}");
    }
    let whole: report::DecisionReport = super::json(addr, &format!("{path}?format=json")).await;
    assert_eq!(whole.decision.decision.id, id);
    assert_eq!(whole.evidence.map(|e| e.deployment.window), Some(story::DECIDED));
    let (head, body) = get(addr, &format!("{path}?format=pdf")).await;
    assert!(head.starts_with("HTTP/1.1 400") && body.contains("markdown"), "what there is is told: {head} {body}");
}

#[tokio::test]
async fn a_journal_that_cannot_be_read_is_no_word_on_whether_there_is_a_decision() {
    let dir = tempfile::tempdir().expect("a directory");
    let (addr, _snapshots, board) = served_with(Some(dir.path().join("journal.db"))).await;
    let (id, entry) = decided();
    let (head, body) = get(addr, &format!("/report/{id}")).await;
    assert!(head.starts_with("HTTP/1.1 503") && body.contains("cannot be read"), "{head} {body}");
    board.tell(entry);
    assert!(get(addr, &format!("/report/{id}")).await.0.starts_with("HTTP/1.1 200"), "what is in memory is enough");
}

#[tokio::test]
async fn evidence_that_cannot_be_read_leaves_a_report_without_charts() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("journal.db");
    let mut journal = Journal::open(&path).expect("a new journal");
    let (id, entry) = decided();
    let Entry::Decided { decision, plan, stage, detail } = &entry else { panic!("a decision: {entry:?}") };
    journal.record_decision(decision, plan, *stage, detail, Moment::default()).expect("writable");
    let mut archive = Archive::open(&path).expect("a journal");
    archive.keep(&id, "{\"of\":\"another version\"}").expect("writable");
    let (addr, _snapshots, _board) = served_with(Some(path)).await;
    let (head, body) = get(addr, &format!("/report/{id}")).await;
    assert!(head.starts_with("HTTP/1.1 200") && body.contains("or cannot be read"), "{head} {body}");
    assert!(body.contains("checkout: rollback planned") && !body.contains("<svg"), "{body}");
}
