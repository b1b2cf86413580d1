//! How often an anomalous stretch is found where nothing happens, and how well one is told where something does.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use canary_user::judge::{
    Parameters, StretchShape, Tolerance,
    stretch::{Found, Moment, Watch},
};
use indicatif::ProgressBar;

use crate::{
    rows::{Row, Unit},
    service::{
        AR3, AR7, AR9, AR97, AR99, AR999, ARNOISE, BURSTY, DIURNAL, GC, IID, Kind, LOGN, LOWCOUNT, Service, Size, T3,
        VOLATILE,
    },
};

/// A day of windows of one second, and about half an hour of them.
const DAY: usize = 86_400;
const HALF_HOUR: usize = 2_000;
/// Windows of a run in which something happens, and when it does.
const WINDOWS: usize = 1800;
const FROM: usize = 1200;
const TO: usize = 1400;
const BURST: usize = 15;
/// The indicators in which it happens: noise of 5 % and of 12 % per instance.
const QUIET: usize = 1;
const MEDIUM: usize = 3;
const INDICATORS: usize = 6;
/// How far off a start or an end may be, and a size, to count as right.
const WITHIN_WINDOWS: f64 = 5.0;
const WITHIN_SIZE: f64 = 0.2;

/// What is asked, and on which kind of noise.
#[derive(Clone, Copy, Debug)]
pub enum Question {
    /// False stretches per indicator and day: at most one, of kinds that come in bursts or are noisier by turns as a goal only.
    Nothing { kind: Kind, required: bool },
    /// The same in the first half hour of a version, when little is known of it.
    Early(Kind),
    /// Share of changes that are told with the right shape, start, end and size.
    Something { kind: Kind, shape: StretchShape },
    /// Windows until a step of this size in noise of 12 % is found.
    Delay { kind: Kind, size: f64 },
}

impl Question {
    pub fn name(&self) -> String {
        match self {
            Question::Nothing { kind, .. } => format!("false stretches per indicator and day: {}", kind.name),
            Question::Early(kind) => format!("false stretches per indicator and day, first half hours: {}", kind.name),
            Question::Something { kind, shape } => format!("stretch told right: {} in {}", shape.name(), kind.name),
            Question::Delay { kind, size } => {
                format!("windows until a stretch is found, median: +{:.0} medium {}", 100.0 * size, kind.name)
            }
        }
    }

    /// Runs that are worth a figure, with so many days of each kind where nothing happens.
    fn runs(&self, days: usize) -> usize {
        match self {
            Question::Nothing { .. } => days.div_ceil(INDICATORS),
            Question::Early(_) => (days * DAY).div_ceil(INDICATORS * HALF_HOUR),
            Question::Something { .. } | Question::Delay { .. } => 5 * days,
        }
    }

    /// Stretches found, whether it was told right, or windows until it was found.
    fn run(&self, seed: u64, run: usize) -> usize {
        let all = |found: Vec<Vec<Found>>| found.iter().map(Vec::len).sum();
        match *self {
            Question::Nothing { kind, .. } => all(watch(kind, seed, run, DAY, |_, _| 0.0)),
            Question::Early(kind) => all(watch(kind, seed, run, HALF_HOUR, |_, _| 0.0)),
            Question::Something { kind, shape } => {
                let found = watch(kind, seed, run, WINDOWS, |i, t| if i == QUIET { change(shape, t) } else { 0.0 });
                usize::from(found[QUIET].iter().any(|f| is_right(f, shape)))
            }
            Question::Delay { kind, size } => {
                let step = |i, t| if i == MEDIUM && (FROM..TO).contains(&t) { libm::log1p(size) } else { 0.0 };
                let found = watch(kind, seed, run, WINDOWS, step);
                let delays = found[MEDIUM].iter().filter_map(|f| (f.found.index as usize).checked_sub(FROM));
                delays.min().unwrap_or(usize::MAX)
            }
        }
    }

    /// `told` has what each run gave.
    fn row(&self, told: &mut [usize]) -> Row {
        let runs = told.len();
        let a_day = |told: &[usize], windows: usize| {
            let n: usize = told.iter().sum();
            let days = (INDICATORS * runs * windows) as f64 / DAY as f64;
            let row = Row::new("17", &self.name(), n as f64 / days, 1.0, Unit::PerDay).on(runs);
            Row { detail: format!("{n} in {days:.0} days"), ..row }
        };
        match self {
            Question::Nothing { required: true, .. } => a_day(told, DAY),
            Question::Nothing { required: false, .. } => a_day(told, DAY).stretch(),
            Question::Early(_) => a_day(told, HALF_HOUR).stretch(),
            Question::Something { .. } => Row::share("18", &self.name(), told.iter().sum(), runs, 0.8, true),
            Question::Delay { .. } => {
                told.sort_unstable();
                let median = told.get(runs / 2).filter(|d| **d < TO - FROM).map_or(f64::INFINITY, |d| *d as f64);
                let n = told.iter().filter(|d| **d < TO - FROM).count();
                let row = Row::new("18", &self.name(), median, 60.0, Unit::Windows).on(runs).stretch();
                Row { detail: format!("found in {n} of {runs}"), ..row }
            }
        }
    }
}

