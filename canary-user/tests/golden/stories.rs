//! The stories of the golden replays.

mod recorded;

pub use recorded::record;

use canary_user::{
    targets::Role,
    telemetry::{Quality, Tick},
};

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
    error_exits: u64,
    resets: u64,
    retransmits: u64,
    /// Of the answers and of the connections that it asks for, those that fail; `None` where nobody counts them.
    server_errors: Option<u64>,
    connect_failures: Option<u64>,
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
        name: "limits-hold-both-back",
        about: "CPU limits hold both versions back now and then, as they always did, and the canary sleeps in each request.",
        tells_reason: false,
        instance: |d| {
            d.throttled = Some(2);
            if d.is_bad_canary() {
                d.turnaround = 2.5;
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
        about: "The canary gets a fifth of the requests of a stable instance: nothing is wrong with that, and nothing is known of more.",
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
        name: "failing-answers",
        about: "The canary answers a hundredth of the requests with a status of 500.",
        tells_reason: false,
        instance: |d| d.server_errors = Some(if d.is_bad_canary() { 2 } else { 0 }),
        tick: nothing,
    },
    Story {
        name: "unreachable-dependency",
        about: "Two of the connections that the canary asks for in a window are refused.",
        tells_reason: false,
        instance: |d| d.connect_failures = Some(if d.is_bad_canary() { 2 } else { 0 }),
        tick: nothing,
    },
    Story {
        name: "error-exits",
        about: "Every other window a process of the canary ends with an error.",
        tells_reason: false,
        instance: |d| d.error_exits = u64::from(d.is_bad_canary() && d.window.is_multiple_of(2)),
        tick: nothing,
    },
    Story {
        name: "lost-packets",
        about: "The canary has to send segments again.",
        tells_reason: false,
        instance: |d| {
            if d.is_bad_canary() {
                d.retransmits = 3;
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
