//! The stories of the golden replays.

use std::path::Path;

use canary_user::{
    targets::{Role, Target},
    telemetry::{
        Cpu, Dependency, Histogram, Lifecycle, Machine, Memory, MemorySource, Network, Pressure, Quality, Sample,
        Throttling, Tick, WaitedFor, recording::Writer,
    },
};

const SECOND_NS: u64 = 1_000_000_000;
const MIB: f64 = 1024.0 * 1024.0;
/// Windows of the canary's arrival, of what happens, and of the end.
const ARRIVES: u64 = 130;
pub const ONSET: u64 = 400;
const END: u64 = 720;

/// One story.
pub struct Story {
    pub name: &'static str,
    pub about: &'static str,
    /// Whether the first reason is pinned too: where it has no numbers that move.
    pub tells_reason: bool,
    /// Changes what one instance does in one window.
    instance: fn(&mut Does),
    /// Changes the whole tick.
    tick: fn(u64, &mut Tick),
}

/// What an instance does in a window: factors on the usual, and counts.
pub struct Does {
    role: Role,
    window: u64,
    there: bool,
    cpu: f64,
    wait: f64,
    /// The longest tenth of the waits, with the mean as it was.
    longest_waits: f64,
    /// Share of the waits in which processes of other cgroups had the CPU.
    others: f64,
    stall: f64,
    memory: f64,
    bytes: f64,
    turnaround: f64,
    load: f64,
    /// Each turnaround asks another service once, where there is one.
    dependency: Option<f64>,
    throttled: Option<u64>,
    crashes: u64,
    resets: u64,
    oom_kills: u64,
    incarnation: u64,
}

impl Does {
    fn is_bad_canary(&self) -> bool {
        self.role == Role::Canary && self.window >= ONSET
    }
}

fn nothing(_: u64, _: &mut Tick) {}

fn usual(_: &mut Does) {}

