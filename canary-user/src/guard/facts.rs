//! What the gates need to know besides the verdict, gathered from ticks. No clock, no I/O.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    Mode,
    recovery::{Before, Level, Look},
};
use crate::{
    judge::{HardFact, Verdict},
    orchestrator::Plan,
    targets::{Role, Target},
    telemetry::{Sample, Tick},
    window::{Event, Indicator, Window},
};

/// How many windows "recent" means for lost events and for the health of stable.
pub const RECENT_WINDOWS: usize = 10;

/// What the gates need to know besides the verdict. Unknown is `None`, never zero.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// How far the guard may go about this.
    pub mode: Mode,
    /// The signal for which the policy says so; `None` = it is the deployment's mode.
    pub policy: Option<&'static str>,
    /// Why the guard is paused, in words; `None` = it is not.
    pub paused: Option<String>,
    /// Counts that the condemning signals rest on and that are missing now, in words.
    pub unmeasured: Vec<String>,
    /// Over the last [`RECENT_WINDOWS`].
    pub lost_events: u64,
    pub targets_without_slot: u64,
    pub canary: Vec<Target>,
    pub stable: Vec<Target>,
    /// Whether any process may live in the canary: `false` only where all its cgroups are known to be empty.
    pub canary_populated: bool,
    /// How long the oldest canary target has been seen for.
    pub canary_age: Duration,
    pub max_age: Option<Duration>,
    /// The canary target that came last, with the window it was first seen in.
    pub newest_canary: Option<(Arc<str>, u64)>,
    pub stable_oom_kills: Option<u64>,
    pub stable_crashes: Option<u64>,
    /// Stable instances that are populated and reporting.
    pub stable_reporting: usize,
    pub minimum_healthy: usize,
    pub stable_had_turnarounds: bool,
    pub stable_turnarounds: Option<u64>,
    /// The decision by which an action was already begun against this canary.
    pub acted_on: Option<String>,
    pub actions_last_hour: usize,
    pub per_hour: usize,
    pub since_last_action: Option<Duration>,
    pub cooldown: Duration,
    /// Other deployments that came to be condemned within ten minutes of this one.
    pub condemned_elsewhere: Vec<Arc<str>>,
    /// Why the journal cannot be relied on.
    pub journal_failure: Option<String>,
    /// Largest share of the instances that may be taken away at once.
    pub blast_radius: f64,
    /// What the orchestrator would do, or why it would do nothing; `None` = it was not asked yet.
    pub described: Option<Result<Plan, String>>,
    /// Why this guard is the one that acts, or why it is not.
    pub leader: Result<String, String>,
    pub approval: Approval,
    /// The person who wants the action, whatever the verdict; `None` = the guard itself.
    pub asked_by: Option<String>,
}

/// Whether a person has to say yes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Approval {
    #[default]
    NotRequired,
    /// Within this time.
    Required(Duration),
    /// By this person.
    Given(String),
}

/// What condemned the canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Indicator(Indicator),
    Event(Event),
    Hard(HardFact),
}

/// What the condemnation rests on, the leading signal first; empty where the verdict names nothing known.
pub fn condemning(verdict: &Verdict) -> Vec<Signal> {
    let hard = verdict.hard.map(Signal::Hard);
    let leading = verdict.causes.first().and_then(|cause| {
        let indicator = Indicator::ALL.into_iter().find(|i| i.name() == cause.signal).map(Signal::Indicator);
        indicator.or_else(|| Event::ALL.into_iter().find(|e| e.name() == cause.signal).map(Signal::Event))
    });
    let confirmed = verdict.indicators.iter().filter(|i| i.confirmed).map(|i| Signal::Indicator(i.indicator));
    let mut signals = Vec::new();
    for signal in hard.into_iter().chain(leading).chain(confirmed) {
        if !signals.contains(&signal) {
            signals.push(signal);
        }
    }
    signals
}

/// The group of counts that a signal rests on, and whether a sample has it.
fn group(signal: Signal, s: &Sample) -> (&'static str, bool) {
    match signal {
        Signal::Indicator(Indicator::CpuPerWork | Indicator::RunQueueWait | Indicator::RunQueueWaitP95) => {
            ("CPU counts", s.cpu.is_some())
        }
        Signal::Indicator(Indicator::MemoryStall) => ("memory stall", s.pressure.is_some() || s.reclaim.is_some()),
        Signal::Indicator(Indicator::MemoryInUse) => ("memory in use", s.memory.is_some()),
        Signal::Indicator(Indicator::BytesPerWork | Indicator::TurnaroundMean | Indicator::TurnaroundP95)
        | Signal::Event(Event::ResetsOut)
        | Signal::Hard(HardFact::Silent) => ("network counts", s.network.is_some()),
        Signal::Event(Event::Crashes | Event::ErrorExits) | Signal::Hard(HardFact::CrashLoop) => {
            ("process exits", s.lifecycle.is_some())
        }
        Signal::Event(Event::OomKills) | Signal::Hard(HardFact::OomKill) => ("OOM kills", s.oom_kills.is_some()),
        Signal::Indicator(Indicator::DependencyTurnaround) => ("dependency latency", s.dependency.is_some()),
        // Without a response there is no status, and no error either.
        Signal::Event(Event::ServerErrors) => ("network counts", s.network.is_some()),
        Signal::Event(Event::ConnectFailures) => ("connections", s.connections.is_some()),
        Signal::Event(Event::Retransmits) => ("retransmitted segments", s.retransmits.is_some()),
    }
}

