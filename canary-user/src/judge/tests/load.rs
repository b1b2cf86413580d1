//! A canary with less of the load than stable: fixed costs weigh more on each of its requests.

use super::*;

/// After 600 windows of stable alone, a canary with `turnarounds` where stable has 100, and factors on two of its readings.
fn rollout(p: Parameters, turnarounds: u64, cpu: f64, turnaround: f64) -> Verdict {
    run(&mut Judge::new(p), &mut Service::new(12, 3, 0.3), 600, 1200, |_, window| {
        window.canary[0].turnarounds = turnarounds;
        scale(window, Indicator::CpuPerWork, cpu);
        scale(window, Indicator::TurnaroundMean, turnaround);
    })
}

#[test]
fn what_fixed_costs_make_of_little_load_condemns_nobody() {
    let verdict = rollout(Parameters::default(), 5, 1.25, 1.0);
    assert_eq!(verdict.outcome, Outcome::Inconclusive, "{:?}", verdict.reasons);
    assert!(verdict.environment.holds, "{:?}", verdict.environment);
    let sign = verdict.environment.signs.iter().find(|sign| sign.kind == SignKind::UnequalLoad).expect("it is told");
    assert!(sign.text.contains("the canary has 5 % of the load") && sign.text.contains("190 %"), "{}", sign.text);

    let without = rollout(Parameters { fixed_cost_share: 0.0, ..Parameters::default() }, 5, 1.25, 1.0);
    assert_eq!(without.outcome, Outcome::Regressed, "it is what keeps it: {:?}", without.reasons);
}

#[test]
fn little_load_explains_cpu_also_where_no_turnaround_is_measured() {
    let verdict = run(&mut new_judge(), &mut Service::new(12, 3, 0.3), 600, 1200, |_, window| {
        window.canary[0].turnarounds = 5;
        scale(window, Indicator::CpuPerWork, 1.25);
        scale(window, Indicator::TurnaroundMean, f64::NAN);
        scale(window, Indicator::TurnaroundP95, f64::NAN);
    });
    assert_eq!(verdict.outcome, Outcome::Inconclusive, "{:?}", verdict.reasons);
    assert!(verdict.environment.holds, "{:?}", verdict.environment);
}

#[test]
fn what_fixed_costs_cannot_make_of_little_load_condemns() {
    // A fifth of the load makes at most 40 % of a tenth.
    let more_cpu = rollout(Parameters::default(), 20, 2.0, 1.0);
    assert_eq!(more_cpu.outcome, Outcome::Regressed, "{:?}", more_cpu.reasons);
    assert_eq!(more_cpu.causes[0].signal, "cpu_per_work");
    let slower = rollout(Parameters::default(), 20, 1.0, 2.0);
    assert_eq!(slower.outcome, Outcome::Regressed, "nothing of the load makes it wait: {:?}", slower.reasons);
    assert_eq!(slower.causes[0].signal, "turnaround_mean");
    let as_much = rollout(Parameters::default(), 100, 1.25, 1.0);
    assert_eq!(as_much.outcome, Outcome::Regressed, "{:?}", as_much.reasons);
    assert!(as_much.environment.signs.is_empty(), "{:?}", as_much.environment);
}
