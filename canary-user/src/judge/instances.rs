//! Which instances take part in a window: new and restarted ones sit out their warm-up, those that left are forgotten.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{pace::PLACEBOS, parameters::Parameters};
use crate::window::{Event, Reading, Window};

/// How an instance of stable takes part in this window, and its place among the placebos.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Active(usize),
    /// Second half of the warm-up: a first idea of its offset may be had.
    Settling(usize),
    /// It warms up, or has no place: beside those without one the canary would be compared with others than offsets are known of.
    SitsOut,
}

/// One known instance.
#[derive(Clone, Debug)]
struct Instance {
    incarnation: u64,
    /// Counts of windows at which its warm-up ends, it was last there, and last had a reading.
    joins_at: u64,
    last_there: u64,
    last_seen: u64,
    /// Windows since then in which another one of its side had a reading.
    silent: u64,
    /// Place among the placebos. Who of stable has none waits for one.
    slot: Option<usize>,
    /// Count of windows at which it has had its place for long enough to settle. 0 where it had it from the start.
    settled_at: u64,
    last_trouble: Option<u64>,
}

impl Instance {
    fn new(reading: &Reading, joins_at: u64, now: u64, slot: Option<usize>) -> Self {
        Self {
            incarnation: reading.incarnation,
            joins_at,
            last_there: now,
            last_seen: now,
            silent: 0,
            slot,
            settled_at: 0,
            last_trouble: None,
        }
    }

    /// Whether it was there when its warm-up had ended. Who was gone before is missed by nobody.
    fn took_part(&self) -> bool {
        self.joins_at <= self.last_seen
    }

    /// Count of windows from which on the canary is compared with it, where it has a place.
    fn compared_from(&self) -> u64 {
        self.joins_at.max(self.settled_at)
    }

    /// Whether the canary was ever compared with it.
    fn was_compared(&self) -> bool {
        self.slot.is_some() && self.compared_from() <= self.last_seen
    }

    /// Counts its silence, once per window in which its side has readings, and answers whether it is not forgotten yet. Where
    /// there is little work, readings come once in as many windows as are merged, and where there is none there are none.
    fn stays(&mut self, now: u64, p: &Parameters) -> bool {
        self.silent = if self.last_seen == now { 0 } else { self.silent + 1 };
        self.silent <= 2 * p.silent_windows
    }
}

/// What changed among the instances in this window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Places whose instance is gone or another one now.
    pub freed: Vec<usize>,
    /// Whether the set that the canary is compared with changed.
    pub membership: bool,
    /// The same among the canary's instances.
    pub canary_membership: bool,
    /// Whether the set of stable's instances that are through their warm-up changed, those without a place among them.
    pub stable: bool,
    /// The canary was away for long and came back as something else.
    pub another_canary: bool,
}

/// Everything known about who is there. Bounded by the instances that were there within twice `silent_windows`.
#[derive(Clone, Debug, Default)]
pub struct Instances {
    /// Windows observed so far.
    now: u64,
    stable_seen: bool,
    stable: BTreeMap<Arc<str>, Instance>,
    canary: BTreeMap<Arc<str>, Instance>,
    /// Windows in a row in which stable reported and the canary did not.
    canary_absent: u64,
    /// Windows in a row in which no stable instance reported.
    stable_absent: u64,
    /// Windows in a row in which the sensor lost data.
    unclean: u64,
    misses_some: bool,
}

/// Whether an instance reported anything.
pub fn reports(reading: &Reading) -> bool {
    reading.values.iter().any(|v| v.is_finite())
}

impl Instances {
    /// Takes note of who reports in this window. To be called first, once per window. One in which data was lost says nothing of
    /// who is there, but trouble in it is trouble.
    pub fn observe(&mut self, window: &Window, p: &Parameters) -> Changes {
        self.observe_trouble(window);
        if !window.clean {
            self.unclean += 1;
            return Changes::default();
        }
        self.unclean = 0;
        self.now += 1;
        self.stable_absent = if window.stable.iter().any(reports) { 0 } else { self.stable_absent + 1 };
        let mut changes = Changes::default();
        self.observe_stable(window, p, &mut changes);
        self.observe_canary(window, p, &mut changes);
        changes
    }

