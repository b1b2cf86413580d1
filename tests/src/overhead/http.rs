//! A server with keep-alive connections and small responses, and the time per packet at the socket hooks.

use std::{
    fs,
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use aya::sys::{Stats, enable_stats};

use super::{Limit, Plan, Row, programs::Runs, sched::following};
use crate::{
    Sandbox,
    bpf::{self, Attach, Empty},
    wait_until,
};

const RATES: [&str; 2] = ["http-tracked", "http-untracked"];
const PACKETS: [&str; 2] = ["packet-ingress", "packet-egress"];

/// nginx with one worker, in a cgroup.
struct Server {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Server {
    fn start(sandbox: &Sandbox, cgroup: &str) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let path = dir.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {path}/{name};\n"))
            .concat();
        fs::write(
            dir.path().join("nginx.conf"),
            format!(
                "daemon off;\nmaster_process off;\npid {path}/pid;\nerror_log {path}/error.log;\nevents {{}}\n\
                 http {{\naccess_log off;\nkeepalive_requests 100000000;\n{temporary}\
                 server {{ listen 127.0.0.1:{port}; location / {{ return 200 \"ok\\n\"; }} }}\n}}\n"
            ),
        )?;
        let child =
            sandbox.run(cgroup, &format!("exec taskset -c 0 /usr/sbin/nginx -c {path}/nginx.conf -p {path}"))?;
        let server = Self { child, port, _dir: dir };
        wait_until("nginx listens", Duration::from_secs(20), || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        })?;
        Ok(server)
    }

    /// Requests per second that wrk gets through in the given time.
    fn load(&self, seconds: u32) -> anyhow::Result<f64> {
        let url = format!("http://127.0.0.1:{}/", self.port);
        let output = Command::new("taskset")
            .args(["-c", "1", "wrk", "-t1", "-c16", &format!("-d{seconds}s"), &url])
            .stdin(Stdio::null())
            .output()
            .context("start wrk")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let rate = said.lines().find_map(|l| l.strip_prefix("Requests/sec:")?.trim().parse::<f64>().ok());
        rate.with_context(|| format!("wrk said no rate: {said}{}", String::from_utf8_lossy(&output.stderr)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn all(plan: &Plan) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let sandbox = Sandbox::new()?;
    let (served, idle) = (sandbox.cgroup("served")?, sandbox.cgroup("idle")?);
    if plan.wants(&RATES) {
        let server = Server::start(&sandbox, &served)?;
        rows.extend(rates(plan, &sandbox, &server, [&served, &idle])?);
    }
    if plan.wants(&PACKETS) {
        let server = Server::start(&sandbox, &served)?;
        rows.extend(packets(plan, &sandbox, &server, &served)?);
    }
    Ok(rows)
}

/// Requests per second with the sensor on the server's cgroup, and on another one, over those without.
fn rates(plan: &Plan, sandbox: &Sandbox, server: &Server, followed: [&str; 2]) -> anyhow::Result<Vec<Row>> {
    const SECONDS: u32 = 2;
    let mut ratios = [Vec::new(), Vec::new()];
    let mut alone = Vec::new();
    server.load(1)?;
    for round in 1..=plan.rounds {
        eprintln!("  ..   HTTP load, attached and detached, round {round} of {}", plan.rounds);
        let before = server.load(SECONDS)?;
        let mut with = [0.0; 2];
        for i in 0..2 {
            // In turns, so that neither is always the later one.
            let i = (i + round) % 2;
            let _sensor = following(sandbox, followed[i])?;
            with[i] = server.load(SECONDS)?;
        }
        let without = f64::midpoint(before, server.load(SECONDS)?);
        alone.push(without);
        for (ratios, rate) in ratios.iter_mut().zip(with) {
            ratios.push(rate / without);
        }
    }
    let detail = format!("alone {:.0}/s", super::median(&alone));
    let what = "HTTP requests/s, attached over detached";
    Ok(vec![
        Row::of(RATES[0], what, &ratios[0], Limit::AtLeast(0.97), detail.clone()),
        Row::of(RATES[1], what, &ratios[1], Limit::AtLeast(0.995), detail),
    ])
}

/// Nanoseconds per packet at the socket hooks, net of an empty program on the same cgroup.
fn packets(plan: &Plan, sandbox: &Sandbox, server: &Server, served: &str) -> anyhow::Result<Vec<Row>> {
    let _stats = enable_stats(Stats::RunTime).context("switch kernel.bpf_stats on")?;
    let me = std::process::id();
    let dir = sandbox.root.open(served)?;
    let empty = [Empty::cgroup(&dir, Attach::Ingress)?, Empty::cgroup(&dir, Attach::Egress)?];
    let mut ns = [Vec::new(), Vec::new()];
    let mut floors = Vec::new();
    for round in 1..=plan.rounds {
        eprintln!("  ..   time per packet, round {round} of {}", plan.rounds);
        let _sensor = following(sandbox, served)?;
        let (before, floor_before) = (Runs::of(me), [empty[0].runs(), empty[1].runs()]);
        server.load(2)?;
        let after = Runs::of(me);
        for (i, name) in ["ingress", "egress"].into_iter().enumerate() {
            let floor = bpf::ns_per_run(floor_before[i], empty[i].runs()).context("the empty program did not run")?;
            let ours = after.ns_per_run(&before, name).with_context(|| format!("{name} did not run"))?;
            floors.push(floor);
            ns[i].push(ours - floor);
        }
    }
    let detail = format!("an empty program {:.0} ns", super::median(&floors));
    Ok((0..2)
        .map(|i| Row::of(PACKETS[i], "ns per packet in cgroup_skb, net", &ns[i], Limit::AtMost(150.0), detail.clone()))
        .collect())
}
