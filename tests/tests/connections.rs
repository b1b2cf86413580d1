//! Connections that are opened, accepted, refused, given up and reset, segments that are sent again, and round-trip times:
//! each against what the sockets and the kernel's own counts say.

use std::{
    io::{Read as _, Write as _},
    mem::zeroed,
    net::{Shutdown, SocketAddr, TcpStream},
    os::fd::AsRawFd as _,
    thread,
    time::{Duration, Instant},
};

use canary_e2e::{
    bpf, kernel_available,
    namespace::{ip, tcp_count, with_loopback},
    pair::Pair,
    wait_until,
};
use canary_user::telemetry::{Connections, Sample};

const MTU: u32 = 1500;

fn connections(sample: &Sample) -> Connections {
    sample.connections.expect("the hook is live")
}

#[test]
fn connections_are_counted_on_both_sides() -> anyhow::Result<()> {
    if !kernel_available("connections_are_counted_on_both_sides") {
        return Ok(());
    }
    with_loopback(MTU, || {
        let mut pair = Pair::new()?;
        let listener = pair.listen()?;
        let mut longest = Duration::ZERO;
        for _ in 0..20 {
            let started = Instant::now();
            let client = pair.connect(listener.local_addr()?)??;
            longest = longest.max(started.elapsed());
            let (mut server, _) = listener.accept()?;
            client.shutdown(Shutdown::Write)?;
            server.read_to_end(&mut Vec::new())?;
        }
        let (client, server) = pair.samples();
        let (client, server) = (connections(&client), connections(&server));
        assert_eq!((client.opened, client.accepted, client.failed, client.refused), (20, 0, 0, 0));
        assert_eq!((server.opened, server.accepted, server.failed), (0, 20, 0));
        let mean_ns = client.open_ns / client.opened;
        assert!(mean_ns > 0 && u128::from(mean_ns) <= longest.as_nanos(), "{mean_ns} ns, at most {longest:?}");
        Ok(())
    })
}

#[test]
fn refused_and_given_up_connects_are_told_apart() -> anyhow::Result<()> {
    if !kernel_available("refused_and_given_up_connects_are_told_apart") {
        return Ok(());
    }
    with_loopback(MTU, || {
        let mut pair = Pair::new()?;
        // Nobody listens on a port that was closed again, and in a namespace of its own nobody will.
        let closed = pair.listen()?.local_addr()?;
        for _ in 0..7 {
            let error = pair.connect(closed)?.expect_err("nobody listens");
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        }
        // What is sent there comes to nobody.
        ip("route add 192.0.2.0/24 dev lo")?;
        let nobody: SocketAddr = "192.0.2.1:9".parse()?;
        for _ in 0..3 {
            let client = pair.client.cgroup.clone();
            pair.sandbox
                .inside(&client, || TcpStream::connect_timeout(&nobody, Duration::from_millis(20)))?
                .expect_err("nobody answers");
        }
        let (client, _) = pair.samples();
        let counted = connections(&client);
        assert_eq!((counted.opened, counted.failed, counted.refused), (0, 10, 7));
        assert_eq!(client.network.expect("live").resets_in, 7, "a refusal is a reset");
        Ok(())
    })
}

#[test]
fn resets_are_counted_where_they_are_sent_and_where_they_arrive() -> anyhow::Result<()> {
    if !kernel_available("resets_are_counted_where_they_are_sent_and_where_they_arrive") {
        return Ok(());
    }
    with_loopback(MTU, || {
        let mut pair = Pair::new()?;
        let listener = pair.listen()?;
        for _ in 0..5 {
            let mut client = pair.connect(listener.local_addr()?)??;
            let (server, _) = listener.accept()?;
            client.write_all(b"asked")?;
            // Closing at once breaks the connection off.
            let linger = libc::linger { l_onoff: 1, l_linger: 0 };
            // SAFETY: a live socket, and a value that outlives the call and has the size that is told.
            let done = unsafe {
                let size = size_of_val(&linger) as u32;
                libc::setsockopt(
                    server.as_raw_fd(),
                    libc::SOL_SOCKET,
                    libc::SO_LINGER,
                    (&raw const linger).cast(),
                    size,
                )
            };
            assert_eq!(done, 0);
            drop(server);
            client.read(&mut [0]).expect_err("it was reset");
        }
        let (client, server) = pair.samples();
        let (client, server) = (client.network.expect("live"), server.network.expect("live"));
        assert_eq!((server.resets_out, server.resets_in), (5, 0));
        assert_eq!((client.resets_out, client.resets_in), (0, 5));
        Ok(())
    })
}

