//! Bytes, turnarounds and resets of known conversations, counted exactly.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    thread::{self, sleep},
    time::Duration,
};

use canary_e2e::{Sandbox, kernel_available};
use canary_user::{
    targets::Role,
    telemetry::{Network, Options, Sensor},
};

const REQUEST: usize = 200;
const RESPONSE: usize = 150_000;

/// Serves `requests` on one connection from a socket of a tracked cgroup and returns what the kernel counted.
fn count(test: &str, requests: u32) -> anyhow::Result<Option<Network>> {
    if !kernel_available(test) {
        return Ok(None);
    }
    let sandbox = Sandbox::new()?;
    let path = sandbox.cgroup("server")?;
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[sandbox.target(&path, Role::Stable)?]);

    let procs = sandbox.root.dir(&path).join("cgroup.procs");
    // A socket belongs to the cgroup that its process was in when it was made: enter, listen, leave.
    let back = std::fs::read_to_string("/proc/self/cgroup")?
        .lines()
        .find_map(|l| l.strip_prefix("0::").map(str::to_owned))
        .unwrap_or_else(|| "/".into());
    std::fs::write(&procs, std::process::id().to_string())?;
    let listener = TcpListener::bind("127.0.0.1:0");
    std::fs::write(sandbox.root.dir(&back).join("cgroup.procs"), std::process::id().to_string())?;
    let listener = listener?;
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
    Ok(Some(sensor.tick().samples.remove(0).network.expect("the network hooks are live")))
}

#[test]
fn payload_bytes_and_turnarounds_are_exact() -> anyhow::Result<()> {
    let Some(network) = count("payload_bytes_and_turnarounds_are_exact", 50)? else { return Ok(()) };
    assert_eq!(network.turnarounds, 50);
    assert_eq!(network.turnaround.count(), 50);
    assert_eq!(network.rx_payload_bytes, 50 * REQUEST as u64);
    assert_eq!(network.tx_payload_bytes, 50 * RESPONSE as u64);
    assert!(network.tx_bytes > network.tx_payload_bytes, "headers count as bytes");
    let mean_ms = network.turnaround_ns as f64 / 50.0 / 1e6;
    assert!(mean_ms >= 2.0, "the server waits 2 ms before each response, measured {mean_ms} ms");
    let median_ns = network.turnaround.quantile_ns(0.5).expect("there are values");
    assert!(median_ns >= 2e6 * 0.93, "the histogram's median {median_ns} ns is below what the server waited");
    Ok(())
}
