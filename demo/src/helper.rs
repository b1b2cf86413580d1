//! A program that an instance starts now and then and does not wait for, as one that makes a thumbnail: in the end it is this program
//! itself, which does nothing.

use std::{io, process::Stdio};

use tokio::process::Command;

/// One request in so many starts one: five a second at 400 requests/s.
pub const EVERY: u64 = 80;

/// Starts it; call it in a tokio runtime, which takes note of its end. One that `fails` ends with status 1.
pub fn start(fails: bool) -> io::Result<()> {
    let mut helper = Command::new(std::env::current_exe()?)
        .arg("helper")
        .args(fails.then_some("--fail"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    tokio::spawn(async move { helper.wait().await });
    Ok(())
}
