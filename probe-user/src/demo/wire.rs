//! Packets of the quorum port: a value goes in and bytes come out, and the other way round.
//!
//! Invariant: what `PacketWriter` writes, `read_packet` reads back equal, and a malformed length is an
//! error before anything is allocated for it. Written apart from the framer that runs in the kernel, so
//! that the two can be held against each other. Deliberately not here: snapshots, TLS, SASL, sockets.

use std::io::{self, Read, Write};

use bytes::Bytes;

use super::packet::{AuthEntry, Kind, Packet, length};

/// Size of the buffers on both sides of a connection (BufferedOutputStream and BufferedInputStream of
/// the JDK), hence where a run of packets is cut into calls.
pub(crate) const BUFFER_BYTES: usize = 8192;

/// Largest data of one packet: jute.maxbuffer and as much again.
const MAX_DATA_BYTES: usize = 2 * 1_048_575;
/// Real requests carry one or two entries of a few dozen bytes.
const MAX_AUTH_ENTRIES: usize = 64;
const MAX_AUTH_BYTES: usize = 4096;

const NULL: i32 = -1;
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
        Self { out, buffer: Vec::with_capacity(BUFFER_BYTES) }
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
    Ok(Packet { kind, zxid: u64::from_be_bytes(zxid), data, auth })
}

fn read_auth(from: &mut impl Read, stated: i32) -> Result<Vec<AuthEntry>, WireError> {
    let entries = within("authinfo", stated, MAX_AUTH_ENTRIES)?;
    let mut auth = Vec::with_capacity(entries);
    for _ in 0..entries {
        let stated = read_i32(from)?;
        let scheme = read_block(from, "scheme", stated, MAX_AUTH_BYTES)?;
        let stated = read_i32(from)?;
        auth.push(AuthEntry { scheme, id: read_block(from, "id", stated, MAX_AUTH_BYTES)? });
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
    use crate::demo::packet::{set_data_txn, zxid};

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
        check(&Packet::ack(0x1_0000_c709), "00000003 000000010000c709 ffffffff ffffffff");
        check(&Packet::ping(0x1_0000_0000), "00000005 0000000100000000 ffffffff ffffffff");
        check(&Packet::ping_reply(0x1_0000_0000), "00000005 0000000100000000 00000000 ffffffff");
        check(&Packet::up_to_date(), "0000000c ffffffffffffffff ffffffff ffffffff");
        check(&Packet::leader_info(2), "00000011 0000000200000000 00000004 00010000 ffffffff");
        check(&Packet::ack_epoch(0x1_0000_0007, 1), "00000012 0000000100000007 00000004 00000001 ffffffff");
        check(
            &Packet::follower_info(1, 2),
            "0000000b 0000000100000000 00000014 0000000000000002 00010000 0000000000000000 ffffffff",
        );
        let auth =
            vec![AuthEntry { scheme: Bytes::from_static(b"ip"), id: Bytes::from_static(b"127.0.0.1") }];
        check(
            &Packet { auth: Some(auth), kind: Kind::Request, ..Packet::up_to_date() },
            "00000001 ffffffffffffffff ffffffff 00000001 00000002 6970 00000009 3132372e302e302e31",
        );
    }

    #[test]
    fn a_proposal_states_its_zxid_at_offsets_4_and_28() {
        let zxid = zxid(3, 77);
        let bytes = written(&[Packet::proposal(zxid, set_data_txn(zxid, 9, 1, "/a", b"v"))]).concat();
        assert_eq!(bytes[4..12], zxid.to_be_bytes());
        assert_eq!(bytes[28..36], zxid.to_be_bytes());
        assert_eq!(bytes[44..48], 5_i32.to_be_bytes());
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
        let lengths: Vec<usize> =
            written(&[Packet::proposal(zxid(1, 1), txn.clone())]).iter().map(Vec::len).collect();
        assert_eq!(lengths, [16, txn.len(), 4]);
    }

    #[test]
    fn bad_lengths_and_kinds_are_refused_before_anything_is_allocated() {
        let mut bytes = written(&[Packet::ack(1)]).concat();
        bytes[12..16].copy_from_slice(&i32::MAX.to_be_bytes());
        let refused = read_packet(&mut bytes.as_slice()).unwrap_err();
        assert!(matches!(refused, WireError::Length { what: "data", length: i32::MAX }));
        bytes[3] = 99;
        assert!(matches!(read_packet(&mut bytes.as_slice()), Err(WireError::Kind(99))));
        assert!(matches!(read_packet(&mut &bytes[..3]), Err(WireError::Io(_))));
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
