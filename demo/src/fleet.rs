//! Owns the instances: starts them, starts them again when they die, tells them their faults, and publishes where each
//! can be reached. Obeys the guard's [`Control`] requests.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, anyhow};
use canary_user::{orchestrator::process::Control, targets::Role};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{cgroup::Cell, fault::Order};

/// Between the death of an instance and its next start.
const RESTART_DELAY: Duration = Duration::from_millis(20);
/// Between routing an instance away and saying so: requests that were on their way to it are answered first.
const DRAIN_DELAY: Duration = Duration::from_millis(50);
/// Between SIGTERM and SIGKILL when the demo ends.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// What is known about one instance.
#[derive(Clone, Debug, Serialize)]
pub struct Instance {
    /// Its cgroup below the root of cgroup2, or the name of its unit or container.
    pub name: Arc<str>,
    pub role: Role,
    /// `None` while no process serves.
    pub address: Option<SocketAddr>,
    /// Whether it is to get requests.
    pub routed: bool,
    /// Whether it is not to be started again.
    pub retired: bool,
    /// Processes started so far.
    pub starts: u64,
    /// How its processes ended, in words, and how many of them each way; empty where they are not the demo's own.
    pub ends: BTreeMap<String, u64>,
}

enum Request {
    Fault(Order),
    Retire(oneshot::Sender<()>),
    Stop,
}

/// The running instances. Dropping it kills them.
pub struct Fleet {
    program: PathBuf,
    instances: watch::Sender<Vec<Instance>>,
    supervisors: Supervisors,
    tasks: JoinSet<()>,
    control: mpsc::Sender<Control>,
}

type Supervisors = Arc<Mutex<HashMap<Arc<str>, mpsc::Sender<Request>>>>;

impl Fleet {
    /// `program` is this program's file. Call it in a tokio runtime.
    pub fn new(program: PathBuf) -> Self {
        let (control, requests) = mpsc::channel(4);
        let instances = watch::Sender::new(Vec::new());
        let supervisors = Supervisors::default();
        tokio::spawn(obey(requests, instances.clone(), supervisors.clone()));
        Self { program, instances, supervisors, tasks: JoinSet::new(), control }
    }

    /// Starts an instance, with these arguments besides its address, and returns once it serves.
    pub async fn add(&mut self, role: Role, cell: Cell, arguments: Vec<String>) -> anyhow::Result<()> {
        let cgroup = cell.cgroup.clone();
        let fresh = Instance {
            name: cgroup.clone(),
            role,
            address: None,
            routed: true,
            retired: false,
            starts: 0,
            ends: BTreeMap::new(),
        };
        self.instances.send_modify(|all| all.push(fresh));
        let (sender, requests) = mpsc::channel(4);
        self.supervisors.lock().unwrap_or_else(PoisonError::into_inner).insert(cgroup.clone(), sender);
        let (started, first) = oneshot::channel();
        let supervisor = Supervisor {
            program: self.program.clone(),
            arguments,
            cell,
            instances: self.instances.clone(),
            requests,
            order: None,
            retired: false,
            started: Some(started),
        };
        self.tasks.spawn(supervisor.run());
        first.await.context("its supervisor ended").flatten().with_context(|| format!("start {cgroup}"))
    }

    /// What is known about the instances, as it changes.
    pub fn watch(&self) -> watch::Receiver<Vec<Instance>> {
        self.instances.subscribe()
    }

    /// For [`canary_user::orchestrator::process::Process::new`].
    pub fn control(&self) -> mpsc::Sender<Control> {
        self.control.clone()
    }

    /// Makes all instances of a role faulty, and keeps them so over restarts.
    pub async fn fault(&self, role: Role, order: Order) {
        let of_role = self.instances.borrow().iter().filter(|i| i.role == role).map(|i| i.name.clone()).collect();
        for supervisor in find(&self.supervisors, of_role) {
            // Fails only when the supervisor has ended, and with it the instance.
            let _ = supervisor.send(Request::Fault(order)).await;
        }
    }

    /// SIGTERM to all instances, and SIGKILL to those that do not end.
    pub async fn stop(self) {
        let all: Vec<_> = self.supervisors.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for supervisor in all {
            let _ = supervisor.send(Request::Stop).await;
        }
        self.tasks.join_all().await;
    }
}

fn find(supervisors: &Supervisors, cgroups: Vec<Arc<str>>) -> Vec<mpsc::Sender<Request>> {
    let known = supervisors.lock().unwrap_or_else(PoisonError::into_inner);
    cgroups.iter().filter_map(|cgroup| known.get(cgroup).cloned()).collect()
}

/// Carries out the guard's requests, one after the other.
async fn obey(
    mut requests: mpsc::Receiver<Control>,
    instances: watch::Sender<Vec<Instance>>,
    supervisors: Supervisors,
) {
    while let Some(request) = requests.recv().await {
        match request {
            Control::RouteAway { cgroups, done } => {
                instances.send_modify(|all| {
                    for instance in all.iter_mut().filter(|i| cgroups.contains(&i.name)) {
                        instance.routed = false;
                    }
                });
                sleep(DRAIN_DELAY).await;
                let _ = done.send(());
            }
            Control::Retire { cgroups, done } => {
                for supervisor in find(&supervisors, cgroups) {
                    let (retired, answer) = oneshot::channel();
                    if supervisor.send(Request::Retire(retired)).await.is_ok() {
                        let _ = answer.await;
                    }
                }
                let _ = done.send(());
            }
        }
    }
}

