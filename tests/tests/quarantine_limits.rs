//! A quarantine by "systemd" where cgroup v2 has its controllers: what is taken from a running unit, the kernel takes, too.
//!
//! On machines whose controllers are bound to cgroup v1 these skip; `cargo xtask vm` runs them.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use canary_e2e::{
    guard::PATIENCE,
    kernel_available,
    units::{Bench, CANARY},
    wait_until,
};
use canary_user::{guard::Action, orchestrator::State, targets::cgroup::Root};

/// What a quarantine leaves.
const LEFT_BYTES: u64 = 8 << 20;
/// What the kernel has of it: weight, quota of a fifth of a CPU, memory.
const LEFT: [&str; 3] = ["5", "20000 100000", "8388608"];
/// Busy all the time, and reads a file of twice as much as a quarantine leaves it in memory.
const GREEDY: &str = "[Service]\nExecStart=/bin/sh -c 'while :; do :; done & \
                      dd if=/dev/zero of=/run/pages bs=1M count=16; while :; do cat /run/pages > /dev/null; done'\n";

/// The canary is a greedy unit with `own` limits; `None` where nothing would limit it, after saying why.
fn greedy(test: &str, own: &str, lasts: &str) -> anyhow::Result<Option<Bench>> {
    if !kernel_available(test) {
        return Ok(None);
    }
    let handed_on = fs::read_to_string(Root::find()?.dir("/").join("cgroup.subtree_control"))?;
    for controller in ["cpu", "memory"] {
        if !handed_on.split_whitespace().any(|c| c == controller) {
            println!("SKIP {test}: cgroup v2 hands on no {controller} controller here");
            return Ok(None);
        }
    }
    let keys = format!(
        "quarantine = {{ lasts = \"{lasts}\", cpu_weight = 5, cpu_percent = 20, memory_high_bytes = {LEFT_BYTES} }}"
    );
    Bench::new(test, &[(CANARY, &format!("{GREEDY}{own}"))], &keys)
}

/// The cgroup of a unit as the kernel has it.
#[derive(Clone)]
struct Cgroup(PathBuf);

impl Cgroup {
    fn of(bench: &Bench, unit: &str) -> anyhow::Result<Self> {
        Ok(Self(bench.root.dir(&bench.machine.cgroup(&bench.machine.property(unit, "ControlGroup")?))))
    }

    fn text(&self, file: &str) -> anyhow::Result<String> {
        let path = self.0.join(file);
        Ok(fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?.trim().to_owned())
    }

    fn limits(&self) -> anyhow::Result<[String; 3]> {
        Ok([self.text("cpu.weight")?, self.text("cpu.max")?, self.text("memory.high")?])
    }

    fn field(&self, file: &str, name: &str) -> anyhow::Result<u64> {
        let text = self.text(file)?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.with_context(|| format!("{file} has no {name}: {text}"))
    }

    fn in_use_bytes(&self) -> anyhow::Result<u64> {
        Ok(self.text("memory.current")?.parse()?)
    }

    /// How much of a CPU it uses in the second to come.
    fn cpus(&self) -> anyhow::Result<f64> {
        let (begun, before) = (Instant::now(), self.field("cpu.stat", "usage_usec ")?);
        std::thread::sleep(Duration::from_secs(1));
        let used = self.field("cpu.stat", "usage_usec ")? - before;
        Ok(used as f64 / begun.elapsed().as_micros() as f64)
    }

    /// Waits until it uses far more than a quarantine leaves.
    fn uses_much(&self) -> anyhow::Result<()> {
        wait_until("half of a CPU and more in use", PATIENCE, || self.cpus().is_ok_and(|cpus| cpus > 0.5))?;
        let enough = LEFT_BYTES + LEFT_BYTES / 2;
        wait_until("much memory in use", PATIENCE, || self.in_use_bytes().is_ok_and(|bytes| bytes > enough))
    }

    /// Checks that it has the limits of the quarantine, and waits until it uses as much as they let it.
    fn uses_what_is_left(&self, test: &str) -> anyhow::Result<()> {
        assert_eq!(self.limits()?, LEFT);
        let (mut cpus, mut bytes) = (0.0, 0);
        wait_until("a fifth of a CPU in use", PATIENCE, || {
            cpus = self.cpus().unwrap_or_default();
            (0.1..0.3).contains(&cpus)
        })?;
        wait_until("as much memory in use as is left", PATIENCE, || {
            bytes = self.in_use_bytes().unwrap_or_default();
            let tried = self.field("memory.events", "high ").is_ok_and(|times| times > 0);
            tried && (LEFT_BYTES / 2..LEFT_BYTES + LEFT_BYTES / 4).contains(&bytes)
        })?;
        println!("{test}: {cpus:.2} CPUs and {bytes} bytes in use");
        Ok(())
    }
}

/// With the restart the unit gets a cgroup that is new to the kernel.
#[test]
fn what_a_quarantine_takes_is_taken_also_over_a_restart_until_it_is_undone() -> anyhow::Result<()> {
    let test = "what_a_quarantine_takes_is_taken_also_over_a_restart_until_it_is_undone";
    let Some(bench) = greedy(test, "CPUWeight=50\n", "10m")? else { return Ok(()) };
    let own = ["50", "max 100000", "max"];
    let cgroup = Cgroup::of(&bench, CANARY)?;
    assert_eq!(cgroup.limits()?, own);
    cgroup.uses_much()?;

    let decision = bench.decision(Action::Quarantine)?;
    let plan = bench.describe(&decision)?;
    bench.apply(&decision, &plan)?;
    cgroup.uses_what_is_left(test)?;
    bench.machine.systemctl(&["restart", CANARY])?;
    let cgroup = Cgroup::of(&bench, CANARY)?;
    cgroup.uses_what_is_left(test)?;
    assert_eq!(cgroup.field("memory.events", "oom_kill ")?, 0, "nobody is killed");

    bench.undo(&decision, &plan)?;
    assert_eq!(cgroup.limits()?, own);
    cgroup.uses_much()?;
    bench.is(CANARY, "active")
}

/// The unit's own limits, and nobody to give them back but systemd. They are looked at all the while: on a slow machine the timer
/// may be done by the time that the call is.
#[test]
fn what_a_quarantine_takes_from_a_unit_with_limits_the_timer_gives_back() -> anyhow::Result<()> {
    let test = "what_a_quarantine_takes_from_a_unit_with_limits_the_timer_gives_back";
    let Some(bench) = greedy(test, "CPUWeight=50\nCPUQuota=80%\nMemoryHigh=512M\n", "10s")? else { return Ok(()) };
    let own = ["50", "80000 100000", "536870912"];
    let cgroup = Cgroup::of(&bench, CANARY)?;
    assert_eq!(cgroup.limits()?, own);

    let decision = bench.decision(Action::Quarantine)?;
    let plan = bench.describe(&decision)?;
    let looking = cgroup.clone();
    let looked = std::thread::spawn(move || {
        let are = |limits: [&str; 3]| looking.limits().is_ok_and(|now| now == limits);
        wait_until("the limits of the quarantine", PATIENCE, || are(LEFT))?;
        wait_until("those of the unit again", PATIENCE, || are(own))
    });
    bench.apply(&decision, &plan)?;
    looked.join().expect("looking does not panic")?;
    cgroup.uses_much()?;
    assert_eq!(bench.state(&decision)?, State::NotInEffect);
    bench.is(CANARY, "active")
}
