//! What the kernel counts per program: runs and time, while `kernel.bpf_stats` is on.

use std::{collections::BTreeMap, fs, process::Child, time::Duration};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

use crate::wait_until;

/// Runs and nanoseconds by program name, of the programs that a process holds.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    by_name: BTreeMap<String, (u64, u64)>,
    /// How many they are: some share a name.
    programs: usize,
}

impl Runs {
    pub fn of(pid: u32) -> Self {
        let names: BTreeMap<u32, String> = aya::programs::loaded_programs()
            .flatten()
            .filter_map(|p| Some((p.id(), p.name_as_str()?.to_owned())))
            .collect();
        let mut seen = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten() {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<u64>().ok());
            // Links name their program, too, but have no times.
            if let (Some(id), Some(runs), Some(ns)) = (field("prog_id:"), field("run_cnt:"), field("run_time_ns:")) {
                seen.insert(id as u32, (runs, ns));
            }
        }
        let programs = seen.len();
        let mut by_name = BTreeMap::new();
        for (id, (runs, ns)) in seen {
            let name = names.get(&id).cloned().unwrap_or_default();
            let sum: &mut (u64, u64) = by_name.entry(name).or_default();
            *sum = (sum.0 + runs, sum.1 + ns);
        }
        Self { by_name, programs }
    }

    /// Nanoseconds since `before`, of all programs.
    pub fn ns_since(&self, before: &Self) -> u64 {
        let sum = |runs: &Self| runs.by_name.values().map(|(_, ns)| ns).sum::<u64>();
        sum(self).saturating_sub(sum(before))
    }

    /// Nanoseconds per run since `before`, of all programs whose name begins so; `None` where none ran.
    pub fn ns_per_run(&self, before: &Self, name: &str) -> Option<f64> {
        let sum = |runs: &Self| {
            let of_name = runs.by_name.iter().filter(|(n, _)| n.starts_with(name));
            of_name.fold((0, 0), |sum, (_, one)| (sum.0 + one.0, sum.1 + one.1))
        };
        let (now, then) = (sum(self), sum(before));
        let runs = now.0.checked_sub(then.0).filter(|runs| *runs > 0)?;
        Some(now.1.saturating_sub(then.1) as f64 / runs as f64)
    }
}

/// A tool that holds programs while it runs, and ends at SIGINT.
pub struct Tool(Child);

impl Tool {
    /// Waits until the tool holds its programs: for a switch, for a wakeup, and for the first wakeup of a task.
    pub fn start(command: &mut std::process::Command) -> anyhow::Result<Self> {
        let shown = format!("{command:?}");
        let tool = Self(command.spawn().with_context(|| format!("start {shown}"))?);
        wait_until(&format!("{shown} holds its programs"), Duration::from_secs(60), || tool.runs().programs >= 3)?;
        // Held is not yet attached.
        std::thread::sleep(Duration::from_millis(500));
        Ok(tool)
    }

    pub fn runs(&self) -> Runs {
        Runs::of(self.0.id())
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.0.id() as i32) {
            let _ = kill_process(pid, Signal::INT);
        }
        let _ = self.0.wait();
    }
}
