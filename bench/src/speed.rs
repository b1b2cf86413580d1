//! What a window costs the judge's core: nanoseconds and bytes per indicator.

use canary_user::judge::Parameters;

use rustix::time::{ClockId, clock_gettime};

use crate::{
    service::{AR3, Service, Size},
    trial::Trial,
};

/// Repetitions, of which the quickest counts: what else the machine does only adds.
const ROUNDS: usize = 5;

/// Nanoseconds per indicator and window, with three stable instances.
pub fn nanoseconds() -> f64 {
    let size = Size { indicators: 8, before: 900, windows: 1860, ..Size::default() };
    let mut service = Service::new(AR3, size, None, 0, 0);
    let each = size.indicators * service.instances();
    let mut readings = vec![0.0; each * (size.before + size.windows)];
    readings.chunks_exact_mut(each).for_each(|window| service.next(window));
    let (history, rollout) = readings.split_at(each * size.before);
    let stable: Vec<f64> =
        history.chunks_exact(size.canary + size.stable).flat_map(|row| &row[size.canary..]).copied().collect();
    let round = || {
        let mut trial = Trial::new(Parameters::default(), size.indicators, size.canary, size.stable);
        stable.chunks_exact(size.indicators * size.stable).for_each(|window| trial.before(window, None));
        let started = cpu_ns();
        for window in rollout.chunks_exact(each) {
            trial.window(window);
        }
        (cpu_ns() - started) as f64 / (size.windows * size.indicators) as f64
    };
    (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
}

/// CPU time of this thread: what others take of the machine does not count.
fn cpu_ns() -> i64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}
