//! A recording through the real binary: the same verdict every time, as the exit code.

use std::{collections::BTreeMap, path::Path, process::Command};

use canary_user::{
    judge::{
        Direction, Parameters, Tolerance,
        columns::{Column, Columns},
    },
    targets::{Role, Target},
    telemetry::{Cpu, Histogram, Lifecycle, Sample, Tick, recording::Writer, table::Table},
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
    write(Writer::create(path, WINDOW_NS).expect("create the recording"), 0, windows, factor);
}

/// The same from window `from` on; nobody is there before.
fn write(mut writer: Writer, from: u64, windows: u64, factor: f64) {
    for window in 0..windows {
        let canary = if window + 300 >= windows { factor } else { 1.0 };
        let mut samples: Vec<Sample> = (0..3).map(|i| sample(Role::Stable, i, window, 1.0)).collect();
        samples.push(sample(Role::Canary, 3, window, canary));
        if window < from {
            samples.clear();
        }
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

#[test]
fn windows_before_a_service_was_there_count_where_it_was_watched() {
    let dir = tempfile::tempdir().expect("tempdir");
    // Recordings of programs that did not tell have it from its first sample on.
    for (name, watched, last) in [("watched", vec!["shop", "cart"], 56), ("untold", Vec::new(), 19)] {
        let path = dir.path().join(name);
        let watched = watched.into_iter().map(str::to_owned).collect();
        write(Writer::knowing(&path, WINDOW_NS, watched, BTreeMap::new()).expect("create"), 37, 57, 1.0);
        let (status, said) = replay(&path);
        assert_eq!((status, said.lines().count()), (Some(12), 1), "{name}: nothing of who never was there: {said}");
        let told: serde_json::Value = serde_json::from_str(&said).expect("JSON");
        assert_eq!(told["deployment"].as_str(), Some("shop"), "{name}");
        assert_eq!(told["verdict"]["window"].as_u64(), Some(last), "{name}");
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

#[test]
fn what_is_set_of_an_indicator_holds_for_the_column_of_its_name_or_is_refused() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (csv, named) = (dir.path().join("CACHE.CSV"), dir.path().join("named.csv"));
    table(&csv);
    let text = std::fs::read_to_string(&csv).expect("read").replace("hit_rate", "cpu_per_work");
    std::fs::write(&named, text).expect("write");
    let config = |indicator: &str| {
        let path = dir.path().join("canary.toml");
        let deployment =
            "[[deployment]]\nname = \"shop\"\nstable = { cgroup = \"/shop/1\" }\ncanary = { cgroup = \"/shop/2\" }\n";
        std::fs::write(&path, format!("[judge.indicator.{indicator}]\ndirection = \"down\"\n{deployment}"))
            .expect("write");
        path.display().to_string()
    };
    let replay = |table: &Path, options: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_canary"));
        let output = command.arg("replay").arg(table).args(options).output().expect("the binary starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let down = ["--what-if", "indicator.hit_rate.direction=down"];
    assert_eq!(replay(&csv, &down), (Some(10), String::new()));
    let allowed = [&down[..], &["--what-if", "indicator.hit_rate.delta=0.8"]].concat();
    assert_ne!(replay(&csv, &allowed).0, Some(10), "so much less is allowed");
    assert_eq!(replay(&named, &["--config", &config("cpu_per_work")]), (Some(10), String::new()));
    for (option, said) in [
        ("indicator.hit_rate.mute=true", "mute is for recordings: a column of a table has direction, weight, delta, "),
        ("indicator.hits.delta=0.1", "CACHE.CSV has no such column; it has latency_ms, hit_rate"),
        ("indicator.hit_rate.delt=0.1", "delt: unknown key: a column of a table has direction, "),
        ("indicator.hit_rate.delta=-1", "-1 is not allowed: write 0 to 10"),
        ("indicator.hit_rate", "write indicator.COLUMN.KEY=VALUE"),
    ] {
        let (code, error) = replay(&csv, &["--what-if", option]);
        assert!(code == Some(1) && error.contains(&format!("--what-if {option}: ")) && error.contains(said), "{error}");
    }
    let (code, error) = replay(&csv, &["--config", &config("memory_stall")]);
    let said = "indicator.memory_stall.direction of the configuration: ";
    assert!(code == Some(1) && error.contains(said) && error.contains("it has latency_ms, hit_rate"), "{error}");
}

/// Cut off anywhere after it was decided, a table is judged as it was then.
#[test]
fn a_verdict_on_a_table_rests_on_no_later_window() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (whole, cut) = (dir.path().join("whole.csv"), dir.path().join("cut.csv"));
    table(&whole);
    let text = std::fs::read_to_string(&whole).expect("read");
    let lines: Vec<&str> = text.lines().collect();
    // One line of names, four of each window; what comes later is a hundred times as much.
    let head = lines[..1 + 4 * 800].join("\n");
    let later: String = lines[1 + 4 * 800..].iter().map(|line| format!("{line}e2\n")).collect();
    std::fs::write(&whole, format!("{head}\n{later}")).expect("write");
    std::fs::write(&cut, &head).expect("write");
    let judged = |path: &Path| {
        let table = Table::read(std::fs::File::open(path).expect("open"), "t.csv").expect("a table");
        let epsilons = table.epsilons(Parameters::default().warmup_windows);
        let columns = table.indicators.iter().zip(epsilons).map(|(name, epsilon)| Column {
            name: name.clone(),
            direction: Direction::Up,
            tolerance: Tolerance::default(),
            epsilon,
        });
        let mut judge = Columns::new(Parameters::default(), columns.collect());
        let verdicts = table
            .moments
            .iter()
            .enumerate()
            .take(800)
            .map(|(index, moment)| judge.observe(index as u64, index as u64, &moment.stable, &moment.canary));
        serde_json::to_string(&verdicts.last()).expect("JSON")
    };
    assert_eq!(judged(&whole), judged(&cut));
}
