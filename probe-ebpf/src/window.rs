//! The in-flight window of a link: proposals that were seen and not yet acknowledged.
//!
//! zxids of an epoch are consecutive, so a ring indexed by the counter replaces a hash. In: zxids of
//! proposals and ACKs. Out: the entry that an ACK closes, and how many were passed over. Invariant:
//! `seen = taken + expired + in flight` at every moment. One side pushes (the direction that carries
//! proposals), the other takes; each writes only its own index. Deliberately absent: instants' meaning.

/// Proposals in flight that a window remembers. A follower that is further behind loses the oldest,
/// which are counted as expired.
pub const CAPACITY: u32 = 8192;
const MASK: u32 = CAPACITY - 1;

/// Instants of a proposal in flight, monotonic ns.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// `arrived` or `sent`; the lowest two bits carry [`Entry::NO_ARRIVAL`] and [`Entry::COARSE`].
    pub began: u64,
    /// `read`; 0 at the leader.
    pub read_at: u64,
    /// Number of the receipt that says what the time up to `read` went to. At the leader the sequence number after the
    /// proposal's last byte.
    pub receipt: u64,
}

/// Ring of entries.
pub type Ring = [Entry; CAPACITY as usize];

impl Entry {
    /// The arrival was not seen.
    pub const NO_ARRIVAL: u64 = 1;
    /// The arrival is coarse.
    pub const COARSE: u64 = 2;

    /// When it began, to 4 ns.
    #[inline(always)]
    #[must_use]
    pub fn began_at(&self) -> u64 {
        self.began & !3
    }
}

/// What a window does with its proposals: values of [`Window::mode`].
pub mod mode {
    /// Attached in mid-stream: nothing counts until an ACK has met its proposal.
    pub const UNCONFIRMED: u32 = 0;
    /// The learner is synchronising: what is replayed to it is not measured.
    pub const JOINING: u32 = 1;
    /// Every proposal counts.
    pub const LIVE: u32 = 2;
}

/// Indices of the ring.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Epoch of all entries.
    pub epoch: u32,
    /// Counter of the oldest in flight.
    pub low: u32,
    /// Counter after the newest.
    pub high: u32,
    /// One of [`mode`].
    pub mode: u32,
    /// zxids before this one are not measured.
    pub live_from: u64,
    /// Proposals that entered before the present run of consecutive ones.
    pub run_base: u64,
    /// Of all that entered, those that do not count.
    pub skipped: u64,
    /// Counter of the first of the present run.
    pub run_from: u32,
    /// Explicit padding.
    pub reserved: u32,
}

/// What became of the proposals when something happened to the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Live proposals that will never be acknowledged here.
    pub expired: u32,
    /// 1 when the zxid was not the successor of the one before.
    pub gap: u32,
    /// 1 when the proposal counts.
    pub live: u32,
}

/// What an ACK did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It closes this entry; `expired` live ones before it were passed over; with `confirmed` 1 the window
    /// begins to count at it.
    Entry {
        /// Instants of the proposal.
        entry: Entry,
        /// Live proposals passed over.
        expired: u32,
        /// 1 when proposals begin to count with this one.
        confirmed: u32,
    },
    /// It closes a proposal that is not measured (replayed to a joining learner).
    Replayed,
    /// Its proposal was overwritten; `expired` live ones are lost with it, this one included.
    Overrun {
        /// Live proposals passed over.
        expired: u32,
    },
    /// No such proposal is in flight.
    Unknown,
}

#[inline(always)]
fn parts(zxid: u64) -> (u32, u32) {
    ((zxid >> 32) as u32, zxid as u32)
}

impl Window {
    /// A window that waits to be confirmed.
    pub const NEW: Self = Self {
        epoch: 0,
        low: 0,
        high: 0,
        mode: mode::UNCONFIRMED,
        live_from: 0,
        run_base: 0,
        skipped: 0,
        run_from: 0,
        reserved: 0,
    };

    /// Live proposals seen. Derived from what the pushing side alone writes, and from one mark that the other
    /// side sets once: two counters that both sides add to would lose additions.
    #[inline(always)]
    #[must_use]
    pub fn seen(&self) -> u64 {
        if self.mode != mode::LIVE {
            return self.skipped; // see `stop_counting`
        }
        self.entered_before(self.high).wrapping_sub(self.skipped)
    }

    /// Proposals that entered before counter `counter` of the present run.
    #[inline(always)]
    fn entered_before(&self, counter: u32) -> u64 {
        self.run_base.wrapping_add(counter.wrapping_sub(self.run_from) as u64)
    }

    /// Counts from counter `from` of the present run on. While nothing counts, `skipped` keeps what was seen.
    #[inline(always)]
    fn count_from(&mut self, from: u32) {
        self.skipped = self.entered_before(from).wrapping_sub(self.skipped);
        self.mode = mode::LIVE;
    }

    /// Another mode than LIVE begins.
    #[inline(always)]
    pub fn stop_counting(&mut self, mode: u32) {
        self.skipped = self.seen();
        self.mode = mode;
    }

