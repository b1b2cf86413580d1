//! Without root: what is missing is named, before anything is touched; and what is named suffices.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Output};

use canary_e2e::{
    Sandbox,
    guard::{Configuration, Guard, canary, program},
    kernel_available,
    service::Service,
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
        fs::copy(program(), dir.path().join("canary"))?;
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
    for arguments in [vec!["run", "--config", &file], vec!["record", "--config", &file, "--out", &recording]] {
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