    fn observe_stable(&mut self, window: &Window, p: &Parameters, changes: &mut Changes) {
        let now = self.now;
        let mut free = self.free_places().into_iter();
        for reading in &window.stable {
            if !reports(reading) {
                // It is there, and may have had nothing to do.
                if let Some(known) = self.stable.get_mut(&reading.instance) {
                    known.last_there = now;
                }
                continue;
            }
            // Who is there from the start has been running: the guard came later.
            let joins_at = if self.stable_seen { now + p.warmup_windows } else { now };
            if let Some(known) = self.stable.get_mut(&reading.instance) {
                let (took_part, was_compared) = (known.took_part(), known.was_compared());
                known.last_there = now;
                let before = std::mem::replace(&mut known.last_seen, now);
                if known.incarnation != reading.incarnation {
                    known.incarnation = reading.incarnation;
                    known.joins_at = joins_at;
                    changes.stable |= took_part;
                    changes.membership |= was_compared;
                    changes.freed.extend(known.slot);
                }
                // Where readings are merged, the window at which it joins may have none.
                let since = before + 1..=now;
                changes.stable |= since.contains(&known.joins_at);
                changes.membership |= known.slot.is_some() && since.contains(&known.compared_from());
            } else {
                let slot = free.next();
                self.stable.insert(reading.instance.clone(), Instance::new(reading, joins_at, now, slot));
                // Without a warm-up it takes part at once.
                let joins = self.stable_seen && joins_at == now;
                changes.stable |= joins;
                changes.membership |= joins && slot.is_some();
            }
        }
        self.stable_seen |= !self.stable.is_empty();
        let side_reports = self.stable_absent == 0;
        self.misses_some = false;
        let misses_some = &mut self.misses_some;
        self.stable.retain(|_, instance| {
            let is_there = now - instance.last_there <= 2 * p.silent_windows;
            let stays = is_there && (!side_reports || instance.stays(now, p));
            if !stays {
                changes.freed.extend(instance.slot);
                changes.stable |= instance.took_part();
                changes.membership |= instance.was_compared();
            } else {
                *misses_some |= side_reports && instance.was_compared() && instance.last_seen < now;
            }
            stays
        });
        self.fill_places(p, changes);
    }

    /// Gives places that are free to instances that report and had to do without, in the order of their names: somebody is
    /// compared with as long as anybody is there. Each settles first, as in the second half of a warm-up.
    fn fill_places(&mut self, p: &Parameters, changes: &mut Changes) {
        let (now, free) = (self.now, self.free_places());
        let waiting = self.stable.values_mut().filter(|i| i.slot.is_none() && i.last_seen == now);
        for (instance, slot) in waiting.zip(free) {
            instance.slot = Some(slot);
            instance.settled_at = now + p.warmup_windows / 2;
            // Without a warm-up it takes part at once.
            changes.membership |= instance.compared_from() == now;
        }
    }

    /// Places that nobody has, ascending.
    fn free_places(&self) -> Vec<usize> {
        let taken: BTreeSet<usize> = self.stable.values().filter_map(|i| i.slot).collect();
        (0..PLACEBOS).filter(|slot| !taken.contains(slot)).collect()
    }

    fn observe_trouble(&mut self, window: &Window) {
        for reading in &window.canary {
            let troubles = [Event::Crashes, Event::OomKills, Event::ErrorExits];
            if troubles.iter().any(|e| reading.events[*e as usize].is_some_and(|n| n > 0))
                && let Some(known) = self.canary.get_mut(&reading.instance)
            {
                known.last_trouble = Some(self.now);
            }
        }
    }

