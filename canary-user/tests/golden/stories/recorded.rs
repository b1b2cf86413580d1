//! What a story looks like to the guard: the recording of its ticks.

use std::path::Path;

use canary_user::{
    targets::{Role, Target},
    telemetry::{
        Connections, Cpu, Dependency, Histogram, Http, Lifecycle, Machine, Memory, MemorySource, Network, Pressure,
        Quality, Sample, Throttling, Tick, WaitedFor, recording::Writer,
    },
};

use super::{ARRIVES, Does, END, Story};

const SECOND_NS: u64 = 1_000_000_000;
const MIB: f64 = 1024.0 * 1024.0;

/// Writes the recording of a story.
pub fn record(story: &Story, path: &Path) {
    let mut writer = Writer::create(path, SECOND_NS).expect("create the recording");
    for window in 0..END {
        // The guard was away: the ticks are missing, time went on.
        if story.name == "gap-in-data" && (400..500).contains(&window) {
            continue;
        }
        let instances = (0..3).map(|i| (Role::Stable, i)).chain([(Role::Canary, 3)]);
        let samples = instances.filter_map(|(role, i)| sample(story, role, i, window)).collect();
        let mut tick = Tick {
            t_ns: (window + 1) * SECOND_NS,
            unix_ms: 1_800_000_000_000 + window * 1000,
            span_ns: SECOND_NS,
            samples,
            quality: Quality::default(),
            machine: Some(Machine {
                cpu_busy: 0.1 + 0.02 * noise(window, 99),
                cpus: 8,
                memory_total_bytes: 16 << 30,
                memory_available_bytes: 10 << 30,
                network_rx_bytes: 0,
                network_tx_bytes: 0,
            }),
            ..Tick::default()
        };
        (story.tick)(window, &mut tick);
        writer.tick(&tick).expect("record a tick");
    }
}

/// About normal with a standard deviation of 1, the same in every run (SplitMix64; the sum of four uniforms).
fn noise(window: u64, salt: u64) -> f64 {
    let mut x = window.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt.wrapping_mul(0xd1b5_4a32_d192_ed03);
    let mut uniform = || {
        x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = x;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64 - 0.5
    };
    (uniform() + uniform() + uniform() + uniform()) * 3f64.sqrt()
}

