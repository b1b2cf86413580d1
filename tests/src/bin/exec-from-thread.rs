//! A program for tests, of which not the first thread executes another program in its place.
//!
//! `exec-from-thread PROGRAM [ARGUMENT]...`

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::Command, thread};

use anyhow::{Context as _, bail};

fn main() -> anyhow::Result<()> {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    anyhow::ensure!(!arguments.is_empty(), "which program?");
    let program = arguments.remove(0);
    let thread = thread::spawn(move || Command::new(program).args(arguments).exec());
    // The kernel ends this thread meanwhile, unless there is no such program.
    match thread.join() {
        Ok(error) => Err(error).context("execute it"),
        Err(_) => bail!("the thread panicked"),
    }
}
