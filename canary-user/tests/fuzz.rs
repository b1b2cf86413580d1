//! Readers of files from outside, and the judge behind them, take anything: they read it or refuse it, and never panic.
//!
//! A longer run: `PROPTEST_CASES=1000000 cargo test --release -p canary-user --test fuzz`. Each test prints what it failed on,
//! made as small as it goes. What the inputs are given to is what `cargo xtask fuzz` gives its own to, which look for new code.

use canary_user::judge::Outcome;
use proptest::prelude::*;
use serde_json::{Value, json};

#[path = "../../fuzz/src/lib.rs"]
mod fuzz;
#[path = "../../xtask/src/fuzz/seeds.rs"]
mod seeds;

const HEADER: &str = r#"{"kind":"canary-recording","format":1,"window_ns":1000000000,"program":"0.1.0"}"#;

/// So many, unless the environment asks for more.
fn cases(default: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(default), failure_persistence: None, ..ProptestConfig::default() }
}

fn count() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 1..1000u64, Just(u64::from(u32::MAX)), Just(u64::MAX / 2), Just(u64::MAX)]
}

/// A sample whose numbers may be anything that a 64-bit count may be, with parts missing.
fn sample() -> impl Strategy<Value = Value> {
    let numbers = proptest::collection::vec(count(), 16);
    (0..5u64, any::<bool>(), numbers, any::<[bool; 8]>()).prop_map(|(instance, is_canary, n, there)| {
        let role = if is_canary { "canary" } else { "stable" };
        let bucket = |i: usize| json!([[n[i] % 300, n[i]], [5, n[i]]]);
        let mut sample = json!({
            "target": {"deployment": "shop", "role": role, "version": role, "cgroup": format!("/{role}-{instance}"), "incarnation": n[0] % 3},
            "span_ns": n[1],
        });
        let parts = [
            ("cpu", json!({"on_cpu_ns": n[2], "runq_wait_ns": n[3], "runq_waits": n[4], "switches_voluntary": n[5], "switches_involuntary": n[6], "runq_wait": bucket(4)})),
            ("network", json!({"rx_bytes": n[7], "rx_packets": 1, "rx_payload_bytes": n[7], "tx_bytes": n[8], "tx_packets": 1, "tx_payload_bytes": n[8], "turnarounds": n[9], "turnaround_ns": n[10], "resets_in": 0, "resets_out": n[11], "turnaround": bucket(9)})),
            ("lifecycle", json!({"exits": n[12], "exits_error": n[12], "crashes": n[13], "exits_killed": 0})),
            ("oom_kills", json!(n[14])),
            ("pressure", json!({"cpu_some_usec": 0, "memory_some_usec": n[15], "memory_full_usec": 0, "io_some_usec": 0, "io_full_usec": 0})),
            ("throttling", json!({"periods": n[6], "throttled_periods": n[5], "throttled_usec": n[4]})),
            ("memory", json!({"in_use_bytes": n[3], "limit_bytes": n[2], "source": "memory_current"})),
            ("populated", json!(n[1] > 0)),
        ];
        for ((key, value), _) in parts.into_iter().zip(there).filter(|(_, there)| *there) {
            sample[key] = value;
        }
        sample
    })
}

fn tick() -> impl Strategy<Value = Value> {
    (count(), proptest::collection::vec(sample(), 0..8), count(), any::<bool>()).prop_map(|(span, samples, n, machine)| {
        let mut tick = json!({"unix_ms": n, "span_ns": span, "samples": samples, "quality": {"lost_events": n % 2, "targets_without_slot": 0}});
        if machine {
            tick["machine"] = json!({"cpu_busy": n as f64, "cpus": n % 9, "memory_total_bytes": n, "memory_available_bytes": span, "network_rx_bytes": 0, "network_tx_bytes": 0});
        }
        tick
    })
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn any_bytes_are_a_recording_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), whole in any::<bool>()) {
        let start = if whole { format!("{HEADER}\n") } else { String::new() };
        fuzz::recording(&[start.as_bytes(), &bytes].concat());
    }

    #[test]
    fn any_bytes_are_a_table_or_are_refused(
        start in prop_oneof![Just(""), Just("t,role,target,x\n"), Just("t,role,target,x,y\n0,stable,a,1,2\n")],
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        lines in proptest::collection::vec("([0-9.]{0,3}|-1|1e400),(stable|canary|x)?,[a\",]{0,3},([0-9.e-]{0,5}|NaN)\n", 0..20),
    ) {
        fuzz::table(&[start.as_bytes(), &bytes].concat());
        fuzz::table(&[start.as_bytes(), lines.concat().as_bytes()].concat());
    }
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn any_counts_are_judged(ticks in proptest::collection::vec(tick(), 0..30), steps in proptest::collection::vec(1..1u64 << 40, 30)) {
        let mut text = format!("{HEADER}\n");
        let mut t_ns = 0;
        for (mut tick, step) in ticks.into_iter().zip(steps) {
            t_ns += step;
            tick["t_ns"] = t_ns.into();
            text += &format!("{tick}\n");
        }
        fuzz::recording(text.as_bytes());
    }

    /// As many windows as it takes to be condemned or called healthy.
    #[test]
    fn any_change_of_what_is_counted_is_judged(steps in proptest::collection::vec(any::<[u8; 3]>(), 0..40)) {
        fuzz::counts(&steps.concat());
    }

    /// As many windows as it takes to bet, of readings as they may be.
    #[test]
    fn any_readings_of_a_table_are_judged(
        readings in proptest::collection::vec(proptest::collection::vec(reading(), 8), 0..30),
        comes in 0..6usize,
    ) {
        let mut text = String::from("t,role,target,x,y\n");
        for (t, row) in readings.iter().enumerate() {
            for (i, pair) in row.chunks_exact(2).enumerate().filter(|(i, _)| *i < 3 || t >= comes) {
                let role = if i < 3 { "stable" } else { "canary" };
                text += &format!("{t},{role},i{i},{},{}\n", pair[0], pair[1]);
            }
        }
        fuzz::table(text.as_bytes());
    }
}

