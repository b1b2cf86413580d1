//! The Debian package as who installs it meets it: by a real dpkg, its unit under a real systemd, and nothing left of it after
//! a purge.

use std::{collections::BTreeSet, fs, net::SocketAddr, path::Path};

use anyhow::Context as _;
use canary_e2e::{
    guard::{PATIENCE, Pages, program},
    machine::Machine,
    wait_until,
};
use serde_json::Value;

#[path = "../../canary-user/tests/package/mod.rs"]
mod package;

const UNIT: &str = "canary-guard.service";
/// Of the configuration that the package brings.
const LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 9847);
const SERVICE: &str = "[Service]\nExecStart=/bin/sh -c 'while :; do sleep 0.01; done'\n";
/// Everything on the machine but what dpkg and systemd keep books in, caches, and what goes with each boot or is not kept.
const FILES: &str = "find /etc /usr /opt /srv /var /run -xdev \\( -path /var/lib/dpkg -o -path /var/cache -o -path /var/log \
                     -o -path /var/tmp -o -path /run/systemd \\) -prune -o -print";

fn files(machine: &Machine) -> anyhow::Result<BTreeSet<String>> {
    Ok(machine.inside("sh", &["-c", FILES])?.lines().map(str::to_owned).collect())
}

/// Waits until the guard has seen both versions of the configuration's deployment use CPU.
fn watches(machine: &Machine) -> anyhow::Result<()> {
    let counted = |role: &'static str| {
        let version = machine.in_its_network(move || Pages(SocketAddr::from(LISTEN)).version(role));
        version.is_ok_and(|v| v["cpu_usage"].as_f64().is_some_and(|cpus| cpus > 0.0))
    };
    let both = wait_until("both versions use CPU", PATIENCE, || counted("stable") && counted("canary"));
    both.with_context(|| machine.systemctl(&["status", UNIT]).unwrap_or_else(|error| format!("{error:#}")))
}

#[test]
fn the_package_installs_watches_as_configured_and_leaves_nothing_after_a_purge() -> anyhow::Result<()> {
    let test = "the_package_installs_watches_as_configured_and_leaves_nothing_after_a_purge";
    if !Path::new("/usr/bin/deb-systemd-helper").exists() {
        println!("SKIP {test}: there is no deb-systemd-helper: this is not Debian, or lacks init-system-helpers");
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let Some(package) = package::make(test, &repository, &program(), dir.path())? else { return Ok(()) };
    let Some(machine) = Machine::boot(test)? else { return Ok(()) };
    fs::copy(package, machine.run_dir().join("canary-guard.deb"))?;
    // Where the host's packages may start no service: this machine's may.
    machine.inside("rm", &["--force", "/usr/sbin/policy-rc.d"])?;
    // What the configuration that the package brings names.
    for service in ["shop-stable-1.service", "shop-canary-1.service"] {
        machine.units(&[(service, SERVICE)])?;
        machine.systemctl(&["start", service])?;
    }
    let before = files(&machine)?;

    let install = || machine.inside("dpkg", &["--install", "/run/canary-guard.deb"]);
    install()?;
    assert_eq!(
        machine.property(UNIT, "ActiveState")?,
        "inactive",
        "who has not edited the configuration starts nothing"
    );
    assert_eq!(machine.property(UNIT, "UnitFileState")?, "disabled");
    machine.inside("canary", &["config", "--config", "/etc/canary/canary.toml"])?;

    // Its group is one that nobody has to have a name for.
    machine.inside("sed", &["-i", "s/^# group = .*/group = \"4242\"/", "/etc/canary/canary.toml"])?;
    machine.systemctl(&["enable", "--now", UNIT])?;
    watches(&machine)?;
    let socket = machine.inside("stat", &["--format", "%g %a", "/run/canary/canary.sock"])?;
    assert_eq!(socket.trim(), "4242 660", "the unit lets the guard give its socket to the group");
    assert_eq!(machine.property(UNIT, "ActiveState")?, "active");
    let status = machine.inside("canary", &["status", "--output", "json"])?;
    let status: Value = serde_json::from_str(&status).with_context(|| status.clone())?;
    let pid = machine.property(UNIT, "MainPID")?;
    assert_eq!((status["deployments"][0]["name"].as_str(), status["pid"].to_string()), (Some("shop"), pid.clone()));

    // An upgrade restarts what runs, and leaves an edited configuration alone.
    machine.inside("sh", &["-c", "echo '# edited' >>/etc/canary/canary.toml"])?;
    install()?;
    watches(&machine)?;
    assert_eq!(machine.property(UNIT, "ActiveState")?, "active");
    assert_ne!(machine.property(UNIT, "MainPID")?, pid, "the new one runs");
    assert!(machine.inside("cat", &["/etc/canary/canary.toml"])?.ends_with("# edited\n"));

    // Removed, it leaves what is configured and what was decided; purged, nothing.
    machine.inside("dpkg", &["--remove", "canary-guard"])?;
    assert_eq!(machine.property(UNIT, "ActiveState")?, "inactive", "it was stopped");
    let removed = files(&machine)?;
    for kept in ["/etc/canary/canary.toml", "/var/lib/canary/journal.db"] {
        assert!(removed.contains(kept), "{kept} is gone");
    }
    machine.inside("dpkg", &["--purge", "canary-guard"])?;
    let after = files(&machine)?;
    let left: Vec<_> = after.difference(&before).collect();
    let lost: Vec<_> = before.difference(&after).collect();
    assert!(left.is_empty() && lost.is_empty(), "left: {left:#?}\nlost: {lost:#?}");
    assert_eq!(machine.property(UNIT, "LoadState")?, "not-found");
    assert_eq!(machine.property("shop-canary-1.service", "ActiveState")?, "active", "what was watched runs on");
    Ok(())
}
