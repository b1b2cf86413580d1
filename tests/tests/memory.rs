//! Memory where cgroup v2 has no controller: from the cgroup of v1 that has the same path and processes, else summed over
//! the processes. Each says where it comes from.

use std::{fs, process::Child, time::Duration};

use canary_e2e::{Sandbox, kernel_available, v1::V1Memory, wait_until};
use canary_user::{
    targets::Role,
    telemetry::{Memory, MemorySource, Options, Sensor},
};

const HELD_BYTES: u64 = 64 << 20;
const LIMIT_BYTES: u64 = 256 << 20;

/// `tail` holds what it reads until the end of a line that does not come.
const HOLD: &str = "(head -c 67108864 /dev/zero; sleep 600) | tail -n 1 > /dev/null";

/// What is measured once the processes hold what they are to hold.
fn settled(sensor: &mut Sensor) -> anyhow::Result<Memory> {
    let mut memory = None;
    wait_until("the memory is held", Duration::from_secs(60), || {
        memory = sensor.tick().samples.remove(0).memory;
        memory.is_some_and(|m| m.anon_bytes >= Some(HELD_BYTES))
    })?;
    Ok(memory.expect("it is held"))
}

fn ended(sandbox: &Sandbox, path: &str, mut child: Child) -> anyhow::Result<()> {
    for pid in sandbox.pids(path) {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    child.wait()?;
    Ok(())
}

fn has_own_controller(sandbox: &Sandbox) -> bool {
    let offered = fs::read_to_string(sandbox.root.dir(&sandbox.base).join("cgroup.controllers")).unwrap_or_default();
    offered.split_whitespace().any(|c| c == "memory")
}

#[test]
fn a_cgroup_of_v1_with_the_same_path_and_processes_is_read() -> anyhow::Result<()> {
    let test = "a_cgroup_of_v1_with_the_same_path_and_processes_is_read";
    if !kernel_available(test) {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let path = sandbox.cgroup("one")?;
    let Some(v1) = V1Memory::limited(&sandbox, &path, LIMIT_BYTES)? else {
        println!("SKIP {test}: there is no memory controller of cgroup v1 here");
        return Ok(());
    };
    let v1_dir = v1.dir();
    let child = sandbox.run(&path, &format!("{} && {HOLD}", v1.enter()))?;
    wait_until("they are in both", Duration::from_secs(30), || {
        let v1 = fs::read_to_string(v1_dir.join("cgroup.procs")).unwrap_or_default();
        v1.lines().count() >= 3 && sandbox.pids(&path).len() >= 3
    })?;
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[sandbox.target(&path, Role::Canary)?]);
    let memory = settled(&mut sensor)?;
    let usage: u64 = fs::read_to_string(v1_dir.join("memory.usage_in_bytes"))?.trim().parse()?;
    ended(&sandbox, &path, child)?;
    assert_eq!((memory.source, memory.limit_bytes), (MemorySource::UsageInBytes, Some(LIMIT_BYTES)));
    assert!(
        memory.in_use_bytes >= HELD_BYTES && memory.in_use_bytes.abs_diff(usage) < usage / 20,
        "{memory:?}, {usage}"
    );
    assert!(memory.anon_bytes <= Some(memory.in_use_bytes) && memory.file_bytes < memory.anon_bytes, "{memory:?}");
    Ok(())
}

#[test]
fn without_a_controller_memory_is_summed_over_the_processes() -> anyhow::Result<()> {
    let test = "without_a_controller_memory_is_summed_over_the_processes";
    if !kernel_available(test) {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    if has_own_controller(&sandbox) {
        println!("SKIP {test}: cgroup v2 has the memory controller here");
        return Ok(());
    }
    let path = sandbox.cgroup("one")?;
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[sandbox.target(&path, Role::Canary)?]);
    let child = sandbox.run(&path, HOLD)?;
    let memory = settled(&mut sensor)?;
    let resident = |pid: &i32| -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
        Some(line.trim().split(' ').next()?.parse::<u64>().ok()? * 1024)
    };
    let truth: u64 = sandbox.pids(&path).iter().filter_map(resident).sum();
    ended(&sandbox, &path, child)?;
    assert_eq!((memory.source, memory.limit_bytes), (MemorySource::ResidentSum, None));
    assert!(memory.in_use_bytes.abs_diff(truth) < truth / 20, "{memory:?}, by status {truth}");
    assert_eq!(memory.anon_bytes.zip(memory.file_bytes).map(|(a, f)| a + f), Some(memory.in_use_bytes));
    Ok(())
}
