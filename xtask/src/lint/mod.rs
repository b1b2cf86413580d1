//! `cargo xtask lint`: formatting, clippy for both worlds, and what the dependencies are.

mod dependencies;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    cargo,
    progress::Step,
    setup,
    setup::packages,
    toolchain::{self, Compiler, Way},
};

pub fn lint(setup_from: setup::From) -> Result<()> {
    setup::setup(setup_from)?;
    let outcomes = [
        ("formatting", formatting()),
        ("clippy", clippy()),
        ("kernel programs", kernel_programs()),
        ("dependencies", dependencies()),
    ];
    let mut failed = Vec::new();
    for (name, outcome) in outcomes {
        if let Err(error) = outcome {
            eprintln!("{name}: {error:#}");
            failed.push(name);
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("lint found something in: {}", failed.join(", ")) }
}

fn formatting() -> Result<()> {
    let step = Step::start("formatting");
    step.command(cargo::cargo().args(["fmt", "--all", "--check"]))?;
    for manifest in ["canary-ebpf/Cargo.toml", "fuzz/Cargo.toml"] {
        step.command(cargo::cargo().args(["fmt", "--check", "--manifest-path", manifest]))?;
    }
    step.done("");
    Ok(())
}

fn clippy() -> Result<()> {
    let step = Step::start("clippy of the workspace");
    // In release, as the tests are: build scripts, procedural macros and the bundled SQLite are then made once.
    let arguments = ["clippy", "--release", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
    step.command(cargo::cargo().args(arguments))?;
    step.done("no warnings");
    Ok(())
}

fn kernel_programs() -> Result<()> {
    let repository = cargo::repository();
    let compiler = toolchain::find_compiler().context("setup left no compiler for the kernel programs")?;
    let linker = toolchain::find_linker(&repository).context("setup left no bpf-linker")?;
    let (verb, mut command) = kernel_check(&compiler, &repository, &linker);
    let step = Step::start(format!("{verb} of the kernel programs"));
    // Where canary-user/build.rs has just built them for clippy: what runs on this machine, the macros, is compiled.
    command.args(["--locked", "--target-dir"]).arg(repository.join("target/ebpf"));
    step.command(&mut command)?;
    step.done(if verb == "clippy" {
        "no warnings"
    } else {
        "no compiler warnings; there is no clippy for this compiler"
    });
    Ok(())
}

/// clippy where there is one of the compiler's own version, else `cargo check`.
fn kernel_check(compiler: &Compiler, repository: &Path, linker: &Path) -> (&'static str, Command) {
    let directory = repository.join("canary-ebpf");
    let command = |verb| compiler.cargo(&cargo::executable(), verb, &directory, linker, &["-Dwarnings"]);
    match compiler.way {
        Way::Nightly if packages::runs(Command::new("rustup").args(["run", "nightly", "cargo", "clippy", "-V"])) => {
            ("clippy", command("clippy"))
        }
        Way::Nightly => ("check", command("check")),
        Way::Prebuilt => match prebuilt_clippy(compiler) {
            Some(driver) => {
                let mut command = command("check");
                // What `cargo clippy` does; rustup's cargo would start rustup's clippy, of another version.
                command.env("RUSTC_WORKSPACE_WRAPPER", driver);
                ("clippy", command)
            }
            None => ("check", command("check")),
        },
    }
}

/// The clippy beside the prebuilt compiler (Debian: rust-web-clippy), if it is of the same version.
fn prebuilt_clippy(compiler: &Compiler) -> Option<PathBuf> {
    let driver = compiler.rustc.with_file_name("clippy-driver");
    let output = Command::new(&driver).args(["--rustc", "-vV"]).output().ok()?;
    (output.status.success() && String::from_utf8_lossy(&output.stdout) == compiler.version).then_some(driver)
}

fn dependencies() -> Result<()> {
    if packages::runs(cargo::cargo().args(["deny", "--version"])) {
        let step = Step::start("dependencies by cargo-deny");
        // Not `advisories`: they need their database from the network, and change without a change here.
        for manifest in dependencies::MANIFESTS {
            let arguments =
                ["deny", "--manifest-path", manifest, "check", "--config", "deny.toml", "licenses", "bans", "sources"];
            step.command(cargo::cargo().args(arguments))?;
        }
        step.done("");
        return Ok(());
    }
    let step = Step::start("dependencies (without cargo-deny: licences, bans, duplicates, sources of deny.toml)");
    let looked_at = dependencies::check()?;
    step.done(&format!("{looked_at} packages"));
    Ok(())
}
