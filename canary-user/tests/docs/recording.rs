//! docs/recording.md: its example is read by the real reader, and it names every field of the types and no other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use canary_user::{
    targets::{Identity, Role, Target},
    telemetry::{
        Above, BlockIo, Connections, Cpu, Dependency, Histogram, Http, Lifecycle, Limits, ListenQueue, Machine, Memory,
        MemoryEvents, MemoryLimit, MemorySource, Network, Pressure, Quality, Reclaim, RoundTrip, Sample, Starts,
        Throttling, Tick, WaitedFor,
        recording::{Header, Reader, Writer},
    },
};
use serde_json::Value;

use crate::markdown;

const PAGE: &str = "docs/recording.md";

/// A tick in which everything was measured. No `..`: a new field has to be added here, and then to the page.
fn full() -> Tick {
    let histogram = || Histogram(vec![(3, 1)]);
    Tick {
        t_ns: 1,
        unix_ms: 2,
        span_ns: 3,
        samples: vec![Sample {
            target: Target {
                deployment: "shop".into(),
                role: Role::Canary,
                version: "1.5.0".into(),
                cgroup: "/shop/canary".into(),
                incarnation: 7,
                identity: Some(Identity { name: "shop@2.service".into(), run: "5d41".into(), restarts: Some(2) }),
            },
            span_ns: 3,
            cpu: Some(Cpu {
                on_cpu_ns: 1,
                runq_wait_ns: 1,
                runq_waits: 1,
                switches_voluntary: 1,
                switches_involuntary: 1,
                runq_wait: histogram(),
                waited_for: Some(WaitedFor {
                    own_ns: 1,
                    other_role_ns: 1,
                    other_cgroup_ns: 1,
                    kernel_ns: 1,
                    idle_ns: 1,
                }),
            }),
            reclaim: Some(Reclaim { stall_ns: 1, stalls: 1, stall: Some(histogram()) }),
            network: Some(Network {
                rx_bytes: 1,
                rx_packets: 1,
                rx_payload_bytes: 1,
                tx_bytes: 1,
                tx_packets: 1,
                tx_payload_bytes: 1,
                turnarounds: 1,
                turnaround_ns: 1,
                resets_in: 1,
                resets_out: 1,
                turnaround: histogram(),
            }),
            http: Some(Http {
                responses_1xx: 1,
                responses_2xx: 1,
                responses_3xx: 1,
                responses_4xx: 1,
                responses_5xx: 1,
            }),
            dependency: Some(Dependency {
                turnarounds: 1,
                turnaround_ns: 1,
                rx_payload_bytes: 1,
                tx_payload_bytes: 1,
                turnaround: histogram(),
            }),
            round_trip: Some(RoundTrip { sum_ns: 1, samples: 1, dependency_sum_ns: 1, dependency_samples: 1 }),
            connections: Some(Connections { accepted: 1, opened: 1, open_ns: 1, failed: 1, refused: 1 }),
            retransmits: Some(1),
            lifecycle: Some(Lifecycle { exits: 1, exits_error: 1, crashes: 1, exits_killed: 1, core_dumps: Some(1) }),
            exit_codes: Some(vec![(256, 1)]),
            starts: Some(Starts { forked: 1, executed: 1, restarts: 1 }),
            oom_kills: Some(1),
            pressure: Some(Pressure {
                cpu_some_usec: Some(1),
                cpu_full_usec: Some(1),
                memory_some_usec: 1,
                memory_full_usec: 1,
                io_some_usec: Some(1),
                io_full_usec: Some(1),
            }),
            throttling: Some(Throttling { periods: 1, throttled_periods: 1, throttled_usec: 1 }),
            above: Some(Above {
                throttling: Some(Throttling { periods: 1, throttled_periods: 1, throttled_usec: 1 }),
                throttled_by: Some("/shop".into()),
                memory_limit_bytes: Some(1),
                memory: Some(MemoryLimit { cgroup: "/shop".into(), limit_bytes: 1, in_use_bytes: 1 }),
            }),
            memory: Some(Memory {
                in_use_bytes: 1,
                limit_bytes: Some(1),
                growth_bytes: Some(-1),
                anon_bytes: Some(1),
                file_bytes: Some(1),
                source: MemorySource::MemoryCurrent,
            }),
            major_faults: Some(1),
            memory_events: Some(MemoryEvents { high: 1, max: 1, oom: 1, oom_kill: 1 }),
            block_io: Some(BlockIo { read_bytes: 1, write_bytes: 1, reads: 1, writes: 1 }),
            listen_queue: Some(ListenQueue { overflows: 1, drops: 1 }),
            kernel_cpu_usec: Some(1),
            populated: Some(true),
        }],
        quality: Quality {
            hooks_missing: vec!["a".into()],
            lost_events: 1,
            lost_exits: 1,
            targets_without_slot: 1,
            suspended_ns: 1,
            wall_clock_step_ms: 1,
        },
        machine: Some(Machine {
            cpu_busy: 0.5,
            cpus: 1,
            memory_total_bytes: 1,
            memory_available_bytes: 1,
            network_rx_bytes: 1,
            network_tx_bytes: 1,
        }),
        limits: BTreeMap::from([(
            "DEPLOYMENT".into(),
            Limits { ended: true, under: Some("shop-1-0001".into()), condemned: Some(1.into()) },
        )]),
        // Not recorded.
        own: None,
    }
}

