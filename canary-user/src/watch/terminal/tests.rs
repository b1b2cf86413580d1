use ratatui::{
    backend::TestBackend,
    style::{Color, Modifier},
};

use super::*;
use crate::{guard::Stage, watch::story};

fn live(width: u16, rows: u16, palette: Palette) -> Live<TestBackend> {
    let model = Model::new("a made-up story", None);
    Live::new(TestBackend::new(width, rows), rows, model, palette).expect("a view")
}

/// The screen as lines without the blanks at their ends.
fn screen(live: &Live<TestBackend>) -> Vec<String> {
    let buffer = live.terminal.backend().buffer();
    let row = |y| (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..buffer.area.height).map(|y| row(y).trim_end().to_owned()).collect()
}

fn play(live: &mut Live<TestBackend>, windows: std::ops::RangeInclusive<u64>) {
    live.model.set_footer(vec!["12 345 requests served, 0 failed".to_owned()]);
    for index in windows {
        live.draw(&story::snapshot(index)).expect("draws");
    }
}

#[track_caller]
fn has(screen: &[String], part: &str) {
    assert!(screen.iter().any(|l| l.contains(part)), "'{part}' is not on the screen:\n{}", screen.join("\n"));
}

#[test]
fn a_detail_that_has_no_room_beside_its_stage_stands_below_it() {
    let mut live = live(80, 24, Palette::Colour);
    play(&mut live, 0..=story::DECIDED + 8);
    let mut after = story::snapshot(story::DECIDED + 9);
    let view = after.deployments.get_mut(story::DEPLOYMENT).and_then(|d| d.decision.as_mut()).expect("decided");
    (view.stage, view.detail) = (Stage::Recovered, "the service is as it was before the canary".to_owned());
    live.draw(&after).expect("draws");
    let screen = screen(&live);
    let head = screen.iter().position(|l| l.ends_with("rollback done and verified, the service is back"));
    let below = &screen[head.expect("the stage") + 1];
    assert_eq!(below.trim_start(), "the service is as it was before the canary", "{}", screen.join("\n"));
    has(&screen, "12 345 requests served, 0 failed");
}

#[test]
fn a_detail_does_not_say_again_what_the_stage_said() {
    let mut live = live(120, 40, Palette::Colour);
    play(&mut live, 0..=story::DECIDED + 8);
    let mut after = story::snapshot(story::DECIDED + 9);
    let view = after.deployments.get_mut(story::DEPLOYMENT).and_then(|d| d.decision.as_mut()).expect("decided");
    (view.stage, view.detail) =
        (Stage::Recovered, "the service is back: stable serves 300 requests a second".to_owned());
    live.draw(&after).expect("draws");
    has(&screen(&live), "rollback done and verified, the service is back  stable serves 300 requests a second");
}

#[test]
fn what_was_approved_is_no_longer_said_to_wait_for_that() {
    let mut snapshot = story::snapshot(story::DECIDED + 8);
    let view = snapshot.deployments.get_mut(story::DEPLOYMENT).and_then(|d| d.decision.as_mut()).expect("decided");
    let reason = "a person has to approve it".to_owned();
    view.decision.gates = vec![crate::guard::GateResult { gate: "approval".into(), passed: false, reason }];
    let mut live = live(120, 40, Palette::Colour);
    live.draw(&snapshot).expect("draws");
    has(&screen(&live), "rollback done and verified  the canary's cgroup is empty and used no CPU for 4 windows");
}

#[test]
fn what_is_measured_and_not_compared_has_its_values_and_a_fact_has_no_bar() {
    let mut snapshot = story::snapshot(story::DECIDED);
    let verdict = &mut snapshot.deployments.get_mut(story::DEPLOYMENT).expect("the story's deployment").verdict;
    verdict.indicators[0].missing = Some("learned from 118 of 300 windows of stable".to_owned());
    verdict.hard = Some(crate::judge::HardFact::CrashLoop);
    let mut live = live(80, 24, Palette::Plain);
    live.draw(&snapshot).expect("draws");
    let screen = screen(&live);
    let cpu = screen.iter().find(|l| l.starts_with("CPU per turnaround")).expect("a row");
    // What has no room at the right is what can be done without.
    assert!(cpu.contains("µs  learned from 118 of 300 windows"), "{cpu}");
    has(&screen, "memory stall          not compared: this kernel has no memory.pressure file");
    let evidence = screen.iter().find(|l| l.starts_with("evidence")).expect("a row");
    assert!(evidence.ends_with(" of 1\u{202f}000; a fact condemned it, whatever that is"), "{evidence}");
}

