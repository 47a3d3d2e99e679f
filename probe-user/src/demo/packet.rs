//! The packets that servers exchange: values only, built by name.
//!
//! In: zxids, epochs, sids, bodies; out: `Packet`s whose bodies are laid out as ZooKeeper lays them out.
//! Invariant: a proposal states its zxid twice, in its head and in its transaction. Deliberately not
//! here: how a packet becomes bytes and who sends it when.

use bytes::{BufMut as _, Bytes, BytesMut};

/// Protocol version that learner and leader state to each other.
const PROTOCOL_VERSION: i32 = 0x1_0000;
/// Transaction type `setData`.
const SET_DATA: i32 = 5;
/// Version of the tree digest that follows a transaction.
const DIGEST_VERSION: i32 = 2;

/// What a packet is for; the numbers are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Kind {
    /// A client's write, passed on to the leader.
    Request = 1,
    /// A transaction to be logged.
    Proposal = 2,
    /// It is logged.
    Ack = 3,
    /// A quorum has logged it.
    Commit = 4,
    /// Heartbeat, both ways.
    Ping = 5,
    /// The leader's state begins.
    NewLeader = 10,
    /// First packet of a follower.
    FollowerInfo = 11,
    /// The follower may serve.
    UpToDate = 12,
    /// The follower's log needs at most additions.
    Diff = 13,
    /// The leader's answer to `FollowerInfo`.
    LeaderInfo = 17,
    /// The follower accepts the epoch.
    AckEpoch = 18,
}

impl Kind {
    /// The kind of this number.
    pub(crate) fn from_wire(number: i32) -> Option<Self> {
        Some(match number {
            1 => Self::Request,
            2 => Self::Proposal,
            3 => Self::Ack,
            4 => Self::Commit,
            5 => Self::Ping,
            10 => Self::NewLeader,
            11 => Self::FollowerInfo,
            12 => Self::UpToDate,
            13 => Self::Diff,
            17 => Self::LeaderInfo,
            18 => Self::AckEpoch,
            _ => return None,
        })
    }
}

/// One entry of a packet's authinfo vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuthEntry {
    /// `ip`, `digest`, …
    pub(crate) scheme: Bytes,
    /// Who, in that scheme.
    pub(crate) id: Bytes,
}

/// A QuorumPacket. `None` is jute's null (length −1), which differs from empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    /// What it is for.
    pub(crate) kind: Kind,
    /// Epoch in the upper, counter in the lower half.
    pub(crate) zxid: u64,
    /// The body.
    pub(crate) data: Option<Bytes>,
    /// On whose behalf.
    pub(crate) auth: Option<Vec<AuthEntry>>,
}

impl Packet {
    fn bare(kind: Kind, zxid: u64) -> Self {
        Self { kind, zxid, data: None, auth: None }
    }

    fn with_data(kind: Kind, zxid: u64, data: Bytes) -> Self {
        Self { kind, zxid, data: Some(data), auth: None }
    }

    /// A follower introduces itself.
    pub(crate) fn follower_info(accepted_epoch: u32, sid: u64) -> Self {
        let mut data = BytesMut::with_capacity(20);
        data.put_u64(sid);
        data.put_i32(PROTOCOL_VERSION);
        data.put_i64(0); // version of the configuration
        Self::with_data(Kind::FollowerInfo, zxid(accepted_epoch, 0), data.freeze())
    }

    /// The leader states its epoch.
    pub(crate) fn leader_info(epoch: u32) -> Self {
        let data = Bytes::copy_from_slice(&PROTOCOL_VERSION.to_be_bytes());
        Self::with_data(Kind::LeaderInfo, zxid(epoch, 0), data)
    }

    /// The follower accepts the epoch and says how far its log goes.
    pub(crate) fn ack_epoch(last_logged: u64, current_epoch: u32) -> Self {
        let data = Bytes::copy_from_slice(&current_epoch.to_be_bytes());
        Self::with_data(Kind::AckEpoch, last_logged, data)
    }

