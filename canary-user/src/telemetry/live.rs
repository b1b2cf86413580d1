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

/// How often new and vanished cgroups are looked for, at most; and how often what the kernel programs tell is taken up, for which
/// they have room for that long.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often at least, although the kernel told of no change: what is not a cgroup may have changed, too.
const LOOK_ANYWAY: Duration = Duration::from_secs(10);
/// Looks between two ticks take one part in so many of the time at most: with thousands of cgroups each takes milliseconds.
const LOOK_SHARE: u32 = 200;

/// Whether it is time to look for new and vanished cgroups.
#[derive(Clone, Copy, Debug)]
struct Looks {
    looked: Instant,
    changes: Option<u64>,
    /// A change is told a moment before the cgroup can be seen.
    again: bool,
}

impl Looks {
    fn are_due(&mut self, changes: Option<u64>, now: Instant, pause: Duration) -> bool {
        let since = now.saturating_duration_since(self.looked);
        let changed = changes.is_none() || changes != self.changes;
        if since < pause || !(changed || self.again || since >= LOOK_ANYWAY) {
            return false;
        }
        (self.looked, self.changes, self.again) = (now, changes, changed);
        true
    }
}

/// Both kinds of looks. At the end of a window what is gone is let go, once the tick has told what it did last. In between what is
/// new is welcomed only: it may live for less than a window, and a window may be as long as a minute.
#[derive(Debug)]
struct Schedule {
    at_ticks: Looks,
    between: Looks,
    /// How long the last look took.
    took: Duration,
}

impl Schedule {
    fn new(now: Instant) -> Self {
        let looks = Looks { looked: now, changes: None, again: true };
        Self { at_ticks: looks, between: looks, took: Duration::ZERO }
    }

    fn at_tick(&mut self, changes: Option<u64>, now: Instant) -> bool {
        let are_due = self.at_ticks.are_due(changes, now, LOOK_EVERY);
        if are_due {
            // It sees all that a look in between would.
            self.between = self.at_ticks;
        }
        are_due
    }

    fn between_ticks(&mut self, changes: Option<u64>, now: Instant) -> bool {
        self.between.are_due(changes, now, (self.took * LOOK_SHARE).clamp(LOOK_EVERY, LOOK_ANYWAY))
    }
}

/// A running sensor. Dropping it stops the thread and detaches every program.
pub struct Live {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Starts ticking every `window`, first after one window. `targets` says what to follow and is asked again and again, within a
/// window, too.
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
            let mut woke = Instant::now();
            let mut next = woke + window;
            let mut looks = Schedule::new(woke);
            loop {
                let wake = next.min(woke + LOOK_EVERY);
                match stopped.recv_timeout(wake.saturating_duration_since(Instant::now())) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                }
                woke = Instant::now();
                if woke < next {
                    sensor.hear();
                    if looks.between_ticks(sensor.tree_changes(), woke) {
                        sensor.welcome(&targets());
                        looks.took = woke.elapsed();
                    }
                    continue;
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
                woke = Instant::now();
                if looks.at_tick(sensor.tree_changes(), woke) {
                    sensor.follow(&targets());
                    looks.took = woke.elapsed();
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
    fn looks_between_ticks_leave_what_is_gone_to_the_tick_and_take_little_of_the_time() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut looks = Schedule::new(start);
        assert!(looks.at_tick(Some(3), at(1_000)) && looks.at_tick(Some(3), at(2_000)), "the first, and once more");
        assert!(!looks.between_ticks(Some(3), at(2_250)), "the one at the tick saw it");
        assert!(looks.between_ticks(Some(4), at(2_500)), "somebody came");
        assert!(looks.at_tick(Some(4), at(3_000)), "or went");
        assert!(looks.between_ticks(Some(4), at(3_250)) && !looks.between_ticks(Some(4), at(3_500)), "once more");
        looks.took = Duration::from_millis(5);
        assert!(!looks.between_ticks(Some(5), at(4_000)), "five milliseconds are one part in 200 of a second");
        assert!(looks.between_ticks(Some(5), at(4_250)));
    }

    #[test]
    fn looks_follow_changes_once_more_than_told_and_rest_otherwise() {
        let start = Instant::now();
        let mut looks = Looks { looked: start, changes: Some(3), again: false };
        let mut at =
            |ms: u64, changes: Option<u64>| looks.are_due(changes, start + Duration::from_millis(ms), LOOK_EVERY);
        assert!(!at(300, Some(3)), "nothing changed");
        assert!(!at(100, Some(4)), "too early");
        assert!(at(400, Some(4)) && at(700, Some(4)), "changed, and once more");
        assert!(!at(1_000, Some(4)) && !at(10_000, Some(4)));
        assert!(at(10_700, Some(4)), "anyway");
        assert!(at(11_000, None) && at(11_300, None), "not known is changed");
    }
}
