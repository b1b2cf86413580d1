//! Facts that condemn a canary without statistics: a policy, outside alpha.

use super::{instances, parameters::Parameters, verdict::HardFact};
use crate::window::{Event, Reading, Window};

/// Crashes of the canary that make a crash loop.
const CRASHES: usize = 2;

/// When something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub t_ns: u64,
    pub index: u64,
    /// Windows until then in which the canary had a reading.
    canary_readings: u64,
}

/// The latest facts on both sides. Old ones expire.
#[derive(Clone, Debug, Default)]
pub struct HardFacts {
    canary_oom: Option<Moment>,
    stable_oom: Option<Moment>,
    /// The latest crashes of the canary, the newest last.
    canary_crashes: [Option<Moment>; CRASHES],
    stable_crash: Option<Moment>,
    /// Windows in which the canary had a reading.
    canary_readings: u64,
}

impl HardFacts {
    pub fn observe(&mut self, window: &Window) {
        self.canary_readings += u64::from(window.canary.iter().any(instances::reports));
        let now = Moment { t_ns: window.t_ns, index: window.index, canary_readings: self.canary_readings };
        for _ in 0..count(&window.canary, Event::Crashes).min(CRASHES as u64) {
            self.canary_crashes.rotate_left(1);
            self.canary_crashes[CRASHES - 1] = Some(now);
        }
        let set = |slot: &mut Option<Moment>, n: u64| *slot = if n > 0 { Some(now) } else { *slot };
        set(&mut self.stable_crash, count(&window.stable, Event::Crashes));
        set(&mut self.canary_oom, count(&window.canary, Event::OomKills));
        set(&mut self.stable_oom, count(&window.stable, Event::OomKills));
    }

    /// The fact that condemns the canary now, and when it began.
    pub fn condemning(&self, window: &Window, p: &Parameters) -> Option<(HardFact, Moment)> {
        if let Some(oom) = self.oom(window.t_ns, p)
            && !together(oom, self.stable_oom, p)
            && counts(&window.stable, Event::OomKills)
        {
            return Some((HardFact::OomKill, oom));
        }
        if let Some((first, last)) = self.crash_loop(window.t_ns, p)
            && !together(last, self.stable_crash, p)
            && counts(&window.stable, Event::Crashes)
        {
            return Some((HardFact::CrashLoop, first));
        }
        None
    }

    /// Why a fact about the canary is not held against it: stable had the same.
    pub fn excused(&self, t_ns: u64, p: &Parameters) -> Option<String> {
        let minutes = p.hard_span_ns / 60_000_000_000;
        if self.oom(t_ns, p).is_some_and(|oom| together(oom, self.stable_oom, p)) {
            return Some(format!(
                "OOM kill on the canary, but on stable too within {minutes} minutes: not held against it"
            ));
        }
        if self.crash_loop(t_ns, p).is_some_and(|(_, last)| together(last, self.stable_crash, p)) {
            return Some(format!(
                "repeated crashes of the canary, but stable crashed too within {minutes} minutes: not held against it"
            ));
        }
        None
    }

    /// The canary's latest crash or OOM kill that stable had nothing like at that time.
    pub fn latest_trouble(&self, p: &Parameters) -> Option<Moment> {
        let troubles = [(self.canary_oom, self.stable_oom), (self.canary_crashes[CRASHES - 1], self.stable_crash)];
        let alone = |(canary, stable): (Option<Moment>, _)| canary.filter(|canary| !together(*canary, stable, p));
        troubles.into_iter().filter_map(alone).max_by_key(|m| m.t_ns)
    }

    /// Windows after that one in which the canary had a reading.
    pub fn readings_since(&self, moment: Moment) -> u64 {
        self.canary_readings - moment.canary_readings
    }

    fn oom(&self, t_ns: u64, p: &Parameters) -> Option<Moment> {
        self.canary_oom.filter(|_| recent(self.canary_oom, t_ns, p))
    }

    /// The first and the last crash of a loop: all kept crashes are recent.
    fn crash_loop(&self, t_ns: u64, p: &Parameters) -> Option<(Moment, Moment)> {
        let (first, last) = (self.canary_crashes[0]?, self.canary_crashes[CRASHES - 1]?);
        recent(Some(first), t_ns, p).then_some((first, last))
    }
}

/// Whether stable's fact is so near the canary's that both may have the same reason. It excuses the canary's for good,
/// not only until stable's has expired.
fn together(canary: Moment, stable: Option<Moment>, p: &Parameters) -> bool {
    stable.is_some_and(|s| s.t_ns.abs_diff(canary.t_ns) <= p.hard_span_ns)
}

fn recent(moment: Option<Moment>, t_ns: u64, p: &Parameters) -> bool {
    moment.is_some_and(|m| t_ns.saturating_sub(m.t_ns) <= p.hard_span_ns)
}

fn count(readings: &[Reading], event: Event) -> u64 {
    readings.iter().filter_map(|r| r.events[event as usize]).fold(0, u64::saturating_add)
}

/// Whether this side would show the event: without that, its absence says nothing.
fn counts(readings: &[Reading], event: Event) -> bool {
    readings.iter().any(|r| r.events[event as usize].is_some())
}
