//! `canary-demo run`: the scenario's time line, with the fleet, the load and the guard on top.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use canary_user::{
    cli::run::asked_to_stop,
    guard::Mode,
    targets::Role,
    telemetry::monotonic_ns,
    watch::{Show, Teller, TerminalView, View, units},
};
use clap::{Args, ValueEnum};
use tokio::{
    sync::oneshot,
    time::{Instant, interval, sleep, sleep_until},
};

use crate::{
    fault::Order,
    fleet::Instance,
    guard::{self, Settings},
    instances::Instances,
    load::{self, InstanceTotals, Load, Phase},
    observer::{Observer, Seen},
    orchestrator,
    report::Report,
    scenario::{Scenario, TimeLine},
};

/// Windows that a run goes on for after its action has ended, to show that the service goes on too.
const AFTERWARDS: u32 = 50;

#[derive(Args)]
pub struct Options {
    /// What goes wrong with the canary
    #[arg(long, value_enum, default_value_t = Scenario::Cpu)]
    pub scenario: Scenario,
    /// How wrong, as a multiple from 1x to 100x: 2x is twice the CPU [default: 2x]
    #[arg(long, value_name = "FACTOR", value_parser = parse_severity)]
    pub severity: Option<f64>,
    #[command(flatten)]
    pub orchestrator: orchestrator::Choice,
    /// Length of the run at most, such as 2m; it ends earlier once the guard has acted [default: 850 windows, 85s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// Length of a window, 100ms to 1m
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "100ms")]
    pub window: Duration,
    /// Instances of stable, 1 to 32; the canary is always one
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=32))]
    pub instances: u16,
    /// How far the guard may go: observe, advise, quarantine, drain or rollback
    #[arg(long, value_name = "MODE", default_value = "rollback")]
    pub mode: Mode,
    /// Requests per second and instance; a window with fewer than 30 on a side is merged with the next
    #[arg(long, value_name = "NUMBER", default_value_t = 400.0)]
    pub rate: f64,
    /// text: a live view on a terminal, else lines; json: one object per window, one a line, and a summary at the end
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Also record what the kernel counts to this new file, for `canary replay` [default: no recording]
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Serve the guard's metrics, status and probes here, such as 127.0.0.1:9847 [default: not served]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Directory on a real disk for what the scenarios 'memory' and 'thrash' read
    #[arg(long, value_name = "DIRECTORY", default_value = "/var/tmp")]
    pub scratch: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

impl Options {
    fn severity(&self) -> f64 {
        self.severity.unwrap_or_else(|| self.scenario.default_severity())
    }
}

fn parse_severity(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('x').unwrap_or(text);
    match number.parse::<f64>() {
        Ok(severity) if (1.0..=100.0).contains(&severity) => Ok(severity),
        _ => Err("a severity is a multiple from 1x to 100x, such as 1.5x".into()),
    }
}

/// Runs a scenario and prints what happened; true where the guard did what the scenario calls for. Everything that it
/// made is gone when it returns.
pub async fn run(options: Options) -> anyhow::Result<bool> {
    let time_line = TimeLine::new(options.scenario, options.window, options.duration)?;
    let stop = asked_to_stop()?;
    let mut instances = Instances::open(&options).await?;
    let watched = instances.watch();
    let shown = show(&options, time_line, &mut instances, stop).await;
    let removed = instances.stop().await;
    if let (Err(_), Err(error)) = (&shown, &removed) {
        eprintln!("canary-demo: {error:#}");
    }
    let shown = shown?;
    removed?;
    let report = Report {
        scenario: options.scenario,
        severity: options.severity(),
        orchestrator: options.orchestrator.orchestrator,
        mode: options.mode,
        expected: options.scenario.expected(),
        time_line,
        window: options.window,
        interrupted: shown.interrupted,
        instances: watched.borrow().clone(),
        load: shown.load,
    };
    report.print(&shown.seen, options.output)
}

/// What a run was.
struct Shown {
    interrupted: bool,
    load: Vec<InstanceTotals>,
    seen: Seen,
}

