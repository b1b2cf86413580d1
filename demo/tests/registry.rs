//! An instance that somebody else starts, as a real process, and the registry in which the demo finds it.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use canary_demo::{
    fault::{Fault, Order},
    registry::{Registry, address},
};
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(30);

fn start(dir: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_canary-demo"))
        .args(["serve", "--registry"])
        .arg(dir)
        .stdin(Stdio::null())
        .spawn()
        .expect("start an instance")
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Bytes of the whole answer to one request.
fn get(dir: &Path) -> std::io::Result<usize> {
    let mut stream = TcpStream::connect(address(dir).expect("an address"))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: demo\r\nconnection: close\r\n\r\n")?;
    stream.read_to_end(&mut Vec::new())
}

fn registry() -> (tempfile::TempDir, Registry, PathBuf) {
    let outer = tempfile::tempdir().expect("a directory");
    let mut registry = Registry::open(&outer.path().join("registry")).expect("a registry");
    let dir = registry.add("one").expect("a place");
    (outer, registry, dir)
}

#[test]
fn who_is_told_to_end_takes_its_address_back_and_serves_on_for_a_moment() {
    let (_outer, _registry, dir) = registry();
    let mut instance = start(&dir);
    until("it serves", || address(&dir).is_some());
    let known = address(&dir).expect("an address");
    kill_process(Pid::from_child(&instance), Signal::TERM).expect("SIGTERM");
    until("it takes its address back", || address(&dir).is_none());
    TcpStream::connect(known).expect("who knew the address is still served");
    assert!(instance.wait().expect("wait").success());
}

#[test]
fn a_fault_outlives_the_instance() {
    let (_outer, registry, dir) = registry();
    let mut first = start(&dir);
    until("it serves", || address(&dir).is_some());
    registry.order(&dir, Order { fault: Some(Fault::Network), severity: 10.0 }).expect("order");
    until("the order is obeyed", || get(&dir).is_ok_and(|bytes| bytes > 20_000));
    first.kill().expect("kill");
    first.wait().expect("wait");
    // It could not take its address back.
    let before = address(&dir);
    let mut second = start(&dir);
    until("it serves again", || address(&dir) != before);
    assert!(get(&dir).expect("an answer") > 20_000);
    second.kill().expect("kill");
    second.wait().expect("wait");
}

#[test]
fn an_instance_ends_with_its_demo_of_which_there_is_one() {
    let (outer, registry, dir) = registry();
    let mut instance = start(&dir);
    until("it serves", || address(&dir).is_some());
    let error = Registry::open(&outer.path().join("registry")).err().expect("there is a demo already");
    assert!(error.to_string().contains("another demo"), "{error}");
    assert!(instance.try_wait().expect("ask").is_none());
    drop(registry);
    assert!(instance.wait().expect("wait").success());
    assert!(!outer.path().join("registry").exists());
}
