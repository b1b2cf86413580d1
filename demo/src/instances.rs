//! The instances of a run, whoever runs them.

use std::{fs::File, os::fd::AsRawFd, path::PathBuf};

use anyhow::Context;
use canary_user::{targets::Role, targets::cgroup::Root};
use tokio::{process::Child, sync::watch};

use crate::{
    cgroup::DemoCgroups,
    cpu_limit::Measured,
    fault::Order,
    fleet::{Fleet, Instance},
    guard::Hands,
    managed::Managed,
    neighbour,
    orchestrator::Kind,
    run::Options,
    scenario::{Reads, Scenario},
    upstream,
    working_set::make_working_set,
};

/// Started and stopped through one of two hands.
pub struct Instances {
    who: Who,
    program: PathBuf,
    /// Of the noisy neighbour and the upstream, where the instances need none.
    cgroups: DemoCgroups,
    /// What each instance of our own is started with, besides what it reads from.
    arguments: Vec<String>,
    reads: Option<Reads>,
    /// What instances read from, in the order of their start; the last is for all that come after. They have no names and go
    /// with us.
    files: Vec<File>,
    /// What they depend on.
    _upstream: Option<upstream::Running>,
}

enum Who {
    Own(Fleet),
    Managed(Managed),
}

impl Instances {
    /// Starts none yet.
    ///
    /// # Errors
    /// Where this machine, or its systemd or Docker, lacks what the scenario needs.
    pub async fn open(options: &Options) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("find the demo's own program")?;
        let scenario = options.scenario;
        options.orchestrator.orchestrator.check(scenario, Root::find()?.path())?;
        let cgroups = DemoCgroups::create(scenario.memory_limit_bytes())?;
        if scenario.limits_cpu() {
            cgroups.enable_cpu_limits()?;
        }
        let reads = scenario.reads();
        let mut files = Vec::new();
        if let Some(reads) = reads {
            let wanted = if reads.usual_bytes > 0 { usize::from(options.instances) + 1 } else { 1 };
            while files.len() < wanted {
                files.push(make_working_set(&options.scratch, reads.file_bytes)?);
            }
        }
        let upstream = match scenario.has_upstream() {
            true => Some(upstream::start(&program, &cgroups.cell("upstream")?).await?),
            false => None,
        };
        let arguments = arguments(scenario, upstream.as_ref());
        let who = match options.orchestrator.orchestrator {
            Kind::Process => Who::Own(Fleet::new(program.clone())),
            Kind::Systemd | Kind::Docker => {
                Who::Managed(Managed::open(&options.orchestrator, program.clone(), arguments.clone()).await?)
            }
        };
        Ok(Self { who, program, cgroups, arguments, reads, files, _upstream: upstream })
    }

    /// What the guard has to know of them.
    pub fn hands(&self) -> Hands {
        match &self.who {
            Who::Own(fleet) => Hands::Process { cgroups: self.cgroups.name(), control: fleet.control() },
            Who::Managed(managed) => managed.hands(),
        }
    }

    /// Makes what all of them need.
    pub async fn prepare(&self) -> anyhow::Result<()> {
        match &self.who {
            Who::Own(_) => Ok(()),
            Who::Managed(managed) => managed.prepare().await,
        }
    }

    /// Starts the next instance of a role and returns once it serves.
    pub async fn add(&mut self, role: Role) -> anyhow::Result<()> {
        match &mut self.who {
            Who::Own(fleet) => {
                let (all, number) = {
                    let watch = fleet.watch();
                    let known = watch.borrow();
                    (known.len(), known.iter().filter(|i| i.role == role).count())
                };
                let mut arguments = self.arguments.clone();
                arguments.extend(reading(self.reads, self.files.get(all).or(self.files.last())));
                fleet.add(role, self.cgroups.cell(&format!("{role}-{number}"))?, arguments).await
            }
            Who::Managed(managed) => managed.add(role).await,
        }
    }

    /// What is known about them, as it changes.
    pub fn watch(&self) -> watch::Receiver<Vec<Instance>> {
        match &self.who {
            Who::Own(fleet) => fleet.watch(),
            Who::Managed(managed) => managed.watch(),
        }
    }

    /// Makes all instances of a role faulty, and keeps them so over restarts.
    pub async fn fault(&self, role: Role, order: Order) -> anyhow::Result<()> {
        match &self.who {
            Who::Own(fleet) => {
                fleet.fault(role, order).await;
                Ok(())
            }
            Who::Managed(managed) => managed.fault(role, order).await,
        }
    }

    /// Begins to measure what CPU the canary takes, for a limit on it.
    ///
    /// # Errors
    /// Where there is none in a cgroup of our own.
    pub fn measure_canary(&self) -> anyhow::Result<Measured> {
        let watch = self.watch();
        let known = watch.borrow();
        let canary = known.iter().find(|i| i.role == Role::Canary).context("there is no canary to be limited")?;
        Measured::from_now(self.cgroups.root().join(canary.name.trim_start_matches('/')))
    }

    /// A program that takes their CPUs, until it is dropped.
    pub fn neighbour(&self) -> anyhow::Result<Child> {
        neighbour::start(&self.program, &self.cgroups.cell("neighbour")?)
    }

    /// Ends them and removes everything that was made for them.
    pub async fn stop(self) -> anyhow::Result<()> {
        match self.who {
            Who::Own(fleet) => {
                fleet.stop().await;
                Ok(())
            }
            Who::Managed(managed) => managed.stop().await.context("remove what the demo made"),
        }
    }
}

/// What each instance is started with.
fn arguments(scenario: Scenario, upstream: Option<&upstream::Running>) -> Vec<String> {
    let mut arguments = Vec::new();
    if let Some(upstream) = upstream {
        arguments.extend(["--upstream".into(), upstream.address.to_string()]);
    }
    if scenario.has_log_thread() {
        arguments.push("--log-thread".into());
    }
    if scenario.has_helpers() {
        arguments.push("--helpers".into());
    }
    arguments
}

/// What an instance is started with besides, for it to read from a file. That has no name; the instance opens it through us.
fn reading(reads: Option<Reads>, file: Option<&File>) -> Vec<String> {
    let (Some(reads), Some(file)) = (reads, file) else { return Vec::new() };
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    vec!["--working-set".into(), path, "--usual-bytes".into(), reads.usual_bytes.to_string()]
}
