//! The programs under test, as cargo built them beside this test: no `CARGO_BIN_EXE_…` reaches another package's tests.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, ensure};

/// `canary` or `canary-demo`. An old one is refused: it would prove nothing about these sources. `cargo xtask test`, which
/// has just built them, says so: what cargo lists beside a program is written by `cargo build` alone.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let build = format!("`cargo build --release --workspace --bins` makes {name}");
    let test = std::env::current_exe().context("find this test's own executable")?;
    let directory = test.parent().and_then(|deps| deps.parent()).context("a test lies in target/<profile>/deps")?;
    let program = directory.join(name);
    let built = fs::metadata(&program).and_then(|m| m.modified()).with_context(|| build.clone())?;
    if std::env::var_os("CANARY_PROGRAMS_ARE_FRESH").is_some() {
        return Ok(program);
    }
    // What cargo wrote beside it: "program: source source …".
    let sources = fs::read_to_string(program.with_extension("d")).with_context(|| build.clone())?;
    for source in sources.split_whitespace().skip(1) {
        let changed = fs::metadata(source).and_then(|m| m.modified()).with_context(|| format!("{source}: {build}"))?;
        ensure!(changed <= built, "{} is older than {source}: {build}", program.display());
    }
    Ok(program)
}
