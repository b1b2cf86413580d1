//! Bytes and packets of known transfers, within 0.1 %: each address family and protocol, sent by sendfile, in segments of
//! 64 KiB, and in packets that are cut into segments only later.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    thread,
};

use canary_e2e::{
    Sandbox, kernel_available,
    namespace::{tcp_count, with_loopback},
};
use canary_user::{
    targets::{Role, Target},
    telemetry::{Network, Options, Sample, Sensor},
};

const PAYLOAD: usize = 16 << 20;
const DATAGRAMS: usize = 400;
const DATAGRAM: usize = 1200;
/// Of Ethernet.
const MTU: u32 = 1500;
/// Linux's own loopback.
const LARGE_MTU: u32 = 65536;
const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// A tracked sender and a tracked receiver.
struct Pair {
    sandbox: Sandbox,
    sensor: Sensor,
    sender: Target,
    receiver: Target,
}

impl Pair {
    fn new() -> anyhow::Result<Self> {
        let sandbox = Sandbox::new()?;
        let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
        let sender = sandbox.target(&sandbox.cgroup("sender")?, Role::Canary)?;
        let receiver = sandbox.target(&sandbox.cgroup("receiver")?, Role::Stable)?;
        sensor.follow(&[sender.clone(), receiver.clone()]);
        sensor.tick();
        Ok(Self { sandbox, sensor, sender, receiver })
    }

    /// What was counted: of the sender, of the receiver, and segments that the sender sent again.
    fn counted(&mut self) -> (Network, Network, u64) {
        let samples = self.sensor.tick().samples;
        let of = |target: &Target| -> &Sample { samples.iter().find(|s| s.target == *target).expect("tracked") };
        let network = |target| of(target).network.clone().expect("the network hooks are live");
        (network(&self.sender), network(&self.receiver), of(&self.sender).retransmits.expect("the hook is live"))
    }
}

/// Within 0.1 %, and `slack`.
fn assert_near(what: &str, ours: u64, truth: u64, slack: u64) {
    println!("{what}: {ours}, truth {truth}");
    assert!(
        truth > 0 && ours.abs_diff(truth) as f64 <= 0.001 * truth as f64 + slack as f64,
        "{what}: {ours}, truth {truth}"
    );
}

/// The last packets of a connection may be sent by what is left of a socket, which belongs to nobody.
const LAST_PACKETS: u64 = 2;

/// One direction over TCP, written by `write`, in a namespace of its own whose TCP counts are the truth.
fn tcp(
    test: &str,
    (mtu, address): (u32, IpAddr),
    write: fn(&mut TcpStream) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    if !kernel_available(test) {
        return Ok(());
    }
    with_loopback(mtu, move || {
        let mut pair = Pair::new()?;
        let listener = pair.sandbox.inside(&pair.receiver.cgroup, || TcpListener::bind((address, 0)))??;
        let to = listener.local_addr()?;
        let reader = thread::spawn(move || -> std::io::Result<usize> {
            let (mut stream, _) = listener.accept()?;
            let mut all = Vec::with_capacity(PAYLOAD);
            stream.read_to_end(&mut all)
        });
        let mut stream = pair.sandbox.inside(&pair.sender.cgroup, || TcpStream::connect(to))??;
        write(&mut stream)?;
        drop(stream);
        assert_eq!(reader.join().expect("the reader does not panic")?, PAYLOAD);
        let (sent, received, again) = pair.counted();
        let headers = if address.is_ipv4() { 20 + 32 } else { 40 + 32 };
        let payload = PAYLOAD as u64;
        if again == 0 {
            assert_eq!((sent.tx_payload_bytes, received.rx_payload_bytes), (payload, payload));
        } else {
            println!("{again} segments were sent again");
        }
        assert_near(
            "packets of both",
            sent.tx_packets + received.tx_packets,
            tcp_count("OutSegs")? + tcp_count("RetransSegs")?,
            LAST_PACKETS,
        );
        assert_near("bytes sent", sent.tx_bytes, sent.tx_payload_bytes + headers * sent.tx_packets, 100);
        assert_near("packets received", received.rx_packets, sent.tx_packets, LAST_PACKETS);
        assert_near("bytes received", received.rx_bytes, sent.tx_bytes, 100);
        let segment = u64::from(mtu) - headers;
        assert!(sent.tx_packets >= sent.tx_payload_bytes / segment, "{} packets are too few", sent.tx_packets);
        Ok(())
    })
}

