//! What comparisons of equals came to, and how it is told.

use std::{collections::BTreeSet, sync::Arc};

use serde::Serialize;

use super::sets::MOST_SETS;
use crate::{
    judge::{Parameters, pace::Track, power},
    window::Indicator,
};

/// What is asked of each indicator: found within so many minutes.
const MINUTES: [u64; 3] = [1, 5, 30];

/// What was found about one deployment.
#[derive(Debug, Default, Serialize)]
pub struct Found {
    /// Comparisons of equals: sets of stable instances times segments, over all recordings.
    pub comparisons: u64,
    /// Whether they are independent of one another. They share instances: the interval is narrower than it should be.
    pub independent: bool,
    /// Stable instances that they share.
    pub instances: u64,
    /// Instances that are taken together as the canary.
    pub canaries: u64,
    /// Sets of them that were taken, and that there are (or 2^64 - 1 where there are more), over all recordings.
    pub sets: u64,
    pub sets_possible: u64,
    /// Instances that are left as stable where the most are there, in the recording with the fewest.
    pub stable_left: Option<u64>,
    pub condemned: u64,
    pub healthy: u64,
    pub windows: u64,
    pub window_s: f64,
    /// Share of equals that are condemned, with Wilson's interval of 95 %.
    pub false_alarms: f64,
    pub false_alarms_low: f64,
    pub false_alarms_high: f64,
    pub indicators: Vec<IndicatorFound>,
    #[serde(skip)]
    pub names: BTreeSet<Arc<str>>,
    #[serde(skip)]
    samples: Vec<[Option<Noise>; Indicator::COUNT]>,
}

/// One comparison at its end.
pub struct Compared<'a> {
    pub condemned: bool,
    pub healthy: bool,
    pub windows: u64,
    /// Kinds of events that both sides counted.
    pub events: usize,
    pub tracks: &'a [Track],
    pub p: &'a Parameters,
}

/// Noise of one indicator in one comparison.
#[derive(Clone, Copy, Debug)]
struct Noise {
    sigma: f64,
    long_run: f64,
    margin: f64,
    found: [Option<f64>; MINUTES.len()],
}

/// Medians over the comparisons, as ratios minus one.
#[derive(Debug, Serialize)]
pub struct IndicatorFound {
    indicator: &'static str,
    #[serde(skip)]
    title: &'static str,
    /// Standard deviation of one window, and of a window's part in a long mean.
    noise: f64,
    long_run_noise: f64,
    margin: f64,
    /// Smallest rise found within 1, 5 and 30 minutes; `None`: none, however large.
    found_in_1_min: Option<f64>,
    found_in_5_min: Option<f64>,
    found_in_30_min: Option<f64>,
}

impl Found {
    pub fn add(&mut self, compared: Compared) {
        let Compared { condemned, healthy, windows, events, tracks, p } = compared;
        self.comparisons += 1;
        self.windows += windows;
        self.condemned += u64::from(condemned);
        self.healthy += u64::from(healthy);
        let signals = tracks.iter().filter(|track| track.has_data()).count() + events;
        self.samples.push(std::array::from_fn(|i| {
            let track = &tracks[i];
            track.has_baseline(p).then(|| Noise {
                sigma: track.noise.sigma,
                long_run: track.derived.long_run_variance.sqrt(),
                margin: track.margin,
                found: MINUTES.map(|minutes| {
                    let windows = (60.0 * minutes as f64 / self.window_s) as u64;
                    power::smallest_change(track, &p.indicators[i].tolerance, signals as f64, windows, p)
                }),
            })
        }));
    }

    /// Makes up what is told of all comparisons together.
    pub fn summarize(&mut self) {
        self.instances = self.names.len() as u64;
        let n = self.comparisons as f64;
        (self.false_alarms_low, self.false_alarms_high) = wilson(self.condemned as f64, n);
        self.false_alarms = if n > 0.0 { self.condemned as f64 / n } else { f64::NAN };
        for indicator in Indicator::ALL {
            let noises: Vec<Noise> = self.samples.iter().filter_map(|s| s[indicator as usize]).collect();
            if noises.is_empty() {
                continue;
            }
            let of = |read: &dyn Fn(&Noise) -> f64| median(noises.iter().map(read).collect());
            // "Never" counts as more than any change.
            let in_minutes = |k: usize| {
                let change = median(noises.iter().map(|n| n.found[k].unwrap_or(f64::INFINITY)).collect());
                change.is_finite().then_some(change)
            };
            self.indicators.push(IndicatorFound {
                indicator: indicator.name(),
                title: indicator.title(),
                noise: libm::expm1(of(&|n| n.sigma)),
                long_run_noise: libm::expm1(of(&|n| n.long_run)),
                margin: libm::expm1(of(&|n| n.margin)),
                found_in_1_min: in_minutes(0),
                found_in_5_min: in_minutes(1),
                found_in_30_min: in_minutes(2),
            });
        }
    }

    /// The noise of each comparison, in their order.
    #[cfg(test)]
    pub fn noises(&self) -> Vec<String> {
        self.samples.iter().map(|sample| format!("{sample:?}")).collect()
    }

