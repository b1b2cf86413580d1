//! Generated services: instances of one version whose readings differ by offsets and noise, and a canary that may be worse.
//!
//! A [`Kind`] of noise and a [`Change`] make a [`Service`]; each call of [`Service::next`] gives one window of readings as
//! natural logarithms, canary instances first. Constant memory: nothing of the past is kept.

use std::f64::consts::TAU;

use crate::random::Random;

/// What the noise of every instance is like, with standard deviation 1 before it is scaled by the indicator's own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Noise {
    Independent,
    /// First-order autoregression with this correlation from window to window.
    Autoregressive(f64),
    /// Student's t with these degrees of freedom.
    Student(f64),
    /// Log-normal whose logarithm has this standard deviation, centred.
    LogNormal(f64),
    /// A part of the variance is a slow autoregression, the rest is independent.
    SlowAndFast {
        slow: f64,
        rho: f64,
    },
    /// Per instance, one-sided: begins with a probability per window, lasts a mean number of windows.
    Bursty {
        begins: f64,
        length: f64,
        amplitude: f64,
    },
    /// A peak of one window each so many windows, like a garbage collection.
    Peaks {
        period: u64,
        amplitude: f64,
    },
    /// All instances get noisier and quieter together.
    Volatile,
    /// Rates of events among so few requests per window.
    LowCount {
        requests: f64,
    },
}

/// A kind of service.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kind {
    pub name: &'static str,
    /// Names the kind's random stream.
    pub id: u64,
    pub noise: Noise,
    /// Length in windows of a wave of load, with a slow common mode and noise that grows with the load.
    pub wave: Option<f64>,
    /// Share of the readings that are missing.
    pub missing: f64,
    /// Standard deviation of ln between equal instances.
    pub spread: f64,
}

const fn kind(name: &'static str, id: u64, noise: Noise) -> Kind {
    Kind { name, id, noise, wave: None, missing: 0.0, spread: 0.005 }
}

pub const IID: Kind = kind("iid", 1, Noise::Independent);
pub const AR3: Kind = kind("ar0.3", 2, Noise::Autoregressive(0.3));
pub const AR7: Kind = kind("ar0.7", 3, Noise::Autoregressive(0.7));
pub const AR9: Kind = kind("ar0.9", 4, Noise::Autoregressive(0.9));
pub const T3: Kind = kind("t3", 5, Noise::Student(3.0));
pub const LOGN: Kind = kind("logn", 6, Noise::LogNormal(1.0));
pub const DIURNAL: Kind = Kind { wave: Some(2400.0), ..kind("diurnal", 7, Noise::Autoregressive(0.3)) };
pub const BURSTY: Kind = kind("bursty", 8, Noise::Bursty { begins: 0.003, length: 15.0, amplitude: 3.0 });
pub const GC: Kind = kind("gc", 9, Noise::Peaks { period: 40, amplitude: 8.0 });
pub const ARNOISE: Kind = kind("arnoise", 10, Noise::SlowAndFast { slow: 0.3, rho: 0.95 });
pub const LOWCOUNT: Kind = kind("lowcount", 11, Noise::LowCount { requests: 12.0 });
pub const MISSING: Kind = Kind { missing: 0.2, ..kind("missing", 12, Noise::Autoregressive(0.3)) };
pub const VOLATILE: Kind = kind("volatile", 13, Noise::Volatile);
pub const AR97: Kind = kind("ar0.97", 15, Noise::Autoregressive(0.97));
pub const AR99: Kind = kind("ar0.99", 16, Noise::Autoregressive(0.99));
pub const AR999: Kind = kind("ar0.999", 17, Noise::Autoregressive(0.999));
pub const TAU2: Kind = Kind { spread: 0.02, ..kind("tau2", 14, Noise::Independent) };

/// Every kind but those whose equal versions no method can keep apart from unequal ones: bursts and a spread of 2 %.
pub const ORDINARY: [Kind; 12] = [IID, AR3, AR7, AR9, T3, LOGN, DIURNAL, GC, ARNOISE, LOWCOUNT, MISSING, VOLATILE];

/// How the canary is worse than stable from some window on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// So many times more: 0.2 is +20 %.
    Step(f64),
    /// Grows by this share in 1 000 windows.
    Leak(f64),
    /// Up by this share, in one of so many windows (at random).
    Spikes { size: f64, one_in: f64 },
    /// The canary's own noise times this, its mean unchanged.
    Noisier(f64),
}

/// A change of the canary.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Window of the canary at which it begins.
    pub at: usize,
    /// Indicators, and what happens to each.
    pub parts: Vec<(usize, Shape)>,
}

