//! What needs cgroup v2's own controllers: a memory limit with its stalls and kills, and a CPU limit.
//!
//! On machines whose controllers are bound to cgroup v1 most of these skip; `cargo xtask vm` runs them.

use std::{
    fs,
    time::{Duration, Instant},
};

use canary_e2e::{Sandbox, kernel_available, v1::V1Memory, wait_until};
use canary_user::{
    judge::{HardFact, Judge, Outcome, Parameters, SignKind, Verdict},
    targets::Role,
    telemetry::{MemorySource, Options, Sample, Sensor, Tick},
    window::Windower,
};

const LIMIT_BYTES: u64 = 24 << 20;
/// Many times the limit.
const READ_BYTES: u64 = 1 << 30;

/// Whether the sandbox's cgroups have the controller from now on.
fn handed_over(sandbox: &Sandbox, controller: &str) -> anyhow::Result<bool> {
    let parent = sandbox.root.dir(&sandbox.base);
    let offered = fs::read_to_string(parent.join("cgroup.controllers"))?;
    let has = offered.split_whitespace().any(|offer| offer == controller);
    if has {
        fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"))?;
    }
    Ok(has)
}

/// A cgroup `one` whose parent hands it the controller; `None` where cgroup v2 does not have it.
fn limited(test: &str, controller: &str, file: &str, value: &str) -> anyhow::Result<Option<(Sandbox, String)>> {
    if !kernel_available(test) {
        return Ok(None);
    }
    let sandbox = Sandbox::new()?;
    if !handed_over(&sandbox, controller)? {
        println!("SKIP {test}: cgroup v2 has no {controller} controller here");
        return Ok(None);
    }
    let path = sandbox.cgroup("one")?;
    fs::write(sandbox.root.dir(&path).join(file), value)?;
    Ok(Some((sandbox, path)))
}

/// Ticks until `enough`, within a generous limit, and returns every sample.
fn ticks(sensor: &mut Sensor, enough: impl Fn(&[Sample]) -> bool) -> anyhow::Result<Vec<Sample>> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut samples = Vec::new();
    while !enough(&samples) {
        anyhow::ensure!(Instant::now() < deadline, "not seen within a minute: {:?}", samples.last());
        std::thread::sleep(Duration::from_millis(100));
        samples.push(sensor.tick().samples.remove(0));
    }
    Ok(samples)
}

/// The file is on the disk of `/var/tmp`: only pages that can be written back or dropped can be reclaimed.
#[test]
fn reclaim_at_memory_max_is_a_stall_that_psi_sees_too() -> anyhow::Result<()> {
    let test = "reclaim_at_memory_max_is_a_stall_that_psi_sees_too";
    let Some((sandbox, path)) = limited(test, "memory", "memory.max", &LIMIT_BYTES.to_string())? else {
        return Ok(());
    };
    let file = tempfile::NamedTempFile::new_in("/var/tmp")?;
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[sandbox.target(&path, Role::Canary)?]);
    sensor.tick();
    // Written inside as well: a page is charged to whoever brought it into the cache.
    let file_path = file.path().display();
    let write = format!("head -c {} /dev/zero > {file_path}", 2 * LIMIT_BYTES);
    let mut reader = sandbox.run(&path, &format!("{write}; while :; do cat {file_path} > /dev/null; done"))?;
    let stalled = |samples: &[Sample]| {
        let reclaims: u64 = samples.iter().filter_map(|s| Some(s.reclaim.as_ref()?.stalls)).sum();
        let psi_usec: u64 = samples.iter().filter_map(|s| Some(s.pressure?.memory_some_usec)).sum();
        reclaims > 0 && psi_usec > 0
    };
    let samples = ticks(&mut sensor, stalled);
    reader.kill()?;
    reader.wait()?;
    let samples = samples?;
    let tried: u64 = samples.iter().filter_map(|s| Some(s.memory_events?.max)).sum();
    assert!(tried > 0, "the limit was tried");
    let grown: i64 = samples.iter().filter_map(|s| s.memory?.growth_bytes).sum();
    let last = samples.last().expect("there is one, it stalled");
    let memory = last.memory.expect("memory.current is there");
    assert_eq!((memory.source, memory.limit_bytes), (MemorySource::MemoryCurrent, Some(LIMIT_BYTES)));
    assert!(memory.in_use_bytes > 0 && memory.in_use_bytes <= LIMIT_BYTES, "{memory:?}");
    assert!(grown > 0 && grown as u64 <= memory.in_use_bytes, "it grew by {grown} to {memory:?}");
    assert!(memory.file_bytes > memory.anon_bytes, "it is page cache: {memory:?}");
    assert_eq!(last.oom_kills, Some(0), "page cache can be dropped: nobody is killed");
    let stall_ns: u64 = samples.iter().filter_map(|s| Some(s.reclaim.as_ref()?.stall_ns)).sum();
    let spans_ns: u64 = samples.iter().map(|s| s.span_ns).sum();
    assert!(stall_ns > 0 && stall_ns < 2 * spans_ns, "one reader stalled for {stall_ns} of {spans_ns} ns");
    Ok(())
}

