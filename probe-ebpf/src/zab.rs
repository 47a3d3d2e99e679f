//! Zab packets in Apache ZooKeeper's wire format: the fixed head and what makes one believable.
//!
//! `QuorumPacket = i32 type | i64 zxid | i32 len + data | i32 n + n × {i32 len + scheme, i32 len + id}`,
//! big endian, -1 for null, no outer length (ZooKeeper: zookeeper.jute, server/quorum/Leader.java).
//! In: head bytes. Out: a [`Head`], or the verdict that these bytes are none. Invariant: total on any
//! bytes. Deliberately absent: anything that looks past the 20th byte of a packet's data.

/// Packet types (ZooKeeper: server/quorum/Leader.java).
pub mod packet {
    /// Learner to leader: a client's request.
    pub const REQUEST: u32 = 1;
    /// Leader to follower: a transaction to log and acknowledge.
    pub const PROPOSAL: u32 = 2;
    /// Follower to leader: the transaction is on disk.
    pub const ACK: u32 = 3;
    /// Leader to follower: the transaction has a quorum.
    pub const COMMIT: u32 = 4;
    /// Both ways, each half tick.
    pub const PING: u32 = 5;
    /// Both ways: is this session alive.
    pub const REVALIDATE: u32 = 6;
    /// Leader to learner: a sync request is through.
    pub const SYNC: u32 = 7;
    /// Leader to observer: a committed transaction.
    pub const INFORM: u32 = 8;
    /// Leader to follower: commit of a reconfiguration.
    pub const COMMITANDACTIVATE: u32 = 9;
    /// Leader to learner: the epoch and the membership.
    pub const NEWLEADER: u32 = 10;
    /// Follower to leader: who it is.
    pub const FOLLOWERINFO: u32 = 11;
    /// Leader to learner: it may serve clients.
    pub const UPTODATE: u32 = 12;
    /// Leader to learner: the missing proposals follow.
    pub const DIFF: u32 = 13;
    /// Leader to learner: forget what is after this zxid.
    pub const TRUNC: u32 = 14;
    /// Leader to learner: a raw snapshot follows.
    pub const SNAP: u32 = 15;
    /// Observer to leader: who it is.
    pub const OBSERVERINFO: u32 = 16;
    /// Leader to learner: the new epoch.
    pub const LEADERINFO: u32 = 17;
    /// Learner to leader: the epoch is accepted.
    pub const ACKEPOCH: u32 = 18;
    /// Leader to observer: commit of a reconfiguration.
    pub const INFORMANDACTIVATE: u32 = 19;
    /// Not a packet type: the first word of a `QuorumAuthPacket`
    /// (`QuorumAuth.QUORUM_AUTH_MAGIC_NUMBER`), whose head has the same sixteen bytes.
    pub const SASL: u32 = 0x5f24_3501;
    /// The second word of that magic number.
    pub const SASL_SECOND: u32 = 0x3501_edcc;
}

/// Which way a stream flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Direction {
    /// Leader to learner.
    Down = 0,
    /// Learner to leader.
    Up = 1,
}

/// Bytes of the fixed head: type, zxid, data length.
pub const HEAD_BYTES: u32 = 16;
/// Data bytes of a PROPOSAL or INFORM that are looked at: `i64 client | i32 cxid | i64 zxid`, the start
/// of its TxnHeader.
pub const TXN_SAMPLE_BYTES: u32 = 20;
/// Data bytes of FOLLOWERINFO and OBSERVERINFO that are looked at: `i64 sid`.
pub const SID_SAMPLE_BYTES: u32 = 8;
/// A TxnHeader is `client, cxid, zxid, time, type`: 32 bytes, so no PROPOSAL has less data.
const TXN_HEADER_BYTES: i32 = 32;
/// Largest data believed while hunting: `jute.maxbuffer` (1,048,575) plus as much again.
pub const HUNTING_DATA_LIMIT: i32 = 2 * 1_048_576;
/// Largest data believed in a stream whose framing is known: generous, for a raised `jute.maxbuffer`.
const LOCKED_DATA_LIMIT: i32 = 256 << 20;
/// Authentication entries believed in a REQUEST; ZooKeeper sends one for each scheme of the client.
pub const AUTH_LIMIT: i32 = 64;
/// Longest believed scheme or id of an authentication entry.
pub const AUTH_TEXT_LIMIT: i32 = 1 << 16;

/// The fixed head of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// One of [`packet`].
    pub kind: u32,
    /// Transaction id: epoch in the upper half, counter in the lower.
    pub zxid: u64,
    /// Length of the data, -1 for null.
    pub data_len: i32,
}

/// Big-endian u32 at `at`; the caller's constant keeps it inside.
#[inline(always)]
#[must_use]
pub fn be32<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    ((bytes[at] as u32) << 24)
        | ((bytes[at + 1] as u32) << 16)
        | ((bytes[at + 2] as u32) << 8)
        | bytes[at + 3] as u32
}

/// Big-endian u64 at `at`.
#[inline(always)]
#[must_use]
pub fn be64<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    ((be32(bytes, at) as u64) << 32) | be32(bytes, at + 4) as u64
}

/// Do the first bytes of a stream begin a TLS record (RFC 8446, 5.1: content type 20 to 23, version 3.x)?
#[inline(always)]
#[must_use]
pub fn looks_like_tls<const N: usize>(head: &[u8; N]) -> bool {
    head[0] >= 0x14 && head[0] <= 0x17 && head[1] == 3 && head[2] <= 4
}

