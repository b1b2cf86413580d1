//! Tests of the rules and of the loop, with the ticks, verdicts and orchestrators that they share.

mod advice;
mod beside;
mod commands;
mod ends;
mod fake;
mod gates;
mod hold;
mod left;
mod life;
mod machine;
mod policy;
mod promotion;
mod quarantine;
mod recovery;
mod restart;
mod rig;
mod rules;
mod run;
mod taken_back;
mod verify;

use std::sync::Arc;

use super::{Facts, facts::Memory};
use crate::{
    judge::{Cause, HardFact, Outcome, Verdict},
    targets::{Role, Target},
    telemetry::{Cpu, Lifecycle, Network, Quality, Sample, Tick},
    window::Window,
};

pub const SECOND_NS: u64 = 1_000_000_000;
/// A wall clock that a test can begin at.
pub const UNIX_MS: u64 = 1_795_000_000_000;

pub fn target(role: Role, incarnation: u64) -> Target {
    let (version, cgroup) = match role {
        Role::Stable => ("v1", "/checkout/v1"),
        Role::Canary => ("v2", "/checkout/v2"),
    };
    Target {
        deployment: "checkout".into(),
        role,
        version: version.into(),
        cgroup: cgroup.into(),
        incarnation,
        identity: None,
    }
}

/// An instance that serves 100 requests in a second.
pub fn busy(target: Target) -> Sample {
    Sample {
        cpu: Some(Cpu { on_cpu_ns: SECOND_NS / 4, ..Cpu::default() }),
        network: Some(Network { turnarounds: 100, tx_bytes: 50_000, ..Network::default() }),
        lifecycle: Some(Lifecycle::default()),
        oom_kills: Some(0),
        retransmits: Some(0),
        populated: Some(true),
        ..Sample::unmeasured(target, SECOND_NS)
    }
}

/// An instance that runs and does nothing.
pub fn idle(target: Target) -> Sample {
    Sample { cpu: Some(Cpu::default()), network: Some(Network::default()), ..busy(target) }
}

/// An instance whose processes have ended.
pub fn stopped(target: Target) -> Sample {
    Sample { populated: Some(false), ..idle(target) }
}

pub fn tick(second: u64, samples: Vec<Sample>) -> Tick {
    Tick {
        t_ns: second * SECOND_NS,
        unix_ms: UNIX_MS + second * 1000,
        span_ns: SECOND_NS,
        samples,
        quality: Quality::default(),
        machine: None,
        limits: Default::default(),
        own: None,
    }
}

/// Both versions serving, the canary as incarnation 2.
pub fn both_busy(second: u64) -> Tick {
    tick(second, vec![busy(target(Role::Stable, 1)), busy(target(Role::Canary, 2))])
}

pub fn window(deployment: &str, index: u64, tick: &Tick) -> Window {
    Window {
        deployment: deployment.into(),
        index,
        t_ns: tick.t_ns,
        span_ns: tick.span_ns,
        stable: Vec::new(),
        canary: Vec::new(),
        clean: tick.quality.is_clean(),
        node: Default::default(),
    }
}

pub fn verdict(outcome: Outcome, window: u64) -> Verdict {
    let cause = Cause {
        signal: "cpu_per_work".into(),
        text: "CPU per turnaround +31 %".into(),
        mechanism: "more work per request".into(),
        ruled_out: Vec::new(),
        evidence_ln: 7.1,
    };
    let regressed = outcome == Outcome::Regressed;
    Verdict {
        outcome,
        window,
        evidence_ln: 7.0,
        threshold_ln: 6.9,
        p_canary: None,
        p_stable: None,
        indicators: Vec::new(),
        events: Vec::new(),
        hard: None,
        onset: None,
        causes: if regressed { vec![cause] } else { Vec::new() },
        reasons: Vec::new(),
        healthy_at_load: None,
        environment: Default::default(),
        forecast: None,
        recommendations: Vec::new(),
        stretches: Vec::new(),
        promotion: None,
        baseline_windows: 300,
        judged_windows: 100,
    }
}

pub fn hard(fact: HardFact, window: u64) -> Verdict {
    Verdict { hard: Some(fact), causes: Vec::new(), ..verdict(Outcome::Regressed, window) }
}

/// What a memory says after `n` windows with these samples, at the last of them.
pub fn facts_after(n: u64, samples: &[Sample], verdict: &Verdict) -> Facts {
    let mut memory = Memory::default();
    for i in 0..n {
        let tick = tick(i, samples.to_vec());
        memory.observe(&tick, &window("checkout", i, &tick));
    }
    memory.facts(&tick(n - 1, samples.to_vec()), "checkout", verdict)
}

pub fn name(text: &str) -> Arc<str> {
    text.into()
}
