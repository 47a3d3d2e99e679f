//! Delay histograms: durations in, bucket counts out.
//!
//! Two resolutions of the same samples: decimal bounds for metrics (exact on their bounds) and
//! log-linear buckets, 16 to an octave, for quantiles (a quantile is off by at most 1/32 of its value).
//! Invariant: the buckets of each resolution sum to `count`. Deliberately absent: floating point.

use core::hint::black_box;

/// Upper bounds (inclusive) of the decimal buckets in ns; a last bucket takes the rest.
pub const BOUNDS_NS: [u64; 15] = [
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

const SUB_BITS: u32 = 4;
const SUB: u64 = 1 << SUB_BITS;
/// Values of 2^38 ns (274 s) and more share the last fine bucket.
const TOP_BIT: u32 = 38;
/// Number of log-linear buckets.
pub const FINE: usize = ((TOP_BIT - SUB_BITS + 1) as usize) << SUB_BITS;
/// Size of the fine array: the next power of two, so that a mask bounds an index for the verifier.
pub const FINE_SLOTS: usize = 1024;

/// Counts of durations.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// Samples.
    pub count: u64,
    /// Their sum, ns.
    pub sum_ns: u64,
    /// The largest, ns.
    pub max_ns: u64,
    /// Explicit padding.
    pub reserved: u64,
    /// Samples per decimal bucket, not cumulative.
    pub decimal: [u64; 16],
    /// Samples per log-linear bucket.
    pub fine: [u64; FINE_SLOTS],
}

/// Index of the decimal bucket of `ns`.
#[inline(always)]
#[must_use]
pub fn decimal_index(ns: u64) -> usize {
    // Without branches: the verifier would fork on each. The sign of `bound - ns` tells which is larger,
    // and `black_box` keeps the compiler from making a branch of it.
    let ns = ns & (u64::MAX >> 1);
    let mut index = 0;
    let mut i = 0;
    while i < BOUNDS_NS.len() {
        index += black_box(BOUNDS_NS[i].wrapping_sub(ns) >> 63);
        i += 1;
    }
    index as usize
}

/// Index of the log-linear bucket of `ns`.
#[inline(always)]
#[must_use]
pub fn fine_index(ns: u64) -> usize {
    if ns < SUB {
        return ns as usize;
    }
    if ns >> TOP_BIT != 0 {
        return FINE - 1;
    }
    let bit = top_bit(ns);
    let sub = (ns >> (bit - SUB_BITS)) & (SUB - 1);
    (((bit - SUB_BITS + 1) as u64 * SUB + sub) as usize) & (FINE_SLOTS - 1)
}

/// Position of the highest set bit of a value below 2^63. BPF has no instruction for it; without branches,
/// as above.
#[inline(always)]
fn top_bit(mut value: u64) -> u32 {
    let mut bit = 0;
    let mut width = 32;
    while width > 0 {
        let shift = black_box(((1_u64 << width) - 1).wrapping_sub(value) >> 63) as u32 * width;
        value >>= shift;
        bit += shift;
        width /= 2;
    }
    bit
}

/// Smallest and largest duration of a log-linear bucket, ns.
#[must_use]
pub fn fine_range(index: usize) -> (u64, u64) {
    let (octave, sub) = ((index >> SUB_BITS) as u32, index as u64 & (SUB - 1));
    if octave == 0 {
        return (sub, sub);
    }
    let width = 1_u64 << (octave - 1);
    let low = (SUB + sub) * width;
    (low, low + width - 1)
}

impl Histogram {
    /// An empty histogram.
    pub const EMPTY: Self =
        Self { count: 0, sum_ns: 0, max_ns: 0, reserved: 0, decimal: [0; 16], fine: [0; FINE_SLOTS] };

    /// Adds one sample.
    #[inline(always)]
    pub fn add(&mut self, ns: u64) {
        self.count += 1;
        self.sum_ns = self.sum_ns.wrapping_add(ns);
        if ns > self.max_ns {
            self.max_ns = ns;
        }
        self.decimal[decimal_index(ns) & 15] += 1;
        self.fine[fine_index(ns) & (FINE_SLOTS - 1)] += 1;
    }

    /// Adds all samples of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum_ns = self.sum_ns.wrapping_add(other.sum_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
        for (mine, theirs) in self.decimal.iter_mut().zip(&other.decimal) {
            *mine += theirs;
        }
        for (mine, theirs) in self.fine.iter_mut().zip(&other.fine) {
            *mine += theirs;
        }
    }

    /// The `per_mille` quantile (500 is the median) in ns, the middle of its bucket and never above the
    /// maximum; `None` when empty.
    #[must_use]
    pub fn quantile(&self, per_mille: u64) -> Option<u64> {
        if self.count == 0 {
            return None;
        }
        let rank = (self.count * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (index, n) in self.fine.iter().enumerate() {
            seen += n;
            if seen >= rank {
                let (low, high) = fine_range(index);
                return Some((low + (high - low) / 2).min(self.max_ns));
            }
        }
        Some(self.max_ns)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        for (i, bound) in BOUNDS_NS.iter().enumerate() {
            assert_eq!(decimal_index(*bound), i);
            assert_eq!(decimal_index(*bound + 1), i + 1);
        }
    }

    #[test]
    fn fine_buckets_tile_the_line() {
        let mut next = 0;
        for index in 0..FINE {
            let (low, high) = fine_range(index);
            assert_eq!(low, next, "bucket {index}");
            assert_eq!(fine_index(low), index);
            assert_eq!(fine_index(high), index);
            next = high + 1;
        }
        assert_eq!(next, 1 << TOP_BIT);
        assert_eq!(fine_index(u64::MAX), FINE - 1);
        assert_eq!(decimal_index(u64::MAX), BOUNDS_NS.len());
    }

    proptest! {
        #[test]
        fn quantiles_are_close(mut samples in proptest::collection::vec(0_u64..1 << 37, 1..400), q in 1_u64..=1000) {
            let mut h = Histogram::EMPTY;
            for s in &samples {
                h.add(*s);
            }
            samples.sort_unstable();
            let rank = ((samples.len() as u64 * q).div_ceil(1000)).max(1) as usize - 1;
            let (truth, got) = (samples[rank], h.quantile(q).unwrap());
            prop_assert!(truth.abs_diff(got) <= truth / 32 + 1, "{truth} {got}");
        }

        #[test]
        fn merging_is_adding(a in proptest::collection::vec(any::<u64>(), 0..50), b in proptest::collection::vec(any::<u64>(), 0..50)) {
            let fill = |values: &[u64]| {
                let mut h = Histogram::EMPTY;
                values.iter().for_each(|v| h.add(*v));
                h
            };
            let mut merged = fill(&a);
            merged.merge(&fill(&b));
            let all: Vec<u64> = a.iter().chain(&b).copied().collect();
            prop_assert_eq!(merged, fill(&all));
            prop_assert_eq!(merged.decimal.iter().sum::<u64>(), merged.count);
        }
    }
}
