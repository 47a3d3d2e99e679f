//! Samples beside their neighbours: how a host that gets slower and faster by a tenth within seconds is kept out of a
//! ratio of a few hundredths.
//!
//! In: samples in the order in which they were taken. Out: ratios to the reference samples right before and right
//! after, their median, and how far it can be trusted. Pure.

use crate::markdown::median;

/// Normal deviates on either side that leave out 5 %.
const DEVIATES: f64 = 1.96;

/// Each sample of `kind` against the mean of the two of kind `reference` around it, those between left out; those at the ends
/// have only one, and do not count.
pub fn ratios<K: PartialEq>(samples: &[(K, f64)], kind: &K, reference: &K) -> Vec<f64> {
    let value = |of: &&(K, f64)| (of.0 == *reference).then_some(of.1);
    let mut found = Vec::new();
    for (index, (_, sample)) in samples.iter().enumerate().filter(|(_, (of, _))| of == kind) {
        let before = samples.iter().take(index).rev().find_map(|of| value(&of));
        let after = samples.iter().skip(index + 1).find_map(|of| value(&of));
        if let (Some(before), Some(after)) = (before, after) {
            found.push(2.0 * sample / (before + after));
        }
    }
    found
}

/// Ratios of one kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// How many.
    pub count: usize,
    /// The one in the middle.
    pub median: f64,
    /// Between these two lies the middle of infinitely many, with 95 % certainty: order statistics, which presume nothing
    /// about how chance is distributed.
    pub least: f64,
    /// See `least`.
    pub most: f64,
}

impl Summary {
    /// Of these ratios.
    pub fn of(mut ratios: Vec<f64>) -> Self {
        ratios.sort_by(f64::total_cmp);
        let count = ratios.len();
        let half_width = DEVIATES * (count as f64).sqrt() / 2.0;
        let rank = (count as f64 / 2.0 - half_width).floor().max(1.0) as usize - 1;
        let at = |index: usize| ratios.get(index).copied().unwrap_or(f64::NAN);
        Self {
            count,
            median: median(ratios.iter().copied()),
            least: at(rank),
            most: at(count.saturating_sub(rank + 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Summary, ratios};

    #[test]
    fn a_host_that_gets_steadily_faster_changes_no_ratio() {
        let speed = |index: u32| 100.0 + 10.0 * f64::from(index);
        let samples: Vec<(char, f64)> = ['w', 'a', 'w', 'b', 'w', 'a', 'w']
            .into_iter()
            .zip(0..)
            .map(|(kind, index)| (kind, speed(index) * if kind == 'a' { 0.9 } else { 1.0 }))
            .collect();
        for (kind, count, expected) in [('a', 2, 0.9), ('b', 1, 1.0), ('w', 2, 1.0)] {
            let found = ratios(&samples, &kind, &'w');
            assert_eq!(found.len(), count, "{kind}");
            assert!(found.iter().all(|ratio| (ratio - expected).abs() < 1e-9), "{kind}: {found:?}");
        }
    }

    #[test]
    fn without_a_neighbour_on_either_side_there_is_no_ratio() {
        assert!(ratios(&[('a', 1.0), ('w', 2.0), ('a', 1.0)], &'a', &'w').is_empty());
        let summary = Summary::of(Vec::new());
        assert_eq!(summary.count, 0);
        assert!(summary.least.is_nan() && summary.most.is_nan());
    }

    #[test]
    fn the_bounds_are_those_of_the_binomial_distribution() {
        // Of 100 values the 40th and the 61st: tables of the sign test.
        let summary = Summary::of((1..=100).rev().map(f64::from).collect());
        assert_eq!((summary.least, summary.median, summary.most), (40.0, 50.5, 61.0));
        let few = Summary::of(vec![3.0, 1.0, 2.0]);
        assert_eq!((few.least, few.median, few.most), (1.0, 2.0, 3.0));
    }
}
