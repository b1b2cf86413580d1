//! The kubectl that builds and applies `deploy/kubernetes`. Shared with the tests that do.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// The first whose kustomize knows components.
const OLDEST: (u32, u32) = (1, 21);

/// Where `cargo xtask setup --kubectl` puts one.
pub fn own(repository: &Path) -> PathBuf {
    repository.join(".canary/tools/bin/kubectl")
}

/// That of the PATH where it is new enough, else our own.
///
/// # Errors
/// Why there is none, in words for who reads that a test was skipped.
pub fn find(repository: &Path) -> Result<PathBuf, String> {
    let mut why = "there is no kubectl here".to_owned();
    for kubectl in [PathBuf::from("kubectl"), own(repository)] {
        let Some((major, minor)) = version(&kubectl) else { continue };
        if (major, minor) >= OLDEST {
            return Ok(kubectl);
        }
        why = format!("kubectl is {major}.{minor} here, and knows components from {}.{} on", OLDEST.0, OLDEST.1);
    }
    Err(format!("{why} (`cargo xtask setup --kubectl` installs one)"))
}

/// `None` where it does not run.
fn version(kubectl: &Path) -> Option<(u32, u32)> {
    let output = Command::new(kubectl).args(["version", "--client", "--output", "json"]).output().ok()?;
    if output.status.success() { told(&output.stdout) } else { None }
}

/// Of what `kubectl version --client --output json` prints.
pub(super) fn told(json: &[u8]) -> Option<(u32, u32)> {
    let said: Value = serde_json::from_slice(json).ok()?;
    // Some write `32+` for what they changed.
    let number = |key: &str| -> Option<u32> { said["clientVersion"][key].as_str()?.trim_end_matches('+').parse().ok() };
    Some((number("major")?, number("minor")?))
}
