//! When memory runs out: a straight line through the canary's memory in use, with an interval.
//!
//! The slope is the median of the slopes between all pairs of points, its interval comes from the normal approximation of
//! Kendall's statistic (Theil 1950; Sen 1968, doi 10.1080/01621459.1968.10480934). Points are means over equal stretches, so
//! that neighbours are nearly independent. Constant memory.

use std::sync::Arc;

use super::verdict::Forecast;
use crate::window::{Reading, Window};

/// Points that are kept: when they are full, two become one.
const POINTS: usize = 48;
/// Fewest points that a slope is told from, in each half.
const NEEDED: usize = 8;
/// An interval that is wider than this factor tells nothing; that of a step is.
const WIDEST: f64 = 3.0;
/// Quantile of the standard normal distribution for an interval of 95 %.
const Z95: f64 = 1.96;
/// What is further away than this is not told.
const HORIZON_S: f64 = 24.0 * 3600.0;
/// Instances that are followed, each by itself: in a mean of many, one that leaks grows slower than it does.
const MOST_INSTANCES: usize = 8;
/// Windows without a reading after which an instance is forgotten. Up to 60 may be merged into one reading.
const FORGOTTEN_WINDOWS: u64 = 120;

/// Memory in use of the canary's instances over time, thinned out.
#[derive(Clone, Debug, Default)]
pub struct Growth {
    instances: Vec<Instance>,
    forecast: Option<Forecast>,
}

/// One of them.
#[derive(Clone, Debug)]
struct Instance {
    name: Arc<str>,
    incarnation: u64,
    last_window: u64,
    /// Of its own cgroup.
    limit_bytes: Option<u64>,
    points: Vec<Mean>,
    open: Mean,
    windows_per_point: u64,
    line: Option<Line>,
}

/// Mean of a stretch: sums of time in seconds and bytes, the first window.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    n: f64,
    t_s: f64,
    bytes: f64,
    first_window: u64,
}

/// A straight line upwards.
#[derive(Clone, Copy, Debug)]
struct Line {
    bytes_per_s: f64,
    /// Ends of the slope's interval.
    low: f64,
    high: f64,
    /// A place that it goes through.
    t_s: f64,
    bytes: f64,
    since_window: u64,
}

impl Growth {
    /// Takes in what each of the canary's instances uses, its limit, and what the machine has left.
    pub fn observe(&mut self, window: &Window, memory: usize) {
        self.instances.retain(|i| window.index.saturating_sub(i.last_window) <= FORGOTTEN_WINDOWS);
        for reading in &window.canary {
            let in_use = reading.values[memory];
            if in_use.is_finite()
                && let Some(instance) = self.instance(reading)
            {
                instance.observe(in_use, reading, window);
            }
        }
        self.forecast = self.first_to_run_out(window);
    }

    /// When the limit is reached if it goes on like this; `None` where nothing grows towards a limit.
    pub fn forecast(&self) -> Option<&Forecast> {
        self.forecast.as_ref()
    }

    /// `None` where there are too many.
    fn instance(&mut self, reading: &Reading) -> Option<&mut Instance> {
        let known = self.instances.iter().position(|i| i.name == reading.instance);
        let at = known.unwrap_or(self.instances.len());
        if at == MOST_INSTANCES {
            return None;
        }
        if known.is_none() {
            self.instances.push(Instance::of(reading));
        }
        let instance = &mut self.instances[at];
        if instance.incarnation != reading.incarnation {
            // Another process has another history.
            *instance = Instance::of(reading);
        }
        Some(instance)
    }

    fn first_to_run_out(&self, window: &Window) -> Option<Forecast> {
        let now_s = window.t_ns as f64 / 1e9;
        let growing = || self.instances.iter().filter_map(|i| Some((i.limit_bytes, i.line.as_ref()?)));
        let together: f64 = growing().map(|(_, line)| line.bytes_per_s).sum();
        let forecasts = growing().filter_map(|(limit_bytes, line)| match limit_bytes {
            Some(bytes) => line.reaches(bytes as f64, true, now_s),
            None => {
                // They use up together what the machine has left: the faster one grows, the more of it is its own.
                let left = window.node.memory_available_bytes? as f64 * line.bytes_per_s / together;
                line.reaches(line.at(now_s) + left, false, now_s)
            }
        });
        forecasts.min_by(|a, b| a.seconds.total_cmp(&b.seconds))
    }
}

impl Instance {
    fn of(reading: &Reading) -> Self {
        Self {
            name: reading.instance.clone(),
            incarnation: reading.incarnation,
            last_window: 0,
            limit_bytes: None,
            points: Vec::new(),
            open: Mean::default(),
            windows_per_point: 1,
            line: None,
        }
    }