#[test]
fn a_hold_stands_below_the_decision_while_it_is_of_interest() {
    let mut live = live(120, 40, Palette::Colour);
    play(&mut live, 0..=story::DECIDED + 8);
    let mut after = story::snapshot(story::DECIDED + 9);
    let view = after.deployments.get_mut(story::DEPLOYMENT).expect("the story's deployment");
    let mut hold = view.decision.clone().expect("decided");
    (hold.decision.action, hold.stage, hold.t_ns) = (crate::guard::Action::Hold, Stage::Verified, 0);
    view.hold = Some(hold);
    live.draw(&after).expect("draws");
    let shown = screen(&live);
    let at = shown.iter().position(|l| l.contains("rollback done and verified")).expect("the decision");
    let hold = shown.iter().position(|l| l.starts_with("hold ")).expect("the hold");
    assert!(hold > at && shown[hold].contains("the rollout stands still"), "{}", shown.join("\n"));
    // One that is over says nothing beside what was done since.
    let view = after.deployments.get_mut(story::DEPLOYMENT).and_then(|d| d.hold.as_mut()).expect("held");
    view.stage = Stage::Closed;
    live.draw(&after).expect("draws");
    assert!(!screen(&live).iter().any(|l| l.starts_with("hold ")));
}

#[test]
fn the_end_of_the_story_fits_80_by_24() {
    let mut live = live(80, 24, Palette::Colour);
    play(&mut live, 0..=story::DECIDED + 8);
    let screen = screen(&live);
    for part in [
        "a made-up story",
        "mode rollback: may roll back   0:22",
        "checkout: canary v1.5.0 (none running) against stable v1.4.2 (2 instances)",
        " It was worse, and is gone   more work per request: CPU per turnaround +31 %",
        "4\u{202f}024 of 1\u{202f}000",
        "stable v1.4.2",
        "memory stall          not compared: this kernel has no memory.pressure file",
        " proven",
        "events                segments sent again: canary 9, stable 22",
        "rollback done and verified",
        "12 345 requests served, 0 failed",
    ] {
        has(&screen, part);
    }
    let cpu = screen.iter().find(|l| l.starts_with("CPU per turnaround")).expect("a row of its own");
    assert!(cpu.contains("+3") && cpu.contains("+4.1 %") && cpu.contains("████████ proven"), "{cpu}");
    let last = screen.iter().rposition(|l| !l.is_empty()).expect("text");
    assert!(last < 24 && screen.len() == 24);
}

#[test]
fn a_canary_that_is_gone_is_told_in_the_words_of_the_page_and_alarms_nobody() {
    let alarms = |live: &Live<TestBackend>| {
        let cells = live.terminal.backend().buffer().content();
        cells.iter().any(|cell| cell.bg == Color::Red)
    };
    let mut acted = live(80, 24, Palette::Colour);
    play(&mut acted, 0..=story::DECIDED + 7);
    has(&screen(&acted), " REGRESSED ");
    assert!(alarms(&acted), "taken away, and not yet verified");
    play(&mut acted, story::DECIDED + 8..=story::DECIDED + 8);
    has(&screen(&acted), " It was worse, and is gone   more work per request: CPU per turnaround +31 %");
    assert!(!alarms(&acted) && !screen(&acted).iter().any(|l| l.contains("REGRESSED")), "{:#?}", screen(&acted));

    // Somebody else took it away: it is gone when it was away for five seconds, and not where it comes back before.
    let mut watched = live(80, 24, Palette::Colour);
    let only_watched = |index: u64| {
        let mut snapshot = story::snapshot(index);
        let view = snapshot.deployments.get_mut(story::DEPLOYMENT).expect("the story's deployment");
        if let Some(decision) = &mut view.decision {
            decision.stage = Stage::Blocked;
        }
        snapshot
    };
    let windows = 5_000_000_000 / story::SPAN_NS;
    for index in 0..story::GONE - 1 + windows {
        watched.draw(&only_watched(index)).expect("draws");
    }
    has(&screen(&watched), " REGRESSED ");
    watched.draw(&only_watched(story::GONE - 1 + windows)).expect("draws");
    has(&screen(&watched), " It was worse, and is gone ");
    let mut back = only_watched(story::GONE + windows);
    let then = story::snapshot(story::GONE - 1).deployments.remove(story::DEPLOYMENT).expect("the story's deployment");
    let now = back.deployments.get_mut(story::DEPLOYMENT).expect("the story's deployment");
    (now.samples, now.verdict) = (then.samples, then.verdict);
    watched.draw(&back).expect("draws");
    has(&screen(&watched), " REGRESSED ");
}

