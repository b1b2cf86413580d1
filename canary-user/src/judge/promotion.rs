//! Continuous mode: once all instances of stable were replaced, as by a promotion, what those before were like stays as control.
//!
//! Goes in: who stable is, and its level per indicator and window. Comes out: what stable is like since then, for the verdict.
//! It tells and advises, and condemns nobody: a profile cannot tell the version from the time of day.

mod kept;

pub use kept::{CONTROL_FORMAT, KeptControl, Resumed};

use std::{collections::BTreeSet, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    explain::number,
    pace::{PLACEBOS, Restarts, Terms, Worse},
    parameters::Parameters,
    stretch::Norm,
    verdict::{Promoted, Promotion},
};
use crate::window::Indicator;

/// Standard deviations of an interval of about 95 %.
const INTERVAL: f64 = 1.96;

/// Instances of stable: cgroup and incarnation.
pub type Who = BTreeSet<(Arc<str>, u64)>;

/// What stable was like while it consisted of these instances, by [`Indicator`] as index.
#[derive(Clone, Debug)]
struct Profile {
    who: Who,
    usual: [Option<Norm>; Indicator::COUNT],
}

/// Watches who stable is, and holds it against those before.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    who: Who,
    /// Windows since stable last changed.
    steady_windows: u64,
    /// Of the last instances that were there for long, while some of them are.
    profile: Option<Profile>,
    control: Option<Control>,
}

impl Watch {
    /// Whether nobody was seen yet.
    pub fn is_empty(&self) -> bool {
        self.who.is_empty()
    }

    /// Whether windows are being compared.
    pub fn is_under_way(&self, p: &Parameters) -> bool {
        self.control.as_ref().is_some_and(|control| control.windows < p.continuous_windows)
    }

    /// Takes note of who stable is, from window `index` on. `usual`: what it was like right before, by indicator.
    pub fn members(&mut self, who: Who, usual: impl Fn(usize) -> Option<Norm>, index: u64, p: &Parameters) {
        if who == self.who {
            return;
        }
        let before = std::mem::replace(&mut self.who, who);
        if std::mem::take(&mut self.steady_windows) >= p.soak_windows && !before.is_empty() {
            self.profile = Some(Profile { who: before, usual: std::array::from_fn(usual) });
        }
        let replaced = |profile: &mut Profile| !self.who.is_empty() && profile.who.is_disjoint(&self.who);
        if let Some(profile) = self.profile.take_if(replaced)
            && p.continuous_windows > 0
        {
            self.control = Some(Control::new(&profile, self.who.len(), Some(index), p));
        }
    }

    /// Takes one clean window: the level of each indicator as ln of which more is worse, NaN where it is missing or something
    /// else explains it.
    pub fn observe(&mut self, levels: &[f64; Indicator::COUNT], index: u64, p: &Parameters) {
        self.steady_windows += 1;
        if let Some(control) = &mut self.control {
            control.observe(levels, index, p);
        }
    }

    pub fn promotion(&self, p: &Parameters) -> Option<Promotion> {
        self.control.as_ref().map(|control| control.told(p))
    }
}

/// Stable held against those before it.
#[derive(Clone, Debug)]
struct Control {
    /// `None` = since an earlier life of the guard, whose windows had other numbers.
    since: Option<u64>,
    /// Windows compared, and those that passed while the guard was not there.
    windows: u64,
    restarts: Restarts,
    tracks: [Option<Track>; Indicator::COUNT],
    is_worse: bool,
}

/// One indicator of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Track {
    /// ln of what is usual, more being worse, and the rise that says nothing.
    level: f64,
    margin: f64,
    /// Standard deviation of `level` as an estimate of what the new instances would have.
    level_deviation: f64,
    clip: f64,
    terms: Terms,
    worse: Worse,
    windows: u64,
    sum: f64,
}

