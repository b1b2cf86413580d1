//! Verdicts in words with numbers: causes, the mechanism they point to, and what is still open.

use super::{
    pace::{Pace, Track},
    verdict::{Cause, EventState, Forecast, HardFact, IndicatorState, Sign, SignKind, Stretch},
};
use crate::{
    targets::Role,
    window::{Event, Indicator},
};

/// Share of the rise in turnaround that CPU per turnaround has to make up to be its reason.
const CPU_SHARE: f64 = 0.3;
/// The same for one run-queue wait: a turnaround may hold several.
const WAIT_SHARE: f64 = 0.05;

/// The same for one answer of a dependency, of which a turnaround may wait for several.
const DEPENDENCY_SHARE: f64 = 0.1;

/// A change that is this many times another one is not its consequence.
const OUTWEIGHS: f64 = 3.0;
/// Evidence (as a logarithm, of ten) below which a root is not named before its symptom, unless all of its interval is beyond its
/// margin.
const ROOT_EVIDENCE_LN: f64 = 2.3;

/// What the causes are found from.
pub struct Evidence<'a> {
    /// The latest window.
    pub window: u64,
    /// By indicator: what stable's readings were in the last windows that had any, with what is added to them before the logarithm, in its
    /// unit; NaN where that is not known.
    pub stable: [f64; Indicator::COUNT],
    pub tracks: &'a [Track],
    pub indicators: &'a [IndicatorState],
    pub events: &'a [EventState],
    pub confirmed_ln: f64,
    pub signs: &'a [Sign],
    pub forecast: Option<&'a Forecast>,
    pub stretches: &'a [Stretch],
    pub onset_of_event: &'a dyn Fn(Event) -> Option<u64>,
    /// By indicator: since which window it jumps more than stable's, where its evidence comes from that and not from its level.
    pub jumps: [Option<u64>; Indicator::COUNT],
}

/// What an indicator does at the moment of the decision. Missing is neither up nor flat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    Up,
    Flat,
    Unknown,
}

impl Course {
    /// Of two of a kind: up where one is, unknown where both are.
    fn or(self, other: Course) -> Course {
        match (self, other) {
            (Course::Up, _) | (_, Course::Up) => Course::Up,
            (Course::Flat, _) | (_, Course::Flat) => Course::Flat,
            _ => Course::Unknown,
        }
    }
}

