//! The authinfo that ends a packet: `i32 n + n × {i32 len + scheme, i32 len + id}`, n = -1 for null.
//!
//! Invariant: only a REQUEST has any; its texts are skipped, never copied.

use super::{Framer, Turn, phase};
use crate::zab::{self, be32, packet};

impl Framer {
    #[inline(always)]
    pub(super) fn auth_count_done(&mut self, count: i32) -> Turn {
        if count == -1 || count == 0 {
            return self.packet_done();
        }
        if self.kind != packet::REQUEST || !(0..=zab::AUTH_LIMIT).contains(&count) {
            return self.bad_head(0);
        }
        self.auth_texts = count as u32 * 2;
        self.phase = phase::AUTH_LENGTH;
        Turn::More
    }

    #[inline(always)]
    pub(super) fn auth_length_done(&mut self) -> Turn {
        let len = be32(&self.head, 0) as i32;
        if !(-1..=zab::AUTH_TEXT_LIMIT).contains(&len) {
            return self.bad_head(0);
        }
        if len <= 0 {
            return self.auth_text_done();
        }
        self.skip = len as u32;
        self.phase = phase::AUTH_TEXT;
        Turn::More
    }

    #[inline(always)]
    pub(super) fn auth_text_done(&mut self) -> Turn {
        self.auth_texts = self.auth_texts.wrapping_sub(1);
        if self.auth_texts == 0 {
            return self.packet_done();
        }
        self.phase = phase::AUTH_LENGTH;
        Turn::More
    }
}
