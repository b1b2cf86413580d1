//! Which targets are tracked, and what is attached to which of them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use canary_common::{MAX_LEVELS, Settings};

use super::Sensor;
use crate::{targets::Target, telemetry::clocks::monotonic_ns};

/// What was refused is tried again no sooner than this: with thousands of targets that refuse, trying takes some milliseconds.
const ATTACH_AGAIN_NS: u64 = 5_000_000_000;

impl Sensor {
    /// Tracks exactly `targets` from now on. Those that cannot be tracked are counted and told in the log; the others
    /// are not disturbed. For those that are only expected a slot is kept.
    pub fn follow(&mut self, targets: &[Target]) {
        self.hear();
        let wanted: BTreeSet<&Target> = targets.iter().filter(|t| !t.is_expected()).collect();
        let vanished: Vec<Target> = self.tracked.keys().filter(|t| !wanted.contains(t)).cloned().collect();
        if !vanished.is_empty() {
            for target in vanished {
                self.forget(target);
            }
            self.ancestors.tidy();
            self.attach_topmost();
            // Before their slots are given to others: until then a CPU may go by what it knew of them.
            self.publish_or_tell();
        }
        let new: Vec<&Target> = targets.iter().filter(|t| !self.tracked.contains_key(t)).collect();
        let failed = self.take_on(new);
        self.tell_failed(&failed);
        let tracked = &self.tracked;
        let expected = targets.iter().filter(|t| t.is_expected());
        let is_there =
            |cgroup: &Arc<str>| expected.clone().chain(tracked.keys()).any(|target| target.cgroup == *cgroup);
        self.unplaced.retain(is_there);
        self.attach_again();
        self.let_go();
    }

    /// Tracks those of `targets` that are new, too, between two ticks. What comes in the place of a target that is tracked counts in
    /// its slot already, and what is gone is let go when the next tick has told what it did: both are left to [`Sensor::follow`].
    pub fn welcome(&mut self, targets: &[Target]) {
        self.hear();
        let mut new: Vec<&Target> = targets.iter().filter(|t| !self.tracked.contains_key(t)).collect();
        if new.is_empty() {
            return;
        }
        let places: BTreeSet<&str> = self.tracked.keys().map(|t| &*t.cgroup).collect();
        new.retain(|t| !places.contains(&*t.cgroup));
        new.sort_by_key(|t| Reverse(t.role));
        // Those that are waited for keep their slots: what they did last may not be told yet.
        new.truncate(self.free_slots.len());
        for failure in self.take_on(new) {
            tracing::debug!("not counted yet: {failure}");
        }
    }

    /// Gives each of them a slot, and keeps one for those that are only expected; what kept the others from it.
    fn take_on(&mut self, targets: Vec<&Target>) -> Vec<String> {
        let (expected, mut appeared): (Vec<&Target>, Vec<&Target>) = targets.into_iter().partition(|t| t.is_expected());
        // Where slots run out: without the few canaries there is no verdict, without some of stable there is.
        appeared.sort_by_key(|t| Reverse(t.role));
        if !appeared.is_empty() {
            // What runs in them now began before they were targets.
            self.flush();
        }
        let mut changed = false;
        let mut failed = Vec::new();
        for target in appeared {
            match self.track(target) {
                Ok(()) => changed = true,
                // It vanished after it was listed.
                Err(_) if self.root.id(&target.cgroup).is_none() => {}
                Err(error) => failed.push(format!("{}: {error:#}", target.cgroup)),
            }
        }
        for target in expected {
            match self.expect(target) {
                Ok(is_new) => changed |= is_new,
                Err(error) => self.tell_unplaced(target, &error),
            }
        }
        if changed {
            self.attach_topmost();
            self.publish_or_tell();
        }
        failed
    }

