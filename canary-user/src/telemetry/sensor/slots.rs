//! Which target has which slot: given when it comes, kept while it may come back, and free again after that.

use std::collections::BTreeMap;

use anyhow::Context as _;

use super::Sensor;
use crate::{
    targets::{Role, Target},
    telemetry::{
        attachments::Attachments,
        cgroupfs::{CgroupFiles, Reads},
        clocks::monotonic_ns,
        kernel_maps::Seen,
        listen_queue::ListenQueueFile,
        memory_files::MemoryFiles,
        tracked::Tracked,
    },
};

/// How full the tables are. What is kept by slot is in arrays: it is left over where the slot is not free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// Cgroups that are counted in a slot.
    pub cgroups: usize,
    /// Paths at which a cgroup that is made is counted from its first moment on.
    pub places: usize,
    pub free_slots: usize,
}

impl Sensor {
    /// What targets that are gone must not add up in.
    ///
    /// # Errors
    /// Where the kernel does not let its tables be read.
    pub fn occupancy(&self) -> anyhow::Result<Occupancy> {
        let (cgroups, places) = self.maps.entries()?;
        Ok(Occupancy { cgroups, places, free_slots: self.free_slots.len() })
    }

    pub(super) fn track(&mut self, target: &Target) -> anyhow::Result<()> {
        let tracked = match self.returning.take(target) {
            Some(before) => self.take_up(target, before)?,
            None => {
                let slot = self.take_slot()?;
                self.begin(slot, target).inspect_err(|_| {
                    self.free_slots.insert(slot);
                })?
            }
        };
        self.tracked.insert(target.clone(), tracked);
        Ok(())
    }

    /// Keeps a slot for a target that is about to come; whether it is news.
    pub(super) fn expect(&mut self, target: &Target) -> anyhow::Result<bool> {
        if self.returning.waits_for(target) || self.tracked.keys().any(|t| t.is_in_place_of(target)) {
            return Ok(false);
        }
        let slot = self.take_slot()?;
        let kept = self.give(slot, target).and_then(|seen| {
            self.maps.expect(&self.root.whole(&target.cgroup), slot)?;
            Ok(self.open(slot, target, seen))
        });
        let mut tracked = kept.inspect_err(|_| {
            self.free_slots.insert(slot);
        })?;
        (tracked.gone, tracked.above) = (true, None);
        self.returning.wait_for(target.clone(), tracked, monotonic_ns());
        Ok(true)
    }

    fn take_slot(&mut self) -> anyhow::Result<u32> {
        if self.free_slots.is_empty()
            && let Some((target, tracked)) = self.returning.oldest()
        {
            self.free(&target, tracked.slot);
        }
        self.free_slots.pop_first().with_context(|| match self.room.limit {
            None => format!("all {} slots are taken: narrow the patterns in the configuration", self.maps.slots()),
            Some(limit) => format!(
                "there is room for {} only: raise the limit of open files, now {limit} (LimitNOFILE= of the service), \
                 or narrow the patterns in the configuration",
                self.room.targets
            ),
        })
    }

    /// A target that is new, or that nobody expected back.
    fn begin(&mut self, slot: u32, target: &Target) -> anyhow::Result<Tracked> {
        let seen = self.give(slot, target)?;
        self.maps.track(target.incarnation, slot)?;
        if let Err(error) = self.maps.expect(&self.root.whole(&target.cgroup), slot) {
            self.tell_unplaced(target, &error);
        }
        Ok(self.open(slot, target, seen))
    }

    /// The kernel programs do not know where it is: they put no cgroup that is made there into its slot. Tried again at every look,
    /// and told once.
    pub(super) fn tell_unplaced(&mut self, target: &Target, error: &anyhow::Error) {
        if self.unplaced.insert(target.cgroup.clone()) {
            let cgroup = &target.cgroup;
            tracing::warn!("{cgroup}: {error:#}: what runs in it before the guard looks is not counted");
        }
    }

    /// What the slot has now is nobody's any more.
    fn give(&mut self, slot: u32, target: &Target) -> anyhow::Result<Seen> {
        let group = 2 * self.deployment(target) + u32::from(target.role == Role::Canary);
        self.maps.begin(slot, group, self.next_generation())
    }

