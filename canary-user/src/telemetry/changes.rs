//! What tells that files changed, so that they need not be read to know that they did not.

use std::{
    collections::BTreeSet,
    fs::File,
    os::fd::{AsFd, OwnedFd},
};

use rustix::event::epoll;

use super::{cgroupfs::total, kernel_file::read};

/// Most that are taken at a time; the others are there at the next tick.
const EVENTS: usize = 1024;

/// Tells which `cgroup.events` changed: the kernel wakes up who polls such a file, until it is read
/// (Documentation/admin-guide/cgroup-v2.rst).
#[derive(Debug)]
pub struct Populations {
    epoll: Option<OwnedFd>,
}

impl Populations {
    pub fn new() -> Self {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC);
        Self { epoll: epoll.inspect_err(|error| tracing::debug!("epoll: {error}")).ok() }
    }

    /// Watches a file for as long as it is open. False where it has to be read each time.
    pub fn watch(&self, slot: u32, events: impl AsFd) -> bool {
        let Some(epoll) = &self.epoll else { return false };
        epoll::add(epoll, events, epoll::EventData::new_u64(slot.into()), epoll::EventFlags::PRI).is_ok()
    }

    /// The slots whose file changed since it was last read.
    pub fn changed(&self) -> BTreeSet<u32> {
        let Some(epoll) = &self.epoll else { return BTreeSet::new() };
        let mut events = Vec::with_capacity(EVENTS);
        let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        if let Err(error) = epoll::wait(epoll, rustix::buffer::spare_capacity(&mut events), Some(&at_once)) {
            tracing::debug!("epoll: {error}");
        }
        events.iter().map(|event| event.data.u64() as u32).collect()
    }
}

/// Tells whether anybody on the machine was stalled on memory.
#[derive(Debug)]
pub struct Stalls {
    file: Option<File>,
    before: Option<u64>,
}

impl Stalls {
    pub fn open() -> Self {
        Self { file: File::open("/proc/pressure/memory").ok(), before: None }
    }

    /// Whether anybody was since the last call, as far as is known.
    pub fn anybody(&mut self) -> bool {
        let now = self.file.as_ref().and_then(|file| read(file).ok()?).and_then(|text| total(&text, "some"));
        let before = std::mem::replace(&mut self.before, now);
        now.is_none() || now != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_be_told_of_is_read_each_time() {
        let file = tempfile::tempfile().expect("a file");
        let populations = Populations::new();
        assert!(!populations.watch(1, &file), "plain files cannot be polled");
        assert!(populations.changed().is_empty());
        assert!(Stalls { file: None, before: None }.anybody(), "not known is not nobody");
    }
}
