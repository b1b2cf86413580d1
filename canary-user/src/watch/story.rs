//! A made-up comparison, window by window, for tests and for looking at the live view: a canary that is healthy, then
//! needs 31 % more CPU per request, is found out and rolled back. Every number here is invented.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    guard::{Action, Advice, Decision, GateResult, Mode, Stage},
    judge::{Cause, EventState, Grade, IndicatorState, Outcome, Recommendation, Step, Stretch, StretchShape, Verdict},
    targets::{Role, Target},
    telemetry::{
        BlockIo, Connections, Cpu, Dependency, Histogram, HookCost, Http, Lifecycle, ListenQueue, Machine, Memory,
        MemoryEvents, MemorySource, Network, OwnCost, Pressure, Quality, Reclaim, RoundTrip, Sample, Starts,
        Throttling, WaitedFor,
    },
    watch::{DecisionView, DeploymentView, Snapshot},
    window::{Event, Indicator, Node, Window},
};

pub const DEPLOYMENT: &str = "checkout";
/// Length of a window.
pub const SPAN_NS: u64 = 250_000_000;
/// Window at which the canary gets worse.
pub const ONSET: u64 = 60;
/// Window of the decision; its stages follow two windows apart.
pub const DECIDED: u64 = 80;
/// After this window the canary is gone.
pub const GONE: u64 = DECIDED + 4;
/// Windows of the whole story.
pub const WINDOWS: u64 = 100;

const MIB: f64 = 1024.0 * 1024.0;

/// The state of everything after window `index`.
pub fn snapshot(index: u64) -> Snapshot {
    let verdict = verdict(index);
    let mut samples: Vec<Sample> = (1..=2).map(|i| sample(index, Role::Stable, i)).collect();
    if index < GONE {
        samples.push(sample(index, Role::Canary, 1));
    }
    let (t_ns, unix_ms) = (1_000_000_000 + (index + 1) * SPAN_NS, 1_800_000_000_000 + index * 250);
    let view = DeploymentView {
        mode: Mode::Rollback,
        paused: None,
        leads: true,
        window: Window {
            deployment: DEPLOYMENT.into(),
            index,
            t_ns,
            span_ns: SPAN_NS,
            stable: Vec::new(),
            canary: Vec::new(),
            clean: true,
            node: Node::default(),
        },
        verdict,
        samples,
        decision: (index >= DECIDED).then(|| decision(index)),
        hold: None,
        advice: advice(index),
    };
    Snapshot {
        sequence: index + 1,
        t_ns,
        unix_ms,
        span_ns: SPAN_NS,
        machine: Some(Machine {
            cpu_busy: 0.42,
            cpus: 8,
            memory_total_bytes: 16 << 30,
            memory_available_bytes: 12 << 30,
            network_rx_bytes: 250_000,
            network_tx_bytes: 500_000,
        }),
        own: Some(OwnCost {
            cpu_ns: 30_000_000 + index * 1_000_000,
            memory_bytes: Some(24 << 20),
            age_ns: (index + 1) * SPAN_NS,
            hooks: vec![HookCost {
                hook: "sched_switch".into(),
                runs: 1000 + index * 500,
                run_ns: 200_000 + index * 100_000,
            }],
        }),
        quality: Quality::default(),
        paused: None,
        journal_failure: None,
        deployments: BTreeMap::from([(Arc::from(DEPLOYMENT), view)]),
    }
}

fn advice(index: u64) -> Advice {
    let gate = GateResult { gate: "verdict".to_owned(), passed: true, reason: "regressed in 2 windows".to_owned() };
    let gates = if (DECIDED..GONE).contains(&index) { vec![gate] } else { Vec::new() };
    Advice { gates, canary_served: (index < GONE).then_some(true), stable_instances: 2 }
}

fn target(role: Role, instance: u64) -> Target {
    let version = if role == Role::Stable { "v1.4.2" } else { "v1.5.0" };
    Target {
        deployment: DEPLOYMENT.into(),
        role,
        version: version.into(),
        cgroup: format!("/shop.slice/{DEPLOYMENT}-{role}-{instance}.service").into(),
        incarnation: 4000 + instance + 100 * role as u64,
        identity: None,
    }
}

