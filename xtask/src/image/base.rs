//! An image to compile in, made of what Debian has: for where no registry is asked.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{cargo, dist::Arch, progress::Step, setup::packages, toolchain};

pub const NAME: &str = "canary-builder";
/// Debian's own, and its security updates, which have the compiler.
const SOURCES: &str = "deb http://deb.debian.org/debian bookworm main\n\
                       deb http://deb.debian.org/debian-security bookworm-security main\n";
const PACKAGES: [&str; 5] = ["build-essential", "ca-certificates", "rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];
/// Where the image has cargo's files: as Docker's official image of Rust.
const CARGO_HOME: &str = "/usr/local/cargo";

/// Hands it to Docker, made anew where the crates are others since.
pub fn make(arch: Option<Arch>) -> Result<()> {
    let repository = cargo::repository();
    let here = Arch::here().context("Debian's image is made on x86-64 and on arm64 alone")?;
    let other = arch.filter(|arch| *arch != here);
    let name = other.map_or_else(|| "builder.tar".to_owned(), |other| format!("builder-{}.tar", other.debian()));
    let archive = repository.join(".canary").join(name);
    let locks = [repository.join("Cargo.lock"), repository.join("canary-ebpf/Cargo.lock")];
    if !is_newer(&archive, &locks) {
        debootstrap(&repository, here, other, &archive)?;
    }
    let step = Step::start(format!("image {NAME} of {}", archive.display()));
    let path = format!("ENV PATH={CARGO_HOME}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let home = format!("ENV CARGO_HOME={CARGO_HOME}");
    let changes = ["--change", &path, "--change", &home, "--change", "ENV CARGO_NET_OFFLINE=true"];
    step.command(Command::new("docker").arg("import").args(changes).arg(&archive).arg(NAME))?;
    step.done("");
    Ok(())
}

fn is_newer(file: &Path, than: &[PathBuf]) -> bool {
    let modified = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    modified(file).is_some_and(|made| than.iter().all(|other| modified(other).is_some_and(|changed| changed <= made)))
}

fn debootstrap(repository: &Path, here: Arch, other: Option<Arch>, archive: &Path) -> Result<()> {
    if !packages::runs(Command::new("mmdebstrap").arg("--version")) {
        bail!("there is no mmdebstrap, which makes an image of Debian's packages: apt-get install mmdebstrap");
    }
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cargo"))).context("HOME is not set")?;
    let linker =
        toolchain::find_linker(repository).context("there is no bpf-linker: `cargo xtask setup` installs it")?;
    for manifest in ["Cargo.toml", "canary-ebpf/Cargo.toml"] {
        let step = Step::start(format!("crates of {manifest}"));
        step.command(cargo::cargo().args(["fetch", "--locked", "--manifest-path"]).arg(repository.join(manifest)))?;
        step.done("");
    }
    let step = Step::start(format!("Debian's packages in {}", archive.display()));
    let directory = archive.parent().context("the archive lies in a directory")?;
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    let sources = directory.join("builder.list");
    fs::write(&sources, SOURCES).with_context(|| format!("write {}", sources.display()))?;
    let mut command = Command::new("mmdebstrap");
    let architectures: Vec<&str> = [here].into_iter().chain(other).map(Arch::debian).collect();
    let all: Vec<&str> = PACKAGES.into_iter().chain(other.into_iter().flat_map(Arch::packages)).collect();
    command.args(["--mode=root", "--variant=apt", "--format=tar"]);
    command.arg(format!("--architectures={}", architectures.join(",")));
    command.arg(format!("--include={}", all.join(",")));
    for left_out in ["doc", "man", "locale"] {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{left_out}/*"));
    }
    let hooks = [
        format!("mkdir -p \"$1{CARGO_HOME}/registry\" \"$1{CARGO_HOME}/bin\""),
        format!("copy-in {0}/registry/index {0}/registry/cache {CARGO_HOME}/registry", home.display()),
        format!("copy-in {} {CARGO_HOME}/bin", linker.display()),
    ];
    command.args(hooks.map(|hook| format!("--customize-hook={hook}")));
    // Under another name until it is whole.
    let unfinished = archive.with_extension("unfinished");
    step.command(command.arg("bookworm").arg(&unfinished).arg(&sources))?;
    fs::rename(&unfinished, archive).with_context(|| format!("rename {}", unfinished.display()))?;
    step.done("");
    Ok(())
}
