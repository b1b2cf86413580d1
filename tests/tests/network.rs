//! Bytes, turnarounds and resets of known conversations, counted exactly.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    thread::{self, sleep},
    time::Duration,
};

use canary_e2e::{Sandbox, bpf, kernel_available};
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
