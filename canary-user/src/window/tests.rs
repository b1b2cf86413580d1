use super::*;
use crate::telemetry::{Above, Cpu, Http, Memory, MemoryLimit, MemorySource, Network, Pressure, Quality};

const SECOND_NS: u64 = 1_000_000_000;

fn sample(role: Role, turnarounds: u64) -> Sample {
    let target = Target {
        deployment: "shop".into(),
        role,
        version: role.name().into(),
        cgroup: format!("/{role}").into(),
        incarnation: 1,
        identity: None,
    };
    Sample {
        cpu: Some(Cpu { on_cpu_ns: 1_000 * turnarounds, runq_wait_ns: 500, runq_waits: 5, ..Cpu::default() }),
        network: Some(Network {
            turnarounds,
            turnaround_ns: 2_000_000 * turnarounds,
            rx_payload_bytes: 100 * turnarounds,
            tx_payload_bytes: 900 * turnarounds,
            turnaround: Histogram(vec![(40, turnarounds)]),
            ..Network::default()
        }),
        retransmits: Some(1),
        pressure: Some(Pressure { memory_some_usec: 10_000, ..Pressure::default() }),
        memory: Some(Memory {
            in_use_bytes: 4096,
            limit_bytes: None,
            growth_bytes: None,
            anon_bytes: None,
            file_bytes: None,
            source: MemorySource::ResidentSum,
        }),
        populated: Some(true),
        ..Sample::unmeasured(target, SECOND_NS)
    }
}

fn tick(samples: Vec<Sample>) -> Tick {
    Tick { span_ns: SECOND_NS, samples, ..Tick::default() }
}

/// The same with something lost in it.
fn lossy(tick: Tick) -> Tick {
    Tick { quality: Quality { lost_events: 1, ..Quality::default() }, ..tick }
}

fn value(reading: &Reading, indicator: Indicator) -> f64 {
    reading.values[indicator as usize]
}

#[test]
fn a_canary_with_little_traffic_compares_per_turnaround() {
    let mut windower = Windower::new("shop".into());
    let window = windower.push(&tick(vec![sample(Role::Stable, 1000), sample(Role::Canary, 50)]));
    for reading in [&window.stable[0], &window.canary[0]] {
        assert_eq!(value(reading, Indicator::CpuPerWork), 1_000.0);
        assert_eq!(value(reading, Indicator::BytesPerWork), 1_000.0);
        assert_eq!(value(reading, Indicator::TurnaroundMean), 2_000_000.0);
        assert_eq!(value(reading, Indicator::RunQueueWait), 100.0);
        assert_eq!(value(reading, Indicator::MemoryStall), 0.01);
        assert_eq!(value(reading, Indicator::MemoryInUse), 4096.0);
    }
    assert_eq!((window.stable[0].turnarounds, window.canary[0].turnarounds), (1000, 50));
}

#[test]
fn low_traffic_is_merged_until_both_sides_have_enough() {
    let mut windower = Windower::new("shop".into());
    let one = || tick(vec![sample(Role::Stable, 100), sample(Role::Canary, 11)]);
    for _ in 0..2 {
        let window = windower.push(&one());
        assert!(value(&window.canary[0], Indicator::CpuPerWork).is_nan());
        assert_eq!(window.canary[0].events[Event::Retransmits as usize], Some(1), "events do not wait");
    }
    let window = windower.push(&one());
    assert_eq!(value(&window.canary[0], Indicator::CpuPerWork), 1_000.0, "33 turnarounds are enough");
    assert!(value(&windower.push(&one()).canary[0], Indicator::CpuPerWork).is_nan(), "and it starts again");
}

#[test]
fn no_traffic_on_one_side_is_missing_and_never_zero() {
    let mut windower = Windower::new("shop".into());
    for i in 1..=MAX_MERGED_TICKS {
        let window = windower.push(&tick(vec![sample(Role::Stable, 1000), sample(Role::Canary, 0)]));
        assert!(window.canary[0].values.iter().all(|v| v.is_nan()), "idle memory is not memory under load, tick {i}");
        assert_eq!(value(&window.stable[0], Indicator::CpuPerWork).is_nan(), i < MAX_MERGED_TICKS, "tick {i}");
    }
}

