//! The body of `/monitor`: CPU, memory and network use of the machine and of each version, with the comparison.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use crate::{
    targets::Role,
    telemetry::{Machine, Sample},
    watch::{
        DeploymentView, Snapshot,
        json::{decision, number},
    },
};

/// Rates are those of the latest window. What was not measured is null.
pub fn page(snapshot: &Snapshot) -> Value {
    let seconds = snapshot.span_ns as f64 / 1e9;
    let deployments: serde_json::Map<_, _> =
        snapshot.deployments.iter().map(|(name, view)| (name.to_string(), deployment(view, seconds))).collect();
    json!({
        "unix_ms": snapshot.unix_ms,
        "window_seconds": seconds,
        "machine": snapshot.machine.map(|m| machine(&m, seconds)),
        "quality": snapshot.quality,
        "deployments": deployments,
    })
}

fn machine(machine: &Machine, seconds: f64) -> Value {
    let total = machine.memory_total_bytes;
    let used = total.saturating_sub(machine.memory_available_bytes);
    json!({
        "cpus": machine.cpus,
        "cpu_usage": number(Some(machine.cpu_busy)),
        "memory_usage": {
            "used_bytes": used,
            "total_bytes": total,
            "share": number(Some(used as f64 / total as f64)),
        },
        "network_usage": network(Some((machine.network_rx_bytes, machine.network_tx_bytes)), seconds),
    })
}

fn deployment(view: &DeploymentView, seconds: f64) -> Value {
    let mut versions: BTreeMap<(Role, &Arc<str>), Vec<&Sample>> = BTreeMap::new();
    for sample in &view.samples {
        versions.entry((sample.target.role, &sample.target.version)).or_default().push(sample);
    }
    let versions: Vec<_> = versions.into_iter().map(|((role, name), s)| version(role, name, &s, seconds)).collect();
    let verdict = &view.verdict;
    json!({
        "mode": view.mode,
        "versions": versions,
        "p": { "stable": number(verdict.p_stable), "canary": number(verdict.p_canary) },
        "verdict": verdict.outcome,
        "reasons": verdict.reasons,
        "evidence": { "ln": number(Some(verdict.evidence_ln)), "threshold_ln": number(Some(verdict.threshold_ln)) },
        "decision": view.decision.as_ref().map(decision),
        "hold": view.hold.as_ref().map(decision),
    })
}

fn version(role: Role, name: &str, samples: &[&Sample], seconds: f64) -> Value {
    // A sum that lacks an instance would read as less use, so it is missing as a whole.
    let sum = |read: fn(&Sample) -> Option<u64>| samples.iter().map(|s| read(s)).sum::<Option<u64>>();
    let cpu_ns = sum(|s| s.cpu.as_ref().map(|c| c.on_cpu_ns).or(s.kernel_cpu_usec.map(|usec| usec * 1000)));
    let rx = sum(|s| s.network.as_ref().map(|n| n.rx_bytes));
    let tx = sum(|s| s.network.as_ref().map(|n| n.tx_bytes));
    json!({
        "role": role,
        "version": name,
        "instances": samples.len(),
        "cpu_usage": number(cpu_ns.map(|ns| ns as f64 / 1e9 / seconds)),
        "memory_usage": sum(|s| s.memory.as_ref().map(|m| m.in_use_bytes)),
        "network_usage": network(rx.zip(tx), seconds),
    })
}

fn network(bytes: Option<(u64, u64)>, seconds: f64) -> Value {
    json!({
        "rx_bytes_per_second": number(bytes.map(|(rx, _)| rx as f64 / seconds)),
        "tx_bytes_per_second": number(bytes.map(|(_, tx)| tx as f64 / seconds)),
    })
}
