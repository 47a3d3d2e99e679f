//! Where a thread is at the ticks of the timer that come upon it.
//!
//! In: ticks, each in the kernel or in the thread's own code. Out: spans that it spent on a CPU in the kernel, as far as ticks can
//! tell. Invariant: a span lies within the open segment, so the thread had the CPU all the time, and spans follow one another.
//! Deliberately absent: the stack, which the hook takes, and the charge: the span is part of what the clock sums up anyway.

use super::{Thread, state};

/// A span is told once it is this long, ns: less than the time between two ticks, for on a busy host a thread has the CPU for a few
/// milliseconds at a time.
pub const TOLD_NS: u64 = 1_000_000;

/// What the last ticks found.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticks {
    /// The last one, monotonic ns.
    pub at: u64,
    /// Since when the thread is in the kernel and nothing was told, monotonic ns; 0 when the last tick found it in its own code.
    pub kernel_since: u64,
}

impl Ticks {
    /// None.
    pub const NONE: Self = Self { at: 0, kernel_since: 0 };
}

impl Thread {
    /// A tick finds the thread on a CPU. Gives the begin of the span up to now that is to be told, 0 when none is.
    #[inline(always)]
    pub fn tick(&mut self, now: u64, in_kernel: bool) -> u64 {
        let Ticks { at, kernel_since } = self.ticks;
        // What lies before the open segment was something else.
        let since = if at < self.since {
            self.since
        } else if kernel_since != 0 {
            kernel_since
        } else {
            at
        };
        self.ticks = Ticks { at: now, kernel_since: 0 };
        if !in_kernel || self.state != state::RUNNING {
            return 0;
        }
        self.ticks.kernel_since = since;
        if now.saturating_sub(since) < TOLD_NS {
            return 0;
        }
        self.ticks.kernel_since = now;
        since
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::boxed::Box;
    use std::vec::Vec;

    use super::*;
    use crate::thread::Overlay;

    const MS: u64 = 1_000_000;

    fn running(since_ms: u64) -> Box<Thread> {
        let mut thread = Box::new(Thread::FREE);
        thread.begin(0, 7, 7, since_ms * MS, true);
        thread
    }

    /// Ticks as (ms, in the kernel), and what is told of each: the begin in ms.
    fn told(thread: &mut Thread, ticks: &[(u64, bool)]) -> Vec<u64> {
        ticks.iter().map(|(at, in_kernel)| thread.tick(at * MS, *in_kernel) / MS).collect()
    }

    #[test]
    fn a_long_time_in_the_kernel_is_told_in_spans_that_follow_one_another() {
        let mut thread = running(10);
        assert_eq!(told(&mut thread, &[(12, true), (16, true), (20, true)]), [10, 12, 16]);
        assert_eq!(thread.tick(20 * MS + TOLD_NS - 1, true), 0);
        assert_eq!(told(&mut thread, &[(24, true)]), [20]);
    }

    #[test]
    fn own_code_between_two_ticks_ends_it() {
        let mut thread = running(10);
        let ticks = [(12, true), (16, false), (20, true), (24, true), (28, false)];
        assert_eq!(told(&mut thread, &ticks), [10, 0, 16, 20, 0]);
    }

    #[test]
    fn what_was_before_the_open_segment_does_not_count() {
        let mut thread = running(10);
        assert_eq!(told(&mut thread, &[(12, true)]), [10]);
        thread.switch_out(17 * MS, state::RUNNABLE, &Overlay::NONE);
        assert_eq!(told(&mut thread, &[(18, true)]), [0], "it has no CPU: the clock has missed a switch");
        thread.switch_in(30 * MS, &Overlay::NONE);
        assert_eq!(told(&mut thread, &[(32, true), (36, true)]), [30, 32]);
    }

    #[test]
    fn a_tick_that_interrupts_were_kept_from_comes_late_and_tells_all() {
        let mut thread = running(10);
        assert_eq!(told(&mut thread, &[(12, false), (162, true)]), [0, 12]);
        assert_eq!(told(&mut running(10), &[(160, true)]), [10]);
    }
}
