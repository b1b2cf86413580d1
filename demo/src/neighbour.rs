//! A process that has nothing to do with the service and takes its CPUs.

use std::{io, path::Path, process::Stdio, thread};

use anyhow::Context;
use tokio::process::{Child, Command};

use crate::{cgroup::Cell, service::burn_cpu};

/// Keeps `threads` threads busy until standard input closes.
pub fn burn(threads: usize) -> anyhow::Result<()> {
    for _ in 0..threads {
        thread::Builder::new()
            .spawn(|| {
                loop {
                    std::hint::black_box(burn_cpu(1_000_000));
                }
            })
            .context("start a busy thread")?;
    }
    io::copy(&mut io::stdin().lock(), &mut io::sink()).context("read standard input")?;
    Ok(())
}

/// Starts [`burn`] in a cgroup of its own, with two busy threads per CPU. It ends when the handle is dropped.
pub fn start(program: &Path, cell: &Cell) -> anyhow::Result<Child> {
    let cpus = thread::available_parallelism().context("count the CPUs")?.get();
    Command::new(program)
        .args(cell.enter_args())
        .arg(program)
        .args(["burn", "--threads", &(2 * cpus).to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start the noisy neighbour in {}", cell.cgroup))
}
