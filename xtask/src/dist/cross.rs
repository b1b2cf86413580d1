//! What it takes to build for another architecture: a linker with its C library, and a compiler that has `std` for it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::Arch;
use crate::{cargo, progress::Step, setup::packages};

/// The compiler to use. What is missing is installed by apt, as `setup` does it.
pub fn ensure(arch: Arch) -> Result<PathBuf> {
    if let Some(rustc) = found(arch) {
        return Ok(rustc);
    }
    let needed = arch.packages();
    let by_hand = format!(
        "by hand, on Debian 12 with its security updates: dpkg --add-architecture {0} && apt-get update && apt-get install rustc-web {1}; \
         else `rustup target add {2}` and {3} with its C library, on the PATH",
        arch.debian(),
        needed.join(" "),
        arch.target(),
        arch.linker()
    );
    if !packages::apt_is_here() {
        bail!("what it takes to build for {} is not here, and neither is apt-get; {by_hand}", arch.debian());
    }
    let step = Step::start(format!("what it takes to build for {}", arch.debian()));
    let all: Vec<&str> = ["rustc-web"].into_iter().chain(needed).collect();
    packages::install_of(&step, arch.debian(), &all).with_context(|| by_hand.clone())?;
    step.done(&format!("{} installed", all.join(", ")));
    found(arch).with_context(|| format!("installed, and still there is no compiler or no linker; {by_hand}"))
}

/// Where the linker runs: the first compiler that has `std` for the architecture.
fn found(arch: Arch) -> Option<PathBuf> {
    if !packages::runs(Command::new(arch.linker()).arg("--version")) {
        return None;
    }
    let beside_cargo = cargo::executable().with_file_name("rustc");
    [beside_cargo.as_path(), Path::new("/usr/bin/rustc")]
        .into_iter()
        .find(|rustc| has_std(rustc, arch))
        .map(Path::to_owned)
}

fn has_std(rustc: &Path, arch: Arch) -> bool {
    let output = Command::new(rustc).args(["--print", "target-libdir", "--target", arch.target()]).output();
    let Ok(output) = output else { return false };
    let directory = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let mut files = directory.read_dir().into_iter().flatten().flatten();
    output.status.success() && files.any(|file| file.file_name().to_string_lossy().starts_with("libstd-"))
}
