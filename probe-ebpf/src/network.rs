//! What the way between two nodes takes from a delay, as the leader's own TCP shows it.
//!
//! In: the leader's segments as they leave the host, the acknowledgements of the other end's TCP, what is sent
//! again, and the other end's timestamp in each segment that brings data. Out: how a proposal's delay splits
//! into what it waited here, what was sent again, one round trip, and what its answer waited on the way back;
//! the rest is the other node's. Invariants: the shares never exceed the delay together; a share that was not seen
//! is 0, so what is not seen counts as the other node's, and never the other way round; an answer that was held is known
//! to half a tick of the stamps.
//!
//! Why not TCP's smoothed round trip: the other end acknowledges with its next data, or 40 ms later, so it holds
//! that node's own work. The smallest round trip is free of it; so is a hole that was mended, which the other
//! end acknowledges at once; and so is the way back, because each segment is stamped when its TCP sends it.
//!
//! Deliberately absent, because no end of a connection can see it: a queue on the way out beyond this host (it
//! shows only where it drops), and an answer that was lost and had nothing behind it: its second sending carries the
//! stamp of the second.

use core::hint::black_box;

use crate::arrivals::seq_at_or_after;

/// Marks that a track holds.
pub const CAPACITY: u32 = 1024;
const MASK: u64 = CAPACITY as u64 - 1;
/// The newest marks, which are looked at first.
const NEAR: u32 = 8;

/// TCP's timestamps tick in milliseconds (`TCP_TS_HZ`, include/net/tcp.h).
const TICK_NS: u64 = 1_000_000;

/// How much slower than ours the other node's clock may run: 1 in 10,000 is more than any quartz strays, and lets a
/// queue that stands for a minute pass for 6 ms less than it is.
const DRIFT: u64 = 10_000;

/// Above this a "round trip" in µs says that none was measured yet (`~0`, net/ipv4/tcp.c).
const NO_ROUND_TRIP_US: u32 = u32::MAX >> 1;

/// Something that is true of the stream up to `end_seq`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// First sequence number of which it is not.
    pub end_seq: u32,
    /// 1 on a delivery that had to wait for what was sent again.
    pub mended: u32,
    /// An instant, or a duration, ns.
    pub ns: u64,
}

/// The last marks along a stream, in its order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Track {
    /// Marks that were ever made.
    pub made: u64,
    /// The last of them.
    pub marks: [Mark; CAPACITY as usize],
}

impl Track {
    /// No marks.
    pub const EMPTY: Self =
        Self { made: 0, marks: [Mark { end_seq: 0, mended: 0, ns: 0 }; CAPACITY as usize] };

    #[inline(always)]
    fn push(&mut self, mark: Mark) {
        self.marks[(self.made & MASK) as usize] = mark;
        self.made = self.made.wrapping_add(1);
    }

    #[inline(always)]
    fn last(&mut self) -> &mut Mark {
        &mut self.marks[(self.made.wrapping_sub(1) & MASK) as usize]
    }

    /// Where the first mark at or after `end_seq` stands. The oldest answers for nobody: marks before it may be
    /// gone, or were never made.
    #[inline(always)]
    fn place(&self, end_seq: u32) -> Option<usize> {
        let size = if self.made < CAPACITY as u64 { self.made as u32 } else { CAPACITY };
        // Mostly it is one of the newest, which share a few lines of cache.
        let mut newer = 0_u32;
        for back in 0..NEAR {
            let mark = self.marks[(self.made.wrapping_sub(back as u64 + 1) & MASK) as usize];
            let before = mark.end_seq.wrapping_sub(end_seq);
            newer = newer.wrapping_add(black_box(!before & back.wrapping_sub(size)) >> 31);
        }
        if newer < NEAR {
            let is_known = newer > 0 && newer < size;
            return if is_known {
                Some((self.made.wrapping_sub(newer as u64) & MASK) as usize)
            } else {
                None
            };
        }
        let low = self.place_of_old(end_seq, size);
        let first = self.made.wrapping_sub(size as u64);
        if low == 0 || low >= size { None } else { Some((first.wrapping_add(low as u64) & MASK) as usize) }
    }

    /// As [`Self::place`], among all `size` marks, counted from the oldest. Out of line: seldom, and long.
    #[inline(never)]
    fn place_of_old(&self, end_seq: u32, size: u32) -> u32 {
        let first = self.made.wrapping_sub(size as u64) as u32;
        let mut low = 0_u32;
        // Without branches, as in `Arrivals::first_of_many`.
        let mut turn = 0;
        while turn < 11 {
            let shift = if turn < 10 { 9 - turn } else { 0 };
            let last = low.wrapping_add((1 << shift) - 1);
            let mark = self.marks[(first.wrapping_add(last) as u64 & MASK) as usize];
            let before = mark.end_seq.wrapping_sub(end_seq);
            let inside = last.wrapping_sub(size);
            low = low.wrapping_add((black_box(before & inside) >> 31) << shift);
            turn += 1;
        }
        low
    }

