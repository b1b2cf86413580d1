//! What the end-to-end tests share: real cgroups, real processes, and a sensor on them.

pub mod bpf;
pub mod browser;
pub mod decided;
pub mod guard;
pub mod guarded;
pub mod machine;
pub mod names;
pub mod namespace;
pub mod one_cpu;
pub mod openmetrics;
pub mod overhead;
pub mod pair;
pub mod pictures;
pub mod program;
pub mod service;
pub mod terminal;
pub mod units;
pub mod v1;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use canary_user::targets::{Role, Target, cgroup::Root};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// Whether the real thing can be tested here; prints why not otherwise.
pub fn kernel_available(test: &str) -> bool {
    if !rustix::process::geteuid().is_root() {
        println!("SKIP {test}: needs root");
        return false;
    }
    if let Err(error) = Root::find() {
        println!("SKIP {test}: {error:#}");
        return false;
    }
    true
}

/// Whether this is a guest of `cargo xtask vm`, to which a test may do what it must not do to a machine that others use; prints
/// why not otherwise.
pub fn in_guest(test: &str) -> bool {
    let is_guest = std::env::var_os("CANARY_GUEST").is_some();
    if !is_guest {
        println!("SKIP {test}: it is done to a guest of `cargo xtask vm` only");
    }
    is_guest
}

/// A directory of cgroups that a test made. Kills what is in them and removes them when dropped.
pub struct Sandbox {
    pub root: Root,
    /// Path below the cgroup2 root, with a leading slash.
    pub base: String,
}

impl Sandbox {
    pub fn new() -> anyhow::Result<Self> {
        let root = Root::find()?;
        let base = format!("/canary-e2e-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        fs::create_dir(root.dir(&base)).with_context(|| format!("create cgroup {base}"))?;
        Ok(Self { root, base })
    }

    /// Makes a cgroup below the sandbox and returns its path below the cgroup2 root.
    pub fn cgroup(&self, name: &str) -> anyhow::Result<String> {
        let path = format!("{}/{name}", self.base);
        fs::create_dir_all(self.root.dir(&path)).with_context(|| format!("create cgroup {path}"))?;
        Ok(path)
    }

    /// The cgroup as a target of deployment `test`.
    pub fn target(&self, path: &str, role: Role) -> anyhow::Result<Target> {
        Ok(Target {
            deployment: "test".into(),
            role,
            version: role.name().into(),
            cgroup: path.into(),
            incarnation: self.root.id(path).with_context(|| format!("{path} does not exist"))?,
            identity: None,
        })
    }

    /// Runs a shell script in the cgroup, moved in before its first line.
    pub fn run(&self, path: &str, script: &str) -> anyhow::Result<Child> {
        let procs = self.root.dir(path).join("cgroup.procs");
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("echo $$ > {} && {script}", procs.display())).stdin(Stdio::null());
        // From where this process is at home: another test's cgroup may be emptied at any moment.
        service::outside(|| command.spawn()).with_context(|| format!("start a process in {path}"))
    }

    pub fn pids(&self, path: &str) -> Vec<i32> {
        let text = fs::read_to_string(self.root.dir(path).join("cgroup.procs")).unwrap_or_default();
        text.lines().flat_map(str::parse).collect()
    }

    /// A flat keyed value of one of the cgroup's files.
    pub fn field(&self, path: &str, file: &str, name: &str) -> anyhow::Result<u64> {
        let file = self.root.dir(path).join(file);
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        text.lines()
            .find_map(|l| l.strip_prefix(name)?.trim().parse().ok())
            .with_context(|| format!("{} has no {name}", file.display()))
    }
}

/// What `cpu.stat` has for a cgroup before and after a tick of the sensor. However long a busy machine takes for the tick, what
/// the scheduler had booked at its moment lies between.
#[derive(Clone, Copy, Debug)]
pub struct Booked {
    before_usec: u64,
    after_usec: u64,
}

impl Booked {
    /// Reads the book, lets the sensor tick, and reads it again.
    pub fn around<T>(sandbox: &Sandbox, path: &str, tick: impl FnOnce() -> T) -> anyhow::Result<(Self, T)> {
        let before_usec = sandbox.field(path, "cpu.stat", "usage_usec")?;
        let ticked = tick();
        Ok((Self { before_usec, after_usec: sandbox.field(path, "cpu.stat", "usage_usec")? }, ticked))
    }

    /// Checks what the sensor counted from this tick to a later one: within 1 % of the kernel's book, which did not stand
    /// still.
    pub fn agrees(self, later: Self, ours_ns: u64, what: &str) {
        let low = later.before_usec.saturating_sub(self.after_usec) as f64 / 1e6;
        let high = (later.after_usec - self.before_usec) as f64 / 1e6;
        let ours = ours_ns as f64 / 1e9;
        println!("{what}: eBPF {ours:.6} s, cpu.stat {low:.6} s to {high:.6} s");
        assert!(high > 0.02, "the load did nothing: {high} s");
        assert!(low * 0.99 <= ours && ours <= high * 1.01, "{what}: eBPF {ours} s, cpu.stat {low} s to {high} s");
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        remove_tree(&self.root.dir(&self.base));
    }
}

fn remove_tree(dir: &Path) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        for path in deepest_first(dir) {
            for pid in fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default().lines() {
                if let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            let _ = fs::remove_dir(&path);
        }
        if !dir.exists() || Instant::now() > deadline {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn deepest_first(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            all.extend(deepest_first(&entry.path()));
        }
    }
    all.push(dir.to_owned());
    all
}

/// Polls until `done` says so; an error after the limit, which is generous because machines are shared.
pub fn wait_until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    while !done() {
        anyhow::ensure!(Instant::now() < deadline, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// A name that no other test uses.
pub fn unique(prefix: &str) -> Arc<str> {
    format!("{prefix}-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)).into()
}