/// The line loses packets; the kernel's own count in the namespace is the truth.
#[test]
fn segments_that_are_sent_again_agree_with_the_kernels_count() -> anyhow::Result<()> {
    if !kernel_available("segments_that_are_sent_again_agree_with_the_kernels_count") {
        return Ok(());
    }
    with_loopback(MTU, || {
        let mut pair = Pair::new()?;
        let listener = pair.listen()?;
        let mut client = pair.connect(listener.local_addr()?)??;
        let (mut server, _) = listener.accept()?;
        bpf::lose_some(pair.sandbox.root.open(&pair.server.cgroup)?, bpf::Attach::Ingress)?;
        pair.samples();
        let before = tcp_count("RetransSegs")?;
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            server.read_to_end(&mut all).map(|_| all.len())
        });
        // Until enough is lost: some kernels hand so much on as one packet that few packets are there to lose.
        const PIECE: usize = 2 << 20;
        let mut payload = 0;
        while payload < 64 * PIECE && tcp_count("RetransSegs")? - before <= 10 {
            client.write_all(&vec![b'x'; PIECE])?;
            payload += PIECE;
        }
        client.shutdown(Shutdown::Write)?;
        assert_eq!(reader.join().expect("the reader does not panic")?, payload);
        let again = tcp_count("RetransSegs")? - before;
        let (sample, _) = pair.samples();
        println!("{again} segments were sent again");
        assert!(again > 10, "the line loses packets");
        assert_eq!(sample.retransmits, Some(again));
        let network = sample.network.expect("live");
        assert!(network.tx_payload_bytes > payload as u64, "what is sent again is sent: {network:?}");
        Ok(())
    })
}

/// Later kernels (6.17) tell of each attempt to send something again. Here none gets out of the host.
#[test]
fn attempts_to_send_again_that_fail_are_no_retransmits() -> anyhow::Result<()> {
    if !kernel_available("attempts_to_send_again_that_fail_are_no_retransmits") {
        return Ok(());
    }
    with_loopback(MTU, || {
        let mut pair = Pair::new()?;
        let listener = pair.listen()?;
        let mut stream = pair.connect(listener.local_addr()?)??;
        let (_accepted, _) = listener.accept()?;
        bpf::lose_all(pair.sandbox.root.open(&pair.server.cgroup)?, bpf::Attach::Ingress)?;
        stream.write_all(b"lost on its way")?;
        bpf::lose_all(pair.sandbox.root.open(&pair.client.cgroup)?, bpf::Attach::Egress)?;
        // What was sent again until now, if anything was.
        pair.samples();
        let before = tcp_count("RetransSegs")?;
        wait_until("it is tried again twice", Duration::from_secs(30), || {
            tcp_count("RetransSegs").is_ok_and(|now| now >= before + 2)
        })?;
        let (client, _) = pair.samples();
        assert_eq!(client.retransmits, Some(0), "nothing left the host");
        Ok(())
    })
}

/// The kernel keeps one wish for state changes on each socket, for all programs of its cgroup.
#[test]
fn what_somebody_else_asked_to_be_told_of_a_connection_is_told() -> anyhow::Result<()> {
    if !kernel_available("what_somebody_else_asked_to_be_told_of_a_connection_is_told") {
        return Ok(());
    }
    with_loopback(MTU, || {
        let mut pair = Pair::new()?;
        let changes = bpf::StateChanges::of(pair.sandbox.root.open(&pair.client.cgroup)?)?;
        let listener = pair.listen()?;
        for _ in 0..5 {
            let client = pair.connect(listener.local_addr()?)??;
            let (_accepted, _) = listener.accept()?;
            client.shutdown(Shutdown::Write)?;
        }
        assert_eq!(changes.ended()?, 5, "the ends of connections that were established");
        assert_eq!(connections(&pair.samples().0).opened, 5);
        Ok(())
    })
}

