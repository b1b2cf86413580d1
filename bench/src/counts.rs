//! The count test on generated events: its rate of false alarms at the edge of what is allowed, and its delay.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use canary_user::{
    judge::{Counts, Parameters},
    window::{Event, Indicator, Reading, Window},
};

use indicatif::ProgressBar;

use crate::random::Random;

/// Windows before the canary in which both sides' usual rate and clumping can be seen.
const BEFORE: u64 = 900;
/// Work per window: a turnaround is the exposure.
const WORK: f64 = 1000.0;

/// A kind of event that comes of work.
const KIND: Event = Event::ServerErrors;

/// Events at so many per window for both sides together.
#[derive(Clone, Copy, Debug)]
pub struct Events {
    pub per_window: f64,
    /// The canary's share of the work.
    pub canary_share: f64,
    /// The canary's rate over stable's.
    pub ratio: f64,
    /// Shape of the gamma distribution that each side's rate follows from window to window; `None`: the rate is fixed.
    pub clumping: Option<f64>,
    pub windows: u64,
}

/// So many runs of the same, on all CPUs.
pub fn many(events: Events, seed: u64, runs: usize, threads: usize, bar: &ProgressBar) -> Vec<Option<u64>> {
    let next = AtomicU64::new(0);
    let work = || {
        let mut found = Vec::new();
        loop {
            let run = next.fetch_add(1, Ordering::Relaxed);
            if run >= runs as u64 {
                return found;
            }
            found.push(condemned_at(events, seed, run));
            bar.inc(1);
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|w| w.join().expect("a run does not panic")).collect()
    })
}

/// The window after the warm-up in which the kind's evidence alone reached 1/alpha.
pub fn condemned_at(events: Events, seed: u64, run: u64) -> Option<u64> {
    let parameters = Parameters { horizon_windows: events.windows, ..Parameters::default() };
    let mut random = Random::new(&[seed, 0xc0, run]);
    let mut counts = Counts::default();
    let mut window = empty();
    for t in 0..BEFORE + events.windows {
        window.index = t;
        let load = 1.0 + 0.5 * libm::sin(t as f64 / 300.0);
        let judged = t >= BEFORE;
        let mut side = |share: f64, ratio: f64| {
            let exposure = share * load * (0.8 + 0.4 * random.uniform());
            let rate = events.clumping.map_or(1.0, |shape| random.gamma(shape) / shape);
            let count = random.poisson(events.per_window * exposure * ratio * rate);
            (count, (WORK * exposure) as u64)
        };
        fill(&mut window.canary[0], side(events.canary_share, events.ratio));
        fill(&mut window.stable[0], side(1.0 - events.canary_share, 1.0));
        if judged {
            counts.observe(&window, &parameters);
            if counts.evidence_ln(KIND) >= parameters.threshold_ln() {
                return Some(t - BEFORE);
            }
        } else {
            counts.learn(&window);
        }
    }
    None
}

fn fill(reading: &mut Reading, (count, turnarounds): (u64, u64)) {
    reading.events[KIND as usize] = Some(count);
    reading.turnarounds = turnarounds;
}

fn empty() -> Window {
    let reading = |name: &str| Reading {
        instance: Arc::from(name),
        incarnation: 1,
        values: [f64::NAN; Indicator::COUNT],
        events: [None; Event::COUNT],
        turnarounds: 0,
        seconds: 1.0,
        around: Default::default(),
    };
    Window {
        deployment: Arc::from("generated"),
        index: 0,
        t_ns: 0,
        span_ns: 1_000_000_000,
        stable: vec![reading("/stable")],
        canary: vec![reading("/canary")],
        clean: true,
        node: Default::default(),
    }
}
