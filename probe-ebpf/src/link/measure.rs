//! From the instants of a matched proposal to its delay, stages and causes.
//!
//! In: the entry that an ACK closes, and the clock of the thread that made the call. Out: sums in the link, and the
//! record. Invariants: stages sum to the delay, causes sum to the delay. Deliberately absent: matching.

use core::hint::black_box;

use crate::abi::{Flush, ProposalRecord, flag};
use crate::cause::{self, Parts};
use crate::link::{Call, Effect, Link, Rings, Stamp};
use crate::network::Path;
use crate::thread::{Clock, state};
use crate::window::Entry;

/// Receipts that are kept: one for each arrival that a read call took bytes of.
pub const RECEIPTS: usize = 512;

/// What the time from `arrived` to `read` went to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Its number plus one.
    pub number: u64,
    /// Parts, ns.
    pub parts: Parts,
}

/// What a thread's time from one instant to another went to: computed once for all ACKs of a call.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// From, monotonic ns.
    pub from: u64,
    /// To.
    pub to: u64,
    /// Parts, ns.
    pub parts: Parts,
}

impl Spent {
    /// No time.
    pub const NONE: Self = Self { from: 0, to: 0, parts: [0; cause::COUNT] };
}

impl Link {
    /// A proposal was read: the receipt of the last one serves it too when both arrived and were read together.
    #[inline(always)]
    pub(super) fn receive(&mut self, entry: &Entry) -> Effect {
        let from = entry.began_at();
        if self.receipt_from == from && self.receipt_to == entry.read_at {
            return Effect::None;
        }
        self.receipt_from = from;
        self.receipt_to = entry.read_at;
        self.receipts += 1;
        Effect::Received
    }

    /// Writes what the reading thread did from the last arrival to its read.
    #[inline(always)]
    pub fn write_receipt(&mut self, rings: &mut Rings, thread: Option<&mut impl Clock>) {
        let receipt = &mut rings.receipts[self.receipts as usize & (RECEIPTS - 1)];
        receipt.number = self.receipts;
        spend(thread, self.receipt_from, self.receipt_to, &mut receipt.parts);
    }

    /// Turns the instants of a matched proposal into a delay and stages.
    #[inline(always)]
    pub(super) fn measure(&mut self, call: &Call, zxid: u64, entry: &Entry, end: Stamp) -> Effect {
        let began_at = entry.began_at();
        let doubt = entry.began | end.doubt;
        if doubt & Entry::NO_ARRIVAL != 0 || end.at < began_at {
            self.counts.unmeasured += 1;
            return Effect::None;
        }
        let delay = end.at - began_at;
        self.delay.add(delay);
        let record = &mut self.records[call.incoming as usize & 1];
        record.flags = if doubt & Entry::COARSE != 0 { flag::COARSE } else { 0 };
        record.zxid = zxid;
        record.began_at = began_at;
        record.ended_at = end.at;
        record.read_at = if call.incoming == 1 { call.now } else { entry.read_at };
        record.flush_began_at = 0;
        record.flush_ended_at = 0;
        record.tid = call.tid;
        record.ack_seq = end.end_seq;
        record.receipt = entry.receipt;
        if call.incoming == 0 {
            self.add_stages(&call.flush);
        }
        Effect::Measured { place: call.incoming, delay }
    }

    /// Is there time in the delay of the learner's record of which neither the clock of the thread that sends the ACK nor a
    /// receipt tells? Then [`Self::inherit`] and [`Self::recall`] are to be tried.
    #[inline(always)]
    #[must_use]
    pub fn lacks_what_the_reader_did(&self, rings: &Rings, sender: Option<&mut impl Clock>) -> bool {
        let record = &self.records[0];
        let born_at = sender.map_or(0, |sender| sender.thread().born_at);
        let receipt = &rings.receipts[record.receipt as usize & (RECEIPTS - 1)];
        born_at > record.read_at || receipt.number != record.receipt
    }

    /// At the learner, where the clock of the thread that sends the ACK began after the proposal was read: what the thread
    /// did that read it and lives, up to there. A server that joins reads proposals before it has the thread that logs them.
    #[inline(always)]
    pub fn inherit<C: Clock>(&mut self, sender: &mut C, reader: &mut C) {
        let record = &self.records[0];
        let born_at = sender.thread().born_at;
        let to = if born_at < record.ended_at { born_at } else { record.ended_at };
        if to <= record.read_at || (self.inherited.from == record.read_at && self.inherited.to == to) {
            return;
        }
        let (known_to, running) = (reader.thread().since, reader.thread().state == state::RUNNING);
        let known_to = if known_to < to { known_to } else { to };
        if known_to < record.read_at || reader.thread().tgid != sender.thread().tgid {
            return;
        }
        sender.parts_of(reader, record.read_at, known_to);
        self.inherited = Spent { from: record.read_at, to, parts: sender.thread().scratch[0] };
        // It has had a CPU since, or nobody knows.
        let rest = if running { cause::ON_CPU } else { cause::UNEXPLAINED };
        self.inherited.parts[rest] = self.inherited.parts[rest].wrapping_add(to - known_to);
    }

