//! What fuzzing starts from: recordings and tables as short as they can be and still be judged, with the least that may be
//! configured (`fuzz/src/lib.rs`), and the configuration that is shipped. Included by `canary-user/tests/fuzz.rs`, which judges them.

use std::{collections::BTreeSet, fmt::Write as _};

use serde_json::{Value, json};

/// What an input may begin with, by name.
pub type Seeds = Vec<(&'static str, String)>;

const HEADER: &str = r#"{"kind":"canary-recording","format":1,"window_ns":1000000000,"program":"0.1.0"}"#;
/// What no seed has, and a reader may trip over.
const EXTREMES: [&str; 12] = [
    "0",
    "-1",
    "null",
    "[]",
    "{}",
    "1e308",
    "5e-324",
    "-0.0",
    "NaN",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
];

/// One instance in one window.
struct Here {
    window: u64,
    instance: u64,
    canary: bool,
    /// 100 to 106, another one in each window and of each instance: noise.
    percent: u64,
    /// 3 for a canary that is worse, else 1.
    times: u64,
}

/// Two instances of stable, and a canary that comes after half of the windows and is worse from the start.
pub fn recordings() -> Seeds {
    vec![
        ("cpu", recording(24, cpu)),
        ("work", recording(20, work)),
        ("events", recording(20, events)),
        ("leak", recording(70, memory)),
        ("everything", everything()),
    ]
}

/// The same as tables: of many windows, and of columns with gaps.
pub fn tables() -> Seeds {
    let mut long = String::from("t,role,target,x\n");
    let mut gaps = String::from("# seconds\nt,role,target,latency_ms,hit_rate,errors\n");
    for here in instances(90) {
        let (role, t, x) = (here.role(), here.window, here.percent * here.times);
        let _ = writeln!(long, "{t},{role},{role}{},{x}", here.instance);
    }
    for here in instances(24) {
        let (role, t, x) = (here.role(), here.window, here.percent);
        let errors = if t % 3 == 0 { "" } else { "0" };
        let _ = writeln!(gaps, "{t}.5,{role},{role}{},{x}.{t},0.{x},{errors}", here.instance);
    }
    vec![("long", long), ("gaps", gaps)]
}

/// Counts in steps of three bytes, as `fuzz/src/counts.rs` reads them.
pub fn counts() -> Seeds {
    let steps = |steps: &[[u8; 3]]| steps.concat().into_iter().map(char::from).collect();
    let (baseline, rest) = ([0, 39, 0], [0, 63, 0]);
    // What is to be done, times five, and the instance that it is done to: the canary is the fourth.
    let (triple_its_cpu, limit_its_memory, have_its_memory_grow) =
        ([2 * 5 + 3, 1, 48], [5 + 3, 17, 7], [8 * 5 + 3, 16, 5]);
    vec![
        ("worse", steps(&[baseline, triple_its_cpu, rest])),
        ("equal", steps(&[baseline, rest, rest, rest, rest])),
        ("leak", steps(&[limit_its_memory, have_its_memory_grow, baseline, rest])),
    ]
}

/// A dictionary for libFuzzer: each word that the seeds have, and some numbers.
pub fn dictionary(seeds: &Seeds) -> String {
    let words = seeds.iter().flat_map(|(_, text)| text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')));
    let words: BTreeSet<&str> = words.filter(|w| w.starts_with(|c: char| c.is_ascii_alphabetic())).collect();
    words.into_iter().chain(EXTREMES).map(|word| format!("\"{word}\"\n")).collect()
}

impl Here {
    fn role(&self) -> &'static str {
        if self.canary { "canary" } else { "stable" }
    }
}

fn instances(windows: u64) -> impl Iterator<Item = Here> {
    let all = (0..windows).flat_map(|window| (0..3).map(move |instance| (window, instance)));
    all.filter(move |(window, instance)| *instance < 2 || 2 * window > windows).map(|(window, instance)| {
        let canary = instance == 2;
        let percent = 100 + (window * 5 + instance * 3) % 7;
        Here { window, instance, canary, percent, times: if canary { 3 } else { 1 } }
    })
}

fn recording(windows: u64, counts: fn(&Here) -> Value) -> String {
    let mut ticks = vec![Vec::new(); windows as usize];
    for here in instances(windows) {
        let mut sample = counts(&here);
        let cgroup = format!("/{}{}", here.role(), here.instance);
        sample["target"] =
            json!({"deployment": "s", "role": here.role(), "version": here.role(), "cgroup": cgroup, "incarnation": 1});
        sample["span_ns"] = json!(1_000_000_000);
        ticks[here.window as usize].push(sample);
    }
    let mut text = format!("{HEADER}\n");
    for (window, samples) in ticks.into_iter().enumerate() {
        let t_ns = (window + 1) * 1_000_000_000;
        let _ = writeln!(text, "{}", json!({"t_ns": t_ns, "unix_ms": 0, "span_ns": 1_000_000_000, "samples": samples}));
    }
    text
}

fn cpu(here: &Here) -> Value {
    let wait_ns = 300 * here.percent * here.times;
    json!({"cpu": {
        "on_cpu_ns": 400_000 * here.percent * here.times, "runq_wait_ns": 40 * wait_ns, "runq_waits": 40,
        "switches_voluntary": 30, "switches_involuntary": 10, "runq_wait": [[38 + here.times, 40]],
    }})
}

fn work(here: &Here) -> Value {
    let mut sample = cpu(here);
    let bytes = 40 * here.percent * here.times;
    sample["network"] = json!({
        "rx_bytes": 9000, "rx_packets": 40, "rx_payload_bytes": 8000, "tx_bytes": bytes + 900, "tx_packets": 40,
        "tx_payload_bytes": bytes, "turnarounds": 40, "turnaround_ns": 900_000 * here.percent * here.times,
        "resets_in": 0, "resets_out": 0, "turnaround": [[80 + 8 * here.times, 36], [96 + 8 * here.times, 4]],
    });
    sample
}

fn events(here: &Here) -> Value {
    let failed = here.times - 1;
    json!({
        "http": {"responses_1xx": 0, "responses_2xx": 40, "responses_3xx": 0, "responses_4xx": 1, "responses_5xx": failed},
        "connections": {"accepted": 9, "opened": 1, "open_ns": 41000, "failed": failed, "refused": failed},
        "retransmits": failed,
        "lifecycle": {"exits": failed, "exits_error": failed, "crashes": failed, "exits_killed": 0, "core_dumps": 0},
        "exit_codes": [[256, failed]],
        "oom_kills": failed / 2,
    })
}

fn memory(here: &Here) -> Value {
    let growth = if here.canary { 900 * here.window } else { 0 };
    let in_use_bytes = 1000 * (1000 * here.percent + growth);
    json!({"memory": {"in_use_bytes": in_use_bytes, "limit_bytes": 300_000_000, "source": "memory_current"}})
}

/// All that a recording may have, in three ticks: what was known before, limits of a quarantine and their end.
fn everything() -> String {
    let known = json!({"offset_squares": 0.001, "freedom": 3.0, "wander": 0.0001, "noise": 0.002});
    let mut header: Value = serde_json::from_str(HEADER).expect("it is JSON");
    header["earlier"] = json!({"s": {"cpu_per_work": known, "memory_in_use": known}});
    let standing = json!({
        "decision_id": "d1", "evidence_ln": 7.5, "hard": "crash_loop", "reasons": ["it crashed"], "recommendations": [],
        "causes": [{"signal": "crashes", "text": "crashes", "mechanism": "crashes", "ruled_out": [], "evidence_ln": 7.5}],
    });
    let limits = [json!({"under": "d1", "condemned": standing}), json!({"under": "d1"}), json!({"ended": true})];
    let mut text = format!("{header}\n");
    for (t_s, limits) in (1..).zip(limits) {
        let samples: Vec<Value> = [false, true].map(|canary| whole_sample(t_s, canary)).to_vec();
        let tick = json!({
            "t_ns": t_s * 1_000_000_000, "unix_ms": 1_764_000_000_000_u64, "span_ns": 1_000_000_000, "samples": samples,
            "quality": {
                "hooks_missing": ["sched_switch: refused"], "lost_events": 0, "lost_exits": 1, "targets_without_slot": 1,
                "suspended_ns": 0, "wall_clock_step_ms": -5,
            },
            "machine": {
                "cpu_busy": 0.31, "cpus": 2, "memory_total_bytes": 16_777_216_000_u64,
                "memory_available_bytes": 12_884_901_888_u64, "network_rx_bytes": 7200, "network_tx_bytes": 5100,
            },
            "limits": {"s": limits},
        });
        let _ = writeln!(text, "{tick}");
    }
    text
}

fn whole_sample(window: u64, canary: bool) -> Value {
    let here = Here { window, instance: 0, canary, percent: 100, times: 1 };
    let mut sample = work(&here);
    let mut add = |more: Value| {
        let Value::Object(more) = more else { return };
        for (key, value) in more {
            sample[&key] = value;
        }
    };
    add(events(&here));
    add(memory(&here));
    add(json!({
        "target": {
            "deployment": "s", "role": here.role(), "version": "1", "cgroup": format!("/{}", here.role()),
            "incarnation": 7, "identity": {"name": "s@1.service", "run": "6f1e", "restarts": 1},
        },
        "span_ns": 1_000_000_000,
        "reclaim": {"stall_ns": 5000, "stalls": 1, "stall": [[30, 1]]},
        "dependency": {
            "turnarounds": 40, "turnaround_ns": 8_000_000, "rx_payload_bytes": 900, "tx_payload_bytes": 120,
            "turnaround": [[50, 40]],
        },
        "round_trip": {"sum_ns": 27000, "samples": 40, "dependency_sum_ns": 6000, "dependency_samples": 40},
        "starts": {"forked": 1, "executed": 1, "restarts": 1},
        "pressure": {
            "cpu_some_usec": 2100, "cpu_full_usec": 0, "memory_some_usec": 40, "memory_full_usec": 0, "io_some_usec": 3,
            "io_full_usec": 0,
        },
        "throttling": {"periods": 10, "throttled_periods": 2, "throttled_usec": 90},
        "above": {
            "throttling": {"periods": 10, "throttled_periods": 1, "throttled_usec": 40}, "throttled_by": "/a.slice",
            "memory_limit_bytes": 900_000_000,
            "memory": {"cgroup": "/a.slice", "limit_bytes": 950_000_000, "in_use_bytes": 800_000_000},
        },
        "major_faults": 2,
        "memory_events": {"high": 0, "max": 1, "oom": 1, "oom_kill": 0},
        "block_io": {"read_bytes": 0, "write_bytes": 4096, "reads": 0, "writes": 1},
        "listen_queue": {"overflows": 1, "drops": 1},
        "kernel_cpu_usec": 41228,
        "populated": true,
    }));
    sample["cpu"]["waited_for"] =
        json!({"own_ns": 20, "other_role_ns": 5, "other_cgroup_ns": 290, "kernel_ns": 15, "idle_ns": 50});
    sample["memory"]["growth_bytes"] = json!(-8192);
    sample["memory"]["anon_bytes"] = json!(29_360_128);
    sample["memory"]["file_bytes"] = json!(8_388_608);
    sample
}
