//! The windows of one deployment as 32-bit floats in a ring: charts need no more, and an hour has to fit in memory.

use std::collections::VecDeque;

use super::WINDOWS_KEPT;
use crate::{
    judge::{IndicatorState, Outcome},
    watch::{
        DeploymentView, Snapshot,
        api::{IndicatorPoint, WindowPoint},
    },
    window::Indicator,
};

/// Numbers of one indicator: stable, canary, effect, its interval, margin.
const NUMBERS: usize = 6;

#[derive(Debug, Default)]
pub struct Series(VecDeque<Kept>);

/// NaN where there is no number.
#[derive(Debug)]
struct Kept {
    window: u64,
    t_ns: u64,
    unix_ms: u64,
    clean: bool,
    outcome: Outcome,
    /// P(t) of stable and canary, evidence, threshold.
    whole: [f32; 4],
    /// In the order of the verdict's indicators.
    indicators: Box<[(Indicator, [f32; NUMBERS])]>,
}

impl Series {
    pub fn push(&mut self, snapshot: &Snapshot, view: &DeploymentView) {
        // A deployment without a new window, or a replay that begins anew, is not the end of this series.
        if self.0.back().is_some_and(|last| last.window >= view.window.index) {
            return;
        }
        if self.0.len() >= WINDOWS_KEPT {
            self.0.pop_front();
        }
        let verdict = &view.verdict;
        self.0.push_back(Kept {
            window: view.window.index,
            t_ns: snapshot.t_ns,
            unix_ms: snapshot.unix_ms,
            clean: view.window.clean,
            outcome: verdict.outcome,
            whole: [verdict.p_stable, verdict.p_canary, Some(verdict.evidence_ln), Some(verdict.threshold_ln)].map(f32),
            indicators: verdict.indicators.iter().map(|i| (i.indicator, numbers(i))).collect(),
        });
    }

    pub fn since(&self, since: u64, limit: usize) -> Vec<WindowPoint> {
        let from = self.0.partition_point(|kept| kept.window < since).max(self.0.len().saturating_sub(limit));
        self.0.range(from..).map(Kept::point).collect()
    }
}

impl Kept {
    fn point(&self) -> WindowPoint {
        let [p_stable, p_canary, evidence_ln, threshold_ln] = self.whole.map(number);
        WindowPoint {
            window: self.window,
            t_ns: self.t_ns,
            unix_ms: self.unix_ms,
            clean: self.clean,
            outcome: self.outcome,
            p_stable,
            p_canary,
            evidence_ln,
            threshold_ln,
            indicators: self
                .indicators
                .iter()
                .filter(|(_, numbers)| numbers.iter().any(|n| n.is_finite()))
                .map(|(indicator, numbers)| (indicator.name().to_owned(), point(numbers)))
                .collect(),
        }
    }
}

fn numbers(state: &IndicatorState) -> [f32; NUMBERS] {
    [state.stable, state.canary, state.effect, state.effect_low, state.effect_high, state.margin].map(f32)
}

fn point(numbers: &[f32; NUMBERS]) -> IndicatorPoint {
    let [stable, canary, effect, effect_low, effect_high, margin] = numbers.map(number);
    IndicatorPoint { stable, canary, effect, effect_low, effect_high, margin }
}

fn f32(number: Option<f64>) -> f32 {
    number.map_or(f32::NAN, |n| n as f32)
}

fn number(n: f32) -> Option<f32> {
    n.is_finite().then_some(n)
}
