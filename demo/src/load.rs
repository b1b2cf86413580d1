//! Open-loop load: the same rate on every instance, whether it answers or not.
//!
//! Goes in: where the instances are and which are routed, as it changes. Comes out: [`InstanceTotals`], readable at any
//! time. When an instance is routed away, its share goes to the stable ones. One thread with a runtime of its own, so
//! that neither the guard nor the demo can delay the requests. The line to the canary loses packets where it is told to.

mod counted;
mod line;
mod totals;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use canary_user::targets::Role;
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, StatusCode,
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    runtime::Builder,
    sync::{oneshot, watch},
    task::LocalSet,
    time::{Instant, sleep_until, timeout},
};

pub use self::totals::{InstanceTotals, Phase, Totals};
use self::{
    counted::Counted,
    line::{Line, LineEnd},
    totals::{Counters, InstanceCounters},
};
use crate::{fleet::Instance, service::unit};

/// A request that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(2);
/// With more requests than this open, the next fails at once: an instance that hangs must not exhaust our sockets.
const MAX_IN_FLIGHT: usize = 256;
/// Of the packets from the canary, for each unit of severity above one.
const LOST_SHARE: f64 = 0.05;

/// The running load.
pub struct Load {
    counters: Arc<Counters>,
    canary_line: Arc<Line>,
    thread: JoinHandle<anyhow::Result<()>>,
    stop: oneshot::Sender<()>,
}

impl Load {
    /// `rate` is requests per second and instance. An instance gets load from the first time it serves.
    pub fn start(rate: f64, instances: watch::Receiver<Vec<Instance>>) -> anyhow::Result<Self> {
        ensure!(rate > 0.0 && rate <= 100_000.0, "a rate of {rate} requests per second cannot be sent: try 400");
        let counters = Arc::new(Counters::default());
        let (stop, stopped) = oneshot::channel();
        let shared = counters.clone();
        let canary_line = Arc::new(Line::default());
        let line = canary_line.clone();
        let thread = std::thread::Builder::new()
            .name("load".into())
            .spawn(move || {
                let runtime = Builder::new_current_thread().enable_all().build().context("the load's runtime")?;
                LocalSet::new().block_on(&runtime, async {
                    tokio::select! {
                        () = generate(rate, instances, shared, line) => {}
                        _ = stopped => {}
                    }
                });
                Ok(())
            })
            .context("start the load's thread")?;
        Ok(Self { counters, canary_line, thread, stop })
    }

    /// What was counted so far. Bytes count when they pass the socket, requests when they end.
    pub fn totals(&self) -> Vec<InstanceTotals> {
        self.counters.read()
    }

    /// From here on [`Phase::AfterOnset`]. [`Phase::AfterDrain`] comes by itself when a canary is routed away.
    pub fn onset(&self) {
        self.counters.enter(Phase::AfterOnset);
    }

    /// From here on (severity - 1) × 5 % of the packets from the canary are lost on the way, on the connections that are open, too.
    pub fn lose_packets(&self, severity: f64) {
        self.canary_line.lose((severity - 1.0) * LOST_SHARE);
    }

    /// Stops sending and returns the final totals. Requests still open are not counted.
    pub fn stop(self) -> anyhow::Result<Vec<InstanceTotals>> {
        // Fails only when the thread has ended; joining it tells why.
        let _ = self.stop.send(());
        match self.thread.join() {
            Ok(result) => result?,
            Err(_) => bail!("the load's thread panicked"),
        }
        Ok(self.counters.read())
    }
}

/// The totals of one role in one phase, or in all phases.
pub fn sum(totals: &[InstanceTotals], role: Role, phase: Option<Phase>) -> Totals {
    let mut sum = Totals::default();
    for instance in totals.iter().filter(|i| i.role == role) {
        for which in Phase::ALL.into_iter().filter(|p| phase.is_none_or(|phase| *p == phase)) {
            sum.add(&instance.phases[which as usize]);
        }
    }
    sum
}

async fn generate(
    rate: f64,
    mut instances: watch::Receiver<Vec<Instance>>,
    counters: Arc<Counters>,
    canary_line: Arc<Line>,
) {
    let mut pacers: HashMap<Arc<str>, _> = HashMap::new();
    let clients = Rc::new(Clients::default());
    loop {
        let now: Vec<Instance> = instances.borrow_and_update().clone();
        if now.iter().any(|i| i.role == Role::Canary && !i.routed) {
            counters.enter(Phase::AfterDrain);
        }
        for instance in now.iter().filter(|i| i.address.is_some()) {
            if !pacers.contains_key(&instance.name) {
                let pacer = Pacer {
                    name: instance.name.clone(),
                    seed: pacers.len() as u64,
                    instances: instances.clone(),
                    clients: clients.clone(),
                    counters: counters.clone(),
                    canary_line: canary_line.clone(),
                };
                pacers.insert(instance.name.clone(), tokio::task::spawn_local(pacer.run(rate)));
            }
        }
        if instances.changed().await.is_err() {
            return;
        }
    }
}

