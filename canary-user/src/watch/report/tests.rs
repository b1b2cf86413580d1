//! What a report says, and that it needs nothing else.

use super::*;
use crate::{
    guard::{Entry, GateResult, Stage},
    journal::StageEntry,
    orchestrator::Plan,
    watch::{
        Board, api,
        story::{self, DEPLOYMENT},
    },
};

fn story_of() -> (Arc<DecisionLife>, Evidence) {
    let board = Board::default();
    (0..story::WINDOWS).for_each(|i| board.record(&story::snapshot(i)));
    let at = |index| api::State::from(&story::snapshot(index));
    let stages = [0, 2, 4, 8].map(|after| {
        let state = at(story::DECIDED + after);
        let decision = state.deployments[0].decision.clone().expect("decided");
        StageEntry { stage: decision.stage, detail: decision.detail, unix_ms: state.unix_ms }
    });
    let api::State { span_ns, quality, machine, own, deployments, .. } = at(story::DECIDED);
    let decision = deployments[0].decision.clone().expect("decided").decision;
    let steps = vec!["systemctl stop checkout-canary-1.service".to_owned()];
    let plan =
        Plan { orchestrator: "fake".into(), steps, inverse: Some("systemctl start it".into()), ..Plan::default() };
    let windows = board.windows(DEPLOYMENT, 0, usize::MAX).expect("known");
    let mut deployment = deployments.into_iter().next().expect("one");
    deployment.verdict.recommendations = story::recommendations();
    let life = Arc::new(DecisionLife { decision, plan, stages: stages.to_vec() });
    (life, Evidence { deployment, span_ns, quality, machine, own, windows })
}

#[test]
fn a_report_is_whole_and_needs_nothing_else() {
    let (life, evidence) = story_of();
    let text = html(&Report { life: &life, evidence: Some(&evidence) });
    for part in [
        "checkout: rollback verified",
        "REGRESSED",
        "of 1\u{202f}000 needed to call it worse",
        "in window 60, 5.00 s before the decision",
        "more work per request",
        "Ruled out",
        "systemctl stop checkout-canary-1.service",
        "systemctl start it",
        "verified",
        "onset (",
        "The guard itself used",
        "Not compared: memory stall",
        "mode passed",
        "canary: CPU per turnaround +31 % since window 60 (so far: step)",
        "<strong>Roll back</strong> (risk medium, confidence high)",
        "<pre>systemctl stop 'checkout-canary-1.service'</pre>",
        "What would change this advice: the rise is meant and paid for.",
    ] {
        assert!(text.contains(part), "'{part}' is missing in\n{text}");
    }
    for outside in ["<script", "src=", "href=\"http", "@import", "url("] {
        assert!(!text.contains(outside), "{outside} would need something else");
    }
    assert!(text.matches("<svg").count() >= 6 && !text.contains("NaN"));
    assert_eq!(
        text.matches("<svg").count(),
        text.matches("role=\"img\" aria-label=\"").count(),
        "each is told in words"
    );
    let course =
        |screen: &str| format!("<div class=\"chart on-{screen}\" role=\"img\" aria-label=\"{}\"><svg", blocks::COURSE);
    assert!(text.contains(&course("wide")) && text.contains(&course("phone")), "{text}");
    let tile = text.split("<h3>CPU per turnaround</h3>").nth(1).and_then(|rest| rest.split("</svg>").next());
    let tile = tile.expect("a chart of its own");
    for (mark, colour) in [("onset", "#D55E00"), ("action", "#787878")] {
        assert!(tile.contains(&format!("stroke=\"{colour}\"")), "no {mark} in {tile}");
    }
    assert!(!tile.contains("onset ("), "small charts have no room for names");
}

