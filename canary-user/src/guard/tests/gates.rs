//! Every gate each way, with its reason.

use std::time::Duration;

use super::{busy, facts_after, hard, name, target, verdict};
use crate::{
    guard::{
        Action, Approval, Facts, Mode,
        gates::{Case, GATES, action_of, evaluate},
    },
    judge::{HardFact, Outcome, Sign, SignKind, Verdict},
    orchestrator::{Plan, TakesAway, dry_run},
    targets::Role,
    telemetry::Sample,
    window::Indicator,
};

fn samples() -> Vec<Sample> {
    vec![busy(target(Role::Stable, 1)), busy(target(Role::Canary, 2))]
}

fn plan() -> Plan {
    Plan { orchestrator: "fake".into(), inverse: Some("start it".into()), ..Plan::default() }
}

/// A plan that takes itself back.
fn temporary() -> Plan {
    Plan { undo: Some(1.into()), ends_after_ms: Some(60_000), ..plan() }
}

/// A case in which every gate passes.
fn open() -> (Verdict, Facts) {
    let verdict = verdict(Outcome::Regressed, 20);
    let mut facts = facts_after(21, &samples(), &verdict);
    facts.mode = Mode::Rollback;
    facts.per_hour = 2;
    facts.cooldown = Duration::from_secs(900);
    facts.described = Some(Ok(plan()));
    (verdict, facts)
}

/// The last gate that was asked: its name, answer and reason.
fn last(verdict: &Verdict, facts: &Facts, regressed_windows: u64) -> (String, bool, String) {
    let gates = evaluate(Case { verdict, regressed_windows, facts, action: action_of(facts.mode) });
    let names: Vec<&str> = gates.iter().map(|g| g.gate.as_str()).collect();
    let order: Vec<&str> = GATES.iter().map(|(n, _)| *n).take(names.len()).collect();
    assert_eq!(names, order, "gates are asked in order");
    assert!(gates[..gates.len() - 1].iter().all(|g| g.passed), "nothing is asked after a gate that blocks");
    assert!(gates.iter().all(|g| !g.reason.is_empty()));
    let g = gates.last().expect("at least one gate is asked").clone();
    (g.gate, g.passed, g.reason)
}

#[track_caller]
fn blocks(gate: &str, reason: &str, change: impl FnOnce(&mut Verdict, &mut Facts)) {
    let (mut v, mut f) = open();
    change(&mut v, &mut f);
    assert_eq!(last(&v, &f, 5), (gate.into(), false, reason.into()));
}

#[track_caller]
fn passes(change: impl FnOnce(&mut Verdict, &mut Facts)) {
    let (mut v, mut f) = open();
    change(&mut v, &mut f);
    let (gate, passed, reason) = last(&v, &f, 5);
    assert!(passed && gate == "approval", "{gate}: {reason}");
}

#[test]
fn the_open_case_passes_every_gate_and_says_why() {
    let (verdict, facts) = open();
    let gates =
        evaluate(Case { verdict: &verdict, regressed_windows: 5, facts: &facts, action: action_of(facts.mode) });
    let said: Vec<&str> = gates.iter().map(|g| g.reason.as_str()).collect();
    assert_eq!(
        said,
        [
            "mode is rollback: may roll back",
            "not paused",
            "no event lost in the last 10 windows, everything measured that condemned",
            "the canary is there, seen for 20s; no max_age is set",
            "regressed in 5 windows in a row",
            "stable is not worse itself in what condemned the canary, no OOM kill and no crash of stable",
            "fake has hold of the canary",
            "the same canary instances since window 16",
            "1 of 2 instances would be taken away",
            "1 stable instances populated and reporting, 1000 turnarounds in the last 10 windows",
            "the way back: start it",
            "0 of 2 actions used in the last hour, none against this canary",
            "this guard acts alone",
            "not required",
        ]
    );
}

#[test]
fn mode() {
    blocks("mode", "mode is observe: says that it would roll back and does nothing", |_, f| f.mode = Mode::Observe);
    blocks("mode", "mode is advise: advises to roll back and does nothing", |_, f| f.mode = Mode::Advise);
    passes(|_, f| (f.mode, f.described) = (Mode::Quarantine, Some(Ok(temporary()))));
    passes(|_, f| f.mode = Mode::Drain);
}

#[test]
fn pause() {
    blocks("pause", "paused: the file is there", |_, f| f.paused = Some("the file is there".into()));
}