/// A file of holes, read once from its beginning to its end: the kernel waits for no disk and for no page that it had before,
/// which PSI counts besides. On one CPU, because PSI is a mean over CPUs by how long each was busy (`collect_percpu_times` of
/// kernel/sched/psi.c). Whoever limits, cgroup v2 or v1, PSI is that of cgroup v2.
#[test]
fn time_in_reclaim_is_what_psi_has() -> anyhow::Result<()> {
    let test = "time_in_reclaim_is_what_psi_has";
    if !kernel_available(test) {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let by_v2 = handed_over(&sandbox, "memory")?;
    let path = sandbox.cgroup("one")?;
    let v1 = if by_v2 { None } else { V1Memory::limited(&sandbox, &path, LIMIT_BYTES)? };
    let enter = match &v1 {
        Some(v1) => v1.enter(),
        None if by_v2 => {
            fs::write(sandbox.root.dir(&path).join("memory.max"), LIMIT_BYTES.to_string())?;
            "true".to_owned()
        }
        None => {
            println!("SKIP {test}: there is no memory controller here");
            return Ok(());
        }
    };
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[sandbox.target(&path, Role::Canary)?]);
    let holes = tempfile::NamedTempFile::new_in("/var/tmp")?;
    holes.as_file().set_len(READ_BYTES)?;
    sensor.tick();
    sandbox.run(&path, &format!("{enter} && exec taskset -c 0 cat {} > /dev/null", holes.path().display()))?.wait()?;
    let sample = sensor.tick().samples.remove(0);
    let reclaim = sample.reclaim.expect("the reclaim hooks are live");
    let psi_usec = sample.pressure.expect("PSI is on").memory_some_usec;
    println!("{test}: {} stalls, {} us, PSI {psi_usec} us", reclaim.stalls, reclaim.stall_ns / 1000);
    assert!(reclaim.stalls >= 100 && psi_usec >= 1000, "reading stalled next to never: {reclaim:?}");
    let ratio = reclaim.stall_ns as f64 / 1e3 / psi_usec as f64;
    assert!((ratio - 1.0).abs() < 0.2, "{} ns in reclaim, PSI has {psi_usec} us", reclaim.stall_ns);
    assert_eq!(reclaim.stall.map(|h| h.count()), Some(reclaim.stalls), "the histogram holds each stall");
    Ok(())
}

#[test]
fn an_oom_kill_at_memory_max_is_in_the_kernels_book_too() -> anyhow::Result<()> {
    let test = "an_oom_kill_at_memory_max_is_in_the_kernels_book_too";
    let Some((sandbox, path)) = limited(test, "memory", "memory.max", &LIMIT_BYTES.to_string())? else {
        return Ok(());
    };
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[sandbox.target(&path, Role::Canary)?]);
    sensor.tick();
    // tail keeps the whole line in memory; there is no end of line.
    sandbox.run(&path, "sh -c 'tail -n 1 /dev/zero'; sh -c 'tail -n 1 /dev/zero'; exit 0")?.wait()?;
    let sample = sensor.tick().samples.remove(0);
    assert_eq!(sandbox.field(&path, "memory.events", "oom_kill ")?, 2, "the shells lived on, their children did not");
    assert_eq!(sample.oom_kills, Some(2));
    let events = sample.memory_events.expect("memory.events is there");
    assert_eq!(events.oom_kill, 2);
    assert!(events.oom >= 2 && events.max >= events.oom, "{events:?}");
    assert_eq!(sample.lifecycle.expect("live").crashes, 0, "an OOM kill is not a crash");
    Ok(())
}

