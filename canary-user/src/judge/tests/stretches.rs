//! Stretches in which one version leaves its own usual band: seldom found where nothing happens, and told with start, end,
//! size and shape where something does.

use super::{
    super::{
        columns::{Column, Columns, Row},
        stretch::{Found, Moment, Watch},
    },
    *,
};
use crate::targets::Role;

/// What the noise of a generated series is like, with standard deviation 1.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Independent,
    /// First-order autoregression.
    Autoregressive(f64),
    /// Student's t with 3 degrees of freedom.
    Student,
}

const KINDS: [Kind; 3] = [Kind::Independent, Kind::Autoregressive(0.7), Kind::Student];

struct Series {
    random: Random,
    kind: Kind,
    slow: f64,
}

impl Series {
    fn new(seed: u64, kind: Kind) -> Self {
        Self { random: Random(seed), kind, slow: 0.0 }
    }

    fn next(&mut self) -> f64 {
        match self.kind {
            Kind::Independent => self.random.normal(),
            Kind::Autoregressive(rho) => {
                self.slow = rho * self.slow + (1.0 - rho * rho).sqrt() * self.random.normal();
                self.slow
            }
            Kind::Student => {
                let chi_square: f64 = (0..3).map(|_| self.random.normal().powi(2)).sum();
                self.random.normal() / chi_square.sqrt()
            }
        }
    }
}

/// Runs `windows` of noise of `deviation` plus `change` through a watch. Answers all stretches, the last one perhaps open.
fn watched(seed: u64, kind: Kind, deviation: f64, windows: u64, change: impl Fn(u64) -> f64) -> Vec<Found> {
    let p = Parameters::default();
    let (mut watch, mut series) = (Watch::new(&p), Series::new(seed, kind));
    let mut found = Vec::new();
    for index in 0..windows {
        let level = 3.0 + deviation * series.next() + change(index);
        found.extend(watch.observe(level, Moment { index, t_ns: index * 1_000_000_000 }, 0.02, &p));
    }
    found.extend(watch.open(&p));
    found
}

fn between(index: u64, from: u64, to: u64, size: f64) -> f64 {
    if (from..to).contains(&index) { size } else { 0.0 }
}

/// The promise is at most one in 86 400 windows. The larger figure is `cargo xtask bench judge --only stretch`.
#[test]
fn where_nothing_happens_hardly_any_stretch_is_found() {
    for kind in KINDS {
        let n: usize = (1..=6).map(|seed| watched(seed, kind, 0.05, 14_400, |_| 0.0).len()).sum();
        assert!(n <= 1, "{kind:?}: {n} in 86 400 windows");
    }
}

#[test]
fn each_shape_is_told_with_its_start_end_and_size() {
    let (from, to) = (900, 1100);
    for kind in KINDS {
        for seed in 1..=10 {
            let one = |size: f64, expected: StretchShape, change: &dyn Fn(u64) -> f64, start_within: u64, to: u64| {
                let found = watched(seed, kind, 0.03, 1600, change);
                let [it] = found[..] else { panic!("{kind:?}, seed {seed}, {expected:?}: {found:?}") };
                assert_eq!(it.shape, expected, "{kind:?}, seed {seed}: {it:?}");
                assert!(it.start.index.abs_diff(from) <= start_within, "{kind:?}, seed {seed}: {it:?}");
                assert!(it.end.is_some_and(|end| end.index.abs_diff(to - 1) <= 3), "{kind:?}, seed {seed}: {it:?}");
                assert_eq!(it.start.t_ns, it.start.index * 1_000_000_000);
                assert!((libm::expm1(it.size) - size).abs() <= 0.15 * size.abs(), "{kind:?}, seed {seed}: {it:?}");
                assert!(it.found.index < to && !it.became_usual);
            };
            one(0.4, StretchShape::Step, &|t| between(t, from, to, 1.4f64.ln()), 4, to);
            one(-0.3, StretchShape::Step, &|t| between(t, from, to, 0.7f64.ln()), 4, to);
            one(1.0, StretchShape::Burst, &|t| between(t, from, from + 15, 2f64.ln()), 4, from + 15);
            // Up to twice as much, so that the median is half of it; a ramp is seen to begin when it leaves the band.
            one(
                0.5,
                StretchShape::Drift,
                &|t| between(t, from, to, (1.0 + t.saturating_sub(from) as f64 / 200.0).ln()),
                30,
                to,
            );
            let side = |t: u64| if (t / 4).is_multiple_of(2) { 1.0 } else { -1.0 };
            one(0.6, StretchShape::Oscillation, &|t| side(t) * between(t, from, to, 1.6f64.ln()), 4, to);
        }
    }
}

