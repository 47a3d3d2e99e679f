//! Is the stream TLS, and where do its records end?
//!
//! In: the start of a call that is no packet; afterwards the five bytes that begin each record. Out: the decision, which
//! is final, and the length of each record of application data. Invariant: a link whose packets were recognised is never
//! called TLS. Deliberately absent: what is inside, and what its size tells ([`crate::inference`]).

use super::{CallBytes, Framer, Turn, phase};
use crate::abi::wire;
use crate::zab;

/// TLS-like calls in mid-stream before the link is called TLS.
const TLS_HINTS: u8 = 3;
/// Content type, version, length (RFC 8446, 5.1).
pub(super) const TLS_HEADER: u32 = 5;
/// Content type of application data; in TLS 1.3 of whatever is encrypted.
const APPLICATION_DATA: u8 = 0x17;

impl Framer {
    /// A call in mid-stream begins with no head of ours: is it a TLS record?
    #[inline(always)]
    pub(super) fn tls_hint(&mut self) -> Turn {
        self.drop_call = 1;
        // A writer hands over a whole record, a reader takes its header alone, then its body.
        let whole =
            self.chunk_len == TLS_HEADER || self.chunk_len == TLS_HEADER.wrapping_add(self.record_len());
        if self.wire != wire::UNKNOWN || !whole || !zab::looks_like_tls(&self.head) {
            return Turn::Done;
        }
        self.tls_hints = self.tls_hints.saturating_add(1);
        if self.tls_hints < TLS_HINTS {
            return Turn::Done;
        }
        self.drop_call = 0;
        self.tls(self.pos)
    }

    /// It is TLS; `taken` bytes of a record were taken for a packet's.
    #[inline(always)]
    pub(super) fn tls(&mut self, taken: u32) -> Turn {
        self.wire = wire::TLS;
        self.step = 1;
        self.have = 0;
        self.begin_record();
        // What is shorter than that is no record that begins a stream: the next header shows it.
        self.skip = self.skip.saturating_sub(taken.saturating_sub(TLS_HEADER));
        self.phase = if self.skip == 0 { phase::RECORD_HEAD } else { phase::RECORD_BODY };
        Turn::Tls
    }

    #[inline(always)]
    fn record_len(&self) -> u32 {
        ((self.head[3] as u32) << 8) | self.head[4] as u32
    }

    /// Length of the record that is complete, its header not counted; 0 when bytes were missed before it.
    #[inline(always)]
    #[must_use]
    pub fn record_bytes(&self) -> u32 {
        self.data_len as u32
    }

    /// Hands out `count` packets of `kind`, whose zxids are consecutive from `first`.
    #[inline(always)]
    pub fn hand_out(&mut self, kind: u32, first: u64, count: u32) {
        self.kind = kind;
        self.zxid = first.wrapping_sub(1);
        self.complete = count;
    }

    #[inline(always)]
    fn begin_record(&mut self) {
        self.skip = self.record_len();
        self.data_len = if self.head[0] == APPLICATION_DATA { self.skip as i32 } else { -1 };
    }

    /// Bytes were missed: calls begin with a record, or with its body, which is no header.
    #[inline(always)]
    pub(super) fn records_missed(&mut self) {
        self.phase = phase::RECORD_HEAD;
        self.have = 0;
        self.skip = 0;
        self.relocked = 1;
    }

    #[inline(always)]
    pub(super) fn record_head_turn(&mut self, bytes: &impl CallBytes, left: u32) -> Turn {
        if !self.collect(bytes, left, TLS_HEADER) {
            return Turn::More;
        }
        if !zab::looks_like_tls(&self.head) {
            self.drop_call = 1;
            self.relocked = 1;
            return Turn::Done;
        }
        self.begin_record();
        self.phase = phase::RECORD_BODY;
        Turn::More
    }

    #[inline(always)]
    pub(super) fn record_body_turn(&mut self, left: u32) -> Turn {
        let take = if self.skip < left { self.skip } else { left };
        self.pos += take;
        self.skip -= take;
        if self.skip > 0 {
            return Turn::More;
        }
        self.phase = phase::RECORD_HEAD;
        if self.data_len < 0 { Turn::More } else { Turn::Record }
    }
}
