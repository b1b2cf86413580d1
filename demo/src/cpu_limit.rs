//! A CPU limit by what a cgroup was seen to take: it is held back now and then, and keeps up with its work.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

/// Short against a window, so that each window has several.
const PERIOD_USEC: f64 = 20_000.0;
/// The kernel takes neither longer periods nor smaller quotas (`tg_set_cfs_bandwidth` of kernel/sched/core.c).
const LONGEST_PERIOD_USEC: f64 = 1_000_000.0;
const LEAST_QUOTA_USEC: f64 = 1_000.0;
/// With this severity it may use what it did use, as if the limit had been chosen by its mean.
const ALL_OF_IT: f64 = 2.0;

/// What a cgroup takes.
pub struct Measured {
    dir: PathBuf,
    since: Instant,
    used_before: Duration,
}

impl Measured {
    /// Begins to measure; `dir` is the cgroup's directory.
    pub fn from_now(dir: PathBuf) -> anyhow::Result<Self> {
        let used_before = used(&dir)?;
        Ok(Self { dir, since: Instant::now(), used_before })
    }

    /// Limits the cgroup to 2 / severity of the CPUs that it took per second until now. Answers how many that are.
    ///
    /// # Errors
    /// Where it took none, or the kernel does not take the limit.
    pub fn limit(&self, severity: f64) -> anyhow::Result<f64> {
        let used = used(&self.dir)?.saturating_sub(self.used_before);
        let cpus = ALL_OF_IT / severity * used.as_secs_f64() / self.since.elapsed().as_secs_f64();
        ensure!(cpus > 0.0 && cpus.is_finite(), "{} used no CPU that it could be limited to", self.dir.display());
        let (path, limit) = (self.dir.join("cpu.max"), cpu_max(cpus));
        fs::write(&path, &limit).with_context(|| format!("write '{limit}' to {}", path.display()))?;
        Ok(cpus)
    }
}

/// CPU time of all that ever ran in a cgroup.
fn used(dir: &Path) -> anyhow::Result<Duration> {
    let path = dir.join("cpu.stat");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let usec: Option<u64> = text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.trim().parse().ok());
    Ok(Duration::from_micros(usec.with_context(|| format!("{} has no usage_usec", path.display()))?))
}

/// "quota period" in microseconds. Where the quota would be smaller than the kernel takes, the period is longer.
fn cpu_max(cpus: f64) -> String {
    let period_usec = (LEAST_QUOTA_USEC / cpus).clamp(PERIOD_USEC, LONGEST_PERIOD_USEC);
    let quota_usec = (cpus * period_usec).max(LEAST_QUOTA_USEC);
    format!("{quota_usec:.0} {period_usec:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_such_as_the_kernel_takes() {
        assert_eq!(cpu_max(0.5), "10000 20000");
        assert_eq!(cpu_max(0.04), "1000 25000");
        assert_eq!(cpu_max(0.0005), "1000 1000000");
    }

    #[test]
    fn the_limit_is_what_was_used_and_less_where_it_is_more_severe() {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |usec: u64| {
            std::fs::write(dir.path().join("cpu.stat"), format!("usage_usec {usec}\nuser_usec 0\n")).expect("write");
        };
        write(1_000_000);
        let mut measured = Measured::from_now(dir.path().to_owned()).expect("cpu.stat is there");
        // Ten seconds ago.
        measured.since = Instant::now().checked_sub(Duration::from_secs(10)).expect("the machine runs for longer");
        assert!(measured.limit(2.0).expect_err("it used nothing").to_string().contains("used no CPU"));
        write(2_000_000);
        let cpus = measured.limit(2.0).expect("a limit");
        assert!((cpus - 0.1).abs() < 0.01, "{cpus}");
        let half = measured.limit(4.0).expect("a limit");
        assert!((half - 0.05).abs() < 0.005, "{half}");
        let written = std::fs::read_to_string(dir.path().join("cpu.max")).expect("written");
        assert_eq!(written, cpu_max(half));
    }
}
