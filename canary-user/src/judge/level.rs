//! The stable instances' own level over time: did stable change too?

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use super::pace::EFFECT_WINDOWS;

/// Windows that are kept to look back to before an onset; windows before it that are usual, and the least of them.
const KEPT_WINDOWS: usize = 240;
const BEFORE_WINDOWS: usize = 30;
const NEEDED_BEFORE: usize = 10;
/// Smallest standard deviation of ln that is believed, so that a perfectly flat series does not make small steps huge.
const DEVIATION_FLOOR: f64 = 0.003;
/// Where one in so many instances is another, the mean is still that of the same service.
const MOSTLY_THE_SAME: usize = 20;

/// Instances that a level is the mean of: cgroup and incarnation.
pub type Members = BTreeSet<(Arc<str>, u64)>;

/// Whether so many of them are others that the mean of the ones says nothing about that of the others: what looks like a change of
/// the service is a dearer host that came, or a cheaper one that went.
pub fn are_others(before: &Members, now: &Members) -> bool {
    let others = before.symmetric_difference(now).count();
    others * MOSTLY_THE_SAME > before.len().max(now.len())
}

/// Level of one indicator on stable in the latest windows.
#[derive(Clone, Debug, Default)]
pub struct Level {
    kept: VecDeque<(u64, f64)>,
}

/// What was usual right before something began: mean and standard deviation of ln.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Before {
    pub mean: f64,
    pub deviation: f64,
}

impl Level {
    /// Takes one mean of ln values; NaN is left out.
    pub fn observe(&mut self, index: u64, ln: f64) {
        if ln.is_nan() {
            return;
        }
        if self.kept.len() == KEPT_WINDOWS {
            self.kept.pop_front();
        }
        self.kept.push_back((index, ln));
    }

    /// For other instances, of which nothing is known.
    pub fn forget(&mut self) {
        self.kept.clear();
    }

    /// What was usual right before window `onset`; `None` where that is too long ago, or too little was there.
    pub fn before(&self, onset: u64) -> Option<Before> {
        let earlier = self.kept.iter().rev().filter(|(index, _)| *index < onset).take(BEFORE_WINDOWS);
        let (mut n, mut sum, mut squares) = (0.0, 0.0, 0.0);
        for (_, ln) in earlier {
            n += 1.0;
            sum += ln;
            squares += ln * ln;
        }
        let mean = sum / n;
        let deviation = (squares / n - mean * mean).max(0.0).sqrt().max(DEVIATION_FLOOR);
        (n >= NEEDED_BEFORE as f64).then_some(Before { mean, deviation })
    }

    /// Mean of the last [`EFFECT_WINDOWS`], or of as many as there are; NaN where there is none.
    pub fn recent_mean(&self) -> f64 {
        let recent = self.kept.iter().rev().take(EFFECT_WINDOWS);
        let n = recent.len() as f64;
        recent.map(|(_, ln)| ln).sum::<f64>() / n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recent_mean_is_of_what_there_is() {
        let mut level = Level::default();
        assert!(level.recent_mean().is_nan());
        level.observe(1, 2.0);
        level.observe(2, f64::NAN);
        level.observe(3, 4.0);
        assert_eq!(level.recent_mean(), 3.0);
        (4..100).for_each(|index| level.observe(index, 5.0));
        assert_eq!(level.recent_mean(), 5.0);
    }

    fn members(from: u64, to: u64) -> Members {
        (from..to).map(|j| (Arc::from(format!("/stable-{j}")), 1)).collect()
    }

    #[test]
    fn one_of_few_makes_another_mean_and_one_of_many_does_not() {
        assert!(!are_others(&members(0, 3), &members(0, 3)));
        assert!(are_others(&members(0, 3), &members(0, 4)), "one came");
        assert!(are_others(&members(0, 3), &members(1, 3)), "one went");
        assert!(!are_others(&members(0, 100), &members(0, 105)));
        assert!(are_others(&members(0, 100), &members(3, 103)), "three went and three others came");
    }

    #[test]
    fn what_was_before_is_not_known_of_others() {
        let mut level = Level::default();
        (0..50).for_each(|index| level.observe(index, 1.0));
        assert!(level.before(40).is_some());
        level.forget();
        (50..60).for_each(|index| level.observe(index, 2.0));
        assert_eq!(level.before(55), None);
    }
}
