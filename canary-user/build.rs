//! Builds the kernel programs for the BPF target and hands their path to the crate that embeds them.
//!
//! The BPF target has no prebuilt `core` in stable Rust. Two compilers can help, looked for in this order:
//! a rustup nightly with `rust-src` (builds `core` itself), or a system rustc whose sysroot holds a prebuilt `core`
//! (Debian's `rustc-web` with `libstd-rust-web-dev-bpf`). `cargo xtask setup` installs whichever can be had.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

const TARGET: &str = "bpfel-unknown-none";

/// A compiler that has, or can build, `core` for the BPF target.
enum Compiler {
    Nightly,
    Prebuilt(PathBuf),
}

fn main() {
    let manifest_dir = PathBuf::from(var("CARGO_MANIFEST_DIR"));
    let ebpf = manifest_dir.join("../canary-ebpf");
    for path in ["src", "Cargo.toml", "Cargo.lock", "../canary-common/src"] {
        println!("cargo::rerun-if-changed={}", ebpf.join(path).display());
    }
    println!("cargo::rerun-if-env-changed=CANARY_BPF_RUSTC");
    println!("cargo::rerun-if-env-changed=PATH");

    let compiler = find_compiler().unwrap_or_else(|| {
        fail(&format!("no compiler here has `core` for {TARGET}"));
    });
    let linker = find_linker().unwrap_or_else(|| fail("bpf-linker is missing"));

    let target_dir = PathBuf::from(var("OUT_DIR")).join("ebpf");
    let mut cargo = Command::new(var("CARGO"));
    cargo
        .current_dir(&ebpf)
        .args(["build", "--release", "--locked", "--target", TARGET, "--target-dir"])
        .arg(&target_dir);
    // What cargo tells this build script about itself must not reach the inner build.
    for name in ["RUSTC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS", "CARGO_TARGET_DIR"] {
        cargo.env_remove(name);
    }
    match &compiler {
        Compiler::Nightly => {
            // Through rustup's proxy, so that cargo and rustc are of the same toolchain.
            cargo = {
                let mut proxy = Command::new("cargo");
                proxy.current_dir(&ebpf).arg("+nightly").args(cargo.get_args()).args(["-Z", "build-std=core"]);
                for name in [
                    "RUSTC",
                    "RUSTC_WRAPPER",
                    "RUSTC_WORKSPACE_WRAPPER",
                    "RUSTFLAGS",
                    "CARGO_TARGET_DIR",
                    "RUSTUP_TOOLCHAIN",
                    "CARGO",
                ] {
                    proxy.env_remove(name);
                }
                proxy
            };
        }
        Compiler::Prebuilt(rustc) => {
            // aya-ebpf needs unstable features on the BPF target; the prebuilt compiler is a stable one.
            cargo.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
        }
    }
    let flags = ["-Cdebuginfo=2".to_owned(), "-Clink-arg=--btf".to_owned(), format!("-Clinker={}", linker.display())];
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));

    let output = cargo.output().unwrap_or_else(|e| fail(&format!("cannot start cargo for the kernel programs: {e}")));
    if !output.status.success() {
        fail(&format!("the kernel programs do not build:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    let object = target_dir.join(TARGET).join("release/canary-ebpf");
    println!("cargo::rustc-env=CANARY_EBPF_OBJECT={}", object.display());
}

fn find_compiler() -> Option<Compiler> {
    if let Some(rustc) = env::var_os("CANARY_BPF_RUSTC") {
        return Some(Compiler::Prebuilt(rustc.into()));
    }
    let nightly_sysroot = sysroot("rustc", &["+nightly"]);
    if nightly_sysroot.is_some_and(|s| s.join("lib/rustlib/src/rust/library/core").is_dir()) {
        return Some(Compiler::Nightly);
    }
    ["/usr/bin/rustc", "/usr/local/bin/rustc"]
        .into_iter()
        .find(|rustc| {
            Path::new(rustc).is_file()
                && sysroot(rustc, &[]).is_some_and(|s| s.join("lib/rustlib").join(TARGET).is_dir())
        })
        .map(|rustc| Compiler::Prebuilt(rustc.into()))
}

fn sysroot(rustc: &str, first: &[&str]) -> Option<PathBuf> {
    let mut command = Command::new(rustc);
    command.args(first).args(["--print", "sysroot"]);
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTC");
    let output = command.output().ok()?;
    output.status.success().then(|| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// On the PATH, or where `cargo install` puts it.
fn find_linker() -> Option<PathBuf> {
    let on_path = env::var_os("PATH").unwrap_or_default();
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    env::split_paths(&on_path)
        .chain(home.map(|h| h.join("bin")))
        .map(|dir| dir.join("bpf-linker"))
        .find(|path| path.is_file())
}

fn var(name: &str) -> OsString {
    env::var_os(name).unwrap_or_else(|| fail(&format!("cargo did not set {name}")))
}

fn fail(what: &str) -> ! {
    for line in what.lines() {
        println!("cargo::error={line}");
    }
    println!("cargo::error=run `cargo xtask setup`: it installs what the kernel programs need");
    std::process::exit(1)
}