    /// The first mark at or after `end_seq`, or one of zeros.
    #[inline(always)]
    #[must_use]
    pub fn find(&self, end_seq: u32) -> Mark {
        match self.place(end_seq) {
            Some(place) => self.marks[place & MASK as usize],
            None => Mark { end_seq: 0, mended: 0, ns: 0 },
        }
    }
}

/// Both ways of a connection, seen by the leader's end.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// When segments left this host.
    pub departures: Track,
    /// When the other end acknowledged them.
    pub deliveries: Track,
    /// How long the other end's segments were held on the way.
    pub holds: Track,
    /// What has left once, and what was acknowledged: first sequence numbers beyond.
    pub left_to: u32,
    /// See `left_to`.
    pub acked_to: u32,
    /// What lies before waits for what was sent again.
    pub mended_to: u32,
    /// Segments sent again.
    pub resent: u32,
    /// Segments that the other end reports to have had twice.
    pub twice: u32,
    /// 1 when the newest segment has left a second time.
    pub again: u32,
    /// First device through which the newest segment left, as an opaque number.
    pub device: u64,
    /// Smallest round trip, ns; 0 while unknown.
    pub round_trip_ns: u64,
    /// Last timestamp of the other end; 0 while there was none.
    pub stamp: u32,
    /// Explicit padding.
    pub reserved: u32,
    /// When a segment with that stamp arrives that nothing holds up, monotonic ns.
    pub due_at: u64,
    /// When the one that had it arrived.
    pub arrived_at: u64,
}

/// What a proposal's delay holds of the way, ns.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// The proposal waited unsent on this host: in TCP for the window or the pace, in a queue for its turn.
    pub unsent_ns: u64,
    /// It, or bytes before it, were lost and sent again.
    pub resent_ns: u64,
    /// One round trip, the smallest of late.
    pub round_trip_ns: u64,
    /// The answer was held on its way back, by a queue or a shaper.
    pub held_ns: u64,
}

impl Way {
    /// All of it.
    #[inline(always)]
    #[must_use]
    pub fn total(&self) -> u64 {
        self.unsent_ns + self.resent_ns + self.round_trip_ns + self.held_ns
    }
}

impl Path {
    /// Nothing was seen yet.
    pub const NEW: Self = Self {
        departures: Track::EMPTY,
        deliveries: Track::EMPTY,
        holds: Track::EMPTY,
        left_to: 0,
        acked_to: 0,
        mended_to: 0,
        resent: 0,
        twice: 0,
        again: 0,
        device: 0,
        round_trip_ns: 0,
        stamp: 0,
        reserved: 0,
        due_at: 0,
        arrived_at: 0,
    };

    /// Forgets everything: the slot has a new connection.
    #[inline(always)]
    pub fn reset(&mut self) {
        self.departures.made = 0;
        self.deliveries.made = 0;
        self.holds.made = 0;
        self.left_to = 0;
        self.acked_to = 0;
        self.mended_to = 0;
        self.resent = 0;
        self.twice = 0;
        self.again = 0;
        self.device = 0;
        self.round_trip_ns = 0;
        self.stamp = 0;
        self.due_at = 0;
        self.arrived_at = 0;
    }

    /// A segment whose data ends at `end_seq` goes to `device`. The same one may pass several (of a container, a
    /// bridge, the card): the last counts. What is sent again begins at the first device once more.
    #[inline(always)]
    pub fn on_left(&mut self, end_seq: u32, device: u64, now: u64) {
        if self.departures.made == 0 || !seq_at_or_after(self.left_to, end_seq) {
            self.departures.push(Mark { end_seq, mended: 0, ns: now });
            self.left_to = end_seq;
            self.device = device;
            self.again = 0;
        } else if device == self.device {
            self.again = 1;
        } else if self.again == 0
            && let Some(place) = self.departures.place(end_seq)
        {
            let mark = &mut self.departures.marks[place & MASK as usize];
            if mark.end_seq == end_seq {
                mark.ns = now;
            }
        }
    }

    /// TCP sends again; `sent_to` is the end of all that it has sent, which waits behind the hole.
    #[inline(always)]
    pub fn on_resent(&mut self, sent_to: u32) {
        self.resent = self.resent.wrapping_add(1);
        self.mended_to = sent_to;
    }

