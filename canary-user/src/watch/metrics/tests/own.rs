//! What is told of the guard's own kernel programs, which the kernel counts only where it is told to.

use super::*;
use crate::telemetry::HookCost;

#[test]
fn programs_whose_cost_the_kernel_does_not_count_have_no_series_instead_of_zeros() {
    let told = |hooks: Vec<HookCost>| {
        let mut snapshot = story::snapshot(0);
        snapshot.own.as_mut().expect("the story has it").hooks = hooks;
        page(|m| m.record(&snapshot))
    };
    let counted = told(vec![HookCost { hook: "egress".to_owned(), runs: 40, run_ns: 8_000 }]);
    let label = r#"{hook="egress"}"#;
    assert_eq!(counted.get(&format!("canary_hook_runs_total{label}")), 40.0);
    assert_eq!(counted.get(&format!("canary_hook_run_seconds_total{label}")), 8e-6);
    let uncounted = told(Vec::new());
    for family in ["canary_hook_runs_total", "canary_hook_run_seconds_total"] {
        assert!(!uncounted.has_family(family), "{family}");
    }
    assert!(uncounted.has_family("canary_guard_cpu_seconds_total"), "its process is counted all the same");
}
