//! The judge for indicators by any name, as a table of readings has them: the same comparison, margins and evidence, without
//! what only the kernel knows (events, limits, neighbours, mechanisms).

use std::sync::Arc;

use serde::Serialize;

use super::{
    explain,
    instances::Instances,
    pace::{Differences, Pace, Phase, Track},
    pairing::Pairing,
    parameters::{Direction, Parameters, Tolerance},
    stretch::{Moment, Stretches},
    verdict::{Cause, Environment, Outcome, Verdict},
};
use crate::{
    targets::Role,
    window::{Around, Event, Indicator, Node, Reading, Window},
};

/// One indicator of the table.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: Arc<str>,
    pub direction: Direction,
    pub tolerance: Tolerance,
    /// Added before the logarithm, in the column's own unit.
    pub epsilon: f64,
}

/// One target's readings in one window; NaN where missing.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub target: Arc<str>,
    pub values: Vec<f64>,
}

/// One column after one window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ColumnState {
    pub name: Arc<str>,
    /// Canary against stable beyond the usual offset over the last 10 windows: 0.31 is 31 % more.
    pub effect: Option<f64>,
    pub margin: Option<f64>,
    pub evidence_ln: f64,
    pub confirmed: bool,
}

/// Compares the canary's columns with stable's, window by window.
#[derive(Clone, Debug)]
pub struct Columns {
    columns: Vec<Column>,
    pace: Pace,
    instances: Instances,
    phase: Phase,
    judged_windows: u64,
    seen: Vec<bool>,
    stretches: Stretches,
    decided: Option<(Option<u64>, Vec<Cause>, Vec<String>)>,
}

impl Columns {
    pub fn new(parameters: Parameters, columns: Vec<Column>) -> Self {
        let tolerances: Vec<Tolerance> = columns.iter().map(|c| c.tolerance).collect();
        Self {
            seen: vec![false; columns.len()],
            stretches: Stretches::new(columns.len(), &parameters),
            columns,
            pace: Pace::new(parameters, &tolerances),
            instances: Instances::default(),
            phase: Phase::Baseline,
            judged_windows: 0,
            decided: None,
        }
    }

    /// Takes one window in and says what is known after it.
    pub fn observe(&mut self, index: u64, t_ns: u64, stable: &[Row], canary: &[Row]) -> Verdict {
        let p = self.pace.parameters().clone();
        let presence = presence(index, t_ns, stable, canary);
        let changes = self.instances.observe(&presence, &p);
        if changes.another_canary {
            self.pace.reset_evidence();
            (self.phase, self.judged_windows, self.decided) = (Phase::Baseline, 0, None);
            self.stretches.forget_canary(&p);
        }
        changes.freed.iter().for_each(|series| self.pace.free(*series));
        if changes.membership {
            self.pace.soften();
            self.stretches.soften(Role::Stable, &p);
        }
        if changes.canary_membership {
            self.stretches.soften(Role::Canary, &p);
        }
        self.phase = match (self.phase, self.instances.canary_warmup_left()) {
            (Phase::Judged, _) | (_, Some(0)) => Phase::Judged,
            (_, Some(_)) => Phase::WarmUp,
            (phase, None) => phase,
        };
        self.compare(index, &presence, stable, canary, &p);
        self.verdict(index, canary.is_empty(), &p)
    }

    fn compare(&mut self, index: u64, presence: &Window, stable: &[Row], canary: &[Row], p: &Parameters) {
        let pairing = Pairing::of(presence, &self.instances, self.phase, p);
        let mut differences = vec![Differences::MISSING; self.columns.len()];
        for (i, column) in self.columns.iter().enumerate() {
            // What has no logarithm is no reading: nothing at all where nothing is added to it, and what is too large.
            let ln = |row: &Row| {
                let ln = column.direction.sign() * libm::log(row.values[i] + column.epsilon);
                if ln.is_finite() { ln } else { f64::NAN }
            };
            let paired = pairing.pair(i, stable.iter().map(&ln), canary.iter().map(&ln), &mut self.pace);
            differences[i] = paired.differences;
            let at = Moment { index, t_ns: presence.t_ns };
            for (role, level) in [(Role::Stable, paired.stable), (Role::Canary, paired.canary)] {
                self.stretches.observe(role, i, column.direction.sign() * level, at, column.tolerance.delta, p);
            }
            self.seen[i] |= stable.iter().chain(canary).any(|r| r.values[i].is_finite());
        }
        self.pace.observe(&pairing.frame(index, &differences, 1.0));
        let judged = self.phase == Phase::Judged;
        self.judged_windows += u64::from(judged && differences.iter().any(|d| !d.canary.is_nan()));
    }

