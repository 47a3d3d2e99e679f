//! What can be told of a link whose packets are inside TLS, from the sizes of its records alone.
//!
//! In: the length of each record of application data, its direction, when, and by whom. Out: proposals and ACKs with
//! numbers of our own in place of zxids, or the word that nothing can be known. A proposal is what the leader sends that
//! is larger than a COMMIT or a PING; ACKs have 20 bytes each; the n-th ACK belongs to the n-th proposal. Records may hold
//! several packets, so this is a hypothesis. It is tested where the link is *balanced*: silent, and as many ACKs as
//! proposals. An ACK too many, or a size that no packet has, disproves it.
//! Invariant: what was measured is kept only when the link was balanced after it, once at the least, and then for
//! [`HINDSIGHT_NS`] and up to the next balance nothing disproved it. Everything else is withdrawn and counted.
//! Deliberately absent: clocks, sums ([`crate::link`] has them), and any byte of a record.

pub mod doubt;
mod ping;

/// What is to be done with the sums of a link before its next ACK counts: values of [`Inference::due`].
pub mod due {
    /// Nothing.
    pub const NOTHING: u32 = 0;
    /// What was put by is proven; what is there now is put by.
    pub const PROVE: u32 = 1;
    /// What is not proven is withdrawn.
    pub const WITHDRAW: u32 = 2;
}

/// Without a record for this long, and for twice as long as the learner lately took for an ACK, a link may be balanced:
/// an ACK that is still to come would have come.
pub const SILENCE_NS: u64 = 2_000_000;
/// How long a balance must not have been disproved. Two packets that shared a record are acknowledged within this
/// time of each other, unless the learner stops between the two.
pub const HINDSIGHT_NS: u64 = 100_000_000;
/// A silence after which no COMMIT is due: those that are missing shared a record with something else.
const COMMITTED_NS: u64 = 10_000_000;
/// A silence after which an earlier PING is not going to be answered.
const LATE_NS: u64 = 100_000_000;
/// Silences after ACKs in which proposals were in flight, one after the other, before that is a doubt: an ACK may have
/// shared a record with something else.
const UNBALANCED: u32 = 4;
/// ACKs without a balance before that is a doubt, and for how long.
const UNBALANCED_ACKS: u32 = 16;
const UNBALANCED_NS: u64 = 4_000_000_000;
/// COMMIT, PING, ACK: type, zxid, null data, null authinfo (zookeeper.jute).
const SMALL: u32 = 20;
/// The same and a TxnHeader: no PROPOSAL is smaller.
const LEAST_PROPOSAL: u32 = 52;
/// Packets of 20 bytes in a record beyond the COMMITs that are due: a PING, and COMMITs of proposals that shared a record.
/// A proposal of such a size is not seen, which shows by an ACK too many; COMMITs that were taken for a proposal would
/// make up for one that was not seen.
const UNEXPECTED: u32 = 5;
/// The largest of a cipher's additions to a packet.
const MOST_OVERHEAD: u32 = 33;
/// `BufferedOutputStream`'s default: a larger packet goes over several records.
const BUFFER: u32 = 8192;
/// Largest number of ACKs in a record.
const MOST_ACKS: u32 = 2 * BUFFER / SMALL;

/// State of a link inside TLS. All zero is a link of which nothing is known.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inference {
    /// One of [`doubt`], as [`Inference::state`] tells it; 0 before the first record means nothing.
    pub doubt: u32,
    /// Bytes of a record that are not of a packet; 0 while unknown.
    pub overhead: u32,
    /// Counts the stretches in which numbers are consecutive: the upper half of every number.
    pub era: u32,
    /// 0 to 2: how much of "a PING in a silence, and its answer" was seen. Only a learner that has joined is sent one.
    greeting: u32,
    /// Of this era, down: proposals, and packets of 20 bytes.
    proposals: u32,
    smalls: u32,
    /// Of this era, up: ACKs, and answers to PINGs that look like one.
    acks: u32,
    pongs: u32,
    /// Bytes of an ACK that was cut by the end of a buffer.
    cut: u32,
    /// Leader: an ACK or the answer to a PING came, and which of the two is not known.
    murky: u32,
    /// Learner: the thread that sends ACKs.
    ack_tid: u32,
    /// The upward direction has found a reason to doubt.
    disproof: u32,
    /// One of [`due`].
    due: u32,
    acks_at_balance: u32,
    acks_at_silence: u32,
    /// Silences since the last balance that were none, though ACKs had come.
    unbalanced: u32,
    reserved: u32,
    down_at: u64,
    up_at: u64,
    balanced_at: u64,
    /// When ACKs began to come after the last balance.
    flowing_at: u64,
    /// When the link was last empty and a proposal came, when an ACK came, and how long the learner lately took for the
    /// next ACK: a peak that decays.
    opened_at: u64,
    acked_at: u64,
    service_ns: u64,
    /// Until when a COMMIT may come that was counted already.
    loose_until: u64,
    /// When sums were last put by, and the last number among them.
    candidate_at: u64,
    candidate: u64,
    /// Last number that is proven.
    pub proven: u64,
    /// Leader: when a PING was sent that stands for itself, and when the last one was that was answered.
    ping_at: u64,
    known_ping_at: u64,
    /// Leader: time between two PINGs; 0 while unknown.
    pub tick_ns: u64,
    /// Records that may be a proposal, seen in doubt.
    pub unknown: u64,
    /// Proposals that were measured and withdrawn, or in flight then, or whose ACK was not certain.
    pub withdrawn: u64,
    /// How often each doubt arose.
    pub doubts: [u64; doubt::COUNT],
}

