//! Bytes, turnarounds and resets of known conversations, counted exactly.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, sleep},
    time::Duration,
};

use canary_e2e::{Sandbox, bpf, kernel_available, pair::Pair};
use canary_user::{
    targets::Role,
    telemetry::{Network, Options, Sensor},
};

const REQUEST: usize = 200;
const RESPONSE: usize = 150_000;

/// What lies above the cgroup that serves.
#[derive(Clone, Copy, PartialEq)]
enum Above {
    Nothing,
    Target,
    /// One that takes the program for what comes in, and not the one for what goes out.
    TargetThatRefuses,
}

/// Serves `requests` on one connection from a socket of a tracked cgroup, which may lie below another one, and returns what
/// the kernel counted.
fn count(test: &str, requests: u32, what_is_above: Above) -> anyhow::Result<Option<(Network, u64)>> {
    if !kernel_available(test) {
        return Ok(None);
    }
    let sandbox = Sandbox::new()?;
    let above = sandbox.cgroup("above")?;
    let path = sandbox.cgroup("above/server")?;
    if what_is_above == Above::TargetThatRefuses {
        bpf::occupy_alone(sandbox.root.open(&above)?, bpf::Attach::Egress)?;
    }
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    let target = sandbox.target(&path, Role::Stable)?;
    let mut targets = vec![target.clone()];
    sensor.follow(&targets);
    if what_is_above != Above::Nothing {
        targets.push(sandbox.target(&above, Role::Canary)?);
        sensor.follow(&targets);
    }

    let listener = sandbox.listen(&path)?;
    let address = listener.local_addr()?;
    sensor.tick();

    let server = thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        let response = vec![b'x'; RESPONSE];
        let mut request = [0u8; REQUEST];
        while stream.read_exact(&mut request).is_ok() {
            sleep(Duration::from_millis(2));
            stream.write_all(&response)?;
        }
        Ok(())
    });
    let mut client = TcpStream::connect(address)?;
    let mut response = vec![0u8; RESPONSE];
    for _ in 0..requests {
        client.write_all(&[b'q'; REQUEST])?;
        client.read_exact(&mut response)?;
    }
    client.shutdown(Shutdown::Write)?;
    server.join().expect("the server thread does not panic")?;
    sleep(Duration::from_millis(20));
    let samples = sensor.tick().samples;
    let of_above = samples.iter().filter(|s| s.target != target).filter_map(|s| s.network.as_ref()).map(|n| n.rx_bytes);
    anyhow::ensure!(of_above.sum::<u64>() == 0, "what the deeper target got is its own");
    let sample = samples.into_iter().find(|s| s.target == target).expect("the target is sampled");
    Ok(Some((sample.network.expect("the network hooks are live"), sample.retransmits.expect("the hook is live"))))
}

#[test]
fn payload_bytes_and_turnarounds_are_exact() -> anyhow::Result<()> {
    let Some((network, retransmits)) = count("payload_bytes_and_turnarounds_are_exact", 50, Above::Nothing)? else {
        return Ok(());
    };
    assert_eq!(network.turnarounds, 50);
    assert_eq!(network.turnaround.count(), 50);
    assert_eq!(network.rx_payload_bytes, 50 * REQUEST as u64);
    // What is sent again is sent: a slow machine's timer does that even on loopback.
    if retransmits == 0 {
        assert_eq!(network.tx_payload_bytes, 50 * RESPONSE as u64);
    } else {
        println!("{retransmits} segments were sent again");
        assert!(network.tx_payload_bytes > 50 * RESPONSE as u64, "{network:?}");
    }
    assert!(network.tx_bytes > network.tx_payload_bytes, "headers count as bytes");
    let mean_ms = network.turnaround_ns as f64 / 50.0 / 1e6;
    assert!(mean_ms >= 2.0, "the server waits 2 ms before each response, measured {mean_ms} ms");
    let median_ns = network.turnaround.quantile_ns(0.5).expect("there are values");
    assert!(median_ns >= 2e6 * 0.93, "the histogram's median {median_ns} ns is below what the server waited");
    Ok(())
}

#[test]
fn a_target_below_another_is_counted_once() -> anyhow::Result<()> {
    is_counted_once("a_target_below_another_is_counted_once", Above::Target)
}

/// The one below has to bring only what the one above lacks.
#[test]
fn a_target_below_another_that_refuses_a_hook_is_counted_once() -> anyhow::Result<()> {
    is_counted_once("a_target_below_another_that_refuses_a_hook_is_counted_once", Above::TargetThatRefuses)
}

fn is_counted_once(test: &str, what_is_above: Above) -> anyhow::Result<()> {
    let Some((network, retransmits)) = count(test, 10, what_is_above)? else {
        return Ok(());
    };
    assert_eq!((network.turnarounds, network.rx_payload_bytes), (10, 10 * REQUEST as u64));
    assert!(retransmits > 0 || network.tx_payload_bytes == 10 * RESPONSE as u64, "{network:?}");
    Ok(())
}

/// Often enough for many readings to fall into the counting of a packet, where the machine has another CPU to send on.
const READINGS: u32 = 1000;

/// The kernel programs mark each packet that goes out for as long as they count it. That is no count: what is read meanwhile is not
/// missing, at that reading or at the next.
#[test]
fn what_is_read_while_packets_go_out_is_there_and_each_is_counted_once() -> anyhow::Result<()> {
    let test = "what_is_read_while_packets_go_out_is_there_and_each_is_counted_once";
    if !kernel_available(test) {
        return Ok(());
    }
    let mut pair = Pair::new()?;
    // Takes in what it has room for, and is never read.
    let sink = pair.sandbox.inside(&pair.server.cgroup, || UdpSocket::bind("127.0.0.1:0"))??;
    let source = pair.sandbox.inside(&pair.client.cgroup, || UdpSocket::bind("127.0.0.1:0"))??;
    source.connect(sink.local_addr()?)?;
    pair.samples();
    let done = AtomicBool::new(false);
    let (readings, sent) = thread::scope(|scope| {
        let sending = scope.spawn(|| -> std::io::Result<u64> {
            let mut sent = 0;
            while !done.load(Ordering::Relaxed) {
                source.send(b"one of many")?;
                sent += 1;
            }
            Ok(sent)
        });
        let readings: Vec<_> = (0..READINGS).map(|_| pair.samples().0.network.map(|n| n.tx_packets)).collect();
        done.store(true, Ordering::Relaxed);
        (readings, sending.join().expect("the sending thread does not panic"))
    });
    let missing = readings.iter().filter(|packets| packets.is_none()).count();
    assert_eq!(missing, 0, "of {READINGS} readings");
    let rest = pair.samples().0.network.expect("live").tx_packets;
    assert_eq!(readings.into_iter().flatten().sum::<u64>() + rest, sent?, "each packet is in one reading");
    Ok(())
}
