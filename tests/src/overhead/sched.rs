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

const EVENTS: [&str; 4] = ["sched-tracked", "sched-untracked", "sched-runqlat", "sched-bpftrace"];
const PIPE: [&str; 4] = ["pipe-tracked", "pipe-untracked", "pipe-runqlat", "pipe-bpftrace"];

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
    Tool::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))
}

/// The `runqlat.bt` that comes with bpftrace, without its header file: that does not compile everywhere, and all that it
/// brings is TASK_RUNNING, which is 0.
const RUNQLAT_BT: &str =
    "tracepoint:sched:sched_wakeup, tracepoint:sched:sched_wakeup_new { @qtime[args->pid] = nsecs; }
tracepoint:sched:sched_switch {
    if (args->prev_state == 0) { @qtime[args->prev_pid] = nsecs; }
    $ns = @qtime[args->next_pid];
    if ($ns) { @usecs = hist((nsecs - $ns) / 1000); }
    delete(@qtime[args->next_pid]);
}
END { clear(@qtime); }";

/// bpftrace finds tracepoints below debugfs. Where that is not mounted, it gets one that nobody else sees.
fn bpftrace() -> anyhow::Result<Tool> {
    let script =
        "test -d /sys/kernel/debug/tracing || mount -t debugfs debugfs /sys/kernel/debug; exec bpftrace -e \"$0\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, RUNQLAT_BT]);
    Tool::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))
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
    let mut theirs = [Vec::new(), Vec::new()];
    let mut floors = Vec::new();
    for round in 1..=plan.rounds {
        eprintln!("  ..   time per scheduler event, round {round} of {}", plan.rounds);
        let floor_before = [empty[0].runs(), empty[1].runs()];
        let (before, after) = over(runqlat()?, || pipe(&sandbox, &untracked, LOOPS))?;
        let floor = floors_ns(&empty, floor_before)?;
        let per_run = |name: &str| after.ns_per_run(&before, name).context("runqlat did not run");
        let runqlat_ns = per_run("sched_switch")? + per_run("sched_wakeup")? - floor[0] - floor[1];
        theirs[0].push(runqlat_ns);
        floors.push(floor[0]);
        let floor_before = [empty[0].runs(), empty[1].runs()];
        let (before, after) = over(bpftrace()?, || pipe(&sandbox, &untracked, LOOPS))?;
        let floor = floors_ns(&empty, floor_before)?;
        // What its programs are called depends on its version: all of them, then. There is a wakeup to each switch here.
        let switches = empty[0].runs().0 - floor_before[0].0;
        theirs[1].push(after.ns_since(&before) as f64 / switches as f64 - floor[0] - floor[1]);
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
    let detail = |i: usize| format!("{:.0} ns, runqlat {:.0} ns", super::median(&ours[i]), super::median(&theirs[0]));
    let floor = format!("an empty program {:.0} ns", super::median(&floors));
    let what = "time per switch and wakeup, share of runqlat's";
    const NET: &str = "ns per switch and wakeup, net";
    Ok(vec![
        Row::of(EVENTS[0], what, &shares[0], Limit::AtMost(0.45), detail(0)),
        Row::of(EVENTS[1], what, &shares[1], Limit::AtMost(0.15), detail(1)),
        Row::of(EVENTS[2], NET, &theirs[0], Limit::None, floor.clone()),
        Row::of(EVENTS[3], NET, &theirs[1], Limit::None, floor),
    ])
}

/// What a tool's programs had run before and after a load.
fn over(tool: Tool, load: impl FnOnce() -> anyhow::Result<f64>) -> anyhow::Result<(Runs, Runs)> {
    let before = tool.runs();
    load()?;
    Ok((before, tool.runs()))
}

/// Nanoseconds per run of the empty programs since `before`.
fn floors_ns(empty: &[Empty; 2], before: [(u64, u64); 2]) -> anyhow::Result<[f64; 2]> {
    let floor = |i: usize| bpf::ns_per_run(before[i], empty[i].runs()).context("the empty program did not run");
    Ok([floor(0)?, floor(1)?])
}

/// Time of the whole workload with programs attached, over the time without.
pub fn workload(plan: &Plan) -> anyhow::Result<Vec<Row>> {
    if !plan.wants(&PIPE) {
        return Ok(Vec::new());
    }
    const LOOPS: u32 = 150_000;
    let sandbox = Sandbox::new()?;
    let (tracked, untracked) = (sandbox.cgroup("tracked")?, sandbox.cgroup("untracked")?);
    let mut ratios = [const { Vec::new() }; PIPE.len()];
    let mut alone_us = Vec::new();
    for round in 1..=plan.rounds {
        eprintln!("  ..   pinned pipe, attached and detached, round {round} of {}", plan.rounds);
        // Before and after, so that a machine that gets busier meanwhile favours neither.
        let before = pipe(&sandbox, &tracked, LOOPS)?;
        let with = {
            let _sensor = following(&sandbox, &tracked)?;
            [pipe(&sandbox, &tracked, LOOPS)?, pipe(&sandbox, &untracked, LOOPS)?]
        };
        let mut theirs = [0.0; 2];
        for (start, theirs) in [runqlat, bpftrace].into_iter().zip(&mut theirs) {
            let _tool = start()?;
            *theirs = pipe(&sandbox, &untracked, LOOPS)?;
        }
        let alone = f64::midpoint(before, pipe(&sandbox, &untracked, LOOPS)?);
        alone_us.push(alone / f64::from(LOOPS) * 1e6);
        for (ratios, time) in ratios.iter_mut().zip([with[0], with[1], theirs[0], theirs[1]]) {
            ratios.push(time / alone);
        }
    }
    let detail = format!("alone {:.2} µs a turn", super::median(&alone_us));
    let limits = [Limit::AtMost(1.15), Limit::AtMost(1.08), Limit::None, Limit::None];
    Ok((0..PIPE.len())
        .map(|i| {
            Row::of(PIPE[i], "CPU time of a pinned pipe, attached over detached", &ratios[i], limits[i], detail.clone())
        })
        .collect())
}