/// What a record of the leader's is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    /// Nothing that enters the window.
    Nothing,
    /// A proposal of this number.
    Proposal(u64),
    /// Doubt begins: what is in flight will not be matched.
    Doubt,
    /// An era begins, with what follows; a proposal of this number is the first, unless it is 0.
    Era(u64),
}

/// ACKs: the numbers of the proposals that they close.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acks {
    /// The first.
    pub first: u64,
    /// How many; 0 for none.
    pub count: u32,
}

/// Who sent a record to the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Seen at the leader: nobody knows.
    Unknown,
    /// Seen at the learner: the thread that reads the leader's packets answers PINGs, and never acknowledges.
    Reader,
    /// Seen at the learner: another thread.
    Thread(u32),
}

impl Inference {
    /// Nothing known.
    pub const NEW: Self = Self {
        doubt: doubt::NONE,
        overhead: 0,
        era: 0,
        greeting: 0,
        proposals: 0,
        smalls: 0,
        acks: 0,
        pongs: 0,
        cut: 0,
        murky: 0,
        ack_tid: 0,
        disproof: 0,
        due: due::NOTHING,
        acks_at_balance: 0,
        acks_at_silence: 0,
        unbalanced: 0,
        reserved: 0,
        down_at: 0,
        up_at: 0,
        balanced_at: 0,
        flowing_at: 0,
        opened_at: 0,
        acked_at: 0,
        service_ns: 0,
        loose_until: 0,
        candidate_at: 0,
        candidate: 0,
        proven: 0,
        ping_at: 0,
        known_ping_at: 0,
        tick_ns: 0,
        unknown: 0,
        withdrawn: 0,
        doubts: [0; doubt::COUNT],
    };

    /// Why nothing is told at this moment: one of [`doubt`].
    #[must_use]
    pub fn state(&self) -> u32 {
        match (self.era, self.overhead) {
            (_, 0) => doubt::CIPHER,
            (0, _) => doubt::SILENCE,
            _ => self.doubt,
        }
    }

    #[inline(always)]
    fn is_told(&self) -> bool {
        self.era != 0 && self.doubt == doubt::NONE
    }

    #[inline(always)]
    fn number(&self, counter: u32) -> u64 {
        ((self.era as u64) << 32) | counter as u64
    }

    /// What the sums of the link need before the ACKs of a record count. To be called once, by the upward direction, which
    /// alone writes them.
    #[inline(always)]
    pub fn take_due(&mut self) -> u32 {
        core::mem::replace(&mut self.due, due::NOTHING)
    }

    /// Bytes were missed.
    #[inline(always)]
    pub fn missed(&mut self) {
        self.disproof = doubt::BYTES;
    }