#[test]
fn a_side_whose_network_is_not_measured_is_not_waited_for() {
    let mut windower = Windower::new("shop".into());
    let mut unmeasured = sample(Role::Canary, 0);
    unmeasured.network = None;
    let window = windower.push(&tick(vec![sample(Role::Stable, 1000), unmeasured]));
    assert_eq!(value(&window.stable[0], Indicator::CpuPerWork), 1_000.0);
    assert_eq!(value(&window.canary[0], Indicator::MemoryInUse), 4096.0, "unmeasured is not idle");
    assert!(value(&window.canary[0], Indicator::CpuPerWork).is_nan());
}

#[test]
fn where_nothing_was_answered_no_response_failed_once_plain_http_was_seen_and_what_has_no_status_is_missing() {
    let mut windower = Windower::new("shop".into());
    let mut failed = |canary: Sample| {
        let window = windower.push(&tick(vec![canary, sample(Role::Stable, 0)]));
        [&window.canary[0], &window.stable[0]].map(|reading| reading.events[Event::ServerErrors as usize])
    };
    let plain = Some(Http { responses_2xx: 3, responses_5xx: 2, ..Http::default() });
    assert_eq!(failed(sample(Role::Canary, 0)), [None, None], "it may be encrypted");
    assert_eq!(failed(Sample { http: plain, ..sample(Role::Canary, 5) }), [Some(2), None]);
    assert_eq!(failed(sample(Role::Canary, 0)), [Some(0), None], "of stable nothing is known yet");
    assert_eq!(failed(sample(Role::Canary, 5)), [None, None], "answers without a status");
    let unmeasured = Sample { network: None, ..sample(Role::Canary, 0) };
    assert_eq!(failed(unmeasured), [None, None], "not measured is not zero");
}

#[test]
fn a_service_that_never_answers_anything_is_measured_per_second() {
    let mut windower = Windower::new("shop".into());
    let mut busy = sample(Role::Stable, 0);
    busy.cpu = Some(Cpu { on_cpu_ns: 250_000_000, ..Cpu::default() });
    let window = windower.push(&tick(vec![busy]));
    assert_eq!(value(&window.stable[0], Indicator::CpuPerWork), 250_000_000.0);
    assert!(value(&window.stable[0], Indicator::TurnaroundMean).is_nan());
    assert!(value(&window.stable[0], Indicator::RunQueueWait).is_nan(), "no wait is no reading");
}

/// `n` waits in the middle of the histogram, of which a tenth is far up.
fn waits(n: u64) -> Option<Cpu> {
    let runq_wait = Histogram(vec![(20, n - n / 10), (60, n / 10)]);
    Some(Cpu { on_cpu_ns: 1_000, runq_wait_ns: 500, runq_waits: n, runq_wait, ..Cpu::default() })
}

#[test]
fn the_tail_of_the_waits_is_read_from_their_histogram() {
    let mut windower = Windower::new("shop".into());
    let reading = |role: Role| Sample { cpu: waits(100), ..sample(role, 100) };
    let window = windower.push(&tick(vec![reading(Role::Stable), reading(Role::Canary)]));
    for reading in [&window.stable[0], &window.canary[0]] {
        // Half of bucket 60 lies below the 95th percentile; one has as many as the other.
        let p95_ns = value(reading, Indicator::RunQueueWaitP95);
        assert_eq!(Some(p95_ns), Histogram(vec![(20, 90), (60, 10)]).quantile_ns(0.95));
        assert!(p95_ns > 10.0 * value(reading, Indicator::RunQueueWait), "{p95_ns}");
    }
}

#[test]
fn few_waits_are_merged_for_both_sides_before_their_tail_is_read() {
    let mut windower = Windower::new("shop".into());
    let one = || {
        let stable = Sample { cpu: waits(100), ..sample(Role::Stable, 100) };
        tick(vec![stable, Sample { cpu: waits(11), ..sample(Role::Canary, 100) }])
    };
    for _ in 0..2 {
        let window = windower.push(&one());
        for reading in [&window.stable[0], &window.canary[0]] {
            assert!(value(reading, Indicator::RunQueueWaitP95).is_nan(), "the canary has too few yet");
            assert!(value(reading, Indicator::RunQueueWait) > 0.0, "the rest does not wait");
        }
    }
    let window = windower.push(&one());
    assert_eq!(
        Some(value(&window.canary[0], Indicator::RunQueueWaitP95)),
        Histogram(vec![(20, 30), (60, 3)]).quantile_ns(0.95)
    );
    assert!(value(&window.stable[0], Indicator::RunQueueWaitP95) > 0.0, "of the same time");
    assert!(value(&windower.push(&one()).canary[0], Indicator::RunQueueWaitP95).is_nan(), "and it starts again");
}

