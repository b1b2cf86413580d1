//! The five answers in each situation, and that a name is text and no markup.

use std::sync::Arc;

use super::{
    answers::{AWAY_IN_CRASH_LOOP_MS, AWAY_MS, Next, headline, next},
    *,
};
use crate::{
    guard::{Action, GateResult, Mode, Stage},
    orchestrator::Plan,
    watch::{
        Board, api, page,
        story::{self, DEPLOYMENT},
    },
};

struct Seen {
    state: api::State,
    windows: Vec<WindowPoint>,
    decisions: Vec<Arc<DecisionLife>>,
}

/// The story up to a window.
fn seen(index: u64) -> Seen {
    let board = Board::default();
    (0..=index).for_each(|i| board.record(&story::snapshot(i)));
    let state = api::State::from(&story::snapshot(index));
    let life = |d: &api::DecisionState| {
        let steps = vec!["stop it by hand".to_owned()];
        let plan = Plan { orchestrator: "fake".into(), steps, inverse: None, ..Plan::default() };
        let stage = crate::journal::StageEntry { stage: d.stage, detail: d.detail.clone(), unix_ms: state.unix_ms };
        Arc::new(DecisionLife { decision: d.decision.clone(), plan, stages: vec![stage] })
    };
    let decisions = state.deployments[0].decision.iter().map(life).collect();
    Seen { windows: board.windows(DEPLOYMENT, 0, usize::MAX).expect("known"), decisions, state }
}

impl Seen {
    fn view(&self) -> View<'_> {
        let deployment = &self.state.deployments[0];
        View { deployment, windows: &self.windows, decisions: &self.decisions, verdicts: &[], paused: None }
    }

    /// As a judge recommends it.
    fn advised(mut self) -> Self {
        self.state.deployments[0].verdict.recommendations = story::recommendations();
        self
    }

    fn blocked_by(mut self, gate: &str) -> Self {
        let decision = self.state.deployments[0].decision.as_mut().expect("decided");
        decision.stage = Stage::Blocked;
        let blocked = GateResult { gate: gate.into(), passed: false, reason: format!("{gate} says no") };
        decision.decision.gates.push(blocked);
        self
    }

    fn at(mut self, stage: Stage) -> Self {
        self.state.deployments[0].decision.as_mut().expect("decided").stage = stage;
        self
    }

    /// And then its rollout is held, by a hold with these stages.
    fn holding(mut self, stages: &[Stage]) -> Self {
        let decided = story::snapshot(story::DECIDED).deployments[DEPLOYMENT].decision.clone().expect("decided");
        let mut hold = api::DecisionState::from(&decided);
        (hold.decision.action, hold.decision.id) = (Action::Hold, "checkout-hold".to_owned());
        (hold.stage, hold.t_ns) = (*stages.last().expect("one"), u64::MAX);
        let entry = |stage: &Stage| crate::journal::StageEntry { stage: *stage, detail: String::new(), unix_ms: 0 };
        let stages = stages.iter().map(entry).collect();
        let life = DecisionLife { decision: hold.decision.clone(), plan: Plan::default(), stages };
        self.decisions.insert(0, Arc::new(life));
        self.state.deployments[0].hold = Some(hold);
        self
    }

    fn in_mode(mut self, mode: Mode) -> Self {
        self.state.deployments[0].mode = mode;
        self
    }

    /// Nothing was decided.
    fn undecided(mut self) -> Self {
        self.state.deployments[0].decision = None;
        self
    }
}

#[test]
fn what_left_its_own_usual_band_is_told_and_nothing_else_is() {
    let told = |index: u64| stretches(&seen(index).state.deployments[0].verdict).into_string();
    assert_eq!(told(story::ONSET), "");
    assert!(told(story::DECIDED).contains("<li>canary: CPU per turnaround +31 % since window 60 (so far: step)</li>"));
}

