//! The instances of a run, whoever runs them.

use std::{fs::File, os::fd::AsRawFd, path::PathBuf};

use anyhow::Context;
use canary_user::{targets::Role, targets::cgroup::Root};
use tokio::{process::Child, sync::watch};

use crate::{
    cgroup::DemoCgroups,
    fault::Order,
    fleet::{Fleet, Instance},
    guard::Hands,
    managed::Managed,
    neighbour,
    orchestrator::Kind,
    run::Options,
    working_set::make_working_set,
};

/// Started and stopped through one of two hands.
pub struct Instances {
    who: Who,
    program: PathBuf,
    /// Of the noisy neighbour, where the instances need none.
    cgroups: DemoCgroups,
    /// What the instances read from; it has no name and goes with them.
    _working_set: Option<File>,
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
        let working_set = scenario.working_set_bytes().map(|bytes| make_working_set(&options.scratch, bytes));
        let working_set = working_set.transpose()?;
        // The file has no name; the instances open it through us.
        let open_path = |file: &File| PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
        let who = match options.orchestrator.orchestrator {
            Kind::Process => Who::Own(Fleet::new(program.clone(), working_set.as_ref().map(open_path))),
            Kind::Systemd | Kind::Docker => Who::Managed(Managed::open(&options.orchestrator, program.clone()).await?),
        };
        Ok(Self { who, program, cgroups, _working_set: working_set })
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
                let number = fleet.watch().borrow().iter().filter(|i| i.role == role).count();
                fleet.add(role, self.cgroups.cell(&format!("{role}-{number}"))?).await
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
