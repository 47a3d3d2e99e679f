//! How the clock goes with the work from hand to hand.
//!
//! In: a wake, by a thread that may have handed work over. Out: the hand's time as that of the thread which waited for it.
//! Invariant: what is taken over lies between the begin of the sleep and the wake, and fills that span. Deliberately
//! absent: who woke whom, which the hooks know.

use super::{Thread, Woken};
use crate::cause;
use crate::history::smaller;

/// Segments of a hand's clock that a wake carries over one by one.
pub const CARRIED: usize = 16;

impl Thread {
    /// Does a wake by a thread with that [`Thread::hand`] hand work to this one? Work goes away from the reader of
    /// proposals: a thread that once waited for one on their path, and now lets it go on, had a lock.
    #[inline(always)]
    pub fn takes_work_of(&mut self, hand: u32) -> bool {
        if self.hand == 0 && hand != 0 {
            self.hand = hand.wrapping_add(1);
        }
        hand != 0 && hand <= self.hand
    }

    /// The hand `self` gives its last segments to a thread that it wakes: fills in `woken`. Tells whether the thread slept
    /// longer, since `since`: [`Self::hand_over_earlier`] then gives the rest.
    #[inline(always)]
    pub fn hand_over(&self, since: u64, woken: &mut Woken) -> bool {
        let kept = smaller(self.history.segments(), CARRIED as u64);
        let mut carried = 0;
        for mark in &mut woken.marks {
            let segment = self.history.mark(carried);
            if carried >= kept || segment.at() <= since {
                break;
            }
            *mark = segment;
            carried += 1;
        }
        woken.carried = carried;
        woken.carried_from = self.history.mark(carried).at();
        woken.carried_from > since
    }

    /// What the hand did from the begin of the sleep to the first segment that is carried, from looks back to both: to the
    /// latter in the first place of the scratch, to the former in the second.
    #[inline(always)]
    pub fn hand_over_earlier(&self, woken: &mut Woken) {
        for (cause, ns) in woken.earlier.iter_mut().enumerate() {
            *ns = self.scratch[0][cause].wrapping_sub(self.scratch[1][cause]);
        }
    }

    /// Takes the hand's clock over for the time of the sleep, segment by segment, so that a later look back finds what the
    /// hand did when.
    #[inline(always)]
    pub(super) fn follow_hand(&mut self) {
        if self.woken.carried_from > self.since {
            for cause in 0..cause::COUNT {
                let ns = self.woken.earlier[cause];
                self.charge(cause, smaller(ns, self.until(self.woken.carried_from)));
            }
        }
        let carried = self.woken.carried;
        for turn in 0..CARRIED as u64 {
            if turn >= carried {
                break;
            }
            let mark = self.woken.marks[carried.wrapping_sub(turn).wrapping_sub(1) as usize & (CARRIED - 1)];
            self.charge(mark.cause(), self.until(mark.at()));
        }
        self.charge(cause::UNEXPLAINED, self.until(self.woken.at));
    }
}