    fn observe_canary(&mut self, window: &Window, p: &Parameters, changes: &mut Changes) {
        let now = self.now;
        let mut present = window.canary.iter().filter(|r| reports(r)).peekable();
        if present.peek().is_none() {
            self.canary_absent += u64::from(window.stable.iter().any(reports));
            return;
        }
        let was_absent = std::mem::take(&mut self.canary_absent);
        if was_absent >= p.silent_windows
            && !self.canary.is_empty()
            && window
                .canary
                .iter()
                .filter(|r| reports(r))
                .all(|r| self.canary.get(&r.instance).is_none_or(|known| known.incarnation != r.incarnation))
        {
            self.canary.clear();
            changes.another_canary = true;
        }
        for reading in present {
            let joins_at = now + p.warmup_windows;
            let known = self.canary.entry(reading.instance.clone());
            let known = known.or_insert_with(|| Instance::new(reading, joins_at, now, None));
            known.last_seen = now;
            if known.incarnation != reading.incarnation {
                known.incarnation = reading.incarnation;
                // What restarts because it crashed does not get another warm-up for it.
                if known.last_trouble.is_none_or(|t| now - t >= p.silent_windows) {
                    known.joins_at = joins_at;
                }
            }
            changes.canary_membership |= known.joins_at == now;
        }
        self.canary.retain(|_, instance| {
            let stays = instance.stays(now, p);
            changes.canary_membership |= !stays && instance.took_part();
            stays
        });
    }

    /// How a stable instance takes part.
    pub fn stable_part(&self, reading: &Reading, p: &Parameters) -> Part {
        let known = self.stable.get(&reading.instance).filter(|_| reports(reading));
        let Some((known, slot)) = known.and_then(|known| Some((known, known.slot?))) else { return Part::SitsOut };
        match known.compared_from().saturating_sub(self.now) {
            0 => Part::Active(slot),
            left if left <= p.warmup_windows / 2 => Part::Settling(slot),
            _ => Part::SitsOut,
        }
    }

    pub fn canary_is_active(&self, reading: &Reading) -> bool {
        reports(reading) && self.canary.get(&reading.instance).is_some_and(|known| known.joins_at <= self.now)
    }

    /// Windows until the first canary instance is through its warm-up; 0 if one is; `None` without a canary.
    pub fn canary_warmup_left(&self) -> Option<u64> {
        self.canary.values().map(|i| i.joins_at.saturating_sub(self.now)).min()
    }

    /// The stable instances that offsets are known of, with their incarnations.
    pub fn placebos(&self) -> Vec<(Arc<str>, u64)> {
        let placed = self.stable.iter().filter(|(_, instance)| instance.slot.is_some());
        placed.map(|(name, instance)| (name.clone(), instance.incarnation)).collect()
    }

    /// Who stable is: those that are through their warm-up, also if they were silent for a few windows. Where nobody is, as when
    /// all were replaced at once, it is who is there.
    pub fn stable(&self) -> BTreeSet<(Arc<str>, u64)> {
        let nobody = !self.stable.values().any(Instance::took_part);
        let those = self.stable.iter().filter(|(_, instance)| nobody || instance.took_part());
        those.map(|(name, instance)| (name.clone(), instance.incarnation)).collect()
    }

    /// Stable instances that are remembered.
    pub fn known_stable(&self) -> usize {
        self.stable.len()
    }

    /// Whether one of those that the canary is compared with has no reading in a window in which others have, so that these are
    /// compared with the mean of others than they usually are.
    pub fn misses_some(&self) -> bool {
        self.misses_some
    }

    /// Windows in a row in which the sensor lost data.
    pub fn unclean(&self) -> u64 {
        self.unclean
    }

    /// Windows in a row in which no stable instance reported. A few are usual: readings are given only once enough
    /// work has come together.
    pub fn stable_absent(&self) -> u64 {
        self.stable_absent
    }

    /// Windows in a row in which stable reported and the canary did not.
    pub fn canary_absent(&self) -> u64 {
        self.canary_absent
    }

    /// Forgets the canary: whatever reports next begins its warm-up.
    pub fn forget_canary(&mut self) {
        self.canary.clear();
        self.canary_absent = 0;
    }
}
