//! What a package has beside the binary and is written by the binary: manual pages and completions.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

/// Writes them into `deb/` beside the binary, where canary-user/Cargo.toml has cargo-deb look.
///
/// # Errors
/// If the binary fails, or the directory cannot be written to.
pub fn write(canary: &Path) -> Result<()> {
    let directory = canary.parent().context("the binary lies in a directory")?.join("deb");
    if directory.exists() {
        // Pages of verbs that are no more.
        fs::remove_dir_all(&directory).with_context(|| format!("remove {}", directory.display()))?;
    }
    let run = |arguments: &[&str]| -> Result<Vec<u8>> {
        let output = Command::new(canary).args(arguments).output();
        let output = output.with_context(|| format!("start {}", canary.display()))?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(output.stdout)
    };
    run(&["man", &directory.join("man").display().to_string()])?;
    for (shell, name) in [("bash", "canary"), ("zsh", "_canary"), ("fish", "canary.fish")] {
        let path = directory.join(name);
        fs::write(&path, run(&["completions", shell])?).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}
