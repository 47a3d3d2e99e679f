//! The stops of a JVM: begin, operation and end of each in, a clock out that says how long its threads were
//! held at safepoints, for garbage collection and for other reasons, up to any instant.
//!
//! Invariants: the total of a [`Totals`] never runs backwards over well-formed stops, also while the kind of
//! an open stop is not known yet; the shares of [`Totals::since`] sum to its total. Deliberately absent: who
//! tells of a begin or an end (uprobes, the scheduler), and the reading of a clock that another CPU writes
//! (`bin/probe/safepoints.rs`).

use crate::histogram::decimal_index;

/// Why a JVM stopped.
pub mod stop {
    /// Not known: its operation was not seen.
    pub const UNKNOWN: u32 = 0;
    /// For garbage collection.
    pub const GC: u32 = 1;
    /// For another reason.
    pub const OTHER: u32 = 2;
}

/// How the stops of a JVM are seen, best first.
pub mod rung {
    /// Not at all: no JVM, or no room for its clock.
    pub const NONE: u32 = 0;
    /// By the USDT notes of its libjvm.
    pub const USDT: u32 = 1;
    /// By functions that the symbol table of its libjvm names.
    pub const SYMBOLS: u32 = 2;
    /// By the thread that wakes its sleepers; what for, by its performance counters.
    pub const HSPERFDATA: u32 = 3;
    /// By the thread that wakes its sleepers; what for is not known.
    pub const SCHEDULER: u32 = 4;
    /// How many there are.
    pub const COUNT: usize = 5;
    /// Their names in records and metrics.
    pub const NAMES: [&str; COUNT] = ["none", "usdt", "symbols", "hsperfdata", "scheduler"];
}

/// Bytes that are kept of an operation's name: the longest of JDK 25 has 31 characters.
pub const NAME_BYTES: usize = 32;

/// Starts of the names of operations that collect garbage, in the numbering of `VM_OPS_DO`
/// (src/hotspot/share/runtime/vmOperation.hpp, JDK 8 to 25): CMS up to 13, Gen up to 23, X in 21 to 23.
const GC_STARTS: [&[u8]; 21] = [
    b"G1Collect",
    b"G1Pause",
    b"G1Inc",
    b"G1Try",
    b"G1Concurrent",
    b"GenCollect",
    b"SerialCollect",
    b"SerialGC",
    b"ParallelGC",
    b"ParallelCollect",
    b"CollectFor",
    b"CGC_",
    b"CMS_",
    b"ZMark",
    b"ZRelocate",
    b"ZVerify",
    b"ZOperation",
    b"XMark",
    b"XRelocate",
    b"XVerify",
    b"Shenandoah",
];

/// First eight bytes of the starts, as little-endian words, and the mask of those that count: two loads and
/// an instruction each instead of a loop over bytes. No two kinds of operation share eight bytes.
const GC_WORDS: [(u64, u64); GC_STARTS.len()] = gc_words();

const fn gc_words() -> [(u64, u64); GC_STARTS.len()] {
    let mut words = [(0, 0); GC_STARTS.len()];
    let mut i = 0;
    while i < GC_STARTS.len() {
        let start = GC_STARTS[i];
        let mut j = 0;
        while j < start.len() && j < 8 {
            words[i].0 |= (start[j] as u64) << (8 * j);
            words[i].1 |= 0xff << (8 * j);
            j += 1;
        }
        i += 1;
    }
    words
}

/// Whether an operation of this name collects garbage.
#[inline(always)]
#[must_use]
pub fn is_gc(name: &[u8; NAME_BYTES]) -> bool {
    let word = u64::from_le_bytes([name[0], name[1], name[2], name[3], name[4], name[5], name[6], name[7]]);
    let mut gc = 0;
    let mut i = 0;
    while i < GC_WORDS.len() {
        gc |= (word & GC_WORDS[i].1 == GC_WORDS[i].0) as u32;
        i += 1;
    }
    gc != 0
}

/// How long the threads of a JVM were held, up to an instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// For garbage collection, ns.
    pub gc_ns: u64,
    /// For other reasons, ns; while a stop is open and its kind is not known, that too.
    pub other_ns: u64,
}

impl Totals {
    /// How long they were held between `before` and this instant. A stop whose kind became known in between
    /// is charged to its kind as far as it lies in between.
    #[inline(always)]
    #[must_use]
    pub fn since(&self, before: &Totals) -> Totals {
        let total = (self.gc_ns + self.other_ns).saturating_sub(before.gc_ns + before.other_ns);
        let gc_ns = self.gc_ns.saturating_sub(before.gc_ns).min(total);
        Totals { gc_ns, other_ns: total - gc_ns }
    }
}

/// The part of a clock that other threads read while it runs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Odd while it is being written; the kernel side's hooks count it.
    pub sequence: u64,
    /// Sum of the stops for garbage collection that are over, ns.
    pub gc_ns: u64,
    /// Sum of the others that are over, ns.
    pub other_ns: u64,
    /// Begin of the open stop, monotonic ns; 0 when there is none.
    pub open_since: u64,
    /// Kind of the open stop, one of [`stop`].
    pub open_kind: u32,
    /// Explicit padding.
    pub reserved: u32,
}