/// Looks after one instance. Requests are taken only while its process serves or is gone, never while one is on its way
/// into the cgroup: that is what makes the answer to `Retire` a promise.
struct Supervisor {
    program: PathBuf,
    arguments: Vec<String>,
    cell: Cell,
    instances: watch::Sender<Vec<Instance>>,
    requests: mpsc::Receiver<Request>,
    order: Option<Order>,
    retired: bool,
    started: Option<oneshot::Sender<anyhow::Result<()>>>,
}

enum After {
    Restart,
    Stop,
}

impl Supervisor {
    async fn run(mut self) {
        loop {
            let ended = self.one_process().await;
            let (description, after) = match ended {
                Ok((status, after)) => (status.to_string(), after),
                Err(e) => {
                    let description = format!("{e:#}");
                    if let Some(started) = self.started.take() {
                        let _ = started.send(Err(e));
                        return;
                    }
                    (description, After::Restart)
                }
            };
            self.publish(|instance| {
                instance.address = None;
                *instance.ends.entry(description).or_default() += 1;
            });
            if matches!(after, After::Stop) || self.pause().await.is_none() {
                return;
            }
        }
    }

    /// From the start of a process to its end.
    async fn one_process(&mut self) -> anyhow::Result<(ExitStatus, After)> {
        let mut child = spawn(&self.program, &self.cell, &self.arguments)?;
        let mut orders = child.stdin.take().context("its standard input is not a pipe")?;
        let output = child.stdout.take().context("its standard output is not a pipe")?;
        self.publish(|instance| instance.starts += 1);
        if let Some(order) = self.order {
            tell(&mut orders, order).await;
        }
        let first = BufReader::new(output).lines().next_line().await.context("read its address")?;
        let Some(line) = first else {
            let status = child.wait().await.context("wait for it")?;
            return match self.started {
                Some(_) => Err(anyhow!("it ended before it served: {status}")),
                None => Ok((status, After::Restart)),
            };
        };
        let address = line.parse().with_context(|| format!("its first line '{line}' is not an address"))?;
        self.publish(|instance| instance.address = Some(address));
        if let Some(started) = self.started.take() {
            let _ = started.send(Ok(()));
        }
        loop {
            tokio::select! {
                status = child.wait() => return Ok((status.context("wait for it")?, After::Restart)),
                request = self.requests.recv() => match request {
                    Some(Request::Fault(order)) => {
                        self.order = Some(order);
                        tell(&mut orders, order).await;
                    }
                    Some(Request::Retire(done)) => self.retire(done),
                    Some(Request::Stop) | None => return Ok((terminate(&mut child).await?, After::Stop)),
                },
            }
        }
    }

    /// Between two processes: for the restart delay, or for good. `None` when the instance is to end.
    async fn pause(&mut self) -> Option<()> {
        let mut delay = std::pin::pin!(sleep(RESTART_DELAY));
        loop {
            tokio::select! {
                () = &mut delay, if !self.retired => return Some(()),
                request = self.requests.recv() => match request? {
                    Request::Fault(order) => self.order = Some(order),
                    Request::Retire(done) => self.retire(done),
                    Request::Stop => return None,
                },
            }
        }
    }

    fn retire(&mut self, done: oneshot::Sender<()>) {
        self.retired = true;
        self.publish(|instance| instance.retired = true);
        let _ = done.send(());
    }

    fn publish(&self, change: impl FnOnce(&mut Instance)) {
        self.instances.send_modify(|all| {
            if let Some(instance) = all.iter_mut().find(|i| i.name == self.cell.cgroup) {
                change(instance);
            }
        });
    }
}

fn spawn(program: &Path, cell: &Cell, arguments: &[String]) -> anyhow::Result<Child> {
    let mut command = Command::new(program);
    command.args(cell.enter_args()).arg(program).args(["serve", "--listen", "127.0.0.1:0"]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    command.spawn().with_context(|| format!("start {}", program.display()))
}

/// Writes an order. A process that just died cannot read it; the next one gets it at its start.
async fn tell(orders: &mut ChildStdin, order: Order) {
    let mut line = serde_json::to_string(&order).expect("an order has no map and no foreign type");
    line.push('\n');
    let _ = orders.write_all(line.as_bytes()).await;
}

async fn terminate(child: &mut Child) -> anyhow::Result<ExitStatus> {
    if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id as i32)) {
        // It is our child and not waited for yet: the number is still its own.
        let _ = kill_process(pid, Signal::TERM);
    }
    match timeout(STOP_GRACE, child.wait()).await {
        Ok(status) => status.context("wait for an instance"),
        Err(_) => {
            child.start_kill().context("kill an instance")?;
            child.wait().await.context("wait for an instance")
        }
    }
}
