//! What the judge says after a window: the outcome, with its reasons.

use super::{
    advice, environment,
    explain::{self, Evidence},
    hard::Moment,
    instances,
    level::Before,
    load::{self, GROWS_WITH_LOAD},
    observe::{Decided, Judge, Seen, mean},
    pace::{Phase, Track},
    parameters::Missing,
    verdict::{Environment, EventState, HardFact, IndicatorState, Outcome, Sign, Verdict},
};
use crate::window::{Event, Indicator, Reading, Window};

/// Windows with a reading after which a canary that crashed is back: silence is no longer right after it.
const BACK_AFTER: u64 = 5;

impl Judge {
    pub(super) fn verdict(&mut self, window: &Window) -> Verdict {
        let p = &self.parameters;
        let events = self.counts.states();
        let event_evidence = self.counts.e_values();
        let evidence_ln = self.pace.evidence_ln(&event_evidence);
        let weighed: f64 = self.pace.indicators().iter().filter(|t| t.has_data()).map(Track::weight).sum();
        // Without any signal yet there is nothing to share alpha among, and nothing is confirmed by that.
        let present = (weighed + event_evidence.len() as f64).max(1.0);
        let confirmed_ln = libm::log(self.pace.confirmed_at(present));
        let indicators: Vec<IndicatorState> =
            Indicator::ALL.into_iter().map(|i| self.indicator_state(i, window, present)).collect();

        let signs = self.signs(&indicators);
        if self.decided.is_none() {
            let hard = self.hard_fact(window);
            let proven = evidence_ln >= p.threshold_ln() || self.critical_condemns();
            let found = (evidence_ln, confirmed_ln);
            let explained = || self.is_explained(&signs, &indicators, &events, confirmed_ln);
            let explained = (proven || self.held) && explained();
            // A canary that hangs has no reading any more, and what it still does speaks for itself.
            let may_end_hold = self.may_end_hold() || events.iter().any(|event| speaks(event, confirmed_ln));
            if hard.is_some() || (proven && !explained && !self.held) {
                self.decided = Some(self.decide(window, hard, &signs, &indicators, &events, found));
            } else if explained {
                self.held = true;
                // What is usual is what was so before it began, for as long as it lasts.
                self.before = std::array::from_fn(|i| self.stable_before(i));
            } else if self.held && may_end_hold {
                // What was bet on while it lasted says nothing about the version: it has to be found worse anew.
                self.held = false;
                self.before = [None; Indicator::COUNT];
                self.pace.drop_evidence();
                self.counts.drop_evidence();
            }
        }
        let environment = Environment { holds: self.held && self.decided.is_none(), signs };
        let (outcome, reasons, healthy_at_load) = match &self.decided {
            Some(decided) => (Outcome::Regressed, decided.reasons.clone(), None),
            None => self.undecided(window, evidence_ln, &indicators, &environment),
        };
        let decided = self.decided.as_ref();
        let finite = |x: f64| x.is_finite().then_some(x);
        let has_baseline = self.baseline_windows() > 0;
        let (stretches, promotion) = (self.stretches(), self.promotion());
        let forecast = self.growth.forecast().copied();
        let causes = decided.map_or(Vec::new(), |d| d.causes.clone());
        let hard = decided.and_then(|d| d.hard);
        let recommendations = advice::recommend(advice::Case {
            outcome,
            hard,
            causes: &causes,
            environment: &environment,
            forecast: forecast.as_ref(),
            stretches: &stretches,
            promotion: promotion.as_ref(),
            reasons: &reasons,
            healthy_at_load,
            evidence_share: evidence_ln / self.parameters.threshold_ln(),
            canary_cpus: self.surroundings.canary_cpus(),
            held_back_by: self.surroundings.held_back_by(),
            window,
            mount: &self.mount,
        });
        Verdict {
            outcome,
            window: window.index,
            evidence_ln,
            threshold_ln: self.parameters.threshold_ln(),
            p_canary: finite(self.pace.mean().p).filter(|_| has_baseline),
            p_stable: self.pace.p_stable().filter(|_| has_baseline),
            indicators,
            events,
            hard,
            onset: decided.and_then(|d| d.onset),
            causes,
            reasons,
            healthy_at_load,
            environment,
            forecast,
            recommendations,
            stretches,
            promotion,
            baseline_windows: self.baseline_windows(),
            judged_windows: self.judged_windows,
        }
    }

