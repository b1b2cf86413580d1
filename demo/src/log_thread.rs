//! A thread to which each request leaves something to do after it, as one that writes a log: it waits for the CPU until the
//! request is done, so the longer requests work, the longer it waits.
//!
//! Woken by a request, it may run on the CPU of that one alone, and has so low a priority that it does not take it away. What it
//! then does is next to nothing.

use std::{
    io,
    sync::{
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread::{self, Thread},
};

use anyhow::Context;
use rustix::{
    process::{Pid, setpriority_process},
    thread::{CpuSet, gettid, sched_getcpu, sched_setaffinity},
};

/// The lowest.
const NICE: i32 = 19;
/// No CPU has it.
const NOWHERE: usize = usize::MAX;

pub struct LogThread {
    thread: Thread,
    id: Pid,
    /// Where it may run.
    cpu: AtomicUsize,
}

impl LogThread {
    /// It lives as long as the process does.
    pub fn start() -> anyhow::Result<Self> {
        let (sender, started) = mpsc::channel();
        let handle = thread::Builder::new()
            .name("log".into())
            .spawn(move || {
                // Of this thread alone: on Linux each has a priority of its own.
                let set = setpriority_process(None, NICE);
                if sender.send(set.map(|()| gettid())).is_err() {
                    return;
                }
                loop {
                    thread::park();
                }
            })
            .context("start the log's thread")?;
        let id = started.recv().context("the log's thread ended")?.context("lower the priority of the log's thread")?;
        Ok(Self { thread: handle.thread().clone(), id, cpu: AtomicUsize::new(NOWHERE) })
    }

    /// Gives it something to do once the caller gives up the CPU.
    pub fn wake(&self) -> io::Result<()> {
        let cpu = sched_getcpu();
        if self.cpu.load(Relaxed) != cpu {
            let mut here = CpuSet::new();
            here.set(cpu);
            sched_setaffinity(Some(self.id), &here)?;
            self.cpu.store(cpu, Relaxed);
        }
        self.thread.unpark();
        Ok(())
    }
}
