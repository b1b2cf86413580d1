//! Instances of stable leave, restart and come back: no alarm comes of that, and what they showed is not forgotten.

use super::{
    super::columns::{Column, Columns, Row},
    *,
};

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

/// Instances of stable, half of which have no place among the placebos when it begins.
const TWICE_THE_PLACES: usize = 16;
/// Windows with the canary before stable changes.
const BESIDE_ALL: u64 = 300;

/// Half of the usual noise in CPU. The first eight are 1 % apart, all others dearer by `factor`, as on another kind of machine.
fn two_kinds(window: &mut Window, factor: f64) {
    for reading in window.stable.iter_mut().chain(&mut window.canary) {
        reading.values[CPU] = LEVELS[CPU] * (reading.values[CPU] / LEVELS[CPU]).powf(0.5);
    }
    for (j, reading) in window.stable.iter_mut().enumerate() {
        reading.values[CPU] *= if j >= 8 { factor } else { [0.995, 1.005][j % 2] };
    }
}

/// Stable changes as `change` says, told windows since [`BESIDE_ALL`]: an equal canary is left alone, and one that takes half as
/// much CPU again after that is condemned for it.
fn equal_is_left_alone_and_worse_is_found(stable: usize, factor: f64, change: impl Fn(u64, &mut Window)) {
    for seed in 80..84 {
        let (mut judge, mut service) = (new_judge(), Service::new(seed, stable, 0.0));
        run_on(&mut judge, &mut service, 600, |_, window| two_kinds(window, factor));
        service.canary = 1;
        let equal = run_on(&mut judge, &mut service, BESIDE_ALL + 700, |t, window| {
            two_kinds(window, factor);
            if t >= BESIDE_ALL {
                change(t - BESIDE_ALL, window);
            }
        });
        assert_ne!(equal.outcome, Outcome::Regressed, "seed {seed}, window {}: {:?}", equal.window, equal.reasons);
        let worse = run_on(&mut judge, &mut service, 150, |t, window| {
            two_kinds(window, factor);
            change(700 + t, window);
            scale(window, Indicator::CpuPerWork, 1.5);
        });
        assert_eq!(worse.outcome, Outcome::Regressed, "seed {seed}: {:?}", worse.reasons);
        assert_eq!(worse.causes[0].signal, "cpu_per_work", "seed {seed}");
    }
}

#[test]
fn an_equal_canary_is_not_condemned_when_stable_is_scaled_down_and_a_worse_one_is() {
    // The dearer ones, which the canary is not compared with; and all that it is compared with.
    equal_is_left_alone_and_worse_is_found(TWICE_THE_PLACES, 1.2, |_, window| window.stable.truncate(8));
    equal_is_left_alone_and_worse_is_found(TWICE_THE_PLACES, 1.2, |_, window| drop(window.stable.drain(..8)));
    // A single one, which is twice as dear.
    equal_is_left_alone_and_worse_is_found(9, 2.0, |_, window| window.stable.truncate(8));
}

#[test]
fn an_equal_canary_is_not_condemned_while_some_of_many_have_no_reading_and_a_worse_one_is() {
    equal_is_left_alone_and_worse_is_found(TWICE_THE_PLACES, 1.2, |t, window| {
        if t < 30 {
            window.stable[8..].iter_mut().for_each(silent);
        }
    });
}

#[test]
fn an_equal_canary_is_not_condemned_while_many_restart_one_after_the_other_and_a_worse_one_is() {
    // The last come first: all of the dearer ones sit out at a time, and later all of the others.
    equal_is_left_alone_and_worse_is_found(TWICE_THE_PLACES, 1.2, |t, window| {
        let last = window.stable.len() as u64 - 1;
        for (j, reading) in window.stable.iter_mut().enumerate() {
            reading.incarnation = 1 + u64::from(t >= 5 * (last - j as u64));
        }
    });
}

/// Four that take a fifth less CPU come beside four, without a warm-up in which anything could be learned of them.
#[test]
fn an_equal_canary_is_not_condemned_when_cheaper_ones_join_that_nothing_is_known_of() {
    for seed in 84..88 {
        let mut judge = Judge::new(Parameters { warmup_windows: 0, ..Parameters::default() });
        let mut service = Service::new(seed, 8, 0.0);
        let joined = |t: u64, window: &mut Window| {
            two_kinds(window, 1.0);
            window.stable[4..].iter_mut().for_each(|r| r.values[CPU] *= 0.8);
            if t < BESIDE_ALL {
                window.stable.truncate(4);
            }
        };
        run_on(&mut judge, &mut service, 600, |_, window| joined(0, window));
        service.canary = 1;
        let equal = run_on(&mut judge, &mut service, BESIDE_ALL + 400, joined);
        assert_ne!(equal.outcome, Outcome::Regressed, "seed {seed}, window {}: {:?}", equal.window, equal.reasons);
        let worse = run_on(&mut judge, &mut service, 150, |_, window| {
            joined(BESIDE_ALL, window);
            scale(window, Indicator::CpuPerWork, 1.5);
        });
        assert_eq!(worse.outcome, Outcome::Regressed, "seed {seed}: {:?}", worse.reasons);
    }
}

/// A table: four instances, then four more that have a fifth less, with noise of 3 %.
#[test]
fn an_equal_canary_of_a_table_is_not_condemned_when_cheaper_ones_join_and_a_worse_one_is() {
    for seed in 1..=5 {
        let (direction, tolerance) = (Direction::Up, Tolerance::default());
        let column = Column { name: "work".into(), direction, tolerance, epsilon: 0.0 };
        let (mut columns, mut random) = (Columns::new(Parameters::default(), vec![column]), Random(seed));
        let mut found = None;
        for t in 0..2_000u64 {
            let mut row = |target: String, level: f64| Row {
                target: target.into(),
                values: vec![level * (0.03 * random.normal()).exp()],
            };
            let mut stable: Vec<Row> = (0..4).map(|j| row(format!("s{j}"), 100.0)).collect();
            if t >= 1_200 {
                stable.extend((4..8).map(|j| row(format!("s{j}"), 80.0)));
            }
            let worse = if t >= 1_700 { 1.5 } else { 1.0 };
            let canary: Vec<Row> = (0..u64::from(t >= 900)).map(|_| row("c".to_owned(), 100.0 * worse)).collect();
            let verdict = columns.observe(t, (t + 1) * 1_000_000_000, &stable, &canary);
            if verdict.outcome == Outcome::Regressed {
                found = Some(t);
                break;
            }
        }
        let found = found.unwrap_or_else(|| panic!("seed {seed}: it is worse from window 1700 on"));
        assert!(found >= 1_700, "seed {seed}: equal until window 1700, condemned in {found}");
    }
}
