//! How long the calls on its log held up a server that waits for its disk.
//!
//! In: the log of the preloaded library, the kernel's trace of who waits for a CPU and, of a follower, a capture of its
//! connection. Out: for each span the truth of that proposal which met most of it: what of the calls lay between its
//! arrival and its ACK. The leader has no proposal of its own to wait for: there it is the calls of the longest one's
//! kind, as far as they lay in the span, for which its thread is said to stall. A thread that could go on and has no CPU does not wait for its disk, though it is in a call: that
//! is taken off. Invariant: a thread makes one call at a time, and one thread writes the log, so that calls never
//! overlap.

use anyhow::Result;

use super::queue::{self, Queue, Wait, waited_ns};
use super::shim::{Call, Shim, WRITER};
use super::{Episode, Span};
use crate::capture::{Ends, Passage};
use crate::ensemble::Ensemble;

/// Shorter calls are no stalls: waits of threads are told from this length on.
const TOLD_NS: u64 = 1_000_000;

/// Looks at a server.
#[derive(Debug)]
pub(super) struct Held {
    shim: Shim,
    queue: Queue,
    /// None of a leader.
    ends: Option<Ends>,
}

impl Held {
    /// Begins to look at a server.
    pub(super) fn of(ensemble: &Ensemble, sid: u64) -> Result<Self> {
        let writer = queue::threads(ensemble.pid(sid)?, &[WRITER])?;
        let queue = Queue::of(&format!("held-{sid}"), &writer)?;
        Ok(Self { shim: Shim::of(ensemble, sid)?, queue, ends: Ends::start(ensemble, sid)? })
    }

    /// Ends, and tells the truth of each span, which must be past.
    pub(super) fn episodes(self, sid: u64, spans: &[Span]) -> Result<Vec<Episode>> {
        let passages = self.ends.map(Ends::finish).transpose()?;
        // A call is logged when it ends: later than the ACKs that wait for it.
        let (calls, waits) = (self.shim.calls()?, self.queue.waits()?);
        let truth = |span| match &passages {
            Some(passages) => of_proposal(span, passages, &calls, &waits),
            None => of_thread(span, &calls, &waits),
        };
        Ok(spans.iter().map(|span| Episode { sid, span: *span, truth_ns: truth(span) }).collect())
    }
}

/// For how long the proposal that met most of a span waited for calls.
fn of_proposal(span: &Span, passages: &[Passage], calls: &[Call], waits: &[Wait]) -> Option<u64> {
    let whole = |passage: &&Passage| Span { from_ns: passage.arrived_at_ns, to_ns: passage.acked_at_ns };
    let most = whole(&span.most_met(passages, whole)?);
    calls.iter().map(|call| held_ns(&most, call, waits)).sum()
}

/// For how long calls of the longest one's kind held the thread that makes them in a span.
fn of_thread(span: &Span, calls: &[Call], waits: &[Wait]) -> Option<u64> {
    let kind = calls.iter().max_by_key(|call| span.met_ns(call.whole))?.kind;
    let told = calls.iter().filter(|call| call.kind == kind && call.whole.length_ns() >= TOLD_NS);
    told.map(|call| held_ns(span, call, waits)).sum()
}

/// What of a call lay in a span, without the waits for a CPU; nothing where these are not known.
fn held_ns(span: &Span, call: &Call, waits: &[Wait]) -> Option<u64> {
    let from_ns = call.whole.from_ns.clamp(span.from_ns, span.to_ns);
    let both = Span { from_ns, to_ns: call.whole.to_ns.clamp(from_ns, span.to_ns.max(from_ns)) };
    Some(both.length_ns() - waited_ns(waits, both)?)
}

#[cfg(test)]
mod tests {
    use super::super::shim::Kind;
    use super::{Call, Passage, Span, TOLD_NS, Wait, of_proposal, of_thread};

    const MS: u64 = 1_000_000;

    fn calls() -> [Call; 4] {
        let call = |kind, from: u64, to: u64| {
            let whole = Span { from_ns: from * MS, to_ns: to * MS };
            Call { kind, whole, sleep: Span { from_ns: 0, to_ns: 0 }, busy_ns: 0 }
        };
        [
            call(Kind::Flush, 100, 220),
            call(Kind::Write, 230, 250),
            call(Kind::Flush, 251, 400),
            call(Kind::Flush, 410, 900),
        ]
    }

    fn wait(from: u64, to: u64, is_known: bool) -> Wait {
        Wait { tid: 7, from_ns: from * MS, to_ns: to * MS, is_known }
    }

    #[test]
    fn a_proposal_waits_for_the_rest_of_the_call_before_and_for_its_own() {
        let passage = |arrived: u64, acked: u64| Passage {
            zxid: 1,
            sent_at_ns: arrived * MS,
            arrived_at_ns: arrived * MS,
            acked_at_ns: acked * MS,
            ack_arrived_at_ns: acked * MS,
        };
        let passages = [passage(200, 405), passage(210, 406), passage(399, 402)];
        let span = Span { from_ns: 150 * MS, to_ns: 420 * MS };
        let check = |passages: &[Passage], waits: &[Wait], expected_ms: Option<u64>| {
            let truth_ns = of_proposal(&span, passages, &calls(), waits);
            assert_eq!(truth_ns, expected_ms.map(|ms| ms * MS));
        };
        check(&passages, &[], Some(20 + 20 + 149));
        check(&[], &[], None);
        // Before its arrival, over the begin of a call, between two calls, and in one.
        let waits = [wait(150, 199, true), wait(225, 233, true), wait(400, 404, true), wait(300, 310, true)];
        check(&passages, &waits, Some(20 + 17 + 139));
        check(&passages, &[wait(300, 310, false)], None);
    }

    #[test]
    fn a_leader_is_held_by_the_calls_that_are_like_the_one_that_met_most() {
        let span = Span { from_ns: 240 * MS, to_ns: 560 * MS };
        let mut calls = calls().to_vec();
        let flush = calls[0];
        let short = Span { from_ns: 401 * MS, to_ns: 401 * MS + TOLD_NS - 1 };
        calls.push(Call { whole: short, ..flush });
        assert_eq!(of_thread(&span, &calls, &[wait(500, 600, true)]), Some((149 + 90) * MS));
        let while_written = Span { from_ns: 228 * MS, to_ns: 260 * MS };
        assert_eq!(of_thread(&while_written, &calls, &[]), Some(20 * MS));
        assert_eq!(of_thread(&span, &[], &[]), None);
    }
}
