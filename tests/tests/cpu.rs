//! On-CPU time against the kernel's own book, `cpu.stat`.

use std::{
    ffi::CString,
    fs::File,
    io::Write as _,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use canary_e2e::{Booked, Sandbox, kernel_available, one_cpu::OneCpu, wait_until};
use canary_user::{
    targets::Role,
    telemetry::{Options, Sensor},
};

/// Counts `script` in a tracked cgroup for two seconds and compares. `below` is where it runs, below the target.
fn agrees_with_cpu_stat(test: &str, script: &str, below: &str) -> anyhow::Result<()> {
    if !kernel_available(test) {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let path = sandbox.cgroup("busy")?;
    let runs_in = sandbox.cgroup(&format!("busy{below}"))?;
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[sandbox.target(&path, Role::Stable)?]);
    let mut child = sandbox.run(&runs_in, script)?;
    sleep(Duration::from_millis(100));
    let (mut booked, _) = Booked::around(&sandbox, &path, || sensor.tick())?;
    let first = booked;
    let mut ours_ns = 0;
    for _ in 0..10 {
        sleep(Duration::from_millis(200));
        let (now, tick) = Booked::around(&sandbox, &path, || sensor.tick())?;
        booked = now;
        ours_ns += tick.samples[0].cpu.as_ref().expect("the sched hooks are live").on_cpu_ns;
    }
    child.kill()?;
    child.wait()?;
    first.agrees(booked, ours_ns, test);
    Ok(())
}

#[test]
fn one_busy_loop() -> anyhow::Result<()> {
    agrees_with_cpu_stat("one_busy_loop", "while :; do :; done", "")
}

#[test]
fn a_descendant_counts_as_its_target() -> anyhow::Result<()> {
    agrees_with_cpu_stat("a_descendant_counts_as_its_target", "while :; do :; done", "/below/deeper")
}

#[test]
fn ten_levels_below_a_target() -> anyhow::Result<()> {
    agrees_with_cpu_stat("ten_levels_below_a_target", "while :; do :; done", "/1/2/3/4/5/6/7/8/9/10")
}

#[test]
fn short_lived_processes() -> anyhow::Result<()> {
    agrees_with_cpu_stat("short_lived_processes", "while :; do /bin/true; done", "")
}

#[test]
fn two_hundred_short_sleepers() -> anyhow::Result<()> {
    let script = "i=0; while [ $i -lt 200 ]; do (while :; do j=0; while [ $j -lt 200 ]; do j=$((j+1)); done; sleep 0.02; done) & \
                  i=$((i+1)); done; wait";
    agrees_with_cpu_stat("two_hundred_short_sleepers", script, "")
}

/// Voluntary and involuntary switches of a process's main thread, as it counts them itself.
fn own_switches(pid: u32) -> anyhow::Result<(u64, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let of = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        anyhow::Ok(value.trim().parse()?)
    };
    Ok((of("voluntary_ctxt_switches:")?, of("nonvoluntary_ctxt_switches:")?))
}

/// A task that is woken for each line that it gets; at both readings it waits for the next one.
#[test]
fn switches_are_those_that_the_task_counts_itself() -> anyhow::Result<()> {
    let test = "switches_are_those_that_the_task_counts_itself";
    if !kernel_available(test) {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let lines = dir.path().join("lines");
    let name = CString::new(lines.as_os_str().as_encoded_bytes())?;
    // SAFETY: a path that ends with a zero byte, and a mode.
    ensure!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) } == 0, "a pipe: {}", std::io::Error::last_os_error());
    let sandbox = Sandbox::new()?;
    let path = sandbox.cgroup("woken")?;
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[sandbox.target(&path, Role::Stable)?]);
    let mut child = sandbox.run(&path, &format!("exec cat {} > /dev/null", lines.display()))?;
    let mut lines = File::options().write(true).open(&lines)?;
    sleep(Duration::from_millis(300));
    sensor.tick();
    let before = own_switches(child.id())?;
    for _ in 0..300 {
        lines.write_all(b"next\n")?;
        sleep(Duration::from_millis(2));
    }
    sleep(Duration::from_millis(300));
    let after = own_switches(child.id())?;
    let cpu = sensor.tick().samples.remove(0).cpu.context("the sched hooks are live")?;
    drop(lines);
    child.wait()?;
    let own = (after.0 - before.0, after.1 - before.1);
    println!("{test}: {} voluntary and {} involuntary switches", own.0, own.1);
    assert!(own.0 > 100, "it waits for its lines");
    assert_eq!((cpu.switches_voluntary, cpu.switches_involuntary), own);
    Ok(())
}

/// Whether a task can be put into the real-time class here; prints why not otherwise.
fn real_time_available(test: &str) -> bool {
    let there = Command::new("chrt").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !there {
        println!("SKIP {test}: there is no chrt here (util-linux)");
    }
    there
}

/// In the real-time class nothing takes the CPU from it.
#[test]
fn a_task_that_never_switches() -> anyhow::Result<()> {
    if !real_time_available("a_task_that_never_switches") {
        return Ok(());
    }
    agrees_with_cpu_stat("a_task_that_never_switches", "exec chrt -f 1 sh -c 'while :; do :; done'", "")
}

