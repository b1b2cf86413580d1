//! Whether taking the canary away helped: what the service was before, and what stable alone is afterwards. Pure.
//!
//! Stable's P(t) compares equal instances with each other and cannot see what hits all of them. Hence three more signs: what
//! condemned the canary, in stable now and in both versions before; stable's crashes; and the work that it does.

use std::collections::VecDeque;

use super::facts::RECENT_WINDOWS;
use crate::{judge::Verdict, window::Indicator};

/// Windows after the verification that say how the service is.
pub const RECOVERY_WINDOWS: u32 = 30;
/// Below this share of the work that both versions did before, stable did not take the canary's over.
const WORK_SHARE: f64 = 0.5;

/// The indicators of the last windows, in their own units: stable's and the canary's mean.
#[derive(Clone, Debug, Default)]
pub struct Levels(VecDeque<Vec<Pair>>);

/// An indicator of stable and of the canary in one window.
type Pair = (Indicator, Option<f64>, Option<f64>);

impl Levels {
    pub fn observe(&mut self, verdict: &Verdict) {
        self.0.push_back(verdict.indicators.iter().map(|i| (i.indicator, i.stable, i.canary)).collect());
        if self.0.len() > RECENT_WINDOWS {
            self.0.pop_front();
        }
    }

    /// Means of stable and canary, for those of the indicators that are known of both.
    pub fn means(&self, of: &[Indicator]) -> Vec<Level> {
        let values = |i: Indicator| self.0.iter().flatten().filter(move |(k, ..)| *k == i);
        let level = |i: &Indicator| {
            Some(Level {
                indicator: *i,
                stable: mean(values(*i).filter_map(|(_, stable, _)| *stable))?,
                canary: mean(values(*i).filter_map(|(_, _, canary)| *canary))?,
            })
        };
        of.iter().filter_map(level).collect()
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (n, sum) = values.filter(|v| v.is_finite()).fold((0, 0.0), |(n, sum), v| (n + 1, sum + v));
    (n > 0).then(|| sum / f64::from(n))
}

/// One indicator before the action.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    pub indicator: Indicator,
    pub stable: f64,
    pub canary: f64,
}

/// The service before the action; `None` = not known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Before {
    /// What condemned the canary.
    pub levels: Vec<Level>,
    pub p_canary: Option<f64>,
    /// Of both versions together.
    pub turnarounds_per_second: Option<f64>,
}

/// Stable in one window after it; `None` = not known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Look {
    pub p_stable: Option<f64>,
    /// Means of its instances.
    pub levels: Vec<(Indicator, Option<f64>)>,
    pub crashes: Option<u64>,
    pub oom_kills: Option<u64>,
    pub turnarounds: Option<u64>,
    pub span_ns: u64,
}

/// The answer, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovery {
    Recovered(String),
    NotRecovered(String),
    Unknown(String),
}

/// What was seen of the service since.
#[derive(Debug)]
pub struct Watch {
    before: Before,
    looks: Vec<Look>,
}

impl Watch {
    pub fn new(before: Before) -> Self {
        Self { before, looks: Vec::new() }
    }

    /// Takes a window in; the answer comes with the last one.
    pub fn observe(&mut self, look: Look) -> Option<Recovery> {
        if self.looks.len() >= RECOVERY_WINDOWS as usize {
            return None;
        }
        self.looks.push(look);
        (self.looks.len() == RECOVERY_WINDOWS as usize).then(|| self.judge())
    }

    fn judge(&self) -> Recovery {
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        if let Some(after) = mean(self.looks.iter().filter_map(|l| l.p_stable)) {
            let was = self.before.p_canary.map_or(String::new(), |p| format!(", the canary's was {p:.2}"));
            let list = if after < 1.0 { &mut good } else { &mut bad };
            list.push(format!("P(t) of stable is {after:.2}{was}"));
        }
        for Level { indicator, stable, canary } in &self.before.levels {
            let values = self.looks.iter().flat_map(|l| &l.levels).filter(|(i, _)| i == indicator);
            let Some(after) = mean(values.filter_map(|(_, value)| *value)) else { continue };
            // What the users of the canary have now is stable: nearer to what stable was than to what the canary was?
            let list = if after < (stable + canary) / 2.0 { &mut good } else { &mut bad };
            let share = 100.0 * (after / stable - 1.0);
            let was = 100.0 * (canary / stable - 1.0);
            list.push(format!(
                "stable's {} is {share:+.0} % of what it was, the canary's was {was:+.0} %",
                indicator.title()
            ));
        }
        for (what, counts) in [
            ("crashes", self.looks.iter().map(|l| l.crashes).sum::<Option<u64>>()),
            ("OOM kills", self.looks.iter().map(|l| l.oom_kills).sum()),
        ] {
            if let Some(n) = counts.filter(|n| *n > 0) {
                bad.push(format!("{what} of stable: {n}"));
            }
        }
        let turnarounds: Option<u64> = self.looks.iter().map(|l| l.turnarounds).sum();
        let seconds = self.looks.iter().map(|l| l.span_ns).sum::<u64>() as f64 / 1e9;
        if let (Some(n), Some(before)) = (turnarounds, self.before.turnarounds_per_second)
            && before > 0.0
            && seconds > 0.0
        {
            let after = n as f64 / seconds;
            let list = if after >= WORK_SHARE * before { &mut good } else { &mut bad };
            list.push(format!("stable serves {after:.0} requests a second, both versions served {before:.0} before"));
        }
        match (good.is_empty(), bad.is_empty()) {
            (_, false) => Recovery::NotRecovered(format!("taking the canary away did not help: {}", bad.join("; "))),
            (false, true) => Recovery::Recovered(format!("the service is back: {}", good.join("; "))),
            (true, true) => {
                Recovery::Unknown("whether it helped is not known: nothing that says so is measured".into())
            }
        }
    }
}