    /// A record of `length` bytes went to the learner.
    #[inline(always)]
    pub fn down(&mut self, length: u32, now: u64) -> Down {
        let last = if self.down_at > self.up_at { self.down_at } else { self.up_at };
        let silent_ns = now.saturating_sub(last);
        let up_was_last = self.up_at > self.down_at;
        self.down_at = now;
        if self.overhead == 0 {
            self.learn(length);
        }
        let disproof = core::mem::replace(&mut self.disproof, doubt::NONE);
        let bytes = length.wrapping_sub(self.overhead);
        let kind = self.size_of(bytes);
        if self.overhead == 0 {
            self.unknown += (length >= LEAST_PROPOSAL + MOST_OVERHEAD) as u64;
            return Down::Nothing;
        }
        if disproof != doubt::NONE || (kind == size::ODD && self.is_told()) {
            let reason = if disproof != doubt::NONE { disproof } else { doubt::SIZE };
            self.unknown += (kind == size::PROPOSAL) as u64;
            return self.begin_doubt(reason);
        }
        let mut begun = false;
        if silent_ns >= SILENCE_NS && silent_ns >= 2 * self.service_ns {
            if self.is_told() {
                self.silence(now, silent_ns, up_was_last);
            } else if self.greeting == 2 && kind != size::ODD {
                self.begin_era(now);
                begun = true;
            }
        }
        if !self.is_told() {
            if kind == size::ODD {
                self.overhead = 0; // what was learnt may be wrong, and is learnt again at once when it was not
            }
            self.greet(kind, silent_ns);
            self.unknown += (kind == size::PROPOSAL) as u64;
            return Down::Nothing;
        }
        if silent_ns >= SILENCE_NS && self.proposals != self.acks && self.acks != self.acks_at_silence {
            self.acks_at_silence = self.acks;
            self.unbalanced += 1;
        }
        if self.is_unbalanced(now) {
            self.unknown += (kind == size::PROPOSAL) as u64;
            return self.begin_doubt(doubt::UNBALANCED);
        }
        let mut entered = 0;
        if kind == size::PROPOSAL {
            if self.proposals == self.acks {
                self.opened_at = now;
            }
            self.proposals += 1;
            entered = self.number(self.proposals);
        } else if kind == size::SMALL {
            self.count_small(bytes / SMALL, now);
        }
        if begun {
            return Down::Era(entered);
        }
        if entered == 0 { Down::Nothing } else { Down::Proposal(entered) }
    }

    /// A PING in a silence; [`Self::up`] sees the answer.
    #[inline(always)]
    fn greet(&mut self, kind: u32, silent_ns: u64) {
        if self.greeting < 2 {
            self.greeting = (kind == size::SMALL && silent_ns >= SILENCE_NS) as u32;
        }
    }

    /// The shortest packet has 20 bytes, and the ciphers in use add what tells them apart: ChaCha20-Poly1305 of TLS 1.2
    /// sixteen, TLS 1.3 a byte more, AES-GCM of TLS 1.2 eight more. A JVM's sockets pad by sixteen bytes in TLS 1.3
    /// (`OutputRecord.t13Encrypt`).
    #[inline(always)]
    fn learn(&mut self, length: u32) {
        let overhead = length.wrapping_sub(SMALL);
        if overhead == 16 || overhead == 17 || overhead == 24 || overhead == 33 {
            self.overhead = overhead;
        }
    }

    /// One of [`size`].
    #[inline(always)]
    fn size_of(&self, bytes: u32) -> u32 {
        // COMMITs that are due; those that shared a record with something else are thought to be due still.
        let open = (self.proposals + self.pongs).saturating_sub(self.smalls);
        if bytes > BUFFER {
            return size::ODD;
        }
        if bytes != 0 && bytes.is_multiple_of(SMALL) && bytes / SMALL <= open + UNEXPECTED {
            return size::SMALL;
        }
        if bytes >= LEAST_PROPOSAL {
            return size::PROPOSAL;
        }
        // COMMITANDACTIVATE and the answer to REVALIDATE, alone or behind a small one.
        if matches!(bytes, 28 | 29 | 48 | 49) { size::OTHER } else { size::ODD }
    }

    #[inline(always)]
    fn begin_doubt(&mut self, reason: u32) -> Down {
        let was_told = self.is_told();
        self.doubt = reason;
        if reason == doubt::SIZE {
            self.overhead = 0; // what was learnt may be wrong
        }
        if !was_told {
            return Down::Nothing;
        }
        self.doubts[reason as usize & (doubt::COUNT - 1)] += 1;
        self.due = due::WITHDRAW;
        self.withdrawn += self.proposals.saturating_sub(self.acks) as u64;
        self.candidate = self.proven;
        Down::Doubt
    }

    #[inline(always)]
    fn begin_era(&mut self, now: u64) {
        self.era += 1;
        self.doubt = doubt::NONE;
        self.proposals = 0;
        self.smalls = 0;
        self.acks = 0;
        self.pongs = 0;
        self.cut = 0;
        self.murky = 0;
        self.acks_at_balance = 0;
        self.acks_at_silence = 0;
        self.unbalanced = 0;
        self.balanced_at = now;
        self.candidate_at = now;
        self.candidate = self.number(0);
        self.ping_at = 0;
        self.known_ping_at = 0;
    }

    /// Ought the link to have been balanced long ago?
    #[inline(always)]
    fn is_unbalanced(&self, now: u64) -> bool {
        self.unbalanced >= UNBALANCED
            || (self.acks.wrapping_sub(self.acks_at_balance) >= UNBALANCED_ACKS
                && now.saturating_sub(self.flowing_at) >= UNBALANCED_NS)
    }

