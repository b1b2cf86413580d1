//! The whole judge on generated services, as the guard runs it: counts of events beside the indicators, instances that start anew
//! or leave, times in which one side has no work, and services that are hardly asked anything.

use std::{f64::consts::TAU, sync::Arc};

use canary_user::{
    judge::{Judge, Outcome, Parameters},
    targets::Role,
    window::{Around, Event, Indicator, Node, Reading, Window},
};

use crate::{
    experiments::End,
    random::Random,
    service::{Service, Size},
};

const SECOND_NS: u64 = 1_000_000_000;
/// The generated indicators, from the quietest to the loudest, as what a guard measures.
const INDICATORS: [Indicator; 6] = [
    Indicator::BytesPerWork,
    Indicator::CpuPerWork,
    Indicator::TurnaroundMean,
    Indicator::TurnaroundP95,
    Indicator::RunQueueWait,
    Indicator::MemoryStall,
];
/// Usual reading over what is added to it before the logarithm, which then changes nothing.
const LEVEL: f64 = 1e4;
/// Share of the turnarounds by which a process ends with an error, where they do so by work.
const ENDS: f64 = 0.02;
/// Usual turnarounds of an instance in a window, and the length of a wave of load in windows.
const TURNAROUNDS: f64 = 100.0;
const WAVE: f64 = 1800.0;
/// Windows that pass on average until an instance of stable starts anew.
const RESTARTS_EVERY: f64 = 900.0;
/// Windows of the canary within which an instance of stable leaves, or all of its work.
const LEAVES_WITHIN: u64 = 1500;
/// One side is without work for the last of so many windows.
const IDLE_EVERY: usize = 900;
const IDLE_FOR: usize = 300;
/// Readings are given once in so many windows while one side has no work, or both have little.
const MERGED: usize = 60;
/// A worker is asked for nothing but its metrics, once in so many windows.
const ASKED_EVERY: usize = 15;
/// Windows that pass on average until what fails together does so in one instance, and how much that is.
const FAILS_EVERY: f64 = 300.0;
const FAILS_TOGETHER: u64 = 12;

/// What becomes of the instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// They run on, with work on both sides.
    Usual,
    /// Instances of stable start anew, each once in a while.
    Restarts,
    /// One of two instances of stable leaves for good while the canary is there.
    Leaves,
    /// Now stable, now the canary has no work for some minutes.
    Idle,
    /// They work off a queue, and nobody asks them for anything but their metrics. Helpers, and connections, fail together now and then.
    Worker,
    /// All of the work goes to the canary from some window on. Processes end by it, with an error.
    CutOver,
}

impl Life {
    pub const ALL: [Life; 6] = [Life::Usual, Life::Restarts, Life::Leaves, Life::Idle, Life::Worker, Life::CutOver];

    pub fn name(self) -> &'static str {
        ["usual", "restarts", "leaves", "idle", "worker", "cut-over"][self as usize]
    }

    pub fn in_words(self) -> &'static str {
        match self {
            Life::Usual => "",
            Life::Restarts => ", stable restarts",
            Life::Leaves => ", one of two of stable leaves",
            Life::Idle => ", a side without work",
            Life::Worker => ", workers that fail in clumps",
            Life::CutOver => ", all work goes to the canary",
        }
    }
}

/// Judges the first `windows` windows of the canary, or as many as it takes to condemn it.
pub fn judge(life: Life, size: Size, service: Service, random: Random, windows: usize) -> End {
    let mut judge = Judge::new(Parameters { warmup_windows: size.warmup as u64, ..Parameters::default() });
    let mut rollout = Rollout::new(life, size, service, random);
    let mut end = End::default();
    for t in 0..size.before + windows {
        let verdict = judge.observe(&rollout.next());
        let Some(since) = t.checked_sub(size.before) else { continue };
        end.healthy |= verdict.outcome == Outcome::Healthy;
        if verdict.outcome == Outcome::Regressed {
            let first = verdict.causes.first().map(|cause| cause.signal.as_str());
            end.regressed_at = Some(since);
            end.first = INDICATORS.iter().position(|indicator| Some(indicator.name()) == first);
            break;
        }
    }
    end
}

/// A rollout as windows.
struct Rollout {
    life: Life,
    size: Size,
    service: Service,
    random: Random,
    /// The service's latest window.
    readings: Vec<f64>,
    /// Canary first, as the service has them.
    instances: Vec<Instance>,
    /// Usual readings by generated indicator.
    levels: [f64; INDICATORS.len()],
    deployment: Arc<str>,
    /// Window of the canary in which the last instance of stable leaves, or all of its work.
    leaves_at: usize,
    t: usize,
}

struct Instance {
    role: Role,
    name: Arc<str>,
    incarnation: u64,
    /// Window in which it started anew; `None` = it has been running from the start.
    started: Option<usize>,
}

