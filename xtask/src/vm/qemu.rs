//! One boot: KVM where it works, else emulation. The kernel's messages go to a file, the guest's own lines come to us.

use std::{
    fmt,
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{guest, kernel::Kernel};
use crate::{dist::Arch, progress::Step, setup::packages};

/// Emulation on a busy machine takes its time; a guest that hangs must end all the same.
const LIMIT: Duration = Duration::from_secs(30 * 60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    Kvm,
    Emulation,
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Accelerator::Kvm => "KVM",
            Accelerator::Emulation => "emulation",
        })
    }
}

impl Accelerator {
    fn argument(self) -> &'static str {
        match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Emulation => "tcg,thread=single,tb-size=512",
        }
    }
}

pub struct Qemu {
    pub accelerator: Accelerator,
    arch: Arch,
}

impl Qemu {
    /// Finds or installs qemu, and tries whether KVM works: that /dev/kvm exists does not mean that it does.
    pub fn ensure(arch: Arch) -> Result<Self> {
        let (program, package) = program(arch);
        if !packages::runs(Command::new(program).arg("--version")) {
            if !packages::apt_is_here() {
                bail!("there is no {program}, and no apt-get to install it");
            }
            let step = Step::start("qemu");
            packages::install(&step, &[package]).context("install qemu")?;
            step.done(&format!("{package} installed"));
        }
        let kvm = Arch::here() == Some(arch) && has_virtualization(arch) && kvm_works(arch);
        Ok(Self { accelerator: if kvm { Accelerator::Kvm } else { Accelerator::Emulation }, arch })
    }

    /// Boots and hands each line of the guest to `line` until it is off.
    pub fn run(&self, kernel: &Kernel, disk: &Path, log: &Path, mut line: impl FnMut(&str)) -> Result<()> {
        let mut command = machine(self.arch, self.accelerator);
        // Two to a socket: newer kernels that do not know who emulates them take none into a socket that is there already. The
        // maps for that many are made for each test anew, and those of the test before may not be gone yet.
        let cpus = guest::possible_cpus(self.arch);
        command.args(["-smp", &format!("2,maxcpus={cpus},sockets={},cores=2,threads=1", cpus / 2)]);
        command.args(["-m", "2048", "-no-reboot"]);
        // The kernel's own line, and the guest's.
        command.arg("-serial").arg(format!("file:{}", log.display())).args(["-chardev", "stdio,id=guest"]);
        command.args(match self.arch {
            Arch::Amd64 => ["-serial", "chardev:guest"].as_slice(),
            // It has one serial line, until qemu 9.1.
            Arch::Arm64 => &["-device", "pci-serial,chardev=guest"],
        });
        command.arg("-kernel").arg(&kernel.image);
        // Written to a copy that ends with qemu: each boot finds the same disk.
        command.arg("-drive").arg(format!("if=none,id=disk,file={},format=raw,snapshot=on", disk.display()));
        command.args(["-device", "nvme,serial=canary,drive=disk"]);
        // A processor that has to be woken first takes a tenth of a millisecond under emulation, which `cpu.stat` charges to
        // the task that it will run (its clock stands still in between): 10 % with short-lived processes. So none sleeps.
        // On a busy machine the timer's self-test misses its ticks and panics, so it is left out.
        let own = match self.arch {
            Arch::Amd64 => "console=ttyS0 idle=poll no_timer_check",
            Arch::Arm64 => "console=ttyAMA0 nohlt",
        };
        command.arg("-append").arg(format!("root=/dev/nvme0n1 rw init=/init panic=-1 quiet {own}"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Running(command.spawn().context("start qemu")?);
        let stdout = child.0.stdout.take().expect("stdout was asked to be piped");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned()).is_err() {
                    return;
                }
            }
        });
        let deadline = Instant::now() + LIMIT;
        let mut finished = false;
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(said) => {
                    finished |= said == guest::FINISHED;
                    line(&said);
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => bail!("not done within {LIMIT:?}"),
            }
        }
        let status = child.0.wait().context("wait for qemu")?;
        if !finished {
            let mut said = String::new();
            if let Some(stderr) = child.0.stderr.take() {
                said = std::io::read_to_string(stderr).unwrap_or_default();
            }
            bail!("qemu ended with {status} before the guest was done; {said}");
        }
        Ok(())
    }
}

/// qemu's program for an architecture, and Debian's package of it.
fn program(arch: Arch) -> (&'static str, &'static str) {
    match arch {
        Arch::Amd64 => ("qemu-system-x86_64", "qemu-system-x86"),
        Arch::Arm64 => ("qemu-system-aarch64", "qemu-system-arm"),
    }
}

/// q35: the smaller microvm hangs at times when it has two processors.
fn machine(arch: Arch, accelerator: Accelerator) -> Command {
    let mut command = Command::new(program(arch).0);
    let kind = match arch {
        Arch::Amd64 => "q35",
        Arch::Arm64 => "virt",
    };
    command.args(["-M", kind, "-cpu", "max", "-accel", accelerator.argument()]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
    command
}

/// Whether the processor does it. There are machines whose KVM does without: the firmware runs there, and a kernel hangs.
fn has_virtualization(arch: Arch) -> bool {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    arch != Arch::Amd64 || flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm")
}

/// Makes a machine with KVM that never starts, and asks it to quit.
fn kvm_works(arch: Arch) -> bool {
    let mut command = machine(arch, Accelerator::Kvm);
    command.args(["-S", "-m", "64", "-monitor", "stdio"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(child) = command.spawn() else { return false };
    let mut child = Running(child);
    let asked = child.0.stdin.take().is_some_and(|mut monitor| monitor.write_all(b"quit\n").is_ok());
    asked && child.0.wait().is_ok_and(|status| status.success())
}

/// Does not outlive us, however we leave.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