#[test]
fn throttling_at_cpu_max_agrees_with_the_limit() -> anyhow::Result<()> {
    let test = "throttling_at_cpu_max_agrees_with_the_limit";
    let Some((sandbox, path)) = limited(test, "cpu", "cpu.max", "20000 100000")? else { return Ok(()) };
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[sandbox.target(&path, Role::Canary)?]);
    sensor.tick();
    let mut busy = sandbox.run(&path, "while :; do :; done")?;
    let samples = ticks(&mut sensor, |samples| {
        samples.iter().filter_map(|s| Some(s.throttling?.throttled_periods)).sum::<u64>() >= 10
    });
    busy.kill()?;
    busy.wait()?;
    let samples = samples?;
    let sum = |of: fn(&Sample) -> u64| samples.iter().map(of).sum::<u64>();
    let periods = sum(|s| s.throttling.map_or(0, |t| t.periods));
    let throttled = sum(|s| s.throttling.map_or(0, |t| t.throttled_periods));
    let throttled_usec = sum(|s| s.throttling.map_or(0, |t| t.throttled_usec));
    assert!(throttled <= periods && throttled_usec > 0, "{throttled} of {periods} periods, {throttled_usec} us");
    let on_cpu_ns = sum(|s| s.cpu.as_ref().map_or(0, |c| c.on_cpu_ns));
    // A fifth of a CPU; the kernel hands out and takes back in slices, so the first and last periods may differ.
    let most_ns = (periods + 2) * 25_000_000;
    assert!(on_cpu_ns > 0 && on_cpu_ns < most_ns, "{on_cpu_ns} ns on CPU in {periods} periods of 20 ms");
    Ok(())
}

/// The limits are those of a slice. The canary in it has no controller of its own.
#[test]
fn limits_of_a_cgroup_above_are_the_canarys_too() -> anyhow::Result<()> {
    const MEMORY_BYTES: u64 = 1 << 30;
    let test = "limits_of_a_cgroup_above_are_the_canarys_too";
    let Some((sandbox, slice)) = limited(test, "cpu", "cpu.max", "20000 100000")? else { return Ok(()) };
    if !handed_over(&sandbox, "memory")? {
        println!("SKIP {test}: cgroup v2 has no memory controller here");
        return Ok(());
    }
    fs::write(sandbox.root.dir(&slice).join("memory.max"), MEMORY_BYTES.to_string())?;
    let path = sandbox.cgroup("one/canary")?;
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[sandbox.target(&path, Role::Canary)?]);
    let mut busy = sandbox.run(&path, "while :; do :; done")?;
    let held = |sample: &Sample| {
        let throttling = sample.above.as_ref().and_then(|above| above.throttling);
        throttling.map_or(0, |t| t.throttled_periods)
    };
    let samples = ticks(&mut sensor, |samples| samples.iter().map(held).sum::<u64>() >= 10);
    busy.kill()?;
    busy.wait()?;
    let mut windower = Windower::new("test".into());
    let (mut most, mut ticks) = (0.0_f64, 0);
    for sample in samples? {
        assert_eq!(sample.throttling, None, "it has no limit of its own");
        let window = windower.push(&Tick { span_ns: sample.span_ns, samples: vec![sample], ..Tick::default() });
        let around = &window.canary[0].around;
        assert_eq!(around.memory_limit_bytes, Some(MEMORY_BYTES));
        let fullest = around.memory.as_ref().expect("its use is known, too");
        assert_eq!((&*fullest.cgroup, fullest.limit_bytes), (&*slice, MEMORY_BYTES));
        assert!(around.throttled_by.as_deref().is_none_or(|by| by == slice), "{around:?}");
        (most, ticks) = (around.throttled.map_or(most, |share| most.max(share)), ticks + 1);
    }
    assert!(most > 0.5, "held back in at most {most} of the periods of {ticks} ticks: a fifth of a CPU is allowed");
    Ok(())
}

