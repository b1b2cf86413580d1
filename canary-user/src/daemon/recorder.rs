//! Recording beside the line: a disk that does not answer holds up no decision, no pause and no orchestrator's answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;

use crate::{guard::Record, telemetry::Tick};

/// Ticks that may wait for the disk: two minutes of windows of 1 s.
const WAITING: usize = 120;
/// Samples in those, of 3 KB at most each: who watches thousands of instances has no memory for so many ticks.
pub const WAITING_SAMPLES: usize = 30_000;
/// How long the guard's end waits for what is not written yet.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ticks on their way to a thread of their own.
struct Recorder {
    /// `None` = the recording has ended.
    ticks: Option<SyncSender<Tick>>,
    /// Samples in those that are not written yet.
    waiting: Arc<AtomicUsize>,
    /// Hung up once all is written.
    written: Receiver<()>,
}

/// Has each tick written, one after the other, on a thread of its own. A recording that cannot be written, or not as fast as ticks
/// come, ends there, for one with a gap would be judged otherwise; the guard goes on.
pub fn beside(mut write: impl FnMut(&Tick) -> anyhow::Result<()> + Send + 'static) -> anyhow::Result<Record> {
    let (ticks, to_write) = sync_channel::<Tick>(WAITING);
    let (done, written) = sync_channel::<()>(0);
    let waiting = Arc::new(AtomicUsize::new(0));
    let to_do = waiting.clone();
    let all = move || {
        let all_written = to_write.iter().try_for_each(|tick| {
            write(&tick)?;
            to_do.fetch_sub(tick.samples.len(), Ordering::Relaxed);
            Ok::<(), anyhow::Error>(())
        });
        if let Err(error) = all_written {
            tracing::error!("the recording ends here: {error:#}");
            // Nothing waits any more, and nobody is told that it does.
            to_do.store(0, Ordering::Relaxed);
        }
        drop(done);
    };
    thread::Builder::new().name("recording".into()).spawn(all).context("start the thread that records")?;
    let mut recorder = Recorder { ticks: Some(ticks), waiting, written };
    Ok(Box::new(move |tick: &Tick| recorder.take(tick)))
}

impl Recorder {
    fn take(&mut self, tick: &Tick) {
        let Some(ticks) = &self.ticks else { return };
        let samples = tick.samples.len();
        // Before it is sent, for it may be written at once. Nobody else adds.
        if self.waiting.fetch_add(samples, Ordering::Relaxed) + samples > WAITING_SAMPLES {
            tracing::error!("the recording ends here: its disk is {WAITING_SAMPLES} samples behind");
            self.ticks = None;
            return;
        }
        match ticks.try_send(tick.clone()) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                tracing::error!("the recording ends here: its disk is {WAITING} ticks behind");
                self.ticks = None;
            }
            // What went wrong was told where it did.
            Err(TrySendError::Disconnected(_)) => self.ticks = None,
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.ticks = None;
        if self.written.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the end of the recording is still being written; it is left");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::{
        targets::{Role, Target},
        telemetry::Sample,
    };

    /// A tenth of what may wait.
    fn large() -> Tick {
        let target = Target {
            deployment: "shop".into(),
            role: Role::Stable,
            version: "v1".into(),
            cgroup: "/shop".into(),
            incarnation: 1,
            identity: None,
        };
        Tick { samples: vec![Sample::unmeasured(target, 1); WAITING_SAMPLES / 10], ..Tick::default() }
    }

    fn tick(t_ns: u64) -> Tick {
        Tick { t_ns, ..Tick::default() }
    }

    #[test]
    fn a_disk_that_does_not_answer_holds_nobody_up_and_ends_the_recording() {
        let (release, hangs) = sync_channel::<()>(0);
        let (wrote, written) = channel();
        let mut record = beside(move |tick: &Tick| {
            // As long as it is not released.
            let _ = hangs.recv();
            wrote.send(tick.t_ns)?;
            Ok(())
        })
        .expect("a thread");
        // One is being written, so many wait, and more are not taken.
        (0..2 * WAITING as u64 + 2).for_each(|t_ns| record(&tick(t_ns)));
        drop(release);
        record(&tick(u64::MAX));
        drop(record);
        let written: Vec<u64> = written.iter().collect();
        assert!(written.len() == WAITING || written.len() == WAITING + 1, "{}", written.len());
        assert!(written.iter().copied().eq(0..written.len() as u64), "there is no gap: {written:?}");
    }

    #[test]
    fn of_many_instances_fewer_ticks_wait() {
        let (release, hangs) = sync_channel::<()>(0);
        let (wrote, written) = channel();
        let mut record = beside(move |tick: &Tick| {
            // As long as it is not released.
            let _ = hangs.recv();
            wrote.send(tick.t_ns)?;
            Ok(())
        })
        .expect("a thread");
        let large = large();
        (0..20).for_each(|t_ns| record(&Tick { t_ns, ..large.clone() }));
        drop(release);
        drop(record);
        assert_eq!(written.iter().collect::<Vec<u64>>(), (0..10).collect::<Vec<u64>>());
    }

    #[test]
    fn what_is_written_does_not_wait_any_more() {
        let (wrote, written) = channel();
        let mut record = beside(move |tick: &Tick| {
            wrote.send(tick.t_ns)?;
            Ok(())
        })
        .expect("a thread");
        let large = large();
        for t_ns in 0..30 {
            record(&Tick { t_ns, ..large.clone() });
            assert_eq!(written.recv(), Ok(t_ns));
        }
    }

    #[test]
    fn what_was_taken_is_written_at_the_end_and_nothing_after_what_failed() {
        let (wrote, written) = channel();
        let mut record = beside(move |tick: &Tick| {
            anyhow::ensure!(tick.t_ns < 3, "no space left on device");
            wrote.send(tick.t_ns)?;
            Ok(())
        })
        .expect("a thread");
        (0..7).for_each(|t_ns| record(&tick(t_ns)));
        drop(record);
        assert_eq!(written.iter().collect::<Vec<u64>>(), [0, 1, 2]);
    }
}
