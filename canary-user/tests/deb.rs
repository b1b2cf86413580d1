//! The Debian package: what its metadata names exists and fits the unit; built by cargo-deb, it holds a guard that runs.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

mod package;

fn package_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(package_dir().join(path)).unwrap_or_else(|error| panic!("read {path}: {error}"))
}

fn metadata() -> toml::Table {
    let manifest: toml::Table = toml::from_str(&read("Cargo.toml")).expect("TOML");
    manifest["package"]["metadata"]["deb"].as_table().expect("metadata of cargo-deb").clone()
}

/// Absolute paths that the unit names: its program, its configuration, its documentation.
fn paths_of_the_unit() -> Vec<String> {
    let unit = read("../deploy/canary-guard.service");
    let value =
        |key: &str| unit.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_else(|| panic!("no {key}")).to_owned();
    let start = value("ExecStart=");
    let words = start.split(' ').filter(|word| word.starts_with('/')).map(str::to_owned);
    let pages = value("Documentation=");
    let files = pages.split(' ').filter_map(|page| page.strip_prefix("file:")).map(str::to_owned);
    let manual = pages.split(' ').filter_map(|page| page.strip_prefix("man:")?.strip_suffix("(1)"));
    let manual = manual.map(|name| format!("/usr/share/man/man1/{name}.1"));
    let found: Vec<String> = words.chain(files).chain(manual.collect::<Vec<_>>()).collect();
    assert!(found.len() >= 4, "{found:?}");
    found
}

fn ran(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn what_the_package_is_made_of_exists() {
    let metadata = metadata();
    let mut destinations = BTreeSet::new();
    for asset in metadata["assets"].as_array().expect("assets") {
        let [source, destination, mode] = &asset.as_array().expect("an asset")[..] else { panic!("{asset}") };
        let [source, destination] = [source, destination].map(|v| v.as_str().expect("a path"));
        assert!(["644", "755", "600"].contains(&mode.as_str().expect("a mode")), "{asset}");
        destinations.insert(destination.to_owned());
        // The rest is made when the package is.
        if source.starts_with("target/release/") {
            continue;
        }
        let path = package_dir().join(source);
        let exists = match source.rsplit_once("/*.") {
            None => path.is_file(),
            Some((dir, extension)) => fs::read_dir(package_dir().join(dir)).is_ok_and(|mut all| {
                all.any(|e| e.is_ok_and(|e| e.path().extension().is_some_and(|x| x == extension)))
            }),
        };
        assert!(exists, "{source}");
    }
    for conffile in metadata["conf-files"].as_array().expect("conf-files") {
        let conffile = conffile.as_str().expect("a path").trim_start_matches('/').to_owned();
        assert!(destinations.contains(&conffile), "{conffile} is no asset");
    }
    let unit = format!("{}.service", metadata["name"].as_str().expect("a name"));
    assert!(
        package_dir().join(metadata["systemd-units"]["unit-scripts"].as_str().expect("a dir")).join(&unit).is_file()
    );
}

#[test]
fn a_package_unpacks_to_a_guard_that_runs_and_all_that_the_unit_names() {
    let test = "a_package_unpacks_to_a_guard_that_runs_and_all_that_the_unit_names";
    let dir = tempfile::tempdir().expect("tempdir");
    let (repository, canary) = (package_dir().join(".."), Path::new(env!("CARGO_BIN_EXE_canary")));
    let made = package::make(test, &repository, canary, dir.path());
    let Some(package) = made.unwrap_or_else(|error| panic!("{error:#}")) else { return };

    let root = dir.path().join("root");
    ran(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&root));
    let inside = |path: &str| root.join(path.trim_start_matches('/'));
    let version = text(&ran(Command::new(inside("/usr/bin/canary")).arg("--version")));
    assert_eq!(version.trim(), format!("canary {}", env!("CARGO_PKG_VERSION")));
    ran(Command::new(inside("/usr/bin/canary")).args(["config", "--config"]).arg(inside("/etc/canary/canary.toml")));
    for path in paths_of_the_unit() {
        // A manual page may be compressed.
        let exists = inside(&path).exists() || inside(&format!("{path}.gz")).exists();
        assert!(exists, "the unit names {path}, and the package lacks it");
    }
    let unit = fs::read_to_string(inside("/usr/lib/systemd/system/canary-guard.service"));
    let unit =
        unit.or_else(|_| fs::read_to_string(inside("/lib/systemd/system/canary-guard.service"))).expect("the unit");
    assert_eq!(unit, read("../deploy/canary-guard.service"));
    let mode = fs::metadata(inside("/etc/canary/canary.toml")).expect("the configuration").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it may hold addresses that are secrets");
    for path in [
        "bash-completion/completions/canary",
        "zsh/vendor-completions/_canary",
        "fish/vendor_completions.d/canary.fish",
    ] {
        assert!(inside("/usr/share").join(path).is_file(), "{path}");
    }

    let field = |name: &str| text(&ran(Command::new("dpkg-deb").arg("--field").arg(&package).arg(name)));
    assert_eq!(field("Package").trim(), "canary-guard");
    assert!(field("Depends").contains("libc6"), "{}", field("Depends"));
    let control = |file: &str| text(&ran(Command::new("dpkg-deb").arg("--info").arg(&package).arg(file)));
    assert_eq!(control("conffiles").trim(), "/etc/canary/canary.toml");
    // Who has not edited the configuration yet has nothing enabled and nothing started: what was enabled before stays so, and
    // what runs is restarted.
    let after = control("postinst");
    let invoked: Vec<_> =
        after.split("deb-systemd-invoke ").skip(1).filter_map(|rest| rest.split(' ').next()).collect();
    assert_eq!(invoked, ["try-restart"], "{after}");
    assert!(after.contains("if deb-systemd-helper debian-installed canary-guard.service"), "{after}");
}