    /// Attaches each of the socket programs to the targets that none above has it at: a program runs for the sockets of all
    /// descendants, and one at each level would count them as often.
    fn attach_topmost(&mut self) {
        let now_ns = monotonic_ns();
        let again = now_ns.saturating_sub(self.attached_ns) >= ATTACH_AGAIN_NS;
        if again {
            self.attached_ns = now_ns;
        }
        // Ancestors come before their descendants.
        let mut targets: Vec<(Arc<str>, Target)> = self.tracked.keys().map(|t| (t.cgroup.clone(), t.clone())).collect();
        targets.sort();
        let mut attached: BTreeMap<Arc<str>, Vec<&'static str>> = BTreeMap::new();
        for (path, target) in targets {
            let Some(tracked) = self.tracked.get_mut(&target) else { continue };
            let ancestors = Path::new(&*path).ancestors().skip(1).filter_map(Path::to_str);
            let above: Vec<&'static str> = ancestors.filter_map(|path| attached.get(path)).flatten().copied().collect();
            tracked.attachments.leave_to(&mut self.ebpf, &above);
            if again {
                tracked.attachments.try_again();
            }
            if tracked.attachments.lacks_any(&self.live, &above) {
                let dir = self.root.open(&path);
                // One that has just been removed refuses nothing.
                if dir.is_ok() || self.root.id(&path) == Some(target.incarnation) {
                    tracked.attachments.complete(&mut self.ebpf, &dir, &self.live, &above);
                }
            }
            attached.insert(path, tracked.attachments.names().collect());
        }
        self.missing = self.all_missing();
    }

    /// Tries again what was refused: what was in the way may be gone, as where there was no room for another file.
    fn attach_again(&mut self) {
        let is_time = monotonic_ns().saturating_sub(self.attached_ns) >= ATTACH_AGAIN_NS;
        if is_time && self.tracked.values().any(|tracked| tracked.attachments.is_short()) {
            self.attach_topmost();
        }
    }

    /// Asks one target in turn whether its programs are still attached: anybody may take them off, and what is not counted any
    /// more is missing, not zero.
    pub(super) fn look_after_attachments(&mut self) {
        let turn = self.ticks as usize % self.tracked.len().max(1);
        let Some((target, tracked)) = self.tracked.iter_mut().nth(turn) else { return };
        let detached = tracked.attachments.find_detached();
        // In this order: those of a cgroup that was removed are dead, too.
        if detached.is_empty() || self.root.id(&target.cgroup) != Some(target.incarnation) {
            return;
        }
        let (cgroup, hooks) = (&target.cgroup, detached.join(", "));
        tracing::warn!("{cgroup}: somebody took off {hooks}: what is counted there is missing from now on");
        tracked.attachments.give_up(&mut self.ebpf, &detached);
        // What lies below may have relied on it.
        self.attach_topmost();
    }

    /// All hooks that are not live, and those that are missing on single targets.
    pub(super) fn all_missing(&self) -> Vec<String> {
        let refused = self.live.refused.iter().map(ToString::to_string);
        let per_target = self.tracked.iter().flat_map(|(target, tracked)| {
            tracked.attachments.missing().map(move |why| format!("{why} on {}", target.cgroup))
        });
        refused.chain(per_target).collect()
    }

    fn publish_or_tell(&mut self) {
        if let Err(error) = self.publish() {
            tracing::error!("the kernel programs do not know the new targets: {error:#}");
        }
    }

    /// They are tried again and again, but told only when their number changes.
    fn tell_failed(&mut self, failed: &[String]) {
        let before = std::mem::replace(&mut self.without_slot, failed.len() as u64);
        match failed.first().filter(|_| before != self.without_slot) {
            Some(first) => tracing::warn!("{} instances are not counted; {first}", failed.len()),
            None if before > 0 && failed.is_empty() => tracing::warn!("all instances are counted again"),
            None => {}
        }
    }

    pub(super) fn next_generation(&self) -> u32 {
        self.generation.wrapping_add(1).max(1)
    }

    /// Tells the kernel programs at which levels targets live, and that cached look-ups are stale.
    fn publish(&mut self) -> anyhow::Result<()> {
        let targets = self.tracked.keys().chain(self.returning.targets());
        let mut levels: Vec<u32> = targets.map(|t| self.root.level(&t.cgroup)).collect();
        levels.sort_unstable_by(|a, b| b.cmp(a));
        levels.dedup();
        if levels.len() > MAX_LEVELS {
            tracing::warn!(
                "targets live at {} depths; descendants are followed at the deepest {MAX_LEVELS}",
                levels.len()
            );
            levels.truncate(MAX_LEVELS);
        }
        self.generation = self.next_generation();
        let mut settings =
            Settings { level_count: levels.len() as u32, generation: self.generation, ..Settings::default() };
        settings.levels[..levels.len()].copy_from_slice(&levels);
        self.maps.set(settings)
    }
}
