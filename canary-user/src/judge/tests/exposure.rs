//! What events are counted by, turnarounds or time, and what that makes of sides without work.

use std::ops::Range;

use super::*;
use crate::{
    targets::{Role, Target},
    telemetry::{Http, Network, Sample, Tick},
    window::Windower,
};

/// A side of one instance, which had so many events of one kind, and turnarounds.
fn side(name: &str, event: Event, (events, turnarounds): (u64, u64)) -> Vec<Reading> {
    // Resets say that turnarounds are counted.
    let counted = |of: Event| if of == event { Some(events) } else { (of == Event::ResetsOut).then_some(0) };
    vec![Reading {
        instance: Arc::from(name),
        incarnation: 1,
        values: [f64::NAN; Indicator::COUNT],
        events: Event::ALL.map(counted),
        turnarounds,
        seconds: 1.0,
        around: Around::default(),
    }]
}

/// Events and turnarounds of canary and stable.
pub type Sides = [(u64, u64); 2];

pub fn window(index: u64, event: Event, [canary, stable]: Sides) -> Window {
    Window {
        deployment: Arc::from("shop"),
        index,
        t_ns: index,
        span_ns: 1,
        stable: side("/stable", event, stable),
        canary: side("/canary", event, canary),
        clean: true,
        node: Node::default(),
    }
}

/// The window after which the evidence of one kind of event suffices.
pub fn found(
    counts: &mut Counts,
    event: Event,
    p: &Parameters,
    mut windows: Range<u64>,
    mut each: impl FnMut(u64) -> Sides,
) -> Option<u64> {
    windows.find(|t| {
        counts.observe(&window(*t, event, each(*t)), p);
        counts.evidence_ln(event) >= p.threshold_ln()
    })
}

/// So many turnarounds on average, of which a share is reset.
fn seldom(random: &mut Random, turnarounds: f64, share: f64) -> (u64, u64) {
    let turnarounds = random.poisson(turnarounds);
    let resets = (0..turnarounds).filter(|_| random.uniform() < share).count();
    (resets as u64, turnarounds)
}

#[test]
fn where_a_larger_ratio_is_allowed_fewer_events_are_no_evidence() {
    let p = Parameters { event_null_ratio: 3.0, ..Parameters::default() };
    let judged = |seed: u64, ratio: f64| {
        let (mut random, mut counts) = (Random(seed), Counts::default());
        let condemned = found(&mut counts, Event::ResetsOut, &p, 0..2000, |_| {
            [(random.poisson(1.25 * ratio), 25), (random.poisson(3.75), 75)]
        });
        (condemned, counts.evidence_ln(Event::ResetsOut))
    };
    for seed in 0..20 {
        let (condemned, evidence_ln) = judged(seed, 1.0);
        assert!(condemned.is_none() && evidence_ln < 0.0, "seed {seed}: {condemned:?}, {evidence_ln}");
        assert!(judged(seed, 12.0).0.is_some(), "seed {seed}: four times what is allowed");
    }
}

#[test]
fn a_stable_without_work_is_no_evidence_against_the_canary() {
    let (p, mut random, mut counts) = (Parameters::default(), Random(61), Counts::default());
    let event = Event::ResetsOut;
    let shared = found(&mut counts, event, &p, 0..300, |_| [(random.poisson(0.25), 25), (random.poisson(0.75), 75)]);
    let evidence_ln = counts.evidence_ln(event);
    // All of the work goes to the canary, which has one reset in a hundred turnarounds, as before.
    let alone = found(&mut counts, event, &p, 300..900, |_| [(random.poisson(1.0), 100), (0, 0)]);
    assert_eq!((shared, alone), (None, None));
    let after = counts.evidence_ln(event);
    assert!((after - evidence_ln).abs() < 1e-9, "{evidence_ln} became {after}");
}

#[test]
fn where_there_is_little_work_events_are_counted_by_it() {
    let p = Parameters::default();
    // The canary has three times the work, and windows without any are usual.
    let judged = |seed: u64, share: f64| {
        let mut random = Random(seed);
        found(&mut Counts::default(), Event::ResetsOut, &p, 0..3000, |_| {
            [seldom(&mut random, 0.6, share), seldom(&mut random, 0.2, 0.1)]
        })
    };
    let alarms = (0..100).filter(|seed| judged(*seed, 0.1).is_some()).count();
    assert!(alarms <= 1, "{alarms} alarms");
    let missed = (0..20).filter(|seed| judged(*seed, 0.5).is_none()).count();
    assert_eq!(missed, 0, "five times as many resets a turnaround");
}

