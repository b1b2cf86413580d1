//! A recording made of a few bytes: each three say what changes of what is counted, or how many windows pass. So a fuzzer gets
//! as far as hundreds of windows take the judge, where the text of a recording takes it as many kilobytes.

use canary_user::{
    targets::{Role, Target},
    telemetry::{Histogram, Limits, Machine, Memory, MemoryLimit, MemorySource, Sample, Tick},
};

const SECOND_NS: u64 = 1_000_000_000;
/// More windows lead nowhere else, and take longer.
const MOST_WINDOWS: usize = 300;
/// Three of stable and two of the canary.
const INSTANCES: u8 = 5;
const VALUES: [u64; 12] =
    [0, 1, 2, 30, 1000, 1_000_000, SECOND_NS, 512 << 20, u32::MAX as u64, i64::MAX as u64, u64::MAX / 2 + 1, u64::MAX];

/// The ticks that the bytes tell of.
pub fn ticks(bytes: &[u8]) -> Vec<Tick> {
    let mut samples: Vec<Sample> = (0..INSTANCES).map(sample).collect();
    // The second one of the canary comes when it is said.
    let mut there = [true, true, true, true, false];
    // The number that grows in each window, and by how many thousandths.
    let mut growth = [(0, 0_u64); INSTANCES as usize];
    let mut next = Tick { span_ns: SECOND_NS, ..Tick::default() };
    let mut ticks: Vec<Tick> = Vec::new();
    for step in bytes.chunks_exact(3) {
        let [what, a, b] = [step[0] / INSTANCES, step[1], step[2]];
        let at = usize::from(step[0] % INSTANCES);
        let value = VALUES[usize::from(b) % VALUES.len()];
        match what % 10 {
            0 => {
                for _ in 0..=a % 64 {
                    for (sample, (which, thousandths)) in samples.iter_mut().zip(growth).filter(|(_, by)| by.1 > 0) {
                        let number = number(sample, which);
                        *number = number.saturating_add((*number / 1000).saturating_mul(thousandths));
                    }
                    let there = samples.iter().zip(there).filter(|(_, there)| *there);
                    next.samples = there.map(|(sample, _)| noisy(sample, ticks.len())).collect();
                    next.t_ns = next.t_ns.saturating_add(next.span_ns.max(1));
                    ticks.push(next.clone());
                    next.limits.clear();
                    if ticks.len() == MOST_WINDOWS || next.t_ns == u64::MAX {
                        return ticks;
                    }
                }
            }
            1 => *number(&mut samples[at], a) = value,
            2 => {
                let number = number(&mut samples[at], a);
                *number = number.saturating_mul(b.into()) / 16;
            }
            3 => forget(&mut samples[at], a),
            4 => there[at] ^= true,
            5 => samples[at].target.incarnation = b.into(),
            6 => *histogram(&mut samples[at], a) = Histogram(vec![(u16::from(b), 40), (u16::from(b) + 9, value)]),
            7 => *of_all(&mut next, a) = value,
            8 => growth[at] = (a, b.into()),
            _ => {
                let under = (b % 3 == 0).then(|| "d1".to_owned());
                let condemned = under.as_ref().map(|_| condemned());
                next.limits.insert("s".into(), Limits { ended: b % 2 == 0, under, condemned });
            }
        }
    }
    ticks
}

/// What condemned a canary that is in quarantine, in the guard's words.
fn condemned() -> serde_json::Value {
    serde_json::json!({"decision_id": "d1", "evidence_ln": 7.5, "causes": [], "reasons": ["it crashed"], "recommendations": []})
}

fn sample(instance: u8) -> Sample {
    let role = if instance < 3 { Role::Stable } else { Role::Canary };
    let target = Target {
        deployment: "s".into(),
        role,
        version: role.name().into(),
        cgroup: format!("/{}{instance}", role.name()).into(),
        incarnation: 1,
        identity: None,
    };
    let mut sample = Sample::unmeasured(target, SECOND_NS);
    let usual =
        [(1, 40_000_000), (2, 3_000_000), (3, 50), (4, 8000), (5, 90_000), (6, 60), (7, 90_000_000), (16, 200 << 20)];
    for (which, value) in usual {
        *number(&mut sample, which) = value;
    }
    for which in 0..2 {
        *histogram(&mut sample, which) = Histogram(vec![(60, 45), (80, 5)]);
    }
    sample
}

/// Equal instances are not equal to the last digit: up to 6 % more, other numbers in each window.
fn noisy(sample: &Sample, window: usize) -> Sample {
    let mut sample = sample.clone();
    let of = usize::from(sample.target.cgroup.as_bytes().last().copied().unwrap_or_default());
    for which in [1, 2, 5, 7, 16] {
        if has(&sample, which) {
            let number = number(&mut sample, which);
            let percent = 100 + (window * 5 + of * 3 + usize::from(which)) % 7;
            *number = number.saturating_add(*number / 100 * (percent as u64 - 100));
        }
    }
    sample
}

