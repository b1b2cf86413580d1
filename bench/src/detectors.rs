//! What is used elsewhere to judge a canary, on the same windows: for comparison in docs/judge.md.
//!
//! Each learns what it needs from the windows before the canary and then looks at every window after the warm-up.

/// Names in the table, in the order of [`Detectors::fired`].
pub const NAMES: [&str; DETECTORS] =
    ["1.1x, five in a row", "EWMA, 3 sigma", "CUSUM, h = 5", "Kayenta's Mann-Whitney rule, each 60 windows"];
pub const DETECTORS: usize = 4;

/// Windows that Kayenta's rule compares at a time.
const BATCH: usize = 60;
/// Weight of the newest window in the exponentially weighted mean.
const EWMA_WEIGHT: f64 = 0.2;

pub struct Detectors {
    canary: usize,
    indicators: Vec<State>,
    t: usize,
    /// By detector: the window in which it first said "worse".
    pub fired: [Option<usize>; DETECTORS],
}

#[derive(Clone, Default)]
struct State {
    /// Differences between the first stable instance and the others before the canary: number, mean, sum of squares.
    n: f64,
    mean: f64,
    squares: f64,
    above: u32,
    ewma: f64,
    cusum: f64,
    /// Readings since the last comparison.
    batch_canary: Vec<f64>,
    batch_stable: Vec<f64>,
}

impl Detectors {
    pub fn new(indicators: usize, canary: usize) -> Self {
        Self { canary, indicators: vec![State::default(); indicators], t: 0, fired: [None; DETECTORS] }
    }

    /// A window before the canary: for each indicator the stable readings as ln.
    pub fn before(&mut self, readings: &[f64], stable: usize) {
        for (state, row) in self.indicators.iter_mut().zip(readings.chunks_exact(stable)) {
            let d = row[0] - mean(&row[1..]);
            if !d.is_nan() {
                state.n += 1.0;
                let step = d - state.mean;
                state.mean += step / state.n;
                state.squares += step * (d - state.mean);
            }
        }
    }

    /// A window of the rollout, as for [`Trial::window`](crate::trial::Trial::window); `judged` after the warm-up.
    pub fn window(&mut self, readings: &[f64], instances: usize, judged: bool) {
        let mut says = [false; DETECTORS];
        for (state, row) in self.indicators.iter_mut().zip(readings.chunks_exact(instances)).filter(|_| judged) {
            let (canary, stable) = row.split_at(self.canary);
            let d = mean(canary) - mean(stable);
            if !d.is_nan() {
                state.above = if d > 1.1f64.ln() { state.above + 1 } else { 0 };
                let z = d / (state.squares / (state.n - 1.0).max(1.0)).sqrt().max(1e-9);
                state.ewma += EWMA_WEIGHT * (z - state.ewma);
                state.cusum = (state.cusum + z - 0.5).max(0.0);
            }
            if !canary[0].is_nan() && !stable[0].is_nan() {
                state.batch_canary.push(canary[0].exp());
                state.batch_stable.push(stable[0].exp());
            }
            says[0] |= state.above >= 5;
            says[1] |= state.ewma > 3.0 * (EWMA_WEIGHT / (2.0 - EWMA_WEIGHT)).sqrt();
            says[2] |= state.cusum > 5.0;
            if state.batch_canary.len() == BATCH {
                says[3] |= is_high(&state.batch_canary, &state.batch_stable);
                state.batch_canary.clear();
                state.batch_stable.clear();
            }
        }
        for (fired, said) in self.fired.iter_mut().zip(says) {
            if said && fired.is_none() {
                *fired = Some(self.t);
            }
        }
        self.t += 1;
    }

    pub fn all_fired(&self) -> bool {
        self.fired.iter().all(Option::is_some)
    }
}

/// Kayenta's `MannWhitneyClassifier` with its defaults: the lower end of the 98 % interval of the Hodges-Lehmann shift
/// exceeds a quarter of the estimated shift.
fn is_high(experiment: &[f64], control: &[f64]) -> bool {
    let mut shifts: Vec<f64> = experiment.iter().flat_map(|x| control.iter().map(move |y| x - y)).collect();
    shifts.sort_by(f64::total_cmp);
    let (n, m) = (experiment.len() as f64, control.len() as f64);
    // Normal approximation of the distribution of U; 2.326 leaves 1 % on each side.
    let rank = n * m / 2.0 - 2.326 * (n * m * (n + m + 1.0) / 12.0).sqrt();
    let lower = shifts[rank.max(0.0) as usize];
    let estimate = shifts[shifts.len() / 2];
    estimate > 0.0 && lower > 0.25 * estimate
}

fn mean(values: &[f64]) -> f64 {
    let (sum, n) = values.iter().filter(|x| !x.is_nan()).fold((0.0, 0.0), |(sum, n), x| (sum + x, n + 1.0));
    sum / n
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Deterministic noise of standard deviation about 0.06.
    fn reading(t: usize, instance: usize) -> f64 {
        (((t * 7919 + instance * 104_729) % 1009) as f64 / 1009.0 - 0.5) * 0.2
    }

    fn first_alarms(rise: f64) -> [Option<usize>; DETECTORS] {
        let mut detectors = Detectors::new(1, 1);
        for t in 0..300 {
            detectors.before(&[reading(t, 1), reading(t, 2), reading(t, 3)], 3);
        }
        for t in 300..420 {
            let canary = reading(t, 0) + if t >= 360 { rise } else { 0.0 };
            detectors.window(&[canary, reading(t, 1), reading(t, 2), reading(t, 3)], 4, true);
        }
        detectors.fired
    }

    #[test]
    fn each_sees_a_doubling() {
        for (name, fired) in NAMES.iter().zip(first_alarms(2f64.ln())) {
            assert!(fired.is_some_and(|t| (60..=120).contains(&t)), "{name}: {fired:?}");
        }
    }

    #[test]
    fn none_sees_anything_in_equal_independent_noise_for_an_hour() {
        assert_eq!(first_alarms(0.0)[0], None);
        assert_eq!(first_alarms(0.0)[3], None);
    }
}