    /// Live proposals in flight.
    #[inline(always)]
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.live_before(self.high)
    }

    /// Live proposals from `low` up to `end`.
    #[inline(always)]
    fn live_before(&self, end: u32) -> u32 {
        if self.mode != mode::LIVE {
            return 0;
        }
        let (epoch, from) = parts(self.live_from);
        let low = if epoch == self.epoch && from > self.low { from } else { self.low };
        if epoch > self.epoch { 0 } else { end.saturating_sub(low) }
    }

    /// Is this the ACK of a proposal that is about to enter?
    #[inline(always)]
    #[must_use]
    pub fn awaits(&self, zxid: u64) -> bool {
        let (epoch, counter) = parts(zxid);
        self.mode == mode::LIVE
            && epoch == self.epoch
            && counter.wrapping_sub(self.high) < crate::overtaken::CAPACITY
    }

    /// The proposal that just entered was acknowledged before: it leaves at once. Gives the live ones before it that it
    /// passes over: ACKs come in order, so none will come for them.
    #[inline(always)]
    pub fn leave_at_once(&mut self, zxid: u64) -> u32 {
        let counter = zxid as u32;
        let expired = self.live_before(counter);
        self.low = counter.wrapping_add(1);
        expired
    }

    /// A proposal enters.
    #[inline(always)]
    pub fn push(&mut self, ring: &mut Ring, zxid: u64, entry: Entry) -> Pushed {
        let (epoch, counter) = parts(zxid);
        let mut pushed = Pushed::default();
        if counter == u32::MAX {
            return pushed; // the leader steps down before it proposes this one (Leader.propose)
        }
        if epoch != self.epoch || counter != self.high {
            pushed.gap = (self.mode == mode::LIVE && self.epoch != 0) as u32;
            pushed.expired = self.in_flight();
            self.run_base = self.entered_before(self.high);
            self.run_from = counter;
            self.epoch = epoch;
            self.low = counter;
            self.high = counter;
        }
        ring[(counter & MASK) as usize] = entry;
        self.high = counter.wrapping_add(1);
        pushed.live = (self.mode == mode::LIVE && zxid >= self.live_from) as u32;
        if self.mode == mode::LIVE && zxid < self.live_from {
            self.skipped = self.skipped.wrapping_add(1); // of an epoch before the one that is live
        }
        pushed
    }

    /// An ACK leaves or arrives.
    #[inline(always)]
    pub fn take(&mut self, ring: &Ring, zxid: u64) -> Taken {
        let (epoch, counter) = parts(zxid);
        let here = epoch == self.epoch && counter >= self.low && counter < self.high;
        if !here {
            let replayed = self.mode == mode::JOINING || (self.mode == mode::LIVE && zxid < self.live_from);
            return if replayed { Taken::Replayed } else { Taken::Unknown };
        }
        if self.mode == mode::JOINING || (self.mode == mode::LIVE && zxid < self.live_from) {
            self.low = counter.wrapping_add(1);
            return Taken::Replayed;
        }
        let overrun = self.high.wrapping_sub(counter) > CAPACITY;
        let mut confirmed = 0;
        if self.mode == mode::UNCONFIRMED {
            if overrun || ring[(counter & MASK) as usize].began & Entry::NO_ARRIVAL != 0 {
                return Taken::Unknown; // overwritten, or on its way when the probe came
            }
            self.live_from = zxid;
            self.count_from(counter);
            confirmed = 1;
        }
        let expired = self.live_before(counter);
        self.low = counter.wrapping_add(1);
        if overrun {
            return Taken::Overrun { expired: expired + 1 };
        }
        Taken::Entry { entry: ring[(counter & MASK) as usize], expired, confirmed }
    }

    /// The learner was told UPTODATE: what comes now counts.
    #[inline(always)]
    pub fn go_live(&mut self, epoch: u32) {
        self.count_from(self.high);
        let here = ((self.epoch as u64) << 32) | self.high as u64;
        let epoch_begins = (epoch as u64) << 32;
        // Replayed proposals may be of an earlier epoch; the new one begins at its own first counter.
        self.live_from = if here > epoch_begins { here } else { epoch_begins };
        if epoch > self.epoch {
            self.epoch = 0; // the first proposal of the epoch opens the window anew
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::boxed::Box;

    fn ring() -> Box<Ring> {
        std::vec![Entry::default(); CAPACITY as usize].into_boxed_slice().try_into().unwrap()
    }

    fn live(epoch: u32) -> Window {
        let mut w = Window { mode: mode::JOINING, ..Window::default() };
        w.go_live(epoch);
        w
    }

    fn zxid(counter: u32) -> u64 {
        (1 << 32) | u64::from(counter)
    }

    #[test]
    fn acks_close_their_proposals_in_order() {
        let (mut r, mut w) = (ring(), live(1));
        for c in 1..=3 {
            let pushed = w.push(&mut r, zxid(c), Entry { began: u64::from(c) * 8, read_at: 0, receipt: 0 });
            assert_eq!(pushed, Pushed { expired: 0, gap: 0, live: 1 });
        }
        let Taken::Entry { entry, expired, confirmed } = w.take(&r, zxid(1)) else { panic!() };
        assert_eq!((entry.began_at(), expired, confirmed), (8, 0, 0));
        assert!(matches!(w.take(&r, zxid(3)), Taken::Entry { expired: 1, .. }));
        assert_eq!(w.take(&r, zxid(3)), Taken::Unknown);
        assert_eq!(w.in_flight(), 0);
    }

    #[test]
    fn replayed_proposals_do_not_count() {
        let (mut r, mut w) = (ring(), Window { mode: mode::JOINING, ..Window::default() });
        w.push(&mut r, zxid(7), Entry::default());
        w.push(&mut r, zxid(8), Entry::default());
        w.go_live(1);
        assert_eq!(w.push(&mut r, zxid(9), Entry::default()).live, 1);
        assert_eq!(w.in_flight(), 1);
        assert_eq!(w.take(&r, zxid(7)), Taken::Replayed);
        assert_eq!(w.take(&r, zxid(8)), Taken::Replayed);
        assert!(matches!(w.take(&r, zxid(9)), Taken::Entry { expired: 0, .. }));
    }

    #[test]
    fn an_overtaken_proposal_leaves_those_before_it_behind() {
        let (mut r, mut w) = (ring(), Window { mode: mode::JOINING, ..Window::default() });
        w.push(&mut r, zxid(7), Entry::default());
        w.go_live(1);
        w.push(&mut r, zxid(8), Entry::default());
        assert_eq!(w.leave_at_once(zxid(8)), 0, "one that does not count waits before it");
        assert_eq!((w.seen(), w.in_flight()), (1, 0));
        w.push(&mut r, zxid(9), Entry::default());
        w.push(&mut r, zxid(10), Entry::default());
        assert_eq!(w.leave_at_once(zxid(10)), 1, "one that counts");
        assert_eq!((w.seen(), w.in_flight()), (3, 0));
    }

    #[test]
    fn replay_of_an_older_epoch_leaves_the_new_one_whole() {
        let (mut r, mut w) = (ring(), Window { mode: mode::JOINING, ..Window::default() });
        w.push(&mut r, zxid(900), Entry::default());
        w.go_live(2);
        let pushed = w.push(&mut r, (2 << 32) | 1, Entry::default());
        assert_eq!(pushed, Pushed { expired: 0, gap: 0, live: 1 });
        assert_eq!(w.take(&r, zxid(900)), Taken::Replayed);
        assert_eq!(w.in_flight(), 1);
    }

    #[test]
    fn mid_stream_counts_from_the_first_ack_that_meets_its_proposal() {
        let (mut r, mut w) = (ring(), Window::default());
        assert_eq!(w.push(&mut r, zxid(50), Entry::default()).live, 0);
        w.push(&mut r, zxid(51), Entry::default());
        assert_eq!(w.take(&r, zxid(49)), Taken::Unknown);
        assert!(matches!(w.take(&r, zxid(50)), Taken::Entry { expired: 0, confirmed: 1, .. }));
        assert_eq!((w.in_flight(), w.seen()), (1, 2));
    }

    #[test]
    fn an_overrun_is_counted() {
        let (mut r, mut w) = (ring(), live(1));
        for c in 1..=CAPACITY + 10 {
            w.push(&mut r, zxid(c), Entry::default());
        }
        assert_eq!(w.take(&r, zxid(10)), Taken::Overrun { expired: 10 });
        assert!(matches!(w.take(&r, zxid(11)), Taken::Entry { expired: 0, .. }));
    }

    proptest! {
        /// Whatever comes: seen = taken + expired + in flight, and an ACK only ever closes a proposal that
        /// was pushed.
        #[test]
        fn nothing_is_lost(
            mode in 0_u32..3,
            events in proptest::collection::vec((any::<bool>(), 0_u32..12, 0_u8..20), 0..400),
        ) {
            let (mut r, mut w) = (ring(), Window { mode, epoch: 1, low: 1, high: 1, run_from: 1, ..Window::NEW });
            let (mut taken, mut lost, mut next) = (0_u32, 0_u32, 1_u32);
            let mut pushed_zxids = std::collections::BTreeSet::new();
            for (push, jitter, odd) in events {
                if push {
                    if odd == 0 {
                        next += jitter; // a gap
                    }
                    let p = w.push(&mut r, zxid(next), Entry { began: u64::from(next) << 2, read_at: 0, receipt: 0 });
                    pushed_zxids.insert(next);
                    next += 1;
                    lost += p.expired;
                } else if odd == 1 && w.mode == mode::JOINING {
                    w.go_live(1);
                } else {
                    let counter = (w.low + jitter / 4).saturating_sub(u32::from(odd == 2));
                    match w.take(&r, zxid(counter)) {
                        Taken::Entry { entry, expired, .. } => {
                            prop_assert!(pushed_zxids.contains(&counter));
                            prop_assert_eq!(entry.began_at(), u64::from(counter) << 2);
                            lost += expired;
                            taken += 1;
                        }
                        Taken::Overrun { expired } => lost += expired,
                        Taken::Replayed | Taken::Unknown => {}
                    }
                }
                prop_assert_eq!(w.seen(), u64::from(taken + lost + w.in_flight()));
            }
        }
    }
}
