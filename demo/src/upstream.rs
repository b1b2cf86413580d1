//! What the instances depend on, where the scenario has it: a small service that each of them asks something for each request.
//!
//! A question and its answer have a fixed length. The question says how long to wait before the answer. A process of its own that
//! serves until its supervisor is gone, and the instances' side of its connections, which are kept.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Stdio,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::Context;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, Command},
};

use crate::cgroup::Cell;

const QUESTION_BYTES: usize = 120;
const ANSWER_BYTES: usize = 800;
/// At the beginning of a question: microseconds to wait, little-endian.
const WAIT_BYTES: usize = size_of::<u32>();

/// Answers until standard input closes. The address is the first line of standard output.
pub fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen on the loopback")?;
    let address = listener.local_addr().context("own address")?;
    thread::Builder::new()
        .name("accept".into())
        .spawn(move || {
            for stream in listener.incoming().flatten() {
                // Ends with the connection.
                thread::spawn(move || answer_all(stream));
            }
        })
        .context("start the thread that accepts")?;
    println!("{address}");
    io::stdout().flush().context("write the address")?;
    io::copy(&mut io::stdin().lock(), &mut io::sink()).context("read standard input")?;
    Ok(())
}

fn answer_all(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut question = [0; QUESTION_BYTES];
    loop {
        stream.read_exact(&mut question)?;
        let mut wait = [0; WAIT_BYTES];
        wait.copy_from_slice(&question[..WAIT_BYTES]);
        thread::sleep(Duration::from_micros(u32::from_le_bytes(wait).into()));
        stream.write_all(&[b'.'; ANSWER_BYTES])?;
    }
}

/// The process. It ends when this is dropped.
pub struct Running {
    pub address: SocketAddr,
    _process: Child,
}

/// Starts [`serve`] in a cgroup of its own, and returns once it can be asked.
pub async fn start(program: &Path, cell: &Cell) -> anyhow::Result<Running> {
    let mut process = Command::new(program)
        .args(cell.enter_args())
        .arg(program)
        .arg("upstream")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start the upstream in {}", cell.cgroup))?;
    let output = process.stdout.take().context("the upstream's standard output is not a pipe")?;
    let first = BufReader::new(output).lines().next_line().await.context("read the upstream's address")?;
    let line = first.context("the upstream ended before it served")?;
    let address = line.parse().with_context(|| format!("the upstream's first line '{line}' is not an address"))?;
    Ok(Running { address, _process: process })
}

/// An instance's side.
pub struct Upstream {
    address: SocketAddr,
    /// Connections at rest.
    idle: Mutex<Vec<tokio::net::TcpStream>>,
}

impl Upstream {
    pub fn at(address: SocketAddr) -> Self {
        Self { address, idle: Mutex::default() }
    }

    /// One question and its whole answer, which comes that much later than it could.
    pub async fn ask(&self, later: Duration) -> io::Result<()> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut stream = match kept {
            Some(stream) => stream,
            None => {
                let stream = tokio::net::TcpStream::connect(self.address).await?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        let mut question = [b'?'; QUESTION_BYTES];
        let wait_usec = u32::try_from(later.as_micros()).unwrap_or(u32::MAX);
        question[..WAIT_BYTES].copy_from_slice(&wait_usec.to_le_bytes());
        stream.write_all(&question).await?;
        stream.read_exact(&mut [0; ANSWER_BYTES]).await?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
        Ok(())
    }
}
