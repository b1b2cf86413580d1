//! Which capabilities this process holds, and what each is needed for.

use anyhow::{Context as _, ensure};

/// A capability by its bit in `CapEff` (linux/capability.h).
#[derive(Clone, Copy, Debug)]
pub struct Capability {
    pub name: &'static str,
    bit: u32,
    pub purpose: &'static str,
}

/// CAP_SYS_ADMIN includes the first two on every kernel.
pub const NEEDED: [Capability; 3] = [
    Capability { name: "CAP_BPF", bit: 39, purpose: "to load eBPF programs and make maps" },
    Capability { name: "CAP_PERFMON", bit: 38, purpose: "to attach to tracepoints" },
    Capability { name: "CAP_NET_ADMIN", bit: 12, purpose: "to count packets at cgroups" },
];

/// Said wherever one is missing.
pub const HOW_TO_GET: &str = "run as root, or grant it as deploy/canary-guard.service does";

const SYS_ADMIN_BIT: u32 = 21;

/// The effective set.
#[derive(Clone, Copy, Debug)]
pub struct Held(u64);

impl Held {
    pub fn has(self, capability: Capability) -> bool {
        let by_admin = capability.bit >= 38 && self.0 & (1 << SYS_ADMIN_BIT) != 0;
        self.0 & (1 << capability.bit) != 0 || by_admin
    }

    /// Names of the needed ones that are not held.
    pub fn missing(self) -> Vec<&'static str> {
        NEEDED.into_iter().filter(|c| !self.has(*c)).map(|c| c.name).collect()
    }
}

/// Reads this process' effective set from `/proc/self/status`.
pub fn effective() -> anyhow::Result<Held> {
    let status = std::fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
    let hex = status.lines().find_map(|l| l.strip_prefix("CapEff:")).context("/proc/self/status has no CapEff")?;
    Ok(Held(u64::from_str_radix(hex.trim(), 16).context("parse CapEff")?))
}

/// # Errors
/// Names what this process lacks and how it gets it.
pub fn ensure_held() -> anyhow::Result<()> {
    let missing = effective()?.missing();
    ensure!(missing.is_empty(), "this process lacks {}: {HOW_TO_GET}", missing.join(", "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_exactly_what_is_missing() {
        assert_eq!(Held(0).missing(), ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"]);
        assert_eq!(Held(1 << SYS_ADMIN_BIT).missing(), ["CAP_NET_ADMIN"]);
        assert_eq!(Held(1 << 39 | 1 << 38 | 1 << 12).missing(), [""; 0]);
    }
}
