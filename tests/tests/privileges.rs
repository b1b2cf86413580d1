//! Without root: what is missing is named, before anything is touched; and what is named suffices.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

use anyhow::Context as _;
use canary_e2e::{
    Sandbox,
    guard::{Configuration, Guard, PATIENCE, canary, program},
    kernel_available,
    service::Service,
    wait_until,
};

/// BPF, PERFMON and NET_ADMIN by number: older setpriv does not know all names.
const NEEDED: &str = "-all,+cap_39,+cap_38,+cap_12";

/// Ends by executing what follows it as nobody, with no more than these capabilities.
fn nobody(capabilities: &str) -> Vec<String> {
    let sets = [format!("--inh-caps={capabilities}"), format!("--ambient-caps={capabilities}")];
    let ids = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"].map(str::to_owned);
    ids.into_iter().chain(sets).collect()
}

/// A copy of the binary where anybody may execute it: the build may lie in somebody's home.
struct Public(tempfile::TempDir);

impl Public {
    fn copy() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir()?;
        // Written by another process: one that a test beside this one forks meanwhile would have it open, too, and a file that is
        // open for writing cannot be executed.
        let copied = Command::new("cp").arg(program()).arg(dir.path().join("canary")).status()?;
        anyhow::ensure!(copied.success(), "cp: {copied}");
        Ok(Self(dir))
    }

    /// The wrapper for [`canary`]: sh is given the test's binary as its last argument, and executes the copy instead.
    fn as_nobody(&self, capabilities: &str) -> Vec<String> {
        let copy = self.0.path().join("canary").display().to_string();
        let shell = ["sh".to_owned(), "-c".to_owned(), format!("shift; exec {copy} \"$@\""), "sh".to_owned()];
        nobody(capabilities).into_iter().chain(shell).collect()
    }

    fn run(&self, capabilities: &str, arguments: &[&str]) -> anyhow::Result<Output> {
        let wrapper = self.as_nobody(capabilities);
        let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        Ok(canary(&wrapper).args(arguments).output()?)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn open_to_all(path: &Path) -> anyhow::Result<()> {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o777))?)
}

#[test]
fn check_marks_each_missing_capability() -> anyhow::Result<()> {
    if !kernel_available("check_marks_each_missing_capability") {
        return Ok(());
    }
    let output = Public::copy()?.run("-all", &["check"])?;
    let (said, complaints) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{said}{complaints}");
    for name in ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"] {
        let line = said.lines().find(|l| l.starts_with("MISSING") && l.contains(name));
        assert!(line.is_some_and(|l| l.contains("run as root")), "{name}:\n{said}");
    }
    assert!(said.contains("The guard cannot run here"), "{said}");
    assert!(!complaints.contains("panicked"), "{complaints}");
    Ok(())
}

#[test]
fn run_and_record_name_what_is_missing_and_leave_nothing() -> anyhow::Result<()> {
    if !kernel_available("run_and_record_name_what_is_missing_and_leave_nothing") {
        return Ok(());
    }
    let configuration = Configuration::shop(&Sandbox::new()?)?;
    open_to_all(configuration.dir.path())?;
    let public = Public::copy()?;
    let recording = configuration.dir.path().join("run.jsonl").display().to_string();
    let file = configuration.file();
    for arguments in [vec!["run", "--config", &file], vec!["record", "--config", &file, "--file", &recording]] {
        let output = public.run("-all", &arguments)?;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("lacks CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN: run as root"), "{said}");
        assert_eq!(said.lines().filter(|l| !l.starts_with("warning: ")).count(), 1, "one error, one line: {said}");
    }
    assert!(!configuration.journal().exists() && !Path::new(&recording).exists());
    Ok(())
}

#[test]
fn one_missing_capability_is_named_alone() -> anyhow::Result<()> {
    if !kernel_available("one_missing_capability_is_named_alone") {
        return Ok(());
    }
    let output = Public::copy()?.run("-all,+cap_39,+cap_38", &["check"])?;
    let said = text(&output.stdout);
    let missing: Vec<&str> = said.lines().filter(|l| l.starts_with("MISSING")).collect();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(missing.iter().any(|l| l.contains("CAP_NET_ADMIN")), "{said}");
    assert!(!missing.iter().any(|l| l.contains("CAP_BPF") && !l.contains("eBPF")), "{said}");
    Ok(())
}

