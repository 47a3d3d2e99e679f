//! The Zab framer: a state machine over the bytes of socket calls.
//!
//! In: for each call its first sequence number and its bytes, reached through [`CallBytes`] so that only
//! heads are copied. Out: complete packets, one a turn. Invariants: any split of a stream into calls gives
//! the same packets; a stream met in the middle yields nothing until a chain of believable heads, each
//! exactly where the one before said it must be, has ended with the ends of calls ([`anchor`]).
//! Deliberately absent: payload (beyond the zxid twin of a TxnHeader and the sid of a LearnerInfo), clocks,
//! and what packets mean ([`crate::link`]).

mod anchor;
mod authinfo;
#[cfg(not(target_arch = "bpf"))]
mod host;
mod sasl;
mod snapshot;
mod source;
mod tls;

#[cfg(not(target_arch = "bpf"))]
pub use host::{Fed, feed, feed_chunks};
pub use source::Source;

use crate::abi::wire;
use crate::zab::{self, Direction, Head, be32, be64, packet};
use tls::TLS_HEADER;

/// Size of the copy buffer: twice the longest piece, so that masked offset plus masked length always fit.
pub const BUFFER: usize = 128;
const PIECE_MASK: u32 = 63;
/// A head and the number of its authinfos, where it has no data.
const AND_COUNT: u32 = zab::HEAD_BYTES + 4;
/// A head and the part of its data that is looked at.
const AND_SAMPLE: u32 = zab::HEAD_BYTES + zab::TXN_SAMPLE_BYTES;

/// Access to the bytes of the call in progress.
pub trait CallBytes {
    /// Copies `len` bytes from `offset` of the call to `into[at..]`; false when they cannot be read.
    fn copy(&self, offset: u32, into: &mut [u8; BUFFER], at: u32, len: u32) -> bool;
}

/// What the framer is in the middle of: values of [`Framer::phase`].
mod phase {
    pub(super) const HEAD: u8 = 0;
    pub(super) const SAMPLE: u8 = 1;
    pub(super) const DATA: u8 = 2;
    pub(super) const AUTH_COUNT: u8 = 3;
    pub(super) const AUTH_LENGTH: u8 = 4;
    pub(super) const AUTH_TEXT: u8 = 5;
    pub(super) const SNAPSHOT: u8 = 6;
    pub(super) const RECORD_BODY: u8 = 7;
    pub(super) const RESCAN: u8 = 8;
    pub(super) const RECORD_HEAD: u8 = 9;
}

/// How sure the framing is: values of [`Framer::trust`].
pub mod trust {
    /// Looking for a head at the start of each call.
    pub const HUNTING: u8 = 0;
    /// A believable head stood at the start of a call; what follows decides.
    pub const TENTATIVE: u8 = 1;
    /// Framing is known.
    pub const LOCKED: u8 = 2;
}

/// What a turn of the framer found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Progress; take another turn.
    More,
    /// A packet is complete: see [`Framer::kind`], [`Framer::zxid`], [`Framer::end_seq`].
    Packet,
    /// The bytes of this chunk are used up.
    Done,
    /// The framing was lost: the rest of this call is dropped and the hunt begins.
    Lost,
    /// The stream is TLS: records come instead of packets.
    Tls,
    /// A TLS record of application data is complete: see [`Framer::record_bytes`].
    Record,
}

/// State of one direction of a connection. All zero is a stream met in the middle.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Framer {
    phase: u8,
    /// One of [`trust`].
    pub trust: u8,
    /// One of [`crate::abi::wire`].
    pub wire: u8,
    silent: u8,
    after_snapshot: u8,
    tls_hints: u8,
    /// 0 before the first call, 1 after it, 2 once the framing was known.
    started: u8,
    drop_call: u8,
    /// Calls that ended where the tentative chain said that a packet ends.
    evidence: u32,
    /// Calls since the last head of the tentative chain.
    patience: u32,
    /// Sequence number after the chain's first head, and its newest zxids.
    chain_seq: u32,
    call_seq: u32,
    /// 1 when the framing was found in the middle of the stream, or found again.
    pub relocked: u32,
    quiet: u32,
    chain_zxid: u64,
    chain_commit: u64,
    have: u32,
    skip: u32,
    auth_texts: u32,
    /// Packets that wait to be handed out: one, but for those that are inferred.
    complete: u32,
    /// What each of them adds to the zxid.
    step: u32,
    signature: u32,
    rescan_at: u32,
    rescan_end: u32,
    data_len: i32,
    /// Epoch of the link once known, else 0: an extra check on heads.
    pub epoch: u32,
    /// Type of the packet in progress, or just completed.
    pub kind: u32,
    /// Its zxid.
    pub zxid: u64,
    /// Its sid, of FOLLOWERINFO and OBSERVERINFO.
    pub sid: i64,
    expected_seq: u32,
    seq_known: u32,
    chunk_seq: u32,
    chunk_len: u32,
    pos: u32,
    direction: u32,
    /// 1 while a call is being framed: a second call on another CPU must not touch the state.
    pub busy: u64,
    /// End of the last call, monotonic ns; only the kernel side uses it.
    pub last_call_at: u64,
    /// Where the call's bytes are; only the kernel side uses it.
    pub source: Source,
    head: [u8; BUFFER],
}

