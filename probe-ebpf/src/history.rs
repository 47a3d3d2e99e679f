//! What a thread's clock read at earlier instants.
//!
//! In: segments (where each ended, and its cause), in order. Out: the sums by cause at any instant. The last segments are
//! kept one by one, a word each; behind them readings a few milliseconds apart. Invariant: between two instants that are
//! remembered the parts sum to the time between them, exactly; between two neighbouring readings of long ago a part is
//! taken to grow evenly. Deliberately absent: clocks, and what the causes mean.

use crate::cause::{self, Parts};

/// Segments that are kept one by one.
pub const FINE: usize = 128;
/// Readings at least [`COARSE_NS`] apart.
pub const COARSE: usize = 128;
/// 128 of them reach back two seconds.
pub const COARSE_NS: u64 = 16_000_000;

/// Where a segment ended, and its cause. One word: monotonic nanoseconds stay below 2^60 for 36 years.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark(u64);

impl Mark {
    /// A segment that ended at `at`, monotonic ns.
    #[inline(always)]
    #[must_use]
    pub const fn new(at: u64, cause: usize) -> Self {
        Self((at << 4) | cause as u64)
    }

    /// Where it ended, monotonic ns.
    #[inline(always)]
    #[must_use]
    pub const fn at(self) -> u64 {
        self.0 >> 4
    }

    /// Its cause.
    #[inline(always)]
    #[must_use]
    pub const fn cause(self) -> usize {
        self.0 as usize & (cause::COUNT - 1)
    }
}

const _: () = assert!(cause::COUNT == 16 && FINE.is_power_of_two() && COARSE.is_power_of_two());

/// What a clock read.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// When, monotonic ns; 0 when there is none.
    pub at: u64,
    /// Sums by cause, ns.
    pub sums: Parts,
}

/// Earlier readings of one clock.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct History {
    /// Marks ever written. The first only tells where the clock began.
    written: u64,
    /// Readings of long ago ever written.
    coarse_written: u64,
    /// When the last of them was made, monotonic ns.
    coarse_at: u64,
    /// The last segments.
    fine: [Mark; FINE],
    /// Long ago.
    coarse: [Reading; COARSE],
}

impl History {
    /// Nothing.
    pub const EMPTY: Self = Self {
        written: 0,
        coarse_written: 0,
        coarse_at: 0,
        fine: [Mark(0); FINE],
        coarse: [Reading { at: 0, sums: [0; cause::COUNT] }; COARSE],
    };

    /// Forgets all; a clock begins at `at` and has summed nothing.
    #[inline(always)]
    pub fn begin(&mut self, at: u64) {
        self.written = 1;
        self.fine[0] = Mark::new(at, cause::UNEXPLAINED);
        self.coarse_written = 0;
        self.remember(at, &[0; cause::COUNT]);
    }

    /// A segment ended at `at`, later than the last one.
    #[inline(always)]
    pub fn push(&mut self, at: u64, cause: usize) {
        // One that goes on moves its mark: arithmetic where a branch would have the verifier walk two ways.
        let other = (self.mark(0).0 ^ cause as u64) & (cause::COUNT as u64 - 1);
        let goes_on = 1 - (other.wrapping_add(cause::COUNT as u64 - 1) >> 4);
        let place = self.written.wrapping_sub(goes_on);
        self.fine[place as usize & (FINE - 1)] = Mark::new(at, cause);
        self.written = place.wrapping_add(1);
    }

    /// The clock reads `sums` at `at`, the newest mark: remembered for long ago when the last such reading is.
    #[inline(always)]
    pub fn keep(&mut self, at: u64, sums: &Parts) {
        if at.wrapping_sub(self.coarse_at) >= COARSE_NS {
            self.remember(at, sums);
        }
    }

    #[inline(always)]
    fn remember(&mut self, at: u64, sums: &Parts) {
        let place = &mut self.coarse[self.coarse_written as usize & (COARSE - 1)];
        place.at = at;
        place.sums = *sums;
        self.coarse_at = at;
        self.coarse_written = self.coarse_written.wrapping_add(1);
    }

