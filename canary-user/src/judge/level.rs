//! The stable instances' own level over time: did stable change too?

use std::collections::VecDeque;

use super::pace::EFFECT_WINDOWS;

/// Windows that are kept to look back to before an onset; windows before it that are usual, and the least of them.
const KEPT_WINDOWS: usize = 240;
const BEFORE_WINDOWS: usize = 30;
const NEEDED_BEFORE: usize = 10;
/// Smallest standard deviation of ln that is believed, so that a perfectly flat series does not make small steps huge.
const DEVIATION_FLOOR: f64 = 0.003;

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

    /// Mean of the last [`EFFECT_WINDOWS`].
    pub fn recent_mean(&self) -> f64 {
        self.kept.iter().rev().take(EFFECT_WINDOWS).map(|(_, ln)| ln).sum::<f64>() / EFFECT_WINDOWS as f64
    }
}
