//! What TCP shows of the way to a follower and back, as part of the evidence.
//!
//! In: a record made at the leader. Out: a JSON object. Deliberately absent: what it means (`probe_ebpf::network`).
#![forbid(unsafe_code)]

use probe_ebpf::abi::ProposalRecord;
use probe_ebpf::network::Way;
use serde::Serialize;

/// What `network` is made of.
#[derive(Serialize)]
pub(super) struct Network {
    unsent_ns: u64,
    resent_ns: u64,
    round_trip_ns: u64,
    held_ns: u64,
    /// Segments that the connection has sent again since it was met.
    segments_resent: u64,
}

impl Network {
    pub(super) fn of(r: &ProposalRecord) -> Self {
        let Way { unsent_ns, resent_ns, round_trip_ns, held_ns } = r.way;
        Self { unsent_ns, resent_ns, round_trip_ns, held_ns, segments_resent: r.resent }
    }
}
