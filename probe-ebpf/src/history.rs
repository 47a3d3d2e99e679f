//! What a thread's clock read at earlier instants.
//!
//! In: readings of the clock (an instant and the sums by cause up to it), in order. Out: the reading at any
//! instant. The last segments are kept one by one; behind them readings a few milliseconds apart. Invariant:
//! between two instants that are remembered the parts sum to the time between them, exactly; between
//! two neighbouring readings a part is taken to grow evenly, which is exact where they hold one segment.
//! Deliberately absent: clocks, and what the causes mean.

use crate::cause::{self, Parts};

/// Readings one by one.
pub const FINE: usize = 64;
/// Readings at least [`COARSE_NS`] apart.
pub const COARSE: usize = 128;
/// 128 of them reach back a second.
pub const COARSE_NS: u64 = 8_000_000;

/// What a clock read.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// When, monotonic ns; 0 when there is none.
    pub at: u64,
    /// Sums by cause, ns.
    pub sums: Parts,
}

/// A ring of readings.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ring<const N: usize> {
    /// Readings ever written.
    pub written: u64,
    /// The newest `N` of them.
    pub readings: [Reading; N],
}

/// Earlier readings of one clock.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct History {
    /// The last segments.
    pub fine: Ring<FINE>,
    /// Long ago.
    pub coarse: Ring<COARSE>,
}

impl<const N: usize> Ring<N> {
    /// No reading.
    pub const EMPTY: Self = Self { written: 0, readings: [Reading { at: 0, sums: [0; cause::COUNT] }; N] };

    #[inline(always)]
    fn push(&mut self, at: u64, sums: &Parts) {
        let place = &mut self.readings[self.written as usize & (N - 1)];
        place.at = at;
        place.sums = *sums;
        self.written = self.written.wrapping_add(1);
    }

    /// The reading `back` before the newest, 0 being the newest itself.
    #[inline(always)]
    #[must_use]
    pub fn back(&self, back: u64) -> &Reading {
        &self.readings[self.written.wrapping_sub(back).wrapping_sub(1) as usize & (N - 1)]
    }

    /// How far back the newest reading at or before `at` lies; `N` when all that are kept are later. Free of
    /// branches but for the turns themselves: see docs/journal on the verifier.
    #[inline(always)]
    #[must_use]
    pub fn find(&self, at: u64) -> u64 {
        let mut back = 0_u64;
        let mut step = N as u64 / 2;
        // The first `back` readings are later than `at`. What was never written, or by an earlier clock, reads less.
        while step > 0 {
            let probe = self.back(back.wrapping_add(step).wrapping_sub(1));
            back = back.wrapping_add(step & mask_if_later(probe.at, at));
            step /= 2;
        }
        let last = self.back(back);
        back.wrapping_add(1 & mask_if_later(last.at, at))
    }
}

/// All ones when `a > b`; both are below 2^63. The compiler is kept from knowing that it is one of two values: it would
/// branch on it, and the verifier walk through both ways of each of many turns.
#[inline(always)]
fn mask_if_later(a: u64, b: u64) -> u64 {
    let sign = core::hint::black_box(b.wrapping_sub(a)) >> 63;
    core::hint::black_box(0_u64.wrapping_sub(sign))
}

impl History {
    /// No reading.
    pub const EMPTY: Self = Self { fine: Ring::EMPTY, coarse: Ring::EMPTY };

    /// Forgets all and begins with a reading.
    #[inline(always)]
    pub fn begin(&mut self, at: u64, sums: &Parts) {
        self.fine.written = 0;
        self.coarse.written = 0;
        self.fine.push(at, sums);
        self.coarse.push(at, sums);
    }

    /// Remembers a reading. Readings come in order; one at the same instant as the last adds nothing.
    #[inline(always)]
    pub fn push(&mut self, at: u64, sums: &Parts) {
        self.fine.push(at, sums);
        if at.wrapping_sub(self.coarse.back(0).at) >= COARSE_NS {
            self.coarse.push(at, sums);
        }
    }

    /// What the clock read at `at`, given that it reads `now` now; written into `into`. Before anything that
    /// is remembered, the time up to the oldest reading is unexplained.
    #[inline(always)]
    pub fn at(&self, at: u64, now: &Reading, into: &mut Parts) {
        let back = self.fine.find(at);
        if back < FINE as u64 && back < self.fine.written {
            let later = if back == 0 { now } else { self.fine.back(back.wrapping_sub(1)) };
            return between(self.fine.back(back), later, at, into);
        }
        // All fine readings are later than `at`, or there are few: the oldest of them ends the gap.
        let back = self.coarse.find(at);
        if back < COARSE as u64 && back < self.coarse.written {
            let later =
                if back == 0 { self.oldest_fine(now) } else { self.coarse.back(back.wrapping_sub(1)) };
            return between(self.coarse.back(back), later, at, into);
        }
        let oldest = self.oldest(now);
        *into = oldest.sums;
        let missing = oldest.at.saturating_sub(at);
        into[cause::UNEXPLAINED] = into[cause::UNEXPLAINED].wrapping_sub(missing);
    }

    #[inline(always)]
    fn oldest_fine<'a>(&'a self, now: &'a Reading) -> &'a Reading {
        let kept = if self.fine.written < FINE as u64 { self.fine.written } else { FINE as u64 };
        if kept == 0 { now } else { self.fine.back(kept.wrapping_sub(1)) }
    }

    #[inline(always)]
    fn oldest<'a>(&'a self, now: &'a Reading) -> &'a Reading {
        let kept = if self.coarse.written < COARSE as u64 { self.coarse.written } else { COARSE as u64 };
        if kept == 0 || self.fine.written <= FINE as u64 {
            self.oldest_fine(now)
        } else {
            self.coarse.back(kept.wrapping_sub(1))
        }
    }
}

/// The reading at `at` between two neighbours: every part grows evenly from one to the other.
#[inline(always)]
fn between(before: &Reading, after: &Reading, at: u64, into: &mut Parts) {
    let span = after.at.wrapping_sub(before.at);
    let gone = at.wrapping_sub(before.at);
    *into = before.sums;
    if gone == 0 || after.at <= before.at {
        return;
    }
    if gone >= span {
        *into = after.sums;
        return;
    }
    // In 2^-20 of the span: a span of 2^43 ns is more than two hours.
    let share = (gone << 20) / span;
    let (mut given, mut most, mut main) = (0_u64, 0_u64, 0_u64);
    for (i, sum) in into.iter_mut().enumerate() {
        let grown = after.sums[i].wrapping_sub(before.sums[i]);
        let part = grown.wrapping_mul(share) >> 20;
        *sum = sum.wrapping_add(part);
        given = given.wrapping_add(part);
        let more = mask_if_later(grown, most);
        most = (grown & more) | (most & !more);
        main = (i as u64 & more) | (main & !more);
    }
    // What rounding left out goes to the part that grew most.
    let main = main as usize & (cause::COUNT - 1);
    into[main] = into[main].wrapping_add(gone.wrapping_sub(given));
}
