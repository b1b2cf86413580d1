//! The live source of ticks: a sensor in a thread of its own, at a steady pace.

use std::{
    sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::sync::mpsc;

use super::{Sensor, Tick};
use crate::targets::Target;

/// How often new and vanished cgroups are looked for, at most.
const DISCOVER_EVERY: Duration = Duration::from_millis(250);
/// How often at least, although the kernel told of no change: what is not a cgroup may have changed, too.
const DISCOVER_ANYWAY: Duration = Duration::from_secs(10);

/// Whether it is time to look for new and vanished cgroups.
#[derive(Debug)]
struct Looks {
    looked: Instant,
    changes: Option<u64>,
    /// A change is told a moment before the cgroup can be seen.
    again: bool,
}

impl Looks {
    fn are_due(&mut self, changes: Option<u64>, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.looked);
        let changed = changes.is_none() || changes != self.changes;
        if since < DISCOVER_EVERY || !(changed || self.again || since >= DISCOVER_ANYWAY) {
            return false;
        }
        (self.looked, self.changes, self.again) = (now, changes, changed);
        true
    }
}

/// A running sensor. Dropping it stops the thread and detaches every program.
pub struct Live {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Starts ticking every `window`, first after one window. `targets` says what to follow and is asked again and again.
///
/// A consumer that is slower than the ticks loses none: the sensor waits, and the next tick covers the longer span.
pub fn start(
    mut sensor: Sensor,
    window: Duration,
    mut targets: impl FnMut() -> Vec<Target> + Send + 'static,
    ticks: mpsc::Sender<Tick>,
) -> anyhow::Result<Live> {
    let (stop, stopped) = sync_channel(1);
    let thread = thread::Builder::new()
        .name("sensor".into())
        .spawn(move || {
            sensor.follow(&targets());
            let mut next = Instant::now() + window;
            let mut looks = Looks { looked: Instant::now(), changes: None, again: true };
            loop {
                match stopped.recv_timeout(next.saturating_duration_since(Instant::now())) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                }
                let tick = sensor.tick();
                for (target, exit) in sensor.exits() {
                    tracing::info!(
                        cgroup = %target.cgroup, role = %target.role, pid = exit.pid, oom = exit.oom != 0,
                        "a process ended abnormally: {}", how(exit.exit_code)
                    );
                }
                if ticks.blocking_send(tick).is_err() {
                    return;
                }
                if looks.are_due(sensor.tree_changes(), Instant::now()) {
                    sensor.follow(&targets());
                }
                // Ticks that could not be held are skipped, not caught up with: one that followed at once would be
                // too short to say anything.
                next += window;
                if next < Instant::now() + window / 2 {
                    next = Instant::now() + window;
                }
            }
        })
        .context("start the sensor thread")?;
    Ok(Live { stop: Some(stop), thread: Some(thread) })
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the sensor thread panicked");
        }
    }
}

/// `task_struct.exit_code` in words.
fn how(exit_code: u32) -> String {
    match (exit_code & 0x7f, exit_code & 0x80 != 0) {
        (0, _) => format!("status {}", exit_code >> 8),
        (signal, core) => format!("signal {signal}{}", if core { ", core dumped" } else { "" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_follow_changes_once_more_than_told_and_rest_otherwise() {
        let start = Instant::now();
        let mut looks = Looks { looked: start, changes: Some(3), again: false };
        let mut at = |ms: u64, changes: Option<u64>| looks.are_due(changes, start + Duration::from_millis(ms));
        assert!(!at(300, Some(3)), "nothing changed");
        assert!(!at(100, Some(4)), "too early");
        assert!(at(400, Some(4)) && at(700, Some(4)), "changed, and once more");
        assert!(!at(1_000, Some(4)) && !at(10_000, Some(4)));
        assert!(at(10_700, Some(4)), "anyway");
        assert!(at(11_000, None) && at(11_300, None), "not known is changed");
    }
}
