//! Each stable instance's own level over time: did stable change too?
//!
//! Each is held against itself, those with a place among the placebos: who comes or leaves changes no level. Memory is at most 10 KiB
//! for each indicator.

use std::collections::VecDeque;

use super::{
    observe::mean,
    pace::{EFFECT_WINDOWS, PLACEBOS},
};

/// Windows that are kept to look back to before an onset; windows before it that are usual, and the least of them.
const KEPT_WINDOWS: usize = 240;
const BEFORE_WINDOWS: usize = 30;
const NEEDED_BEFORE: usize = 10;
/// Smallest standard deviation of ln that is believed, so that a perfectly flat series does not make small steps huge.
const DEVIATION_FLOOR: f64 = 0.003;

/// Levels of one indicator on stable in the latest windows that had any.
#[derive(Clone, Debug, Default)]
pub struct Level {
    kept: VecDeque<Kept>,
}

/// By place: ln of the reading, NaN where there is none. Single precision tells it to a few millionths.
#[derive(Clone, Copy, Debug)]
struct Kept {
    index: u64,
    places: [f32; PLACEBOS],
}

/// What was usual right before something began.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Before {
    /// By place: mean of ln; NaN where it is not known, or of an instance that is gone.
    means: [f64; PLACEBOS],
    /// Standard deviation of the mean over the places.
    pub deviation: f64,
}

impl Before {
    /// The instance of this place is gone.
    pub fn free(&mut self, place: usize) {
        self.means[place] = f64::NAN;
    }

    /// Whether any instance is left that it is of.
    pub fn is_known(&self) -> bool {
        self.means.iter().any(|mean| !mean.is_nan())
    }
}

impl Level {
    /// Takes one window's ln values in, by place; NaN is left out.
    pub fn observe(&mut self, index: u64, places: &[f64; PLACEBOS]) {
        if places.iter().all(|ln| ln.is_nan()) {
            return;
        }
        if self.kept.len() == KEPT_WINDOWS {
            self.kept.pop_front();
        }
        self.kept.push_back(Kept { index, places: places.map(|ln| ln as f32) });
    }

    /// The instance of this place is gone: what it was like says nothing of the next one.
    pub fn free(&mut self, place: usize) {
        self.kept.iter_mut().for_each(|kept| kept.places[place] = f32::NAN);
        self.kept.retain(|kept| kept.places.iter().any(|ln| !ln.is_nan()));
    }

    /// What was usual right before window `onset`; `None` where that is too long ago, or too little was there.
    pub fn before(&self, onset: u64) -> Option<Before> {
        let earlier = || self.kept.iter().rev().filter(move |kept| kept.index < onset).take(BEFORE_WINDOWS);
        let means = means(earlier(), NEEDED_BEFORE);
        let (mut n, mut sum, mut squares) = (0.0, 0.0, 0.0);
        for kept in earlier() {
            // Of those that are there, each from its own mean: who is missing in a window moves nothing.
            let off = mean(kept.places.iter().zip(&means).map(|(ln, mean)| f64::from(*ln) - mean));
            if !off.is_nan() {
                n += 1.0;
                sum += off;
                squares += off * off;
            }
        }
        let mean = sum / n;
        let deviation = (squares / n - mean * mean).max(0.0).sqrt().max(DEVIATION_FLOOR);
        (n > 0.0).then_some(Before { means, deviation })
    }

    /// By how much those that were there before and are there now rose, on average; NaN where nobody was.
    pub fn rise(&self, before: &Before) -> f64 {
        mean(means(self.recent(), 1).iter().zip(&before.means).map(|(now, before)| now - before))
    }

    /// Mean of the last [`EFFECT_WINDOWS`], or of as many as there are; NaN where there is none.
    pub fn recent_mean(&self) -> f64 {
        mean(means(self.recent(), 1).into_iter())
    }

    fn recent(&self) -> impl Iterator<Item = &Kept> {
        self.kept.iter().rev().take(EFFECT_WINDOWS)
    }
}

