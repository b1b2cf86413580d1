//! bpf-linker, built against the LLVM of the compiler whose output it links.

use std::{
    fs, os,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::packages;
use crate::{cargo, progress::Step, toolchain, toolchain::Compiler};

const VERSION: &str = "0.13.0";

/// The linker to use, and whether it was already there. One that does not fit is left alone: ours goes beside the repository's build.
pub fn ensure(repository: &Path, compiler: &Compiler) -> Result<(PathBuf, bool)> {
    let found = toolchain::find_linker(repository);
    if let Some(linker) = found.as_ref().filter(|linker| fits(linker, compiler)) {
        return Ok((linker.clone(), true));
    }
    let step = Step::start(format!("bpf-linker {VERSION} for LLVM {}", compiler.llvm_major));
    let llvm = compiler_llvm(&compiler.rustc)?;
    let prefix = link_directory(repository, &llvm)?;
    let mut install = cargo::cargo();
    install.args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force", "--no-default-features"]);
    install.arg("--features").arg(format!("llvm-{}", compiler.llvm_major)).env("LLVM_PREFIX", &prefix);
    // Its release profile has all debug information, which takes time to make and to link.
    install.env("CARGO_PROFILE_RELEASE_DEBUG", "0");
    if found.is_some() {
        install.arg("--root").arg(toolchain::own_linker_root(repository));
    }
    if compiler.way == toolchain::Way::Nightly {
        // rustup's libLLVM is not where the system's loader looks.
        let directory = llvm.parent().context("the compiler's libLLVM has no directory")?;
        install.env("RUSTFLAGS", format!("-Clink-arg=-Wl,-rpath,{}", directory.display()));
    }
    step.command(&mut install)?;
    let linker = toolchain::find_linker(repository)
        .context("bpf-linker is installed, but neither on the PATH nor in $CARGO_HOME/bin: set one of them")?;
    if !fits(&linker, compiler) {
        bail!("{} was just installed but does not run with LLVM {}", linker.display(), compiler.llvm_major);
    }
    step.done(&format!("installed as {}", linker.display()));
    Ok((linker, false))
}

/// Whether it runs at all and, as far as can be told, has the compiler's LLVM. One with its LLVM built in cannot be asked: the probe tells.
fn fits(linker: &Path, compiler: &Compiler) -> bool {
    packages::runs(Command::new(linker).arg("--version"))
        && loaded_llvm(linker).is_none_or(|(major, _)| major == compiler.llvm_major)
}

/// The shared LLVM a compiler uses.
fn compiler_llvm(rustc: &Path) -> Result<PathBuf> {
    let (_, path) = loaded_llvm(rustc).with_context(|| {
        format!("{} has its LLVM built in, so bpf-linker cannot be built against it: install bpf-linker {VERSION} by hand, from its releases", rustc.display())
    })?;
    Ok(path)
}

/// Major version and path of the shared libLLVM that an executable loads, if it does.
fn loaded_llvm(executable: &Path) -> Option<(u32, PathBuf)> {
    let output = Command::new("ldd").arg(executable).env("LC_ALL", "C").output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().find_map(llvm_of_ldd_line)
}

/// Of `libLLVM.so.22.1 => /lib/x86_64-linux-gnu/libLLVM.so.22.1 (0x…)` or `libLLVM-15.so.1 => …`.
fn llvm_of_ldd_line(line: &str) -> Option<(u32, PathBuf)> {
    let (name, rest) = line.trim().split_once(" => ")?;
    let after = name.strip_prefix("libLLVM")?.trim_start_matches(".so").trim_start_matches(['.', '-']);
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    let path = rest.rsplit_once(" (").map_or(rest, |(path, _address)| path);
    Some((digits.parse().ok()?, path.into()))
}

/// What bpf-linker's build takes for an LLVM installation: a directory whose `lib` has a `libLLVM.so`.
fn link_directory(repository: &Path, llvm: &Path) -> Result<PathBuf> {
    let prefix = repository.join(".canary/llvm");
    let lib = prefix.join("lib");
    fs::create_dir_all(&lib).with_context(|| format!("make {}", lib.display()))?;
    let link = lib.join("libLLVM.so");
    match fs::remove_file(&link) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", link.display()));
        }
        _ => {}
    }
    os::unix::fs::symlink(llvm, &link).with_context(|| format!("link {} to {}", link.display(), llvm.display()))?;
    Ok(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_major_version_is_read_from_each_form_of_the_library_name() {
        let of = |line| llvm_of_ldd_line(line).map(|(major, path)| (major, path.display().to_string()));
        assert_eq!(
            of("\tlibLLVM.so.22.1 => /lib/x86_64-linux-gnu/libLLVM.so.22.1 (0x00007f1feca00000)"),
            Some((22, "/lib/x86_64-linux-gnu/libLLVM.so.22.1".to_owned()))
        );
        assert_eq!(
            of("\tlibLLVM.so.22.1-rust-1.97.0-nightly => /n/lib/libLLVM.so.22.1-rust-1.97.0-nightly (0x1)"),
            Some((22, "/n/lib/libLLVM.so.22.1-rust-1.97.0-nightly".to_owned()))
        );
        assert_eq!(
            of("\tlibLLVM-15.so.1 => /lib/libLLVM-15.so.1 (0x1)"),
            Some((15, "/lib/libLLVM-15.so.1".to_owned()))
        );
        assert_eq!(of("\tlibc.so.6 => /lib/libc.so.6 (0x1)"), None);
    }
}
