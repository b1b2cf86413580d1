//! What the judge says after a window: the outcome, with its reasons.

use super::{
    explain::{self, Evidence},
    hard::Moment,
    instances,
    observe::{Decided, Judge, Seen, mean},
    pace::{Phase, Track},
    verdict::{EventState, HardFact, IndicatorState, Outcome, Verdict},
};
use crate::window::{Event, Indicator, Reading, Window};

impl Judge {
    pub(super) fn verdict(&mut self, window: &Window) -> Verdict {
        let p = &self.parameters;
        let events = self.counts.states();
        let event_evidence = self.counts.e_values();
        let evidence_ln = self.pace.evidence_ln(&event_evidence);
        let present = self.pace.indicators().iter().filter(|t| t.has_data()).count() + event_evidence.len();
        let confirmed_ln = self.pace.confirmed_at(present).ln();
        let indicators: Vec<IndicatorState> =
            Indicator::ALL.into_iter().map(|i| self.indicator_state(i, window, confirmed_ln)).collect();

        if self.decided.is_none() {
            let hard = self.hard_fact(window);
            if hard.is_some() || evidence_ln >= p.threshold_ln() {
                self.decided = Some(self.decide(window, hard, &indicators, &events, (evidence_ln, confirmed_ln)));
            }
        }
        let (outcome, reasons) = match &self.decided {
            Some(decided) => (Outcome::Regressed, decided.reasons.clone()),
            None => self.undecided(window, evidence_ln, &indicators),
        };
        let decided = self.decided.as_ref();
        let finite = |x: f64| x.is_finite().then_some(x);
        let has_baseline = self.baseline_windows() > 0;
        Verdict {
            outcome,
            window: window.index,
            evidence_ln,
            threshold_ln: self.parameters.threshold_ln(),
            p_canary: finite(self.pace.mean().p).filter(|_| has_baseline),
            p_stable: self.pace.p_stable().filter(|_| has_baseline),
            indicators,
            events,
            hard: decided.and_then(|d| d.hard),
            onset: decided.and_then(|d| d.onset),
            causes: decided.map_or(Vec::new(), |d| d.causes.clone()),
            reasons,
            baseline_windows: self.baseline_windows(),
            judged_windows: self.judged_windows,
        }
    }

    fn hard_fact(&self, window: &Window) -> Option<(HardFact, Moment)> {
        let p = &self.parameters;
        if let Some(fact) = self.hard.condemning(window, p) {
            return Some(fact);
        }
        // Silence alone may be a scale-down; silence after a crash or an OOM kill is not.
        let silent = self.phase == Phase::Judged && self.instances.canary_absent() >= p.silent_windows;
        let trouble = self.hard.latest_trouble().filter(|_| silent)?;
        let followed = trouble.index + p.silent_windows >= self.last_canary_window;
        followed.then_some((HardFact::Silent, trouble))
    }

    fn decide(
        &self,
        window: &Window,
        hard: Option<(HardFact, Moment)>,
        indicators: &[IndicatorState],
        events: &[EventState],
        (evidence_ln, confirmed_ln): (f64, f64),
    ) -> Decided {
        let evidence = Evidence {
            tracks: self.pace.indicators(),
            indicators,
            events,
            confirmed_ln,
            onset_of_event: &|event: Event| self.counts.onset(event),
        };
        let causes = explain::causes(&evidence, hard.map(|(fact, _)| fact));
        let onset = hard.map(|(_, moment)| moment.index).or_else(|| {
            let leading = causes.first().and_then(|cause| evidence.onset(&cause.signal));
            leading.or(self.pace.mean().run_start())
        });
        let mut reasons: Vec<String> = causes.iter().take(3).map(|c| format!("{}: {}", c.text, c.mechanism)).collect();
        if hard.is_none() {
            let (evidence, needed) = (evidence_ln.exp(), 1.0 / self.parameters.alpha);
            reasons.push(format!("evidence altogether {} of {}", explain::number(evidence), explain::number(needed)));
            if !causes.iter().any(|c| c.evidence_ln >= confirmed_ln) {
                reasons.extend(self.pace.mean().mean_share().map(|share| {
                    format!("no signal alone is conclusive: on average they use {share:.2} of their margins (P)")
                }));
            }
        }
        reasons.extend(self.single_stable_note());
        Decided { window: window.index, hard: hard.map(|(fact, _)| fact), onset, causes, reasons }
    }

