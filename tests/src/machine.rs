//! A machine with a real systemd (and a real Docker or Podman) of its own, in namespaces on this kernel: it boots in half a second.
//!
//! Its files are this machine's; what it writes is in memory and gone with it. Of its services none is started but D-Bus.

mod engine;

use std::{
    fs::{self, File},
    os::unix::{fs::symlink, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use canary_user::targets::cgroup::Root;
use rustix::process::{Pid, Signal, kill_process};

pub use self::engine::Engine;
use crate::{kernel_available, namespace, service::outside, unique, wait_until};

const PATIENCE: Duration = Duration::from_secs(90);
const BOOT: &str = include_str!("machine/boot.sh");
const TARGET: &str = "[Unit]\nDefaultDependencies=no\nWants=dbus.socket dbus.service\n";
/// Units that reach for hardware, which is not this machine's.
const MASKED: &str = "systemd-modules-load systemd-udevd systemd-udev-trigger systemd-remount-fs systemd-binfmt \
                      systemd-hwdb-update systemd-random-seed systemd-pstore";

/// A running machine. Dropping it kills it and removes what it left.
pub struct Machine {
    dir: tempfile::TempDir,
    root: Root,
    /// Its cgroup, which is the root of its own view.
    cgroup: String,
    booted: Child,
    /// Its systemd, in this machine's numbers.
    pid: i32,
}

impl Machine {
    /// `None` where it cannot be had here, after saying why.
    pub fn boot(test: &str) -> anyhow::Result<Option<Self>> {
        if !kernel_available(test) {
            return Ok(None);
        }
        for needed in ["/lib/systemd/systemd", "/lib/systemd/system/dbus.socket"] {
            if !Path::new(needed).exists() {
                println!("SKIP {test}: there is no {needed}: apt-get install systemd dbus");
                return Ok(None);
            }
        }
        let mut machine = Self::start()?;
        if let Some(why) = machine.namespaces_refused()? {
            println!("SKIP {test}: no namespaces for a machine of its own: {why}");
            return Ok(None);
        }
        if let Err(error) = machine.come_up() {
            let log = machine.log();
            let last = log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            println!("SKIP {test}: systemd does not come up in namespaces here: {error:#}: {last}");
            return Ok(None);
        }
        Ok(Some(machine))
    }

    fn come_up(&mut self) -> anyhow::Result<()> {
        let bus = self.run_dir().join("dbus/system_bus_socket");
        wait_until("systemd and its bus", PATIENCE, || bus.exists())?;
        self.pid = self.pid_of_systemd().context("systemd runs")?;
        wait_until("machine.target", PATIENCE, || {
            self.systemctl(&["is-active", "machine.target"]).is_ok_and(|said| said.trim() == "active")
        })
    }

    fn start() -> anyhow::Result<Self> {
        let root = Root::find()?;
        // On a disk: what a unit writes to its /run leaves the page cache where memory is taken from the unit.
        let dir = tempfile::tempdir_in("/var/tmp")?;
        for name in ["layer", "root"] {
            fs::create_dir(dir.path().join(name))?;
        }
        let units = dir.path().join("run/systemd/system");
        fs::create_dir_all(&units)?;
        fs::write(units.join("machine.target"), TARGET)?;
        for unit in MASKED.split_whitespace() {
            symlink("/dev/null", units.join(format!("{unit}.service")))?;
        }
        let cgroup = format!("/{}", unique("canary-machine"));
        fs::create_dir(root.dir(&cgroup)).with_context(|| format!("create cgroup {cgroup}"))?;
        let log = File::create(dir.path().join("log"))?;
        // It ends with this test, however that ends.
        let mut bash = Command::new("setpriv");
        bash.args(["--pdeathsig", "KILL", "bash", "-c", BOOT, "boot"])
            .args([dir.path(), &root.dir(&cgroup)])
            .process_group(0);
        bash.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let booted = outside(|| bash.spawn()).context("start setpriv")?;
        Ok(Self { dir, root, cgroup, booted, pid: 0 })
    }

    /// Waits until it has its namespaces; what was said where this kernel, or who runs this, does not give them.
    fn namespaces_refused(&mut self) -> anyhow::Result<Option<String>> {
        let there = self.run_dir().join("namespaces-are-there");
        let mut ended = None;
        wait_until("namespaces", PATIENCE, || {
            ended = self.booted.try_wait().ok().flatten();
            ended.is_some() || there.exists()
        })?;
        Ok(ended.filter(|_| !there.exists()).map(|status| format!("{} ({status})", self.log().trim())))
    }

    /// The one child of `unshare`.
    fn pid_of_systemd(&self) -> Option<i32> {
        let parent = self.booted.id();
        let text = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Its `/run`, seen from here.
    pub fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    pub fn bus(&self) -> String {
        format!("unix:path={}", self.run_dir().join("dbus/system_bus_socket").display())
    }

    /// Path below the cgroup2 root of what the machine knows by this path.
    pub fn cgroup(&self, inside: &str) -> String {
        format!("{}{inside}", self.cgroup)
    }

    /// Puts a program where the machine can run it, and returns its path there.
    pub fn place(&self, program: &Path) -> anyhow::Result<String> {
        let name = program.file_name().and_then(|n| n.to_str()).context("a program has a name")?;
        fs::create_dir_all(self.run_dir().join("bin"))?;
        fs::copy(program, self.run_dir().join("bin").join(name)).with_context(|| program.display().to_string())?;
        Ok(format!("/run/bin/{name}"))
    }

    /// Unit files, and systemd told of them.
    pub fn units(&self, units: &[(&str, &str)]) -> anyhow::Result<()> {
        for (name, text) in units {
            fs::write(self.run_dir().join("systemd/system").join(name), text)?;
        }
        self.systemctl(&["daemon-reload"]).map(drop)
    }

    /// Stops its systemd for a while: who asks it something gets no answer before [`Machine::thaw_systemd`].
    pub fn freeze_systemd(&self) -> anyhow::Result<()> {
        self.signal_systemd(Signal::STOP)
    }

    pub fn thaw_systemd(&self) -> anyhow::Result<()> {
        self.signal_systemd(Signal::CONT)
    }

    fn signal_systemd(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_raw(self.pid).context("systemd runs")?;
        kill_process(pid, signal).context("send systemd a signal")
    }

    pub fn systemctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.inside("systemctl", arguments)
    }

    /// One property of a unit.
    pub fn property(&self, unit: &str, key: &str) -> anyhow::Result<String> {
        Ok(self.systemctl(&["show", "--property", key, "--value", unit])?.trim().to_owned())
    }

    /// What a program in the machine prints; an error where it fails.
    pub fn inside(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let target = self.pid.to_string();
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &target, "--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup", "--", program])
            .args(arguments)
            .env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null());
        let output = outside(|| command.output()).context("start nsenter")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ensure!(output.status.success(), "{program} {arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
        Ok(text(&output.stdout))
    }

    /// Runs `work` in a thread whose sockets are in the machine's network.
    pub fn in_its_network<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        namespace::with_network_of(self.pid, work)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the machine said: {}", self.log());
        }
        // With its first process the whole pid namespace ends.
        if let Some(pid) = self.pid_of_systemd().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.booted.kill();
        let _ = self.booted.wait();
        crate::remove_tree(&self.root.dir(&self.cgroup));
    }
}
