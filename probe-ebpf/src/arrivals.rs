//! When did a byte of a TCP stream reach the socket?
//!
//! In: one (sequence number, instant) for each delivery to the socket. Out: the instant of any byte still
//! unread. Invariant: `head - tail` never exceeds the capacity; an answer is never earlier than the
//! truth, and late by at most the quantum in force when it was stored. Producer (softirq, serialised by
//! the socket's lock) and consumer (the reader) touch different indices. Deliberately absent: the bytes.

use core::hint::black_box;

/// Deliveries that a ring holds.
pub const CAPACITY: u32 = 4096;
const MASK: u32 = CAPACITY - 1;
/// The oldest entries, which are looked at first.
const NEAR: u32 = 8;

/// The stream up to `end_seq` had been delivered at `at`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// First sequence number not yet delivered.
    pub end_seq: u32,
    /// 1 when deliveries were merged into this one, [`Arrival::FIRST`] when it is the ring's first.
    pub coarse: u32,
    /// Monotonic ns.
    pub at: u64,
}

impl Arrival {
    /// Bytes before this delivery's own may have come before the ring was there.
    pub const FIRST: u32 = 2;
}

/// Indices of a ring of [`Arrival`]s; they run freely and are masked on use.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// Next to write.
    pub head: u32,
    /// First that may still be asked for.
    pub tail: u32,
    /// Deliveries merged because the ring was filling.
    pub merged: u64,
}

/// Is sequence number `a` at or after `b` (RFC 793 arithmetic)?
#[inline(always)]
#[must_use]
pub fn seq_at_or_after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) as i32 >= 0
}

/// Deliveries closer than this to the previous one are merged with it, by how full the ring is: exact
/// up to half, then coarser, so that a reader that sleeps for minutes costs precision, not memory.
#[inline(always)]
fn quantum_ns(used: u32) -> u64 {
    match used {
        0..2048 => 0,
        2048..3072 => 100_000,
        3072..3584 => 1_000_000,
        3584..3968 => 10_000_000,
        3968..4095 => 1_000_000_000,
        _ => u64::MAX,
    }
}

impl Arrivals {
    /// Notes that the stream up to `end_seq` had been delivered at `at`.
    #[inline(always)]
    pub fn push(&mut self, ring: &mut [Arrival; CAPACITY as usize], end_seq: u32, at: u64) {
        let used = self.head.wrapping_sub(self.tail);
        if used > 0 {
            let last = &mut ring[(self.head.wrapping_sub(1) & MASK) as usize];
            if last.end_seq == end_seq {
                return; // woken again without new bytes
            }
            if at.wrapping_sub(last.at) < quantum_ns(used) {
                last.end_seq = end_seq;
                last.at = at;
                last.coarse = 1;
                self.merged += 1;
                return;
            }
        }
        ring[(self.head & MASK) as usize] =
            Arrival { end_seq, coarse: if self.head == 0 { Arrival::FIRST } else { 0 }, at };
        self.head = self.head.wrapping_add(1);
    }

    /// The delivery that completed the stream up to `end_seq`, and forgets those before it. `None` when
    /// the ring knows of no such delivery.
    #[inline(always)]
    pub fn find(&mut self, ring: &[Arrival; CAPACITY as usize], end_seq: u32) -> Option<Arrival> {
        let (mut low, size) = (self.tail, self.head.wrapping_sub(self.tail));
        if size == 0 || size > CAPACITY {
            return None;
        }
        // Mostly it is one of the first, which share a few lines of cache.
        let mut passed = 0_u32;
        for ahead in 0..NEAR {
            let entry = &ring[(low.wrapping_add(ahead) & MASK) as usize];
            let before = entry.end_seq.wrapping_sub(end_seq);
            passed = passed.wrapping_add(black_box(before & ahead.wrapping_sub(size)) >> 31);
        }
        low = low.wrapping_add(passed);
        if passed == NEAR {
            low = self.first_of_many(ring, low, end_seq);
        }
        self.tail = low;
        if low == self.head {
            return None;
        }
        Some(ring[(low & MASK) as usize])
    }

    /// First entry from `from` on at or after `end_seq`. Out of line: seldom, and long.
    #[inline(never)]
    fn first_of_many(&self, ring: &[Arrival; CAPACITY as usize], from: u32, end_seq: u32) -> u32 {
        let (mut low, size) = (from, self.head.wrapping_sub(from));
        // By steps of 2048, 1024, … 1 and 1 again. Without branches, which would double the paths that the verifier
        // walks each time: a step is taken when the entry that ends it lies in the ring and before `end_seq`, that is
        // when both differences are negative.
        let mut turn = 0;
        while turn < 13 {
            let shift = if turn < 12 { 11 - turn } else { 0 };
            let last = low.wrapping_add((1 << shift) - 1);
            let before = ring[(last & MASK) as usize].end_seq.wrapping_sub(end_seq);
            let inside = last.wrapping_sub(from).wrapping_sub(size);
            low = low.wrapping_add((black_box(before & inside) >> 31) << shift);
            turn += 1;
        }
        low
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn ring() -> std::boxed::Box<[Arrival; CAPACITY as usize]> {
        std::vec![Arrival::default(); CAPACITY as usize].into_boxed_slice().try_into().unwrap()
    }

    #[test]
    fn a_byte_has_the_instant_of_the_delivery_that_brought_it() {
        let (mut r, mut a) = (ring(), Arrivals::default());
        a.push(&mut r, 100, 1);
        a.push(&mut r, 250, 2);
        assert_eq!(a.find(&r, 40).unwrap().at, 1);
        assert_eq!(a.find(&r, 100).unwrap().at, 1);
        assert_eq!(a.find(&r, 101).unwrap().at, 2);
        assert_eq!(a.find(&r, 251), None);
    }

    #[test]
    fn a_sleeping_reader_costs_precision_not_memory() {
        let (mut r, mut a) = (ring(), Arrivals::default());
        for i in 0..1_000_000_u64 {
            a.push(&mut r, i as u32 * 10 + 10, i * 500_000);
            assert!(a.head - a.tail <= CAPACITY);
        }
        let got = a.find(&r, 10 * 1000 + 10).unwrap();
        assert_eq!((got.at, got.coarse), (1000 * 500_000, 0));
        assert!(a.merged > 0);
        assert!(a.find(&r, 9_999_990).unwrap().at >= 999_998 * 500_000);
    }

    proptest! {
        #[test]
        fn never_early_and_exact_while_there_is_room(
            start in any::<u32>(),
            steps in proptest::collection::vec((1_u32..5000, 0_u64..1000), 1..1500),
            asks in proptest::collection::vec(0.0_f64..1.0, 0..40),
        ) {
            let (mut r, mut a) = (ring(), Arrivals::default());
            let (mut seq, mut at) = (start, 0);
            let mut truth = Vec::new();
            for (bytes, gap) in steps {
                seq = seq.wrapping_add(bytes);
                at += gap;
                truth.push((seq, at));
                a.push(&mut r, seq, at);
            }
            let total = seq.wrapping_sub(start);
            let mut asks: Vec<u32> = asks.iter().map(|f| 1 + (f * f64::from(total - 1)) as u32).collect();
            asks.sort_unstable();
            for ask in asks {
                let want = truth.iter().find(|(s, _)| s.wrapping_sub(start) >= ask).unwrap().1;
                prop_assert_eq!(a.find(&r, start.wrapping_add(ask)).unwrap().at, want);
            }
        }
    }
}
