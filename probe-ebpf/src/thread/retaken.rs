//! Waits that a thread takes in slices.
//!
//! In: sleeps on a futex, and what ended them. Out: which of them are one wait. A JVM's thread that waits for a
//! monitor sleeps for 1, 8, 64, 512 and then 1000 ms, and looks for itself after each: its timer ends all but the
//! last sleep, which the owner ends. A sleep that a timer ended may as well be what it seems, so it is `sleep`
//! until another thread of the process ends a later one on the same word; then all of them were `lock`.
//! Invariant: the sums stay as large as they were, in the past as well. Deliberately absent: waits for work, whose
//! time is that of the hand that ends them.

use super::{Thread, state};
use crate::cause;
use crate::history::{FINE, move_to};

/// As many segments are corrected at most: of some twenty slices. A longer wait is a new one from there on.
const CORRECTED: u64 = FINE as u64 / 2;

/// Sleeps on one futex of which a timer ended all but the last.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slices {
    /// Address of the futex; 0 when there are none.
    pub word: u64,
    /// Begin of the first, monotonic ns.
    pub since: u64,
    /// What the clock had as `sleep` at that moment.
    pub slept_ns: u64,
    /// How many segments it had marked.
    pub written: u64,
}

impl Slices {
    /// None.
    pub const NONE: Self = Self { word: 0, since: 0, slept_ns: 0, written: 0 };
}

impl Thread {
    /// The thread goes to sleep, or is preempted. The clock is settled.
    #[inline(always)]
    pub(super) fn take(&mut self, state: u32) {
        if state == state::FUTEX {
            if self.slices.word != self.word || self.is_too_long() {
                self.slices.word = self.word;
                self.slices.since = self.since;
                self.slices.slept_ns = self.sums[cause::SLEEP];
                self.slices.written = self.history.written();
            }
        } else if state != state::RUNNABLE {
            self.slices.word = 0;
        }
    }

    /// Has a timer ended slices before the last one?
    #[inline(always)]
    pub(super) fn is_retaken(&self) -> bool {
        self.slices.word != 0 && self.sums[cause::SLEEP] != self.slices.slept_ns
    }

    /// Another thread of the process ends the last slice, which is charged already: the ones before were no sleep
    /// either. Gives the begin of the wait.
    #[inline(never)]
    pub(super) fn retake(&mut self) -> u64 {
        if self.is_too_long() {
            return self.since;
        }
        let Slices { since, slept_ns, .. } = self.slices;
        self.history.retell(since, cause::SLEEP, cause::LOCK, slept_ns, CORRECTED);
        move_to(&mut self.sums, cause::SLEEP, cause::LOCK, slept_ns, u64::MAX);
        since
    }

    /// Are the readings since the first slice more than can be corrected?
    #[inline(always)]
    fn is_too_long(&self) -> bool {
        self.history.written().wrapping_sub(self.slices.written) >= CORRECTED
    }
}
