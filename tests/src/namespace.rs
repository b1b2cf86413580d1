//! Namespaces of one thread: a network with a loopback of its own and the kernel's counts in it, another's network, other files.

use std::{fs::File, io::Error, os::fd::AsRawFd as _, path::Path, process::Command, thread};

use anyhow::{Context as _, ensure};

use crate::service::outside;

/// Runs `work` in a thread whose sockets are in a network namespace of their own. Its loopback takes packets of at most
/// `mtu` bytes: what is larger is cut, or handed on as one packet that counts as many.
pub fn with_loopback<T: Send + 'static>(
    mtu: u32,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let thread = thread::spawn(move || {
        // SAFETY: takes a flag; only this thread changes its namespace.
        let done = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        ensure!(done == 0, "a network namespace: {}", Error::last_os_error());
        ip(&format!("link set lo mtu {mtu}"))?;
        ip("link set lo up")?;
        work()
    });
    thread.join().expect("the thread does not panic")
}

/// Runs `work` in a thread whose sockets, and those of the threads that it starts, are in the network namespace of a process.
pub fn with_network_of<T: Send + 'static>(
    pid: i32,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let namespace = File::open(format!("/proc/{pid}/ns/net")).context("open its network namespace")?;
    let thread = thread::spawn(move || {
        // SAFETY: takes an open file and a flag; only this thread changes its namespace.
        let done = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
        ensure!(done == 0, "enter its network namespace: {}", Error::last_os_error());
        work()
    });
    thread.join().expect("the thread does not panic")
}

/// Runs `work` in a thread that reads `text` where the file at `path` is, and where everybody else goes on reading that file.
pub fn with_other_text<T: Send + 'static>(
    path: &Path,
    text: &str,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let other = tempfile::NamedTempFile::new()?;
    std::fs::write(other.path(), text)?;
    let path = path.to_owned();
    let thread = thread::spawn(move || {
        // SAFETY: takes a flag; only this thread changes its namespace.
        let done = unsafe { libc::unshare(libc::CLONE_NEWNS) };
        ensure!(done == 0, "a mount namespace: {}", Error::last_os_error());
        command("mount", &["--make-rprivate".as_ref(), "/".as_ref()])?;
        command("mount", &["--bind".as_ref(), other.path(), &path])?;
        work()
    });
    thread.join().expect("the thread does not panic")
}

/// `ip` in the namespace of this thread.
pub fn ip(words: &str) -> anyhow::Result<()> {
    let words: Vec<&Path> = words.split(' ').map(Path::new).collect();
    command("ip", &words)
}

fn command(program: &str, words: &[&Path]) -> anyhow::Result<()> {
    let status = outside(|| Command::new(program).args(words).status()).with_context(|| format!("start {program}"))?;
    ensure!(status.success(), "{program} {words:?}: {status}");
    Ok(())
}

/// A count of TCP by its name in `/proc/net/snmp`, of the namespace of this thread.
pub fn tcp_count(name: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp:"));
    let (names, values) = lines.next().zip(lines.next()).context("two lines about TCP")?;
    let at = names.split_whitespace().position(|n| n == name).with_context(|| format!("no {name}"))?;
    Ok(values.split_whitespace().nth(at).context("a value for each name")?.parse()?)
}
