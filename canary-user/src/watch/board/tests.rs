//! What is kept is bounded, what is missing stays missing, and listeners hear each stage once.

use super::*;
use crate::{
    guard::Stage,
    orchestrator::Plan,
    watch::story::{self, DEPLOYMENT},
};

fn decided(n: u64) -> Entry {
    let mut decision =
        story::snapshot(story::DECIDED).deployments[DEPLOYMENT].decision.clone().expect("decided").decision;
    decision.id = format!("{DEPLOYMENT}-{n}");
    let plan = Plan {
        orchestrator: "fake".into(),
        steps: vec!["stop it".into()],
        inverse: Some("start it".into()),
        ..Plan::default()
    };
    Entry::Decided { decision, plan, stage: Stage::Planned, detail: "stop it".into() }
}

#[test]
fn windows_are_kept_within_their_bound_and_missing_stays_missing() {
    let board = Board::default();
    for index in 0..story::WINDOWS {
        board.record(&story::snapshot(index));
    }
    let all = board.windows(DEPLOYMENT, 0, usize::MAX).expect("known");
    assert_eq!(all.len() as u64, story::WINDOWS);
    assert!(!all[30].indicators.contains_key("memory_stall"), "what is not measured has no number");
    assert_eq!(all[0].indicators["cpu_per_work"].margin, None, "not learned yet");
    assert!(all[70].indicators["cpu_per_work"].effect.is_some_and(|e| e > 0.2));
    assert_eq!(all[story::WINDOWS as usize - 1].p_canary, None, "the canary is gone: no number, not zero");
    assert_eq!(board.windows(DEPLOYMENT, 90, usize::MAX).expect("known").len(), 10);
    let newest = board.windows(DEPLOYMENT, 0, 3).expect("known");
    assert_eq!(newest.iter().map(|w| w.window).collect::<Vec<_>>(), [97, 98, 99]);
    assert_eq!(board.windows("other", 0, 3), None);

    let mut snapshot = story::snapshot(0);
    for index in 0..2 * WINDOWS_KEPT as u64 {
        snapshot.deployments.get_mut(DEPLOYMENT).expect("the story's deployment").window.index = index;
        board.record(&snapshot);
    }
    assert_eq!(board.windows(DEPLOYMENT, 0, usize::MAX).expect("known").len(), WINDOWS_KEPT);
    snapshot.deployments.clear();
    board.record(&snapshot);
    assert_eq!(board.windows(DEPLOYMENT, 0, 1), None, "a deployment that is gone takes no memory");
}

#[test]
fn decisions_keep_their_whole_life_within_the_bound() {
    let board = Board::default();
    let mut news = board.listen();
    for n in 0..2 * DECISIONS_KEPT as u64 {
        board.tell(decided(n));
        let id = format!("{DEPLOYMENT}-{n}");
        board.tell(Entry::Stage { decision_id: id, stage: Stage::Applying, detail: "called".into(), unix_ms: n });
        for stage in [Stage::Planned, Stage::Applying] {
            let Ok(News::Decision(life)) = news.try_recv() else { panic!("each stage is news") };
            assert_eq!(life.stage(), Some(stage));
        }
    }
    let kept = board.decisions(Some(DEPLOYMENT), usize::MAX);
    assert_eq!(kept.len(), DECISIONS_KEPT);
    assert_eq!(kept[0].decision.id, format!("{DEPLOYMENT}-{}", 2 * DECISIONS_KEPT - 1), "newest first");
    assert_eq!(kept[0].stages.len(), 2);
    assert!(board.decision(&kept[3].decision.id).is_some() && board.decision("none").is_none());
    assert!(board.decisions(Some("other"), 5).is_empty());
    board.tell(Entry::Stage { decision_id: "none".into(), stage: Stage::Failed, detail: String::new(), unix_ms: 0 });
    assert!(news.try_recv().is_err(), "a stage of a decision that nobody knows is no news");
}

#[test]
fn a_decision_keeps_the_state_that_it_was_made_on() {
    let board = Board::default();
    for index in [story::DECIDED - 1, story::DECIDED, story::DECIDED + 1, story::GONE] {
        board.record(&story::snapshot(index));
    }
    board.tell(decided(1));
    let mut snapshot = story::snapshot(story::GONE);
    for index in story::GONE + 1..story::GONE + 2 * STATES_KEPT as u64 {
        snapshot.deployments.get_mut(DEPLOYMENT).expect("the story's deployment").window.index = index;
        board.record(&snapshot);
    }
    let made_on = board.made_on(&format!("{DEPLOYMENT}-1")).expect("kept");
    assert_eq!(made_on.deployment.window, story::DECIDED);
    assert!(made_on.deployment.versions.iter().any(|v| v.version.as_ref() == "v1.5.0" && v.instances == 1));
    // Told far too late: the oldest that is known after it.
    board.tell(decided(2));
    let made_on = board.made_on(&format!("{DEPLOYMENT}-2")).expect("kept");
    assert_eq!(made_on.deployment.window, story::GONE + STATES_KEPT as u64);
    assert!(board.made_on("none").is_none());
}

#[test]
fn a_condemned_canary_that_is_away_for_long_is_told_as_gone_and_once() {
    let board = Board::default();
    let mut news = board.listen();
    let mut at_s = |story_index: u64, seconds: u64, change: fn(&mut Snapshot)| {
        let mut snapshot = story::snapshot(story_index);
        snapshot.t_ns = seconds * 1_000_000_000;
        change(&mut snapshot);
        board.record(&snapshot);
        news.try_recv().is_ok_and(|news| matches!(news, News::Gone { deployment, .. } if &*deployment == DEPLOYMENT))
    };
    assert!(!at_s(story::GONE, 100, |_| ()));
    assert!(!at_s(story::GONE, 399, |_| ()), "not for long enough");
    // One that crashes at each start is hardly ever seen alive.
    let dies = |snapshot: &mut Snapshot| {
        let samples = &mut snapshot.deployments.get_mut(DEPLOYMENT).expect("the story's deployment").samples;
        samples.iter_mut().for_each(|sample| sample.populated = Some(false));
    };
    assert!(!at_s(story::DECIDED, 400, dies));
    assert!(!at_s(story::GONE, 401, |_| ()));
    assert!(!at_s(story::GONE, 700, |_| ()), "counted anew");
    assert!(at_s(story::GONE, 701, |_| ()));
    assert!(!at_s(story::GONE, 2_000, |_| ()), "told once");
    let healthy = |snapshot: &mut Snapshot| {
        let view = snapshot.deployments.get_mut(DEPLOYMENT).expect("the story's deployment");
        view.verdict.outcome = Outcome::Healthy;
    };
    assert!(!at_s(story::GONE, 3_000, healthy));
    assert!(!at_s(story::GONE, 4_000, healthy), "one that was not condemned raised nothing");
}

#[test]
fn a_change_of_verdict_knows_the_one_before_it() {
    let board = Board::default();
    let mut news = board.listen();
    for index in [30, 50, story::DECIDED] {
        let verdict = story::snapshot(index).deployments[DEPLOYMENT].verdict.clone();
        board.tell(Entry::Verdict { deployment: DEPLOYMENT.into(), unix_ms: index, verdict });
    }
    let before: Vec<_> = board.verdicts(None, 10).iter().map(|v| v.before).collect();
    assert_eq!(before, [Some(Outcome::Healthy), Some(Outcome::Inconclusive), None]);
    assert!(matches!(news.try_recv(), Ok(News::Verdict(_))));
}
