//! A link: one connection between a learner and its leader, seen from one end.
//!
//! In: complete packets of both directions with the sequence number after their last byte, and the
//! instants of the call. Out: an [`Effect`] to emit, and counts and histograms in the link itself.
//! Invariants: `proposals = matched + expired + in flight`; `matched = delay.count + unmeasured`; each
//! direction's state is written by that direction's call alone. Deliberately absent: who the peer is
//! (user space decides), causes, clocks.

use crate::abi::{Config, Flush, ProposalRecord, change, side};
use crate::arrivals::{self, Arrival, Arrivals, seq_at_or_after};
use crate::cause::{self, Parts};
use crate::framer::{Framer, trust};
use crate::histogram::Histogram;
use crate::inference::Inference;
use crate::network::Path;
use crate::overtaken::{self, Overtaken};
use crate::window::{self, Entry, Taken, Window, mode};
use crate::zab::packet;

pub use crate::counts::Counts;
pub use inferred::{Proof, Sums};
pub use measure::{RECEIPTS, Receipt, Spent};

mod inferred;
mod measure;

/// Who is connected with whom. Written once when the link is met.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The kernel's cookie of the socket.
    pub cookie: u64,
    /// When the link was met, monotonic ns.
    pub opened_at: u64,
    /// When its socket closed, monotonic ns; 0 while it lives.
    pub closed_at: u64,
    /// Process that owns this end.
    pub tgid: u32,
    /// Inode of the network namespace.
    pub net_ns: u32,
    /// Local address, IPv4 as v4-mapped IPv6.
    pub local_addr: [u8; 16],
    /// Remote address.
    pub remote_addr: [u8; 16],
    /// Local port.
    pub local_port: u16,
    /// Remote port.
    pub remote_port: u16,
    /// One of [`side`].
    pub side: u8,
    /// Explicit padding.
    pub reserved: [u8; 3],
    /// Counts the uses of the slot: odd while in use.
    pub generation: u32,
    /// Explicit padding.
    pub reserved_2: u32,
}

/// Instants at which a send call handed its bytes to TCP.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handed {
    /// First turn of the copy loop, monotonic ns; 0 when no turn was seen.
    pub first_at: u64,
    /// Last turn.
    pub last_at: u64,
    /// Sequence number at which the last turn began.
    pub last_seq: u32,
    /// At the leader: the thread that sent last, whose clock was seen to.
    pub sender: u32,
}

/// A connection's state: the value of the link map.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Link {
    /// Who is connected with whom.
    pub identity: Identity,
    /// sid that the learner announced in FOLLOWERINFO or OBSERVERINFO.
    pub announced_sid: i64,
    /// 1 when `announced_sid` is set.
    pub sid_known: u32,
    /// 1 when the learner is an observer.
    pub observer: u32,
    /// Epoch of the leader, 0 while unknown.
    pub epoch: u32,
    /// 1 when no bytes waited unread before the first arrival was seen.
    pub drained: u32,
    /// Last PING of the leader, 0 when answered.
    pub ping_at: u64,
    /// When the next send call handed over.
    pub handed: Handed,
    /// Proposals in flight.
    pub window: Window,
    /// Deliveries to the socket.
    pub arrivals: Arrivals,
    /// Counters.
    pub counts: Counts,
    /// Sums of the stages receive, process, log, send, ns (learner's side).
    pub stages_ns: [u64; 4],
    /// Sums of the delays by cause, ns.
    pub causes_ns: Parts,
    /// Delays of at least the stall threshold, by their largest cause.
    pub stalls_by_cause: [u64; cause::COUNT],
    /// At the leader: what it was doing while ACKs that had arrived waited to be read, by cause, ns.
    pub leader_ns: Parts,
    /// Receipts written.
    pub receipts: u64,
    /// What the last receipt is about: `arrived`.
    pub receipt_from: u64,
    /// And `read`.
    pub receipt_to: u64,
    /// What the sender of ACKs did since the read of a proposal.
    pub spent: Spent,
    /// What the reader did before the clock of the thread that sends ACKs began.
    pub inherited: Spent,
    /// What the reader did from an arrival to its read, where the receipt is overwritten.
    pub recalled: Spent,
    /// The record of the last measured proposal at the learner (0) and at the leader (1).
    pub records: [ProposalRecord; 2],
    /// The calls under way: outgoing, incoming.
    pub calls: [Call; 2],
    /// What is known of it when it is TLS.
    pub inference: Inference,
    /// Leader to learner.
    pub down: Framer,
    /// Learner to leader.
    pub up: Framer,
    /// Proposal delays.
    pub delay: Histogram,
    /// Heartbeat delays.
    pub heartbeat: Histogram,
}