/// So many turnarounds on average, and processes that end with an error: so many on average, and so many for each turnaround.
fn ends(random: &mut Random, turnarounds: f64, by_time: f64, by_work: f64) -> (u64, u64) {
    let turnarounds = random.poisson(turnarounds);
    (random.poisson(by_time + by_work * turnarounds as f64), turnarounds)
}

/// Those of probes and timers end by the clock, workers by what is asked, and nobody knows which they are.
#[test]
fn processes_that_end_by_the_clock_or_by_work_are_no_evidence_however_work_is_shared_out() {
    let p = Parameters::default();
    let judged = |seed: u64, [canary, stable]: [f64; 2], [by_time, by_work]: [f64; 2], worse: f64| {
        let mut random = Random(seed);
        found(&mut Counts::default(), Event::ErrorExits, &p, 0..2000, |_| {
            [ends(&mut random, canary, worse * by_time, worse * by_work), ends(&mut random, stable, by_time, by_work)]
        })
    };
    // A fifth of stable's work, three times as much, and the same where windows without any are usual.
    for (work, rates) in [([10.0, 50.0], [0.1, 0.0]), ([3.0, 1.0], [0.0, 0.1]), ([0.6, 0.2], [0.0, 0.1])] {
        let alarms = (0..20).filter(|seed| judged(*seed, work, rates, 1.0).is_some()).count();
        assert_eq!(alarms, 0, "turnarounds {work:?}, ends {rates:?}");
    }
    for rates in [[0.1, 0.0], [0.0, 0.01]] {
        let missed = (0..20).filter(|seed| judged(*seed, [10.0, 10.0], rates, 4.0).is_none()).count();
        assert_eq!(missed, 0, "four times as many, {rates:?}");
    }
}

#[test]
fn where_all_work_goes_to_the_canary_so_do_the_processes_that_end_by_it() {
    let p = Parameters::default();
    for seed in 0..20 {
        let mut random = Random(seed);
        let condemned = found(&mut Counts::default(), Event::ErrorExits, &p, 0..1500, |t| {
            let work = if t < 500 { [5.0, 5.0] } else { [10.0, 0.0] };
            work.map(|turnarounds| ends(&mut random, turnarounds, 0.0, 0.05))
        });
        assert_eq!(condemned, None, "seed {seed}");
    }
}

/// All of the work, most of it, and a canary that gets ten times stable's where it had a tenth.
#[test]
fn a_canary_that_work_is_moved_to_is_not_condemned_for_what_ends_by_it() {
    let p = Parameters::default();
    let moves = [
        ([50.0, 150.0], [200.0, 0.0], 70, 0.02),
        ([50.0, 150.0], [200.0, 0.0], 300, 0.1),
        ([50.0, 150.0], [190.0, 10.0], 200, 0.02),
        ([5.0, 15.0], [16.0, 4.0], 200, 0.05),
        ([1.5, 15.0], [150.0, 15.0], 200, 0.05),
    ];
    for (before, after, at, by_work) in moves {
        for seed in 0..20 {
            let mut random = Random(seed);
            let condemned = found(&mut Counts::default(), Event::ErrorExits, &p, 0..at + 400, |t| {
                let work = if t < at { before } else { after };
                work.map(|turnarounds| ends(&mut random, turnarounds, 0.0, by_work))
            });
            assert_eq!(condemned, None, "from {before:?} to {after:?}, seed {seed}");
        }
    }
}

/// A turnaround an instance and window: the ratio of so few is mostly chance, and half of the time too large.
#[test]
fn where_work_is_little_and_shared_out_evenly_more_exits_are_found_soon() {
    let p = Parameters::default();
    for (by_time, by_work) in [(0.1, 0.0), (0.0, 0.1)] {
        let delay = |seed: u64| {
            let (mut random, mut counts) = (Random(seed), Counts::default());
            (0..1500).find(|t| {
                let canary = ends(&mut random, 1.0, 4.0 * by_time, 4.0 * by_work);
                let stable = ends(&mut random, 3.0, 3.0 * by_time, by_work);
                let mut window = window(*t, Event::ErrorExits, [canary, stable]);
                // Three instances.
                window.stable[0].seconds = 3.0;
                counts.observe(&window, &p);
                counts.evidence_ln(Event::ErrorExits) >= p.threshold_ln()
            })
        };
        let mut delays: Vec<u64> = (0..20).map(|seed| delay(seed).unwrap_or(u64::MAX)).collect();
        delays.sort_unstable();
        assert!(delays[10] < 103, "{by_time} by time, {by_work} by work: {delays:?}");
    }
}