#[test]
fn a_side_that_hardly_waits_has_no_tail_and_does_not_keep_the_other_from_having_one() {
    let mut windower = Windower::new("shop".into());
    let mut last = None;
    for i in 1..=MAX_MERGED_TICKS {
        let idle = Sample { cpu: waits(u64::from(i.is_multiple_of(10))), ..sample(Role::Canary, 100) };
        let window = windower.push(&tick(vec![Sample { cpu: waits(100), ..sample(Role::Stable, 100) }, idle]));
        let tail = |reading: &Reading| value(reading, Indicator::RunQueueWaitP95);
        assert!(tail(&window.canary[0]).is_nan(), "tick {i}");
        assert_eq!(tail(&window.stable[0]).is_nan(), i < MAX_MERGED_TICKS, "tick {i}");
        last = Some(window);
    }
    let window = last.expect("sixty windows");
    assert!(value(&window.canary[0], Indicator::TurnaroundP95) > 0.0, "the rest is there");
}

#[test]
fn waits_from_before_a_tick_that_did_not_count_them_are_gone() {
    let mut windower = Windower::new("shop".into());
    let one = |cpu: Option<Cpu>| tick(vec![Sample { cpu, ..sample(Role::Stable, 100) }]);
    windower.push(&one(waits(25)));
    windower.push(&one(None));
    let window = windower.push(&one(waits(25)));
    assert!(value(&window.stable[0], Indicator::RunQueueWaitP95).is_nan(), "25 of this tick, none of the first");
}

#[test]
fn a_group_that_is_missing_in_one_tick_is_missing() {
    let mut windower = Windower::new("shop".into());
    windower.push(&tick(vec![sample(Role::Stable, 20)]));
    let mut without_cpu = sample(Role::Stable, 20);
    without_cpu.cpu = None;
    let window = windower.push(&tick(vec![without_cpu]));
    assert!(value(&window.stable[0], Indicator::CpuPerWork).is_nan());
    assert_eq!(value(&window.stable[0], Indicator::BytesPerWork), 1_000.0);
}

#[test]
fn a_tick_that_lost_events_gives_no_indicators_and_adds_nothing() {
    let mut windower = Windower::new("shop".into());
    windower.push(&tick(vec![sample(Role::Stable, 20)]));
    let costly = Sample { cpu: Some(Cpu { on_cpu_ns: 1 << 40, ..Cpu::default() }), ..sample(Role::Stable, 1000) };
    let window = windower.push(&lossy(tick(vec![costly])));
    assert!(!window.clean && window.stable[0].values.iter().all(|v| v.is_nan()));
    let window = windower.push(&tick(vec![sample(Role::Stable, 20)]));
    assert_eq!(value(&window.stable[0], Indicator::CpuPerWork), 1_000.0, "of the 40 turnarounds around it");
    assert_eq!(value(&window.stable[0], Indicator::MemoryStall), 0.01, "a second and a second");
}

#[test]
fn with_little_traffic_and_a_lossy_tick_in_five_readings_come_and_are_those_of_the_clean_ticks() {
    let mut windower = Windower::new("shop".into());
    let (mut on_cpu_ns, mut turnarounds, mut readings) = (0, 0, 0);
    for i in 0..50u64 {
        // No two cost the same: each one that is added, or left out, shows.
        let cost_ns = 10_000 + 100 * i * i;
        let one = |role| Sample { cpu: Some(Cpu { on_cpu_ns: cost_ns, ..Cpu::default() }), ..sample(role, 10) };
        let both = tick(vec![one(Role::Stable), one(Role::Canary)]);
        let window = if i % 5 == 4 {
            windower.push(&lossy(both))
        } else {
            (on_cpu_ns, turnarounds) = (on_cpu_ns + cost_ns, turnarounds + 10);
            windower.push(&both)
        };
        let told = [&window.stable[0], &window.canary[0]].map(|reading| value(reading, Indicator::CpuPerWork));
        if turnarounds < MIN_TURNAROUNDS {
            assert!(told.iter().all(|v| v.is_nan()), "tick {i}: {told:?}");
            continue;
        }
        assert_eq!(told, [on_cpu_ns as f64 / turnarounds as f64; 2], "tick {i}");
        (on_cpu_ns, turnarounds, readings) = (0, 0, readings + 1);
    }
    assert_eq!(readings, 13, "40 clean ticks, 3 for each");
}