#[test]
fn the_page_has_each_recommendation_with_its_command_as_it_is_typed() {
    let mut snapshot = story::snapshot(story::DECIDED);
    let board = Board::default();
    board.record(&snapshot);
    let without = page::now(&snapshot, &board, None, 900).into_string();
    assert!(!without.contains(ADVICE), "there are none: {without}");
    let verdict = &mut snapshot.deployments.get_mut(DEPLOYMENT).expect("the story's deployment").verdict;
    verdict.recommendations = story::recommendations();
    verdict.recommendations[1].command = Some("echo max >'/sys/fs/cgroup/shop/cpu.max'".to_owned());
    let text = page::now(&snapshot, &board, None, 900).into_string();
    for part in [
        "Recommendations",
        "<strong>Roll back</strong> (risk medium, confidence high)<br>more work per request: CPU per turnaround +31 %",
        "<pre>systemctl stop 'checkout-canary-1.service'</pre>",
        "Undo: deploy the canary again. What would change this advice: the rise is meant and paid for.",
        "<strong>Throttle</strong> (risk medium, confidence medium)<br>keeps its extra work from others",
        "<pre>echo max &gt;'/sys/fs/cgroup/shop/cpu.max'</pre>",
    ] {
        assert!(text.contains(part), "'{part}' is missing in {text}");
    }
}

#[test]
fn each_situation_has_its_answers() {
    let told = |seen: &Seen| {
        let Next { what, commands, .. } = next(&seen.view());
        (headline(&seen.view()), what, commands.join("; "))
    };
    let (worse, what, _) = told(&seen(10));
    assert_eq!((&*worse, &*what), ("Cannot be told: too little data", "Wait, and see that the canary gets traffic"));
    assert_eq!(told(&seen(30)).1, "Wait");
    let (worse, what, _) = told(&seen(50));
    assert_eq!((&*worse, &*what), ("No: it is as good as stable so far", "Go on with the rollout"));
    let mut little = seen(50);
    let verdict = &mut little.state.deployments[0].verdict;
    (verdict.outcome, verdict.healthy_at_load) = (Outcome::Inconclusive, Some(0.2));
    let (worse, what, _) = told(&little);
    assert!(worse.starts_with("Not at the little load that it has"), "{worse}");
    assert_eq!(what, "Give canary and stable the same load per instance");
    let (worse, what, _) = told(&seen(story::DECIDED + 2));
    assert_eq!(worse, "Yes, it is worse: more work per request");
    assert!(what.starts_with("Wait: the guard verifies"), "{what}");
    assert!(told(&seen(story::DECIDED + 9)).1.starts_with("Nothing: mend it"));
    let (_, what, commands) = told(&seen(story::DECIDED).advised().blocked_by("mode"));
    assert_eq!((&*what, &*commands), ("Take the canary back", "systemctl stop 'checkout-canary-1.service'"));
    assert!(told(&seen(story::DECIDED).blocked_by("budget")).1.contains("what holds the guard back"));
}

#[test]
fn what_to_do_by_hand_is_a_command_or_told_in_words() {
    let stop = "systemctl stop 'checkout-canary-1.service'";
    // A dry run ends with its plan and no gate that blocks.
    for seen in [seen(story::DECIDED).blocked_by("mode"), seen(story::DECIDED).at(Stage::Blocked)] {
        assert_eq!(next(&seen.view()).commands, [] as [&str; 0], "a plan is no command");
        assert!(next(&seen.view()).why.ends_with("It planned: stop it by hand."), "{}", next(&seen.view()).why);
        assert_eq!(next(&seen.advised().view()).commands, [stop]);
    }
    // What was recommended then, where nothing is now.
    let mut before = seen(story::DECIDED).blocked_by("mode");
    let decision = &mut before.state.deployments[0].decision.as_mut().expect("decided").decision;
    decision.recommendation = Some(story::recommendations().remove(0));
    assert_eq!(next(&before.view()).commands, [stop]);
}

