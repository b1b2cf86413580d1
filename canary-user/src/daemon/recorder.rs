//! Recording beside the line: a disk that does not answer holds up no decision, no pause and no orchestrator's answer.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    thread,
    time::Duration,
};

use anyhow::Context as _;

use crate::{guard::Record, telemetry::Tick};

/// Ticks that may wait for the disk: two minutes of windows of 1 s.
const WAITING: usize = 120;
/// How long the guard's end waits for what is not written yet.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ticks on their way to a thread of their own.
struct Recorder {
    /// `None` = the recording has ended.
    ticks: Option<SyncSender<Tick>>,
    /// Hung up once all is written.
    written: Receiver<()>,
}

/// Has each tick written, one after the other, on a thread of its own. A recording that cannot be written, or not as fast as ticks
/// come, ends there, for one with a gap would be judged otherwise; the guard goes on.
pub fn beside(mut write: impl FnMut(&Tick) -> anyhow::Result<()> + Send + 'static) -> anyhow::Result<Record> {
    let (ticks, to_write) = sync_channel::<Tick>(WAITING);
    let (done, written) = sync_channel::<()>(0);
    let all = move || {
        if let Err(error) = to_write.iter().try_for_each(|tick| write(&tick)) {
            tracing::error!("the recording ends here: {error:#}");
        }
        drop(done);
    };
    thread::Builder::new().name("recording".into()).spawn(all).context("start the thread that records")?;
    let mut recorder = Recorder { ticks: Some(ticks), written };
    Ok(Box::new(move |tick: &Tick| recorder.take(tick)))
}

impl Recorder {
    fn take(&mut self, tick: &Tick) {
        let Some(ticks) = &self.ticks else { return };
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
