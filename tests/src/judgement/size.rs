//! How large the probe says that a fault was.
//!
//! A delay holds only the part of the fault after its proposal's arrival: where the fault holds the server
//! whether or not a proposal is there, what went before is added. Where it is part of the work on that
//! proposal (a flush, a sleep in it, a longer way, a loss that TCP mends), the delay holds all of it. Where a fault on the way
//! holds the answer, it does so when the follower's own work is done; its own node measured how much that was. Where it holds
//! what the leader sends, that work is still to come.

use super::{Injection, Stop};
use crate::probe::{Proposal, Vantage};

/// An episode may be longer than the fault by this, or by a fifth: setting it and taking it away.
const EDGES_NS: u64 = 8_000_000;
const EDGES_PART: u64 = 5;

/// Where the probe tells of a stop of the whole process and that is its verdict, its length is the size: the longest that met
/// the span. The part of a delay is shorter, by what its thread did before it noticed the stop.
pub(super) fn of_process(injection: &Injection, verdict: &str, stops: &[Stop]) -> Option<u64> {
    let span = injection.episode.span;
    let own = stops.iter().filter(|stop| stop.tid == 0 && stop.sid == Some(injection.episode.sid));
    let met = own.filter(|stop| stop.began_at < span.to_ns && stop.ended_at > span.from_ns);
    let meant = met.filter(|stop| stop.cause == verdict);
    meant.map(|stop| stop.ended_at - stop.began_at).max()
}

/// The size of an injection's cause in one of all delays.
pub(super) fn of_delay(injection: &Injection, proposal: &Proposal, all: &[Proposal]) -> u64 {
    let parts = proposal.causes_ns.iter().filter(|(cause, _)| injection.expected.allows(cause));
    let told_ns: u64 = parts.map(|(_, ns)| ns).sum();
    match before_ns(injection, proposal.began_at()) {
        Some(before_ns) if injection.is_on_leaders_way() => told_ns + before_ns,
        // An answer meets what holds it when the work is done.
        Some(before_ns) => told_ns + before_ns + own_work_ns(proposal, all),
        None => told_ns,
    }
}

/// How long the fault had held the server when something began that it then held up as well; nothing where it is a
/// part of the work on one proposal.
pub(super) fn before_ns(injection: &Injection, began_at: u64) -> Option<u64> {
    let (span, truth_ns) = (injection.episode.span, injection.episode.truth_ns?);
    let rest_ns = span.length_ns().saturating_sub(truth_ns);
    let is_all_of_it = rest_ns <= EDGES_NS.max(span.length_ns() / EDGES_PART);
    (is_all_of_it && !injection.is_of_the_work)
        .then(|| began_at.saturating_sub(span.to_ns.saturating_sub(truth_ns)))
}

/// What the follower itself needed for a proposal that the leader's node tells of.
fn own_work_ns(proposal: &Proposal, all: &[Proposal]) -> u64 {
    let is_it = |other: &&Proposal| {
        other.vantage == Vantage::Follower
            && (other.sid, other.zxid) == (proposal.sid, proposal.zxid)
            && other.began_at() >= proposal.began_at()
    };
    match proposal.vantage {
        Vantage::Follower => 0,
        Vantage::Leader => all.iter().find(is_it).map_or(0, |own| own.delay_ns),
    }
}
