//! What cargo-deny checks of `deny.toml`, for machines without it: licences, bans, duplicates and sources.
//!
//! Reads the same file and understands the part of it that is used there; a key it does not know is an error, not a pass.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;
use spdx::{Expression, LicenseReq, ParseMode};

use crate::cargo;

/// The workspace, and those that are one of their own: the kernel programs and the fuzz targets.
pub const MANIFESTS: [&str; 3] = ["Cargo.toml", "canary-ebpf/Cargo.toml", "fuzz/Cargo.toml"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    graph: Graph,
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Licenses {
    allow: BTreeSet<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
    #[serde(rename = "unused-allowed-license")]
    _unused_allowed_license: String,
    #[serde(rename = "unused-license-exception")]
    _unused_license_exception: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Bans {
    multiple_versions: String,
    wildcards: String,
    /// Paths inside the workspace: neither this check nor cargo-deny minds them.
    #[serde(rename = "allow-wildcard-paths")]
    _allow_wildcard_paths: bool,
    #[serde(default)]
    deny: Vec<Named>,
    #[serde(default)]
    skip: Vec<Named>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    /// `name`, or `name@version` for one version only.
    #[serde(rename = "crate")]
    name: String,
    #[serde(rename = "reason")]
    _reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Sources {
    unknown_registry: String,
    unknown_git: String,
    allow_registry: Vec<String>,
}

/// Number of packages looked at; an error names every finding.
pub fn check() -> Result<usize> {
    let path = cargo::repository().join("deny.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let rules: Rules =
        toml::from_str(&text).context("deny.toml has something this check does not know; install cargo-deny")?;
    for (key, value) in [
        ("bans.multiple-versions", &rules.bans.multiple_versions),
        ("bans.wildcards", &rules.bans.wildcards),
        ("sources.unknown-registry", &rules.sources.unknown_registry),
        ("sources.unknown-git", &rules.sources.unknown_git),
    ] {
        if value != "deny" {
            bail!("deny.toml: {key} is {value:?}; this check only knows \"deny\"");
        }
    }
    let mut findings = Vec::new();
    let mut count = 0;
    for manifest in MANIFESTS {
        let packages = packages(manifest, &rules.graph.targets)?;
        count += packages.len();
        findings.extend(look(&packages, &rules));
    }
    if findings.is_empty() { Ok(count) } else { bail!("dependencies:\n{}", findings.join("\n")) }
}

struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
    /// Names of dependencies from a registry that ask for any version.
    wildcards: Vec<String>,
}

/// What is really compiled for the targets. `cargo metadata` knows licences and sources, but also lists what features
/// left off would bring; `cargo tree` knows what is used.
fn packages(manifest: &str, targets: &[String]) -> Result<Vec<Package>> {
    let text = cargo_says(&["metadata", "--format-version", "1", "--locked", "--manifest-path", manifest])?;
    let metadata: Value = serde_json::from_str(&text).context("read cargo metadata")?;
    let listed = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    let mut used = BTreeSet::new();
    for target in targets {
        let tree =
            ["tree", "--locked", "--workspace", "--prefix", "none", "--format", "{p}", "--manifest-path", manifest];
        let text = cargo_says(&[&tree[..], &["--target", target]].concat())?;
        used.extend(text.lines().filter_map(|line| name_and_version(line).map(str::to_owned)));
    }
    let packages: Vec<Package> = listed.iter().map(package).collect();
    let known: BTreeSet<String> = packages.iter().map(|p| format!("{} v{}", p.name, p.version)).collect();
    if let Some(unknown) = used.difference(&known).next() {
        bail!("cargo tree of {manifest} names {unknown}, which cargo metadata does not");
    }
    Ok(packages.into_iter().filter(|p| used.contains(&format!("{} v{}", p.name, p.version))).collect())
}

fn cargo_says(arguments: &[&str]) -> Result<String> {
    let shown = format!("cargo {}", arguments.join(" "));
    let output = cargo::cargo().args(arguments).output().with_context(|| format!("start {shown}"))?;
    if !output.status.success() {
        bail!("{shown} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(output.stdout).with_context(|| format!("read the output of {shown}"))
}

/// `syn v2.0.1` of `syn v2.0.1 (proc-macro) (*)`; nothing of an empty line between two trees.
fn name_and_version(line: &str) -> Option<&str> {
    let line = line.split(" (").next()?;
    (!line.is_empty()).then_some(line)
}

fn package(value: &Value) -> Package {
    let dependencies = value["dependencies"].as_array().cloned().unwrap_or_default();
    let any_version = dependencies.iter().filter(|d| d["req"] == "*" && !d["source"].is_null());
    Package {
        name: text(&value["name"]),
        version: text(&value["version"]),
        license: value["license"].as_str().map(str::to_owned),
        source: value["source"].as_str().map(str::to_owned),
        wildcards: any_version.map(|d| text(&d["name"])).collect(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn look(packages: &[Package], rules: &Rules) -> Vec<String> {
    let mut findings = Vec::new();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages {
        let Package { name, version, .. } = package;
        findings.extend(license_finding(package, &rules.licenses).map(|what| format!("{name} {version}: {what}")));
        if rules.bans.deny.iter().any(|named| named.is(package)) {
            findings.push(format!("{name} {version}: banned in deny.toml"));
        }
        if let Some(source) = &package.source {
            let allowed = rules.sources.allow_registry.iter();
            if !allowed.map(|registry| format!("registry+{registry}")).any(|registry| &registry == source) {
                findings.push(format!("{name} {version}: comes from {source}"));
            }
        }
        // A crate of crates.io cannot have one; ours could.
        if package.source.is_none() && !package.wildcards.is_empty() {
            findings.push(format!("{name}: asks for any version of {}", package.wildcards.join(", ")));
        }
        if !rules.bans.skip.iter().any(|named| named.is(package)) {
            versions.entry(name).or_default().insert(version);
        }
    }
    for (name, versions) in versions.into_iter().filter(|(_, versions)| versions.len() > 1) {
        let versions: Vec<&str> = versions.into_iter().collect();
        findings.push(format!(
            "{name}: several versions ({}); have one, or add a skip with its reason",
            versions.join(", ")
        ));
    }
    findings
}

impl Named {
    fn is(&self, package: &Package) -> bool {
        match self.name.split_once('@') {
            Some((name, version)) => name == package.name && version == package.version,
            None => self.name == package.name,
        }
    }
}

fn license_finding(package: &Package, rules: &Licenses) -> Option<String> {
    let Some(license) = &package.license else { return Some("names no licence".to_owned()) };
    // Lax: older crates write `MIT/Apache-2.0`.
    let expression = match Expression::parse_mode(license, ParseMode::LAX) {
        Ok(expression) => expression,
        Err(error) => return Some(format!("its licence {license:?} is no SPDX expression: {}", error.reason)),
    };
    let excepted: BTreeSet<&String> =
        rules.exceptions.iter().filter(|e| e.name == package.name).flat_map(|e| &e.allow).collect();
    let allowed = |requirement: &LicenseReq| {
        let name = requirement.to_string();
        rules.allow.contains(&name) || excepted.contains(&name)
    };
    (!expression.evaluate(allowed)).then(|| format!("its licence {license:?} is not allowed in deny.toml"))
}

#[cfg(test)]
#[path = "dependencies_tests.rs"]
mod tests;