#[test]
fn waits_are_merged_over_a_lossy_tick_without_its_own() {
    let mut windower = Windower::new("shop".into());
    let one = |n| tick(vec![Sample { cpu: waits(n), ..sample(Role::Stable, 100) }]);
    windower.push(&one(20));
    windower.push(&lossy(one(1000)));
    let window = windower.push(&one(20));
    let p95_ns = value(&window.stable[0], Indicator::RunQueueWaitP95);
    assert_eq!(Some(p95_ns), Histogram(vec![(20, 36), (60, 4)]).quantile_ns(0.95));
}

#[test]
fn an_instance_that_is_replaced_in_a_lossy_tick_begins_anew() {
    let mut windower = Windower::new("shop".into());
    let one = |incarnation, on_cpu_ns| {
        let mut canary = Sample { cpu: Some(Cpu { on_cpu_ns, ..Cpu::default() }), ..sample(Role::Canary, 20) };
        canary.target.incarnation = incarnation;
        tick(vec![sample(Role::Stable, 20), canary])
    };
    windower.push(&one(1, 1 << 40));
    windower.push(&lossy(one(2, 20_000)));
    let window = windower.push(&one(2, 20_000));
    assert!(value(&window.canary[0], Indicator::CpuPerWork).is_nan(), "20 turnarounds of this life");
    let window = windower.push(&one(2, 20_000));
    assert_eq!(value(&window.canary[0], Indicator::CpuPerWork), 1_000.0);
}

#[test]
fn lossy_ticks_count_for_the_cap_and_as_many_in_a_row_end_what_is_merged() {
    let mut windower = Windower::new("shop".into());
    let idle = || tick(vec![sample(Role::Stable, 1000), sample(Role::Canary, 0)]);
    let given: Vec<u32> = (1..=130)
        .filter(|i| {
            let tick = if i % 5 == 0 { lossy(idle()) } else { idle() };
            !value(&windower.push(&tick).stable[0], Indicator::CpuPerWork).is_nan()
        })
        .collect();
    assert_eq!(given, [61, 121], "the 60th is lossy: it comes in the next one");

    for (lost, ends) in [(MAX_MERGED_TICKS - 1, false), (MAX_MERGED_TICKS, true)] {
        let mut windower = Windower::new("shop".into());
        let few = || tick(vec![sample(Role::Stable, 20)]);
        windower.push(&few());
        for _ in 0..lost {
            windower.push(&lossy(few()));
        }
        let window = windower.push(&few());
        assert_eq!(value(&window.stable[0], Indicator::CpuPerWork).is_nan(), ends, "{lost} in a row");
    }
}

#[test]
fn a_limit_above_an_instance_is_its_own_where_it_is_the_tighter_one() {
    let throttled = |periods| Some(Throttling { periods: 10, throttled_periods: periods, throttled_usec: 1 });
    let above =
        |periods, memory_limit_bytes| Above { throttling: throttled(periods), memory_limit_bytes, ..Above::default() };
    let limited = |throttling, limit_bytes: Option<u64>, above| {
        let sample = sample(Role::Canary, 50);
        let memory = sample.memory.map(|memory| Memory { limit_bytes, ..memory });
        let window = Windower::new("shop".into()).push(&tick(vec![Sample { throttling, memory, above, ..sample }]));
        (window.canary[0].around.throttled, window.canary[0].around.memory_limit_bytes)
    };
    assert_eq!(limited(None, None, None), (None, None));
    assert_eq!(limited(None, None, Some(above(6, Some(4096)))), (Some(0.6), Some(4096)));
    assert_eq!(limited(throttled(2), Some(1024), Some(above(6, Some(4096)))), (Some(0.6), Some(1024)));
    assert_eq!(limited(throttled(7), Some(8192), Some(above(6, Some(4096)))), (Some(0.7), Some(4096)));
    assert_eq!(limited(throttled(7), Some(8192), Some(Above::default())), (Some(0.7), Some(8192)));
}