    /// Whether an indicator that is marked as critical suffices alone.
    fn critical_condemns(&self) -> bool {
        let p = &self.parameters;
        let condemns = |i: usize| libm::log(self.pace.indicator_evidence(i)) >= p.threshold_ln();
        p.indicators.iter().enumerate().any(|(i, set)| set.critical && !set.mute && condemns(i))
    }

    /// What around the deployment makes indicators worse: the machine, limits, load, and stable's own changes.
    fn signs(&self, indicators: &[IndicatorState]) -> Vec<Sign> {
        let p = &self.parameters;
        let stable_worse = indicators.iter().enumerate().filter_map(|(i, state)| {
            let track = &self.pace.indicators()[i];
            if !explain::counts(state, track) {
                return None;
            }
            let before = self.stable_before(i)?;
            // Once the canary is no worse any more there is nothing left to explain.
            let effect = track.effect()?.mean;
            if effect <= track.margin {
                return None;
            }
            let rise = self.levels[i].rise(&before);
            environment::stable_worse(state.indicator, rise / before.deviation, rise, effect, p)
        });
        stable_worse.chain(self.surroundings.signs(p)).collect()
    }

    /// What stable was like before the canary's change in an indicator began.
    fn stable_before(&self, i: usize) -> Option<Before> {
        let onset = || self.pace.indicators()[i].run_start();
        self.before[i].filter(Before::is_known).or_else(|| self.levels[i].before(onset()?))
    }

    /// Whether the environment explains each signal that speaks against the canary.
    fn is_explained(
        &self,
        signs: &[Sign],
        indicators: &[IndicatorState],
        events: &[EventState],
        confirmed_ln: f64,
    ) -> bool {
        let mut speaking =
            indicators.iter().zip(self.pace.indicators()).filter(|(s, t)| explain::counts(s, t)).peekable();
        speaking.peek().is_some()
            && !events.iter().any(|event| speaks(event, confirmed_ln))
            && speaking.all(|(s, _)| signs.iter().any(|sign| sign.explains.contains(&s.indicator)))
    }

    /// Whether anything can end a hold in this window. One without a reading says nothing new of what is held, unless there was none
    /// for long.
    fn may_end_hold(&self) -> bool {
        self.pace.silent_windows() == 0 || self.pace.all_silent_for().is_some()
    }

    fn hard_fact(&self, window: &Window) -> Option<(HardFact, Moment)> {
        let p = &self.parameters;
        if let Some(fact) = self.hard.condemning(window, p) {
            return Some(fact);
        }
        // Silence alone may be a scale-down; silence after a crash or an OOM kill is not.
        let silent = self.phase == Phase::Judged && self.instances.canary_absent() >= p.silent_windows;
        let trouble = self.hard.latest_trouble(p).filter(|_| silent)?;
        // Readings that are merged come seldom, so that few of them may be of a long time.
        let is_back = self.hard.readings_since(trouble) > BACK_AFTER
            || self.last_canary_window > trouble.index + p.silent_windows;
        (!is_back).then_some((HardFact::Silent, trouble))
    }

