//! What is looked at besides the hooks: the kernel's version, the controllers of cgroup v2, PSI.

use crate::{
    targets::cgroup::Root,
    telemetry::kernel::{self, OLDEST},
};

/// A controller of cgroup v2, what comes from it, and how it is without.
pub type Controller = (&'static str, &'static str, &'static str);

pub const CONTROLLERS: [Controller; 3] = [
    ("memory", "memory in use from memory.current", "memory in use is the sum of the processes' resident sets"),
    ("cpu", "throttling by CPU limits from cpu.stat", "throttling by CPU limits is not seen"),
    ("io", "block I/O from io.stat", "block I/O is not counted"),
];

/// Whether the kernel is one that the programs are meant for; an older one may refuse some hooks.
pub fn version(release: &str) -> Result<String, String> {
    let oldest = format!("{}.{}", OLDEST.0, OLDEST.1);
    match kernel::version(release) {
        Some(version) if version >= OLDEST => Ok(release.to_owned()),
        Some(_) => Err(format!("{release} is older than {oldest}: which hooks it takes was never tried")),
        None => Err(format!("{release} tells no version; {oldest} is needed")),
    }
}

/// In the root's `cgroup.controllers`; on hybrid machines it is bound to v1.
pub fn controller(root: &Root, (name, with, without): Controller) -> Result<String, String> {
    let file = root.path().join("cgroup.controllers");
    let text = std::fs::read_to_string(&file).map_err(|e| format!("read {}: {e}", file.display()))?;
    if text.split_whitespace().any(|c| c == name) {
        Ok(with.into())
    } else {
        Err(format!("not in cgroup2 (bound to v1?): {without}"))
    }
}

pub fn psi(root: &Root) -> Result<String, String> {
    // The root cgroup has no pressure files on older kernels, the machine-wide one is always there.
    let file = "/proc/pressure/memory";
    match std::fs::read_to_string(file) {
        Ok(_) if root.path().join("memory.pressure").exists() => Ok("memory, CPU and I/O pressure per cgroup".into()),
        Ok(_) => Ok("on".into()),
        Err(error) => {
            Err(format!("{file}: {error}; boot with psi=1. Memory stall is taken from the reclaim hooks instead"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_older_than_supported_is_said() {
        for release in ["5.15.0-91-generic", "6.1.0-56-cloud-amd64", "10.0.1"] {
            assert_eq!(version(release), Ok(release.to_owned()));
        }
        for release in ["5.14.21-150500.55-default", "5.4.0", "4.18.0-513.el8.x86_64"] {
            assert!(version(release).is_err_and(|e| e.contains("older than 5.15")), "{release}");
        }
        assert!(version("unknown").is_err_and(|e| e.contains("5.15 is needed")));
    }
}
