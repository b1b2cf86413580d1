//! Debian's packages, downloaded by apt and not installed: the kernels, and busybox for the guest's shell.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    cargo,
    dist::Arch,
    progress::Step,
    setup::{download, packages},
};

const PREFIX: &str = "linux-image-";

/// The cloud kernels have NVMe and ext4 built in, so that no initrd is needed.
fn suffix(arch: Arch) -> String {
    format!("-cloud-{}-unsigned", arch.debian())
}

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
pub fn fetch(version: &str, arch: Arch) -> Result<Kernel> {
    if !packages::apt_is_here() {
        bail!("the kernels come from Debian's packages, and there is no apt-get here");
    }
    let package = match newest(version, arch)? {
        Some(package) => package,
        None => {
            let step = Step::start(format!("packages for {} that apt knows", arch.debian()));
            packages::update_with(&step, arch.debian())?;
            step.done("");
            let missing = || format!("apt knows no package {PREFIX}{version}*{}", suffix(arch));
            newest(version, arch)?.with_context(missing)?
        }
    };
    let release = package[PREFIX.len()..].trim_end_matches("-unsigned").to_owned();
    let image = file(&package, arch, &format!("boot/vmlinuz-{release}"))?;
    Ok(Kernel { release, image })
}

pub fn busybox(arch: Arch) -> Result<PathBuf> {
    file("busybox-static", arch, "bin/busybox")
}

fn newest(version: &str, arch: Arch) -> Result<Option<String>> {
    let output = Command::new("apt-cache").args(["pkgnames", &format!("{PREFIX}{version}.")]).output();
    let output = output.context("start apt-cache")?;
    let (names, suffix) = (String::from_utf8_lossy(&output.stdout).into_owned(), suffix(arch));
    Ok(names.lines().filter(|name| name.ends_with(&suffix)).max_by_key(|name| numbers(name)).map(str::to_owned))
}

/// `linux-image-6.1.0-50-cloud-amd64-unsigned` to `[6, 1, 0, 50]`, and what the architecture's name has: numbers that are in order where
/// names are not.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).flat_map(str::parse).collect()
}

/// One file of a package, from the cache or by `apt-get download`.
fn file(package: &str, arch: Arch, path: &str) -> Result<PathBuf> {
    let package = &format!("{package}:{}", arch.debian());
    let version = packages::candidate(package).with_context(|| format!("apt knows no package {package}"))?;
    let kept = directory().join(format!("{package}_{version}").replace(':', "_"));
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
        assert_eq!(numbers("linux-image-6.1.0-50-cloud-amd-unsigned"), [6, 1, 0, 50]);
    }
}
