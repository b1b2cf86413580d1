//! What a request does: the same work each time, and a fault when told.

use std::{
    error::Error,
    fmt,
    hint::black_box,
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Incoming};
use rustix::time::{ClockId, clock_gettime};
use tokio::net::TcpStream;

use crate::{
    fault::{Fault, Order},
    helper,
    log_thread::LogThread,
    upstream::Upstream,
    working_set::{PAGE_BYTES, WorkingSet},
};

/// Links of the hash chain per request: about 100 µs on a CPU of 2024. Counted and not timed, so that all versions do
/// the same work however busy the machine is.
const BASE_LINKS: u64 = 27_500;
/// Some milliseconds, once, when the fault 'cpu' begins.
const CALIBRATION_LINKS: u64 = 1_000_000;
const BASE_BODY_BYTES: usize = 2048;
/// Touched at start, so that the resident memory of instances can be compared.
pub const BASE_HEAP_BYTES: usize = 32 << 20;
const LEAK_BYTES: f64 = 1000.0;
const OOM_BYTES: f64 = (1 << 20) as f64;
const WORKING_SET_PAGES: f64 = 16.0;
/// Bytes by which the fault 'thrash' reads from more, for each unit of severity above one.
const THRASH_BYTES: f64 = (8 << 20) as f64;
const LATENCY: Duration = Duration::from_millis(2);
/// The fault 'tail' does its work in one request of so many.
const BURST_EVERY: u64 = 5;
/// Requests whose work it does there, for each unit of severity: with 2, that of all of them.
const BURST_REQUESTS: f64 = 2.5;
const ERROR_SHARE: f64 = 0.05;
const EXIT_SHARE: f64 = 0.5;
/// Where the fault 'unreachable' asks. Nobody listens there: no service of today has the first port.
const NOBODY: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1));

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

/// What an instance has besides a CPU and memory, where the scenario needs it: the same for both versions.
#[derive(Clone, Debug, Default, Args)]
pub struct Equipment {
    /// File that the faults 'memory' and 'thrash' read from.
    #[arg(long, value_name = "FILE")]
    pub working_set: Option<PathBuf>,
    /// Each request reads from so many bytes at the beginning of that file, whatever the fault.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub usual_bytes: u64,
    /// Each request first asks the upstream at this address.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub upstream: Option<SocketAddr>,
    /// Each request leaves a thread of low priority something to do after it.
    #[arg(long)]
    pub log_thread: bool,
    /// A program is started for one request in 80.
    #[arg(long)]
    pub helpers: bool,
    /// The fault 'unreachable' asks there, and not where nobody listens.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub unreachable: Option<SocketAddr>,
}

/// The state that requests share.
pub struct Service {
    state: Mutex<State>,
    working_set: Option<WorkingSet>,
    upstream: Option<Upstream>,
    log_thread: Option<LogThread>,
    has_helpers: bool,
    unreachable: SocketAddr,
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
    /// What the fault 'working-set' holds.
    held: Vec<u8>,
}

/// Why a request gets no answer.
#[derive(Debug)]
pub enum Broken {
    /// Its connection is reset on purpose.
    Reset,
    WorkingSet(io::Error),
    Upstream(io::Error),
    LogThread(io::Error),
    Helper(io::Error),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Reset => f.write_str("connection reset on purpose"),
            Broken::WorkingSet(e) => write!(f, "read the working set: {e}"),
            Broken::Upstream(e) => write!(f, "ask the upstream: {e}"),
            Broken::LogThread(e) => write!(f, "wake the log's thread: {e}"),
            Broken::Helper(e) => write!(f, "start a helper: {e}"),
        }
    }
}

impl Error for Broken {}

impl Service {
    /// # Errors
    /// A working set that cannot be read, or a thread that cannot be started.
    pub fn new(equipment: Equipment) -> anyhow::Result<Self> {
        let healthy = Order { fault: None, severity: 1.0 };
        let state = State {
            order: healthy,
            links: BASE_LINKS,
            body: body(1.0),
            requests: 0,
            cpu_before: None,
            kept: Vec::new(),
            held: Vec::new(),
        };
        let open = |path| WorkingSet::open(path, equipment.usual_bytes);
        Ok(Self {
            state: Mutex::new(state),
            working_set: equipment.working_set.map(open).transpose()?,
            upstream: equipment.upstream.map(Upstream::at),
            log_thread: equipment.log_thread.then(LogThread::start).transpose()?,
            has_helpers: equipment.helpers,
            unreachable: equipment.unreachable.unwrap_or(NOBODY),
        })
    }

