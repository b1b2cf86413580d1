//! Log-linear histogram of nanoseconds: powers of two, each cut into [`SUB`] equal parts.
//!
//! Bucket 0 holds everything up to [`FLOOR_NS`], the last one everything above the range. Bounds are inclusive above
//! (`lower < value <= upper`), as Prometheus' `le` wants. The width of a bucket is at most 1/[`SUB`] of its lower
//! bound, so a quantile read at the middle of a bucket is off by at most 6.25 %.

/// log2 of the parts that a power of two is cut into.
pub const SUB_BITS: u32 = 3;
/// Parts of a power of two.
pub const SUB: usize = 1 << SUB_BITS;
/// log2 of the upper bound of bucket 0.
pub const FLOOR_BITS: u32 = 10;
/// Upper bound of bucket 0: about a microsecond.
pub const FLOOR_NS: u64 = 1 << FLOOR_BITS;
/// log2 of the largest value with a bucket of its own: 2^36 ns is 69 s.
pub const CEIL_BITS: u32 = 36;
/// Number of buckets.
pub const BUCKETS: usize = ((CEIL_BITS - FLOOR_BITS) as usize) * SUB + 2;

/// The bucket that `ns` falls into. Branches only on the range, so the verifier sees a bounded index.
#[inline(always)]
pub fn bucket(ns: u64) -> usize {
    if ns <= FLOOR_NS {
        return 0;
    }
    // `lower < v <= upper` on integers is `lower <= v - 1 < upper`.
    let v = ns - 1;
    // Never 0 here, but only an odd number lets the compiler leave out its branch for 0. Old kernels (6.1) do not see that
    // the branch is dead, compute a negative index on it, and refuse the program.
    let log2 = 63 - (v | 1).leading_zeros();
    if log2 >= CEIL_BITS {
        return BUCKETS - 1;
    }
    let sub = (v >> (log2 - SUB_BITS)) as usize & (SUB - 1);
    1 + (log2 - FLOOR_BITS) as usize * SUB + sub
}

/// Inclusive upper bound of a bucket in nanoseconds; `None` for the last one, which has none.
pub fn upper_bound_ns(bucket: usize) -> Option<u64> {
    match bucket {
        0 => Some(FLOOR_NS),
        b if b < BUCKETS - 1 => {
            let log2 = FLOOR_BITS + ((b - 1) / SUB) as u32;
            let sub = ((b - 1) % SUB) as u64;
            Some((1 << log2) + ((sub + 1) << (log2 - SUB_BITS)))
        }
        _ => None,
    }
}

/// Exclusive lower bound of a bucket in nanoseconds.
pub fn lower_bound_ns(bucket: usize) -> u64 {
    match bucket {
        0 => 0,
        b => upper_bound_ns(b - 1).unwrap_or(1 << CEIL_BITS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_inclusive_above_and_tile_the_range() {
        for b in 0..BUCKETS - 1 {
            let upper = upper_bound_ns(b).expect("all but the last bucket have an upper bound");
            assert_eq!(bucket(upper), b, "upper bound {upper} belongs to its own bucket");
            assert_eq!(bucket(upper + 1), b + 1, "one above {upper} belongs to the next");
        }
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(upper_bound_ns(BUCKETS - 1), None);
        assert_eq!(upper_bound_ns(BUCKETS - 2), Some(1 << CEIL_BITS));
    }

    #[test]
    fn relative_width_is_an_eighth_at_most() {
        for b in 1..BUCKETS - 1 {
            let (lower, upper) = (lower_bound_ns(b), upper_bound_ns(b).expect("bounded"));
            assert!((upper - lower) * SUB as u64 <= lower, "bucket {b}: {lower}..{upper}");
        }
    }
}