    fn observe(&mut self, in_use_bytes: f64, reading: &Reading, window: &Window) {
        self.last_window = window.index;
        self.limit_bytes = reading.around.memory_limit_bytes;
        if self.open.n == 0.0 {
            self.open.first_window = window.index;
        }
        self.open.n += 1.0;
        self.open.t_s += window.t_ns as f64 / 1e9;
        self.open.bytes += in_use_bytes;
        if self.open.n as u64 >= self.windows_per_point {
            self.points.push(std::mem::take(&mut self.open));
            if self.points.len() == POINTS {
                self.points = self.points.chunks(2).map(merge).collect();
                self.windows_per_point *= 2;
            }
            self.line = self.upwards();
        }
    }

    /// Through the latest half of the points: what was long before a leak began tells nothing about it. It has to grow in
    /// both halves of them, or it is a step.
    fn upwards(&self) -> Option<Line> {
        let latest = &self.points[self.points.len().saturating_sub(POINTS / 2)..];
        let points: Vec<(f64, f64)> = latest.iter().map(|m| (m.t_s / m.n, m.bytes / m.n)).collect();
        let (before, after) = points.split_at(points.len() / 2);
        if before.len() < NEEDED || theil_sen(before)?.1 <= 0.0 || theil_sen(after)?.1 <= 0.0 {
            return None;
        }
        let (bytes_per_s, low, high) = theil_sen(&points)?;
        if low <= 0.0 || high > WIDEST * low {
            return None;
        }
        // The last point stands for the middle of its stretch.
        let (t_s, bytes) = *points.last()?;
        Some(Line { bytes_per_s, low, high, t_s, bytes, since_window: latest[0].first_window })
    }
}

impl Line {
    fn at(&self, now_s: f64) -> f64 {
        self.bytes + self.bytes_per_s * (now_s - self.t_s)
    }

    /// When it reaches a limit, where that is ahead and not too far.
    fn reaches(&self, limit_bytes: f64, own_limit: bool, now_s: f64) -> Option<Forecast> {
        let in_use = self.at(now_s);
        let left = limit_bytes - in_use;
        if left <= 0.0 || left / self.bytes_per_s > HORIZON_S {
            return None;
        }
        Some(Forecast {
            in_use_bytes: in_use as u64,
            limit_bytes: limit_bytes as u64,
            own_limit,
            bytes_per_s: self.bytes_per_s,
            seconds: left / self.bytes_per_s,
            seconds_low: left / self.high,
            seconds_high: left / self.low,
            since_window: self.since_window,
        })
    }
}

fn merge(pair: &[Mean]) -> Mean {
    pair[1..].iter().fold(pair[0], |a, b| Mean { n: a.n + b.n, t_s: a.t_s + b.t_s, bytes: a.bytes + b.bytes, ..a })
}

