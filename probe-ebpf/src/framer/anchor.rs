//! When may the framing of a stream met in the middle be believed?
//!
//! In: the calls and heads of a tentative chain. Out: the decision that it is none, or that it is locked.
//! Invariant: what is locked cannot have been one payload that Java wrote. A payload up to the stream
//! buffer never starts a call anywhere but at its first byte, which is a session id. A longer one is
//! written by calls of 65,536 or 131,072 bytes and a last, shorter one, after which the chain meets the
//! authinfo instead of a head. So calls that are no longer than the buffer and end where the chain says
//! that a packet ends are evidence, and so is a chain longer than any payload. A *reader's* calls in a
//! payload have any length: there evidence is only improbable without a true framing, hence several in a
//! row.
//! A stream that was silent before the call needs none: see `QUIET_NS`.
//! Deliberately absent: knowledge of the other direction.

use super::{Framer, phase, trust};
use crate::zab::{HUNTING_DATA_LIMIT, packet};

/// Calls in a row that must end with a packet.
const EVIDENCE: u32 = 3;
/// Buffer of the quorum streams, 8,192 bytes (`BufferedOutputStream`'s default).
const BUFFERED_CALL: u32 = 8192;
/// Shorter than any segment inside a payload (RFC 9293, 3.7.1: 536 bytes). Such a call counts twice: an
/// idle link is known by its third PING.
const SHORT_CALL: u32 = 128;
/// A chain longer than the longest payload believed.
const CHAIN_BYTES: u32 = HUNTING_DATA_LIMIT as u32 + 4096;
/// Calls without a new head after which a tentative packet is given up: 300 KB in segments of an
/// Ethernet are 207.
const PATIENCE: u32 = 256;

impl Framer {
    /// A call begins while the chain is tentative; the one before had `last_call_bytes`.
    #[inline(always)]
    pub(super) fn weigh_call(&mut self, last_call_bytes: u32) {
        self.patience += 1;
        if self.patience > PATIENCE {
            self.trust = trust::HUNTING;
        } else if last_call_bytes <= BUFFERED_CALL && self.evidence < EVIDENCE {
            let whole = self.phase == phase::HEAD && self.have == 0;
            let weight = if last_call_bytes <= SHORT_CALL { 2 } else { 1 };
            self.evidence = if whole { self.evidence + weight } else { 0 };
        }
    }

    /// Adds the believable head in progress to the chain, or begins one with it; false when it does not
    /// belong there. One link's proposals, their ACKs and their COMMITs are each without a gap.
    #[inline(always)]
    pub(super) fn link_chain(&mut self) -> bool {
        self.patience = 0;
        if self.trust == trust::HUNTING {
            self.trust = trust::TENTATIVE;
            self.evidence = 0;
            self.chain_seq = self.end_seq();
            self.chain_zxid = 0;
            self.chain_commit = 0;
        }
        let last = match self.kind {
            packet::PROPOSAL | packet::ACK | packet::INFORM => {
                core::mem::replace(&mut self.chain_zxid, self.zxid)
            }
            packet::COMMIT => core::mem::replace(&mut self.chain_commit, self.zxid),
            _ => 0,
        };
        if last != 0 && last.wrapping_add(1) != self.zxid {
            return false;
        }
        if self.quiet == 1
            || self.evidence >= EVIDENCE
            || self.end_seq().wrapping_sub(self.chain_seq) > CHAIN_BYTES
        {
            self.trust = trust::LOCKED;
            self.relocked = 1;
            self.started = 2;
        }
        true
    }
}