    /// At the learner, where so many proposals were read since that the receipt is overwritten: what the thread that read it
    /// remembers of the time from the arrival to the read.
    #[inline(always)]
    pub fn recall<C: Clock>(&mut self, rings: &Rings, sender: &mut C, reader: &mut C) {
        let record = &self.records[0];
        let receipt = &rings.receipts[record.receipt as usize & (RECEIPTS - 1)];
        let (from, to) = (record.began_at, record.read_at);
        let is_known =
            receipt.number == record.receipt || (self.recalled.from == from && self.recalled.to == to);
        if is_known
            || to <= from
            || reader.thread().tgid != sender.thread().tgid
            || reader.thread().since < to
        {
            return;
        }
        sender.parts_of(reader, from, to);
        self.recalled = Spent { from, to, parts: sender.thread().scratch[0] };
    }

    /// Charges the delay of the record at `place` to its causes. `thread` made the call.
    #[inline(always)]
    pub fn charge(&mut self, rings: &Rings, thread: Option<&mut impl Clock>, place: usize) {
        if place == 1 {
            self.charge_leader(&rings.path, thread)
        } else {
            self.charge_learner(rings, thread)
        }
        cause::add(&mut self.causes_ns, &self.records[place & 1].causes_ns);
    }

    /// Counts the charged delay of the record at `place`, a stall, under its largest cause.
    #[inline(always)]
    pub fn count_stall(&mut self, place: usize) {
        let verdict = cause::largest(&self.records[place & 1].causes_ns);
        self.stalls_by_cause[black_box(verdict) & (cause::COUNT - 1)] += 1;
    }

    /// At the leader the delay is the network's and the other node's; how long the ACK waited to be read is
    /// the leader's own.
    #[inline(always)]
    fn charge_leader(&mut self, path: &Path, thread: Option<&mut impl Clock>) {
        let record = &mut self.records[1];
        record.causes_ns = [0; cause::COUNT];
        record.way = path.way((record.began_at, record.ended_at), record.receipt as u32, record.ack_seq);
        record.resent = path.resent as u64;
        let network = record.way.total();
        record.causes_ns[cause::NETWORK] = network;
        record.causes_ns[cause::REMOTE] = record.ended_at.wrapping_sub(record.began_at).wrapping_sub(network);
        if self.spent.from != record.ended_at || self.spent.to != record.read_at {
            self.spent.from = record.ended_at;
            self.spent.to = record.read_at;
            spend(thread, record.ended_at, record.read_at, &mut self.spent.parts);
        }
        cause::add(&mut self.leader_ns, &self.spent.parts);
    }

    /// At the learner: the reading thread up to `read`, then the thread that sends the ACK.
    #[inline(always)]
    fn charge_learner(&mut self, rings: &Rings, thread: Option<&mut impl Clock>) {
        let record = &mut self.records[0];
        if self.spent.from != record.read_at || self.spent.to != record.ended_at {
            self.spent.from = record.read_at;
            self.spent.to = record.ended_at;
            let Spent { from, to, parts } = &self.inherited;
            if *from == record.read_at && *to <= record.ended_at {
                spend(thread, *to, record.ended_at, &mut self.spent.parts);
                cause::add(&mut self.spent.parts, parts);
            } else {
                spend(thread, record.read_at, record.ended_at, &mut self.spent.parts);
            }
        }
        record.causes_ns = self.spent.parts;
        let receipt = &rings.receipts[record.receipt as usize & (RECEIPTS - 1)];
        if receipt.number == record.receipt {
            cause::add(&mut record.causes_ns, &receipt.parts);
        } else if self.recalled.from == record.began_at && self.recalled.to == record.read_at {
            cause::add(&mut record.causes_ns, &self.recalled.parts);
        } else {
            // So far behind that what was noted at its read is overwritten, and the reader is gone.
            let received = record.read_at.saturating_sub(record.began_at);
            let cell = &mut record.causes_ns[cause::UNEXPLAINED];
            *cell = cell.wrapping_add(received);
        }
        let delay = record.ended_at.wrapping_sub(record.began_at);
        if cause::total(&record.causes_ns) != delay {
            record.causes_ns = [0; cause::COUNT];
            record.causes_ns[cause::UNEXPLAINED] = delay;
        }
    }

    /// The four stages at the learner. They sum to the delay: each ends where the next begins, and an
    /// instant out of order moves to its neighbour.
    #[inline(always)]
    fn add_stages(&mut self, flush: &Flush) {
        let record: &mut ProposalRecord = &mut self.records[0];
        if record.read_at < record.began_at {
            record.read_at = record.began_at;
        }
        if record.read_at > record.ended_at {
            record.read_at = record.ended_at;
        }
        self.stages_ns[0] += record.read_at - record.began_at;
        let covers = flush.began_at >= record.read_at
            && flush.ended_at >= flush.began_at
            && flush.ended_at <= record.ended_at;
        if !covers {
            self.stages_ns[1] += record.ended_at - record.read_at;
            return;
        }
        record.flags |= flag::FLUSHED;
        record.flush_began_at = flush.began_at;
        record.flush_ended_at = flush.ended_at;
        self.stages_ns[1] += flush.began_at - record.read_at;
        self.stages_ns[2] += flush.ended_at - flush.began_at;
        self.stages_ns[3] += record.ended_at - flush.ended_at;
    }
}

/// What a thread did from one instant to another, or that nobody knows.
#[inline(always)]
fn spend(thread: Option<&mut impl Clock>, from: u64, to: u64, into: &mut Parts) {
    match thread {
        Some(thread) => {
            thread.parts(from, to);
            *into = thread.thread().scratch[0];
        }
        None => {
            *into = [0; cause::COUNT];
            into[cause::UNEXPLAINED] = to.saturating_sub(from);
        }
    }
}
