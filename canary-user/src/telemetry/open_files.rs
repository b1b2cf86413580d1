//! Room for the files and attachments of all targets.

use canary_common::MAX_SLOTS;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that a target cannot do without: a link for each of three attached programs, and `cgroup.events`, which is watched.
const LEAST: u64 = 4;
/// What is read in every tick is opened once and stays open, where there is room: up to ten files of the cgroup and its memory,
/// one of its network namespace, and one of a cgroup above it.
const HELD: u64 = 12;
/// For maps, programs, connections, looking at cgroups.
const OTHERS: u64 = 1024;

/// How many targets there is room for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Room {
    /// That can be counted at all.
    pub targets: u32,
    /// Whose files stay open; those of the others are opened for each reading.
    pub held: u32,
    /// The limit of open files, where it is what leaves less room than there are slots.
    pub limit: Option<u64>,
}

impl Room {
    /// Raises this process's limit of open files as far as all slots need and the system lets it, and says what fits.
    pub fn make() -> Self {
        let wanted = OTHERS + (LEAST + HELD) * MAX_SLOTS as u64;
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        if current.is_none_or(|current| current >= wanted) {
            return Self::within(current);
        }
        let set = |limit: u64, maximum| setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum });
        // More than the maximum takes CAP_SYS_RESOURCE.
        let room = maximum.map_or(wanted, |maximum| maximum.max(wanted));
        if let Err(error) = set(wanted, Some(room)).or_else(|_| set(maximum.unwrap_or(wanted), maximum)) {
            tracing::debug!("raise the limit of open files: {error}");
        }
        Self::within(getrlimit(Resource::Nofile).current)
    }

    fn within(limit: Option<u64>) -> Self {
        let slots = MAX_SLOTS as u64;
        let files = limit.map_or(u64::MAX, |limit| limit - OTHERS.min(limit / 2));
        let targets = (files / LEAST).min(slots);
        let held = ((files - LEAST * targets) / HELD).min(targets);
        // Both are at most MAX_SLOTS.
        Self { targets: targets as u32, held: held as u32, limit: limit.filter(|_| targets < slots) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stay_open_where_there_is_room_and_targets_are_counted_as_far_as_it_goes() {
        let all = MAX_SLOTS as u32;
        assert_eq!(Room::within(None), Room { targets: all, held: all, limit: None });
        assert_eq!(Room::within(Some(524_288)), Room { targets: all, held: all, limit: None });
        let some = Room::within(Some(20_000));
        assert_eq!((some.targets, some.limit), (all, None));
        assert!((100..all).contains(&some.held), "{some:?}");
        let few = Room::within(Some(1024));
        assert_eq!(few, Room { targets: 128, held: 0, limit: Some(1024) });
    }

    #[test]
    fn what_fits_is_never_more_than_the_limit() {
        for limit in (0..100_000).step_by(37) {
            let room = Room::within(Some(limit));
            assert!(LEAST * u64::from(room.targets) + HELD * u64::from(room.held) <= limit, "{limit}: {room:?}");
        }
    }
}
