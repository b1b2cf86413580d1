//! What kubectl's kustomize makes of the overlays in `deploy/kubernetes`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

#[path = "../../src/setup/kubectl/find.rs"]
mod find;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// The kubectl that builds, or why there is none.
pub fn kubectl() -> Result<PathBuf, String> {
    find::find(repository())
}

/// The objects of a directory, as they would be applied.
pub fn build(kubectl: &Path, directory: &Path) -> String {
    let output = Command::new(kubectl).arg("kustomize").arg(directory).output().expect("kubectl starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", directory.display());
    assert!(!said.contains("Warning"), "{}: {said}", directory.display());
    String::from_utf8(output.stdout).expect("YAML is UTF-8")
}

/// The directory of an overlay in which components are named, as docs/operations.md says: in a copy below `place`.
pub fn with_components(overlay: &str, components: &[&str], place: &Path) -> PathBuf {
    let copied = Command::new("cp").arg("-r").arg(repository().join("deploy/kubernetes")).arg(place).status();
    assert!(copied.expect("cp starts").success());
    let directory = place.join("kubernetes/overlays").join(overlay);
    let file = directory.join("kustomization.yaml");
    let mut text = fs::read_to_string(&file).expect("each overlay has one");
    assert!(!text.contains("components:"), "{overlay} names some already");
    text += "components:\n";
    for component in components {
        text += &format!("  - ../../components/{component}\n");
    }
    fs::write(&file, text).expect("write the copy");
    directory
}