/// A stream that was silent this long stands between two packets: a payload follows its head without a
/// pause, or its sender was stopped in the middle of a write. Such a pause and a payload that looks like
/// packets exactly where it ends would have to come together to deceive, and an ACK must still confirm.
/// Only until the framing was known once: a reader that stalls in a value is what this probe is there for.
const QUIET_NS: u64 = 20_000_000;

impl Framer {
    /// A stream met in the middle.
    pub const HUNTING: Self = Self {
        phase: phase::HEAD,
        trust: trust::HUNTING,
        wire: 0,
        silent: 0,
        after_snapshot: 0,
        tls_hints: 0,
        started: 0,
        drop_call: 0,
        evidence: 0,
        patience: 0,
        chain_seq: 0,
        call_seq: 0,
        relocked: 0,
        quiet: 0,
        chain_zxid: 0,
        chain_commit: 0,
        have: 0,
        skip: 0,
        auth_texts: 0,
        complete: 0,
        step: 0,
        signature: 0,
        rescan_at: 0,
        rescan_end: 0,
        data_len: 0,
        epoch: 0,
        kind: 0,
        zxid: 0,
        sid: 0,
        expected_seq: 0,
        seq_known: 0,
        chunk_seq: 0,
        chunk_len: 0,
        pos: 0,
        direction: 0,
        busy: 0,
        last_call_at: 0,
        source: Source::NONE,
        head: [0; BUFFER],
    };

    /// Begins a call whose first byte has `start_seq`. `at_start` tells that this is the first byte of the
    /// connection, `quiet_ns` how long the stream was silent before the call. Returns false when bytes were
    /// missed and the framing is lost with them.
    #[inline(always)]
    pub fn begin_call(&mut self, start_seq: u32, at_start: bool, quiet_ns: u64) -> bool {
        let missed = self.seq_known == 1 && self.expected_seq != start_seq;
        let last_call_bytes = start_seq.wrapping_sub(self.call_seq);
        self.call_seq = start_seq;
        self.drop_call = 0;
        self.seq_known = 1;
        self.expected_seq = start_seq;
        self.chunk_len = 0;
        self.pos = 0;
        if self.wire == wire::TLS {
            if missed {
                self.records_missed();
            }
            return true;
        }
        let was_locked = self.trust == trust::LOCKED;
        if missed {
            self.trust = trust::HUNTING;
        }
        if at_start && self.started == 0 {
            self.trust = trust::LOCKED;
        }
        if self.started == 0 {
            self.started = if self.trust == trust::LOCKED { 2 } else { 1 };
        }
        if self.trust == trust::TENTATIVE {
            self.weigh_call(last_call_bytes);
        }
        if self.trust == trust::HUNTING {
            self.restart();
        }
        let fresh = self.started < 2 && self.phase == phase::HEAD && self.have == 0;
        self.quiet = (quiet_ns >= QUIET_NS && fresh) as u32;
        !(missed && was_locked)
    }

    /// Begins the next contiguous part of the call.
    #[inline(always)]
    pub fn begin_chunk(&mut self, len: u32) {
        self.chunk_seq = self.expected_seq;
        self.chunk_len = len;
        self.pos = 0;
        self.expected_seq = self.expected_seq.wrapping_add(len);
    }

    /// Sequence number after the last byte of the packet just completed.
    #[inline(always)]
    #[must_use]
    pub fn end_seq(&self) -> u32 {
        self.chunk_seq.wrapping_add(self.pos)
    }