/// Sizes of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size {
    pub indicators: usize,
    pub canary: usize,
    pub stable: usize,
    /// Windows of stable alone (or, with an own past, of both).
    pub before: usize,
    /// Windows of the canary, the warm-up among them.
    pub windows: usize,
    pub warmup: usize,
    /// Whether the canary's instances were there before as stable's version: an upgrade in place.
    pub own_past: bool,
    /// Earlier rollouts of the service, of which the judge knows how far equal instances were apart and how noisy they were.
    pub earlier: usize,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            indicators: 6,
            canary: 1,
            stable: 3,
            before: 900,
            windows: 3660,
            warmup: 60,
            own_past: false,
            earlier: 0,
        }
    }
}

/// Noise of the quietest and of the loudest indicator, as standard deviations of ln; the others lie between, equally
/// spaced as logarithms: 3, 5, 8, 12, 19 and 30 % with six.
const QUIETEST: f64 = 0.03;
const LOUDEST: f64 = 0.30;

/// One generated service. Windows are counted from the first of the canary; those before are negative.
pub struct Service {
    kind: Kind,
    size: Size,
    change: Option<Change>,
    random: Random,
    t: usize,
    deviations: Vec<f64>,
    /// By indicator and instance.
    offsets: Vec<f64>,
    cells: Vec<Cell>,
    phases: Vec<f64>,
    common: Vec<f64>,
    volatility: f64,
}

/// What one instance's noise in one indicator remembers.
#[derive(Clone, Copy, Default)]
struct Cell {
    slow: f64,
    burst: bool,
    until_peak: u64,
}

impl Service {
    /// `run` numbers the repetitions; the same numbers give the same service.
    pub fn new(kind: Kind, size: Size, change: Option<Change>, seed: u64, run: u64) -> Self {
        let mut random = Random::new(&[seed, kind.id, run]);
        let instances = size.canary + size.stable;
        let step = libm::log(LOUDEST / QUIETEST) / (size.indicators.max(2) - 1) as f64;
        let deviations = (0..size.indicators).map(|i| QUIETEST * libm::exp(step * i as f64)).collect();
        let n = size.indicators * instances;
        let offsets = (0..n).map(|_| kind.spread * random.normal()).collect();
        let cells = (0..n)
            .map(|_| {
                let until_peak =
                    if let Noise::Peaks { period, .. } = kind.noise { random.between(0, period) } else { 0 };
                Cell { slow: random.normal(), burst: false, until_peak }
            })
            .collect();
        let phases = (0..size.indicators).map(|_| random.phase()).collect();
        let common = (0..size.indicators).map(|_| random.normal()).collect();
        let volatility = random.normal();
        Self { kind, size, change, random, t: 0, deviations, offsets, cells, phases, common, volatility }
    }

    pub fn instances(&self) -> usize {
        self.size.canary + self.size.stable
    }

    /// The next window: for each indicator the readings of all instances as ln, canary first, NaN where missing.
    pub fn next(&mut self, readings: &mut [f64]) {
        let instances = self.instances();
        let total = (self.size.before + self.size.windows) as f64;
        let at = self.t as f64;
        let wave = self.kind.wave.map(|length| (TAU * at / length, libm::exp(0.5 * libm::sin(TAU * at / length))));
        self.volatility = 0.98 * self.volatility + (1.0f64 - 0.98 * 0.98).sqrt() * self.random.normal();
        let live = self.t.checked_sub(self.size.before);
        let requests = self.requests(at);
        for i in 0..self.size.indicators {
            let row = &mut readings[i * instances..(i + 1) * instances];
            let mut shared = 0.0;
            if let Some((angle, _)) = wave {
                self.common[i] = 0.95 * self.common[i] + (1.0f64 - 0.95 * 0.95).sqrt() * self.random.normal();
                shared = 0.4 * libm::sin(angle + self.phases[i]) + 0.1 * self.common[i] + 0.3 * at / total;
            }
            for (j, reading) in row.iter_mut().enumerate() {
                let place = i * instances + j;
                *reading = self.offsets[place]
                    + match self.kind.noise {
                        Noise::LowCount { .. } => self.low_count(i, requests[j]),
                        _ => {
                            let scale = wave.map_or(1.0, |(_, factor)| factor);
                            self.deviations[i] * scale * self.noise(place) + shared
                        }
                    };
            }
            if let Some(window) = live {
                self.alter(i, window, row);
            }
            if self.kind.missing > 0.0 {
                for reading in row {
                    if self.random.chance(self.kind.missing) {
                        *reading = f64::NAN;
                    }
                }
            }
        }
        self.t += 1;
    }

    /// Requests of each instance in this window, where few of them make the noise.
    fn requests(&mut self, at: f64) -> Vec<u64> {
        let Noise::LowCount { requests } = self.kind.noise else { return Vec::new() };
        let load = requests * (1.0 + 0.5 * libm::sin(TAU * at / 1800.0));
        (0..self.instances()).map(|_| self.random.poisson(load)).collect()
    }

