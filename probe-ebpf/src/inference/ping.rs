//! At the leader an ACK and the answer to a PING without sessions are the same record: what can be told of PINGs.
//!
//! In: records of 20 bytes. Out: how many were answers, and whether one may be under way. Invariant: where it is not sure that
//! none is, an ACK is not told. Deliberately absent: the learner's end, where threads tell the two apart.

use super::{Inference, Sender};

/// Where tickTime is not known, half the shortest that is allowed for: no two PINGs are closer (ZooKeeper's default is
/// 2,000 ms; `Leader.lead` sends one each half tick).
const LEAST_TICK_NS: u64 = 250_000_000;

impl Inference {
    #[inline(always)]
    pub(super) fn count_small(&mut self, units: u32, now: u64) {
        if self.proposals == self.acks && self.smalls >= self.proposals + self.pongs {
            // No COMMIT is due: a PING, or one that comes after it was taken for granted.
            if now < self.loose_until {
                return;
            }
            self.ping_at = now;
        }
        self.smalls += units;
    }

    /// At the leader: what came is no ACK, and when nothing else is under way it answers the PING.
    #[inline(always)]
    pub(super) fn pong(&mut self, sender: Sender, small: u32) {
        if sender != Sender::Unknown {
            return;
        }
        self.pongs += small;
        if self.ping_at == 0 || self.proposals != self.acks {
            return;
        }
        self.known_ping_at = self.ping_at;
        self.ping_at = 0;
        if small == 0 && self.smalls > self.proposals + self.pongs {
            self.pongs = self.smalls - self.proposals;
        }
    }

    /// At the leader: may a PING be under way, whose answer looks like an ACK? PINGs come each half tick.
    #[inline(always)]
    pub(super) fn may_be_pong(&self, now: u64) -> bool {
        self.smalls > self.proposals + self.pongs || self.is_ping_due(now)
    }

    #[inline(always)]
    pub(super) fn is_ping_due(&self, now: u64) -> bool {
        let tick_ns = if self.tick_ns == 0 { LEAST_TICK_NS } else { self.tick_ns };
        self.known_ping_at == 0 || now.saturating_sub(self.known_ping_at) >= tick_ns - tick_ns / 8
    }
}