    /// Takes one step over the chunk.
    #[inline(always)]
    pub fn turn(&mut self, bytes: &impl CallBytes) -> Turn {
        // A complete packet is handed out in a turn of its own: the verifier then walks the many ways to
        // complete one and the handling of it one after the other instead of multiplied.
        if self.complete > 0 {
            self.complete -= 1;
            self.zxid = self.zxid.wrapping_add(self.step as u64);
            return Turn::Packet;
        }
        let left = self.chunk_len.wrapping_sub(self.pos);
        if left == 0 || left > self.chunk_len || self.drop_call == 1 {
            return Turn::Done;
        }
        match self.phase {
            phase::HEAD => self.head_turn(bytes, left),
            phase::SAMPLE => {
                // The sample is kept behind its head.
                if self.collect(bytes, left, zab::HEAD_BYTES + self.sample_bytes()) {
                    self.sample_done()
                } else {
                    Turn::More
                }
            }
            phase::DATA | phase::AUTH_TEXT => self.skip_turn(left),
            phase::AUTH_COUNT => {
                if self.collect(bytes, left, 4) {
                    let count = be32(&self.head, 0) as i32;
                    self.auth_count_done(count)
                } else {
                    Turn::More
                }
            }
            phase::AUTH_LENGTH => {
                if self.collect(bytes, left, 4) {
                    self.auth_length_done()
                } else {
                    Turn::More
                }
            }
            phase::SNAPSHOT => self.scan_turn(bytes, left),
            phase::RESCAN => self.rescan_turn(),
            phase::RECORD_HEAD => self.record_head_turn(bytes, left),
            _ => self.record_body_turn(left),
        }
    }

    #[inline(always)]
    fn is_transaction(&self) -> bool {
        self.kind == packet::PROPOSAL || self.kind == packet::INFORM
    }

    /// How much of the data is looked at.
    #[inline(always)]
    fn sample_bytes(&self) -> u32 {
        if self.is_transaction() { zab::TXN_SAMPLE_BYTES } else { zab::SID_SAMPLE_BYTES }
    }

    /// Gathers `wanted` bytes at the front of the buffer; true when they are all there.
    #[inline(always)]
    fn collect(&mut self, bytes: &impl CallBytes, left: u32, wanted: u32) -> bool {
        let have = self.have & PIECE_MASK;
        let missing = wanted.wrapping_sub(have) & PIECE_MASK;
        let take = if missing < left { missing } else { left } & PIECE_MASK;
        if !bytes.copy(self.pos, &mut self.head, have, take) {
            // Unreadable bytes: leave the chunk; the next call sees the gap and hunts.
            self.expected_seq = self.expected_seq.wrapping_sub(1);
            self.drop_call = 1;
            return false;
        }
        self.pos += take;
        self.have = have + take;
        if self.have >= wanted {
            self.have = 0;
            return true;
        }
        false
    }

    #[inline(always)]
    fn head_turn(&mut self, bytes: &impl CallBytes, left: u32) -> Turn {
        // Most packets are twenty bytes, head and null authinfo, or a head and its sample: take them in one piece when they
        // are here.
        let more = match (self.have, left) {
            (0, AND_SAMPLE..) => zab::TXN_SAMPLE_BYTES,
            (0, AND_COUNT..) => 4,
            _ => 0,
        };
        if !self.collect(bytes, left, zab::HEAD_BYTES + more) {
            // A reader of TLS takes the five bytes of a record's header alone.
            if self.trust == trust::HUNTING && self.have == TLS_HEADER && self.chunk_len == TLS_HEADER {
                return self.tls_hint();
            }
            return Turn::More;
        }
        self.pos -= more;
        let turn = self.head_done();
        if !matches!(turn, Turn::More) {
            return turn;
        }
        if more > 0 && self.phase == phase::AUTH_COUNT {
            self.pos += 4;
            let count = be32(&self.head, 16) as i32;
            return self.auth_count_done(count);
        }
        if more == zab::TXN_SAMPLE_BYTES && self.phase == phase::SAMPLE {
            self.pos += self.sample_bytes();
            self.have = 0;
            return self.sample_done();
        }
        turn
    }