#[test]
fn a_pause_is_ended_by_the_command_for_that_pause() {
    let seen = seen(story::DECIDED).advised().blocked_by("pause");
    let told = |paused| next(&View { paused, ..seen.view() }).commands;
    let stop = "systemctl stop 'checkout-canary-1.service'".to_owned();
    for (paused, command) in [
        ("by root: see `ticket 7`; `canary resume` ends it", "canary resume"),
        ("by root; `canary resume checkout` ends it", "canary resume checkout"),
        ("/run/p exists; `canary resume --pause-file /run/p` removes it", "canary resume --pause-file /run/p"),
    ] {
        assert_eq!(told(Some(paused)), [command.to_owned(), stop.clone()], "{paused}");
    }
    assert_eq!(told(Some("cannot tell whether /run/p exists: denied")), [stop]);
    assert!(told(None).is_empty(), "it is over");
}

#[test]
fn whoever_acts_next_is_told_at_each_stage() {
    let told = |seen: &Seen| {
        let Next { what, commands, .. } = next(&seen.view());
        (what, commands.join("; "))
    };
    let id = &seen(story::DECIDED).state.deployments[0].decision.as_ref().expect("decided").decision.id.clone();
    let (what, command) = told(&seen(story::DECIDED).blocked_by("approval").at(Stage::Planned));
    assert!(what.starts_with("Approve it") && command == format!("canary approve {id}"), "{what}: {command}");
    let (what, command) = told(&seen(story::DECIDED).advised().at(Stage::Declined));
    assert_eq!((&*what, &*command), ("Take the canary back by hand", "systemctl stop 'checkout-canary-1.service'"));
    for stage in [Stage::Verified, Stage::Recovered, Stage::Closed] {
        assert!(told(&seen(story::GONE + 8).at(stage)).0.starts_with("Nothing: mend it"), "{stage:?}");
        // Another canary runs: what was done to the one before says nothing about it.
        assert_eq!(told(&seen(story::DECIDED).at(stage)).0, "Wait: the guard decides in the next window", "{stage:?}");
    }
    let (what, command) = told(&seen(story::GONE + 8).at(Stage::NotRecovered));
    assert!(what.starts_with("Look elsewhere") && command == format!("canary undo {id}"), "{what}: {command}");
}

#[test]
fn what_was_approved_is_no_longer_said_to_wait_for_that() {
    let waited = |stage: Stage| {
        let seen = seen(story::DECIDED).blocked_by("approval").at(stage);
        answers::answers(&seen.view()).into_string()
    };
    assert!(waited(Stage::Planned).contains("approval says no"));
    for stage in [Stage::Approved, Stage::Applying, Stage::Verified, Stage::Recovered, Stage::Declined] {
        let told = waited(stage);
        let has_detail = told.contains("intent and way back are in the journal");
        assert!(has_detail && !told.contains("approval says no"), "{stage:?}: {told}");
    }
}

#[test]
fn what_failed_is_explained_by_its_own_id_whatever_was_decided_since() {
    let failed = seen(story::DECIDED).at(Stage::Failed);
    let id = failed.state.deployments[0].decision.as_ref().expect("decided").decision.id.clone();
    assert_eq!(told(&failed.holding(&[Stage::Verified])).1, format!("canary explain {id}"));
    assert_eq!(told(&seen(story::DECIDED).blocked_by("budget")).1, format!("canary explain {id}"));
    let hold = seen(50).holding(&[Stage::Applying, Stage::Failed]);
    assert_eq!(told(&hold).1, "canary explain checkout-hold");
}

/// What is to be done next, and the commands for it.
fn told(seen: &Seen) -> (String, String) {
    let Next { what, commands, .. } = next(&seen.view());
    (what, commands.join("; "))
}