#[test]
fn markdown_has_the_same_facts() {
    let (life, evidence) = story_of();
    let text = markdown(&Report { life: &life, evidence: Some(&evidence) });
    for part in [
        "## checkout: rollback verified",
        "### Verdict: regressed",
        "| CPU per turnaround |",
        "proven",
        "1. **more work per request**",
        "**verified**",
        "Way back: systemctl start it",
        "- canary: CPU per turnaround +31 % since window 60 (so far: step)",
        "### Recommendations\n\n1. **roll back** (risk medium, confidence high): more work per request",
        "   - command: `systemctl stop 'checkout-canary-1.service'`\n   - undo: deploy the canary again\n",
        "   - what would change this advice: the rise is meant and paid for\n2. **throttle**",
        "| since the canary's warm-up | stable | canary |\n|---|---|---|\n",
        "| retransmitted segments | 20 | 8 |",
        "| OOM kills | not measured | not measured |",
        "### Gates that were asked\n\n- mode passed: mode is rollback\n",
    ] {
        assert!(text.contains(part), "'{part}' is missing in\n{text}");
    }
    assert!(!text.contains(blocks::AFTER_THE_FACT), "it was condemned by evidence");
    let mut blocked = DecisionLife::clone(&life);
    blocked.decision.gates.push(GateResult { gate: "blast_radius".into(), passed: false, reason: "1 of 1".into() });
    let mut condemned = evidence.clone();
    condemned.deployment.verdict.hard = Some(crate::judge::HardFact::CrashLoop);
    let text = markdown(&Report { life: &Arc::new(blocked), evidence: Some(&condemned) });
    assert!(text.contains("rollback\n- blast radius **blocked**: 1 of 1\n"), "{text}");
    assert!(text.contains(blocks::AFTER_THE_FACT), "{text}");
}

#[test]
fn json_has_all_that_the_other_forms_are_made_from() {
    let (life, evidence) = story_of();
    let report = DecisionReport { decision: life, evidence: Some(evidence) };
    let json = report.text(Format::Json);
    assert_eq!(serde_json::from_str::<DecisionReport>(&json).expect("JSON"), report);
    for (format, begins) in [(Format::Html, "<!DOCTYPE html>"), (Format::Markdown, "## checkout: rollback verified")] {
        assert!(report.text(format).starts_with(begins), "{format:?}");
    }
}

#[test]
fn without_its_windows_a_report_says_so() {
    let (life, _) = story_of();
    let report = Report { life: &life, evidence: None };
    assert!(html(&report).contains(GONE) && markdown(&report).contains(GONE));
    assert!(!html(&report).contains("<svg"));
}

#[test]
fn evidence_comes_back_from_json_as_it_was_and_long_histories_are_thinned() {
    let (_, evidence) = story_of();
    let json = serde_json::to_string(&evidence).expect("JSON");
    assert_eq!(serde_json::from_str::<Evidence>(&json).expect("JSON"), evidence);
    let windows = (0..3600).map(|window| WindowPoint { window, ..evidence.windows[0].clone() }).collect();
    let kept = thinned(windows);
    assert!(kept.len() <= 602 && kept.len() > 550, "{}", kept.len());
    assert_eq!(kept.last().map(|w| w.window), Some(3599));
}

/// The report that was written after these stages of a decision that was planned, and what was kept of it.
async fn written_after(stages: &[Stage]) -> (String, Evidence) {
    written_late(story::DECIDED, stages).await
}

/// The same, where the decision is told after this window.
async fn written_late(window: u64, stages: &[Stage]) -> (String, Evidence) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("journal.db");
    let mut journal = crate::journal::Journal::open(&path).expect("a new journal");
    let board = Board::default();
    let (snapshots, receiver) = tokio::sync::watch::channel(Arc::default());
    let archive = crate::journal::archive::Archive::open(&path).expect("a journal");
    let reports = dir.path().join("reports");
    let directory = Some(Directory::new(reports.clone()));
    let reporter = tokio::spawn(Reporter::new(board.clone(), receiver, Some(archive), directory).run());
    tokio::task::yield_now().await;

    let (life, _) = story_of();
    let (decision, plan) = (life.decision.clone(), life.plan.clone());
    (story::DECIDED..=window).for_each(|i| board.record(&story::snapshot(i)));
    journal
        .record_decision(&decision, &plan, Stage::Planned, "planned", crate::guard::Moment::default())
        .expect("writable");
    board.tell(Entry::Decided { decision: decision.clone(), plan, stage: Stage::Planned, detail: "planned".into() });
    snapshots.send_replace(Arc::new(story::snapshot(window + 1)));
    for stage in stages {
        board.tell(Entry::Stage {
            decision_id: decision.id.clone(),
            stage: *stage,
            detail: format!("that it is {}", stage.name()),
            unix_ms: 9,
        });
    }
    drop(snapshots);
    reporter.await.expect("no panic");

    let written: Vec<_> = std::fs::read_dir(&reports).expect("reports").collect();
    assert_eq!(written.len(), 1, "one file, written anew");
    let written = std::fs::read_to_string(reports.join(format!("{}.html", decision.id))).expect("a report");
    let kept = journal.evidence(&decision.id).expect("readable").expect("kept");
    (written, serde_json::from_str(&kept).expect("JSON"))
}

