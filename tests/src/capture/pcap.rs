//! From the bytes of a capture file to TCP segments. Classic pcap with nanoseconds, Ethernet frames.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, bail, ensure};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use super::Segment;

/// Magic of a little-endian classic pcap file with times in nanoseconds.
const NANOSECOND_MAGIC: u32 = 0xa1b2_3c4d;
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
const LINKTYPE_ETHERNET: u32 = 1;

/// One captured frame.
pub(super) struct Frame<'a> {
    pub(super) at_ns: u64,
    bytes: &'a [u8],
}

/// The frames of a capture file. One cut short at the end of the file is an error.
pub(super) fn frames(file: &[u8]) -> Result<impl Iterator<Item = Result<Frame<'_>>>> {
    ensure!(word(file, 0)? == NANOSECOND_MAGIC, "not a capture in nanoseconds");
    ensure!(word(file, 20)? == LINKTYPE_ETHERNET, "not a capture of Ethernet frames");
    let mut rest = &file[FILE_HEADER..];
    Ok(std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let frame = first(rest);
        rest = match &frame {
            Ok(frame) => &rest[RECORD_HEADER + frame.bytes.len()..],
            Err(_) => &[],
        };
        Some(frame)
    }))
}

fn first(records: &[u8]) -> Result<Frame<'_>> {
    let (seconds, nanoseconds) = (word(records, 0)?, word(records, 4)?);
    let (captured, length) = (word(records, 8)?, word(records, 12)?);
    ensure!(captured == length, "a frame of {length} bytes of which {captured} were captured");
    let end = RECORD_HEADER + usize::try_from(captured)?;
    let bytes = records.get(RECORD_HEADER..end).context("the capture file is cut short")?;
    Ok(Frame { at_ns: u64::from(seconds) * 1_000_000_000 + u64::from(nanoseconds), bytes })
}

fn word(bytes: &[u8], offset: usize) -> Result<u32> {
    let word = bytes.get(offset..offset + 4).context("the capture file is cut short")?;
    Ok(u32::from_le_bytes(word.try_into()?))
}

/// The TCP segment in a frame, if it carries one.
pub(super) fn segment<'a>(frame: &Frame<'a>) -> Result<Option<Segment<'a>>> {
    let packet = SlicedPacket::from_ethernet(frame.bytes).context("a frame that is no packet")?;
    let Some(TransportSlice::Tcp(tcp)) = packet.transport else {
        return Ok(None);
    };
    let (from, to) = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            (IpAddr::V4(ip.header().source_addr()), IpAddr::V4(ip.header().destination_addr()))
        }
        Some(NetSlice::Ipv6(ip)) => {
            (IpAddr::V6(ip.header().source_addr()), IpAddr::V6(ip.header().destination_addr()))
        }
        _ => bail!("TCP without IP"),
    };
    Ok(Some(Segment {
        at_ns: frame.at_ns,
        from: SocketAddr::new(from, tcp.source_port()),
        to: SocketAddr::new(to, tcp.destination_port()),
        sequence: tcp.sequence_number(),
        syn: tcp.syn(),
        closing: tcp.fin() || tcp.rst(),
        payload: tcp.payload(),
    }))
}
