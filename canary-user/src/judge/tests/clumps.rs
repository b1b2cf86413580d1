//! Events that come several at once: no evidence where both sides have them alike, evidence where the canary has more.

use super::{
    exposure::{Sides, found, window},
    *,
};

/// So many events in a window on average, by a gamma distribution of shape 1/2: many in some windows, none in most.
fn uneven(random: &mut Random, events: f64) -> u64 {
    let rate = random.normal().powi(2);
    random.poisson(events * rate)
}

/// In which window a canary is condemned that has such a share of the work, and so many times stable's rate.
fn condemned(seed: u64, share: f64, ratio: f64) -> Option<u64> {
    let (p, mut random, mut counts) = (Parameters::default(), Random(seed), Counts::default());
    let work = [share, 1.0 - share].map(|share| (1000.0 * share).round() as u64);
    for t in 0..900 {
        let stable = (uneven(&mut random, 5.0 * (1.0 - share)), work[1]);
        counts.learn(&window(t, Event::ServerErrors, [(0, 0), stable]));
    }
    found(&mut counts, Event::ServerErrors, &p, 900..2700, |_| {
        let canary = uneven(&mut random, 5.0 * share * ratio);
        [(canary, work[0]), (uneven(&mut random, 5.0 * (1.0 - share)), work[1])]
    })
}

#[test]
fn events_that_vary_much_are_no_evidence_against_who_has_less_of_the_work() {
    for share in [0.1, 0.25] {
        let alarms = (0..10).filter(|seed| condemned(*seed, share, 1.0).is_some()).count();
        assert_eq!(alarms, 0, "share {share}");
        let late = (0..10).filter(|seed| condemned(*seed, share, 4.0).is_none_or(|t| t > 900 + 200)).count();
        assert_eq!(late, 0, "four times as many, share {share}");
    }
}

#[test]
fn an_outage_before_the_rollout_does_not_hide_a_canary_that_fails_more() {
    let p = Parameters::default();
    for seed in 0..10 {
        let (mut random, mut counts) = (Random(seed), Counts::default());
        for t in 0..900 {
            // A hundred times as many for half a minute.
            let mean = if (600..630).contains(&t) { 400.0 } else { 4.0 };
            let stable = (random.poisson(mean), 750);
            counts.learn(&window(t, Event::ServerErrors, [(0, 0), stable]));
        }
        let condemned = found(&mut counts, Event::ServerErrors, &p, 900..1500, |_| {
            let canary = (random.poisson(5.0), 250);
            [canary, (random.poisson(4.0), 750)]
        });
        assert!(condemned.is_some(), "seed {seed}: nearly four times as many");
    }
}

/// Each clump is as much of one however long the canary was not asked anything.
#[test]
fn how_events_clump_is_learned_by_the_window_while_nobody_asks_the_canary() {
    let clump = |t: u64| -> Sides { [(0, 0), (if t % 100 == 50 { 12 } else { 0 }, 300)] };
    let gain = |idle: u64| {
        let (p, event, mut counts) = (Parameters::default(), Event::ServerErrors, Counts::default());
        (0..900).for_each(|t| counts.learn(&window(t, event, clump(t))));
        assert_eq!(found(&mut counts, event, &p, 900..900 + idle, clump), None);
        let before = counts.evidence_ln(event);
        found(&mut counts, event, &p, 900 + idle..904 + idle, |_| [(12, 100), (0, 300)]);
        counts.evidence_ln(event) - before
    };
    let (at_once, after_idling) = (gain(0), gain(3000));
    assert!(at_once > 0.1, "{at_once}");
    assert!(after_idling < 1.3 * at_once, "{at_once} became {after_idling}");
}

#[test]
fn an_event_of_stable_in_a_window_without_work_is_no_clump() {
    let (p, mut counts) = (Parameters::default(), Counts::default());
    for t in 0..600 {
        let stable = if t % 100 == 99 { (1, 0) } else { (0, 500) };
        counts.learn(&window(t, Event::ResetsOut, [(0, 0), stable]));
    }
    let condemned = found(&mut counts, Event::ResetsOut, &p, 600..700, |_| [(2, 500), (0, 500)]);
    assert!(condemned.is_some_and(|t| t < 620), "{condemned:?}");
}

/// A worker of a queue, which is asked for its metrics once in 15 windows. What fails does so eight at a time, while nobody asks.
#[test]
fn events_that_clump_while_nobody_asks_are_no_evidence() {
    let p = Parameters::default();
    let worker = |random: &mut Random, t: u64| {
        let (fails, is_asked) = (random.uniform() < 1.0 / 150.0, t.is_multiple_of(15));
        (if fails && !is_asked { 8 } else { 0 }, u64::from(is_asked))
    };
    for event in [Event::ErrorExits, Event::ResetsOut] {
        let judged = |seed: u64| {
            let (mut random, mut counts) = (Random(seed), Counts::default());
            for t in 0..900 {
                counts.learn(&window(t, event, [(0, 0), worker(&mut random, t)]));
            }
            found(&mut counts, event, &p, 900..4500, |t| [worker(&mut random, t), worker(&mut random, t)])
        };
        let alarms = (0..20).filter(|seed| judged(*seed).is_some()).count();
        assert_eq!(alarms, 0, "{event:?}");
    }
}
