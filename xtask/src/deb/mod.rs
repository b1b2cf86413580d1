//! `cargo xtask deb`: a Debian package of the guard, made by cargo-deb of what canary-user/Cargo.toml says.

mod extras;

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{cargo, progress::Step, setup, toolchain};

const VERSION: &str = "3.8.0";

pub fn deb(setup_from: setup::From) -> Result<()> {
    setup::setup(setup_from)?;
    let cargo_deb = cargo_deb()?;
    let arguments = ["build", "--release", "--locked", "--package", "canary-user", "--bin", "canary"];
    let built = cargo::build("build the guard", &arguments)?;
    let canary = built.iter().find(|artifact| artifact.package == "canary-user");
    let canary = &canary.context("cargo built no executable of the package canary-user")?.executable;
    let step = Step::start("make the Debian package");
    extras::write(canary)?;
    let mut command = Command::new(&cargo_deb);
    command.current_dir(cargo::repository()).env("CARGO", cargo::executable());
    let output = command
        .args(["--package", "canary-user", "--no-build", "--locked", "--strip"])
        .output()
        .with_context(|| format!("start {}", cargo_deb.display()))?;
    ensure!(output.status.success(), "{command:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    step.done("");
    // The package's path.
    print!("{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

/// cargo-deb, installed where it is missing.
pub fn cargo_deb() -> Result<PathBuf> {
    let repository = cargo::repository();
    find(&repository).map_or_else(|| install(&repository), Ok)
}

/// The repository's own, or one on the PATH.
fn find(repository: &Path) -> Option<PathBuf> {
    let own = toolchain::own_linker_root(repository).join("bin");
    let path = env::var_os("PATH").unwrap_or_default();
    [own].into_iter().chain(env::split_paths(&path)).map(|dir| dir.join("cargo-deb")).find(|file| file.is_file())
}

fn install(repository: &Path) -> Result<PathBuf> {
    let step = Step::start(format!("cargo-deb {VERSION}"));
    let mut install = cargo::cargo();
    install.args(["install", "cargo-deb", "--version", VERSION, "--locked", "--root"]);
    step.command(install.arg(toolchain::own_linker_root(repository)))?;
    let installed = find(repository).context("cargo-deb was installed, and is not where it belongs")?;
    step.done(&format!("installed as {}", installed.display()));
    Ok(installed)
}