/// The run itself, until its end or until `stop`. The instances are left as they are.
async fn show(
    options: &Options,
    time_line: TimeLine,
    instances: &mut Instances,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<Shown> {
    let (scenario, severity, orchestrator) = (options.scenario, options.severity(), options.orchestrator.orchestrator);
    let load = Load::start(options.rate, instances.watch())?;
    let observer = Arc::new(Observer::new(options.window));

    let title = format!("canary demo: {} at {severity}x, {}", scenario.name(), orchestrator);
    let show = Show::start(match options.output {
        Output::Text => View::Terminal(Box::new(TerminalView::new(title, None))),
        Output::Json => View::Json,
    })?;
    let teller = show.teller();
    let (end_guard, guard_ended) = oneshot::channel();
    let settings = Settings {
        window: options.window,
        canary_windows: time_line.canary_windows(options.window),
        mode: options.mode,
        listen: options.listen,
        record: options.record.clone(),
        hands: instances.hands(),
    };
    let guard = guard::start(settings, observer.clone(), show.teller(), guard_ended).await?;
    tokio::pin!(guard);

    let life = async {
        instances.prepare().await?;
        for _ in 0..options.instances {
            instances.add(Role::Stable).await?;
        }
        // Images and containers take their time, and stable's history begins only now.
        let start = Instant::now();
        let known = instances.watch();
        let names = |role| names(&known.borrow(), role);
        teller.log(format!(
            "{} stable instances serve {} requests/s each: {}",
            options.instances,
            options.rate,
            names(Role::Stable)
        ));
        sleep_until(start + time_line.canary_start).await;
        instances.add(Role::Canary).await?;
        teller.log(format!("the canary starts and gets the same rate: {}", names(Role::Canary)));
        let measured = if scenario.limits_cpu() { Some(instances.measure_canary()?) } else { None };
        let mut neighbour = None;
        if let Some(neighbour_start) = time_line.neighbour_start {
            sleep_until(start + neighbour_start).await;
            neighbour = Some(instances.neighbour()?);
            if time_line.neighbour_start < time_line.onset {
                teller.log("another program begins to take the CPUs");
            }
        }
        if let Some(onset) = time_line.onset {
            sleep_until(start + onset).await;
            load.onset();
            observer.onset(monotonic_ns());
            if let Some(fault) = scenario.fault() {
                instances.fault(Role::Canary, Order { fault: Some(fault), severity }).await?;
            }
            if scenario.loses_packets() {
                load.lose_packets(severity);
            }
            if let Some(measured) = &measured {
                let cpus = measured.limit(severity)?;
                teller.log(format!("the canary's CPU limit is {:.1} % of a CPU", 100.0 * cpus));
            }
            teller.log(format!("from here on {}", scenario.title()));
        }
        tokio::select! {
            () = sleep_until(start + time_line.end) => {}
            () = observer.settled() => sleep(options.window * AFTERWARDS).await,
        }
        drop(neighbour);
        anyhow::Ok(())
    };
    let interrupted = tokio::select! {
        result = life => result.map(|()| false)?,
        () = stop => true,
        () = tell_of_load(&load, &teller) => unreachable!("it tells for ever"),
        // The guard ends by itself only when it fails.
        ended = &mut guard => {
            ended.context("the guard's task panicked")??;
            anyhow::bail!("the guard ended before the run did");
        }
    };
    // Before the instances, so that the end of the run does not look like a fault.
    drop(end_guard);
    guard.await.context("the guard's task panicked")??;
    let load = load.stop()?;
    drop(teller);
    if let Err(error) = show.finish() {
        eprintln!("canary-demo: the view ended early: {error:#}");
    }
    Ok(Shown { interrupted, load, seen: observer.seen() })
}

/// Of the instances of a role, in the order of their start.
pub fn names(instances: &[Instance], role: Role) -> String {
    let names: Vec<&str> = instances.iter().filter(|i| i.role == role).map(|i| &*i.name).collect();
    names.join(", ")
}

/// Keeps the lines below the view up to date.
async fn tell_of_load(load: &Load, teller: &Teller) {
    let mut every = interval(Duration::from_millis(200));
    loop {
        every.tick().await;
        let totals = load.totals();
        let line = |role: Role| {
            let all = load::sum(&totals, role, None);
            let after = load::sum(&totals, role, Some(Phase::AfterOnset)).failed;
            let since = if after > 0 { format!(", {after} of them since the onset") } else { String::new() };
            format!(
                "{:<7} {:>8} requests served, {} failed{since}",
                role.name(),
                units::count(all.served),
                units::count(all.failed)
            )
        };
        teller.footer(vec![line(Role::Stable), line(Role::Canary)]);
    }
}
