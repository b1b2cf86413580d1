//! Checkers that are Python programs, each installed by pip into a place of its own. Shared with tests/tests/api.rs.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The program of this name, made of `requirement` where it is not there yet.
///
/// # Errors
/// Why it cannot be had here, in words for who reads that a test was skipped.
pub fn program(name: &str, requirement: &str) -> Result<PathBuf, String> {
    // Each package lies in a directory of the workspace.
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.canary").join(name);
    let program = place.join("bin").join(name);
    if program.exists() {
        return Ok(program);
    }
    let venv = place.display().to_string();
    run(Path::new("python3"), &["-m", "venv", &venv])
        .map_err(|why| format!("no Python environment for {name}: {why}"))?;
    run(&place.join("bin/pip"), &["install", "--quiet", requirement])
        .map_err(|why| format!("pip cannot install {name}: {why}"))?;
    Ok(program)
}

fn run(program: &Path, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|e| format!("{}: {e}", program.display()))?;
    let last = String::from_utf8_lossy(&output.stderr).trim().lines().last().unwrap_or_default().to_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{}: {last}", program.display())) }
}