/// Divides out the service's wave of load, and makes every instance of stable need more CPU for 200 windows.
fn sick_stable(window: &mut Window) {
    let load = 1.0 + 0.5 * (window.index as f64 / 200.0).sin();
    let factor = if (700..900).contains(&window.index) { 1.4 } else { 1.0 };
    window.stable.iter_mut().chain(&mut window.canary).for_each(|r| r.values.iter_mut().for_each(|v| *v /= load));
    window.stable.iter_mut().for_each(|r| r.values[Indicator::CpuPerWork as usize] *= factor);
}

#[test]
fn a_stretch_is_told_where_no_canary_is_running() {
    let (mut judge, mut service) = (new_judge(), Service::new(8, 3, 0.3));
    let mut verdicts = Vec::new();
    for _ in 0..1200 {
        let mut window = service.next();
        sick_stable(&mut window);
        verdicts.push(judge.observe(&window));
    }
    assert!(verdicts.iter().all(|v| v.outcome == Outcome::InsufficientData));
    assert!(verdicts[690].stretches.is_empty(), "{:?}", verdicts[690].stretches);
    let under_way = &verdicts[800].stretches[..];
    let [open] = under_way else { panic!("{under_way:?}") };
    assert_eq!((open.end, open.end_t_ns, open.shape), (None, None, StretchShape::Step));
    assert_eq!(
        open.text,
        format!("stable: CPU per turnaround +{:.0} % since window 700 (so far: step)", 100.0 * open.size)
    );
    let last = &verdicts[1199].stretches[..];
    let [it] = last else { panic!("{last:?}") };
    assert_eq!((it.role, it.signal.as_str(), it.start, it.end), (Role::Stable, "cpu_per_work", 700, Some(899)));
    assert_eq!((it.start_t_ns, it.end_t_ns), (701_000_000_000, Some(900_000_000_000)));
    assert_eq!(it.text, format!("stable: CPU per turnaround +{:.0} % from window 700 to 899 (step)", 100.0 * it.size));
    assert!((0.37..0.43).contains(&it.size), "{it:?}");
}

#[test]
fn a_cause_says_what_stable_did_meanwhile() {
    let (mut judge, mut service) = (new_judge(), Service::new(9, 3, 0.3));
    let mut last = None;
    for t in 0..1000 {
        service.canary = usize::from(t >= 400);
        let mut window = service.next();
        sick_stable(&mut window);
        if t >= 700 {
            // Much more than stable's own: not held back as the environment.
            scale(&mut window, Indicator::CpuPerWork, 8.0);
        }
        let verdict = judge.observe(&window);
        let regressed = verdict.outcome == Outcome::Regressed;
        last = Some(verdict);
        if regressed {
            break;
        }
    }
    let verdict = last.expect("windows were judged");
    assert_eq!(verdict.outcome, Outcome::Regressed, "{:?}", verdict.reasons);
    assert!(verdict.causes[0].text.contains("; meanwhile stable: CPU per turnaround +"), "{:?}", verdict.causes);
}

/// Whatever is told of stretches, the rest of the verdict is the same: with a run length at which everything is one, too.
#[test]
fn stretches_never_change_what_is_decided() {
    let bare = |verdict: Verdict| {
        // What may tell of a stretch in words.
        let causes: Vec<_> =
            verdict.causes.iter().map(|c| (c.signal.clone(), c.mechanism.clone(), c.evidence_ln)).collect();
        let steps: Vec<_> = verdict.recommendations.iter().map(|r| (r.step, r.risk, r.confidence)).collect();
        (
            verdict.outcome,
            verdict.evidence_ln,
            verdict.p_canary,
            verdict.p_stable,
            verdict.onset,
            causes,
            steps,
            verdict.environment,
        )
    };
    let run = |stretch_run_length: f64, worse: f64| {
        let mut judge = Judge::new(Parameters { stretch_run_length, ..Parameters::default() });
        let mut service = Service::new(21, 3, 0.3);
        let mut told = 0;
        let verdicts: Vec<_> = (0..1500)
            .map(|t| {
                service.canary = usize::from(t >= 400);
                let mut window = service.next();
                sick_stable(&mut window);
                if t >= 1000 {
                    scale(&mut window, Indicator::TurnaroundMean, worse);
                }
                let verdict = judge.observe(&window);
                told += verdict.stretches.len();
                bare(verdict)
            })
            .collect();
        (verdicts, told)
    };
    for worse in [1.0, 1.5] {
        let ((usual, some), (eager, more), (deaf, none)) = (run(86_400.0, worse), run(3.0, worse), run(1e300, worse));
        assert!(usual == eager && usual == deaf);
        assert!(more > some && some > none && none == 0, "{more} {some} {none}");
    }
}

