//! What no window should be like, and is: each has a stated outcome (docs/judge.md, Bad input).

use super::*;

#[test]
fn a_duplicate_or_a_window_out_of_order_changes_nothing() {
    let (mut judge, mut service) = (new_judge(), Service::new(40, 3, 0.3));
    let before = run(&mut judge, &mut service, 600, 300, |_, _| {});
    let mut again = service.next();
    scale(&mut again, Indicator::CpuPerWork, 10.0);
    again.t_ns = 0;
    again.stable.clear();
    for index in [before.window, before.window - 100, 0] {
        again.index = index;
        for _ in 0..50 {
            assert_eq!(judge.observe(&again), before);
        }
    }
}

#[test]
fn what_is_no_reading_is_missing() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0] {
        let verdict = run(&mut new_judge(), &mut Service::new(41, 3, 0.3), 600, 800, |t, w| {
            if t % 3 == 0 {
                w.canary[0].values[Indicator::CpuPerWork as usize] = bad;
                w.stable[1].values[Indicator::TurnaroundMean as usize] = bad;
            }
        });
        assert_eq!(verdict.outcome, Outcome::Healthy, "{bad}: {:?}", verdict.reasons);
        assert!(verdict.evidence_ln.is_finite(), "{bad}");
    }
}

#[test]
fn indicators_that_come_and_go_are_no_evidence_and_no_pass_while_gone() {
    let (mut judge, mut service) = (new_judge(), Service::new(42, 3, 0.3));
    let verdict = run(&mut judge, &mut service, 600, 900, |t, w| {
        if (t / 100) % 2 == 1 {
            w.canary[0].values[Indicator::MemoryStall as usize] = f64::NAN;
            w.stable.iter_mut().for_each(|r| r.values[Indicator::BytesPerWork as usize] = f64::NAN);
        }
    });
    assert_eq!(verdict.outcome, Outcome::Healthy, "{:?}", verdict.reasons);
    let verdict = run(&mut new_judge(), &mut Service::new(42, 3, 0.3), 600, 900, |_, w| {
        w.canary[0].values[Indicator::MemoryStall as usize] = f64::NAN;
    });
    assert_eq!(verdict.outcome, Outcome::Inconclusive, "{:?}", verdict.reasons);
}

#[test]
fn what_a_missing_reading_means_can_be_configured() {
    let with = |missing: Missing| {
        let mut parameters = Parameters::default();
        parameters.indicators[Indicator::MemoryStall as usize].missing = missing;
        run(&mut Judge::new(parameters), &mut Service::new(43, 3, 0.3), 600, 900, |_, w| {
            w.canary[0].values[Indicator::MemoryStall as usize] = f64::NAN;
        })
    };
    assert_eq!(with(Missing::Inconclusive).outcome, Outcome::Inconclusive);
    assert_eq!(with(Missing::Ignore).outcome, Outcome::Healthy);
    let insufficient = with(Missing::Insufficient);
    assert_eq!(insufficient.outcome, Outcome::InsufficientData);
    assert!(
        insufficient.reasons[0].starts_with("memory stall: no reading yet on canary"),
        "{:?}",
        insufficient.reasons
    );
}

#[test]
fn a_muted_indicator_is_shown_and_counts_for_nothing() {
    let mut parameters = Parameters::default();
    parameters.indicators[Indicator::CpuPerWork as usize].mute = true;
    let verdict = run(&mut Judge::new(parameters), &mut Service::new(44, 3, 0.3), 600, 900, |_, w| {
        scale(w, Indicator::CpuPerWork, 2.0);
    });
    assert_eq!(verdict.outcome, Outcome::Healthy, "{:?}", verdict.reasons);
    let cpu = &verdict.indicators[Indicator::CpuPerWork as usize];
    assert!(cpu.effect.unwrap() > 0.8 && !cpu.confirmed, "{cpu:?}");
}

#[test]
fn where_less_is_worse_less_condemns_and_more_does_not() {
    let with = |factor: f64| {
        let mut parameters = Parameters::default();
        parameters.indicators[Indicator::BytesPerWork as usize].direction = Direction::Down;
        run(&mut Judge::new(parameters), &mut Service::new(45, 3, 0.3), 600, 900, |_, w| {
            scale(w, Indicator::BytesPerWork, factor);
        })
    };
    assert_eq!(with(1.5).outcome, Outcome::Healthy);
    let worse = with(0.6);
    assert_eq!((worse.outcome, worse.causes[0].signal.as_str()), (Outcome::Regressed, "bytes_per_work"));
    let bytes = &worse.indicators[Indicator::BytesPerWork as usize];
    let (low, effect, high) = (bytes.effect_low.unwrap(), bytes.effect.unwrap(), bytes.effect_high.unwrap());
    assert!(low < effect && effect < high && (effect + 0.4).abs() < 0.1, "as it went: {low} {effect} {high}");
}

