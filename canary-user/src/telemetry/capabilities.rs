//! Which capabilities this process holds, what each is needed for, and what else may keep it from using them.

use std::{fs, io};

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
    let status = fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
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

/// Adds to a refusal of `bpf()` what may be behind it: the capabilities are held, [`ensure_held`] has looked.
pub fn explained(error: anyhow::Error) -> anyhow::Error {
    // A filter may also say that there is no such call.
    let forbids = |e: &io::Error| matches!(e.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported);
    if !error.chain().any(|e| e.downcast_ref::<io::Error>().is_some_and(forbids)) {
        return error;
    }
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let why = what_forbids(&read("/proc/self/status"), &read("/proc/self/uid_map"));
    error.context(format!("bpf() is forbidden to this process, although it holds the capabilities for it: {why}"))
}

/// `status` and `uid_map`: those files of the process in /proc; empty where they cannot be read.
fn what_forbids(status: &str, uid_map: &str) -> &'static str {
    let filtered = status.lines().filter_map(|l| l.strip_prefix("Seccomp:")).any(|mode| mode.trim() == "2");
    let mapped: Vec<&str> = uid_map.split_whitespace().collect();
    if !mapped.is_empty() && mapped != ["0", "0", "4294967295"] {
        "it holds them in a user namespace only, as in a rootless container: run it in the machine's own"
    } else if filtered {
        "its system calls are filtered (seccomp): allow bpf() in its profile, as deploy/seccomp/canary-guard.json does"
    } else {
        "a security module (SELinux, AppArmor) or the kernel's lockdown may do that: see the kernel's log"
    }
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
    #[test]
    fn a_refusal_says_what_may_be_behind_it() {
        let root = "         0          0 4294967295\n";
        let status = |mode| format!("NoNewPrivs:\t1\nSeccomp:\t{mode}\nSeccomp_filters:\t1\n");
        assert!(what_forbids(&status(2), root).contains("(seccomp): allow bpf()"));
        assert!(what_forbids(&status(2), "0 1000 1\n1 100000 65536\n").contains("user namespace"));
        assert!(what_forbids(&status(0), root).contains("lockdown"));
        assert!(what_forbids("", "").contains("lockdown"), "what cannot be read is no reason");
    }

    #[test]
    fn another_error_stays_as_it_is() {
        let error = |kind: io::ErrorKind| {
            format!("{:#}", explained(anyhow::Error::from(io::Error::from(kind)).context("load")))
        };
        assert!(error(io::ErrorKind::PermissionDenied).starts_with("bpf() is forbidden to this process, although"));
        assert_eq!(error(io::ErrorKind::OutOfMemory), "load: out of memory");
    }
}