/// By place: the mean over these windows; NaN where fewer than `needed` have one.
fn means<'a>(windows: impl Iterator<Item = &'a Kept>, needed: usize) -> [f64; PLACEBOS] {
    let (mut sums, mut counts) = ([0.0; PLACEBOS], [0usize; PLACEBOS]);
    for kept in windows {
        for (place, ln) in kept.places.iter().enumerate().filter(|(_, ln)| !ln.is_nan()) {
            sums[place] += f64::from(*ln);
            counts[place] += 1;
        }
    }
    std::array::from_fn(|place| if counts[place] >= needed { sums[place] / counts[place] as f64 } else { f64::NAN })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first places, as ln; the others are empty.
    fn places<const N: usize>(levels: [f64; N]) -> [f64; PLACEBOS] {
        std::array::from_fn(|place| levels.get(place).copied().unwrap_or(f64::NAN))
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-5
    }

    #[test]
    fn memory_is_bounded() {
        let mut level = Level::default();
        (0..5_000).for_each(|index| level.observe(index, &places([1.0])));
        let bytes = level.kept.capacity() * std::mem::size_of::<Kept>();
        assert!(bytes <= 10 * 1024, "{bytes} bytes");
    }

    #[test]
    fn the_recent_mean_is_of_what_there_is() {
        let mut level = Level::default();
        assert!(level.recent_mean().is_nan());
        level.observe(1, &places([2.0]));
        level.observe(2, &places([f64::NAN]));
        level.observe(3, &places([4.0]));
        assert_eq!(level.recent_mean(), 3.0);
        (4..100).for_each(|index| level.observe(index, &places([5.0])));
        assert_eq!(level.recent_mean(), 5.0);
    }

    /// Two that are 0.2 apart, and a third that has what the cheaper one has.
    #[test]
    fn who_leaves_or_comes_is_no_rise_of_those_that_stay() {
        let mut level = Level::default();
        (0..50).for_each(|index| level.observe(index, &places([1.0, 1.2])));
        let before = level.before(50).expect("they were there");
        // From the first window on in which it is not there, long before anybody knows that it left.
        for index in 50..70 {
            level.observe(index, &places([f64::NAN, 1.2]));
            assert!(close(level.rise(&before), 0.0), "window {index}: {}", level.rise(&before));
        }
        level.free(0);
        (70..90).for_each(|index| level.observe(index, &places([3.0, 1.3, 2.0])));
        let mut known = before;
        known.free(0);
        assert!(close(level.rise(&known), 0.1), "of the one that stayed: {}", level.rise(&known));
    }

    #[test]
    fn what_one_of_them_was_like_is_not_forgotten_with_another() {
        let mut level = Level::default();
        (0..50).for_each(|index| level.observe(index, &places([1.0, 1.2, 1.4])));
        (50..70).for_each(|index| level.observe(index, &places([2.0, 2.2, 2.4])));
        level.free(1);
        let before = level.before(50).expect("two of them are left");
        assert!(close(level.rise(&before), 1.0), "{}", level.rise(&before));
        level.free(0);
        level.free(2);
        assert_eq!(level.before(50), None);
        assert!(level.recent_mean().is_nan());
    }

    #[test]
    fn what_was_before_is_not_known_of_others() {
        let mut level = Level::default();
        (0..50).for_each(|index| level.observe(index, &places([1.0])));
        assert!(level.before(40).is_some());
        level.free(0);
        (50..60).for_each(|index| level.observe(index, &places([2.0])));
        assert_eq!(level.before(55), None);
    }

    #[test]
    fn who_is_missing_now_and_then_makes_nobody_noisy() {
        let mut level = Level::default();
        for index in 0..50u64 {
            let first = if index.is_multiple_of(2) { 1.0 } else { f64::NAN };
            level.observe(index, &places([first, 1.8]));
        }
        let before = level.before(50).expect("both were there");
        assert!(before.deviation < 0.01, "{}", before.deviation);
    }
}