/// The large rings of a link, in a map of their own so that user space need not read them.
#[repr(C)]
pub struct Rings {
    /// Proposals in flight.
    pub window: window::Ring,
    /// Deliveries.
    pub arrivals: [Arrival; arrivals::CAPACITY as usize],
    /// What the time from arrival to read went to.
    pub receipts: [Receipt; RECEIPTS],
    /// ACKs that came before their proposal's send call had ended.
    pub overtaken: overtaken::Waiting,
    /// What the leader's TCP shows of the way to the learner.
    pub path: Path,
}

/// What is known about the call that carried a packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// Now: the end of the call, monotonic ns.
    pub now: u64,
    /// 1 when the bytes came in.
    pub incoming: u32,
    /// Thread that made the call.
    pub tid: u32,
    /// Slot of its clock plus one, 0 when it has none, or was not asked for it yet.
    pub thread: u32,
    /// Of incoming calls: slot plus one of the clock of the thread that read a proposal last. It stays when a call without one follows.
    pub reader: u32,
    /// The flush before an outgoing call, zero when none is known, or was not asked for yet.
    pub flush: Flush,
}

/// What a packet asks the programs to emit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// A proposal was read that came with other bytes than the last: [`Link::write_receipt`] is due.
    Received,
    /// A proposal's delay is known: [`Link::charge`] is due, and if it is a stall [`Link::count_stall`].
    Measured {
        /// Where its record stands in [`Link::records`]. Slot and generation are the caller's to fill in.
        place: u32,
        /// The delay, ns.
        delay: u64,
    },
    /// A heartbeat was answered.
    Heartbeat {
        /// PING arrived or sent.
        began_at: u64,
        /// Answer sent or arrived.
        ended_at: u64,
    },
    /// One of [`change`].
    Transition(u32),
}

impl Handed {
    /// When the byte before `end_seq` was handed to TCP by the call that ends `now`.
    #[inline(always)]
    #[must_use]
    pub fn at(&self, end_seq: u32, now: u64) -> u64 {
        if self.first_at == 0 {
            return now;
        }
        // The byte belongs to the last turn when it lies behind that turn's first.
        if !seq_at_or_after(self.last_seq, end_seq) { self.last_at } else { self.first_at }
    }

    /// A turn of the copy loop began at `write_seq`.
    #[inline(always)]
    pub fn turn(&mut self, write_seq: u32, now: u64) {
        if self.first_at == 0 {
            self.first_at = now;
        }
        self.last_at = now;
        self.last_seq = write_seq;
    }
}

/// An instant with the flags that an [`Entry`] packs beside it.
#[derive(Clone, Copy)]
struct Stamp {
    at: u64,
    doubt: u64,
    /// Sequence number after the packet.
    end_seq: u32,
}

impl Link {
    /// A free slot.
    pub const FREE: Self = Self {
        identity: Identity {
            cookie: 0,
            opened_at: 0,
            closed_at: 0,
            tgid: 0,
            net_ns: 0,
            local_addr: [0; 16],
            remote_addr: [0; 16],
            local_port: 0,
            remote_port: 0,
            side: 0,
            reserved: [0; 3],
            generation: 0,
            reserved_2: 0,
        },
        announced_sid: 0,
        sid_known: 0,
        observer: 0,
        epoch: 0,
        drained: 0,
        ping_at: 0,
        handed: Handed { first_at: 0, last_at: 0, last_seq: 0, sender: 0 },
        window: Window::NEW,
        arrivals: Arrivals { head: 0, tail: 0, merged: 0 },
        counts: Counts::ZERO,
        stages_ns: [0; 4],
        causes_ns: [0; cause::COUNT],
        stalls_by_cause: [0; cause::COUNT],
        leader_ns: [0; cause::COUNT],
        receipts: 0,
        receipt_from: 0,
        receipt_to: 0,
        spent: Spent::NONE,
        inherited: Spent::NONE,
        recalled: Spent::NONE,
        records: [ProposalRecord::NONE; 2],
        calls: [Call {
            now: 0,
            incoming: 0,
            tid: 0,
            thread: 0,
            reader: 0,
            flush: Flush { began_at: 0, ended_at: 0 },
        }; 2],
        inference: Inference::NEW,
        down: Framer::HUNTING,
        up: Framer::HUNTING,
        delay: Histogram::EMPTY,
        heartbeat: Histogram::EMPTY,
    };