/// What "systemd" writes for CPUQuota=20%, while the canary runs, and for its end.
#[test]
fn cpu_that_a_quarantine_takes_is_taken_and_comes_back() -> anyhow::Result<()> {
    let test = "cpu_that_a_quarantine_takes_is_taken_and_comes_back";
    let Some((sandbox, path)) = limited(test, "cpu", "cpu.max", "max 100000")? else { return Ok(()) };
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[sandbox.target(&path, Role::Canary)?]);
    let mut busy = sandbox.run(&path, "while :; do :; done")?;
    let mut phases = Vec::new();
    for limit in ["max 100000", "20000 100000", "max 100000"] {
        fs::write(sandbox.root.dir(&path).join("cpu.max"), limit)?;
        // What it had until now it had under the limit before.
        sensor.tick();
        let two_seconds = |samples: &[Sample]| samples.iter().map(|s| s.span_ns).sum::<u64>() >= 2_000_000_000;
        phases.push(ticks(&mut sensor, two_seconds)?);
    }
    busy.kill()?;
    busy.wait()?;
    let share = |samples: &[Sample]| {
        let on_cpu_ns: u64 = samples.iter().filter_map(|s| Some(s.cpu.as_ref()?.on_cpu_ns)).sum();
        on_cpu_ns as f64 / samples.iter().map(|s| s.span_ns).sum::<u64>() as f64
    };
    let (before, during, after) = (share(&phases[0]), share(&phases[1]), share(&phases[2]));
    println!("{test}: {before:.2}, {during:.2} and {after:.2} of a CPU");
    // The kernel hands out in slices: what one had left over is spent in the next.
    assert!(during <= 0.3, "{during} of a CPU where a fifth is allowed");
    assert!(before > during && after > during, "{before}, {during} and {after} of a CPU");
    let throttled = phases[1].iter().filter_map(|s| Some(s.throttling?.throttled_periods)).sum::<u64>();
    assert!(throttled > 0, "it was held back");
    Ok(())
}

/// From what the kernel counts to the verdict.
struct Line {
    sensor: Sensor,
    windower: Windower,
    judge: Judge,
}

impl Line {
    /// Judges windows until `enough`, within a generous limit.
    fn until(&mut self, what: &str, enough: impl Fn(&Verdict) -> bool) -> anyhow::Result<Verdict> {
        let deadline = Instant::now() + Duration::from_secs(300);
        loop {
            // As long as it takes for each instance to wait a few times.
            std::thread::sleep(Duration::from_millis(500));
            let verdict = self.judge.observe(&self.windower.push(&self.sensor.tick()));
            if enough(&verdict) {
                return Ok(verdict);
            }
            anyhow::ensure!(Instant::now() < deadline, "{what}: not within five minutes: {verdict:#?}");
        }
    }
}

/// Four shells do the same, until a CPU limit makes that of the canary wait. Two that it then has killed by a fault signal are its
/// own doing, and the limit is named beside them.
#[test]
fn a_cpu_limit_is_not_held_against_the_canary_and_excuses_no_crash() -> anyhow::Result<()> {
    let test = "a_cpu_limit_is_not_held_against_the_canary_and_excuses_no_crash";
    if !kernel_available(test) {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    if !handed_over(&sandbox, "cpu")? {
        println!("SKIP {test}: cgroup v2 has no cpu controller here");
        return Ok(());
    }
    let canary = sandbox.cgroup("canary")?;
    let mut targets = vec![sandbox.target(&canary, Role::Canary)?];
    for name in ["stable-0", "stable-1", "stable-2"] {
        targets.push(sandbox.target(&sandbox.cgroup(name)?, Role::Stable)?);
    }
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&targets);
    for target in &targets {
        // The sandbox ends it.
        let script = "while :; do i=0; while [ $i -lt 1000 ]; do i=$((i+1)); done; sleep 0.2; done";
        sandbox.run(&target.cgroup, script)?;
    }
    sensor.tick();
    let parameters = Parameters { minimum_baseline: 90, initial_windows: 30, ..Parameters::default() };
    let (windower, judge) = (Windower::new("test".into()), Judge::new(parameters));
    let mut line = Line { sensor, windower, judge };
    line.until("a baseline", |verdict| verdict.baseline_windows >= 150)?;

    // Less than what it needs: a hundredth of a CPU.
    fs::write(sandbox.root.dir(&canary).join("cpu.max"), "1000 100000")?;
    let held = line.until("a verdict that is held back", |verdict| verdict.environment.holds)?;
    println!("{test}: {}", held.reasons.join("; "));
    assert_eq!((held.outcome, held.hard), (Outcome::Inconclusive, None), "{held:#?}");
    assert!(held.environment.signs.iter().any(|sign| sign.kind == SignKind::Throttled), "{held:#?}");
    assert!(held.reasons[0].starts_with("environment, not the version"), "{held:#?}");

    for _ in 0..2 {
        let ended = sandbox.run(&canary, "kill -SEGV $$")?.wait()?;
        assert!(!ended.success(), "{ended}");
    }
    let condemned = line.until("a verdict", |verdict| verdict.outcome == Outcome::Regressed)?;
    assert_eq!(condemned.hard, Some(HardFact::CrashLoop), "{condemned:#?}");
    assert_eq!(condemned.causes[0].signal, "crashes", "{condemned:#?}");
    let waits = condemned.causes.iter().find(|cause| cause.signal == "run_queue_wait").map(|c| c.mechanism.as_str());
    assert_eq!(waits, Some("waits for its CPU limit: quota"), "{condemned:#?}");
    Ok(())
}

