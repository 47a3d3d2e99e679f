//! Quorum packets out of an ordered byte stream, strictly: from the first byte of the connection, one
//! after the other; anything else is an error. A connection that was met in its middle is decoded from its first
//! packet on that cannot be anything else. Written for clarity, run after the fact.

use anyhow::{Result, bail, ensure};

// Packet types (Leader.java).
pub(crate) const PROPOSAL: i32 = 2;
pub(crate) const ACK: i32 = 3;
pub(super) const INFORM: i32 = 8;
pub(super) const FOLLOWER_INFO: i32 = 11;
pub(super) const UP_TO_DATE: i32 = 12;
pub(super) const DIFF: i32 = 13;
pub(super) const TRUNC: i32 = 14;
pub(super) const SNAP: i32 = 15;
pub(super) const OBSERVER_INFO: i32 = 16;
const LAST_TYPE: i32 = 19;

/// What of a PROPOSAL says that it is one: type, zxid, length of the data, and the head of its transaction up to the
/// zxid that stands there once more (`TxnHeader`).
const PROPOSAL_HEAD: usize = 36;
/// Where that second zxid stands.
const TWIN: usize = 28;
/// A whole ACK, without data and without ids.
const BARE: usize = 20;

/// QuorumAuth.QUORUM_AUTH_MAGIC_NUMBER
const AUTH_MAGIC: [u8; 8] = 0x5f24_3501_3501_edcc_u64.to_be_bytes();
/// The end of a snapshot, behind its length (FileSnap).
const SNAPSHOT_END: &[u8] = b"\0\0\0\x0aBenWasHere";
/// No payload of these tests comes near.
const LONGEST: usize = 16 << 20;

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) kind: i32,
    pub(crate) zxid: u64,
    pub(crate) data: Vec<u8>,
    /// When the segment with its last byte passed.
    pub(crate) at_ns: u64,
}

/// What the bytes at the front of the stream belong to.
#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// Whatever goes before the first packet that is certainly one.
    Middle,
    /// Packets, with SASL tokens before the first.
    Packets,
    /// The raw stream behind SNAP.
    Snapshot,
}

/// Decodes one direction.
#[derive(Debug)]
pub(crate) struct Decoder {
    bytes: Vec<u8>,
    phase: Phase,
    /// SASL tokens seen.
    pub(super) tokens: u32,
    packets: u64,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::new(), phase: Phase::Packets, tokens: 0, packets: 0 }
    }

    /// For a direction whose first bytes belong to whatever came before.
    pub(super) fn from_the_middle() -> Self {
        Self { phase: Phase::Middle, ..Self::new() }
    }

    /// Takes the bytes of one segment and gives the packets that end in it.
    pub(crate) fn take(&mut self, at_ns: u64, bytes: &[u8]) -> Result<Vec<Packet>> {
        self.bytes.extend_from_slice(bytes);
        let mut packets = Vec::new();
        while let Some(used) = self.step(at_ns, &mut packets)? {
            self.bytes.drain(..used);
        }
        Ok(packets)
    }

    /// One packet, token or piece of a snapshot: how many bytes it took, or none if more are needed.
    fn step(&mut self, at_ns: u64, packets: &mut Vec<Packet>) -> Result<Option<usize>> {
        if self.phase == Phase::Middle {
            let begin = (0..self.bytes.len()).find(|at| is_certain(&self.bytes[*at..]));
            if let Some(begin) = begin {
                self.phase = Phase::Packets;
                return Ok(Some(begin));
            }
            // Keep what may be the beginning of one.
            let spare = self.bytes.len().saturating_sub(PROPOSAL_HEAD - 1);
            self.bytes.drain(..spare);
            return Ok(None);
        }
        if self.phase == Phase::Snapshot {
            let end = self.bytes.windows(SNAPSHOT_END.len()).position(|window| window == SNAPSHOT_END);
            if let Some(end) = end {
                self.phase = Phase::Packets;
                return Ok(Some(end + SNAPSHOT_END.len()));
            }
            // Keep what may be the beginning of the end.
            let spare = self.bytes.len().saturating_sub(SNAPSHOT_END.len() - 1);
            self.bytes.drain(..spare);
            return Ok(None);
        }
        if self.packets == 0 && self.bytes.starts_with(&AUTH_MAGIC) {
            let mut reader = Reader { bytes: &self.bytes, at: AUTH_MAGIC.len() + 4 };
            let Some(_token) = reader.buffer()? else {
                return Ok(None);
            };
            self.tokens += 1;
            return Ok(Some(reader.at));
        }
        if self.packets == 0 && AUTH_MAGIC.starts_with(&self.bytes) {
            return Ok(None);
        }
        let Some((packet, used)) = parse(&self.bytes, at_ns)? else {
            return Ok(None);
        };
        if packet.kind == SNAP {
            self.phase = Phase::Snapshot;
        }
        self.packets += 1;
        packets.push(packet);
        Ok(Some(used))
    }
}

/// Does a PROPOSAL or an ACK begin here, beyond doubt? Nobody writes a zxid twice, or one before eight bytes of ones,
/// into these tests' payloads.
fn is_certain(bytes: &[u8]) -> bool {
    let number = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let kind = bytes.first_chunk().map(|kind| i32::from_be_bytes(*kind));
    let zxid = number(4).filter(|zxid| zxid >> 32 != 0);
    match kind {
        Some(PROPOSAL) => zxid.is_some() && number(TWIN) == zxid,
        Some(ACK) => zxid.is_some() && bytes.get(BARE - 8..BARE) == Some(&[0xff; 8]),
        _ => false,
    }
}