impl Evidence<'_> {
    fn course(&self, indicator: Indicator) -> Course {
        let i = indicator as usize;
        if self.indicators[i].confirmed {
            return Course::Up;
        }
        match self.tracks[i].effect().filter(|_| self.tracks[i].bets() > 0) {
            Some(_) if contributes(&self.indicators[i], &self.tracks[i]) => Course::Up,
            // Beyond its margin, and so noisy that it may be chance: that rules out nothing.
            Some(effect) if effect.mean > self.tracks[i].margin => Course::Unknown,
            Some(_) => Course::Flat,
            None => Course::Unknown,
        }
    }

    /// Whether all of the interval of its effect is beyond its margin.
    fn is_clear(&self, indicator: Indicator) -> bool {
        let track = &self.tracks[indicator as usize];
        track.effect().is_some_and(|effect| effect.mean - effect.half_width > track.margin)
    }

    /// Window at which the evidence of a signal began.
    pub fn onset(&self, signal: &str) -> Option<u64> {
        if let Some(indicator) = Indicator::ALL.into_iter().find(|i| i.name() == signal) {
            return self.jumps[indicator as usize].or(self.tracks[indicator as usize].run_start());
        }
        Event::ALL.into_iter().find(|e| e.name() == signal).and_then(|e| (self.onset_of_event)(e))
    }

    fn memory(&self) -> Course {
        self.course(Indicator::MemoryStall).or(self.course(Indicator::MemoryInUse))
    }

    /// Waiting for a CPU, in the mean or in the tail.
    fn queue(&self) -> Course {
        self.course(Indicator::RunQueueWait).or(self.course(Indicator::RunQueueWaitP95))
    }

    /// The same, by enough to have made the turnaround longer.
    fn queue_where_enough(&self) -> Course {
        let enough = |i: Indicator| self.where_enough(self.course(i), i, WAIT_SHARE);
        enough(Indicator::RunQueueWait).or(enough(Indicator::RunQueueWaitP95))
    }

    /// An indicator in nanoseconds that rose by too little to have made the turnaround this much longer counts as flat, and one that
    /// is too noisy to tell where even the end of its interval is too little: a mean is held against the mean, a tail against the
    /// tail.
    fn where_enough(&self, course: Course, indicator: Indicator, share: f64) -> Course {
        let whole = match indicator {
            Indicator::RunQueueWaitP95 => Indicator::TurnaroundP95,
            _ => Indicator::TurnaroundMean,
        };
        let state = &self.indicators[indicator as usize];
        let part = match course {
            Course::Up => state.effect,
            Course::Unknown => state.effect_high,
            Course::Flat => None,
        };
        match (self.rise(indicator, part), self.rise(whole, self.indicators[whole as usize].effect)) {
            (Some(part), Some(whole)) if part < share * whole => Course::Flat,
            _ => course,
        }
    }

    /// Whether the answers of what it depends on came later, by enough to be why its own did.
    fn waits_for_dependency(&self) -> bool {
        let course = self.course(Indicator::DependencyTurnaround);
        self.where_enough(course, Indicator::DependencyTurnaround, DEPENDENCY_SHARE) == Course::Up
    }

    /// Whether there is a sign of this kind that explains the indicator.
    fn has_sign(&self, kind: SignKind, indicator: Indicator) -> bool {
        self.signs.iter().any(|s| s.kind == kind && s.explains.contains(&indicator))
    }

    fn is_leaking(&self) -> bool {
        let in_use = Indicator::MemoryInUse;
        self.course(in_use) == Course::Up && self.tracks[in_use as usize].is_growing()
    }

    /// Whether one indicator is why another is worse: that one is named after it, whatever the evidence.
    fn is_why(&self, root: Indicator, symptom: Indicator) -> bool {
        use Indicator::*;
        let up = |i: Indicator| self.course(i) == Course::Up;
        let turnaround = matches!(symptom, TurnaroundMean | TurnaroundP95);
        let queue = matches!(symptom, RunQueueWait | RunQueueWaitP95);
        match root {
            MemoryStall => (turnaround || queue || symptom == CpuPerWork) && up(MemoryStall),
            MemoryInUse if up(MemoryInUse) => {
                symptom == MemoryStall || (up(MemoryStall) && (turnaround || symptom == CpuPerWork))
            }
            CpuPerWork => {
                (turnaround && self.where_enough(self.course(CpuPerWork), CpuPerWork, CPU_SHARE) == Course::Up)
                    || (queue && up(CpuPerWork))
            }
            RunQueueWait | RunQueueWaitP95 => {
                turnaround && !up(CpuPerWork) && self.where_enough(self.course(root), root, WAIT_SHARE) == Course::Up
            }
            DependencyTurnaround => turnaround && self.waits_for_dependency(),
            // Who waits much longer than the CPU takes costs a little more CPU, too: caches are cold, timers run.
            TurnaroundMean => {
                symptom == CpuPerWork
                    && up(TurnaroundMean)
                    && self.memory() != Course::Up
                    && self.where_enough(self.course(CpuPerWork), CpuPerWork, CPU_SHARE) != Course::Up
                    && self.effect(TurnaroundMean) > OUTWEIGHS * self.effect(CpuPerWork)
            }
            _ => false,
        }
    }

    /// The latest stretch in which stable left its own usual band in this indicator while the canary was out of its own.
    fn stable_meanwhile(&self, indicator: Indicator) -> Option<&Stretch> {
        let of =
            |role: Role| self.stretches.iter().rev().filter(move |s| s.role == role && s.signal == indicator.name());
        of(Role::Stable).find(|stable| of(Role::Canary).any(|canary| canary.overlaps(stable)))
    }

    fn effect(&self, indicator: Indicator) -> f64 {
        self.indicators[indicator as usize].effect.unwrap_or(0.0)
    }

    /// What could have been the reason of a change in this indicator, and is as it was.
    fn ruled_out(&self, of: Indicator) -> Vec<String> {
        use Indicator::*;
        [CpuPerWork, RunQueueWait, RunQueueWaitP95, MemoryStall, MemoryInUse, BytesPerWork]
            .into_iter()
            .filter(|i| *i != of && self.course(*i) == Course::Flat)
            .map(|i| format!("{} {}", i.title(), change(self.effect(i))))
            .collect()
    }

    /// By how much an indicator rose, in its own unit: an effect is one of what is added to it, too.
    fn rise(&self, indicator: Indicator, effect: Option<f64>) -> Option<f64> {
        let stable = self.stable[indicator as usize];
        effect.map(|effect| stable * effect).filter(|rise| !rise.is_nan())
    }

    /// "evidence 30 400 of the 21 300 that suffice alone", of a signal of this weight.
    fn in_words(&self, evidence_ln: f64, weight: f64) -> String {
        let needed = libm::exp(self.confirmed_ln) / weight;
        format!("evidence {} of the {} that suffice alone", number(libm::exp(evidence_ln)), number(needed))
    }

    /// "since window 412 (14 windows)".
    fn since(&self, start: u64) -> String {
        let windows = self.window.saturating_sub(start) + 1;
        format!("since window {start} ({windows} {})", if windows == 1 { "window" } else { "windows" })
    }

    fn mechanism(&self, indicator: Indicator) -> &'static str {
        use Course::*;
        let cpu = self.course(Indicator::CpuPerWork);
        let queue = self.queue();
        let bytes = self.course(Indicator::BytesPerWork);
        match indicator {
            Indicator::CpuPerWork if self.course(Indicator::MemoryStall) == Up => {
                "reclaims memory on each request: the working set outgrows its memory"
            }
            Indicator::CpuPerWork if bytes == Up => "more work per request, with more bytes each",
            Indicator::CpuPerWork if queue == Up => "more work per request, until it waits for a CPU",
            Indicator::CpuPerWork => "more work per request",
            Indicator::RunQueueWait | Indicator::RunQueueWaitP95 => match indicator {
                _ if self.has_sign(SignKind::Throttled, indicator) => "waits for its CPU limit: quota",
                _ if self.has_sign(SignKind::Neighbour, indicator) => "waits for a CPU that a neighbour holds",
                _ if cpu == Up => "waits for a CPU, because each request takes more of it",
                Indicator::RunQueueWaitP95 if self.course(Indicator::RunQueueWait) == Flat => {
                    "waits for a CPU for longer now and then: the tail grew, the mean did not"
                }
                _ => "waits for a CPU",
            },
            Indicator::MemoryStall if self.is_leaking() => "leak: memory in use grows and is reclaimed",
            Indicator::MemoryStall => "working set outgrows its memory",
            Indicator::MemoryInUse if self.tracks[indicator as usize].is_growing() => "grows: leak",
            Indicator::MemoryInUse if self.course(Indicator::MemoryStall) == Up => "working set outgrows its memory",
            Indicator::MemoryInUse => "larger working set",
            Indicator::BytesPerWork => "larger responses or retries",
            Indicator::DependencyTurnaround => "what it depends on answers it later",
            Indicator::TurnaroundMean | Indicator::TurnaroundP95 => match (
                self.where_enough(cpu, Indicator::CpuPerWork, CPU_SHARE),
                self.queue_where_enough(),
                self.memory(),
                bytes,
            ) {
                (_, _, Up, _) => "slower while it stalls on or takes more memory",
                (_, Up, _, _) => "slower while it waits for a CPU",
                _ if self.waits_for_dependency() => "slower because what it depends on answers it later",
                (Up, _, _, _) => "slower because each request takes more CPU",
                (_, _, _, Up) => "slower with larger responses or retries",
                (Flat, Flat, Flat, Flat) => "waits on something outside: a dependency, a lock or a sleep",
                _ => "slower, and what would tell why is missing or too noisy",
            },
        }
    }
}