    fn decide(
        &self,
        window: &Window,
        hard: Option<(HardFact, Moment)>,
        signs: &[Sign],
        indicators: &[IndicatorState],
        events: &[EventState],
        (evidence_ln, confirmed_ln): (f64, f64),
    ) -> Decided {
        let evidence = Evidence {
            window: window.index,
            stable: std::array::from_fn(|i| libm::exp(self.levels[i].recent_mean())),
            tracks: self.pace.indicators(),
            indicators,
            events,
            confirmed_ln,
            signs,
            forecast: self.growth.forecast(),
            stretches: &self.stretches(),
            onset_of_event: &|event: Event| self.counts.onset(event),
            jumps: std::array::from_fn(|i| {
                let jumps = self.pace.is_spread(i);
                jumps.then(|| self.pace.spread(i).run_start().unwrap_or(window.index))
            }),
        };
        let causes = explain::causes(&evidence, hard.map(|(fact, _)| fact));
        let onset = hard.map(|(_, moment)| moment.index).or_else(|| {
            let leading = causes.first().and_then(|cause| evidence.onset(&cause.signal));
            leading.or(self.pace.mean().run_start())
        });
        let mut reasons: Vec<String> = causes.iter().take(3).map(|c| format!("{}: {}", c.text, c.mechanism)).collect();
        if hard.is_none() {
            let (evidence, needed) = (libm::exp(evidence_ln), 1.0 / self.parameters.alpha);
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

    /// Outcome and reasons while nothing condemned the canary, and the load at which it is healthy, where that is all that keeps it
    /// from being called so.
    fn undecided(
        &self,
        window: &Window,
        evidence_ln: f64,
        indicators: &[IndicatorState],
        environment: &Environment,
    ) -> (Outcome, Vec<String>, Option<f64>) {
        let p = &self.parameters;
        let mut reasons: Vec<String> = self.hard.excused(window.t_ns, p).into_iter().collect();
        let insufficient = self.insufficient(window);
        if !insufficient.is_empty() {
            reasons.splice(0..0, insufficient);
            // Without a canary this is what there is to say.
            reasons.extend(self.promotion().map(|p| p.text));
            return (Outcome::InsufficientData, reasons, None);
        }
        if environment.holds {
            let mut held: Vec<String> =
                environment.signs.iter().map(|s| format!("environment, not the version: {}", s.text)).collect();
            if held.is_empty() {
                held.push(
                    "environment, not the version: what explained it is not seen any more; the next reading tells whether \
                     the canary is still worse"
                        .to_owned(),
                );
            }
            held.push(format!(
                "evidence {} of {} is not held against the canary while this lasts, and dropped when it ends",
                explain::number(libm::exp(evidence_ln)),
                explain::number(libm::exp(p.threshold_ln()))
            ));
            held.append(&mut reasons);
            return (Outcome::Inconclusive, held, None);
        }
        let silent = self.nobody_compared();
        // What was not compared at all was not compared at little load.
        let (load, little) = self.little_load().filter(|_| silent.is_none()).unzip();
        let open = silent.map_or_else(
            || explain::not_shown_healthy(&self.pace, indicators, &self.required()),
            |silent| vec![silent],
        );
        let threshold_ln = p.threshold_ln();
        let judged = self.pace.indicators().iter().map(|t| t.bets()).max().unwrap_or(0);
        let soaked = judged >= p.soak_windows;
        let is_shown = open.is_empty() && soaked && evidence_ln < 0.5 * threshold_ln;
        if is_shown {
            let covered = self.required().iter().filter(|r| **r).count();
            let shown = explain::healthy(&self.pace, covered, self.judged_windows);
            match little {
                Some(little) => reasons.extend([little, format!("at that load {shown}")]),
                None => reasons.push(shown),
            }
        } else {
            if evidence_ln >= 0.5 * threshold_ln {
                let leading = explain::leading(indicators);
                reasons.push(format!(
                    "evidence of a regression is growing: {} of {}{leading}",
                    explain::number(libm::exp(evidence_ln)),
                    explain::number(libm::exp(threshold_ln)),
                ));
            }
            if !soaked {
                reasons.push(format!("judged for {judged} of {} windows", p.soak_windows));
            }
            reasons.extend(little);
            reasons.extend(open);
        }
        reasons.extend(self.single_stable_note());
        let outcome = if is_shown && load.is_none() { Outcome::Healthy } else { Outcome::Inconclusive };
        (outcome, reasons, load.filter(|_| is_shown))
    }

    /// What is missing before the canary can be judged; empty when nothing is.
    fn insufficient(&self, window: &Window) -> Vec<String> {
        let p = &self.parameters;
        let mut reasons = Vec::new();
        let absent = self.instances.canary_absent();
        match self.instances.canary_warmup_left() {
            None if window.canary.is_empty() => reasons.push("there is no canary yet".to_owned()),
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
        let unclean = self.instances.unclean();
        if unclean >= p.silent_windows {
            reasons.push(format!("data was lost in each of the last {unclean} windows: they are not judged"));
        }
        reasons.extend(self.traffic.one_sided(p));
        let stable = window.stable.iter().filter(|r| instances::reports(r)).count();
        // A window with little work may be merged with up to 60 others before it has readings.
        if self.instances.stable_absent() > 2 * p.silent_windows {
            reasons.push("no stable instance reports: there is nothing to compare with".to_owned());
        }
        for indicator in Indicator::ALL {
            let i = indicator as usize;
            let set = &p.indicators[i];
            if set.missing == Missing::Insufficient && !set.mute && self.phase == Phase::Judged {
                reasons.extend(self.missing(i).map(|why| format!("{}: {why}", indicator.title())));
            }
        }
        if !self.pace.indicators().iter().any(Track::has_any_bet) && self.baseline_windows() < p.minimum_baseline {
            let source = if stable == 1 { " (one stable instance: from the pair, after its warm-up)" } else { "" };
            let learned = self.baseline_windows();
            // Nothing can be learned without a canary, or not yet: that it is gone is told already.
            if learned > 0 || !self.canary_is_gone() {
                reasons.push(format!("{}{source}", explain::learned(learned, p.minimum_baseline)));
            }
        } else if reasons.is_empty() && !self.pace.indicators().iter().any(Track::has_any_bet) {
            reasons.push("no indicator could be compared yet".to_owned());
        }
        reasons
    }

    /// What was healthy once is not said of a canary of which nothing was compared for long, whatever its indicators' policies.
    fn nobody_compared(&self) -> Option<String> {
        let windows = self.pace.all_silent_for()?;
        let why = match self.instances.canary_warmup_left() {
            Some(1..) => ": each of its instances is in its warm-up, as those are that restart again and again",
            _ => "",
        };
        Some(format!("nothing of the canary could be compared for {windows} windows{why}"))
    }

    /// The canary's load per instance over stable's, and in words what is not known for that, where so little load was compared.
    fn little_load(&self) -> Option<(f64, String)> {
        let (ratio, required) = (self.load.little()?, self.required());
        let concerned: Vec<Indicator> = GROWS_WITH_LOAD.into_iter().filter(|i| required[*i as usize]).collect();
        (!concerned.is_empty()).then(|| (ratio, load::in_words(ratio, &concerned)))
    }

    /// Said whenever the comparison rests on one stable instance: what it cannot see.
    fn single_stable_note(&self) -> Option<String> {
        let deviation = (0..Indicator::COUNT).filter_map(|i| self.pace.rests_on_pair(i)).reduce(f64::max)?;
        Some(format!(
            "one stable instance: offset and noise were learned from the pair's first {} windows, so a regression that \
             was there from the start and is smaller than about {:.0} % cannot be seen",
            self.parameters.minimum_baseline + self.parameters.initial_windows as u64,
            100.0 * libm::expm1(self.parameters.margin_multiplier * deviation)
        ))
    }

    /// Indicators that "healthy" has to cover: those with a reading on either side, unless the configuration does without.
    fn required(&self) -> [bool; Indicator::COUNT] {
        std::array::from_fn(|i| {
            let (Seen { canary, stable }, set) = (self.seen[i], &self.parameters.indicators[i]);
            let dispensable = set.mute || (set.missing == Missing::Ignore && self.missing(i).is_some());
            (canary || stable) && !dispensable
        })
    }

    fn canary_is_gone(&self) -> bool {
        self.instances.canary_absent() >= self.parameters.silent_windows
    }

    fn baseline_windows(&self) -> u64 {
        self.pace.indicators().iter().map(|t| t.noise.baseline_pairs()).max().unwrap_or(0)
    }

    fn indicator_state(&self, indicator: Indicator, window: &Window, present: f64) -> IndicatorState {
        let i = indicator as usize;
        let track = &self.pace.indicators()[i];
        let side = |readings: &[Reading]| {
            let mean = mean(readings.iter().map(|r| r.values[i]).map(|v| if v.is_finite() { v } else { f64::NAN }));
            mean.is_finite().then_some(mean)
        };
        // Worse is up in here; the reader sees which way the indicator itself went.
        let sign = self.parameters.indicators[i].direction.sign();
        let effect = track.effect();
        let bounds = effect.map(|e| {
            let ends = [e.mean - e.half_width, e.mean + e.half_width].map(|x| libm::expm1(sign * x));
            (ends[0].min(ends[1]), ends[0].max(ends[1]))
        });
        let evidence_ln = libm::log(self.pace.indicator_evidence(i));
        IndicatorState {
            indicator,
            canary: side(&window.canary),
            stable: side(&window.stable),
            effect: effect.map(|e| libm::expm1(sign * e.mean)),
            effect_low: bounds.map(|(low, _)| low),
            effect_high: bounds.map(|(_, high)| high),
            margin: track.has_margin().then(|| libm::expm1(track.margin)),
            p: track.p.is_finite().then_some(track.p),
            evidence_ln,
            // Nothing that weighs nothing is ever confirmed.
            confirmed: track.weight() > 0.0
                && evidence_ln >= libm::log(self.pace.confirmed_at((present / track.weight()).max(1.0))),
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
            (true, true) if !track.has_baseline(&self.parameters) => Some(if self.canary_is_gone() {
                "the canary's readings ended before it could be compared".to_owned()
            } else {
                explain::learned(track.noise.baseline_pairs(), self.parameters.minimum_baseline)
            }),
            (true, true) => {
                let silent = self.pace.silent_for(i);
                silent.map(|windows| format!("no reading of both sides for {windows} windows"))
            }
        }
    }
}

/// Whether events of this kind speak against the canary, whatever is around it.
fn speaks(event: &EventState, confirmed_ln: f64) -> bool {
    !event.missing && event.evidence_ln >= confirmed_ln
}
