//! How large the probe says that a fault was.
//!
//! A delay holds only the part of the fault after its proposal's arrival: where the fault holds the server
//! whether or not a proposal is there, what went before is added. Where it is part of the work on that
//! proposal (a flush, a sleep in it, a longer way), the delay holds all of it.

use super::{Injection, Stop};
use crate::probe::Proposal;

/// Faults that lie inside of the work on one proposal.
const OF_THE_WORK: [&str; 4] = ["fsync", "sleep", "reclaim", "disk_io"];
/// An episode may be longer than the fault by this, or by a fifth: setting it and taking it away.
const EDGES_NS: u64 = 8_000_000;
const EDGES_PART: u64 = 5;

/// Where the probe tells of a stop of the whole process, its length is the size: the longest that met the span.
/// The part of a delay is shorter, by what its thread did before it noticed the stop.
pub(super) fn of_process(injection: &Injection, stops: &[Stop]) -> Option<u64> {
    let span = injection.episode.span;
    let own = stops.iter().filter(|stop| stop.tid == 0 && stop.sid == Some(injection.episode.sid));
    let met = own.filter(|stop| stop.began_at < span.to_ns && stop.ended_at > span.from_ns);
    let meant = met.filter(|stop| injection.expected.allows(&stop.cause));
    meant.map(|stop| stop.ended_at - stop.began_at).max()
}

/// The size of an injection's cause in a delay.
pub(super) fn of_delay(injection: &Injection, proposal: &Proposal) -> u64 {
    let parts = proposal.causes_ns.iter().filter(|(cause, _)| injection.expected.allows(cause));
    let told_ns: u64 = parts.map(|(_, ns)| ns).sum();
    let (span, Some(truth_ns)) = (injection.episode.span, injection.episode.truth_ns) else {
        return told_ns;
    };
    let rest_ns = span.length_ns().saturating_sub(truth_ns);
    let is_all_of_it = rest_ns <= EDGES_NS.max(span.length_ns() / EDGES_PART);
    if OF_THE_WORK.contains(&injection.expected.cause) || !is_all_of_it {
        return told_ns;
    }
    let began_at = span.to_ns.saturating_sub(truth_ns);
    told_ns + proposal.began_at().saturating_sub(began_at)
}
