//! How the catalogue's values are read from the state. What was not measured is `None`, or not in the list.

use std::collections::BTreeMap;

use super::{
    super::{DeploymentState, State, counts::Counts},
    Named,
};
use crate::{
    guard::Mode,
    judge::{IndicatorState, Outcome, Stretch, Verdict},
    targets::Role,
    telemetry::HookCost,
    watch::report,
    window::Indicator,
};

pub fn hooks(state: &State, read: fn(&HookCost) -> f64) -> Vec<(String, f64)> {
    let hooks = state.own().map_or(&[][..], |own| &own.hooks);
    hooks.iter().map(|h| (h.hook.clone(), read(h))).collect()
}

pub fn reports(state: &State) -> Vec<(String, f64)> {
    let results = state.reports.iter().flat_map(report::Counts::results);
    results.map(|(result, n)| (result.to_owned(), n as f64)).collect()
}

pub fn number(n: Option<u64>) -> Option<f64> {
    n.map(|n| n as f64)
}

pub fn ns(n: Option<u64>) -> Option<f64> {
    n.map(|n| n as f64 / 1e9)
}

pub fn usec(n: Option<u64>) -> Option<f64> {
    n.map(|n| n as f64 / 1e6)
}

pub fn finite(n: Option<f64>) -> Option<f64> {
    n.filter(|n| n.is_finite())
}

/// A comparison belongs to the canary; stable has no value of its own.
pub fn canary_only(role: Role, value: Option<f64>) -> Option<f64> {
    value.filter(|_| role == Role::Canary)
}

pub fn waited_for(counts: &Counts) -> Named {
    let Some(w) = counts.waited_for else { return Vec::new() };
    let holders = [
        ("own", w.own_ns),
        ("other_role", w.other_role_ns),
        ("other_cgroup", w.other_cgroup_ns),
        ("kernel", w.kernel_ns),
        ("idle", w.idle_ns),
    ];
    holders.map(|(holder, ns)| (holder.into(), ns as f64 / 1e9)).to_vec()
}

pub fn exits(counts: &Counts) -> Named {
    let named = |exits| ["ok", "status", "crash", "killed"].into_iter().zip(exits);
    counts.exits.map_or_else(Vec::new, |exits| named(exits).map(|(kind, n)| (kind.into(), n as f64)).collect())
}

pub fn memory_events(counts: &Counts) -> Named {
    let named = |events| ["high", "max", "oom", "oom_kill"].into_iter().zip(events);
    counts.memory_events.map_or_else(Vec::new, |e| named(e).map(|(kind, n)| (kind.into(), n as f64)).collect())
}

pub fn responses(counts: &Counts) -> Named {
    let named = |responses| ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(responses);
    counts.responses.map_or_else(Vec::new, |r| named(r).map(|(class, n)| (class.into(), n as f64)).collect())
}

pub fn round_trips(counts: &Counts) -> Named {
    let named = ["client", "dependency"].into_iter().zip(counts.level.round_trips_ns());
    named.filter_map(|(peer, ns)| Some((peer.into(), ns? / 1e9))).collect()
}

/// At most 255 statuses and 64 signals. A core dump is counted by itself.
pub fn exit_codes(counts: &Counts) -> Named {
    let mut named: BTreeMap<(bool, u32), f64> = BTreeMap::new();
    for (code, n) in &counts.exit_codes {
        let signal = code & 0x7f;
        let name = if signal == 0 { (false, code >> 8 & 0xff) } else { (true, signal) };
        *named.entry(name).or_default() += *n as f64;
    }
    let text = |(by_signal, number)| format!("{}_{number}", if by_signal { "signal" } else { "status" });
    named.into_iter().map(|(name, n)| (text(name).into(), n)).collect()
}

pub fn p(deployment: &DeploymentState) -> Vec<(&'static str, f64)> {
    let verdict = &deployment.verdict;
    [(Role::Stable, verdict.p_stable), (Role::Canary, verdict.p_canary)]
        .into_iter()
        .filter_map(|(role, p)| Some((role.name(), finite(p)?)))
        .collect()
}

pub fn indicator_value(state: &IndicatorState, role: Role) -> Option<f64> {
    let value = finite(if role == Role::Canary { state.canary } else { state.stable })?;
    Some(match state.indicator {
        Indicator::CpuPerWork
        | Indicator::RunQueueWait
        | Indicator::RunQueueWaitP95
        | Indicator::TurnaroundMean
        | Indicator::TurnaroundP95
        | Indicator::DependencyTurnaround => value / 1e9,
        Indicator::MemoryStall | Indicator::MemoryInUse | Indicator::BytesPerWork => value,
    })
}

/// Absent where the indicator has no reading of that role and none of its stretches goes on.
pub fn stretch_active(verdict: &Verdict, state: &IndicatorState, role: Role) -> Option<f64> {
    let goes_on = |s: &Stretch| s.role == role && s.signal == state.indicator.name() && s.end.is_none();
    let active = verdict.stretches.iter().any(goes_on);
    (active || indicator_value(state, role).is_some()).then_some(f64::from(u8::from(active)))
}

pub fn verdict(deployment: &DeploymentState) -> Vec<(&'static str, f64)> {
    [Outcome::Healthy, Outcome::Regressed, Outcome::Inconclusive, Outcome::InsufficientData]
        .map(|o| (state_name(o), f64::from(u8::from(o == deployment.verdict.outcome))))
        .to_vec()
}

/// Label values have no spaces: they are typed into queries.
fn state_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::InsufficientData => "insufficient_data",
        other => other.name(),
    }
}

pub fn mode(deployment: &DeploymentState) -> Vec<(&'static str, f64)> {
    Mode::ALL.map(|m| (m.name(), f64::from(u8::from(m == deployment.mode)))).to_vec()
}

pub fn counted(counts: &BTreeMap<&'static str, u64>) -> Vec<(&'static str, f64)> {
    counts.iter().map(|(name, n)| (*name, *n as f64)).collect()
}
