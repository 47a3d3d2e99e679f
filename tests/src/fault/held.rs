//! How long the calls on its log held up a server that waits for its disk.
//!
//! In: the log of the preloaded library and, of a follower, a capture of its connection. Out: for each span the truth
//! of that proposal which met most of it: what of the calls lay between its arrival and its ACK. The leader has no
//! proposal of its own to wait for: there it is the longest call, as far as it lay in the span. Invariant: a thread
//! makes one call at a time, and one thread writes the log, so that calls never overlap.

use anyhow::{Context as _, Result};

use super::shim::{Call, Shim};
use super::{Episode, Span};
use crate::capture::{Ends, Passage};
use crate::ensemble::Ensemble;

/// Looks at a server.
#[derive(Debug)]
pub(super) struct Held {
    shim: Shim,
    /// None of a leader.
    ends: Option<Ends>,
}

impl Held {
    /// Begins to look at a server.
    pub(super) fn of(ensemble: &Ensemble, sid: u64) -> Result<Self> {
        Ok(Self { shim: Shim::of(ensemble, sid)?, ends: Ends::start(ensemble, sid)? })
    }

    /// Begins to look at a server that must be a follower.
    pub(super) fn of_follower(ensemble: &Ensemble, sid: u64) -> Result<Self> {
        let held = Self::of(ensemble, sid)?;
        held.ends.is_some().then_some(held).with_context(|| format!("server {sid} follows nobody"))
    }

    /// Ends, and tells the truth of each span, which must be past.
    pub(super) fn episodes(self, sid: u64, spans: &[Span]) -> Result<Vec<Episode>> {
        let passages = self.ends.map(Ends::finish).transpose()?;
        // A call is logged when it ends: later than the ACKs that wait for it.
        let calls = self.shim.calls()?;
        let truth = |span| match &passages {
            Some(passages) => of_proposal(span, passages, &calls),
            None => calls.iter().map(|call| span.met_ns(call.whole)).max(),
        };
        Ok(spans.iter().map(|span| Episode { sid, span: *span, truth_ns: truth(span) }).collect())
    }
}

/// For how long the proposal that met most of a span waited for calls.
fn of_proposal(span: &Span, passages: &[Passage], calls: &[Call]) -> Option<u64> {
    let whole = |passage: &&Passage| Span { from_ns: passage.arrived_at_ns, to_ns: passage.acked_at_ns };
    let most = whole(&span.most_met(passages, whole)?);
    Some(calls.iter().map(|call| most.met_ns(call.whole)).sum())
}

#[cfg(test)]
mod tests {
    use super::super::shim::Kind;
    use super::{Call, Passage, Span, of_proposal};

    #[test]
    fn a_proposal_waits_for_the_rest_of_the_call_before_and_for_its_own() {
        let call = |kind, from_ns, to_ns| {
            let none = Span { from_ns: 0, to_ns: 0 };
            Call { kind, whole: Span { from_ns, to_ns }, sleep: none, busy_ns: 0 }
        };
        let calls = [
            call(Kind::Flush, 100, 220),
            call(Kind::Write, 230, 250),
            call(Kind::Flush, 251, 400),
            call(Kind::Flush, 410, 900),
        ];
        let passage = |arrived_at_ns, acked_at_ns| Passage {
            zxid: 1,
            sent_at_ns: arrived_at_ns,
            arrived_at_ns,
            acked_at_ns,
            ack_arrived_at_ns: acked_at_ns,
        };
        let passages = [passage(200, 405), passage(210, 406), passage(399, 402)];
        let span = Span { from_ns: 150, to_ns: 420 };
        assert_eq!(of_proposal(&span, &passages, &calls), Some(20 + 20 + 149));
        assert_eq!(of_proposal(&span, &[], &calls), None);
    }
}
