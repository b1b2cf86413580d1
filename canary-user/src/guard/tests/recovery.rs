//! Whether it helped: each sign each way, and nothing known is neither.

use crate::{
    guard::recovery::{Before, Level, Levels, Look, RECOVERY_WINDOWS, Recovery, Watch},
    judge::{IndicatorState, Outcome},
    window::Indicator,
};

fn before() -> Before {
    let levels = vec![Level { indicator: Indicator::CpuPerWork, stable: 100.0, canary: 160.0 }];
    Before { p_canary: Some(2.5), turnarounds_per_second: Some(100.0), levels }
}

fn good() -> Look {
    Look {
        p_stable: Some(0.1),
        levels: vec![(Indicator::CpuPerWork, Some(103.0))],
        crashes: Some(0),
        oom_kills: Some(0),
        turnarounds: Some(90),
        span_ns: 1_000_000_000,
    }
}

fn after(before: Before, look: &Look) -> Recovery {
    let mut watch = Watch::new(before);
    for _ in 1..RECOVERY_WINDOWS {
        assert_eq!(watch.observe(look.clone()), None, "not before the last window");
    }
    let answer = watch.observe(look.clone()).expect("the last window answers");
    assert_eq!(watch.observe(look.clone()), None, "once");
    answer
}

#[test]
fn a_service_that_is_as_before_has_recovered() {
    assert_eq!(
        after(before(), &good()),
        Recovery::Recovered(
            "the service is back: P(t) of stable is 0.10, the canary's was 2.50; stable's CPU per turnaround is +3 % of \
             what it was, the canary's was +60 %; stable serves 90 requests a second, both versions served 100 before"
                .into()
        )
    );
}

#[test]
fn each_sign_alone_says_that_it_did_not_help() {
    type Change = fn(&mut Look);
    let cases: [(Change, &str); 5] = [
        (|l| l.p_stable = Some(1.2), "P(t) of stable is 1.20, the canary's was 2.50"),
        (
            |l| l.levels[0].1 = Some(130.0),
            "stable's CPU per turnaround is +30 % of what it was, the canary's was +60 %",
        ),
        (|l| l.crashes = Some(1), "crashes of stable: 30"),
        (|l| l.oom_kills = Some(1), "OOM kills of stable: 30"),
        (|l| l.turnarounds = Some(49), "stable serves 49 requests a second, both versions served 100 before"),
    ];
    for (change, words) in cases {
        let mut look = good();
        change(&mut look);
        assert_eq!(
            after(before(), &look),
            Recovery::NotRecovered(format!("taking the canary away did not help: {words}"))
        );
    }
}

#[test]
fn what_is_not_known_is_neither_and_half_of_the_work_is_enough() {
    let blind = Look { span_ns: 1_000_000_000, ..Look::default() };
    assert!(matches!(after(before(), &blind), Recovery::Unknown(_)));
    let nan = Look { p_stable: Some(f64::NAN), levels: vec![(Indicator::CpuPerWork, Some(f64::NAN))], ..blind };
    assert!(matches!(after(Before::default(), &nan), Recovery::Unknown(_)));
    let mut half = good();
    half.turnarounds = Some(50);
    assert!(matches!(after(before(), &half), Recovery::Recovered(_)));
    // One window in which stable was not counted leaves the work unknown, not less.
    let mut watch = Watch::new(before());
    let mut answer = None;
    for n in 0..RECOVERY_WINDOWS {
        let turnarounds = (n > 0).then_some(40);
        answer = watch.observe(Look { turnarounds, ..good() });
    }
    assert!(matches!(answer, Some(Recovery::Recovered(_))), "{answer:?}");
}

#[test]
fn the_levels_are_means_of_what_is_known_of_both() {
    let state = |indicator, stable, canary| IndicatorState {
        indicator,
        canary,
        stable,
        effect: None,
        effect_low: None,
        effect_high: None,
        margin: None,
        p: None,
        evidence_ln: 0.0,
        confirmed: false,
        missing: None,
    };
    let mut levels = Levels::default();
    for n in 0..20 {
        let mut verdict = super::verdict(Outcome::Regressed, n);
        // The first ten are forgotten.
        let stable = if n < 10 { 7.0 } else { 100.0 };
        verdict.indicators = vec![
            state(Indicator::CpuPerWork, Some(stable), Some(160.0)),
            state(Indicator::MemoryInUse, Some(1.0), None),
        ];
        levels.observe(&verdict);
    }
    let means = levels.means(&[Indicator::CpuPerWork, Indicator::MemoryInUse, Indicator::RunQueueWait]);
    assert_eq!(means, [Level { indicator: Indicator::CpuPerWork, stable: 100.0, canary: 160.0 }]);
}
