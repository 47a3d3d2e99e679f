//! Feeds a framer from byte slices, as the kernel programs feed it from memory of the traced process.
//!
//! In: the bytes of a call. Out: each packet through a closure, and what else happened. Deliberately
//! absent from the kernel side.

use super::{BUFFER, CallBytes, Framer, Turn};

/// What a call did beside packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fed {
    /// Times the framing was lost: before this call, or in it.
    pub lost: u32,
    /// The stream turned out to be TLS.
    pub tls: bool,
    /// Records of application data.
    pub records: u32,
}

struct Slice<'a>(&'a [u8]);

impl CallBytes for Slice<'_> {
    fn copy(&self, offset: u32, into: &mut [u8; BUFFER], at: u32, len: u32) -> bool {
        let (offset, at, len) = (offset as usize, at as usize, len as usize);
        into[at..at + len].copy_from_slice(&self.0[offset..offset + len]);
        true
    }
}

/// Feeds one call; `on_packet` sees the framer at each packet.
pub fn feed(
    framer: &mut Framer,
    call: &[u8],
    start_seq: u32,
    at_start: bool,
    on_packet: impl FnMut(&Framer),
) -> Fed {
    feed_chunks(framer, core::iter::once(call), start_seq, at_start, on_packet)
}

/// Feeds one call whose bytes lie in several pieces.
pub fn feed_chunks<'a>(
    framer: &mut Framer,
    chunks: impl Iterator<Item = &'a [u8]>,
    start_seq: u32,
    at_start: bool,
    mut on_packet: impl FnMut(&Framer),
) -> Fed {
    let mut fed = Fed { lost: !framer.begin_call(start_seq, at_start, 0) as u32, tls: false, records: 0 };
    for chunk in chunks {
        framer.begin_chunk(chunk.len() as u32);
        loop {
            match framer.turn(&Slice(chunk)) {
                Turn::More => {}
                Turn::Packet => on_packet(framer),
                Turn::Done => break,
                Turn::Lost => fed.lost += 1,
                Turn::Tls => fed.tls = true,
                Turn::Record => fed.records += 1,
            }
        }
    }
    fed
}
