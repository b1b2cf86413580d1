//! The fleet in real cgroups with load on it. Needs root and cgroup2; without, each test says so and passes over.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use canary_demo::{
    cgroup::DemoCgroups,
    fault::{Fault, Order},
    fleet::{Fleet, Instance},
    load::{self, Load, Phase},
};
use canary_user::{
    guard::{Action, Decision},
    orchestrator::{Orchestrator, Plan, State, process::Process},
    targets::{Role, Target},
};
use tokio::sync::{Mutex, watch};

/// The demo's cgroups are named after the process, and all tests of this file are one process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_canary-demo").into()
}

fn cgroups(test: &str, limit: Option<u64>) -> Option<DemoCgroups> {
    if !rustix::process::geteuid().is_root() {
        println!("SKIP {test}: needs root");
        return None;
    }
    Some(DemoCgroups::create(limit).expect("cgroups"))
}

async fn fleet(cgroups: &DemoCgroups, stable: usize) -> Fleet {
    let mut fleet = Fleet::new(program());
    for i in 0..stable {
        let cell = cgroups.cell(&format!("stable-{i}")).expect("cell");
        fleet.add(Role::Stable, cell, Vec::new()).await.expect("stable starts");
    }
    fleet.add(Role::Canary, cgroups.cell("canary-0").expect("cell"), Vec::new()).await.expect("canary starts");
    fleet
}

async fn until(watch: &mut watch::Receiver<Vec<Instance>>, wanted: impl Fn(&Instance) -> bool) {
    let canary = |all: &Vec<Instance>| all.iter().any(|i| i.role == Role::Canary && wanted(i));
    watch.wait_for(canary).await.expect("the fleet lives");
}

