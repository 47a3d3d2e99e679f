//! True streams for the tests: packets as ZooKeeper writes them, and the calls in which Java's buffered
//! streams hand them to the kernel.
//!
//! In: what to say. Out: bytes, the ends of calls, and by a plain parser of its own the packets that a
//! framer must find. Deliberately absent: anything of [`crate::framer`].

extern crate std;
mod calls;
mod payload;
pub(crate) mod script;
pub(crate) mod timeline;

pub(crate) use calls::{cut, java_reads, java_writes};
pub(crate) use payload::Filler;
use std::ops::Range;
use std::vec::Vec;

/// A small generator, so that a whole stream hangs on one seed (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            out.extend_from_slice(&self.next().to_be_bytes());
        }
        out.truncate(len);
        out
    }
}

/// A packet on the wire; `end` is the offset after its last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) kind: u32,
    pub(crate) zxid: u64,
    pub(crate) sid: i64,
    pub(crate) begin: usize,
    pub(crate) end: usize,
}

/// One direction of a connection, with every `write()` that Java's serialiser makes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wire {
    pub(crate) bytes: Vec<u8>,
    /// Lengths of the writes, in order.
    pub(crate) fields: Vec<usize>,
    /// Indices into `fields` before which the stream was flushed.
    pub(crate) flushes: Vec<usize>,
    /// What is no packet: snapshots with their signature, SASL tokens.
    pub(crate) raw: Vec<Range<usize>>,
}

/// A buffer that may be null.
pub(crate) type Data<'a> = Option<&'a [u8]>;

impl Wire {
    pub(crate) fn field(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.bytes.extend_from_slice(bytes);
            self.fields.push(bytes.len());
        }
    }

    fn buffer(&mut self, data: Data<'_>) {
        match data {
            None => self.field(&(-1_i32).to_be_bytes()),
            Some(d) => {
                self.field(&(d.len() as i32).to_be_bytes());
                self.field(d);
            }
        }
    }

    /// A QuorumPacket; `auth` is its authinfo, scheme and id.
    pub(crate) fn packet(
        &mut self,
        kind: u32,
        zxid: u64,
        data: Data<'_>,
        auth: Option<&[(Vec<u8>, Vec<u8>)]>,
    ) {
        self.field(&kind.to_be_bytes());
        self.field(&zxid.to_be_bytes());
        self.buffer(data);
        match auth {
            None => self.field(&(-1_i32).to_be_bytes()),
            Some(ids) => {
                self.field(&(ids.len() as i32).to_be_bytes());
                for (scheme, id) in ids {
                    self.buffer(Some(scheme));
                    self.buffer(Some(id));
                }
            }
        }
    }

    /// A packet without data or authinfo.
    pub(crate) fn bare(&mut self, kind: u32, zxid: u64) {
        self.packet(kind, zxid, None, None);
    }

    /// A token of the SASL exchange: `i64 magic | i32 status | buffer`.
    pub(crate) fn sasl(&mut self, status: i32, token: Data<'_>) {
        let begin = self.bytes.len();
        self.field(&0x5f24_3501_3501_edcc_u64.to_be_bytes());
        self.field(&status.to_be_bytes());
        self.buffer(token);
        self.raw.push(begin..self.bytes.len());
        self.flush();
    }

    /// A snapshot and its signature, written in fields of at most `piece` bytes.
    pub(crate) fn snapshot(&mut self, body: &[u8], piece: usize) {
        let begin = self.bytes.len();
        for part in body.chunks(piece.max(1)) {
            self.field(part);
        }
        self.buffer(Some(b"BenWasHere"));
        self.raw.push(begin..self.bytes.len());
        self.flush();
    }

    pub(crate) fn flush(&mut self) {
        self.flushes.push(self.fields.len());
    }

    /// The packets of this stream, found by plain parsing.
    pub(crate) fn packets(&self) -> Vec<Seen> {
        let mut at = 0;
        let mut found = Vec::new();
        while at < self.bytes.len() {
            if let Some(raw) = self.raw.iter().find(|r| r.start == at) {
                at = raw.end;
                continue;
            }
            let begin = at;
            let kind = self.int(&mut at) as u32;
            let zxid = (u64::from(self.int(&mut at) as u32) << 32) | u64::from(self.int(&mut at) as u32);
            let len = self.int(&mut at).max(0) as usize;
            let mut sid = 0;
            if kind == 11 || kind == 16 {
                sid = i64::from_be_bytes(self.bytes[at..at + 8].try_into().expect("eight"));
            }
            at += len;
            for _ in 0..self.int(&mut at).max(0) * 2 {
                at += self.int(&mut at).max(0) as usize;
            }
            found.push(Seen { kind, zxid, sid, begin, end: at });
        }
        assert_eq!(at, self.bytes.len());
        found
    }

    fn int(&self, at: &mut usize) -> i32 {
        let value = i32::from_be_bytes(self.bytes[*at..*at + 4].try_into().expect("four"));
        *at += 4;
        value
    }
}

/// Data of a PROPOSAL or INFORM of `len` bytes: a TxnHeader and a payload.
pub(crate) fn txn(zxid: u64, client: u64, payload: &[u8]) -> Vec<u8> {
    let mut data = Vec::with_capacity(32 + payload.len());
    data.extend_from_slice(&client.to_be_bytes());
    data.extend_from_slice(&7_i32.to_be_bytes());
    data.extend_from_slice(&zxid.to_be_bytes());
    data.extend_from_slice(&1_700_000_000_000_u64.to_be_bytes());
    data.extend_from_slice(&5_i32.to_be_bytes());
    data.extend_from_slice(payload);
    data
}