    /// The mark `back` before the newest, 0 being the newest itself.
    #[inline(always)]
    #[must_use]
    pub fn mark(&self, back: u64) -> Mark {
        self.fine[self.written.wrapping_sub(back).wrapping_sub(1) as usize & (FINE - 1)]
    }

    /// Marks ever written.
    #[inline(always)]
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// What was charged to `from` since `since`, when the clock read `before` of it, was `to` all the time. Of the last
    /// `marks` segments and as many readings: there must not have been more.
    #[inline(always)]
    pub fn retell(&mut self, since: u64, from: usize, to: usize, before: u64, marks: u64) {
        for back in 0..marks {
            let place = self.written.wrapping_sub(back).wrapping_sub(1) as usize & (FINE - 1);
            let mark = self.fine[place];
            let other = mask_if_later((mark.0 ^ from as u64) & (cause::COUNT as u64 - 1), 0);
            self.fine[place] = Mark(mark.0 ^ ((from ^ to) as u64 & mask_if_later(mark.at(), since) & !other));
            let place = self.coarse_written.wrapping_sub(back).wrapping_sub(1) as usize & (COARSE - 1);
            let reading = &mut self.coarse[place];
            move_to(&mut reading.sums, from, to, before, mask_if_later(reading.at, since));
        }
    }

    /// Segments that are kept, of which begin and end are known.
    #[inline(always)]
    #[must_use]
    pub fn segments(&self) -> u64 {
        let written = self.written.wrapping_sub(1);
        if written < FINE as u64 - 1 { written } else { FINE as u64 - 1 }
    }

    /// What the clock read at `at`, given that it reads `sums` at `since`, the newest mark; written into `into`. Before
    /// anything that is remembered, the time up to the oldest instant is unexplained.
    #[inline(always)]
    pub fn at(&self, at: u64, since: u64, sums: &Parts, into: &mut Parts) {
        let end = self.lately(at, since, sums, into);
        if end > at {
            self.long_ago(at, end, into);
        }
    }

    /// As [`Self::at`], but no further back than the segments that are kept one by one: gives the instant of the reading that
    /// was written, `at` or where they begin.
    #[inline(always)]
    pub fn lately(&self, at: u64, since: u64, sums: &Parts, into: &mut Parts) -> u64 {
        copy(sums, into);
        let (mut end, kept) = (since, self.segments());
        for back in 0..FINE as u64 - 1 {
            if end <= at || back >= kept {
                break;
            }
            let begin = self.mark(back.wrapping_add(1)).at();
            let later = mask_if_later(begin, at);
            let from = (begin & later) | (at & !later);
            let part = &mut into[self.mark(back).cause()];
            *part = part.wrapping_sub(end.wrapping_sub(from));
            end = from;
        }
        end
    }

    /// The parts of the span from `from` to `to`, which is at or before `since`, the newest mark, into `into`. Gives the instant
    /// where what is kept one by one begins, or one before `from`: up to there nothing is in the parts.
    #[inline(always)]
    pub fn span(&self, from: u64, to: u64, since: u64, into: &mut Parts) -> u64 {
        *into = [0; cause::COUNT];
        let (mut end, kept) = (since, self.segments());
        for back in 0..FINE as u64 - 1 {
            if end <= from || back >= kept {
                break;
            }
            let begin = self.mark(back.wrapping_add(1)).at();
            let before = mask_if_later(from, begin);
            let first = (from & before) | (begin & !before);
            let ns = smaller(end, to).wrapping_sub(first);
            let part = &mut into[self.mark(back).cause()];
            // Nothing of a segment after the span.
            *part = part.wrapping_add(ns & !mask_if_later(first, to));
            end = begin;
        }
        end
    }

