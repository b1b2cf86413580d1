//! Listen queues that are full, in a namespace of the target's own and in one that it shares.

use std::time::Duration;

use canary_e2e::{Sandbox, kernel_available, wait_until};
use canary_user::{
    targets::{Role, Target},
    telemetry::{Options, Sensor},
};

/// A listener whose queue is full drops what comes; the kernel counts it by network namespace.
#[test]
fn full_listen_queues_are_counted_where_the_namespace_is_the_targets_own() -> anyhow::Result<()> {
    let test = "full_listen_queues_are_counted_where_the_namespace_is_the_targets_own";
    if !kernel_available(test) {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let (own, shared) = (sandbox.cgroup("own")?, sandbox.cgroup("shared")?);
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    let dir = tempfile::tempdir()?;
    let (at, program) = (dir.path().display(), env!("CARGO_BIN_EXE_full-queue"));
    let mut child =
        sandbox.run(&own, &format!("exec unshare --net sh -c 'ip link set lo up && exec {program} {at}'"))?;
    let mut other = sandbox.run(&shared, "exec sleep 60")?;
    let listens = || dir.path().join("ready").exists();
    wait_until("the program listens", Duration::from_secs(30), listens)?;
    let (own, shared) = (sandbox.target(&own, Role::Canary)?, sandbox.target(&shared, Role::Stable)?);
    sensor.follow(&[own.clone(), shared.clone()]);
    let mut tick = || {
        let samples = sensor.tick().samples;
        let of = |target: &Target| samples.iter().find(|s| s.target == *target).expect("tracked").listen_queue;
        (of(&own), of(&shared))
    };
    // The first reading is what differences are taken from.
    tick();
    assert_eq!(tick(), (Some(Default::default()), None), "others are in this process's namespace");
    std::fs::write(dir.path().join("go"), "")?;
    wait_until("the program has connected", Duration::from_secs(60), || dir.path().join("done").exists())?;
    let netstat = std::fs::read_to_string(format!("/proc/{}/net/netstat", child.id()))?;
    let counted = tick().0.expect("the namespace is the target's own");
    other.kill()?;
    child.kill()?;
    other.wait()?;
    child.wait()?;
    let mut lines = netstat.lines().filter(|l| l.starts_with("TcpExt:")).map(|l| l.split(' ').collect::<Vec<_>>());
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let truth =
        |name: &str| values[names.iter().position(|n| *n == name).expect(name)].parse::<u64>().expect("a number");
    assert!(truth("ListenOverflows") > 0, "{netstat}");
    assert_eq!((counted.overflows, counted.drops), (truth("ListenOverflows"), truth("ListenDrops")));
    Ok(())
}
