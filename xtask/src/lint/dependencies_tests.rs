use super::*;

const RULES: &str = r#"
[graph]
targets = []
[licenses]
allow = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"]
exceptions = [{ crate = "odd", allow = ["LGPL-2.1-or-later"] }]
unused-allowed-license = "allow"
unused-license-exception = "allow"
[bans]
multiple-versions = "deny"
wildcards = "deny"
allow-wildcard-paths = true
deny = [{ crate = "bad", reason = "test" }]
skip = [{ crate = "syn@2.0.0", reason = "test" }]
[sources]
unknown-registry = "deny"
unknown-git = "deny"
allow-registry = ["https://github.com/rust-lang/crates.io-index"]
"#;

fn package(name: &str, version: &str, license: &str) -> Package {
    Package {
        name: name.to_owned(),
        version: version.to_owned(),
        license: (!license.is_empty()).then(|| license.to_owned()),
        source: Some("registry+https://github.com/rust-lang/crates.io-index".to_owned()),
        wildcards: Vec::new(),
    }
}

fn findings(packages: &[Package]) -> Vec<String> {
    look(packages, &toml::from_str(RULES).expect("the rules of this test"))
}

#[test]
fn licences_are_read_as_expressions() {
    let fine = [
        package("a", "1.0.0", "MIT OR GPL-3.0-only"),
        package("b", "1.0.0", "MIT/Apache-2.0"),
        package("c", "1.0.0", "Apache-2.0 WITH LLVM-exception"),
        package("odd", "1.0.0", "LGPL-2.1-or-later"),
    ];
    assert_eq!(findings(&fine), Vec::<String>::new());
    for (license, what) in [
        ("MIT AND GPL-3.0-only", "not allowed"),
        ("LGPL-2.1-or-later", "not allowed"),
        ("", "no licence"),
        ("my own", "SPDX"),
    ] {
        let found = findings(&[package("a", "1.0.0", license)]);
        assert!(found.len() == 1 && found[0].contains(what), "{license}: {found:?}");
    }
}

#[test]
fn banned_foreign_and_double_crates_are_found() {
    let mut foreign = package("a", "1.0.0", "MIT");
    foreign.source = Some("git+https://example.org/a".to_owned());
    assert!(findings(&[foreign])[0].contains("comes from git+"));
    assert!(findings(&[package("bad", "1.0.0", "MIT")])[0].contains("banned"));
    let double = [package("a", "1.0.0", "MIT"), package("a", "2.0.0", "MIT")];
    assert!(findings(&double)[0].contains("several versions (1.0.0, 2.0.0)"));
    assert_eq!(findings(&[package("syn", "2.0.0", "MIT"), package("syn", "3.0.0", "MIT")]), Vec::<String>::new());
}

#[test]
fn a_dependency_of_ours_on_any_version_is_found() {
    let mut ours = package("ours", "0.1.0", "MIT");
    ours.source = None;
    ours.wildcards = vec!["serde".to_owned()];
    assert!(findings(&[ours])[0].contains("any version of serde"));
}

#[test]
fn a_rule_this_check_does_not_know_is_refused() {
    assert!(toml::from_str::<Rules>(&format!("{RULES}\nallow-git = [\"x\"]")).is_err());
}

#[test]
fn a_line_of_cargo_tree_names_a_package() {
    assert_eq!(name_and_version("syn v2.0.1 (proc-macro) (*)"), Some("syn v2.0.1"));
    assert_eq!(name_and_version("canary-common v0.1.0 (/src/canary-common)"), Some("canary-common v0.1.0"));
    assert_eq!(name_and_version(""), None);
}

#[test]
fn the_dependencies_of_this_repository_are_allowed() {
    let looked_at = check().unwrap();
    assert!(looked_at > 100, "only {looked_at} packages were found");
}

/// Else another parser is fuzzed than the one that reads.
#[test]
fn what_is_fuzzed_is_built_of_the_versions_that_ship() {
    let locked = |name: &str| {
        let text = fs::read_to_string(cargo::repository().join(name)).expect("the lock file is there");
        let lock: toml::Value = toml::from_str(&text).expect("it is TOML");
        let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for package in lock["package"].as_array().expect("a list") {
            let of = |key: &str| package[key].as_str().expect("a word").to_owned();
            versions.entry(of("name")).or_default().insert(of("version"));
        }
        versions
    };
    let ships = locked("Cargo.lock");
    for (name, versions) in locked("fuzz/Cargo.lock") {
        let same = ships.get(&name).is_none_or(|ships| versions.is_subset(ships));
        assert!(
            same,
            "{name}: fuzz/Cargo.lock has {versions:?}, Cargo.lock {:?}: \
             cp Cargo.lock fuzz/Cargo.lock && cargo update --workspace --manifest-path fuzz/Cargo.toml",
            ships.get(&name)
        );
    }
}