    /// Completes the counts after the link was read: what is derived is not kept twice.
    pub fn settle(&mut self) {
        self.counts.proposals = self.window.seen();
    }

    /// The framer of one direction.
    #[inline(always)]
    pub fn framer(&mut self, incoming: bool) -> &mut Framer {
        if incoming == (self.identity.side == side::LEARNER) { &mut self.down } else { &mut self.up }
    }

    /// When did the last byte before `end_seq` arrive, or leave?
    #[inline(always)]
    fn stamp(&mut self, rings: &Rings, config: &Config, call: &Call, end_seq: u32) -> Stamp {
        if call.incoming == 0 {
            return Stamp { at: self.handed.at(end_seq, call.now), doubt: 0, end_seq };
        }
        match self.arrivals.find(&rings.arrivals, end_seq) {
            // Bytes from before the probe came may share the first arrival that it saw.
            Some(a) if a.coarse != Arrival::FIRST || self.drained == 1 => {
                Stamp { at: a.at, doubt: if a.coarse == 1 { Entry::COARSE } else { 0 }, end_seq }
            }
            _ if config.arrival_hook == 0 => Stamp { at: call.now, doubt: Entry::COARSE, end_seq },
            _ => Stamp { at: call.now, doubt: Entry::NO_ARRIVAL, end_seq },
        }
    }

    /// A packet of `kind` in the direction of `call` is complete; `zxid` and `sid` are its.
    #[inline(always)]
    pub fn on_packet(
        &mut self,
        rings: &mut Rings,
        config: &Config,
        call: &Call,
        (kind, zxid, sid, end_seq): (u32, u64, i64, u32),
    ) -> Effect {
        if kind == packet::PROPOSAL || kind == packet::ACK || kind == packet::PING {
            let stamp = self.stamp(rings, config, call, end_seq);
            return match kind {
                packet::PROPOSAL => self.on_proposal(rings, call, zxid, stamp),
                packet::ACK => self.on_ack(rings, call, zxid, stamp),
                _ => self.on_ping(call, stamp),
            };
        }
        match kind {
            packet::COMMIT | packet::INFORM => {
                self.counts.commits += 1;
                Effect::None
            }
            packet::REQUEST => {
                self.counts.requests += 1;
                Effect::None
            }
            packet::LEADERINFO | packet::NEWLEADER => {
                self.epoch = (zxid >> 32) as u32;
                self.down.relocked = 0;
                self.leave(mode::JOINING);
                Effect::None
            }
            packet::SNAP => {
                self.counts.snapshots += 1;
                self.leave(mode::JOINING);
                Effect::None
            }
            packet::UPTODATE => {
                self.leave(mode::JOINING);
                self.window.go_live(self.epoch);
                self.up.epoch = self.epoch;
                self.down.epoch = self.epoch;
                Effect::Transition(change::UPTODATE)
            }
            packet::FOLLOWERINFO | packet::OBSERVERINFO => {
                self.announced_sid = sid;
                self.observer = (kind == packet::OBSERVERINFO) as u32;
                self.sid_known = 1;
                Effect::Transition(change::SID)
            }
            _ => Effect::None,
        }
    }

    /// The window's mode changes: what was in flight will not be matched.
    #[inline(always)]
    fn leave(&mut self, mode: u32) {
        self.counts.expired += self.window.in_flight() as u64;
        self.window.stop_counting(mode);
    }

