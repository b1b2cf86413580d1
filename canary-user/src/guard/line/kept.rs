//! What this life of the guard hands down to the next, besides what is in the journal anyway: how far stable has been held against
//! what it was before a promotion, and since when the canary is seen.

use super::*;
use crate::{guard::FirstSeen, journal::OnRecord, judge::Resumed};

/// Windows after a start within which stable has to be known again: who runs where may not be known at once.
const KNOWN_AGAIN_WINDOWS: u64 = 60;
/// Windows that differ by less than this factor have the same length: one that was held up is longer.
const SAME_LENGTH: f64 = 1.5;
/// Least time between two writes of since when the canary is seen.
const SEEN_APART: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Kept {
    /// What an earlier life left of a comparison, until it is taken up.
    left: Option<OnRecord>,
    /// The comparison that is on record: since which window, and whether stable was found worse.
    control: Option<(Option<u64>, bool)>,
    /// Since when the canary is seen, as it is on record, and when this life wrote that.
    seen: Vec<FirstSeen>,
    seen_written: Option<Moment>,
}

impl Line {
    /// Looks for a comparison that an earlier life left.
    pub fn remember_control(&mut self, ledger: &mut Ledger) {
        match ledger.control_left(self.name()) {
            Ok(left) => self.kept.left = left,
            Err(why) => self.refuse_control(&format!("{why:#}"), ledger),
        }
    }

    pub(super) fn remember_seen(&mut self, seen: Vec<FirstSeen>) {
        self.memory.remember(&seen);
        self.kept.seen = seen;
    }

    /// Goes on with the comparison of an earlier life, once one of the instances that were compared is seen again.
    pub(super) fn take_up_control(&mut self, tick: &Tick, index: u64, ledger: &mut Ledger) {
        let Some(left) = &self.kept.left else { return };
        let obstacle = obstacle(left, &facts::targets(tick, self.name(), Role::Stable), tick.span_ns);
        if obstacle.is_some() && index < KNOWN_AGAIN_WINDOWS {
            return;
        }
        let Some(left) = self.kept.left.take() else { return };
        let resumed = match obstacle {
            Some(why) => Resumed::Refused(why),
            None => {
                // The window of this tick is compared.
                let windows = tick.t_ns.saturating_sub(left.t_ns) as f64 / tick.span_ns.max(1) as f64;
                self.watched.judge.resume(left.control, (windows.round() as u64).saturating_sub(1))
            }
        };
        match resumed {
            Resumed::GoesOn => tracing::info!("{}: stable is held against what it was before, as before", self.name()),
            Resumed::Over => {
                tracing::info!("{}: the time is over in which stable is held against what it was", self.name());
                let _ = ledger.end_control(self.name());
            }
            Resumed::Refused(why) => self.refuse_control(&why, ledger),
        }
    }

    /// It is used neither now nor later.
    fn refuse_control(&mut self, why: &str, ledger: &mut Ledger) {
        tracing::warn!("{}: stable is not held against what it was before any more: {why}", self.name());
        // The ledger has told the failure; what stays is looked at again after the next start.
        let _ = ledger.end_control(self.name());
    }

    /// Keeps how far a comparison has come: as it begins, when stable is found worse, and where it is due; forgets one that has
    /// ended.
    pub(super) fn keep_control(&mut self, is_due: bool, ledger: &mut Ledger) {
        let Some((window, verdict)) = &self.current else { return };
        let under_way = verdict.promotion.as_ref().filter(|p| p.windows < p.of_windows).map(|p| (p.since, p.worse));
        if under_way.is_none() {
            if self.kept.control.take().is_some() {
                let _ = ledger.end_control(self.name());
            }
            return;
        }
        if under_way == self.kept.control && !is_due {
            return;
        }
        if let Some(control) = self.watched.judge.control() {
            // The ledger has told the failure, which blocks every action.
            let _ = ledger.control(self.name(), &control, self.now, window.span_ns);
            (self.kept.control, self.kept.left) = (under_way, None);
        }
    }

    /// Keeps since when the canary is seen, where its age matters.
    pub(super) fn keep_seen(&mut self, apart: Duration, ledger: &mut Ledger) {
        let is_due = self.kept.seen_written.is_none_or(|written| self.now.t_ns >= written.after(apart).t_ns);
        if self.watched.config.max_age.is_none() || !is_due {
            return;
        }
        let seen = self.memory.seen();
        // One that is gone may be back in a moment as it was.
        if !seen.is_empty() && seen != self.kept.seen {
            let _ = ledger.seen(self.name(), &seen);
            (self.kept.seen, self.kept.seen_written) = (seen, Some(self.now));
        }
    }

    /// What is kept from time to time is kept once more, since the guard ends.
    pub fn hand_down(&mut self, ledger: &mut Ledger) {
        self.keep_control(true, ledger);
        self.keep_seen(Duration::ZERO, ledger);
    }

    /// After each window.
    pub(super) fn keep_for_later(&mut self, is_due: bool, ledger: &mut Ledger) {
        self.keep_control(is_due, ledger);
        self.keep_seen(SEEN_APART, ledger);
    }
}

/// Why a comparison of an earlier life cannot go on with these instances and windows.
fn obstacle(left: &OnRecord, stable: &[Target], span_ns: u64) -> Option<String> {
    let is_there = |(cgroup, incarnation): &(Arc<str>, u64)| {
        stable.iter().any(|target| (&target.cgroup, target.incarnation) == (cgroup, *incarnation))
    };
    if !left.control.instances.iter().any(is_there) {
        return Some("none of the instances that were compared is there any more".to_owned());
    }
    let factor = span_ns as f64 / left.span_ns.max(1) as f64;
    let is_same = factor < SAME_LENGTH && factor > 1.0 / SAME_LENGTH;
    (!is_same).then(|| {
        let seconds = |ns: u64| ns as f64 / 1e9;
        format!("its windows took {:.1} s and now take {:.1} s", seconds(left.span_ns), seconds(span_ns))
    })
}