#[test]
fn the_link_to_a_report_leads_there_whatever_the_deployment_is_called() {
    let mut seen = seen(story::DECIDED);
    Arc::make_mut(&mut seen.decisions[0]).decision.id = "shop/eu?-1795000000000-0001".to_owned();
    let text = history::timeline(&seen.view(), Some("report/")).into_string();
    assert!(text.contains("href=\"report/shop%2Feu%3F-1795000000000-0001\""), "{text}");
}

#[test]
fn a_hold_takes_no_canary_away() {
    let (what, command) = told(&seen(50).holding(&[Stage::Verified]));
    assert_eq!((&*what, &*command), ("Let the rollout go on", "canary undo checkout-hold"));
    let (what, _) = told(&seen(50).holding(&[Stage::Applied]));
    assert_eq!(what, "Wait: the rollout is about to stand still");
    assert_eq!(told(&seen(50).holding(&[Stage::Reverted])).0, "Go on with the rollout");
    let observes = seen(story::DECIDED).blocked_by("mode").in_mode(Mode::Observe);
    let (what, command) = told(&observes.holding(&[Stage::Verified]));
    assert_eq!((&*what, &*command), ("Take the canary back", "canary rollback checkout"));
    // It is away for a moment: a hold has not taken it away.
    let away = seen(story::GONE).undecided().holding(&[Stage::Verified]);
    assert!(headline(&away.view()).starts_with("Yes, it is worse"), "{}", headline(&away.view()));
}

#[test]
fn a_canary_that_is_worse_is_told_of_as_if_its_rollout_were_not_held() {
    let (what, _) = told(&seen(story::DECIDED).undecided().holding(&[Stage::Closed]));
    assert_eq!(what, "Wait: the guard decides in the next window");
    // What the guard leaves alone it does not decide about, held or not.
    for (stage, what) in [
        (Stage::Undone, "Take the canary back by hand"),
        (Stage::Declined, "Take the canary back by hand"),
        (Stage::Reverted, "Find out who brought the canary back"),
        (Stage::Failed, "Take the canary back by hand"),
    ] {
        let seen = seen(story::DECIDED).at(stage).holding(&[Stage::Verified]);
        assert_eq!(told(&seen).0, what, "{}", stage.name());
        assert_eq!(told(&seen).0, told(&self::seen(story::DECIDED).at(stage)).0, "{}", stage.name());
    }
}

#[test]
fn a_hold_hides_nothing_that_is_under_way_or_waits_for_a_person() {
    let waits = seen(story::DECIDED).blocked_by("approval").at(Stage::Planned).holding(&[Stage::Applied]);
    assert!(told(&waits).0.starts_with("Approve it"), "{}", told(&waits).0);
    let text = answers::answers(&waits.view()).into_string();
    for part in ["Done, being verified: hold", "Nothing yet: rollback waits for approval"] {
        assert!(text.contains(part), "'{part}' is missing in {text}");
    }
}

#[test]
fn a_hold_that_is_not_watched_any_longer_is_not_over() {
    let text = |seen: Seen| answers::answers(&seen.view()).into_string();
    assert!(text(seen(50).holding(&[Stage::Verified])).contains("The rollout is held"));
    let closed = text(seen(50).holding(&[Stage::Closed]));
    assert!(
        closed.contains("Held; not watched any longer") && closed.contains("canary undo checkout-hold"),
        "{closed}"
    );
    assert!(closed.contains("whether it still is, is not watched any longer"), "{closed}");
}

#[test]
fn a_hold_of_a_version_that_is_gone_is_told_no_more() {
    let mut snapshot = story::snapshot(50);
    let mut hold = story::snapshot(story::DECIDED).deployments[DEPLOYMENT].decision.clone().expect("decided");
    hold.decision.action = Action::Hold;
    let mut told = |stage: Stage, version: &str| {
        hold.stage = stage;
        hold.decision.canary.iter_mut().for_each(|target| target.version = version.into());
        snapshot.deployments.get_mut(DEPLOYMENT).expect("the story's deployment").hold = Some(hold.clone());
        api::State::from(&snapshot).deployments[0].hold.is_some()
    };
    let there =
        story::snapshot(50).deployments[DEPLOYMENT].samples.last().expect("a canary").target.version.to_string();
    for over in [Stage::Closed, Stage::Failed, Stage::Reverted] {
        assert!(told(over, &there) && !told(over, "v1.4.9"), "{}", over.name());
    }
    assert!(told(Stage::Undoing, "v1.4.9"), "what is under way is told");
}

