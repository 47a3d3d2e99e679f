//! A link inside TLS: its records become proposals and ACKs with numbers of our own, and its sums are kept twice more.
//!
//! In: complete records. Out: packets for the framer to hand out, and what the sums need first. Invariant: what user space
//! reads of such a link is proven ([`crate::inference`] says what that means). Deliberately absent: copies of histograms,
//! which the kernel's side makes with a helper.

use crate::abi::side;
use crate::cause::{self, Parts};
use crate::histogram::Histogram;
use crate::inference::{Down, Sender};
use crate::link::{Call, Link};
use crate::window::{Window, mode};
use crate::zab::packet;

/// Sums of a link as they once were.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sums {
    /// As [`Link::stages_ns`].
    pub stages_ns: [u64; 4],
    /// As [`Link::causes_ns`].
    pub causes_ns: Parts,
    /// As [`Link::stalls_by_cause`].
    pub stalls_by_cause: [u64; cause::COUNT],
    /// As [`Link::leader_ns`].
    pub leader_ns: Parts,
    /// As [`Link::delay`].
    pub delay: Histogram,
}

/// The sums of a link inside TLS that are proven, and those that may be next.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// At the last balance.
    pub candidate: Sums,
    /// At the balance before it.
    pub proven: Sums,
}

impl Sums {
    /// Nothing.
    pub const ZERO: Self = Self {
        stages_ns: [0; 4],
        causes_ns: [0; cause::COUNT],
        stalls_by_cause: [0; cause::COUNT],
        leader_ns: [0; cause::COUNT],
        delay: Histogram::EMPTY,
    };

    /// Takes all but the histogram.
    #[inline(always)]
    pub fn take_small(&mut self, link: &Link) {
        self.stages_ns = link.stages_ns;
        self.causes_ns = link.causes_ns;
        self.stalls_by_cause = link.stalls_by_cause;
        self.leader_ns = link.leader_ns;
    }

    /// Gives all but the histogram back.
    #[inline(always)]
    pub fn give_small(&self, link: &mut Link) {
        link.stages_ns = self.stages_ns;
        link.causes_ns = self.causes_ns;
        link.stalls_by_cause = self.stalls_by_cause;
        link.leader_ns = self.leader_ns;
    }
}

impl Link {
    /// A record is complete in the direction of `call`. What follows from it, the framer hands out as packets.
    #[inline(always)]
    pub fn on_record(&mut self, call: &Call) {
        let incoming = call.incoming == 1;
        let at_learner = self.identity.side == side::LEARNER;
        let framer = self.framer(incoming);
        let length = framer.record_bytes();
        if core::mem::replace(&mut framer.relocked, 0) == 1 {
            self.inference.missed();
        }
        if incoming == at_learner {
            match self.inference.down(length, call.now) {
                Down::Nothing => {}
                Down::Proposal(number) => self.down.hand_out(packet::PROPOSAL, number, 1),
                Down::Doubt => self.leave(mode::JOINING),
                Down::Era(number) => {
                    self.window.go_live(self.inference.era);
                    if number != 0 {
                        self.down.hand_out(packet::PROPOSAL, number, 1);
                    }
                }
            }
            return;
        }
        let sender = match (incoming, self.calls[1].tid == call.tid) {
            (true, _) => Sender::Unknown,
            (false, true) => Sender::Reader,
            (false, false) => Sender::Thread(call.tid),
        };
        let acks = self.inference.up(length, call.now, sender);
        if acks.count > 0 {
            self.up.hand_out(packet::ACK, acks.first, acks.count);
        }
    }

    /// What is not proven is counted.
    #[inline(always)]
    pub fn count_withdrawn(&mut self, proven: &Sums) {
        self.inference.withdrawn += self.delay.count.wrapping_sub(proven.delay.count);
    }

    /// Completes the counts after a link inside TLS was read: what is shown is what is proven, and what was seen beside it.
    pub fn settle_inferred(&mut self, proven: &Sums) {
        proven.give_small(self);
        self.delay = proven.delay;
        self.counts.unknown = self.inference.unknown + self.inference.withdrawn + self.counts.unmeasured;
        self.counts.proposals = proven.delay.count;
        self.counts.matched = proven.delay.count;
        self.counts.expired = 0;
        self.counts.unmeasured = 0;
        self.counts.unknown_acks = 0;
        self.window = Window::NEW;
    }
}