proptest! {
    #![proptest_config(cases(300))]

    /// The one that is shipped, with other values, and with bytes at its end.
    #[test]
    fn any_configuration_is_accepted_or_refused(
        set in proptest::collection::vec((any::<prop::sample::Index>(), value()), 0..4),
        bytes in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let example = example();
        let mut lines: Vec<String> = example.lines().filter(|l| !l.starts_with('#')).map(str::to_owned).collect();
        for (index, value) in set {
            let line = index.get_mut(&mut lines);
            if let Some((key, _)) = line.split_once(" = ") {
                *line = format!("{key} = {value}");
            }
        }
        let text = lines.join("\n");
        fuzz::config(text.as_bytes());
        fuzz::config(&[text.as_bytes(), &bytes].concat());
    }
}

/// What may stand behind a key.
fn value() -> impl Strategy<Value = String> {
    let words =
        ["0", "1", "-1", "1e-9", "0.5", "nan", "inf", "1_000", "9223372036854775807", "true", "[]", "[0.5, 0.5]", "{}"];
    prop_oneof![
        prop::sample::select(words.to_vec()).prop_map(str::to_owned),
        "\"([a-z0-9 .:/*@-]|\\\\\"|\\\\n|ä){0,12}\"",
        any::<f64>().prop_map(|number| number.to_string()),
        (0..5000u64, prop::sample::select(vec!["ms", "s", "m", "h", "d"]))
            .prop_map(|(n, unit)| format!("\"{n}{unit}\"")),
    ]
}

fn example() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/canary.example.toml");
    std::fs::read_to_string(path).expect("it is shipped")
}

/// What a cell may have: usual readings, extremes, and none.
fn reading() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => (1..1000u32).prop_map(|n| format!("{}.{}", n / 10, n % 10)),
        1 => Just("0".to_owned()),
        1 => Just("1e308".to_owned()),
        1 => Just("5e-324".to_owned()),
        1 => Just(String::new()),
    ]
}

/// The tests above judge, and do not only read.
#[test]
fn a_table_of_few_windows_is_bet_on() {
    let mut text = String::from("t,role,target,x\n");
    for t in 0..20 {
        for (i, role) in ["stable", "stable", "stable", "canary"].into_iter().enumerate() {
            text += &format!("{t},{role},i{i},{}\n", 100 + (t * 7 + i * 5) % 13);
        }
    }
    assert!(fuzz::table(text.as_bytes()) > 5);
}

/// What nobody reads teaches a fuzzer nothing.
#[test]
fn what_fuzzing_starts_from_is_judged() {
    for (name, text) in seeds::recordings() {
        let verdicts = fuzz::recording(text.as_bytes());
        let is_judged = verdicts.iter().any(|v| v.outcome != Outcome::InsufficientData);
        assert!(is_judged || (name == "everything" && verdicts.len() == 1), "recording {name}: {verdicts:?}");
    }
    for (name, text) in seeds::tables() {
        assert!(fuzz::table(text.as_bytes()) > 0, "table {name}");
    }
    for (name, steps) in seeds::counts() {
        let verdict = fuzz::counts(steps.as_bytes()).expect("there are windows");
        let expected = if name == "equal" { Outcome::Healthy } else { Outcome::Regressed };
        assert_eq!((verdict.outcome, verdict.forecast.is_some()), (expected, name == "leak"), "counts {name}");
    }
    assert!(fuzz::config(example().as_bytes()));
    let words = seeds::dictionary(&seeds::recordings());
    assert!(words.contains("\"condemned\"\n") && words.contains("\"18446744073709551615\"\n"), "{words}");
}
