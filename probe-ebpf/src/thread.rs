//! The clock of a thread: each nanosecond of its life is in exactly one cause.
//!
//! In: what the scheduler did with the thread (out, woken, in) and where its system calls begin and end, with
//! the instants and the overlays at those instants (safepoints, throttling, interrupts). Out: sums by cause
//! for any span up to now. Invariants: the sums grow by exactly the time that passes; a span's parts sum to its
//! length. While the thread merely waits for work, its clock is that of the thread that wakes it ([`Hand`]), so
//! that a delay is charged along the proposal's path. Only the thread itself, or the scheduler on
//! its behalf, writes its clock; a waker writes [`Thread::woken`] only. Deliberately absent: how it is hooked.

use crate::cause::{self, Parts};
use crate::history::{History, Mark};
use crate::quota::Quota;
use crate::safepoint::Totals;

pub use self::clock::Clock;
pub use self::hand::CARRIED;
pub use self::retaken::Slices;
pub use self::tick::Ticks;

mod clock;
mod hand;
mod retaken;
mod tick;

/// What a thread does in its open segment: values of [`Thread::state`].
pub mod state {
    /// Nothing is known since the clock began.
    pub const UNKNOWN: u32 = 0;
    /// It has a CPU.
    pub const RUNNING: u32 = 1;
    /// It wants one.
    pub const RUNNABLE: u32 = 2;
    /// It is stopped or frozen.
    pub const STOPPED: u32 = 3;
    /// It waits for I/O.
    pub const DISK_IO: u32 = 4;
    /// It waits for something else and cannot be interrupted.
    pub const KERNEL_WAIT: u32 = 5;
    /// It sleeps on a futex.
    pub const FUTEX: u32 = 6;
    /// It sleeps in another call.
    pub const SLEEP: u32 = 7;
}

/// What the thread's time in the kernel is for: bits of [`Thread::mode`]. The higher bit wins.
pub mod mode {
    /// Inside fsync or fdatasync.
    pub const FSYNC: u32 = 1;
    /// In direct reclaim.
    pub const RECLAIM_DIRECT: u32 = 2;
    /// In reclaim for the limit of a control group.
    pub const RECLAIM_GROUP: u32 = 4;
    /// In compaction.
    pub const COMPACTION: u32 = 8;
    /// In direct reclaim or compaction, of whatever kind.
    pub const RECLAIM: u32 = RECLAIM_DIRECT | RECLAIM_GROUP | COMPACTION;
}

/// Who woke the thread: values of [`Woken::by`].
pub mod by {
    /// Nobody that is known: a timer, a signal, an interrupt.
    pub const NOBODY: u32 = 0;
    /// A thread of its process that is not on the proposal's path.
    pub const OTHER: u32 = 1;
    /// A thread that handed work over.
    pub const HAND: u32 = 2;
    /// The JVM's own thread, which ends a safepoint.
    pub const VM: u32 = 3;
}

/// What a thread's clock is for: bits of [`Thread::path`].
pub mod path {
    /// At a learner: it reads proposals or sends ACKs, or hands work over to one that does.
    pub const LEARNER: u32 = 1;
    /// At the leader: it sends proposals, or wakes one that does, however many wakes away. What holds these up delays no
    /// proposal that was sent, but every write: a stall of the leader is told by them alone.
    pub const LEADER: u32 = 2;
}

/// How long before it is seen to sleep a thread can be woken: the way from its decision to the switch, ns.
const EARLY_NS: u64 = 50_000;

/// Sums of clocks that lie over a thread's own, at one instant, ns.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overlay {
    /// Stopped for garbage collection: of the process.
    pub gc_ns: u64,
    /// Stopped for another reason: of the process.
    pub safepoint_ns: u64,
    /// Without quota: of the control group.
    pub throttled_ns: u64,
    /// Taken by interrupts: of the CPU.
    pub irq_ns: u64,
}

impl Overlay {
    /// Nothing yet.
    pub const NONE: Self = Self { gc_ns: 0, safepoint_ns: 0, throttled_ns: 0, irq_ns: 0 };

    /// The process's stops.
    #[inline(always)]
    fn safepoints(&self) -> Totals {
        Totals { gc_ns: self.gc_ns, other_ns: self.safepoint_ns }
    }
}

