//! `cargo xtask dist`: the guard as one file that needs no library, for this architecture or another.

mod arch;
mod cross;
mod statically;

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::Args;

pub use self::{arch::Arch, statically::WORDS as ALONE};
use crate::{cargo, setup};

#[derive(Args)]
pub struct Options {
    /// For machines of this architecture [default: as this one]
    #[arg(long, value_enum, env = "TARGETARCH")]
    arch: Option<Arch>,
    /// Where to put it [default: target/dist/<ARCH>/canary]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn dist(options: &Options, setup_from: setup::From) -> Result<()> {
    let here = Arch::here().context("the guard is made on x86-64 and on arm64 alone")?;
    let arch = options.arch.unwrap_or(here);
    setup::setup(setup_from)?;
    let mut arguments = vec!["rustc", "--release", "--locked", "--package", "canary-user", "--bin", "canary"];
    let mut variables = Vec::new();
    if arch != here {
        variables = cross(arch, &[])?;
        arguments.extend(["--target", arch.target()]);
    }
    arguments.push("--");
    arguments.extend(ALONE);
    let built = cargo::build_with(&format!("build the guard for {}", arch.debian()), &arguments, &variables)?;
    let canary = built.iter().find(|artifact| artifact.package == "canary-user");
    let canary = &canary.context("cargo built no executable of the package canary-user")?.executable;
    let output = match &options.output {
        Some(output) => output.clone(),
        None => target_directory(canary, arch)?.join("dist").join(arch.debian()).join("canary"),
    };
    copy(canary, &output)?;
    println!("{}", output.display());
    Ok(())
}

/// What cargo has to know to build for another architecture, with `words` for the compiler. What is missing is installed.
pub fn cross(arch: Arch, words: &[&str]) -> Result<Vec<(String, OsString)>> {
    let rustc = cross::ensure(arch)?;
    let of_target = |what: &str| format!("CARGO_TARGET_{}_{what}", arch.target().to_uppercase().replace('-', "_"));
    let mut variables = vec![("RUSTC".to_owned(), rustc.into_os_string()), (of_target("LINKER"), arch.linker().into())];
    if !words.is_empty() {
        variables.push((of_target("RUSTFLAGS"), words.join(" ").into()));
    }
    Ok(variables)
}

/// Of `target/release/canary`, or `target/aarch64-unknown-linux-gnu/release/canary`.
fn target_directory(executable: &Path, arch: Arch) -> Result<PathBuf> {
    let above = executable.ancestors().nth(2).context("the executable lies in target/release")?;
    let own = above.file_name().is_some_and(|name| name == arch.target());
    Ok(if own { above.parent().context("the directory of an architecture lies in target")? } else { above }.to_owned())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    }
    fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_directory_is_found_with_and_without_an_architecture_in_the_path() {
        let of = |path: &str| target_directory(Path::new(path), Arch::Arm64).expect("a path");
        assert_eq!(of("/src/target/release/canary"), Path::new("/src/target"));
        assert_eq!(of("/src/target/aarch64-unknown-linux-gnu/release/canary"), Path::new("/src/target"));
    }
}
