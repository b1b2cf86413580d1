//! Cgroups that go away and come back under the same path while they are watched.

use std::{collections::BTreeMap, fs, time::Duration};

use canary_common::MAX_SLOTS;
use canary_e2e::{
    Sandbox,
    guard::{Configuration, Guard},
    kernel_available, wait_until,
};
use canary_user::{
    targets::{Role, Target},
    telemetry::{Tick, recording::Reader},
};

fn remove(sandbox: &Sandbox, cgroup: &str) -> anyhow::Result<()> {
    let dir = sandbox.root.dir(cgroup);
    wait_until("the cgroup can be removed", Duration::from_secs(30), || fs::remove_dir(&dir).is_ok())
}

#[test]
fn slots_come_back_and_the_guard_goes_on() -> anyhow::Result<()> {
    if !kernel_available("slots_come_back_and_the_guard_goes_on") {
        return Ok(());
    }
    const AT_A_TIME: usize = 500;
    let sandbox = Sandbox::new()?;
    let mut guard = Guard::start(&Configuration::shop(&sandbox)?)?;
    let pages = guard.pages;
    let canaries = || pages.version("canary").ok().and_then(|v| v["instances"].as_u64()).unwrap_or(0);
    // Were a slot lost with each cgroup, the last round would find too few.
    for round in 0..=MAX_SLOTS / AT_A_TIME {
        let cgroups =
            (0..AT_A_TIME).map(|i| sandbox.cgroup(&format!("canary-{i}"))).collect::<anyhow::Result<Vec<_>>>()?;
        let window = guard.until(&format!("all are followed in round {round}"), |_| canaries() == AT_A_TIME as u64)?;
        assert_eq!(window["quality"]["targets_without_slot"], 0, "round {round}");
        cgroups.iter().try_for_each(|cgroup| remove(&sandbox, cgroup))?;
        guard.until(&format!("none is followed after round {round}"), |_| canaries() == 0)?;
    }
    assert!(guard.stop()?.success());
    Ok(())
}

/// The kernel programs know paths of up to 255 bytes.
#[test]
fn a_path_that_is_too_long_to_be_expected_is_told_once() -> anyhow::Result<()> {
    if !kernel_available("a_path_that_is_too_long_to_be_expected_is_told_once") {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    sandbox.cgroup(&format!("stable-{}", "x".repeat(240)))?;
    sandbox.cgroup("stable-short")?;
    let mut guard = Guard::start(&Configuration::shop(&sandbox)?)?;
    let pages = guard.pages;
    let instances = || pages.version("stable").ok().and_then(|v| v["instances"].as_u64());
    guard.until("both are followed", |_| instances() == Some(2))?;
    // Each change makes the guard look again.
    for i in 0..10 {
        sandbox.cgroup(&format!("other-{i}"))?;
        guard.next_window()?;
    }
    let said = guard.said();
    assert_eq!(said.matches("is too long").count(), 1, "{said}");
    assert!(said.contains("before the guard looks is not counted"), "{said}");
    assert!(guard.stop()?.success());
    Ok(())
}

/// What a recording says of one incarnation.
#[derive(Debug, Default)]
struct Life {
    samples: usize,
    on_cpu_ns: u64,
    kernel_cpu_ns: u64,
}

/// Adds every sample up, after a look at whether it can be true.
fn lives(ticks: impl Iterator<Item = anyhow::Result<Tick>>) -> anyhow::Result<BTreeMap<Target, Life>> {
    let cpus = std::thread::available_parallelism()?.get() as u64;
    let mut lives: BTreeMap<Target, Life> = BTreeMap::new();
    for tick in ticks {
        for sample in tick?.samples {
            // Only how one ended whose cgroup is gone.
            let Some(cpu) = &sample.cpu else {
                anyhow::ensure!(sample.populated == Some(false), "the sched hooks are live");
                continue;
            };
            // A stretch is charged when it ends, at most a few ticks late; a difference below zero would be about 2^64.
            let most_ns = (sample.span_ns + 1_000_000_000) * cpus;
            assert!(sample.span_ns < 60_000_000_000 && cpu.on_cpu_ns <= most_ns, "not to be believed: {sample:#?}");
            assert!(cpu.runq_waits < 1 << 32 && cpu.switches_voluntary < 1 << 32, "not to be believed: {sample:#?}");
            let network = sample.network.as_ref().expect("the socket hooks are live");
            assert!(network.rx_bytes < 1 << 40 && network.tx_bytes < 1 << 40, "not to be believed: {sample:#?}");
            let life = lives.entry(sample.target).or_default();
            life.samples += 1;
            life.on_cpu_ns += cpu.on_cpu_ns;
            life.kernel_cpu_ns += sample.kernel_cpu_usec.unwrap_or(0) * 1000;
        }
    }
    Ok(lives)
}

#[test]
fn a_cgroup_that_is_replaced_starts_afresh() -> anyhow::Result<()> {
    if !kernel_available("a_cgroup_that_is_replaced_starts_afresh") {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let configuration = Configuration::shop(&sandbox)?;
    let recording = configuration.dir.path().join("run.jsonl");
    let mut guard = Guard::start_as(&[], &configuration, &["--record", &recording.display().to_string()])?;
    let pages = guard.pages;
    let mut incarnations = Vec::new();
    // By turns one that takes a whole CPU and one that takes none, under the same path and, freed last, in the same slot.
    for script in ["while :; do :; done", "exec sleep 3600"].repeat(4) {
        let cgroup = sandbox.cgroup("canary-0")?;
        let id = sandbox.root.id(&cgroup).expect("just made");
        incarnations.push(id);
        let mut process = sandbox.run(&cgroup, script)?;
        let busy = script.starts_with("while");
        guard.until(script, |_| {
            let sampled = fs::read_to_string(&recording).is_ok_and(|t| t.contains(&format!("\"incarnation\":{id}}}")));
            let usage = pages.version("canary").ok().and_then(|v| v["cpu_usage"].as_f64());
            sampled && (!busy || usage.is_some_and(|cpus| cpus > 0.05))
        })?;
        // Removed and, in the next turn, made again between two looks of the guard at what is there.
        process.kill()?;
        process.wait()?;
        remove(&sandbox, &cgroup)?;
    }
    assert!(guard.stop()?.success());

    let lives = lives(Reader::open(&recording)?)?;
    let seen: Vec<u64> = lives.keys().map(|t| t.incarnation).collect();
    assert!(incarnations.iter().all(|id| seen.contains(id)), "{incarnations:?} were made, {seen:?} were seen");
    for (target, life) in &lives {
        assert_eq!(target.role, Role::Canary);
        // The kernel's own book begins with the cgroup. What ran before we looked is in neither.
        let most_ns = life.kernel_cpu_ns + life.kernel_cpu_ns / 20 + 20_000_000;
        assert!(life.on_cpu_ns <= most_ns, "{target:?} has the time of another: {life:?}");
    }
    assert!(lives.values().any(|l| l.on_cpu_ns > 50_000_000), "the busy ones were counted: {lives:?}");
    Ok(())
}
