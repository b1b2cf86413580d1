//! Run-queue wait against the kernel's own book, and who had the CPU meanwhile.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use anyhow::Context as _;
use canary_e2e::{Sandbox, guard::PATIENCE, kernel_available, wait_until};
use canary_user::{
    targets::Role,
    telemetry::{Cpu, Histogram, Options, Sensor, WaitedFor},
};
use rustix::{
    process::Pid,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

/// Everything runs here, so that there is something to wait for.
const PINNED: &str = "exec taskset -c 0 sh -c";
/// The same among themselves: other work of this machine does not come between.
const AMONG_THEMSELVES: &str = "exec taskset -c 0 chrt --rr 1 sh -c";
const BUSY: &str = "while :; do :; done";

struct Load(Vec<Child>);

impl Load {
    fn start(sandbox: &Sandbox, cgroup: &str, how: &str, script: &str, count: usize) -> anyhow::Result<Self> {
        let script = format!("{how} '{script}'");
        Ok(Self((0..count).map(|_| sandbox.run(cgroup, &script)).collect::<anyhow::Result<_>>()?))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What `/proc/PID/schedstat` has in its second field, for all processes and threads of a cgroup.
fn booked_wait_ns(sandbox: &Sandbox, cgroup: &str) -> anyhow::Result<u64> {
    sandbox.pids(cgroup).iter().try_fold(0, |sum, pid| {
        let text = fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
        let wait_ns: u64 = text.split(' ').nth(1).context("schedstat has three fields")?.parse()?;
        Ok(sum + wait_ns)
    })
}

fn cpu_of(sensor: &mut Sensor, cgroup: &str) -> Cpu {
    let tick = sensor.tick();
    let sample = tick.samples.iter().find(|s| &*s.target.cgroup == cgroup).expect("the target is sampled");
    sample.cpu.clone().expect("the sched hooks are live")
}

fn agrees_with_schedstat(test: &str, script: &str, count: usize) -> anyhow::Result<()> {
    if !kernel_available(test) {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let path = sandbox.cgroup("crowd")?;
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[sandbox.target(&path, Role::Stable)?]);
    let _load = Load::start(&sandbox, &path, PINNED, script, count)?;
    sleep(Duration::from_millis(500));
    cpu_of(&mut sensor, &path);
    let before_ns = booked_wait_ns(&sandbox, &path)?;
    sleep(Duration::from_secs(4));
    let cpu = cpu_of(&mut sensor, &path);
    let booked_ns = booked_wait_ns(&sandbox, &path)?.saturating_sub(before_ns);

    println!("{test}: {} waits, {} ns, schedstat {booked_ns} ns", cpu.runq_waits, cpu.runq_wait_ns);
    // Beside other real-time tasks each turn is long, and there are few.
    assert!(cpu.runq_waits >= 10 && booked_ns > 100_000_000, "the load waited for nothing: {cpu:?}");
    let ratio = cpu.runq_wait_ns as f64 / booked_ns as f64;
    assert!((ratio - 1.0).abs() < 0.05, "{} ns of waits, schedstat has {booked_ns} ns", cpu.runq_wait_ns);
    assert_eq!(cpu.runq_wait.count(), cpu.runq_waits, "the histogram holds each wait");
    Ok(())
}

#[test]
fn the_sum_of_waits_agrees_with_schedstat_for_busy_tasks() -> anyhow::Result<()> {
    agrees_with_schedstat("the_sum_of_waits_agrees_with_schedstat_for_busy_tasks", BUSY, 4)
}

/// The buckets of `runqlat`: from and to in microseconds, both inclusive, and how many waits.
fn buckets(text: &str) -> Vec<(u64, u64, u64)> {
    let bucket = |line: &str| {
        let (range, rest) = line.split_once(':')?;
        let (from, to) = range.split_once("->")?;
        let count = rest.split_whitespace().next()?;
        Some((from.trim().parse().ok()?, to.trim().parse().ok()?, count.parse().ok()?))
    };
    text.lines().filter_map(bucket).collect()
}

/// The bucket that holds a quantile.
fn holding(buckets: &[(u64, u64, u64)], quantile: f64) -> (u64, u64) {
    let rank = quantile * buckets.iter().map(|b| b.2).sum::<u64>() as f64;
    let mut below = 0.0;
    let holds = buckets.iter().find(|b| {
        below += b.2 as f64;
        below >= rank
    });
    let (from, to, _) = holds.or(buckets.last()).expect("it has buckets");
    (*from, to + 1)
}

/// `runqlat`'s buckets are powers of two: ours lies in the one that holds the quantile, give or take what the two of them
/// began and ended apart.
fn agrees_with_runqlat(ours: &Histogram, theirs: &[(u64, u64, u64)], quantile: f64, slack: f64) {
    let ours_us = ours.quantile_ns(quantile).expect("there were waits") / 1e3;
    let (from, _) = holding(theirs, quantile - slack);
    let (_, to) = holding(theirs, quantile + slack);
    println!("quantile {quantile}: {ours_us:.0} us, runqlat {from} to {to} us");
    assert!(from as f64 <= ours_us && ours_us <= to as f64, "{ours_us} us, runqlat has {theirs:?}");
}

#[test]
fn quantiles_of_waits_agree_with_runqlat() -> anyhow::Result<()> {
    const RUNQLAT: &str = "/usr/sbin/runqlat";
    let test = "quantiles_of_waits_agree_with_runqlat";
    if !kernel_available(test) {
        return Ok(());
    }
    if !Path::new(RUNQLAT).exists() {
        println!("SKIP {test}: there is no {RUNQLAT} (apt-get install libbpf-tools)");
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let (path, other) = (sandbox.cgroup("crowd")?, sandbox.cgroup("other")?);
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[sandbox.target(&path, Role::Stable)?]);
    // One process, as runqlat selects by process; another cgroup's makes its waits long and unequal.
    let victim = format!("exec taskset -c 0 {} threads 3", env!("CARGO_BIN_EXE_victim"));
    let crowd = Load(vec![sandbox.run(&path, &victim)?]);
    let _other = Load::start(&sandbox, &other, PINNED, "while :; do sleep 0.002; done", 2)?;
    sleep(Duration::from_millis(500));

    let pid = crowd.0[0].id().to_string();
    let runqlat = Command::new(RUNQLAT).args(["-p", &pid, "5", "1"]).stdout(Stdio::piped()).spawn()?;
    // Its programs are attached by then: both count the same five seconds, but for a moment.
    sleep(Duration::from_millis(500));
    cpu_of(&mut sensor, &path);
    let said = runqlat.wait_with_output()?;
    let ours = cpu_of(&mut sensor, &path).runq_wait;
    let theirs = buckets(&String::from_utf8_lossy(&said.stdout));
    assert!(said.status.success() && !theirs.is_empty(), "{said:?}");
    let counted: u64 = theirs.iter().map(|b| b.2).sum();
    println!("{test}: {} waits, runqlat {counted}", ours.count());
    assert!(counted >= 100, "the load waited for nothing: {theirs:?}");
    agrees_with_runqlat(&ours, &theirs, 0.5, 0.05);
    agrees_with_runqlat(&ours, &theirs, 0.99, 0.009);
    Ok(())
}

#[test]
fn whoever_had_the_cpu_is_named() -> anyhow::Result<()> {
    if !kernel_available("whoever_had_the_cpu_is_named") {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let (canary, stable) = (sandbox.cgroup("canary")?, sandbox.cgroup("stable")?);
    let neighbour = sandbox.cgroup("neighbour")?;
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[sandbox.target(&canary, Role::Canary)?, sandbox.target(&stable, Role::Stable)?]);
    let _canary = Load::start(&sandbox, &canary, AMONG_THEMSELVES, BUSY, 1)?;
    sleep(Duration::from_millis(500));
    let mut beside = |cgroup: &str| -> anyhow::Result<WaitedFor> {
        let _load = Load::start(&sandbox, cgroup, AMONG_THEMSELVES, BUSY, 3)?;
        sleep(Duration::from_millis(300));
        cpu_of(&mut sensor, &canary);
        sleep(Duration::from_secs(2));
        let waited = cpu_of(&mut sensor, &canary).waited_for.expect("told");
        println!("whoever_had_the_cpu_is_named: beside {cgroup}: {waited:?}");
        Ok(waited)
    };

    let noisy = beside(&neighbour)?;
    assert!(noisy.other_cgroup_ns * 2 > noisy.sum_ns(), "the neighbour is the reason: {noisy:?}");
    assert_eq!(noisy.other_role_ns, 0, "stable runs nothing");
    let peer = beside(&stable)?;
    assert!(peer.other_role_ns * 2 > peer.sum_ns(), "stable is a reason: {peer:?}");
    let own = beside(&canary)?;
    assert!(own.own_ns * 2 > own.sum_ns(), "the canary itself is a reason: {own:?}");
    assert!(own.own_ns > noisy.own_ns && own.own_ns > peer.own_ns, "{own:?}, {noisy:?}, {peer:?}");
    Ok(())
}

/// A task that sleeps and wakes up again: where nobody else is on its CPU, that has to wake up, too. On a busy machine this is
/// so now and then only, so that it is waited for.
#[test]
fn nobody_is_named_where_the_cpu_was_idle() -> anyhow::Result<()> {
    if !kernel_available("nobody_is_named_where_the_cpu_was_idle") {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let path = sandbox.cgroup("sleepy")?;
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[sandbox.target(&path, Role::Stable)?]);
    let _load = Load::start(&sandbox, &path, PINNED, "while :; do sleep 0.01; done", 1)?;
    wait_until("a wait for an idle CPU", PATIENCE, || {
        sleep(Duration::from_millis(200));
        let waited = cpu_of(&mut sensor, &path).waited_for.expect("told");
        println!("nobody_is_named_where_the_cpu_was_idle: {waited:?}");
        assert_eq!(waited.other_role_ns, 0, "there is no other role");
        waited.idle_ns > 0
    })
}

/// A task that runs is moved to another CPU by a thread of the kernel, which takes it off its own; whoever waits there gets the
/// CPU from that thread. It is moved to and fro, because it runs only half of the time.
#[test]
fn a_thread_of_the_kernel_is_named() -> anyhow::Result<()> {
    let test = "a_thread_of_the_kernel_is_named";
    if !kernel_available(test) {
        return Ok(());
    }
    let allowed = sched_getaffinity(None)?;
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).take(2).collect();
    let [here, there] = cpus[..] else {
        println!("SKIP {test}: there is one CPU here, and a task has to be moved to another");
        return Ok(());
    };
    let sandbox = Sandbox::new()?;
    let path = sandbox.cgroup("crowd")?;
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[sandbox.target(&path, Role::Stable)?]);
    let pinned = |cpu: usize| Load::start(&sandbox, &path, &format!("exec taskset -c {cpu} sh -c"), BUSY, 1);
    // Somebody waits on either CPU.
    let (moved, _here, _there) = (pinned(here)?, pinned(here)?, pinned(there)?);
    let pid = i32::try_from(moved.0[0].id()).ok().and_then(Pid::from_raw).context("a process has a number")?;
    sleep(Duration::from_millis(500));
    cpu_of(&mut sensor, &path);
    wait_until("a wait behind a thread of the kernel", PATIENCE, || {
        for cpu in [there, here, there, here] {
            let mut only = CpuSet::new();
            only.set(cpu);
            sched_setaffinity(Some(pid), &only).expect("it runs, and is root's");
            sleep(Duration::from_millis(20));
        }
        let waited = cpu_of(&mut sensor, &path).waited_for.expect("told");
        println!("{test}: {waited:?}");
        waited.kernel_ns > 0
    })
}