/// The wake that ends a sleep, and what the waker did meanwhile.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Woken {
    /// When, monotonic ns; 0 when no wake was seen.
    pub at: u64,
    /// The last wake that came before the thread was seen to sleep, monotonic ns.
    pub early_at: u64,
    /// What the kernel had counted by then of the thread's waits for a CPU (`sched_info.run_delay`), ns.
    pub run_delay_ns: u64,
    /// One of [`by`].
    pub by: u32,
    /// Thread id of the waker.
    pub tid: u32,
    /// Where the oldest of `marks` begins, monotonic ns. When that is after the sleep began, `earlier` is set.
    pub carried_from: u64,
    /// Overlays at the wake.
    pub overlay: Overlay,
    /// How many of `marks` are set.
    pub carried: u64,
    /// The hand's last segments, the newest first; the newest ends with the wake itself.
    pub marks: [Mark; CARRIED],
    /// What the hand did from the begin of the sleep to there.
    pub earlier: Parts,
}

/// A thread and its clock: the value of the thread map. What a switch touches stands together.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Thread {
    /// One of [`state`].
    pub state: u32,
    /// Bits of [`mode`].
    pub mode: u32,
    /// Number of the system call in which it sleeps.
    pub call: u32,
    /// 1 when it reads proposals, one more than the one that first handed work to it otherwise; 0 when nobody has.
    pub hand: u32,
    /// Index of its process's safepoint clock plus one; 0 when there is none.
    pub jvm: u32,
    /// Bits of [`path`].
    pub path: u32,
    /// Thread id; 0 when the slot is free.
    pub tid: u32,
    /// Its process.
    pub tgid: u32,
    /// Its own place in the map, plus one.
    pub slot_plus_one: u32,
    /// Explicit padding.
    pub reserved: u32,
    /// Switches that were not seen, since somebody last asked.
    pub missed: u32,
    /// Instants that were out of order, and spans that did not add up and had to be left unexplained, since then.
    pub discarded: u32,
    /// Begin of the open segment, monotonic ns.
    pub since: u64,
    /// First argument of that call: the address of the futex, if it is one.
    pub word: u64,
    /// What is known of its control groups' quotas.
    pub quota: Quota,
    /// Overlays at the begin of the open segment.
    pub overlay: Overlay,
    /// The sleeps on that futex that are one wait.
    pub slices: Slices,
    /// The wake that ends the open sleep.
    pub woken: Woken,
    /// Sums by cause of all closed segments.
    pub sums: Parts,
    /// Sums at earlier instants.
    pub history: History,
    /// Its name when the clock began.
    pub comm: [u8; 16],
    /// When the clock began, monotonic ns.
    pub born_at: u64,
    /// Ticks of the timer that came upon it.
    pub ticks: Ticks,
    /// What a look back is computed in.
    pub scratch: [Parts; 2],
}

/// A segment that has just ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Its main cause.
    pub cause: u32,
    /// Explicit padding.
    pub reserved: u32,
    /// Its begin.
    pub began_at: u64,
    /// Its end.
    pub ended_at: u64,
}

impl Thread {
    /// A free slot.
    pub const FREE: Self = Self {
        state: state::UNKNOWN,
        mode: 0,
        call: 0,
        hand: 0,
        jvm: 0,
        path: 0,
        tid: 0,
        tgid: 0,
        slot_plus_one: 0,
        reserved: 0,
        missed: 0,
        discarded: 0,
        since: 0,
        word: 0,
        quota: Quota::NONE,
        overlay: Overlay::NONE,
        slices: Slices::NONE,
        woken: Woken {
            at: 0,
            early_at: 0,
            run_delay_ns: 0,
            by: by::NOBODY,
            tid: 0,
            carried_from: 0,
            overlay: Overlay::NONE,
            carried: 0,
            marks: [Mark::new(0, 0); CARRIED],
            earlier: [0; cause::COUNT],
        },
        sums: [0; cause::COUNT],
        history: History::EMPTY,
        comm: [0; 16],
        born_at: 0,
        ticks: Ticks::NONE,
        scratch: [[0; cause::COUNT]; 2],
    };

    /// The clock begins; what the thread did before is not known.
    #[inline(always)]
    pub fn begin(&mut self, slot: u32, tid: u32, tgid: u32, now: u64, running: bool) {
        self.tid = tid;
        self.tgid = tgid;
        self.slot_plus_one = slot.wrapping_add(1);
        self.jvm = 0;
        self.hand = 0;
        self.path = 0;
        self.mode = 0;
        self.woken.at = 0;
        self.slices.word = 0;
        self.quota = Quota::NONE;
        self.overlay = Overlay::default();
        self.state = if running { state::RUNNING } else { state::UNKNOWN };
        self.since = now;
        self.born_at = now;
        self.ticks = Ticks::NONE;
        self.sums = [0; cause::COUNT];
        self.history.begin(now);
    }

