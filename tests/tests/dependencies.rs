//! What a service waits for: as many turnarounds as requests, as long as its own clock says, on both sides.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use canary_e2e::{kernel_available, pair::Pair, service::outside};
use canary_user::telemetry::Histogram;

const REQUEST: usize = 120;
const RESPONSE: usize = 5000;

/// Answers each request after the time that its first byte names, in units of 10 ms.
fn serve(listener: TcpListener) {
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut request = [0; REQUEST];
                while stream.read_exact(&mut request).is_ok() {
                    thread::sleep(Duration::from_millis(10) * request[0].into());
                    if stream.write_all(&[b'r'; RESPONSE]).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

fn ask(stream: &mut TcpStream, wait: u8) -> std::io::Result<Duration> {
    let started = Instant::now();
    stream.write_all(&[wait; REQUEST])?;
    // The first byte is what ends a turnaround.
    stream.read_exact(&mut [0])?;
    let took = started.elapsed();
    stream.read_exact(&mut [0; RESPONSE - 1])?;
    Ok(took)
}

#[test]
fn requests_to_a_dependency_are_counted_exactly() -> anyhow::Result<()> {
    if !kernel_available("requests_to_a_dependency_are_counted_exactly") {
        return Ok(());
    }
    let mut pair = Pair::new()?;
    // The dependency is nobody that is watched.
    let listener = outside(|| TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    serve(listener);
    let mut stream = pair.connect(address)??;
    for _ in 0..40 {
        ask(&mut stream, 0)?;
    }
    for _ in 0..10 {
        ask(&mut pair.connect(address)??, 0)?;
    }
    let (sample, _) = pair.samples();
    let (dependency, network) = (sample.dependency.expect("live"), sample.network.expect("live"));
    assert_eq!((dependency.turnarounds, dependency.turnaround.count()), (50, 50));
    assert_eq!(network.turnarounds, 0, "nobody asked this one");
    if sample.retransmits == Some(0) {
        assert_eq!(dependency.tx_payload_bytes, 50 * REQUEST as u64);
    }
    assert_eq!(dependency.rx_payload_bytes, 50 * RESPONSE as u64);
    assert_eq!(network.rx_payload_bytes, dependency.rx_payload_bytes);
    Ok(())
}

/// Names are asked for over UDP.
#[test]
fn a_question_over_udp_is_a_turnaround() -> anyhow::Result<()> {
    if !kernel_available("a_question_over_udp_is_a_turnaround") {
        return Ok(());
    }
    let mut pair = Pair::new()?;
    let server = outside(|| UdpSocket::bind("127.0.0.1:0"))?;
    let client = pair.client.cgroup.clone();
    let client = pair.sandbox.inside(&client, || UdpSocket::bind("127.0.0.1:0"))??;
    client.connect(server.local_addr()?)?;
    let mut message = [0; 64];
    for _ in 0..9 {
        client.send(b"who is it?")?;
        let (_, from) = server.recv_from(&mut message)?;
        server.send_to(b"it is me", from)?;
        client.recv(&mut message)?;
    }
    let (sample, _) = pair.samples();
    assert_eq!(sample.dependency.expect("live").turnarounds, 9);
    Ok(())
}

fn assert_quantiles(what: &str, histogram: &Histogram, measured_ns: &[f64]) {
    for q in [0.5, 0.99] {
        let theirs = measured_ns[(q * measured_ns.len() as f64).ceil() as usize - 1];
        let ours = histogram.quantile_ns(q).expect("there are turnarounds");
        println!("{what} p{}: {ours:.0} ns, by the load {theirs:.0} ns", q * 100.0);
        assert!((ours / theirs - 1.0).abs() < 0.1, "{what} p{}: {ours} ns, by the load {theirs} ns", q * 100.0);
    }
}

/// One request in twenty takes six times as long as the others.
#[test]
fn latency_agrees_with_the_loads_own_clock() -> anyhow::Result<()> {
    if !kernel_available("latency_agrees_with_the_loads_own_clock") {
        return Ok(());
    }
    const CONNECTIONS: usize = 8;
    const REQUESTS: usize = 40;
    let mut pair = Pair::new()?;
    let listener = pair.listen()?;
    let address = listener.local_addr()?;
    serve(listener);
    let client = pair.client.cgroup.clone();
    let streams = pair.sandbox.inside(&client, || (0..CONNECTIONS).map(|_| TcpStream::connect(address)).collect())?;
    let streams: Vec<TcpStream> = std::io::Result::from_iter::<Vec<std::io::Result<TcpStream>>>(streams)?;
    let clients = streams.into_iter().map(|mut stream| {
        thread::spawn(move || {
            (0..REQUESTS).map(|i| ask(&mut stream, if i % 20 == 7 { 60 } else { 10 })).collect::<Result<Vec<_>, _>>()
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut measured_ns = Vec::new();
    for client in clients {
        let took = client.join().expect("a client does not panic")?;
        measured_ns.extend(took.iter().map(|t| t.as_nanos() as f64));
    }
    measured_ns.sort_by(f64::total_cmp);
    let (client, server) = pair.samples();
    let (dependency, network) = (client.dependency.expect("live"), server.network.expect("live"));
    let all = (CONNECTIONS * REQUESTS) as u64;
    assert_eq!((dependency.turnarounds, network.turnarounds), (all, all));
    assert_quantiles("server", &network.turnaround, &measured_ns);
    assert_quantiles("client", &dependency.turnaround, &measured_ns);
    Ok(())
}
