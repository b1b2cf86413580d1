//! From windows to verdicts: who takes part, what the comparison says, and what follows from it.

use super::{
    counts::Counts,
    explain::{self, Evidence},
    hard::{HardFacts, Moment},
    instances::{self, Changes, Instances, Part},
    level::Level,
    pace::{Differences, Frame, Pace, Phase, StableSide, Track},
    parameters::Parameters,
    verdict::{Cause, EventState, HardFact, IndicatorState, Outcome, Verdict},
};
use crate::window::{Event, Indicator, Reading, Window};

/// Compares the canary of one deployment with its stable instances, window by window.
///
/// Same windows in, same verdicts out, bit for bit. A canary that was condemned stays condemned until
/// [`Judge::reset_evidence`].
#[derive(Clone, Debug)]
pub struct Judge {
    parameters: Parameters,
    pace: Pace,
    instances: Instances,
    counts: Counts,
    hard: HardFacts,
    levels: [Level; Indicator::COUNT],
    seen: [Seen; Indicator::COUNT],
    phase: Phase,
    judged_windows: u64,
    /// Index of the last window with a canary reading.
    last_canary_window: u64,
    decided: Option<Decided>,
}

/// Which sides ever had a reading of an indicator.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    canary: bool,
    stable: bool,
}

/// What condemned the canary, as it was at that moment.
#[derive(Clone, Debug)]
struct Decided {
    window: u64,
    hard: Option<HardFact>,
    onset: Option<u64>,
    causes: Vec<Cause>,
    reasons: Vec<String>,
}

impl Judge {
    pub fn new(parameters: Parameters) -> Judge {
        let tolerances = parameters.indicators.map(|i| i.tolerance);
        Judge {
            pace: Pace::new(parameters.clone(), &tolerances),
            parameters,
            instances: Instances::default(),
            counts: Counts::default(),
            hard: HardFacts::default(),
            levels: Default::default(),
            seen: Default::default(),
            phase: Phase::Baseline,
            judged_windows: 0,
            last_canary_window: 0,
            decided: None,
        }
    }

    /// Takes one window in and says what is known after it. Windows come in order of their index.
    pub fn observe(&mut self, window: &Window) -> Verdict {
        let changes = self.instances.observe(window, &self.parameters);
        self.apply(&changes);
        self.phase = match (self.phase, self.instances.canary_warmup_left()) {
            (Phase::Judged, _) | (_, Some(0)) => Phase::Judged,
            (_, Some(_)) => Phase::WarmUp,
            (phase, None) => phase,
        };
        self.hard.observe(window);
        if window.canary.iter().any(instances::reports) {
            self.last_canary_window = window.index;
        }
        if self.phase == Phase::Judged {
            self.counts.observe(window, &self.parameters);
        }
        if window.clean {
            self.compare(window);
        }
        self.verdict(window)
    }

    /// For another version in the canary's place: drops evidence and the decision, keeps what was learned about noise.
    pub fn reset_evidence(&mut self) {
        self.instances.forget_canary();
        self.start_over();
    }

    fn start_over(&mut self) {
        self.pace.reset_evidence();
        self.counts = Counts::default();
        self.hard = HardFacts::default();
        self.seen.iter_mut().for_each(|s| s.canary = false);
        self.phase = Phase::Baseline;
        self.judged_windows = 0;
        self.decided = None;
    }

    /// How far the stable instances' own mean level of an indicator (as a logarithm) in the last 10 windows is above its
    /// long-run level, in standard deviations of that series. `None` before there is a long run.
    pub fn stable_shift(&self, indicator: Indicator) -> Option<f64> {
        self.levels[indicator as usize].shift()
    }

    fn apply(&mut self, changes: &Changes) {
        if changes.another_canary {
            self.start_over();
        }
        changes.freed.iter().for_each(|series| self.pace.free(*series));
        if changes.membership {
            self.pace.soften();
        }
    }

    /// Feeds the comparison with one clean window.
    fn compare(&mut self, window: &Window) {
        let p = &self.parameters;
        let canary: Vec<&Reading> = window.canary.iter().filter(|r| self.instances.canary_is_active(r)).collect();
        let warming: Vec<&Reading> = window.canary.iter().collect();
        let stable: Vec<(&Reading, Part, Option<usize>)> = window
            .stable
            .iter()
            .map(|r| {
                let (part, slot) = self.instances.stable_part(r, p);
                (r, part, slot)
            })
            .collect();

        let mut differences = [Differences::MISSING; Indicator::COUNT];
        for indicator in Indicator::ALL {
            let i = indicator as usize;
            let epsilon = p.indicators[i].epsilon;
            let ln = |r: &Reading| {
                let value = r.values[i];
                if value >= 0.0 && value.is_finite() { (value + epsilon).ln() } else { f64::NAN }
            };
            let (mut active, mut settled) = (StableSide::default(), StableSide::default());
            for (reading, part, slot) in &stable {
                match part {
                    Part::Active => active.add(*slot, ln(reading)),
                    Part::Settling => {}
                    Part::SitsOut => continue,
                }
                settled.add(*slot, ln(reading));
            }
            // During the first warm-up the canary's steps are followed, not bet on.
            let side = if self.phase == Phase::Judged { &canary } else { &warming };
            differences[i] = active.pair(mean(side.iter().map(|r| ln(r))));
            let settling = settled.pair(f64::NAN);
            for (_, _, slot) in stable.iter().filter(|(_, part, _)| *part == Part::Settling) {
                if let Some(slot) = slot {
                    self.pace.prime(i, *slot, settling.series[*slot]);
                }
            }
            self.levels[i].observe(active.mean());
            self.seen[i].stable |= window.stable.iter().any(|r| r.values[i].is_finite());
            self.seen[i].canary |= window.canary.iter().any(|r| r.values[i].is_finite());
        }
        let frame = Frame {
            index: window.index,
            differences: &differences,
            canary_instances: if self.phase == Phase::Judged { canary.len() } else { warming.len() },
            stable_instances: stable.iter().filter(|(_, part, _)| *part == Part::Active).count(),
            phase: self.phase,
        };
        self.pace.observe(&frame);
        if self.phase == Phase::Judged && differences.iter().any(|d| !d.canary.is_nan()) {
            self.judged_windows += 1;
        }
    }

    fn verdict(&mut self, window: &Window) -> Verdict {
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
                self.decided = Some(self.decide(window, hard, &indicators, &events, confirmed_ln));
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
        confirmed_ln: f64,
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
        if hard.is_none() && !indicators.iter().any(|i| i.confirmed) {
            reasons.extend(self.pace.mean().mean_share().map(|share| {
                format!("no signal alone is conclusive: together they use {share:.2} of their margins (P)")
            }));
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
        if stable == 0 {
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

    /// Stable instances that are remembered: those seen lately.
    pub fn known_stable(&self) -> usize {
        self.instances.known_stable()
    }

    /// Index of the window at which the canary was condemned.
    pub fn decided_at(&self) -> Option<u64> {
        self.decided.as_ref().map(|d| d.window)
    }
}

/// Mean of what is not NaN; NaN if nothing is.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.filter(|v| !v.is_nan()).fold((0.0, 0.0), |(s, n), v| (s + v, n + 1.0));
    sum / n
}
