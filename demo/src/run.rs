//! `canary-demo run`: the scenario's time line, with the fleet, the load and (here) the guard.

use std::{fs::File, io::Write, net::SocketAddr, os::fd::AsRawFd, path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use canary_user::{guard::Mode, targets::Role};
use clap::{Args, ValueEnum};
use serde::Serialize;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep_until},
};

use crate::{
    cgroup::DemoCgroups,
    fault::Order,
    fleet::{Fleet, Instance},
    load::{self, InstanceTotals, Load, Phase},
    neighbour,
    scenario::{Expected, Scenario, TimeLine},
    serve,
};

#[derive(Args)]
pub struct Options {
    /// What goes wrong.
    #[arg(long, value_enum)]
    pub scenario: Scenario,
    /// How wrong, as a multiple: 2x is twice the CPU. [default: by scenario]
    #[arg(long, value_parser = parse_severity)]
    pub severity: Option<f64>,
    /// Length of the run. [default: 900 windows]
    #[arg(long, value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// Length of a window.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "100ms")]
    pub window: Duration,
    /// Stable instances.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=32))]
    pub instances: u16,
    /// How far the guard may go.
    #[arg(long, default_value = "rollback")]
    pub mode: Mode,
    /// Requests per second and instance.
    #[arg(long, default_value_t = 300.0)]
    pub rate: f64,
    /// Form of the report.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// File to record the samples in.
    #[arg(long)]
    pub record: Option<PathBuf>,
    /// Address of the guard's page, metrics and API.
    #[arg(long)]
    pub listen: Option<SocketAddr>,
    /// Directory on a real disk for the file that the scenario 'memory' reads.
    #[arg(long, default_value = "/var/tmp")]
    pub scratch: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

fn parse_severity(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('x').unwrap_or(text);
    match number.parse::<f64>() {
        Ok(severity) if (1.0..=100.0).contains(&severity) => Ok(severity),
        _ => Err("a severity is a multiple from 1x to 100x, such as 1.5x".into()),
    }
}

/// What a run did, for `--output json`.
#[derive(Debug, Serialize)]
pub struct Report {
    pub scenario: Scenario,
    pub severity: f64,
    pub expected: Expected,
    pub time_line: TimeLine,
    /// Whether a signal ended the run before its time.
    pub interrupted: bool,
    pub instances: Vec<Instance>,
    pub load: Vec<InstanceTotals>,
}

/// Runs a scenario and prints what happened. Everything it made is gone when it returns.
pub async fn run(options: Options) -> anyhow::Result<()> {
    // GUARD: the guard is not connected yet, and what only it can do is refused.
    ensure!(
        options.record.is_none() && options.listen.is_none(),
        "--record and --listen need the guard, which is not connected"
    );
    let scenario = options.scenario;
    let severity = options.severity.unwrap_or_else(|| scenario.default_severity());
    let time_line = TimeLine::new(scenario, options.window, options.duration)?;
    let program = std::env::current_exe().context("find the demo's own program")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;

    let cgroups = DemoCgroups::create(scenario.memory_limit_bytes())?;
    let working_set = scenario.working_set_bytes().map(|bytes| serve::make_working_set(&options.scratch, bytes));
    let working_set = working_set.transpose()?;
    // The file has no name; the instances open it through us.
    let open_path = |file: &File| PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
    let mut fleet = Fleet::new(program.clone(), working_set.as_ref().map(open_path));
    let load = Load::start(options.rate, fleet.watch())?;
    let start = Instant::now();
    let say = |text: &str| {
        if options.output == Output::Text {
            println!("{:5.1} s  {text}", start.elapsed().as_secs_f64());
        }
    };
    say(&format!(
        "scenario {} at severity {severity}x: {}; the guard should {}",
        scenario.name(),
        scenario.title(),
        scenario.expected().title()
    ));

    // GUARD: start it here. It needs cgroups.root(), the cells' cgroups below cgroups.name() with their roles, and
    // Process::new(cgroups.root(), grace, Some(fleet.control())) as its orchestrator; options.mode, window, record and
    // listen are its settings. Its decisions reach the fleet by that channel, and the load by fleet.watch().
    let life = async {
        for i in 0..options.instances {
            fleet.add(Role::Stable, cgroups.cell(&format!("stable-{i}"))?).await?;
        }
        say(&format!("{} stable instances at {} requests/s each", options.instances, options.rate));
        sleep_until(start + time_line.canary_start).await;
        fleet.add(Role::Canary, cgroups.cell("canary-0")?).await?;
        say("the canary has started and gets the same rate");
        let mut neighbour = None;
        if let Some(onset) = time_line.onset {
            sleep_until(start + onset).await;
            load.onset();
            match scenario.fault() {
                Some(fault) => fleet.fault(Role::Canary, Order { fault: Some(fault), severity }).await,
                None => neighbour = Some(neighbour::start(&program, &cgroups.cell("neighbour")?)?),
            }
            say(&format!("onset: {}", scenario.title()));
        }
        sleep_until(start + time_line.end).await;
        drop(neighbour);
        anyhow::Ok(())
    };
    let interrupted = tokio::select! {
        result = life => result.map(|()| false)?,
        _ = interrupt.recv() => true,
        _ = terminate.recv() => true,
    };
    // GUARD: stop it here, before the fleet, so that the end of the run does not look like a fault.

    let totals = load.stop()?;
    let instances = fleet.watch();
    fleet.stop().await;
    let instances = instances.borrow().clone();
    drop(cgroups);
    let report =
        Report { scenario, severity, expected: scenario.expected(), time_line, interrupted, instances, load: totals };
    print(&report, options.output)
}

fn print(report: &Report, output: Output) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match output {
        Output::Json => writeln!(out, "{}", serde_json::to_string(report).context("write the report")?)?,
        Output::Text => {
            for instance in &report.instances {
                let ends: Vec<_> = instance.ends.iter().map(|(how, times)| format!("{times} × {how}")).collect();
                writeln!(out, "{}: {} started, ended: {}", instance.cgroup, instance.starts, ends.join(", "))?;
            }
            writeln!(
                out,
                "{:<8} {:<12} {:>9} {:>7} {:>9} {:>9}",
                "role", "phase", "served", "failed", "mean ms", "p95 ms"
            )?;
            for role in [Role::Stable, Role::Canary] {
                for phase in Phase::ALL {
                    let t = load::sum(&report.load, role, Some(phase));
                    if t.served + t.failed == 0 {
                        continue;
                    }
                    let ms = |ns: Option<f64>| ns.map_or("-".to_owned(), |ns| format!("{:.2}", ns / 1e6));
                    let mean = (t.served > 0).then(|| t.latency_sum_ns as f64 / t.served as f64);
                    writeln!(
                        out,
                        "{:<8} {:<12} {:>9} {:>7} {:>9} {:>9}",
                        role.name(),
                        format!("{phase:?}"),
                        t.served,
                        t.failed,
                        ms(mean),
                        ms(t.latency.quantile_ns(0.95))
                    )?;
                }
            }
        }
    }
    out.flush().context("write the report")
}
