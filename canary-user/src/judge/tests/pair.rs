//! One stable instance: what is known of a pair holds for that pair, and what is told is what judges.

use std::collections::BTreeMap;

use super::*;

const CPU: usize = Indicator::CpuPerWork as usize;

/// More windows, each changed by `change`, until the canary is condemned. There is no wave of load, which would be the noise of a
/// single instance, and a third of the usual noise in CPU.
fn go(judge: &mut Judge, service: &mut Service, windows: u64, change: impl Fn(&mut Window)) -> Verdict {
    run_on(judge, service, windows, |_, window| {
        let load = 1.0 + 0.5 * (window.index as f64 / 200.0).sin();
        for reading in window.stable.iter_mut().chain(&mut window.canary) {
            reading.values.iter_mut().for_each(|v| *v /= load);
            reading.values[CPU] = LEVELS[CPU] * (reading.values[CPU] / LEVELS[CPU]).powf(0.3);
        }
        change(window);
    })
}

fn dearer(window: &mut Window, factor: f64) {
    scale(window, Indicator::CpuPerWork, factor);
}

fn is_told_of_the_pair(verdict: &Verdict) -> bool {
    verdict.reasons.iter().any(|r| r.starts_with("one stable instance"))
}

/// No threshold is reached here, so that it goes on to be judged.
#[test]
fn effect_and_margin_are_of_what_stands_in_for_the_pair() {
    let parameters = Parameters { alpha: 1e-300, ..Parameters::default() };
    let (mut judge, mut service) = (Judge::new(parameters), Service::new(41, 1, 0.3));
    go(&mut judge, &mut service, 400, |_| {});
    service.canary = 1;
    // 40 windows after the warm-up, before anything is known of the pair; and 200, while it is learned from.
    for windows in [100, 160] {
        let verdict = go(&mut judge, &mut service, windows, |window| dearer(window, 1.3));
        let cpu = &verdict.indicators[CPU];
        assert!(cpu.effect.is_some_and(|effect| (0.25..0.35).contains(&effect)), "{cpu:?}");
        assert!(cpu.margin.is_some_and(|margin| (0.08..0.2).contains(&margin)), "{cpu:?}");
        assert!(cpu.p.is_some_and(|p| p > 1.0) && cpu.evidence_ln > 3.0, "{cpu:?}");
    }
}

#[test]
fn a_cause_has_its_numbers_before_the_pair_is_known() {
    let (mut judge, mut service) = (new_judge(), Service::new(41, 1, 0.3));
    go(&mut judge, &mut service, 400, |_| {});
    service.canary = 1;
    let verdict = go(&mut judge, &mut service, 100, |window| dearer(window, 1.5));
    assert_eq!(verdict.outcome, Outcome::Regressed, "{:?}", verdict.reasons);
    let text = &verdict.causes[0].text;
    assert!(text.starts_with("CPU per turnaround +") && text.contains(", margin 1"), "{text}");
}

#[test]
fn another_stable_instance_makes_another_pair() {
    for seed in 70..74 {
        let (mut judge, mut service) = (new_judge(), Service::new(seed, 1, 0.3));
        go(&mut judge, &mut service, 400, |_| {});
        service.canary = 1;
        let pair = go(&mut judge, &mut service, 700, |_| {});
        assert_ne!(pair.outcome, Outcome::Regressed, "seed {seed}: {:?}", pair.reasons);
        // Its host is another one, on which everything takes 8 % less.
        let replaced = |window: &mut Window| {
            window.stable[0].incarnation = 2;
            window.stable[0].values[CPU] /= 1.08;
        };
        let pair = go(&mut judge, &mut service, 1500, replaced);
        assert_ne!(pair.outcome, Outcome::Regressed, "seed {seed}: {:?}", pair.reasons);
        assert!(is_told_of_the_pair(&pair), "{:?}", pair.reasons);
        assert!(pair.indicators[CPU].effect.is_some_and(|effect| effect.abs() < 0.04), "{:?}", pair.indicators[CPU]);
        let worse = go(&mut judge, &mut service, 200, |window| {
            replaced(window);
            dearer(window, 1.5);
        });
        assert_eq!(worse.outcome, Outcome::Regressed, "seed {seed}: {:?}", worse.reasons);
    }
}