/// Adds up counts of which none may be missing; `None` where one is, or where there are none at all.
fn total(counts: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    let mut sum = None;
    for count in counts {
        sum = Some(sum.unwrap_or(0) + count?);
    }
    sum
}

/// One window as the gates remember it.
#[derive(Debug)]
struct Recent {
    lost_events: u64,
    targets_without_slot: u64,
    stable_turnarounds: Option<u64>,
    stable_oom_kills: Option<u64>,
    stable_crashes: Option<u64>,
    /// Of both roles together.
    turnarounds: Option<u64>,
    span_ns: u64,
}

/// Since when an instance of the canary is seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstSeen {
    pub cgroup: Arc<str>,
    pub incarnation: u64,
    /// CLOCK_MONOTONIC end of the first tick that had it.
    pub t_ns: u64,
}

/// What is remembered of one deployment between ticks.
#[derive(Debug, Default)]
pub struct Memory {
    /// The canary targets that are there, with window and time of the first sight.
    first_seen: BTreeMap<Target, (u64, u64)>,
    /// Those that an earlier life of the guard saw first, and when, by cgroup and incarnation.
    seen_before: BTreeMap<(Arc<str>, u64), u64>,
    /// Those of them that had a turnaround.
    served: BTreeSet<Target>,
    canary_served: Option<bool>,
    recent: VecDeque<Recent>,
    stable_had_turnarounds: bool,
}

/// The samples of one deployment and role.
pub fn samples<'a>(tick: &'a Tick, deployment: &'a str, role: Role) -> impl Iterator<Item = &'a Sample> + Clone {
    tick.samples.iter().filter(move |s| &*s.target.deployment == deployment && s.target.role == role)
}

/// The targets of one deployment and role, sorted.
pub fn targets(tick: &Tick, deployment: &str, role: Role) -> Vec<Target> {
    let mut targets: Vec<Target> = samples(tick, deployment, role).map(|s| s.target.clone()).collect();
    targets.sort();
    targets
}

/// What one tick says of stable by itself.
pub fn look(tick: &Tick, deployment: &str) -> Look {
    let stable = samples(tick, deployment, Role::Stable);
    Look {
        p_stable: None,
        levels: Vec::new(),
        crashes: total(stable.clone().map(|s| s.lifecycle.map(|l| l.crashes))),
        oom_kills: total(stable.clone().map(|s| s.oom_kills)),
        turnarounds: total(stable.map(|s| s.network.as_ref().map(|n| n.turnarounds))),
        span_ns: tick.span_ns,
    }
}

/// The indicators among what condemned the canary.
pub fn condemning_indicators(verdict: &Verdict) -> Vec<Indicator> {
    let indicator = |signal| match signal {
        Signal::Indicator(i) => Some(i),
        Signal::Event(_) | Signal::Hard(_) => None,
    };
    condemning(verdict).into_iter().filter_map(indicator).collect()
}

impl Memory {
    /// Whether the canary instances that are there ever had a turnaround; `None` where that was not measured, or where
    /// there are none.
    pub fn canary_served(&self) -> Option<bool> {
        self.canary_served
    }

    /// The canary instances that are there.
    pub fn canary(&self) -> impl Iterator<Item = &Target> {
        self.first_seen.keys()
    }

    /// What an earlier life of the guard saw: the age of a canary does not begin anew with the guard.
    pub fn remember(&mut self, seen: &[FirstSeen]) {
        self.seen_before.extend(seen.iter().map(|s| ((s.cgroup.clone(), s.incarnation), s.t_ns)));
    }

    /// The canary instances that are there, for a later life. Not those whose cgroup is only expected.
    pub fn seen(&self) -> Vec<FirstSeen> {
        let there = self.first_seen.iter().filter(|(target, _)| !target.is_expected());
        let seen = |(target, (_, t_ns)): (&Target, &(u64, u64))| FirstSeen {
            cgroup: target.cgroup.clone(),
            incarnation: target.incarnation,
            t_ns: *t_ns,
        };
        there.map(seen).collect()
    }

    fn served_now(&mut self, tick: &Tick, deployment: &str) -> Option<bool> {
        let canary = samples(tick, deployment, Role::Canary);
        let turnarounds = |s: &Sample| s.network.as_ref().map(|n| n.turnarounds);
        self.served.retain(|t| self.first_seen.contains_key(t));
        self.served.extend(canary.clone().filter(|s| turnarounds(s) > Some(0)).map(|s| s.target.clone()));
        let measured = total(canary.map(turnarounds));
        if self.served.is_empty() { measured.map(|_| false) } else { Some(true) }
    }