    pub fn describe(&self, deployment: &str) -> String {
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let change = |change: Option<f64>| change.map_or("none".to_owned(), |c| format!("+{:.1} %", 100.0 * c));
        let mut text = format!(
            "{deployment}: {} comparisons of equals among {} instances, {} windows of {} s in all\n{}    condemned: {} of {}, {} (95 %: {} to {}); healthy at the end: {}\n    the comparisons share these instances and are not independent: the interval is narrower than it should be\n",
            self.comparisons,
            self.instances,
            self.windows,
            self.window_s,
            self.casting(),
            self.condemned,
            self.comparisons,
            percent(self.false_alarms),
            percent(self.false_alarms_low),
            percent(self.false_alarms_high),
            self.healthy
        );
        if self.indicators.is_empty() {
            return text + "    too few windows to learn the noise from: record for longer\n";
        }
        text += &format!(
            "    {:<22} {:>9} {:>9} {:>9}   smallest rise found in {:>5} {:>9} {:>9}\n",
            "", "noise", "long-run", "margin", "1 min", "5 min", "30 min"
        );
        for i in &self.indicators {
            text += &format!(
                "    {:<22} {:>9} {:>9} {:>9}   {:>28} {:>9} {:>9}\n",
                i.title,
                percent(i.noise),
                percent(i.long_run_noise),
                percent(i.margin),
                change(i.found_in_1_min),
                change(i.found_in_5_min),
                change(i.found_in_30_min)
            );
        }
        text
    }

    /// Who was the canary, where that was not each instance by itself, and that one alone was left as stable, where it was.
    fn casting(&self) -> String {
        let mut text = String::new();
        let of = match self.canaries {
            1 => "instances".to_owned(),
            k => format!("sets of {k} instances"),
        };
        if self.sets < self.sets_possible {
            let there = match self.sets_possible {
                u64::MAX => "more than 10^19".to_owned(),
                possible => possible.to_string(),
            };
            let taken = self.sets;
            text +=
                &format!("    as the canary: {taken} of {there} {of}, evenly: {MOST_SETS} of a recording at most\n");
        } else if self.canaries > 1 {
            text += &format!("    as the canary: all {} {of}\n", self.sets);
        }
        if self.stable_left == Some(1) {
            text += "    one instance is left as stable: with two or more, the noise is learned from the others\n";
        }
        text
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Wilson's score interval of 95 % for a share of `k` in `n` (Wilson 1927, doi 10.1080/01621459.1927.10502953); all of 0 to 1
/// where there is nothing to tell it from.
fn wilson(k: f64, n: f64) -> (f64, f64) {
    if n <= 0.0 {
        return (0.0, 1.0);
    }
    const Z: f64 = 1.959_964;
    let (share, z2) = (k / n, Z * Z);
    let centre = share + z2 / (2.0 * n);
    let reach = Z * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z2 / n;
    (((centre - reach) / scale).max(0.0), ((centre + reach) / scale).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(canaries: u64, sets: u64, sets_possible: u64, stable_left: u64) -> Found {
        let names = BTreeSet::from(["/1", "/2", "/3"].map(Arc::<str>::from));
        let stable_left = Some(stable_left);
        Found { comparisons: 6, canaries, sets, sets_possible, stable_left, window_s: 1.0, names, ..Found::default() }
    }

    #[test]
    fn that_comparisons_share_instances_is_said() {
        let mut found = shared(1, 3, 3, 2);
        found.summarize();
        let text = found.describe("shop");
        assert!(text.starts_with("shop: 6 comparisons of equals among 3 instances, "), "{text}");
        assert!(text.contains("share these instances and are not independent"), "{text}");
        assert_eq!(serde_json::to_value(&found).expect("JSON")["independent"], false);
    }

    #[test]
    fn who_was_the_canary_is_said_where_it_was_not_each_instance_by_itself() {
        let said = |canaries, sets, possible, left| shared(canaries, sets, possible, left).casting();
        assert_eq!(said(1, 3, 3, 2), "");
        assert_eq!(said(2, 3, 3, 2), "    as the canary: all 3 sets of 2 instances\n");
        let some = said(2, 64, 190, 18);
        assert_eq!(some, "    as the canary: 64 of 190 sets of 2 instances, evenly: 64 of a recording at most\n");
        assert!(said(1, 64, 100, 99).starts_with("    as the canary: 64 of 100 instances, "));
        assert!(said(40, 64, u64::MAX, 40).contains("64 of more than 10^19 sets of 40 instances"));
        assert!(said(2, 3, 3, 1).contains("one instance is left as stable"));
    }

    #[test]
    fn the_interval_is_wilsons() {
        let near = |(low, high): (f64, f64), wanted: (f64, f64)| {
            assert!((low - wanted.0).abs() < 5e-4 && (high - wanted.1).abs() < 5e-4, "{low} {high}");
        };
        // Values from Newcombe 1998, table I: 81 of 263, 0 of 20.
        near(wilson(81.0, 263.0), (0.2553, 0.3662));
        near(wilson(0.0, 20.0), (0.0, 0.1611));
        near(wilson(0.0, 0.0), (0.0, 1.0));
    }
}