    /// Length of the open segment; 0, and counted, when the clock ran backwards.
    #[inline(always)]
    fn elapsed(&mut self, now: u64) -> u64 {
        if now < self.since {
            self.discarded += 1;
            return 0;
        }
        now - self.since
    }

    /// The cause of time on CPU, or in an uninterruptible wait, given what it is for.
    #[inline(always)]
    fn of_mode(&self, otherwise: usize) -> usize {
        if self.mode & mode::RECLAIM != 0 {
            cause::RECLAIM
        } else if self.mode & mode::FSYNC != 0 {
            cause::FSYNC
        } else {
            otherwise
        }
    }

    /// The cause of time on CPU.
    #[inline(always)]
    #[must_use]
    pub fn cause_on_cpu(&self) -> usize {
        self.of_mode(cause::ON_CPU)
    }

    /// The next `ns` of the clock are of one cause.
    #[inline(always)]
    fn charge(&mut self, cause: usize, ns: u64) {
        if ns == 0 {
            return;
        }
        let cause = cause & (cause::COUNT - 1);
        self.sums[cause] = self.sums[cause].wrapping_add(ns);
        self.since = self.since.wrapping_add(ns);
        self.history.push(self.since, cause);
    }

    /// Closes time on CPU up to `now`; the thread goes on running. For the thread itself.
    #[inline(always)]
    pub fn settle(&mut self, now: u64, irq_ns: u64) {
        if self.state != state::RUNNING {
            self.catch_up(now);
        } else {
            let elapsed = self.elapsed(now);
            let irq = less(irq_ns, self.overlay.irq_ns, elapsed);
            self.charge(cause::IRQ, irq);
            self.charge(self.cause_on_cpu(), elapsed - irq);
        }
        self.overlay.irq_ns = irq_ns;
        self.history.keep(self.since, &self.sums);
    }

    /// When was a thread that slept given the CPU on which it runs `now`, although no switch was seen? Some kernels
    /// leave a few of a thousand untraced; what they count of its waits, `run_delay_ns` by now, tells. 0 when it cannot be told.
    #[inline(always)]
    #[must_use]
    pub fn arrived_at(&self, now: u64, run_delay_ns: u64) -> u64 {
        let runnable_since = self.runnable_since(now);
        if !self.is_asleep() || runnable_since == 0 {
            return 0;
        }
        let waited = run_delay_ns.wrapping_sub(self.woken.run_delay_ns);
        if waited <= now.saturating_sub(runnable_since) { runnable_since + waited } else { 0 }
    }

    /// When did the open sleep end? 0 when no wake was seen.
    #[inline(always)]
    fn runnable_since(&self, now: u64) -> u64 {
        let seen = self.woken.at >= self.since && self.woken.at <= now;
        // A wake on another CPU can come while the thread is still on its way to sleep.
        let early = self.since.wrapping_sub(self.woken.early_at) < EARLY_NS;
        if seen {
            self.woken.at
        } else if early {
            self.since
        } else {
            0
        }
    }

    /// The thread runs although no switch gave it a CPU, and nobody can tell since when. The sleep before is known where
    /// its wake was seen.
    #[inline(never)]
    fn catch_up(&mut self, now: u64) {
        if self.is_asleep() && self.woken.at >= self.since && self.woken.at <= now {
            let woken_at = self.woken.at;
            let overlay = self.overlay;
            self.close_sleep(woken_at, true, &overlay);
        }
        let missed = self.elapsed(now);
        self.charge(cause::UNEXPLAINED, missed);
        self.missed += 1;
        self.state = state::RUNNING;
    }

    /// The thread loses its CPU. `state` is what it does then, `overlay` the overlays now.
    #[inline(always)]
    pub fn switch_out(&mut self, now: u64, state: u32, overlay: &Overlay) {
        self.settle(now, overlay.irq_ns);
        self.take(state);
        self.woken.at = 0;
        self.state = state;
        self.overlay = *overlay;
    }

    /// Does the open segment end by a wake?
    #[inline(always)]
    #[must_use]
    pub fn is_asleep(&self) -> bool {
        self.state >= state::STOPPED
    }