    /// Takes in one tick with its window, before the facts of that tick are asked for.
    pub fn observe(&mut self, tick: &Tick, window: &Window) {
        let canary = targets(tick, &window.deployment, Role::Canary);
        self.first_seen.retain(|t, _| canary.binary_search(t).is_ok());
        for target in canary {
            let before = self.seen_before.get(&(target.cgroup.clone(), target.incarnation));
            let t_ns = before.copied().unwrap_or(tick.t_ns);
            self.first_seen.entry(target).or_insert((window.index, t_ns));
        }
        self.canary_served = self.served_now(tick, &window.deployment);
        let stable = samples(tick, &window.deployment, Role::Stable);
        let turnarounds = total(stable.clone().map(|s| s.network.as_ref().map(|n| n.turnarounds)));
        self.stable_had_turnarounds |= turnarounds.is_some_and(|n| n > 0);
        self.recent.push_back(Recent {
            lost_events: tick.quality.lost_events,
            targets_without_slot: tick.quality.targets_without_slot,
            stable_turnarounds: turnarounds,
            stable_oom_kills: total(stable.clone().map(|s| s.oom_kills)),
            stable_crashes: total(stable.map(|s| s.lifecycle.map(|l| l.crashes))),
            turnarounds: total(
                tick.samples
                    .iter()
                    .filter(|s| *s.target.deployment == *window.deployment)
                    .map(|s| s.network.as_ref().map(|n| n.turnarounds)),
            ),
            span_ns: tick.span_ns,
        });
        if self.recent.len() > RECENT_WINDOWS {
            self.recent.pop_front();
        }
    }

    /// The service in the last [`RECENT_WINDOWS`].
    pub fn before(&self, p_canary: Option<f64>, levels: Vec<Level>) -> Before {
        let turnarounds = total(self.recent.iter().map(|r| r.turnarounds));
        let seconds = self.recent.iter().map(|r| r.span_ns).sum::<u64>() as f64 / 1e9;
        let rate = turnarounds.filter(|_| seconds > 0.0).map(|n| n as f64 / seconds);
        Before { p_canary: p_canary.filter(|p| p.is_finite()), turnarounds_per_second: rate, levels }
    }

    /// What this tick says. What ticks cannot say (mode, pause, limits, the journal's answers) is left at what blocks
    /// least and is for the caller to fill in.
    pub fn facts(&self, tick: &Tick, deployment: &str, verdict: &Verdict) -> Facts {
        let signals = condemning(verdict);
        let mut unmeasured = Vec::new();
        for &signal in &signals {
            for role in [Role::Stable, Role::Canary] {
                for sample in samples(tick, deployment, role) {
                    let (name, there) = group(signal, sample);
                    let text = format!("{name} of {role} {}", sample.target.cgroup);
                    if !there && !unmeasured.contains(&text) {
                        unmeasured.push(text);
                    }
                }
            }
        }
        if verdict.outcome == crate::judge::Outcome::Regressed && signals.is_empty() {
            unmeasured.push("a cause: the verdict names none that the sensor knows".into());
        }
        let reporting =
            |s: &&Sample| s.populated == Some(true) && s.span_ns > 0 && (s.cpu.is_some() || s.network.is_some());
        let oldest = self.first_seen.values().map(|(_, t_ns)| *t_ns).min().unwrap_or(tick.t_ns);
        Facts {
            mode: Mode::default(),
            policy: None,
            paused: None,
            unmeasured,
            lost_events: self.recent.iter().map(|r| r.lost_events).sum(),
            targets_without_slot: self.recent.iter().map(|r| r.targets_without_slot).max().unwrap_or(0),
            canary: targets(tick, deployment, Role::Canary),
            stable: targets(tick, deployment, Role::Stable),
            canary_populated: samples(tick, deployment, Role::Canary).any(|s| s.populated != Some(false)),
            canary_age: Duration::from_nanos(tick.t_ns.saturating_sub(oldest)),
            max_age: None,
            newest_canary: self
                .first_seen
                .iter()
                .max_by_key(|(_, (window, _))| *window)
                .map(|(target, (window, _))| (target.cgroup.clone(), *window)),
            stable_oom_kills: total(self.recent.iter().map(|r| r.stable_oom_kills)),
            stable_crashes: total(self.recent.iter().map(|r| r.stable_crashes)),
            stable_reporting: samples(tick, deployment, Role::Stable).filter(reporting).count(),
            minimum_healthy: 1,
            stable_had_turnarounds: self.stable_had_turnarounds,
            stable_turnarounds: total(self.recent.iter().map(|r| r.stable_turnarounds)),
            acted_on: None,
            actions_last_hour: 0,
            per_hour: usize::MAX,
            since_last_action: None,
            cooldown: Duration::ZERO,
            condemned_elsewhere: Vec::new(),
            journal_failure: None,
            blast_radius: 1.0,
            described: None,
            leader: Ok("this guard acts alone".into()),
            approval: Approval::NotRequired,
            asked_by: None,
        }
    }
}