/// A busy task is moved to and fro: both cgroups get what the kernel books for them, not what one stretch had.
#[test]
fn a_task_that_is_moved_is_split() -> anyhow::Result<()> {
    let test = "a_task_that_is_moved_is_split";
    if !kernel_available(test) || !real_time_available(test) {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let paths = [sandbox.cgroup("here")?, sandbox.cgroup("there")?];
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[sandbox.target(&paths[0], Role::Stable)?, sandbox.target(&paths[1], Role::Canary)?]);
    let mut child = sandbox.run(&paths[0], "exec chrt -f 1 sh -c 'while :; do :; done'")?;
    sleep(Duration::from_millis(100));
    let mut around = || -> anyhow::Result<([Booked; 2], [u64; 2])> {
        let (here, (there, tick)) = Booked::around(&sandbox, &paths[0], || {
            Booked::around(&sandbox, &paths[1], || sensor.tick()).expect("cpu.stat is there")
        })?;
        let of = |path: &String| tick.samples.iter().find(|s| *s.target.cgroup == **path).and_then(|s| s.cpu.as_ref());
        Ok(([here, there], paths.each_ref().map(|path| of(path).expect("the sched hooks are live").on_cpu_ns)))
    };
    let (first, _) = around()?;
    let mut last = first;
    let mut ours_ns = [0; 2];
    for round in 0..60 {
        // Unequal shares, so that swapping the two would be seen.
        sleep(Duration::from_millis(if round % 2 == 0 { 60 } else { 20 }));
        let to = &paths[(round + 1) % 2];
        std::fs::write(sandbox.root.dir(to).join("cgroup.procs"), child.id().to_string())?;
        if round % 10 == 9 {
            let (now, counted) = around()?;
            last = now;
            ours_ns.iter_mut().zip(counted).for_each(|(sum, more)| *sum += more);
        }
    }
    child.kill()?;
    child.wait()?;
    for i in 0..2 {
        first[i].agrees(last[i], ours_ns[i], &format!("{test}: {}", paths[i]));
    }
    Ok(())
}

/// A task is moved to and fro while it and another one, which ran for long before, take turns on one CPU: what that one ran is not the
/// moved one's, however often the CPU goes from one to the other in the moment of a move.
#[test]
fn what_others_run_is_not_charged_to_a_task_that_is_moved() -> anyhow::Result<()> {
    let test = "what_others_run_is_not_charged_to_a_task_that_is_moved";
    if !kernel_available(test) {
        return Ok(());
    }
    const LONG_USEC: u64 = 1_500_000;
    let dir = tempfile::tempdir()?;
    for name in ["there", "back"] {
        let name = CString::new(dir.path().join(name).as_os_str().as_encoded_bytes())?;
        // SAFETY: a path that ends with a zero byte, and a mode.
        ensure!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) } == 0, "a pipe: {}", std::io::Error::last_os_error());
    }
    let sandbox = Sandbox::new()?;
    let old = sandbox.cgroup("old")?;
    let paths = [sandbox.cgroup("here")?, sandbox.cgroup("there")?];
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[
        sandbox.target(&old, Role::Stable)?,
        sandbox.target(&paths[0], Role::Canary)?,
        sandbox.target(&paths[1], Role::Canary)?,
    ]);
    let at = dir.path().display();
    let (mut other, mut moved) = {
        let _stay = OneCpu::stay()?;
        let other = format!(
            "exec 3>{at}/there 4<{at}/back; while [ ! -e {at}/go ]; do :; done; while echo >&3 && read x <&4; do :; done"
        );
        let moved = format!("exec 3<{at}/there 4>{at}/back; while read x <&3 && echo >&4; do :; done");
        (sandbox.run(&old, &other)?, sandbox.run(&paths[0], &moved)?)
    };
    wait_until("one has run for long", Duration::from_secs(60), || {
        sandbox.field(&old, "cpu.stat", "usage_usec").is_ok_and(|usec| usec > LONG_USEC)
    })?;
    File::create(dir.path().join("go"))?;
    let booked_usec = || -> anyhow::Result<u64> {
        let usec = |path: &str| sandbox.field(path, "cpu.stat", "usage_usec");
        Ok(usec(&paths[0])? + usec(&paths[1])?)
    };
    sensor.tick();
    let before_usec = booked_usec()?;
    let until = Instant::now() + Duration::from_secs(8);
    let mut moves = 0;
    while Instant::now() < until {
        let to = sandbox.root.dir(&paths[(moves + 1) % 2]).join("cgroup.procs");
        std::fs::write(to, moved.id().to_string())?;
        moves += 1;
    }
    let tick = sensor.tick();
    let truth = (booked_usec()? - before_usec) as f64 / 1e6;
    for child in [&mut moved, &mut other] {
        child.kill()?;
        child.wait()?;
    }
    let of_paths = tick.samples.iter().filter(|s| paths.iter().any(|path| *s.target.cgroup == **path));
    let ours_ns: u64 = of_paths.map(|s| s.cpu.as_ref().expect("the sched hooks are live").on_cpu_ns).sum();
    let ours = ours_ns as f64 / 1e9;
    println!("{test}: {moves} moves, eBPF {ours:.3} s, cpu.stat {truth:.3} s");
    assert!(truth > 0.1 && (ours - truth).abs() < 0.02 * truth + 0.3, "eBPF {ours} s, cpu.stat {truth} s");
    Ok(())
}
