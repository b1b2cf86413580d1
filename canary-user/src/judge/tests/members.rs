//! Instances of stable leave, restart and come back: no alarm comes of that, and what they showed is not forgotten.

use super::*;

const CPU: usize = Indicator::CpuPerWork as usize;

/// Window from which on one of two is not what it was, and windows that each of its lives lasts.
const LEAVES: u64 = 700;
const LIFE: u64 = 400;

/// Two instances that are 8 % apart in CPU by themselves. The canary is between them.
fn apart(window: &mut Window) {
    for (reading, ln) in window.stable.iter_mut().zip([-0.04f64, 0.04]) {
        reading.values[CPU] *= ln.exp();
    }
}

/// The dearer of the two restarts again and again, or is gone for good.
fn leaves(window: &mut Window, restarts: bool) {
    if restarts {
        window.stable[1].incarnation = 2 + (window.index - LEAVES) / LIFE;
    } else {
        window.stable.truncate(1);
    }
}

#[test]
fn an_equal_canary_is_not_condemned_where_one_of_two_leaves_or_restarts() {
    for seed in 60..64 {
        for restarts in [false, true] {
            let (mut judge, mut service) = (new_judge(), Service::new(seed, 2, 0.3));
            for t in 0..2_000u64 {
                service.canary = usize::from(t >= 600);
                let mut window = service.next();
                apart(&mut window);
                if t >= LEAVES {
                    leaves(&mut window, restarts);
                }
                let verdict = judge.observe(&window);
                assert_ne!(verdict.outcome, Outcome::Regressed, "seed {seed}, window {t}: {:?}", verdict.reasons);
            }
            // And it is not blind either.
            let worse = run(&mut judge, &mut service, 0, 100, |_, window| {
                apart(window);
                leaves(window, restarts);
                scale(window, Indicator::CpuPerWork, 1.6);
            });
            assert_eq!(worse.outcome, Outcome::Regressed, "seed {seed}, restarts {restarts}: {:?}", worse.reasons);
            assert_eq!(worse.causes[0].signal, "cpu_per_work");
        }
    }
}

#[test]
fn how_far_two_were_apart_is_known_when_one_is_left() {
    let (mut judge, mut service) = (new_judge(), Service::new(64, 2, 0.3));
    let mut before = f64::NAN;
    for t in 0..1_000u64 {
        service.canary = usize::from(t >= 600);
        let mut window = service.next();
        apart(&mut window);
        if t >= LEAVES {
            leaves(&mut window, false);
        } else {
            before = judge.tracks()[CPU].margin;
        }
        judge.observe(&window);
    }
    // One instance says less of where stable is than two do.
    let after = judge.tracks()[CPU].margin;
    assert!(before > 0.08 && after > 0.9 * before, "{after} after {before}");
}

#[test]
fn places_of_those_that_left_go_to_those_that_had_none() {
    let (mut judge, mut service) = (new_judge(), Service::new(65, 20, 0.0));
    let mut learned = Vec::new();
    for t in 0..700u64 {
        let mut window = service.next();
        if t >= 300 {
            // Those that came first, and have a place each.
            window.stable = window.stable.split_off(8);
        }
        learned.push(judge.observe(&window).baseline_windows);
    }
    assert_eq!(judge.known_stable(), 12);
    assert!(learned[699] > learned[420] + 8 * 200, "{} after {}", learned[699], learned[420]);
}

/// The third is 30 % dearer than the other two, which are elsewhere beside each other than beside it.
#[test]
fn who_leaves_and_comes_back_makes_the_others_no_noisier() {
    let (mut judge, mut service) = (new_judge(), Service::new(66, 3, 0.3));
    let mut before = f64::NAN;
    for t in 0..1_400u64 {
        let mut window = service.next();
        window.stable[2].values[CPU] *= 1.3;
        if (LEAVES..LEAVES + 150).contains(&t) {
            window.stable.truncate(2);
        }
        judge.observe(&window);
        if t + 1 == LEAVES {
            before = judge.tracks()[CPU].derived.long_run_variance;
        }
    }
    let after = judge.tracks()[CPU].derived.long_run_variance;
    assert!(after < 3.0 * before, "{after} after {before}");
}

fn silent(reading: &mut Reading) {
    reading.values = [f64::NAN; Indicator::COUNT];
}

#[test]
fn who_has_no_work_is_not_forgotten_and_who_is_silent_beside_others_is() {
    let (mut judge, mut service) = (new_judge(), Service::new(67, 3, 0.0));
    let mut known = |windows: u64, change: fn(&mut Window)| -> Vec<usize> {
        let each = (0..windows).map(|_| {
            let mut window = service.next();
            change(&mut window);
            judge.observe(&window);
            judge.known_stable()
        });
        each.collect()
    };
    assert_eq!(known(300, |_| {}), [3; 300]);
    assert_eq!(known(180, |window| window.stable.iter_mut().for_each(silent)), [3; 180]);
    let beside = known(61, |window| silent(&mut window.stable[2]));
    assert_eq!((beside[59], beside[60]), (3, 2));
    assert_eq!(known(1, |_| {}), [3]);
    let gone = known(61, |window| window.stable.truncate(1));
    assert_eq!((gone[59], gone[60]), (3, 1));
}