#[tokio::test]
async fn the_report_writes_itself_when_an_action_ends() {
    let (written, kept) = written_after(&[Stage::Verified]).await;
    assert!(written.contains("checkout: rollback verified") && written.contains("REGRESSED"), "{written}");
    assert_eq!(kept.windows.len(), 1);
    let (written, _) = written_after(&[Stage::Declined]).await;
    assert!(written.contains("checkout: rollback declined"), "{written}");
}

#[tokio::test]
async fn a_decision_that_is_told_late_is_reported_with_what_it_was_made_on() {
    // The canary is gone by the time its orchestrator has said what it would do.
    let (written, kept) = written_late(story::GONE + 1, &[Stage::Blocked]).await;
    assert_eq!(kept.deployment.window, story::DECIDED);
    let cpu = kept.deployment.verdict.indicators.iter().find(|i| i.indicator.name() == "cpu_per_work");
    assert!(cpu.is_some_and(|i| i.stable.is_some() && i.canary.is_some()), "{cpu:?}");
    assert!(written.contains("checkout: rollback blocked"), "{written}");
}

#[tokio::test]
async fn the_report_is_written_anew_when_more_is_known() {
    use Stage::*;
    for last in [Recovered, NotRecovered, Reverted, Closed, Undone] {
        let (written, _) = written_after(&[Applying, Applied, Verified, last]).await;
        let heading = format!("checkout: rollback {}", last.name());
        assert!(written.contains(&heading) && written.contains("REGRESSED"), "{heading}: {written}");
        assert!(written.contains(&format!("that it is {}", last.name())), "{written}");
    }
}

#[tokio::test]
async fn after_a_restart_the_report_tells_what_was_seen_when_it_was_decided() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("journal.db");
    let mut journal = crate::journal::Journal::open(&path).expect("a new journal");
    let mut archive = crate::journal::archive::Archive::open(&path).expect("a journal");
    let (life, evidence) = story_of();
    let id = life.decision.id.clone();
    journal
        .record_decision(&life.decision, &life.plan, Stage::Planned, "planned", crate::guard::Moment::default())
        .expect("writable");
    archive.keep(&id, &serde_json::to_string(&evidence).expect("JSON")).expect("writable");
    // The guard begins anew: all it sees itself is that there is too little data.
    let board = Board::remembering(&journal).expect("readable");
    let mut snapshot = story::snapshot(10);
    snapshot.unix_ms = life.decision.unix_ms + 60_000;
    board.record(&snapshot);
    let (snapshots, receiver) = tokio::sync::watch::channel(Arc::new(snapshot));
    let reports = dir.path().join("reports");
    let directory = Some(Directory::new(reports.clone()));
    let reporter = tokio::spawn(Reporter::new(board.clone(), receiver, Some(archive), directory).run());
    tokio::task::yield_now().await;
    board.tell(Entry::Stage { decision_id: id.clone(), stage: Stage::Recovered, detail: "back".into(), unix_ms: 9 });
    drop(snapshots);
    reporter.await.expect("no panic");

    let written = std::fs::read_to_string(reports.join(format!("{id}.html"))).expect("a report");
    assert!(written.contains("checkout: rollback recovered") && written.contains("REGRESSED"), "{written}");
    let kept = journal.evidence(&id).expect("readable").expect("kept");
    assert_eq!(serde_json::from_str::<Evidence>(&kept).expect("JSON"), evidence);
}
