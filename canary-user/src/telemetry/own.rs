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

/// While nothing new is counted, the programs are asked again after this only.
const ASK_AGAIN_NS: u64 = 60_000_000_000;

/// What the kernel programs cost, asked for as long as the kernel counts it. Asking each of them takes longer than reading some tens
/// of targets, and mostly it does not.
#[derive(Debug, Default)]
pub struct HookCosts {
    last: Vec<HookCost>,
    asked_in_vain_ns: Option<u64>,
}

impl HookCosts {
    pub fn read(&mut self, now_ns: u64, ask: impl FnOnce() -> Vec<HookCost>) -> Vec<HookCost> {
        let rests = self.asked_in_vain_ns.is_some_and(|at| now_ns.saturating_sub(at) < ASK_AGAIN_NS);
        if !rests {
            let costs = ask();
            self.asked_in_vain_ns = (costs == self.last).then_some(now_ns);
            self.last = costs;
        }
        self.last.clone()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_asked_seldom_while_nothing_is_counted() {
        let mut costs = HookCosts::default();
        let mut asked = 0;
        let mut read = |second: u64, runs: u64| {
            let hooks = costs.read(second * 1_000_000_000, || {
                asked += 1;
                (runs > 0).then(|| HookCost { hook: "egress".to_owned(), runs, run_ns: runs }).into_iter().collect()
            });
            (asked, hooks.first().map(|hook| hook.runs))
        };
        assert_eq!([1, 2, 60].map(|second| read(second, 0)), [(1, None); 3]);
        assert_eq!(read(61, 0), (2, None), "a minute later");
        assert_eq!(read(121, 5), (3, Some(5)), "the kernel counts by now");
        assert_eq!(read(122, 9), (4, Some(9)));
        assert_eq!([123, 124].map(|second| read(second, 9)), [(5, Some(9)); 2], "and no more");
    }
}
