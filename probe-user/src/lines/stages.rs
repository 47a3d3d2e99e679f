//! The stages of a delay at the follower.
//!
//! In: a proposal's record. Out: four durations. Invariant: they sum to the delay, whatever the record says.
//! Deliberately absent: causes.
#![forbid(unsafe_code)]

use probe_ebpf::abi::{ProposalRecord, flag};
use serde::Serialize;

/// The parts of a follower's delay, in their order; they sum to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Stages {
    /// arrived → read.
    pub(crate) receive: u64,
    /// read → entry of the flush that covers it (→ acked, when no flush was seen).
    pub(crate) process: u64,
    /// The flush.
    pub(crate) log: u64,
    /// End of the flush → acked.
    pub(crate) send: u64,
}

impl Stages {
    /// The stages of a record made at the follower. An instant out of order moves to its neighbour, so
    /// that they sum to the delay whatever the record says.
    pub(crate) fn of(r: &ProposalRecord) -> Self {
        let end = r.ended_at.max(r.began_at);
        let read_at = r.read_at.clamp(r.began_at, end);
        let (began_at, logged_at) = if r.flags & flag::FLUSHED == 0 {
            (end, end)
        } else {
            let began_at = r.flush_began_at.clamp(read_at, end);
            (began_at, r.flush_ended_at.clamp(began_at, end))
        };
        Self {
            receive: read_at - r.began_at,
            process: began_at - read_at,
            log: logged_at - began_at,
            send: end - logged_at,
        }
    }

    /// Name and share of the longest.
    pub(super) fn longest(&self) -> (&'static str, u64) {
        let all =
            [("receive", self.receive), ("process", self.process), ("log", self.log), ("send", self.send)];
        all.into_iter().max_by_key(|(_, ns)| *ns).unwrap_or(("receive", 0))
    }
}