    #[inline(always)]
    fn head_done(&mut self) -> Turn {
        let head = Head::read(&self.head);
        let locked = self.trust == trust::LOCKED;
        // The exchange opens a connection; anywhere else these bytes are payload.
        let opening = locked && (self.kind == 0 || self.kind == packet::SASL);
        if opening && head.kind == packet::SASL && be32(&self.head, 4) == packet::SASL_SECOND {
            return self.sasl_head(head.data_len);
        }
        if !head.is_believable(self.direction(), locked, self.epoch) {
            return self.bad_head(zab::HEAD_BYTES);
        }
        if self.after_snapshot == 1 && !head.follows_snapshot(self.epoch) {
            return self.bad_head(zab::HEAD_BYTES);
        }
        self.kind = head.kind;
        self.zxid = head.zxid;
        self.data_len = head.data_len;
        if head.sample_bytes() > 0 {
            self.phase = phase::SAMPLE;
            self.have = zab::HEAD_BYTES;
            return Turn::More;
        }
        self.head_believed(0)
    }

    #[inline(always)]
    fn direction(&self) -> Direction {
        if self.direction == Direction::Down as u32 { Direction::Down } else { Direction::Up }
    }

    /// Sets which way this stream flows.
    #[inline(always)]
    pub fn set_direction(&mut self, direction: Direction) {
        self.direction = direction as u32;
    }

    #[inline(always)]
    fn sample_done(&mut self) -> Turn {
        if self.is_transaction() {
            if be64(&self.head, 16 + 12) != self.zxid {
                return self.bad_head(zab::HEAD_BYTES + zab::TXN_SAMPLE_BYTES);
            }
            return self.head_believed(zab::TXN_SAMPLE_BYTES);
        }
        self.sid = be64(&self.head, 16) as i64;
        self.head_believed(zab::SID_SAMPLE_BYTES)
    }

    /// The head is believed; `sampled` bytes of the data are behind us.
    #[inline(always)]
    fn head_believed(&mut self, sampled: u32) -> Turn {
        self.after_snapshot = 0;
        if self.trust != trust::LOCKED && !self.link_chain() {
            return self.bad_head(0);
        }
        self.silent = (self.trust != trust::LOCKED) as u8;
        if self.trust == trust::LOCKED && self.wire == wire::UNKNOWN {
            self.wire = wire::PLAIN;
        }
        self.skip = if self.data_len > 0 { (self.data_len as u32).wrapping_sub(sampled) } else { 0 };
        self.phase = if self.skip > 0 { phase::DATA } else { phase::AUTH_COUNT };
        Turn::More
    }

    #[inline(always)]
    fn skip_turn(&mut self, left: u32) -> Turn {
        let take = if self.skip < left { self.skip } else { left };
        self.pos += take;
        self.skip -= take;
        if self.skip > 0 {
            return Turn::More;
        }
        if self.phase == phase::AUTH_TEXT {
            return self.auth_text_done();
        }
        self.phase = if self.kind == packet::SASL { phase::HEAD } else { phase::AUTH_COUNT };
        Turn::More
    }

    #[inline(always)]
    fn packet_done(&mut self) -> Turn {
        self.phase = phase::HEAD;
        if self.kind == packet::LEADERINFO {
            self.epoch = (self.zxid >> 32) as u32;
        }
        if self.kind == packet::SNAP {
            self.phase = phase::SNAPSHOT;
            self.signature = 0;
        }
        self.complete = (self.silent == 0) as u32;
        Turn::More
    }

    #[inline(always)]
    fn restart(&mut self) {
        self.phase = phase::HEAD;
        self.have = 0;
        self.after_snapshot = 0;
    }

    /// What was taken for a packet is none; the first `buffered` bytes of the copy buffer are its.
    #[inline(always)]
    fn bad_head(&mut self, buffered: u32) -> Turn {
        if self.after_snapshot == 1 {
            // The snapshot held the signature as data: read on.
            self.after_snapshot = 0;
            self.phase = phase::RESCAN;
            self.have = 0;
            self.rescan_at = 0;
            self.rescan_end = buffered;
            return Turn::More;
        }
        let was = self.trust;
        let at_head = self.phase == phase::HEAD && buffered == zab::HEAD_BYTES;
        if was == trust::HUNTING && at_head {
            return self.tls_hint();
        }
        if was == trust::LOCKED && at_head && self.wire == wire::UNKNOWN && zab::looks_like_tls(&self.head) {
            return self.tls(buffered);
        }
        self.lost()
    }

    /// The rest of the call is dropped, the hunt begins.
    #[inline(always)]
    fn lost(&mut self) -> Turn {
        let was = self.trust;
        self.trust = trust::HUNTING;
        self.drop_call = 1;
        if was == trust::LOCKED { Turn::Lost } else { Turn::Done }
    }
}

#[cfg(test)]
mod tests;