#[test]
fn columns_stand_below_each_other_and_nothing_is_cut() {
    for (width, rows) in [(80, 24), (120, 40)] {
        let mut live = live(width, rows, Palette::Plain);
        play(&mut live, 0..=70);
        let screen = screen(&live);
        let heading = screen.iter().find(|l| l.starts_with("indicator ")).expect("a heading");
        let end = |line: &str, word: &str| line.find(word).map(|at| line[..at + word.len()].chars().count());
        let allowed = end(heading, "allowed");
        let row = screen.iter().find(|l| l.starts_with("CPU per")).expect("a row");
        assert_eq!(end(row, "+4.1 %"), allowed, "\n{heading}\n{row}");
        for line in &screen {
            assert!(!line.contains('…'), "cut: {line}");
        }
        has(&screen, "INCONCLUSIVE");
        if width >= 100 {
            has(&screen, "% to +");
            has(&screen, "out-of-memory kills   not measured");
        }
    }
}

#[test]
fn any_size_is_drawn_without_a_panic_and_keeps_the_verdict() {
    for (width, rows) in [(1, 1), (7, 3), (20, 6), (40, 12), (79, 23), (81, 30), (300, 90)] {
        let mut live = live(width, rows, Palette::Colour);
        live.redraw().expect("draws before the first Snapshot");
        play(&mut live, 75..=90);
        live.log("a line that is longer than a narrow terminal is wide").expect("logs");
        live.finish().expect("finishes");
        if width >= 40 && rows >= 12 {
            has(&screen(&live), "It was worse, and is gone");
        }
    }
}

#[test]
fn without_colours_there_is_no_colour() {
    let mut live = live(100, 40, Palette::Plain);
    play(&mut live, 0..=story::WINDOWS - 1);
    let cells = live.terminal.backend().buffer().content();
    assert!(cells.iter().all(|c| c.fg == Color::Reset && c.bg == Color::Reset));
    assert!(cells.iter().any(|c| c.modifier.contains(Modifier::REVERSED)), "the verdict stands out all the same");
}

#[test]
fn a_window_without_p_leaves_a_gap_and_not_a_zero() {
    let mut live = live(80, 24, Palette::Colour);
    play(&mut live, 8..=13);
    let screen = screen(&live);
    let row = screen.iter().find(|l| l.starts_with("canary v1.5.0")).expect("a row");
    let bars: String = row.chars().skip(22).take(6).collect();
    assert!(bars.starts_with("  ") && bars.trim().chars().count() == 4, "two unknown, four known: '{bars}'");
}

#[test]
fn all_that_is_remembered_of_p_is_shown_however_narrow_the_terminal_is() {
    let mut live = live(80, 24, Palette::Colour);
    play(&mut live, 0..=story::WINDOWS - 1);
    let screen = screen(&live);
    let row = screen.iter().find(|l| l.starts_with("canary v1.5.0")).expect("a row");
    let bars: Vec<char> = row.chars().skip(22).take(50).collect();
    // Two windows to a bar: 10 without a value, then those until the canary was gone.
    assert!(bars[..5].iter().all(|c| *c == ' ') && bars[42..].iter().all(|c| *c == ' '), "'{row}'");
    assert!(bars[5..42].iter().all(|c| *c != ' '), "'{row}'");
}

