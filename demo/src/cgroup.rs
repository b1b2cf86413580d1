//! The demo's own cgroups: finds the hierarchies, makes one cgroup per instance below `/canary-demo-<pid>`, and removes
//! everything again, also what a demo that was killed left behind.
//!
//! Refuses to start without root or cgroup2, and, where a memory limit is needed, without a memory controller.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, bail, ensure};

const PREFIX: &str = "canary-demo-";
/// CGROUP2_SUPER_MAGIC of linux/magic.h.
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// The cgroups of one demo. Dropping it kills what still runs in them and removes them.
pub struct DemoCgroups {
    cgroup2: PathBuf,
    name: String,
    limit: Option<Limit>,
    /// Held for as long as we live: a directory whose lock is free belongs to a demo that is gone.
    _lock: File,
}

struct Limit {
    bytes: u64,
    /// Where the v1 memory controller is mounted; `None` where cgroup2 has the controller.
    v1: Option<PathBuf>,
}

/// The place of one process: a cgroup, and with a v1 memory limit a second one.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Path relative to the cgroup2 root, with a leading slash.
    pub cgroup: Arc<str>,
    dirs: Vec<PathBuf>,
}

impl Cell {
    /// Arguments of this program that put what follows into the cell.
    pub fn enter_args(&self) -> Vec<std::ffi::OsString> {
        let mut args = vec!["enter".into()];
        for dir in &self.dirs {
            args.push("--cgroup".into());
            args.push(dir.into());
        }
        args.push("--".into());
        args
    }
}

impl DemoCgroups {
    /// With `memory_limit_bytes`, each instance may use that much memory and no more.
    pub fn create(memory_limit_bytes: Option<u64>) -> anyhow::Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "the demo makes cgroups and needs root: run it with sudo");
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
        let cgroup2 = mount_point(&mounts, |fstype, _| fstype == "cgroup2")
            .context("no cgroup2 is mounted: mount it with 'mount -t cgroup2 none /sys/fs/cgroup'")?;
        let magic =
            rustix::fs::statfs(&cgroup2).with_context(|| format!("statfs {}", cgroup2.display()))?.f_type as u64;
        ensure!(magic == CGROUP2_MAGIC, "{} is not a cgroup2 file system (magic {magic:#x})", cgroup2.display());
        let v1_memory = mount_point(&mounts, |fstype, options| {
            fstype == "cgroup" && options.split(',').any(|option| option == "memory")
        });
        remove_leftovers(&cgroup2, v1_memory.as_deref())?;

        let name = format!("{PREFIX}{}", std::process::id());
        let dir = cgroup2.join(&name);
        fs::create_dir(&dir).with_context(|| format!("create cgroup {}", dir.display()))?;
        let lock = File::open(&dir).with_context(|| format!("open cgroup {}", dir.display()))?;
        lock.try_lock().with_context(|| format!("lock cgroup {}", dir.display()))?;
        let mut demo = Self { cgroup2, name, limit: None, _lock: lock };
        let has_memory = demo.enable("memory", memory_limit_bytes.is_some())?;
        if let Some(bytes) = memory_limit_bytes {
            ensure!(
                has_memory || v1_memory.is_some(),
                "this scenario needs a memory limit, and neither cgroup2 nor cgroup v1 has a memory controller here"
            );
            demo.limit = Some(Limit { bytes, v1: v1_memory.filter(|_| !has_memory) });
            if let Some(v1) = demo.v1_dir() {
                fs::create_dir(&v1).with_context(|| format!("create cgroup {}", v1.display()))?;
            }
        }
        Ok(demo)
    }

    /// Where cgroup2 is mounted.
    pub fn root(&self) -> &Path {
        &self.cgroup2
    }

    /// The demo's own cgroup, relative to the root, with a leading slash.
    pub fn name(&self) -> String {
        format!("/{}", self.name)
    }

    /// Makes a cgroup for one instance, with the memory limit if there is one.
    pub fn cell(&self, name: &str) -> anyhow::Result<Cell> {
        let dir = self.dir().join(name);
        fs::create_dir(&dir).with_context(|| format!("create cgroup {}", dir.display()))?;
        let mut cell = Cell { cgroup: format!("/{}/{name}", self.name).into(), dirs: vec![dir.clone()] };
        let Some(limit) = &self.limit else { return Ok(cell) };
        match self.v1_dir() {
            None => set(&dir.join("memory.max"), &limit.bytes.to_string())?,
            Some(v1) => {
                let dir = v1.join(name);
                fs::create_dir(&dir).with_context(|| format!("create cgroup {}", dir.display()))?;
                set(&dir.join("memory.limit_in_bytes"), &limit.bytes.to_string())?;
                cell.dirs.push(dir);
            }
        }
        Ok(cell)
    }

    fn dir(&self) -> PathBuf {
        self.cgroup2.join(&self.name)
    }

    fn v1_dir(&self) -> Option<PathBuf> {
        Some(self.limit.as_ref()?.v1.as_ref()?.join(&self.name))
    }

    /// Makes it possible to limit the CPU of cells. To be called before the first of them.
    ///
    /// # Errors
    /// Where cgroup2 does not have the controller.
    pub fn enable_cpu_limits(&self) -> anyhow::Result<()> {
        ensure!(self.enable("cpu", true)?, "{} has no cpu controller to hand on", self.dir().display());
        Ok(())
    }

    /// Hands a controller to our children where cgroup2 has it; says whether they have it. Enables it at the root only when it
    /// is `needed`.
    fn enable(&self, controller: &str, needed: bool) -> anyhow::Result<bool> {
        let has = |dir: &Path, file: &str| -> anyhow::Result<bool> {
            let path = dir.join(file);
            let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            Ok(text.split_whitespace().any(|offered| offered == controller))
        };
        let hand_on = format!("+{controller}");
        if needed && has(&self.cgroup2, "cgroup.controllers")? && !has(&self.dir(), "cgroup.controllers")? {
            set(&self.cgroup2.join("cgroup.subtree_control"), &hand_on)?;
        }
        let given = has(&self.dir(), "cgroup.controllers")?;
        if given {
            set(&self.dir().join("cgroup.subtree_control"), &hand_on)?;
        }
        Ok(given)
    }
}

