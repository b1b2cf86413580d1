//! The judge on generated windows: silent on equal versions, quick and right about what got worse.

mod bad_input;
mod causes;
mod clumps;
mod earlier;
mod environment;
mod events;
mod exposure;
mod load;
mod members;
mod merged;
mod noise;
mod pair;
mod power;
mod promotion;
mod readings;
mod stretches;
mod tails;

use std::sync::Arc;

use super::*;
use crate::window::{Around, Event, Indicator, Node, Reading, Window};

/// SplitMix64, and normal deviates from it (Box-Muller): the same on every machine and in every run.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    fn poisson(&mut self, mean: f64) -> u64 {
        let (limit, mut product, mut n) = ((-mean).exp(), self.uniform(), 0);
        while product > limit {
            product *= self.uniform();
            n += 1;
        }
        n
    }
}

/// Usual levels and noise of the indicators, in the order of [`Indicator::ALL`]. The service depends on nobody, and waits too
/// seldom for a tail; `tails` has one that does.
const LEVELS: [f64; Indicator::COUNT] = [400_000.0, 60_000.0, f64::NAN, 0.02, 3e8, 2_000.0, 3e6, 9e6, f64::NAN];
const NOISE: [f64; Indicator::COUNT] = [0.05, 0.15, 0.0, 0.2, 0.03, 0.04, 0.08, 0.12, 0.0];

/// Makes windows of a service whose instances differ a little.
struct Service {
    random: Random,
    stable: usize,
    canary: usize,
    /// Autocorrelation of the noise.
    rho: f64,
    noise: Vec<[f64; Indicator::COUNT]>,
    index: u64,
}

impl Service {
    fn new(seed: u64, stable: usize, rho: f64) -> Self {
        let noise = vec![[0.0; Indicator::COUNT]; stable + 1];
        Self { random: Random(seed), stable, canary: 0, rho, noise, index: 0 }
    }

    fn next(&mut self) -> Window {
        let load = 1.0 + 0.5 * (self.index as f64 / 200.0).sin();
        let mut readings = Vec::new();
        for j in 0..self.stable + self.canary {
            for (i, x) in self.noise[j].iter_mut().enumerate().filter(|(i, _)| !LEVELS[*i].is_nan()) {
                *x = self.rho * *x + (1.0 - self.rho * self.rho).sqrt() * NOISE[i] * self.random.normal();
            }
            let name = if j < self.stable { format!("/stable-{j}") } else { format!("/canary-{}", j - self.stable) };
            readings.push(Reading {
                instance: Arc::from(name),
                incarnation: 1,
                values: std::array::from_fn(|i| LEVELS[i] * load * self.noise[j][i].exp()),
                events: [Some(0); Event::COUNT],
                turnarounds: 100,
                seconds: 1.0,
                around: Around::default(),
            });
        }
        let canary = readings.split_off(self.stable);
        let window = Window {
            deployment: Arc::from("shop"),
            index: self.index,
            t_ns: (self.index + 1) * 1_000_000_000,
            span_ns: 1_000_000_000,
            stable: readings,
            canary,
            clean: true,
            node: Node::default(),
        };
        self.index += 1;
        window
    }
}

