//! Who runs the demo's instances, and with it whom the guard asks to take the canary away.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::scenario::Scenario;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The demo itself: processes in cgroups of its own
    Process,
    /// The machine's systemd: each instance is a unit
    Systemd,
    /// The machine's Docker: each instance is a container
    Docker,
}

#[derive(Args)]
pub struct Choice {
    /// Who runs the instances and takes the canary away when the guard asks for it
    #[arg(long, value_enum, default_value_t = Kind::Process)]
    pub orchestrator: Kind,
    /// D-Bus address of the systemd; its units must see the files below /run and the network that the demo sees
    #[arg(long, value_name = "ADDRESS", default_value = canary_user::config::SYSTEMD_BUS)]
    pub systemd_bus: String,
    /// Socket of Docker; its containers must see the files below /run and the network that the demo sees
    #[arg(long, value_name = "PATH", default_value = canary_user::config::DOCKER_SOCKET)]
    pub docker_socket: PathBuf,
}

impl Kind {
    /// As on the command line, and as the guard's configuration has it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Process => "process",
            Kind::Systemd => "systemd",
            Kind::Docker => "docker",
        }
    }

    /// Refuses a scenario that cannot be shown on this orchestrator or this machine; `root` is where cgroup2 is mounted.
    pub fn check(self, scenario: Scenario, root: &Path) -> anyhow::Result<()> {
        let name = scenario.name();
        let has = |controller: &str| -> anyhow::Result<bool> {
            let path = root.join("cgroup.controllers");
            let offered = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            Ok(offered.split_whitespace().any(|offer| offer == controller))
        };
        let of_memory = scenario.memory_limit_bytes().map(|_| "memory");
        let limit = of_memory.or(scenario.limits_cpu().then_some("CPU"));
        if let Some(limit) = limit.filter(|_| self != Kind::Process) {
            bail!(
                "the scenario '{name}' needs cgroups of the demo's own, with a {limit} limit: use --orchestrator process"
            );
        }
        if scenario.limits_cpu() && !has("cpu")? {
            bail!(
                "the scenario '{name}' needs cgroup2's cpu controller, which this machine does not have there (it may be cgroup \
                 v1's): boot with systemd.unified_cgroup_hierarchy=1, or choose another scenario"
            );
        }
        let is_seen_by_memory = matches!(scenario, Scenario::Leak | Scenario::WorkingSet);
        if is_seen_by_memory && self != Kind::Process && !has("memory")? {
            bail!(
                "the scenario '{name}' needs cgroup2's memory controller on {self}, which this machine does not have \
                 there (it may be cgroup v1's): use --orchestrator process"
            );
        }
        Ok(())
    }
}

/// As it calls itself.
impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Process => "the demo's own processes",
            Kind::Systemd => "systemd",
            Kind::Docker => "Docker",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_limit_is_refused_where_the_cgroups_are_not_the_demos() {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::write(root.path().join("cgroup.controllers"), "cpu pids\n").expect("write");
        for scenario in
            [Scenario::Memory, Scenario::Thrash, Scenario::Oom, Scenario::Leak, Scenario::WorkingSet, Scenario::Quota]
        {
            assert!(Kind::Process.check(scenario, root.path()).is_ok());
            let error = Kind::Docker.check(scenario, root.path()).expect_err("refused").to_string();
            assert!(error.contains(&scenario.name()) && error.contains("--orchestrator process"), "{error}");
        }
        std::fs::write(root.path().join("cgroup.controllers"), "cpu memory pids\n").expect("write");
        assert!(Kind::Systemd.check(Scenario::Leak, root.path()).is_ok());
        assert!(Kind::Systemd.check(Scenario::Cpu, root.path()).is_ok());
    }

    #[test]
    fn a_cpu_limit_needs_the_cpu_controller() {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::write(root.path().join("cgroup.controllers"), "cpuset memory pids\n").expect("write");
        let error = Kind::Process.check(Scenario::Quota, root.path()).expect_err("refused").to_string();
        assert!(error.contains("'quota'") && error.contains("cpu controller"), "{error}");
        assert!(Kind::Process.check(Scenario::Thrash, root.path()).is_ok());
    }
}