#[test]
fn an_undo_that_failed_is_not_what_was_to_be_undone() {
    assert_eq!(told(&seen(50).holding(&[Stage::Applying, Stage::Failed])).0, "Hold the rollout by hand");
    let undone = seen(50).holding(&[Stage::Verified, Stage::Undoing, Stage::Failed]);
    assert_eq!(told(&undone).0, "Let the rollout go on by hand");
    assert!(answers::answers(&undone.view()).into_string().contains("The undo failed: hold"));
    let mut rolled_back = seen(story::DECIDED).at(Stage::Failed);
    let life = Arc::make_mut(&mut rolled_back.decisions[0]);
    life.stages[0].stage = Stage::Undoing;
    life.plan.inverse = Some("start it".to_owned());
    let Next { what, why, .. } = next(&rolled_back.view());
    assert_eq!((&*what, &*why), ("Get back by hand", "The guard's undo failed. The way back: start it."));
}

#[test]
fn the_blocks_say_what_they_draw_in_words_too() {
    let seen = seen(story::DECIDED + 1);
    let text = answers::answers(&seen.view()).into_string();
    for part in [
        "Is it worse?",
        "Is a canary running?",
        "Yes: v1.5.0, 1 instance",
        "How sure are we?",
        "of 1\u{202f}000",
        "What did we do?",
        "What to do next?",
    ] {
        assert!(text.contains(part), "'{part}' is missing in {text}");
    }
    let text = indicators(&seen.view(), 1000).into_string();
    assert!(text.contains("not measured: this kernel has no memory.pressure file"), "{text}");
    assert!(text.find("CPU per turnaround") < text.find("memory in use"), "what is worse comes first");
    assert_eq!(text.matches("<svg").count(), 8, "one each, but for what is not measured");
    assert_eq!(text.matches("role=\"img\" aria-label=\"").count(), 8, "{text}");
    assert!(text.contains("aria-label=\"CPU per turnaround of stable and canary over time\""), "{text}");
    assert!(!text.contains("NaN"));
    let text = causes(&seen.state.deployments[0].verdict).into_string();
    assert!(text.contains("more work per request") && text.contains("Not compared: memory stall"), "{text}");
    let chart = figures::course(&seen.view(), 900).expect("windows");
    let names = |chart: &crate::watch::chart::Chart| chart.marks.iter().map(|m| m.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&chart), ["onset", "planned"]);
    // On each indicator, too: when it began, and when something was really done.
    let cpu = crate::window::Indicator::CpuPerWork;
    assert_eq!(names(&figures::indicator(cpu, &seen.view(), 300).expect("readings")), ["onset"]);
    let acted = self::seen(story::DECIDED + 4);
    assert_eq!(names(&figures::indicator(cpu, &acted.view(), 300).expect("readings")), ["onset", "applied"]);
}

