//! What around a canary explains where readings are merged: each is of all the windows since the one before.

use super::{super::environment::Surroundings, *};

/// Windows from reading to reading.
const EACH: u64 = 20;
/// Windows of stable alone, and those of the canary before others are there.
const ALONE: u64 = 2_400;
const QUIET: u64 = 100;

/// Leaves readings in the last of so many windows only, as of a service that is asked little.
fn merge(window: &mut Window) {
    if !(window.index + 1).is_multiple_of(EACH) {
        window.stable.iter_mut().chain(&mut window.canary).for_each(|r| r.values = [f64::NAN; Indicator::COUNT]);
    }
}

/// The sign of this kind after each of so many windows with a canary, as `change` makes them.
fn signs(kind: SignKind, windows: u64, change: impl Fn(u64, &mut Window)) -> Vec<Option<Sign>> {
    let (mut surroundings, mut service, p) = (Surroundings::default(), Service::new(66, 3, 0.0), Parameters::default());
    service.canary = 1;
    let mut after = |t: u64| {
        let mut window = service.next();
        change(t, &mut window);
        surroundings.observe(&window, true, &p);
        surroundings.signs(&p).into_iter().find(|sign| sign.kind == kind)
    };
    (0..windows).map(&mut after).collect()
}

/// Nobody is judged by anything but run-queue wait.
fn judge_of_waits() -> Judge {
    let mut parameters = Parameters::default();
    for indicator in Indicator::ALL.into_iter().filter(|i| *i != Indicator::RunQueueWait) {
        parameters.indicators[indicator as usize].mute = true;
    }
    Judge::new(parameters)
}

/// It is there in the first twelve of the twenty windows before a reading.
#[test]
fn what_was_seen_since_the_reading_before_explains_this_one_and_no_later_one() {
    type Change = fn(bool, &mut Window);
    let cases: [(SignKind, Indicator, Change); 4] = [
        (SignKind::Neighbour, Indicator::RunQueueWait, |is_there, window| {
            for reading in window.stable.iter_mut().chain(&mut window.canary) {
                reading.around.wait_ns = Some(10_000_000);
                reading.around.wait_for_others_ns = Some(if is_there { 9_000_000 } else { 1_000_000 });
            }
        }),
        (SignKind::CpuPressure, Indicator::RunQueueWait, |is_there, window| {
            window.node.cpu_others = Some(if is_there { 0.9 } else { 0.05 });
        }),
        (SignKind::MemoryPressure, Indicator::MemoryStall, |is_there, window| {
            window.node.memory_available = Some(if is_there { 0.01 } else { 0.5 });
        }),
        (SignKind::Throttled, Indicator::RunQueueWait, |is_there, window| {
            window.canary[0].around.throttled = Some(if is_there { 0.3 } else { 0.0 });
        }),
    ];
    for (kind, explained, change) in cases {
        let after = signs(kind, 260, |t, window| {
            change((200..212).contains(&t), window);
            merge(window);
        });
        for at in [211, 219, 230] {
            let sign = after[at].as_ref().unwrap_or_else(|| panic!("{kind:?} after window {at}"));
            assert!(sign.explains.contains(&explained), "{kind:?} after window {at}: {sign:?}");
            assert_eq!(sign.text.contains("last seen"), at > 211, "{kind:?} after window {at}: {}", sign.text);
        }
        assert_eq!(after[199], None, "{kind:?}: nothing was seen");
        assert_eq!(after[239], None, "{kind:?}: this reading is of windows in which nothing was seen");
    }
}

/// The tail is read once in forty windows, the rest in each.
#[test]
fn a_tail_that_is_merged_for_longer_is_explained_for_as_long_and_nothing_else_is() {
    let after = signs(SignKind::CpuPressure, 300, |t, window| {
        window.node.cpu_others = Some(if (200..212).contains(&t) { 0.9 } else { 0.05 });
        if (t + 1).is_multiple_of(40) {
            let readings = window.stable.iter_mut().chain(&mut window.canary);
            readings.for_each(|r| r.values[Indicator::RunQueueWaitP95 as usize] = 240_000.0);
        }
    });
    let explains = |at: usize| after[at].as_ref().map(|sign| sign.explains.clone());
    assert!(explains(211).is_some_and(|all| all.contains(&Indicator::RunQueueWait)));
    for at in [225, 239, 260] {
        assert_eq!(explains(at), Some(vec![Indicator::RunQueueWaitP95]), "after window {at}");
    }
    assert_eq!(explains(279), None);
}

#[test]
fn what_was_seen_is_over_once_no_reading_comes_any_more() {
    let after = signs(SignKind::CpuPressure, 400, |t, window| {
        window.node.cpu_others = Some(if (200..212).contains(&t) { 0.9 } else { 0.05 });
        if t >= 220 {
            window.stable.iter_mut().chain(&mut window.canary).for_each(|r| r.values = [f64::NAN; Indicator::COUNT]);
        } else {
            merge(window);
        }
    });
    assert!(after[260].is_some());
    assert_eq!(after[399], None);
}

