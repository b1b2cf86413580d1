//! Statuses and turnarounds of a service that speaks HTTP/1.1, counted exactly.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use canary_e2e::{Sandbox, kernel_available, service::outside};
use canary_user::{
    targets::Role,
    telemetry::{Http, Options, Sample, Sensor},
};

/// A service in a tracked cgroup.
struct Shop {
    sensor: Sensor,
    address: SocketAddr,
    _sandbox: Sandbox,
}

impl Shop {
    fn open(serve: fn(TcpStream) -> std::io::Result<()>) -> anyhow::Result<Self> {
        let sandbox = Sandbox::new()?;
        let path = sandbox.cgroup("shop")?;
        let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
        sensor.follow(&[sandbox.target(&path, Role::Canary)?]);
        let listener: TcpListener = sandbox.listen(&path)?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || serve(stream));
            }
        });
        sensor.tick();
        Ok(Self { sensor, address, _sandbox: sandbox })
    }

    fn connect(&self) -> std::io::Result<Client> {
        Ok(Client(BufReader::new(outside(|| TcpStream::connect(self.address))?)))
    }

    fn sample(&mut self) -> Sample {
        self.sensor.tick().samples.remove(0)
    }
}

/// Answers `GET /STATUS` with that status, and says "100 Continue" before it reads a body.
fn answer(stream: TcpStream) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let head = head(&mut stream)?;
        let Some(status) = head.split(['/', ' ']).nth(2) else { return Ok(()) };
        if head.contains("Expect") {
            stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            stream.read_exact(&mut [0; 10])?;
        }
        stream.get_mut().write_all(format!("HTTP/1.1 {status} Said\r\nContent-Length: 2\r\n\r\nok").as_bytes())?;
    }
}

/// Everything up to the empty line; empty at the end.
fn head(stream: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut head = String::new();
    while stream.read_line(&mut head)? > 0 && !head.ends_with("\r\n\r\n") {}
    Ok(head)
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn get(&mut self, status: u32) -> std::io::Result<()> {
        self.0.get_mut().write_all(format!("GET /{status} HTTP/1.1\r\nHost: shop\r\n\r\n").as_bytes())?;
        self.response(status)
    }

    fn response(&mut self, status: u32) -> std::io::Result<()> {
        let head = head(&mut self.0)?;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head:?}");
        self.0.read_exact(&mut [0; 2])
    }
}

#[test]
fn statuses_and_requests_are_counted_exactly() -> anyhow::Result<()> {
    if !kernel_available("statuses_and_requests_are_counted_exactly") {
        return Ok(());
    }
    let mut shop = Shop::open(answer)?;
    // Keep-alive, then a connection for each request.
    let mut client = shop.connect()?;
    for status in [200, 204, 301, 404, 404, 500, 503, 200, 499, 599] {
        client.get(status)?;
    }
    for status in [200, 302, 403, 500] {
        shop.connect()?.get(status)?;
    }
    let sample = shop.sample();
    let expected = Http { responses_1xx: 0, responses_2xx: 4, responses_3xx: 2, responses_4xx: 4, responses_5xx: 4 };
    assert_eq!(sample.http, Some(expected));
    let network = sample.network.expect("the network hooks are live");
    assert_eq!((network.turnarounds, network.turnaround.count()), (14, 14));
    assert_eq!(sample.connections.expect("the hook is live").accepted, 5);
    let dependency = sample.dependency.expect("the network hooks are live");
    assert_eq!(dependency.turnarounds, 0, "a server waits for nobody");
    Ok(())
}

#[test]
fn an_interim_response_does_not_end_the_turnaround() -> anyhow::Result<()> {
    if !kernel_available("an_interim_response_does_not_end_the_turnaround") {
        return Ok(());
    }
    let mut shop = Shop::open(answer)?;
    let mut client = shop.connect()?;
    for _ in 0..5 {
        client.0.get_mut().write_all(b"PUT /201 HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n")?;
        assert!(head(&mut client.0)?.starts_with("HTTP/1.1 100 "));
        client.0.get_mut().write_all(&[b'b'; 10])?;
        client.response(201)?;
    }
    let sample = shop.sample();
    assert_eq!(sample.network.expect("live").turnarounds, 5);
    assert_eq!(sample.http, Some(Http { responses_1xx: 5, responses_2xx: 5, ..Http::default() }));
    Ok(())
}

/// What is encrypted, or speaks another protocol, has no status: missing, and not zero.
#[test]
fn without_a_status_line_there_is_no_status() -> anyhow::Result<()> {
    if !kernel_available("without_a_status_line_there_is_no_status") {
        return Ok(());
    }
    let mut shop = Shop::open(|mut stream| {
        let mut record = [0; 20];
        loop {
            stream.read_exact(&mut record)?;
            stream.write_all(b"\x17\x03\x03\x00\x14HTTP/1.1 500 sealed")?;
        }
    })?;
    let mut stream = outside(|| TcpStream::connect(shop.address))?;
    for _ in 0..7 {
        stream.write_all(&[0x17; 20])?;
        stream.read_exact(&mut [0; 24])?;
    }
    let sample = shop.sample();
    assert_eq!((sample.network.expect("live").turnarounds, sample.http), (7, None));
    Ok(())
}

/// What goes on in a conversation besides requests and responses.
#[test]
fn half_close_long_poll_push_and_pipelining_are_as_documented() -> anyhow::Result<()> {
    let test = "half_close_long_poll_push_and_pipelining_are_as_documented";
    if !kernel_available(test) {
        return Ok(());
    }
    // Reads to the end of the request, waits, and answers; or is told to push.
    let mut shop = Shop::open(|mut stream| {
        let mut message = [0; 4];
        while stream.read_exact(&mut message).is_ok() {
            match &message {
                b"poll" => thread::sleep(Duration::from_millis(300)),
                b"push" => {
                    stream.write_all(b"pong")?;
                    for _ in 0..3 {
                        thread::sleep(Duration::from_millis(20));
                        stream.write_all(b"news")?;
                    }
                    continue;
                }
                b"mute" => return Ok(()),
                _ => {}
            }
            stream.write_all(b"pong")?;
        }
        Ok(())
    })?;
    let address = shop.address;
    let ask = |words: &[u8], answers: usize| -> std::io::Result<()> {
        let mut stream = outside(|| TcpStream::connect(address))?;
        stream.write_all(words)?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        assert_eq!(answer.len(), 4 * answers, "{words:?}");
        Ok(())
    };
    ask(b"half", 1)?;
    ask(b"poll", 1)?;
    ask(b"push", 4)?;
    ask(b"mute", 0)?;
    let network = shop.sensor.tick().samples.remove(0).network.expect("live");
    assert_eq!(network.turnarounds, 3, "half-close, long poll, and the answer before what is pushed");
    assert!(network.turnaround_ns > 300_000_000, "the poll is as long as it was: {} ns", network.turnaround_ns);
    // Both requests are there before the first is answered.
    ask(b"pollping", 2)?;
    assert_eq!(shop.sample().network.expect("live").turnarounds, 1, "pipelined requests are one turnaround");
    Ok(())
}
