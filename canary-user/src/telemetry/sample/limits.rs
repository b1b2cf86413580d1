//! Limits that hold a target back: its own, and those of the cgroups above it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// From `cpu.stat`, where the cpu controller is enabled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Throttling {
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_usec: u64,
}

impl Throttling {
    /// Share of the periods in which tasks were held back; `None` where none passed.
    pub fn share(&self) -> Option<f64> {
        (self.periods > 0).then(|| self.throttled_periods as f64 / self.periods as f64)
    }
}

/// The limits of the cgroups above the target's, of a slice or a pod: they hold for all that is below.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Above {
    /// Of the one whose CPU limit held back in the largest share of its periods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttling: Option<Throttling>,
    /// The path of that cgroup; `None` in recordings of programs that did not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_by: Option<Arc<str>>,
    /// The smallest memory limit (a level, not a difference).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    /// The memory limit that has the least left, which need not be the smallest; `None` where it is not known how full one of them is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryLimit>,
}

/// A memory limit, and how much of it is in use (levels, not differences).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryLimit {
    /// The path of the cgroup that has it.
    pub cgroup: Arc<str>,
    pub limit_bytes: u64,
    /// By all that is in that cgroup.
    pub in_use_bytes: u64,
}

impl MemoryLimit {
    pub fn left_bytes(&self) -> u64 {
        self.limit_bytes.saturating_sub(self.in_use_bytes)
    }
}
