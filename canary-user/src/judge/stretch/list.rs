//! The stretches of all indicators of both roles, as the verdict lists them.

use std::collections::VecDeque;

use super::{Found, Moment, Norm, Watch};
use crate::{
    judge::{
        parameters::Parameters,
        verdict::{Stretch, StretchShape},
    },
    targets::Role,
};

/// Watches every indicator of both roles, and keeps the latest stretches.
#[derive(Clone, Debug)]
pub struct Stretches {
    stable: Vec<Watch>,
    canary: Vec<Watch>,
    ended: VecDeque<(Role, usize, Found)>,
}

impl Stretches {
    pub fn new(indicators: usize, p: &Parameters) -> Self {
        let watches = || vec![Watch::new(p); indicators];
        Self { stable: watches(), canary: watches(), ended: VecDeque::new() }
    }

    fn watches(&mut self, role: Role) -> &mut Vec<Watch> {
        match role {
            Role::Stable => &mut self.stable,
            Role::Canary => &mut self.canary,
        }
    }

    /// Takes the level of one indicator of one role in one window, as ln; `delta` is what counts as a change of it.
    pub fn observe(&mut self, role: Role, indicator: usize, level: f64, at: Moment, delta: f64, p: &Parameters) {
        let ended = self.watches(role)[indicator].observe(level, at, delta, p);
        self.keep(role, indicator, ended, p);
    }

    fn keep(&mut self, role: Role, indicator: usize, ended: Option<Found>, p: &Parameters) {
        if let Some(ended) = ended {
            if self.ended.len() == p.stretches_kept {
                self.ended.pop_front();
            }
            self.ended.push_back((role, indicator, ended));
        }
    }

    /// What is usual of the level of one indicator of one role, as ln; `None` before it is known.
    pub fn norm(&self, role: Role, indicator: usize, p: &Parameters) -> Option<Norm> {
        let watches = if role == Role::Stable { &self.stable } else { &self.canary };
        watches[indicator].norm(p)
    }

    /// Other instances make a role's level from here on.
    pub fn soften(&mut self, role: Role, p: &Parameters) {
        self.watches(role).iter_mut().for_each(|w| w.soften(p));
    }

    /// Another canary: nothing of the one before is usual for it. What was found stays told.
    pub fn forget_canary(&mut self, p: &Parameters) {
        for indicator in 0..self.canary.len() {
            let ended = std::mem::replace(&mut self.canary[indicator], Watch::new(p)).close(p);
            self.keep(Role::Canary, indicator, ended, p);
        }
    }

    /// The latest stretches, those that go on among them, by their start. `words` has the name and the title of each
    /// indicator.
    pub fn told<'a>(&self, words: impl Fn(usize) -> (&'a str, &'a str), p: &Parameters) -> Vec<Stretch> {
        let under_way = |role: Role, watches: &[Watch]| -> Vec<(Role, usize, Found)> {
            watches.iter().enumerate().filter_map(|(i, w)| Some((role, i, w.open(p)?))).collect()
        };
        let mut all: Vec<(Role, usize, Found)> = self.ended.iter().copied().collect();
        all.extend(under_way(Role::Stable, &self.stable));
        all.extend(under_way(Role::Canary, &self.canary));
        all.sort_by_key(|(role, i, found)| (found.start.index, *role, *i));
        let surplus = all.len().saturating_sub(p.stretches_kept);
        all.drain(..surplus);
        all.into_iter()
            .map(|(role, i, found)| {
                let (name, title) = words(i);
                told(role, name, title, &found)
            })
            .collect()
    }
}

fn told(role: Role, signal: &str, title: &str, found: &Found) -> Stretch {
    let size = libm::expm1(found.size);
    let size_in_words = in_words(size, found.shape);
    let (start, shape) = (found.start.index, found.shape.name());
    let text = match found.end {
        None => format!("{role}: {title} {size_in_words} since window {start} (so far: {shape})"),
        Some(end) if found.became_usual => {
            format!(
                "{role}: {title} {size_in_words} from window {start} on ({shape}), usual since window {}",
                end.index
            )
        }
        Some(end) => format!("{role}: {title} {size_in_words} from window {start} to {} ({shape})", end.index),
    };
    Stretch {
        role,
        signal: signal.to_owned(),
        start,
        start_t_ns: found.start.t_ns,
        found: found.found.index,
        end: found.end.map(|m| m.index),
        end_t_ns: found.end.map(|m| m.t_ns),
        became_usual: found.became_usual,
        size,
        shape: found.shape,
        text,
    }
}

/// A ratio minus one in percent. What left a narrow band by less than one of them has a digit more: it is not nothing.
fn in_words(size: f64, shape: StretchShape) -> String {
    let percent = 100.0 * size;
    let digits = if percent.abs() < 0.95 { 1 } else { 0 };
    match shape {
        StretchShape::Oscillation => format!("±{percent:.digits$} %"),
        _ => format!("{percent:+.digits$} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_size_is_not_told_as_none() {
        assert_eq!(in_words(0.0043, StretchShape::Step), "+0.4 %");
        assert_eq!(in_words(-0.0043, StretchShape::Drift), "-0.4 %");
        assert_eq!(in_words(0.0096, StretchShape::Step), "+1 %");
        assert_eq!(in_words(0.31, StretchShape::Burst), "+31 %");
        assert_eq!(in_words(0.008, StretchShape::Oscillation), "±0.8 %");
    }
}
