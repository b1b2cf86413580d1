//! Verdicts in words with numbers: causes, the mechanism they point to, and what is still open.

use super::{
    pace::{Pace, Track},
    verdict::{Cause, EventState, HardFact, IndicatorState},
};
use crate::window::{Event, Indicator};

/// What the causes are found from.
pub struct Evidence<'a> {
    pub tracks: &'a [Track],
    pub indicators: &'a [IndicatorState],
    pub events: &'a [EventState],
    pub confirmed_ln: f64,
    pub onset_of_event: &'a dyn Fn(Event) -> Option<u64>,
}

/// What an indicator does at the moment of the decision. Missing is neither up nor flat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    Up,
    Flat,
    Unknown,
}

impl Evidence<'_> {
    fn course(&self, indicator: Indicator) -> Course {
        let i = indicator as usize;
        if self.indicators[i].confirmed {
            return Course::Up;
        }
        match self.tracks[i].effect().filter(|_| self.tracks[i].bets > 0) {
            Some(_) if contributes(&self.indicators[i], &self.tracks[i]) => Course::Up,
            Some(_) => Course::Flat,
            None => Course::Unknown,
        }
    }

    /// Window at which the evidence of a signal began.
    pub fn onset(&self, signal: &str) -> Option<u64> {
        if let Some(indicator) = Indicator::ALL.into_iter().find(|i| i.name() == signal) {
            return self.tracks[indicator as usize].run_start();
        }
        Event::ALL.into_iter().find(|e| e.name() == signal).and_then(|e| (self.onset_of_event)(e))
    }

    fn memory(&self) -> Course {
        use Course::*;
        match (self.course(Indicator::MemoryStall), self.course(Indicator::MemoryInUse)) {
            (Up, _) | (_, Up) => Up,
            (Flat, _) | (_, Flat) => Flat,
            _ => Unknown,
        }
    }

    fn mechanism(&self, indicator: Indicator) -> &'static str {
        use Course::*;
        let cpu = self.course(Indicator::CpuPerWork);
        let queue = self.course(Indicator::RunQueueWait);
        let bytes = self.course(Indicator::BytesPerWork);
        match indicator {
            Indicator::CpuPerWork if self.course(Indicator::MemoryStall) == Up => {
                "reclaims memory on each request: the working set outgrows its memory"
            }
            Indicator::CpuPerWork if bytes == Up => "more work per request, with more bytes each",
            Indicator::CpuPerWork if queue == Up => "more work per request, until it waits for a CPU",
            Indicator::CpuPerWork => "more work per request",
            Indicator::RunQueueWait => "waits for a CPU",
            Indicator::MemoryStall => "working set outgrows its memory",
            Indicator::MemoryInUse if self.tracks[indicator as usize].is_growing() => "grows: leak",
            Indicator::MemoryInUse if self.course(Indicator::MemoryStall) == Up => "working set outgrows its memory",
            Indicator::MemoryInUse => "larger working set",
            Indicator::BytesPerWork => "larger responses or retries",
            Indicator::TurnaroundMean | Indicator::TurnaroundP95 => match (cpu, queue, self.memory(), bytes) {
                (_, _, Up, _) => "slower while it stalls on or takes more memory",
                (_, Up, _, _) => "slower while it waits for a CPU",
                (Up, _, _, _) => "slower because each request takes more CPU",
                (_, _, _, Up) => "slower with larger responses or retries",
                (Flat, Flat, Flat, Flat) => "waits on something outside: a dependency, a lock or a sleep",
                _ => "slower, and what would tell why is missing",
            },
        }
    }
}

/// More than the margin over the last windows, and not by chance: the interval is above zero and the bets won.
fn contributes(state: &IndicatorState, track: &Track) -> bool {
    state.evidence_ln > 0.0 && track.effect().is_some_and(|e| e.mean > track.margin && e.mean > e.half_width)
}

/// Causes by evidence, the strongest first: what is confirmed or uses more than its margin now, and at least one.
pub fn causes(evidence: &Evidence, hard: Option<HardFact>) -> Vec<Cause> {
    let mut found: Vec<(bool, Cause)> = Vec::new();
    for (state, track) in evidence.indicators.iter().zip(evidence.tracks).filter(|(_, t)| t.bets > 0) {
        let counts = state.confirmed || contributes(state, track);
        let cause = Cause {
            signal: state.indicator.name().to_owned(),
            text: indicator_text(state, track),
            mechanism: evidence.mechanism(state.indicator).to_owned(),
            evidence_ln: state.evidence_ln,
        };
        found.push((counts, cause));
    }
    for state in evidence.events.iter().filter(|e| !e.missing) {
        let counts = state.evidence_ln >= evidence.confirmed_ln;
        let cause = Cause {
            signal: state.event.name().to_owned(),
            text: format!(
                "{}: {} on canary, {} on stable since the warm-up, evidence {}",
                state.event.title(),
                state.canary,
                state.stable,
                number(state.evidence_ln.exp())
            ),
            mechanism: event_mechanism(state.event).to_owned(),
            evidence_ln: state.evidence_ln,
        };
        found.push((counts, cause));
    }
    found.sort_by(|a, b| b.1.evidence_ln.total_cmp(&a.1.evidence_ln));
    let fact = hard.map(hard_cause);
    // Without a fact there is at least one cause: the one with the most evidence.
    let strongest = usize::from(fact.is_none());
    let rest =
        found.into_iter().enumerate().filter(|(at, (counts, _))| *counts || *at < strongest).map(|(_, (_, c))| c);
    fact.iter().cloned().chain(rest.filter(|c| fact.as_ref().is_none_or(|f| f.signal != c.signal))).collect()
}