/// A conversation over a line that loses packets has as many turnarounds as requests all the same.
#[test]
fn what_is_sent_again_is_neither_a_request_nor_a_response() -> anyhow::Result<()> {
    if !kernel_available("what_is_sent_again_is_neither_a_request_nor_a_response") {
        return Ok(());
    }
    with_loopback(MTU, || {
        let mut pair = Pair::new()?;
        let listener = pair.listen()?;
        let mut client = pair.connect(listener.local_addr()?)??;
        let (mut server, _) = listener.accept()?;
        for target in [&pair.client, &pair.server] {
            bpf::lose_some(pair.sandbox.root.open(&target.cgroup)?, bpf::Attach::Ingress)?;
        }
        const EXCHANGES: u64 = 200;
        let answering = thread::spawn(move || {
            let mut message = [0; 3000];
            while server.read_exact(&mut message).is_ok() && server.write_all(&message).is_ok() {}
        });
        let mut message = [b'm'; 3000];
        for _ in 0..EXCHANGES {
            client.write_all(&message)?;
            client.read_exact(&mut message)?;
        }
        client.shutdown(Shutdown::Write)?;
        answering.join().expect("the answering thread does not panic");
        let (client, server) = pair.samples();
        assert!(client.retransmits > Some(0) && server.retransmits > Some(0), "the line loses packets");
        assert_eq!(server.network.expect("live").turnarounds, EXCHANGES);
        assert_eq!(client.dependency.expect("live").turnarounds, EXCHANGES);
        Ok(())
    })
}

/// `tcpi_rtt`: the smoothed round-trip time in microseconds.
fn round_trip_usec(stream: &TcpStream) -> u64 {
    // SAFETY: plain numbers, for which zeros are values.
    let mut info: libc::tcp_info = unsafe { zeroed() };
    let mut size = size_of_val(&info) as u32;
    // SAFETY: a live socket, and a buffer that outlives the call and has the size that is told.
    let done = unsafe {
        libc::getsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &raw mut size)
    };
    assert_eq!(done, 0);
    u64::from(info.tcpi_rtt)
}

#[test]
fn round_trip_times_are_those_of_the_sockets() -> anyhow::Result<()> {
    if !kernel_available("round_trip_times_are_those_of_the_sockets") {
        return Ok(());
    }
    with_loopback(MTU, || {
        let mut pair = Pair::new()?;
        let listener = pair.listen()?;
        let mut client = pair.connect(listener.local_addr()?)??;
        let (mut server, _) = listener.accept()?;
        const EXCHANGES: u64 = 50;
        let answering = thread::spawn(move || {
            let (mut message, mut sum_usec) = ([0; 1000], 0);
            while server.read_exact(&mut message).is_ok() {
                // The request brought the acknowledgement of the last response with it; this is what the next one leaves at.
                sum_usec += round_trip_usec(&server);
                if server.write_all(&message).is_err() {
                    break;
                }
            }
            sum_usec
        });
        let mut message = [b'm'; 1000];
        for _ in 0..EXCHANGES {
            client.write_all(&message)?;
            client.read_exact(&mut message)?;
            thread::sleep(Duration::from_millis(1));
        }
        client.shutdown(Shutdown::Write)?;
        let truth_usec = answering.join().expect("the answering thread does not panic");
        let (client, server) = pair.samples();
        let (to_client, to_server) = (server.round_trip.expect("live"), client.round_trip.expect("live"));
        assert_eq!((to_client.samples, to_client.dependency_samples), (EXCHANGES, 0));
        assert_eq!((to_server.samples, to_server.dependency_samples), (0, EXCHANGES));
        assert!(to_server.dependency_sum_ns > 0);
        // The kernel rounds each down to a microsecond.
        let ours_usec = to_client.sum_ns as f64 / 1e3;
        let truth_usec = truth_usec as f64;
        assert!(
            ours_usec >= truth_usec * 0.95 && ours_usec <= truth_usec * 1.05 + EXCHANGES as f64,
            "{ours_usec} us, by the socket {truth_usec} us"
        );
        Ok(())
    })
}
