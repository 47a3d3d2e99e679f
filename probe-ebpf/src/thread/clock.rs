//! Asking a clock for the past.
//!
//! In: a span. Out: its parts, in the scratch of the thread that asks; they sum to its length. Deliberately absent: how a clock
//! comes to know.

use super::Thread;

/// A thread's clock that can be asked for the past.
pub trait Clock {
    /// The thread.
    fn thread(&mut self) -> &mut Thread;

    /// What the clock read at `at`, into `scratch[into]`. The clock must be settled since.
    fn look_back(&mut self, at: u64, into: usize);

    /// What the clock of `other` read at `at`, into `scratch[into]` of this one. Another thread may be writing it: what then
    /// does not add up is left out by [`Self::parts_of`].
    fn look_back_of(&mut self, other: &Self, at: u64, into: usize);

    /// The parts of the span from `from` to `to` into `scratch[0]`, if the segments that are kept one by one reach back so
    /// far. The clock must be settled since.
    fn recent(&mut self, from: u64, to: u64) -> bool;

    /// As [`Self::parts`], of `other`.
    #[inline(always)]
    fn parts_of(&mut self, other: &Self, from: u64, to: u64) {
        self.look_back_of(other, to, 0);
        self.look_back_of(other, from, 1);
        self.thread().subtract(to.saturating_sub(from));
    }

    /// The parts of the span from `from` to `to`, both up to the last settled instant, into `scratch[0]` of the thread;
    /// they sum to its length. For the thread itself.
    #[inline(always)]
    fn parts(&mut self, from: u64, to: u64) {
        if !self.recent(from, to) {
            self.look_back(to, 0);
            self.look_back(from, 1);
            self.thread().subtract(to.saturating_sub(from));
        }
    }
}

impl Clock for Thread {
    #[inline(always)]
    fn thread(&mut self) -> &mut Thread {
        self
    }

    #[inline(always)]
    fn look_back(&mut self, at: u64, into: usize) {
        self.history.at(at, self.since, &self.sums, &mut self.scratch[into & 1]);
    }

    #[inline(always)]
    fn recent(&mut self, from: u64, to: u64) -> bool {
        self.history.span(from, to, self.since, &mut self.scratch[0]) <= from
    }

    #[inline(always)]
    fn look_back_of(&mut self, other: &Self, at: u64, into: usize) {
        other.history.at(at, other.since, &other.sums, &mut self.scratch[into & 1]);
    }
}
