//! Builds the kernel programs for the BPF target and hands their path to the crate that embeds them (`CANARY_EBPF_OBJECT`).

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

#[path = "build/toolchain.rs"]
#[allow(dead_code, reason = "shared with xtask, which uses the rest")]
mod toolchain;

fn main() {
    let repository = PathBuf::from(var("CARGO_MANIFEST_DIR")).join("..");
    let ebpf = repository.join("canary-ebpf");
    for path in ["src", "Cargo.toml", "Cargo.lock", "../canary-common/src", "../canary-common/Cargo.toml"] {
        rerun_if_changed(&ebpf.join(path));
    }
    println!("cargo::rerun-if-env-changed=CANARY_BPF_RUSTC");

    let compiler = toolchain::find_compiler().unwrap_or_else(|| {
        let majors = toolchain::LLVM_MAJORS;
        fail(&format!(
            "no compiler here has `core` for {} and an LLVM from {} to {}",
            toolchain::TARGET,
            majors.start(),
            majors.end()
        ))
    });
    let linker = toolchain::find_linker(&repository).unwrap_or_else(|| fail("bpf-linker is missing"));
    // Not the PATH itself: it differs between a plain cargo and one called by `cargo xtask`, and would rebuild for nothing.
    rerun_if_changed(&compiler.rustc);
    rerun_if_changed(&linker);

    // One for the whole workspace, as `cargo xtask lint` has it: clippy and each profile have a run of this script to themselves,
    // for the same programs. OUT_DIR is TARGET/PROFILE/build/PACKAGE/out.
    let out_dir = PathBuf::from(var("OUT_DIR"));
    let target_dir = out_dir.ancestors().nth(4).unwrap_or(&out_dir).join("ebpf");
    let output = compiler
        .cargo(Path::new(&var("CARGO")), "build", &ebpf, &linker, &[])
        .args(["--locked", "--target-dir"])
        .arg(&target_dir)
        .output()
        .unwrap_or_else(|e| fail(&format!("cannot start cargo for the kernel programs: {e}")));
    if !output.status.success() {
        let messages = String::from_utf8_lossy(&output.stderr);
        fail(&format!("the kernel programs do not build with {compiler} and {}:\n{messages}", linker.display()));
    }
    let built = target_dir.join(toolchain::TARGET).join("release/canary-ebpf");
    // What is embedded changes with a run of this script alone: cargo would not notice another build's.
    let object = out_dir.join("canary-ebpf");
    fs::copy(&built, &object)
        .unwrap_or_else(|e| fail(&format!("cannot copy {} to {}: {e}", built.display(), object.display())));
    println!("cargo::rustc-env=CANARY_EBPF_OBJECT={}", object.display());
}

fn rerun_if_changed(path: &Path) {
    println!("cargo::rerun-if-changed={}", path.display());
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
