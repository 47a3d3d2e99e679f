//! Is the stream TLS?
//!
//! In: the start of a call that is no packet. Out: the decision, which is final. Invariant: a link whose
//! packets were recognised is never called TLS.

use super::{Framer, Turn, phase};
use crate::abi::wire;
use crate::zab;

/// TLS-like calls in mid-stream before the link is called TLS.
const TLS_HINTS: u8 = 3;
/// Content type, version, length (RFC 8446, 5.1).
pub(super) const TLS_HEADER: u32 = 5;

impl Framer {
    /// A call in mid-stream begins with no head of ours: is it a TLS record?
    #[inline(always)]
    pub(super) fn tls_hint(&mut self) -> Turn {
        self.drop_call = 1;
        let body = ((self.head[3] as u32) << 8) | self.head[4] as u32;
        // A writer hands over a whole record, a reader takes its header alone, then its body.
        let whole = self.chunk_len == TLS_HEADER || self.chunk_len == TLS_HEADER + body;
        if self.wire != wire::UNKNOWN || !whole || !zab::looks_like_tls(&self.head) {
            return Turn::Done;
        }
        self.tls_hints = self.tls_hints.saturating_add(1);
        if self.tls_hints < TLS_HINTS {
            return Turn::Done;
        }
        self.tls()
    }

    #[inline(always)]
    pub(super) fn tls(&mut self) -> Turn {
        self.phase = phase::OPAQUE;
        self.wire = wire::TLS;
        Turn::Tls
    }
}