    /// The follower's log needs at most additions.
    pub(crate) fn diff(last_committed: u64) -> Self {
        Self::bare(Kind::Diff, last_committed)
    }

    /// The leader's state begins; `members` is the list of servers as text.
    pub(crate) fn new_leader(epoch: u32, members: &str) -> Self {
        Self::with_data(Kind::NewLeader, zxid(epoch, 0), Bytes::copy_from_slice(members.as_bytes()))
    }

    /// The follower may serve.
    pub(crate) fn up_to_date() -> Self {
        Self::bare(Kind::UpToDate, u64::MAX)
    }

    /// `zxid` is logged.
    pub(crate) fn ack(zxid: u64) -> Self {
        Self::bare(Kind::Ack, zxid)
    }

    /// A quorum has logged `zxid`.
    pub(crate) fn commit(zxid: u64) -> Self {
        Self::bare(Kind::Commit, zxid)
    }

    /// The leader's heartbeat.
    pub(crate) fn ping(last_proposed: u64) -> Self {
        Self::bare(Kind::Ping, last_proposed)
    }

    /// A follower's answer to `ping`: no sessions to report.
    pub(crate) fn ping_reply(zxid: u64) -> Self {
        Self::with_data(Kind::Ping, zxid, Bytes::new())
    }

    /// A transaction to be logged.
    pub(crate) fn proposal(zxid: u64, txn: Bytes) -> Self {
        Self::with_data(Kind::Proposal, zxid, txn)
    }

    /// The sid that a `FollowerInfo` states.
    pub(crate) fn stated_sid(&self) -> Option<u64> {
        let head = self.data.as_deref().and_then(|data| data.first_chunk::<8>());
        head.map(|bytes| u64::from_be_bytes(*bytes))
    }
}

/// A zxid from its halves.
pub(crate) fn zxid(epoch: u32, counter: u32) -> u64 {
    u64::from(epoch) << 32 | u64::from(counter)
}

/// The counter half; 0 names no proposal.
pub(crate) fn counter(zxid: u64) -> u32 {
    (zxid & 0xffff_ffff) as u32
}

/// A `setData` transaction as a leader proposes it: header, path, value, version, digest of the tree.
pub(crate) fn set_data_txn(zxid: u64, cxid: i32, wall_ms: i64, path: &str, value: &[u8]) -> Bytes {
    let mut txn = BytesMut::with_capacity(60 + path.len() + value.len());
    txn.put_u64(0x1000_0000_0000_0001); // the client's session
    txn.put_i32(cxid);
    txn.put_u64(zxid);
    txn.put_i64(wall_ms);
    txn.put_i32(SET_DATA);
    put_block(&mut txn, path.as_bytes());
    put_block(&mut txn, value);
    txn.put_i32(cxid); // version of the node
    txn.put_i32(DIGEST_VERSION);
    txn.put_u64(zxid.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    txn.freeze()
}

/// A jute buffer: its length, then itself.
fn put_block(out: &mut BytesMut, block: &[u8]) {
    out.put_i32(length(block));
    out.put_slice(block);
}

/// Jute lengths are signed; nothing the demo builds comes near the limit.
pub(crate) fn length(block: &[u8]) -> i32 {
    i32::try_from(block.len()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_states_its_sid_and_a_short_body_states_none() {
        assert_eq!(Packet::follower_info(1, 2).stated_sid(), Some(2));
        assert_eq!(Packet::ack(1).stated_sid(), None);
        assert_eq!(Packet::leader_info(1).stated_sid(), None);
    }

    #[test]
    fn every_kind_has_the_number_it_is_found_by() {
        let found: Vec<i32> = (-1..=20).filter_map(Kind::from_wire).map(|kind| kind as i32).collect();
        assert_eq!(found, [1, 2, 3, 4, 5, 10, 11, 12, 13, 17, 18]);
    }

    #[test]
    fn a_zxid_falls_into_its_halves() {
        assert_eq!(zxid(1, 0xc709), 0x1_0000_c709);
        assert_eq!(counter(zxid(7, 0)), 0);
    }
}