#[test]
fn data_quality() {
    blocks("data_quality", "3 events lost in the last 10 windows", |_, f| f.lost_events = 3);
    blocks("data_quality", "1 target not counted in the last 10 windows: no slot left for them", |_, f| {
        f.targets_without_slot = 1;
    });
}

#[test]
fn a_signal_whose_hook_is_not_live_condemns_nobody() {
    let mut gone = samples();
    gone[1].cpu = None;
    let v = verdict(Outcome::Regressed, 20);
    let f = Facts { mode: Mode::Rollback, ..facts_after(21, &gone, &v) };
    let expected = "not measured: CPU counts of canary /checkout/v2";
    assert_eq!(last(&v, &f, 5), ("data_quality".into(), false, expected.into()));
    // A canary is not silent where nothing listens.
    let mut deaf = samples();
    deaf[1].network = None;
    let v = hard(HardFact::Silent, 20);
    let f = Facts { mode: Mode::Rollback, ..facts_after(21, &deaf, &v) };
    let expected = "not measured: network counts of canary /checkout/v2";
    assert_eq!(last(&v, &f, 5), ("data_quality".into(), false, expected.into()));
    // A hook that nothing rests on may be missing.
    let v = verdict(Outcome::Regressed, 20);
    let f = Facts { mode: Mode::Rollback, ..facts_after(21, &deaf, &v) };
    assert!(last(&v, &f, 5).1);
}

#[test]
fn a_verdict_that_names_nothing_known_condemns_nobody() {
    let mut v = verdict(Outcome::Regressed, 20);
    v.causes[0].signal = "moon_phase".into();
    let f = Facts { mode: Mode::Rollback, ..facts_after(21, &samples(), &v) };
    let expected = "not measured: a cause: the verdict names none that the sensor knows";
    assert_eq!(last(&v, &f, 5), ("data_quality".into(), false, expected.into()));
}

#[test]
fn canary_window() {
    blocks("canary_window", "there is no canary any more", |_, f| f.canary.clear());
    let v = verdict(Outcome::Regressed, 20);
    for (populated, gate) in [(Some(false), "canary_window"), (None, "approval"), (Some(true), "approval")] {
        let mut s = samples();
        s[1].populated = populated;
        let f = Facts { mode: Mode::Rollback, ..facts_after(21, &s, &v) };
        assert_eq!(last(&v, &f, 5).0, gate, "{populated:?}");
    }
    // Between two deaths of a crash loop there is no process, and the supervisor is about to start one.
    let v = hard(HardFact::CrashLoop, 20);
    let mut s = samples();
    s[1].populated = Some(false);
    let f = Facts { mode: Mode::Rollback, ..facts_after(21, &s, &v) };
    assert!(last(&v, &f, 1).1);
    let hour = Some(Duration::from_secs(3600));
    blocks("canary_window", "the canary has run for 2h, longer than max_age 1h: it is no canary any more", |_, f| {
        (f.max_age, f.canary_age) = (hour, Duration::from_secs(7200))
    });
    passes(|_, f| (f.max_age, f.canary_age) = (hour, Duration::from_secs(3600)));
}

#[test]
fn the_verdict_has_to_be_confirmed_or_hard() {
    blocks("verdict", "the verdict is inconclusive", |v, _| v.outcome = Outcome::Inconclusive);
    blocks("verdict", "the verdict is insufficient data", |v, _| v.outcome = Outcome::InsufficientData);
    let (v, f) = open();
    let expected = "regressed in 1 of 2 windows in a row: not confirmed yet";
    assert_eq!(last(&v, &f, 1), ("verdict".into(), false, expected.into()));
    assert!(last(&v, &f, 2).1);
    for fact in [HardFact::OomKill, HardFact::CrashLoop, HardFact::Silent] {
        let v = hard(fact, 20);
        let f = Facts { mode: Mode::Rollback, ..facts_after(21, &samples(), &v) };
        assert!(last(&v, &f, 1).1, "{fact:?}");
    }
}

fn stable_worse(indicator: Indicator) -> Sign {
    let text = format!("stable got worse too: {} +20 % against what it was before", indicator.title());
    Sign { kind: SignKind::StableWorse, text, explains: vec![indicator] }
}

