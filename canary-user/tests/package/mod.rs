//! Makes the package as `cargo xtask deb` does, of an executable of this build.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

#[path = "../../../xtask/src/deb/extras.rs"]
mod extras;

/// Where `cargo xtask deb` puts cargo-deb, or where the PATH has it.
fn find_cargo_deb(repository: &Path) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let own = repository.join(".canary/tools/bin");
    [own].into_iter().chain(env::split_paths(&path)).map(|dir| dir.join("cargo-deb")).find(|file| file.is_file())
}

/// The package of the guard `canary`, in `dir`; `None` where it cannot be made here, after saying why.
pub fn make(test: &str, repository: &Path, canary: &Path, dir: &Path) -> anyhow::Result<Option<PathBuf>> {
    let Some(cargo_deb) = find_cargo_deb(repository) else {
        println!("SKIP {test}: there is no cargo-deb here (`cargo xtask setup --deb` installs it)");
        return Ok(None);
    };
    if Command::new("dpkg-deb").arg("--version").output().is_err() {
        println!("SKIP {test}: there is no dpkg-deb here");
        return Ok(None);
    }
    // cargo-deb takes the executable from the target directory: this one has the one under test.
    let release = dir.join("target/release");
    fs::create_dir_all(&release).with_context(|| format!("make {}", release.display()))?;
    let binary = release.join("canary");
    // By another process: what this one writes while a test beside it forks could not be executed.
    run(Command::new("cp").arg(canary).arg(&binary))?;
    extras::write(&binary)?;
    let package = dir.join("canary-guard.deb");
    let mut command = Command::new(cargo_deb);
    // The fastest compression there is: the content is looked at, not the size.
    command.args(["--package", "canary-user", "--no-build", "--locked", "--offline", "--strip", "--fast", "--output"]);
    run(command.arg(&package).current_dir(repository).env("CARGO_TARGET_DIR", dir.join("target")))?;
    Ok(Some(package))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