#[test]
fn what_the_pair_could_not_see_is_seen_once_other_instances_join() {
    let (mut judge, mut service) = (new_judge(), Service::new(75, 3, 0.3));
    let alone = |window: &mut Window| window.stable.truncate(1);
    go(&mut judge, &mut service, 400, alone);
    service.canary = 1;
    let pair = go(&mut judge, &mut service, 800, |window| {
        alone(window);
        dearer(window, 1.07);
    });
    assert_ne!(pair.outcome, Outcome::Regressed, "{:?}", pair.reasons);
    assert!(is_told_of_the_pair(&pair), "{:?}", pair.reasons);
    let joined = go(&mut judge, &mut service, 1500, |window| dearer(window, 1.07));
    assert_eq!(joined.outcome, Outcome::Regressed, "{:?}", joined.reasons);
    assert_eq!(joined.causes[0].signal, "cpu_per_work");
    assert!(!is_told_of_the_pair(&joined), "{:?}", joined.reasons);
}

#[test]
fn windows_in_which_one_of_two_sat_out_are_no_past_of_the_canary() {
    let (mut judge, mut service) = (new_judge(), Service::new(76, 2, 0.3));
    service.canary = 1;
    go(&mut judge, &mut service, 100, |window| dearer(window, 1.2));
    let verdict = go(&mut judge, &mut service, 1500, |window| {
        window.stable[1].incarnation = 2;
        dearer(window, 1.2);
    });
    assert_eq!(verdict.outcome, Outcome::Regressed, "{:?}", verdict.reasons);
    assert_eq!(verdict.causes[0].signal, "cpu_per_work");
}

#[test]
fn how_far_instances_are_apart_is_known_of_a_pair_from_earlier_rollouts() {
    let known = Known { offset_squares: 12.0 * 0.05 * 0.05, freedom: 12.0, wander: 0.0, noise: 0.0 };
    let verdict = |earlier: &Earlier| {
        let (mut judge, mut service) = (Judge::knowing(Parameters::default(), earlier), Service::new(77, 1, 0.3));
        go(&mut judge, &mut service, 400, |_| {});
        service.canary = 1;
        go(&mut judge, &mut service, 300, |window| dearer(window, 1.18))
    };
    assert_eq!(verdict(&Earlier::default()).outcome, Outcome::Regressed);
    let knows = verdict(&Earlier(BTreeMap::from([(Indicator::CpuPerWork, known)])));
    assert_ne!(knows.outcome, Outcome::Regressed, "{:?}", knows.reasons);
    assert!(knows.reasons.iter().any(|r| r.contains("smaller than about 23 %")), "{:?}", knows.reasons);
}

#[test]
fn one_that_came_and_went_before_it_took_part_leaves_the_pair_as_it_was() {
    let (mut judge, mut service) = (new_judge(), Service::new(78, 2, 0.3));
    let alone = |window: &mut Window| window.stable.truncate(1);
    go(&mut judge, &mut service, 400, alone);
    service.canary = 1;
    go(&mut judge, &mut service, 700, alone);
    let own = |judge: &Judge| judge.tracks()[CPU].noise.own_windows();
    let known = own(&judge);
    assert!(known > 300, "{known}");
    // Its first life, and its second one under the same name.
    go(&mut judge, &mut service, 5, |_| {});
    go(&mut judge, &mut service, 5, |window| window.stable[1].incarnation = 2);
    go(&mut judge, &mut service, 200, alone);
    assert_eq!((own(&judge), judge.known_stable()), (known, 1));
}

#[test]
fn what_was_read_stays_among_the_signals_when_stable_restarts() {
    let (mut judge, mut service) = (new_judge(), Service::new(79, 1, 0.3));
    service.canary = 1;
    // Of the pair less than the first 60 windows is known.
    go(&mut judge, &mut service, 100, |_| {});
    let is_signal = |judge: &Judge| judge.tracks()[CPU].has_data();
    assert!(is_signal(&judge));
    go(&mut judge, &mut service, 1, |window| window.stable[0].incarnation = 2);
    assert!(is_signal(&judge), "it would leave the mean to the others");
    judge.reset_evidence();
    assert!(!is_signal(&judge));
}