#[test]
fn labels_are_legible_whatever_the_theme_and_a_gate_is_named_once() {
    assert_eq!((Palette::Colour.faint().fg, Palette::Plain.faint().fg), (None, None), "dimmed, and of no colour");
    assert_ne!(Palette::Colour.warning().fg, Some(Color::Yellow));
    let mut snapshot = story::snapshot(story::DECIDED);
    let view = snapshot.deployments.get_mut(story::DEPLOYMENT).and_then(|d| d.decision.as_mut()).expect("decided");
    view.stage = Stage::Blocked;
    let reason = "mode is observe: says that it would roll back and does nothing".to_owned();
    view.decision.gates = vec![crate::guard::GateResult { gate: "mode".into(), passed: false, reason }];
    let mut live = live(80, 24, Palette::Colour);
    play(&mut live, 0..=story::DECIDED - 1);
    live.draw(&snapshot).expect("draws");
    let screen = screen(&live);
    let head = screen.iter().position(|l| l.ends_with("rollback not done  mode is observe: says that it would"));
    let below = &screen[head.expect("the reason, whole") + 1];
    assert_eq!(below.trim_start(), "roll back and does nothing", "{}", screen.join("\n"));
}

#[test]
fn log_lines_go_above_the_frame_and_wrap() {
    let mut live = live(60, 40, Palette::Colour);
    play(&mut live, 0..=43);
    live.log("first\tline").expect("logs");
    live.log(&"word ".repeat(20)).expect("logs");
    let screen = screen(&live);
    let first = screen.iter().position(|l| l == "   0:11  first line").expect("stamped, without its tab");
    assert!(screen[first + 1].starts_with("   0:11  word word"));
    assert!(screen[first + 2].starts_with("         word"), "{screen:#?}");
    let title = screen.iter().position(|l| l.starts_with("a made-up story")).expect("the frame");
    assert!(title > first + 2);
}

#[test]
fn the_end_leaves_the_cursor_below_the_frame() {
    for rows in [24, 50] {
        let mut live = live(100, rows, Palette::Colour);
        play(&mut live, 0..=50);
        live.finish().expect("finishes");
        let screen = screen(&live);
        let last = screen.iter().rposition(|l| !l.is_empty()).expect("text");
        assert!(screen[last].starts_with("12 345 requests"), "{screen:#?}");
        let cursor = live.terminal.backend().cursor_position();
        assert_eq!(usize::from(cursor.y), last + 1, "{rows} rows");
    }
}

#[test]
fn the_deployment_with_most_evidence_is_shown_unless_one_is_asked_for() {
    let mut snapshot = story::snapshot(story::DECIDED);
    let mut quiet = story::snapshot(30).deployments.remove(story::DEPLOYMENT).expect("the story's deployment");
    quiet.window.deployment = "aaa".into();
    snapshot.deployments.insert("aaa".into(), quiet);
    let mut any = live(100, 40, Palette::Colour);
    any.draw(&snapshot).expect("draws");
    has(&screen(&any), "checkout: canary");
    has(&screen(&any), "also watched: aaa inconclusive");
    let mut asked = live(100, 40, Palette::Colour);
    asked.model = Model::new("asked", Some("aaa".to_owned()));
    asked.draw(&snapshot).expect("draws");
    has(&screen(&asked), "aaa: canary");
    asked.model = Model::new("asked", Some("nowhere".to_owned()));
    asked.draw(&snapshot).expect("draws");
    has(&screen(&asked), "Waiting for the first window");
}

#[test]
fn lost_events_and_missing_hooks_are_told() {
    let mut snapshot = story::snapshot(50);
    snapshot.quality.hooks_missing = vec!["mark_victim: no such tracepoint".to_owned(), "other".to_owned()];
    let mut view = live(80, 24, Palette::Colour);
    view.draw(&snapshot).expect("draws");
    has(&screen(&view), "not measured here: mark_victim: no such tracepoint and 1 more");
    snapshot.quality.lost_events = 3;
    view.draw(&snapshot).expect("draws");
    has(&screen(&view), "3 kernel events were lost in this window: it is not judged");
}

#[test]
fn bars_have_their_exact_width() {
    for (share, want) in
        [(0.0, "····"), (0.5, "██··"), (0.53, "██▏·"), (1.0, "████"), (9.0, "████"), (f64::NAN, "····")]
    {
        let [filled, ground] = table::bar(share, 4, palette::Palette::Plain.strong(), Palette::Plain);
        assert_eq!(format!("{}{}", filled.content, ground.content), want, "{share}");
    }
}