    /// The link was silent.
    #[inline(always)]
    fn silence(&mut self, now: u64, silent_ns: u64, up_was_last: bool) {
        if self.proposals != self.acks {
            return;
        }
        self.balanced_at = now;
        self.acks_at_balance = self.acks;
        self.unbalanced = 0;
        let quiet = self.proposals + self.pongs;
        if self.smalls < quiet && silent_ns >= COMMITTED_NS {
            self.smalls = quiet; // COMMITs that shared a record with something else
            self.loose_until = now + LATE_NS;
        } else if self.smalls > quiet && silent_ns >= LATE_NS && up_was_last {
            self.pongs = self.smalls - self.proposals; // what else there was wants no answer
        }
        if self.smalls <= self.proposals + self.pongs {
            self.murky = 0;
        }
        if self.due == due::NOTHING && now.saturating_sub(self.candidate_at) >= HINDSIGHT_NS {
            self.due = due::PROVE;
            self.proven = self.candidate;
            self.candidate = self.number(self.proposals);
            self.candidate_at = now;
        }
    }

    /// A record of `length` bytes went to the leader.
    #[inline(always)]
    pub fn up(&mut self, length: u32, now: u64, sender: Sender) -> Acks {
        self.up_at = now;
        if self.greeting == 1 {
            self.greeting = 2;
        }
        if let Sender::Thread(tid) = sender
            && length.wrapping_sub(self.overhead) == SMALL
        {
            self.ack_tid = tid; // no REQUEST is that short
        }
        if !self.is_told() || self.disproof != doubt::NONE || self.overhead == 0 {
            return Acks::default();
        }
        if sender == Sender::Reader {
            self.pongs += (self.smalls > self.proposals + self.pongs) as u32;
            return Acks::default();
        }
        let bytes = length.wrapping_sub(self.overhead);
        let total = self.cut.wrapping_add(bytes);
        let is_cut = bytes == BUFFER;
        if bytes == 0 || bytes > BUFFER || (!total.is_multiple_of(SMALL) && !is_cut) {
            // A REQUEST, or a PING's answer that names sessions.
            if self.cut != 0 {
                self.disproof = doubt::SIZE;
            }
            self.pong(sender, 0);
            return Acks::default();
        }
        let units = total / SMALL;
        if let Sender::Thread(tid) = sender {
            if self.ack_tid == 0 {
                self.disproof = doubt::SURPLUS; // ACKs, or a REQUEST
            }
            if tid != self.ack_tid {
                return Acks::default();
            }
        }
        self.acknowledge(units, total % SMALL, now, sender)
    }

    #[inline(always)]
    fn acknowledge(&mut self, units: u32, cut: u32, now: u64, sender: Sender) -> Acks {
        let at_leader = sender == Sender::Unknown;
        let open = self.proposals.wrapping_sub(self.acks);
        // A record of proposals that were not all seen brings a COMMIT and an ACK too many, which look like a PING and its
        // answer: only the time tells.
        let is_pong = self.smalls > self.proposals + self.pongs && self.is_ping_due(now);
        if at_leader && open == 0 && (units > 1 || is_pong) {
            self.pong(sender, (units == 1) as u32);
            return Acks::default();
        }
        if units > open || units > MOST_ACKS {
            self.disproof = doubt::SURPLUS;
            return Acks::default();
        }
        if self.acks == self.acks_at_balance {
            self.flowing_at = now;
        }
        self.note_service(now);
        let first = self.number(self.acks + 1);
        self.acks += units;
        self.cut = cut;
        if at_leader && (self.murky == 1 || self.may_be_pong(now)) {
            self.murky = 1;
            self.withdrawn += units as u64;
            return Acks::default();
        }
        Acks { first, count: units }
    }

    /// An ACK has come: how long was the link waiting for it?
    #[inline(always)]
    fn note_service(&mut self, now: u64) {
        let since = if self.opened_at > self.acked_at { self.opened_at } else { self.acked_at };
        let took = now.saturating_sub(since);
        let decayed = self.service_ns - self.service_ns / 8;
        self.service_ns = if took > decayed { took } else { decayed };
        self.acked_at = now;
    }
}

/// What a record's size says: one of these.
mod size {
    pub(super) const ODD: u32 = 0;
    pub(super) const SMALL: u32 = 1;
    pub(super) const OTHER: u32 = 2;
    pub(super) const PROPOSAL: u32 = 3;
}

#[cfg(test)]
mod tests;