#[test]
fn what_hit_stable_too_is_the_environment() {
    blocks("stable_healthy", "stable has 1 OOM kill of its own: it is the environment", |_, f| {
        f.stable_oom_kills = Some(1);
    });
    blocks("stable_healthy", "stable has 2 crashes of its own: it is the environment", |_, f| {
        f.stable_crashes = Some(2);
    });
    let worse = "stable got worse too: CPU per turnaround +20 % against what it was before: it is the environment";
    blocks("stable_healthy", worse, |v, _| v.environment.signs = vec![stable_worse(Indicator::CpuPerWork)]);
    // What the judge knows of what does not lead is its own affair: it has condemned the canary all the same.
    passes(|v, _| v.environment.signs = vec![stable_worse(Indicator::MemoryInUse)]);
    passes(|v, _| {
        v.environment.signs = vec![Sign { kind: SignKind::Throttled, ..stable_worse(Indicator::CpuPerWork) }];
    });
    passes(|_, f| (f.stable_oom_kills, f.stable_crashes) = (None, None));
}

#[test]
fn evidence_about_an_earlier_instance_does_not_count() {
    blocks(
        "incarnation",
        "/checkout/v2 came in window 17, after the evidence began in window 16: it is on another instance",
        |_, f| f.newest_canary = Some((name("/checkout/v2"), 17)),
    );
    blocks(
        "incarnation",
        "/checkout/v2 came in window 11, after the evidence began in window 10: it is on another instance",
        |v, f| (v.onset, f.newest_canary) = (Some(10), Some((name("/checkout/v2"), 11))),
    );
    blocks("incarnation", "there is no canary any more", |_, f| f.newest_canary = None);
    passes(|_, f| f.newest_canary = Some((name("/checkout/v2"), 16)));
}

#[test]
fn capacity() {
    blocks("capacity", "0 stable instances populated and reporting, 1 needed to carry the load", |_, f| {
        f.stable_reporting = 0;
    });
    blocks("capacity", "1 stable instances populated and reporting, 2 needed to carry the load", |_, f| {
        f.minimum_healthy = 2;
    });
    let nothing = "stable had turnarounds before and none in the last 10 windows: it serves nothing";
    blocks("capacity", nothing, |_, f| f.stable_turnarounds = Some(0));
    let unknown = "stable had turnarounds before and they are not measured any more";
    blocks("capacity", unknown, |_, f| f.stable_turnarounds = None);
    passes(|_, f| (f.stable_had_turnarounds, f.stable_turnarounds) = (false, Some(0)));
}

#[test]
fn an_instance_counts_as_healthy_only_if_it_is_known_to_be() {
    let v = verdict(Outcome::Regressed, 20);
    for change in [
        |s: &mut Sample| s.populated = Some(false),
        |s: &mut Sample| s.populated = None,
        |s: &mut Sample| (s.cpu, s.network) = (None, None),
        |s: &mut Sample| s.span_ns = 0,
    ] {
        let mut s = samples();
        change(&mut s[0]);
        assert_eq!(facts_after(21, &s, &v).stable_reporting, 0);
    }
    assert_eq!(facts_after(21, &samples(), &v).stable_reporting, 1);
}

#[test]
fn budget() {
    blocks("budget", "an action was already begun against this canary (x-1): one per rollout", |_, f| {
        f.acted_on = Some("x-1".into());
    });
    blocks("budget", "2 actions in the last hour, 2 allowed", |_, f| f.actions_last_hour = 2);
    blocks("budget", "the last action was 14m 59s ago, the cooldown is 15m", |_, f| {
        f.since_last_action = Some(Duration::from_secs(899));
    });
    blocks("budget", "cart condemned within 10m as well: probably the environment or the guard itself", |_, f| {
        f.condemned_elsewhere = vec![name("cart")]
    });
    blocks(
        "budget",
        "the journal cannot be relied on, no action until the guard is started again: disk full",
        |_, f| f.journal_failure = Some("disk full".into()),
    );
    passes(|_, f| (f.actions_last_hour, f.since_last_action) = (1, Some(Duration::from_secs(900))));
}

#[test]
fn an_orchestrator_that_will_not_act_blocks_by_its_own_words() {
    blocks("owner", "refused, nothing was done: checkout@v2.service is upheld", |_, f| {
        f.described = Some(Err("refused, nothing was done: checkout@v2.service is upheld".into()));
    });
    passes(|_, f| f.described = None);
}

#[test]
fn blast_radius() {
    blocks("blast_radius", "1 of 2 instances would be taken away, blast_radius is 0.3", |_, f| f.blast_radius = 0.3);
    passes(|_, f| f.blast_radius = 0.5);
    // Of two instances that are seen from here one may be a fifth of what is taken away.
    let plan = |instances, of| Some(Ok(Plan { takes_away: Some(TakesAway { instances, of }), ..plan() }));
    blocks("blast_radius", "10 of 12 instances would be taken away, on all nodes, blast_radius is 0.5", |_, f| {
        (f.blast_radius, f.described) = (0.5, plan(10, 12));
    });
    passes(|_, f| f.described = plan(1, 100));
    passes(|_, f| (f.described, f.asked_by) = (plan(10, 12), Some("root".into())));
}