#[test]
fn of_a_canary_that_is_gone_the_last_is_told_and_nothing_is_recommended() {
    // Taken away by the guard, and by somebody else a while ago.
    let by_guard = seen(story::DECIDED + 8);
    let mut by_hand = seen(story::WINDOWS - 1).blocked_by("mode").advised();
    by_hand.windows.last_mut().expect("windows").unix_ms += AWAY_MS;
    for seen in [&by_guard, &by_hand] {
        assert_eq!(headline(&seen.view()), "It was worse, and is gone: more work per request");
        assert!(next(&seen.view()).what.starts_with("Nothing: mend it"), "{:?}", next(&seen.view()));
        let tiles = indicators(&seen.view(), 1000).into_string();
        let cpu = tiles.split("<h3>CPU per turnaround</h3>").nth(1).expect("a tile");
        assert!(cpu.starts_with("<p class=\"numbers\">before it went: stable <b>"), "{cpu}");
        let numbers = cpu.split("</p>").next().expect("numbers");
        assert!(!numbers.contains(units::MISSING) && !cpu.contains("not compared yet: learning"), "{numbers}");
    }
    // It went before it could be compared.
    let mut early = seen(story::DECIDED + 8);
    let missing = || Some("learned from 0 of 300 windows of stable".to_owned());
    early.state.deployments[0].verdict.indicators.iter_mut().for_each(|state| state.missing = missing());
    for point in early.windows.iter_mut().flat_map(|w| w.indicators.values_mut()) {
        (point.effect, point.margin) = (None, None);
    }
    let tiles = indicators(&early.view(), 1000).into_string();
    assert!(tiles.contains("not compared while it was there") && !tiles.contains("not compared yet"), "{tiles}");
    // It is away for a moment: one that crashes is about to be started again.
    let mut away = seen(story::GONE).at(Stage::Applied).advised();
    assert!(headline(&away.view()).starts_with("Yes, it is worse"));
    away.windows.last_mut().expect("windows").unix_ms += AWAY_MS;
    assert!(headline(&away.view()).starts_with("It was worse"));
    away.state.deployments[0].verdict.hard = Some(crate::judge::HardFact::CrashLoop);
    assert_eq!(headline(&away.view()), "Yes: it keeps crashing");
    away.windows.last_mut().expect("windows").unix_ms += AWAY_IN_CRASH_LOOP_MS;
    assert_eq!(headline(&away.view()), "It was worse, and is gone: it kept crashing");
}

#[test]
fn the_page_recommends_nothing_for_a_canary_that_is_gone() {
    let board = Board::default();
    let mut snapshot = story::snapshot(story::DECIDED + 8);
    snapshot.deployments.get_mut(DEPLOYMENT).expect("the story's deployment").verdict.recommendations =
        story::recommendations();
    (0..=story::DECIDED + 8).for_each(|i| board.record(&story::snapshot(i)));
    let text = page::now(&snapshot, &board, None, 900).into_string();
    assert!(text.contains("It was worse, and is gone") && !text.contains(ADVICE), "{text}");
}

#[test]
fn evidence_is_told_as_of_now_or_as_of_when_it_condemned() {
    let mut seen = seen(story::DECIDED + 1);
    let told = |seen: &Seen| answers::answers(&seen.view()).into_string();
    let text = told(&seen);
    assert!(text.contains("When it was condemned: CPU per turnaround +31 %"), "{text}");
    assert!(text.contains("of 1\u{202f}000 by now</p>"), "{text}");
    assert!(causes(&seen.state.deployments[0].verdict).into_string().contains(" when it was condemned)"));
    // A verdict that stands beside evidence that fell is no contradiction.
    seen.state.deployments[0].verdict.evidence_ln = -1.0;
    assert!(told(&seen).contains("<p class=\"answer\">Condemned; &lt;1 of 1\u{202f}000 by now</p>"), "{}", told(&seen));
    seen.state.deployments[0].verdict.hard = Some(crate::judge::HardFact::OomKill);
    let text = told(&seen);
    assert!(text.contains("As sure as a fact is") && !text.contains("role=\"meter\""), "{text}");
    let undecided = told(&self::seen(50));
    assert!(!undecided.contains("condemned") && !undecided.contains("by now"), "{undecided}");
}

