//! SIGTERM ends the guard well: nothing of it stays in the kernel, and its journal is closed.

use std::{io::Write as _, net::TcpStream};

use canary_e2e::{
    Sandbox,
    bpf::{Attach, Held, attached},
    guard::{Configuration, Guard, canary},
    kernel_available,
    service::{Service, Traffic},
};
use canary_user::journal::Journal;

fn programs_on(sandbox: &Sandbox, cgroup: &str) -> anyhow::Result<[u32; 2]> {
    let directory = sandbox.root.open(cgroup)?;
    Ok([attached(&directory, Attach::Ingress)?, attached(&directory, Attach::Egress)?])
}

#[test]
fn nothing_is_left_behind() -> anyhow::Result<()> {
    if !kernel_available("nothing_is_left_behind") {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let cgroups = [sandbox.cgroup("stable-0")?, sandbox.cgroup("canary-0")?];
    let services = [Service::start(&sandbox, &cgroups[0])?, Service::start(&sandbox, &cgroups[1])?];
    let _traffic = Traffic::start(&services.each_ref().map(|s| s.address))?;
    let configuration = Configuration::shop(&sandbox)?;
    let mut guard = Guard::start(&configuration)?;
    guard.until("both are measured", |w| {
        let mean = &w["indicators"]["turnaround_mean"];
        mean["stable"].is_number() && mean["canary"].is_number()
    })?;

    let held = Held::by(guard.pid());
    assert!(held.programs.len() >= 10 && held.links.len() >= 10 && held.maps.len() >= 5, "{held:?}");
    assert_eq!(held.that_are_left(), held, "while it runs the kernel has all that it holds");
    for cgroup in &cgroups {
        assert_eq!(programs_on(&sandbox, cgroup)?, [1, 1], "{cgroup}");
    }
    // A client that keeps its connection, as Prometheus does, and one in the middle of a request.
    let mut idle = TcpStream::connect(guard.pages.0)?;
    write!(idle, "GET /healthz HTTP/1.1\r\nHost: guard\r\n\r\n")?;
    let mut slow = TcpStream::connect(guard.pages.0)?;
    write!(slow, "GET /metr")?;

    let status = guard.stop()?;
    assert_eq!(status.code(), Some(0), "{status}");
    // The kernel frees what nobody holds any more a moment later, after a grace period.
    canary_e2e::wait_until("programs, links and maps are gone", canary_e2e::guard::PATIENCE, || {
        held.that_are_left() == Held::default()
    })?;
    for cgroup in &cgroups {
        assert_eq!(programs_on(&sandbox, cgroup)?, [0, 0], "{cgroup}");
        let below = std::fs::read_dir(sandbox.root.dir(cgroup))?.flatten().filter(|e| e.path().is_dir()).count();
        assert_eq!((below, sandbox.pids(cgroup).len()), (0, 1), "the watched cgroup is as it was");
    }
    Ok(())
}

#[test]
fn the_journal_is_closed_and_opens_again() -> anyhow::Result<()> {
    if !kernel_available("the_journal_is_closed_and_opens_again") {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let _service = Service::start(&sandbox, &sandbox.cgroup("stable-0")?)?;
    let configuration = Configuration::shop(&sandbox)?;
    let journal = configuration.journal();
    for _ in 0..2 {
        let mut guard = Guard::start(&configuration)?;
        // The first verdict is written.
        guard.until("a verdict", |w| w["verdict"] == "insufficient_data")?;
        assert_eq!(guard.stop()?.code(), Some(0));
        for rest in ["journal.db-wal", "journal.db-shm"] {
            assert!(!journal.with_file_name(rest).exists(), "{rest} is left: the journal was not closed");
        }
    }
    let output = canary(&[]).args(["history", "--journal", &journal.display().to_string()]).output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Nothing was decided yet.\n");
    Journal::open(&journal)?;
    Ok(())
}

#[test]
fn one_that_comes_before_the_first_window_is_not_missed() -> anyhow::Result<()> {
    if !kernel_available("one_that_comes_before_the_first_window_is_not_missed") {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let configuration = Configuration::shop(&sandbox)?;
    let guard = Guard::start(&configuration)?;
    // It listens before it loads its programs, and takes signals from about then on.
    canary_e2e::wait_until("it takes SIGTERM", canary_e2e::guard::PATIENCE, || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", guard.pid())).unwrap_or_default();
        let caught = status.lines().find_map(|l| l.strip_prefix("SigCgt:")).unwrap_or_default();
        u64::from_str_radix(caught.trim(), 16).is_ok_and(|mask| mask >> 14 & 1 == 1)
    })?;
    assert_eq!(guard.stop()?.code(), Some(0));
    Ok(())
}