/// Whether an indicator speaks against the canary: proven by itself, or beyond its margin now.
pub fn counts(state: &IndicatorState, track: &Track) -> bool {
    track.bets() > 0 && track.weight() > 0.0 && (state.confirmed || contributes(state, track))
}

/// More than the margin over the last windows, and not by chance: the interval is above zero and the bets won.
fn contributes(state: &IndicatorState, track: &Track) -> bool {
    state.evidence_ln > 0.0 && track.effect().is_some_and(|e| e.mean > track.margin && e.mean > e.half_width)
}

/// Causes by evidence, the strongest first: what is confirmed or uses more than its margin now, and at least one.
pub fn causes(evidence: &Evidence, hard: Option<HardFact>) -> Vec<Cause> {
    let mut found: Vec<(bool, Cause)> = Vec::new();
    for (state, track) in
        evidence.indicators.iter().zip(evidence.tracks).filter(|(_, t)| t.bets() > 0 && t.weight() > 0.0)
    {
        let counts = counts(state, track);
        let jumps = evidence.jumps[state.indicator as usize];
        let mut text = match jumps {
            Some(start) => jumps_text(state, track, start, evidence),
            None => indicator_text(state, track, evidence),
        };
        if let Some(forecast) = evidence.forecast.filter(|_| state.indicator == Indicator::MemoryInUse) {
            text += &format!("; {}", forecast.in_words());
        }
        if let Some(stable) = evidence.stable_meanwhile(state.indicator) {
            text += &format!("; meanwhile {}", stable.text);
        }
        let cause = Cause {
            signal: state.indicator.name().to_owned(),
            text,
            mechanism: if jumps.is_some() { JUMPS } else { evidence.mechanism(state.indicator) }.to_owned(),
            ruled_out: evidence.ruled_out(state.indicator),
            evidence_ln: state.evidence_ln,
        };
        found.push((counts, cause));
    }
    for state in evidence.events.iter().filter(|e| !e.missing) {
        let counts = state.evidence_ln >= evidence.confirmed_ln;
        let cause = Cause {
            signal: state.event.name().to_owned(),
            text: format!(
                "{}: {} on canary, {} on stable since its evidence began, {}",
                state.event.title(),
                state.canary,
                state.stable,
                evidence.in_words(state.evidence_ln, 1.0)
            ),
            mechanism: event_mechanism(state.event).to_owned(),
            ruled_out: Vec::new(),
            evidence_ln: state.evidence_ln,
        };
        found.push((counts, cause));
    }
    found.sort_by(|a, b| b.1.evidence_ln.total_cmp(&a.1.evidence_ln));
    roots_first(&mut found, evidence);
    let fact = hard.map(hard_cause);
    // Without a fact there is at least one cause: the one with the most evidence.
    let strongest = usize::from(fact.is_none());
    let rest =
        found.into_iter().enumerate().filter(|(at, (counts, _))| *counts || *at < strongest).map(|(_, (_, c))| c);
    fact.iter().cloned().chain(rest.filter(|c| fact.as_ref().is_none_or(|f| f.signal != c.signal))).collect()
}

