//! One instance of the service: HTTP/1.1 on one thread, the same work for every request, and a fault when told.
//!
//! Goes in: requests, and [`Order`]s on standard input. Comes out: its address as the first line of standard output,
//! then answers. Ends when standard input closes (its supervisor is gone) or on SIGTERM, after the requests in flight.
//! Started by somebody else than the demo, orders and address go through the [registry](crate::registry).

use std::{
    error::Error,
    fmt,
    hint::black_box,
    io::{self, BufRead, Write},
    net::SocketAddr,
    path::PathBuf,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustix::{
    process::DumpableBehavior,
    time::{ClockId, clock_gettime},
};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    fault::{Fault, Order},
    registry::Registration,
    working_set::WorkingSet,
};

/// Links of the hash chain per request: about 100 µs on a CPU of 2024. Counted and not timed, so that all versions do
/// the same work however busy the machine is.
const BASE_LINKS: u64 = 27_500;
/// Some milliseconds, once, when the fault 'cpu' begins.
const CALIBRATION_LINKS: u64 = 1_000_000;
const BASE_BODY_BYTES: usize = 2048;
/// Touched at start, so that the resident memory of instances can be compared.
const BASE_HEAP_BYTES: usize = 32 << 20;
const LEAK_BYTES: f64 = 1000.0;
const OOM_BYTES: f64 = (1 << 20) as f64;
const WORKING_SET_PAGES: f64 = 16.0;
const LATENCY: Duration = Duration::from_millis(2);
const ERROR_SHARE: f64 = 0.05;
/// After SIGTERM, with a registry: for everybody to see that no new connections are wanted. They are served for so long.
const LEAVING: Duration = Duration::from_millis(500);
/// After SIGTERM: for the runtime to learn of a connection that waits to be accepted.
const QUEUED: Duration = Duration::from_millis(5);
/// After SIGTERM: for a request that is on its way on an open connection.
const LAST_REQUEST: Duration = Duration::from_millis(50);

/// A chain of `links` SplitMix64 steps, each of which needs the one before.
pub fn burn_cpu(links: u64) -> u64 {
    (0..links).fold(0, |hash, _| mix(hash))
}

/// One step of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
pub fn mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The state that requests share.
struct Service {
    state: Mutex<State>,
    working_set: Option<WorkingSet>,
}

struct State {
    order: Order,
    /// Links of the hash chain per request.
    links: u64,
    body: Bytes,
    requests: u64,
    /// CPU time that the process had taken when the first request came.
    cpu_before: Option<Duration>,
    /// What was leaked, by request.
    kept: Vec<Vec<u8>>,
}

/// Why a request gets no answer.
#[derive(Debug)]
enum Broken {
    /// Its connection is reset on purpose.
    Reset,
    WorkingSet(io::Error),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Reset => f.write_str("connection reset on purpose"),
            Broken::WorkingSet(e) => write!(f, "read the working set: {e}"),
        }
    }
}

impl Error for Broken {}

impl Service {
    fn new(working_set: Option<PathBuf>) -> anyhow::Result<Self> {
        let healthy = Order { fault: None, severity: 1.0 };
        let state = State {
            order: healthy,
            links: BASE_LINKS,
            body: body(1.0),
            requests: 0,
            cpu_before: None,
            kept: Vec::new(),
        };
        Ok(Self { state: Mutex::new(state), working_set: working_set.map(WorkingSet::open).transpose()? })
    }

