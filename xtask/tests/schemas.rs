//! The manifests against the JSON schemas of Kubernetes itself, in several of its versions: the tool brings them along and
//! asks nobody.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

mod venv;

/// The release of the tool that was tried with these versions.
const TOOL: &str = "kubernetes-validate==1.37.*";
const VERSIONS: [&str; 3] = ["1.25", "1.30", "1.37"];
const OVERLAYS: [&str; 4] = ["observe", "advise", "enforce", LEAST];
/// It names an AppArmor profile by a field that came with 1.30.
const LEAST: &str = "least-privilege";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The files of whole objects: what kustomizations name as resources. A patch is none.
fn whole_objects() -> Vec<PathBuf> {
    let all = files(&repository().join("deploy/kubernetes"));
    let kustomizations = all.iter().filter(|path| path.ends_with("kustomization.yaml"));
    let named = kustomizations.flat_map(|path| {
        let text = fs::read_to_string(path).expect("a kustomization");
        let here: Value = serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let names = here["resources"].as_array().cloned().unwrap_or_default();
        let dir = path.parent().expect("a directory").to_owned();
        names.into_iter().map(move |name| dir.join(name.as_str().expect("a path")))
    });
    let mut found: Vec<PathBuf> = named.filter(|path| path.is_file()).collect();
    found.sort();
    found.dedup();
    found
}

/// What kustomize makes of the overlays, written to `dir`; nothing where there is no kubectl.
fn built(dir: &Path) -> Vec<PathBuf> {
    let build = |overlay: &str| -> Option<PathBuf> {
        let from = repository().join("deploy/kubernetes/overlays").join(overlay);
        let output = Command::new("kubectl").arg("kustomize").arg(from).output().ok()?;
        assert!(output.status.success(), "{overlay}: {}", String::from_utf8_lossy(&output.stderr));
        let path = dir.join(format!("{overlay}.yaml"));
        fs::write(&path, output.stdout).expect("write");
        Some(path)
    };
    OVERLAYS.into_iter().filter_map(build).collect()
}

fn validate(tool: &Path, version: &str, files: &[PathBuf]) -> Output {
    let mut command = Command::new(tool);
    command.args(["--strict", "--quiet", "--kubernetes-version", version]).args(files);
    command.output().expect("the tool starts")
}

#[test]
fn the_manifests_are_what_the_schemas_of_kubernetes_ask_for() {
    let test = "the_manifests_are_what_the_schemas_of_kubernetes_ask_for";
    let tool = match venv::program("kubernetes-validate", TOOL) {
        Ok(tool) => tool,
        Err(why) => {
            println!("SKIP {test}: {why}");
            return;
        }
    };
    let dir = tempfile::tempdir().expect("a directory");
    let mut manifests = whole_objects();
    assert!(manifests.len() >= 8, "{manifests:?}");
    manifests.extend(built(dir.path()));
    for version in VERSIONS {
        let is_known = |path: &&PathBuf| version != VERSIONS[0] || !path.ends_with(format!("{LEAST}.yaml"));
        let known: Vec<PathBuf> = manifests.iter().filter(is_known).cloned().collect();
        let output = validate(&tool, version, &known);
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{version}: {said}");
        // Of kinds that others define there is no schema; every other one has to have been looked at.
        for line in said.lines().filter(|line| line.contains("Couldn't find schema")) {
            assert!(line.contains("PodMonitor"), "{version}: {line}");
        }
    }
    let daemonset =
        fs::read_to_string(repository().join("deploy/kubernetes/base/daemonset.yaml")).expect("it is there");
    let misspelt = dir.path().join("misspelt.yaml");
    fs::write(&misspelt, daemonset.replace("hostPID:", "hostPid:")).expect("write");
    assert!(!validate(&tool, VERSIONS[2], &[misspelt]).status.success(), "a misspelt field is found");
}
