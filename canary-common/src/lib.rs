//! The layout that the kernel programs and the daemon share.
//!
//! Goes in: nothing. Comes out: plain `repr(C)` types, the same bytes on both sides, and the histogram arithmetic.
//! Refuses: padding, bools and anything whose size could differ between the two compilers.
//!
//! Every counter only ever grows while its slot belongs to one target (but for `egress_under_way`, which is none); the daemon
//! reads it once per tick and takes differences. The unit of each counter stands in its name.
#![no_std]
#![deny(unsafe_code)]

mod counters;
pub mod histogram;
mod moved;

pub use counters::Counters;
pub use moved::Move;

/// How many targets one daemon can track. A slot is an index into the arrays of counters and histograms.
pub const MAX_SLOTS: usize = 4096;

/// Entries of the table from cgroup to slot. Targets only, of which there are at most [`MAX_SLOTS`]: descendants are found
/// through their ancestors.
pub const MAX_CGROUPS: usize = 2 * MAX_SLOTS;

/// Entries of each CPU's cgroup cache; a power of two.
pub const CGROUP_CACHE: usize = 1024;

/// Ancestor levels at which the kernel programs look for a target above an unknown cgroup.
pub const MAX_LEVELS: usize = 8;

/// Entries of the table of the OOM killer's victims; a power of two.
pub const MAX_VICTIMS: usize = 4096;

/// Slot value that means "this cgroup belongs to no target".
pub const UNTRACKED: u32 = u32::MAX;

/// A cgroup's path from the root of the tree, filled up with zeros; a longer one is told by nothing in the kernel programs.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupPath {
    pub bytes: [u8; CgroupPath::MAX],
}

impl CgroupPath {
    pub const MAX: usize = 256;

    /// `None` where it is too long.
    pub fn new(path: &str) -> Option<Self> {
        let mut bytes = [0; Self::MAX];
        // One zero has to be left, by which the kernel ends its strings.
        bytes[..Self::MAX - 1].get_mut(..path.len())?.copy_from_slice(path.as_bytes());
        Some(Self { bytes })
    }
}

/// A cgroup that was made under the path of a target whose own was removed: it counts in the same slot from its first moment on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remade {
    pub cgroup_id: u64,
    pub slot: u32,
    pub reserved: u32,
}

/// A target's main process: the one that everything else in it came from.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Main {
    /// Its thread group id; 0 where it is not known, or ended.
    pub tgid: u32,
    /// [`Main::ENDED`] from when it ended until another one took its place.
    pub ended: u32,
}

impl Main {
    pub const ENDED: u32 = 1;
    /// Its cgroup was made again: the daemon finds out which it is, for programs that only prepare the service come first.
    pub const LOOKED_FOR: u32 = 2;
}

/// A process that the OOM killer chose and that may not have exited yet: the last one with these low bits of its number.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Victim {
    pub marked_ns: u64,
    /// 0 where there is none.
    pub tgid: u32,
    pub reserved: u32,
}

impl Victim {
    /// So long after it was chosen, a process is not taken for a victim any more. Some never exit under the number that they were
    /// chosen by (where the first thread has ended before), and the kernel gives the number to another process then.
    pub const FOR_NS: u64 = 60_000_000_000;
    /// How all of them end.
    const SIGKILL: u32 = 9;

    /// Whether it may yet exit.
    #[inline(always)]
    pub fn is_awaited(&self, now_ns: u64) -> bool {
        self.tgid != 0 && now_ns.saturating_sub(self.marked_ns) < Self::FOR_NS
    }

    /// Whether a process that ends by this signal is the one that was chosen.
    #[inline(always)]
    pub fn has_ended(&self, tgid: u32, signal: u32, now_ns: u64) -> bool {
        self.tgid == tgid && signal == Self::SIGKILL && self.is_awaited(now_ns)
    }
}

/// Parts of a histogram that CPUs count into, by the low bits of their number; a power of two. One for each CPU would take
/// gigabytes on a large machine.
pub const BANKS: usize = 4;

/// Histogram of one signal of one target. A word holds the counts of two buckets, the even one in its low half: there is no
/// atomic addition of 32 bits that every kernel takes. As what goes over from the low half ends up in the high one, the
/// difference of two words is right as long as either count grew by less than 2^32.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Buckets {
    pub words: [[u64; HISTOGRAM_WORDS]; BANKS],
}

/// Words of one bank of a histogram.
pub const HISTOGRAM_WORDS: usize = histogram::BUCKETS.div_ceil(2);

/// Histograms of each slot: waits for a CPU, stalls on memory, turnarounds, turnarounds of dependencies.
pub const HISTOGRAMS: usize = 4;

/// What the last look-up of a cgroup said, tracked or not; one element of each CPU's cache.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cached {
    pub cgroup_id: u64,
    pub generation: u32,
    pub slot: u32,
}

