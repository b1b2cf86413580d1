//! `cargo xtask image`: the container image, by the machine's Docker and deploy/Dockerfile.

mod base;

use std::process::Command;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::{cargo, dist::Arch, progress::Step, setup::packages};

/// As docs/operations.md and the manifests have it.
const TAG: &str = "canary-guard:0.1.0";

#[derive(Args)]
pub struct Options {
    /// For machines of this architecture [default: as this one]
    #[arg(long, value_enum)]
    arch: Option<Arch>,
    /// Where the image comes from in which the guard is compiled
    #[arg(long, value_enum, default_value_t)]
    base: Base,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Base {
    /// The one that deploy/Dockerfile names, from a registry
    #[default]
    Registry,
    /// Made here of Debian's packages (by mmdebstrap, as root) and of the crates that this machine has: no registry is asked
    Debian,
}

pub fn image(options: &Options) -> Result<()> {
    if !packages::runs(Command::new("docker").arg("version")) {
        bail!("`docker version` fails: there is no Docker, or no daemon that it reaches (DOCKER_HOST names one)");
    }
    let mut command = Command::new("docker");
    command.current_dir(cargo::repository()).args(["build", "--file", "deploy/Dockerfile", "--tag", TAG]);
    if let Some(arch) = options.arch {
        // BuildKit derives the one from the other; Docker's older builder does not.
        command.args(["--platform", &format!("linux/{}", arch.debian())]);
        command.args(["--build-arg", &format!("TARGETARCH={}", arch.debian())]);
    }
    if options.base == Base::Debian {
        base::make(options.arch)?;
        // What it takes is there: nothing is fetched.
        command.args(["--network", "none", "--build-arg", &format!("BASE={}", base::NAME)]);
    }
    let step = Step::start("build the image");
    step.command(command.arg("."))?;
    step.done(TAG);
    Ok(())
}