type Clients = RefCell<HashMap<Arc<str>, Rc<Client>>>;

/// One instance's share of the load.
struct Pacer {
    name: Arc<str>,
    seed: u64,
    instances: watch::Receiver<Vec<Instance>>,
    clients: Rc<Clients>,
    counters: Arc<Counters>,
    canary_line: Arc<Line>,
}

impl Pacer {
    async fn run(self, rate: f64) {
        let start = Instant::now();
        for number in 0u64.. {
            // Anywhere in its interval: with less, an instance whose requests come just after another's would wait for
            // that one's all the time, and be slower than its siblings for nothing that it does.
            let shift = unit(self.seed << 48 | number);
            let due = start + Duration::from_secs_f64((number as f64 + shift) / rate);
            sleep_until(due).await;
            let Some((client, address)) = self.choose(number) else { continue };
            tokio::task::spawn_local(client.request(address));
        }
    }

    /// Its own instance while that is routed, else the stable ones in turn.
    fn choose(&self, number: u64) -> Option<(Rc<Client>, Option<SocketAddr>)> {
        let instances = self.instances.borrow();
        let own = instances.iter().find(|i| i.name == self.name && i.routed);
        let chosen = own.or_else(|| {
            let stable = || instances.iter().filter(|i| i.role == Role::Stable && i.routed);
            stable().nth(number as usize % stable().count().max(1))
        })?;
        let mut clients = self.clients.borrow_mut();
        let client = clients.entry(chosen.name.clone()).or_insert_with(|| {
            let line = if chosen.role == Role::Canary { self.canary_line.clone() } else { Arc::default() };
            Client::new(self.counters.clone(), self.counters.instance(&chosen.name, chosen.role), line)
        });
        Some((client.clone(), chosen.address))
    }
}

type Connection = SendRequest<Empty<Bytes>>;

/// Connections at rest, and the address that they lead to.
#[derive(Default)]
struct Idle {
    address: Option<SocketAddr>,
    connections: Vec<Connection>,
}

/// The connections to one instance.
struct Client {
    counters: Arc<Counters>,
    instance: Arc<InstanceCounters>,
    line: Arc<Line>,
    idle: RefCell<Idle>,
    in_flight: Cell<usize>,
}

impl Client {
    fn new(counters: Arc<Counters>, instance: Arc<InstanceCounters>, line: Arc<Line>) -> Rc<Self> {
        Rc::new(Self { counters, instance, line, idle: Default::default(), in_flight: Default::default() })
    }

    async fn request(self: Rc<Self>, address: Option<SocketAddr>) {
        // The timer's own coarseness, a millisecond, is not the service's latency: counted from here, not from when due.
        let start = Instant::now();
        let phase = self.counters.phase();
        let answered = match address {
            Some(address) if self.in_flight.get() < MAX_IN_FLIGHT => {
                self.in_flight.set(self.in_flight.get() + 1);
                let result = timeout(TIMEOUT, self.exchange(address)).await;
                self.in_flight.set(self.in_flight.get() - 1);
                result.is_ok_and(|r| r.is_ok())
            }
            _ => false,
        };
        let counts = self.instance.phase(phase);
        if answered {
            counts.served(start.elapsed().as_nanos() as u64);
        } else {
            counts.failed.fetch_add(1, Relaxed);
        }
    }

    /// One request and its whole answer, which has to be a good one. The connection is kept where there is one.
    async fn exchange(&self, address: SocketAddr) -> anyhow::Result<()> {
        let mut connection = match self.take(address) {
            Some(connection) => connection,
            None => self.connect(address).await?,
        };
        connection.ready().await?;
        let request = Request::get("/").header(header::HOST, "canary-demo").body(Empty::new())?;
        let answer = connection.send_request(request).await?;
        let status = answer.status();
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            frame?;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.address == Some(address) {
            idle.connections.push(connection);
        }
        ensure!(status == StatusCode::OK, "status {status}");
        Ok(())
    }

    /// A connection at rest. The latest used first, so that few stay open.
    fn take(&self, address: SocketAddr) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        if idle.address != Some(address) {
            *idle = Idle { address: Some(address), connections: Vec::new() };
        }
        std::iter::from_fn(|| idle.connections.pop()).find(|connection| !connection.is_closed())
    }

    async fn connect(&self, address: SocketAddr) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let line = LineEnd::of(self.line.clone());
        let counted = Counted { stream, line, counters: self.counters.clone(), instance: self.instance.clone() };
        let (sender, connection) = http1::handshake(TokioIo::new(counted)).await?;
        tokio::task::spawn_local(connection);
        Ok(sender)
    }
}
