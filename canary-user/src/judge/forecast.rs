//! When memory runs out: a straight line through the canary's memory in use, with an interval.
//!
//! The slope is the median of the slopes between all pairs of points, its interval comes from the normal approximation of
//! Kendall's statistic (Theil 1950; Sen 1968, doi 10.1080/01621459.1968.10480934). Points are means over equal stretches, so
//! that neighbours are nearly independent. Constant memory.

use super::verdict::Forecast;
use crate::window::Window;

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

/// Memory in use of the canary over time, thinned out.
#[derive(Clone, Debug, Default)]
pub struct Growth {
    points: Vec<Mean>,
    open: Mean,
    windows_per_point: u64,
    incarnations: u64,
    limit: Option<Limit>,
    forecast: Option<Forecast>,
}

/// Mean of a stretch: sums of time in seconds and bytes, the first window.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    n: f64,
    t_s: f64,
    bytes: f64,
    first_window: u64,
}

/// What the memory runs into.
#[derive(Clone, Copy, Debug)]
struct Limit {
    bytes: f64,
    own: bool,
}

impl Growth {
    /// Takes in what the canary's instances use, on average, and the tightest limit of them.
    pub fn observe(&mut self, window: &Window, memory: usize) {
        let values = || window.canary.iter().map(|r| r.values[memory]).filter(|v| v.is_finite());
        let n = values().count() as f64;
        if n == 0.0 {
            return;
        }
        let incarnations = window.canary.iter().map(|r| r.incarnation).fold(0, u64::wrapping_add);
        if incarnations != self.incarnations {
            // Another process has another history.
            *self = Self { incarnations, windows_per_point: 1, ..Self::default() };
        }
        let in_use = values().sum::<f64>() / n;
        let own = window.canary.iter().filter_map(|r| r.around.memory_limit_bytes).min();
        let left = window.node.memory_available_bytes.map(|b| Limit { bytes: in_use + b as f64 / n, own: false });
        self.limit = own.map(|b| Limit { bytes: b as f64, own: true }).or(left);
        if self.open.n == 0.0 {
            self.open.first_window = window.index;
        }
        self.open.n += 1.0;
        self.open.t_s += window.t_ns as f64 / 1e9;
        self.open.bytes += in_use;
        if self.open.n as u64 >= self.windows_per_point {
            self.points.push(std::mem::take(&mut self.open));
            if self.points.len() == POINTS {
                self.points = self.points.chunks(2).map(merge).collect();
                self.windows_per_point *= 2;
            }
            self.forecast = self.extrapolate(window.t_ns as f64 / 1e9);
        }
    }

    /// When the limit is reached if it goes on like this; `None` where nothing grows towards a limit.
    pub fn forecast(&self) -> Option<&Forecast> {
        self.forecast.as_ref()
    }

    /// From the latest half of the points: what was long before a leak began tells nothing about it. It has to grow in
    /// both halves of them, or it is a step.
    fn extrapolate(&self, now_s: f64) -> Option<Forecast> {
        let limit = self.limit?;
        let latest = &self.points[self.points.len().saturating_sub(POINTS / 2)..];
        let points: Vec<(f64, f64)> = latest.iter().map(|m| (m.t_s / m.n, m.bytes / m.n)).collect();
        let (before, after) = points.split_at(points.len() / 2);
        if before.len() < NEEDED || theil_sen(before)?.1 <= 0.0 || theil_sen(after)?.1 <= 0.0 {
            return None;
        }
        let (slope, low, high) = theil_sen(&points)?;
        if high > WIDEST * low {
            return None;
        }
        // The last point stands for the middle of its stretch.
        let (t_s, bytes) = *points.last()?;
        let in_use = bytes + slope * (now_s - t_s);
        let left = limit.bytes - in_use;
        if low <= 0.0 || left <= 0.0 || left / slope > HORIZON_S {
            return None;
        }
        Some(Forecast {
            in_use_bytes: in_use as u64,
            limit_bytes: limit.bytes as u64,
            own_limit: limit.own,
            bytes_per_s: slope,
            seconds: left / slope,
            seconds_low: left / high,
            seconds_high: left / low,
            since_window: latest[0].first_window,
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
    use crate::window::{Around, Event, Indicator, Node, Reading};

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
                instance: "/c".into(),
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
            assert!(growth.points.len() < POINTS);
        }
        assert_eq!((growth.points.len(), growth.forecast()), (1, None));
    }
}
