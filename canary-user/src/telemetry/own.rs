//! What the guard itself costs: its CPU time and memory, and the time of its kernel programs where the kernel counts it.

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What the guard used since its start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OwnCost {
    /// CPU time of all its threads.
    pub cpu_ns: u64,
    /// Resident memory; `None` where /proc does not say.
    pub memory_bytes: Option<u64>,
    /// Time since the start.
    pub age_ns: u64,
    /// By kernel program; empty unless the kernel counts (`sysctl kernel.bpf_stats_enabled=1`).
    pub hooks: Vec<HookCost>,
}

/// One kernel program, over all CPUs and attachments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HookCost {
    pub hook: String,
    pub runs: u64,
    pub run_ns: u64,
}

impl OwnCost {
    /// Reads the process; `started_ns` on CLOCK_MONOTONIC.
    pub fn read(started_ns: u64, hooks: Vec<HookCost>) -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        Self {
            cpu_ns: cpu.tv_sec as u64 * 1_000_000_000 + cpu.tv_nsec as u64,
            memory_bytes: resident_bytes(),
            age_ns: super::monotonic_ns().saturating_sub(started_ns),
            hooks,
        }
    }

    /// "The guard itself used 0.42 % of one CPU and 31.2 MiB; …".
    pub fn in_words(&self) -> String {
        use crate::watch::units;
        let share = units::share(self.cpu_ns as f64 / self.age_ns.max(1) as f64);
        let memory = self.memory_bytes.map_or_else(String::new, |b| format!(" and {}", units::bytes(b as f64)));
        let hooks = if self.hooks.is_empty() {
            "what its kernel programs cost was not counted (kernel.bpf_stats_enabled is 0)".to_owned()
        } else {
            let (runs, ns) = self.hooks.iter().fold((0, 0), |(r, n), h| (r + h.runs, n + h.run_ns));
            let each = units::duration_ns(ns as f64 / runs.max(1) as f64);
            let share = units::share(ns as f64 / self.age_ns.max(1) as f64);
            format!("its kernel programs ran {} times, {each} each, {share} of one CPU", units::count(runs))
        };
        format!("The guard itself used {share} of one CPU{memory}; {hooks}.")
    }
}

/// The second number of /proc/self/statm, in pages.
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