impl Drop for DemoCgroups {
    fn drop(&mut self) {
        for dir in [Some(self.dir()), self.v1_dir()].into_iter().flatten() {
            if let Err(e) = remove(&dir) {
                eprintln!("canary-demo: {e:#}");
            }
        }
    }
}

fn set(path: &Path, value: &str) -> anyhow::Result<()> {
    fs::write(path, value).with_context(|| format!("write '{value}' to {}", path.display()))
}

/// The first mount point whose file system type and super options match. See proc_pid_mountinfo(5) for the fields.
fn mount_point(mountinfo: &str, wanted: impl Fn(&str, &str) -> bool) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = after.split(' ');
        let (fstype, options) = (fields.next()?, fields.nth(1)?);
        let path = before.split(' ').nth(4)?.replace("\\040", " ");
        wanted(fstype, options).then(|| path.into())
    })
}

/// Kills and removes the cgroups of demos that ended without doing so themselves.
fn remove_leftovers(cgroup2: &Path, v1_memory: Option<&Path>) -> anyhow::Result<()> {
    for dir in demo_dirs(cgroup2)? {
        let Ok(lock) = File::open(&dir) else { continue };
        match lock.try_lock() {
            Ok(()) => remove(&dir).context("remove what an earlier demo left behind")?,
            Err(fs::TryLockError::WouldBlock) => {}
            Err(e) => return Err(e).with_context(|| format!("lock cgroup {}", dir.display())),
        }
    }
    for dir in v1_memory.map(demo_dirs).transpose()?.unwrap_or_default() {
        let alive = dir.file_name().is_some_and(|name| cgroup2.join(name).exists());
        if !alive {
            remove(&dir).context("remove what an earlier demo left behind")?;
        }
    }
    Ok(())
}

fn demo_dirs(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut dirs = Vec::new();
    for entry in fs::read_dir(root).with_context(|| format!("list {}", root.display()))? {
        let entry = entry.with_context(|| format!("list {}", root.display()))?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && entry.path().is_dir() {
            dirs.push(entry.path());
        }
    }
    Ok(dirs)
}

/// Kills everything in one of our cgroups and removes it with its children.
fn remove(dir: &Path) -> anyhow::Result<()> {
    // Absent in v1, whose processes are in the cgroup2 as well and were killed there.
    let kill = dir.join("cgroup.kill");
    if kill.exists() {
        set(&kill, "1")?;
    }
    remove_children_first(dir)
}

fn remove_children_first(dir: &Path) -> anyhow::Result<()> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_children_first(&entry.path())?;
        }
    }
    // Killed processes take a moment to leave.
    for _ in 0..200 {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => thread::sleep(Duration::from_millis(10)),
            Err(e) => return Err(e).with_context(|| format!("remove cgroup {}", dir.display())),
        }
    }
    bail!("cgroup {} still has processes after 2 s and was not removed", dir.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:7 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified\\040two rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn mounts_are_found_by_type_and_option() {
        assert_eq!(mount_point(HYBRID, |t, _| t == "cgroup2"), Some("/sys/fs/cgroup/unified two".into()));
        assert_eq!(
            mount_point(HYBRID, |t, o| t == "cgroup" && o.split(',').any(|o| o == "memory")),
            Some("/sys/fs/cgroup/memory".into())
        );
        assert_eq!(mount_point(HYBRID, |t, o| t == "cgroup" && o.contains("cpu")), None);
    }
}