fn sample(story: &Story, role: Role, instance: u64, window: u64) -> Option<Sample> {
    let mut does = Does {
        role,
        window,
        there: role == Role::Stable || window >= ARRIVES,
        cpu: 1.0,
        wait: 1.0,
        longest_waits: 1.0,
        others: 0.1,
        stall: 1.0,
        memory: 1.0,
        bytes: 1.0,
        turnaround: 1.0,
        load: 1.0,
        dependency: None,
        throttled: None,
        crashes: 0,
        error_exits: 0,
        resets: 0,
        retransmits: 0,
        server_errors: None,
        connect_failures: None,
        oom_kills: 0,
        incarnation: instance + 1,
    };
    (story.instance)(&mut does);
    if !does.there {
        return None;
    }
    let near = |what: u64, share: f64| 1.0 + share * noise(window, 16 * instance + what + 1);
    let turnarounds = (200.0 * does.load * near(0, 0.05)) as u64;
    let each = turnarounds as f64;
    let turnaround_ns = 2e6 * does.turnaround * near(1, 0.05);
    // Bucket of the mean and of three times as much: the tail moves with the rest.
    let with_tail = |ns: f64, tail_ns: f64, n: u64| {
        if n == 0 { Vec::new() } else { vec![(bucket(ns), n - n / 10), (bucket(tail_ns), n / 10)] }
    };
    let histogram = |ns: f64, n: u64| with_tail(ns, 3.0 * ns, n);
    let waits = 500u32;
    let wait_ns = 60_000.0 * does.wait * near(2, 0.05);
    Some(Sample {
        target: Target {
            deployment: "shop".into(),
            role,
            version: if role == Role::Stable { "1.4.2".into() } else { "1.5.0".into() },
            cgroup: format!("/system.slice/shop-{role}@{instance}.service").into(),
            incarnation: does.incarnation,
            identity: None,
        },
        span_ns: SECOND_NS,
        cpu: Some(Cpu {
            on_cpu_ns: (400_000.0 * each * does.cpu * near(3, 0.04)) as u64,
            runq_wait_ns: (wait_ns * f64::from(waits)) as u64,
            runq_waits: u64::from(waits),
            switches_voluntary: 490,
            switches_involuntary: 10,
            runq_wait: Histogram(with_tail(wait_ns, 3.0 * does.longest_waits * wait_ns, u64::from(waits))),
            waited_for: Some(waited_for((wait_ns * f64::from(waits)) as u64, does.others)),
        }),
        reclaim: None,
        network: Some(Network {
            rx_payload_bytes: (each * 200.0) as u64,
            tx_payload_bytes: (each * 4000.0 * does.bytes * near(4, 0.04)) as u64,
            turnarounds,
            turnaround_ns: (each * turnaround_ns) as u64,
            resets_out: does.resets,
            turnaround: Histogram(histogram(turnaround_ns, turnarounds)),
            ..Network::default()
        }),
        http: does.server_errors.map(|failed| Http {
            responses_2xx: turnarounds.saturating_sub(failed),
            responses_5xx: failed,
            ..Http::default()
        }),
        dependency: does.dependency.map(|factor| {
            let ns = 500_000.0 * factor * near(7, 0.05);
            Dependency {
                turnarounds,
                turnaround_ns: (each * ns) as u64,
                rx_payload_bytes: (each * 800.0) as u64,
                tx_payload_bytes: (each * 120.0) as u64,
                turnaround: Histogram(histogram(ns, turnarounds)),
            }
        }),
        round_trip: None,
        connections: does.connect_failures.map(|failed| Connections {
            failed,
            refused: failed,
            ..Connections::default()
        }),
        exit_codes: None,
        starts: None,
        major_faults: None,
        memory_events: None,
        block_io: None,
        listen_queue: None,
        retransmits: Some(does.retransmits),
        lifecycle: Some(Lifecycle {
            exits: does.crashes + does.error_exits,
            exits_error: does.error_exits,
            crashes: does.crashes,
            ..Lifecycle::default()
        }),
        oom_kills: Some(does.oom_kills),
        pressure: Some(Pressure {
            memory_some_usec: (5_000.0 * does.stall * near(5, 0.2)) as u64,
            ..Pressure::default()
        }),
        throttling: does.throttled.map(|throttled| Throttling {
            periods: 10,
            throttled_periods: throttled,
            throttled_usec: 50_000 * throttled,
        }),
        above: None,
        memory: Some(Memory {
            in_use_bytes: (150.0 * MIB * does.memory * near(6, 0.02)) as u64,
            limit_bytes: Some(512 << 20),
            anon_bytes: None,
            file_bytes: None,
            growth_bytes: None,
            source: MemorySource::MemoryCurrent,
        }),
        kernel_cpu_usec: Some((400.0 * each * does.cpu) as u64),
        populated: Some(true),
    })
}

/// Who had the CPU: for this share processes of other cgroups, else the version itself or nobody.
fn waited_for(ns: u64, others: f64) -> WaitedFor {
    let other_cgroup_ns = (ns as f64 * others) as u64;
    let own_ns = (ns - other_cgroup_ns) / 2;
    WaitedFor { own_ns, other_cgroup_ns, idle_ns: ns - other_cgroup_ns - own_ns, ..WaitedFor::default() }
}

/// The histogram bucket of a duration, as docs/recording.md has it.
fn bucket(ns: f64) -> u16 {
    (0..209u16)
        .find(|b| canary_common::histogram::upper_bound_ns(usize::from(*b)).is_some_and(|upper| ns <= upper as f64))
        .unwrap_or(209)
}
