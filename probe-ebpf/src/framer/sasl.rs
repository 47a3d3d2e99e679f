//! The exchange of tokens before the first packet, where the servers ask each other who they are.
//!
//! Invariant: tokens are skipped, never copied. Deliberately absent: whether the exchange succeeds.

use super::{Framer, Turn, phase};
use crate::abi::wire;
use crate::zab::packet;

/// Longest believed token of a SASL exchange.
const SASL_LIMIT: i32 = 1 << 20;

impl Framer {
    #[inline(always)]
    pub(super) fn sasl_head(&mut self, len: i32) -> Turn {
        if !(-1..=SASL_LIMIT).contains(&len) {
            return self.bad_head(0);
        }
        self.kind = packet::SASL;
        self.wire = wire::SASL;
        self.skip = if len > 0 { len as u32 } else { 0 };
        if self.skip == 0 {
            return Turn::More; // the next head follows at once
        }
        self.phase = phase::DATA;
        Turn::More
    }
}
