//! The manifests against the JSON schemas of Kubernetes itself, in several of its versions: the tool brings them along and
//! asks nobody.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

use serde_json::Value;

mod kustomize;
mod venv;

/// The release of the tool that was tried with these versions.
const TOOL: &str = "kubernetes-validate==1.37.*";
const VERSIONS: [&str; 3] = ["1.25", "1.30", "1.37"];
/// A field that came with 1.30.
const APPARMOR: &str = "appArmorProfile";
const OVERLAYS: [&str; 4] = ["observe", "advise", "enforce", "least-privilege"];
const COMPONENTS: [&str; 3] = ["kubernetes", "least-privilege", "pod-monitor"];

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

/// The tool, or nothing after saying why the test is skipped.
fn tool(test: &str) -> Option<&'static Path> {
    // The tests run at the same time: one of them installs it.
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match FOUND.get_or_init(|| venv::program("kubernetes-validate", TOOL)) {
        Ok(tool) => Some(tool),
        Err(why) => {
            println!("SKIP {test}: {why}");
            None
        }
    }
}

fn validate(tool: &Path, version: &str, files: &[PathBuf]) -> Output {
    let mut command = Command::new(tool);
    command.args(["--strict", "--quiet", "--kubernetes-version", version]).args(files);
    command.output().expect("the tool starts")
}

fn assert_valid(tool: &Path, version: &str, files: &[PathBuf]) {
    let output = validate(tool, version, files);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{version}: {said}");
    // Of kinds that others define there is no schema; every other one has to have been looked at.
    for line in said.lines().filter(|line| line.contains("Couldn't find schema")) {
        assert!(line.contains("PodMonitor"), "{version}: {line}");
    }
}

#[test]
fn the_manifests_are_what_the_schemas_of_kubernetes_ask_for() {
    let Some(tool) = tool("the_manifests_are_what_the_schemas_of_kubernetes_ask_for") else { return };
    let manifests = whole_objects();
    assert!(manifests.len() >= 8, "{manifests:?}");
    for version in VERSIONS {
        assert_valid(tool, version, &manifests);
    }
    let dir = tempfile::tempdir().expect("a directory");
    let daemonset =
        fs::read_to_string(repository().join("deploy/kubernetes/base/daemonset.yaml")).expect("it is there");
    let misspelt = dir.path().join("misspelt.yaml");
    fs::write(&misspelt, daemonset.replace("hostPID:", "hostPid:")).expect("write");
    assert!(!validate(tool, VERSIONS[2], &[misspelt]).status.success(), "a misspelt field is found");
}

#[test]
fn what_is_built_of_the_manifests_is_what_the_schemas_of_kubernetes_ask_for() {
    let test = "what_is_built_of_the_manifests_is_what_the_schemas_of_kubernetes_ask_for";
    let kubectl = match kustomize::kubectl() {
        Ok(kubectl) => kubectl,
        Err(why) => {
            println!("SKIP {test}: {why}");
            return;
        }
    };
    let Some(tool) = tool(test) else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let overlays = repository().join("deploy/kubernetes/overlays");
    let mut directories = OVERLAYS.map(|overlay| overlays.join(overlay)).to_vec();
    directories.push(kustomize::with_components("enforce", &COMPONENTS, dir.path()));
    let built: Vec<(PathBuf, String)> = directories
        .iter()
        .enumerate()
        .map(|(number, directory)| (dir.path().join(format!("{number}.yaml")), kustomize::build(&kubectl, directory)))
        .collect();
    built.iter().for_each(|(path, text)| fs::write(path, text).expect("write"));
    for version in VERSIONS {
        let is_known = |text: &str| version != VERSIONS[0] || !text.contains(APPARMOR);
        let known: Vec<PathBuf> =
            built.iter().filter(|(_, text)| is_known(text)).map(|(path, _)| path.clone()).collect();
        assert_eq!(known.len(), if version == VERSIONS[0] { 3 } else { 5 }, "the others have no such profile");
        assert_valid(tool, version, &known);
    }
}
