//! Packets of the quorum port, laid down byte by byte and found again in any split of the stream.
//!
//! In: zxids, or bytes as they come. Out: bytes, or [`Head`]s of complete packets. Invariant: a packet is told when
//! its last byte is there, once. Deliberately absent: anything of the probe's own framing, which is judged by this.

use anyhow::{Result, ensure};

/// Packet types (org.apache.zookeeper.server.quorum.Leader).
pub mod kind {
    /// A transaction to be logged.
    pub const PROPOSAL: u32 = 2;
    /// It is logged.
    pub const ACK: u32 = 3;
    /// Heartbeat.
    pub const PING: u32 = 5;
    /// The leader's state begins.
    pub const NEWLEADER: u32 = 10;
    /// First packet of a follower.
    pub const FOLLOWERINFO: u32 = 11;
    /// The follower may serve.
    pub const UPTODATE: u32 = 12;
    /// The follower's log needs additions at most.
    pub const DIFF: u32 = 13;
    /// The leader's answer to a follower.
    pub const LEADERINFO: u32 = 17;
    /// The follower accepts the epoch.
    pub const ACKEPOCH: u32 = 18;
}

/// Type, zxid and length of the data.
const HEAD_BYTES: usize = 16;
/// Behind the data: the length of the authinfo vector, here always -1.
const TAIL_BYTES: usize = 4;
const NULL: [u8; 4] = [0xff; 4];
/// A transaction's own head: session, cxid, zxid, time, type.
pub const TXN_HEAD_BYTES: usize = 32;
/// Where the zxid stands in a packet, and where its transaction says it again.
const ZXID_AT: usize = 4;
const ZXID_AGAIN_AT: usize = HEAD_BYTES + 12;
/// The protocol's version as both ends state it.
const VERSION: [u8; 4] = [0, 1, 0, 0];
const SET_DATA: u32 = 5;

/// A packet without data, as an ACK, or with some.
pub fn packet(kind: u32, zxid: u64, data: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + TAIL_BYTES + data.map_or(0, <[u8]>::len));
    bytes.extend(kind.to_be_bytes());
    bytes.extend(zxid.to_be_bytes());
    match data {
        None => bytes.extend(NULL),
        Some(data) => {
            bytes.extend(u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend(data);
        }
    }
    bytes.extend(NULL);
    bytes
}

/// FOLLOWERINFO of a server.
pub fn follower_info(sid: u64) -> Vec<u8> {
    let data = [&sid.to_be_bytes()[..], &VERSION, &[0; 8]].concat();
    packet(kind::FOLLOWERINFO, 0, Some(&data))
}

/// LEADERINFO of an epoch.
pub fn leader_info(epoch: u32) -> Vec<u8> {
    packet(kind::LEADERINFO, zxid(epoch, 0), Some(&VERSION))
}

/// ACKEPOCH of a server whose log is empty.
pub fn ack_epoch() -> Vec<u8> {
    packet(kind::ACKEPOCH, 0, Some(&[0; 4]))
}

/// A PROPOSAL of a transaction with so many bytes behind its head; its zxid is filled in by [`stamp`].
pub fn proposal(bytes: usize) -> Vec<u8> {
    let mut txn = vec![b'v'; TXN_HEAD_BYTES + bytes];
    txn[..TXN_HEAD_BYTES - 4].fill(0);
    txn[TXN_HEAD_BYTES - 4..TXN_HEAD_BYTES].copy_from_slice(&SET_DATA.to_be_bytes());
    packet(kind::PROPOSAL, 0, Some(&txn))
}

/// Writes the zxid into both places of a [`proposal`].
pub fn stamp(proposal: &mut [u8], zxid: u64) {
    for at in [ZXID_AT, ZXID_AGAIN_AT] {
        proposal[at..at + 8].copy_from_slice(&zxid.to_be_bytes());
    }
}

/// A zxid of its halves.
pub fn zxid(epoch: u32, counter: u32) -> u64 {
    u64::from(epoch) << 32 | u64::from(counter)
}

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// One of [`kind`].
    pub kind: u32,
    /// Its zxid.
    pub zxid: u64,
}

/// Where a stream stands.
#[derive(Debug, Default)]
pub struct Deframer {
    head: [u8; HEAD_BYTES],
    have: usize,
    /// Bytes of the packet behind its head that are still to come.
    rest: usize,
}

impl Deframer {
    /// Takes the next bytes and tells of each packet that they complete.
    pub fn feed(&mut self, mut bytes: &[u8], mut on: impl FnMut(Head) -> Result<()>) -> Result<()> {
        while !bytes.is_empty() {
            if self.have < HEAD_BYTES {
                let (now, later) = bytes.split_at(bytes.len().min(HEAD_BYTES - self.have));
                self.head[self.have..self.have + now.len()].copy_from_slice(now);
                self.have += now.len();
                bytes = later;
                if self.have == HEAD_BYTES {
                    self.rest = self.data_bytes()? + TAIL_BYTES;
                }
                continue;
            }
            let now = bytes.len().min(self.rest);
            self.rest -= now;
            bytes = &bytes[now..];
            if self.rest == 0 {
                self.have = 0;
                on(self.told())?;
            }
        }
        Ok(())
    }

    fn word(&self, at: usize) -> u32 {
        let mut word = [0; 4];
        word.copy_from_slice(&self.head[at..at + 4]);
        u32::from_be_bytes(word)
    }

    fn data_bytes(&self) -> Result<usize> {
        let (kind, bytes) = (self.word(0), self.word(HEAD_BYTES - 4));
        ensure!(kind <= 20, "the generator itself is out of step: a packet of type {kind}");
        Ok(if bytes == u32::MAX { 0 } else { usize::try_from(bytes)? })
    }

    fn told(&self) -> Head {
        Head { kind: self.word(0), zxid: u64::from(self.word(4)) << 32 | u64::from(self.word(8)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_look_as_they_do_on_a_captured_wire() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let ack = packet(kind::ACK, 0x1_0000_c709, None);
        assert_eq!(hex(&ack), "00000003000000010000c709ffffffffffffffff");
        assert_eq!(
            hex(&follower_info(2)),
            "0000000b000000000000000000000014000000000000000200010000000000000000\
             0000ffffffff"
        );
        let mut smallest = proposal(0);
        stamp(&mut smallest, 0x1_0000_0007);
        assert_eq!(smallest.len(), 52);
        assert_eq!(smallest[4..12], smallest[28..36]);
    }

    #[test]
    fn any_split_gives_the_same_packets() -> Result<()> {
        let mut large = proposal(3000);
        stamp(&mut large, 9);
        let stream = [packet(kind::PING, 5, None), large, packet(kind::ACK, 9, None)].concat();
        let expected = [(kind::PING, 5), (kind::PROPOSAL, 9), (kind::ACK, 9)];
        for size in [1, 7, 16, 24, 4096] {
            let (mut deframer, mut found) = (Deframer::default(), Vec::new());
            for part in stream.chunks(size) {
                deframer.feed(part, |head| {
                    found.push((head.kind, head.zxid));
                    Ok(())
                })?;
            }
            assert_eq!(found, expected, "in parts of {size}");
        }
        Ok(())
    }
}
