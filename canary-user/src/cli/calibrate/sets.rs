//! Which stable instances are taken together as if they were the canary.

use std::{collections::BTreeSet, sync::Arc};

/// Sets that are taken of one recording at most: each is a comparison over all of it.
pub const MOST_SETS: u64 = 64;

/// How many sets of `k` there are among `n`; `u64::MAX` where there are more than that.
pub fn possible(n: u64, k: u64) -> u64 {
    let Some(rest) = n.checked_sub(k) else { return 0 };
    let mut sets: u128 = 1;
    for i in 0..k.min(rest) {
        // Of i + 1 each time: nothing is left over. It only grows up to half of n.
        sets = sets * u128::from(n - i) / u128::from(i + 1);
        if sets > u128::from(u64::MAX) {
            return u64::MAX;
        }
    }
    sets as u64
}

/// Sets of `k` of these names, in their order: all, or [`MOST_SETS`] that lie evenly among all. The same names give the same sets.
pub fn sets(names: &BTreeSet<Arc<str>>, k: usize) -> Vec<BTreeSet<Arc<str>>> {
    let taken = possible(names.len() as u64, k as u64).min(MOST_SETS);
    (0..taken).map(|i| at((i as f64 + 0.5) / taken as f64, names, k)).collect()
}

/// The set at this place, 0 to 1, among all in their order. Of those that go on from what was chosen so far, a share of
/// missing/left has the next name and comes before those without.
fn at(mut place: f64, names: &BTreeSet<Arc<str>>, k: usize) -> BTreeSet<Arc<str>> {
    let mut set = BTreeSet::new();
    for (i, name) in names.iter().enumerate() {
        let (missing, left) = (k - set.len(), names.len() - i);
        let share = missing as f64 / left as f64;
        if missing == left || place < share {
            place /= share;
            set.insert(name.clone());
        } else {
            place = (place - share) / (1.0 - share);
        }
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(n: usize) -> BTreeSet<Arc<str>> {
        (0..n).map(|i| format!("/{i:03}").into()).collect()
    }

    #[test]
    fn sets_are_counted() {
        assert_eq!(
            [possible(3, 1), possible(4, 2), possible(20, 18), possible(3, 3), possible(3, 4)],
            [3, 6, 190, 1, 0]
        );
        assert_eq!(possible(67, 33), 14_226_520_737_620_288_370);
        assert_eq!((possible(68, 34), possible(4_096, 2_048)), (u64::MAX, u64::MAX));
    }

    #[test]
    fn few_sets_are_all_taken_each_once() {
        for (n, k) in (1..=64).flat_map(|n| (1..=n).map(move |k| (n, k))) {
            let there = possible(n as u64, k as u64);
            if there <= MOST_SETS {
                let taken = sets(&names(n), k);
                assert!(taken.iter().all(|set| set.len() == k), "{k} of {n}");
                let distinct: BTreeSet<_> = taken.iter().collect();
                assert_eq!((taken.len(), distinct.len()), (there as usize, there as usize), "{k} of {n}");
            }
        }
        let pairs = sets(&names(4), 2);
        let told: Vec<String> = pairs.iter().map(|set| set.iter().map(|name| &name[3..]).collect()).collect();
        assert_eq!(told, ["01", "02", "03", "12", "13", "23"]);
    }

    #[test]
    fn of_many_sets_as_many_are_taken_as_are_promised_and_evenly() {
        for (n, k) in [(100, 1), (20, 2), (30, 3), (1_000, 500)] {
            let taken = sets(&names(n), k);
            assert!(taken.iter().all(|set| set.len() == k), "{k} of {n}");
            let distinct: BTreeSet<_> = taken.iter().collect();
            assert_eq!((taken.len(), distinct.len()), (64, 64), "{k} of {n}");
            assert_eq!(taken, sets(&names(n), k), "the same again");
        }
        let taken = sets(&names(16), 2);
        let with = |name: &str| taken.iter().filter(|set| set.contains(name)).count();
        // Each is in eight, were it by chance.
        assert!(names(16).iter().all(|name| (2..=14).contains(&with(name))), "{taken:?}");
    }
}
