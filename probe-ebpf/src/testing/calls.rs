//! The calls in which a stream is handed over.

extern crate std;
use super::{Rng, Wire};
use std::vec::Vec;

/// Buffer of `BufferedOutputStream` and `BufferedInputStream`.
const BUFFER: usize = 8192;
/// Largest piece of one call of the JDK (`NioSocketImpl.MAX_BUFFER_SIZE`).
const PIECE: usize = 128 * 1024;

/// Ends of the calls by which Java's buffered stream writes `wire`.
pub(crate) fn java_writes(wire: &Wire) -> Vec<usize> {
    let (mut ends, mut buffered, mut at) = (Vec::new(), 0, 0);
    let mut flushes = wire.flushes.iter().peekable();
    for (i, &len) in wire.fields.iter().enumerate() {
        let mut flush = false;
        while flushes.next_if(|f| **f <= i).is_some() {
            flush = true;
        }
        if (flush || buffered + len > BUFFER) && buffered > 0 {
            ends.push(at);
            buffered = 0;
        }
        at += len;
        if len >= BUFFER {
            let begin = at - len;
            ends.extend((1..=len.div_ceil(PIECE)).map(|n| (begin + n * PIECE).min(at)));
        } else {
            buffered += len;
        }
    }
    if buffered > 0 {
        ends.push(at);
    }
    ends
}

/// Ends of the calls by which Java's buffered stream reads `wire`, when the bytes become available at
/// `deliveries`.
pub(crate) fn java_reads(wire: &Wire, deliveries: &[usize]) -> Vec<usize> {
    let mut ends = Vec::new();
    let (mut taken, mut parsed) = (0, 0);
    let mut deliveries = deliveries.iter().copied().peekable();
    let mut available = 0;
    for &len in &wire.fields {
        let end = parsed + len;
        while taken < end {
            while available <= taken {
                available = deliveries.next().unwrap_or(wire.bytes.len());
            }
            let missing = end - taken;
            // A large array is read past the empty buffer, everything else through it.
            let wanted = if missing >= BUFFER { missing.min(PIECE) } else { BUFFER };
            taken += wanted.min(available - taken);
            ends.push(taken);
        }
        parsed = end;
    }
    ends
}

/// Ends of random pieces, most of them at most `largest` long, from `begin` on.
pub(crate) fn cut(rng: &mut Rng, begin: usize, len: usize, largest: usize) -> Vec<usize> {
    let (mut ends, mut at) = (Vec::new(), begin);
    while at < len {
        at += 1 + rng.below(largest);
        ends.push(at.min(len));
    }
    ends
}