impl Rollout {
    fn new(life: Life, size: Size, service: Service, mut random: Random) -> Self {
        let instance = |j: usize| {
            let role = if j < size.canary { Role::Canary } else { Role::Stable };
            Instance { role, name: format!("/{role}-{j}").into(), incarnation: 1, started: None }
        };
        let parameters = Parameters::default();
        Self {
            life,
            size,
            readings: vec![0.0; size.indicators * service.instances()],
            instances: (0..service.instances()).map(instance).collect(),
            levels: INDICATORS.map(|indicator| LEVEL * parameters.indicators[indicator as usize].epsilon),
            deployment: "bench".into(),
            leaves_at: random.between(0, LEAVES_WITHIN) as usize,
            service,
            random,
            t: 0,
        }
    }

    fn next(&mut self) -> Window {
        self.service.next(&mut self.readings);
        let t = self.t;
        self.t += 1;
        if self.life == Life::Restarts {
            self.restart(t);
        }
        let since = t.checked_sub(self.size.before);
        let idle = self.idle(since);
        let (mut stable, mut canary) = (Vec::new(), Vec::new());
        for j in 0..self.instances.len() {
            if self.is_there(j, since) {
                let reading = self.reading(j, t, idle);
                match self.instances[j].role {
                    Role::Stable => stable.push(reading),
                    Role::Canary => canary.push(reading),
                }
            }
        }
        Window {
            deployment: self.deployment.clone(),
            index: t as u64,
            t_ns: (t as u64 + 1) * SECOND_NS,
            span_ns: SECOND_NS,
            stable,
            canary,
            clean: true,
            node: Node::default(),
        }
    }

    fn restart(&mut self, t: usize) {
        for instance in self.instances.iter_mut().filter(|instance| instance.role == Role::Stable) {
            if self.random.chance(1.0 / RESTARTS_EVERY) {
                instance.incarnation += 1;
                instance.started = Some(t);
            }
        }
    }

    /// The side that has no work.
    fn idle(&self, since: Option<usize>) -> Option<Role> {
        let since = since?;
        match self.life {
            Life::CutOver => return (since >= self.leaves_at).then_some(Role::Stable),
            Life::Idle => {}
            _ => return None,
        }
        let side = if (since / IDLE_EVERY).is_multiple_of(2) { Role::Stable } else { Role::Canary };
        (since % IDLE_EVERY >= IDLE_EVERY - IDLE_FOR).then_some(side)
    }

    fn is_there(&self, j: usize, since: Option<usize>) -> bool {
        let is_last = j + 1 == self.instances.len();
        match self.instances[j].role {
            Role::Canary => since.is_some(),
            Role::Stable if self.life == Life::Leaves && is_last => since.is_none_or(|since| since < self.leaves_at),
            Role::Stable => true,
        }
    }

    fn reading(&mut self, j: usize, t: usize, idle: Option<Role>) -> Reading {
        let Instance { role, name, incarnation, started } = &self.instances[j];
        let (role, instance, incarnation) = (*role, name.clone(), *incarnation);
        let start_up = started.map_or(0.0, |started| start_up(t - started, self.size.warmup));
        let is_worker = self.life == Life::Worker;
        let works = if is_worker { t.is_multiple_of(ASKED_EVERY) } else { idle != Some(role) };
        // Who has no work has no reading, and the others wait for it as long as is merged. Those with little have it then, too.
        let is_merged = is_worker || idle.is_some();
        let is_given = !is_merged || ((works || is_worker) && t % MERGED == MERGED - 1);
        let mut values = [f64::NAN; Indicator::COUNT];
        if is_given {
            let own = self.readings.iter().skip(j).step_by(self.instances.len());
            for ((indicator, level), ln) in INDICATORS.into_iter().zip(self.levels).zip(own) {
                values[indicator as usize] = level * libm::exp(ln + start_up);
            }
        }
        let usual = TURNAROUNDS * (1.0 + 0.5 * libm::sin(TAU * t as f64 / WAVE));
        let is_moved = self.life == Life::CutOver && idle.is_some();
        let load = if is_moved { usual * self.instances.len() as f64 / self.size.canary as f64 } else { usual };
        let turnarounds = match (works, is_worker) {
            (false, _) => 0.0,
            (true, false) => load.round(),
            (true, true) => 1.0,
        };
        // Of 5xx there are none where nothing was answered, as windows tell it of what answers in plain HTTP.
        let events = Event::ALL.map(|event| {
            if is_worker {
                return Some(self.of_worker(event, works));
            }
            let mean = match event {
                // Two of these condemn by themselves.
                Event::Crashes | Event::OomKills => 0.0,
                Event::ErrorExits if self.life == Life::CutOver => ENDS * turnarounds,
                Event::ErrorExits => 0.01,
                Event::ResetsOut => 0.0005 * turnarounds,
                Event::Retransmits => 0.005 * turnarounds,
                Event::ServerErrors => 0.002 * turnarounds,
                Event::ConnectFailures => 0.001 * turnarounds,
            };
            Some(self.random.poisson(mean))
        });
        let turnarounds = turnarounds as u64;
        Reading { instance, incarnation, values, events, turnarounds, seconds: 1.0, around: Around::default() }
    }

