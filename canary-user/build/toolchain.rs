//! Which compiler and which linker make the kernel programs, and how they are called.
//!
//! Included by `canary-user/build.rs` and by `xtask`, so that what `cargo xtask setup` provides is what the build looks for.
//!
//! The BPF target has no prebuilt `core` in stable Rust. Two compilers can help, looked for in this order:
//! a rustup nightly with `rust-src` (builds `core` itself), or a system rustc whose sysroot holds a prebuilt `core`
//! (Debian's `rustc-web` with `libstd-rust-web-dev-bpf`). Nothing here installs anything.

use std::{
    env,
    fmt::{self, Display},
    path::{Path, PathBuf},
    process::Command,
};

pub const TARGET: &str = "bpfel-unknown-none";

/// The LLVM major versions bpf-linker 0.13 can be built for. Its LLVM has to be the compiler's.
pub const LLVM_MAJORS: std::ops::RangeInclusive<u32> = 21..=23;

/// A compiler that has, or can build, `core` for [`TARGET`].
#[derive(Debug, Clone)]
pub struct Compiler {
    pub way: Way,
    /// The executable itself, not rustup's proxy.
    pub rustc: PathBuf,
    /// All of `rustc -vV`: it identifies the compiler.
    pub version: String,
    pub llvm_major: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// rustup's nightly with `rust-src`.
    Nightly,
    /// A rustc with a prebuilt `core` for the target.
    Prebuilt,
}

impl Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let release = self.version.lines().next().unwrap_or("rustc of unknown version");
        write!(f, "{release} (LLVM {}) at {}", self.llvm_major, self.rustc.display())
    }
}

/// The compiler the kernel programs are built with, if this machine has one. `CANARY_BPF_RUSTC` names one by hand.
pub fn find_compiler() -> Option<Compiler> {
    if let Some(rustc) = env::var_os("CANARY_BPF_RUSTC") {
        return inspect(Way::Prebuilt, rustc.into());
    }
    nightly().or_else(prebuilt)
}

fn nightly() -> Option<Compiler> {
    // `rustup run` and not `rustc +nightly`: the latter may install a toolchain just for being asked.
    let sysroot = sysroot(Command::new("rustup").args(["run", "nightly", "rustc"]))?;
    let has_source = sysroot.join("lib/rustlib/src/rust/library/core").is_dir();
    has_source.then(|| inspect(Way::Nightly, sysroot.join("bin/rustc")))?
}

fn prebuilt() -> Option<Compiler> {
    ["/usr/bin/rustc", "/usr/local/bin/rustc"].into_iter().find_map(|rustc| {
        let sysroot = sysroot(&mut Command::new(rustc))?;
        // The directory alone may be a leftover of a removed package.
        let has_core = sysroot.join("lib/rustlib").join(TARGET).join("lib").read_dir().ok()?.flatten().any(|entry| {
            let name = entry.file_name();
            name.to_string_lossy().starts_with("libcore-")
        });
        has_core.then(|| inspect(Way::Prebuilt, rustc.into()))?
    })
}

/// None when the compiler does not run, or when bpf-linker has no feature for its LLVM.
fn inspect(way: Way, rustc: PathBuf) -> Option<Compiler> {
    let output = without_cargo(&mut Command::new(&rustc)).arg("-vV").output().ok()?;
    let version = String::from_utf8_lossy(&output.stdout).into_owned();
    let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    let llvm_major = llvm.split('.').next()?.parse().ok()?;
    (output.status.success() && LLVM_MAJORS.contains(&llvm_major)).then_some(Compiler {
        way,
        rustc,
        version,
        llvm_major,
    })
}

fn sysroot(rustc: &mut Command) -> Option<PathBuf> {
    let output = without_cargo(rustc).args(["--print", "sysroot"]).output().ok()?;
    output.status.success().then(|| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// Where a bpf-linker of this repository's own is installed when the one on the PATH does not fit the compiler.
pub fn own_linker_root(repository: &Path) -> PathBuf {
    repository.join(".canary/tools")
}

/// The linker the kernel programs are built with: the repository's own, the one on the PATH, or where `cargo install` puts it.
pub fn find_linker(repository: &Path) -> Option<PathBuf> {
    let own = own_linker_root(repository).join("bin");
    let path = env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = vec![own];
    directories.extend(env::split_paths(&path));
    directories.extend(cargo_home().map(|home| home.join("bin")));
    directories.into_iter().map(|directory| directory.join("bpf-linker")).find(|file| file.is_file())
}

fn cargo_home() -> Option<PathBuf> {
    let named = env::var_os("CARGO_HOME").map(PathBuf::from);
    named.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
}

impl Compiler {
    /// `cargo <verb> --release` for the BPF target in the crate at `directory`; more arguments may follow.
    /// `cargo` is the executable to use with a prebuilt compiler; a nightly brings its own.
    pub fn cargo(&self, cargo: &Path, verb: &str, directory: &Path, linker: &Path, extra_flags: &[&str]) -> Command {
        let mut command = match self.way {
            Way::Nightly => Command::new("rustup"),
            Way::Prebuilt => Command::new(cargo),
        };
        without_cargo(&mut command).current_dir(directory);
        match self.way {
            Way::Nightly => {
                command.args(["run", "nightly", "cargo", verb, "-Z", "build-std=core"]);
            }
            // aya-ebpf needs unstable features on the BPF target; the prebuilt compiler is a stable one.
            Way::Prebuilt => {
                command.arg(verb).env("RUSTC", &self.rustc).env("RUSTC_BOOTSTRAP", "1");
            }
        }
        command.args(["--release", "--target", TARGET]);
        let linker = format!("-Clinker={}", linker.display());
        let mut flags = vec!["-Cdebuginfo=2", "-Clink-arg=--btf", &linker];
        flags.extend(extra_flags);
        command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        command
    }
}

/// What the cargo around us says about itself must not reach a compiler or a cargo for another target. (aya's build scripts ask to
/// run again where `HOST` changes, which only a build script is told.)
fn without_cargo(command: &mut Command) -> &mut Command {
    for name in [
        "CARGO",
        "CARGO_BUILD_TARGET",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_TARGET_DIR",
        "CLIPPY_ARGS",
        "HOST",
        "RUSTC",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
    ] {
        command.env_remove(name);
    }
    command
}
