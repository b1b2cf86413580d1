//! kubectl, for the tests that build and apply `deploy/kubernetes`. Debian 12 has one that is too old for them; that of
//! Debian 13 runs there, too.

mod find;

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};

use super::{download, packages};
use crate::{cargo, progress::Step};

const PACKAGE: &str = "kubectl";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const BY_HAND: &str = "by hand: kubectl 1.21 or newer on the PATH (https://kubernetes.io/docs/tasks/tools/)";

/// Put beside the repository's build where there is none that is new enough; nothing is installed on the machine.
pub fn ensure() -> Result<()> {
    let repository = cargo::repository();
    if find::find(&repository).is_ok() {
        return Ok(());
    }
    if !packages::apt_is_here() {
        bail!("kubectl is missing or too old, and there is no apt-get to download Debian's; {BY_HAND}");
    }
    if !Path::new(KEYRING).exists() {
        bail!(
            "kubectl is missing or too old, and Debian's could not be verified without {KEYRING}: apt-get install \
             debian-archive-keyring; {BY_HAND}"
        );
    }
    let step = Step::start("kubectl of Debian 13");
    let sources = format!("deb [signed-by={KEYRING} target=Packages] http://deb.debian.org/debian trixie main\n");
    let kubectl = find::own(&repository);
    download::file(&step, Some(&sources), PACKAGE, "usr/bin/kubectl", &kubectl)
        .with_context(|| format!("download Debian's {PACKAGE}; {BY_HAND}"))?;
    find::find(&repository)
        .map_err(|_| anyhow!("{} was just downloaded and does not run here; {BY_HAND}", kubectl.display()))?;
    step.done(&format!("installed as {}", kubectl.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::find::told;

    #[test]
    fn the_version_is_read_from_what_kubectl_prints() {
        let prints = |major: &str, minor: &str| {
            let version = serde_json::json!({ "major": major, "minor": minor, "gitVersion": "v0.0.0" });
            serde_json::json!({ "clientVersion": version, "kustomizeVersion": "v5.5.0" }).to_string()
        };
        assert_eq!(told(prints("1", "32").as_bytes()), Some((1, 32)));
        assert_eq!(told(prints("1", "20+").as_bytes()), Some((1, 20)), "of who changed it");
        assert_eq!(told(prints("", "").as_bytes()), None, "built without a version");
        assert_eq!(told(b"Client Version: v1.32.3"), None);
    }
}