    /// How many events of a kind an instance that works off a queue has in a window: they come of its work, and nobody asks for that.
    fn of_worker(&mut self, event: Event, is_asked: bool) -> u64 {
        match event {
            Event::ErrorExits | Event::ResetsOut => {
                let fails = !is_asked && self.random.chance(1.0 / FAILS_EVERY);
                if fails { FAILS_TOGETHER } else { 0 }
            }
            Event::ConnectFailures => self.random.poisson(0.01),
            _ => 0,
        }
    }
}

/// What an instance costs more, as ln, so many windows after its start: as [`Service`] has it of the canary.
fn start_up(windows: usize, warmup: usize) -> f64 {
    if windows < warmup { libm::exp(-4.0 * windows as f64 / warmup as f64) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{Change, IID, Shape};

    const SIZE: Size = Size {
        indicators: 6,
        canary: 1,
        stable: 3,
        before: 300,
        windows: 1800,
        warmup: 60,
        own_past: false,
        earlier: 0,
    };

    fn rollout(life: Life, size: Size) -> Rollout {
        Rollout::new(life, size, Service::new(IID, size, None, 5, 1), Random::new(&[5]))
    }

    fn windows(life: Life, size: Size) -> Vec<Window> {
        let mut rollout = rollout(life, size);
        (0..size.before + size.windows).map(|_| rollout.next()).collect()
    }

    #[test]
    fn a_change_is_found_and_told_as_the_indicator_that_changed() {
        let change = Change { at: 100, parts: vec![(1, Shape::Step(1.0))] };
        let service = Service::new(IID, SIZE, Some(change), 5, 1);
        let end = judge(Life::Usual, SIZE, service, Random::new(&[5]), 400);
        assert!(end.regressed_at.is_some_and(|t| (100..150).contains(&t)), "{end:?}");
        assert_eq!(end.first, Some(1));
    }

    #[test]
    fn instances_restart_leave_and_are_idle_as_their_life_says() {
        let usual = windows(Life::Usual, SIZE);
        assert!(usual.iter().all(|w| w.stable.len() == 3 && w.stable.iter().all(|r| r.incarnation == 1)));
        assert_eq!(usual.iter().position(|w| !w.canary.is_empty()), Some(SIZE.before));
        let restarts = windows(Life::Restarts, SIZE);
        assert!(restarts.last().is_some_and(|w| w.stable.iter().any(|r| r.incarnation > 1)));
        let leaves = windows(Life::Leaves, Size { stable: 2, ..SIZE });
        let left = leaves.iter().position(|w| w.stable.len() == 1).expect("one leaves");
        assert!(left >= SIZE.before && leaves[left..].iter().all(|w| w.stable.len() == 1));
        let idle = windows(Life::Idle, SIZE);
        let works = |readings: &[Reading]| readings.iter().all(|r| r.turnarounds > 0);
        let (first, second) = (SIZE.before + IDLE_EVERY - 1, SIZE.before + 2 * IDLE_EVERY - 1);
        assert!(!works(&idle[first].stable) && works(&idle[first].canary));
        assert!(works(&idle[second].stable) && !works(&idle[second].canary));
        let of_stable = |w: &Window| w.stable.iter().any(|r| r.values.iter().any(|v| v.is_finite()));
        let within = SIZE.before + IDLE_EVERY - IDLE_FOR..SIZE.before + IDLE_EVERY;
        assert!(!idle[within.clone()].iter().any(of_stable), "who has no work has no reading");
        assert!(idle[within].iter().any(|w| w.canary[0].values.iter().any(|v| v.is_finite())));
        let worker = windows(Life::Worker, SIZE);
        let (asked, left_alone): (Vec<&Window>, Vec<&Window>) = worker.iter().partition(|w| works(&w.stable));
        assert_eq!(asked.len(), worker.len() / ASKED_EVERY);
        let fails = |w: &&Window| w.stable.iter().any(|r| r.events[Event::ErrorExits as usize] == Some(FAILS_TOGETHER));
        assert!(!asked.iter().any(fails) && left_alone.iter().filter(|w| fails(w)).count() > 5);
        assert_eq!(worker.iter().filter(|w| of_stable(w)).count(), worker.len() / MERGED);
        let cut_over = windows(Life::CutOver, SIZE);
        let (last, before) = (&cut_over[cut_over.len() - 1], &cut_over[SIZE.before]);
        let turnarounds = |readings: &[Reading]| readings.iter().map(|r| r.turnarounds).sum::<u64>();
        assert!(works(&before.stable) && turnarounds(&last.stable) == 0);
        assert!(turnarounds(&last.canary) > 2 * turnarounds(&before.canary));
    }
}
