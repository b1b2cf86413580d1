//! Processes that start, end and start again, counted exactly.

use canary_e2e::{Sandbox, kernel_available};
use canary_user::{
    targets::Role,
    telemetry::{Options, Sample, Sensor, Starts},
};

struct Watched {
    sandbox: Sandbox,
    path: String,
    sensor: Sensor,
}

impl Watched {
    fn new() -> anyhow::Result<Self> {
        let sandbox = Sandbox::new()?;
        let path = sandbox.cgroup("one")?;
        let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
        sensor.follow(&[sandbox.target(&path, Role::Canary)?]);
        sensor.tick();
        Ok(Self { sandbox, path, sensor })
    }

    /// Runs a program in the cgroup to its end, as a service manager does: moved in, then executed.
    fn run(&self, script: &str) -> anyhow::Result<()> {
        let quoted = script.replace('\'', "'\\''");
        self.sandbox.run(&self.path, &format!("exec sh -c '{quoted}'"))?.wait()?;
        Ok(())
    }

    fn sample(&mut self) -> Sample {
        self.sensor.tick().samples.remove(0)
    }
}

#[test]
fn forks_and_execs_are_counted() -> anyhow::Result<()> {
    if !kernel_available("forks_and_execs_are_counted") {
        return Ok(());
    }
    let mut watched = Watched::new()?;
    // Subshells are forked and execute nothing; the others do both.
    watched.run("for i in 1 2 3 4 5; do (exit 0) & done; wait; for i in 1 2 3; do sh -c 'exit 0'; done; exit 0")?;
    let sample = watched.sample();
    assert_eq!(sample.starts, Some(Starts { forked: 8, executed: 4, restarts: 0 }));
    assert_eq!(sample.lifecycle.expect("live").exits, 9);
    Ok(())
}

#[test]
fn restarts_of_the_main_process_are_counted() -> anyhow::Result<()> {
    if !kernel_available("restarts_of_the_main_process_are_counted") {
        return Ok(());
    }
    let mut watched = Watched::new()?;
    // Its children come and go: that is no restart.
    watched.run("sh -c 'exit 1'; sh -c 'exit 1'; exit 0")?;
    assert_eq!(watched.sample().starts.expect("live").restarts, 0);
    for _ in 0..4 {
        watched.run("sh -c 'exit 1'; exit 1")?;
    }
    assert_eq!(watched.sample().starts.expect("live").restarts, 4);
    Ok(())
}

/// What is there when the guard comes is the main process; what it leaves behind takes its place without a restart.
#[test]
fn a_process_that_was_there_before_is_known() -> anyhow::Result<()> {
    if !kernel_available("a_process_that_was_there_before_is_known") {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let path = sandbox.cgroup("one")?;
    let mut first = sandbox.run(&path, "exec sleep 600")?;
    canary_e2e::wait_until("it is in", std::time::Duration::from_secs(30), || sandbox.pids(&path).len() == 1)?;
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[sandbox.target(&path, Role::Canary)?]);
    sensor.tick();
    first.kill()?;
    first.wait()?;
    sandbox.run(&path, "exec sh -c 'exit 0'")?.wait()?;
    let sample = sensor.tick().samples.remove(0);
    assert_eq!(sample.starts.expect("live").restarts, 1);
    assert_eq!(sample.exit_codes, Some(vec![(9, 1)]));
    Ok(())
}

/// A service manager that makes the cgroup again has restarted the service.
#[test]
fn a_cgroup_that_is_made_again_is_a_restart() -> anyhow::Result<()> {
    if !kernel_available("a_cgroup_that_is_made_again_is_a_restart") {
        return Ok(());
    }
    let mut watched = Watched::new()?;
    let dir = watched.sandbox.root.dir(&watched.path);
    watched.run("exit 0")?;
    std::fs::remove_dir(&dir)?;
    watched.sensor.follow(&[]);
    std::fs::create_dir(&dir)?;
    watched.sensor.follow(&[watched.sandbox.target(&watched.path, Role::Canary)?]);
    assert_eq!(watched.sample().starts.expect("live").restarts, 1);
    assert_eq!(watched.sample().starts.expect("live").restarts, 0, "told once");
    Ok(())
}

/// Between the last tick and the end it worked as before. The guard finds it gone before the next tick.
#[test]
fn what_an_instance_did_last_is_told_when_it_is_gone() -> anyhow::Result<()> {
    if !kernel_available("what_an_instance_did_last_is_told_when_it_is_gone") {
        return Ok(());
    }
    let mut watched = Watched::new()?;
    watched.run("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; exit 3")?;
    std::fs::remove_dir(watched.sandbox.root.dir(&watched.path))?;
    watched.sensor.follow(&[]);
    let sample = watched.sample();
    assert_eq!((sample.populated, sample.lifecycle.expect("live").exits_error), (Some(false), 1));
    let on_cpu_ns = sample.cpu.as_ref().expect("live").on_cpu_ns;
    assert!(on_cpu_ns > 1_000_000, "{on_cpu_ns} ns for a hundred thousand turns: {sample:#?}");
    assert!(sample.network.is_some() && sample.reclaim.is_some(), "{sample:#?}");
    assert!(watched.sensor.tick().samples.is_empty(), "told once");
    Ok(())
}