/// A symptom often has more evidence than what it comes from: the root of the first cause is put before it.
fn roots_first(found: &mut [(bool, Cause)], evidence: &Evidence) {
    let named = |signal: &str| Indicator::ALL.into_iter().find(|i| i.name() == signal);
    // Each indicator is a root at most once: no circles.
    for _ in 0..Indicator::COUNT {
        let Some(first) = found.first().and_then(|(_, c)| named(&c.signal)) else { return };
        let root = found.iter().skip(1).position(|(counts, cause)| {
            *counts
                && named(&cause.signal).is_some_and(|i| {
                    (cause.evidence_ln >= ROOT_EVIDENCE_LN || evidence.is_clear(i))
                        && evidence.is_why(i, first)
                        && !evidence.is_why(first, i)
                })
        });
        match root {
            Some(at) => found[..=at + 1].rotate_right(1),
            None => return,
        }
    }
}

/// A fact has no evidence in the statistical sense: 0 of it.
fn hard_cause(fact: HardFact) -> Cause {
    let (signal, text, mechanism) = match fact {
        HardFact::OomKill => (
            "oom_kills",
            "the kernel killed a canary process for want of memory, and none of stable's",
            "exceeds its memory limit",
        ),
        HardFact::CrashLoop => {
            ("crashes", "the canary crashed again and again, and stable did not", "dies from a fault signal")
        }
        HardFact::Silent => {
            ("silent", "the canary reports nothing since it crashed or was OOM-killed", "did not come back")
        }
    };
    Cause {
        signal: signal.to_owned(),
        text: text.to_owned(),
        mechanism: mechanism.to_owned(),
        ruled_out: Vec::new(),
        evidence_ln: 0.0,
    }
}

