//! The plainest decoder of a Zab stream: all of its bytes at hand, from the first one on.
//!
//! In: one direction of a connection. Out: its packets, and how it ends. Invariant: shares nothing with
//! [`crate::framer`] or [`crate::zab`] but the type of a direction; written from the protocol, with the limits that the
//! framer documents. Deliberately absent: calls, pieces, state.

use super::std::vec::Vec;
use crate::zab::Direction;

/// A packet; `end` is the offset after its last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) kind: u32,
    pub(super) zxid: u64,
    pub(super) end: usize,
}

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The bytes end, within a packet or behind one.
    Bytes,
    /// At something that no packet can have there.
    Illegal,
    /// It is none of ours.
    Tls,
}

/// What a decoder stops at.
enum Stop {
    NoMoreBytes,
    Illegal,
}

pub(super) struct Decoded {
    pub(super) packets: Vec<Packet>,
    pub(super) end: End,
}

/// Data that a kind of packet may have.
#[derive(Clone, Copy)]
enum Data {
    None,
    /// None, or entries of twelve bytes.
    Sessions,
    Length(i32, i32),
    Any,
}

const MOST: i32 = 256 << 20;
const MOST_OF_A_TOKEN: i32 = 1 << 20;
const SIGNATURE: &[u8] = b"\x00\x00\x00\x0aBenWasHere";

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    up: bool,
    /// As LEADERINFO told it.
    epoch: u64,
}

/// The packets of a stream.
pub(super) fn decode(bytes: &[u8], direction: Direction) -> Decoded {
    let mut reader = Reader { bytes, at: 0, up: direction == Direction::Up, epoch: 0 };
    let mut packets = Vec::new();
    let stop = match reader.opening() {
        Ok(()) => loop {
            match reader.packet() {
                Ok(packet) => {
                    packets.push(packet);
                    if packet.kind == 17 {
                        reader.epoch = packet.zxid >> 32;
                    }
                    if packet.kind == 15
                        && let Err(stop) = reader.snapshot()
                    {
                        break stop;
                    }
                }
                Err(stop) => break stop,
            }
        },
        Err(stop) => stop,
    };
    let end = match stop {
        Stop::NoMoreBytes => End::Bytes,
        Stop::Illegal if packets.is_empty() && reader.is_tls() => End::Tls,
        Stop::Illegal => End::Illegal,
    };
    Decoded { packets, end }
}

impl Reader<'_> {
    fn word(&self, at: usize) -> Result<u32, Stop> {
        let bytes = self.bytes.get(at..at + 4).ok_or(Stop::NoMoreBytes)?;
        Ok(bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte)))
    }

    fn long(&self, at: usize) -> Result<u64, Stop> {
        Ok(u64::from(self.word(at)?) << 32 | u64::from(self.word(at + 4)?))
    }

    /// A length, null as nothing, and what is behind that many bytes.
    fn beyond(&self, at: usize, length: i32) -> Result<usize, Stop> {
        let end = at + usize::try_from(length).unwrap_or(0);
        if end > self.bytes.len() { Err(Stop::NoMoreBytes) } else { Ok(end) }
    }

    /// Passes the SASL exchange.
    fn opening(&mut self) -> Result<(), Stop> {
        loop {
            let length = self.word(self.at + 12)? as i32;
            if self.long(self.at)? != 0x5f24_3501_3501_edcc {
                return Ok(());
            }
            if !(-1..=MOST_OF_A_TOKEN).contains(&length) {
                return Err(Stop::Illegal);
            }
            self.at = self.beyond(self.at + 16, length)?;
        }
    }

    /// A stream of which nothing was understood. Its first record tells.
    fn is_tls(&self) -> bool {
        self.at == 0 && matches!(self.bytes, [20..=23, 3, 0..=4, ..])
    }

    /// The packet that begins here.
    fn packet(&mut self) -> Result<Packet, Stop> {
        let (kind, data) = self.head(self.at)?;
        let zxid = self.long(self.at + 4)?;
        let mut at = self.beyond(data, self.word(data - 4)? as i32)?;
        let entries = self.word(at)? as i32;
        at += 4;
        if entries != -1 && entries != 0 {
            if kind != 1 || !(1..=64).contains(&entries) {
                return Err(Stop::Illegal);
            }
            for _text in 0..2 * entries {
                let length = self.word(at)? as i32;
                if !(-1..=1 << 16).contains(&length) {
                    return Err(Stop::Illegal);
                }
                at = self.beyond(at + 4, length)?;
            }
        }
        self.at = at;
        Ok(Packet { kind, zxid, end: at })
    }

    /// The kind of the packet whose head is there, and where its data begins.
    fn head(&self, at: usize) -> Result<(u32, usize), Stop> {
        let length = self.word(at + 12)? as i32;
        let (kind, zxid) = (self.word(at)?, self.long(at + 4)?);
        let epoch = zxid >> 32;
        let not_later = epoch != 0 && (self.epoch == 0 || epoch <= self.epoch);
        let now = epoch != 0 && (self.epoch == 0 || epoch == self.epoch);
        let (allowed, data) = match (kind, self.up) {
            (1, true) => (true, Data::Any),
            (2 | 8, false) => (true, Data::Length(32, MOST)),
            (3, true) | (4, false) => (not_later, Data::None),
            (5, true) => (true, Data::Sessions),
            (5 | 12..=15, false) => (true, Data::None),
            (6, _) | (7 | 9 | 19, false) => (true, Data::Any),
            (10, false) => (now && zxid as u32 == 0, Data::Any),
            (11 | 16, true) => (true, Data::Length(8, 64)),
            (17, false) | (18, true) => (true, Data::Length(4, 4)),
            _ => (false, Data::None),
        };
        let fits = match data {
            Data::None => length == -1 || length == 0,
            Data::Sessions => (-1..=MOST).contains(&length) && (length == -1 || length % 12 == 0),
            Data::Length(least, most) => (least..=most).contains(&length),
            Data::Any => (-1..=MOST).contains(&length),
        };
        if !allowed || !fits {
            return Err(Stop::Illegal);
        }
        // The header of a transaction has the zxid again; a learner's sid is read before the packet is believed.
        match kind {
            2 | 8 if self.long(at + 28)? != zxid => return Err(Stop::Illegal),
            11 | 16 => _ = self.long(at + 16)?,
            _ => {}
        }
        Ok((kind, at + 16))
    }

    /// Passes a snapshot: up to the first signature that is followed by what can follow a snapshot.
    fn snapshot(&mut self) -> Result<(), Stop> {
        loop {
            let rest = &self.bytes[self.at..];
            let before = rest.windows(SIGNATURE.len()).position(|bytes| bytes == SIGNATURE);
            self.at += before.ok_or(Stop::NoMoreBytes)? + SIGNATURE.len();
            let epoch = self.long(self.at + 4)? >> 32;
            match self.head(self.at) {
                Ok((2 | 8 | 10 | 19, _)) if self.epoch == 0 || epoch == self.epoch => return Ok(()),
                Err(Stop::NoMoreBytes) => return Err(Stop::NoMoreBytes),
                Ok(_) | Err(Stop::Illegal) => {}
            }
        }
    }
}
