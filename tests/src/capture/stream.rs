//! One direction of a connection: segments in any order in, bytes in order out.
//!
//! A byte's time is that of the first segment that carried it. Retransmissions change nothing.

use std::collections::BTreeMap;

/// Puts the segments of one direction in order.
#[derive(Debug)]
pub(super) struct Stream {
    next: u32,
    /// Segments beyond a gap, by their distance from the stream's first byte.
    early: BTreeMap<u64, (u64, Vec<u8>)>,
    delivered: u64,
}

impl Stream {
    /// A stream whose SYN had this sequence number.
    pub(super) fn after_syn(sequence: u32) -> Self {
        Self { next: sequence.wrapping_add(1), early: BTreeMap::new(), delivered: 0 }
    }

    /// Takes a segment; hands the bytes that are in order now to `deliver`, each run with its time.
    pub(super) fn take<E>(
        &mut self,
        at_ns: u64,
        sequence: u32,
        payload: &[u8],
        mut deliver: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        // The distance is signed: sequence numbers wrap, and old segments lie behind.
        let ahead = sequence.wrapping_sub(self.next).cast_signed();
        if ahead > 0 {
            let offset = self.delivered + u64::from(ahead.unsigned_abs());
            self.early.entry(offset).or_insert_with(|| (at_ns, payload.to_vec()));
            return Ok(());
        }
        let old = usize::try_from(ahead.unsigned_abs()).unwrap_or(usize::MAX);
        if let Some(new) = payload.get(old..).filter(|new| !new.is_empty()) {
            self.advance(new.len());
            deliver(at_ns, new)?;
        }
        while let Some(entry) = self.early.first_entry() {
            if *entry.key() > self.delivered {
                break;
            }
            let (offset, (early_at, bytes)) = entry.remove_entry();
            let old = usize::try_from(self.delivered - offset).unwrap_or(usize::MAX);
            if let Some(new) = bytes.get(old..).filter(|new| !new.is_empty()) {
                self.advance(new.len());
                deliver(early_at, new)?;
            }
        }
        Ok(())
    }

    fn advance(&mut self, bytes: usize) {
        self.next = self.next.wrapping_add(u32::try_from(bytes).unwrap_or(0));
        self.delivered += u64::try_from(bytes).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::Stream;

    /// Segments as (time, offset from the first byte, bytes); what comes out, and when.
    fn check(first: u32, segments: &[(u64, u32, &str)], expected: &[(u64, &str)]) {
        let mut stream = Stream::after_syn(first.wrapping_sub(1));
        let mut out = Vec::new();
        for (at, offset, bytes) in segments {
            let result: Result<(), std::convert::Infallible> =
                stream.take(*at, first.wrapping_add(*offset), bytes.as_bytes(), |at, bytes| {
                    out.push((at, String::from_utf8_lossy(bytes).into_owned()));
                    Ok(())
                });
            assert!(result.is_ok());
        }
        let expected: Vec<(u64, String)> = expected.iter().map(|(at, s)| (*at, (*s).to_owned())).collect();
        assert_eq!(out, expected);
    }

    #[test]
    fn in_order() {
        check(1, &[(10, 0, "ab"), (11, 2, "cd")], &[(10, "ab"), (11, "cd")]);
    }

    #[test]
    fn retransmission_keeps_the_first_time() {
        check(1, &[(10, 0, "ab"), (20, 0, "ab"), (21, 1, "bcd")], &[(10, "ab"), (21, "cd")]);
    }

    #[test]
    fn out_of_order_keeps_each_time() {
        check(1, &[(10, 2, "cd"), (12, 4, "e"), (20, 0, "ab")], &[(20, "ab"), (10, "cd"), (12, "e")]);
    }

    #[test]
    fn early_segment_that_overlaps() {
        check(1, &[(10, 3, "de"), (20, 0, "abcd")], &[(20, "abcd"), (10, "e")]);
    }

    #[test]
    fn sequence_numbers_wrap() {
        check(u32::MAX, &[(10, 3, "de"), (20, 0, "abc")], &[(20, "abc"), (10, "de")]);
    }
}
