//! Which services are generated, how often, and what the judge said of each.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use canary_user::{
    judge::{Earlier, Known, Parameters},
    window::Indicator,
};
use indicatif::ProgressBar;

use crate::{
    detectors::{DETECTORS, Detectors},
    random::Random,
    service::{Change, Kind, Service, Shape, Size},
    trial::Trial,
    whole::{self, Life},
};

/// Earlier rollouts are not the same as later ones of other runs.
const EARLIER: u64 = 0xea51_1e12;
/// What happens to instances is drawn from another stream than what they measure.
const LIVES: u64 = 0x11fe_5000;

/// Indicators by their noise, with six: 3 and 5 %, 8 and 12 %, 19 and 30 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Quiet,
    Medium,
    Loud,
}

impl Class {
    pub const ALL: [Class; 3] = [Class::Quiet, Class::Medium, Class::Loud];

    pub fn name(self) -> &'static str {
        ["quiet", "medium", "loud"][self as usize]
    }

    fn indicator(self, which: usize) -> usize {
        2 * self as usize + which % 2
    }
}

/// What happens to the canary.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// It is equal to stable.
    Equal,
    /// One indicator of a class steps up: half of the runs from the end of the warm-up on, half 600 windows later.
    Step { class: Class, size: f64 },
    /// One indicator of any class is worse by this from the first window on.
    FromTheStart(f64),
    /// The parts begin 360 windows in.
    Shape(Vec<(usize, Shape)>),
}

/// Runs that differ in nothing but their random numbers.
#[derive(Clone, Debug)]
pub struct Experiment {
    pub name: String,
    pub kind: Kind,
    pub size: Size,
    pub effect: Effect,
    pub runs: usize,
    /// The other detectors look at so many of the runs.
    pub compared: usize,
    /// Before the whole judge, with instances of this life; `None` = before its core, the comparison of indicators.
    pub life: Option<Life>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct End {
    /// Window in which the canary was condemned.
    pub regressed_at: Option<usize>,
    /// Whether it was ever called healthy.
    pub healthy: bool,
    /// Indicator that leads the causes.
    pub first: Option<usize>,
}

/// One run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Windows from the change to the verdict "regressed"; `None` where it did not come.
    pub delay: Option<usize>,
    /// Condemned although nothing had changed yet.
    pub early: bool,
    pub healthy: bool,
    /// Whether the first cause is an indicator that was changed.
    pub cause_right: bool,
    /// The verdict moved when the rest of the scenario was not there: it was not decided online.
    pub moved: bool,
    /// The same as `delay` and `early` for each of the other detectors, where they looked.
    pub others: Option<[(Option<usize>, bool); DETECTORS]>,
}

impl Experiment {
    fn change(&self, run: usize) -> Option<Change> {
        let warmup = self.size.warmup;
        let one = |at: usize, indicator: usize, size: f64| Change { at, parts: vec![(indicator, Shape::Step(size))] };
        match &self.effect {
            Effect::Equal => None,
            Effect::Step { class, size } => {
                Some(one(if run.is_multiple_of(2) { warmup } else { warmup + 600 }, class.indicator(run / 2), *size))
            }
            Effect::FromTheStart(size) => Some(one(0, run % self.size.indicators, *size)),
            Effect::Shape(parts) => Some(Change { at: warmup + 300, parts: parts.clone() }),
        }
    }

    /// Windows that are judged at most.
    fn windows(&self, change: Option<&Change>) -> usize {
        match (&self.effect, change) {
            (Effect::Step { .. }, Some(change)) => change.at + 1800,
            (Effect::Shape(_), Some(change)) => change.at + 2400,
            _ => self.size.windows,
        }
    }

    fn run(&self, seed: u64, run: usize) -> Outcome {
        let change = self.change(run);
        let windows = self.windows(change.as_ref());
        let compare = run < self.compared && self.life.is_none();
        let (end, others) = if compare {
            self.judge_and_compare(seed, run, change.clone(), windows)
        } else {
            (self.judge(seed, run, change.clone(), windows), None)
        };
        let at = change.as_ref().map_or(0, |c| c.at);
        let split = |fired: Option<usize>| match fired {
            Some(t) if change.is_some() && t < at => (None, true),
            fired => (fired.map(|t| t - at), false),
        };
        let (delay, early) = split(end.regressed_at);
        // Every tenth verdict again, once without the windows after it and once also without its own.
        let moved = end.regressed_at.filter(|_| run.is_multiple_of(10)).is_some_and(|t| {
            let again = |windows: usize| self.judge(seed, run, change.clone(), windows).regressed_at;
            again(t + 1) != Some(t) || again(t).is_some()
        });
        Outcome {
            delay,
            early,
            healthy: end.healthy,
            cause_right: change.as_ref().is_none_or(|c| c.parts.iter().any(|(i, _)| Some(*i) == end.first)),
            moved,
            others: others.map(|d| d.fired.map(split)),
        }
    }

