//! What softirqs send while a process of the same instance is about to send on the same CPU: they interrupt each other in the
//! middle of the counting, and nothing is lost by that.

use std::{
    io::{ErrorKind, Read as _, Result, Write as _},
    net::{TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use canary_e2e::{
    kernel_available,
    namespace::{tcp_count, with_loopback},
    one_cpu::OneCpu,
    pair::Pair,
    wait_until,
};

/// Small, so that two segments, which is the least that a paced connection sends at once, leave about each millisecond.
const MTU: u32 = 600;
const CONNECTIONS: usize = 32;
const BYTES_PER_SECOND: u32 = 1_000_000;
const DATAGRAM: usize = 64;

/// The kernel sends at most so much of this connection in a second: the rest waits for a timer, and leaves in its softirq.
fn pace(stream: &TcpStream) -> Result<()> {
    let rate = BYTES_PER_SECOND;
    // SAFETY: a live socket, and a value that outlives the call and has the size that is told.
    let done = unsafe {
        libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, (&raw const rate).cast(), 4)
    };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// What TCP has sent in this namespace.
fn segments() -> anyhow::Result<u64> {
    Ok(tcp_count("OutSegs")? + tcp_count("RetransSegs")?)
}

#[test]
fn packets_of_softirqs_and_of_processes_on_one_cpu_are_all_counted() -> anyhow::Result<()> {
    let test = "packets_of_softirqs_and_of_processes_on_one_cpu_are_all_counted";
    if !kernel_available(test) {
        return Ok(());
    }
    with_loopback(MTU, move || {
        let mut pair = Pair::new()?;
        let listener = pair.listen()?;
        let to = listener.local_addr()?;
        // Takes in what it has room for, and is never read.
        let sink = pair.sandbox.inside(&pair.server.cgroup, || UdpSocket::bind("127.0.0.1:0"))??;
        let (datagrams, streams) = pair.sandbox.inside(&pair.client.cgroup, || {
            let datagrams = UdpSocket::bind("127.0.0.1:0")?;
            datagrams.connect(sink.local_addr()?)?;
            let streams = (0..CONNECTIONS).map(|_| TcpStream::connect(to)).collect::<Result<Vec<_>>>()?;
            Result::Ok((datagrams, streams))
        })??;
        let read = Arc::new(AtomicU64::new(0));
        for _ in 0..CONNECTIONS {
            let (mut stream, _) = listener.accept()?;
            let read = read.clone();
            // Lives as long as the connection does.
            thread::spawn(move || {
                let mut buffer = [0; 16384];
                while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
                    read.fetch_add(bytes as u64, Ordering::Relaxed);
                }
            });
        }
        for stream in &streams {
            pace(stream)?;
            stream.set_nonblocking(true)?;
        }
        // Timers go off where they were set.
        let _stay = OneCpu::stay()?;
        pair.samples();
        let before = segments()?;
        let (mut written, mut sent) = (0, 0);
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            for mut stream in &streams {
                match stream.write(&[b'x'; 4096]) {
                    Ok(bytes) => written += bytes as u64,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                }
            }
            for _ in 0..200 {
                datagrams.send(&[b'u'; DATAGRAM])?;
                sent += 1;
            }
        }
        wait_until("all is read", Duration::from_secs(60), || read.load(Ordering::Relaxed) == written)?;
        // Until the last of it is acknowledged, too.
        thread::sleep(Duration::from_millis(500));
        let again = tcp_count("RetransSegs")?;
        let truth = segments()? - before + sent;
        let (client, server) = pair.samples();
        let (client, server) = (client.network.expect("live"), server.network.expect("live"));
        println!("{test}: {sent} datagrams, {written} bytes over TCP, {truth} packets in all");
        assert_eq!(client.tx_packets + server.tx_packets, truth, "each packet is counted once");
        if again == 0 {
            assert_eq!(client.tx_payload_bytes, written + sent * DATAGRAM as u64);
        }
        Ok(())
    })
}
