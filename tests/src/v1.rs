//! The memory controller of cgroup v1, where the machine has it there.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{Sandbox, wait_until};

/// A cgroup of v1 of the same path as one of a sandbox, with a limit; removed when dropped, before the sandbox.
pub struct V1Memory {
    dir: PathBuf,
    base: PathBuf,
}

impl V1Memory {
    /// `None` where there is no memory controller of cgroup v1.
    ///
    /// # Errors
    /// Where the cgroup cannot be made.
    pub fn limited(sandbox: &Sandbox, path: &str, limit_bytes: u64) -> anyhow::Result<Option<Self>> {
        let root = Path::new("/sys/fs/cgroup/memory");
        if !root.join("memory.limit_in_bytes").exists() {
            return Ok(None);
        }
        let below = |path: &str| root.join(path.trim_start_matches('/'));
        let v1 = Self { dir: below(path), base: below(&sandbox.base) };
        fs::create_dir_all(&v1.dir)?;
        fs::write(v1.dir.join("memory.limit_in_bytes"), limit_bytes.to_string())?;
        Ok(Some(v1))
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What a shell says to move itself there.
    pub fn enter(&self) -> String {
        format!("echo $$ > {}/cgroup.procs", self.dir.display())
    }
}

impl Drop for V1Memory {
    fn drop(&mut self) {
        // Its processes are the sandbox's, which ends them; a cgroup can be removed once they are gone.
        let _ = wait_until("cgroup v1 is empty", Duration::from_secs(10), || {
            fs::remove_dir(&self.dir).is_ok() && fs::remove_dir(&self.base).is_ok()
        });
    }
}