async fn until_served(load: &Load, role: Role, phase: Phase, served: u64) {
    while load::sum(&load.totals(), role, Some(phase)).served < served {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn rollback(cgroups: &DemoCgroups, instances: &[Instance]) -> Decision {
    let targets = |role| {
        let of_role = instances.iter().filter(move |i| i.role == role);
        let target = |i: &Instance| Target {
            deployment: "demo".into(),
            role,
            version: role.name().into(),
            cgroup: i.name.clone(),
            incarnation: fs::metadata(full(cgroups, &i.name)).expect("stat cgroup").ino(),
            identity: None,
        };
        of_role.map(target).collect()
    };
    Decision {
        id: "demo-1".into(),
        deployment: "demo".into(),
        unix_ms: 0,
        window: 0,
        action: Action::Rollback,
        reason: String::new(),
        recommendation: None,
        gates: Vec::new(),
        canary: targets(Role::Canary),
        stable: targets(Role::Stable),
    }
}

fn full(cgroups: &DemoCgroups, cgroup: &str) -> PathBuf {
    cgroups.root().join(cgroup.trim_start_matches('/'))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_moves_the_load_without_a_failed_request_and_nothing_is_left() {
    let _one = ONE_AT_A_TIME.lock().await;
    let Some(cgroups) = cgroups("a_rollback_moves_the_load_without_a_failed_request_and_nothing_is_left", None) else {
        return;
    };
    let fleet = fleet(&cgroups, 2).await;
    let load = Load::start(200.0, fleet.watch()).expect("load");
    until_served(&load, Role::Canary, Phase::BeforeOnset, 100).await;

    let instances = fleet.watch().borrow().clone();
    let decision = rollback(&cgroups, &instances);
    let process = Process::new(cgroups.root().to_owned(), Duration::from_secs(60), Some(fleet.control()));
    process.apply(&decision, &Plan::default()).await.expect("apply");
    assert_eq!(process.state(&decision).await.expect("state").state, State::InEffect);
    let mut watch = fleet.watch();
    until(&mut watch, |i| i.address.is_none()).await;
    until_served(&load, Role::Stable, Phase::AfterDrain, 200).await;

    let totals = load.stop().expect("totals");
    for role in [Role::Stable, Role::Canary] {
        assert_eq!(load::sum(&totals, role, None).failed, 0, "{role}");
    }
    assert_eq!(load::sum(&totals, Role::Canary, Some(Phase::AfterDrain)).served, 0);
    let canary = watch.borrow().iter().find(|i| i.role == Role::Canary).cloned().expect("canary");
    assert!(canary.retired && !canary.routed);
    assert_eq!((canary.starts, canary.ends.get("exit status: 0")), (1, Some(&1)));

    let root = full(&cgroups, &cgroups.name());
    fleet.stop().await;
    drop(cgroups);
    assert!(!root.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_counted_exactly() {
    let _one = ONE_AT_A_TIME.lock().await;
    let Some(cgroups) = cgroups("bytes_are_counted_exactly", None) else { return };
    let fleet = fleet(&cgroups, 1).await;
    let load = Load::start(200.0, fleet.watch()).expect("load");
    until_served(&load, Role::Canary, Phase::BeforeOnset, 100).await;
    // Routed away and drained, the canary's totals stand still.
    let process = Process::new(cgroups.root().to_owned(), Duration::from_secs(60), Some(fleet.control()));
    let instances = fleet.watch().borrow().clone();
    process.apply(&rollback(&cgroups, &instances), &Plan::default()).await.expect("apply");
    let canary = load::sum(&load.stop().expect("totals"), Role::Canary, None);
    let request = "GET / HTTP/1.1\r\nhost: canary-demo\r\n\r\n".len() as u64;
    // The date has always the same length.
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 2048\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n".len() as u64;
    assert_eq!(canary.failed, 0);
    assert_eq!(canary.sent_bytes, canary.served * request);
    assert_eq!(canary.received_bytes, canary.served * (head + 2048));
    assert_eq!(canary.latency.count(), canary.served);
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crashing_canary_is_started_again_with_its_fault_until_it_is_stopped() {
    let _one = ONE_AT_A_TIME.lock().await;
    let Some(cgroups) = cgroups("a_crashing_canary_is_started_again_with_its_fault_until_it_is_stopped", None) else {
        return;
    };
    let fleet = fleet(&cgroups, 1).await;
    let load = Load::start(200.0, fleet.watch()).expect("load");
    fleet.fault(Role::Canary, Order { fault: Some(Fault::Crash), severity: 2.0 }).await;
    load.onset();
    let mut watch = fleet.watch();
    until(&mut watch, |i| i.ends.get("signal: 6 (SIGABRT)").is_some_and(|times| *times >= 3)).await;

    let instances = watch.borrow().clone();
    let process = Process::new(cgroups.root().to_owned(), Duration::from_secs(60), Some(fleet.control()));
    process.apply(&rollback(&cgroups, &instances), &Plan::default()).await.expect("apply");
    let starts = |all: &[Instance]| all.iter().find(|i| i.role == Role::Canary).map(|i| i.starts);
    let at_rollback = starts(&watch.borrow());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(starts(&watch.borrow()), at_rollback, "ten restart delays later nothing was started");
    let totals = load.stop().expect("totals");
    assert!(load::sum(&totals, Role::Canary, Some(Phase::AfterOnset)).failed > 0);
    assert_eq!(load::sum(&totals, Role::Stable, None).failed, 0);
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_kills_a_canary_that_outgrows_its_limit_and_spares_stable() {
    let _one = ONE_AT_A_TIME.lock().await;
    let Some(cgroups) = cgroups("the_kernel_kills_a_canary_that_outgrows_its_limit_and_spares_stable", Some(56 << 20))
    else {
        return;
    };
    let fleet = fleet(&cgroups, 1).await;
    let load = Load::start(200.0, fleet.watch()).expect("load");
    fleet.fault(Role::Canary, Order { fault: Some(Fault::Oom), severity: 2.0 }).await;
    let mut watch = fleet.watch();
    until(&mut watch, |i| i.ends.get("signal: 9 (SIGKILL)").is_some_and(|times| *times >= 2)).await;
    load.stop().expect("totals");
    let stable = watch.borrow().iter().find(|i| i.role == Role::Stable).map(|i| i.starts);
    assert_eq!(stable, Some(1));
    fleet.stop().await;
}

#[tokio::test]
async fn what_a_killed_demo_left_behind_is_removed_and_a_living_one_is_spared() {
    let _one = ONE_AT_A_TIME.lock().await;
    let Some(first) = cgroups("what_a_killed_demo_left_behind_is_removed_and_a_living_one_is_spared", None) else {
        return;
    };
    let root = first.root().to_owned();
    drop(first);
    let make = |name: &str| -> PathBuf {
        let dir = root.join(name);
        fs::create_dir_all(dir.join("canary-0")).expect("create cgroup");
        dir
    };
    let (dead, alive) = (make("canary-demo-test-dead"), make("canary-demo-test-alive"));
    let lock = fs::File::open(&alive).expect("open");
    lock.try_lock().expect("lock");
    let mut child = sleeper_in(&dead.join("canary-0"));
    let demo =
        cgroups("what_a_killed_demo_left_behind_is_removed_and_a_living_one_is_spared", None).expect("root, as above");
    assert!(!dead.exists());
    assert!(alive.exists());
    assert!(!child.wait().expect("wait").success());
    drop(lock);
    drop(demo);
    drop(cgroups("what_a_killed_demo_left_behind_is_removed_and_a_living_one_is_spared", None));
    assert!(!alive.exists());
}

fn sleeper_in(cgroup: &Path) -> std::process::Child {
    let mut child = Command::new(program())
        .args(["enter", "--cgroup"])
        .arg(cgroup)
        .args(["--", "sh", "-c", "echo in; exec sleep 600"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("spawn");
    let mut line = [0; 3];
    std::io::Read::read_exact(child.stdout.as_mut().expect("stdout"), &mut line).expect("it is in");
    child
}

#[tokio::test]
async fn instances_are_told_apart_by_their_cgroup() {
    let _one = ONE_AT_A_TIME.lock().await;
    let Some(demo) = cgroups("instances_are_told_apart_by_their_cgroup", None) else { return };
    let cell: Arc<str> = demo.cell("stable-0").expect("cell").cgroup;
    assert_eq!(*cell, *format!("{}/stable-0", demo.name()));
    assert!(demo.cell("stable-0").is_err(), "a name is given once");
}
