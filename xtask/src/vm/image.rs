//! The guest's disk: an ext4 file system with busybox, what was built, the libraries that it needs, and an init.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{guest::Step as GuestStep, kernel};
use crate::progress::Step;

/// Room for the programs and for the file that the demo reads.
const SIZE: &str = "512M";

/// What tests of the real-time class use and busybox does not have.
const CHRT: &str = "/usr/bin/chrt";

pub fn make(busybox: &Path, steps: &[GuestStep]) -> Result<PathBuf> {
    let step = Step::start("disk of the guest");
    let root = kernel::directory().join(format!("root-{}", std::process::id()));
    let image = kernel::directory().join("disk.ext4");
    let filled = fill(&root, busybox, steps).and_then(|()| {
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

fn fill(root: &Path, busybox: &Path, steps: &[GuestStep]) -> Result<()> {
    for directory in ["bin", "dev", "proc", "sys", "tmp", "run", "etc", "var/tmp", "var/lib"] {
        let path = root.join(directory);
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
    }
    place(busybox, &root.join("bin/busybox"))?;
    let chrt = Path::new(CHRT);
    if chrt.exists() {
        place(chrt, &root.join("bin/chrt"))?;
        place_libraries(chrt, root)?;
    }
    for step in steps {
        let program = &step.program;
        let inside = root.join(step.inside().trim_start_matches('/'));
        if inside.exists() {
            continue;
        }
        // Debug information is nine tenths of them.
        let stripped = Command::new("strip").arg("-o").arg(&inside).arg(program).status();
        if !stripped.is_ok_and(|status| status.success()) {
            place(program, &inside)?;
        }
        place_libraries(program, root)?;
    }
    let init = root.join("init");
    fs::write(&init, super::guest::init(steps)).with_context(|| format!("write {}", init.display()))?;
    executable(&init)
}

fn place(from: &Path, to: &Path) -> Result<()> {
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    }
    fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    executable(to)
}

fn place_libraries(program: &Path, root: &Path) -> Result<()> {
    for library in libraries(program)? {
        let copy = root.join(library.strip_prefix("/").unwrap_or(&library));
        if !copy.exists() {
            place(&library, &copy)?;
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