/// `before` windows of stable alone, then `with` windows with one canary, changed by `change` (told windows since its start).
fn run(judge: &mut Judge, service: &mut Service, before: u64, with: u64, change: impl Fn(u64, &mut Window)) -> Verdict {
    service.canary = 0;
    let mut last = None;
    for t in 0..before + with {
        if t == before {
            service.canary = 1;
        }
        let mut window = service.next();
        if t >= before {
            change(t - before, &mut window);
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

/// More windows with the canary, until it is condemned.
fn run_on(judge: &mut Judge, service: &mut Service, windows: u64, change: impl Fn(u64, &mut Window)) -> Verdict {
    let mut last = None;
    for t in 0..windows {
        let mut window = service.next();
        change(t, &mut window);
        let verdict = judge.observe(&window);
        let condemned = verdict.outcome == Outcome::Regressed;
        last = Some(verdict);
        if condemned {
            break;
        }
    }
    last.expect("at least one window")
}

fn scale(window: &mut Window, indicator: Indicator, factor: f64) {
    window.canary.iter_mut().for_each(|r| r.values[indicator as usize] *= factor);
}

fn count(readings: &mut [Reading], event: Event, n: u64) {
    if let Some(reading) = readings.first_mut() {
        reading.events[event as usize] = Some(n);
    }
}

fn new_judge() -> Judge {
    Judge::new(Parameters::default())
}

#[test]
fn equal_versions_are_healthy() {
    for (seed, rho) in (1..=12).zip([0.0, 0.3, 0.7, 0.9].into_iter().cycle()) {
        let verdict = run(&mut new_judge(), &mut Service::new(seed, 3, rho), 900, 2400, |_, _| {});
        assert_eq!(verdict.outcome, Outcome::Healthy, "seed {seed}, rho {rho}: {:?}", verdict.reasons);
        assert!(verdict.reasons[0].contains("healthy margins"), "{:?}", verdict.reasons);
        assert!(verdict.p_canary.unwrap().abs() < 2.0 && verdict.p_stable.unwrap().abs() < 2.0);
    }
}

#[test]
fn more_cpu_is_found_named_and_dated() {
    for seed in 1..=8 {
        let verdict = run(&mut new_judge(), &mut Service::new(seed, 3, 0.3), 600, 800, |t, w| {
            if t >= 400 {
                scale(w, Indicator::CpuPerWork, 1.5);
            }
        });
        assert_eq!(verdict.outcome, Outcome::Regressed, "seed {seed}: {:?}", verdict.reasons);
        assert!((1000..1060).contains(&verdict.window), "found at {}", verdict.window);
        assert!(verdict.onset.unwrap().abs_diff(1000) <= 10, "onset {:?}", verdict.onset);
        assert_eq!(verdict.causes[0].signal, "cpu_per_work");
        assert_eq!(verdict.causes[0].mechanism, "more work per request");
        let cpu = &verdict.indicators[Indicator::CpuPerWork as usize];
        assert!(cpu.confirmed && cpu.effect_low.unwrap() < 0.5 && cpu.effect_high.unwrap() > 0.4, "{cpu:?}");
        assert!(verdict.reasons[0].starts_with("CPU per turnaround +"), "{}", verdict.reasons[0]);
        assert!(
            verdict.reasons.iter().any(|r| r.starts_with("evidence altogether ") && r.ends_with("of 1\u{202f}000"))
        );
        assert_eq!(verdict.evidence_share(), 1.0);
    }
}

#[test]
fn an_improvement_elsewhere_hides_nothing() {
    let verdict = run(&mut new_judge(), &mut Service::new(7, 3, 0.3), 600, 1500, |_, w| {
        scale(w, Indicator::CpuPerWork, 0.5);
        scale(w, Indicator::BytesPerWork, 0.5);
        scale(w, Indicator::MemoryInUse, 1.3);
    });
    assert_eq!(verdict.outcome, Outcome::Regressed);
    assert_eq!(verdict.causes[0].signal, "memory_in_use");
    assert_eq!(verdict.causes.len(), 1, "{:?}", verdict.causes);
}

#[test]
fn unclean_and_empty_windows_change_nothing() {
    let mut service = Service::new(8, 3, 0.3);
    let mut judge = new_judge();
    let before = run(&mut judge, &mut service, 600, 300, |_, _| {});
    for k in 0..200 {
        let mut window = service.next();
        scale(&mut window, Indicator::CpuPerWork, 10.0);
        if k % 2 == 0 {
            window.clean = false;
        } else {
            window.canary[0].values = [f64::NAN; Indicator::COUNT];
            window.stable.iter_mut().for_each(|r| r.values = [f64::NAN; Indicator::COUNT]);
        }
        let after = judge.observe(&window);
        assert!((after.evidence_ln - before.evidence_ln).abs() < 1e-9, "{} {}", after.evidence_ln, before.evidence_ln);
        assert_eq!(after.baseline_windows, before.baseline_windows);
        assert_eq!(after.judged_windows, before.judged_windows);
        assert_ne!(after.outcome, Outcome::Regressed);
    }
}

#[test]
fn same_windows_same_verdicts_bit_for_bit() {
    let verdicts = || -> Vec<String> {
        let (mut judge, mut service) = (new_judge(), Service::new(9, 4, 0.5));
        let mut out = Vec::new();
        for t in 0..900 {
            service.canary = usize::from(t >= 400);
            let mut window = service.next();
            if t > 700 {
                scale(&mut window, Indicator::CpuPerWork, 1.3);
            }
            out.push(serde_json::to_string(&judge.observe(&window)).unwrap());
        }
        out
    };
    let first = verdicts();
    assert_eq!(first, verdicts());
    let last: Verdict = serde_json::from_str(first.last().unwrap()).unwrap();
    assert_eq!(last.outcome, Outcome::Regressed);
}

#[test]
fn a_verdict_survives_json() {
    let mut judge = new_judge();
    let verdict = run(&mut judge, &mut Service::new(2, 3, 0.0), 100, 10, |_, w| {
        count(&mut w.canary, Event::OomKills, 1);
    });
    assert_eq!(verdict.hard, Some(HardFact::OomKill));
    let text = serde_json::to_string(&verdict).unwrap();
    assert_eq!(serde_json::from_str::<Verdict>(&text).unwrap(), verdict);
}

#[test]
fn too_little_is_said_to_be_too_little() {
    let mut service = Service::new(10, 3, 0.0);
    let mut judge = new_judge();
    let alone = run(&mut judge, &mut service, 20, 0, |_, _| {});
    assert_eq!(alone.outcome, Outcome::InsufficientData);
    assert_eq!(alone.reasons[0], "there is no canary yet");
    assert!(alone.indicators.iter().all(|i| !i.confirmed), "nothing is confirmed by no data");
    let warming = run(&mut judge, &mut service, 0, 1, |_, _| {});
    assert_eq!(warming.outcome, Outcome::InsufficientData);
    assert_eq!(warming.reasons[0], "the canary warms up: window 1 of 60");
    let learned = "learned from 0 of 300 windows of stable";
    assert!(warming.reasons.iter().any(|r| r == learned), "{:?}", warming.reasons);

    let nothing_to_compare = run(&mut new_judge(), &mut Service::new(10, 0, 0.0), 0, 900, |_, w| {
        scale(w, Indicator::CpuPerWork, 3.0);
    });
    assert_eq!(nothing_to_compare.outcome, Outcome::InsufficientData);
    assert!(nothing_to_compare.reasons[0].contains("nothing to compare"), "{:?}", nothing_to_compare.reasons);
}

#[test]
fn an_indicator_that_only_stable_reports_is_no_pass() {
    let verdict = run(&mut new_judge(), &mut Service::new(11, 3, 0.0), 600, 900, |_, w| {
        w.canary[0].values[Indicator::TurnaroundMean as usize] = f64::NAN;
    });
    assert_eq!(verdict.outcome, Outcome::Inconclusive);
    let state = &verdict.indicators[Indicator::TurnaroundMean as usize];
    assert_eq!(state.missing.as_deref(), Some("no reading yet on canary"));
    assert!(
        verdict.reasons.iter().any(|r| r == "turnaround (mean): no reading yet on canary"),
        "{:?}",
        verdict.reasons
    );
}

#[test]
fn reset_keeps_the_noise_and_drops_the_rest() {
    let mut service = Service::new(12, 3, 0.3);
    let mut judge = new_judge();
    let bad = run(&mut judge, &mut service, 600, 400, |_, w| scale(w, Indicator::CpuPerWork, 1.5));
    assert_eq!(bad.outcome, Outcome::Regressed);
    assert_eq!(judge.decided_at(), Some(bad.window));
    // The verdict sticks although the canary is good again.
    assert_eq!(judge.observe(&service.next()).outcome, Outcome::Regressed);
    judge.reset_evidence();
    let good = run(&mut judge, &mut service, 0, 800, |_, _| {});
    assert_eq!(good.outcome, Outcome::Healthy, "{:?}", good.reasons);
    assert!(good.baseline_windows > bad.baseline_windows);
    assert!(good.judged_windows < 800);
}

#[test]
fn a_canary_that_was_away_and_is_another_now_starts_over() {
    let mut service = Service::new(13, 3, 0.3);
    let mut judge = new_judge();
    let bad = run(&mut judge, &mut service, 600, 400, |_, w| scale(w, Indicator::CpuPerWork, 1.5));
    assert_eq!(bad.outcome, Outcome::Regressed);
    let away = run(&mut judge, &mut service, 1, 0, |_, _| {});
    assert_eq!(away.outcome, Outcome::Regressed);
    service.canary = 0;
    for _ in 0..40 {
        judge.observe(&service.next());
    }
    let back = run(&mut judge, &mut service, 0, 800, |_, w| w.canary[0].incarnation = 2);
    assert_eq!(back.outcome, Outcome::Healthy, "{:?}", back.reasons);
}

#[test]
fn a_canary_that_was_scaled_away_is_not_condemned() {
    let (mut service, mut judge) = (Service::new(14, 3, 0.3), new_judge());
    run(&mut judge, &mut service, 600, 200, |_, _| {});
    let gone = run(&mut judge, &mut service, 60, 0, |_, _| {});
    assert_eq!(gone.outcome, Outcome::InsufficientData);
    assert_eq!(gone.reasons[0], "the canary has reported nothing for 60 windows");

    let (mut service, mut judge) = (Service::new(14, 3, 0.3), new_judge());
    let crashed = run(&mut judge, &mut service, 600, 200, |t, w| {
        if t == 198 {
            count(&mut w.canary, Event::Crashes, 1);
        }
    });
    assert_ne!(crashed.outcome, Outcome::Regressed);
    let gone = run(&mut judge, &mut service, 60, 0, |_, _| {});
    assert_eq!((gone.outcome, gone.hard), (Outcome::Regressed, Some(HardFact::Silent)));
}

#[test]
fn instances_come_and_go_without_an_alarm() {
    let (mut service, mut judge) = (Service::new(15, 5, 0.3), new_judge());
    let mut healthy = 0;
    for t in 0..4000u64 {
        service.canary = usize::from(t >= 600);
        let mut window = service.next();
        for (j, reading) in window.stable.iter_mut().enumerate() {
            // Each restarts now and then and is costly for 30 windows; one in five is another host, 10 % dearer.
            let lives = t + 170 * j as u64;
            reading.incarnation = lives / 850;
            let start_up = if t > 850 && lives % 850 < 30 { 3.0 } else { 1.0 };
            let host = if (j as u64 + reading.incarnation).is_multiple_of(5) { 1.1 } else { 1.0 };
            reading.values.iter_mut().for_each(|v| *v *= start_up * host);
        }
        window.stable.retain(|r| !(r.instance.ends_with("-4") && (1500..1700).contains(&t)));
        if let Some(canary) = window.canary.first_mut() {
            canary.incarnation = t / 1000;
        }
        let verdict = judge.observe(&window);
        assert_ne!(verdict.outcome, Outcome::Regressed, "window {t}: {:?}", verdict.reasons);
        healthy += u64::from(verdict.outcome == Outcome::Healthy);
    }
    assert!(healthy > 500, "healthy in {healthy} windows");
}

#[test]
fn one_stable_instance_is_judged_by_the_pairs_own_past() {
    for seed in 20..=27 {
        let good = run(&mut new_judge(), &mut Service::new(seed, 1, 0.5), 100, 2500, |_, _| {});
        assert_ne!(good.outcome, Outcome::Regressed, "seed {seed}: {:?}", good.reasons);
        assert!(good.reasons.iter().any(|r| r.starts_with("one stable instance")), "{:?}", good.reasons);
    }
    let mut judge = new_judge();
    let mut service = Service::new(28, 1, 0.5);
    let early = run(&mut judge, &mut service, 100, 200, |_, _| {});
    assert_eq!(early.outcome, Outcome::InsufficientData);
    assert!(early.reasons[0].contains("one stable instance"), "{:?}", early.reasons);
    let bad = run(&mut judge, &mut service, 0, 1500, |t, w| {
        if t >= 600 {
            scale(w, Indicator::CpuPerWork, 1.5);
        }
    });
    assert_eq!(bad.outcome, Outcome::Regressed);
    assert_eq!(bad.causes[0].signal, "cpu_per_work");
    assert!(bad.window >= 900 && bad.window < 1100, "found at {}", bad.window);
}

#[test]
fn a_thousand_instances_are_bounded() {
    let (mut judge, mut service) = (new_judge(), Service::new(17, 1000, 0.0));
    for t in 0..150u64 {
        let mut window = service.next();
        // Every one of them is replaced by another name halfway.
        if t >= 75 {
            window.stable.iter_mut().for_each(|r| r.instance = Arc::from(format!("{}-b", r.instance)));
        }
        judge.observe(&window);
    }
    assert_eq!(judge.known_stable(), 1000);
}

#[test]
fn alpha_is_renewed_after_each_horizon() {
    let parameters = Parameters { horizon_windows: 600, ..Parameters::default() };
    let (mut judge, mut service) = (Judge::new(parameters), Service::new(30, 3, 0.3));
    let quiet = run(&mut judge, &mut service, 600, 4000, |_, _| {});
    assert_eq!(quiet.outcome, Outcome::Healthy, "{:?}", quiet.reasons);
    let late = run(&mut judge, &mut service, 0, 200, |_, w| scale(w, Indicator::CpuPerWork, 1.5));
    assert_eq!(late.outcome, Outcome::Regressed);
    assert!(late.window < 4600 + 60, "found at {}", late.window);
}

#[test]
fn healthy_is_taken_back_when_the_canary_changes() {
    let (mut judge, mut service) = (new_judge(), Service::new(31, 3, 0.3));
    let good = run(&mut judge, &mut service, 600, 1500, |_, _| {});
    assert_eq!(good.outcome, Outcome::Healthy, "{:?}", good.reasons);
    let mut outcomes = Vec::new();
    for _ in 0..120 {
        service.canary = 1;
        let mut window = service.next();
        scale(&mut window, Indicator::MemoryInUse, 1.5);
        outcomes.push(judge.observe(&window).outcome);
    }
    let first = |wanted: Outcome| outcomes.iter().position(|o| *o == wanted);
    assert!(first(Outcome::Inconclusive) < first(Outcome::Regressed), "{outcomes:?}");
    assert_eq!(outcomes.last(), Some(&Outcome::Regressed));
}

/// No threshold is reached here, so that only the healthy side of the comparison shows.
#[test]
fn a_bad_stretch_that_proved_nothing_does_not_keep_a_canary_from_being_healthy_for_good() {
    let parameters = Parameters { alpha: 1e-300, ..Parameters::default() };
    let (mut judge, mut service) = (Judge::new(parameters), Service::new(11, 3, 0.0));
    assert_eq!(run(&mut judge, &mut service, 600, 400, |_, _| {}).outcome, Outcome::Healthy, "before the stretch");
    let during = run(&mut judge, &mut service, 0, 120, |_, window| scale(window, Indicator::CpuPerWork, 1.5));
    assert_eq!(during.outcome, Outcome::Inconclusive, "in the stretch");
    let after = run(&mut judge, &mut service, 0, 60, |_, _| {});
    assert_eq!(after.outcome, Outcome::Healthy, "{:?}", after.reasons);
}

#[test]
fn nothing_is_confirmed_before_there_is_a_signal() {
    // The gates would ask whether it is measured on both sides, and hold a hard fact back over it.
    let verdict = Judge::new(Parameters::default()).observe(&Service::new(1, 3, 0.0).next());
    assert!(verdict.indicators.iter().all(|i| !i.confirmed), "{verdict:?}");
}
