//! The end of a raw snapshot, which has no length.
//!
//! In: bytes, and what was taken for the packet after it. Out: where the signature ends. Invariant: a
//! signature that is followed by no packet was data, and hides none that begins in what follows it.

use super::{CallBytes, Framer, PIECE_MASK, Turn, phase};
use crate::zab;

/// End of a snapshot: `writeString("BenWasHere")` (ZooKeeper: server/quorum/LearnerHandler.java).
const SIGNATURE: [u8; 16] = *b"\0\0\0\x0aBenWasHere\0\0";
const SIGNATURE_BYTES: u32 = 14;
/// Bytes scanned in a turn: each doubles nothing but lengthens what the verifier walks.
const SCAN_BYTES: u32 = 8;

impl Framer {
    /// Looks for the signature that ends a snapshot.
    #[inline(always)]
    pub(super) fn scan_turn(&mut self, bytes: &impl CallBytes, left: u32) -> Turn {
        let take = if left < SCAN_BYTES { left } else { SCAN_BYTES };
        if !bytes.copy(self.pos, &mut self.head, 0, take) {
            self.expected_seq = self.expected_seq.wrapping_sub(1);
            self.drop_call = 1;
            return Turn::More;
        }
        let mut at = 0;
        while at < SCAN_BYTES {
            if at < take {
                self.pos += 1;
                self.signature_turn(self.head[at as usize]);
                if self.after_snapshot == 1 {
                    self.phase = phase::HEAD;
                    return Turn::More;
                }
            }
            at += 1;
        }
        Turn::More
    }

    /// Looks for the signature in what was taken for a head, a byte a turn, and keeps what stands behind
    /// it: the true signature may begin in there.
    #[inline(always)]
    pub(super) fn rescan_turn(&mut self) -> Turn {
        let byte = self.head[(self.rescan_at & PIECE_MASK) as usize];
        self.rescan_at += 1;
        if self.after_snapshot == 1 {
            self.head[(self.have & PIECE_MASK) as usize] = byte;
            self.have += 1;
        } else {
            self.signature_turn(byte);
        }
        if self.rescan_at >= self.rescan_end {
            if self.have >= zab::HEAD_BYTES {
                // No snapshot has its signature so near to an earlier one.
                return self.lost();
            }
            self.phase = if self.after_snapshot == 1 { phase::HEAD } else { phase::SNAPSHOT };
        }
        Turn::More
    }

    #[inline(always)]
    fn signature_turn(&mut self, byte: u8) {
        self.signature = signature_step(self.signature, byte);
        if self.signature == SIGNATURE_BYTES {
            self.signature = 0;
            self.after_snapshot = 1;
        }
    }
}

/// One step of the automaton that recognises the signature: how many of its bytes stand here now.
#[inline(always)]
fn signature_step(matched: u32, byte: u8) -> u32 {
    if byte == SIGNATURE[(matched & 15) as usize] {
        return matched + 1;
    }
    match (byte, matched) {
        (0, 3) => 3, // a fourth zero: the last three still match
        (0, _) => 1,
        _ => 0,
    }
}
