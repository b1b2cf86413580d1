//! One instance of the service, as a real process: what it answers, healthy and with each fault that can be seen from
//! outside without a cgroup.

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use canary_demo::helper;
use rustix::process::{Pid, Signal, kill_process};

const PROGRAM: &str = env!("CARGO_BIN_EXE_canary-demo");
/// An order is obeyed soon, not at once: within so many requests in any case.
const OBEYED_WITHIN: u64 = 8000;
/// What has not happened by then does not happen.
const LONG: Duration = Duration::from_secs(60);

struct Server {
    child: Child,
    orders: Option<ChildStdin>,
    address: String,
}

impl Server {
    fn start() -> Self {
        Self::run(&["serve"])
    }

    /// A verb that prints its address and ends with its standard input.
    fn run(arguments: &[&str]) -> Self {
        Self::run_program(Path::new(PROGRAM), arguments)
    }

    fn run_program(program: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the server");
        let mut address = String::new();
        BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut address).expect("read the address");
        let orders = child.stdin.take();
        Self { child, orders, address: address.trim().to_owned() }
    }

    fn order(&mut self, line: &str) {
        writeln!(self.orders.as_mut().expect("open"), "{line}").expect("send the order");
    }

    /// The whole answer to one request on a connection of its own.
    fn get(&self) -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: demo\r\nconnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    }

    /// Asks until the answer is as wanted: an order is obeyed soon, not at once.
    fn until(&self, wanted: impl Fn(&std::io::Result<Vec<u8>>) -> bool) {
        while !wanted(&self.get()) {}
    }

    /// Memory of the process that is its own.
    fn anonymous_kib(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it lives");
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    fn wait(mut self) -> (ExitStatus, String) {
        let mut errors = String::new();
        self.child.stderr.take().expect("stderr").read_to_string(&mut errors).expect("read stderr");
        (self.child.wait().expect("wait"), errors)
    }
}

fn body_bytes(answer: &[u8]) -> usize {
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(answer));
    let head = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("end of the head");
    answer.len() - head - 4
}

#[test]
fn a_healthy_server_answers_2_kib_and_ends_with_its_supervisor() {
    let mut server = Server::start();
    assert_eq!(body_bytes(&server.get().expect("answer")), 2048);
    drop(server.orders.take());
    let (status, errors) = server.wait();
    assert!(status.success(), "{status}: {errors}");
}