/// A fact has no evidence in the statistical sense: 0 of it.
fn hard_cause(fact: HardFact) -> Cause {
    let (signal, text, mechanism) = match fact {
        HardFact::OomKill => (
            "oom_kills",
            "the kernel killed a canary process for want of memory, and none of stable's",
            "exceeds its memory limit",
        ),
        HardFact::CrashLoop => (
            "crashes",
            "the canary crashed at least twice within 5 minutes, and stable did not",
            "dies from a fault signal",
        ),
        HardFact::Silent => {
            ("silent", "the canary reports nothing since it crashed or was OOM-killed", "did not come back")
        }
    };
    Cause { signal: signal.to_owned(), text: text.to_owned(), mechanism: mechanism.to_owned(), evidence_ln: 0.0 }
}

fn event_mechanism(event: Event) -> &'static str {
    match event {
        Event::Crashes => "dies from a fault signal",
        Event::ErrorExits => "gives up with an error",
        Event::OomKills => "exceeds its memory limit",
        Event::ResetsOut => "connections broken off",
        Event::Retransmits => "packets lost or answered late on the way",
    }
}

/// "CPU per turnaround +31 % (27 to 36 %) since window 412, evidence 1 240, margin 4.1 %".
fn indicator_text(state: &IndicatorState, track: &Track) -> String {
    let mut text = state.indicator.title().to_owned();
    if let (Some(effect), Some(low), Some(high)) = (state.effect, state.effect_low, state.effect_high) {
        text += &format!(" {:+.0} % ({:.0} to {:.0} %)", 100.0 * effect, 100.0 * low, 100.0 * high);
    }
    if let Some(start) = track.run_start() {
        text += &format!(" since window {start}");
    }
    text += &format!(", evidence {}", number(state.evidence_ln.exp()));
    if let Some(margin) = state.margin {
        text += &format!(", margin {:.1} %", 100.0 * margin);
    }
    text
}

/// ", most of all in CPU per turnaround +31 %": the indicator with the most evidence.
pub fn leading(indicators: &[IndicatorState]) -> String {
    indicators
        .iter()
        .filter(|s| s.effect.is_some())
        .max_by(|a, b| a.evidence_ln.total_cmp(&b.evidence_ln))
        .map(|s| format!(", most of all in {} {:+.0} %", s.indicator.title(), 100.0 * s.effect.unwrap_or(0.0)))
        .unwrap_or_default()
}

/// One line per required indicator that is not shown to be below its healthy margin.
pub fn not_shown_healthy(pace: &Pace, indicators: &[IndicatorState], required: &[bool]) -> Vec<String> {
    let open = |(i, state): (usize, &IndicatorState)| {
        if !required[i] || (pace.is_healthy(i) && state.missing.is_none()) {
            return None;
        }
        let title = state.indicator.title();
        let track = &pace.indicators()[i];
        Some(match (&state.missing, state.effect) {
            (Some(missing), _) => format!("{title}: {missing}"),
            (None, Some(effect)) => format!(
                "{title} {:+.0} %: not yet shown to be below {:.0} % (evidence {} of {})",
                100.0 * effect,
                100.0 * track.margin_healthy.exp_m1(),
                number(track.evidence_healthy()),
                number(1.0 / pace.parameters().beta)
            ),
            (None, None) => format!("{title}: no reading in the last windows"),
        })
    };
    indicators.iter().enumerate().filter_map(open).collect()
}

/// Why the canary is healthy.
pub fn healthy(pace: &Pace, indicators: usize) -> String {
    let worst = pace.indicators().iter().filter(|t| t.bets > 0).map(|t| t.margin_healthy.exp_m1()).fold(0.0, f64::max);
    format!(
        "all {indicators} indicators are shown to be within their healthy margins (the widest {:.0} %, error {:.0} % each) \
         after {} windows",
        100.0 * worst,
        100.0 * pace.parameters().beta,
        pace.age()
    )
}

/// Two digits below ten, whole numbers with a thin gap by thousands above, powers of ten when huge.
pub fn number(x: f64) -> String {
    if x < 10.0 {
        return format!("{x:.1}");
    }
    if x >= 1e6 {
        return format!("{x:.0e}");
    }
    let digits = format!("{x:.0}");
    match digits.len().checked_sub(3) {
        Some(head) if head > 0 => format!("{} {}", &digits[..head], &digits[head..]),
        _ => digits,
    }
}
