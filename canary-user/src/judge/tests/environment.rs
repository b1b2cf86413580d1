//! What around a canary explains its being worse, and what does not.

use super::{super::environment::Surroundings, *};

/// The sign of this kind after so many windows with a canary, as `change` makes them.
fn sign(kind: SignKind, windows: u64, is_compared: bool, change: impl Fn(u64, &mut Window)) -> Option<Sign> {
    let (mut surroundings, mut service, p) = (Surroundings::default(), Service::new(66, 3, 0.0), Parameters::default());
    service.canary = 1;
    for t in 0..windows {
        let mut window = service.next();
        change(t, &mut window);
        surroundings.observe(&window, is_compared, &p);
    }
    surroundings.signs(&p).into_iter().find(|sign| sign.kind == kind)
}

/// Both sides wait for 10 ms in a window, and others have the CPU for a share of that.
fn waits(window: &mut Window, share_of_others: f64) {
    for reading in window.stable.iter_mut().chain(&mut window.canary) {
        reading.around.wait_ns = Some(10_000_000);
        reading.around.wait_for_others_ns = Some((1e7 * share_of_others) as u64);
    }
}

#[test]
fn a_limit_that_holds_stable_back_as_often_explains_nothing() {
    let is_sign = |canary: f64, stable: Option<f64>| {
        let found = sign(SignKind::Throttled, 10, true, |_, window| {
            window.canary[0].around.throttled = Some(canary);
            window.stable.iter_mut().for_each(|r| r.around.throttled = stable);
        });
        found.is_some()
    };
    assert!(is_sign(0.12, None) && is_sign(0.12, Some(0.0)) && is_sign(0.3, Some(0.15)));
    assert!(!is_sign(0.15, Some(0.15)) && !is_sign(0.2, Some(0.12)) && !is_sign(0.05, None));
}

/// Stable's turnaround takes 3 ms, of which it waits 0.1 ms for a CPU.
#[test]
fn a_limit_explains_a_turnaround_as_far_as_the_canary_waits_for_it() {
    let explains = |wait_ns: Option<u64>, longer: f64| {
        let found = sign(SignKind::Throttled, 10, true, |_, window| {
            waits(window, 0.0);
            window.canary[0].around.throttled = Some(0.2);
            window.canary[0].around.wait_ns = wait_ns;
            scale(window, Indicator::TurnaroundMean, longer);
        });
        let explains = found.expect("it is held back").explains;
        assert!(explains.contains(&Indicator::RunQueueWait) && explains.contains(&Indicator::RunQueueWaitP95));
        explains.contains(&Indicator::TurnaroundMean)
    };
    assert!(explains(Some(100_000_000), 2.0), "1 ms of waits for each makes 3 ms, with those that queue behind it");
    assert!(!explains(Some(11_000_000), 2.0), "it waits as stable does");
    assert!(!explains(Some(30_000_000), 20.0), "a sleep of 57 ms is its own");
    assert!(explains(None, 20.0), "it is not known, and may be all of it");
}

#[test]
fn little_memory_explains_what_it_did_not_always_do() {
    let pressure = |usual: f64, now: f64, stall: f64, longer: f64| {
        sign(SignKind::MemoryPressure, 400, true, |t, window| {
            window.node.memory_available = Some(if t < 380 { usual } else { now });
            if t >= 380 {
                scale(window, Indicator::MemoryStall, stall);
                scale(window, Indicator::TurnaroundMean, longer);
            }
        })
    };
    let sign = pressure(0.5, 0.03, 20.0, 2.0).expect("it is short of it");
    assert_eq!(sign.text, "the machine has only 3 % of its memory left, usually 50 %");
    for indicator in [Indicator::MemoryStall, Indicator::TurnaroundMean, Indicator::TurnaroundP95] {
        assert!(sign.explains.contains(&indicator), "{indicator:?}");
    }
    let sleeps = pressure(0.5, 0.03, 1.0, 3.0).expect("it is short of it");
    assert_eq!(sleeps.explains, [Indicator::MemoryStall], "it does not stall for longer than stable");
    assert_eq!(pressure(0.04, 0.03, 20.0, 2.0), None, "it never has more");
}

#[test]
fn a_neighbour_that_stays_explains_as_much_as_when_it_came() {
    for kind in [SignKind::Neighbour, SignKind::CpuPressure] {
        let after = |is_compared: bool| {
            sign(kind, 6_000, is_compared, |t, window| {
                let share = if t < 600 { 0.1 } else { 0.8 };
                waits(window, share);
                window.node.cpu_others = Some(share);
            })
        };
        let found = after(true).unwrap_or_else(|| panic!("{kind:?}"));
        assert!(found.text.ends_with("usually 10 %"), "{}", found.text);
        assert_eq!(after(false), None, "{kind:?}: where nothing is compared, what stays is usual");
    }
}

#[test]
fn what_was_there_from_the_start_is_usual_also_where_a_canary_is() {
    let found = sign(SignKind::Neighbour, 100, true, |_, window| waits(window, 0.8));
    assert_eq!(found, None);
}