#[test]
fn nothing_is_begun_that_has_no_way_back() {
    blocks("rollback_possible", "fake knows no way back from it", |_, f| {
        f.described = Some(Ok(Plan { inverse: None, ..plan() }));
    });
    let quarantine = |f: &mut Facts, plan| (f.mode, f.described) = (Mode::Quarantine, Some(Ok(plan)));
    blocks("rollback_possible", "fake cannot take a quarantine back by itself", |_, f| {
        quarantine(f, Plan { undo: None, ..temporary() });
    });
    blocks("rollback_possible", "fake plans a quarantine without an end", |_, f| {
        quarantine(f, Plan { ends_after_ms: None, ..temporary() });
    });
    passes(|_, f| quarantine(f, temporary()));
    passes(|_, f| quarantine(f, Plan { orchestrator: dry_run::NAME.into(), ..plan() }));
}

#[test]
fn leadership() {
    blocks("leadership", "node-b holds the lease", |_, f| f.leader = Err("node-b holds the lease".into()));
    passes(|_, f| f.leader = Ok("this node holds the lease".into()));
}

#[test]
fn approval() {
    let required = Approval::Required(Duration::from_secs(900));
    blocks("approval", "a person has to approve it within 15m", |_, f| f.approval = required);
    passes(|_, f| f.approval = Approval::Given("root".into()));
}

#[test]
fn a_person_decides_instead_of_the_verdict_and_not_instead_of_what_protects_stable() {
    let asked = |f: &mut Facts| {
        f.asked_by = Some("root".into());
        // What a person may overrule.
        f.mode = Mode::Observe;
        f.lost_events = 7;
        (f.max_age, f.canary_age) = (Some(Duration::from_secs(60)), Duration::from_secs(600));
        f.stable_crashes = Some(3);
        f.blast_radius = 0.1;
        f.newest_canary = Some((name("/checkout/v2"), 20));
        (f.actions_last_hour, f.condemned_elsewhere) = (9, vec![name("cart")]);
        f.approval = Approval::Required(Duration::from_secs(900));
    };
    passes(|v, f| {
        asked(f);
        v.outcome = Outcome::Healthy;
    });
    type Change = fn(&mut Facts);
    let cases: [(&str, Change); 8] = [
        ("pause", |f| f.paused = Some("by root".into())),
        ("canary_window", |f| f.canary.clear()),
        ("owner", |f| f.described = Some(Err("refused".into()))),
        ("capacity", |f| f.stable_reporting = 0),
        ("rollback_possible", |f| f.described = Some(Ok(Plan { inverse: None, ..plan() }))),
        ("budget", |f| f.acted_on = Some("x-1".into())),
        ("budget", |f| f.journal_failure = Some("disk full".into())),
        ("leadership", |f| f.leader = Err("another leads".into())),
    ];
    for (gate, change) in cases {
        let (v, mut f) = open();
        asked(&mut f);
        change(&mut f);
        let (blocked, passed, reason) = last(&v, &f, 0);
        assert!(blocked == gate && !passed, "{gate}: {blocked} {reason}");
    }
}

#[test]
fn what_looks_after_those_who_go_on_serving_holds_no_hold_back() {
    let last_of = |change: fn(&mut Facts)| {
        let (v, mut f) = open();
        f.asked_by = Some("root".into());
        (f.stable_reporting, f.blast_radius, f.acted_on) = (0, 0.1, Some("x-1".into()));
        change(&mut f);
        let gates = evaluate(Case { verdict: &v, regressed_windows: 0, facts: &f, action: Action::Hold });
        gates.last().map(|gate| (gate.gate.clone(), gate.passed)).expect("at least one gate is asked")
    };
    assert_eq!(last_of(|_| ()), ("approval".to_owned(), true));
    type Change = fn(&mut Facts);
    let cases: [(&str, Change); 6] = [
        ("pause", |f| f.paused = Some("by root".into())),
        ("canary_window", |f| f.canary_populated = false),
        ("owner", |f| f.described = Some(Err("refused".into()))),
        ("rollback_possible", |f| f.described = Some(Ok(Plan { inverse: None, ..plan() }))),
        ("budget", |f| f.journal_failure = Some("disk full".into())),
        ("leadership", |f| f.leader = Err("another leads".into())),
    ];
    for (gate, change) in cases {
        assert_eq!(last_of(change), (gate.to_owned(), false));
    }
}