    /// From the reading `into` at `end` back to `at`, before the segments that are kept one by one.
    #[inline(always)]
    pub fn long_ago(&self, at: u64, end: u64, into: &mut Parts) {
        let kept = if self.coarse_written < COARSE as u64 { self.coarse_written } else { COARSE as u64 };
        let mut end = end;
        let back = self.find(at);
        // The reading after it, or the oldest there is; of those that the segments cover none is of use.
        let later = if back < kept { back } else { kept };
        if later > 0 {
            let after = self.reading(later.wrapping_sub(1));
            if after.at < end {
                end = after.at;
                copy(&after.sums, into);
            }
        }
        if back < kept {
            between(self.reading(back), end, at, into);
        } else {
            into[cause::UNEXPLAINED] = into[cause::UNEXPLAINED].wrapping_sub(end.saturating_sub(at));
        }
    }

    #[inline(always)]
    fn reading(&self, back: u64) -> &Reading {
        &self.coarse[self.coarse_written.wrapping_sub(back).wrapping_sub(1) as usize & (COARSE - 1)]
    }

    /// How far back the newest reading at or before `at` lies; `COARSE` when all that are kept are later. Free of
    /// branches but for the turns themselves: see docs/journal on the verifier.
    #[inline(always)]
    fn find(&self, at: u64) -> u64 {
        let mut back = 0_u64;
        let mut step = COARSE as u64 / 2;
        // The first `back` readings are later than `at`. What was never written, or by an earlier clock, reads less.
        while step > 0 {
            let probe = self.reading(back.wrapping_add(step).wrapping_sub(1));
            back = back.wrapping_add(step & mask_if_later(probe.at, at));
            step /= 2;
        }
        let last = self.reading(back);
        back.wrapping_add(1 & mask_if_later(last.at, at))
    }
}

/// Copies word by word: two arrays of which the compiler cannot tell that they lie apart would be copied by a function that
/// goes byte by byte, and the verifier with it.
#[inline(always)]
fn copy(from: &Parts, to: &mut Parts) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = core::hint::black_box(*from);
    }
}

/// Moves what grew since `before` of one cause to another, where all bits of `mask` are set.
#[inline(always)]
pub(crate) fn move_to(sums: &mut Parts, from: usize, to: usize, before: u64, mask: u64) {
    let more = sums[from].wrapping_sub(before) & mask;
    sums[from] = sums[from].wrapping_sub(more);
    sums[to] = sums[to].wrapping_add(more);
}

/// The smaller of two numbers below 2^63, without a branch.
#[inline(always)]
pub(crate) fn smaller(a: u64, b: u64) -> u64 {
    let later = mask_if_later(a, b);
    (b & later) | (a & !later)
}

/// All ones when `a > b`; both are below 2^63. The compiler is kept from knowing that it is one of two values: it would
/// branch on it, and the verifier walk through both ways of each of many turns.
#[inline(always)]
pub(crate) fn mask_if_later(a: u64, b: u64) -> u64 {
    let sign = core::hint::black_box(b.wrapping_sub(a)) >> 63;
    core::hint::black_box(0_u64.wrapping_sub(sign))
}

/// From the reading `into` at `end` back to `at`, which lies between it and the reading `before`: every part grows evenly
/// from one to the other.
#[inline(always)]
fn between(before: &Reading, end: u64, at: u64, into: &mut Parts) {
    let span = end.wrapping_sub(before.at);
    let gone = at.wrapping_sub(before.at);
    if gone == 0 || gone >= span {
        if gone == 0 {
            copy(&before.sums, into);
        }
        return;
    }
    // In 2^-20 of the span: a span of 2^43 ns is more than two hours.
    let share = (gone << 20) / span;
    let (mut given, mut most, mut main) = (0_u64, 0_u64, 0_u64);
    for (i, sum) in into.iter_mut().enumerate() {
        let grown = sum.wrapping_sub(before.sums[i]);
        let part = grown.wrapping_mul(share) >> 20;
        *sum = before.sums[i].wrapping_add(part);
        given = given.wrapping_add(part);
        let more = mask_if_later(grown, most);
        most = (grown & more) | (most & !more);
        main = (i as u64 & more) | (main & !more);
    }
    // What rounding left out goes to the part that grew most.
    // The compiler knows that this is below COUNT; the verifier of 6.1 does not.
    let main = core::hint::black_box(main) as usize & (cause::COUNT - 1);
    into[main] = into[main].wrapping_add(gone.wrapping_sub(given));
}
