//! Calls cargo for this workspace and reads which executables it made.

use std::{
    env,
    ffi::{OsStr, OsString},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::progress::Step;

/// An executable that cargo built, or found fresh.
#[derive(Debug, Clone)]
pub struct Artifact {
    pub package: String,
    /// Name of the target: the crate, an example, or a file in `tests/`.
    pub target: String,
    /// `lib`, `bin`, `test` or `example`.
    pub kind: String,
    pub executable: PathBuf,
    /// The package's directory: where its tests expect to be run.
    pub directory: PathBuf,
}

/// The workspace's root directory.
pub fn repository() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().expect("xtask is a directory of the workspace").to_owned()
}

/// The cargo that started us, else the one on the PATH.
pub fn executable() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
}

/// cargo in the workspace's root, with the compiler that belongs to it.
pub fn cargo() -> Command {
    let cargo = executable();
    let mut command = Command::new(&cargo);
    command.current_dir(repository());
    if let Some(path) = path_with_own_compiler(&cargo, env::var_os("PATH").as_deref()) {
        command.env("PATH", path);
    }
    // What `cargo run` says of this package. Some build scripts ask to run again where it changes, and half of all is compiled anew.
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_MANIFEST_") || name.starts_with("CARGO_PKG_")) {
            command.env_remove(name);
        }
    }
    command
}

/// `path` with cargo's own directory first where a rustc lies beside it. Setup may install a second rustc in between, and
/// half of the dependencies built by one, half by the other do not fit together.
fn path_with_own_compiler(cargo: &Path, path: Option<&OsStr>) -> Option<OsString> {
    let directory = cargo.parent().filter(|directory| directory.join("rustc").is_file())?;
    let others = path.map(|path| env::split_paths(path).collect::<Vec<_>>()).unwrap_or_default();
    env::join_paths([directory.to_owned()].into_iter().chain(others)).ok()
}

/// Builds with `cargo <arguments>`, showing each crate as it comes. Compiler messages go to stderr, and only when it fails.
pub fn build(step_name: &str, arguments: &[&str]) -> Result<Vec<Artifact>> {
    build_with(step_name, arguments, &[])
}

/// The same with more in the environment.
pub fn build_with(step_name: &str, arguments: &[&str], variables: &[(String, OsString)]) -> Result<Vec<Artifact>> {
    let step = Step::start(step_name);
    let (reader, writer) = std::io::pipe().context("make a pipe")?;
    // What follows `--` is not cargo's: the verb comes first, then what is wanted of cargo itself.
    let (verb, rest) = arguments.split_first().context("a verb for cargo")?;
    let mut child = cargo()
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .args([verb, "--message-format", "json-render-diagnostics"])
        .args(rest)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(writer)
        .spawn()
        .context("start cargo")?;
    let stdout = child.stdout.take().expect("stdout was asked to be piped");
    let messages = std::thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).collect::<Vec<_>>());

    let mut said = Vec::new();
    let mut compiled = 0_u32;
    for line in BufReader::new(reader).lines() {
        let line = line.context("read cargo's messages")?;
        if line.trim_start().starts_with("Compiling ") {
            compiled += 1;
        }
        step.detail(&format!("{} ({compiled} crates)", line.trim()));
        said.push(line);
    }
    let messages = messages.join().expect("the reading thread does not panic");
    let status = child.wait().context("wait for cargo")?;
    if !status.success() {
        bail!("cargo {} ended with {status}:\n{}", arguments.join(" "), said.join("\n"));
    }
    step.done(&if compiled == 0 { "nothing to compile".to_owned() } else { format!("{compiled} crates compiled") });
    Ok(messages.iter().filter_map(|line| artifact(&serde_json::from_str(line).ok()?)).collect())
}

fn artifact(message: &Value) -> Option<Artifact> {
    if message["reason"] != "compiler-artifact" {
        return None;
    }
    let manifest = Path::new(message["manifest_path"].as_str()?);
    Some(Artifact {
        package: package_name(message["package_id"].as_str()?),
        target: message["target"]["name"].as_str()?.to_owned(),
        kind: message["target"]["kind"][0].as_str()?.to_owned(),
        executable: message["executable"].as_str()?.into(),
        directory: manifest.parent()?.to_owned(),
    })
}

/// `path+file:///x/canary-user#0.1.0` or `path+file:///x/demo#canary-demo@0.1.0` to the package's name.
fn package_name(id: &str) -> String {
    let (path, fragment) = id.rsplit_once('#').unwrap_or((id, ""));
    match fragment.split_once('@') {
        Some((name, _version)) => name.to_owned(),
        None => path.rsplit('/').next().unwrap_or(path).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_beside_cargo_comes_before_any_other() {
        let directory = std::env::temp_dir().join(format!("canary-own-compiler-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("make a directory");
        let cargo = directory.join("cargo");
        assert_eq!(path_with_own_compiler(&cargo, Some("/usr/bin".as_ref())), None, "no rustc beside it");
        std::fs::write(directory.join("rustc"), "").expect("write a file");
        let path = path_with_own_compiler(&cargo, Some("/usr/bin:/bin".as_ref())).expect("a rustc is beside it");
        std::fs::remove_dir_all(&directory).expect("remove the directory");
        assert_eq!(path, OsString::from(format!("{}:/usr/bin:/bin", directory.display())));
    }

    #[test]
    fn a_package_id_names_its_package_with_and_without_an_at_sign() {
        assert_eq!(package_name("path+file:///src/canary-user#0.1.0"), "canary-user");
        assert_eq!(package_name("path+file:///src/demo#canary-demo@0.1.0"), "canary-demo");
    }
}