/// Median slope and the ends of its interval of 95 %; `None` for points without any distance in time.
fn theil_sen(points: &[(f64, f64)]) -> Option<(f64, f64, f64)> {
    let mut slopes = Vec::with_capacity(points.len() * points.len() / 2);
    for (i, a) in points.iter().enumerate() {
        slopes.extend(points[i + 1..].iter().filter(|b| b.0 > a.0).map(|b| (b.1 - a.1) / (b.0 - a.0)));
    }
    if slopes.is_empty() {
        return None;
    }
    slopes.sort_by(f64::total_cmp);
    let (n, pairs) = (points.len() as f64, slopes.len() as f64);
    let reach = Z95 * (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
    let at = |rank: f64| slopes[(rank.max(0.0) as usize).min(slopes.len() - 1)];
    Some((at(pairs / 2.0), at((pairs - reach) / 2.0), at((pairs + reach) / 2.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::{Around, Event, Indicator, Node};

    const MEMORY: usize = Indicator::MemoryInUse as usize;

    fn window(index: u64, bytes: f64, limit: Option<u64>) -> Window {
        let mut values = [f64::NAN; Indicator::COUNT];
        values[MEMORY] = bytes;
        Window {
            deployment: "shop".into(),
            index,
            t_ns: index * 1_000_000_000,
            span_ns: 1_000_000_000,
            stable: Vec::new(),
            canary: vec![Reading {
                instance: "/0".into(),
                incarnation: 1,
                values,
                events: [Some(0); Event::COUNT],
                turnarounds: 1,
                seconds: 1.0,
                around: Around { memory_limit_bytes: limit, ..Around::default() },
            }],
            clean: true,
            node: Node::default(),
        }
    }

    /// Noise of 2 MB around a line, the same in every run (SplitMix64).
    fn noise(index: u64) -> f64 {
        let z = index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        2e6 * ((z >> 11) as f64 / (1u64 << 52) as f64 - 1.0)
    }

    #[test]
    fn a_leak_is_extrapolated_to_its_limit() {
        let mut growth = Growth::default();
        for i in 0..600 {
            growth.observe(&window(i, 100e6 + 0.2e6 * i as f64 + noise(i), Some(400_000_000)), MEMORY);
        }
        // 220 MB now; 180 MB are left, at 0.2 MB/s.
        let f = growth.forecast().expect("it grows");
        assert!((f.seconds - 900.0).abs() < 30.0 && f.own_limit, "{f:?}");
        assert!(f.seconds_low < f.seconds && f.seconds < f.seconds_high, "{f:?}");
        assert!((f.bytes_per_s - 0.2e6).abs() < 0.01e6, "{f:?}");
    }

    #[test]
    fn what_does_not_grow_or_has_no_limit_has_no_forecast() {
        for (slope, limit) in [(0.0, Some(400_000_000)), (-0.1e6, Some(400_000_000)), (0.2e6, None)] {
            let mut growth = Growth::default();
            for i in 0..600 {
                growth.observe(&window(i, 200e6 + slope * i as f64 + noise(i), limit), MEMORY);
            }
            assert_eq!(growth.forecast(), None, "{slope} {limit:?}");
        }
    }

    #[test]
    fn a_step_is_no_leak() {
        for at in (50..600).step_by(50) {
            let mut growth = Growth::default();
            for i in 0..600 {
                let level = if i < at { 100e6 } else { 200e6 };
                growth.observe(&window(i, level + noise(i), Some(400_000_000)), MEMORY);
                assert_eq!(growth.forecast(), None, "step at {at}, window {i}");
            }
        }
    }

    #[test]
    fn a_restart_begins_anew_and_the_points_are_bounded() {
        let mut growth = Growth::default();
        for i in 0..10_000 {
            let mut w = window(i, 1e8 + 1e4 * i as f64, Some(1 << 40));
            w.canary[0].incarnation = 1 + i / 9_999;
            growth.observe(&w, MEMORY);
            assert!(growth.instances[0].points.len() < POINTS);
        }
        assert_eq!((growth.instances[0].points.len(), growth.forecast()), (1, None));
    }

    /// Several instances, by what they have in use and their limits.
    fn several(index: u64, instances: &[(f64, Option<u64>)]) -> Window {
        let mut window = window(index, 0.0, None);
        let one = window.canary.remove(0);
        for (number, (bytes, limit)) in instances.iter().enumerate() {
            let mut reading = one.clone();
            reading.instance = format!("/{number}").into();
            reading.values[MEMORY] = bytes + noise(1000 * number as u64 + index);
            reading.around.memory_limit_bytes = *limit;
            window.canary.push(reading);
        }
        window
    }

    #[test]
    fn one_that_leaks_among_many_runs_into_its_own_limit() {
        let (mut growth, limit) = (Growth::default(), Some(400_000_000));
        for i in 0..600u64 {
            let leaks = (100e6 + 0.2e6 * i as f64, limit);
            // The tightest limit is that of one that does not grow.
            growth.observe(&several(i, &[(50e6, Some(60_000_000)), leaks, (100e6, limit), (100e6, limit)]), MEMORY);
        }
        // 220 MB now; 180 MB are left, at 0.2 MB/s: of the four together it is a fourth of that.
        let f = growth.forecast().expect("it grows");
        assert!((f.seconds - 900.0).abs() < 30.0 && f.own_limit, "{f:?}");
        assert_eq!(f.limit_bytes, 400_000_000);
    }

    #[test]
    fn one_that_is_missing_in_some_windows_loses_nothing_and_nobody_else_does() {
        let mut growth = Growth::default();
        for i in 0..600u64 {
            let mut window = several(i, &[(100e6 + 0.2e6 * i as f64, Some(400_000_000)), (100e6, None)]);
            // The one that leaks is there in one window of three.
            window.canary.remove(usize::from(i.is_multiple_of(3)));
            growth.observe(&window, MEMORY);
        }
        let f = growth.forecast().expect("it grows");
        assert!((f.seconds - 900.0).abs() < 40.0, "{f:?}");
        for i in 600..800 {
            growth.observe(&several(i, &[]), MEMORY);
        }
        assert_eq!(growth.forecast(), None, "it is gone");
    }

    #[test]
    fn what_the_machine_has_left_is_told_as_that_and_shared_by_those_that_grow() {
        let forecast = |growing: &[f64]| {
            let mut growth = Growth::default();
            for i in 0..600u64 {
                let instances: Vec<(f64, Option<u64>)> =
                    growing.iter().map(|per_s| (100e6 + per_s * i as f64, None)).collect();
                let mut window = several(i, &instances);
                window.node.memory_available_bytes = Some(400 << 20);
                growth.observe(&window, MEMORY);
            }
            *growth.forecast().expect("they grow")
        };
        // 419 MB at 0.2 MB/s.
        let alone = forecast(&[0.2e6, 0.0]);
        assert!((alone.seconds - 2097.0).abs() < 70.0 && !alone.own_limit, "{alone:?}");
        let said = alone.in_words();
        assert!(said.starts_with("the memory that the machine has left for it, 400 MiB, is used up in 3"), "{said}");
        let both = forecast(&[0.2e6, 0.2e6]);
        assert!((both.seconds - 1049.0).abs() < 50.0, "{both:?}");
    }
}
