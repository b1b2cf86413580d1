//! A comparison under way in a form that outlives the guard.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Control, Track, Watch};
use crate::{
    judge::{pace::Restarts, parameters::Parameters},
    window::Indicator,
};

/// Raised with every change of what is in a [`KeptControl`] or of what that means: another one says nothing here.
pub const CONTROL_FORMAT: u32 = 1;
/// Instances by which stable is known again; of more, these.
const INSTANCES: usize = 64;

/// How far stable has been held against what it was before a promotion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeptControl {
    /// Those that are held against the ones before, by cgroup and incarnation, ascending.
    pub instances: Vec<(Arc<str>, u64)>,
    /// What the bets were made by.
    settings: String,
    /// Windows until now.
    windows: u64,
    worse: bool,
    restarts: Restarts,
    /// By name, so that indicators may be added and moved.
    tracks: BTreeMap<Indicator, Track>,
}

/// What became of one that an earlier life of the guard left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resumed {
    GoesOn,
    /// Its time passed meanwhile.
    Over,
    /// It is not used, for this reason.
    Refused(String),
}

impl Watch {
    /// What is under way; `None` where nothing is, or where nobody of stable is there to know it again by.
    pub fn kept(&self, p: &Parameters) -> Option<KeptControl> {
        let control = self.control.as_ref().filter(|_| self.is_under_way(p) && !self.who.is_empty())?;
        let track = |indicator: Indicator| Some((indicator, control.tracks[indicator as usize].clone()?));
        Some(KeptControl {
            instances: self.who.iter().take(INSTANCES).cloned().collect(),
            settings: settings(p),
            windows: control.windows,
            worse: control.is_worse,
            restarts: control.restarts.clone(),
            tracks: Indicator::ALL.into_iter().filter_map(track).collect(),
        })
    }

    /// Goes on with what an earlier life left, after `missed` windows in which nobody compared: they are of its time, too.
    pub fn resume(&mut self, kept: KeptControl, missed: u64, p: &Parameters) -> Resumed {
        let windows = kept.windows.saturating_add(missed);
        if windows >= p.continuous_windows {
            return Resumed::Over;
        }
        if kept.settings != settings(p) {
            return Resumed::Refused("it was made by other settings of the judge".to_owned());
        }
        let mut tracks = kept.tracks;
        self.control = Some(Control {
            since: None,
            windows,
            restarts: kept.restarts,
            tracks: Indicator::ALL.map(|indicator| tracks.remove(&indicator)),
            is_worse: kept.worse,
        });
        Resumed::GoesOn
    }
}

/// What the numbers were made by: with anything else they would be of another bet. Compared as text, which tells each number
/// exactly.
fn settings(p: &Parameters) -> String {
    let indicators = p.indicators.map(|i| (i.tolerance.delta, i.epsilon, i.direction.sign(), i.mute));
    let bets = (p.smallest_bet, p.bet_shares, p.gain_limit, p.start_weight);
    format!("{:?}", (p.alpha, p.margin_multiplier, p.tau0, bets, indicators))
}