    /// Outcome and reasons while nothing condemned the canary.
    fn undecided(&self, window: &Window, evidence_ln: f64, indicators: &[IndicatorState]) -> (Outcome, Vec<String>) {
        let p = &self.parameters;
        let mut reasons: Vec<String> = self.hard.excused(window.t_ns, p).into_iter().collect();
        let insufficient = self.insufficient(window);
        if !insufficient.is_empty() {
            reasons.splice(0..0, insufficient);
            return (Outcome::InsufficientData, reasons);
        }
        let open = explain::not_shown_healthy(&self.pace, indicators, &self.required());
        let threshold_ln = p.threshold_ln();
        let judged = self.pace.indicators().iter().map(|t| t.bets).max().unwrap_or(0);
        let soaked = judged >= p.soak_windows;
        let mut outcome = Outcome::Inconclusive;
        if open.is_empty() && soaked && evidence_ln < 0.5 * threshold_ln {
            outcome = Outcome::Healthy;
            reasons.push(explain::healthy(&self.pace, self.required().iter().filter(|r| **r).count()));
        } else {
            if evidence_ln >= 0.5 * threshold_ln {
                let leading = explain::leading(indicators);
                reasons.push(format!(
                    "evidence of a regression is growing: {} of {}{leading}",
                    explain::number(evidence_ln.exp()),
                    explain::number(threshold_ln.exp()),
                ));
            }
            if !soaked {
                reasons.push(format!("judged for {judged} of {} windows", p.soak_windows));
            }
            reasons.extend(open);
        }
        reasons.extend(self.single_stable_note());
        (outcome, reasons)
    }

    /// What is missing before the canary can be judged; empty when nothing is.
    fn insufficient(&self, window: &Window) -> Vec<String> {
        let p = &self.parameters;
        let mut reasons = Vec::new();
        let absent = self.instances.canary_absent();
        match self.instances.canary_warmup_left() {
            None => reasons.push("no reading yet on canary".to_owned()),
            Some(_) if absent >= p.silent_windows => {
                reasons.push(format!("the canary has reported nothing for {absent} windows"));
            }
            Some(left) if self.phase == Phase::WarmUp => reasons.push(format!(
                "the canary warms up: window {} of {}",
                p.warmup_windows.saturating_sub(left) + 1,
                p.warmup_windows
            )),
            Some(_) => {}
        }
        let stable = window.stable.iter().filter(|r| instances::reports(r)).count();
        // A window with little work may be merged with up to 60 others before it has readings.
        if self.instances.stable_absent() > 2 * p.silent_windows {
            reasons.push("no stable instance reports: there is nothing to compare with".to_owned());
        }
        if !self.pace.indicators().iter().any(Track::has_any_bet) && self.baseline_windows() < p.minimum_baseline {
            let source =
                if stable == 1 { " (one stable instance: learned from the pair after its warm-up)" } else { "" };
            reasons.push(format!(
                "baseline: {} of {} placebo windows{source}",
                self.baseline_windows(),
                p.minimum_baseline
            ));
        } else if reasons.is_empty() && !self.pace.indicators().iter().any(Track::has_any_bet) {
            reasons.push("no indicator could be compared yet".to_owned());
        }
        reasons
    }

    /// Said whenever the comparison rests on one stable instance: what it cannot see.
    fn single_stable_note(&self) -> Option<String> {
        let rests_on_pair = (0..Indicator::COUNT).any(|i| self.pace.rests_on_pair(i));
        rests_on_pair.then(|| {
            format!(
                "one stable instance: offset and noise were learned from the pair's first {} windows, so a regression that \
                 was there from the start cannot be seen",
                self.parameters.minimum_baseline + self.parameters.initial_windows as u64
            )
        })
    }

    /// Indicators that "healthy" has to cover: those with a reading on either side.
    fn required(&self) -> [bool; Indicator::COUNT] {
        self.seen.map(|s| s.canary || s.stable)
    }

    fn baseline_windows(&self) -> u64 {
        self.pace.indicators().iter().map(|t| t.noise.pairs()).max().unwrap_or(0)
    }

    fn indicator_state(&self, indicator: Indicator, window: &Window, confirmed_ln: f64) -> IndicatorState {
        let i = indicator as usize;
        let track = &self.pace.indicators()[i];
        let side = |readings: &[Reading]| {
            let mean = mean(readings.iter().map(|r| r.values[i]).map(|v| if v.is_finite() { v } else { f64::NAN }));
            mean.is_finite().then_some(mean)
        };
        let effect = track.effect();
        let evidence_ln = self.pace.indicator_evidence(i).ln();
        IndicatorState {
            indicator,
            canary: side(&window.canary),
            stable: side(&window.stable),
            effect: effect.map(|e| e.mean.exp_m1()),
            effect_low: effect.map(|e| (e.mean - e.half_width).exp_m1()),
            effect_high: effect.map(|e| (e.mean + e.half_width).exp_m1()),
            margin: track.noise.is_ready().then(|| track.margin.exp_m1()),
            p: track.p.is_finite().then_some(track.p),
            evidence_ln,
            confirmed: evidence_ln >= confirmed_ln,
            missing: self.missing(i),
        }
    }

    fn missing(&self, i: usize) -> Option<String> {
        let Seen { canary, stable } = self.seen[i];
        let track = &self.pace.indicators()[i];
        match (canary, stable) {
            (false, false) => Some("no reading yet on either side".to_owned()),
            (false, true) => Some("no reading yet on canary".to_owned()),
            (true, false) => Some("no reading yet on stable".to_owned()),
            (true, true) if !track.has_baseline(&self.parameters) => Some(format!(
                "baseline: {} of {} placebo windows",
                track.noise.pairs(),
                self.parameters.minimum_baseline
            )),
            (true, true) => None,
        }
    }
}