/// Everything that is asked.
pub fn questions() -> Vec<Question> {
    let nothing = |kind: Kind| Question::Nothing { kind, required: kind != VOLATILE && kind != BURSTY };
    let shapes = [StretchShape::Step, StretchShape::Drift, StretchShape::Burst, StretchShape::Oscillation];
    let something = [IID, AR7, T3].into_iter().flat_map(|kind| shapes.map(|shape| Question::Something { kind, shape }));
    let delays = [IID, AR7, AR9, T3].into_iter().flat_map(|kind| [0.2, 0.4].map(|size| Question::Delay { kind, size }));
    let ordinary = [IID, AR3, AR7, AR9, T3, LOGN, GC, ARNOISE, LOWCOUNT];
    let changing = [VOLATILE, BURSTY];
    let slow = [AR97, AR99, AR999, DIURNAL];
    ordinary
        .into_iter()
        .chain(changing)
        .map(nothing)
        .chain(ordinary.into_iter().chain(changing).chain(slow).map(Question::Early))
        .chain(something)
        .chain(delays)
        .collect()
}

/// Asks on all threads. The answers do not depend on how many there are.
pub fn rows(questions: &[Question], seed: u64, days: usize, threads: usize, bar: &ProgressBar) -> Vec<Row> {
    let tasks: Vec<(usize, usize)> =
        questions.iter().enumerate().flat_map(|(q, x)| (0..x.runs(days)).map(move |run| (q, run))).collect();
    let next = AtomicUsize::new(0);
    let told: Vec<Vec<usize>> = questions.iter().map(|q| vec![0; q.runs(days)]).collect();
    let told = Mutex::new(told);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(&(q, run)) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let n = questions[q].run(seed, run);
                    bar.inc(1);
                    told.lock().expect("no thread panics while it holds the lock")[q][run] = n;
                }
            });
        }
    });
    let told = told.into_inner().expect("no thread panics while it holds the lock");
    questions.iter().zip(told).map(|(q, mut told)| q.row(&mut told)).collect()
}

pub fn steps(questions: &[Question], days: usize) -> usize {
    questions.iter().map(|q| q.runs(days)).sum()
}

/// Watches one version of three instances. Answers by indicator what was found, the last one perhaps open.
fn watch(kind: Kind, seed: u64, run: usize, windows: usize, change: impl Fn(usize, usize) -> f64) -> Vec<Vec<Found>> {
    let p = Parameters::default();
    let size = Size { indicators: INDICATORS, canary: 0, before: 0, windows, warmup: 0, ..Size::default() };
    let mut service = Service::new(kind, size, None, seed ^ 0x5712_e7c4, run as u64);
    let mut readings = vec![0.0; size.indicators * size.stable];
    let mut watches = vec![Watch::new(&p); size.indicators];
    let mut found = vec![Vec::new(); size.indicators];
    for t in 0..windows {
        service.next(&mut readings);
        let at = Moment { index: t as u64, t_ns: t as u64 * 1_000_000_000 };
        for (i, row) in readings.chunks_exact(size.stable).enumerate() {
            let level = row.iter().sum::<f64>() / row.len() as f64 + change(i, t);
            found[i].extend(watches[i].observe(level, at, Tolerance::default().delta, &p));
        }
    }
    for (found, watch) in found.iter_mut().zip(&watches) {
        found.extend(watch.open(&p));
    }
    found
}

fn end(shape: StretchShape) -> usize {
    if shape == StretchShape::Burst { FROM + BURST } else { TO }
}

/// What happens in window `t`, as ln.
fn change(shape: StretchShape, t: usize) -> f64 {
    if !(FROM..end(shape)).contains(&t) {
        return 0.0;
    }
    match shape {
        StretchShape::Step => libm::log1p(0.3),
        StretchShape::Burst => libm::log1p(1.0),
        // Its median is half of what it comes to.
        StretchShape::Drift => libm::log1p((t - FROM) as f64 / (TO - FROM) as f64),
        StretchShape::Oscillation => libm::log1p(0.5) * if (t / 4).is_multiple_of(2) { 1.0 } else { -1.0 },
    }
}

fn is_right(found: &Found, shape: StretchShape) -> bool {
    let size = match shape {
        StretchShape::Step => 0.3,
        StretchShape::Burst => 1.0,
        StretchShape::Drift | StretchShape::Oscillation => 0.5,
    };
    let near = |at: Moment, place: usize, within: f64| (at.index as f64 - place as f64).abs() <= within;
    // A ramp is seen to begin when it leaves the band.
    let start = if shape == StretchShape::Drift { 8.0 * WITHIN_WINDOWS } else { WITHIN_WINDOWS };
    found.shape == shape
        && near(found.start, FROM, start)
        && found.end.is_some_and(|at| near(at, end(shape) - 1, WITHIN_WINDOWS))
        && (libm::expm1(found.size) - size).abs() <= WITHIN_SIZE * size
}