#[test]
fn a_critical_or_heavier_indicator_is_found_sooner() {
    let found = |set: &dyn Fn(&mut IndicatorParameters)| {
        let mut parameters = Parameters::default();
        set(&mut parameters.indicators[Indicator::TurnaroundMean as usize]);
        let verdict = run(&mut Judge::new(parameters), &mut Service::new(46, 3, 0.3), 600, 900, |t, w| {
            if t >= 300 {
                scale(w, Indicator::TurnaroundMean, 1.3);
            }
        });
        assert_eq!(verdict.outcome, Outcome::Regressed);
        verdict.window
    };
    let usual = found(&|_| {});
    assert!(found(&|i| i.critical = true) < usual, "critical");
    assert!(found(&|i| i.tolerance.weight = 20.0) < usual, "weight");
}

#[test]
fn stable_sick_too_is_the_environment_and_what_was_bet_is_dropped_when_it_ends() {
    let (mut judge, mut service) = (new_judge(), Service::new(47, 3, 0.3));
    run(&mut judge, &mut service, 600, 400, |_, _| {});
    let mut outcomes = Vec::new();
    for t in 0..400 {
        let mut window = service.next();
        if t < 100 {
            window.stable.iter_mut().for_each(|r| r.values[Indicator::TurnaroundMean as usize] *= 2.0);
            scale(&mut window, Indicator::TurnaroundMean, 3.0);
        }
        outcomes.push(judge.observe(&window));
    }
    assert!(
        outcomes.iter().all(|v| v.outcome != Outcome::Regressed),
        "{:?}",
        outcomes.iter().find(|v| v.outcome == Outcome::Regressed).map(|v| &v.reasons)
    );
    let held = outcomes.iter().find(|v| v.environment.holds).expect("it would have been condemned");
    assert!(
        held.reasons[0].starts_with("environment, not the version: stable got worse too: turnaround"),
        "{:?}",
        held.reasons
    );
    assert_eq!(held.recommendations[0].step, Step::Wait);
    assert!(!outcomes[399].environment.holds && outcomes[399].evidence_ln < 1.0, "{}", outcomes[399].evidence_ln);
}

#[test]
fn a_canary_that_stays_worse_after_the_environment_recovered_is_condemned() {
    let (mut judge, mut service) = (new_judge(), Service::new(48, 3, 0.3));
    run(&mut judge, &mut service, 600, 400, |_, _| {});
    let verdict = run_on(&mut judge, &mut service, 400, |t, window| {
        if t < 60 {
            window.stable.iter_mut().for_each(|r| r.values[Indicator::TurnaroundMean as usize] *= 2.0);
        }
        scale(window, Indicator::TurnaroundMean, if t < 60 { 3.0 } else { 1.5 });
    });
    assert_eq!(verdict.outcome, Outcome::Regressed);
    assert!(verdict.window > 1060, "not on what was bet while stable was sick: {}", verdict.window);
}

/// Where there is little work, readings are merged, and given once in up to 60 windows.
fn rarely(window: &mut Window, every: u64) {
    if !window.index.is_multiple_of(every) {
        window.stable.iter_mut().chain(&mut window.canary).for_each(|r| r.values = [f64::NAN; Indicator::COUNT]);
    }
}

#[test]
fn a_service_with_little_work_is_judged_all_the_same() {
    let worse = |factor: f64| {
        let parameters = Parameters { soak_windows: 30, ..Parameters::default() };
        let (mut judge, mut service) = (Judge::new(parameters), Service::new(50, 3, 0.3));
        for _ in 0..50 * 200 {
            let mut window = service.next();
            rarely(&mut window, 50);
            judge.observe(&window);
        }
        service.canary = 1;
        run_on(&mut judge, &mut service, 50 * 300, |t, window| {
            rarely(window, 50);
            if t > 50 * 150 {
                scale(window, Indicator::CpuPerWork, factor);
            }
        })
    };
    let equal = worse(1.0);
    assert_eq!(equal.outcome, Outcome::Healthy, "{:?}", equal.reasons);
    let regressed = worse(1.5);
    assert_eq!(regressed.outcome, Outcome::Regressed, "{:?}", regressed.reasons);
    assert_eq!(regressed.causes[0].signal, "cpu_per_work");
}