fn paths(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, inner) in fields {
                paths(inner, &if at.is_empty() { key.clone() } else { format!("{at}.{key}") }, found);
            }
        }
        Value::Array(list) if list.iter().any(Value::is_object) => {
            list.iter().for_each(|inner| paths(inner, &format!("{at}[]"), found));
        }
        _ => {
            found.insert(at.to_owned());
        }
    }
}

fn fields(value: &impl serde::Serialize) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    paths(&serde_json::to_value(value).expect("serializes"), "", &mut found);
    found
}

fn documented(heading: &str) -> BTreeSet<String> {
    let page = markdown::read(PAGE);
    let rows = markdown::rows(markdown::section(&page, heading));
    rows.iter().map(|row| row[0].trim_matches('`').to_owned()).collect()
}

#[test]
fn the_page_names_every_field_and_no_other() {
    assert_eq!(documented("## A tick"), fields(&full()));
    let earlier = BTreeMap::from([("DEPLOYMENT".to_owned(), Value::from(1))]);
    let deployments = vec![String::new()];
    let header = Header { kind: String::new(), format: 1, window_ns: 1, program: String::new(), deployments, earlier };
    assert_eq!(documented("## The header"), fields(&header));
}

/// The lines of the page's example, and what the reader makes of them.
fn example() -> (Vec<Value>, Header, Vec<Tick>) {
    let page = markdown::pages().into_iter().find(|p| p.name == PAGE).expect("the page exists");
    let blocks = markdown::fenced(&page, "json");
    let [(_, text)] = &blocks[..] else { panic!("one example, not {}", blocks.len()) };
    let dir = tempfile::tempdir().expect("tempdir");
    let file = dir.path().join("example.jsonl");
    fs::write(&file, text).expect("write the example");
    let reader = Reader::open(&file).expect("the reader takes the header");
    let header = reader.header().clone();
    let ticks = reader.collect::<anyhow::Result<Vec<Tick>>>().expect("the reader takes every line");
    (text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect(), header, ticks)
}

#[test]
fn the_example_is_read_without_anything_left_over() {
    let (lines, header, ticks) = example();
    assert_eq!(serde_json::to_value(&header).expect("serializes"), lines[0]);
    assert_eq!(ticks.len(), lines.len() - 1);
    for (tick, line) in ticks.iter().zip(&lines[1..]) {
        assert_eq!(serde_json::to_value(tick).expect("serializes"), *line, "what the reader kept of the line");
    }
    assert!(fields(&ticks).len() > 40, "the example shows nearly every field");
}

#[test]
fn what_is_left_out_or_null_is_missing_and_fields_of_later_programs_are_passed_over() {
    let (lines, ..) = example();
    let mut line = lines[1].clone();
    let sample = line["samples"][0].as_object_mut().expect("a sample");
    let all: Vec<String> = sample.keys().filter(|k| !["target", "span_ns"].contains(&k.as_str())).cloned().collect();
    for (i, key) in all.iter().enumerate() {
        if i % 2 == 0 {
            sample.remove(key);
        } else {
            sample.insert(key.clone(), Value::Null);
        }
    }
    sample.insert("of_a_later_program".into(), 1.into());
    let dir = tempfile::tempdir().expect("tempdir");
    let file = dir.path().join("run.jsonl");
    fs::write(&file, format!("{}\n{line}\n", lines[0])).expect("write");
    let tick = Reader::open(&file).expect("header").next().expect("a line").expect("a tick");
    let left = fields(&tick.samples[0]);
    assert!(left.iter().all(|f| f.starts_with("target.") || f == "span_ns"), "missing, and not zero: {left:?}");
}

#[test]
fn another_format_is_refused_by_its_number() {
    let dir = tempfile::tempdir().expect("tempdir");
    let file = dir.path().join("run.jsonl");
    drop(Writer::create(&file, 1).expect("create"));
    let text = fs::read_to_string(&file).expect("read");
    fs::write(&file, text.replace("\"format\":1", "\"format\":2")).expect("write");
    let error = format!("{:#}", Reader::open(&file).expect_err("another format"));
    assert!(error.contains("format 2, this program reads format 1"), "{error}");
}