fn whole(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(&vec![b'x'; PAYLOAD])
}

fn by_sendfile(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut file = tempfile::tempfile()?;
    file.write_all(&vec![b'f'; PAYLOAD])?;
    let mut offset = 0;
    while (offset as usize) < PAYLOAD {
        let (to, from): (&TcpStream, &File) = (stream, &file);
        // SAFETY: two open files, and an offset that outlives the call.
        let sent =
            unsafe { libc::sendfile(to.as_raw_fd(), from.as_raw_fd(), &raw mut offset, PAYLOAD - offset as usize) };
        if sent < 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}

#[test]
fn tcp_over_ipv4() -> anyhow::Result<()> {
    tcp("tcp_over_ipv4", (MTU, V4), whole)
}

#[test]
fn tcp_over_ipv6() -> anyhow::Result<()> {
    tcp("tcp_over_ipv6", (MTU, V6), whole)
}

#[test]
fn sendfile_over_ipv4() -> anyhow::Result<()> {
    tcp("sendfile_over_ipv4", (MTU, V4), by_sendfile)
}

#[test]
fn segments_of_64_kib() -> anyhow::Result<()> {
    tcp("segments_of_64_kib", (LARGE_MTU, V4), whole)
}

/// `together` datagrams are handed to the kernel at once, which cuts them (`UDP_SEGMENT`).
fn udp(test: &str, address: IpAddr, together: usize) -> anyhow::Result<()> {
    if !kernel_available(test) {
        return Ok(());
    }
    with_loopback(MTU, move || {
        let mut pair = Pair::new()?;
        let receiver = pair.sandbox.inside(&pair.receiver.cgroup, || UdpSocket::bind((address, 0)))??;
        let sender = pair.sandbox.inside(&pair.sender.cgroup, || UdpSocket::bind((address, 0)))??;
        sender.connect(receiver.local_addr()?)?;
        if together > 1 {
            let size = DATAGRAM as i32;
            // SAFETY: a live socket, and a value that outlives the call and has the size that is told.
            let done = unsafe {
                libc::setsockopt(sender.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, (&raw const size).cast(), 4)
            };
            anyhow::ensure!(done == 0, "UDP_SEGMENT: {}", std::io::Error::last_os_error());
        }
        let mut buffer = [0; 2 * DATAGRAM];
        for _ in 0..DATAGRAMS / together {
            sender.send(&vec![b'u'; DATAGRAM * together])?;
            for _ in 0..together {
                assert_eq!(receiver.recv(&mut buffer)?, DATAGRAM);
            }
        }
        let (sent, received, _) = pair.counted();
        let packets = DATAGRAMS as u64;
        let headers = if address.is_ipv4() { 20 + 8 } else { 40 + 8 };
        let bytes = packets * (DATAGRAM as u64 + headers);
        assert_eq!(
            (sent.tx_packets, sent.tx_bytes, sent.tx_payload_bytes),
            (packets, bytes, packets * DATAGRAM as u64)
        );
        assert_eq!((received.rx_packets, received.rx_bytes), (packets, bytes));
        assert_eq!((sent.rx_bytes, received.tx_bytes), (0, 0));
        Ok(())
    })
}

#[test]
fn udp_over_ipv4() -> anyhow::Result<()> {
    udp("udp_over_ipv4", V4, 1)
}

#[test]
fn udp_over_ipv6() -> anyhow::Result<()> {
    udp("udp_over_ipv6", V6, 1)
}

#[test]
fn datagrams_that_are_cut_later() -> anyhow::Result<()> {
    udp("datagrams_that_are_cut_later", V4, 10)
}
