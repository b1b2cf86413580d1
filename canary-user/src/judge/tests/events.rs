//! Counts and hard facts.

use super::*;

/// Counts on both sides at rates per window; the canary has a fourth of the load.
fn counted(seed: u64, rate: f64, ratio: f64, windows: u64) -> Option<u64> {
    let p = Parameters::default();
    let mut random = Random(seed);
    let mut counts = counts::Counts::default();
    let reading = |n: u64, turnarounds: u64| Reading {
        instance: Arc::from("/x"),
        incarnation: 1,
        values: [f64::NAN; Indicator::COUNT],
        events: Event::ALL.map(|event| (event == Event::ServerErrors).then_some(n)),
        turnarounds,
        seconds: 1.0,
        around: Around::default(),
    };
    (0..windows).find(|t| {
        let window = Window {
            deployment: Arc::from("shop"),
            index: *t,
            t_ns: *t,
            span_ns: 1,
            stable: vec![reading(random.poisson(0.75 * rate), 75)],
            canary: vec![reading(random.poisson(0.25 * rate * ratio), 25)],
            clean: true,
            node: Node::default(),
        };
        counts.observe(&window, &p);
        counts.e_values().iter().sum::<f64>() >= 1.0 / p.alpha
    })
}

#[test]
fn counts_are_silent_when_equal_and_tell_when_not() {
    for rate in [0.05, 0.5, 5.0] {
        let alarms = (0..300).filter(|seed| counted(*seed, rate, 1.0, 1800).is_some()).count();
        assert!(alarms <= 1, "{alarms} alarms at rate {rate}");
    }
    // At the boundary of what is allowed.
    let alarms = (0..300).filter(|seed| counted(*seed, 0.5, 1.1, 1800).is_some()).count();
    assert!(alarms <= 2, "{alarms} alarms at the boundary");
    let mut delays: Vec<u64> = (0..60).map(|seed| counted(seed, 0.5, 4.0, 1800).unwrap_or(u64::MAX)).collect();
    delays.sort_unstable();
    assert!(delays[30] <= 50, "median {}", delays[30]);
}

#[test]
fn commands_name_the_mount_that_the_judge_was_told_of() {
    let hybrid = "/sys/fs/cgroup/unified";
    for (mut judge, mount) in [(new_judge(), "/sys/fs/cgroup"), (new_judge().at_mount(hybrid), hybrid)] {
        let verdict = run(&mut judge, &mut Service::new(18, 3, 0.3), 400, 1200, |t, w| {
            if t >= 300 && t % 2 == 0 {
                count(&mut w.canary, Event::ResetsOut, 2);
            }
        });
        let command = format!("find '{mount}/canary-0' -name cgroup.procs -exec cat {{}} + | xargs -r kill -TERM");
        assert_eq!(verdict.recommendations[0].command, Some(command));
    }
}

#[test]
fn resets_by_the_canary_are_a_cause() {
    let verdict = run(&mut new_judge(), &mut Service::new(18, 3, 0.3), 400, 1200, |t, w| {
        if t >= 300 && t % 2 == 0 {
            count(&mut w.canary, Event::ResetsOut, 2);
        }
    });
    assert_eq!(verdict.outcome, Outcome::Regressed);
    assert_eq!(verdict.causes[0].signal, "resets_out");
    assert_eq!(verdict.causes[0].mechanism, "connections broken off");
    assert!(verdict.onset.unwrap().abs_diff(700) <= 10, "{:?}", verdict.onset);
}

#[test]
fn each_other_kind_of_event_is_a_cause_with_its_mechanism_and_advice() {
    let cases = [
        (Event::ErrorExits, "gives up with an error", Step::Drain),
        (Event::Retransmits, "packets lost or answered late on the way", Step::MoveOffNode),
        (Event::ServerErrors, "answers that it failed", Step::Drain),
        (Event::ConnectFailures, "cannot reach what it depends on", Step::Drain),
    ];
    for (event, mechanism, step) in cases {
        let verdict = run(&mut new_judge(), &mut Service::new(18, 3, 0.3), 400, 1200, |t, w| {
            if t >= 300 && t.is_multiple_of(2) {
                count(&mut w.canary, event, 2);
            }
        });
        assert_eq!((verdict.outcome, verdict.hard), (Outcome::Regressed, None), "{event:?}: {:?}", verdict.reasons);
        let cause = &verdict.causes[0];
        assert_eq!((cause.signal.as_str(), cause.mechanism.as_str()), (event.name(), mechanism));
        assert!(cause.text.contains(" that suffice alone"), "{}", cause.text);
        assert_eq!(verdict.recommendations[1].step, step, "{event:?}");
    }
}

#[test]
fn hard_facts_condemn_at_once_and_only_the_canary() {
    let at = |stable_too: bool, event: Event, moments: &'static [u64]| {
        run(&mut new_judge(), &mut Service::new(19, 3, 0.3), 50, 700, move |t, w| {
            if moments.contains(&t) {
                count(&mut w.canary, event, 1);
            }
            if stable_too && t == 1 {
                count(&mut w.stable, event, 1);
            }
        })
    };
    // During the warm-up, without a baseline.
    let oom = at(false, Event::OomKills, &[3]);
    assert_eq!(
        (oom.outcome, oom.hard, oom.window, oom.onset),
        (Outcome::Regressed, Some(HardFact::OomKill), 53, Some(53))
    );
    assert_eq!(oom.causes[0].signal, "oom_kills");
    let crashes = at(false, Event::Crashes, &[3, 200]);
    assert_eq!((crashes.hard, crashes.window, crashes.onset), (Some(HardFact::CrashLoop), 250, Some(53)));
    // One crash is not a loop, and two more than five minutes apart are not either.
    assert_eq!(at(false, Event::Crashes, &[3]).hard, None);
    assert_eq!(at(false, Event::Crashes, &[3, 304]).hard, None);
    // Stable has the same trouble.
    assert_eq!(at(true, Event::OomKills, &[3]).hard, None);
    assert_eq!(at(true, Event::Crashes, &[3, 200]).hard, None);
    let excused = run(&mut new_judge(), &mut Service::new(19, 3, 0.3), 50, 10, |t, w| {
        count(&mut w.canary, Event::OomKills, u64::from(t == 3));
        count(&mut w.stable, Event::OomKills, u64::from(t == 1));
    });
    assert!(excused.reasons.iter().any(|r| r.contains("not held against it")), "{:?}", excused.reasons);
}