    /// A target whose cgroup was made again goes on in its slot. What ended until now is told with its first sample; what else
    /// the one before it had is not its own.
    fn take_up(&mut self, target: &Target, mut before: Tracked) -> anyhow::Result<Tracked> {
        let slot = before.slot;
        before.hand_over(&self.maps);
        let taken_up = self.maps.track(target.incarnation, slot).and_then(|()| {
            // The kernel programs have counted it as started again, unless they could not see it.
            if self.returning.heard_of(target.incarnation) { Ok(0) } else { self.maps.forget_main(slot).map(|()| 1) }
        });
        let restarts = taken_up.inspect_err(|_| self.free(target, slot))?;
        let mut tracked = self.open(slot, target, before.seen);
        tracked.carried = before.carried;
        tracked.carried.remade += restarts;
        Ok(tracked)
    }

    fn open(&mut self, slot: u32, target: &Target, seen: Seen) -> Tracked {
        let dir = self.root.dir(&target.cgroup);
        let above = self.ancestors.of(self.root.path(), &target.cgroup);
        let held = slot < self.room.held;
        let mut files = CgroupFiles::open(&dir, held);
        let mut memory_files = MemoryFiles::open(&dir, self.v1_memory.as_deref(), &target.cgroup, held);
        // What differences are taken from; a cgroup that is gone already says so at the first tick.
        let populated = files.read(Reads::ALL).is_ok_and(|reading| reading.populated != Some(false));
        let _ = memory_files.read(true, populated, true);
        let announced = files.events().is_some_and(|events| self.populations.watch(slot, events));
        Tracked {
            slot,
            since_ns: monotonic_ns(),
            dir,
            files,
            announced,
            seen,
            carried: Default::default(),
            memory: None,
            processes_changed: true,
            memory_files,
            above,
            listen_queue: ListenQueueFile::new(held),
            attachments: Attachments::default(),
            main_unknown: true,
            populated: true,
            gone: false,
            untold: false,
        }
    }

    fn deployment(&mut self, target: &Target) -> u32 {
        let known = self.deployments.iter().position(|d| *d == target.deployment).unwrap_or_else(|| {
            self.deployments.push(target.deployment.clone());
            self.deployments.len() - 1
        });
        known as u32
    }

    pub(super) fn forget(&mut self, target: Target) {
        let Some(mut tracked) = self.tracked.remove(&target) else { return };
        if let Err(error) = self.maps.untrack(target.incarnation) {
            tracing::debug!("{}: {error:#}", target.cgroup);
        }
        tracked.attachments.detach(&mut self.ebpf);
        if self.root.id(&target.cgroup) == Some(target.incarnation) {
            // It runs on, and is a target no more.
            self.free(&target, tracked.slot);
        } else {
            tracked.end();
            self.returning.wait_for(target, tracked, monotonic_ns());
        }
    }

    /// Gives up on those that did not come back, and on cgroups that were removed before they were ever seen.
    pub(super) fn let_go(&mut self) {
        while let Some((target, tracked)) = self.returning.overdue(monotonic_ns()) {
            self.free(&target, tracked.slot);
        }
        if !self.returning.has_heard() {
            return;
        }
        let tracked = self.tracked.iter().map(|(t, tracked)| (tracked.slot, (t.cgroup.clone(), Some(t.incarnation))));
        let waiting = self.returning.slots().map(|(slot, t)| (slot, (t.cgroup.clone(), None)));
        let places: BTreeMap<u32, _> = tracked.chain(waiting).collect();
        for remade in self.returning.take_heard() {
            match places.get(&remade.slot) {
                Some((_, Some(incarnation))) if *incarnation == remade.cgroup_id => {}
                // Not found yet: it takes a while until an orchestrator names it.
                Some((cgroup, _)) if self.root.id(cgroup) == Some(remade.cgroup_id) => self.returning.hear([remade]),
                _ => {
                    if let Err(error) = self.maps.untrack(remade.cgroup_id) {
                        tracing::debug!("{error:#}");
                    }
                }
            }
        }
    }

    fn free(&mut self, target: &Target, slot: u32) {
        self.maps.expect_no_more(&self.root.whole(&target.cgroup));
        self.free_slots.insert(slot);
    }
}