    fn obey(&self, order: Order) -> anyhow::Result<()> {
        if !(order.severity >= 1.0 && order.severity.is_finite()) {
            bail!("severity {} is not a number from 1 on", order.severity);
        }
        if order.fault == Some(Fault::Memory) && self.working_set.is_none() {
            bail!("the fault 'memory' needs --working-set FILE");
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.body = body(if order.fault == Some(Fault::Network) { order.severity } else { 1.0 });
        state.links = if order.fault == Some(Fault::Cpu) { state.links_for(order.severity) } else { BASE_LINKS };
        state.order = order;
        Ok(())
    }

    async fn answer(&self, _request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Broken> {
        let (order, links, number, body) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.cpu_before.get_or_insert_with(process_cpu_time);
            state.requests += 1;
            match state.order.fault {
                Some(Fault::Leak) => {
                    let bytes = (state.order.severity - 1.0) * LEAK_BYTES;
                    state.kept.push(vec![1; bytes as usize]);
                }
                Some(Fault::Oom) => {
                    let bytes = state.order.severity * OOM_BYTES;
                    state.kept.push(vec![1; bytes as usize]);
                }
                Some(Fault::Crash) => std::process::abort(),
                _ => {}
            }
            (state.order, state.links, state.requests, state.body.clone())
        };
        let excess = order.severity - 1.0;
        black_box(burn_cpu(black_box(links)));
        match order.fault {
            Some(Fault::Memory) => {
                if let Some(set) = &self.working_set {
                    set.read(number, (excess * WORKING_SET_PAGES) as u64).map_err(Broken::WorkingSet)?;
                }
            }
            Some(Fault::Latency) => tokio::time::sleep(LATENCY.mul_f64(excess)).await,
            Some(Fault::Errors) if unit(number) < excess * ERROR_SHARE => return Err(Broken::Reset),
            _ => {}
        }
        Ok(Response::new(Full::new(body)))
    }
}

impl State {
    /// Links by which a request costs `severity` times the CPU that requests cost until now, sockets and all.
    fn links_for(&self, severity: f64) -> u64 {
        let spent = process_cpu_time().saturating_sub(self.cpu_before.unwrap_or_default());
        let started = process_cpu_time();
        black_box(burn_cpu(black_box(CALIBRATION_LINKS)));
        let link_ns = (process_cpu_time() - started).as_nanos() as f64 / CALIBRATION_LINKS as f64;
        let request_ns = match self.requests {
            0 => BASE_LINKS as f64 * link_ns,
            requests => spent.as_nanos() as f64 / requests as f64,
        };
        BASE_LINKS + ((severity - 1.0) * request_ns / link_ns) as u64
    }
}

/// User and system time of all threads of this process.
fn process_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn body(times: f64) -> Bytes {
    vec![b'.'; (BASE_BODY_BYTES as f64 * times) as usize].into()
}

/// A number from 0 to 1 that looks random and depends on `seed` alone.
pub fn unit(seed: u64) -> f64 {
    (mix(seed) >> 11) as f64 / (1u64 << 53) as f64
}

/// Serves until SIGTERM or the end of standard input, with a registry until the demo is gone; there it is ready after that time.
pub async fn serve(
    listen: SocketAddr,
    working_set: Option<PathBuf>,
    registry: Option<(PathBuf, Duration)>,
) -> anyhow::Result<()> {
    // Crashing is part of the demo; a core file each time is not.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).context("forbid core dumps")?;
    let heap = vec![1u8; BASE_HEAP_BYTES];
    let service = Arc::new(Service::new(working_set)?);
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("listen on {listen}"))?;
    let address = listener.local_addr().context("own address")?;
    let (registration, mut orders) = match registry {
        Some((dir, ready_after)) => {
            sleep(ready_after).await;
            let (registration, orders) = Registration::enter(&dir, address)?;
            (Some(registration), orders)
        }
        None => {
            println!("{address}");
            io::stdout().flush().context("write the address")?;
            (None, read_orders())
        }
    };
    let mut told_to_end = pin!(async {
        terminate.recv().await;
        if let Some(registration) = registration {
            registration.leave();
            sleep(LEAVING).await;
        }
    });
    let (stop, stopping) = watch::channel(());
    let mut connections = JoinSet::new();
    let result = loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.context("accept a connection")?;
                connections.spawn(connection(stream, service.clone(), stopping.clone()));
            }
            line = orders.recv() => match line {
                Some(line) => {
                    let order = serde_json::from_str(&line).with_context(|| format!("read the order '{line}'"));
                    if let Err(e) = order.and_then(|order| service.obey(order)) {
                        break Err(e);
                    }
                }
                None => break Ok(()),
            },
            () = &mut told_to_end => break Ok(()),
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    };
    // Whoever is in the listener's queue has been told that it is connected: closing now would break that off.
    while let Ok(Ok((stream, _))) = timeout(QUEUED, listener.accept()).await {
        connections.spawn(connection(stream, service.clone(), stopping.clone()));
    }
    drop(listener);
    drop(stop);
    while connections.join_next().await.is_some() {}
    black_box(heap);
    result
}

/// Lines of standard input. On a thread of its own, because a blocked read must not keep the runtime from ending.
fn read_orders() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

async fn connection(stream: TcpStream, service: Arc<Service>, mut stopping: watch::Receiver<()>) {
    // A second handle on the socket, to ask for a reset once hyper has given the connection up.
    let Ok(second) = SockRef::from(&stream).try_clone() else { return };
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let answer = service_fn(move |request| {
        let service = service.clone();
        async move { service.answer(request).await }
    });
    let mut serving = pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    let result = tokio::select! {
        result = serving.as_mut() => result,
        // Fails only once the sender is dropped, and that is the sign.
        _ = stopping.changed() => match timeout(LAST_REQUEST, serving.as_mut()).await {
            Ok(result) => result,
            Err(_) => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        },
    };
    let Err(e) = result else { return };
    match e.source().and_then(|source| source.downcast_ref()) {
        // A close with a linger time of 0 sends RST. It fails only on a socket that is closed already.
        Some(Broken::Reset) => drop(second.set_linger(Some(Duration::ZERO))),
        Some(broken) => eprintln!("canary-demo serve: {broken}"),
        // The client went away, or is about to be told by hyper what it did wrong.
        None => {}
    }
}