/// A service whose cgroup goes with its main process: in the window in which that ends nothing else is counted of it.
#[test]
fn a_window_in_which_a_cgroup_ended_is_judged_by_the_work_of_those_before_it() {
    let p = Parameters::default();
    let events = [Event::ErrorExits, Event::ConnectFailures];
    for (event, seed) in events.into_iter().flat_map(|event| (0..20).map(move |seed| (event, seed))) {
        let (mut random, mut counts) = (Random(seed), Counts::default());
        let condemned = (0..2000).find(|t| {
            // Three times the work ends, or fails, three times as often.
            let sides = [30.0, 10.0].map(|turnarounds| ends(&mut random, turnarounds, 0.0, 0.01));
            let mut window = window(*t, event, sides);
            for reading in window.stable.iter_mut().chain(&mut window.canary) {
                if reading.events[event as usize] > Some(0) {
                    (reading.turnarounds, reading.events[Event::ResetsOut as usize]) = (0, None);
                }
            }
            counts.observe(&window, &p);
            counts.evidence_ln(event) >= p.threshold_ln()
        });
        assert_eq!(condemned, None, "{event:?}, seed {seed}");
    }
}

#[test]
fn a_canary_whose_work_was_not_counted_is_not_taken_for_one_that_answers_nothing() {
    let (p, event, mut counts) = (Parameters::default(), Event::ConnectFailures, Counts::default());
    assert_eq!(found(&mut counts, event, &p, 0..100, |_| [(0, 25), (0, 75)]), None);
    for t in 100..170 {
        let mut window = window(t, event, [(0, 0), (0, 75)]);
        window.canary[0].events[Event::ResetsOut as usize] = None;
        counts.observe(&window, &p);
    }
    let before = counts.evidence_ln(event);
    assert_eq!(found(&mut counts, event, &p, 170..175, |_| [(3, 0), (0, 75)]), None);
    let after = counts.evidence_ln(event);
    assert!((after - before).abs() < 1e-9, "{before} became {after}: it was asked a minute ago, for all that is known");
}

#[test]
fn a_canary_that_breaks_off_all_and_answers_nothing_is_found() {
    let (p, mut counts) = (Parameters::default(), Counts::default());
    assert_eq!(found(&mut counts, Event::ResetsOut, &p, 0..300, |_| [(0, 25), (0, 75)]), None);
    let condemned = found(&mut counts, Event::ResetsOut, &p, 300..600, |_| [(3, 0), (0, 75)]);
    assert!(condemned.is_some_and(|t| t < 380), "{condemned:?}");
    assert_eq!(counts.onset(Event::ResetsOut), Some(300));
}

/// Whoever asked it is gone before the answers are there: the kernel sends them again for a quarter of an hour.
#[test]
fn what_is_sent_again_to_clients_that_are_gone_is_no_evidence() {
    let judged = |event: Event| {
        let (p, mut random, mut counts) = (Parameters::default(), Random(63), Counts::default());
        let asked = found(&mut counts, event, &p, 0..300, |_| [(0, 25), (random.poisson(0.1), 75)]);
        assert_eq!(asked, None, "{event:?}");
        found(&mut counts, event, &p, 300..1200, |_| [(3, 0), (random.poisson(0.1), 75)])
    };
    assert_eq!(judged(Event::Retransmits), None);
    assert!(judged(Event::ConnectFailures).is_some(), "what it needs for an answer it does not reach");
}

#[test]
fn what_is_never_asked_anything_is_judged_by_time() {
    for event in [Event::ResetsOut, Event::Retransmits, Event::ConnectFailures, Event::ErrorExits] {
        let (p, mut counts) = (Parameters::default(), Counts::default());
        let condemned = found(&mut counts, event, &p, 0..100, |t| [(u64::from(t >= 50), 0), (0, 0)]);
        assert!(condemned.is_some_and(|t| t < 75), "{event:?}: {condemned:?}");
    }
}