#[test]
fn before_there_is_any_p_its_chart_says_why_to_those_who_see_it_and_to_the_others() {
    let early = seen(5);
    let course = figures::course(&early.view(), 900).expect("windows");
    let why = "No P(t) yet: 5 of 20 windows of stable are in, to learn its noise from";
    assert_eq!(course.panels[0].instead(), Some(why));
    assert_eq!(course_in_words(&course), format!("{COURSE}. {why}"));
    let board = Board::default();
    board.record(&story::snapshot(5));
    let page = page::now(&story::snapshot(5), &board, None, 900).into_string();
    assert!(page.contains(&format!("aria-label=\"{COURSE}. {why}\"")), "{page}");
    let later = figures::course(&seen(story::DECIDED).view(), 900).expect("windows");
    assert_eq!(course_in_words(&later), COURSE);
}

#[test]
fn one_stall_does_not_flatten_a_chart_and_is_told() {
    let mut seen = seen(story::DECIDED);
    let wait = crate::window::Indicator::RunQueueWait;
    let drawn = |seen: &Seen| figures::indicator(wait, &seen.view(), 300).expect("readings").panels.remove(0);
    assert_eq!(drawn(&seen).label, "", "nothing is cut");
    let stalled = seen.windows[40].indicators.get_mut(wait.name()).expect("measured");
    stalled.stable = Some(90e6);
    let panel = drawn(&seen);
    assert_eq!(panel.label, "highest: 90.0 ms");
    let points = panel.lines.iter().flat_map(|l| &l.points).map(|(_, y)| *y);
    let bands = panel.bands.iter().flat_map(|b| &b.points).map(|(_, _, high)| *high);
    assert!(points.chain(bands).all(|y| y.is_nan() || y < 40_000.0), "the usual 13 µs can be seen: {panel:?}");
}

#[test]
fn each_name_has_its_verdict_beside_it_where_there_are_several() {
    let mut snapshot = story::snapshot(story::DECIDED);
    let board = Board::default();
    let alone = page::page(&snapshot, &board, None, false).into_string();
    assert!(!alone.contains("data-deployment"), "{alone}");
    let mut healthy = snapshot.deployments[DEPLOYMENT].clone();
    healthy.verdict = story::snapshot(50).deployments[DEPLOYMENT].verdict.clone();
    snapshot.deployments.insert("aaa".into(), healthy);
    let both = page::page(&snapshot, &board, None, false).into_string();
    for (name, outcome) in [("aaa", "healthy"), (DEPLOYMENT, "regressed")] {
        let tag =
            format!("{name}</a> <span class=\"tag {outcome}\" data-deployment=\"{name}\">{outcome}</span></span>");
        assert!(both.contains(&tag), "{tag} is not in {both}");
    }
}

#[test]
fn counts_that_begin_after_the_fact_say_so() {
    let mut verdict = seen(story::DECIDED).state.deployments[0].verdict.clone();
    let told =
        |verdict: &Verdict| events(verdict).into_string().contains("A fact counts from the canary's first moment on");
    assert!(!told(&verdict), "evidence is counted as they are");
    verdict.hard = Some(crate::judge::HardFact::CrashLoop);
    assert!(told(&verdict));
}

#[test]
fn names_are_text_and_no_markup() {
    let mut seen = seen(story::DECIDED);
    seen.state.deployments[0].verdict.reasons = vec!["<script>alert(1)</script>".to_owned()];
    let text = answers::answers(&seen.view()).into_string();
    assert!(!text.contains("<script>") && text.contains("&lt;script&gt;"), "{text}");
}

#[test]
fn what_is_not_compared_is_not_ruled_out() {
    let mut verdict = seen(story::DECIDED + 2).state.deployments[0].verdict.clone();
    let out = ruled_out(&verdict);
    assert!(!out.is_empty(), "something is ruled out");
    for state in &mut verdict.indicators {
        state.missing = Some("learned from 128 of 300 windows of stable".to_owned());
    }
    assert_eq!(ruled_out(&verdict), [""; 0]);
    assert!(not_measured(&verdict).len() >= out.len());
}