fn has(sample: &Sample, which: u8) -> bool {
    match which {
        1 | 2 => sample.cpu.is_some(),
        5 | 7 => sample.network.is_some(),
        _ => sample.memory.is_some(),
    }
}

/// A number of what is counted, with its group, which is measured from then on.
fn number(sample: &mut Sample, which: u8) -> &mut u64 {
    let memory = Memory {
        in_use_bytes: 0,
        limit_bytes: None,
        growth_bytes: None,
        anon_bytes: None,
        file_bytes: None,
        source: MemorySource::MemoryCurrent,
    };
    let limit = || MemoryLimit { cgroup: "/a.slice".into(), limit_bytes: 4 << 30, in_use_bytes: 2 << 30 };
    match which % 34 {
        0 => &mut sample.span_ns,
        1 => &mut sample.cpu.get_or_insert_default().on_cpu_ns,
        2 => &mut sample.cpu.get_or_insert_default().runq_wait_ns,
        3 => &mut sample.cpu.get_or_insert_default().runq_waits,
        4 => &mut sample.network.get_or_insert_default().rx_payload_bytes,
        5 => &mut sample.network.get_or_insert_default().tx_payload_bytes,
        6 => &mut sample.network.get_or_insert_default().turnarounds,
        7 => &mut sample.network.get_or_insert_default().turnaround_ns,
        8 => &mut sample.network.get_or_insert_default().resets_out,
        9 => &mut sample.dependency.get_or_insert_default().turnarounds,
        10 => &mut sample.dependency.get_or_insert_default().turnaround_ns,
        11 => &mut sample.http.get_or_insert_default().responses_2xx,
        12 => &mut sample.http.get_or_insert_default().responses_5xx,
        13 => &mut sample.connections.get_or_insert_default().opened,
        14 => &mut sample.connections.get_or_insert_default().failed,
        15 => sample.retransmits.get_or_insert_default(),
        16 => &mut sample.memory.get_or_insert(memory).in_use_bytes,
        17 => sample.memory.get_or_insert(memory).limit_bytes.get_or_insert_default(),
        18 => sample.oom_kills.get_or_insert_default(),
        19 => &mut sample.lifecycle.get_or_insert_default().exits,
        20 => &mut sample.lifecycle.get_or_insert_default().exits_error,
        21 => &mut sample.lifecycle.get_or_insert_default().crashes,
        22 => &mut sample.reclaim.get_or_insert_default().stall_ns,
        23 => &mut sample.pressure.get_or_insert_default().memory_some_usec,
        24 => sample.pressure.get_or_insert_default().cpu_some_usec.get_or_insert_default(),
        25 => &mut sample.throttling.get_or_insert_default().periods,
        26 => &mut sample.throttling.get_or_insert_default().throttled_periods,
        27 => &mut sample.throttling.get_or_insert_default().throttled_usec,
        28 => sample.above.get_or_insert_default().memory_limit_bytes.get_or_insert_default(),
        29 => &mut sample.above.get_or_insert_default().throttling.get_or_insert_default().throttled_periods,
        30 => &mut sample.cpu.get_or_insert_default().waited_for.get_or_insert_default().other_cgroup_ns,
        31 => &mut sample.cpu.get_or_insert_default().waited_for.get_or_insert_default().own_ns,
        32 => &mut sample.above.get_or_insert_default().memory.get_or_insert_with(limit).limit_bytes,
        _ => &mut sample.above.get_or_insert_default().memory.get_or_insert_with(limit).in_use_bytes,
    }
}

fn histogram(sample: &mut Sample, which: u8) -> &mut Histogram {
    match which % 4 {
        0 => &mut sample.cpu.get_or_insert_default().runq_wait,
        1 => &mut sample.network.get_or_insert_default().turnaround,
        2 => &mut sample.dependency.get_or_insert_default().turnaround,
        _ => sample.reclaim.get_or_insert_default().stall.get_or_insert_default(),
    }
}

/// A group is not measured any more.
fn forget(sample: &mut Sample, which: u8) {
    match which % 9 {
        0 => sample.cpu = None,
        1 => sample.network = None,
        2 => sample.dependency = None,
        3 => sample.http = None,
        4 => sample.memory = None,
        5 => sample.lifecycle = None,
        6 => sample.pressure = None,
        7 => sample.throttling = None,
        _ => sample.populated = sample.populated.map_or(Some(false), |_| None),
    }
}

/// A number of the tick or of the machine.
fn of_all(tick: &mut Tick, which: u8) -> &mut u64 {
    let machine = || Machine { cpu_busy: 0.9, cpus: 4, memory_total_bytes: 4 << 30, ..Machine::default() };
    match which % 5 {
        0 => &mut tick.span_ns,
        1 => &mut tick.quality.lost_events,
        2 => &mut tick.quality.suspended_ns,
        3 => &mut tick.machine.get_or_insert_with(machine).memory_total_bytes,
        _ => &mut tick.machine.get_or_insert_with(machine).memory_available_bytes,
    }
}
