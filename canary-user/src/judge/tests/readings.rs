//! Readings that stop coming, or have no logarithm: neither a pass nor evidence.

use super::{
    super::{
        columns::{Column, Columns, Row},
        settings::IndicatorKey,
    },
    *,
};

const STALL: usize = Indicator::MemoryStall as usize;

/// A canary that is healthy.
fn healthy(parameters: Parameters) -> (Judge, Service) {
    let (mut judge, mut service) = (Judge::new(parameters), Service::new(31, 3, 0.3));
    let good = run(&mut judge, &mut service, 600, 1500, |_, _| {});
    assert_eq!(good.outcome, Outcome::Healthy, "{:?}", good.reasons);
    (judge, service)
}

fn without_stall(_: u64, window: &mut Window) {
    window.canary[0].values[STALL] = f64::NAN;
}

#[test]
fn a_canary_does_not_stay_healthy_in_what_is_not_read_any_more() {
    let (mut judge, mut service) = healthy(Parameters::default());
    // So long readings may be merged.
    let merged = run(&mut judge, &mut service, 0, 60, without_stall);
    assert_eq!(merged.outcome, Outcome::Healthy, "{:?}", merged.reasons);
    let lost = run(&mut judge, &mut service, 0, 440, without_stall);
    assert_eq!(lost.outcome, Outcome::Inconclusive, "{:?}", lost.reasons);
    let why = "memory stall: no reading of both sides for 500 windows";
    assert!(lost.reasons.iter().any(|reason| reason == why), "{:?}", lost.reasons);
    let back = run(&mut judge, &mut service, 0, 30, |_, _| {});
    assert_eq!(back.outcome, Outcome::Healthy, "{:?}", back.reasons);
}

#[test]
fn what_is_not_read_any_more_is_missing_by_its_own_policy() {
    let lost = |missing: Missing| {
        let mut parameters = Parameters::default();
        parameters.indicators[STALL].missing = missing;
        let (mut judge, mut service) = healthy(parameters);
        run(&mut judge, &mut service, 0, 100, without_stall)
    };
    assert_eq!(lost(Missing::Ignore).outcome, Outcome::Healthy);
    let insufficient = lost(Missing::Insufficient);
    assert_eq!(insufficient.outcome, Outcome::InsufficientData);
    assert!(
        insufficient.reasons[0].starts_with("memory stall: no reading of both sides"),
        "{:?}",
        insufficient.reasons
    );
}

#[test]
fn a_canary_that_is_never_through_its_warm_up_does_not_stay_healthy_whatever_the_policies() {
    for missing in [Missing::Inconclusive, Missing::Ignore] {
        let mut parameters = Parameters::default();
        parameters.indicators.iter_mut().for_each(|i| i.missing = missing);
        let (mut judge, mut service) = healthy(parameters);
        let once = run(&mut judge, &mut service, 0, 60, |_, window| window.canary[0].incarnation = 2);
        assert_eq!(once.outcome, Outcome::Healthy, "{missing:?}: {:?}", once.reasons);
        let verdict = run(&mut judge, &mut service, 0, 500, |t, window| window.canary[0].incarnation = 3 + t / 50);
        assert_eq!(verdict.outcome, Outcome::Inconclusive, "{missing:?}: {:?}", verdict.reasons);
        let why = "nothing of the canary could be compared for 560 windows: each of its instances is in its warm-up";
        assert!(verdict.reasons[0].starts_with(why), "{missing:?}: {:?}", verdict.reasons);
    }
}

