//! Where the demo and instances that somebody else starts find each other: a directory with one directory per instance.
//!
//! ```text
//! /run/canary-demo/lock                       held by the demo: there is one at a time
//! /run/canary-demo/NAME/demo-lives            held by the demo: once it is free, the instance ends by itself
//! /run/canary-demo/NAME/address               written by the instance; there for as long as it takes new connections
//! /run/canary-demo/NAME/order                 written by the demo: the instance's fault, which outlives its restarts
//! ```

use std::{
    fs::{self, File},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::sync::mpsc;

use crate::fault::Order;

/// Where the demo has it.
pub const DIRECTORY: &str = "/run/canary-demo";
const LOCK: &str = "lock";
const LIVES: &str = "demo-lives";
const ADDRESS: &str = "address";
const ORDER: &str = "order";
/// How often an instance looks for orders, and whether the demo still lives.
const LOOK: Duration = Duration::from_millis(50);

/// The demo's side. Dropping it removes the directory, and what still runs of the instances ends.
pub struct Registry {
    dir: PathBuf,
    /// Held for as long as we live.
    _lock: File,
    /// The same, for each instance.
    lives: Vec<File>,
}

impl Registry {
    /// # Errors
    /// Where another demo has it.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let path = dir.join(LOCK);
        let lock = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                bail!(
                    "another demo runs its instances on systemd or Docker: wait for its end, their names are the same"
                )
            }
            Err(e) => return Err(e).with_context(|| format!("lock {}", path.display())),
        }
        Ok(Self { dir: dir.to_owned(), _lock: lock, lives: Vec::new() })
    }

    /// Makes the place of one instance; returns its directory.
    pub fn add(&mut self, name: &str) -> anyhow::Result<PathBuf> {
        let dir = self.dir.join(name);
        match fs::remove_dir_all(&dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("remove {}", dir.display()));
            }
            _ => {}
        }
        fs::create_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
        let path = dir.join(LIVES);
        let lives = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        lives.lock().with_context(|| format!("lock {}", path.display()))?;
        self.lives.push(lives);
        Ok(dir)
    }

    /// Tells an instance its fault, and whatever is started in its place.
    pub fn order(&self, dir: &Path, order: Order) -> anyhow::Result<()> {
        let text = serde_json::to_string(&order).context("an order is JSON")?;
        replace(&dir.join(ORDER), &text)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.dir) {
            eprintln!("canary-demo: remove {}: {e}", self.dir.display());
        }
    }
}

/// Where the instance of a directory takes new connections; `None` once it has been told to end, and before it serves.
pub fn address(dir: &Path) -> Option<SocketAddr> {
    fs::read_to_string(dir.join(ADDRESS)).ok()?.trim().parse().ok()
}

/// The instance's side.
pub struct Registration {
    address: PathBuf,
}

impl Registration {
    /// Tells everybody the address. The receiver gives the orders, each as JSON, and ends when the demo is gone.
    pub fn enter(dir: &Path, address: SocketAddr) -> anyhow::Result<(Self, mpsc::UnboundedReceiver<String>)> {
        let (sender, orders) = mpsc::unbounded_channel();
        let registration = Self { address: dir.join(ADDRESS) };
        let dir = dir.to_owned();
        let order = dir.join(ORDER);
        // Before the first request: who was started again has the fault from the start.
        let mut last = fs::read_to_string(&order).ok();
        if let Some(order) = last.clone() {
            let _ = sender.send(order);
        }
        replace(&registration.address, &address.to_string())?;
        // On a thread of its own, as the orders on standard input are: requests do not wait for the files.
        thread::spawn(move || {
            while demo_lives(&dir) {
                thread::sleep(LOOK);
                let now = fs::read_to_string(&order).ok();
                if now != last {
                    last.clone_from(&now);
                    if now.is_some_and(|order| sender.send(order).is_err()) {
                        return;
                    }
                }
            }
        });
        Ok((registration, orders))
    }

    /// From here on no new connections are wanted, though they are still served.
    pub fn leave(&self) {
        // It fails where the demo has removed it already, and then nobody looks.
        let _ = fs::remove_file(&self.address);
    }
}

fn demo_lives(dir: &Path) -> bool {
    let Ok(lives) = File::open(dir.join(LIVES)) else { return false };
    matches!(lives.try_lock_shared(), Err(fs::TryLockError::WouldBlock))
}

/// Writes a file so that a reader sees the old text or the new, and never a part.
fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    let write = || -> io::Result<()> {
        fs::write(&new, text)?;
        fs::rename(&new, path)
    };
    write().with_context(|| format!("write {}", path.display()))
}
