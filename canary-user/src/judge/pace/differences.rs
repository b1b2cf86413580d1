//! Log readings of one indicator become paired differences: what all instances share cancels.

/// Stable instances that the canary is compared with, at most, each of which is also taken in turn as if it were the canary: of
/// these it is known where they are.
pub const PLACEBOS: usize = 8;
/// Series that noise is learned from: the placebos and the canary's own past.
pub const SERIES: usize = PLACEBOS + 1;
/// Index of the canary's own past among the series.
pub const OWN: usize = PLACEBOS;

/// One indicator in one window, as differences of natural logarithms. NaN where a side is missing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Differences {
    /// Mean of the canary minus mean of stable.
    pub canary: f64,
    /// By series: stable instance j minus the mean of the other stable instances; last, the canary's own past
    /// minus stable (only where who feeds it knows the canary to be the old version, which the guard does not).
    pub series: [f64; SERIES],
    /// What they are differences of: the mean of the canary, and each placebo.
    pub canary_level: f64,
    pub levels: [f64; PLACEBOS],
    /// The placebos that have a level, a bit for each.
    pub present: u8,
}

/// The placebos have a bit each.
const _: () = assert!(PLACEBOS <= u8::BITS as usize);

impl Differences {
    pub const MISSING: Differences = Differences {
        canary: f64::NAN,
        series: [f64::NAN; SERIES],
        canary_level: f64::NAN,
        levels: [f64::NAN; PLACEBOS],
        present: 0,
    };

    /// Whether there are others beside those of `known`, a bit for each.
    #[inline]
    pub fn has_others_than(&self, known: u8) -> bool {
        self.present & known != 0 && self.present & !known != 0
    }

    /// The same to those of `known` alone, for who is not among them, too; as it is where none of them is there.
    pub fn among(&self, known: u8) -> Differences {
        if !self.has_others_than(known) {
            return *self;
        }
        let is_known = |place: usize| self.present & known & (1 << place) != 0;
        let (sum, count) = (0..PLACEBOS)
            .filter(|place| is_known(*place))
            .fold((0.0, 0u32), |(sum, count), place| (sum + self.levels[place], count + 1));
        let mean = sum / f64::from(count);
        let mut d = Differences { canary: self.canary_level - mean, ..*self };
        for (place, (series, x)) in d.series.iter_mut().zip(self.levels).enumerate() {
            *series = if !is_known(place) {
                x - mean
            } else if count > 1 {
                x - (sum - x) / f64::from(count - 1)
            } else {
                // The only one is compared with nobody.
                f64::NAN
            };
        }
        d
    }
}

/// The stable side of one indicator in one window, as logarithms.
#[derive(Clone, Copy, Debug)]
pub struct StableSide {
    slots: [f64; PLACEBOS],
    present: u8,
    sum: f64,
    count: u32,
}

impl Default for StableSide {
    fn default() -> Self {
        Self { slots: [f64::NAN; PLACEBOS], present: 0, sum: 0.0, count: 0 }
    }
}

impl StableSide {
    /// Adds the reading of the instance that has place `slot` among the placebos.
    pub fn add(&mut self, slot: usize, ln: f64) {
        if ln.is_nan() {
            return;
        }
        self.sum += ln;
        self.count += 1;
        self.slots[slot] = ln;
        self.present |= 1 << slot;
    }

    /// Mean over the instances that reported; NaN if none did.
    pub fn mean(&self) -> f64 {
        self.sum / f64::from(self.count)
    }

    /// Pairs the canary's mean (NaN where missing) and each placebo with the stable instances.
    pub fn pair(&self, canary_mean: f64) -> Differences {
        let mut d = Differences {
            canary_level: canary_mean,
            levels: self.slots,
            present: self.present,
            ..Differences::MISSING
        };
        if self.count >= 2 {
            let others = f64::from(self.count - 1);
            // An empty slot has no difference.
            for (series, x) in d.series.iter_mut().zip(self.slots).filter(|(_, x)| !x.is_nan()) {
                *series = x - (self.sum - x) / others;
            }
        }
        d.canary = canary_mean - self.mean();
        d
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(levels: &[f64]) -> StableSide {
        let mut side = StableSide::default();
        levels.iter().enumerate().for_each(|(place, ln)| side.add(place, *ln));
        side
    }

    #[test]
    fn who_is_not_known_yet_is_compared_and_not_compared_with() {
        let d = side(&[1.0, 3.0, 8.0]).pair(5.0).among(0b011);
        assert_eq!(d.canary, 3.0);
        assert_eq!(d.series[..3], [-2.0, 2.0, 6.0]);
        assert!(d.series[3..].iter().all(|x| x.is_nan()));
        let one = side(&[1.0, 3.0]).pair(5.0).among(0b010);
        assert_eq!((one.canary, one.series[0]), (2.0, -2.0));
        assert!(one.series[1].is_nan(), "it is compared with nobody");
    }

    #[test]
    fn beside_those_that_are_known_or_none_of_them_it_is_as_it_is() {
        let d = side(&[1.0, 3.0, f64::NAN]).pair(5.0);
        assert_eq!((d.present, d.canary), (0b011, 3.0));
        for known in [0, 0b011, 0b111, 0b100] {
            let same = d.among(known);
            assert_eq!((same.canary, same.series[..2].to_vec()), (3.0, vec![-2.0, 2.0]), "{known:b}");
        }
    }
}
