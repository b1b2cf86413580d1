//! A service that does not keep up, for tests: listens with the shortest queue and accepts nothing.
//!
//! `full-queue DIR`: DIR/ready appears once it listens. When DIR/go does, it connects to itself eight times, without waiting
//! for answers; DIR/done appears when the queue has overflowed.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    path::PathBuf,
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, ensure};

fn main() -> anyhow::Result<()> {
    let dir = PathBuf::from(std::env::args().nth(1).context("which directory?")?);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    // SAFETY: a live socket; listening again changes the length of its queue.
    ensure!(unsafe { libc::listen(listener.as_raw_fd(), 1) } == 0, "listen: {}", std::io::Error::last_os_error());
    fs::write(dir.join("ready"), "")?;
    while !dir.join("go").exists() {
        sleep(Duration::from_millis(10));
    }
    let address: SocketAddr = listener.local_addr()?;
    // The first ones wait in the queue, the others find it full.
    let _waiting: Vec<TcpStream> =
        (0..8).flat_map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(50))).collect();
    fs::write(dir.join("done"), "")?;
    loop {
        sleep(Duration::from_secs(1));
    }
}
