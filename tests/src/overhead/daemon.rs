//! The daemon at windows of one second, with many cgroups: CPU, memory, and the time of one tick.

use std::{
    fs,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use canary_user::{
    targets::{Role, Target},
    telemetry::{Options, Sensor},
};

use super::{Limit, Plan, Row};
use crate::{
    Sandbox,
    guard::{Configuration, PATIENCE, Pages},
    wait_until,
};

/// How many cgroups, and how much of one core, how many megabytes and milliseconds they may cost.
const SIZES: [(usize, Option<[f64; 3]>); 4] =
    [(10, None), (100, None), (1000, Some([1.0, 40.0, 10.0])), (4000, Some([4.0, 160.0, 40.0]))];

/// Cgroups with a process each that wakes up twice a second.
struct Fleet {
    sandbox: Sandbox,
    targets: Vec<Target>,
    sleepers: Vec<Child>,
}

impl Fleet {
    fn start(size: usize) -> anyhow::Result<Self> {
        let sandbox = Sandbox::new()?;
        let mut fleet = Self { sandbox, targets: Vec::new(), sleepers: Vec::new() };
        let me = std::env::current_exe()?;
        for i in 0..size {
            let role = if i % 2 == 0 { Role::Stable } else { Role::Canary };
            let cgroup = fleet.sandbox.cgroup(&format!("{role}-{i}"))?;
            fleet.targets.push(fleet.sandbox.target(&cgroup, role)?);
            let procs = fleet.sandbox.root.dir(&cgroup).join("cgroup.procs");
            let sleeper = Command::new(&me).args(["sleeper"]).arg(procs).stdin(Stdio::null()).spawn();
            fleet.sleepers.push(sleeper.context("start a process for a cgroup")?);
        }
        let last = fleet.targets.last().context("at least one")?.cgroup.clone();
        wait_until("the last process is in its cgroup", PATIENCE, || !fleet.sandbox.pids(&last).is_empty())?;
        Ok(fleet)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for child in &mut self.sleepers {
            let _ = child.kill();
        }
        for child in &mut self.sleepers {
            let _ = child.wait();
        }
    }
}

/// What a process of the fleet does, for ever.
pub fn sleeper(procs: &str) -> anyhow::Result<()> {
    fs::write(procs, std::process::id().to_string()).with_context(|| format!("write {procs}"))?;
    loop {
        sleep(Duration::from_millis(500));
    }
}

pub fn all(plan: &Plan) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (size, limits) in SIZES {
        let names = ["cpu", "rss", "read"].map(|what| format!("daemon-{size}-{what}"));
        if plan.wants(&[&names[0], &names[1], &names[2]]) {
            eprintln!("  ..   the daemon with {size} cgroups");
            let [cpu, rss, read] = of_size(size, plan.rounds)?;
            let limit = |i: usize| limits.map_or(Limit::None, |l: [f64; 3]| Limit::AtMost(l[i]));
            let [cpu_name, rss_name, read_name] = names;
            rows.push(Row::of(cpu_name, "% of one core, windows of 1 s", &cpu, limit(0), String::new()));
            rows.push(Row::of(rss_name, "MB resident", &rss, limit(1), String::new()));
            rows.push(Row::of(
                read_name,
                "ms for one tick; files in turns above 100 targets",
                &read,
                limit(2),
                String::new(),
            ));
        }
    }
    rows.extend(["cpu", "rss", "read"].into_iter().filter_map(|what| growth(&rows, what)).collect::<Vec<_>>());
    Ok(rows)
}

/// From 1 000 to 4 000 cgroups, where both were measured: four times as much would be linear.
fn growth(rows: &[Row], what: &str) -> Option<Row> {
    let figure =
        |size: usize| rows.iter().find(|row| row.name == format!("daemon-{size}-{what}")).map(|row| row.figure);
    let (small, large) = (figure(1000)?, figure(4000)?);
    let detail = format!("{small:.2} to {large:.2}");
    Some(Row::of(
        format!("daemon-growth-{what}"),
        "times as much with four times the cgroups",
        &[large / small],
        Limit::AtMost(4.0),
        detail,
    ))
}

fn of_size(size: usize, rounds: usize) -> anyhow::Result<[Vec<f64>; 3]> {
    let fleet = Fleet::start(size)?;
    let mut read_ms = Vec::new();
    {
        let mut sensor = Sensor::load(fleet.sandbox.root.clone(), &Options::default())?;
        sensor.follow(&fleet.targets);
        sensor.tick();
        for _ in 0..rounds {
            sleep(Duration::from_secs(1));
            let began = Instant::now();
            let tick = sensor.tick();
            read_ms.push(began.elapsed().as_secs_f64() * 1e3);
            anyhow::ensure!(tick.samples.len() == size, "{} of {size} cgroups were read", tick.samples.len());
        }
    }
    let configuration = Configuration::shop(&fleet.sandbox)?;
    let text = fs::read_to_string(configuration.file())?.replace("window = \"100ms\"", "window = \"1s\"");
    let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    fs::write(configuration.file(), format!("listen = \"{address}\"\n{text}"))?;
    let mut guard = Command::new(std::env::current_exe()?.with_file_name("canary-under-test"))
        .args(["run", "--config", &configuration.file()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("start the guard")?;
    let measured = (|| {
        let pages = Pages(address);
        wait_until("the guard follows all cgroups", PATIENCE, || {
            let of = |role: &str| pages.version(role).ok().and_then(|v| v["instances"].as_u64()).unwrap_or(0);
            of("stable") + of("canary") == size as u64
        })?;
        sleep(Duration::from_secs(2));
        let (mut cpu, mut rss) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let (began, before) = (Instant::now(), cpu_seconds(guard.id())?);
            sleep(Duration::from_secs(4));
            cpu.push((cpu_seconds(guard.id())? - before) / began.elapsed().as_secs_f64() * 100.0);
            rss.push(resident_mb(guard.id())?);
        }
        Ok([cpu, rss, read_ms])
    })();
    let _ = guard.kill();
    let _ = guard.wait();
    measured
}

/// By the scheduler's own book, all threads together.
fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let mut ns = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        ns += text.split(' ').next().context("schedstat has fields")?.parse::<u64>()?;
    }
    Ok(ns as f64 / 1e9)
}

fn resident_mb(pid: u32) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = text.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    Ok(kib.context("status has VmRSS")? * 1024.0 / 1e6)
}