    /// The thread gets a CPU. Tells of the longest of the segments that end with it.
    #[inline(always)]
    pub fn switch_in(&mut self, now: u64, overlay: &Overlay) -> Segment {
        let began_at = self.since;
        let mut longest = Segment::default();
        if self.state == state::UNKNOWN || self.state == state::RUNNING {
            let missed = self.elapsed(now);
            self.charge(cause::UNEXPLAINED, missed);
            self.missed += u32::from(self.state == state::RUNNING);
        } else {
            let mut runnable_since = began_at;
            let mut throttled_ns = self.overlay.throttled_ns;
            if self.is_asleep() {
                let seen = self.woken.at >= began_at && self.woken.at <= now;
                runnable_since = match self.runnable_since(now) {
                    0 => now,
                    known => known,
                };
                if seen {
                    throttled_ns = self.woken.overlay.throttled_ns;
                }
                let cause = self.close_sleep(runnable_since, seen, overlay);
                longest = Segment { cause: cause as u32, reserved: 0, began_at, ended_at: runnable_since };
                if seen && self.woken.by != by::NOBODY {
                    if cause == cause::LOCK && self.is_retaken() {
                        longest.began_at = self.retake();
                    }
                    self.slices.word = 0;
                }
            }
            let waited = now.saturating_sub(self.since);
            let throttled = less(overlay.throttled_ns, throttled_ns, waited);
            self.charge(cause::CPU_THROTTLE, throttled);
            self.charge(cause::RUN_QUEUE, waited - throttled);
            if waited > longest.ended_at.wrapping_sub(longest.began_at) {
                let cause = if throttled > waited / 2 { cause::CPU_THROTTLE } else { cause::RUN_QUEUE };
                longest =
                    Segment { cause: cause as u32, reserved: 0, began_at: runnable_since, ended_at: now };
            }
        }
        self.state = state::RUNNING;
        self.overlay.irq_ns = overlay.irq_ns;
        self.history.keep(self.since, &self.sums);
        longest
    }

    /// Charges the sleep from `since` to `until` and tells its main cause.
    #[inline(always)]
    fn close_sleep(&mut self, until: u64, seen: bool, overlay: &Overlay) -> usize {
        let elapsed = self.elapsed(until);
        let cause = match self.state {
            state::STOPPED => cause::STOPPED,
            state::DISK_IO => self.of_mode(cause::DISK_IO),
            state::KERNEL_WAIT => self.of_mode(cause::KERNEL_WAIT),
            state::SLEEP => self.of_mode(cause::SLEEP),
            _ => return self.close_futex(elapsed, seen, overlay),
        };
        self.charge(cause, elapsed);
        cause
    }

    /// A futex sleep: the hand's clock, a safepoint, or a lock.
    #[inline(always)]
    fn close_futex(&mut self, elapsed: u64, seen: bool, overlay: &Overlay) -> usize {
        if seen && self.woken.by == by::HAND {
            self.follow_hand();
            return cause::ON_CPU;
        }
        let end = if seen { &self.woken.overlay } else { overlay };
        let held = end.safepoints().since(&self.overlay.safepoints());
        let gc = held.gc_ns.min(elapsed);
        let safepoint = held.other_ns.min(elapsed - gc);
        let rest = elapsed - gc - safepoint;
        let rest_cause = if seen && self.woken.by != by::NOBODY { cause::LOCK } else { cause::SLEEP };
        self.charge(cause::GC, gc);
        self.charge(cause::SAFEPOINT, safepoint);
        self.charge(rest_cause, rest);
        if gc > elapsed / 2 {
            cause::GC
        } else if safepoint > elapsed / 2 {
            cause::SAFEPOINT
        } else {
            rest_cause
        }
    }

    /// How far the clock is from an instant; 0 when it is past it.
    #[inline(always)]
    fn until(&self, at: u64) -> u64 {
        at.saturating_sub(self.since)
    }

    /// The parts of a span of `length` ns, from the two looks back to its end (first place) and its begin, into the
    /// first place; they sum to its length.
    #[inline(always)]
    fn subtract(&mut self, length: u64) {
        let (first, second) = self.scratch.split_at_mut(1);
        let mut sum = 0_u64;
        for (to, from) in first[0].iter_mut().zip(&second[0]) {
            *to = to.wrapping_sub(*from);
            sum = sum.wrapping_add(*to);
        }
        if sum != length {
            // The clock was written meanwhile: better nothing than something that does not add up.
            first[0] = [0; cause::COUNT];
            first[0][cause::UNEXPLAINED] = length;
            self.discarded += 1;
        }
    }
}

/// How far an overlay grew, at most `limit`.
#[inline(always)]
fn less(now: u64, before: u64, limit: u64) -> u64 {
    let grown = now.saturating_sub(before);
    if grown < limit { grown } else { limit }
}

#[cfg(test)]
mod tests;