impl Head {
    /// Reads the fixed head from the first sixteen bytes.
    #[inline(always)]
    #[must_use]
    pub fn read<const N: usize>(bytes: &[u8; N]) -> Self {
        Self { kind: be32(bytes, 0), zxid: be64(bytes, 4), data_len: be32(bytes, 12) as i32 }
    }

    /// May a packet in `direction` have this head? `locked` tells whether the framing is certain, which
    /// allows larger data, replayed epochs and a join; `epoch` is the epoch of the link when known, else 0.
    #[inline(always)]
    #[must_use]
    pub fn is_believable(&self, direction: Direction, locked: bool, epoch: u32) -> bool {
        let limit = if locked { LOCKED_DATA_LIMIT } else { HUNTING_DATA_LIMIT };
        if self.data_len < -1 || self.data_len > limit {
            return false;
        }
        if !is_sent_in(self.kind, direction) {
            return false;
        }
        if !locked && !self.is_anchor(epoch) {
            return false;
        }
        let at = (self.zxid >> 32) as u32;
        match self.kind {
            // Replayed proposals of earlier epochs are acknowledged after UPTODATE.
            packet::ACK | packet::COMMIT => self.data_len <= 0 && at != 0 && (epoch == 0 || at <= epoch),
            packet::UPTODATE => self.data_len <= 0,
            packet::DIFF | packet::TRUNC | packet::SNAP => self.data_len <= 0,
            // `ZxidUtils.makeZxid(newEpoch, 0)`.
            packet::NEWLEADER => at != 0 && (epoch == 0 || at == epoch) && self.zxid as u32 == 0,
            // Proposals of earlier epochs are replayed after DIFF: the twin zxid is their check.
            packet::PROPOSAL | packet::INFORM => self.data_len >= TXN_HEADER_BYTES,
            packet::PING if direction as u8 == Direction::Down as u8 => self.data_len <= 0,
            packet::PING => self.data_len <= 0 || self.data_len % 12 == 0,
            packet::LEADERINFO | packet::ACKEPOCH => self.data_len == 4,
            // `LearnerInfo {sid, protocolVersion, configVersion}`: 12 bytes before 3.5, 20 since.
            packet::FOLLOWERINFO | packet::OBSERVERINFO => self.data_len >= 8 && self.data_len <= 64,
            _ => true,
        }
    }

    /// May the framing of a stream met in the middle rest on this head? Only what a running link sends,
    /// with the zxids that ZooKeeper gives it (Leader.java, Learner.java, LearnerHandler.java).
    #[inline(always)]
    fn is_anchor(&self, epoch: u32) -> bool {
        let at = (self.zxid >> 32) as u32;
        let here = at != 0 && (epoch == 0 || at == epoch);
        match self.kind {
            packet::ACK | packet::COMMIT | packet::PING | packet::NEWLEADER => here,
            packet::PROPOSAL | packet::INFORM => here && self.zxid as u32 != 0,
            packet::COMMITANDACTIVATE | packet::INFORMANDACTIVATE => here && self.data_len >= 8,
            // {i64 session, i32 cxid, i32 type} begins every REQUEST.
            packet::REQUEST => self.zxid == u64::MAX && self.data_len >= 16,
            // {i64 session, i32 timeout} up, {i64 session, u8 valid} down.
            packet::REVALIDATE => self.zxid == u64::MAX && self.data_len >= 8 && self.data_len <= 16,
            packet::UPTODATE => self.zxid == u64::MAX,
            packet::SYNC => self.zxid == 0 && self.data_len <= 0,
            _ => false, // the packets of a join stand at the start of a connection, which is known
        }
    }

    /// May this packet be the first after a snapshot? NEWLEADER, or what the leader of `epoch` proposed
    /// while it serialised (`LearnerMaster.startForwarding` runs before the snapshot is written).
    #[inline(always)]
    #[must_use]
    pub fn follows_snapshot(&self, epoch: u32) -> bool {
        (epoch == 0 || (self.zxid >> 32) as u32 == epoch)
            && matches!(
                self.kind,
                packet::NEWLEADER | packet::PROPOSAL | packet::INFORM | packet::INFORMANDACTIVATE
            )
    }

    /// How many data bytes of this packet are looked at.
    #[inline(always)]
    #[must_use]
    pub fn sample_bytes(&self) -> u32 {
        match self.kind {
            packet::PROPOSAL | packet::INFORM => TXN_SAMPLE_BYTES,
            packet::FOLLOWERINFO | packet::OBSERVERINFO => SID_SAMPLE_BYTES,
            _ => 0,
        }
    }
}

/// Which packets each side sends.
#[inline(always)]
fn is_sent_in(kind: u32, direction: Direction) -> bool {
    const DOWN: u32 = 1 << packet::PROPOSAL
        | 1 << packet::COMMIT
        | 1 << packet::PING
        | 1 << packet::REVALIDATE
        | 1 << packet::SYNC
        | 1 << packet::INFORM
        | 1 << packet::COMMITANDACTIVATE
        | 1 << packet::NEWLEADER
        | 1 << packet::UPTODATE
        | 1 << packet::DIFF
        | 1 << packet::TRUNC
        | 1 << packet::SNAP
        | 1 << packet::LEADERINFO
        | 1 << packet::INFORMANDACTIVATE;
    const UP: u32 = 1 << packet::REQUEST
        | 1 << packet::ACK
        | 1 << packet::PING
        | 1 << packet::REVALIDATE
        | 1 << packet::FOLLOWERINFO
        | 1 << packet::OBSERVERINFO
        | 1 << packet::ACKEPOCH;
    let allowed = if direction as u8 == Direction::Down as u8 { DOWN } else { UP };
    kind < 32 && (allowed >> (kind & 31)) & 1 == 1
}