    #[inline(always)]
    fn on_proposal(&mut self, rings: &mut Rings, call: &Call, zxid: u64, stamp: Stamp) -> Effect {
        if self.down.relocked == 1 {
            // What was lost may hold the end of a join, or proposals; and what was found may be a value
            // that looks like packets: an ACK must confirm it first.
            self.down.relocked = 0;
            self.leave(mode::UNCONFIRMED);
            self.window.low = self.window.high;
        }
        let mut entry =
            Entry { began: (stamp.at & !3) | stamp.doubt, read_at: 0, receipt: stamp.end_seq as u64 };
        let mut effect = Effect::None;
        if call.incoming == 1 {
            entry.read_at = call.now;
            effect = self.receive(&entry);
            entry.receipt = self.receipts;
        }
        let pushed = self.window.push(&mut rings.window, zxid, entry);
        self.counts.expired += pushed.expired as u64;
        self.counts.gaps += pushed.gap as u64;
        if pushed.live == 0 {
            self.counts.replayed += (self.window.mode == mode::JOINING) as u64;
            return effect;
        }
        if call.incoming == 1 {
            return effect; // a learner acknowledges what it has read
        }
        let Some(ack) = overtaken::take(&mut rings.overtaken, zxid) else { return Effect::None };
        self.counts.expired += self.window.leave_at_once(zxid) as u64;
        self.counts.matched += 1;
        let ack_call = Call { now: ack.read_at, incoming: 1, ..*call };
        self.measure(&ack_call, zxid, &entry, Stamp { at: ack.arrived_at, doubt: 0, end_seq: ack.end_seq })
    }

    #[inline(always)]
    fn on_ack(&mut self, rings: &mut Rings, call: &Call, zxid: u64, stamp: Stamp) -> Effect {
        if zxid as u32 == 0 {
            return Effect::None; // of NEWLEADER, not of a proposal
        }
        if self.window.mode == mode::UNCONFIRMED
            && (stamp.doubt & Entry::NO_ARRIVAL != 0 || self.down.trust != trust::LOCKED)
        {
            // It was on its way when the probe came, or the framing of its proposal did not last.
            self.counts.unknown_acks += 1;
            return Effect::None;
        }
        match self.window.take(&rings.window, zxid) {
            Taken::Entry { entry, expired, confirmed } => {
                self.counts.expired += expired as u64;
                self.counts.matched += 1;
                if confirmed > 0 {
                    self.up.epoch = (zxid >> 32) as u32;
                    self.down.epoch = self.up.epoch;
                    self.epoch = self.up.epoch;
                }
                self.measure(call, zxid, &entry, stamp)
            }
            Taken::Replayed => {
                self.counts.replayed_acks += 1;
                Effect::None
            }
            Taken::Overrun { expired } => {
                self.counts.expired += expired as u64;
                Effect::None
            }
            Taken::Unknown if call.incoming == 1 && stamp.doubt == 0 && self.window.awaits(zxid) => {
                let ack = Overtaken {
                    zxid,
                    arrived_at: stamp.at,
                    read_at: call.now,
                    end_seq: stamp.end_seq,
                    reserved: 0,
                };
                overtaken::put(&mut rings.overtaken, ack);
                Effect::None
            }
            Taken::Unknown => {
                self.counts.unknown_acks += 1;
                Effect::None
            }
        }
    }

    #[inline(always)]
    fn on_ping(&mut self, call: &Call, stamp: Stamp) -> Effect {
        let from_leader = (call.incoming == 1) == (self.identity.side == side::LEARNER);
        if from_leader {
            self.counts.pings += 1;
            self.ping_at = if stamp.doubt & Entry::NO_ARRIVAL != 0 { 0 } else { stamp.at };
            return Effect::None;
        }
        let began_at = self.ping_at;
        self.ping_at = 0;
        if began_at == 0 || stamp.doubt & Entry::NO_ARRIVAL != 0 || stamp.at < began_at {
            return Effect::None;
        }
        self.counts.pongs += 1;
        self.heartbeat.add(stamp.at - began_at);
        Effect::Heartbeat { began_at, ended_at: stamp.at }
    }
}

#[cfg(test)]
mod tests;
