//! Payloads, from harmless to hostile.

extern crate std;
use super::{Rng, Wire, txn};
use crate::zab::packet;
use std::vec::Vec;

/// What fills values and snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filler {
    /// Random bytes.
    Random,
    /// Complete packets that repeat one zxid.
    Fixed,
    /// Complete packets whose zxids are those that come next.
    Plausible,
    /// TLS records.
    Tls,
    /// The signature of a snapshot, again and again, whole and broken.
    Signature,
}

impl Filler {
    pub(crate) const ALL: [Self; 5] =
        [Self::Random, Self::Fixed, Self::Plausible, Self::Tls, Self::Signature];

    /// `len` bytes; `next` is the zxid that the true stream will carry next, `up` the direction.
    pub(crate) fn fill(self, rng: &mut Rng, len: usize, next: u64, up: bool) -> Vec<u8> {
        let mut out = match self {
            Self::Random => return rng.bytes(len),
            Self::Fixed => fake(rng, len, next, up, 0),
            Self::Plausible => fake(rng, len, next, up, 1),
            Self::Tls => {
                let mut out = Vec::new();
                while out.len() < len {
                    let body = rng.below(200);
                    out.extend_from_slice(&[0x17, 3, 3, 0, body as u8]);
                    out.extend(rng.bytes(body));
                }
                out
            }
            Self::Signature => {
                let mut out = Vec::new();
                while out.len() < len {
                    let keep = if rng.one_in(2) { 14 } else { rng.below(14) };
                    out.extend_from_slice(&b"\0\0\0\x0aBenWasHere"[..keep]);
                    let noise = rng.below(6);
                    out.extend(core::iter::repeat_n(0, noise));
                }
                out
            }
        };
        out.truncate(len);
        out
    }
}

/// At least `len` bytes of complete packets from zxid `next` on, each `step` after the one before.
pub(crate) fn fake(rng: &mut Rng, len: usize, next: u64, up: bool, step: u64) -> Vec<u8> {
    let mut wire = Wire::default();
    let mut zxid = next;
    let size = rng.pick(&[0, 28, 128]);
    while wire.bytes.len() < len {
        if up {
            wire.bare(packet::ACK, zxid);
        } else {
            wire.packet(packet::PROPOSAL, zxid, Some(&txn(zxid, 1, &std::vec![0; size])), None);
            if size > 28 {
                wire.bare(packet::COMMIT, zxid);
            }
        }
        zxid = zxid.wrapping_add(step);
    }
    wire.bytes
}
