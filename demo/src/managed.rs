//! Instances that systemd or Docker runs: asks for their start, finds them in the registry, and publishes where each can be
//! reached, as [`Fleet`](crate::fleet::Fleet) does for the demo's own processes.
//!
//! The guard does not ask the demo to route a canary away, as it acts on systemd or Docker alone. The demo does what balancers do:
//! no new connection to an instance that has been told to end, which serves on for a moment, or to one that is down for good.

mod containers;
mod image;
mod units;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use canary_user::targets::Role;
use tokio::{
    sync::{Mutex, watch},
    task::JoinHandle,
    time::{Instant, interval, sleep},
};

use self::{containers::Containers, units::Units};
use crate::{
    fault::Order,
    fleet::Instance,
    guard::Hands,
    orchestrator::{Choice, Kind},
    registry::{self, Registry},
};

/// All that the demo makes is named so.
const PREFIX: &str = "canary-demo-v";
/// How long an instance may take until it serves.
const START: Duration = Duration::from_secs(60);
/// How often the registry is looked at: well below the time that an instance serves on after it was told to end.
const LOOK: Duration = Duration::from_millis(20);
/// How many looks later the manager is asked, too.
const LOOKS_PER_QUESTION: u32 = 10;

/// What the manager says of an instance.
struct Found {
    /// It does not run, and nothing brings it back by itself.
    is_down: bool,
    restarts: u64,
    /// In words, with its name.
    words: String,
}

/// Directory of each instance in the registry, by name.
type Places = Arc<Mutex<Vec<(Arc<str>, PathBuf)>>>;

enum Manager {
    Systemd(Units),
    Docker(Containers),
}

impl Manager {
    async fn start(&self, name: &str, dir: &Path) -> anyhow::Result<()> {
        match self {
            Manager::Systemd(units) => units.start(name, dir).await,
            Manager::Docker(containers) => containers.start(name, dir).await,
        }
    }

    async fn found(&self, name: &str) -> anyhow::Result<Found> {
        match self {
            Manager::Systemd(units) => units.found(name).await,
            Manager::Docker(containers) => containers.found(name).await,
        }
    }

    /// Also what a demo that was killed left behind.
    async fn remove_all(&self) -> anyhow::Result<()> {
        match self {
            Manager::Systemd(units) => units.remove_all().await,
            Manager::Docker(containers) => containers.remove_all().await,
        }
    }
}

/// The instances. What it started runs until [`Managed::stop`]; dropped without it, they end by themselves and their units or
/// containers stay until the next demo.
pub struct Managed {
    manager: Arc<Manager>,
    registry: Registry,
    places: Places,
    instances: watch::Sender<Vec<Instance>>,
    follower: JoinHandle<()>,
}

impl Managed {
    /// Reaches systemd or Docker and removes what an earlier demo left there. Each instance is started with these arguments
    /// besides its directory.
    ///
    /// # Errors
    /// Where it is not there, with what to do about it; another demo that has the names.
    pub async fn open(options: &Choice, program: PathBuf, arguments: Vec<String>) -> anyhow::Result<Self> {
        let manager = match options.orchestrator {
            Kind::Systemd => Manager::Systemd(Units::open(&options.systemd_bus, program, arguments).await?),
            Kind::Docker => Manager::Docker(Containers::open(&options.docker_socket, program, arguments).await?),
            Kind::Process => bail!("the demo's own processes have no other manager"),
        };
        let registry = Registry::open(Path::new(registry::DIRECTORY))?;
        let manager = Arc::new(manager);
        manager.remove_all().await.context("remove what an earlier demo left behind")?;
        let (places, instances) = (Places::default(), watch::Sender::new(Vec::new()));
        let follower = tokio::spawn(follow(manager.clone(), places.clone(), instances.clone()));
        Ok(Self { manager, registry, places, instances, follower })
    }

    /// Makes what all instances need.
    pub async fn prepare(&self) -> anyhow::Result<()> {
        match &*self.manager {
            Manager::Systemd(_) => Ok(()),
            Manager::Docker(containers) => containers.make_image().await,
        }
    }

    /// Has the next instance of a role started and returns once it serves.
    pub async fn add(&mut self, role: Role) -> anyhow::Result<()> {
        let number = self.instances.borrow().iter().filter(|i| i.role == role).count() + 1;
        let version = if role == Role::Stable { 1 } else { 2 };
        let name: Arc<str> = match *self.manager {
            Manager::Systemd(_) => format!("{PREFIX}{version}-{number}.service"),
            Manager::Docker(_) => format!("{PREFIX}{version}-{number}"),
        }
        .into();
        let dir = self.registry.add(&name)?;
        self.manager.start(&name, &dir).await?;
        let until = Instant::now() + START;
        let address = loop {
            if let Some(address) = registry::address(&dir) {
                break address;
            }
            let found = self.manager.found(&name).await?;
            if found.is_down || Instant::now() > until {
                bail!("{name} does not serve: {}", found.words);
            }
            sleep(LOOK).await;
        };
        self.places.lock().await.push((name.clone(), dir));
        self.instances.send_modify(|all| {
            all.push(Instance {
                name,
                role,
                address: Some(address),
                routed: true,
                retired: false,
                starts: 1,
                ends: Default::default(),
            });
        });
        Ok(())
    }

    /// What the guard has to know of them.
    pub fn hands(&self) -> Hands {
        match &*self.manager {
            Manager::Systemd(units) => {
                Hands::Systemd { bus: units.bus.clone(), names: [1, 2].map(|v| format!("{PREFIX}{v}-*.service")) }
            }
            Manager::Docker(containers) => {
                Hands::Docker { socket: containers.socket.clone(), names: [1, 2].map(|v| format!("{PREFIX}{v}-*")) }
            }
        }
    }

    pub fn watch(&self) -> watch::Receiver<Vec<Instance>> {
        self.instances.subscribe()
    }

    /// Makes all instances of a role faulty, and keeps them so over restarts.
    pub async fn fault(&self, role: Role, order: Order) -> anyhow::Result<()> {
        let of_role: Vec<_> =
            self.instances.borrow().iter().filter(|i| i.role == role).map(|i| i.name.clone()).collect();
        for (_, dir) in self.places.lock().await.iter().filter(|(name, _)| of_role.contains(name)) {
            self.registry.order(dir, order)?;
        }
        Ok(())
    }

    /// Stops all instances and removes everything that was made for them.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.follower.abort();
        self.manager.remove_all().await
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

/// Keeps what is known of the instances up to date.
async fn follow(manager: Arc<Manager>, places: Places, instances: watch::Sender<Vec<Instance>>) {
    let mut every = interval(LOOK);
    for look in 0u32.. {
        every.tick().await;
        for (name, dir) in &*places.lock().await {
            let address = registry::address(dir);
            // A restarting manager that does not answer says nothing about the instance.
            let found = match look % LOOKS_PER_QUESTION {
                0 => manager.found(name).await.ok(),
                _ => None,
            };
            instances.send_if_modified(|all| {
                let Some(instance) = all.iter_mut().find(|i| i.name == *name) else { return false };
                let before = (instance.address, instance.routed, instance.starts);
                if let Some(found) = found {
                    instance.retired = found.is_down;
                    instance.starts = instance.starts.max(found.restarts + 1);
                }
                // Who crashed has left its address behind: until it is started again, requests to there fail.
                instance.address = address.or(instance.address).filter(|_| !instance.retired);
                instance.routed = address.is_some() && !instance.retired;
                before != (instance.address, instance.routed, instance.starts)
            });
        }
    }
}
