//! Findings, counted.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use super::{Finding, Place, Said};
use crate::probe::{Proposal, Vantage};

/// What a size may be off: the larger of the two.
const ERROR_NS: u64 = 1_000_000;
const ERROR_PERCENT: u64 = 2;

/// The bars, in percent.
#[derive(Clone, Copy, Debug)]
pub struct Bars {
    /// Of the stalls, those of which the right server was named.
    pub server: f64,
    /// Of the stalls, those of which the right cause was named.
    pub cause: f64,
    /// Of all delay time, what may be unexplained.
    pub unexplained: f64,
}

impl Bars {
    /// What the project promises.
    pub const PROMISED: Self = Self { server: 100.0, cause: 98.0, unexplained: 1.0 };
}

/// Findings of one kind, counted.
#[derive(Clone, Debug, Default)]
pub struct Score {
    /// Injections.
    pub injected: usize,
    /// Of these: injections that held up a proposal, or a server's own threads.
    pub stalls: usize,
    /// Of these: with the right server.
    pub right_server: usize,
    /// Of these: with the right cause.
    pub right_cause: usize,
    /// How often each verdict was given.
    pub verdicts: BTreeMap<String, usize>,
    /// How far the sizes are off.
    pub errors: Errors,
}

impl Score {
    /// Counts.
    pub fn of<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> Self {
        let mut score = Self::default();
        for finding in findings {
            score.injected += 1;
            if let Some(said) = &finding.said {
                score.count(said);
            }
            if let (Some(error_ns), Some(truth_ns)) = (finding.error_ns(), finding.truth_ns) {
                score.errors.all.push((error_ns, truth_ns));
            }
        }
        score.errors.all.sort_unstable();
        score
    }

    /// For each fault and place that there is.
    pub fn by_fault(findings: &[Finding]) -> BTreeMap<(Place, &'static str), Self> {
        let mut groups: BTreeMap<_, Vec<&Finding>> = BTreeMap::new();
        for finding in findings {
            groups.entry((finding.place, finding.fault)).or_default().push(finding);
        }
        groups.into_iter().map(|(key, group)| (key, Self::of(group))).collect()
    }

    fn count(&mut self, said: &Said) {
        self.stalls += 1;
        self.right_server += usize::from(said.is_right_server);
        self.right_cause += usize::from(said.is_right_server && said.is_right_cause);
        *self.verdicts.entry(said.verdict.clone()).or_default() += 1;
    }

    /// Of the stalls, those with the right server, in percent; 100 of none.
    pub fn server_percent(&self) -> f64 {
        percent(self.right_server, self.stalls)
    }

    /// Of the stalls, those with the right server and cause, in percent.
    pub fn cause_percent(&self) -> f64 {
        percent(self.right_cause, self.stalls)
    }
}

/// How far sizes are off, and the truth of each, ns; the smallest error first.
#[derive(Clone, Debug, Default)]
pub struct Errors {
    all: Vec<(u64, u64)>,
}

impl Errors {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// How many are within 2 % or 1 ms.
    pub fn within(&self) -> usize {
        self.all.iter().filter(|(error_ns, truth_ns)| is_within(*error_ns, *truth_ns)).count()
    }

    /// The smallest truth and the largest.
    pub fn truths_ns(&self) -> Option<(u64, u64)> {
        let truths = || self.all.iter().map(|(_, truth_ns)| *truth_ns);
        truths().min().zip(truths().max())
    }

    /// The part of the truth, in percent, below which the errors of `percent` of a hundred stay.
    pub fn relative_quantile(&self, percent: usize) -> Option<f64> {
        let parts = self.all.iter().map(|(error_ns, truth_ns)| 100.0 * *error_ns as f64 / *truth_ns as f64);
        let mut parts: Vec<f64> = parts.filter(|part| part.is_finite()).collect();
        parts.sort_unstable_by(f64::total_cmp);
        let last = parts.len().checked_sub(1)?;
        parts.get((last * percent).div_ceil(100)).copied()
    }

    /// The error below which `percent` of a hundred stay.
    pub fn quantile_ns(&self, percent: usize) -> Option<u64> {
        let last = self.all.len().checked_sub(1)?;
        self.all.get((last * percent).div_ceil(100)).map(|(error_ns, _)| *error_ns)
    }
}

/// Delay time at one vantage, and what of it is unexplained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// Records, each of which adds up.
    pub records: u64,
    /// All delays together.
    pub total_ns: u64,
    /// The unexplained part.
    pub unexplained_ns: u64,
}

impl Shares {
    /// Of the records at one vantage.
    pub fn of(vantage: Vantage, proposals: &[Proposal]) -> Self {
        let mut shares = Self::default();
        for proposal in proposals.iter().filter(|proposal| proposal.vantage == vantage) {
            shares.records += 1;
            shares.total_ns += proposal.delay_ns;
            shares.unexplained_ns += proposal.unexplained_ns();
        }
        shares
    }

    /// The unexplained part, in percent.
    pub fn unexplained_percent(&self) -> f64 {
        if self.total_ns == 0 { 0.0 } else { 100.0 * self.unexplained_ns as f64 / self.total_ns as f64 }
    }
}

impl AddAssign for Shares {
    fn add_assign(&mut self, other: Self) {
        self.records += other.records;
        self.total_ns += other.total_ns;
        self.unexplained_ns += other.unexplained_ns;
    }
}

/// Is an error within what a size may be off?
pub(super) fn is_within(error_ns: u64, truth_ns: u64) -> bool {
    error_ns <= ERROR_NS.max(truth_ns * ERROR_PERCENT / 100)
}

fn percent(part: usize, whole: usize) -> f64 {
    if whole == 0 { 100.0 } else { 100.0 * part as f64 / whole as f64 }
}
