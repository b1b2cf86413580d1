//! Notes of tasks that are moved to another cgroup while they run.

/// When a task was moved, and where to: noted by who moved it, for the CPU that the task runs on.
///
/// That CPU may see the words of a note in any order, and after the number of notes: some processors (arm64) let writes pass each
/// other, and there is nothing against it that each supported kernel takes from a program. So a note proves itself that it is whole.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Move {
    /// The task's own book (`task_struct.se.sum_exec_runtime`) at that moment.
    pub sum_exec_runtime_ns: u64,
    /// Where it is from then on.
    pub cgroup_id: u64,
    pub pid: u32,
    /// Of all of the above, and of the number of the note.
    pub check: u32,
}

impl Move {
    #[inline(always)]
    pub fn new(number: u32, sum_exec_runtime_ns: u64, cgroup_id: u64, pid: u32) -> Self {
        let check = check(number, sum_exec_runtime_ns, cgroup_id, pid);
        Self { sum_exec_runtime_ns, cgroup_id, pid, check }
    }

    /// Whether all of it is of the note of this number. By chance, a part of another one passes once in 2^32 times.
    #[inline(always)]
    pub fn is_whole(&self, number: u32) -> bool {
        self.check == check(number, self.sum_exec_runtime_ns, self.cgroup_id, self.pid)
    }
}

/// A place that nothing was written to yet, all zeros, has another one.
#[inline(always)]
fn check(number: u32, sum_exec_runtime_ns: u64, cgroup_id: u64, pid: u32) -> u32 {
    let hash = mix(u64::from(number) + 1, sum_exec_runtime_ns);
    mix(mix(hash, cgroup_id), u64::from(pid)) as u32
}

/// Every bit of both has a part in the lower half.
#[inline(always)]
fn mix(hash: u64, word: u64) -> u64 {
    // The odd constant of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    let product = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ product >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_of_which_a_part_is_still_another_one_is_not_whole() {
        const NUMBER: u32 = 20;
        let before = Move::new(NUMBER - 16, 1_000_000_000, 4242, 77);
        assert!(before.is_whole(NUMBER - 16) && !before.is_whole(NUMBER), "it has another number");
        // Of another task, of the same one a moment later, and of the same one that is moved back in the same moment.
        for now in [(1_000_300_000, 4343, 78), (1_000_000_001, 4343, 77), (1_000_000_000, 4241, 77)] {
            let now = Move::new(NUMBER, now.0, now.1, now.2);
            for parts in 0..16 {
                let is_there = |part: u32| parts & 1 << part != 0;
                let seen = Move {
                    sum_exec_runtime_ns: if is_there(0) { now.sum_exec_runtime_ns } else { before.sum_exec_runtime_ns },
                    cgroup_id: if is_there(1) { now.cgroup_id } else { before.cgroup_id },
                    pid: if is_there(2) { now.pid } else { before.pid },
                    check: if is_there(3) { now.check } else { before.check },
                };
                assert_eq!(seen.is_whole(NUMBER), seen == now, "{seen:?} of {now:?}");
            }
        }
        for number in [0, 16, u32::MAX] {
            assert!(!Move::default().is_whole(number), "nothing was noted");
        }
    }
}
