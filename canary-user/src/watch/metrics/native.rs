//! Histograms as Prometheus' native ones: buckets by powers of 2^(1/8), of which only those with a count are told.
//!
//! The counts come in the kernel's log-linear buckets. Their bounds are powers of two of a nanosecond, those of a native
//! histogram of a second, so that neither is a sum of the other: a bucket's count goes whole to where its middle lies. What
//! is read there is off by at most 16 %: half the width of the one, and the width of the other.

use std::collections::BTreeMap;

use canary_common::histogram;

use crate::telemetry::Histogram;

/// Each power of two has 2^3 buckets, about as many as in the kernel.
pub const SCHEMA: i32 = 3;
/// The kernel's first bucket in seconds: what is shorter is told as 0.
pub const ZERO_THRESHOLD_S: f64 = histogram::FLOOR_NS as f64 / 1e9;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Native {
    pub zero_count: u64,
    /// Of each run of buckets: the gap to the one before, of the first its index; and how many.
    pub spans: Vec<(i32, u32)>,
    /// Of each bucket in the runs: its count less that of the one before.
    pub deltas: Vec<i64>,
}

impl Native {
    pub fn new(fine: &Histogram) -> Self {
        let mut native = Self::default();
        let mut counts = BTreeMap::<i32, u64>::new();
        for &(bucket, n) in fine.0.iter().filter(|(_, n)| *n > 0) {
            match bucket {
                0 => native.zero_count += n,
                bucket => *counts.entry(index(usize::from(bucket))).or_default() += n,
            }
        }
        let mut before: Option<(i32, i64)> = None;
        for (index, n) in counts {
            let n = n.cast_signed();
            match (before, native.spans.last_mut()) {
                (Some((last, _)), Some((_, length))) if index == last + 1 => *length += 1,
                (Some((last, _)), _) => native.spans.push((index - last - 1, 1)),
                (None, _) => native.spans.push((index, 1)),
            }
            native.deltas.push(n - before.map_or(0, |(_, n)| n));
            before = Some((index, n));
        }
        native
    }
}

/// Index `i` of the native bucket, 2^((i-1)/8) to 2^(i/8) seconds, that the middle of a bucket of the kernel lies in. The
/// last of those has no upper bound; it is taken for its lower one.
fn index(bucket: usize) -> i32 {
    let lower = histogram::lower_bound_ns(bucket);
    let middle_ns = histogram::upper_bound_ns(bucket).map_or(lower, |upper| lower.midpoint(upper));
    ((middle_ns as f64 / 1e9).log2() * f64::from(1 << SCHEMA)).ceil() as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(native: &Native) -> BTreeMap<i32, i64> {
        let (mut index, mut count, mut deltas) = (0, 0, native.deltas.iter());
        let mut read = BTreeMap::new();
        for (i, &(offset, length)) in native.spans.iter().enumerate() {
            index += offset;
            for _ in 0..length {
                count += deltas.next().expect("a delta for each bucket of the spans");
                assert!(i == 0 || count > 0);
                read.insert(index, count);
                index += 1;
            }
        }
        assert_eq!(deltas.next(), None);
        read
    }

    #[test]
    fn no_count_is_lost_and_each_lies_near_its_value() {
        for bucket in 1..histogram::BUCKETS - 1 {
            let fine = Histogram(vec![(bucket as u16, 7)]);
            let [(index, 7)] = read(&Native::new(&fine)).into_iter().collect::<Vec<_>>()[..] else {
                panic!("{bucket}")
            };
            let upper_s = (f64::from(index) / 8.0).exp2();
            let lower_s = (f64::from(index - 1) / 8.0).exp2();
            let fine_lower_s = histogram::lower_bound_ns(bucket) as f64 / 1e9;
            let fine_upper_s = histogram::upper_bound_ns(bucket).expect("bounded") as f64 / 1e9;
            assert!(lower_s > fine_lower_s / 1.16 && upper_s < fine_upper_s * 1.16, "bucket {bucket}");
        }
    }

    #[test]
    fn runs_and_gaps_are_told_as_they_are() {
        let all = Histogram((0..histogram::BUCKETS as u16).map(|bucket| (bucket, u64::from(bucket) + 1)).collect());
        let native = Native::new(&all);
        let told: i64 = read(&native).values().sum();
        assert_eq!(native.zero_count, 1);
        assert_eq!(told.cast_unsigned() + native.zero_count, all.count());

        let apart = Histogram(vec![(0, 2), (1, 5), (100, 3), (200, 0)]);
        let native = Native::new(&apart);
        assert_eq!(native.spans, [(index(1), 1), (index(100) - index(1) - 1, 1)]);
        assert_eq!((native.zero_count, &native.deltas[..]), (2, &[5, -2][..]));
        assert_eq!(Native::new(&Histogram::default()), Native::default());
    }
}