#[test]
fn the_capabilities_that_are_named_suffice() -> anyhow::Result<()> {
    if !kernel_available("the_capabilities_that_are_named_suffice") {
        return Ok(());
    }
    let public = Public::copy()?;
    let output = public.run(NEEDED, &["check"])?;
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(!said.lines().any(|l| l.starts_with("limited") && l.contains("hook ")), "{said}");

    let sandbox = Sandbox::new()?;
    let _service = Service::start(&sandbox, &sandbox.cgroup("stable-0")?)?;
    let configuration = Configuration::shop(&sandbox)?;
    open_to_all(configuration.dir.path())?;
    let wrapper = public.as_nobody(NEEDED);
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let mut guard = Guard::start_as(&wrapper, &configuration, &[])?;
    let window = guard.until("stable is measured", |w| w["indicators"]["cpu_per_work"]["stable"].is_number())?;
    assert!(window["quality"]["hooks_missing"].is_null(), "{window:#}");
    assert!(guard.stop()?.success());
    Ok(())
}

/// The capabilities that the Kubernetes component "least-privilege" gives, as setpriv takes them: those above and SYS_PTRACE.
fn least_privilege() -> anyhow::Result<String> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes/components/least-privilege/daemonset.yaml");
    let text = fs::read_to_string(path)?;
    let list = text.lines().skip_while(|l| l.trim() != "add:").skip(1);
    let names = list.map_while(|l| l.trim().strip_prefix("- ")).map(|l| l.split(' ').next().unwrap_or_default());
    let numbers = names.map(|name| match name {
        "BPF" => Ok(",+cap_39"),
        "PERFMON" => Ok(",+cap_38"),
        "NET_ADMIN" => Ok(",+cap_12"),
        "SYS_PTRACE" => Ok(",+cap_19"),
        other => anyhow::bail!("{other}: give it its number here"),
    });
    let numbers: String = numbers.collect::<anyhow::Result<_>>()?;
    anyhow::ensure!(!numbers.is_empty(), "the component adds no capability");
    Ok(format!("-all{numbers}"))
}

/// The same as in a pod without `privileged`: root with these capabilities and no way to more, in a cgroup namespace of its own.
#[test]
fn what_the_least_privilege_component_gives_suffices_in_a_pod() -> anyhow::Result<()> {
    if !kernel_available("what_the_least_privilege_component_gives_suffices_in_a_pod") {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let _service = Service::start(&sandbox, &sandbox.cgroup("stable-0")?)?;
    // With a network namespace to itself, which it takes SYS_PTRACE to see, and with something to count: below the instance,
    // as a container below its pod, where it is found by the instance's depth in the real tree.
    let busy = "exec unshare --net sh -c 'while :; do :; done'";
    let mut other = sandbox.run(&sandbox.cgroup("canary-0/container")?, busy)?;
    let procs = sandbox.root.dir(&sandbox.cgroup("node/pod")?).join("cgroup.procs");
    let sets = ["bounding-set", "inh-caps", "ambient-caps"];
    let capabilities = least_privilege()?;
    let sets: String = sets.map(|set| format!(" --{set}={capabilities}")).concat();
    let script = format!("echo $$ >{} && exec unshare --cgroup setpriv --no-new-privs{sets} \"$@\"", procs.display());
    let configuration = Configuration::shop(&sandbox)?;
    let mut guard = Guard::start_as(&["sh", "-c", &script, "sh"], &configuration, &[])?;
    let window = guard.until("stable is measured", |w| w["indicators"]["cpu_per_work"]["stable"].is_number())?;
    assert!(window["quality"]["hooks_missing"].is_null(), "{window:#}");
    let status = fs::read_to_string(format!("/proc/{}/status", guard.pid()))?;
    let held = status.lines().find_map(|l| l.strip_prefix("CapEff:")).context("CapEff")?.trim();
    assert_eq!(u64::from_str_radix(held, 16)?, 1 << 39 | 1 << 38 | 1 << 12 | 1 << 19, "the guard holds {held}");
    let canary = |name: &str| {
        let page = guard.pages.metrics().ok()?;
        let series = page.into_iter().find(|s| s.name == name && s.labels.get("role").is_some_and(|r| r == "canary"));
        series.map(|s| s.value)
    };
    let counted = || canary("canary_cpu_usage_seconds_total").is_some_and(|s| s > 0.1);
    wait_until("the canary's CPU time is counted", PATIENCE, counted)?;
    let listens = || canary("canary_tcp_listen_overflows_total").is_some();
    wait_until("the canary's network namespace is seen", PATIENCE, listens)?;
    other.kill()?;
    other.wait()?;
    assert!(guard.stop()?.success());
    Ok(())
}