pub const STORIES: &[Story] = &[
    Story { name: "good-canary", about: "Equal versions.", tells_reason: false, instance: usual, tick: nothing },
    Story {
        name: "more-cpu",
        about: "Each request takes the canary half as much CPU again.",
        tells_reason: false,
        instance: |d| {
            if d.is_bad_canary() {
                d.cpu = 1.5;
                d.turnaround = 1.1;
            }
        },
        tick: nothing,
    },
    Story {
        name: "larger-responses",
        about: "The canary's answers are half as large again.",
        tells_reason: false,
        instance: |d| {
            if d.is_bad_canary() {
                d.bytes = 1.5;
            }
        },
        tick: nothing,
    },
    Story {
        name: "slow-leak",
        about: "The canary's memory grows by a quarter of a percent of the usual in each window.",
        tells_reason: false,
        instance: |d| {
            if d.is_bad_canary() {
                d.memory = 1.0 + 0.0025 * (d.window - ONSET) as f64;
            }
        },
        tick: nothing,
    },
    Story {
        name: "outgrown-memory",
        about: "The canary's working set outgrows its memory: it stalls, reclaims with CPU time, and answers late.",
        tells_reason: false,
        instance: |d| {
            if d.is_bad_canary() {
                (d.memory, d.stall, d.cpu, d.turnaround) = (1.3, 60.0, 1.8, 2.0);
            }
        },
        tick: nothing,
    },
    Story {
        name: "burst-on-one-core",
        about: "For three windows something else has the canary's core.",
        tells_reason: false,
        instance: |d| {
            if d.role == Role::Canary && (ONSET..ONSET + 3).contains(&d.window) {
                (d.wait, d.turnaround) = (8.0, 3.0);
            }
        },
        tick: nothing,
    },
    Story {
        name: "longest-waits",
        about: "One in ten of the canary's waits for a CPU takes three times as long; their mean is as before.",
        tells_reason: false,
        instance: |d| {
            if d.is_bad_canary() {
                d.longest_waits = 3.0;
            }
        },
        tick: nothing,
    },
    Story {
        name: "noisy-neighbour",
        about: "A neighbour takes the CPUs: both sides wait for them, the canary more.",
        tells_reason: false,
        instance: |d| {
            if d.window >= ONSET {
                let hit = if d.role == Role::Canary { 2.0 } else { 1.0 };
                (d.wait, d.turnaround, d.others) = (1.0 + 7.0 * hit, 1.0 + 0.5 * hit, 0.8);
            }
        },
        tick: |window, tick| {
            if window >= ONSET
                && let Some(machine) = &mut tick.machine
            {
                machine.cpu_busy = 0.97;
            }
        },
    },
    Story {
        name: "slow-on-a-busy-machine",
        about: "A neighbour takes the CPUs, both sides wait for them alike, and the canary sleeps in each request besides.",
        tells_reason: false,
        instance: |d| {
            if d.window >= ONSET {
                (d.wait, d.others) = (2.0, 0.8);
                d.turnaround = if d.role == Role::Canary { 2.15 } else { 1.15 };
            }
        },
        tick: |window, tick| {
            if window >= ONSET
                && let Some(machine) = &mut tick.machine
            {
                machine.cpu_busy = 0.97;
            }
        },
    },
    Story {
        name: "stable-sick-too",
        about: "What both sides wait for becomes slow: stable answers in twice the time, the canary in three times.",
        tells_reason: false,
        instance: |d| {
            if d.window >= ONSET {
                d.turnaround = if d.role == Role::Canary { 3.0 } else { 2.0 };
            }
        },
        tick: nothing,
    },
    Story {
        name: "held-back-by-its-limit",
        about: "The canary needs no more CPU than stable, and its CPU limit holds it back.",
        tells_reason: false,
        instance: |d| {
            if d.is_bad_canary() {
                (d.wait, d.turnaround, d.throttled) = (6.0, 2.0, Some(4));
            }
        },
        tick: nothing,
    },
    Story {
        name: "slow-dependency",
        about: "Only the canary waits for something outside of it.",
        tells_reason: false,
        instance: |d| {
            if d.is_bad_canary() {
                d.turnaround = 2.5;
            }
        },
        tick: nothing,
    },
    Story {
        name: "late-dependency",
        about: "The service that the canary asks answers it later than stable.",
        tells_reason: false,
        instance: |d| {
            d.dependency = Some(1.0);
            if d.is_bad_canary() {
                (d.dependency, d.turnaround) = (Some(4.0), 1.75);
            }
        },
        tick: nothing,
    },
    Story {
        name: "no-traffic",
        about: "The canary gets no request.",
        tells_reason: false,
        instance: |d| {
            if d.role == Role::Canary {
                d.load = 0.0;
            }
        },
        tick: nothing,
    },
    Story {
        name: "unequal-traffic",
        about: "The canary gets a fifth of the requests of a stable instance: nothing is wrong with that.",
        tells_reason: false,
        instance: |d| {
            if d.role == Role::Canary {
                d.load = 0.2;
            }
        },
        tick: nothing,
    },
    Story {
        name: "little-load",
        about: "The canary gets a fifth of the requests of a stable instance, and what it costs anyway comes on top of fewer of them.",
        tells_reason: false,
        instance: |d| {
            if d.role == Role::Canary {
                (d.load, d.cpu) = (0.2, 1.3);
            }
        },
        tick: nothing,
    },
    Story {
        name: "overloaded-canary",
        about: "The canary gets three times the requests of a stable instance, and answers late.",
        tells_reason: false,
        instance: |d| {
            if d.is_bad_canary() {
                (d.load, d.wait, d.turnaround) = (3.0, 3.0, 1.8);
            }
        },
        tick: nothing,
    },
    Story {
        name: "gap-in-data",
        about: "The sensor loses events for fifty windows and is away for a hundred more.",
        tells_reason: false,
        instance: usual,
        tick: |window, tick| {
            if (350..400).contains(&window) {
                tick.quality = Quality { lost_events: 7, ..Quality::default() };
            }
        },
    },
    Story {
        name: "crash-loop",
        about: "The canary dies from a fault signal every ten windows and is started again.",
        tells_reason: true,
        instance: |d| {
            if d.is_bad_canary() {
                d.incarnation += (d.window - ONSET) / 10;
                d.crashes = u64::from(d.window.is_multiple_of(10));
            }
        },
        tick: nothing,
    },
    Story {
        name: "oom-kill",
        about: "The kernel kills a process of the canary for want of memory.",
        tells_reason: true,
        instance: |d| d.oom_kills = u64::from(d.role == Role::Canary && d.window == ONSET),
        tick: nothing,
    },
    Story {
        name: "improvement-hides-nothing",
        about: "The canary takes less CPU and half again as much memory.",
        tells_reason: false,
        instance: |d| {
            if d.is_bad_canary() {
                (d.cpu, d.bytes, d.memory) = (0.6, 0.8, 1.5);
            }
        },
        tick: nothing,
    },
    Story {
        name: "connections-broken-off",
        about: "The canary resets connections.",
        tells_reason: false,
        instance: |d| {
            if d.is_bad_canary() {
                d.resets = 3;
            }
        },
        tick: nothing,
    },
    Story {
        name: "canary-older-than-stable",
        about: "The canary is there first; stable comes later, and is compared once it has been there for long enough.",
        tells_reason: false,
        instance: |d| d.there = d.role == Role::Canary || d.window >= ARRIVES,
        tick: nothing,
    },
];

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
        resets: 0,
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
        http: None,
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
        connections: None,
        exit_codes: None,
        starts: None,
        major_faults: None,
        memory_events: None,
        block_io: None,
        listen_queue: None,
        retransmits: Some(0),
        lifecycle: Some(Lifecycle { exits: does.crashes, crashes: does.crashes, ..Lifecycle::default() }),
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
