//! Continuous mode: stable against what it was before all of its instances were replaced.

use super::*;

/// Windows of the instances before, which are 3.
const BEFORE: u64 = 700;

/// A service without a canary and without waves of load, as `change` makes it; the last verdict and that in which stable was first said
/// to be worse.
fn watched(
    seed: u64,
    parameters: Parameters,
    windows: u64,
    change: impl Fn(&mut Window),
) -> (Verdict, Option<Verdict>) {
    let (mut judge, mut service) = (Judge::new(parameters), Service::new(seed, 3, 0.3));
    let (mut last, mut worse) = (None, None);
    for _ in 0..windows {
        let mut window = service.next();
        let load = 1.0 + 0.5 * (window.index as f64 / 200.0).sin();
        window.stable.iter_mut().for_each(|r| r.values.iter_mut().for_each(|v| *v /= load));
        change(&mut window);
        let verdict = judge.observe(&window);
        if worse.is_none() && verdict.promotion.as_ref().is_some_and(|p| p.worse) {
            worse = Some(verdict.clone());
        }
        last = Some(verdict);
    }
    (last.expect("there were windows"), worse)
}

/// From window `from` on, instance `j` is another one.
fn replace(window: &mut Window, j: usize, from: u64) {
    if window.index >= from {
        window.stable[j].incarnation = 2;
    }
}

/// What needs `factor` times the CPU from being replaced on.
fn heavier(window: &mut Window, factor: f64) {
    for reading in window.stable.iter_mut().filter(|r| r.incarnation == 2) {
        reading.values[Indicator::CpuPerWork as usize] *= factor;
    }
}

#[test]
fn a_worse_version_that_was_promoted_is_told_and_condemns_nobody() {
    for seed in 1..=5 {
        // One after the other, as a rolling update does it.
        let (_, worse) = watched(seed, Parameters::default(), BEFORE + 400, |w| {
            (0..3).for_each(|j| replace(w, j, BEFORE + 20 * j as u64));
            heavier(w, 1.3);
        });
        let verdict = worse.unwrap_or_else(|| panic!("seed {seed}"));
        let promotion = verdict.promotion.as_ref().expect("as found");
        assert_eq!(promotion.since, BEFORE + 40, "seed {seed}: when the last one was replaced");
        assert!(verdict.window < BEFORE + 40 + 60 + 60, "seed {seed}: found in window {}", verdict.window);
        let leading = &promotion.indicators[0];
        assert_eq!(leading.indicator, Indicator::CpuPerWork, "seed {seed}");
        assert!(leading.effect_low < 0.3 && leading.effect_high > 0.3, "seed {seed}: {leading:?}");
        assert_eq!((verdict.outcome, verdict.hard), (Outcome::InsufficientData, None), "seed {seed}");
        assert!(verdict.reasons.contains(&promotion.text), "seed {seed}: {:?}", verdict.reasons);
        assert!(promotion.text.starts_with("stable is worse since its instances were replaced in window 740: CPU per"));
        let advice = &verdict.recommendations[0];
        assert_eq!((advice.step, &advice.because), (Step::RollBack, &promotion.text), "seed {seed}");
    }
}

#[test]
fn an_equal_version_that_was_promoted_is_no_worse() {
    for seed in 1..=10 {
        let (last, worse) = watched(seed, Parameters::default(), BEFORE + 3_800, |w| {
            (0..3).for_each(|j| replace(w, j, BEFORE));
        });
        let promotion = last.promotion.expect("stable was replaced");
        assert!(worse.is_none(), "seed {seed}: {promotion:?}");
        assert_eq!((promotion.windows, promotion.of_windows, promotion.since), (3_600, 3_600, BEFORE));
        let said = "stable was replaced in window 700 and no worse than before in the 3600 windows after that";
        assert!(last.reasons.iter().any(|r| r == said), "seed {seed}: {:?}", last.reasons);
        assert_eq!(last.recommendations[0].step, Step::Wait);
    }
}

#[test]
fn one_restarted_instance_is_no_promotion() {
    let (last, _) = watched(3, Parameters::default(), BEFORE + 200, |w| {
        replace(w, 1, BEFORE);
        heavier(w, 1.5);
    });
    assert_eq!(last.promotion, None);
}

#[test]
fn those_who_were_there_for_a_short_time_are_no_control() {
    let (last, _) = watched(3, Parameters::default(), 600, |w| (0..3).for_each(|j| replace(w, j, 100)));
    assert_eq!(last.promotion, None);
}

#[test]
fn what_a_neighbour_does_is_not_held_against_it() {
    let (last, worse) = watched(3, Parameters::default(), BEFORE + 400, |w| {
        (0..3).for_each(|j| replace(w, j, BEFORE));
        if w.index >= BEFORE {
            w.node.cpu_others = Some(0.9);
            w.stable.iter_mut().for_each(|r| r.values[Indicator::RunQueueWait as usize] *= 3.0);
        } else {
            w.node.cpu_others = Some(0.1);
        }
    });
    assert!(worse.is_none(), "{:?}", last.promotion);
}

#[test]
fn it_can_be_switched_off() {
    let off = Parameters { continuous_windows: 0, ..Parameters::default() };
    let (last, _) = watched(3, off, BEFORE + 200, |w| {
        (0..3).for_each(|j| replace(w, j, BEFORE));
        heavier(w, 1.5);
    });
    assert_eq!(last.promotion, None);
}