/// Both sides have one turnaround in twenty windows, of 3 ms on stable, and none in the ten before a reading. The canary's takes three
/// times as long.
#[test]
fn waits_count_for_as_long_as_the_turnarounds_that_they_are_of() {
    let explains = |canary_waits_ns: u64| {
        let after = signs(SignKind::CpuPressure, 500, |t, window| {
            window.node.cpu_others = Some(if t < 200 { 0.05 } else { 0.9 });
            for reading in window.stable.iter_mut().chain(&mut window.canary) {
                reading.turnarounds = u64::from(t.is_multiple_of(EACH));
                reading.around.wait_ns = Some(10_000_000);
                reading.around.wait_for_others_ns = Some(2_000_000);
            }
            window.canary[0].around.wait_for_others_ns = Some(canary_waits_ns);
            scale(window, Indicator::TurnaroundMean, 3.0);
            merge(window);
        });
        let explains = |sign: &Option<Sign>| sign.as_ref().expect("others have the CPUs").explains.clone();
        after[400..].iter().map(explains).collect::<Vec<_>>()
    };
    for own in explains(2_000_000) {
        assert_eq!(own, [Indicator::RunQueueWait, Indicator::RunQueueWaitP95], "it waits as stable does");
    }
    for waited in explains(4_000_000) {
        assert!(waited.contains(&Indicator::TurnaroundMean), "40 ms more for each: {waited:?}");
    }
}

/// What is said of a canary in each of its windows. Others have the CPUs from its window 100 until `quiet`, and it waits six times as
/// long from then until `well`.
fn beside_others(quiet: u64, well: u64, windows: u64) -> Vec<Verdict> {
    let (mut judge, mut service) = (judge_of_waits(), Service::new(71, 3, 0.3));
    let mut verdicts = Vec::new();
    for t in 0..ALONE + windows {
        service.canary = usize::from(t >= ALONE);
        let mut window = service.next();
        let is_within = |end: u64| (ALONE + QUIET..ALONE.saturating_add(end)).contains(&t);
        window.node.cpu_others = Some(if is_within(quiet) { 0.9 } else { 0.05 });
        if is_within(well) {
            scale(&mut window, Indicator::RunQueueWait, 6.0);
        }
        merge(&mut window);
        let verdict = judge.observe(&window);
        if t >= ALONE {
            verdicts.push(verdict);
        }
    }
    verdicts
}

/// The canary's window in which it would have been condemned if others had not had the CPUs all the time.
fn first_held() -> u64 {
    let verdicts = beside_others(u64::MAX, u64::MAX, 1_000);
    let first = verdicts.iter().position(|v| v.environment.holds).expect("it would have been condemned") as u64;
    assert!((first + 1).is_multiple_of(EACH), "evidence comes with readings: window {first}");
    first
}

#[test]
fn a_neighbour_that_left_before_the_reading_that_it_made_worse_is_not_held_against_the_canary() {
    let first = first_held();
    for ago in [11, 14, 17] {
        let verdicts = beside_others(first - ago, first + 1, first + 300);
        for (t, verdict) in verdicts.iter().enumerate() {
            assert_ne!(verdict.outcome, Outcome::Regressed, "{ago} windows: window {t}: {:?}", verdict.reasons);
            let said = verdict.reasons.first().map_or("", |reason| reason.as_str());
            let is_said = said.starts_with("environment, not the version: others on this machine use");
            assert_eq!(is_said, verdict.environment.holds, "{ago} windows: window {t}: {:?}", verdict.reasons);
        }
        assert!(verdicts[first as usize].environment.holds, "{ago} windows: {:?}", verdicts[first as usize].reasons);
        let next = &verdicts[(first + EACH) as usize..];
        assert!(!next[0].environment.holds && next[1].evidence_ln < 1.0, "{ago} windows: {:?}", next[1].reasons);
    }
}

#[test]
fn who_waits_as_long_once_a_neighbour_left_is_condemned() {
    let first = first_held();
    let verdicts = beside_others(first - 11, u64::MAX, first + 600);
    let last = verdicts.last().expect("some windows");
    assert_eq!(last.outcome, Outcome::Regressed, "{:?}", last.reasons);
    assert_eq!(last.causes[0].signal, "run_queue_wait");
}

/// Beside a neighbour its waits are not held against it; then it hangs, and answers with a 5xx whatever it is asked.
#[test]
fn a_canary_that_hangs_while_it_is_held_is_condemned_for_what_it_does() {
    let (mut judge, mut service) = (judge_of_waits(), Service::new(72, 3, 0.3));
    let busy = |window: &mut Window| {
        window.node.cpu_others = Some(0.9);
        scale(window, Indicator::RunQueueWait, 3.0);
    };
    let held = run(&mut judge, &mut service, 600, 400, |t, window| match t {
        0..200 => window.node.cpu_others = Some(0.05),
        _ => busy(window),
    });
    assert!(held.environment.holds, "{:?}", held.reasons);
    let verdict = run_on(&mut judge, &mut service, 40, |_, window| {
        busy(window);
        window.canary[0].values = [f64::NAN; Indicator::COUNT];
        count(&mut window.canary, Event::ServerErrors, 20);
    });
    assert_eq!(verdict.outcome, Outcome::Regressed, "{:?}", verdict.reasons);
    assert_eq!(verdict.causes[0].signal, "server_errors");
}