impl Stopped {
    /// The totals up to `now`, with the part of an open stop that lies before it.
    #[inline(always)]
    #[must_use]
    pub fn at(&self, now: u64) -> Totals {
        let open_ns = if self.open_since == 0 { 0 } else { now.saturating_sub(self.open_since) };
        let (gc, other) = if self.open_kind == stop::GC { (open_ns, 0) } else { (0, open_ns) };
        Totals { gc_ns: self.gc_ns + gc, other_ns: self.other_ns + other }
    }
}

/// Lengths of stops of a kind, with the decimal bounds of [`crate::histogram::BOUNDS_NS`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pauses {
    /// Stops.
    pub count: u64,
    /// Their sum, ns.
    pub sum_ns: u64,
    /// The longest, ns.
    pub max_ns: u64,
    /// Stops per bucket, not cumulative.
    pub decimal: [u64; 16],
}

impl Pauses {
    /// No stop.
    pub const NONE: Self = Self { count: 0, sum_ns: 0, max_ns: 0, decimal: [0; 16] };

    /// Adds one stop.
    #[inline(always)]
    pub fn add(&mut self, ns: u64) {
        self.count += 1;
        self.sum_ns = self.sum_ns.wrapping_add(ns);
        if ns > self.max_ns {
            self.max_ns = ns;
        }
        self.decimal[decimal_index(ns) & 15] += 1;
    }

    /// Adds all stops of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum_ns = self.sum_ns.wrapping_add(other.sum_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
        for (mine, theirs) in self.decimal.iter_mut().zip(&other.decimal) {
            *mine += theirs;
        }
    }
}

/// A stop that is over.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stop {
    /// When its threads were told to stop, monotonic ns.
    pub began_at: u64,
    /// When they had been told to go on, monotonic ns.
    pub ended_at: u64,
    /// One of [`stop`].
    pub kind: u32,
    /// Explicit padding.
    pub reserved: u32,
    /// What for, as HotSpot calls it; zeros when its operation was not seen.
    pub name: [u8; NAME_BYTES],
}

/// The clock of a JVM. One thread of it begins and ends stops, so there is one writer at a time.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SafepointClock {
    /// What other threads read.
    pub stopped: Stopped,
    /// Whose clock: the process id.
    pub tgid: u32,
    /// How its stops are seen, one of [`rung`].
    pub rung: u32,
    /// Stops begun.
    pub begun: u64,
    /// Stops that could not be measured: one that began while another was open, one that ended without
    /// having begun, one whose end lies before its begin.
    pub discarded: u64,
    /// Lengths of the stops for garbage collection.
    pub gc: Pauses,
    /// Lengths of the others.
    pub other: Pauses,
    /// What the open stop is for.
    pub open_name: [u8; NAME_BYTES],
    /// The one that ended last.
    pub last: Stop,
}

impl SafepointClock {
    /// A clock of which nothing is known.
    pub const ZERO: Self = Self {
        stopped: Stopped { sequence: 0, gc_ns: 0, other_ns: 0, open_since: 0, open_kind: 0, reserved: 0 },
        tgid: 0,
        rung: rung::NONE,
        begun: 0,
        discarded: 0,
        gc: Pauses::NONE,
        other: Pauses::NONE,
        open_name: [0; NAME_BYTES],
        last: Stop { began_at: 0, ended_at: 0, kind: 0, reserved: 0, name: [0; NAME_BYTES] },
    };

    /// The threads are told to stop.
    #[inline(always)]
    pub fn begin(&mut self, now: u64) {
        self.begin_as(now, stop::UNKNOWN);
    }

    /// As [`Self::begin`], with a kind that holds as long as no operation is seen.
    #[inline(always)]
    pub fn begin_as(&mut self, now: u64, kind: u32) {
        if self.stopped.open_since != 0 {
            self.discarded += 1;
        }
        self.begun += 1;
        self.stopped.open_since = now;
        self.stopped.open_kind = kind;
        self.open_name = [0; NAME_BYTES];
    }

    /// The operation that the open stop is for begins. The first one counts, others are part of it; one
    /// outside of a stop does not hold anybody.
    #[inline(always)]
    pub fn operation(&mut self, name: &[u8; NAME_BYTES]) {
        if self.stopped.open_since == 0 || self.open_name[0] != 0 {
            return;
        }
        self.open_name = *name;
        self.stopped.open_kind = if is_gc(name) { stop::GC } else { stop::OTHER };
    }

    /// The threads were told to go on. The stop that is over, or `None` when its begin was not seen.
    #[inline(always)]
    pub fn end(&mut self, now: u64) -> Option<Stop> {
        let began_at = self.stopped.open_since;
        if began_at == 0 || now < began_at {
            self.stopped.open_since = 0;
            self.discarded += 1;
            return None;
        }
        let (ns, kind) = (now - began_at, self.stopped.open_kind);
        if kind == stop::GC {
            self.stopped.gc_ns += ns;
            self.gc.add(ns);
        } else {
            self.stopped.other_ns += ns;
            self.other.add(ns);
        }
        self.stopped.open_since = 0;
        self.last = Stop { began_at, ended_at: now, kind, reserved: 0, name: self.open_name };
        Some(self.last)
    }

    /// How long the threads were held up to `now`.
    #[inline(always)]
    #[must_use]
    pub fn at(&self, now: u64) -> Totals {
        self.stopped.at(now)
    }
}

const _: () = {
    assert!(size_of::<Stopped>() == 40);
    assert!(size_of::<Pauses>() == 152);
    assert!(size_of::<Stop>() == 56);
    assert!(size_of::<SafepointClock>() == 40 + 24 + 2 * 152 + 32 + 56);
};

#[cfg(test)]
mod tests;
