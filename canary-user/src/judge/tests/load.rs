//! A canary with less of the load than stable: fixed costs weigh more on each of its requests, and what grows with load is not
//! known.

use super::{
    super::{
        environment::Surroundings,
        load::{GROWS_WITH_LOAD, Load},
    },
    *,
};
use crate::targets::Role;

/// Windows before the canary.
const BEFORE: u64 = 600;

/// A canary with `turnarounds` where stable has 100, and factors on two of its readings.
fn rollout(p: Parameters, turnarounds: u64, cpu: f64, turnaround: f64) -> Verdict {
    run(&mut Judge::new(p), &mut Service::new(12, 3, 0.3), BEFORE, 1200, |_, window| {
        window.canary[0].turnarounds = turnarounds;
        scale(window, Indicator::CpuPerWork, cpu);
        scale(window, Indicator::TurnaroundMean, turnaround);
    })
}

#[test]
fn what_fixed_costs_make_of_little_load_condemns_nobody() {
    let verdict = rollout(Parameters::default(), 5, 1.25, 1.0);
    assert_eq!(verdict.outcome, Outcome::Inconclusive, "{:?}", verdict.reasons);
    assert!(verdict.environment.holds, "{:?}", verdict.environment);
    let sign = verdict.environment.signs.iter().find(|sign| sign.kind == SignKind::UnequalLoad).expect("it is told");
    assert!(sign.text.contains("the canary has 5 % of the load") && sign.text.contains("190 %"), "{}", sign.text);

    let without = rollout(Parameters { fixed_cost_share: 0.0, ..Parameters::default() }, 5, 1.25, 1.0);
    assert_eq!(without.outcome, Outcome::Regressed, "it is what keeps it: {:?}", without.reasons);
}

#[test]
fn little_load_explains_cpu_also_where_no_turnaround_is_measured() {
    let verdict = run(&mut new_judge(), &mut Service::new(12, 3, 0.3), BEFORE, 1200, |_, window| {
        window.canary[0].turnarounds = 5;
        scale(window, Indicator::CpuPerWork, 1.25);
        scale(window, Indicator::TurnaroundMean, f64::NAN);
        scale(window, Indicator::TurnaroundP95, f64::NAN);
    });
    assert_eq!(verdict.outcome, Outcome::Inconclusive, "{:?}", verdict.reasons);
    assert!(verdict.environment.holds, "{:?}", verdict.environment);
}

#[test]
fn what_fixed_costs_cannot_make_of_little_load_condemns() {
    // A fifth of the load makes at most 40 % of a tenth.
    let more_cpu = rollout(Parameters::default(), 20, 2.0, 1.0);
    assert_eq!(more_cpu.outcome, Outcome::Regressed, "{:?}", more_cpu.reasons);
    assert_eq!(more_cpu.causes[0].signal, "cpu_per_work");
    let slower = rollout(Parameters::default(), 20, 1.0, 2.0);
    assert_eq!(slower.outcome, Outcome::Regressed, "nothing of the load makes it wait: {:?}", slower.reasons);
    assert_eq!(slower.causes[0].signal, "turnaround_mean");
    let as_much = rollout(Parameters::default(), 100, 1.25, 1.0);
    assert_eq!(as_much.outcome, Outcome::Regressed, "{:?}", as_much.reasons);
    assert!(as_much.environment.signs.is_empty(), "{:?}", as_much.environment);
}

/// The verdicts on an equal canary, which is healthy by its window 1500 where nothing is done to it.
fn verdicts(p: Parameters, windows: u64, change: impl Fn(u64, &mut Window)) -> Vec<Verdict> {
    let (mut judge, mut service) = (Judge::new(p), Service::new(31, 3, 0.3));
    let mut verdicts = Vec::new();
    for t in 0..BEFORE + windows {
        service.canary = usize::from(t >= BEFORE);
        let mut window = service.next();
        if let Some(since) = t.checked_sub(BEFORE) {
            change(since, &mut window);
        }
        let verdict = judge.observe(&window);
        if t >= BEFORE {
            verdicts.push(verdict);
        }
    }
    verdicts
}

/// The latest of them, with so many turnarounds of the canary where stable has 100.
fn last(p: Parameters, turnarounds: u64) -> Verdict {
    let verdicts = verdicts(p, 1500, |_, window| window.canary[0].turnarounds = turnarounds);
    let loads = verdicts.iter().filter_map(|v| v.healthy_at_load.map(|load| (load, v.outcome)));
    for (load, outcome) in loads {
        assert_eq!((load, outcome), (turnarounds as f64 / 100.0, Outcome::Inconclusive));
    }
    verdicts.into_iter().next_back().expect("there are windows")
}