    /// Judges the first `windows` windows of the canary, or as many as it takes to condemn it.
    fn judge(&self, seed: u64, run: usize, change: Option<Change>, windows: usize) -> End {
        let mut service = self.service(seed, run, change);
        if let Some(life) = self.life {
            let random = Random::new(&[seed ^ LIVES, life as u64, self.kind.id, run as u64]);
            return whole::judge(life, self.size, service, random, windows);
        }
        let mut trial = self.trial().knowing(self.earlier(seed, run));
        let mut readings = vec![0.0; self.size.indicators * service.instances()];
        self.history(&mut trial, &mut service, &mut readings, &mut None);
        for _ in 0..windows {
            service.next(&mut readings);
            if !trial.window(&readings) {
                break;
            }
        }
        End::of(&trial)
    }

    /// The same, with the other detectors at its side: until each has said something.
    fn judge_and_compare(
        &self,
        seed: u64,
        run: usize,
        change: Option<Change>,
        windows: usize,
    ) -> (End, Option<Detectors>) {
        let Size { indicators, canary, warmup, .. } = self.size;
        let mut trial = self.trial().knowing(self.earlier(seed, run));
        let mut others = Some(Detectors::new(indicators, canary));
        let mut service = self.service(seed, run, change);
        let instances = service.instances();
        let mut readings = vec![0.0; indicators * instances];
        self.history(&mut trial, &mut service, &mut readings, &mut others);
        let mut open = true;
        for t in 0..windows {
            service.next(&mut readings);
            open = open && trial.window(&readings);
            if let Some(others) = &mut others {
                others.window(&readings, instances, t >= warmup);
            }
            if !open && others.as_ref().is_none_or(Detectors::all_fired) {
                break;
            }
        }
        (End::of(&trial), others)
    }

    /// The judge as it ships: with the horizon of the product, however short the run is.
    fn trial(&self) -> Trial {
        let parameters = Parameters { warmup_windows: self.size.warmup as u64, ..Parameters::default() };
        Trial::new(parameters, self.size.indicators, self.size.canary, self.size.stable)
    }

    /// What earlier rollouts of this service taught, each with other instances.
    fn earlier(&self, seed: u64, run: usize) -> Vec<Known> {
        let sets = (0..self.size.earlier).map(|set| {
            let mut trial = self.trial();
            let mut service = self.service(seed ^ EARLIER, run * self.size.earlier + set, None);
            let mut readings = vec![0.0; self.size.indicators * service.instances()];
            self.history(&mut trial, &mut service, &mut readings, &mut None);
            Earlier(Indicator::ALL.into_iter().zip(trial.known()).collect())
        });
        let pooled = Earlier::pooled(&sets.collect::<Vec<_>>());
        Indicator::ALL.into_iter().take(self.size.indicators).map(|indicator| pooled.of(indicator)).collect()
    }

    fn service(&self, seed: u64, run: usize, change: Option<Change>) -> Service {
        // Runs with and without a change, and of other sizes, are not to be the same service.
        let size = [self.size.stable as u64, self.size.canary as u64, u64::from(self.size.own_past)];
        let effect = self.name.bytes().fold(0, |h: u64, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
        let seed = size.iter().fold(seed ^ effect, |h, part| h.wrapping_mul(1009).wrapping_add(*part));
        Service::new(self.kind, self.size, change, seed, run as u64)
    }

    /// The windows before the canary.
    fn history(&self, trial: &mut Trial, service: &mut Service, readings: &mut [f64], others: &mut Option<Detectors>) {
        let Size { indicators, canary, stable, .. } = self.size;
        let (mut of_stable, mut own) = (vec![0.0; indicators * stable], vec![0.0; indicators * canary]);
        for _ in 0..self.size.before {
            service.next(readings);
            for (i, row) in readings.chunks_exact(canary + stable).enumerate() {
                own[i * canary..(i + 1) * canary].copy_from_slice(&row[..canary]);
                of_stable[i * stable..(i + 1) * stable].copy_from_slice(&row[canary..]);
            }
            trial.before(&of_stable, self.size.own_past.then_some(&own));
            if let Some(others) = others.as_mut().filter(|_| stable > 1) {
                others.before(&of_stable, stable);
            }
        }
    }
}

impl End {
    fn of(trial: &Trial) -> Self {
        let first = trial.causes().first().copied();
        Self { regressed_at: trial.regressed_at, healthy: trial.healthy_at.is_some(), first }
    }
}

/// Runs all of them on all CPUs. The outcomes do not depend on how many there are.
pub fn run(experiments: &[Experiment], seed: u64, threads: usize, bar: &ProgressBar) -> Vec<Vec<Outcome>> {
    let tasks: Vec<(usize, usize)> =
        experiments.iter().enumerate().flat_map(|(e, x)| (0..x.runs).map(move |run| (e, run))).collect();
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, usize, Outcome)>> = Mutex::new(Vec::with_capacity(tasks.len()));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(&(e, run)) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = experiments[e].run(seed, run);
                    bar.inc(1);
                    done.lock().expect("no thread panics while it holds the lock").push((e, run, outcome));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no thread panics while it holds the lock");
    done.sort_by_key(|(e, run, _)| (*e, *run));
    let mut outcomes = vec![Vec::new(); experiments.len()];
    for (e, _, outcome) in done {
        outcomes[e].push(outcome);
    }
    outcomes
}
