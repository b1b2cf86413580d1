//! `canary` as a user meets it: the binary with a configuration of its own, its windows, its words and its pages.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use canary_user::{
    guard::Stage,
    journal::{HistoryEntry, Journal},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Sandbox,
    openmetrics::{self, Series},
    wait_until,
};

/// What is waited for comes within a second or two; machines are shared, and one of them may be slow.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// What commands over HTTP have to show, where a test wants them to be taken.
pub const TOKEN: &str = "the-token-of-the-tests-0123456789";

/// `canary`, started through `wrapper`: a command that ends by executing what follows it.
pub fn canary(wrapper: &[&str]) -> Command {
    let mut words = wrapper.iter().map(PathBuf::from).chain([program()]);
    let mut command = Command::new(words.next().expect("the program at least"));
    command.args(words).env_remove("CANARY_LOG").stdin(Stdio::null());
    command
}

/// Cargo builds the binaries of this package before its tests, and puts them beside `deps/`.
pub fn program() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    test.ancestors().nth(2).expect("tests lie in deps/").join("canary-under-test")
}

/// A configuration file with its journal, in a directory of their own that stays while anybody has it.
#[derive(Clone)]
pub struct Configuration {
    pub dir: Arc<TempDir>,
}

impl Configuration {
    /// `rest` is what follows the general keys.
    pub fn new(rest: &str) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir().context("make a directory")?;
        let at = |name: &str| dir.path().join(name).display().to_string();
        let general = format!(
            "journal = {:?}\npause_file = {:?}\napi.socket = {:?}\n",
            at("journal.db"),
            at("pause"),
            at("canary.sock")
        );
        fs::write(dir.path().join("canary.toml"), format!("window = \"100ms\"\n{general}{rest}"))?;
        Ok(Self { dir: Arc::new(dir) })
    }

    /// One deployment `shop` of the sandbox's cgroups `stable*` and `canary*`.
    pub fn shop(sandbox: &Sandbox) -> anyhow::Result<Self> {
        Self::new(&shop(sandbox))
    }

    /// The same, and commands over HTTP from who shows [`TOKEN`].
    pub fn shop_with_token(sandbox: &Sandbox) -> anyhow::Result<Self> {
        let configuration = Self::shop(sandbox)?;
        let token = configuration.dir.path().join("token");
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&token)?.write_all(TOKEN.as_bytes())?;
        let rest = fs::read_to_string(configuration.file())?;
        fs::write(configuration.file(), format!("api.token_file = {:?}\n{rest}", token.display().to_string()))?;
        Ok(configuration)
    }

    pub fn file(&self) -> String {
        self.dir.path().join("canary.toml").display().to_string()
    }

    pub fn journal(&self) -> PathBuf {
        self.dir.path().join("journal.db")
    }

    /// What the journal says, newest decision first; empty while there is no journal.
    pub fn history(&self) -> Vec<HistoryEntry> {
        Journal::open_to_read(&self.journal()).and_then(|j| j.history(100)).unwrap_or_default()
    }

    /// Waits until a decision has come to this stage, with these words.
    pub fn until(&self, stage: Stage, words: &str, patience: Duration) -> anyhow::Result<()> {
        let reached = wait_until(&format!("{} with '{words}'", stage.name()), patience, || {
            let all = self.history();
            all.iter().flat_map(|e| &e.stages).any(|s| s.stage == stage && s.detail.contains(words))
        });
        reached.with_context(|| format!("{:#?}", self.history()))
    }
}

/// The part of a configuration that names the sandbox's cgroups.
pub fn shop(sandbox: &Sandbox) -> String {
    let base = &sandbox.base;
    format!(
        "[[deployment]]\nname = \"shop\"\nstable = {{ cgroup = \"{base}/stable*\", version = \"1.4\" }}\n\
         canary = {{ cgroup = \"{base}/canary*\", version = \"1.5\" }}\n"
    )
}

/// A running `canary run`.
pub struct Guard {
    child: Child,
    windows: Receiver<Value>,
    said: Arc<Mutex<String>>,
    pub pages: Pages,
    _configuration: Configuration,
}

impl Guard {
    pub fn start(configuration: &Configuration) -> anyhow::Result<Self> {
        Self::start_as(&[], configuration, &[])
    }