/// Whose a socket is, as a look-up said. In the socket's state it is one word: packets of both directions look it up, read it and write
/// it, on two CPUs at once, and who reads it gets what one look-up said, as of the generation of that look-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    pub slot: u32,
    /// Of [`Settings`], where the first one is 1: a state of zeros was never looked up.
    pub generation: u32,
}

impl Owner {
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self { slot: word as u32, generation: (word >> 32) as u32 }
    }

    #[inline(always)]
    pub const fn word(self) -> u64 {
        (self.generation as u64) << 32 | self.slot as u64
    }
}

/// Memory that the maps take from their making on, on a machine that can have so many CPUs. Of those that grow neither with the
/// slots nor with the CPUs it has none: together they take some 3 MiB.
pub const fn map_bytes(cpus: usize) -> usize {
    // Besides the counters of each CPU there is one for what two of them count at once.
    let of_a_slot = HISTOGRAMS * size_of::<Buckets>() + size_of::<Counters>();
    let of_a_cpu = MAX_SLOTS * size_of::<Counters>() + CGROUP_CACHE * size_of::<Cached>();
    MAX_SLOTS * of_a_slot + cpus * of_a_cpu
}

/// What one CPU could not count. Anything above zero lowers the data quality of the tick it appears in.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Switches on a CPU with a number for which there was no room when the programs were loaded.
    pub unknown_cpu: u64,
    /// Abnormal exits that did not fit into the ring buffer: they are counted, and their codes are told to nobody.
    pub facts: u64,
    /// Packets of a tracked cgroup whose socket state could not be had.
    pub socket_state: u64,
    /// Cgroups made in the place of a target that could not be put into its slot: what ran in them until the daemon looked is in
    /// no count.
    pub remade: u64,
    /// Victims of the OOM killer that could not be noted: they count as what their end looks like.
    pub victims: u64,
}

impl Lost {
    pub fn sum(&self) -> u64 {
        self.unknown_cpu + self.facts + self.socket_state + self.remade + self.victims
    }
}

/// What the daemon tells the kernel programs about the tracked cgroups.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Levels of the cgroup tree (root is 0) at which targets live, the deepest first.
    pub levels: [u32; MAX_LEVELS],
    /// How many of `levels` are in use.
    pub level_count: u32,
    /// Changes with every change of the target set, so that cached look-ups of before are not believed.
    pub generation: u32,
}

/// A rare fact, sent through the ring buffer: an abnormal end of a process in a tracked cgroup.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    pub at_ns: u64,
    pub cgroup_id: u64,
    pub slot: u32,
    pub pid: u32,
    /// `task_struct.exit_code`: the low seven bits are the signal, bit 7 a core dump, the next byte the status.
    pub exit_code: u32,
    /// 1 where the OOM killer chose the process.
    pub oom: u32,
}

#[cfg(feature = "user")]
#[allow(unsafe_code, reason = "what is read out of maps as bytes has to be promised to be plain data")]
mod pod {
    // SAFETY: `repr(C)`, only unsigned integers, no padding: every bit pattern is a value.
    unsafe impl aya::Pod for super::Buckets {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Lost {}
    // SAFETY: bytes.
    unsafe impl aya::Pod for super::CgroupPath {}
    // SAFETY: two u32, no padding.
    unsafe impl aya::Pod for super::Main {}
    // SAFETY: ten u32, no padding.
    unsafe impl aya::Pod for super::Settings {}
    // SAFETY: two u64 and four u32, no padding.
    unsafe impl aya::Pod for super::Exit {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_a_socket_is_and_as_of_when_is_one_word() {
        for (slot, generation) in [(0, 1), (4095, 1), (UNTRACKED, 7), (7, u32::MAX)] {
            let owner = Owner { slot, generation };
            assert_eq!(Owner::from_word(owner.word()), owner);
        }
        assert_eq!(Owner::from_word(0).generation, 0, "nobody has looked it up");
    }

    /// A number that was given to another process, or a victim that was ending by itself, is no OOM kill.
    #[test]
    fn a_victim_is_who_is_killed_soon_after_it_was_chosen() {
        const SECOND_NS: u64 = 1_000_000_000;
        let victim = Victim { marked_ns: 100 * SECOND_NS, tgid: 7, reserved: 0 };
        assert!(victim.has_ended(7, 9, 100 * SECOND_NS) && victim.has_ended(7, 9, 159 * SECOND_NS));
        assert!(!victim.has_ended(7, 9, 160 * SECOND_NS), "another one by now");
        assert!(
            !victim.has_ended(8, 9, 101 * SECOND_NS) && !victim.has_ended(7 + MAX_VICTIMS as u32, 9, 101 * SECOND_NS)
        );
        for signal in [0, 6, 11, 15] {
            assert!(!victim.has_ended(7, signal, 101 * SECOND_NS), "the OOM killer sends SIGKILL");
        }
        assert!(victim.is_awaited(101 * SECOND_NS) && !victim.is_awaited(160 * SECOND_NS));
        assert!(!Victim::default().is_awaited(0), "nobody was chosen");
    }
}
