//! Small services in cgroups, with the test as their server and their client.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Child,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::Sandbox;

/// Held while this process is in a cgroup of a test, and by what must not be made there.
static PLACE: Mutex<()> = Mutex::new(());

/// What `make` makes while this process is at home, whatever other tests do.
pub fn outside<T>(make: impl FnOnce() -> T) -> T {
    let _alone = PLACE.lock().unwrap_or_else(PoisonError::into_inner);
    make()
}

const REQUEST_BYTES: usize = 100;
const RESPONSE_BYTES: usize = 1000;

/// An instance: a process that lives in the cgroup, and a socket of the cgroup that answers.
pub struct Service {
    pub address: SocketAddr,
    sleeper: Child,
}

impl Service {
    pub fn start(sandbox: &Sandbox, cgroup: &str) -> anyhow::Result<Self> {
        // exec: the process that is killed is the one that sleeps.
        let sleeper = sandbox.run(cgroup, "exec sleep 3600")?;
        let listener = sandbox.listen(cgroup)?;
        let address = listener.local_addr()?;
        // Lives as long as the test does.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || answer(stream));
            }
        });
        Ok(Self { address, sleeper })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.sleeper.kill();
        let _ = self.sleeper.wait();
    }
}

fn answer(mut stream: TcpStream) {
    let mut request = [0; REQUEST_BYTES];
    while stream.read_exact(&mut request).is_ok() && stream.write_all(&[b'x'; RESPONSE_BYTES]).is_ok() {}
}

/// Requests to each address in turn, until it is dropped.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Traffic {
    pub fn start(addresses: &[SocketAddr]) -> anyhow::Result<Self> {
        let addresses = addresses.to_owned();
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        let thread = thread::spawn(move || {
            let mut response = [0; RESPONSE_BYTES];
            let mut streams = addresses.iter().map(TcpStream::connect).collect::<Result<Vec<_>, _>>()?;
            while !asked.load(Ordering::Relaxed) {
                for stream in &mut streams {
                    stream.write_all(&[b'q'; REQUEST_BYTES])?;
                    stream.read_exact(&mut response)?;
                }
                thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Ok(Err(error))) = self.thread.take().map(JoinHandle::join) {
            // A test that ends by a panic of its own need not hear of it.
            assert!(thread::panicking(), "the traffic broke off: {error}");
        }
    }
}

impl Sandbox {
    /// A listening socket of the cgroup.
    pub fn listen(&self, cgroup: &str) -> anyhow::Result<TcpListener> {
        Ok(self.inside(cgroup, || TcpListener::bind("127.0.0.1:0"))??)
    }

    /// What `make` makes in the cgroup: a socket belongs to where its process was when it was made. The whole process
    /// moves: what other threads make must not fall into that time (see [`outside`]).
    pub fn inside<T>(&self, cgroup: &str, make: impl FnOnce() -> T) -> anyhow::Result<T> {
        let _alone = PLACE.lock().unwrap_or_else(PoisonError::into_inner);
        let own = std::process::id().to_string();
        let back = std::fs::read_to_string("/proc/self/cgroup")?
            .lines()
            .find_map(|l| l.strip_prefix("0::").map(str::to_owned))
            .unwrap_or_else(|| "/".into());
        std::fs::write(self.root.dir(cgroup).join("cgroup.procs"), &own)?;
        let made = make();
        std::fs::write(self.root.dir(&back).join("cgroup.procs"), &own)?;
        Ok(made)
    }
}