/// The instance is `/canary`, and uses 4 KiB.
#[test]
fn whose_limit_it_is_is_told_as_far_as_it_is_known() {
    let around = |own_periods: Option<u64>, own_limit_bytes: Option<u64>, above: Above| {
        let sample = sample(Role::Canary, 50);
        let throttling =
            own_periods.map(|periods| Throttling { periods: 10, throttled_periods: periods, throttled_usec: 1 });
        let memory = sample.memory.map(|memory| Memory { limit_bytes: own_limit_bytes, ..memory });
        let samples = vec![Sample { throttling, memory, above: Some(above), ..sample }];
        Windower::new("shop".into()).push(&tick(samples)).canary.remove(0).around
    };
    let slice = Throttling { periods: 10, throttled_periods: 6, throttled_usec: 1 };
    let cpu = |own_periods: Option<u64>, by: Option<&str>| {
        let above = Above { throttling: Some(slice), throttled_by: by.map(Into::into), ..Above::default() };
        around(own_periods, None, above).throttled_by
    };
    assert_eq!(cpu(None, Some("/slice")).as_deref(), Some("/slice"));
    assert_eq!(cpu(Some(2), Some("/slice")).as_deref(), Some("/slice"));
    assert_eq!(cpu(Some(6), Some("/slice")).as_deref(), Some("/canary"), "of two alike the nearer one");
    assert_eq!(cpu(Some(2), None), None, "it is not its own");
    assert_eq!(cpu(Some(7), None).as_deref(), Some("/canary"));

    let memory = |own_limit_bytes: Option<u64>, in_use_bytes: Option<u64>| {
        let limit = |in_use_bytes| MemoryLimit { cgroup: "/slice".into(), limit_bytes: 65536, in_use_bytes };
        let memory = in_use_bytes.map(limit);
        let above = Above { memory_limit_bytes: Some(65536), memory, ..Above::default() };
        let around = around(None, own_limit_bytes, above);
        (around.memory.map(|limit| (limit.cgroup.to_string(), limit.left_bytes())), around.unknown_memory_limit)
    };
    assert_eq!(memory(Some(8192), Some(65000)), (Some(("/slice".to_owned(), 536)), false), "fuller, though larger");
    assert_eq!(memory(Some(8192), Some(4096)), (Some(("/canary".to_owned(), 4096)), false));
    assert_eq!(memory(None, Some(4096)), (Some(("/slice".to_owned(), 61440)), false));
    assert_eq!(memory(Some(8192), None), (Some(("/canary".to_owned(), 4096)), true));
    assert_eq!(memory(None, None), (None, true));
}

#[test]
fn a_tick_in_which_the_machine_slept_gives_no_indicators() {
    let mut windower = Windower::new("shop".into());
    let mut slept = tick(vec![sample(Role::Stable, 1000)]);
    slept.quality = Quality { suspended_ns: 3_600 * SECOND_NS, ..Quality::default() };
    let window = windower.push(&slept);
    assert!(!window.clean && window.stable[0].values.iter().all(|v| v.is_nan()));
    assert!(windower.push(&tick(vec![sample(Role::Stable, 1000)])).clean, "the next one is");
}

#[test]
fn an_empty_cgroup_is_no_reading_and_a_replaced_one_starts_anew() {
    let mut windower = Windower::new("shop".into());
    let mut empty = sample(Role::Stable, 0);
    empty.populated = Some(false);
    let window = windower.push(&tick(vec![empty]));
    assert!(window.stable[0].values.iter().all(|v| v.is_nan()));

    windower.push(&tick(vec![sample(Role::Stable, 20)]));
    let mut replaced = sample(Role::Stable, 20);
    replaced.target.incarnation = 2;
    let window = windower.push(&tick(vec![replaced]));
    assert!(value(&window.stable[0], Indicator::CpuPerWork).is_nan());
}

#[test]
fn stall_time_comes_from_one_source_for_all() {
    let mut windower = Windower::new("shop".into());
    let mut without_psi = sample(Role::Canary, 100);
    without_psi.pressure = None;
    without_psi.reclaim = Some(crate::telemetry::Reclaim { stall_ns: 20_000_000, stalls: 2, stall: None });
    let window = windower.push(&tick(vec![sample(Role::Stable, 100), without_psi]));
    assert!(value(&window.stable[0], Indicator::MemoryStall).is_nan(), "stable has no reclaim signal here");
    assert_eq!(value(&window.canary[0], Indicator::MemoryStall), 0.02);
}

#[test]
fn windows_survive_json() {
    let mut windower = Windower::new("shop".into());
    let window = windower.push(&tick(vec![sample(Role::Stable, 1)]));
    let text = serde_json::to_string(&window).expect("serialise");
    let back: Window = serde_json::from_str(&text).expect("parse");
    assert!(text.contains("null") && back.stable[0].values.iter().all(|v| v.is_nan()));
    assert_eq!(back.index, window.index);
}