#[test]
fn a_canary_with_little_load_is_healthy_at_that_load_only() {
    let little = last(Parameters::default(), 20);
    assert_eq!((little.outcome, little.healthy_at_load), (Outcome::Inconclusive, Some(0.2)), "{:?}", little.reasons);
    let why = "run-queue wait, memory, turnaround: compared at 20 % of stable's load per instance only; what the canary does at \
               full load is not known: give both the same load per instance, or raise judge.load_ratio";
    assert_eq!(little.reasons[0], why);
    assert!(little.reasons[1].starts_with("at that load all "), "{:?}", little.reasons);
    let advice = &little.recommendations[0];
    assert_eq!((advice.step, advice.because.as_str()), (Step::Wait, why));
    assert!(advice.would_change.contains("as much load per instance as stable"), "{}", advice.would_change);
    for enough in [50, 100] {
        let verdict = last(Parameters::default(), enough);
        assert_eq!((verdict.outcome, verdict.healthy_at_load), (Outcome::Healthy, None), "{:?}", verdict.reasons);
    }
}

#[test]
fn who_asks_for_no_more_has_little_load_called_healthy() {
    let accepted = last(Parameters { load_ratio: 6.0, ..Parameters::default() }, 20);
    assert_eq!(accepted.outcome, Outcome::Healthy, "{:?}", accepted.reasons);
    // What is left is counted per turnaround.
    let mut muted = Parameters::default();
    GROWS_WITH_LOAD.into_iter().for_each(|i| muted.indicators[i as usize].mute = true);
    let muted = last(muted, 20);
    assert_eq!(muted.outcome, Outcome::Healthy, "{:?}", muted.reasons);
    let mut memory = Parameters::default();
    let others = GROWS_WITH_LOAD.into_iter().filter(|i| *i != Indicator::MemoryInUse);
    others.for_each(|i| memory.indicators[i as usize].mute = true);
    let memory = last(memory, 3);
    assert_eq!(memory.outcome, Outcome::Inconclusive, "{:?}", memory.reasons);
    assert!(memory.reasons[0].starts_with("memory: compared at 3.0 % of stable's"), "{:?}", memory.reasons);
}

#[test]
fn load_that_is_not_known_withholds_nothing() {
    let last = |side: Option<Role>| {
        let verdicts = verdicts(Parameters::default(), 1500, |_, window| {
            window.canary[0].turnarounds = 20;
            let readings = match side {
                Some(Role::Stable) => &mut window.stable,
                _ => &mut window.canary,
            };
            for reading in readings.iter_mut().filter(|_| side.is_some()) {
                reading.turnarounds = 0;
                reading.events[Event::ResetsOut as usize] = None;
            }
        });
        verdicts.into_iter().next_back().expect("there are windows").outcome
    };
    assert_eq!([Some(Role::Stable), Some(Role::Canary)].map(last), [Outcome::Healthy; 2]);
    assert_eq!(last(None), Outcome::Inconclusive, "where it is known");
}

#[test]
fn a_dip_of_load_takes_nothing_back_and_little_load_that_lasts_does_once() {
    let outcomes = |little: u64| -> Vec<Outcome> {
        let verdicts = verdicts(Parameters::default(), 2400, |t, window| {
            window.canary[0].turnarounds = if (1500..1500 + little).contains(&t) { 10 } else { 100 };
        });
        verdicts.iter().map(|v| v.outcome).collect()
    };
    let none = outcomes(0);
    assert_eq!(none[1499], Outcome::Healthy);
    assert_eq!(outcomes(240), none, "four minutes at a tenth, in windows of a second");
    // A running mean of 300 windows is below a half from the 243rd on, and above 0.55 from the 165th after it.
    let lasting = outcomes(600);
    for (t, (usual, lasting)) in none.iter().zip(&lasting).enumerate() {
        match (t, usual) {
            (1745..2260, Outcome::Healthy) => assert_eq!(*lasting, Outcome::Inconclusive, "window {t}"),
            (0..1740 | 2270.., _) => assert_eq!(lasting, usual, "window {t}"),
            _ => assert_ne!(*lasting, Outcome::Regressed, "window {t}"),
        }
    }
    assert!(none[1745..2260].contains(&Outcome::Healthy) && none[2270..].contains(&Outcome::Healthy));
}

#[test]
fn load_at_the_limit_is_not_now_enough_and_now_too_little() {
    let p = Parameters::default();
    let (mut load, mut service, mut random) = (Load::default(), Service::new(1, 3, 0.0), Random(7));
    service.canary = 1;
    let mut changes = 0;
    for t in 0..5_000 {
        let mut window = service.next();
        window.stable.iter_mut().for_each(|r| r.turnarounds = random.poisson(100.0));
        window.canary[0].turnarounds = random.poisson(50.0);
        let before = load.little().is_some();
        load.observe(&window, &p);
        changes += u64::from(t >= p.soak_windows && before != load.little().is_some());
    }
    assert!(changes <= 1, "{changes} changes");
    for (turnarounds, is_little) in [(45, true), (60, false)] {
        for _ in 0..2_000 {
            let mut window = service.next();
            window.canary[0].turnarounds = turnarounds;
            load.observe(&window, &p);
        }
        assert_eq!(load.little().is_some(), is_little, "{turnarounds}");
    }
}