/// The packet at the front, and how long it is.
fn parse(bytes: &[u8], at_ns: u64) -> Result<Option<(Packet, usize)>> {
    let mut reader = Reader { bytes, at: 0 };
    let Some(kind) = reader.i32() else { return Ok(None) };
    ensure!((1..=LAST_TYPE).contains(&kind), "a packet of type {kind}");
    let Some(zxid) = reader.u64() else { return Ok(None) };
    let Some(data) = reader.buffer()? else {
        return Ok(None);
    };
    let data = data.to_vec();
    let Some(ids) = reader.i32() else { return Ok(None) };
    for _ in 0..ids.max(0) {
        // Scheme and id.
        for _ in 0..2 {
            if reader.buffer()?.is_none() {
                return Ok(None);
            }
        }
    }
    Ok(Some((Packet { kind, zxid, data, at_ns }, reader.at)))
}

/// Reads jute from a slice; `None` means that the slice ends too early.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let array = self.bytes.get(self.at..self.at + N)?.try_into().ok()?;
        self.at += N;
        Some(array)
    }

    fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A buffer behind its length, where -1 means none.
    fn buffer(&mut self) -> Result<Option<&'a [u8]>> {
        let Some(length) = self.i32() else { return Ok(None) };
        if length < -1 {
            bail!("a buffer of length {length}");
        }
        let length = usize::try_from(length).unwrap_or(0);
        ensure!(length <= LONGEST, "a buffer of {length} bytes");
        let Some(buffer) = self.bytes.get(self.at..self.at + length) else {
            return Ok(None);
        };
        self.at += length;
        Ok(Some(buffer))
    }
}

#[cfg(test)]
mod tests {
    use super::{ACK, AUTH_MAGIC, Decoder, PROPOSAL, SNAP, SNAPSHOT_END};

    fn packet(kind: i32, zxid: u64, data: Option<&[u8]>, ids: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes = Vec::from(kind.to_be_bytes());
        bytes.extend(zxid.to_be_bytes());
        let length = data.map_or(-1, |data| i32::try_from(data.len()).unwrap_or(0));
        bytes.extend(length.to_be_bytes());
        bytes.extend(data.unwrap_or_default());
        let count = if ids.is_empty() { -1 } else { i32::try_from(ids.len()).unwrap_or(0) };
        bytes.extend(count.to_be_bytes());
        for (scheme, id) in ids {
            for text in [scheme, id] {
                bytes.extend(i32::try_from(text.len()).unwrap_or(0).to_be_bytes());
                bytes.extend(text.as_bytes());
            }
        }
        bytes
    }

    fn stream() -> Vec<u8> {
        let mut bytes = Vec::from(AUTH_MAGIC);
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3]);
        bytes.extend(packet(ACK, 7, None, &[]));
        bytes.extend(packet(SNAP, 8, None, &[]));
        bytes.extend(b"anything, BenWas, ");
        bytes.extend(SNAPSHOT_END);
        bytes.extend(packet(PROPOSAL, 9, Some(b"payload"), &[("ip", "127.0.0.1"), ("x", "y")]));
        bytes
    }

    #[test]
    fn any_split_gives_the_same_packets() -> anyhow::Result<()> {
        let bytes = stream();
        let expected = [(ACK, 7), (SNAP, 8), (PROPOSAL, 9)];
        for step in 1..=bytes.len() {
            let mut decoder = Decoder::new();
            let mut seen = Vec::new();
            for (time, chunk) in bytes.chunks(step).enumerate() {
                let time = u64::try_from(time)?;
                seen.extend(decoder.take(time, chunk)?);
            }
            let kinds: Vec<(i32, u64)> = seen.iter().map(|packet| (packet.kind, packet.zxid)).collect();
            assert_eq!(kinds, expected, "in steps of {step}");
            assert_eq!(decoder.tokens, 1);
            let last = u64::try_from(bytes.chunks(step).len() - 1)?;
            assert_eq!(seen[2].at_ns, last, "the last packet ends in the last segment");
            assert_eq!(seen[2].data, b"payload");
        }
        Ok(())
    }

    #[test]
    fn from_the_middle_on_any_split_gives_what_follows() -> anyhow::Result<()> {
        let zxid = 0x1_0000_0009;
        let data = [&[7; 12][..], &u64::to_be_bytes(zxid), b"..."].concat();
        let proposal = packet(PROPOSAL, zxid, Some(&data), &[]);
        // A proposal whose zxid does not stand in its data a second time could be anything.
        let unlike = packet(PROPOSAL, zxid, Some(&[7; 40]), &[]);
        let bytes = [&unlike[..], &proposal[17..], &proposal, &packet(ACK, zxid, None, &[])].concat();
        for step in 1..=bytes.len() {
            let mut decoder = Decoder::from_the_middle();
            let mut seen = Vec::new();
            for chunk in bytes.chunks(step) {
                seen.extend(decoder.take(0, chunk)?);
            }
            let kinds: Vec<(i32, u64)> = seen.iter().map(|packet| (packet.kind, packet.zxid)).collect();
            assert_eq!(kinds, [(PROPOSAL, zxid), (ACK, zxid)], "in steps of {step}");
        }
        Ok(())
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(Decoder::new().take(0, b"GET / HTTP/1.1\r\n").is_err());
    }
}
