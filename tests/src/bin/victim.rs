//! A canary process for tests: writes a line for each SIGTERM, and crashes children once told to.
//!
//! `victim stay|end DIR`: DIR/ready appears once it listens, DIR/terms gets the lines, DIR/crash starts the crashes.
//! `victim threads N`: N threads that are always busy, beside the first one, which sleeps.

use std::{fs::OpenOptions, io::Write as _, path::PathBuf, process::Stdio, time::Duration};

use anyhow::Context as _;
use tokio::{
    process::Command,
    signal::unix::{SignalKind, signal},
    time::interval,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().context("stay, end or threads?")?;
    if what == "threads" {
        for _ in 0..arguments.next().context("how many?")?.parse()? {
            std::thread::spawn(|| {
                loop {
                    std::hint::spin_loop();
                }
            });
        }
        std::future::pending::<()>().await;
    }
    let stays = what == "stay";
    let dir = PathBuf::from(arguments.next().context("which directory?")?);
    let mut terms = signal(SignalKind::terminate())?;
    std::fs::write(dir.join("ready"), "")?;
    let mut every = interval(Duration::from_millis(50));
    loop {
        tokio::select! {
            _ = terms.recv() => {
                let mut file = OpenOptions::new().create(true).append(true).open(dir.join("terms"))?;
                file.write_all(b"SIGTERM\n")?;
                if !stays {
                    return Ok(());
                }
            }
            _ = every.tick() => if dir.join("crash").exists() {
                let crash = ["-c", "ulimit -c 0; kill -SEGV $$"];
                Command::new("sh").args(crash).stdin(Stdio::null()).status().await?;
            }
        }
    }
}
