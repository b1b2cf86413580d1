//! Conversations that do not begin with a plain handshake: each turnaround is still counted, on the right side.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _},
    thread,
};

use canary_e2e::{Sandbox, kernel_available};
use canary_user::{
    targets::Role,
    telemetry::{Options, Sensor},
};

const MESSAGE_BYTES: usize = 100;

/// Sets a TCP option to an integer.
fn set(socket: &impl std::os::fd::AsRawFd, option: i32, value: i32) -> std::io::Result<()> {
    // SAFETY: a live socket, and a value that outlives the call and has the size that is told.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw const value).cast(),
            size_of::<i32>() as u32,
        )
    };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Connects so that the last packet of the handshake waits for the request and carries it.
fn connect_with_delayed_ack(address: SocketAddr) -> std::io::Result<TcpStream> {
    // SAFETY: the call makes a socket, which is owned from here on.
    let stream = unsafe { TcpStream::from_raw_fd(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0)) };
    set(&stream, libc::TCP_QUICKACK, 0)?;
    let SocketAddr::V4(v4) = address else { panic!("the test listens on IPv4") };
    let name = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: v4.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
        sin_zero: [0; 8],
    };
    // SAFETY: a live socket, and an address that outlives the call and has the size that is told.
    let done = unsafe { libc::connect(stream.as_raw_fd(), (&raw const name).cast(), size_of_val(&name) as u32) };
    if done == 0 { Ok(stream) } else { Err(std::io::Error::last_os_error()) }
}

/// Answers each message with one, on as many connections as come.
fn serve(listener: TcpListener) {
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut message = [0; MESSAGE_BYTES];
            while stream.read_exact(&mut message).is_ok() && stream.write_all(&message).is_ok() {}
        }
    });
}

fn exchange(stream: &mut TcpStream, times: usize) -> std::io::Result<()> {
    let mut message = [b'm'; MESSAGE_BYTES];
    for _ in 0..times {
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
    }
    Ok(())
}

struct Tracked {
    sandbox: Sandbox,
    path: String,
    sensor: Sensor,
}

fn tracked(test: &str) -> anyhow::Result<Option<Tracked>> {
    if !kernel_available(test) {
        return Ok(None);
    }
    let sandbox = Sandbox::new()?;
    let path = sandbox.cgroup("server")?;
    let sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    Ok(Some(Tracked { sandbox, path, sensor }))
}

impl Tracked {
    fn follow(&mut self) -> anyhow::Result<()> {
        self.sensor.follow(&[self.sandbox.target(&self.path, Role::Stable)?]);
        self.sensor.tick();
        Ok(())
    }

    fn turnarounds(&mut self) -> u64 {
        self.sensor.tick().samples.remove(0).network.expect("the network hooks are live").turnarounds
    }
}

/// Such payload is seen by the listening socket: the connection's own does not exist yet.
#[test]
fn requests_that_come_with_the_handshake_are_counted() -> anyhow::Result<()> {
    let Some(mut tracked) = tracked("requests_that_come_with_the_handshake_are_counted")? else { return Ok(()) };
    tracked.follow()?;
    let listener = tracked.sandbox.listen(&tracked.path)?;
    let address = listener.local_addr()?;
    serve(listener);
    for _ in 0..20 {
        exchange(&mut connect_with_delayed_ack(address)?, 5)?;
    }
    assert_eq!(tracked.turnarounds(), 100);
    Ok(())
}

/// nginx's `listen … deferred`, for instance.
#[test]
fn requests_to_a_listener_that_defers_accepting_are_counted() -> anyhow::Result<()> {
    let Some(mut tracked) = tracked("requests_to_a_listener_that_defers_accepting_are_counted")? else { return Ok(()) };
    tracked.follow()?;
    let listener = tracked.sandbox.listen(&tracked.path)?;
    set(&listener, libc::TCP_DEFER_ACCEPT, 1)?;
    let address = listener.local_addr()?;
    serve(listener);
    for _ in 0..20 {
        exchange(&mut TcpStream::connect(address)?, 5)?;
    }
    assert_eq!(tracked.turnarounds(), 100);
    Ok(())
}

/// The first payload that the guard sees is then a response, which does not make the server a client.
#[test]
fn a_connection_that_was_answering_when_the_guard_came_is_a_servers() -> anyhow::Result<()> {
    let test = "a_connection_that_was_answering_when_the_guard_came_is_a_servers";
    let Some(mut tracked) = tracked(test)? else { return Ok(()) };
    let listener = tracked.sandbox.listen(&tracked.path)?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    let mut message = [b'm'; MESSAGE_BYTES];
    client.write_all(&message)?;
    server.read_exact(&mut message)?;
    tracked.follow()?;
    server.write_all(&message)?;
    client.read_exact(&mut message)?;
    for _ in 0..10 {
        client.write_all(&message)?;
        server.read_exact(&mut message)?;
        server.write_all(&message)?;
        client.read_exact(&mut message)?;
    }
    assert_eq!(tracked.turnarounds(), 10);
    Ok(())
}

/// A greeting comes first in some protocols; what waits for an answer is still the other side.
#[test]
fn a_client_that_is_greeted_first_is_no_server() -> anyhow::Result<()> {
    let Some(mut tracked) = tracked("a_client_that_is_greeted_first_is_no_server")? else { return Ok(()) };
    tracked.follow()?;
    // Here the client's socket is the tracked one.
    let outside = TcpListener::bind("127.0.0.1:0")?;
    let address = outside.local_addr()?;
    let mut client = tracked.sandbox.inside(&tracked.path, || TcpStream::connect(address))??;
    let (mut server, _) = outside.accept()?;
    let mut message = [b'g'; MESSAGE_BYTES];
    for _ in 0..10 {
        server.write_all(&message)?;
        client.read_exact(&mut message)?;
        client.write_all(&message)?;
        server.read_exact(&mut message)?;
    }
    assert_eq!(tracked.turnarounds(), 0);
    Ok(())
}