#[test]
fn windows_in_which_data_was_lost_are_told_and_make_nobody_new() {
    let (mut judge, mut service) = (new_judge(), Service::new(51, 3, 0.3));
    let before = run(&mut judge, &mut service, 600, 900, |_, _| {});
    assert_eq!(before.outcome, Outcome::Healthy, "{:?}", before.reasons);
    let lost = run_on(&mut judge, &mut service, 100, |_, window| {
        window.clean = false;
        rarely(window, u64::MAX);
    });
    assert_eq!(lost.outcome, Outcome::InsufficientData);
    assert_eq!(lost.reasons, ["data was lost in each of the last 100 windows: they are not judged"]);
    let after = run_on(&mut judge, &mut service, 1, |_, _| {});
    assert_eq!(after.outcome, Outcome::Healthy, "no warm-up: {:?}", after.reasons);
    assert_eq!(after.baseline_windows, before.baseline_windows + 3);
}

#[test]
fn a_canary_that_is_silent_after_a_crash_that_stable_had_too_is_not_condemned() {
    let silent = |stable_crashes: u64| {
        let (mut judge, mut service) = (new_judge(), Service::new(52, 3, 0.3));
        run(&mut judge, &mut service, 600, 200, |_, _| {});
        run_on(&mut judge, &mut service, 100, |t, window| {
            if t == 1 {
                count(&mut window.canary, Event::Crashes, 1);
                count(&mut window.stable, Event::Crashes, stable_crashes);
            }
            if t > 1 {
                window.canary.clear();
            }
        })
    };
    assert_eq!(silent(0).hard, Some(HardFact::Silent));
    let both = silent(1);
    assert_eq!((both.outcome, both.hard), (Outcome::InsufficientData, None), "{:?}", both.reasons);
}

#[test]
fn a_canary_that_came_back_after_a_crash_is_not_condemned_for_being_scaled_away_later() {
    let silent_after = |windows: u64| {
        let (mut judge, mut service) = (new_judge(), Service::new(52, 3, 0.3));
        run(&mut judge, &mut service, 600, 200, |_, _| {});
        run_on(&mut judge, &mut service, 100, |t, window| {
            if t == 1 {
                count(&mut window.canary, Event::Crashes, 1);
            }
            if t > 1 {
                window.canary[0].incarnation = 2;
            }
            if t > 1 + windows {
                window.canary.clear();
            }
        })
    };
    assert_eq!(silent_after(3).hard, Some(HardFact::Silent), "it began and did not come back");
    let later = silent_after(25);
    assert_eq!((later.outcome, later.hard), (Outcome::InsufficientData, None), "{:?}", later.reasons);
}

#[test]
fn events_of_windows_in_which_data_was_lost_are_no_evidence_and_hard_facts_are_facts() {
    let (mut judge, mut service) = (new_judge(), Service::new(54, 3, 0.3));
    let before = run(&mut judge, &mut service, 600, 300, |_, _| {});
    let lost = run_on(&mut judge, &mut service, 100, |_, window| {
        window.clean = false;
        rarely(window, u64::MAX);
        count(&mut window.canary, Event::ResetsOut, 5);
    });
    assert_eq!((lost.outcome, lost.evidence_ln), (Outcome::InsufficientData, before.evidence_ln));
    let resets = &lost.events[Event::ResetsOut as usize];
    assert_eq!((resets.canary, resets.stable), (500, 0), "what was counted is told");
    let killed = run_on(&mut judge, &mut service, 1, |_, window| {
        window.clean = false;
        count(&mut window.canary, Event::OomKills, 1);
    });
    assert_eq!((killed.outcome, killed.hard), (Outcome::Regressed, Some(HardFact::OomKill)));
}

#[test]
fn the_least_silence_that_can_be_set_forgets_nobody_whose_readings_are_merged() {
    let setting = settings::SETTINGS.iter().find(|s| s.key == "silent_windows").expect("it can be set");
    let mut parameters = Parameters::default();
    setting.apply(&mut parameters, &[setting.least]);
    let (mut judge, mut service) = (Judge::new(parameters), Service::new(53, 3, 0.3));
    for _ in 0..600 {
        let mut window = service.next();
        rarely(&mut window, 60);
        judge.observe(&window);
        assert_eq!(judge.known_stable(), 3, "window {}", window.index);
    }
}
