//! Keeping a thread on one CPU.

use anyhow::Context as _;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// While it lives, the thread that made it stays on one CPU, and so does for good whatever that thread starts meanwhile.
pub struct OneCpu {
    before: CpuSet,
}

impl OneCpu {
    /// # Errors
    /// Where the kernel does not let the thread choose.
    pub fn stay() -> anyhow::Result<Self> {
        let before = sched_getaffinity(None).context("ask where this thread may run")?;
        let first = (0..CpuSet::MAX_CPU).find(|cpu| before.is_set(*cpu)).context("a CPU to run on")?;
        let mut one = CpuSet::new();
        one.set(first);
        sched_setaffinity(None, &one).context("stay on one CPU")?;
        Ok(Self { before })
    }
}

impl Drop for OneCpu {
    fn drop(&mut self) {
        let _ = sched_setaffinity(None, &self.before);
    }
}