#[test]
fn a_column_that_is_not_read_any_more_is_not_healthy() {
    let column = |name: &str| Column {
        name: name.into(),
        direction: Direction::Up,
        tolerance: Tolerance::default(),
        epsilon: 0.01,
    };
    let mut columns = Columns::new(Parameters::default(), vec![column("a"), column("b")]);
    let mut random = Random(82);
    let mut verdicts = Vec::new();
    for t in 0..1_700u64 {
        let mut row = |target: &str| Row {
            target: target.into(),
            values: vec![100.0 * (0.03 * random.normal()).exp(), 5.0 * (0.03 * random.normal()).exp()],
        };
        let stable = ["s0", "s1", "s2"].map(&mut row);
        let mut canary = row("c");
        if t >= 1_500 {
            canary.values[1] = f64::NAN;
        }
        let canary = if t >= 300 { vec![canary] } else { Vec::new() };
        verdicts.push(columns.observe(t, (t + 1) * 1_000_000_000, &stable, &canary));
    }
    assert_eq!(verdicts[1_499].outcome, Outcome::Healthy, "{:?}", verdicts[1_499].reasons);
    assert_eq!(verdicts[1_699].outcome, Outcome::Inconclusive);
    assert_eq!(verdicts[1_699].reasons, ["b: no reading of both sides for 200 windows"]);
}

#[test]
fn healthy_says_for_how_long_it_was_judged_also_beyond_a_horizon() {
    let parameters = Parameters { horizon_windows: 600, ..Parameters::default() };
    let (mut judge, mut service) = (Judge::new(parameters), Service::new(30, 3, 0.3));
    let verdict = run(&mut judge, &mut service, 600, 4000, |_, _| {});
    assert_eq!(verdict.outcome, Outcome::Healthy, "{:?}", verdict.reasons);
    assert_eq!(verdict.judged_windows, 3_940);
    assert!(verdict.reasons[0].ends_with(" after 3940 windows"), "{:?}", verdict.reasons);
}

/// As a number it would be as far off as can be, and win every bet.
#[test]
fn the_logarithm_of_nothing_is_missing_and_no_evidence() {
    let mut parameters = Parameters::default();
    parameters.indicators[STALL].epsilon = 0.0;
    let (mut judge, mut service) = (Judge::new(parameters), Service::new(81, 3, 0.3));
    let mut random = Random(81);
    for t in 0..2_000u64 {
        service.canary = usize::from(t >= 600);
        let mut window = service.next();
        for reading in window.stable.iter_mut().chain(&mut window.canary) {
            if random.uniform() < 0.7 {
                reading.values[STALL] = 0.0;
            }
        }
        let verdict = judge.observe(&window);
        assert_ne!(verdict.outcome, Outcome::Regressed, "window {t}: {:?}", verdict.reasons);
        assert!(verdict.evidence_ln.is_finite(), "window {t}");
    }
}

#[test]
fn something_has_to_be_added_before_a_logarithm() {
    let mut set = IndicatorParameters::default();
    let refused = IndicatorKey::Epsilon.apply(&mut set, &toml::Value::Float(0.0)).expect_err("nothing is added");
    assert_eq!(refused, "write 0.000000001 to 1000000000000000");
    assert_eq!(IndicatorKey::Epsilon.apply(&mut set, &toml::Value::Float(1e-9)), Ok(()));
}

#[test]
fn of_a_canary_that_is_gone_no_progress_is_told_that_it_can_make_no_more() {
    const CPU: usize = Indicator::CpuPerWork as usize;
    let says = |verdict: &Verdict, what: &str| verdict.reasons.iter().any(|reason| reason.contains(what));
    for stable in [1, 3] {
        let (mut judge, mut service) = (new_judge(), Service::new(10, stable, 0.0));
        let there = run(&mut judge, &mut service, 20, 5, |_, _| {});
        assert!(says(&there, "learned from 0 of 300 windows of stable"), "{:?}", there.reasons);
        let learned = there.indicators[CPU].missing.as_deref();
        assert_eq!(learned, Some("learned from 0 of 300 windows of stable"));
        let gone = run(&mut judge, &mut service, 31, 0, |_, _| {});
        assert!(says(&gone, "the canary has reported nothing for 31 windows"), "{:?}", gone.reasons);
        assert!(!says(&gone, "learned from 0"), "{:?}", gone.reasons);
        let why = gone.indicators[CPU].missing.as_deref();
        assert_eq!(why, Some("the canary's readings ended before it could be compared"));
    }
}