    /// The other end's TCP acknowledges up to `ack_seq`. `twice` is as in [`Path::on_twice`], from before this
    /// segment.
    #[inline(always)]
    pub fn on_ack(&mut self, ack_seq: u32, twice: u32, round_trip_us: u32, now: u64) {
        self.on_twice(twice);
        self.round_trip_ns = if round_trip_us > NO_ROUND_TRIP_US { 0 } else { round_trip_us as u64 * 1_000 };
        if self.deliveries.made > 0 && seq_at_or_after(self.acked_to, ack_seq) {
            return;
        }
        let mended =
            self.deliveries.made > 0 && self.resent > 0 && !seq_at_or_after(self.acked_to, self.mended_to);
        self.deliveries.push(Mark { end_seq: ack_seq, mended: mended as u32, ns: now });
        self.acked_to = ack_seq;
    }

    /// The other end has had `twice` segments twice by now. Where that grows, nothing was lost but TCP's patience: the
    /// last delivery had waited for the other end, not for the network.
    #[inline(always)]
    pub fn on_twice(&mut self, twice: u32) {
        if twice != self.twice {
            self.twice = twice;
            self.mended_to = self.acked_to;
            self.deliveries.last().mended = 0;
        }
    }

    /// Data arrived; `end_seq` is now the end of what has come in order, `stamp` the timestamp (ms, the other
    /// node's clock) of the segment that brought it, 0 when the connection has none.
    #[inline(always)]
    pub fn on_arrival(&mut self, end_seq: u32, stamp: u32, now: u64) {
        let mut held = 0;
        if stamp != 0 {
            held = self.held(stamp, now);
        }
        self.holds.push(Mark { end_seq, mended: 0, ns: held });
    }

    #[inline(always)]
    fn held(&mut self, stamp: u32, now: u64) -> u64 {
        let ticks = stamp.wrapping_sub(self.stamp);
        let before = self.arrived_at;
        if self.stamp == 0 || ticks > u32::MAX >> 1 {
            // The first one; or a clock that went back, after which nothing that was known of it holds.
            self.stamp = stamp;
            self.due_at = now;
            self.arrived_at = now;
            return 0;
        }
        let since = now.saturating_sub(before);
        let due_at = self.due_at + ticks as u64 * TICK_NS + since / DRIFT;
        self.stamp = stamp;
        self.due_at = if due_at < now { due_at } else { now };
        self.arrived_at = now;
        let late = now - self.due_at;
        // Within a tick the stamp does not tell.
        if late <= TICK_NS {
            return 0;
        }
        // Sent while the one before was still on its way: TCP holds new bytes back while its own fill the
        // queue (tcp_small_queue_check), so these may have waited there since.
        let waited = if before > self.due_at { ticks as u64 * TICK_NS } else { 0 };
        // How much of the stamp's tick had gone by when it was sent is not known: with half of it, this is off by half a
        // tick at most.
        late - TICK_NS / 2 + waited
    }

    /// How the delay of a proposal that ends at `sent_seq` splits, when its answer ends at `ack_seq`.
    #[inline(always)]
    #[must_use]
    pub fn way(&self, (began_at, ended_at): (u64, u64), sent_seq: u32, ack_seq: u32) -> Way {
        let left = self.departures.find(sent_seq);
        let delivery = self.deliveries.find(sent_seq);
        if self.deliveries.made == 0 {
            return Way::default(); // this host's kernel does not show it
        }
        let held = self.holds.find(ack_seq);
        let mended_at = if delivery.mended == 1 { delivery.ns } else { 0 };
        split((began_at, ended_at), left.ns, mended_at, self.round_trip_ns, held.ns)
    }
}

/// Splits the time from `began_at` to `ended_at`: the proposal left at `left_at` (0 when unknown), and was
/// delivered at `mended_at` if it took a second sending (else 0).
#[inline(always)]
fn split(
    (began_at, ended_at): (u64, u64),
    left_at: u64,
    mended_at: u64,
    round_trip_ns: u64,
    held_ns: u64,
) -> Way {
    let mut left = ended_at.saturating_sub(began_at);
    let unsent_ns = least(left_at.saturating_sub(began_at), left);
    left -= unsent_ns;
    let resent_ns = least(mended_at.saturating_sub(began_at + unsent_ns), left);
    left -= resent_ns;
    // Who was sent again has been there and back meanwhile.
    let round_trip_ns = least(if resent_ns > 0 { 0 } else { round_trip_ns }, left);
    left -= round_trip_ns;
    Way { unsent_ns, resent_ns, round_trip_ns, held_ns: least(held_ns, left) }
}

#[inline(always)]
fn least(a: u64, b: u64) -> u64 {
    if a < b { a } else { b }
}

#[cfg(test)]
mod tests;