    /// The state of each column.
    pub fn states(&self) -> Vec<ColumnState> {
        let weighed: f64 = self.pace.indicators().iter().filter(|t| t.has_data()).map(Track::weight).sum();
        let state = |(i, column): (usize, &Column)| {
            let track = &self.pace.indicators()[i];
            let evidence_ln = libm::log(self.pace.indicator_evidence(i));
            let needed = self.pace.confirmed_at((weighed / track.weight()).max(1.0));
            ColumnState {
                name: column.name.clone(),
                effect: track.effect().map(|e| libm::expm1(column.direction.sign() * e.mean)),
                margin: track.has_margin().then(|| libm::expm1(track.margin)),
                evidence_ln,
                confirmed: evidence_ln >= libm::log(needed),
            }
        };
        self.columns.iter().enumerate().map(state).collect()
    }

    /// Noise, margin and stakes of each column, for those who ask more.
    pub fn tracks(&self) -> &[Track] {
        self.pace.indicators()
    }

    fn verdict(&mut self, index: u64, canary_is_empty: bool, p: &Parameters) -> Verdict {
        let evidence_ln = self.pace.evidence_ln(&[]);
        let states = self.states();
        if self.decided.is_none() && evidence_ln >= p.threshold_ln() {
            self.decided = Some(self.decide(&states, evidence_ln, p));
        }
        let (outcome, onset, causes, reasons) = match &self.decided {
            Some((onset, causes, reasons)) => (Outcome::Regressed, *onset, causes.clone(), reasons.clone()),
            None => {
                let (outcome, reasons) = self.undecided(&states, canary_is_empty, evidence_ln, p);
                (outcome, None, Vec::new(), reasons)
            }
        };
        let finite = |x: f64| x.is_finite().then_some(x);
        Verdict {
            outcome,
            window: index,
            evidence_ln,
            threshold_ln: p.threshold_ln(),
            p_canary: finite(self.pace.mean().p),
            p_stable: self.pace.p_stable(),
            indicators: Vec::new(),
            events: Vec::new(),
            hard: None,
            onset,
            causes,
            reasons,
            healthy_at_load: None,
            environment: Environment::default(),
            forecast: None,
            recommendations: Vec::new(),
            promotion: None,
            stretches: self.stretches.told(|i| (&*self.columns[i].name, &*self.columns[i].name), p),
            baseline_windows: self.baseline_windows(),
            judged_windows: self.judged_windows,
        }
    }

    fn decide(
        &self,
        states: &[ColumnState],
        evidence_ln: f64,
        p: &Parameters,
    ) -> (Option<u64>, Vec<Cause>, Vec<String>) {
        let mut order: Vec<usize> = (0..states.len()).filter(|i| self.pace.indicators()[*i].bets() > 0).collect();
        order.sort_by(|a, b| states[*b].evidence_ln.total_cmp(&states[*a].evidence_ln));
        let speaks = |i: &usize| {
            let (state, track) = (&states[*i], &self.pace.indicators()[*i]);
            state.confirmed
                || track.effect().is_some_and(|e| state.evidence_ln > 0.0 && e.mean > track.margin.max(e.half_width))
        };
        let first = order.first().copied();
        let causes: Vec<Cause> = order
            .into_iter()
            .filter(|i| Some(*i) == first || speaks(i))
            .map(|i| {
                let (state, track) = (&states[i], &self.pace.indicators()[i]);
                let change = state.effect.map(|e| format!(" {:+.0} %", 100.0 * e)).unwrap_or_default();
                let since = track.run_start().map(|w| format!(" since window {w}")).unwrap_or_default();
                let margin = state.margin.map(|m| format!(", margin {:.1} %", 100.0 * m)).unwrap_or_default();
                Cause {
                    signal: state.name.to_string(),
                    text: format!(
                        "{}{change}{since}, evidence {}{margin}",
                        state.name,
                        explain::number(libm::exp(state.evidence_ln))
                    ),
                    mechanism: if track.is_growing() { "grows" } else { "worse than stable" }.to_owned(),
                    ruled_out: Vec::new(),
                    evidence_ln: state.evidence_ln,
                }
            })
            .collect();
        let onset = first.and_then(|i| self.pace.indicators()[i].run_start()).or(self.pace.mean().run_start());
        let mut reasons: Vec<String> = causes.iter().take(3).map(|c| c.text.clone()).collect();
        let (evidence, needed) = (explain::number(libm::exp(evidence_ln)), explain::number(1.0 / p.alpha));
        reasons.push(format!("evidence altogether {evidence} of {needed}"));
        (onset, causes, reasons)
    }