    pub fn start_as(wrapper: &[&str], configuration: &Configuration, arguments: &[&str]) -> anyhow::Result<Self> {
        // Free when asked; the guard says so if somebody else takes it in between.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut child = canary(wrapper)
            .args(["run", "--output", "json", "--config", &configuration.file(), "--listen", &address.to_string()])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start canary")?;
        let stdout = BufReader::new(child.stdout.take().context("its stdout")?);
        let stderr = BufReader::new(child.stderr.take().context("its stderr")?);
        let (send, windows) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = send.send(serde_json::from_str(&line).unwrap_or(Value::String(line)));
            }
        });
        let said = Arc::new(Mutex::new(String::new()));
        let all = said.clone();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                *all.lock().expect("nothing panics while it writes") += &format!("{line}\n");
            }
        });
        Ok(Self { child, windows, said, pages: Pages(address), _configuration: configuration.clone() })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A directory for what a test makes; it goes with the guard.
    pub fn scratch(&self) -> &std::path::Path {
        self._configuration.dir.path()
    }

    /// Everything on stderr so far.
    pub fn said(&self) -> String {
        self.said.lock().expect("nothing panics while it writes").clone()
    }

    /// The next window.
    pub fn next_window(&mut self) -> anyhow::Result<Value> {
        let window = self.windows.recv_timeout(PATIENCE);
        let window = window.with_context(|| format!("no window comes; the guard said:\n{}", self.said()))?;
        ensure!(window["type"] == "window", "not a window: {window}");
        Ok(window)
    }

    /// The first window from here on that is `wanted`.
    pub fn until(&mut self, what: &str, mut wanted: impl FnMut(&Value) -> bool) -> anyhow::Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let window = self.next_window()?;
            if wanted(&window) {
                return Ok(window);
            }
            if Instant::now() > deadline {
                bail!("{what}: not within {PATIENCE:?}; the last window is {window:#}\n{}", self.said());
            }
        }
    }

    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id())?;
        Ok(kill_process(Pid::from_raw(pid).context("a child has a pid")?, signal)?)
    }

    /// Asks it to end, as service managers do, and waits for that.
    pub fn stop(mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let mut status = None;
        let ended = wait_until("the guard ends after SIGTERM", PATIENCE, || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        });
        ended.with_context(|| self.said())?;
        status.context("it ended")
    }
}

/// What a running guard serves.
#[derive(Clone, Copy, Debug)]
pub struct Pages(pub SocketAddr);

impl Pages {
    /// Head and body of a page.
    pub fn get(&self, path: &str) -> anyhow::Result<(String, String)> {
        let (head, body) = self.ask(&format!("GET {path}"), "", "")?;
        ensure!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        Ok((head, body))
    }

    /// Status code and JSON of the answer to a command; `headers` with their line ends.
    pub fn post(&self, path: &str, headers: &str, body: &str) -> anyhow::Result<(u16, Value)> {
        let (head, body) = self.ask(&format!("POST {path}"), headers, body)?;
        let code = head.split(' ').nth(1).context("a status code")?.parse()?;
        Ok((code, serde_json::from_str(&body).with_context(|| format!("{path}: {body}"))?))
    }

    /// The same of what is only read.
    pub fn get_as(&self, path: &str, headers: &str) -> anyhow::Result<(u16, Value)> {
        let (head, body) = self.ask(&format!("GET {path}"), headers, "")?;
        let code = head.split(' ').nth(1).context("a status code")?.parse()?;
        Ok((code, serde_json::from_str(&body).with_context(|| format!("{path}: {body}"))?))
    }

    fn ask(&self, request: &str, headers: &str, body: &str) -> anyhow::Result<(String, String)> {
        let mut stream = TcpStream::connect(self.0)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let length = body.len();
        write!(
            stream,
            "{request} HTTP/1.1\r\nHost: guard\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer has a head and a body")?;
        let body =
            if head.to_lowercase().contains("transfer-encoding: chunked") { joined(body)? } else { body.to_owned() };
        Ok((head.to_owned(), body))
    }

    pub fn metrics(&self) -> anyhow::Result<Vec<Series>> {
        openmetrics::parse(&self.get("/metrics")?.1)
    }

    pub fn monitor(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.get("/monitor")?.1).context("/monitor is JSON")
    }

    /// What `/monitor` says of a role of the deployment `shop`; null where it has no instance.
    pub fn version(&self, role: &str) -> anyhow::Result<Value> {
        let page = self.monitor()?;
        let versions = page["deployments"]["shop"]["versions"].as_array();
        Ok(versions.and_then(|all| all.iter().find(|v| v["role"] == role)).cloned().unwrap_or(Value::Null))
    }
}

/// The chunks of a body (RFC 9112, 7.1), one after the other.
fn joined(mut chunks: &str) -> anyhow::Result<String> {
    let mut body = String::new();
    loop {
        let (length, rest) = chunks.split_once("\r\n").context("a chunk begins with its length")?;
        let length = usize::from_str_radix(length, 16).with_context(|| format!("the length of a chunk: {length:?}"))?;
        if length == 0 {
            return Ok(body);
        }
        body += rest.get(..length).context("a chunk ends before its length")?;
        chunks = rest.get(length + 2..).context("a chunk ends with a line break")?;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
