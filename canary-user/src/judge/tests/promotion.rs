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
        let window = next(&mut service, &change);
        let verdict = judge.observe(&window);
        if worse.is_none() && verdict.promotion.as_ref().is_some_and(|p| p.worse) {
            worse = Some(verdict.clone());
        }
        last = Some(verdict);
    }
    (last.expect("there were windows"), worse)
}

/// Its next window.
fn next(service: &mut Service, change: impl Fn(&mut Window)) -> Window {
    let mut window = service.next();
    let load = 1.0 + 0.5 * (window.index as f64 / 200.0).sin();
    window.stable.iter_mut().for_each(|r| r.values.iter_mut().for_each(|v| *v /= load));
    change(&mut window);
    window
}

/// What a judge leaves that has watched for so many windows, as it is kept.
fn left(service: &mut Service, windows: u64, change: impl Fn(&mut Window)) -> KeptControl {
    let mut judge = Judge::new(Parameters::default());
    (0..windows).for_each(|_| drop(judge.observe(&next(service, &change))));
    let text = serde_json::to_string(&judge.control().expect("it is under way")).expect("JSON");
    serde_json::from_str(&text).expect("the same")
}

/// Another judge, which begins to count anew after `missed` windows; the last verdict and that in which stable was first said to be
/// worse.
fn resumed(
    service: &mut Service,
    kept: KeptControl,
    missed: u64,
    windows: u64,
    change: impl Fn(&mut Window),
) -> (Verdict, Option<Verdict>) {
    (0..missed).for_each(|_| drop(next(service, &change)));
    let mut judge = Judge::new(Parameters::default());
    assert_eq!(judge.resume(kept, missed), Resumed::GoesOn);
    let (mut last, mut worse) = (None, None);
    for index in 0..windows {
        let verdict = judge.observe(&Window { index, ..next(service, &change) });
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
        assert_eq!(promotion.since, Some(BEFORE + 40), "seed {seed}: when the last one was replaced");
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
        assert_eq!((promotion.windows, promotion.of_windows, promotion.since), (3_600, 3_600, Some(BEFORE)));
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

#[test]
fn a_version_that_gets_worse_after_a_restart_of_the_guard_is_held_against_the_one_before() {
    for seed in 1..=5 {
        let mut service = Service::new(seed, 3, 0.3);
        let change = |w: &mut Window| {
            (0..3).for_each(|j| replace(w, j, BEFORE));
            if w.index >= BEFORE + 320 {
                heavier(w, 1.3);
            }
        };
        let kept = left(&mut service, BEFORE + 200, change);
        let (_, worse) = resumed(&mut service, kept, 100, 120, change);
        let verdict = worse.unwrap_or_else(|| panic!("seed {seed}"));
        let promotion = verdict.promotion.as_ref().expect("as found");
        assert_eq!((promotion.since, promotion.indicators[0].indicator), (None, Indicator::CpuPerWork), "seed {seed}");
        assert!(verdict.window >= 20, "seed {seed}: not before it was so: {}", verdict.window);
        let said =
            "stable is worse since its instances were replaced before the guard was started: CPU per turnaround +";
        assert!(promotion.text.starts_with(said), "seed {seed}: {}", promotion.text);
        assert_eq!((verdict.outcome, verdict.hard), (Outcome::InsufficientData, None), "seed {seed}");
    }
}

#[test]
fn an_equal_version_is_no_worse_over_a_restart_of_the_guard_and_its_time_ends_as_it_would_have() {
    for seed in 1..=5 {
        let mut service = Service::new(seed, 3, 0.3);
        let change = |w: &mut Window| (0..3).for_each(|j| replace(w, j, BEFORE));
        let kept = left(&mut service, BEFORE + 200, change);
        let (last, worse) = resumed(&mut service, kept, 100, 3_500, change);
        let promotion = last.promotion.expect("stable was replaced");
        assert!(worse.is_none(), "seed {seed}: {promotion:?}");
        assert_eq!((promotion.windows, promotion.of_windows, promotion.since), (3_600, 3_600, None));
        let said =
            "stable was replaced before the guard was started and no worse than before in the 3600 windows after that";
        assert!(last.reasons.iter().any(|r| r == said), "seed {seed}: {:?}", last.reasons);
    }
}

#[test]
fn what_was_found_before_a_restart_stays_found() {
    let mut service = Service::new(1, 3, 0.3);
    let change = |w: &mut Window| {
        (0..3).for_each(|j| replace(w, j, BEFORE));
        heavier(w, 1.3);
    };
    let kept = left(&mut service, BEFORE + 200, change);
    let (last, _) = resumed(&mut service, kept, 5, 1, change);
    assert!(last.promotion.is_some_and(|p| p.worse));
}

#[test]
fn one_whose_time_is_over_or_that_was_made_by_other_settings_is_not_used() {
    let change = |w: &mut Window| (0..3).for_each(|j| replace(w, j, BEFORE));
    let kept = left(&mut Service::new(1, 3, 0.3), BEFORE + 200, change);
    let mut other = Parameters::default();
    other.indicators[Indicator::CpuPerWork as usize].tolerance.delta = 0.05;
    for (parameters, missed, becomes) in [
        (Parameters::default(), 3_600, Resumed::Over),
        (Parameters { continuous_windows: 100, ..Parameters::default() }, 0, Resumed::Over),
        (other, 0, Resumed::Refused("it was made by other settings of the judge".to_owned())),
    ] {
        let mut judge = Judge::new(parameters);
        assert_eq!(judge.resume(kept.clone(), missed), becomes);
        let mut service = Service::new(1, 3, 0.3);
        for _ in 0..50 {
            assert_eq!(judge.observe(&service.next()).promotion, None);
        }
    }
}

#[test]
fn what_is_kept_is_bounded_and_nothing_is_where_nothing_is_compared() {
    let change = |w: &mut Window| (0..80).for_each(|j| replace(w, j, BEFORE));
    let kept = left(&mut Service::new(1, 80, 0.3), BEFORE + 1, change);
    assert_eq!(kept.instances.len(), 64);
    let bytes = serde_json::to_string(&kept).expect("JSON").len();
    assert!(bytes < 16_384, "{bytes}");
    let mut judge = Judge::new(Parameters::default());
    let mut service = Service::new(1, 3, 0.3);
    for _ in 0..BEFORE {
        judge.observe(&service.next());
    }
    assert_eq!(judge.control(), None);
}

#[test]
fn a_neighbour_that_only_waits_tell_of_is_not_held_against_it() {
    let (last, worse) = watched(3, Parameters::default(), BEFORE + 400, |w| {
        (0..3).for_each(|j| replace(w, j, BEFORE));
        let comes = w.index >= BEFORE;
        for reading in &mut w.stable {
            reading.around.wait_ns = Some(10_000_000);
            reading.around.wait_for_others_ns = Some(if comes { 8_000_000 } else { 1_000_000 });
            reading.values[Indicator::RunQueueWait as usize] *= if comes { 3.0 } else { 1.0 };
        }
    });
    assert!(worse.is_none(), "{:?}", last.promotion);
    let said = "of its waits for one, stable waits 80 % for processes of other cgroups, usually 10 %";
    let signs = &last.environment.signs;
    assert!(signs.iter().any(|s| s.kind == SignKind::Neighbour && s.text.ends_with(said)), "{signs:?}");
}

#[test]
fn one_that_came_and_went_before_it_took_part_is_none_of_stable() {
    let mut service = Service::new(1, 4, 0.3);
    let kept = left(&mut service, BEFORE + 200, |w| {
        (0..3).for_each(|j| replace(w, j, BEFORE));
        // It comes while the new ones warm up, and goes when these have joined.
        if !(BEFORE + 30..BEFORE + 70).contains(&w.index) {
            w.stable.truncate(3);
        }
    });
    let names: Vec<&str> = kept.instances.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["/stable-0", "/stable-1", "/stable-2"]);
}

#[test]
fn with_more_instances_than_have_a_place_it_is_a_promotion_once_the_last_of_all_is_replaced() {
    let (mut judge, mut service) = (Judge::new(Parameters::default()), Service::new(1, 12, 0.3));
    let mut since = Vec::new();
    for _ in 0..BEFORE + 100 {
        let window = next(&mut service, |w| {
            (0..8).for_each(|j| replace(w, j, BEFORE));
            (8..12).for_each(|j| replace(w, j, BEFORE + 40));
        });
        since.push(judge.observe(&window).promotion.map(|promotion| promotion.since));
    }
    let first = since.iter().position(Option::is_some);
    assert_eq!((first, since[(BEFORE + 99) as usize]), (Some(740), Some(Some(BEFORE + 40))));
}