fn event_mechanism(event: Event) -> &'static str {
    match event {
        Event::Crashes => "dies from a fault signal",
        Event::ErrorExits => "gives up with an error",
        Event::OomKills => "exceeds its memory limit",
        Event::ResetsOut => "connections broken off",
        Event::Retransmits => "packets lost or answered late on the way",
        Event::ServerErrors => "answers that it failed",
        Event::ConnectFailures => "cannot reach what it depends on",
    }
}

/// What more variance at about the same mean points to.
const JUMPS: &str = "comes in spikes or varies: some requests or some moments are much worse than the rest";

/// "CPU per turnaround jumps more from window to window than on stable since window 412 (14 windows), evidence …".
fn jumps_text(state: &IndicatorState, track: &Track, start: u64, evidence: &Evidence) -> String {
    format!(
        "{} jumps more from window to window than on stable {}, {}",
        state.indicator.title(),
        evidence.since(start),
        evidence.in_words(state.evidence_ln, track.weight())
    )
}

/// "CPU per turnaround +31 % (27 to 36 %) since window 412 (14 windows), evidence 30 400 of the 21 300 that suffice alone, margin
/// 4.1 %".
fn indicator_text(state: &IndicatorState, track: &Track, evidence: &Evidence) -> String {
    let mut text = state.indicator.title().to_owned();
    if let (Some(effect), Some(low), Some(high)) = (state.effect, state.effect_low, state.effect_high) {
        text += &format!(" {} ({:.0} to {:.0} %)", change(effect), 100.0 * low, 100.0 * high);
    }
    if let Some(start) = track.run_start() {
        text += &format!(" {}", evidence.since(start));
    }
    text += &format!(", {}", evidence.in_words(state.evidence_ln, track.weight()));
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
        .map(|s| format!(", most of all in {} {}", s.indicator.title(), change(s.effect.unwrap_or(0.0))))
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
                "{title} {}: not yet shown to be below {:.0} % (evidence {} of {})",
                change(effect),
                100.0 * libm::expm1(track.margin_healthy),
                number(pace.healthy_evidence(i)),
                number(1.0 / pace.parameters().beta)
            ),
            (None, None) => format!("{title}: no reading in the last windows"),
        })
    };
    indicators.iter().enumerate().filter_map(open).collect()
}

/// Why the canary is healthy, after so many judged windows.
pub fn healthy(pace: &Pace, indicators: usize, judged_windows: u64) -> String {
    let worst =
        pace.indicators().iter().filter(|t| t.bets() > 0).map(|t| libm::expm1(t.margin_healthy)).fold(0.0, f64::max);
    format!(
        "all {indicators} indicators are shown to be within their healthy margins (the widest {:.0} %, error {:.0} % each) \
         after {judged_windows} windows",
        100.0 * worst,
        100.0 * pace.parameters().beta
    )
}

/// A ratio minus one in whole percent with its sign: 0.31 is "+31 %". What rounds to nothing has no sign.
fn change(ratio: f64) -> String {
    let percent = (100.0 * ratio).round();
    if percent == 0.0 { "0 %".to_owned() } else { format!("{percent:+.0} %") }
}

/// How far it is in learning what is usual.
pub fn learned(windows: u64, needed: u64) -> String {
    format!("learned from {windows} of {needed} windows of stable")
}

/// Two digits below ten, whole numbers with a narrow no-break space by thousands above, powers of ten when huge.
pub fn number(x: f64) -> String {
    if x < 10.0 {
        return format!("{x:.1}");
    }
    if x >= 1e6 {
        return format!("{x:.0e}");
    }
    let digits = format!("{x:.0}");
    match digits.len().checked_sub(3) {
        Some(head) if head > 0 => format!("{}\u{202f}{}", &digits[..head], &digits[head..]),
        _ => digits,
    }
}