/// What starts and ends between two looks is counted, and what only prepares the service is no restart.
#[test]
fn a_service_that_crashes_at_each_start_is_counted_though_nobody_looked() -> anyhow::Result<()> {
    let test = "a_service_that_crashes_at_each_start_is_counted_though_nobody_looked";
    if !kernel_available(test) {
        return Ok(());
    }
    const LIVES: u64 = 20;
    let mut watched = Watched::new()?;
    let dir = watched.sandbox.root.dir(&watched.path);
    for _ in 0..LIVES {
        watched.run("ulimit -c 0; kill -SEGV $$")?;
        std::fs::remove_dir(&dir)?;
        std::fs::create_dir(&dir)?;
        watched.run("exit 0")?;
    }
    std::fs::remove_dir(&dir)?;
    // The daemon finds it gone, and hears of a last life while it waits for it.
    watched.sensor.follow(&[]);
    std::fs::create_dir(&dir)?;
    watched.run("ulimit -c 0; kill -SEGV $$")?;
    std::fs::remove_dir(&dir)?;
    let sample = watched.sample();
    let lifecycle = sample.lifecycle.expect("live");
    assert_eq!((lifecycle.exits, lifecycle.crashes), (2 * LIVES + 1, LIVES + 1));
    assert_eq!(sample.starts.expect("live").restarts, LIVES + 1);
    assert_eq!(sample.populated, Some(false));
    assert!(watched.sensor.tick().samples.is_empty(), "told once");

    // It comes back, and is the same target with a life of its own.
    std::fs::create_dir(&dir)?;
    watched.sensor.follow(&[watched.sandbox.target(&watched.path, Role::Canary)?]);
    watched.run("exit 0")?;
    let sample = watched.sample();
    assert_eq!((sample.lifecycle.expect("live").exits, sample.starts.expect("live").restarts), (1, 1));
    Ok(())
}

#[test]
fn exit_codes_are_counted() -> anyhow::Result<()> {
    if !kernel_available("exit_codes_are_counted") {
        return Ok(());
    }
    let mut watched = Watched::new()?;
    let ends = "sh -c 'exit 3'; sh -c 'exit 3'; sh -c 'exit 127'; sh -c 'kill -TERM $$'; sh -c 'kill -KILL $$'";
    let crash = "sh -c 'ulimit -c 0; kill -SEGV $$'";
    watched.run(&format!("{ends}; {crash}; exit 0"))?;
    let sample = watched.sample();
    let lifecycle = sample.lifecycle.expect("the hook is live");
    assert_eq!((lifecycle.exits, lifecycle.exits_error, lifecycle.crashes, lifecycle.exits_killed), (7, 3, 1, 2));
    // The kernel marks what would have dumped as dumped where cores go to a program, whatever the limit.
    let codes = sample.exit_codes.expect("the hook is live");
    let without_dumps: Vec<(u32, u64)> = codes.iter().filter(|(c, _)| c & 0x7f != 11).copied().collect();
    assert_eq!(without_dumps, [(9, 1), (15, 1), (3 << 8, 2), (127 << 8, 1)]);
    let crashes: u64 = codes.iter().filter(|(c, _)| c & 0x7f == 11).map(|(_, n)| n).sum();
    let dumps: u64 = codes.iter().filter(|(code, _)| code & 0x80 != 0).map(|(_, n)| n).sum();
    assert_eq!((crashes, lifecycle.core_dumps), (1, Some(dumps)), "{codes:?}");
    Ok(())
}

/// One that may dump core, beside one that may not. Where this machine writes the core is its own affair: only one that lies in
/// the directory shows that there was one to be counted.
#[test]
fn core_dumps_are_counted() -> anyhow::Result<()> {
    let test = "core_dumps_are_counted";
    if !kernel_available(test) {
        return Ok(());
    }
    let mut watched = Watched::new()?;
    let dir = tempfile::tempdir()?;
    let crash = "sh -c 'ulimit -c 0; kill -SEGV $$'";
    let dump = format!("cd {} && sh -c 'ulimit -c unlimited && kill -SEGV $$'", dir.path().display());
    watched.run(&format!("{crash}; {dump}; exit 0"))?;
    let written = std::fs::read_dir(dir.path())?.count() as u64;
    if written == 0 {
        println!("SKIP {test}: this machine writes no core into the working directory, so that none can be counted");
        return Ok(());
    }
    let sample = watched.sample();
    let codes = sample.exit_codes.expect("the hook is live");
    let dumps: u64 = codes.iter().filter(|(code, _)| code & 0x80 != 0).map(|(_, n)| n).sum();
    let lifecycle = sample.lifecycle.expect("the hook is live");
    assert_eq!((written, dumps, lifecycle.core_dumps, lifecycle.crashes), (1, 1, Some(1), 2), "{codes:?}");
    Ok(())
}
