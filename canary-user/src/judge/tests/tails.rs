//! Run-queue wait as a distribution: its tail is judged beside its mean, and excused by what excuses waiting.

use super::{super::environment::Surroundings, *};

/// Windows before the canary.
const BEFORE: u64 = 600;

/// As `run`, of a service whose 95th percentile of the run-queue wait is four times the mean, with noise of its own.
fn rollout(seed: u64, with: u64, change: impl Fn(u64, &mut Window)) -> Verdict {
    let (mut judge, mut service, mut random) = (new_judge(), Service::new(seed, 3, 0.3), Random(1_000 + seed));
    let mut last = None;
    for t in 0..BEFORE + with {
        service.canary = usize::from(t >= BEFORE);
        let mut window = service.next();
        for reading in window.stable.iter_mut().chain(&mut window.canary) {
            let mean_ns = reading.values[Indicator::RunQueueWait as usize];
            reading.values[Indicator::RunQueueWaitP95 as usize] = 4.0 * mean_ns * (0.1 * random.normal()).exp();
        }
        if let Some(since) = t.checked_sub(BEFORE) {
            change(since, &mut window);
        }
        let verdict = judge.observe(&window);
        let condemned = verdict.outcome == Outcome::Regressed;
        last = Some(verdict);
        if condemned {
            break;
        }
    }
    last.expect("at least one window")
}

#[test]
fn a_tail_that_is_as_before_is_healthy() {
    for seed in 61..=64 {
        let verdict = rollout(seed, 2400, |_, _| {});
        assert_eq!(verdict.outcome, Outcome::Healthy, "seed {seed}: {:?}", verdict.reasons);
        assert_eq!(verdict.indicators[Indicator::RunQueueWaitP95 as usize].missing, None);
    }
}

#[test]
fn a_tail_that_grows_under_the_same_mean_is_found_and_named() {
    let mut told = Vec::new();
    for seed in 61..=64 {
        let verdict = rollout(seed, 900, |t, window| {
            if t >= 300 {
                scale(window, Indicator::RunQueueWaitP95, 2.0);
            }
        });
        assert_eq!(verdict.outcome, Outcome::Regressed, "seed {seed}: {:?}", verdict.reasons);
        assert!((900..1000).contains(&verdict.window), "found at {}", verdict.window);
        assert!(verdict.onset.is_some_and(|w| w.abs_diff(900) <= 10), "onset {:?}", verdict.onset);
        assert_eq!(verdict.causes[0].signal, "run_queue_wait_p95");
        assert!(verdict.causes[0].text.starts_with("run-queue wait (p95) +"), "{:?}", verdict.causes[0]);
        assert_eq!(verdict.recommendations[1].step, Step::Throttle, "as for the mean");
        told.push(verdict.causes[0].mechanism.clone());
    }
    assert!(told.iter().all(|m| m.starts_with("waits for a CPU")), "{told:?}");
    assert!(told.iter().any(|m| m.ends_with("the tail grew, the mean did not")), "{told:?}");
}

#[test]
fn a_longer_tail_of_waits_is_why_the_turnarounds_tail_is_longer() {
    let verdict = rollout(65, 900, |t, window| {
        if t >= 300 {
            scale(window, Indicator::RunQueueWaitP95, 3.0);
            scale(window, Indicator::TurnaroundP95, 1.5);
        }
    });
    let signals: Vec<&str> = verdict.causes.iter().map(|c| &*c.signal).collect();
    assert_eq!((verdict.outcome, signals[0]), (Outcome::Regressed, "run_queue_wait_p95"), "{signals:?}");
    let turnaround = verdict.causes.iter().find(|c| c.signal == "turnaround_p95");
    assert!(turnaround.is_none_or(|c| c.mechanism == "slower while it waits for a CPU"), "{turnaround:?}");
}

#[test]
fn what_excuses_waiting_excuses_its_tail() {
    type Change = fn(&mut Window);
    let cases: [(SignKind, Change); 4] = [
        (SignKind::Neighbour, |window| {
            for reading in window.stable.iter_mut().chain(&mut window.canary) {
                reading.around.wait_ns = Some(1_000_000);
                reading.around.wait_for_others_ns = Some(800_000);
            }
        }),
        (SignKind::CpuPressure, |window| window.node.cpu_others = Some(0.9)),
        (SignKind::Throttled, |window| window.canary[0].around.throttled = Some(0.4)),
        (SignKind::UnequalLoad, |window| window.canary[0].turnarounds = 300),
    ];
    for (kind, change) in cases {
        let (mut surroundings, mut service) = (Surroundings::default(), Service::new(66, 3, 0.0));
        service.canary = 1;
        for _ in 0..10 {
            let mut window = service.next();
            change(&mut window);
            surroundings.observe(&window, true, &Parameters::default());
        }
        let signs = surroundings.signs(&Parameters::default());
        let sign = signs.iter().find(|sign| sign.kind == kind);
        let sign = sign.unwrap_or_else(|| panic!("no sign {kind:?}: {signs:?}"));
        for wait in [Indicator::RunQueueWait, Indicator::RunQueueWaitP95] {
            assert!(sign.explains.contains(&wait), "{kind:?} does not explain {wait:?}: {sign:?}");
        }
    }
}

#[test]
fn who_waits_too_seldom_for_a_tail_can_be_healthy_without_one() {
    let (mut judge, mut service) = (new_judge(), Service::new(67, 3, 0.3));
    let mut verdicts = (0..BEFORE + 2400).map(|t| {
        service.canary = usize::from(t >= BEFORE);
        let mut window = service.next();
        if t.is_multiple_of(60) {
            let readings = window.stable.iter_mut().chain(&mut window.canary);
            readings.for_each(|r| r.values[Indicator::RunQueueWaitP95 as usize] = 240_000.0);
        }
        judge.observe(&window)
    });
    let healthy = verdicts.find(|verdict| verdict.outcome == Outcome::Healthy).expect("the rest is healthy");
    let tail = &healthy.indicators[Indicator::RunQueueWaitP95 as usize];
    assert!(tail.missing.as_ref().is_some_and(|why| why.starts_with("learned from 0 of")), "{tail:?}");
}