impl Control {
    fn new(profile: &Profile, instances: usize, since: Option<u64>, p: &Parameters) -> Self {
        // Of more, the level is that of those with a place.
        let [m, now] = [profile.who.len(), instances].map(|instances| instances.min(PLACEBOS) as f64);
        let tracks = std::array::from_fn(|i| {
            let (usual, set) = (profile.usual[i].as_ref()?, &p.indicators[i]);
            if set.mute {
                return None;
            }
            let delta = set.tolerance.delta;
            // Fewer instances make a noisier mean; and the new ones have offsets of their own.
            let noisier = (m / now).max(1.0).sqrt();
            let noise = (usual.terms.band - delta).max(0.0) / p.margin_multiplier.max(1e-9);
            let level_deviation = (noise * noise + p.tau0 * p.tau0 * (1.0 / m + 1.0 / now)).sqrt();
            Some(Track {
                level: set.direction.sign() * usual.level,
                margin: delta + p.margin_multiplier * level_deviation,
                level_deviation,
                clip: noisier * usual.terms.clip,
                terms: Terms { precision: usual.terms.precision / noisier, discount: usual.terms.discount },
                worse: Worse::NONE,
                windows: 0,
                sum: 0.0,
            })
        });
        Self { since, windows: 0, restarts: Restarts::default(), tracks, is_worse: false }
    }

    fn observe(&mut self, levels: &[f64; Indicator::COUNT], index: u64, p: &Parameters) {
        if self.windows >= p.continuous_windows || levels.iter().all(|level| level.is_nan()) {
            return;
        }
        self.windows += 1;
        let weight = self.restarts.next_weight(p.start_weight, p.continuous_windows);
        for (track, level) in self.tracks.iter_mut().zip(levels) {
            let Some(track) = track else { continue };
            track.worse.put_in(weight, p);
            if !level.is_nan() {
                let rise = level - track.level;
                (track.windows, track.sum) = (track.windows + 1, track.sum + rise);
                track.worse.bet(rise - track.margin, track.clip, &track.terms, index, p);
            }
        }
        self.is_worse |= self.evidence() >= 1.0 / p.alpha;
    }

    /// Mean of the indicators' e-values: one itself, whatever they have to do with each other.
    fn evidence(&self) -> f64 {
        let (sum, n) = self
            .tracks
            .iter()
            .flatten()
            .filter(|t| t.windows > 0)
            .fold((0.0, 0.0), |(sum, n), track| (sum + track.worse.evidence(&self.restarts), n + 1.0));
        if n > 0.0 { sum / n } else { 1.0 }
    }

    fn told(&self, p: &Parameters) -> Promotion {
        let mut indicators: Vec<Promoted> = Indicator::ALL
            .into_iter()
            .filter_map(|indicator| {
                let track = self.tracks[indicator as usize].as_ref().filter(|t| t.windows > 0)?;
                let (sign, n) = (p.indicators[indicator as usize].direction.sign(), track.windows as f64);
                let mean = track.sum / n;
                let noise = 1.0 / (track.terms.precision * n.sqrt());
                // Not hypot, which is the C library's and rounds as that does.
                let half_width = INTERVAL * (noise * noise + track.level_deviation * track.level_deviation).sqrt();
                let ends = [mean - half_width, mean + half_width].map(|x| libm::expm1(sign * x));
                Some(Promoted {
                    indicator,
                    effect: libm::expm1(sign * mean),
                    effect_low: ends[0].min(ends[1]),
                    effect_high: ends[0].max(ends[1]),
                    margin: libm::expm1(track.margin),
                    evidence_ln: libm::log(track.worse.evidence(&self.restarts)),
                })
            })
            .collect();
        indicators.sort_by(|a, b| b.evidence_ln.total_cmp(&a.evidence_ln));
        Promotion {
            since: self.since,
            windows: self.windows,
            of_windows: p.continuous_windows,
            worse: self.is_worse,
            evidence_ln: libm::log(self.evidence()),
            text: self.in_words(indicators.first(), p),
            indicators,
        }
    }

    fn in_words(&self, leading: Option<&Promoted>, p: &Parameters) -> String {
        let (n, of) = (self.windows, p.continuous_windows);
        let since =
            self.since.map_or("before the guard was started".to_owned(), |window| format!("in window {window}"));
        match leading.filter(|_| self.is_worse) {
            Some(it) => {
                let percent = |x: f64| format!("{:.0}", 100.0 * x);
                format!(
                    "stable is worse since its instances were replaced {since}: {} {:+.0} % ({} to {} %) of what it was \
                     before, evidence {} of {}",
                    it.indicator.title(),
                    100.0 * it.effect,
                    percent(it.effect_low),
                    percent(it.effect_high),
                    number(libm::exp(it.evidence_ln)),
                    number(1.0 / p.alpha),
                )
            }
            None if n < of => format!(
                "stable was replaced {since} and is held against what it was before: no worse so far, window {n} of {of}"
            ),
            None => {
                format!("stable was replaced {since} and no worse than before in the {of} windows after that")
            }
        }
    }
}
