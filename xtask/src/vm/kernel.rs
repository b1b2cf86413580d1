//! Debian's packages, downloaded by apt and not installed: the kernels, and busybox for the guest's shell.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    cargo,
    progress::Step,
    setup::{download, packages},
};

/// The cloud kernels have NVMe and ext4 built in, so that no initrd is needed.
const SUFFIX: &str = "-cloud-amd64-unsigned";
const PREFIX: &str = "linux-image-";

pub struct Kernel {
    /// As `uname -r` says it.
    pub release: String,
    pub image: PathBuf,
}

/// Where downloads, the guest's disk and the kernels' logs are kept.
pub fn directory() -> PathBuf {
    cargo::repository().join(".canary/vm")
}

/// The newest of the packaged kernels whose version begins with `version`.
pub fn fetch(version: &str) -> Result<Kernel> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("the kernels are Debian's for amd64, and this machine is {}", std::env::consts::ARCH);
    }
    if !packages::apt_is_here() {
        bail!("the kernels come from Debian's packages, and there is no apt-get here");
    }
    let package = match newest(version)? {
        Some(package) => package,
        None => {
            let step = Step::start("packages that apt knows");
            packages::update(&step)?;
            step.done("");
            newest(version)?.with_context(|| format!("apt knows no package {PREFIX}{version}*{SUFFIX}"))?
        }
    };
    let release = package[PREFIX.len()..].trim_end_matches("-unsigned").to_owned();
    let image = file(&package, &format!("boot/vmlinuz-{release}"))?;
    Ok(Kernel { release, image })
}

pub fn busybox() -> Result<PathBuf> {
    file("busybox-static", "bin/busybox")
}

fn newest(version: &str) -> Result<Option<String>> {
    let output = Command::new("apt-cache").args(["pkgnames", &format!("{PREFIX}{version}.")]).output();
    let output = output.context("start apt-cache")?;
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(names.lines().filter(|name| name.ends_with(SUFFIX)).max_by_key(|name| numbers(name)).map(str::to_owned))
}

/// `linux-image-6.1.0-50-cloud-amd64-unsigned` to `[6, 1, 0, 50]`: numbers that are in order where names are not.
fn numbers(name: &str) -> Vec<u64> {
    name.trim_end_matches(SUFFIX).split(|c: char| !c.is_ascii_digit()).flat_map(str::parse).collect()
}

/// One file of a package, from the cache or by `apt-get download`.
fn file(package: &str, path: &str) -> Result<PathBuf> {
    let version = packages::candidate(package).with_context(|| format!("apt knows no package {package}"))?;
    let kept = directory().join(format!("{package}_{}", version.replace(':', "_")));
    let wanted = kept.join(Path::new(path).file_name().context("the path of a file ends in its name")?);
    if wanted.exists() {
        return Ok(wanted);
    }
    let step = Step::start(format!("download {package} {version}"));
    download::file(&step, None, package, path, &wanted)?;
    step.done("");
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_found_by_numbers() {
        let older = "linux-image-6.12.9+deb12-cloud-amd64-unsigned";
        let newer = "linux-image-6.12.117+deb12-cloud-amd64-unsigned";
        assert!(numbers(newer) > numbers(older) && newer < older);
        assert_eq!(numbers("linux-image-6.1.0-50-cloud-amd64-unsigned"), [6, 1, 0, 50]);
    }
}