#[test]
fn a_canary_that_waits_more_beside_a_neighbour_is_not_condemned_in_its_second_hour() {
    let verdict = run(&mut new_judge(), &mut Service::new(49, 3, 0.3), 600, 5_000, |t, window| {
        let comes = t >= 300;
        waits(window, if comes { 0.8 } else { 0.1 });
        scale(window, Indicator::RunQueueWait, if comes { 2.0 } else { 1.0 });
    });
    assert_ne!(verdict.outcome, Outcome::Regressed, "window {}: {:?}", verdict.window, verdict.reasons);
    let mut signs = verdict.environment.signs.iter();
    assert!(signs.any(|sign| sign.kind == SignKind::Neighbour), "{:?}", verdict.environment);
}

#[test]
fn a_limit_that_both_have_excuses_no_slower_version() {
    let verdict = |stable: Option<f64>| {
        run(&mut new_judge(), &mut Service::new(54, 3, 0.3), 600, 800, |t, window| {
            waits(window, 0.0);
            window.stable.iter_mut().for_each(|r| r.around.throttled = stable);
            window.canary[0].around.throttled = Some(0.15);
            scale(window, Indicator::TurnaroundMean, if t >= 300 { 2.5 } else { 1.0 });
        })
    };
    for stable in [Some(0.15), None] {
        // Where it is the canary's alone, its waits are still as short as stable's.
        let verdict = verdict(stable);
        assert_eq!(verdict.outcome, Outcome::Regressed, "{stable:?}: {:?}", verdict.reasons);
        assert_eq!(verdict.causes[0].signal, "turnaround_mean");
    }
}

/// The limit is that of a slice. In the last window it is the canary's own that holds it back, by less.
#[test]
fn the_limit_to_raise_is_the_one_that_held_the_canary_back_lately() {
    let (slice, own) = ("/shop.slice", "/shop.slice/canary-0");
    let verdict = run(&mut new_judge(), &mut Service::new(54, 3, 0.3), 600, 799, |t, window| {
        waits(window, 0.0);
        window.canary[0].instance = own.into();
        if t >= 300 {
            let (share, by) = if t.is_multiple_of(3) { (0.2, own) } else { (0.5, slice) };
            let around = &mut window.canary[0].around;
            around.wait_ns = Some(100_000_000);
            (around.throttled, around.throttled_by) = (Some(share), Some(by.into()));
            scale(window, Indicator::RunQueueWait, 6.0);
        }
    });
    assert!(verdict.environment.holds, "{:?}", verdict.reasons);
    let advice = &verdict.recommendations[1];
    assert_eq!(
        advice.command.as_deref(),
        Some("systemctl set-property --runtime 'shop.slice' CPUQuota="),
        "{advice:?}"
    );
    assert!(advice.because.contains("The limit is that of shop.slice, above it"), "{advice:?}");
}

/// Those that come take a fifth more CPU and sit out their warm-up; right before they take part the canary takes twice as much.
#[test]
fn other_instances_of_stable_are_no_stable_that_got_worse() {
    let verdict = run(&mut new_judge(), &mut Service::new(53, 4, 0.3), 600, 900, |t, window| {
        if t >= 400 {
            for reading in &mut window.stable {
                reading.incarnation = 2;
                reading.values[Indicator::CpuPerWork as usize] *= 1.2;
            }
        }
        if t >= 455 {
            scale(window, Indicator::CpuPerWork, 2.0);
        }
    });
    assert_eq!(verdict.outcome, Outcome::Regressed, "{:?}", verdict.reasons);
    assert_eq!(verdict.causes[0].signal, "cpu_per_work");
    assert!(verdict.window < 600 + 460 + 60, "found at {}", verdict.window);
}

fn is_not_counted(reading: &mut Reading) {
    reading.turnarounds = 0;
    reading.events[Event::ResetsOut as usize] = None;
}

#[test]
fn turnarounds_that_nobody_counts_are_no_unequal_load() {
    let load = |change: fn(&mut Window)| sign(SignKind::UnequalLoad, 20, true, |_, window| change(window));
    assert_eq!(load(|window| window.stable.iter_mut().skip(1).for_each(is_not_counted)), None);
    assert_eq!(load(|window| window.canary.iter_mut().for_each(is_not_counted)), None);
    let found = load(|window| {
        window.stable.iter_mut().skip(1).for_each(is_not_counted);
        window.canary[0].turnarounds = 300;
    });
    assert!(found.is_some_and(|sign| sign.text.contains("3.0 times the load")), "beside the one that is counted");
}

/// What all of them wait for becomes slow: stable answers in twice the time, the canary in three times.
#[test]
fn a_hold_outlasts_an_instance_of_stable_that_restarts_meanwhile() {
    let mut holds = false;
    let (mut judge, mut service) = (new_judge(), Service::new(47, 3, 0.3));
    run(&mut judge, &mut service, 600, 400, |_, _| {});
    for t in 0..300u64 {
        let mut window = service.next();
        window.stable.iter_mut().for_each(|r| r.values[Indicator::TurnaroundMean as usize] *= 2.0);
        scale(&mut window, Indicator::TurnaroundMean, 3.0);
        if t >= 50 {
            window.stable[1].incarnation = 2;
        }
        let verdict = judge.observe(&window);
        assert_ne!(verdict.outcome, Outcome::Regressed, "window {t}: {:?}", verdict.reasons);
        assert!(verdict.environment.holds || !holds, "window {t}: {:?}", verdict.reasons);
        holds |= verdict.environment.holds;
    }
    assert!(holds, "it would have been condemned");
}
