//! What a service was like in earlier rollouts. Another version begins with new evidence, not with new ignorance: how far equal
//! instances of a service are apart shows in each rollout in a few instances only.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::window::Indicator;

/// Instances' worth of earlier observation that counts at most: machines change, and the same instances may be among several
/// sets.
const MOST_FREEDOM: f64 = 12.0;

/// What was seen of one indicator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// Sum of the squared offsets (as ln) of stable instances from their mean, without what noise makes of them.
    pub offset_squares: f64,
    /// How many instances that rests on, but for one of each set.
    pub freedom: f64,
    /// Variance (of ln) of long block means when nothing happened.
    pub wander: f64,
    /// Variance per window (of ln) of a stable instance's difference to the others, long runs and excursions taken in.
    #[serde(default)]
    pub noise: f64,
}

/// What is known of a service, by indicator. Empty where it was never seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Earlier(pub BTreeMap<Indicator, Known>);

/// What was learned of one set of stable instances.
#[derive(Clone, Debug, PartialEq)]
pub struct Learned {
    /// Their cgroups and incarnations, ascending: seen again, the same set says nothing new.
    pub instances: Vec<(Arc<str>, u64)>,
    pub known: Earlier,
}

impl Earlier {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Several sets together: offsets are pooled, and of wander and noise the median counts, which one bad hour does not move.
    pub fn pooled(sets: &[Earlier]) -> Earlier {
        let mut all: BTreeMap<Indicator, Vec<Known>> = BTreeMap::new();
        for (indicator, known) in sets.iter().flat_map(|set| &set.0) {
            all.entry(*indicator).or_default().push(*known);
        }
        Earlier(all.into_iter().map(|(indicator, known)| (indicator, pooled(known))).collect())
    }

    pub fn of(&self, indicator: Indicator) -> Known {
        self.0.get(&indicator).copied().unwrap_or_default()
    }
}

fn pooled(all: Vec<Known>) -> Known {
    let freedom: f64 = all.iter().map(|k| k.freedom).sum();
    let share = (MOST_FREEDOM / freedom).min(1.0);
    let median = |of: fn(&Known) -> f64| {
        let mut values: Vec<f64> = all.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(0.0)
    };
    Known {
        offset_squares: share * all.iter().map(|k| k.offset_squares).sum::<f64>(),
        freedom: share * freedom,
        wander: median(|k| k.wander),
        noise: median(|k| k.noise),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(offset_squares: f64, freedom: f64, wander: f64) -> Earlier {
        Earlier(BTreeMap::from([(
            Indicator::CpuPerWork,
            Known { offset_squares, freedom, wander, noise: 2.0 * wander },
        )]))
    }

    #[test]
    fn offsets_are_pooled_up_to_a_limit_and_one_bad_hour_is_outvoted() {
        let two = Earlier::pooled(&[set(0.0008, 2.0, 1e-6), set(0.0012, 3.0, 3e-6)]).of(Indicator::CpuPerWork);
        assert_eq!((two.offset_squares, two.freedom), (0.0020, 5.0));
        let many = Earlier::pooled(&[set(0.004, 10.0, 1e-6), set(0.004, 10.0, 9e-3), set(0.004, 10.0, 2e-6)]);
        let many = many.of(Indicator::CpuPerWork);
        assert_eq!((many.freedom, many.wander, many.noise), (MOST_FREEDOM, 2e-6, 4e-6));
        assert!((many.offset_squares / many.freedom - 0.0004).abs() < 1e-12, "the spread itself stays: {many:?}");
        assert_eq!(Earlier::pooled(&[]).of(Indicator::CpuPerWork), Known::default());
    }

    #[test]
    fn it_is_kept_by_the_names_of_indicators() {
        let text = serde_json::to_string(&set(0.5, 2.0, 0.25)).expect("JSON");
        assert_eq!(text, r#"{"cpu_per_work":{"offset_squares":0.5,"freedom":2.0,"wander":0.25,"noise":0.5}}"#);
        assert_eq!(serde_json::from_str::<Earlier>(&text).expect("the same"), set(0.5, 2.0, 0.25));
    }
}