    fn low_count(&mut self, indicator: usize, requests: u64) -> f64 {
        // From 0.05 to 1.6 events per request, equally spaced as logarithms.
        let step = libm::log(1.6 / 0.05) / (self.size.indicators.max(2) - 1) as f64;
        let rate = 0.05 * libm::exp(step * indicator as f64);
        let events = self.random.poisson(rate * requests as f64);
        libm::log((events as f64 + 0.5) / (requests as f64 + 1.0))
    }

    /// One deviate of the kind's noise.
    fn noise(&mut self, place: usize) -> f64 {
        let (random, cell) = (&mut self.random, &mut self.cells[place]);
        let slow = |cell: &mut Cell, random: &mut Random, rho: f64| {
            cell.slow = rho * cell.slow + (1.0 - rho * rho).sqrt() * random.normal();
            cell.slow
        };
        match self.kind.noise {
            Noise::Independent | Noise::LowCount { .. } => random.normal(),
            Noise::Autoregressive(rho) => slow(cell, random, rho),
            Noise::Student(freedom) => random.student(freedom),
            Noise::LogNormal(s) => {
                let square = libm::exp(s * s);
                (libm::exp(s * random.normal()) - square.sqrt()) / ((square - 1.0) * square).sqrt()
            }
            Noise::SlowAndFast { slow: share, rho } => {
                let slow = slow(cell, random, rho);
                (1.0 - share).sqrt() * random.normal() + share.sqrt() * slow
            }
            Noise::Bursty { begins, length, amplitude } => {
                cell.burst = if cell.burst { !random.chance(1.0 / length) } else { random.chance(begins) };
                random.normal() + if cell.burst { amplitude } else { 0.0 }
            }
            Noise::Peaks { period, amplitude } => {
                let peak = cell.until_peak == 0;
                cell.until_peak =
                    if peak { random.between(3 * period / 4, 5 * period / 4) } else { cell.until_peak - 1 };
                random.normal() + if peak { amplitude } else { 0.0 }
            }
            Noise::Volatile => random.normal() * libm::exp(0.5 * self.volatility),
        }
    }

    /// Start-up cost and change of the canary's readings of one indicator.
    fn alter(&mut self, indicator: usize, window: usize, row: &mut [f64]) {
        let (k, warmup) = (self.size.canary, self.size.warmup);
        if window < warmup {
            let start_up = libm::exp(-4.0 * window as f64 / warmup as f64);
            row[..k].iter_mut().for_each(|x| *x += start_up);
        }
        let Some(change) = self.change.as_ref().filter(|change| window >= change.at) else { return };
        let since = (window - change.at) as f64;
        let stable = row[k..].iter().sum::<f64>() / (row.len() - k) as f64;
        for (_, shape) in change.parts.iter().filter(|(i, _)| *i == indicator) {
            for x in &mut row[..k] {
                match *shape {
                    Shape::Step(size) => *x += libm::log1p(size),
                    Shape::Leak(size) => *x += libm::log1p(size * since / 1000.0),
                    Shape::Spikes { size, one_in } => {
                        *x += if self.random.chance(1.0 / one_in) { libm::log1p(size) } else { 0.0 };
                    }
                    Shape::Noisier(factor) => *x = stable + (*x - stable) * factor,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_begins_when_it_should_and_hits_the_canary_alone() {
        let size = Size { before: 10, windows: 200, warmup: 20, ..Size::default() };
        let change = Change { at: 100, parts: vec![(2, Shape::Step(1.0))] };
        let (mut good, mut bad) = (Service::new(AR3, size, None, 1, 1), Service::new(AR3, size, Some(change), 1, 1));
        let (mut a, mut b) = (vec![0.0; 24], vec![0.0; 24]);
        for t in 0..210 {
            good.next(&mut a);
            bad.next(&mut b);
            for (place, (x, y)) in a.iter().zip(&b).enumerate() {
                let expected = if t >= 110 && place == 8 { 2f64.ln() } else { 0.0 };
                assert!((y - x - expected).abs() < 1e-12, "window {t}, place {place}: {x} {y}");
            }
        }
    }

    #[test]
    fn every_kind_has_readings() {
        for kind in ORDINARY.into_iter().chain([BURSTY, TAU2]) {
            let mut service = Service::new(kind, Size::default(), None, 1, 1);
            let mut readings = vec![0.0; 24];
            let mut present = 0;
            for _ in 0..1000 {
                service.next(&mut readings);
                present += readings.iter().filter(|x| x.is_finite()).count();
            }
            let share = present as f64 / 24_000.0;
            assert!((share - (1.0 - kind.missing)).abs() < 0.02, "{}: {share}", kind.name);
        }
    }
}
