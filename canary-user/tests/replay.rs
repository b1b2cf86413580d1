//! A recording through the real binary: the same verdict every time, as the exit code.

use std::{path::Path, process::Command};

use canary_user::{
    targets::{Role, Target},
    telemetry::{Cpu, Histogram, Lifecycle, Sample, Tick, recording::Writer},
};

const WINDOW_NS: u64 = 100_000_000;
/// The baseline, the warm-up of the canary, and what "healthy" takes.
const WINDOWS: u64 = 900;

/// Some noise, the same in every run.
fn noise(seed: u64) -> f64 {
    let z = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) as f64 / u64::MAX as f64 - 0.5
}

fn sample(role: Role, instance: u64, window: u64, factor: f64) -> Sample {
    let on_cpu_ns = 20_000_000.0 * factor * (1.0 + 0.1 * noise(window * 16 + instance + 1));
    let target = Target {
        deployment: "shop".into(),
        role,
        version: role.name().into(),
        cgroup: format!("/shop/{role}-{instance}").into(),
        incarnation: instance + 1,
        identity: None,
    };
    Sample {
        cpu: Some(Cpu { on_cpu_ns: on_cpu_ns as u64, runq_wait: Histogram::default(), ..Cpu::default() }),
        lifecycle: Some(Lifecycle::default()),
        populated: Some(true),
        ..Sample::unmeasured(target, WINDOW_NS)
    }
}

/// Three instances of stable and a canary that takes `factor` times the CPU in its last 300 windows.
fn record(path: &Path, windows: u64, factor: f64) {
    let mut writer = Writer::create(path, WINDOW_NS).expect("create the recording");
    for window in 0..windows {
        let canary = if window + 300 >= windows { factor } else { 1.0 };
        let mut samples: Vec<Sample> = (0..3).map(|i| sample(Role::Stable, i, window, 1.0)).collect();
        samples.push(sample(Role::Canary, 3, window, canary));
        let tick =
            Tick { t_ns: (window + 1) * WINDOW_NS, unix_ms: window, span_ns: WINDOW_NS, samples, ..Tick::default() };
        writer.tick(&tick).expect("record a tick");
    }
}

fn replay(path: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_canary"));
    let output = command.arg("replay").arg(path).args(["--output", "json"]).output().expect("the binary starts");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_recording_is_judged_alike_every_time_and_the_exit_code_is_the_verdict() {
    let dir = tempfile::tempdir().expect("tempdir");
    for (name, windows, factor, code, outcome) in [
        ("healthy", WINDOWS, 1.0, 0, "healthy"),
        ("worse", WINDOWS, 2.0, 10, "regressed"),
        ("short", 20, 1.0, 12, "insufficient_data"),
    ] {
        let path = dir.path().join(name);
        record(&path, windows, factor);
        let (status, said) = replay(&path);
        assert_eq!(status, Some(code), "{name}: {said}");
        assert!(said.contains(&format!("\"outcome\":\"{outcome}\"")), "{name}: {said}");
        assert_eq!(replay(&path), (status, said), "{name}: judged again");
    }
}

/// Three instances of stable and a canary that answers a quarter as often from the cache in its last 300 seconds.
fn table(path: &Path) {
    let mut text = String::from("t,role,target,latency_ms,hit_rate\n");
    for t in 0..WINDOWS {
        let worse = t + 300 >= WINDOWS;
        for (role, instance) in [("stable", 0), ("stable", 1), ("stable", 2), ("canary", 3)] {
            let near = |salt: u64| 1.0 + 0.1 * noise(t * 16 + 2 * instance + salt);
            let hits = if role == "canary" && worse { 0.6 } else { 0.8 };
            text += &format!("{t},{role},i{instance},{},{}\n", 20.0 * near(1), hits * near(2));
        }
    }
    std::fs::write(path, text).expect("write the table");
}

#[test]
fn a_table_is_judged_by_the_direction_that_is_said_and_drawn() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (csv, svg) = (dir.path().join("cache.csv"), dir.path().join("cache.svg"));
    table(&csv);
    let replay = |options: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_canary"));
        command.arg("replay").arg(&csv).args(options).output().expect("the binary starts")
    };
    let more_is_worse = replay(&["--output", "json"]);
    assert_ne!(more_is_worse.status.code(), Some(10), "{more_is_worse:?}");
    let options = ["--lower-is-worse", "hit_rate", "--what-if", "alpha=0.0000001", "--plot", "always"];
    let drawn = replay(&[&options[..], &["--svg", svg.to_str().expect("UTF-8")]].concat());
    assert_eq!(drawn.status.code(), Some(10), "{drawn:?}");
    let text = String::from_utf8(drawn.stdout).expect("UTF-8");
    assert!(text.contains("hit_rate -2") && text.contains("evidence altogether"), "{text}");
    assert!(text.contains("of 1e7"), "the evidence that was asked for: {text}");
    assert!(text.lines().count() > 25, "a plot: {text}");
    let svg = std::fs::read_to_string(svg).expect("the picture is there");
    assert!(svg.starts_with("<svg") && svg.contains("P(t)"), "{svg}");
    let unknown = replay(&["--lower-is-worse", "hits"]);
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(unknown.status.code() == Some(1) && said.contains("hit_rate"), "those that there are: {said}");
}