#[test]
fn a_canary_that_is_asked_late_still_has_a_stake() {
    for event in [Event::ResetsOut, Event::Retransmits, Event::ServerErrors, Event::ConnectFailures] {
        let (p, mut counts) = (Parameters::default(), Counts::default());
        assert_eq!(found(&mut counts, event, &p, 0..600, |_| [(0, 0), (1, 75)]), None, "{event:?}");
        let evidence_ln = counts.evidence_ln(event);
        assert!(evidence_ln > -0.6, "{event:?}: not more than half is lost beside a busy stable: {evidence_ln}");
        let condemned = found(&mut counts, event, &p, 600..700, |_| [(4, 25), (1, 75)]);
        assert!(condemned.is_some_and(|t| t < 605), "{event:?}: {condemned:?}");
    }
}

#[test]
fn after_a_hold_a_canary_that_was_asked_just_now_is_not_taken_for_one_that_answers_nothing() {
    let (mut judge, mut service) = (new_judge(), Service::new(47, 3, 0.3));
    run(&mut judge, &mut service, 600, 400, |_, _| {});
    // Stable is sick for a while, too; when that is over nobody asks the canary for some windows.
    let (mut held, mut idle) = (false, 0);
    for t in 0..400 {
        let mut window = service.next();
        count(&mut window.stable, Event::ResetsOut, 3);
        if t < 100 {
            window.stable.iter_mut().for_each(|r| r.values[Indicator::TurnaroundMean as usize] *= 2.0);
            scale(&mut window, Indicator::TurnaroundMean, 3.0);
        }
        if idle > 0 {
            window.canary[0].turnarounds = 0;
        }
        let verdict = judge.observe(&window);
        let evidence_ln = verdict.events[Event::ResetsOut as usize].evidence_ln;
        assert!(idle == 0 || evidence_ln.abs() < 1e-9, "{idle} windows after the hold: {evidence_ln}");
        let is_over = held && !verdict.environment.holds;
        held = verdict.environment.holds;
        idle += u64::from(is_over || idle > 0);
        if idle > 20 {
            return;
        }
    }
    panic!("it was held, and that ended");
}

#[test]
fn the_onset_is_that_of_the_burst_and_not_of_an_event_long_before() {
    for stable_resets in [0.0, 0.2] {
        let (p, mut random, mut counts) = (Parameters::default(), Random(62), Counts::default());
        let condemned = found(&mut counts, Event::ResetsOut, &p, 0..3200, |t| {
            let resets = if t >= 3000 { 2 } else { u64::from(t == 100) };
            [(resets, 25), (random.poisson(stable_resets), 75)]
        });
        assert!(condemned.is_some_and(|t| t >= 3000), "{stable_resets}: {condemned:?}");
        let onset = counts.onset(Event::ResetsOut).expect("it is told");
        assert!((3000..3005).contains(&onset), "{stable_resets}: {onset}");
    }
}

/// What the sensor tells of an instance that had so many requests, of which so many failed: without an answer there is no status.
fn answered(role: Role, (failed, turnarounds): (u64, u64)) -> Sample {
    let target = Target {
        deployment: "shop".into(),
        role,
        version: role.name().into(),
        cgroup: format!("/{role}").into(),
        incarnation: 1,
        identity: None,
    };
    let http = Http { responses_2xx: turnarounds - failed, responses_5xx: failed, ..Http::default() };
    Sample {
        network: Some(Network { turnarounds, ..Network::default() }),
        http: (turnarounds > 0).then_some(http),
        ..Sample::unmeasured(target, 1_000_000_000)
    }
}

/// One request in twenty windows, on both sides: they are hardly ever asked in the same window.
#[test]
fn a_canary_that_is_asked_seldom_and_fails_each_time_is_found() {
    let p = Parameters::default();
    for seed in 0..10 {
        let (mut random, mut counts, mut windower) = (Random(seed), Counts::default(), Windower::new("shop".into()));
        let condemned = (0..3000).find(|_| {
            let (canary, stable) = (random.poisson(0.05), random.poisson(0.05));
            let samples = vec![answered(Role::Canary, (canary, canary)), answered(Role::Stable, (0, stable))];
            counts.observe(&windower.push(&Tick { span_ns: 1_000_000_000, samples, ..Tick::default() }), &p);
            counts.evidence_ln(Event::ServerErrors) >= p.threshold_ln()
        });
        assert!(condemned.is_some(), "seed {seed}: {:?}", counts.states()[Event::ServerErrors as usize]);
    }
}
