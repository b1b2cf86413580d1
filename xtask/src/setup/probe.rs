//! The proof that compiler and linker fit: a small program for the BPF target, really compiled and linked.
//!
//! Not the kernel programs themselves: an error in those is not an error of the machine.

use std::{fs, path::Path, time::UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use crate::{
    cargo,
    progress::Step,
    toolchain::{Compiler, TARGET},
};

const MANIFEST: &str = r#"[package]
name = "probe"
version = "0.0.0"
edition = "2024"

[workspace]

[profile.release]
panic = "abort"
lto = true
codegen-units = 1
"#;

/// Takes in code of `core`, so that the linker has to read bitcode the compiler's `core` was shipped or built as.
const SOURCE: &str = r#"#![no_std]
#![no_main]

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "socket")]
pub extern "C" fn probe(context: *const u32) -> u64 {
    (context as u64).rotate_left(7).leading_zeros().into()
}
"#;

/// True when this very pair has passed before.
pub fn ensure(repository: &Path, compiler: &Compiler, linker: &Path) -> Result<bool> {
    let directory = repository.join(".canary/probe");
    let passed = directory.join("passed");
    let pair = pair(compiler, linker)?;
    if fs::read_to_string(&passed).is_ok_and(|text| text == pair) {
        return Ok(true);
    }
    let step = Step::start("compile and link a program for the kernel");
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    };
    fs::create_dir_all(directory.join("src")).with_context(|| format!("make {}", directory.display()))?;
    write("Cargo.toml", MANIFEST)?;
    write("src/main.rs", SOURCE)?;
    let target_dir = directory.join("target");
    let object = target_dir.join(TARGET).join("release/probe");
    // cargo does not see that a linker was replaced under the same name.
    if object.exists() {
        fs::remove_dir_all(&target_dir).with_context(|| format!("remove {}", target_dir.display()))?;
    }
    let mut build = compiler.cargo(&cargo::executable(), "build", &directory, linker, &[]);
    build.arg("--target-dir").arg(&target_dir);
    step.command(&mut build)
        .with_context(|| format!("{compiler} and {} do not make a program for the kernel", linker.display()))?;
    let bytes = fs::read(&object).with_context(|| format!("read {}", object.display()))?;
    // ELF, little-endian, machine 247 (EM_BPF).
    ensure!(
        bytes.starts_with(b"\x7fELF") && bytes.get(18..20) == Some(&[247, 0]),
        "{} is no BPF object",
        object.display()
    );
    write("passed", &pair)?;
    step.done(&format!("{compiler}, {}", linker.display()));
    Ok(false)
}

/// What identifies the pair: the compiler's version and the linker's file.
fn pair(compiler: &Compiler, linker: &Path) -> Result<String> {
    let metadata = fs::metadata(linker).with_context(|| format!("look at {}", linker.display()))?;
    let modified = metadata.modified().context("read the time of a file")?;
    let modified_ns = modified.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_nanos());
    Ok(format!(
        "{}\n{}{} {} {modified_ns}",
        compiler.rustc.display(),
        compiler.version,
        linker.display(),
        metadata.len()
    ))
}