#[test]
fn who_is_worse_at_little_load_is_condemned_all_the_same() {
    for indicator in [Indicator::RunQueueWait, Indicator::MemoryInUse, Indicator::TurnaroundMean] {
        let verdict = run(&mut new_judge(), &mut Service::new(12, 3, 0.3), BEFORE, 1200, |_, window| {
            window.canary[0].turnarounds = 20;
            scale(window, indicator, 2.0);
        });
        assert_eq!((verdict.outcome, verdict.healthy_at_load), (Outcome::Regressed, None), "{:?}", verdict.reasons);
        assert_eq!(verdict.causes[0].signal, indicator.name());
    }
}

/// Calls `each` with what is around a canary that has 3 turnarounds a window where stable has 30. Readings are given once it had 30,
/// and each of its turnarounds takes `cpu` times the CPU, which is 0.4 ms on stable.
fn merged(cpu: f64, mut each: impl FnMut(&Surroundings)) {
    let (mut surroundings, mut service, mut random) = (Surroundings::default(), Service::new(13, 3, 0.0), Random(14));
    let p = Parameters::default();
    service.canary = 1;
    let (mut turnarounds, mut readings) = (0, 0);
    for _ in 0..3_000 {
        let mut window = service.next();
        window.canary[0].turnarounds = random.poisson(3.0);
        window.stable.iter_mut().for_each(|r| r.turnarounds = random.poisson(30.0));
        turnarounds += window.canary[0].turnarounds;
        let is_given = turnarounds >= 30;
        for reading in window.stable.iter_mut().chain(&mut window.canary) {
            reading.values = [f64::NAN; Indicator::COUNT];
            if is_given {
                reading.values[Indicator::CpuPerWork as usize] = 400_000.0;
            }
        }
        scale(&mut window, Indicator::CpuPerWork, cpu);
        surroundings.observe(&window, true, &p);
        if is_given {
            (turnarounds, readings) = (0, readings + 1);
        }
        if readings >= 10 {
            each(&surroundings);
        }
    }
}

/// A tenth of the load makes at most 90 % of a tenth. The windows in which readings come are those with more turnarounds than usual.
#[test]
fn what_fixed_costs_make_of_little_load_is_the_same_where_readings_are_merged() {
    let p = Parameters::default();
    for (cpu, is_explained) in [(1.0, true), (1.54, true), (2.6, false)] {
        merged(cpu, |surroundings| {
            let signs = surroundings.signs(&p);
            let sign = signs.iter().find(|sign| sign.kind == SignKind::UnequalLoad).expect("it has little load");
            assert_eq!(sign.explains.contains(&Indicator::CpuPerWork), is_explained, "{cpu}: {}", sign.text);
        });
    }
}

#[test]
fn the_cpu_that_a_canary_uses_is_that_of_all_windows_where_readings_are_merged() {
    let (mut sum, mut windows) = (0.0, 0.0);
    merged(1.5, |surroundings| {
        sum += surroundings.canary_cpus().expect("it is known");
        windows += 1.0;
    });
    let (found, is) = (sum / windows, 3.0 * 1.5 * 0.4e-3);
    assert!((found / is - 1.0).abs() < 0.1, "{found} of {is}");
}

#[test]
fn a_hold_does_not_end_between_two_readings() {
    let (mut judge, mut service) = (new_judge(), Service::new(12, 3, 0.3));
    let (mut is_held, mut held) = (false, 0);
    for t in 0..4_200u64 {
        service.canary = usize::from(t >= 2_400);
        let mut window = service.next();
        window.canary.iter_mut().for_each(|r| r.turnarounds = 5);
        scale(&mut window, Indicator::CpuPerWork, 1.25);
        let has_readings = t.is_multiple_of(20);
        if !has_readings {
            let readings = window.stable.iter_mut().chain(&mut window.canary);
            readings.for_each(|r| r.values = [f64::NAN; Indicator::COUNT]);
        }
        let verdict = judge.observe(&window);
        assert_ne!(verdict.outcome, Outcome::Regressed, "window {t}: {:?}", verdict.reasons);
        assert!(verdict.environment.holds || !is_held || has_readings, "window {t}: {:?}", verdict.reasons);
        is_held = verdict.environment.holds;
        held += u64::from(is_held);
    }
    assert!(held > 100, "held in {held} windows");
}

#[test]
fn what_was_read_of_a_canary_that_is_gone_explains_nothing() {
    let (mut surroundings, mut service, p) = (Surroundings::default(), Service::new(15, 3, 0.0), Parameters::default());
    let mut has_little_load = |canary: usize| {
        service.canary = canary;
        for _ in 0..12 {
            let mut window = service.next();
            window.canary.iter_mut().for_each(|r| r.turnarounds = 5);
            surroundings.observe(&window, true, &p);
        }
        surroundings.signs(&p).iter().any(|sign| sign.kind == SignKind::UnequalLoad)
    };
    assert!(has_little_load(1));
    assert!(!has_little_load(0));
}