#[test]
fn the_same_windows_give_the_same_stretches() {
    let run = || {
        let (mut judge, mut service) = (new_judge(), Service::new(5, 3, 0.7));
        let mut last = Vec::new();
        for t in 0..1500 {
            service.canary = usize::from(t >= 300);
            let mut window = service.next();
            sick_stable(&mut window);
            last = judge.observe(&window).stretches;
        }
        serde_json::to_string(&last).expect("JSON")
    };
    let first = run();
    assert!(first.contains("\"shape\":\"step\""), "{first}");
    assert_eq!(first, run());
}

#[test]
fn a_stretch_that_lasts_becomes_what_is_usual() {
    let found = watched(3, Kind::Independent, 0.05, 9000, |t| if t >= 900 { 0.5 } else { 0.0 });
    let [it] = found[..] else { panic!("{found:?}") };
    assert!(it.became_usual && it.end.is_some_and(|end| end.index == it.start.index + 3600), "{it:?}");
}

/// Fifty bursts leave the twenty latest; and a series that is never usual takes no more room than one that is.
#[test]
fn only_the_latest_stretches_are_kept() {
    let (mut judge, mut service) = (new_judge(), Service::new(31, 3, 0.0));
    let mut last = Vec::new();
    for t in 0..6000u64 {
        let mut window = service.next();
        sick_stable(&mut window);
        if t >= 1000 && t % 100 < 10 {
            window.stable.iter_mut().for_each(|r| r.values[Indicator::BytesPerWork as usize] *= 3.0);
        }
        last = judge.observe(&window).stretches;
    }
    assert_eq!(last.len(), Parameters::default().stretches_kept, "{last:?}");
    assert!(last.is_sorted_by_key(|s| s.start) && last[0].start >= 3900, "{:?}", last[0]);
    let p = Parameters::default();
    let (mut watch, mut random) = (Watch::new(&p), Random(7));
    let mut most = 0;
    for index in 0..20_000u64 {
        let level = 10.0 * random.normal() * if index.is_multiple_of(700) { 1e6 } else { 1.0 };
        watch.observe(level, Moment { index, t_ns: index }, 0.02, &p);
        most = most.max(watch.bytes());
    }
    assert!(most <= 4 * 1024, "{most} bytes");
}

#[test]
fn a_table_has_stretches_by_the_names_of_its_columns() {
    let column = |name: &str| Column {
        name: name.into(),
        direction: Direction::Down,
        tolerance: Tolerance::default(),
        epsilon: 0.0,
    };
    let mut judge = Columns::new(Parameters::default(), vec![column("hit_rate"), column("throughput")]);
    let mut random = Random(12);
    let mut last = Vec::new();
    for index in 0..1200u64 {
        let factor = if (700..900).contains(&index) { 0.5 } else { 1.0 };
        let stable: Vec<Row> = ["a", "b", "c"]
            .map(|target| {
                let mut noisy = |usual: f64| usual * (0.03 * random.normal()).exp();
                Row { target: target.into(), values: vec![noisy(0.9), factor * noisy(500.0)] }
            })
            .into();
        last = judge.observe(index, index * 1_000_000_000, &stable, &[]).stretches;
    }
    let [it] = &last[..] else { panic!("{last:?}") };
    // Where less is worse, less is still told as less.
    assert_eq!(it.text, format!("stable: throughput {:.0} % from window 700 to 899 (step)", 100.0 * it.size));
    assert!((-0.52..-0.48).contains(&it.size), "{it:?}");
}

#[test]
fn the_stretch_of_a_version_that_is_gone_is_over() {
    let p = Parameters::default();
    let (mut watch, mut random) = (Watch::new(&p), Random(4));
    for index in 0..1000u64 {
        let level = 0.05 * random.normal() + between(index, 900, 1000, 0.5);
        assert_eq!(watch.observe(level, Moment { index, t_ns: index }, 0.02, &p), None);
    }
    assert!(watch.open(&p).is_some_and(|it| it.end.is_none()));
    let ended: Vec<Found> =
        (1000..1100).filter_map(|index| watch.observe(f64::NAN, Moment { index, t_ns: index }, 0.02, &p)).collect();
    let [it] = ended[..] else { panic!("{ended:?}") };
    assert_eq!(it.end.map(|end| end.index), Some(999));
    assert_eq!(watch.open(&p), None);
}

/// NaN, infinity and gaps are no stretch and teach nothing.
#[test]
fn what_is_missing_is_no_stretch() {
    let p = Parameters::default();
    let (mut watch, mut random) = (Watch::new(&p), Random(2));
    for index in 0..3000u64 {
        let level = match index % 7 {
            0 => f64::NAN,
            1 => f64::INFINITY,
            2 => f64::NEG_INFINITY,
            _ => 0.05 * random.normal(),
        };
        let ended = watch.observe(level, Moment { index: index * 3, t_ns: index }, 0.02, &p);
        assert!(ended.is_none() && watch.open(&p).is_none(), "window {index}: {ended:?}");
    }
}