    fn undecided(
        &self,
        states: &[ColumnState],
        canary_is_empty: bool,
        evidence_ln: f64,
        p: &Parameters,
    ) -> (Outcome, Vec<String>) {
        let mut lacking = Vec::new();
        match self.instances.canary_warmup_left() {
            None if canary_is_empty => lacking.push("there is no canary yet".to_owned()),
            None => lacking.push("no reading yet on canary".to_owned()),
            Some(_) if self.instances.canary_absent() >= p.silent_windows => {
                lacking.push(format!("the canary has reported nothing for {} windows", self.instances.canary_absent()))
            }
            Some(left) if self.phase == Phase::WarmUp => {
                lacking.push(format!("the canary warms up: {left} of {} windows are left", p.warmup_windows));
            }
            Some(_) => {}
        }
        if !self.pace.indicators().iter().any(Track::has_any_bet) {
            let learned = self.baseline_windows();
            // That a canary is gone with which nothing was learned is told already.
            if learned > 0 || self.instances.canary_absent() < p.silent_windows {
                lacking.push(explain::learned(learned, p.minimum_baseline));
            }
        }
        if self.instances.stable_absent() > 2 * p.silent_windows {
            lacking.push("no stable instance reports: there is nothing to compare with".to_owned());
        }
        if !lacking.is_empty() {
            return (Outcome::InsufficientData, lacking);
        }
        let judged = self.pace.indicators().iter().map(|t| t.bets()).max().unwrap_or(0);
        let open: Vec<String> = states
            .iter()
            .enumerate()
            .filter(|(i, _)| self.seen[*i] && !self.pace.is_healthy(*i))
            .map(|(i, s)| {
                if let Some(windows) = self.pace.silent_for(i) {
                    return format!("{}: no reading of both sides for {windows} windows", s.name);
                }
                let margin = 100.0 * libm::expm1(self.pace.indicators()[i].margin_healthy);
                format!("{}: not yet shown to be below {margin:.0} %", s.name)
            })
            .collect();
        if open.is_empty() && judged >= p.soak_windows && evidence_ln < 0.5 * p.threshold_ln() {
            let reason = format!("all {} indicators are shown to be within their healthy margins", states.len());
            return (Outcome::Healthy, vec![reason]);
        }
        let mut reasons = Vec::new();
        if judged < p.soak_windows {
            reasons.push(format!("judged for {judged} of {} windows", p.soak_windows));
        }
        reasons.extend(open);
        if reasons.is_empty() {
            reasons.push(format!(
                "evidence {} of {}",
                explain::number(libm::exp(evidence_ln)),
                explain::number(1.0 / p.alpha)
            ));
        }
        (Outcome::Inconclusive, reasons)
    }

    fn baseline_windows(&self) -> u64 {
        self.pace.indicators().iter().map(|t| t.noise.pairs()).max().unwrap_or(0)
    }
}

/// Who is there, in the form that [`Instances`] takes: it asks only whether a reading has any value.
fn presence(index: u64, t_ns: u64, stable: &[Row], canary: &[Row]) -> Window {
    let reading = |row: &Row| {
        let present = row.values.iter().any(|v| v.is_finite());
        Reading {
            instance: row.target.clone(),
            incarnation: 0,
            values: [if present { 0.0 } else { f64::NAN }; Indicator::COUNT],
            events: [None; Event::COUNT],
            turnarounds: 0,
            seconds: 0.0,
            around: Around::default(),
        }
    };
    Window {
        deployment: "".into(),
        index,
        t_ns,
        span_ns: 0,
        stable: stable.iter().map(reading).collect(),
        canary: canary.iter().map(reading).collect(),
        clean: true,
        node: Node::default(),
    }
}
