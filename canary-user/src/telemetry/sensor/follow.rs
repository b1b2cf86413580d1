//! Which targets are tracked, and what is attached to which of them.

use std::{cmp::Reverse, collections::BTreeSet, path::Path, sync::Arc};

use canary_common::{MAX_LEVELS, Settings};

use super::Sensor;
use crate::{targets::Target, telemetry::attachments::Attachments};

impl Sensor {
    /// Tracks exactly `targets` from now on. Those that cannot be tracked are counted and told in the log; the others
    /// are not disturbed. For those that are only expected a slot is kept.
    pub fn follow(&mut self, targets: &[Target]) {
        self.returning.hear(self.maps.remade());
        let (expected, targets): (Vec<&Target>, Vec<&Target>) = targets.iter().partition(|t| t.is_expected());
        let wanted: BTreeSet<&Target> = targets.iter().copied().collect();
        let vanished: Vec<Target> = self.tracked.keys().filter(|t| !wanted.contains(t)).cloned().collect();
        let mut appeared: Vec<&Target> = targets.into_iter().filter(|t| !self.tracked.contains_key(t)).collect();
        // Where slots run out: without the few canaries there is no verdict, without some of stable there is.
        appeared.sort_by_key(|t| Reverse(t.role));
        if !vanished.is_empty() {
            for target in vanished {
                self.forget(target);
            }
            self.ancestors.tidy();
            self.attach_topmost();
            // Before their slots are given to others: until then a CPU may go by what it knew of them.
            self.publish_or_tell();
        }
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
        self.tell_failed(&failed);
        for target in &expected {
            match self.expect(target) {
                Ok(is_new) => changed |= is_new,
                Err(error) => self.tell_unplaced(target, &error),
            }
        }
        let tracked = &self.tracked;
        let is_there =
            |cgroup: &Arc<str>| expected.iter().copied().chain(tracked.keys()).any(|target| target.cgroup == *cgroup);
        self.unplaced.retain(is_there);
        if changed {
            self.attach_topmost();
            self.publish_or_tell();
        }
        self.let_go();
    }

    /// Attaches the socket programs to each target that no other one lies above: a program runs for the sockets of all
    /// descendants, and one at each level would count them as often.
    fn attach_topmost(&mut self) {
        // Ancestors come before their descendants.
        let mut targets: Vec<(Arc<str>, Target)> = self.tracked.keys().map(|t| (t.cgroup.clone(), t.clone())).collect();
        targets.sort();
        let mut whole: BTreeSet<Arc<str>> = BTreeSet::new();
        let mut covered = Vec::new();
        for (path, target) in targets {
            let Some(tracked) = self.tracked.get_mut(&target) else { continue };
            let mut above = Path::new(&*path).ancestors().skip(1).filter_map(Path::to_str);
            if above.any(|path| whole.contains(path)) {
                covered.push(target);
                continue;
            }
            if tracked.attachments.is_empty() {
                match self.root.open(&path) {
                    Ok(dir) => tracked.attachments = Attachments::attach(&mut self.ebpf, &dir, &self.live),
                    Err(error) => {
                        tracing::debug!("{path}: {error:#}");
                        continue;
                    }
                }
            }
            if tracked.attachments.refused.is_empty() {
                whole.insert(path);
            }
        }
        for target in covered {
            if let Some(tracked) = self.tracked.get_mut(&target) {
                std::mem::take(&mut tracked.attachments).detach(&mut self.ebpf);
            }
        }
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
