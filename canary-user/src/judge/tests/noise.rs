//! Changes that a mean does not show, one stable instance, and events that clump.

use std::cell::RefCell;

use super::{super::clumping::Clumping, *};

/// Up and down by turns: the mean of the logarithm is what it was.
fn by_turns(t: u64, window: &mut Window) {
    if t >= 300 {
        scale(window, Indicator::CpuPerWork, if t.is_multiple_of(2) { 1.25 } else { 1.0 / 1.25 });
    }
}

#[test]
fn a_canary_that_varies_more_at_the_same_mean_is_found_and_named() {
    for seed in 1..=4 {
        let verdict = run(&mut new_judge(), &mut Service::new(seed, 3, 0.3), 900, 1000, by_turns);
        assert_eq!(verdict.outcome, Outcome::Regressed, "seed {seed}: {:?}", verdict.reasons);
        assert!((1200..1500).contains(&verdict.window), "found at {}", verdict.window);
        assert_eq!(verdict.causes[0].signal, "cpu_per_work");
        assert!(verdict.causes[0].mechanism.contains("spikes or varies"), "{:?}", verdict.causes[0]);
        assert!(verdict.reasons[0].contains("jumps more from window to window"), "{}", verdict.reasons[0]);
        assert!(verdict.onset.is_some_and(|w| w.abs_diff(1200) <= 20), "onset {:?}", verdict.onset);
    }
}

/// Memory that hardly ever changes.
fn quiet_memory(window: &mut Window) {
    let t = window.index;
    for (reading, j) in window.stable.iter_mut().chain(&mut window.canary).zip(0..) {
        let pages = (t + 17 * j) / 50 % 2;
        reading.values[Indicator::MemoryInUse as usize] = 4.3e7 + 4096.0 * pages as f64;
    }
}

#[test]
fn a_canary_that_fills_its_memory_as_stable_did_long_ago_is_not_condemned() {
    let verdict = |p: Parameters| {
        let (mut judge, mut service) = (Judge::new(p), Service::new(3, 3, 0.3));
        (0..1800).any(|t| {
            service.canary = usize::from(t >= 600);
            let mut window = service.next();
            quiet_memory(&mut window);
            scale(&mut window, Indicator::MemoryInUse, 1.0 - 0.4 * (-(t as f64 - 600.0) / 300.0).exp());
            judge.observe(&window).outcome == Outcome::Regressed
        })
    };
    assert!(!verdict(Parameters::default()));
    let mut p = Parameters::default();
    p.indicators[Indicator::MemoryInUse as usize].tolerance.steps = true;
    assert!(verdict(p), "where steps count, it is: nothing else keeps it from being condemned");
}

/// A canary with a quarter of the requests has readings that are twice as noisy, whatever its version.
#[test]
fn fewer_requests_are_no_reason_to_vary_more() {
    let verdict = |turnarounds: u64| {
        let random = RefCell::new(Random(99));
        run(&mut new_judge(), &mut Service::new(3, 3, 0.0), 900, 2000, |_, window| {
            let canary = &mut window.canary[0];
            canary.turnarounds = turnarounds;
            for (value, noise) in canary.values.iter_mut().zip(NOISE) {
                *value *= (3f64.sqrt() * noise * random.borrow_mut().normal()).exp();
            }
        })
    };
    let (few, as_many) = (verdict(25), verdict(100));
    assert_ne!(few.outcome, Outcome::Regressed, "{:?}", few.reasons);
    assert_eq!(as_many.outcome, Outcome::Regressed, "{:?}", as_many.reasons);
}

#[test]
fn with_one_stable_instance_a_large_change_is_found_from_the_first_window_on() {
    let verdict = run(&mut new_judge(), &mut Service::new(41, 1, 0.3), 60, 0, |_, _| {});
    assert_eq!(verdict.outcome, Outcome::InsufficientData);
    let steady = |_: u64, window: &mut Window| {
        // The service's wave of load is not the noise of one instance.
        let load = 1.0 + 0.5 * (window.index as f64 / 200.0).sin();
        window.stable.iter_mut().chain(&mut window.canary).for_each(|r| r.values.iter_mut().for_each(|v| *v /= load));
    };
    let (mut judge, mut service) = (new_judge(), Service::new(41, 1, 0.3));
    for _ in 0..400 {
        let mut window = service.next();
        steady(0, &mut window);
        judge.observe(&window);
    }
    let verdict = run(&mut judge, &mut service, 0, 360, |t, window| {
        steady(t, window);
        scale(window, Indicator::CpuPerWork, 1.5);
    });
    assert_eq!(verdict.outcome, Outcome::Regressed, "{:?}", verdict.reasons);
    assert!(verdict.window < 400 + 60 + 60, "found at {}", verdict.window);
}

#[test]
fn events_that_clump_are_told_from_those_that_do_not() {
    let excess = |clumped: bool| {
        let (mut random, mut learned) = (Random(5), Clumping::default());
        for _ in 0..900 {
            // By the square of a normal deviate the rate itself varies: squared coefficient of variation 2.
            let rate = if clumped { random.normal().powi(2) } else { 1.0 };
            let events = random.poisson(4.0 * rate);
            learned.learn(events as f64, 1000.0);
        }
        learned.clumps().excess(1000.0, (0.5, 0.5), (0.6, 0.4))
    };
    let (clumped, not) = (excess(true), excess(false));
    // 2 p q m a = 2 x 1/4 x 8 x 2 = 8, of a rate that follows a gamma distribution; and up to twice that.
    assert!((8.0..20.0).contains(&clumped), "{clumped}");
    assert!(not < 0.6, "{not}");
}

#[test]
fn an_indicator_takes_at_most_two_kilobytes() {
    use super::super::pace::Pace;
    const { assert!(Pace::INDICATOR_BYTES <= 2048 && Pace::ALONE_BYTES <= 1024) };
}

/// Stakes that were left would be bet again beside the new ones, and alpha would not hold.
#[test]
fn evidence_that_is_dropped_is_dropped_for_the_steps_too() {
    let mut judge = new_judge();
    run(&mut judge, &mut Service::new(1, 3, 0.3), 900, 1000, by_turns);
    let cpu = Indicator::CpuPerWork as usize;
    assert!(judge.pace.is_spread(cpu), "{}", judge.pace.indicator_evidence(cpu));
    judge.pace.drop_evidence();
    for i in 0..Indicator::COUNT {
        assert!((judge.pace.indicator_evidence(i) - 1.0).abs() < 1e-9, "{i}: {}", judge.pace.indicator_evidence(i));
    }
}