    /// # Errors
    /// An order that makes no sense, or not with this equipment.
    pub fn obey(&self, order: Order) -> anyhow::Result<()> {
        if !(order.severity >= 1.0 && order.severity.is_finite()) {
            bail!("severity {} is not a number from 1 on", order.severity);
        }
        let lacking = match order.fault {
            Some(Fault::Memory | Fault::Thrash) if self.working_set.is_none() => Some("--working-set FILE"),
            Some(Fault::Dependency) if self.upstream.is_none() => Some("--upstream ADDRESS:PORT"),
            Some(Fault::Tail) if self.log_thread.is_none() => Some("--log-thread"),
            Some(Fault::Exits) if !self.has_helpers => Some("--helpers"),
            _ => None,
        };
        if let Some(option) = lacking {
            bail!("the fault that was ordered needs {option}");
        }
        if let (Some(Fault::Thrash), Some(set)) = (order.fault, &self.working_set) {
            set.grow(thrash_bytes(order.severity)).context("read what the working set grows by")?;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.body = body(if order.fault == Some(Fault::Network) { order.severity } else { 1.0 });
        state.links = if order.fault == Some(Fault::Cpu) { state.links_for(order.severity) } else { BASE_LINKS };
        let more = if order.fault == Some(Fault::WorkingSet) { order.severity - 1.0 } else { 0.0 };
        state.held.clear();
        state.held.shrink_to_fit();
        // Written, and so in use.
        state.held.resize((more * BASE_HEAP_BYTES as f64) as usize, 1);
        state.order = order;
        Ok(())
    }

    /// # Errors
    /// Where there is to be no answer.
    pub async fn answer(&self, _request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Broken> {
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
            let links = match state.order.fault {
                Some(Fault::Tail) => burst_links(state.requests, state.order.severity),
                _ => state.links,
            };
            (state.order, links, state.requests, state.body.clone())
        };
        let excess = order.severity - 1.0;
        if let Some(upstream) = &self.upstream {
            let longer = if order.fault == Some(Fault::Dependency) { excess } else { 0.0 };
            upstream.ask(LATENCY.mul_f64(longer)).await.map_err(Broken::Upstream)?;
        }
        if let Some(thread) = &self.log_thread {
            thread.wake().map_err(Broken::LogThread)?;
        }
        if self.has_helpers && number.is_multiple_of(helper::EVERY) {
            let fails = order.fault == Some(Fault::Exits) && unit(number) < excess * EXIT_SHARE;
            helper::start(fails).map_err(Broken::Helper)?;
        }
        black_box(burn_cpu(black_box(links)));
        if let Some(set) = &self.working_set {
            let usual = set.usual_pages();
            let (pages, among) = match order.fault {
                Some(Fault::Memory) => (excess * WORKING_SET_PAGES, u64::MAX),
                Some(Fault::Thrash) => (WORKING_SET_PAGES, usual + thrash_bytes(order.severity) / PAGE_BYTES),
                _ if usual > 0 => (WORKING_SET_PAGES, usual),
                _ => (0.0, 0),
            };
            set.read(number, pages as u64, among).map_err(Broken::WorkingSet)?;
        }
        let mut answer = Response::new(Full::new(body));
        let is_hit = unit(number) < excess * ERROR_SHARE;
        match order.fault {
            Some(Fault::Latency) => tokio::time::sleep(LATENCY.mul_f64(excess)).await,
            Some(Fault::Errors) if is_hit => return Err(Broken::Reset),
            Some(Fault::ServerErrors) if is_hit => *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
            // That it fails is the fault.
            Some(Fault::Unreachable) if is_hit => drop(TcpStream::connect(self.unreachable).await),
            _ => {}
        }
        Ok(answer)
    }
}

/// Bytes that the fault 'thrash' reads from beside the usual ones.
fn thrash_bytes(severity: f64) -> u64 {
    ((severity - 1.0) * THRASH_BYTES) as u64
}

/// Links of a request of the fault 'tail'.
fn burst_links(number: u64, severity: f64) -> u64 {
    if number.is_multiple_of(BURST_EVERY) { (BURST_REQUESTS * severity * BASE_LINKS as f64) as u64 } else { 0 }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_are_no_more_work_than_before_up_to_their_severity() {
        let links = |severity: f64| (1..=1000).map(|number| burst_links(number, severity)).sum::<u64>();
        assert!(links(1.5) < 1000 * BASE_LINKS, "{}", links(1.5));
        assert_eq!(links(2.0), 1000 * BASE_LINKS);
        assert_eq!((1..=1000).filter(|number| burst_links(*number, 2.0) > 0).count(), 200);
    }
}