/// What "systemd" writes for CPUWeight=5: on a CPU that both want, the canary has what stable leaves.
#[test]
fn a_canary_of_less_weight_yields_to_stable() -> anyhow::Result<()> {
    let test = "a_canary_of_less_weight_yields_to_stable";
    if !kernel_available(test) {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    if !handed_over(&sandbox, "cpu")? {
        println!("SKIP {test}: cgroup v2 has no cpu controller here");
        return Ok(());
    }
    let (stable, canary) = (sandbox.cgroup("stable")?, sandbox.cgroup("canary")?);
    // The sandbox ends both.
    for path in [&stable, &canary] {
        sandbox.run(path, "exec taskset -c 0 sh -c 'while :; do :; done'")?;
    }
    let usage_usec = |path: &str| sandbox.field(path, "cpu.stat", "usage_usec");
    let share = || -> anyhow::Result<f64> {
        let (canary_before, stable_before) = (usage_usec(&canary)?, usage_usec(&stable)?);
        let enough = canary_before + stable_before + 2_000_000;
        wait_until("two seconds of CPU", Duration::from_secs(60), || {
            usage_usec(&canary).is_ok_and(|c| usage_usec(&stable).is_ok_and(|s| c + s >= enough))
        })?;
        let (canary, stable) = (usage_usec(&canary)? - canary_before, usage_usec(&stable)? - stable_before);
        Ok(canary as f64 / (canary + stable) as f64)
    };
    wait_until("both run", Duration::from_secs(60), || {
        [&stable, &canary].iter().all(|path| usage_usec(path).is_ok_and(|usec| usec > 100_000))
    })?;
    let equal = share()?;
    fs::write(sandbox.root.dir(&canary).join("cpu.weight"), "5")?;
    let less = share()?;
    println!("{test}: {equal:.2} of the CPU of both, then {less:.2}");
    assert!((0.3..0.7).contains(&equal), "{equal} with the same weight");
    assert!(less < 0.15, "{less} with 5 of 105");
    Ok(())
}

/// What "systemd" writes for MemoryHigh: what is above is reclaimed, and nobody is killed.
#[test]
fn memory_that_a_quarantine_takes_is_taken_and_comes_back() -> anyhow::Result<()> {
    let test = "memory_that_a_quarantine_takes_is_taken_and_comes_back";
    let Some((sandbox, path)) = limited(test, "memory", "memory.high", "max")? else { return Ok(()) };
    let file = tempfile::NamedTempFile::new_in("/var/tmp")?;
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[sandbox.target(&path, Role::Canary)?]);
    sensor.tick();
    let file_path = file.path().display();
    let write = format!("head -c {} /dev/zero > {file_path}", 2 * LIMIT_BYTES);
    let mut reader = sandbox.run(&path, &format!("{write}; while :; do cat {file_path} > /dev/null; done"))?;
    let in_use = |samples: &[Sample]| samples.last().and_then(|s| s.memory).map_or(0, |m| m.in_use_bytes);
    ticks(&mut sensor, |samples| in_use(samples) > LIMIT_BYTES + LIMIT_BYTES / 2)?;
    let high = sandbox.root.dir(&path).join("memory.high");
    fs::write(&high, LIMIT_BYTES.to_string())?;
    let during = ticks(&mut sensor, |samples| {
        let seen: u64 = samples.iter().filter_map(|s| Some(s.memory_events?.high)).sum();
        seen > 0 && in_use(samples) > 0 && in_use(samples) <= LIMIT_BYTES + LIMIT_BYTES / 4
    })?;
    fs::write(&high, "max")?;
    ticks(&mut sensor, |samples| in_use(samples) > LIMIT_BYTES + LIMIT_BYTES / 2)?;
    assert!(reader.try_wait()?.is_none(), "it works on all the while");
    assert!(during.iter().all(|s| s.oom_kills == Some(0)), "nobody is killed");
    reader.kill()?;
    reader.wait()?;
    Ok(())
}