/// -1 to 1, the same for the same arguments.
fn noise(index: u64, salt: u64) -> f64 {
    let mut x = (index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (salt + 1).wrapping_mul(0xD1B5_4A32_D192_ED03);
    x = (x ^ (x >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    ((x >> 11) as f64 / (1u64 << 52) as f64) - 1.0
}

fn sample(index: u64, role: Role, instance: u64) -> Sample {
    let worse = role == Role::Canary && index >= ONSET;
    let turnarounds = 500;
    Sample {
        cpu: Some(Cpu {
            on_cpu_ns: if worse { 52_000_000 } else { 40_000_000 },
            runq_wait_ns: 4_000_000,
            runq_waits: 300,
            switches_voluntary: 290,
            switches_involuntary: 10,
            runq_wait: Histogram(vec![(20, 290), (60, 10)]),
            waited_for: Some(WaitedFor { other_cgroup_ns: 4_000_000, ..WaitedFor::default() }),
        }),
        reclaim: Some(Reclaim { stall_ns: 500_000, stalls: 2, stall: Some(Histogram(vec![(40, 2)])) }),
        network: Some(Network {
            rx_bytes: 60_000,
            rx_packets: 600,
            rx_payload_bytes: 40_000,
            tx_bytes: 400_000,
            tx_packets: 800,
            tx_payload_bytes: 380_000,
            turnarounds,
            turnaround_ns: turnarounds * 900_000,
            resets_in: 1,
            resets_out: 0,
            turnaround: Histogram(vec![(75, 450), (90, 50)]),
        }),
        retransmits: Some(1),
        lifecycle: Some(Lifecycle { exits: 4, exits_error: 1, crashes: 1, ..Lifecycle::default() }),
        oom_kills: Some(0),
        pressure: Some(Pressure {
            cpu_some_usec: Some(2_000),
            cpu_full_usec: Some(0),
            memory_some_usec: 100,
            memory_full_usec: 0,
            io_some_usec: Some(0),
            io_full_usec: Some(0),
        }),
        memory: Some(Memory {
            in_use_bytes: 120 << 20,
            limit_bytes: Some(512 << 20),
            growth_bytes: None,
            anon_bytes: Some(90 << 20),
            file_bytes: Some(30 << 20),
            source: MemorySource::MemoryCurrent,
        }),
        kernel_cpu_usec: Some(40_100),
        populated: Some(true),
        ..Sample::unmeasured(target(role, instance), SPAN_NS)
    }
}

/// Everything else that can be measured, once each.
pub fn measure_all(sample: &mut Sample) {
    if let Some(cpu) = &mut sample.cpu {
        cpu.waited_for =
            Some(WaitedFor { own_ns: 1, other_role_ns: 1, other_cgroup_ns: 1, kernel_ns: 1, idle_ns: 3_999_996 });
    }
    if let Some(reclaim) = &mut sample.reclaim {
        reclaim.stall = Some(Histogram(vec![(62, 2)]));
    }
    sample.http =
        Some(Http { responses_1xx: 1, responses_2xx: 1, responses_3xx: 1, responses_4xx: 1, responses_5xx: 1 });
    sample.dependency = Some(Dependency {
        turnarounds: 1,
        turnaround_ns: 310_000,
        rx_payload_bytes: 100,
        tx_payload_bytes: 50,
        turnaround: Histogram(vec![(60, 1)]),
    });
    sample.round_trip =
        Some(RoundTrip { sum_ns: 80_000, samples: 1, dependency_sum_ns: 20_000, dependency_samples: 1 });
    sample.connections = Some(Connections { accepted: 1, opened: 1, open_ns: 40_000, failed: 1, refused: 1 });
    sample.lifecycle = sample.lifecycle.map(|l| Lifecycle { core_dumps: Some(1), ..l });
    sample.exit_codes = Some(vec![(11 | 0x80, 1), (1 << 8, 1)]);
    sample.starts = Some(Starts { forked: 1, executed: 1, restarts: 1 });
    sample.major_faults = Some(1);
    sample.memory_events = Some(MemoryEvents { high: 1, max: 1, oom: 1, oom_kill: 1 });
    sample.block_io = Some(BlockIo { read_bytes: 1, write_bytes: 1, reads: 1, writes: 1 });
    sample.listen_queue = Some(ListenQueue { overflows: 1, drops: 1 });
}

/// A sample with cgroup CPU limits, which the machine of the story does not have.
pub fn throttling() -> Throttling {
    Throttling { periods: 10, throttled_periods: 3, throttled_usec: 1500 }
}

fn verdict(index: u64) -> Verdict {
    let since = index.saturating_sub(ONSET) as f64;
    let gone = index >= GONE;
    let evidence_ln = if index < ONSET { -0.4 + 0.3 * noise(index, 1) } else { (since * 0.41 - 0.3).min(8.3) };
    let threshold_ln = 1000f64.ln();
    let outcome = match index {
        0..20 => Outcome::InsufficientData,
        20..40 => Outcome::Inconclusive,
        _ if evidence_ln >= threshold_ln => Outcome::Regressed,
        ONSET.. => Outcome::Inconclusive,
        _ => Outcome::Healthy,
    };
    let p = |role: u64, base: f64| (index >= 10).then(|| base + 0.12 * noise(index, 20 + role));
    let canary_base = if index >= ONSET { 0.08 + (since * 0.25).min(1.5) } else { 0.08 };
    let cpu_text = "CPU per turnaround +31 % (27 to 36 %), evidence 1 240, margin 4.1 %".to_owned();
    Verdict {
        outcome,
        window: index,
        evidence_ln,
        threshold_ln,
        p_canary: if gone { None } else { p(1, canary_base) },
        p_stable: p(2, 0.04),
        indicators: Indicator::ALL.iter().map(|&i| indicator(index, i)).collect(),
        events: Event::ALL
            .iter()
            .map(|&event| EventState {
                event,
                canary: u64::from(event == Event::Retransmits) * (index / 9),
                stable: u64::from(event == Event::Retransmits) * (index / 4),
                evidence_ln: 0.0,
                missing: event == Event::OomKills,
            })
            .collect(),
        hard: None,
        onset: (outcome == Outcome::Regressed).then_some(ONSET),
        causes: if outcome == Outcome::Regressed {
            vec![Cause {
                signal: Indicator::CpuPerWork.name().to_owned(),
                text: cpu_text.clone(),
                mechanism: "more work per request".to_owned(),
                ruled_out: Vec::new(),
                evidence_ln,
            }]
        } else {
            Vec::new()
        },
        reasons: vec![match outcome {
            Outcome::InsufficientData => format!("{} of 20 windows of stable are in, to learn its noise from", index),
            Outcome::Inconclusive if index < ONSET => {
                "no difference so far, but not enough windows yet to call it healthy".to_owned()
            }
            Outcome::Inconclusive => "CPU per turnaround is above its margin; the evidence is growing".to_owned(),
            Outcome::Healthy => "all indicators are within their margins".to_owned(),
            Outcome::Regressed => cpu_text,
        }],
        healthy_at_load: None,
        environment: Default::default(),
        forecast: None,
        recommendations: Vec::new(),
        stretches: stretches(index),
        promotion: None,
        baseline_windows: index.min(60),
        judged_windows: index.saturating_sub(20),
    }
}

/// What a judge recommends of such a canary; the verdicts of the story have none.
pub fn recommendations() -> Vec<Recommendation> {
    let roll_back = Recommendation {
        priority: 1,
        step: Step::RollBack,
        because: "more work per request: CPU per turnaround +31 % (27 to 36 %), evidence 1 240, margin 4.1 %"
            .to_owned(),
        risk: Grade::Medium,
        undo: "deploy the canary again".to_owned(),
        confidence: Grade::High,
        command: Some("systemctl stop 'checkout-canary-1.service'".to_owned()),
        would_change: "the rise is meant and paid for".to_owned(),
    };
    let throttle = Recommendation {
        priority: 2,
        step: Step::Throttle,
        because: "keeps its extra work from others".to_owned(),
        undo: "lift the limit again".to_owned(),
        confidence: Grade::Medium,
        command: Some("systemctl set-property --runtime 'checkout-canary-1.service' CPUQuota=50%".to_owned()),
        would_change: "its users notice".to_owned(),
        ..roll_back.clone()
    };
    vec![roll_back, throttle]
}

/// The canary leaves its own usual band.
fn stretches(index: u64) -> Vec<Stretch> {
    if index < ONSET + 8 {
        return Vec::new();
    }
    vec![Stretch {
        role: Role::Canary,
        signal: Indicator::CpuPerWork.name().to_owned(),
        start: ONSET,
        start_t_ns: 1_000_000_000 + (ONSET + 1) * SPAN_NS,
        found: ONSET + 8,
        end: None,
        end_t_ns: None,
        became_usual: false,
        size: 0.31,
        shape: StretchShape::Step,
        text: format!("canary: CPU per turnaround +31 % since window {ONSET} (so far: step)"),
    }]
}

fn indicator(index: u64, indicator: Indicator) -> IndicatorState {
    let usual = match indicator {
        Indicator::CpuPerWork => 80_000.0,
        Indicator::RunQueueWait => 13_300.0,
        Indicator::RunQueueWaitP95 => 61_000.0,
        Indicator::MemoryStall => 0.0004,
        Indicator::MemoryInUse => 120.0 * MIB,
        Indicator::BytesPerWork => 840.0,
        Indicator::TurnaroundMean => 900_000.0,
        Indicator::TurnaroundP95 => 2_400_000.0,
        Indicator::DependencyTurnaround => 310_000.0,
    };
    let salt = indicator as u64;
    let since = index.saturating_sub(ONSET) as f64;
    let extra = match indicator {
        Indicator::CpuPerWork => (since / 10.0).min(1.0) * 0.31,
        Indicator::TurnaroundMean | Indicator::TurnaroundP95 => (since / 10.0).min(1.0) * 0.06,
        _ => 0.0,
    };
    let missing = (indicator == Indicator::MemoryStall).then(|| "this kernel has no memory.pressure file".to_owned());
    let known = missing.is_none();
    let effect = extra + 0.01 * noise(index / 4, 40 + salt);
    let learned = known && index >= 20;
    IndicatorState {
        indicator,
        canary: (known && index < GONE).then(|| usual * (1.0 + extra + 0.02 * noise(index, salt))),
        stable: known.then(|| usual * (1.0 + 0.02 * noise(index, 10 + salt))),
        effect: learned.then_some(effect),
        effect_low: learned.then_some(effect - 0.045),
        effect_high: learned.then_some(effect + 0.045),
        margin: learned.then_some(0.041 + 0.01 * salt as f64),
        p: learned.then_some((effect / (0.041 + 0.01 * salt as f64)).clamp(-3.0, 3.0)),
        evidence_ln: if indicator == Indicator::CpuPerWork { (since * 0.45 - 0.3).min(9.1) } else { -0.2 },
        confirmed: indicator == Indicator::CpuPerWork && since > 18.0,
        missing,
    }
}

fn decision(index: u64) -> DecisionView {
    let (stage, detail, since) = match index - DECIDED {
        0..2 => (Stage::Planned, "intent and way back are in the journal", DECIDED),
        2..4 => (Stage::Applying, "systemctl stop checkout-canary-1.service", DECIDED + 2),
        4..8 => (Stage::Applied, "systemd reports inactive (dead)", DECIDED + 4),
        _ => (Stage::Verified, "the canary's cgroup is empty and used no CPU for 4 windows", DECIDED + 8),
    };
    DecisionView {
        decision: Decision {
            id: format!("{DEPLOYMENT}-1800000020-1"),
            deployment: DEPLOYMENT.into(),
            unix_ms: 1_800_000_000_000 + DECIDED * 250,
            window: DECIDED,
            action: Action::Rollback,
            reason: "CPU per turnaround +31 % (27 to 36 %), evidence 1 240, margin 4.1 %".to_owned(),
            recommendation: None,
            gates: vec![GateResult { gate: "mode".to_owned(), passed: true, reason: "mode is rollback".to_owned() }],
            canary: vec![target(Role::Canary, 1)],
            stable: vec![target(Role::Stable, 1), target(Role::Stable, 2)],
        },
        stage,
        detail: detail.to_owned(),
        t_ns: 1_000_000_000 + (since + 1) * SPAN_NS,
    }
}
