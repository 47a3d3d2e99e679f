//! What a link counts.
//!
//! In: increments by the link's two directions. Out: sums that user space reads. Invariant: counters only grow.
//! Deliberately absent: durations, which are histograms.

/// Counters of a link. Each is written by one direction only, but for `resyncs`, `unframed_calls` and
/// `expired`, where two losses at the same instant on two CPUs may count as one, and for `matched` in the
/// case of [`crate::overtaken`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Live proposals seen; filled in by [`crate::link::Link::settle`] when the link is read.
    pub proposals: u64,
    /// Of them acknowledged.
    pub matched: u64,
    /// Of them never acknowledged here.
    pub expired: u64,
    /// Matched ones that add no delay: no arrival instant, or a clock that ran backwards.
    pub unmeasured: u64,
    /// Proposals replayed to a joining learner.
    pub replayed: u64,
    /// ACKs of replayed proposals.
    pub replayed_acks: u64,
    /// ACKs whose proposal was not seen.
    pub unknown_acks: u64,
    /// Proposals that were not the successor of the one before.
    pub gaps: u64,
    /// Times the framing was lost.
    pub resyncs: u64,
    /// Calls that could not be framed: their bytes were not readable, or two ran at once.
    pub unframed_calls: u64,
    /// PINGs.
    pub pings: u64,
    /// PINGs whose answer was seen.
    pub pongs: u64,
    /// COMMITs and INFORMs.
    pub commits: u64,
    /// REQUESTs.
    pub requests: u64,
    /// Snapshots that began.
    pub snapshots: u64,
    /// Inside TLS: proposals, as far as they can be counted, of which nothing is told; filled in by
    /// [`crate::link::Link::settle_inferred`].
    pub unknown: u64,
}

impl Counts {
    /// Nothing counted.
    pub const ZERO: Self = Self {
        proposals: 0,
        matched: 0,
        expired: 0,
        unmeasured: 0,
        replayed: 0,
        replayed_acks: 0,
        unknown_acks: 0,
        gaps: 0,
        resyncs: 0,
        unframed_calls: 0,
        pings: 0,
        pongs: 0,
        commits: 0,
        requests: 0,
        snapshots: 0,
        unknown: 0,
    };
}
