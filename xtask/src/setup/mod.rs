//! `cargo xtask setup`: makes this machine able to build the kernel programs.
//!
//! Each step first looks whether it is needed. What is looked for is what `canary-user/build.rs` looks for: both use `toolchain`.

mod compiler;
pub mod download;
pub mod kubectl;
mod linker;
pub mod packages;
mod probe;

use anyhow::Result;
use clap::ValueEnum;

use crate::{cargo, toolchain};

/// Where a missing compiler for the BPF target may come from; one that is there is used as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum From {
    /// rustup if it can download, else Debian packages
    #[default]
    Any,
    /// A rustup nightly with rust-src
    Rustup,
    /// Debian's rustc-web and libstd-rust-web-dev-bpf
    Debian,
}

pub fn setup(from: From) -> Result<()> {
    let repository = cargo::repository();
    let had_cc = packages::ensure_c_compiler()?;
    let found = toolchain::find_compiler();
    let had_compiler = found.is_some();
    let compiler = match found {
        Some(compiler) => compiler,
        None => compiler::install(from)?,
    };
    let (linker, had_linker) = linker::ensure(&repository, &compiler)?;
    let had_probe = probe::ensure(&repository, &compiler, &linker)?;
    if had_cc && had_compiler && had_linker && had_probe {
        eprintln!("setup: nothing to do; {compiler}, {}", linker.display());
    }
    Ok(())
}
