//! The scheduler's hooks: time per event, and what is left of a workload that does nothing but switch.

use std::process::{Command, Stdio};

use anyhow::Context as _;
use aya::sys::{Stats, enable_stats};
use canary_user::{
    targets::Role,
    telemetry::{Options, Sensor},
};

use super::{
    Limit, Plan, Row,
    programs::{Runs, Tool},
};
use crate::{
    Sandbox,
    bpf::{self, Empty},
};

const EVENTS: [&str; 3] = ["sched-tracked", "sched-untracked", "sched-runqlat"];
const PIPE: [&str; 3] = ["pipe-tracked", "pipe-untracked", "pipe-runqlat"];

/// `perf bench sched pipe` in a cgroup on one CPU: two tasks that wake each other up. Returns the seconds of CPU that they
/// took, as `cpu.stat` has it: on a quiet machine this is the time that passes, on another it leaves out what others took.
fn pipe(sandbox: &Sandbox, cgroup: &str, loops: u32) -> anyhow::Result<f64> {
    let procs = sandbox.root.dir(cgroup).join("cgroup.procs");
    let script =
        format!("echo $$ > {} && exec taskset -c 1 perf bench -f simple sched pipe -l {loops}", procs.display());
    let before_usec = sandbox.field(cgroup, "cpu.stat", "usage_usec")?;
    let output = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).output().context("start perf")?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "perf bench ended with {}: {said}", output.status);
    Ok((sandbox.field(cgroup, "cpu.stat", "usage_usec")? - before_usec) as f64 / 1e6)
}

/// A sensor that follows one cgroup.
pub fn following(sandbox: &Sandbox, cgroup: &str) -> anyhow::Result<Sensor> {
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    anyhow::ensure!(sensor.live().refused.is_empty(), "hooks are refused: {:?}", sensor.live().refused);
    sensor.follow(&[sandbox.target(cgroup, Role::Stable)?]);
    Ok(sensor)
}

fn runqlat() -> anyhow::Result<Tool> {
    // It prints when it is interrupted.
    let mut command = Command::new("/usr/sbin/runqlat");
    Tool::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()), "sched_wakeup")
}

/// Nanoseconds per `sched_switch` plus per `sched_wakeup`, net of an empty program on the same hook.
pub fn events(plan: &Plan) -> anyhow::Result<Vec<Row>> {
    if !plan.wants(&EVENTS) {
        return Ok(Vec::new());
    }
    const LOOPS: u32 = 100_000;
    let sandbox = Sandbox::new()?;
    let (tracked, untracked) = (sandbox.cgroup("tracked")?, sandbox.cgroup("untracked")?);
    let _stats = enable_stats(Stats::RunTime).context("switch kernel.bpf_stats on")?;
    let empty = [Empty::raw_tracepoint(c"sched_switch")?, Empty::raw_tracepoint(c"sched_wakeup")?];
    let me = std::process::id();
    let mut shares = [Vec::new(), Vec::new()];
    let mut ours = [Vec::new(), Vec::new()];
    let mut theirs = Vec::new();
    let mut floors = Vec::new();
    for round in 1..=plan.rounds {
        eprintln!("  ..   time per scheduler event, round {round} of {}", plan.rounds);
        let tool = runqlat()?;
        let (before, floor_before) = (tool.runs(), [empty[0].runs(), empty[1].runs()]);
        pipe(&sandbox, &untracked, LOOPS)?;
        let after = tool.runs();
        let floor: Vec<f64> =
            (0..2).map(|i| bpf::ns_per_run(floor_before[i], empty[i].runs())).collect::<Option<_>>().context("ran")?;
        drop(tool);
        let per_run = |name: &str| after.ns_per_run(&before, name).context("runqlat did not run");
        let runqlat_ns = per_run("sched_switch")? + per_run("sched_wakeup")? - floor[0] - floor[1];
        theirs.push(runqlat_ns);
        floors.push(floor[0]);
        for (i, cgroup) in [&tracked, &untracked].into_iter().enumerate() {
            let sensor = following(&sandbox, &tracked)?;
            let (before, floor_before) = (Runs::of(me), [empty[0].runs(), empty[1].runs()]);
            pipe(&sandbox, cgroup, LOOPS)?;
            let after = Runs::of(me);
            let mut ns = 0.0;
            // A hook that the sensor does not use costs nothing.
            for (hook, empty, floor_before) in
                [("sched_switch", &empty[0], floor_before[0]), ("sched_wakeup", &empty[1], floor_before[1])]
            {
                if let Some(ours) = after.ns_per_run(&before, hook) {
                    ns += ours - bpf::ns_per_run(floor_before, empty.runs()).context("ran")?;
                }
            }
            drop(sensor);
            ours[i].push(ns);
            shares[i].push(ns / runqlat_ns);
        }
    }
    let detail = |i: usize| format!("{:.0} ns, runqlat {:.0} ns", super::median(&ours[i]), super::median(&theirs));
    let what = "time per switch and wakeup, share of runqlat's";
    Ok(vec![
        Row::of(EVENTS[0], what, &shares[0], Limit::AtMost(0.45), detail(0)),
        Row::of(EVENTS[1], what, &shares[1], Limit::AtMost(0.15), detail(1)),
        Row::of(
            EVENTS[2],
            "ns per switch and wakeup, net",
            &theirs,
            Limit::None,
            format!("an empty program {:.0} ns", super::median(&floors)),
        ),
    ])
}

/// Time of the whole workload with programs attached, over the time without.
pub fn workload(plan: &Plan) -> anyhow::Result<Vec<Row>> {
    if !plan.wants(&PIPE) {
        return Ok(Vec::new());
    }
    const LOOPS: u32 = 150_000;
    let sandbox = Sandbox::new()?;
    let (tracked, untracked) = (sandbox.cgroup("tracked")?, sandbox.cgroup("untracked")?);
    let mut ratios = [Vec::new(), Vec::new(), Vec::new()];
    let mut alone_us = Vec::new();
    for round in 1..=plan.rounds {
        eprintln!("  ..   pinned pipe, attached and detached, round {round} of {}", plan.rounds);
        // Before and after, so that a machine that gets busier meanwhile favours neither.
        let before = pipe(&sandbox, &tracked, LOOPS)?;
        let with = {
            let _sensor = following(&sandbox, &tracked)?;
            [pipe(&sandbox, &tracked, LOOPS)?, pipe(&sandbox, &untracked, LOOPS)?]
        };
        let theirs = {
            let _tool = runqlat()?;
            pipe(&sandbox, &untracked, LOOPS)?
        };
        let alone = f64::midpoint(before, pipe(&sandbox, &untracked, LOOPS)?);
        alone_us.push(alone / f64::from(LOOPS) * 1e6);
        for (ratios, time) in ratios.iter_mut().zip([with[0], with[1], theirs]) {
            ratios.push(time / alone);
        }
    }
    let detail = format!("alone {:.2} µs a turn", super::median(&alone_us));
    let limits = [Limit::AtMost(1.15), Limit::AtMost(1.08), Limit::None];
    Ok((0..3)
        .map(|i| {
            Row::of(PIPE[i], "CPU time of a pinned pipe, attached over detached", &ratios[i], limits[i], detail.clone())
        })
        .collect())
}
