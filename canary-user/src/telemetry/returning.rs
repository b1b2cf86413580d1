//! Targets whose cgroup was removed and may be made again: a service manager does that each time it restarts a service.

use std::collections::BTreeSet;

use canary_common::Remade;

use super::tracked::Tracked;
use crate::targets::Target;

/// One that was removed is waited for that long.
const RETURNS_WITHIN_NS: u64 = 600_000_000_000;
/// So many are waited for at most: each keeps a slot.
const MOST: usize = 512;

/// Those that are waited for, the oldest first, and what the kernel programs told of cgroups made again.
#[derive(Default)]
pub struct Returning {
    waiting: Vec<Waiting>,
    heard: Vec<Remade>,
}

struct Waiting {
    target: Target,
    tracked: Tracked,
    since_ns: u64,
}

impl Waiting {
    fn into_parts(self) -> (Target, Tracked) {
        (self.target, self.tracked)
    }
}

impl Returning {
    pub fn wait_for(&mut self, target: Target, tracked: Tracked, now_ns: u64) {
        self.waiting.push(Waiting { target, tracked, since_ns: now_ns });
    }

    /// What a new target was before, if it is one that is waited for.
    pub fn take(&mut self, target: &Target) -> Option<Tracked> {
        let at = self.waiting.iter().position(|w| w.target.is_in_place_of(target))?;
        Some(self.waiting.remove(at).tracked)
    }

    pub fn waits_for(&self, target: &Target) -> bool {
        self.waiting.iter().any(|w| w.target.is_in_place_of(target))
    }

    pub fn oldest(&mut self) -> Option<(Target, Tracked)> {
        if self.waiting.is_empty() { None } else { Some(self.waiting.remove(0).into_parts()) }
    }

    /// One that is not waited for any longer.
    pub fn overdue(&mut self, now_ns: u64) -> Option<(Target, Tracked)> {
        let late = self.waiting.first().is_some_and(|w| now_ns.saturating_sub(w.since_ns) >= RETURNS_WITHIN_NS);
        if late || self.waiting.len() > MOST { self.oldest() } else { None }
    }

    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.waiting.iter().map(|w| &w.target)
    }

    pub fn slots(&self) -> impl Iterator<Item = (u32, &Target)> {
        self.waiting.iter().map(|w| (w.tracked.slot, &w.target))
    }

    pub fn waiting_mut(&mut self) -> impl Iterator<Item = (&Target, &mut Tracked)> {
        self.waiting.iter_mut().map(|w| (&w.target, &mut w.tracked))
    }

    pub fn hear(&mut self, remade: impl IntoIterator<Item = Remade>) {
        self.heard.extend(remade);
    }

    pub fn has_heard(&self) -> bool {
        !self.heard.is_empty()
    }

    /// The slots in which a cgroup was made again that was not looked at yet.
    pub fn taken_over(&self) -> BTreeSet<u32> {
        self.heard.iter().map(|remade| remade.slot).collect()
    }

    pub fn heard_of(&self, cgroup_id: u64) -> bool {
        self.heard.iter().any(|remade| remade.cgroup_id == cgroup_id)
    }

    pub fn take_heard(&mut self) -> Vec<Remade> {
        std::mem::take(&mut self.heard)
    }
}