#[test]
fn sigterm_ends_it_after_the_request_in_flight() {
    let mut server = Server::start();
    // 499 × 2 ms: time enough for what follows. Should it not be, the test passes without having shown anything.
    server.order(r#"{"fault":"latency","severity":500}"#);
    let slow = |server: &Server| {
        let start = Instant::now();
        server.get().expect("answer");
        start.elapsed() >= Duration::from_millis(998)
    };
    while !slow(&server) {}
    let mut stream = TcpStream::connect(&server.address).expect("connect");
    stream.write_all(b"GET / HTTP/1.1\r\nhost: demo\r\n\r\n").expect("ask");
    server.order(r#"{"fault":null}"#);
    // Connections are served in turn: once a later one is answered, the first is being waited for.
    while slow(&server) {}
    kill_process(Pid::from_child(&server.child), Signal::TERM).expect("SIGTERM");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the connection is closed in order");
    assert_eq!(body_bytes(&answer), 2048);
    let (status, errors) = server.wait();
    assert!(status.success(), "{status}: {errors}");
}

#[test]
fn network_makes_answers_larger_and_no_fault_heals() {
    let mut server = Server::start();
    server.order(r#"{"fault":"network","severity":2.5}"#);
    server.until(|answer| body_bytes(answer.as_ref().expect("answer")) == 5120);
    server.order(r#"{"fault":null}"#);
    server.until(|answer| body_bytes(answer.as_ref().expect("answer")) == 2048);
}

#[test]
fn a_larger_working_set_is_held_at_once_and_no_more_after_that() {
    let mut server = Server::start();
    server.get().expect("answer");
    let before = server.anonymous_kib();
    server.order(r#"{"fault":"working-set","severity":2}"#);
    // The kernel's number is a sum over CPUs, some of which may be behind.
    server.until(|answer| answer.is_ok() && server.anonymous_kib() >= before + (31 << 10));
    let held = server.anonymous_kib();
    for _ in 0..100 {
        server.get().expect("answer");
    }
    let later = server.anonymous_kib();
    assert!(later < held + (4 << 10), "{before} kB, then {held}, and {later} after 100 requests");
    server.order(r#"{"fault":null}"#);
    server.until(|answer| answer.is_ok() && server.anonymous_kib() < held - (16 << 10));
}

#[test]
fn requests_wait_for_the_upstream_and_longer_where_that_is_the_fault() {
    let mut upstream = Server::run(&["upstream"]);
    let mut server = Server::run(&["serve", "--upstream", &upstream.address]);
    assert_eq!(body_bytes(&server.get().expect("answer")), 2048);
    // 49 × 2 ms.
    server.order(r#"{"fault":"dependency","severity":50}"#);
    let took = |server: &Server| {
        let start = Instant::now();
        server.get().expect("answer");
        start.elapsed()
    };
    while took(&server) < Duration::from_millis(98) {}
    for _ in 0..5 {
        assert!(took(&server) >= Duration::from_millis(98));
    }
    server.order(r#"{"fault":null}"#);
    while took(&server) >= Duration::from_millis(98) {}
    drop(upstream.orders.take());
    let (status, errors) = upstream.wait();
    assert!(status.success(), "{status}: {errors}");
    // Without it there is no answer.
    server.until(|answer| answer.as_ref().is_ok_and(Vec::is_empty) || answer.is_err());
}

#[test]
fn with_a_working_set_and_a_log_requests_are_answered_with_and_without_the_faults() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("set");
    fs::write(&file, vec![7; 1 << 20]).expect("write");
    let file = file.to_str().expect("UTF-8");
    let mut server = Server::run(&["serve", "--log-thread", "--working-set", file, "--usual-bytes", "524288"]);
    for fault in ["null", r#""tail""#, r#""thrash""#, r#""memory""#, "null"] {
        server.order(&format!(r#"{{"fault":{fault},"severity":3}}"#));
        for _ in 0..20 {
            assert_eq!(body_bytes(&server.get().expect("answer")), 2048);
        }
    }
    drop(server.orders.take());
    let (status, errors) = server.wait();
    assert!(status.success() && errors.is_empty(), "{status}: {errors}");
}

#[test]
fn errors_reset_the_connection() {
    let mut server = Server::start();
    // (21 - 1) × 5 % is all of them.
    server.order(r#"{"fault":"errors","severity":21}"#);
    server.until(|answer| answer.as_ref().is_err_and(|e| e.kind() == ErrorKind::ConnectionReset));
    for _ in 0..10 {
        assert_eq!(server.get().expect_err("reset").kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn server_errors_are_whole_answers_with_status_500() {
    let mut server = Server::start();
    let begins = |with: &'static [u8]| {
        move |answer: &std::io::Result<Vec<u8>>| answer.as_ref().is_ok_and(|answer| answer.starts_with(with))
    };
    server.order(r#"{"fault":"server-errors","severity":21}"#);
    server.until(begins(b"HTTP/1.1 500 "));
    for _ in 0..10 {
        let answer = server.get();
        assert!(begins(b"HTTP/1.1 500 ")(&answer), "{answer:?}");
        assert!(answer.is_ok_and(|answer| answer.ends_with(&[b'.'; 2048])), "the work was done");
    }
    server.order(r#"{"fault":null}"#);
    server.until(begins(b"HTTP/1.1 200 "));
}

#[test]
fn what_cannot_be_reached_is_asked_and_keeps_no_answer_back() {
    // Somebody who can be reached, for who is asked notices it.
    let somebody = TcpListener::bind("127.0.0.1:0").expect("listen");
    somebody.set_nonblocking(true).expect("not to wait for connections");
    let address = somebody.local_addr().expect("own address").to_string();
    let asked = || somebody.incoming().take_while(Result::is_ok).count();
    let mut server = Server::run(&["serve", "--unreachable", &address]);
    for _ in 0..50 {
        assert_eq!(body_bytes(&server.get().expect("answer")), 2048);
    }
    assert_eq!(asked(), 0, "there is no fault yet");
    // (21 - 1) × 5 % is all of them.
    server.order(r#"{"fault":"unreachable","severity":21}"#);
    let obeyed = (0..OBEYED_WITHIN).any(|_| body_bytes(&server.get().expect("answer")) == 2048 && asked() > 0);
    assert!(obeyed, "nobody was asked");
    let mut times = 0;
    for _ in 0..50 {
        assert_eq!(body_bytes(&server.get().expect("answer")), 2048);
        times += asked();
    }
    // The kernel may be a little behind with what is to be accepted.
    let answered = Instant::now();
    while times < 50 {
        assert!(answered.elapsed() < LONG, "of 50 requests {times} asked");
        times += asked();
    }
    drop(somebody);
    for _ in 0..50 {
        assert_eq!(body_bytes(&server.get().expect("answer")), 2048);
    }
    drop(server.orders.take());
    let (status, errors) = server.wait();
    assert!(status.success() && errors.is_empty(), "{status}: {errors}");
}

#[test]
fn helpers_fail_where_that_is_the_fault_and_keep_no_answer_back() {
    let code = |arguments: &[&str]| {
        let ended = Command::new(PROGRAM).arg("helper").args(arguments).status();
        ended.expect("start a helper").code()
    };
    assert_eq!((code(&[]), code(&["--fail"])), (Some(0), Some(1)));

    // The helpers are the server's own program, by the name that the kernel has for it. Where that program was removed meanwhile, its
    // name ends with " (deleted)" (proc_pid_exe(5)), and something else can stand there: a script that writes down its arguments.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on the file system of the program");
    let program = dir.path().join("canary-demo");
    fs::hard_link(PROGRAM, &program).expect("another name of the program");
    let mut server = Server::run_program(&program, &["serve", "--helpers"]);
    fs::remove_file(&program).expect("remove the name");
    let script = dir.path().join("canary-demo (deleted)");
    let started = dir.path().join("canary-demo (deleted).started");
    // Written by a shell: what this process has open for writing, another test's child has open, too, for a moment, and is not executed.
    let writer = r##"printf '#!/bin/sh\necho "$*" >>"$0.started"\n' >"$1" && chmod +x "$1""##;
    let written = Command::new("sh").args(["-c", writer, "sh"]).arg(&script).status().expect("start a shell");
    assert!(written.success(), "{written}");

    let mut helpers = 0;
    // What the next helper is started with. It writes it down a little later than the request is answered.
    let mut next = |server: &Server| {
        for _ in 0..helper::EVERY {
            assert_eq!(body_bytes(&server.get().expect("answer")), 2048);
        }
        helpers += 1;
        let answered = Instant::now();
        loop {
            let text = fs::read_to_string(&started).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            if text.ends_with('\n') && lines.len() >= helpers {
                assert_eq!(lines.len(), helpers, "one in {} requests starts one", helper::EVERY);
                return lines[helpers - 1].to_owned();
            }
            assert!(answered.elapsed() < LONG, "{helpers} helpers should have been started: {lines:?}");
            thread::sleep(Duration::from_millis(1));
        }
    };
    for _ in 0..2 {
        assert_eq!(next(&server), "helper");
    }
    // (3 - 1) × 50 % is all of them.
    server.order(r#"{"fault":"exits","severity":3}"#);
    let obeyed = (0..OBEYED_WITHIN / helper::EVERY).any(|_| next(&server) == "helper --fail");
    assert!(obeyed, "no helper was told to fail");
    for _ in 0..2 {
        assert_eq!(next(&server), "helper --fail");
    }
    server.order(r#"{"fault":null}"#);
    let obeyed = (0..OBEYED_WITHIN / helper::EVERY).any(|_| next(&server) == "helper");
    assert!(obeyed, "all helpers go on to fail");
    drop(server.orders.take());
    let (status, errors) = server.wait();
    assert!(status.success() && errors.is_empty(), "{status}: {errors}");
}

#[test]
fn crash_aborts_on_a_request() {
    let mut server = Server::start();
    server.order(r#"{"fault":"crash","severity":2}"#);
    server.until(|answer| answer.is_err());
    let (status, _) = server.wait();
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()));
    assert!(!status.core_dumped());
}

#[test]
fn an_order_that_makes_no_sense_ends_it_with_the_reason() {
    for (order, reason) in [
        (r#"{"fault":"gremlins"}"#, "unknown variant `gremlins`"),
        (r#"{"fault":"cpu","severity":0.5}"#, "severity 0.5 is not a number from 1 on"),
        (r#"{"fault":"memory","severity":2}"#, "needs --working-set"),
        (r#"{"fault":"thrash","severity":2}"#, "needs --working-set"),
        (r#"{"fault":"dependency","severity":2}"#, "needs --upstream"),
        (r#"{"fault":"tail","severity":2}"#, "needs --log-thread"),
        (r#"{"fault":"exits","severity":2}"#, "needs --helpers"),
    ] {
        let mut server = Server::start();
        server.order(order);
        let (status, errors) = server.wait();
        assert_eq!(status.code(), Some(1));
        assert!(errors.contains(reason), "{errors}");
    }
}
