//! The guest's disk: an ext4 file system with busybox, this machine's systemd, what was built, the libraries that they need, and
//! an init. A guest of another architecture has no systemd.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{guest::Step as GuestStep, kernel};
use crate::{dist::Arch, progress::Step};

/// Room for the programs and for the file that the demo reads.
const SIZE: &str = "512M";

/// Programs of this machine that busybox does not have, or less of: for the real-time class, and for a systemd in namespaces.
/// Where one is missing, the tests that need it say so.
const PROGRAMS: [&str; 9] = [
    "/usr/bin/bash",
    "/usr/bin/chrt",
    "/usr/bin/dbus-daemon",
    "/usr/bin/nsenter",
    "/usr/bin/setpriv",
    "/usr/bin/systemctl",
    "/usr/bin/unshare",
    "/usr/lib/systemd/systemd",
    // A part of systemd since version 255.
    "/usr/lib/systemd/systemd-executor",
];

/// What that systemd reads, and no unit more: each would be started under emulation.
const FILES: [&str; 9] = [
    "/etc/group",
    "/etc/passwd",
    "/usr/lib/systemd/system/basic.target",
    "/usr/lib/systemd/system/dbus.service",
    "/usr/lib/systemd/system/dbus.socket",
    "/usr/lib/systemd/system/shutdown.target",
    "/usr/lib/systemd/system/sysinit.target",
    "/usr/share/dbus-1/system.conf",
    "/usr/share/dbus-1/system.d/org.freedesktop.systemd1.conf",
];

/// Where programs and libraries are, and the names that they have besides.
const MERGED: [(&str, &str); 4] =
    [("usr/bin", "bin"), ("usr/sbin", "sbin"), ("usr/lib", "lib"), ("usr/lib64", "lib64")];

pub fn make(busybox: &Path, steps: &[GuestStep], arch: Arch) -> Result<PathBuf> {
    let step = Step::start("disk of the guest");
    let root = kernel::directory().join(format!("root-{}", std::process::id()));
    let image = kernel::directory().join("disk.ext4");
    let filled = fill(&root, busybox, steps, arch).and_then(|()| {
        // Made anew each time: what is in it was built a moment ago.
        let _ = fs::remove_file(&image);
        let options = ["-q", "-F", "-O", "^has_journal", "-d"];
        step.command(Command::new(tool("mkfs.ext4")).args(options).arg(&root).arg(&image).arg(SIZE))
    });
    fs::remove_dir_all(&root).with_context(|| format!("remove {}", root.display()))?;
    filled?;
    step.done("");
    Ok(image)
}

/// mkfs lies outside of the PATH of those who are not root.
fn tool(name: &str) -> PathBuf {
    let path = Path::new("/usr/sbin").join(name);
    if path.exists() { path } else { name.into() }
}

fn fill(root: &Path, busybox: &Path, steps: &[GuestStep], arch: Arch) -> Result<()> {
    let directories = ["dev", "proc", "sys", "tmp", "run", "etc", "var/tmp", "var/lib"];
    for directory in MERGED.map(|(directory, _)| directory).into_iter().chain(directories) {
        let path = root.join(directory);
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
    }
    for (directory, name) in MERGED {
        let link = root.join(name);
        symlink(directory, &link).with_context(|| format!("make {}", link.display()))?;
    }
    place(busybox, &root.join("bin/busybox"))?;
    let is_own = Arch::here() == Some(arch);
    for program in PROGRAMS.map(Path::new).into_iter().filter(|program| is_own && program.exists()) {
        place(program, &inside(root, program))?;
        place_libraries(program, root)?;
    }
    for file in FILES.map(Path::new).into_iter().filter(|file| file.exists()) {
        copy(file, &inside(root, file))?;
    }
    for step in steps {
        let program = &step.program;
        let stripped = inside(root, Path::new(step.inside()));
        if stripped.exists() {
            continue;
        }
        if !is_own {
            // Built so that it needs nothing else.
            place(program, &stripped)?;
            continue;
        }
        // Debug information is nine tenths of them.
        let strip = Command::new("strip").arg("-o").arg(&stripped).arg(program).status();
        if !strip.is_ok_and(|status| status.success()) {
            place(program, &stripped)?;
        }
        place_libraries(program, root)?;
    }
    let init = root.join("init");
    fs::write(&init, super::guest::init(steps, arch)).with_context(|| format!("write {}", init.display()))?;
    executable(&init)
}

/// Where a file of this machine is on the guest's disk.
fn inside(root: &Path, file: &Path) -> PathBuf {
    root.join(file.strip_prefix("/").unwrap_or(file))
}

fn place(from: &Path, to: &Path) -> Result<()> {
    copy(from, to)?;
    executable(to)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    }
    fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn place_libraries(program: &Path, root: &Path) -> Result<()> {
    for library in libraries(program)? {
        let placed = inside(root, &library);
        if !placed.exists() {
            place(&library, &placed)?;
        }
    }
    Ok(())
}

fn executable(path: &Path) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).with_context(|| format!("chmod {}", path.display()))
}

/// What the loader would load: the programs are linked dynamically, and the guest has no libc of its own.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("start ldd")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if text.contains("not found") {
        bail!("{} misses libraries:\n{text}", program.display());
    }
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}
