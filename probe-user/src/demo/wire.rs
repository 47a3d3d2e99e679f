//! Packets of the quorum port: a value goes in and bytes come out, and the other way round.
//!
//! Invariant: what `PacketWriter` writes, `read_packet` reads back equal, and a malformed length is an
//! error before anything is allocated for it. Written apart from the framer that runs in the kernel, so
//! that the two can be held against each other. Deliberately not here: snapshots, TLS, SASL, sockets.

use std::io::{self, Read, Write};

use bytes::{BufMut as _, Bytes, BytesMut};

/// Size of the buffers on both sides of a connection (BufferedOutputStream and BufferedInputStream of
/// the JDK), hence where a run of packets is cut into calls.
pub(crate) const BUFFER_BYTES: usize = 8192;

/// Largest data of one packet: jute.maxbuffer and as much again.
const MAX_DATA_BYTES: usize = 2 * 1_048_575;
/// Real requests carry one or two entries of a few dozen bytes.
const MAX_AUTH_ENTRIES: usize = 64;
const MAX_AUTH_BYTES: usize = 4096;

const NULL: i32 = -1;
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
    fn from_wire(number: i32) -> Option<Self> {
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

/// Why bytes are not a packet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// The connection failed, timed out or ended.
    #[error("cannot read from the peer: {0}")]
    Io(#[from] io::Error),
    /// A number that names no packet of this demo.
    #[error("packet type {0} is not one that a demo server speaks")]
    Kind(i32),
    /// A length outside the protocol's limits.
    #[error("{what} of {length} bytes is outside the limits: the stream is out of step")]
    Length {
        /// Which field.
        what: &'static str,
        /// What it claimed.
        length: i32,
    },
    /// The body of a handshake packet is cut short.
    #[error("{0:?} is too short")]
    Short(Kind),
}

impl Packet {
    fn bare(kind: Kind, zxid: u64) -> Self {
        Self {
            kind,
            zxid,
            data: None,
            auth: None,
        }
    }

    fn with_data(kind: Kind, zxid: u64, data: Bytes) -> Self {
        Self {
            kind,
            zxid,
            data: Some(data),
            auth: None,
        }
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
        Self::with_data(
            Kind::NewLeader,
            zxid(epoch, 0),
            Bytes::copy_from_slice(members.as_bytes()),
        )
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
    pub(crate) fn stated_sid(&self) -> Result<u64, WireError> {
        let head = self.data.as_deref().and_then(|data| data.first_chunk::<8>());
        head.map(|bytes| u64::from_be_bytes(*bytes))
            .ok_or(WireError::Short(self.kind))
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

fn put_block(out: &mut BytesMut, block: &[u8]) {
    out.put_i32(length(block));
    out.put_slice(block);
}

/// Jute lengths are signed; nothing the demo builds comes near the limit.
fn length(block: &[u8]) -> i32 {
    i32::try_from(block.len()).unwrap_or(i32::MAX)
}

/// Writes packets through a buffer that is cut as the JDK's is: small fields fill the buffer to its
/// last byte, a block as large as the buffer goes out in a call of its own.
pub(crate) struct PacketWriter<W: Write> {
    out: W,
    buffer: Vec<u8>,
}

impl<W: Write> PacketWriter<W> {
    /// Nothing is written until the buffer is full or flushed.
    pub(crate) fn new(out: W) -> Self {
        Self {
            out,
            buffer: Vec::with_capacity(BUFFER_BYTES),
        }
    }

    /// Adds one packet.
    pub(crate) fn put(&mut self, packet: &Packet) -> io::Result<()> {
        self.fields(&(packet.kind as i32).to_be_bytes())?;
        self.fields(&packet.zxid.to_be_bytes())?;
        match &packet.data {
            None => self.fields(&NULL.to_be_bytes())?,
            Some(data) => self.block(data)?,
        }
        let Some(auth) = &packet.auth else {
            return self.fields(&NULL.to_be_bytes());
        };
        let entries = i32::try_from(auth.len()).unwrap_or(i32::MAX);
        self.fields(&entries.to_be_bytes())?;
        for entry in auth {
            self.block(&entry.scheme)?;
            self.block(&entry.id)?;
        }
        Ok(())
    }

    /// Hands what is buffered to the connection, in one call when it takes all.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.out.write_all(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }

    fn fields(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.buffer.len() == BUFFER_BYTES {
                self.flush()?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(BUFFER_BYTES - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    fn block(&mut self, block: &[u8]) -> io::Result<()> {
        self.fields(&length(block).to_be_bytes())?;
        if block.len() > BUFFER_BYTES - self.buffer.len() {
            self.flush()?;
        }
        if block.len() >= BUFFER_BYTES {
            return self.out.write_all(block);
        }
        self.buffer.extend_from_slice(block);
        Ok(())
    }
}

/// Reads one packet, blocking until it is whole.
pub(crate) fn read_packet(from: &mut impl Read) -> Result<Packet, WireError> {
    let number = read_i32(from)?;
    let kind = Kind::from_wire(number).ok_or(WireError::Kind(number))?;
    let mut zxid = [0; 8];
    from.read_exact(&mut zxid)?;
    let data = match read_i32(from)? {
        NULL => None,
        stated => Some(read_block(from, "data", stated, MAX_DATA_BYTES)?),
    };
    let auth = match read_i32(from)? {
        NULL => None,
        stated => Some(read_auth(from, stated)?),
    };
    Ok(Packet {
        kind,
        zxid: u64::from_be_bytes(zxid),
        data,
        auth,
    })
}

fn read_auth(from: &mut impl Read, stated: i32) -> Result<Vec<AuthEntry>, WireError> {
    let entries = within("authinfo", stated, MAX_AUTH_ENTRIES)?;
    let mut auth = Vec::with_capacity(entries);
    for _ in 0..entries {
        let stated = read_i32(from)?;
        let scheme = read_block(from, "scheme", stated, MAX_AUTH_BYTES)?;
        let stated = read_i32(from)?;
        auth.push(AuthEntry {
            scheme,
            id: read_block(from, "id", stated, MAX_AUTH_BYTES)?,
        });
    }
    Ok(auth)
}

fn read_i32(from: &mut impl Read) -> Result<i32, WireError> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    Ok(i32::from_be_bytes(bytes))
}

fn read_block(
    from: &mut impl Read,
    what: &'static str,
    stated: i32,
    limit: usize,
) -> Result<Bytes, WireError> {
    let mut block = vec![0; within(what, stated, limit)?];
    from.read_exact(&mut block)?;
    Ok(block.into())
}

fn within(what: &'static str, stated: i32, limit: usize) -> Result<usize, WireError> {
    usize::try_from(stated)
        .ok()
        .filter(|&length| length <= limit)
        .ok_or(WireError::Length { what, length: stated })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Remembers where one call ended and the next began.
    #[derive(Default)]
    struct Calls(Vec<Vec<u8>>);

    impl Write for &mut Calls {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(packets: &[Packet]) -> Vec<Vec<u8>> {
        let mut calls = Calls::default();
        let mut writer = PacketWriter::new(&mut calls);
        for packet in packets {
            writer.put(packet).unwrap();
        }
        writer.flush().unwrap();
        calls.0
    }

    fn check(packet: &Packet, expected_hex: &str) {
        let bytes = written(std::slice::from_ref(packet)).concat();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected_hex.replace(' ', ""));
        assert_eq!(&read_packet(&mut bytes.as_slice()).unwrap(), packet);
    }

    #[test]
    fn packets_look_as_they_do_on_a_captured_wire() {
        check(
            &Packet::ack(0x1_0000_c709),
            "00000003 000000010000c709 ffffffff ffffffff",
        );
        check(
            &Packet::ping(0x1_0000_0000),
            "00000005 0000000100000000 ffffffff ffffffff",
        );
        check(
            &Packet::ping_reply(0x1_0000_0000),
            "00000005 0000000100000000 00000000 ffffffff",
        );
        check(
            &Packet::up_to_date(),
            "0000000c ffffffffffffffff ffffffff ffffffff",
        );
        check(
            &Packet::leader_info(2),
            "00000011 0000000200000000 00000004 00010000 ffffffff",
        );
        check(
            &Packet::ack_epoch(0x1_0000_0007, 1),
            "00000012 0000000100000007 00000004 00000001 ffffffff",
        );
        check(
            &Packet::follower_info(1, 2),
            "0000000b 0000000100000000 00000014 0000000000000002 00010000 0000000000000000 ffffffff",
        );
        let auth = vec![AuthEntry {
            scheme: Bytes::from_static(b"ip"),
            id: Bytes::from_static(b"127.0.0.1"),
        }];
        check(
            &Packet {
                auth: Some(auth),
                ..Packet::bare(Kind::Request, u64::MAX)
            },
            "00000001 ffffffffffffffff ffffffff 00000001 00000002 6970 00000009 3132372e302e302e31",
        );
    }

    #[test]
    fn a_proposal_states_its_zxid_at_offsets_4_and_28() {
        let zxid = zxid(3, 77);
        let bytes = written(&[Packet::proposal(zxid, set_data_txn(zxid, 9, 1, "/a", b"v"))]).concat();
        assert_eq!(bytes[4..12], zxid.to_be_bytes());
        assert_eq!(bytes[28..36], zxid.to_be_bytes());
        assert_eq!(bytes[44..48], SET_DATA.to_be_bytes());
    }

    #[test]
    fn the_410th_acknowledgement_is_cut_by_the_buffer() {
        let acks: Vec<Packet> = (1..=410).map(|n| Packet::ack(zxid(1, n))).collect();
        let lengths: Vec<usize> = written(&acks).iter().map(Vec::len).collect();
        assert_eq!(lengths, [8192, 8]);
    }

    #[test]
    fn a_block_larger_than_the_buffer_is_a_call_of_its_own() {
        let txn = set_data_txn(zxid(1, 1), 1, 1, "/a", &vec![7; 300_000]);
        let lengths: Vec<usize> = written(&[Packet::proposal(zxid(1, 1), txn.clone())])
            .iter()
            .map(Vec::len)
            .collect();
        assert_eq!(lengths, [16, txn.len(), 4]);
    }

    #[test]
    fn bad_lengths_and_kinds_are_refused_before_anything_is_allocated() {
        let mut bytes = written(&[Packet::ack(1)]).concat();
        bytes[12..16].copy_from_slice(&i32::MAX.to_be_bytes());
        let refused = read_packet(&mut bytes.as_slice()).unwrap_err();
        assert!(matches!(
            refused,
            WireError::Length {
                what: "data",
                length: i32::MAX
            }
        ));
        bytes[3] = 99;
        assert!(matches!(
            read_packet(&mut bytes.as_slice()),
            Err(WireError::Kind(99))
        ));
        assert!(matches!(read_packet(&mut &bytes[..3]), Err(WireError::Io(_))));
        assert!(matches!(
            Packet::ack(1).stated_sid(),
            Err(WireError::Short(Kind::Ack))
        ));
        assert_eq!(Packet::follower_info(1, 2).stated_sid().unwrap(), 2);
    }

    proptest! {
        #[test]
        fn every_stream_is_read_back_equal(
            sizes in prop::collection::vec((0_u32..9000, prop::option::of(0_usize..3)), 1..20),
        ) {
            let packets: Vec<Packet> = sizes
                .iter()
                .map(|&(size, auth)| Packet {
                    auth: auth.map(|entries| {
                        let entry = AuthEntry { scheme: Bytes::from_static(b"ip"), id: Bytes::new() };
                        vec![entry; entries]
                    }),
                    ..Packet::proposal(zxid(1, size), Bytes::from(vec![size as u8; size as usize]))
                })
                .collect();
            let bytes = written(&packets).concat();
            let mut rest = bytes.as_slice();
            for packet in &packets {
                prop_assert_eq!(&read_packet(&mut rest).unwrap(), packet);
            }
            prop_assert!(rest.is_empty());
        }
    }
}
