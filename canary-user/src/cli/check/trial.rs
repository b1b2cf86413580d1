//! A cgroup to try the programs of cgroups on: the checker's own, which nobody else is in, and which is gone afterwards.

use std::{fs, os::fd::OwnedFd, path::PathBuf};

use crate::targets::cgroup::Root;

pub struct Trial {
    /// Path below the root.
    cgroup: String,
    made: Option<PathBuf>,
    /// Why it is not one that was made for this.
    instead: Option<String>,
}

impl Trial {
    /// Makes a cgroup. Where that cannot be, as in a container that sees the tree read-only, it is the one that this process is
    /// in: what is attached there for a moment counts nothing, and lets every packet through.
    pub fn begin(root: &Root) -> Self {
        let cgroup = format!("/canary-check-{}", std::process::id());
        let dir = root.dir(&cgroup);
        match fs::create_dir(&dir) {
            Ok(()) => Self { cgroup, made: Some(dir), instead: None },
            Err(error) => Self { cgroup: own(root), made: None, instead: Some(error.to_string()) },
        }
    }

    pub fn open(&self, root: &Root) -> anyhow::Result<OwnedFd> {
        root.open(&self.cgroup)
    }

    /// What to add to a finding, where it is not about a cgroup that was made for it.
    pub fn note(&self) -> String {
        self.instead.as_ref().map_or_else(String::new, |why| {
            format!("; tried on {}, the cgroup of this process, because none could be made: {why}", self.cgroup)
        })
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Some(dir) = &self.made
            && let Err(error) = fs::remove_dir(dir)
        {
            tracing::warn!("remove {}: {error}", dir.display());
        }
    }
}

/// The cgroup of this process; the root of what is seen, where the process is not in that.
fn own(root: &Root) -> String {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    if root.dir(path).is_dir() { path.to_owned() } else { "/".to_owned() }
}