#[test]
fn anonymous_memory_is_the_kernels() -> anyhow::Result<()> {
    let test = "anonymous_memory_is_the_kernels";
    let Some((sandbox, path)) = limited(test, "memory", "memory.max", "max")? else { return Ok(()) };
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[sandbox.target(&path, Role::Canary)?]);
    sensor.tick();
    // tail holds what it reads until the end of a line that does not come.
    let mut holder = sandbox.run(&path, "(head -c 16777216 /dev/zero; sleep 600) | tail -n 1 > /dev/null")?;
    let held =
        |samples: &[Sample]| samples.last().is_some_and(|s| s.memory.is_some_and(|m| m.anon_bytes >= Some(16 << 20)));
    let samples = ticks(&mut sensor, held);
    let anon = sandbox.field(&path, "memory.stat", "anon ")?;
    for pid in sandbox.pids(&path) {
        let pid = rustix::process::Pid::from_raw(pid).expect("a process has a number");
        // The shells of a pipe end when the first of them does: one that has gone is as good.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    holder.wait()?;
    let samples = samples?;
    let memory = samples.last().and_then(|s| s.memory).expect("memory.current is there");
    assert_eq!((memory.source, memory.limit_bytes), (MemorySource::MemoryCurrent, None));
    let ours = memory.anon_bytes.expect("memory.stat is there");
    assert!(ours.abs_diff(anon) < anon / 10, "{ours} bytes, by memory.stat {anon}");
    Ok(())
}

/// A copy of this program, of which nothing is in memory, is run: its pages are mapped, and come from the disk when they are
/// first touched.
#[test]
fn major_faults_are_the_kernels() -> anyhow::Result<()> {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    let test = "major_faults_are_the_kernels";
    let Some((sandbox, path)) = limited(test, "memory", "memory.max", "max")? else { return Ok(()) };
    let dir = tempfile::tempdir_in("/var/tmp")?;
    if rustix::fs::statfs(dir.path())?.f_type as u64 == TMPFS_MAGIC {
        println!("SKIP {test}: /var/tmp is in memory here, and what is there never comes from a disk");
        return Ok(());
    }
    let copy = dir.path().join("copy");
    fs::copy(std::env::current_exe()?, &copy)?;
    let file = fs::File::open(&copy)?;
    // Only what is on the disk can be dropped.
    file.sync_all()?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[sandbox.target(&path, Role::Canary)?]);
    sensor.tick();
    let booked = || sandbox.field(&path, "memory.stat", "pgmajfault ");
    let before = booked()?;
    let ended = sandbox.run(&path, &format!("exec {} --list > /dev/null", copy.display()))?.wait()?;
    assert!(ended.success(), "{ended}");
    // The kernel adds its CPUs up now and then (every two seconds at least), so that two readings may differ for a while.
    let counted = |samples: &[Sample]| samples.iter().filter_map(|s| s.major_faults).sum::<u64>();
    let samples = ticks(&mut sensor, |samples| {
        counted(samples) > 0 && booked().is_ok_and(|now| now - before == counted(samples))
    })?;
    println!("{test}: {} major faults", counted(&samples));
    assert!(samples.iter().all(|s| s.major_faults.is_some()), "it is read in each tick");
    assert_eq!(booked()? - before, counted(&samples));
    Ok(())
}

/// What is written and forced to the disk reaches it.
#[test]
fn block_io_is_that_of_io_stat() -> anyhow::Result<()> {
    let test = "block_io_is_that_of_io_stat";
    if !kernel_available(test) {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    if !handed_over(&sandbox, "io")? || !handed_over(&sandbox, "memory")? {
        println!("SKIP {test}: cgroup v2 has no io and memory controllers here");
        return Ok(());
    }
    let path = sandbox.cgroup("one")?;
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[sandbox.target(&path, Role::Canary)?]);
    sensor.tick();
    let file = tempfile::NamedTempFile::new_in("/var/tmp")?;
    const WRITTEN: u64 = 4 << 20;
    let script = format!("dd if=/dev/zero of={} bs=1M count=4 conv=fsync 2> /dev/null", file.path().display());
    sandbox.run(&path, &script)?.wait()?;
    let io = sensor.tick().samples.remove(0).block_io.expect("io.stat is there");
    let text = fs::read_to_string(sandbox.root.dir(&path).join("io.stat"))?;
    let truth: u64 = text.split_whitespace().filter_map(|w| w.strip_prefix("wbytes=")?.parse::<u64>().ok()).sum();
    assert_eq!(io.write_bytes, truth, "{text}");
    // The file system adds its own; that it is all of it shows that the device is accounted.
    assert!(io.write_bytes >= WRITTEN && io.writes > 0, "{io:?}");
    Ok(())
}
